//! The engine against references that are too simple to be wrong, and the properties of every simulation.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::Timestamp;
use crate::core::slots::{QueueTerms, SlotRules};

const SECOND: Duration = Duration::from_secs(1);

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

fn terms(target: Duration) -> QueueTerms {
    QueueTerms { target, min_workers: 0, typical: None }
}

/// A pool that keeps nothing free, and its queues with these targets and numbers of workers.
fn pooled(slots: usize, queues: &[(&str, u64, usize)]) -> SlotPlan {
    let rules = SlotRules { slots, reserve: Some(0), room: Some(0) };
    let queue = |(name, target, workers): &(&str, u64, usize)| PlannedQueue {
        name: (*name).to_owned(),
        pool: 0,
        workers: *workers,
        terms: terms(Duration::from_secs(*target)),
    };
    SlotPlan {
        pools: vec![PlannedPool { name: "io".to_owned(), is_shared: true, rules }],
        queues: queues.iter().map(queue).collect(),
        ..SlotPlan::default()
    }
}

fn one_queue(workers: usize) -> SlotPlan {
    pooled(workers, &[("q", 30, workers)])
}

fn task<'a>(at_millis: u64, queue: &'a str, tenant: &'a str, takes_millis: u64) -> TaskArrival<'a> {
    TaskArrival {
        at: Timestamp::from_millis(at_millis),
        queue,
        task: "t",
        tenant,
        priority: 0,
        takes: Duration::from_millis(takes_millis),
        waited: None,
        is_again: false,
    }
}

fn load<'a>(tasks: impl IntoIterator<Item = TaskArrival<'a>>) -> SimulatedLoad {
    let mut load = SimulatedLoad::default();
    tasks.into_iter().for_each(|task| load.add(task).expect("it is small"));
    load
}

/// A queue with N servers that serve in the order of arrival, whatever the runs take: each task has the server that is free first.
fn first_come_first_served(load: &SimulatedLoad, servers: usize) -> Vec<Timestamp> {
    let mut free = vec![Timestamp::ZERO; servers];
    let mut order: Vec<usize> = (0..load.len()).collect();
    let tasks: Vec<TaskArrival<'_>> = load.iter().collect();
    order.sort_by_key(|place| tasks[*place].at);
    let mut starts = vec![Timestamp::ZERO; load.len()];
    for place in order {
        free.sort_unstable();
        starts[place] = free[0].max(tasks[place].at);
        free[0] = starts[place] + tasks[place].takes;
    }
    starts
}

#[test]
fn four_tasks_before_two_workers() {
    let load = load([0, 0, 0, 1_000].map(|at| task(at, "q", "", 10_000)));
    let starts = start_times(&one_queue(2), &load).expect("a simulation");
    assert_eq!(starts, [0, 0, 10, 10].map(seconds));
    let report = simulate(&one_queue(2), &load).expect("a simulation");
    let queue = &report.queues[0];
    let waits = &queue.waits;
    assert_eq!((queue.queue.as_str(), queue.workers, waits.starts), ("q", 2, 4));
    assert_eq!((waits.p50, waits.p95, waits.max), (Duration::ZERO, 10 * SECOND, 10 * SECOND));
    assert_eq!((waits.within, report.worst_used), (1.0, 10.0 / 30.0));
    assert_eq!((queue.busy, report.pools[0].busy), (Some(1.0), Some(1.0)), "between the arrivals both work");
    assert_eq!(report.drained, 9 * SECOND);
}

#[test]
fn the_tighter_promise_goes_first_and_a_flood_leaves_others_their_share() {
    let flood = (0..50).map(|_| task(0, "slow", "flood", 1_000));
    let others = [task(1, "quick", "acme", 1_000), task(1, "slow", "zoo", 1_000)];
    let load = load(flood.chain(others));
    let plan = pooled(2, &[("quick", 5, 2), ("slow", 600, 2)]);
    let report = simulate(&plan, &load).expect("a simulation");
    let of = |queue: &str, tenant: &str| {
        let found = report.tenants.iter().find(|row| row.queue == queue && row.tenant == tenant);
        found.map(|row| row.waits.max).unwrap_or_else(|| panic!("{queue} {tenant}"))
    };
    let soon = Duration::from_millis(999);
    assert_eq!((of("quick", "acme"), of("slow", "zoo")), (soon, soon));
    assert_eq!(of("slow", "flood"), 25 * SECOND, "48 more in twos, with two others before them");
    let order: Vec<_> = report.tenants.iter().map(|row| row.tenant.as_str()).collect();
    assert_eq!(order, ["acme", "flood", "zoo"], "by queue, and there by what is used of the promise");
}

#[test]
fn room_opens_when_nobody_else_was_about_for_a_minute() {
    // One tenant leaves a slot of five to the other one, which is about for a minute after its only run.
    let rules = SlotRules { slots: 5, reserve: Some(0), room: None };
    let mut plan = pooled(5, &[("q", 30, 5)]);
    plan.pools[0].rules = rules;
    let large = (0..5).map(|_| task(2_000, "q", "large", 500_000));
    let load = load([task(0, "q", "small", 1_000)].into_iter().chain(large));
    let starts = start_times(&plan, &load).expect("a simulation");
    assert_eq!(starts, [0, 2, 2, 2, 2, 61].map(seconds));
}

#[test]
fn what_was_measured_is_reported_like_what_is_simulated() {
    let ran = |at, waited, is_again| TaskArrival {
        waited: Some(Duration::from_secs(waited)),
        is_again,
        ..task(at, "q", "acme", 1_000)
    };
    let load = load([ran(0, 60, false), ran(4_000, 3, false), ran(5_000, 99, true)]);
    let report = measured(&one_queue(1), &load).expect("a report").expect("all is measured");
    let waits = &report.queues[0].waits;
    assert_eq!((waits.starts, waits.p50, waits.max), (2, 3 * SECOND, 60 * SECOND), "a retry had its start");
    assert_eq!((waits.within, waits.used), (0.5, 2.0));
    assert_eq!(measured(&one_queue(1), &self::load([task(0, "q", "", 1)])), Ok(None));
}

#[test]
fn what_cannot_be_simulated_is_told() {
    let plan = one_queue(1);
    let errors = |plan: &SlotPlan, load: &SimulatedLoad| {
        simulate(plan, load).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(errors(&plan, &SimulatedLoad::default()).contains("has no tasks"));
    let mail = pooled(2, &[("email_queue", 30, 2)]);
    let odd = errors(&mail, &load([task(0, "emial_queue", "", 1)]));
    assert!(odd.contains("\"emial_queue\"") && odd.ends_with("did you mean \"email_queue\"?"), "{odd}");
    assert!(errors(&mail, &load([task(0, "sms", "", 1)])).contains("or an alias"));
    let never = errors(&pooled(2, &[("q", 30, 0)]), &load([task(0, "q", "", 1)]));
    assert!(never.contains("\"q\" never starts a task"), "{never}");
    let mut alias = mail;
    alias.aliases.insert("sms".to_owned(), "email_queue".to_owned());
    let report = simulate(&alias, &load([task(0, "sms", "", 1)])).expect("a simulation");
    assert_eq!(report.queues[0].queue, "email_queue");
}

#[test]
fn runs_of_no_time_and_of_all_time_end() {
    let load = load([0, 0, 0, 5].map(|at| task(at, "q", "", 0)));
    let starts = start_times(&one_queue(1), &load).expect("a simulation");
    assert_eq!(starts, [0, 0, 0, 5].map(Timestamp::from_millis));
    let late =
        TaskArrival { takes: Duration::MAX, at: Timestamp::from_micros(u64::MAX), ..task(0, "q", "", 0) };
    let load = self::load([late, late]);
    assert!(simulate(&one_queue(1), &load).is_ok());
}

/// A task of a random load: when it comes, its queue, its tenant, how long it takes.
type RandomTask = (u64, usize, usize, u64);

const QUEUES: [&str; 3] = ["tight", "middling", "long"];
const TENANTS: [&str; 3] = ["", "acme", "zoo"];

fn random_tasks() -> impl Strategy<Value = Vec<RandomTask>> {
    prop::collection::vec((0_u64..30_000, 0_usize..3, 0_usize..3, 0_u64..9_000), 1..150)
}

fn random_load(tasks: &[RandomTask]) -> SimulatedLoad {
    load(tasks.iter().map(|(at, queue, tenant, takes)| task(*at, QUEUES[*queue], TENANTS[*tenant], *takes)))
}

/// How many of these runs go on at a time.
fn running<'a>(runs: impl Iterator<Item = &'a (Timestamp, Timestamp, usize)>, at: Timestamp) -> usize {
    runs.filter(|(start, end, _)| *start <= at && at < *end).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Of one queue and one tenant, the machine is a queue with N servers in order of arrival.
    #[test]
    fn one_queue_is_first_come_first_served(
        tasks in random_tasks(),
        workers in 1_usize..9,
        fixed in prop::option::of(1_u64..5_000),
    ) {
        let of_one = tasks.iter().map(|(at, _, _, takes)| task(*at, "q", "", fixed.unwrap_or(*takes)));
        let load = load(of_one);
        let starts = start_times(&one_queue(workers), &load).expect("a simulation");
        prop_assert_eq!(starts, first_come_first_served(&load, workers));
    }

    /// With one more slot no task of it starts later, and so the worst p95 is no worse.
    #[test]
    fn more_slots_make_no_queue_of_one_tenant_slower(tasks in random_tasks(), workers in 1_usize..9) {
        let load = load(tasks.iter().map(|(at, _, _, takes)| task(*at, "q", "", *takes)));
        let worst = |workers| simulate(&one_queue(workers), &load).expect("a simulation").worst_used;
        prop_assert!(worst(workers + 1) <= worst(workers));
    }

    /// Each task starts once, when it has come and not before, with no more at a time than there are slots and workers; and while
    /// one waits, all slots of the pool or all workers of its queue are taken.
    #[test]
    fn no_slot_idles_while_a_task_may_start(
        tasks in random_tasks(),
        slots in 1_usize..6,
        workers in prop::array::uniform3(1_usize..6),
    ) {
        let load = random_load(&tasks);
        let plan = pooled(slots, &[
            (QUEUES[0], 5, workers[0]),
            (QUEUES[1], 60, workers[1]),
            (QUEUES[2], 600, workers[2]),
        ]);
        let starts = start_times(&plan, &load).expect("a simulation");
        prop_assert_eq!(starts.len(), tasks.len());
        let queue_of = |name: &str| QUEUES.iter().position(|queue| *queue == name).expect("a queue");
        let runs: Vec<(Timestamp, Timestamp, usize)> = load
            .iter()
            .zip(&starts)
            .map(|(task, start)| (*start, *start + task.takes, queue_of(task.queue)))
            .collect();
        // What runs changes only when a run begins or ends.
        let mut times: Vec<Timestamp> = load.iter().map(|task| task.at).collect();
        times.extend(runs.iter().flat_map(|(start, end, _)| [*start, *end]));
        times.sort_unstable();
        times.dedup();
        for at in times {
            let all = running(runs.iter(), at);
            prop_assert!(all <= slots, "{} run at {}", all, at);
            for (queue, most) in workers.iter().enumerate() {
                let own = running(runs.iter().filter(|(_, _, of)| *of == queue), at);
                prop_assert!(own <= *most, "{} of queue {} run at {}", own, queue, at);
                let mut tasks = load.iter().zip(&starts).filter(|(task, _)| task.queue == QUEUES[queue]);
                let waits = tasks.any(|(task, start)| task.at <= at && at < *start);
                prop_assert!(!waits || all == slots || own == *most, "queue {} waits at {}", queue, at);
            }
        }
        for (task, start) in load.iter().zip(&starts) {
            prop_assert!(*start >= task.at);
        }
    }

    /// One load gives one report, and the report counts each task once, also with the reserve and the room that follow by themselves.
    #[test]
    fn one_load_gives_one_report(tasks in random_tasks(), slots in 1_usize..9) {
        let load = random_load(&tasks);
        let mut plan = pooled(slots, &[(QUEUES[0], 5, slots), (QUEUES[1], 60, slots), (QUEUES[2], 600, slots)]);
        plan.pools[0].rules = SlotRules { slots, reserve: None, room: None };
        let report = simulate(&plan, &load).expect("a simulation");
        prop_assert_eq!(&report, &simulate(&plan.clone(), &load.clone()).expect("a simulation"));
        prop_assert_eq!(report.queues.iter().map(|row| row.waits.starts).sum::<u64>(), tasks.len() as u64);
        let mut by_queue = BTreeMap::new();
        for row in &report.tenants {
            *by_queue.entry(row.queue.as_str()).or_insert(0) += row.waits.starts;
        }
        for row in &report.queues {
            prop_assert_eq!(by_queue.get(row.queue.as_str()), Some(&row.waits.starts));
            prop_assert!(row.waits.p50 <= row.waits.p95 && row.waits.p95 <= row.waits.max);
            prop_assert!(row.busy.is_none_or(|busy| (0.0..=1.0).contains(&busy)));
        }
    }

    /// A written load with one seed is one load and one report.
    #[test]
    fn one_seed_gives_one_report(seed in any::<u64>(), rate in 1_u32..20, workers in 1_usize..9) {
        let row = LoadRow {
            queue: "q".to_owned(),
            task: "t".to_owned(),
            tenant: String::new(),
            priority: 0,
            from: Duration::ZERO,
            coming: Coming::Rate { per_second: f64::from(rate), until: 30 * SECOND },
            takes: RunLength::Spread { median: SECOND / 5, p95: SECOND },
        };
        let simulated = || {
            let mut load = SimulatedLoad::default();
            load.add_written(std::slice::from_ref(&row), seed, Timestamp::ZERO).expect("a load");
            simulate(&one_queue(workers), &load)
        };
        prop_assert_eq!(simulated(), simulated());
    }
}
