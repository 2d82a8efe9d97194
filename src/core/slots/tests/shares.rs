//! Tenants that always have work, run against each other in virtual time.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::super::fault::Fault;
use super::super::{QueueTerms, SlotRules, Slots, TenantWeight, WaitingTask};
use crate::core::Timestamp;

/// A tenant with its load.
#[derive(Clone, Debug)]
struct Payer {
    weight: u32,
    /// How long its runs take in turn, in milliseconds.
    costs: Vec<u64>,
    /// The number of queues in which it has work.
    queues: usize,
}

impl Payer {
    fn new(costs: &[u64]) -> Self {
        Self { weight: 1, costs: costs.to_vec(), queues: 1 }
    }

    fn most(&self) -> f64 {
        self.costs.iter().copied().max().unwrap_or_default() as f64
    }
}

struct RaceRun {
    run: u64,
    payer: usize,
    queue: usize,
    from: Timestamp,
    until: Timestamp,
}

/// A pool in which each payer has queues of its own. The promises of the first payers are the tightest.
struct Race {
    slots: Slots,
    number: usize,
    now: Timestamp,
    payers: Vec<Payer>,
    /// The payer of each queue.
    queues: Vec<usize>,
    running: Vec<RaceRun>,
    /// The payers of all starts.
    starts: Vec<usize>,
    /// The slot time of runs that are over, in milliseconds.
    done: Vec<u64>,
    tags: u64,
    /// Whether each payer always has work.
    has_work: Vec<bool>,
}

impl Race {
    fn new(number: usize, payers: Vec<Payer>, fault: Option<Fault>) -> Self {
        let mut slots = Slots::new(SlotRules { slots: number, reserve: Some(0), room: Some(0) });
        slots.fault = fault;
        let mut queues = Vec::new();
        for (payer, of) in payers.iter().enumerate() {
            let weight = TenantWeight::new(f64::from(of.weight)).expect("a weight");
            slots.set_weight(&payer.to_string(), weight);
            for _ in 0..of.queues {
                let target = Duration::from_secs(10 << (3 * queues.len()));
                let typical = of.costs.first().map(|cost| Duration::from_millis(*cost));
                let queue = slots.join(QueueTerms { target, min_workers: 0, typical });
                slots.report(queue, number, true, Timestamp::ZERO);
                queues.push(payer);
            }
        }
        let (done, has_work) = (vec![0; payers.len()], vec![false; payers.len()]);
        let (running, starts) = (Vec::new(), Vec::new());
        Self { slots, number, now: Timestamp::ZERO, payers, queues, running, starts, done, tags: 0, has_work }
    }

    /// From now on a payer always has work, more than there are slots.
    fn flood(&mut self, payer: usize) {
        self.has_work[payer] = true;
        for queue in 0..self.queues.len() {
            if self.queues[queue] == payer {
                (0..=self.number).for_each(|_| self.arrive(queue));
            }
        }
        self.start_all();
    }

    fn arrive(&mut self, queue: usize) {
        let tenant = self.queues[queue].to_string();
        let (tag, since) = (self.tags, self.now);
        self.tags += 1;
        // Each tenant has a task of its own: what it costs is its own, too.
        let waiting = WaitingTask { tag, tenant: Some(&tenant), task: &tenant, priority: 0, since };
        self.slots.arrive(queue, waiting, self.now);
    }

    fn start_all(&mut self) {
        self.slots.dispatch(self.now);
        for queue in 0..self.queues.len() {
            while let Some(grant) = self.slots.take(queue) {
                let payer = self.queues[queue];
                let turn = self.starts.iter().filter(|started| **started == payer).count();
                let costs = &self.payers[payer].costs;
                let until = self.now + Duration::from_millis(costs[turn % costs.len()]);
                self.running.push(RaceRun { run: grant.run, payer, queue, from: self.now, until });
                self.starts.push(payer);
                if self.has_work[payer] {
                    self.arrive(queue);
                }
            }
        }
    }

    /// Lets the next run end.
    fn step(&mut self) {
        let next = self.running.iter().enumerate().min_by_key(|(_, run)| (run.until, run.run));
        let Some((at, _)) = next else { return };
        let over = self.running.swap_remove(at);
        self.now = over.until;
        self.done[over.payer] += over.until.since(over.from).as_millis() as u64;
        self.slots.finish(over.run, true, self.now);
        let busy = self.running.iter().filter(|run| run.queue == over.queue).count();
        self.slots.report(over.queue, self.number.saturating_sub(busy), true, self.now);
        self.start_all();
    }

    /// The slot time of a payer by its weight, in milliseconds.
    fn share(&self, payer: usize) -> f64 {
        let running = self.running.iter().filter(|run| run.payer == payer);
        let going_on: u64 = running.map(|run| self.now.since(run.from).as_millis() as u64).sum();
        (self.done[payer] + going_on) as f64 / f64::from(self.payers[payer].weight)
    }

    /// Whether any two of the payers differ by more than they may.
    fn compare(&self) -> Result<(), String> {
        let bound = |payer: usize| self.payers[payer].most() / f64::from(self.payers[payer].weight);
        for one in 0..self.payers.len() {
            for other in 0..one {
                let apart = (self.share(one) - self.share(other)).abs();
                let most = (self.number + 1) as f64 * (bound(one) + bound(other)) + 1.0;
                if apart > most {
                    return Err(format!("payers {one} and {other} are {apart} ms apart, and may be {most}"));
                }
            }
        }
        Ok(())
    }
}

/// All payers have work from the beginning, and are compared at each end of a run.
fn stays_fair(number: usize, payers: Vec<Payer>, fault: Option<Fault>) -> Result<(), String> {
    let mut race = Race::new(number, payers, fault);
    // None of them starts before all are there.
    race.slots.resize(1, Timestamp::ZERO);
    (0..race.queues.len()).for_each(|queue| race.slots.report(queue, 0, true, Timestamp::ZERO));
    (0..race.payers.len()).for_each(|payer| race.flood(payer));
    race.slots.resize(number, Timestamp::ZERO);
    (0..race.queues.len()).for_each(|queue| race.slots.report(queue, number, true, Timestamp::ZERO));
    race.start_all();
    for _ in 0..120 {
        race.step();
        race.compare()?;
    }
    Ok(())
}

fn payers(weights: impl Strategy<Value = u32> + 'static) -> impl Strategy<Value = (usize, Vec<Payer>)> {
    let costs = prop::collection::vec(prop_oneof![1u64..50, 500u64..5_000], 1..4);
    let payer =
        (weights, costs, 1usize..3).prop_map(|(weight, costs, queues)| Payer { weight, costs, queues });
    (1usize..6, prop::collection::vec(payer, 2..4))
}

fn holds(weights: impl Strategy<Value = u32> + 'static, fault: Option<Fault>) -> Result<(), String> {
    let shrinks = if fault.is_some() { 0 } else { 5_000 };
    let config =
        Config { cases: 60, failure_persistence: None, max_shrink_iters: shrinks, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let raced = TestRunner::new_with_rng(config, rng).run(&payers(weights), |(number, payers)| {
        stays_fair(number, payers, fault).map_err(TestCaseError::fail)
    });
    raced.map_err(|error| error.to_string())
}

#[test]
fn i3_tenants_with_work_stay_together_whatever_is_promised_to_them() {
    if let Err(error) = holds(Just(1), None) {
        panic!("{error}");
    }
    assert!(holds(Just(1), Some(Fault::ForgetsCost)).is_err());
}

#[test]
fn i11_twice_the_weight_is_twice_the_share() {
    let weights = || prop_oneof![Just(1), Just(2), Just(8)];
    if let Err(error) = holds(weights(), None) {
        panic!("{error}");
    }
    assert!(holds(weights(), Some(Fault::ForgetsWeight)).is_err());
}

/// A tenant with work in five queues gets what a tenant with one line gets.
#[test]
fn many_queues_are_no_larger_share() {
    let many = Payer { queues: 5, ..Payer::new(&[100]) };
    stays_fair(4, vec![many, Payer::new(&[100])], None).unwrap();
}

/// The largest weight does not take everything, as it would if its runs were rounded down to nothing.
#[test]
fn the_largest_weight_leaves_something_to_others() {
    let heavy = Payer { weight: 1_000_000, ..Payer::new(&[100]) };
    let mut race = Race::new(1, vec![heavy, Payer::new(&[100])], None);
    race.flood(0);
    race.flood(1);
    for _ in 0..20 {
        race.step();
    }
    assert!(race.starts.contains(&1) || race.share(0) < race.share(1) + 200.0, "{:?}", race.starts);
    let spent: Vec<u128> = race.slots.tenants.all().map(|account| account.spent()).collect();
    assert!(spent.iter().all(|spent| *spent > 0), "{spent:?}");
}

/// How many of the next starts are those of a tenant that comes back after a long time without work.
fn starts_of_one_who_was_idle(number: usize, fault: Option<Fault>) -> (usize, usize) {
    let mut race = Race::new(number, vec![Payer::new(&[100]), Payer::new(&[100])], fault);
    race.arrive(0);
    race.start_all();
    race.step();
    race.flood(1);
    for _ in 0..200 {
        race.step();
    }
    let before = race.starts.len();
    race.flood(0);
    for _ in 0..60 {
        race.step();
    }
    let after = &race.starts[before..];
    let of_idle = after.iter().filter(|payer| **payer == 0).count();
    (of_idle, after.len() - of_idle)
}

#[test]
fn i7_idling_buys_no_more_than_a_round_of_the_slots() {
    for number in [1, 2, 5, 10] {
        let (idle, other) = starts_of_one_who_was_idle(number, None);
        assert!(idle >= other && idle <= other + 2 * number + 1, "{number} slots: {idle} and {other} starts");
        let (idle, other) = starts_of_one_who_was_idle(number, Some(Fault::HoardsCredit));
        assert!(idle > other + 2 * number + 1, "{number} slots: {idle} and {other} starts");
    }
}

/// Whether few starts pass the one task of a tenant beside so many that flood: of each of them a round of the slots, and two more.
fn starts_before_the_one(number: usize, flooders: usize, fault: Option<Fault>) -> Result<(), String> {
    let mut race = Race::new(number, vec![Payer::new(&[100]); flooders + 1], fault);
    (0..flooders).for_each(|payer| race.flood(payer));
    for _ in 0..150 {
        race.step();
    }
    let before = race.starts.len();
    race.arrive(flooders);
    race.start_all();
    while !race.starts[before..].contains(&flooders) {
        race.step();
        let passed = race.starts.len() - before;
        if passed > flooders * (number + 2) {
            return Err(format!("{number} slots, {flooders} flooders: {passed} passed"));
        }
    }
    Ok(())
}

/// A tenant that asks for little is served at once, whatever others have waiting and whatever they were promised.
#[test]
fn i4_few_starts_pass_the_one_task_of_another_tenant() {
    for (number, flooders) in [(1, 1), (4, 3), (10, 8)] {
        if let Err(error) = starts_before_the_one(number, flooders, None) {
            panic!("{error}");
        }
        // The floods are promised more. If nobody is charged, that decides.
        assert!(starts_before_the_one(number, flooders, Some(Fault::ForgetsCost)).is_err());
    }
}

/// Who floods with runs of twenty times the length gets the same slot time, and so a twentieth of the starts.
#[test]
fn shares_are_of_time_and_not_of_starts() {
    let mut race = Race::new(4, vec![Payer::new(&[2_000]), Payer::new(&[100])], None);
    race.flood(0);
    race.flood(1);
    for _ in 0..1_000 {
        race.step();
    }
    let (long, short) = (race.share(0), race.share(1));
    assert!((0.8..1.25).contains(&(long / short)), "{long} and {short} ms");
}
