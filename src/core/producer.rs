//! When a producer loop looks for what is due, for how much, and how long it waits after that.
//!
//! It looks at each interval, and at once again after a full batch that brought anything new. It does not look while it is
//! paused, or while the queue that it feeds is behind: longer than allowed, or older. A source that fails is asked again after
//! growing pauses. Whoever drives it passes the clock in.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// The first pause after a failure; it doubles.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How a loop goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// From one look to the next.
    pub interval: Duration,
    /// How many are asked for at a time.
    pub batch: usize,
    /// So many may wait in the queue; no more are asked for than fit.
    pub max_backlog: Option<u64>,
    /// So long may the oldest in the queue have waited.
    pub max_age: Option<Duration>,
    /// The longest pause after failures.
    pub longest_pause: Duration,
}

/// How the queue is that a loop feeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// How many wait there, or are on the way to a worker.
    pub backlog: u64,
    /// For how long the oldest has waited.
    pub age: Duration,
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the source for so many.
    Ask(usize),
    /// Nothing until then.
    Wait(Timestamp, Why),
}

/// Why nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// It is not time yet.
    Interval,
    /// Somebody has paused it.
    Paused,
    /// Enough wait in the queue.
    Backlog,
    /// The oldest in the queue waits for too long.
    Age,
    /// The source, or an enqueue, has failed.
    Failure,
}

/// One loop.
#[derive(Clone, Debug)]
pub struct Producer {
    rule: Rule,
    paused: bool,
    /// When it looks next.
    next: Timestamp,
    failures: u32,
}

impl Producer {
    /// A loop that looks at once.
    pub fn new(rule: Rule) -> Self {
        Self { rule, paused: false, next: Timestamp::ZERO, failures: 0 }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Pauses it, or lets it go on.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// It looks now, whatever it waits for, unless it is paused or the queue is behind.
    pub fn hurry(&mut self) {
        self.next = Timestamp::ZERO;
    }

    /// What is to be done now.
    pub fn step(&self, now: Timestamp, pressure: Pressure) -> Step {
        let again = now + self.rule.interval;
        if self.paused {
            return Step::Wait(again, Why::Paused);
        }
        if self.next > now {
            let why = if self.failures > 0 { Why::Failure } else { Why::Interval };
            return Step::Wait(self.next, why);
        }
        if self.rule.max_age.is_some_and(|most| pressure.age > most) {
            return Step::Wait(again, Why::Age);
        }
        let room = self.rule.max_backlog.map_or(u64::MAX, |most| most.saturating_sub(pressure.backlog));
        match usize::try_from(room).unwrap_or(usize::MAX).min(self.rule.batch) {
            0 => Step::Wait(again, Why::Backlog),
            limit => Step::Ask(limit),
        }
    }

    /// The source gave `found` of `asked`, and `new` of them were enqueued.
    pub fn looked(&mut self, began: Timestamp, asked: usize, found: usize, new: usize) {
        self.failures = 0;
        let is_full = found >= asked && new > 0;
        self.next = if is_full { began } else { began + self.rule.interval };
    }

    /// The source, or an enqueue, failed; says how long it waits now.
    pub fn failed(&mut self, now: Timestamp) -> Duration {
        let doubled = AFTER_FAILURE.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        let pause = doubled.min(self.rule.longest_pause);
        self.next = now + pause;
        pause
    }
}

/// The order in which a batch is enqueued: each tenant's own stays, and tenants take turns, in the order in which they first
/// come. Gives the places in the batch.
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
        /// Days of virtual time: rows come, the queue drains, the source fails. The queue is never fed beyond its bound, nothing is
        /// asked while it is paused, what is due is asked for within an interval of when it may be, and a backlog of rows is
        /// drained without waiting.
        #[test]
        fn a_loop_keeps_its_rule(events in prop::collection::vec(event(), 1..200)) {
            let mut producer = Producer::new(rule());
            let mut now = Timestamp::from_millis(1_000_000);
            let (mut due, mut backlog, mut fails) = (0_usize, 0_u64, false);
            let mut may_ask_since = None;
            for event in events {
                match event {
                    Event::Come(rows) => due += rows,
                    Event::Drain(tasks) => backlog = backlog.saturating_sub(tasks),
                    Event::Pass(seconds) => now = now + Duration::from_secs(seconds),
                    Event::Fail => fails = true,
                    Event::Pause(paused) => producer.pause(paused),
                }
                let mut asked = 0;
                loop {
                    let pressure = Pressure { backlog, age: Duration::ZERO };
                    match producer.step(now, pressure) {
                        Step::Ask(limit) => {
                            prop_assert!(!producer.is_paused());
                            prop_assert!(backlog + limit as u64 <= 250 && limit <= 100 && limit > 0);
                            asked += 1;
                            prop_assert!(asked < 10, "it spins");
                            if std::mem::take(&mut fails) {
                                let pause = producer.failed(now);
                                prop_assert!(pause <= Duration::from_secs(300));
                                continue;
                            }
                            let found = due.min(limit);
                            due -= found;
                            backlog += found as u64;
                            producer.looked(now, limit, found, found);
                            may_ask_since = None;
                        }
                        Step::Wait(until, why) => {
                            prop_assert!(until > now);
                            match why {
                                Why::Paused => prop_assert!(producer.is_paused()),
                                Why::Backlog => prop_assert!(backlog >= 250),
                                Why::Interval => {
                                    prop_assert!(until.since(now) <= INTERVAL);
                                    // It looked less than an interval ago, and found less than it asked for.
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

        /// In any prefix of the order no tenant that still has rows is more than one behind another; nothing is lost.
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
        let mut producer = Producer::new(rule());
        assert_eq!(producer.step(now, Pressure::default()), Step::Ask(100));
        producer.looked(now, 100, 100, 1);
        assert_eq!(producer.step(now, Pressure::default()), Step::Ask(100), "at once");
        producer.looked(now, 100, 100, 0);
        let wait = Step::Wait(now + INTERVAL, Why::Interval);
        assert_eq!(producer.step(now, Pressure::default()), wait, "they are enqueued already");
        producer.hurry();
        let old = Pressure { backlog: 1, age: Duration::from_secs(61) };
        assert_eq!(producer.step(now, old), Step::Wait(now + INTERVAL, Why::Age));
        assert_eq!(producer.step(now, Pressure { backlog: 170, age: Duration::ZERO }), Step::Ask(80));
    }

    #[test]
    fn failures_double_the_pause_up_to_the_longest() {
        let now = Timestamp::from_millis(5_000);
        let mut producer = Producer::new(rule());
        let pauses: Vec<u64> = (0..12).map(|_| producer.failed(now).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        let wait = Step::Wait(now + Duration::from_secs(300), Why::Failure);
        assert_eq!(producer.step(now, Pressure::default()), wait);
        producer.looked(now, 100, 0, 0);
        assert_eq!(producer.failed(now).as_secs(), 1);
    }
}
