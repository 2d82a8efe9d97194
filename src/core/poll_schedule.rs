//! When a source poller asks its source for rows, for how many, and how long it waits after that.
//!
//! A loop asks once in an interval, and at once again after a full batch that brought anything new. A loop does not
//! ask while it is paused, or while the queue that it feeds is behind: more tasks wait than allowed, or for longer. A
//! loop asks a source that failed again after growing pauses. The caller passes the clock in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// The first pause after a failure. The pause doubles with each further failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How a source poller asks its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The time from one question to the next.
    pub interval: Duration,
    /// The most rows that the loop asks for at a time.
    pub batch: usize,
    /// The most tasks that may wait in the queue. The loop asks for no more rows than fit. `None`: there is no limit.
    pub max_backlog: Option<u64>,
    /// The longest time for which the oldest task in the queue may have waited before the loop stops asking. `None`:
    /// there is no limit.
    pub max_age: Option<Duration>,
    /// The longest pause after failures.
    pub longest_pause: Duration,
}

/// The state of the queue that a loop feeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// How many tasks wait in the queue or are on the way to a worker.
    pub backlog: u64,
    /// For how long the oldest task has waited.
    pub age: Duration,
}

/// What a source poller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollStep {
    /// The loop asks the source for at most this many rows.
    Ask(usize),
    /// The loop does nothing until this time, for this reason.
    Wait(Timestamp, Why),
}

/// Why a source poller does not ask its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// The interval since the last question is not over.
    Interval,
    /// Somebody has paused the loop.
    Paused,
    /// Enough tasks wait in the queue.
    Backlog,
    /// The oldest task in the queue has waited for too long.
    Age,
    /// The source, or an enqueue, has failed.
    Failure,
}

/// The state of one source poller.
#[derive(Clone, Debug)]
pub struct PollSchedule {
    rule: Rule,
    paused: bool,
    /// When the loop asks next.
    next: Timestamp,
    failures: u32,
}

impl PollSchedule {
    /// A loop that asks at once.
    pub fn new(rule: Rule) -> Self {
        Self { rule, paused: false, next: Timestamp::ZERO, failures: 0 }
    }

    /// Whether somebody has paused the loop.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Pauses the loop, or ends its pause.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Makes the loop ask now, whatever it waits for, unless it is paused or the queue is behind.
    pub fn hurry(&mut self) {
        self.next = Timestamp::ZERO;
    }

    /// What the loop has to do now.
    pub fn step(&self, now: Timestamp, pressure: Pressure) -> PollStep {
        let again = now + self.rule.interval;
        if self.paused {
            return PollStep::Wait(again, Why::Paused);
        }
        if self.next > now {
            let why = if self.failures > 0 { Why::Failure } else { Why::Interval };
            return PollStep::Wait(self.next, why);
        }
        if self.rule.max_age.is_some_and(|most| pressure.age > most) {
            return PollStep::Wait(again, Why::Age);
        }
        let room = self.rule.max_backlog.map_or(u64::MAX, |most| most.saturating_sub(pressure.backlog));
        match usize::try_from(room).unwrap_or(usize::MAX).min(self.rule.batch) {
            0 => PollStep::Wait(again, Why::Backlog),
            limit => PollStep::Ask(limit),
        }
    }

    /// Records that the source gave `found` rows of `asked` at `began`, and that the loop enqueued `new` of them.
    pub fn looked(&mut self, began: Timestamp, asked: usize, found: usize, new: usize) {
        self.failures = 0;
        let is_full = found >= asked && new > 0;
        self.next = if is_full { began } else { began + self.rule.interval };
    }

    /// Records that the source or an enqueue failed. Returns how long the loop waits now.
    pub fn failed(&mut self, now: Timestamp) -> Duration {
        let doubled = AFTER_FAILURE.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let pause = doubled.min(self.rule.longest_pause);
        self.next = now + pause;
        pause
    }
}

/// The order in which a batch is enqueued, as indices into the batch. Rows of one tenant keep their order, and
/// tenants take turns in the order in which they first occur.
pub fn round_robin<'a>(tenants: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
    let mut lines: Vec<VecDeque<usize>> = Vec::new();
    let mut line_of: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, tenant) in tenants.into_iter().enumerate() {
        let line = *line_of.entry(tenant).or_insert_with(|| {
            lines.push(VecDeque::new());
            lines.len() - 1
        });
        lines[line].push_back(place);
    }
    let mut order = Vec::new();
    while !lines.is_empty() {
        for line in &mut lines {
            order.extend(line.pop_front());
        }
        lines.retain(|line| !line.is_empty());
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn rule() -> Rule {
        Rule {
            interval: INTERVAL,
            batch: 100,
            max_backlog: Some(250),
            max_age: Some(Duration::from_secs(60)),
            longest_pause: Duration::from_secs(300),
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Come(usize),
        Drain(u64),
        Pass(u64),
        Fail,
        Pause(bool),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (1..400_usize).prop_map(Event::Come),
            3 => (1..200_u64).prop_map(Event::Drain),
            6 => (1..40_u64).prop_map(Event::Pass),
            1 => Just(Event::Fail),
            1 => any::<bool>().prop_map(Event::Pause),
        ]
    }

    proptest! {
        /// Days of virtual time in which rows come, the queue drains and the source fails. The loop never feeds the
        /// queue beyond its bound, and asks for nothing while it is paused. It asks for due rows within an interval
        /// of the time when it may, and drains a backlog of rows without waiting.
        #[test]
        fn a_loop_keeps_its_rule(events in prop::collection::vec(event(), 1..200)) {
            let mut schedule = PollSchedule::new(rule());
            let mut now = Timestamp::from_millis(1_000_000);
            let (mut due, mut backlog, mut fails) = (0_usize, 0_u64, false);
            let mut may_ask_since = None;
            for event in events {
                match event {
                    Event::Come(rows) => due += rows,
                    Event::Drain(tasks) => backlog = backlog.saturating_sub(tasks),
                    Event::Pass(seconds) => now = now + Duration::from_secs(seconds),
                    Event::Fail => fails = true,
                    Event::Pause(paused) => schedule.pause(paused),
                }
                let mut asked = 0;
                loop {
                    let pressure = Pressure { backlog, age: Duration::ZERO };
                    match schedule.step(now, pressure) {
                        PollStep::Ask(limit) => {
                            prop_assert!(!schedule.is_paused());
                            prop_assert!(backlog + limit as u64 <= 250 && limit <= 100 && limit > 0);
                            asked += 1;
                            prop_assert!(asked < 10, "it spins");
                            if std::mem::take(&mut fails) {
                                let pause = schedule.failed(now);
                                prop_assert!(pause <= Duration::from_secs(300));
                                continue;
                            }
                            let found = due.min(limit);
                            due -= found;
                            backlog += found as u64;
                            schedule.looked(now, limit, found, found);
                            may_ask_since = None;
                        }
                        PollStep::Wait(until, why) => {
                            prop_assert!(until > now);
                            match why {
                                Why::Paused => prop_assert!(schedule.is_paused()),
                                Why::Backlog => prop_assert!(backlog >= 250),
                                Why::Interval => {
                                    prop_assert!(until.since(now) <= INTERVAL);
                                    // The loop asked less than an interval ago, and the source gave fewer rows than
                                    // it was asked for.
                                    prop_assert!(may_ask_since.is_none_or(|since: Timestamp| now.since(since) <= INTERVAL));
                                    may_ask_since.get_or_insert(now);
                                }
                                Why::Failure | Why::Age => {}
                            }
                            break;
                        }
                    }
                }
            }
        }

        /// In any prefix of the order, no tenant that still has rows is more than one row behind another. No row is
        /// lost.
        #[test]
        fn tenants_take_turns(tenants in prop::collection::vec(0..6_u8, 0..60)) {
            let names: Vec<String> = tenants.iter().map(ToString::to_string).collect();
            let order = round_robin(names.iter().map(String::as_str));
            prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), names.len());
            let mut left: HashMap<&str, usize> = HashMap::new();
            names.iter().for_each(|name| *left.entry(name).or_default() += 1);
            let (mut had, mut last): (HashMap<&str, usize>, HashMap<&str, usize>) = Default::default();
            for place in order {
                let name = names[place].as_str();
                prop_assert!(last.insert(name, place).is_none_or(|before| before < place), "its own order stays");
                *had.entry(name).or_default() += 1;
                *left.entry(name).or_default() -= 1;
                let mine = had[name];
                for (other, left) in &left {
                    prop_assert!(*left == 0 || had.get(other).copied().unwrap_or(0) + 1 >= mine);
                }
            }
        }
    }

    #[test]
    fn a_full_batch_that_brings_nothing_new_waits() {
        let now = Timestamp::from_millis(5_000);
        let mut schedule = PollSchedule::new(rule());
        assert_eq!(schedule.step(now, Pressure::default()), PollStep::Ask(100));
        schedule.looked(now, 100, 100, 1);
        assert_eq!(schedule.step(now, Pressure::default()), PollStep::Ask(100), "at once");
        schedule.looked(now, 100, 100, 0);
        let wait = PollStep::Wait(now + INTERVAL, Why::Interval);
        assert_eq!(schedule.step(now, Pressure::default()), wait, "they are enqueued already");
        schedule.hurry();
        let old = Pressure { backlog: 1, age: Duration::from_secs(61) };
        assert_eq!(schedule.step(now, old), PollStep::Wait(now + INTERVAL, Why::Age));
        assert_eq!(schedule.step(now, Pressure { backlog: 170, age: Duration::ZERO }), PollStep::Ask(80));
    }

    #[test]
    fn failures_double_the_pause_up_to_the_longest() {
        let now = Timestamp::from_millis(5_000);
        let mut schedule = PollSchedule::new(rule());
        let pauses: Vec<u64> = (0..12).map(|_| schedule.failed(now).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        let wait = PollStep::Wait(now + Duration::from_secs(300), Why::Failure);
        assert_eq!(schedule.step(now, Pressure::default()), wait);
        schedule.looked(now, 100, 0, 0);
        assert_eq!(schedule.failed(now).as_secs(), 1);
    }
}
