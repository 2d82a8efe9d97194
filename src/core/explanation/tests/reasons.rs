//! Each reason, and each hold: it is named, somebody can do something about it, and without it the next one is named or the task
//! runs. Two functions match all variants, so that none is added without a line here.

use super::*;
use crate::core::slots::SlotHold;
use crate::core::start_limit::LimitedBy;

/// A reason of each kind.
pub(super) fn every_reason() -> Vec<TaskReason> {
    let text = || "x".to_owned();
    let zero = BoundedCount::exactly(0);
    vec![
        TaskReason::NotDue { at: NOW },
        TaskReason::RetryAt { attempt: 2, at: NOW },
        TaskReason::Paused { by: None, until: Some(NOW), is_kept: true },
        TaskReason::Held { hold: rate_limit(None).reason, wait: Some(seconds(1)) },
        TaskReason::LaneBlocked { scope: text(), key: text(), by: text(), since: NOW, error: text() },
        TaskReason::LaneBusy {
            scope: text(),
            key: text(),
            ahead: zero,
            concurrency: 1,
            holder: None,
            since: None,
        },
        TaskReason::NotServed { why: NotServed::ProgramStopped },
        TaskReason::NotAnswering,
        TaskReason::Draining,
        TaskReason::Halted { why: text() },
        TaskReason::StoreAsked,
        TaskReason::QueueFull { workers: 1 },
        TaskReason::WorkersStarting { workers: 1 },
        TaskReason::Behind { ahead: zero, of_tenant: Some(1) },
        TaskReason::SlotsBusy { slots: 1 },
        TaskReason::Demoted { from: text() },
        TaskReason::Starting,
        TaskReason::Moving,
        TaskReason::Elsewhere { node: text(), how: text() },
        TaskReason::Running { since: None, worker: None, attempt: None },
        TaskReason::Over { state: text(), at: NOW },
        TaskReason::Unknown { told: None },
    ]
}

/// Whether a task waits for this reason. A reason that is added has to be added to [`every_reason`] as well.
fn is_to_wait(reason: &TaskReason) -> bool {
    match reason {
        TaskReason::Running { .. } | TaskReason::Over { .. } | TaskReason::Unknown { .. } => false,
        TaskReason::NotDue { .. }
        | TaskReason::RetryAt { .. }
        | TaskReason::Paused { .. }
        | TaskReason::Held { .. }
        | TaskReason::LaneBlocked { .. }
        | TaskReason::LaneBusy { .. }
        | TaskReason::NotServed { .. }
        | TaskReason::NotAnswering
        | TaskReason::Draining
        | TaskReason::Halted { .. }
        | TaskReason::StoreAsked
        | TaskReason::QueueFull { .. }
        | TaskReason::WorkersStarting { .. }
        | TaskReason::Behind { .. }
        | TaskReason::SlotsBusy { .. }
        | TaskReason::Demoted { .. }
        | TaskReason::Starting
        | TaskReason::Moving
        | TaskReason::Elsewhere { .. } => true,
    }
}

/// A hold of each kind, and of each part of a limit and of a pool.
fn every_hold() -> Vec<HoldReason> {
    let text = || "x".to_owned();
    let limits = [
        LimitedBy::Rate("8/s".to_owned()),
        LimitedBy::Running(3),
        LimitedBy::Daily(9),
        LimitedBy::Hours("09:00-17:00".to_owned()),
        LimitedBy::Breaker { errors: 2, of: 4 },
        LimitedBy::Unanswered,
    ];
    let slots = [
        SlotHold::Closed,
        SlotHold::Gate,
        SlotHold::QueueFull,
        SlotHold::Room { held: 4, of: 5 },
        SlotHold::Reserved { target: seconds(30) },
        SlotHold::OverShare,
        SlotHold::Behind { at_most: 7, own: 3 },
    ];
    let brake = HoldReason::Brake {
        id: "b1".into(),
        action: "pause".into(),
        reason: Some("too many".into()),
        owner: Some("amina".into()),
        until: Some(NOW),
    };
    let limits = limits.map(|by| HoldReason::Limit { name: text(), key: text(), by });
    let slots = slots.map(|why| HoldReason::Slots { why });
    [HoldReason::RateLimit { limit: "10/m".to_owned() }, brake]
        .into_iter()
        .chain(limits)
        .chain(slots)
        .collect()
}

/// What of a hold is told apart. A hold that is added has to be added to [`every_hold`] as well.
fn kind_of(hold: &HoldReason) -> &'static str {
    match hold {
        HoldReason::RateLimit { .. } => "rate limit",
        HoldReason::Brake { .. } => "brake",
        HoldReason::Limit { by, .. } => match by {
            LimitedBy::Rate(_) => "rate",
            LimitedBy::Running(_) => "running",
            LimitedBy::Daily(_) => "daily",
            LimitedBy::Hours(_) => "hours",
            LimitedBy::Breaker { .. } => "breaker",
            LimitedBy::Unanswered => "unanswered",
        },
        HoldReason::Slots { why } => match why {
            SlotHold::Closed => "closed",
            SlotHold::Gate => "gate",
            SlotHold::QueueFull => "queue full",
            SlotHold::Room { .. } => "room",
            SlotHold::Reserved { .. } => "reserved",
            SlotHold::OverShare => "over share",
            SlotHold::Behind { .. } => "behind",
        },
    }
}

fn wait(facts: &mut TaskFacts) -> &mut WaitFacts {
    facts.wait.get_or_insert_default()
}

fn queue(facts: &mut TaskFacts) -> &mut QueueState {
    match &mut wait(facts).service {
        Service::Here(queue) => queue,
        other => panic!("it is served here, and not {other:?}"),
    }
}

/// Nine tasks are before it, and all workers of its queue are busy.
fn busy(facts: &mut TaskFacts) {
    *facts = waits();
    wait(facts).ahead = Some(BoundedCount::exactly(9));
    (queue(facts).running, queue(facts).idle) = (4, 0);
}

fn stand_in_lane(facts: &mut TaskFacts, is_blocked: bool) {
    wait(facts).is_serial = Some(true);
    wait(facts).lane = Some(lane(is_blocked));
}

/// A reason, how a task that is [`busy`] comes to have it, how it is taken away, and the reason that is named then.
type Way = (&'static str, fn(&mut TaskFacts), fn(&mut TaskFacts), &'static str);

const WAYS: [Way; 19] = [
    (
        "not_due",
        |facts| wait(facts).due = Some(NOW + seconds(5)),
        |facts| wait(facts).due = None,
        "queue_full",
    ),
    (
        "retry_at",
        |facts| (wait(facts).due, wait(facts).tries) = (Some(NOW + seconds(5)), 1),
        |facts| wait(facts).due = Some(NOW),
        "queue_full",
    ),
    (
        "paused",
        |facts| wait(facts).pause = Some(PauseFacts::default()),
        |facts| wait(facts).pause = None,
        "queue_full",
    ),
    (
        "held",
        |facts| wait(facts).holds.push(rate_limit(None)),
        |facts| wait(facts).holds.clear(),
        "queue_full",
    ),
    ("lane_blocked", |facts| stand_in_lane(facts, true), |facts| stand_in_lane(facts, false), "lane_busy"),
    ("lane_busy", |facts| stand_in_lane(facts, false), |facts| wait(facts).lane = None, "queue_full"),
    (
        "not_served",
        |facts| queue(facts).is_cancelled = true,
        |facts| queue(facts).is_cancelled = false,
        "queue_full",
    ),
    ("not_answering", |facts| wait(facts).service = Service::Silent, busy, "queue_full"),
    (
        "draining",
        |facts| queue(facts).is_draining = true,
        |facts| queue(facts).is_draining = false,
        "queue_full",
    ),
    (
        "halted",
        |facts| queue(facts).halted = Some("its workers died".to_owned()),
        |facts| queue(facts).halted = None,
        "queue_full",
    ),
    (
        "store_asked",
        |facts| wait(facts).is_unchecked = true,
        |facts| wait(facts).is_unchecked = false,
        "queue_full",
    ),
    ("queue_full", |_| {}, |facts| (queue(facts).workers, queue(facts).idle) = (8, 4), "behind"),
    ("workers_starting", |facts| queue(facts).running = 3, |facts| queue(facts).idle = 1, "behind"),
    ("behind", |facts| queue_is_free(facts, 9), |facts| queue_is_free(facts, 0), "starting"),
    (
        "slots_busy",
        |facts| {
            queue_is_free(facts, 0);
            queue(facts).busy_pool = Some(8);
        },
        |facts| queue(facts).busy_pool = None,
        "starting",
    ),
    (
        "demoted",
        |facts| {
            queue_is_free(facts, 0);
            facts.demoted_from = Some("fast".to_owned());
        },
        |facts| facts.demoted_from = None,
        "starting",
    ),
    ("starting", |facts| queue_is_free(facts, 0), |facts| facts.run = Some(RunFacts::default()), "running"),
    (
        "moving",
        |facts| (facts.wait, facts.is_moving) = (None, true),
        |facts| {
            *facts = waits();
        },
        "starting",
    ),
    (
        "elsewhere",
        |facts| {
            facts.elsewhere =
                Some(ElsewhereFacts { node: "celery@h".to_owned(), how: "reserved".to_owned() });
        },
        |facts| facts.elsewhere = None,
        "queue_full",
    ),
];

/// Three workers have no task, and so many tasks are before it.
fn queue_is_free(facts: &mut TaskFacts, ahead: u64) {
    *facts = waits();
    wait(facts).ahead = Some(BoundedCount::exactly(ahead));
}

#[test]
fn each_reason_is_named_and_without_it_the_next_one_is() {
    for (code, comes, goes, next) in WAYS {
        let mut facts = waits();
        busy(&mut facts);
        comes(&mut facts);
        let explained = explain(facts.clone());
        // A demotion keeps nothing from starting, so it is never the first.
        let named = if code == "demoted" { explained.reasons.last() } else { explained.reasons.first() };
        let named = named.unwrap_or_else(|| panic!("{code}: no reason"));
        assert_eq!((named.code(), explained.state()), (code, "waiting"));
        assert!(explained.says(named).ends_with('.'), "{code}: {}", explained.says(named));
        assert!(!explained.remedies(named).is_empty(), "{code}: nobody can do anything about it");
        goes(&mut facts);
        let explained = explain(facts);
        assert!(!codes(&explained).contains(&code), "{code} is taken away: {explained:?}");
        assert_eq!(explained.reason().code(), next, "after {code}");
    }
}

#[test]
fn each_reason_to_wait_has_its_way() {
    let ways: Vec<&str> = WAYS.iter().map(|(code, ..)| *code).collect();
    let to_wait = every_reason().into_iter().filter(is_to_wait);
    assert_eq!(to_wait.map(|reason| reason.code()).collect::<Vec<_>>(), ways);
}

#[test]
fn each_hold_is_named_and_without_it_the_next_one_is() {
    let mut kinds = Vec::new();
    for hold in every_hold() {
        let kind = kind_of(&hold);
        let mut facts = waits();
        wait(&mut facts).holds = vec![Hold { reason: hold.clone(), wait: None }, rate_limit(Some(6))];
        let explained = explain(facts.clone());
        let held = TaskReason::Held { hold: hold.clone(), wait: None };
        assert_eq!(*explained.reason(), held);
        assert!(explained.sentence().contains(&hold.to_string()), "{kind}: {explained}");
        assert!(explained.remedies(&held).iter().all(|remedy| remedy.says == hold.remedy()), "{kind}");
        wait(&mut facts).holds.remove(0);
        let next = TaskReason::Held { hold: rate_limit(None).reason, wait: Some(seconds(6)) };
        assert_eq!(explain(facts.clone()).reasons, [next], "after {kind}");
        wait(&mut facts).holds.clear();
        assert_eq!(explain(facts).reason().code(), "starting", "after {kind}");
        kinds.push(kind);
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), every_hold().len(), "each kind is there once: {kinds:?}");
}
