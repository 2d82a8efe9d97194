//! Pools of which it is known what starts next, and then a pool in virtual time: two queues with different promises, three
//! tenants, three shapes of load.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::super::tests::{ArrivalPattern, normal};
use super::super::{Forecaster, OBSERVED_AT_LEAST, StartForecast};
use super::*;
use crate::core::slots::{QueueTerms, SlotRules, Slots, WaitingTask};

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000_000 + micros)
}

fn second(second: u64) -> Timestamp {
    at(second * 1_000_000)
}

fn rules(slots: usize) -> SlotRules {
    SlotRules { slots, reserve: Some(0), room: Some(0) }
}

fn terms(target: u64) -> QueueTerms {
    QueueTerms { target: Duration::from_secs(target), min_workers: 0, typical: Some(Duration::from_secs(10)) }
}

fn task(tag: u64, tenant: &str, since: Timestamp) -> WaitingTask<'_> {
    WaitingTask {
        tag,
        tenant: Some(tenant).filter(|tenant| !tenant.is_empty()),
        task: "t",
        priority: 0,
        since,
    }
}

/// Long after all arrivals, so that none is expected.
const LATER: u64 = 1_000;

/// A pool of one slot that has seen some runs of ten seconds. A task of `a` has had the slot for five seconds. Twenty more of it
/// wait in the only queue, and these of `b`.
fn flooded(of_b: &[u64]) -> Slots {
    let mut slots = Slots::new(rules(1));
    let queue = slots.join(terms(3_600));
    slots.report(queue, 1, true, second(0));
    for n in 0..OBSERVED_AT_LEAST {
        slots.arrive(queue, task(1_000 + n, "seen", second(0)), second(10 * n));
        slots.dispatch(second(10 * n));
        let grant = slots.take(queue).expect("the slot is free");
        slots.finish(grant.run, true, second(10 * n + 10));
        slots.report(queue, 1, true, second(10 * n + 10));
    }
    slots.report(queue, 0, false, second(250));
    (0..21).for_each(|tag| slots.arrive(queue, task(tag, "a", second(300)), second(300)));
    of_b.iter().for_each(|tag| slots.arrive(queue, task(*tag, "b", second(301)), second(301)));
    slots.report(queue, 1, true, second(LATER - 5));
    slots.dispatch(second(LATER - 5));
    assert_eq!(slots.take(queue).map(|grant| grant.tag), Some(0));
    slots
}

fn turn(slots: &Slots, tenant: &str, place: usize) -> PoolTurn {
    PoolForecaster::new(1).run(&slots.forward(second(LATER)), 0, tenant, place, second(LATER))
}

#[test]
fn who_comes_last_and_is_owed_goes_first() {
    let slots = flooded(&[100]);
    let places = [100, 20, 0].map(|tag| slots.place_of(0, tag));
    assert_eq!(places, [Some(0), Some(19), None]);
    let (small, large) = (turn(&slots, "b", 0), turn(&slots, "a", 19));
    assert_eq!((small.before, small.or_more), (0, false), "by arrival twenty are before it");
    assert_eq!(
        (large.before, large.or_more),
        (20, false),
        "nineteen of its own, and that of the other tenant"
    );
    let start = large.starts.expect("it is reached")[1];
    // The run that goes on takes five seconds more, and each of the twenty ten.
    assert!((start - 205.0).abs() < 1.0, "{large:?}");
}

#[test]
fn what_waits_in_the_broker_comes_as_its_line_moves() {
    let mut slots = flooded(&[]);
    slots.note_outside(0, [("a", 200), ("nobody", 7)]);
    let behind = turn(&slots, "a", 150);
    assert_eq!((behind.before, behind.or_more), (150, false));
    // A task of another tenant takes turns with all of them.
    let mut slots = flooded(&[100]);
    slots.note_outside(0, [("a", 200), ("b", 3)]);
    let last = turn(&slots, "b", 3);
    assert!((3..=8).contains(&last.before), "{last:?}");
}

#[test]
fn what_is_too_far_back_is_told_by_how_its_line_moved() {
    let mut slots = flooded(&[]);
    slots.note_outside(0, [("a", 1_000_000)]);
    let far = turn(&slots, "a", 100_000);
    assert!(far.or_more && (99_000..=101_000).contains(&far.before), "{far:?}");
    let start = far.starts.expect("its line moves")[1];
    assert!((start / 1_000_000.0 - 1.0).abs() < 0.02, "{start} seconds");
    // Of a line that did not move nothing is known but that it takes longer.
    let unknown = turn(&slots, "nobody", 0);
    assert!(unknown.or_more && unknown.starts.is_none() && unknown.reached > 1_000.0, "{unknown:?}");
    let mut forecaster = Forecaster::new(1);
    assert_eq!(forecaster.judge().of_turn(&far), StartForecast::NotKnownYet { observed: 0 });
    (0..OBSERVED_AT_LEAST).for_each(|_| forecaster.ended(0, Duration::from_secs(10)));
    let said = forecaster.judge().of_turn(&unknown);
    assert!(matches!(said, StartForecast::NotBefore { at } if at > second(LATER + 1_000)), "{said:?}");
    assert!(matches!(forecaster.judge().of_turn(&far), StartForecast::Between { .. }));
}

#[test]
fn a_queue_that_is_paused_starts_nothing() {
    let mut slots = flooded(&[]);
    slots.report(0, 0, false, second(LATER));
    let paused = turn(&slots, "a", 0);
    assert_eq!((paused.starts, paused.before, paused.or_more), (None, 0, true));
}

#[test]
fn one_pass_says_it_for_all_that_wait_and_is_good_for_a_second() {
    let slots = flooded(&[]);
    let now = second(LATER);
    let mut forecaster = PoolForecaster::new(7);
    assert_eq!(forecaster.known(0, "a", 3, now), None);
    let made = forecaster.run(&slots.forward(now), 0, "a", 9, now);
    assert_eq!(forecaster.known(0, "a", 9, now), Some(made));
    assert!(forecaster.known(0, "a", 3, now).is_some_and(|turn| turn.before == 3));
    assert_eq!(forecaster.known(0, "a", 10, now), None, "they have not looked so far");
    assert_eq!(forecaster.known(0, "b", 0, now), None);
    assert_eq!(forecaster.known(0, "a", 3, second(LATER + 1)), None, "they are old");
    let again = PoolForecaster::new(7).run(&slots.forward(now), 0, "a", 9, now);
    assert_eq!(again, made, "the seed decides");
}

/// Without arrivals, and with runs that take what they are expected to take, the pool starts what its copy has started.
#[test]
fn as_many_start_before_it_as_were_told() {
    let mut slots = Slots::new(SlotRules { slots: 3, reserve: Some(1), room: Some(1) });
    let queues = [slots.join(terms(30)), slots.join(terms(600))];
    queues.iter().for_each(|queue| slots.report(*queue, 3, true, second(0)));
    let mut lines: HashMap<u64, (usize, &str)> = HashMap::new();
    for tag in 0..40 {
        let (queue, tenant) = (queues[usize::from(tag % 3 == 0)], ["a", "a", "b", "a", ""][tag as usize % 5]);
        let waiting = WaitingTask { priority: u8::from(tag % 7 == 0), ..task(tag, tenant, second(tag)) };
        slots.arrive(queue, waiting, second(tag));
        lines.insert(tag, (queue, tenant));
    }
    let now = second(LATER);
    let told: HashMap<u64, u64> = lines
        .iter()
        .filter_map(|(tag, (queue, tenant))| {
            let place = slots.place_of(*queue, *tag)?;
            let turn = PoolForecaster::new(3).run(&slots.forward(now), *queue, tenant, place, now);
            assert!(!turn.or_more, "{turn:?}");
            Some((*tag, turn.before))
        })
        .collect();
    assert_eq!(told.len(), 40);
    let (mut time, mut free, mut started) = (now, [3, 3], 0);
    let mut running: BinaryHeap<Reverse<(Timestamp, u64, usize)>> = BinaryHeap::new();
    loop {
        slots.dispatch(time);
        for queue in queues {
            while let Some(grant) = slots.take(queue) {
                assert_eq!(told[&grant.tag], started, "{}", grant.tag);
                started += 1;
                free[queue] -= 1;
                running.push(Reverse((time + Duration::from_secs(10), grant.run, queue)));
            }
        }
        // A tenant may take the room when nobody else has been about for a while.
        let look = slots.next_look(time);
        if let Some(look) = look
            && running.peek().is_none_or(|Reverse((ends, ..))| look < *ends)
        {
            time = look;
            continue;
        }
        let Some(Reverse((ends, run, queue))) = running.pop() else { break };
        time = ends;
        free[queue] += 1;
        slots.finish(run, true, time);
        slots.report(queue, free[queue], true, time);
    }
    assert_eq!(started, 40);
}

/// Six slots for two queues: one is urgent and short, the other one is not. Three tenants have six, three and one in ten of the
/// tasks.
struct Simulation {
    draws: Draws,
    slots: Slots,
    forecaster: PoolForecaster,
    queues: [Forecaster; 2],
    free: [usize; 2],
    sampled_at: [u64; 2],
    running: BinaryHeap<Reverse<(u64, u64, usize)>>,
    began: HashMap<u64, u64>,
    forecasts: HashMap<u64, (Timestamp, Timestamp)>,
    /// How many came true, of how many.
    right: u64,
    of: u64,
}

const WORKERS: usize = 5;
/// A sample costs some forward runs, so in each queue there is one in so many microseconds.
const BETWEEN_SAMPLES: u64 = 3_000_000;

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut slots = Slots::new(SlotRules { slots: 6, reserve: Some(1), room: Some(1) });
        for (target, typical) in [(30, 3), (3_600, 6)] {
            let typical = Some(Duration::from_secs(typical));
            let queue = slots.join(QueueTerms { typical, ..terms(target) });
            slots.report(queue, WORKERS, true, at(0));
        }
        Self {
            draws: Draws::seeded(seed),
            slots,
            forecaster: PoolForecaster::new(seed ^ 0x5eed),
            queues: [Forecaster::new(seed), Forecaster::new(seed)],
            free: [WORKERS; 2],
            sampled_at: [0; 2],
            running: BinaryHeap::new(),
            began: HashMap::new(),
            forecasts: HashMap::new(),
            right: 0,
            of: 0,
        }
    }

    fn start_all(&mut self, now: u64) {
        self.slots.dispatch(at(now));
        for queue in 0..2 {
            while let Some(grant) = self.slots.take(queue) {
                let (median, sigma) = [(2.0, 0.6), (4.0, 0.7)][queue];
                let took = median * (sigma * normal(&mut self.draws)).exp();
                self.running.push(Reverse((now + (took * 1e6) as u64, grant.run, queue)));
                self.began.insert(grant.run, now);
                self.free[queue] -= 1;
                self.queues[queue].started(grant.tag, at(now));
                if let Some((from, to)) = self.forecasts.remove(&grant.tag) {
                    self.right += u64::from((from..=to).contains(&at(now)));
                    self.of += 1;
                }
            }
        }
    }

    /// Lets end what ends by then, and start what may.
    fn go_on(&mut self, until: u64) {
        while let Some(Reverse((now, run, queue))) = self.running.peek().copied()
            && now <= until
        {
            self.running.pop();
            self.free[queue] += 1;
            self.slots.finish(run, true, at(now));
            self.slots.report(queue, self.free[queue], true, at(now));
            let began = self.began.remove(&run).unwrap_or(now);
            self.queues[queue].ended(0, Duration::from_micros(now - began));
            self.start_all(now);
        }
    }

    fn arrive(&mut self, tag: u64, now: u64) {
        self.go_on(now);
        let tenant = ["a", "a", "a", "a", "a", "a", "b", "b", "b", "c"][self.draws.below(10)];
        let queue = usize::from(self.draws.below(10) >= 4);
        let name = ["urgent", "bulk"][queue];
        let waiting = WaitingTask { task: name, ..task(tag, tenant, at(now)) };
        self.slots.arrive(queue, waiting, at(now));
        self.start_all(now);
        let Some(place) = self.slots.place_of(queue, tag) else { return };
        let is_time = now >= self.sampled_at[queue] + BETWEEN_SAMPLES;
        if is_time && self.queues[queue].wants_sample(at(now)) {
            self.sampled_at[queue] = now;
            self.queues[queue].sampling(at(now));
            let turn = match self.forecaster.known(queue, tenant, place, at(now)) {
                Some(turn) => turn,
                None => self.forecaster.run(&self.slots.forward(at(now)), queue, tenant, place, at(now)),
            };
            if let Some(interval) = self.queues[queue].sampled(tag, &turn) {
                self.forecasts.insert(tag, interval);
            }
        }
    }

    fn run(&mut self, load: ArrivalPattern, tasks: u64) {
        let mut now = 0_u64;
        for tag in 0..tasks {
            let share = tag as f64 / tasks as f64;
            let rate = match load {
                ArrivalPattern::Steady => 1.2,
                ArrivalPattern::Bursty => 2.0,
                ArrivalPattern::Growing => 0.9 + 0.6 * share,
            };
            now = load.next(now, rate, &mut self.draws);
            self.arrive(tag, now);
        }
        self.go_on(u64::MAX);
    }
}

/// Of the forecasts that the queues of a pool make, eight in ten come true, whatever the load.
#[test]
fn eight_in_ten_come_true_in_a_pool() {
    for (load, tasks) in
        [(ArrivalPattern::Steady, 2_000), (ArrivalPattern::Bursty, 2_400), (ArrivalPattern::Growing, 2_000)]
    {
        let mut pool = Simulation::new(20_261_201);
        pool.run(load, tasks);
        assert!(pool.of > 300, "{load:?}: only {} were sampled", pool.of);
        let coverage = pool.right as f64 / pool.of as f64;
        assert!((0.75..=0.85).contains(&coverage), "{load:?}: {coverage} of {}", pool.of);
    }
}
