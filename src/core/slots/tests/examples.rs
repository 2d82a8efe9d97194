//! Examples that read as documentation.

use std::time::Duration;

use super::super::{CountedWaits, QueueTerms, SlotHold, SlotRules, Slots, WaitingTask};
use crate::core::Timestamp;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000 * (10_000 + seconds))
}

/// A pool whose queues have these targets and typical durations, and as many free workers as the pool has slots.
fn pool(slots: usize, queues: &[(Duration, Duration)]) -> Slots {
    let mut pool = Slots::new(SlotRules { slots, reserve: Some(0), room: Some(0) });
    for (target, typical) in queues {
        let terms = QueueTerms { target: *target, min_workers: 0, typical: Some(*typical) };
        let queue = pool.join(terms);
        pool.report(queue, slots, true, at(0));
    }
    pool
}

fn arrive(pool: &mut Slots, queue: usize, tag: u64, tenant: &str, now: Timestamp) {
    let tenant = Some(tenant).filter(|tenant| !tenant.is_empty());
    pool.arrive(queue, WaitingTask { tag, tenant, task: "t", priority: 0, since: now }, now);
}

/// The tags and runs of all that starts now in a queue.
fn taken(pool: &mut Slots, queue: usize, now: Timestamp) -> Vec<(u64, u64)> {
    pool.dispatch(now);
    std::iter::from_fn(|| pool.take(queue)).map(|grant| (grant.tag, grant.run)).collect()
}

/// As [`taken`], without the runs.
fn tags(pool: &mut Slots, queue: usize, now: Timestamp) -> Vec<u64> {
    taken(pool, queue, now).into_iter().map(|(tag, _)| tag).collect()
}

#[test]
fn while_there_is_time_the_earliest_deadline_goes_first() {
    let mut pool = pool(1, &[(30 * SECOND, SECOND), (HOUR, SECOND)]);
    arrive(&mut pool, 1, 1, "", at(0));
    arrive(&mut pool, 0, 2, "", at(600));
    assert_eq!((tags(&mut pool, 0, at(601)), tags(&mut pool, 1, at(601))), (vec![2], vec![]));
}

#[test]
fn when_a_promise_is_at_risk_the_part_that_is_used_decides() {
    let mut pool = pool(1, &[(30 * SECOND, SECOND), (HOUR, SECOND)]);
    arrive(&mut pool, 1, 1, "", at(0));
    arrive(&mut pool, 0, 2, "", at(1_980));
    // 33 minutes of an hour are more than 15 of 30 seconds, although the 30 seconds are over first.
    assert_eq!((tags(&mut pool, 0, at(1_995)), tags(&mut pool, 1, at(1_995))), (vec![], vec![1]));
}

#[test]
fn a_queue_below_its_guarantee_comes_first() {
    let mut pool = pool(2, &[(30 * SECOND, SECOND)]);
    let terms = QueueTerms { target: HOUR, min_workers: 1, typical: Some(SECOND) };
    let loose = pool.join(terms);
    pool.report(loose, 2, true, at(0));
    for tag in 0..3 {
        arrive(&mut pool, 0, tag, "", at(0));
        arrive(&mut pool, loose, 10 + tag, "", at(0));
    }
    pool.dispatch(at(1));
    assert_eq!((tags(&mut pool, 0, at(1)), tags(&mut pool, loose, at(1))), (vec![0], vec![10]));
}

#[test]
fn a_queue_is_told_once_of_grants_that_another_queues_end_brought() {
    let mut pool = pool(2, &[(30 * SECOND, SECOND), (HOUR, SECOND)]);
    arrive(&mut pool, 1, 1, "", at(0));
    arrive(&mut pool, 1, 2, "", at(0));
    let runs = taken(&mut pool, 1, at(0));
    assert_eq!((runs.len(), pool.told().collect::<Vec<_>>()), (2, vec![1]));
    for tag in 3..6 {
        arrive(&mut pool, 0, tag, "", at(1));
    }
    pool.dispatch(at(1));
    assert_eq!(pool.told().count(), 0, "no slot is free");
    runs.iter().for_each(|(_, run)| pool.finish(*run, true, at(2)));
    pool.dispatch(at(2));
    assert_eq!(pool.told().collect::<Vec<_>>(), [0]);
    assert_eq!(tags(&mut pool, 0, at(2)), [3, 4]);
}

/// A queue whose event loop is blocked holds no slot that others could use, and gets its turn when it is heard of.
#[test]
fn grants_that_nobody_takes_go_to_others() {
    let mut pool = pool(1, &[(30 * SECOND, SECOND), (HOUR, SECOND)]);
    arrive(&mut pool, 0, 1, "", at(0));
    arrive(&mut pool, 1, 2, "", at(0));
    pool.dispatch(at(0));
    pool.expire(SECOND, at(0));
    assert!(tags(&mut pool, 1, at(0)).is_empty());
    pool.expire(SECOND, at(1));
    assert_eq!(pool.hold_of(0, 1, at(1)), Some(SlotHold::Closed));
    let other = taken(&mut pool, 1, at(1));
    assert_eq!(other[0].0, 2);
    pool.finish(other[0].1, true, at(2));
    assert!(tags(&mut pool, 0, at(2)).is_empty());
    pool.report(0, 1, true, at(3));
    assert_eq!(tags(&mut pool, 0, at(3)), [1], "it has kept its place");
}

/// The runs of an actor that has ended hold their slots until they are over; its successor has all workers.
#[test]
fn the_end_of_an_actor_frees_its_grants_at_once_and_its_runs_when_they_are_over() {
    let mut pool = pool(2, &[(30 * SECOND, SECOND), (HOUR, SECOND)]);
    for tag in 0..4 {
        arrive(&mut pool, 0, tag, "", at(0));
    }
    pool.dispatch(at(0));
    let run = pool.take(0).unwrap().run;
    assert_eq!(pool.running(), 2);
    pool.leave(0, at(1));
    assert_eq!((pool.running(), pool.waiting()), (1, 0), "one grant was not taken");
    pool.report(0, 2, true, at(2));
    for tag in 10..13 {
        arrive(&mut pool, 0, tag, "", at(2));
    }
    assert_eq!(tags(&mut pool, 0, at(2)), [10]);
    // It never ran, and the worker that was to run it is gone with its actor.
    pool.cancel(run, at(3));
    assert_eq!(tags(&mut pool, 0, at(3)), [11]);
    pool.finish(run, true, at(3));
    assert_eq!(pool.running(), 2, "over is over");
}

#[test]
fn a_task_that_is_gone_frees_the_slot_of_its_grant() {
    let mut pool = pool(1, &[(30 * SECOND, SECOND)]);
    arrive(&mut pool, 0, 1, "a", at(0));
    arrive(&mut pool, 0, 2, "a", at(0));
    pool.dispatch(at(0));
    assert!(pool.remove(0, 1, at(0)) && !pool.remove(0, 1, at(0)));
    assert_eq!(tags(&mut pool, 0, at(0)), [2]);
    assert!(!pool.remove(0, 2, at(0)), "it runs");
    pool.report(7, 1, true, at(0));
    assert_eq!((pool.take(7), pool.hold_of(7, 1, at(0)), pool.remove(7, 1, at(0))), (None, None, false));
}

/// A burst of long tasks leaves the reserve to what is promised sooner than such a task ends.
#[test]
fn long_tasks_leave_the_reserve_to_tighter_promises() {
    let mut pool = Slots::new(SlotRules { slots: 8, reserve: Some(2), room: Some(0) });
    let terms = |target, typical| QueueTerms { target, min_workers: 0, typical: Some(typical) };
    for terms in [terms(30 * SECOND, SECOND), terms(HOUR, 10 * MINUTE), terms(2 * HOUR, SECOND)] {
        let queue = pool.join(terms);
        pool.report(queue, 8, true, at(0));
    }
    for tag in 0..20 {
        arrive(&mut pool, 1, tag, "", at(0));
    }
    assert_eq!(tags(&mut pool, 1, at(0)).len(), 6);
    assert_eq!(pool.hold_of(1, 19, at(0)), Some(SlotHold::Reserved { target: 30 * SECOND }));
    arrive(&mut pool, 2, 50, "", at(0));
    arrive(&mut pool, 0, 60, "", at(1));
    assert_eq!(
        (tags(&mut pool, 2, at(1)), tags(&mut pool, 0, at(1))),
        (vec![50], vec![60]),
        "both are short"
    );
}

#[test]
fn a_tenant_leaves_room_while_others_are_about_and_takes_all_when_they_are_gone() {
    let mut pool = Slots::new(SlotRules { slots: 5, reserve: Some(0), room: None });
    let queue = pool.join(QueueTerms { target: HOUR, min_workers: 0, typical: Some(SECOND) });
    pool.report(queue, 5, true, at(0));
    arrive(&mut pool, queue, 0, "small", at(0));
    let small = taken(&mut pool, queue, at(0));
    pool.finish(small[0].1, true, at(1));
    pool.report(queue, 5, true, at(1));
    for tag in 1..20 {
        arrive(&mut pool, queue, tag, "large", at(2));
    }
    assert_eq!(tags(&mut pool, queue, at(2)), [1, 2, 3, 4]);
    assert_eq!(pool.hold_of(queue, 5, at(2)), Some(SlotHold::Room { held: 4, of: 5 }));
    arrive(&mut pool, queue, 30, "small", at(3));
    let small = taken(&mut pool, queue, at(3));
    assert_eq!(small[0].0, 30, "there is room for it at once");
    pool.finish(small[0].1, true, at(4));
    pool.report(queue, 1, true, at(4));
    assert_eq!((tags(&mut pool, queue, at(63)), pool.next_look(at(63))), (vec![], Some(at(64))));
    assert_eq!(tags(&mut pool, queue, at(64)), [5]);
    assert_eq!(pool.next_look(at(64)), None);
}

#[test]
fn what_a_gate_holds_lets_the_next_of_its_line_pass_and_keeps_its_place() {
    let mut pool = pool(1, &[(30 * SECOND, SECOND)]);
    for tag in 1..4 {
        arrive(&mut pool, 0, tag, "", at(0));
    }
    let first = taken(&mut pool, 0, at(0));
    pool.hold(first[0].1, at(0));
    assert_eq!((pool.held(0), pool.hold_of(0, 1, at(0))), (1, Some(SlotHold::Gate)));
    let second = taken(&mut pool, 0, at(0));
    assert_eq!(second[0].0, 2);
    pool.finish(second[0].1, true, at(1));
    pool.report(0, 1, true, at(1));
    pool.bring_back(0, 1, at(0), at(1));
    assert_eq!(tags(&mut pool, 0, at(1)), [1]);
}

#[test]
fn a_run_gives_way_to_a_tighter_promise_of_which_a_tenth_is_used() {
    let mut pool = pool(2, &[(30 * SECOND, SECOND), (HOUR, 10 * MINUTE)]);
    arrive(&mut pool, 1, 1, "", at(0));
    arrive(&mut pool, 1, 2, "", at(0));
    let runs = taken(&mut pool, 1, at(0));
    let (first, second) = (runs[0].1, runs[1].1);
    assert!(!pool.gives_way(first, at(100)), "nothing waits");
    arrive(&mut pool, 0, 3, "", at(100));
    pool.dispatch(at(100));
    assert!(!pool.gives_way(first, at(102)), "it has waited for two seconds of thirty");
    assert!(pool.gives_way(first, at(103)));
    assert!(pool.gives_way(first, at(103)) && !pool.gives_way(second, at(103)), "one slot is enough");
    pool.finish(first, true, at(104));
    assert_eq!(tags(&mut pool, 0, at(104)), [3]);
    assert!(!pool.gives_way(second, at(105)) && !pool.gives_way(first, at(105)));
    arrive(&mut pool, 1, 4, "", at(106));
    pool.dispatch(at(106));
    assert!(!pool.gives_way(second, at(3_000)), "what waits is promised no sooner");
}

#[test]
fn a_run_gives_way_to_a_tenant_that_has_had_less() {
    let mut pool = pool(2, &[(HOUR, 10 * MINUTE)]);
    for tag in 0..4 {
        arrive(&mut pool, 0, tag, "large", at(0));
    }
    let runs = taken(&mut pool, 0, at(0));
    pool.report(0, 0, true, at(0));
    assert!(!pool.gives_way(runs[0].1, at(50)), "only its own tasks wait");
    arrive(&mut pool, 0, 9, "small", at(60));
    pool.dispatch(at(60));
    assert!(pool.gives_way(runs[0].1, at(60)));
    pool.finish(runs[0].1, true, at(61));
    pool.report(0, 1, true, at(61));
    assert_eq!(tags(&mut pool, 0, at(61)), [9]);
    assert!(!pool.gives_way(runs[1].1, at(62)), "both have one slot");
}

#[test]
fn what_a_run_takes_beyond_its_typical_duration_is_not_held_against_it() {
    let mut pool = pool(1, &[(HOUR, 10 * MINUTE)]);
    arrive(&mut pool, 0, 0, "large", at(0));
    let run = taken(&mut pool, 0, at(0))[0].1;
    arrive(&mut pool, 0, 9, "small", at(500));
    pool.dispatch(at(500));
    assert!(!pool.gives_way(run, at(599)), "without this run, its tenant has had nothing");
    assert!(!pool.gives_way(run, at(601)), "and has had nothing still when the run is charged for more");
}

/// Who has had more than others who wait is in debt. Once nothing waits, nobody is.
#[test]
fn a_debt_lasts_while_others_wait_and_is_gone_when_nothing_does() {
    let mut pool = pool(4, &[(HOUR, 10 * SECOND)]);
    for tag in 10..13 {
        arrive(&mut pool, 0, tag, "large", at(0));
    }
    let large = taken(&mut pool, 0, at(0));
    for tag in 0..6 {
        arrive(&mut pool, 0, tag, "small", at(1));
    }
    let first = taken(&mut pool, 0, at(1));
    assert_eq!((large.len(), first[0].0, first.len()), (3, 0, 1));
    pool.finish(first[0].1, true, at(11));
    pool.report(0, 1, true, at(11));
    let second = taken(&mut pool, 0, at(11));
    for (_, run) in large.iter().chain(&second) {
        pool.finish(*run, true, at(21));
    }
    pool.report(0, 4, true, at(21));
    let last = taken(&mut pool, 0, at(21));
    assert_eq!(last.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [2, 3, 4, 5]);
    let names = |pool: &Slots| pool.tenants().map(|tenant| tenant.name).collect::<Vec<_>>();
    assert_eq!(names(&pool), ["large", "small"], "it has had 63 s, and is remembered for that");
    pool.finish(last[0].1, true, at(31));
    pool.report(0, 1, true, at(31));
    pool.dispatch(at(31));
    assert_eq!(names(&pool), ["small"], "a slot is free, and nothing waits for it");
}

/// A grant is taken back while a task of the same tenant stands before it.
#[test]
fn a_tenant_whose_grant_is_taken_back_is_found_again() {
    let mut pool = pool(1, &[(HOUR, 10 * MINUTE)]);
    arrive(&mut pool, 0, 1, "first", at(0));
    arrive(&mut pool, 0, 2, "first", at(0));
    arrive(&mut pool, 0, 3, "second", at(0));
    pool.dispatch(at(0)); // the grant of the first task ends the turn of its tenant
    let urgent = WaitingTask { tag: 9, tenant: Some("first"), task: "t", priority: 5, since: at(1) };
    pool.arrive(0, urgent, at(1));
    assert!(pool.remove(0, 3, at(1)), "the other tenant's task is gone");
    pool.report(0, 0, true, at(2));
    assert!(tags(&mut pool, 0, at(2)).is_empty(), "no worker is free, so the grant is taken back");
    pool.report(0, 1, true, at(3));
    assert_eq!(tags(&mut pool, 0, at(3)), [9]);
}

/// What a run costs is not known when it starts. It is charged more while it goes on.
#[test]
fn who_was_thought_cheap_is_charged_while_the_run_goes_on() {
    let mut pool = pool(2, &[(HOUR, SECOND)]);
    for tag in 0..6 {
        arrive(&mut pool, 0, tag, "slow", at(0));
        arrive(&mut pool, 0, 10 + tag, "quick", at(0));
    }
    let mut first = taken(&mut pool, 0, at(0));
    assert_eq!(first.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(), [0, 10], "one of each");
    // The quick one ends again and again; the slow one is never owed meanwhile.
    for second in 1..5 {
        pool.finish(first.pop().unwrap().1, true, at(second));
        pool.report(0, 1, true, at(second));
        let next = taken(&mut pool, 0, at(second));
        assert_eq!(next[0].0, 10 + second, "after {second} s");
        first.extend(next);
    }
}

/// What a tenant waits because of its own flood does not press others aside.
#[test]
fn the_age_of_a_flood_does_not_count_while_its_tenant_is_not_owed() {
    let mut pool = pool(1, &[(30 * SECOND, SECOND), (MINUTE, SECOND)]);
    for tag in 0..50 {
        arrive(&mut pool, 0, tag, "flood", at(0));
    }
    let mut run = taken(&mut pool, 0, at(0))[0].1;
    let mut next = |pool: &mut Slots, now: Timestamp| {
        pool.finish(run, true, now);
        pool.report(0, 1, true, now);
        pool.report(1, 1, true, now);
        pool.dispatch(now);
        let grant = pool.take(0).or_else(|| pool.take(1)).unwrap();
        run = grant.run;
        grant.tag
    };
    // Tasks of others come one at a time, and each starts before the next of the flood, which has waited for hours.
    for second in 1..20 {
        arrive(&mut pool, 1, 100 + second, "other", at(3_600 + 10 * second));
        let (first, then) =
            (next(&mut pool, at(3_600 + 10 * second + 1)), next(&mut pool, at(3_600 + 10 * second + 2)));
        assert!(first == 100 + second || then == 100 + second, "{second}: {first}, {then}");
    }
}

/// What counts for the promise is one thing, for who starts and for who looks: since the tenant's next run is due by its share.
#[test]
fn the_waiting_of_a_tenant_over_its_share_does_not_count_while_others_wait() {
    let mut pool = pool(1, &[(HOUR, 10 * SECOND)]);
    for tag in 0..3 {
        arrive(&mut pool, 0, tag, "flood", at(0));
    }
    let next = |pool: &mut Slots, over: Option<u64>, now: Timestamp| {
        if let Some(run) = over {
            pool.finish(run, true, now);
            pool.report(0, 1, true, now);
        }
        pool.dispatch(now);
        pool.take(0).unwrap()
    };
    let counted = |oldest, is_any_over_share| CountedWaits { oldest, is_any_over_share };
    let first = next(&mut pool, None, at(0));
    assert_eq!(pool.counted_waits(0), counted(Some(at(0)), false), "it is alone");
    arrive(&mut pool, 0, 100, "other", at(5));
    arrive(&mut pool, 0, 101, "other", at(6));
    let second = next(&mut pool, Some(first.run), at(10));
    assert_eq!((second.tag, second.counts_from), (100, at(5)));
    assert_eq!(pool.counted_waits(0), counted(Some(at(6)), true), "the flood has had more");
    let third = next(&mut pool, Some(second.run), at(20));
    assert_eq!(
        (third.tag, third.counts_from),
        (101, at(6)),
        "both have had as much, and it waits for longer"
    );
    assert_eq!(
        pool.counted_waits(0),
        counted(Some(at(40)), false),
        "it is owed again: one run of it in 20 s"
    );
    let last = next(&mut pool, Some(third.run), at(30));
    assert_eq!(
        (last.tag, last.counts_from),
        (1, at(40)),
        "nobody wants the slot, so it starts before it is due"
    );
    assert_eq!(pool.counted_waits(7), CountedWaits::default(), "there is no such queue");
}

#[test]
fn what_waits_in_a_queue_is_counted_by_tenant() {
    let mut pool = pool(1, &[(MINUTE, SECOND), (MINUTE, SECOND)]);
    for (tag, tenant) in [(1, "zoo"), (2, "zoo"), (3, "zoo"), (4, "acme"), (5, "")] {
        arrive(&mut pool, 0, tag, tenant, at(0));
    }
    let count = |pool: &Slots, queue| -> Vec<(String, u64)> {
        pool.waiting_of(queue).into_iter().map(|(tenant, tasks)| (tenant.to_owned(), tasks)).collect()
    };
    let all = [("", 1), ("acme", 1), ("zoo", 3)].map(|(tenant, tasks)| (tenant.to_owned(), tasks));
    assert_eq!(count(&pool, 0), all);
    pool.dispatch(at(1));
    assert_eq!(count(&pool, 0), all, "a grant that the queue has not taken has not started");
    let grant = pool.take(0).unwrap();
    assert_eq!(count(&pool, 0).iter().map(|(_, tasks)| tasks).sum::<u64>(), 4);
    pool.hold(grant.run, at(1));
    assert_eq!(count(&pool, 0).iter().map(|(_, tasks)| tasks).sum::<u64>(), 4, "a gate holds it");
    pool.bring_all_back(0, at(2), at(2));
    assert_eq!(count(&pool, 0), all);
    arrive(&mut pool, 1, 1, "zoo", at(2));
    assert_eq!(count(&pool, 1), [("zoo".to_owned(), 1)]);
    pool.clear(0, at(3));
    assert_eq!((count(&pool, 0), count(&pool, 2)), (vec![], vec![]));
}
