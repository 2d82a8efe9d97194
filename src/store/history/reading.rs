//! Reading the history: rows and marks of a range, summed over all processes that have written notes.

use serde::Serialize;

use super::{StoredHour, hours};
use crate::core::history::{HistoryFilter, HistoryRow, Hour, KEPT, Mark, Rows};
use crate::core::{Timestamp, history};
use crate::store::{Notes, StoreError};

/// What happened in a range of time, in all processes that keep their history in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct History {
    /// The rows, by time and then by name. A step without an event has no row.
    pub rows: Vec<HistoryRow>,
    /// The marks in the range, by time.
    pub marks: Vec<HistoryMark>,
    /// The names of the processes that have written something in the hours of the range.
    pub nodes: Vec<String>,
    /// How many bytes these hours take where they are kept.
    pub bytes: usize,
    /// How many notes cannot be read: a later version has written them, or they are damaged. What they say is missing.
    pub unreadable: usize,
}

/// A mark, and the process that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HistoryMark {
    /// The name of the process.
    pub node: String,
    /// The mark that was found.
    #[serde(flatten)]
    pub mark: Mark,
}

/// What this process has not written yet: its name, and the hours with their numbers.
pub(crate) type Unwritten<'a> = (&'a str, Vec<(u64, Hour)>);

/// Reads the range of this filter, at most the seven days before `now`.
///
/// # Errors
/// The notes cannot be read.
pub(crate) async fn read_history(
    notes: &dyn Notes,
    filter: HistoryFilter,
    now: Timestamp,
    unwritten: Option<Unwritten<'_>>,
) -> Result<History, StoreError> {
    let last = history::minute_begins(history::minute_of(now) + 1);
    let filter = HistoryFilter { from: filter.from.max(now - KEPT), until: filter.until.min(last), ..filter };
    let mut reader = HistoryReader { rows: Rows::new(filter.clone()), filter, history: History::default() };
    for number in reader.filter.hours() {
        for StoredHour { node, hour, bytes } in hours(notes, number).await? {
            reader.history.bytes += bytes;
            match hour {
                Some(hour) => reader.add(&node, number, &hour),
                None => reader.history.unreadable += 1,
            }
        }
    }
    if let Some((node, hours)) = unwritten {
        for (number, hour) in &hours {
            reader.add(node, *number, hour);
        }
    }
    Ok(reader.finish())
}

struct HistoryReader {
    filter: HistoryFilter,
    rows: Rows,
    history: History,
}

impl HistoryReader {
    fn add(&mut self, node: &str, number: u64, hour: &Hour) {
        let Self { filter, rows, history } = self;
        rows.add(number, hour);
        // A mark that is about no queue is about all of them.
        let is_asked_for = |mark: &&Mark| {
            let is_of_queue = |queue: &str| mark.subject.as_deref().is_none_or(|subject| subject == queue);
            filter.has(mark.at) && filter.queue.as_deref().is_none_or(is_of_queue)
        };
        let marks = hour.marks().iter().filter(is_asked_for);
        history.marks.extend(marks.map(|mark| HistoryMark { node: node.to_owned(), mark: mark.clone() }));
        if !hour.is_empty() && !history.nodes.iter().any(|known| known == node) {
            history.nodes.push(node.to_owned());
        }
    }

    fn finish(self) -> History {
        let Self { rows, mut history, .. } = self;
        history.rows = rows.finish();
        history.marks.sort_by(|one, other| one.mark.cmp(&other.mark));
        history.nodes.sort_unstable();
        history
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::some;
    use super::super::{HourNote, key_of};
    use super::*;
    use crate::core::history::{HistoryBy, minute_begins};
    use crate::store::{CompareAndSet, MemoryStore};

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_a_fleet_did_is_summed_up() {
        let (notes, first) = (MemoryStore::default(), 28_000_000 / 60);
        let minute = |n: u64| first * 60 + n;
        for (node, received) in [("web1", 2), ("web2", 3)] {
            let mut note = HourNote::new(first, node);
            note.pending().merge(&some(minute(5), received));
            note.pending().mark(Mark::new(minute_begins(minute(received)), "resize").of(node));
            note.pending().mark(Mark::new(minute_begins(minute(1)), "start"));
            note.write(&notes).await.unwrap();
        }
        let odd =
            CompareAndSet { key: key_of(first + 1, "web3"), expected: None, value: Some("9".to_owned()) };
        assert_eq!(notes.compare_and_set(odd).await, Ok(true));
        let now = minute_begins(minute(70));
        let filter = HistoryFilter {
            by: HistoryBy::Queue,
            step: 60 * MINUTE,
            ..HistoryFilter::between(minute_begins(minute(0)), now + MINUTE)
        };
        let own = || Some(("web2", vec![(first + 1, some(minute(69), 7))]));
        let told = read_history(&notes, filter.clone(), now, own()).await.unwrap();
        let rows = |history: &History| {
            history.rows.iter().map(|row| (row.at, row.counts.received)).collect::<Vec<_>>()
        };
        assert_eq!(rows(&told), [(minute_begins(minute(0)), 5), (minute_begins(minute(60)), 7)]);
        assert_eq!((told.nodes.join(" "), told.unreadable), ("web1 web2".to_owned(), 1));
        assert!(told.bytes > 50, "{}", told.bytes);
        let marks = |history: &History| {
            let marks = history.marks.iter().map(|mark| format!("{} {}", mark.node, mark.mark.what));
            marks.collect::<Vec<_>>()
        };
        assert_eq!(marks(&told), ["web1 start", "web2 start", "web1 resize", "web2 resize"]);
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(
            (&json["marks"][2]["subject"], &json["marks"][2]["node"]),
            (&"web1".into(), &"web1".into())
        );
        let of_queue = HistoryFilter { queue: Some("web2".to_owned()), ..filter.clone() };
        let told = read_history(&notes, of_queue, now, own()).await.unwrap();
        assert_eq!(marks(&told), ["web1 start", "web2 start", "web2 resize"]);
        assert!(told.rows.is_empty(), "the queue is `q`");
        // However long the range is, nobody looks further back than there is something.
        let ever = HistoryFilter { from: Timestamp::ZERO, until: now + KEPT * 1_000, ..filter };
        assert_eq!(rows(&read_history(&notes, ever, now, own()).await.unwrap()).len(), 2);
    }
}
