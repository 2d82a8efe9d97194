//! How many tasks of which kind a queue has started in each minute of the last hour: what a brake would have held.
//!
//! The memory is bounded: a queue counts a thousand kinds of tasks apart, and starts of further kinds together. A kind that
//! had no start for an hour makes room for another one.

use indexmap::{Equivalent, IndexMap};

use super::{LONGEST_NAME, RuleMatcher};
use crate::core::Timestamp;

/// The most kinds of tasks, by name and tenant, that a queue counts apart.
const MOST_KINDS: usize = 1_024;
/// The minutes that are remembered.
const MINUTES: usize = 60;

/// The starts of one queue.
#[derive(Debug, Default)]
pub struct StartHistory {
    kinds: IndexMap<StartKind, MinuteCounts>,
    /// The place of the kind that started at last: most starts are followed by one of their kind.
    last: usize,
    /// The starts of kinds that are not counted apart.
    others: MinuteCounts,
    /// The minute in which kinds without starts were last looked for.
    swept: u64,
}

/// The name of a task, and its tenant; the empty text is none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct StartKind(Box<str>, Box<str>);

/// The same, borrowed.
#[derive(Hash)]
struct StartKindRef<'a>(&'a str, &'a str);

impl Equivalent<StartKind> for StartKindRef<'_> {
    fn equivalent(&self, StartKind(task, tenant): &StartKind) -> bool {
        *self.0 == **task && *self.1 == **tenant
    }
}

/// The number of starts of the last hour that match a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartCount {
    /// The starts whose task, queue and tenant match.
    pub starts: u64,
    /// The starts of which that is not known, because they were of too many kinds.
    pub unknown: u64,
}

impl StartHistory {
    /// Counts the start of a task.
    pub fn started(&mut self, task: &str, tenant: Option<&str>, now: Timestamp) {
        let minute = minute(now);
        let tenant = tenant.unwrap_or_default();
        if let Some(place) = self.place(&StartKindRef(task, tenant))
            && let Some((_, counts)) = self.kinds.get_index_mut(place)
        {
            counts.add(minute);
            self.last = place;
        } else if task.len() <= LONGEST_NAME && tenant.len() <= LONGEST_NAME && self.has_room(minute) {
            self.kinds.entry(StartKind(task.into(), tenant.into())).or_default().add(minute);
        } else {
            self.others.add(minute);
        }
    }

    /// Counts the starts within the last hour that match the rule, as far as it looks at names. `queue` is the queue that these
    /// are the starts of.
    pub fn count(&self, queue: &str, matcher: &RuleMatcher, now: Timestamp) -> StartCount {
        let minute = minute(now);
        let matching = self.kinds.iter().filter(|(StartKind(task, tenant), _)| {
            let tenant = Some(&**tenant).filter(|tenant| !tenant.is_empty());
            matcher.matches_names(task, queue, tenant)
        });
        let starts = matching.map(|(_, counts)| counts.sum(minute)).sum();
        StartCount { starts, unknown: self.others.sum(minute) }
    }

    fn place(&self, kind: &StartKindRef<'_>) -> Option<usize> {
        let is_last = self.kinds.get_index(self.last).is_some_and(|(last, _)| kind.equivalent(last));
        if is_last { Some(self.last) } else { self.kinds.get_index_of(kind) }
    }

    /// Whether one more kind can be counted apart. Kinds without starts are forgotten, once a minute at most.
    fn has_room(&mut self, minute: u64) -> bool {
        if self.kinds.len() >= MOST_KINDS && self.swept != minute {
            self.swept = minute;
            self.kinds.retain(|_, counts| counts.sum(minute) > 0);
        }
        self.kinds.len() < MOST_KINDS
    }
}

fn minute(now: Timestamp) -> u64 {
    now.as_millis() / 60_000
}

/// A count for each minute of the last hour.
#[derive(Clone, Debug)]
struct MinuteCounts {
    counts: [u32; MINUTES],
    /// The last minute in which there was one.
    last: u64,
}

impl Default for MinuteCounts {
    fn default() -> Self {
        Self { counts: [0; MINUTES], last: 0 }
    }
}

impl MinuteCounts {
    fn add(&mut self, minute: u64) {
        // A clock that steps back goes on counting in the minute that it had reached.
        if minute > self.last {
            let passed = usize::try_from(minute - self.last).unwrap_or(MINUTES).min(MINUTES);
            for back in 0..passed {
                self.counts[place(minute - back as u64)] = 0;
            }
            self.last = minute;
        }
        let count = &mut self.counts[place(self.last)];
        *count = count.saturating_add(1);
    }

    /// The starts within the hour that ends with this minute.
    fn sum(&self, minute: u64) -> u64 {
        let over = usize::try_from(minute.saturating_sub(self.last)).unwrap_or(MINUTES);
        let known = MINUTES.saturating_sub(over);
        (0..known as u64)
            .filter_map(|back| self.last.checked_sub(back))
            .map(|minute| u64::from(self.counts[place(minute)]))
            .sum()
    }
}

fn place(minute: u64) -> usize {
    (minute % MINUTES as u64) as usize
}
