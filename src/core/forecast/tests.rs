//! Forecasts in virtual time, on a queue that does what a queue does: it has slots and a line, and its tasks take as long as
//! chance will have it.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000 + (seconds * 1e6) as u64)
}

fn none() -> std::iter::Empty<(usize, Duration)> {
    std::iter::empty()
}

fn view(slots: usize, busy: usize, ahead: u64) -> LineView {
    LineView { slots, busy, ahead, priority: 0 }
}

/// A forecaster that has seen so many runs of so many seconds.
fn seen(runs: u64, seconds: u64) -> Forecaster {
    let mut forecaster = Forecaster::new(42);
    (0..runs).for_each(|_| forecaster.ended(0, Duration::from_secs(seconds)));
    forecaster
}

#[test]
fn nothing_is_said_before_twenty_runs() {
    let mut early = seen(OBSERVED_AT_LEAST - 1, 10);
    let said = early.forecast(view(1, 0, 3), none(), at(0.0));
    assert_eq!(said, StartForecast::NotKnownYet { observed: 19 });
    assert!(!early.wants_sample(at(0.0)));
    early.ended(0, Duration::from_secs(10));
    assert!(early.wants_sample(at(0.0)));
    let said = early.forecast(view(1, 0, 3), none(), at(0.0));
    assert!(matches!(said, StartForecast::Between { .. }), "{said:?}");
}

/// The interval in whole seconds from now.
fn seconds(said: StartForecast, now: f64) -> (u64, u64) {
    let StartForecast::Between { from, to, .. } = said else { panic!("{said:?}") };
    (from.since(at(now)).as_secs(), to.since(at(now)).as_secs())
}

#[test]
fn equal_tasks_are_told_within_the_least_width_however_far_back_they_stand() {
    let mut forecaster = seen(50, 10);
    for (ahead, expected) in [(0, 0.0), (7, 70.0), (999, 9_990.0), (99_999, 999_990.0)] {
        let now = ahead as f64;
        let said = seconds(forecaster.forecast(view(1, 0, ahead), none(), at(now)), now);
        assert!(said.0 as f64 <= expected && expected <= said.1 as f64 + 1.0, "{ahead}: {said:?}");
        assert!(said.1 as f64 <= expected * 1.06 + 1.0 && said.0 as f64 >= expected * 0.93 - 1.0, "{said:?}");
    }
    // A queue with very many slots is as one of the same shape.
    let said = seconds(forecaster.forecast(view(100_000, 0, 1_000_000), none(), at(0.0)), 0.0);
    assert!((80..=110).contains(&said.0) && (80..=110).contains(&said.1), "{said:?}");
    assert_eq!(forecaster.forecast(view(0, 0, 0), none(), at(5.0)), StartForecast::NotInSight);
}

#[test]
fn forward_runs_are_made_once_a_second() {
    /// One run, of four seconds so far. Counts how often somebody asks for it.
    fn run(asked: &Cell<u32>) -> impl Iterator<Item = (usize, Duration)> {
        let mut left = 1;
        std::iter::from_fn(move || {
            asked.set(asked.get() + left);
            (std::mem::take(&mut left) > 0).then_some((0, Duration::from_secs(4)))
        })
    }

    let (mut forecaster, asked) = (seen(50, 10), Cell::new(0));
    for ahead in [7, 3, 0, 6] {
        forecaster.forecast(view(1, 1, ahead), run(&asked), at(0.5));
    }
    assert_eq!(asked.get(), 1, "eight places were told by one pass");
    forecaster.forecast(view(1, 1, 8), run(&asked), at(0.6));
    assert_eq!(asked.get(), 2, "this one is further back");
    forecaster.forecast(view(2, 1, 0), run(&asked), at(0.6));
    assert_eq!(asked.get(), 3, "the queue has another size");
    forecaster.forecast(view(2, 2, 0), run(&asked), at(0.65));
    assert_eq!(asked.get(), 3, "one run more makes no difference for a moment");
    forecaster.forecast(view(2, 2, 0), run(&asked), at(0.9));
    assert_eq!(asked.get(), 4, "then it does");
    forecaster.forecast(view(2, 1, 0), run(&asked), at(1.7));
    assert_eq!(asked.get(), 5, "they are old");
    (0..30).for_each(|_| forecaster.arrived(9, at(1.7)));
    forecaster.forecast(view(2, 1, 0), run(&asked), at(1.7));
    assert_eq!(asked.get(), 6, "others overtake it");
    let urgent = LineView { priority: 9, ..view(2, 1, 0) };
    for line in [urgent, view(2, 1, 0), urgent] {
        forecaster.forecast(line, run(&asked), at(1.71));
    }
    assert_eq!(asked.get(), 6, "both kinds are known");
}

#[test]
fn the_same_seed_says_the_same() {
    let told = |seed| {
        let mut forecaster = Forecaster::new(seed);
        (1..40).for_each(|n| forecaster.ended(n % 3, Duration::from_secs(n as u64)));
        forecaster.forecast(view(2, 0, 9), none(), at(0.0))
    };
    assert_eq!(told(3), told(3));
    assert_ne!(told(3), told(4));
}

/// How tasks come to a simulation.
#[derive(Clone, Copy, Debug)]
pub(super) enum ArrivalPattern {
    /// At an even rate, just below what the simulation can do.
    Steady,
    /// A minute of too many, then two minutes of none.
    Bursty,
    /// From little to more than the simulation can do.
    Growing,
}

impl ArrivalPattern {
    /// When the next task comes, in microseconds, if the last one came at `now` and so many come in a second.
    pub(super) fn next(self, now: u64, rate: f64, draws: &mut Draws) -> u64 {
        let at = now + (draws.exponential() / rate * 1e6) as u64;
        match self {
            Self::Bursty if at % 180_000_000 >= 60_000_000 => (at / 180_000_000 + 1) * 180_000_000,
            _ => at,
        }
    }
}

/// The sum of twelve even numbers is close enough to a normal one.
pub(super) fn normal(draws: &mut Draws) -> f64 {
    (0..12).map(|_| draws.share()).sum::<f64>() - 6.0
}

/// One that runs in the simulation: when it ends, its task, and when it began. The first to end is the greatest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SimulatedRun {
    ends: Reverse<u64>,
    task: usize,
    began: u64,
}

/// A queue of eight slots and two tasks, a short and a long one, whose durations are lognormal with a mean of some eight
/// seconds. It can do one task a second.
struct Simulation {
    draws: Draws,
    forecaster: Forecaster,
    running: BinaryHeap<SimulatedRun>,
    waiting: VecDeque<u64>,
    forecasts: HashMap<u64, (Timestamp, Timestamp)>,
    /// How many came true, of how many.
    right: u64,
    of: u64,
}

const SLOTS: usize = 8;

fn moment(micros: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000 + micros)
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            draws: Draws::seeded(seed),
            forecaster: Forecaster::new(seed ^ 0x5eed),
            running: BinaryHeap::new(),
            waiting: VecDeque::new(),
            forecasts: HashMap::new(),
            right: 0,
            of: 0,
        }
    }

    fn start(&mut self, now: u64) {
        let is_long = self.draws.below(10) == 0;
        let (task, median, sigma) = if is_long { (1, 30.0, 0.5) } else { (0, 4.0, 0.7) };
        let took = median * (sigma * normal(&mut self.draws)).exp();
        let ends = Reverse(now + (took * 1e6) as u64);
        self.running.push(SimulatedRun { ends, task, began: now });
    }

    /// Lets end what ends by then, and start what may.
    fn go_on(&mut self, until: u64) {
        while let Some(run) = self.running.pop_if_ended(until) {
            let now = run.ends.0;
            self.forecaster.ended(run.task, Duration::from_micros(now - run.began));
            if let Some(tag) = self.waiting.pop_front() {
                self.forecaster.started(tag, moment(now));
                if let Some((from, to)) = self.forecasts.remove(&tag) {
                    self.right += u64::from((from..=to).contains(&moment(now)));
                    self.of += 1;
                }
                self.start(now);
            }
        }
    }

    fn arrive(&mut self, tag: u64, now: u64) {
        self.go_on(now);
        self.forecaster.arrived(0, moment(now));
        if self.running.len() < SLOTS {
            return self.start(now);
        }
        self.waiting.push_back(tag);
        if self.forecaster.wants_sample(moment(now)) {
            let line = view(SLOTS, SLOTS, self.waiting.len() as u64 - 1);
            let runs = self.running.iter();
            let runs = runs.map(|run| (run.task, Duration::from_micros(now - run.began)));
            if let Some(interval) = self.forecaster.sample(tag, line, runs, moment(now)) {
                self.forecasts.insert(tag, interval);
            }
        }
    }

    fn run(&mut self, load: ArrivalPattern, tasks: u64) {
        let mut now = 0_u64;
        for tag in 0..tasks {
            let share = tag as f64 / tasks as f64;
            let rate = match load {
                ArrivalPattern::Steady => 0.95,
                ArrivalPattern::Bursty => 2.2,
                ArrivalPattern::Growing => 0.6 + 0.5 * share,
            };
            now = load.next(now, rate, &mut self.draws);
            self.arrive(tag, now);
        }
        self.go_on(u64::MAX);
    }
}

/// What the heap of the simulation is asked.
trait PopEnded {
    fn pop_if_ended(&mut self, until: u64) -> Option<SimulatedRun>;
}

impl PopEnded for BinaryHeap<SimulatedRun> {
    fn pop_if_ended(&mut self, until: u64) -> Option<SimulatedRun> {
        self.peek().is_some_and(|run| run.ends.0 <= until).then(|| self.pop()).flatten()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, ..ProptestConfig::default() })]

    /// Of the forecasts that a queue makes, eight in ten come true, whatever its load.
    #[test]
    fn eight_in_ten_come_true(seed in any::<u64>()) {
        for (load, tasks) in [(ArrivalPattern::Steady, 3_000), (ArrivalPattern::Bursty, 4_000), (ArrivalPattern::Growing, 4_000)] {
            let mut queue = Simulation::new(seed);
            queue.run(load, tasks);
            prop_assert!(queue.of > 500, "{load:?}: only {} were sampled", queue.of);
            let coverage = queue.right as f64 / queue.of as f64;
            prop_assert!((0.75..=0.85).contains(&coverage), "{load:?}: {coverage} of {}", queue.of);
            prop_assert!(queue.forecaster.record().of <= 1_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is asked, there is an answer, the interval is not turned round, and it does not begin in the past.
    #[test]
    fn any_line_has_an_answer(
        slots in 0_usize..3_000,
        busy in 0_usize..3_000,
        ahead in prop_oneof![0_u64..2_000, any::<u64>()],
        priority in any::<u8>(),
        took in prop::collection::vec(0_u64..100_000, 0..60),
        urgent in 0_u32..50,
    ) {
        let mut forecaster = Forecaster::new(ahead);
        for (task, millis) in took.iter().enumerate() {
            forecaster.ended(task % 7, Duration::from_millis(*millis));
        }
        (0..urgent).for_each(|n| forecaster.arrived(200, at(f64::from(n) / 10.0)));
        let line = LineView { slots, busy, ahead, priority };
        let runs = (0..busy).map(|run| (run % 9, Duration::from_millis(run as u64)));
        match forecaster.forecast(line, runs, at(10.0)) {
            StartForecast::Between { from, to, .. } => prop_assert!(at(10.0) <= from && from <= to),
            StartForecast::NotKnownYet { observed } => prop_assert!(observed < OBSERVED_AT_LEAST),
            StartForecast::NotInSight => prop_assert!(slots == 0 || urgent > 0),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }
}
