//! Explanations of all that can be known of a task: take *the* reason away, and the next one is named, until it starts.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::core::forecast::ForecastRecord;
use crate::core::hold::{Hold, HoldReason};

mod reasons;

const NOW: Timestamp = Timestamp::from_millis(1_795_348_800_000); // 2026-11-22T12:00Z

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn free() -> QueueState {
    QueueState { workers: 4, running: 1, idle: 3, ..QueueState::default() }
}

/// A task that waits, with nothing in its way.
fn waits() -> TaskFacts {
    let mut facts = TaskFacts::new("9f0c", NOW);
    facts.task = Some("app.mail".to_owned());
    facts.queue = Some("email".to_owned());
    let service = Service::Here(free());
    let (ahead, is_serial) = (Some(BoundedCount::exactly(0)), Some(false));
    facts.wait = Some(WaitFacts { service, ahead, is_serial, ..WaitFacts::default() });
    facts
}

fn lane(blocked: bool) -> LaneWait {
    LaneWait {
        scope: "app.mail".to_owned(),
        key: "joe".to_owned(),
        concurrency: 1,
        holders: vec![("late".to_owned(), NOW), ("early".to_owned(), NOW - seconds(60))],
        ahead: BoundedCount::exactly(2),
        blocked: blocked.then(|| ("bad".to_owned(), NOW - seconds(9), "boom".to_owned())),
    }
}

fn rate_limit(wait: Option<u64>) -> Hold {
    Hold { reason: HoldReason::RateLimit { limit: "10/m".to_owned() }, wait: wait.map(seconds) }
}

fn codes(explanation: &Explanation) -> Vec<&'static str> {
    explanation.reasons.iter().map(TaskReason::code).collect()
}

/// All at once, and then one after the other is taken away, each time the one that is named.
#[test]
fn the_reason_is_true_take_it_away_and_the_next_is_named() {
    let mut facts = waits();
    let wait = facts.wait.get_or_insert_default();
    wait.due = Some(NOW + seconds(5));
    wait.pause = Some(PauseFacts::default());
    wait.holds = vec![rate_limit(Some(6))];
    wait.is_serial = Some(true);
    wait.lane = Some(lane(true));
    wait.is_unchecked = true;
    wait.ahead = Some(BoundedCount::exactly(7));
    wait.service = Service::Here(QueueState {
        workers: 2,
        running: 2,
        idle: 0,
        halted: Some("its workers died".to_owned()),
        is_draining: true,
        is_cancelled: true,
        busy_pool: Some(8),
    });
    let all = [
        "not_due",
        "paused",
        "held",
        "lane_blocked",
        "lane_busy",
        "not_served",
        "draining",
        "halted",
        "store_asked",
        "queue_full",
        "behind",
        "slots_busy",
        "starting",
    ];
    for (taken, first) in all.iter().enumerate() {
        let explained = explain(facts.clone());
        let expected = if *first == "starting" { &all[taken..] } else { &all[taken..all.len() - 1] };
        assert_eq!(codes(&explained), expected);
        assert_eq!((explained.reason().code(), explained.state()), (*first, "waiting"));
        // What is ruled out does not apply, and what was taken away is ruled out.
        let ruled_out: Vec<_> = explained.ruled_out.iter().map(|it| it.code()).collect();
        assert!(ruled_out.iter().all(|code| !codes(&explained).contains(code)), "{ruled_out:?}");
        let wait = facts.wait.get_or_insert_default();
        let Service::Here(queue) = &mut wait.service else { panic!("it is served here") };
        match *first {
            "not_due" => wait.due = None,
            "paused" => wait.pause = None,
            "held" => wait.holds.clear(),
            "lane_blocked" => wait.lane = Some(lane(false)),
            "lane_busy" => wait.lane = None,
            "not_served" => queue.is_cancelled = false,
            "draining" => queue.is_draining = false,
            "halted" => queue.halted = None,
            "store_asked" => wait.is_unchecked = false,
            "queue_full" => (queue.workers, queue.idle) = (4, 2),
            "behind" => wait.ahead = Some(BoundedCount::exactly(1)),
            "slots_busy" => queue.busy_pool = None,
            _ => {}
        }
    }
    let ruled_out: Vec<_> = explain(facts).ruled_out.iter().map(|it| it.code()).collect();
    let expected = [
        "not_due",
        "paused",
        "held",
        "lane_busy",
        "not_served",
        "draining",
        "halted",
        "queue_full",
        "behind",
    ];
    assert_eq!(ruled_out, expected);
}

#[test]
fn nothing_is_ruled_out_that_nobody_has_looked_at() {
    for (service, first) in [
        (Service::Unasked, "starting"),
        (Service::Silent, "not_answering"),
        (Service::Ended, "draining"),
        (Service::NotHere(NotServed::NoSuchQueue), "not_served"),
    ] {
        let mut facts = waits();
        facts.wait.get_or_insert_default().service = service;
        let explained = explain(facts);
        assert_eq!(explained.reason().code(), first);
        let ruled_out: Vec<_> = explained.ruled_out.iter().map(|it| it.code()).collect();
        assert_eq!(ruled_out, ["not_due", "lane_busy"], "{first}");
    }
    let mut serial = waits();
    let wait = serial.wait.get_or_insert_default();
    (wait.is_serial, wait.due) = (Some(true), Some(NOW + seconds(9)));
    let explained = explain(serial);
    assert!(explained.ruled_out.iter().all(|it| it.code() != "lane_busy"), "it has not come to its lane");
}

#[test]
fn an_attempt_that_failed_is_told_from_an_eta() {
    let mut facts = waits();
    let wait = facts.wait.get_or_insert_default();
    (wait.due, wait.tries) = (Some(NOW + seconds(5)), 2);
    let explained = explain(facts.clone());
    assert_eq!(*explained.reason(), TaskReason::RetryAt { attempt: 3, at: NOW + seconds(5) });
    assert_eq!(explained.starts, Some(StartForecast::NotBefore { at: NOW + seconds(5) }));
    facts.wait.get_or_insert_default().due = Some(NOW);
    assert_eq!(explain(facts).reason().code(), "starting", "it is due");
}

#[test]
fn who_is_first_with_workers_free_is_not_behind_anybody() {
    let behind = |ahead, idle| {
        let mut facts = waits();
        let wait = facts.wait.get_or_insert_default();
        wait.ahead = Some(BoundedCount::exactly(ahead));
        wait.service = Service::Here(QueueState { idle, ..free() });
        codes(&explain(facts)).contains(&"behind")
    };
    assert!(!behind(0, 0) && !behind(2, 3) && behind(3, 3) && behind(1, 0));
    let mut starting = waits();
    starting.wait.get_or_insert_default().service = Service::Here(QueueState { idle: 0, ..free() });
    assert_eq!(*explain(starting).reason(), TaskReason::WorkersStarting { workers: 3 });
}

#[test]
fn the_holder_that_is_in_for_the_longest_time_is_named() {
    let mut facts = waits();
    let wait = facts.wait.get_or_insert_default();
    (wait.is_serial, wait.lane) = (Some(true), Some(lane(false)));
    let explained = explain(facts);
    let TaskReason::LaneBusy { holder, since, ahead, .. } = explained.reason() else { panic!("{explained}") };
    assert_eq!((holder.as_deref(), *since), (Some("early"), Some(NOW - seconds(60))));
    assert_eq!((*ahead, &explained.starts), (BoundedCount::exactly(2), &Some(StartForecast::Open)));
}

#[test]
fn a_forecast_is_told_if_only_others_delay_the_task() {
    let record = ForecastRecord { right: 8, of: 10 };
    let forecast = StartForecast::Between { from: NOW + seconds(5), to: NOW + seconds(9), record };
    let mut facts = waits();
    facts.forecast = Some(forecast);
    facts.wait.get_or_insert_default().ahead = Some(BoundedCount::exactly(9));
    assert_eq!(explain(facts.clone()).starts, Some(forecast));
    let wait = facts.wait.get_or_insert_default();
    wait.holds = vec![rate_limit(Some(6))];
    assert_eq!(explain(facts.clone()).starts, Some(StartForecast::NotBefore { at: NOW + seconds(6) }));
    facts.wait.get_or_insert_default().holds = vec![rate_limit(None)];
    assert_eq!(explain(facts.clone()).starts, Some(StartForecast::Open));
    let until = Some(NOW + seconds(60));
    facts.wait.get_or_insert_default().pause = Some(PauseFacts { until, ..PauseFacts::default() });
    assert_eq!(explain(facts).starts, Some(StartForecast::NotBefore { at: NOW + seconds(60) }));
}

#[test]
fn what_does_not_wait_has_one_reason() {
    let mut over = waits();
    over.over = Some(EndFacts { state: "FAILURE".to_owned(), at: NOW - seconds(5) });
    let over = explain(over);
    assert_eq!((codes(&over), over.state(), over.starts), (vec!["over"], "over", None));
    assert_eq!(over.to_string(), "It is over for 5 s: FAILURE.");
    let mut running = waits();
    running.run = Some(RunFacts { attempt: Some(1), ..RunFacts::default() });
    assert_eq!(explain(running).to_string(), "It runs, attempt 1.");
    let mut moving = TaskFacts::new("9f0c", NOW);
    moving.is_moving = true;
    assert_eq!(codes(&explain(moving)), ["moving"]);
    let unknown = explain(TaskFacts::new("9f0c", NOW));
    assert_eq!((unknown.state(), unknown.ruled_out.len()), ("unknown", 0));
}

/// The JSON that docs/why-and-when.md explains. Programs read it: a change here is a change for them.
#[test]
fn the_json_is_as_the_manual_says() {
    let mut facts = waits();
    facts.tenant = Some("demo".to_owned());
    facts.scope.asked = vec!["store".to_owned(), "broker memory".to_owned(), "queue `email`".to_owned()];
    facts.forecast = Some(StartForecast::Between {
        from: NOW + seconds(120),
        to: NOW + seconds(300),
        record: ForecastRecord { right: 81, of: 100 },
    });
    let wait = facts.wait.get_or_insert_default();
    wait.ahead = Some(BoundedCount { count: 10_000, or_more: true });
    wait.service = Service::Here(QueueState { workers: 1, running: 1, ..QueueState::default() });
    let resize = "Give the queue more workers: `Celeriac::resize`, or `celeriac control resize email N`.";
    let urgent = "Call what is more urgent with a higher priority, or into a queue of its own.";
    let full = json!({
        "code": "queue_full",
        "workers": 1,
        "says": "The one worker of its queue `email` has a task.",
        "remedies": [
            { "by": "itself", "says": "It starts when workers have ended what they run." },
            { "by": "operator", "says": resize },
        ],
    });
    let expected = json!({
        "id": "9f0c",
        "task": "app.mail",
        "queue": "email",
        "tenant": "demo",
        "state": "waiting",
        "sentence": "It waits because the one worker of its queue `email` has a task.",
        "reason": full,
        "reasons": [
            full,
            {
                "code": "behind",
                "ahead": { "count": 10_000, "or_more": true },
                "of_tenant": null,
                "says": "10,000 tasks or more go before it.",
                "remedies": [
                    { "by": "itself", "says": "It starts when its turn comes." },
                    { "by": "caller", "says": urgent },
                ],
            },
        ],
        "ruled_out": [
            { "code": "not_due", "says": "It is due." },
            { "code": "paused", "says": "Its queue `email` is not paused." },
            { "code": "held", "says": "No rate limit, brake or limit holds it." },
            { "code": "lane_busy", "says": "It stands in no lane." },
            { "code": "not_served", "says": "Its queue `email` is served here, and answers." },
            { "code": "draining", "says": "The program is not shutting down." },
            { "code": "halted", "says": "Its queue `email` has not stopped itself." },
        ],
        "starts": {
            "kind": "between",
            "from": "2026-11-22T12:02:00+00:00",
            "to": "2026-11-22T12:05:00+00:00",
            "record": { "right": 81, "of": 100, "coverage": 0.81 },
            "says": "It is likely to start in 2 min to 5 min. Of such forecasts of its queue, 81 % of the last 100 came true.",
        },
        "as_of": "2026-11-22T12:00:00+00:00",
        "scope": {
            "node": null,
            "asked": ["store", "broker memory", "queue `email`"],
            "silent": [],
            "cannot_know": [],
        },
    });
    assert_eq!(serde_json::to_value(explain(facts)).unwrap(), expected);
}

/// The code of each reason in JSON is the one that programs ask by.
#[test]
fn each_reason_has_its_code_in_json_and_its_facts_beside_it() {
    for reason in reasons::every_reason() {
        let json = serde_json::to_value(&reason).unwrap();
        assert_eq!(json["code"], Value::from(reason.code()), "{json}");
    }
    let held = TaskReason::Held { hold: rate_limit(None).reason, wait: Some(seconds(1)) };
    let json = serde_json::to_value(held).unwrap();
    assert_eq!(json, json!({ "code": "held", "hold": "rate_limit", "wait_ms": 1000.0 }));
}

#[test]
fn a_demotion_is_named_last_and_keeps_nothing_from_starting() {
    let mut facts = TaskFacts::new("id", NOW);
    facts.queue = Some("slow".to_owned());
    facts.demoted_from = Some("fast".to_owned());
    facts.wait = Some(WaitFacts::default());
    let demoted = TaskReason::Demoted { from: "fast".to_owned() };
    let explanation = explain(facts.clone());
    assert_eq!(explanation.reasons, [TaskReason::Starting, demoted.clone()]);
    let said = "Its tenant had sent more than the queue `fast` takes from one tenant, so it went to its queue `slow`.";
    assert_eq!(explanation.says(&demoted), said);
    facts.wait = Some(WaitFacts { due: Some(NOW + Duration::from_secs(5)), ..WaitFacts::default() });
    let explanation = explain(facts);
    assert!(matches!(
        explanation.reasons.as_slice(),
        [TaskReason::NotDue { .. }, TaskReason::Demoted { .. }]
    ));
}
