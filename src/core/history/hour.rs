//! One hour of the history of one process: for each queue the minutes of its tasks and of its tenants, and the marks.
//!
//! Invariants:
//! - Whatever is added, the names that an hour tells apart are bounded: where a new one comes to a full place, the one with
//!   the least to say is added to [`OTHER`]. Sums over all names stay exact.
//! - A coarser hour has the same sums.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{HistoryCounts, LONGEST_NAME, Mark, MinuteRows, WaitSpread};
use crate::core::accounts::OTHER;
use crate::core::text::shortened;

/// How many tasks, and how many tenants, of a queue are told apart while the hour goes on. There are more than are kept, so
/// that one which comes late can still be among those that are.
const MOST_NAMES: usize = 64;
/// How many queues are told apart.
const MOST_QUEUES: usize = 200;
/// How many marks are kept: the last ones.
const MOST_MARKS: usize = 200;

/// The counts and marks of one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hour {
    queues: BTreeMap<String, QueueHour>,
    marks: Vec<Mark>,
    /// By queue and by the minute of the hour. It stands last: a program that knows nothing of it reads what is before it.
    waits: BTreeMap<String, BTreeMap<u8, WaitSpread>>,
}

/// An hour as it was written before waits were kept with their percentiles.
#[derive(Deserialize)]
#[cfg_attr(test, derive(Serialize))]
pub(crate) struct HourWithoutWaits {
    queues: BTreeMap<String, QueueHour>,
    marks: Vec<Mark>,
}

impl From<HourWithoutWaits> for Hour {
    fn from(HourWithoutWaits { queues, marks }: HourWithoutWaits) -> Self {
        Self { queues, marks, waits: BTreeMap::new() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct QueueHour {
    tasks: Family,
    tenants: Family,
}

/// The tasks of a queue, or its tenants, by name; each with its counts by the minute of the hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Family(BTreeMap<String, BTreeMap<u8, HistoryCounts>>);

/// The numbers of queues, tasks and tenants that an hour tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The most tasks, and the most tenants, of a queue that have a name; the rest are counted together.
    pub names: usize,
    /// The number of minutes that are counted together.
    pub minutes: u8,
    /// The most queues that have a name.
    pub queues: usize,
}

impl Resolution {
    /// Ever coarser resolutions, from the one in which an hour is kept if there is room for it.
    pub const COARSER: [Self; 6] = [
        Self { names: 20, minutes: 1, queues: MOST_QUEUES },
        Self { names: 20, minutes: 5, queues: MOST_QUEUES },
        Self { names: 10, minutes: 15, queues: MOST_QUEUES },
        Self { names: 5, minutes: 60, queues: MOST_QUEUES },
        Self { names: 0, minutes: 60, queues: MOST_QUEUES },
        Self { names: 0, minutes: 60, queues: 0 },
    ];
}

/// Which names are asked for: those of tasks, or those of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamesOf {
    Tasks,
    Tenants,
}

impl Hour {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.marks.is_empty() && self.waits.is_empty()
    }

    /// Adds what happened in a queue in one minute of this hour.
    pub fn add(&mut self, queue: &str, rows: &MinuteRows) {
        let minute = u8::try_from(rows.minute % 60).unwrap_or_default();
        if !rows.waits.is_empty() {
            self.add_waits(queue, minute, &rows.waits);
        }
        let queue = self.queue(queue);
        for (name, counts) in &rows.tasks {
            queue.tasks.add(name, minute, counts);
        }
        for (name, counts) in &rows.tenants {
            queue.tenants.add(name, minute, counts);
        }
    }

    /// Adds a mark. Of too many, the last ones stay.
    pub fn mark(&mut self, mark: Mark) {
        let place = self.marks.partition_point(|other| *other <= mark);
        self.marks.insert(place, mark);
        if self.marks.len() > MOST_MARKS {
            self.marks.remove(0);
        }
    }

    /// Adds another part of the same hour.
    pub fn merge(&mut self, other: &Self) {
        for (name, hour) in &other.queues {
            let queue = self.queue(name);
            queue.tasks.merge(&hour.tasks);
            queue.tenants.merge(&hour.tenants);
        }
        for (queue, minutes) in &other.waits {
            minutes.iter().for_each(|(minute, waits)| self.add_waits(queue, *minute, waits));
        }
        other.marks.iter().for_each(|mark| self.mark(mark.clone()));
    }

    /// Makes the same hour in this resolution. What has the most to say keeps its name.
    #[must_use]
    pub fn coarser(&self, resolution: Resolution) -> Self {
        let weights = self.queues.iter().map(|(name, queue)| (name.as_str(), queue.weight()));
        let kept = heaviest(weights, resolution.queues);
        let mut coarse = Self { marks: self.marks.clone(), ..Self::default() };
        let name_of = |name: &str| if kept.contains(&name) { name.to_owned() } else { OTHER.to_owned() };
        let step = resolution.minutes.max(1);
        for (queue, minutes) in &self.waits {
            let series = coarse.waits.entry(name_of(queue)).or_default();
            for (minute, waits) in minutes {
                series.entry(minute - minute % step).or_default().add(waits);
            }
        }
        for (name, queue) in &self.queues {
            let name = name_of(name);
            let coarse = coarse.queues.entry(name).or_default();
            coarse.tasks.merge(&queue.tasks.coarser(resolution));
            coarse.tenants.merge(&queue.tenants.coarser(resolution));
        }
        coarse
    }

    /// Makes the same hour without its marks.
    #[must_use]
    pub fn without_marks(self) -> Self {
        Self { marks: Vec::new(), ..self }
    }

    /// Returns the marks of the hour, the oldest first.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// All counts: the queue, the name of the task or the tenant, the minute of the hour.
    pub(super) fn counts(&self, of: NamesOf) -> impl Iterator<Item = (&str, &str, u8, &HistoryCounts)> {
        self.queues.iter().flat_map(move |(queue, hour)| {
            let family = match of {
                NamesOf::Tasks => &hour.tasks,
                NamesOf::Tenants => &hour.tenants,
            };
            family.0.iter().flat_map(move |(name, minutes)| {
                minutes.iter().map(move |(minute, counts)| (queue.as_str(), name.as_str(), *minute, counts))
            })
        })
    }

    /// The waits of the queues: the queue, the minute of the hour, and how they were spread.
    pub(super) fn waits(&self) -> impl Iterator<Item = (&str, u8, &WaitSpread)> {
        self.waits.iter().flat_map(|(queue, minutes)| {
            minutes.iter().map(move |(minute, waits)| (queue.as_str(), *minute, waits))
        })
    }

    fn queue(&mut self, name: &str) -> &mut QueueHour {
        let name = self.name_of(name);
        self.queues.entry(name).or_default()
    }

    /// The name under which a queue is told apart.
    fn name_of(&self, queue: &str) -> String {
        let name = shortened(queue, LONGEST_NAME);
        let has_room = self.queues.len() < MOST_QUEUES || self.queues.contains_key(&*name);
        if has_room { name.into_owned() } else { OTHER.to_owned() }
    }

    /// Adds waits of a queue. The queue is told apart from then on, so that no more queues have waits than have counts.
    fn add_waits(&mut self, queue: &str, minute: u8, waits: &WaitSpread) {
        let name = self.name_of(queue);
        self.queues.entry(name.clone()).or_default();
        self.waits.entry(name).or_default().entry(minute).or_default().add(waits);
    }
}

impl QueueHour {
    fn weight(&self) -> u64 {
        self.tasks.0.values().map(weight).fold(0, u64::saturating_add)
    }
}

impl Family {
    fn add(&mut self, name: &str, minute: u8, counts: &HistoryCounts) {
        let name = shortened(name, LONGEST_NAME);
        if !self.0.contains_key(&*name) && self.0.len() >= MOST_NAMES {
            self.give_up_lightest();
        }
        self.0.entry(name.into_owned()).or_default().entry(minute).or_default().add(counts);
    }

    fn merge(&mut self, other: &Self) {
        for (name, minutes) in &other.0 {
            for (minute, counts) in minutes {
                self.add(name, *minute, counts);
            }
        }
    }

    /// Makes room: the name with the least to say is told apart no more.
    fn give_up_lightest(&mut self) {
        let named = self.0.iter().filter(|(name, _)| *name != OTHER);
        let lightest = named.min_by_key(|(_, minutes)| weight(minutes)).map(|(name, _)| name.clone());
        if let Some(minutes) = lightest.and_then(|name| self.0.remove(&name)) {
            let other = self.0.entry(OTHER.to_owned()).or_default();
            for (minute, counts) in minutes {
                other.entry(minute).or_default().add(&counts);
            }
        }
    }

    fn coarser(&self, resolution: Resolution) -> Self {
        let weights = self.0.iter().filter(|(name, _)| *name != OTHER);
        let kept =
            heaviest(weights.map(|(name, minutes)| (name.as_str(), weight(minutes))), resolution.names);
        let step = resolution.minutes.max(1);
        let mut coarse = Self::default();
        for (name, minutes) in &self.0 {
            let name = if kept.contains(&name.as_str()) { name.as_str() } else { OTHER };
            for (minute, counts) in minutes {
                let series = coarse.0.entry(name.to_owned()).or_default();
                series.entry(minute - minute % step).or_default().add(counts);
            }
        }
        coarse
    }
}

/// How much there is to say of a name.
fn weight(minutes: &BTreeMap<u8, HistoryCounts>) -> u64 {
    let counts = minutes.values().map(|counts| counts.received.saturating_add(counts.started));
    counts.fold(0, u64::saturating_add)
}

/// The names with the largest weights; of the same weight, the first ones.
fn heaviest<'a>(names: impl Iterator<Item = (&'a str, u64)>, most: usize) -> Vec<&'a str> {
    let mut names: Vec<_> = names.collect();
    names.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    names.into_iter().take(most).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::Timestamp;
    use crate::core::history::HistoryEvent;

    fn counts(received: u64) -> HistoryCounts {
        HistoryCounts { received, ..HistoryCounts::default() }
    }

    fn rows(minute: u64, tasks: &[(&str, u64)]) -> MinuteRows {
        let of = |(name, received): &(&str, u64)| (Box::from(*name), counts(*received));
        MinuteRows { minute, tasks: tasks.iter().map(of).collect(), ..MinuteRows::default() }
    }

    fn told(hour: &Hour) -> Vec<(String, String, u8, u64)> {
        let all = hour.counts(NamesOf::Tasks);
        all.map(|(queue, name, minute, counts)| (queue.into(), name.into(), minute, counts.received))
            .collect()
    }

    fn sum(hour: &Hour, of: NamesOf) -> HistoryCounts {
        hour.counts(of).fold(HistoryCounts::default(), |mut sum, (.., counts)| {
            sum.add(counts);
            sum
        })
    }

    #[test]
    fn a_coarser_hour_keeps_what_has_the_most_to_say() {
        let mut hour = Hour::default();
        hour.add("q", &rows(60, &[("small", 1), ("large", 9)]));
        hour.add("q", &rows(67, &[("small", 1), ("late", 5)]));
        hour.add("p", &rows(119, &[("large", 2)]));
        let coarse = hour.coarser(Resolution { names: 2, minutes: 5, queues: 9 });
        let row = |queue: &str, name: &str, minute: u8, received: u64| {
            (queue.to_owned(), name.to_owned(), minute, received)
        };
        let expected = [
            row("p", "large", 55, 2),
            row("q", "large", 0, 9),
            row("q", "late", 5, 5),
            row("q", OTHER, 0, 1),
            row("q", OTHER, 5, 1),
        ];
        assert_eq!(told(&coarse), expected);
        let one = hour.coarser(Resolution { names: 0, minutes: 60, queues: 0 });
        assert_eq!(told(&one), [row(OTHER, OTHER, 0, 18)]);
        assert_eq!(sum(&one, NamesOf::Tasks), sum(&hour, NamesOf::Tasks));
    }

    #[test]
    fn a_name_that_comes_late_has_its_place_if_it_has_much_to_say() {
        let mut hour = Hour::default();
        for n in 0..3 * MOST_NAMES {
            hour.add("q", &rows(n as u64 % 60, &[(&format!("task{n}"), 1)]));
        }
        hour.add("q", &rows(59, &[("flood", 1_000)]));
        let kept = hour.coarser(Resolution::COARSER[0]);
        assert!(told(&kept).contains(&("q".into(), "flood".into(), 59, 1_000)));
        assert_eq!(sum(&kept, NamesOf::Tasks).received, 3 * MOST_NAMES as u64 + 1_000);
    }

    #[test]
    fn marks_stand_in_order_and_the_last_ones_stay() {
        let mut hour = Hour::default();
        let mark = |n: u64| Mark::new(Timestamp::from_millis(n), "pause");
        for n in (0..2 * MOST_MARKS as u64).rev() {
            hour.mark(mark(n));
        }
        assert_eq!(hour.marks().len(), MOST_MARKS);
        assert!(hour.marks().is_sorted() && hour.marks().last() == Some(&mark(2 * MOST_MARKS as u64 - 1)));
    }

    proptest! {
        /// However many names come, in however many parts, an hour is bounded and its sums are exact, in every resolution.
        #[test]
        fn bounds_hold_and_sums_are_exact(
            parts in prop::collection::vec((0usize..4, 0u64..60, 0usize..300, 0usize..300, 0u64..100), 0..1_500),
        ) {
            let (mut whole, mut other) = (Hour::default(), Hour::default());
            let mut received = 0;
            for (index, (queue, minute, task, tenant, count)) in parts.iter().enumerate() {
                let of = |name: String| vec![(Box::from(name), counts(*count))];
                let tasks = of(format!("task{task}"));
                let mut waits = WaitSpread::default();
                waits.record(std::time::Duration::from_millis(*count));
                let part = MinuteRows { minute: *minute, tasks, tenants: of(format!("tenant{tenant}")), waits };
                let hour = if index % 2 == 0 { &mut whole } else { &mut other };
                hour.add(&format!("queue{queue}"), &part);
                received += count;
            }
            whole.merge(&other);
            for family in whole.queues.values().flat_map(|queue| [&queue.tasks, &queue.tenants]) {
                prop_assert!(family.0.len() <= MOST_NAMES + 1);
            }
            for resolution in Resolution::COARSER {
                let coarse = whole.coarser(resolution);
                for of in [NamesOf::Tasks, NamesOf::Tenants] {
                    prop_assert_eq!(sum(&coarse, of), sum(&whole, of));
                    prop_assert_eq!(sum(&coarse, of).received, received);
                }
                for family in coarse.queues.values().flat_map(|queue| [&queue.tasks, &queue.tenants]) {
                    prop_assert!(family.0.len() <= resolution.names.max(1) * whole.queues.len() + 1);
                    let mut minutes = family.0.values().flat_map(BTreeMap::keys);
                    prop_assert!(minutes.all(|minute| minute % resolution.minutes == 0));
                }
                let spread = |hour: &Hour| hour.waits().fold(WaitSpread::default(), |mut all, (.., waits)| {
                    all.add(waits);
                    all
                });
                prop_assert_eq!(spread(&coarse), spread(&whole));
                // What is kept is read back as it was written, and without the waits by whoever knows nothing of them.
                let bytes = postcard::to_stdvec(&coarse).unwrap();
                prop_assert_eq!(&postcard::from_bytes::<Hour>(&bytes).unwrap(), &coarse);
                let old = postcard::from_bytes::<HourWithoutWaits>(&bytes).unwrap();
                let old_bytes = postcard::to_stdvec(&old).unwrap();
                prop_assert!(postcard::from_bytes::<Hour>(&old_bytes).is_err());
                prop_assert_eq!(Hour::from(old), Hour { waits: BTreeMap::new(), ..coarse });
            }
        }
    }

    #[test]
    fn an_empty_hour_says_so() {
        let mut hour = Hour::default();
        assert!(hour.is_empty());
        let mut some = HistoryCounts::default();
        some.count(HistoryEvent::Received);
        hour.add("q", &MinuteRows { minute: 1, tasks: vec![("t".into(), some)], ..MinuteRows::default() });
        assert!(!hour.is_empty());
    }
}
