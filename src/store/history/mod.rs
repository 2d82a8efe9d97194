//! The history of a fleet in notes. An hour of a process is one note, so processes never wait for each other, and whoever reads
//! sums them up.
//!
//! | note | says |
//! |---|---|
//! | `history/HOUR/NODE` | what happened in an hour (counted from 1970) in the process of this name |
//! | `history/first` | the first hour of which there may be notes |
//!
//! Invariants:
//! - A note takes at most [`MOST_BYTES`]. An hour with more to say is kept in a coarser resolution, with the same sums.
//! - What is older than [`KEPT_HOURS`] is deleted.

mod hour_note;
mod reading;

use super::hourly_notes::HourlyNotes;
use super::{Notes, StoreError, packed};
use crate::core::history::{Hour, HourWithoutWaits, KEPT_HOURS, Resolution};
use crate::core::text::shortened;

pub(crate) use hour_note::HourNote;
pub(crate) use reading::read_history;
pub use reading::{History, HistoryMark};

/// The most bytes of a note. So a process takes at most 16 MiB for its seven days.
const MOST_BYTES: usize = 96 << 10;
/// How hard a note is compressed: 1 to 22.
const LEVEL: i32 = 6;
/// How many bytes of the name of a node are in the name of a note.
const LONGEST_NODE: usize = 255;

const NOTES: HourlyNotes = HourlyNotes { prefix: "history", kept_hours: KEPT_HOURS };

/// An hour of some process, as its note has it.
#[derive(Debug)]
pub(crate) struct StoredHour {
    /// The name of the process.
    pub(crate) node: String,
    /// What happened in it. `None`: the note cannot be read.
    pub(crate) hour: Option<Hour>,
    /// How many bytes the note takes.
    pub(crate) bytes: usize,
}

fn prefix_of(hour: u64) -> String {
    NOTES.of_hour(hour)
}

fn key_of(hour: u64, node: &str) -> String {
    format!("{}{}", prefix_of(hour), shortened(node, LONGEST_NODE))
}

/// The text of an hour that is small enough for a note, and the hour that is read from this text.
///
/// # Errors
/// The hour has no form.
fn written(hour: &Hour) -> Result<(String, Hour), StoreError> {
    for resolution in Resolution::COARSER {
        let coarse = hour.coarser(resolution);
        let text = packed(&coarse)?;
        if text.len() <= MOST_BYTES {
            return Ok((text, coarse));
        }
    }
    // One row is left of each kind, so it is the marks that take the room.
    let coarse = hour.coarser(Resolution { names: 0, minutes: 60, queues: 0 }).without_marks();
    Ok((packed(&coarse)?, coarse))
}

fn packed(hour: &Hour) -> Result<String, StoreError> {
    packed::packed(hour, LEVEL, "an hour of the history")
}

/// The hour of a note. One that an earlier version has written has no percentiles. `None`: the note is none of this version.
fn read(text: &str) -> Option<Hour> {
    packed::unpacked(text).or_else(|| packed::unpacked::<HourWithoutWaits>(text).map(Hour::from))
}

/// What the notes have of an hour, one for each process.
///
/// # Errors
/// The notes cannot be read.
pub(crate) async fn hours(notes: &dyn Notes, number: u64) -> Result<Vec<StoredHour>, StoreError> {
    let prefix = prefix_of(number);
    let found = notes.notes(&prefix).await?;
    let stored = found.into_iter().map(|(key, text)| StoredHour {
        node: key.strip_prefix(&prefix).unwrap_or(&key).to_owned(),
        hour: read(&text),
        bytes: text.len(),
    });
    Ok(stored.collect())
}

/// Deletes what is too old by now, at most two days of it. `now` is the number of this hour. Says whether that was all.
///
/// # Errors
/// The notes cannot be read or written. Some may be deleted by then.
pub(crate) async fn forget_old(notes: &dyn Notes, now: u64) -> Result<bool, StoreError> {
    NOTES.forget_old(notes, now).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::core::history::{HistoryCounts, HistoryEvent, Mark, MinuteRows, WaitSpread};
    use crate::store::{CompareAndSet, MemoryStore};

    /// The note that says where the history begins.
    const FIRST: &str = "history/first";

    pub(super) fn some(minute: u64, received: u64) -> Hour {
        let mut counts = HistoryCounts::default();
        (0..received).for_each(|_| counts.count(HistoryEvent::Received));
        let mut hour = Hour::default();
        hour.add("q", &MinuteRows { minute, tasks: vec![("t".into(), counts)], ..MinuteRows::default() });
        hour
    }

    #[test]
    fn an_hour_is_read_as_it_was_written() {
        let mut hour = some(61, 3);
        hour.mark(Mark::new(Timestamp::from_millis(7), "pause").of("q").by(Some("anna")));
        let (text, kept) = written(&hour).unwrap();
        assert_eq!(kept, hour);
        assert_eq!(read(&text), Some(hour));
        assert!(text.len() < 200, "{text}");
        for other in ["", "1", "2abc", "1!!", "1AAAA", &text[..text.len() / 2], &text[1..]] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    /// More queues, tasks and tenants than any program has.
    #[test]
    fn however_much_there_is_to_say_a_note_is_bounded_and_its_sums_are_exact() {
        let mut hour = Hour::default();
        let mut received = 0;
        for queue in 0..100_u64 {
            for minute in 0..60 {
                let names = |kind: &str| -> Vec<(Box<str>, HistoryCounts)> {
                    let counts = |n: u64| {
                        let received = (queue * 31 + minute * 7 + n * 1_013) % 997 + 1;
                        HistoryCounts { received, started: received / 2, ..HistoryCounts::default() }
                    };
                    (0..12).map(|n| (format!("{kind} {n} of {queue}").into(), counts(n))).collect()
                };
                let mut waits = WaitSpread::default();
                (0..40).for_each(|n| waits.record(std::time::Duration::from_millis(1 << n)));
                let rows = MinuteRows { minute, tasks: names("task"), tenants: names("tenant"), waits };
                received += rows.tasks.iter().map(|(_, counts)| counts.received).sum::<u64>();
                hour.add(&format!("queue {queue}"), &rows);
            }
        }
        let (text, kept) = written(&hour).unwrap();
        assert!(text.len() <= MOST_BYTES, "{}", text.len());
        assert_eq!(read(&text).as_ref(), Some(&kept));
        let filter = crate::core::history::HistoryFilter::between(
            Timestamp::ZERO,
            crate::core::history::minute_begins(60),
        );
        let mut rows = crate::core::history::Rows::new(filter);
        rows.add(0, &kept);
        assert_eq!(rows.finish().iter().map(|row| row.counts.received).sum::<u64>(), received);
    }

    #[tokio::test]
    async fn what_is_too_old_is_deleted_step_by_step() {
        let notes = MemoryStore::default();
        let now = 500_000;
        // A program that has never kept a history.
        assert_eq!(forget_old(&notes, now).await, Ok(true));
        for hour in [now, now + 1, now + 30, now + KEPT_HOURS] {
            let value = Some(written(&some(hour * 60, 1)).unwrap().0);
            let change = CompareAndSet { key: key_of(hour, "web1"), expected: None, value };
            assert_eq!(notes.compare_and_set(change).await, Ok(true));
        }
        let there = async || {
            let all = notes.notes("history/").await.unwrap().into_iter();
            all.filter(|(key, _)| key != FIRST).count()
        };
        assert_eq!(forget_old(&notes, now + KEPT_HOURS).await, Ok(true));
        assert_eq!(there().await, 4, "the first one is just not too old");
        assert_eq!(forget_old(&notes, now + KEPT_HOURS + 1).await, Ok(true));
        assert_eq!(there().await, 3);
        // After a year the program is started again.
        assert_eq!(forget_old(&notes, now + 9_000).await, Ok(false));
        assert_eq!(there().await, 1);
        let mut steps = 1;
        while forget_old(&notes, now + 9_000).await == Ok(false) {
            steps += 1;
            assert!(steps < 1_000, "it never ends");
        }
        assert_eq!(there().await, 0);
        let stored = hours(&notes, now).await.unwrap();
        assert!(stored.is_empty());
        // A note that somebody else has written is no reason to delete anything that is kept.
        let text = notes.note(FIRST).await.unwrap();
        let odd = CompareAndSet { key: FIRST.to_owned(), expected: text, value: Some("soon".to_owned()) };
        assert_eq!(notes.compare_and_set(odd).await, Ok(true));
        assert!(forget_old(&notes, now + 9_000).await.is_ok());
    }
}
