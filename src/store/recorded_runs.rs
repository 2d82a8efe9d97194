//! The runs that processes have recorded for simulations, in notes: the note `recorded/HOUR/NODE/NUMBER` has some runs of the process
//! of this name, and is never changed. So processes never wait for each other.
//!
//! Invariants:
//! - The notes of a name take at most [`MOST_BYTES`] and have at most [`MOST_RECORDED`] runs; the oldest go first. What is older than
//!   [`KEPT_HOURS`] is deleted, whoever wrote it.
//! - What cannot be written stays in memory for the next time, as many runs as a recorder has.

use std::collections::VecDeque;

use super::hourly_notes::HourlyNotes;
use super::packed::{packed, unpacked};
use super::{CompareAndSet, Notes, StoreError};
use crate::core::Timestamp;
use crate::core::history::hour_of;
use crate::core::simulation::{MOST_RECORDED, RecordedRuns};
use crate::core::text::shortened;

/// The number of hours whose runs are kept beside the present one.
const KEPT_HOURS: u64 = 2;
/// The most bytes of all notes of a name.
const MOST_BYTES: usize = 4 << 20;

const NOTES: HourlyNotes = HourlyNotes { prefix: "recorded", kept_hours: KEPT_HOURS };
/// How hard a note is compressed: 1 to 22.
const LEVEL: i32 = 3;
/// How many bytes of the name of a node are in the name of a note.
const LONGEST_NODE: usize = 255;
/// How many notes of one process wait to be written.
const MOST_PENDING: usize = 25;

/// The notes that a process writes.
pub(crate) struct RecordedNotes {
    node: String,
    /// Those of its name that are there, the oldest first. `None`: nobody has looked yet.
    kept: Option<VecDeque<KeptNote>>,
    pending: VecDeque<PendingNote>,
    /// The number of the newest note.
    newest: u64,
    /// The hour in which old notes were last deleted.
    tidied: Option<u64>,
}

struct KeptNote {
    key: String,
    runs: usize,
    bytes: usize,
}

struct PendingNote {
    key: String,
    text: String,
    runs: usize,
}

/// Runs of some process, as a note has them.
#[cfg(any(feature = "cli", test))]
pub(crate) struct RecordedNote {
    /// The name of the process.
    pub(crate) node: String,
    /// The runs. `None`: the note cannot be read.
    pub(crate) runs: Option<RecordedRuns>,
}

/// What the names of the notes of an hour of this node begin with.
fn prefix_of(hour: u64, node: &str) -> String {
    format!("{}{}/", NOTES.of_hour(hour), shortened(node, LONGEST_NODE))
}

impl RecordedNotes {
    /// The notes of the process of this name.
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), kept: None, pending: VecDeque::new(), newest: 0, tidied: None }
    }

    /// Writes these runs, and what could not be written before, and deletes what is too much.
    ///
    /// # Errors
    /// The notes cannot be read or written. What is not written stays for the next time.
    pub(crate) async fn write(
        &mut self,
        notes: &dyn Notes,
        runs: impl IntoIterator<Item = RecordedRuns>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let hour = hour_of(now);
        for runs in runs {
            let text = packed(&runs, LEVEL, "a part of the recorded runs")?;
            self.newest = now.as_micros().max(self.newest + 1);
            let key = format!("{}{:016}", prefix_of(hour, &self.node), self.newest);
            self.pending.push_back(PendingNote { key, text, runs: runs.len() });
            if self.pending.len() > MOST_PENDING {
                self.pending.pop_front();
            }
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut kept = match self.kept.take() {
            Some(kept) => kept,
            None => self.look(notes, hour).await?,
        };
        let written = self.write_pending(notes, &mut kept).await;
        self.kept = Some(kept);
        written?;
        if self.tidied != Some(hour) && NOTES.forget_old(notes, hour).await? {
            self.tidied = Some(hour);
        }
        Ok(())
    }

    async fn write_pending(
        &mut self,
        notes: &dyn Notes,
        kept: &mut VecDeque<KeptNote>,
    ) -> Result<(), StoreError> {
        while let Some(PendingNote { key, text, runs }) = self.pending.front() {
            make_room(notes, kept, text.len(), *runs).await?;
            let value = Some(text.clone());
            let note = CompareAndSet { key: key.clone(), expected: None, value };
            // If there is a note of this name, an attempt before this one has written it, or another process of the same name.
            if notes.compare_and_set(note).await? || notes.note(key).await?.as_ref() == Some(text) {
                kept.push_back(KeptNote { key: key.clone(), runs: *runs, bytes: text.len() });
            } else {
                tracing::warn!(
                    note = key,
                    "two processes of one name record their runs at the same time, so some are left out"
                );
            }
            self.pending.pop_front();
        }
        Ok(())
    }

    /// The notes of this name that a process before this one has left.
    async fn look(&self, notes: &dyn Notes, hour: u64) -> Result<VecDeque<KeptNote>, StoreError> {
        let mut kept = VecDeque::new();
        for hour in hour.saturating_sub(KEPT_HOURS)..=hour {
            for (key, text) in notes.notes(&prefix_of(hour, &self.node)).await? {
                let runs = unpacked::<RecordedRuns>(&text).map_or(0, |runs| runs.len());
                kept.push_back(KeptNote { key, runs, bytes: text.len() });
            }
        }
        Ok(kept)
    }
}

/// Deletes the oldest notes until so many bytes and runs more are not too many.
async fn make_room(
    notes: &dyn Notes,
    kept: &mut VecDeque<KeptNote>,
    bytes: usize,
    runs: usize,
) -> Result<(), StoreError> {
    let is_too_much = |kept: &VecDeque<KeptNote>| {
        let all_bytes: usize = kept.iter().map(|note| note.bytes).sum();
        let all_runs: usize = kept.iter().map(|note| note.runs).sum();
        all_bytes + bytes > MOST_BYTES || all_runs + runs > MOST_RECORDED
    };
    while is_too_much(&*kept)
        && let Some(KeptNote { key, .. }) = kept.front()
    {
        // It may be gone, because its hour was too long ago.
        if let Some(text) = notes.note(key).await? {
            let gone = CompareAndSet { key: key.clone(), expected: Some(text), value: None };
            notes.compare_and_set(gone).await?;
        }
        kept.pop_front();
    }
    Ok(())
}

/// The notes of all processes that may have runs of tasks which came at this time or later, in the order of their names.
///
/// # Errors
/// The notes cannot be read.
#[cfg(any(feature = "cli", test))]
pub(crate) async fn read_recorded(
    notes: &dyn Notes,
    from: Timestamp,
    now: Timestamp,
) -> Result<Vec<RecordedNote>, StoreError> {
    let mut found = Vec::new();
    let last = hour_of(now);
    for hour in hour_of(from).max(last.saturating_sub(KEPT_HOURS))..=last {
        found.extend(notes.notes(&NOTES.of_hour(hour)).await?);
    }
    found.sort_unstable();
    let stored = found.into_iter().map(|(key, text)| {
        // `recorded/HOUR/NODE/NUMBER`, where the node may have a slash in its name.
        let node = key.splitn(3, '/').nth(2).and_then(|rest| rest.rsplit_once('/')).map(|(node, _)| node);
        RecordedNote { node: node.unwrap_or_default().to_owned(), runs: unpacked(&text) }
    });
    Ok(stored.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::simulation::{RunRecorder, TaskArrival};
    use crate::store::MemoryStore;

    const NOW: Timestamp = Timestamp::from_micros(1_795_348_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn runs(tenants: impl Iterator<Item = String>, at: Timestamp) -> VecDeque<RecordedRuns> {
        let mut recorder = RunRecorder::default();
        for tenant in tenants {
            recorder.record(TaskArrival {
                at,
                queue: "q",
                task: "t",
                tenant: &tenant,
                priority: 0,
                takes: MINUTE,
                waited: Some(Duration::ZERO),
                is_again: false,
            });
        }
        recorder.take()
    }

    fn one(tenant: &str, at: Timestamp) -> VecDeque<RecordedRuns> {
        runs([tenant.to_owned()].into_iter(), at)
    }

    async fn tenants(notes: &MemoryStore, from: Timestamp, now: Timestamp) -> Vec<String> {
        let stored = read_recorded(notes, from, now).await.expect("notes");
        let runs = stored.iter().filter_map(|stored| Some((&stored.node, stored.runs.as_ref()?)));
        runs.flat_map(|(node, runs)| runs.iter().map(move |run| format!("{node} {}", run.tenant))).collect()
    }

    #[tokio::test]
    async fn what_processes_wrote_is_read_and_old_hours_go() {
        let notes = MemoryStore::default();
        let (mut web1, mut web2) = (RecordedNotes::new("web1"), RecordedNotes::new("a/b"));
        web1.write(&notes, one("acme", NOW), NOW).await.expect("a write");
        web2.write(&notes, one("zoo", NOW), NOW).await.expect("a write");
        web1.write(&notes, one("late", NOW + MINUTE), NOW + MINUTE).await.expect("a write");
        web1.write(&notes, VecDeque::new(), NOW + MINUTE).await.expect("nothing is written");
        assert_eq!(tenants(&notes, NOW, NOW + MINUTE).await, ["a/b zoo", "web1 acme", "web1 late"]);
        let later = NOW + 60 * MINUTE * 4;
        web1.write(&notes, one("new", later), later).await.expect("a write");
        assert_eq!(tenants(&notes, NOW, later).await, ["web1 new"]);
        let left = notes.notes("recorded/").await.expect("notes");
        assert_eq!(left.len(), 2, "one, and the first hour: {left:?}");
    }

    #[tokio::test]
    async fn a_name_has_no_more_runs_than_its_bound_across_restarts() {
        let notes = MemoryStore::default();
        let name = |n: usize| format!("tenant{}", n % 100);
        let mut first = RecordedNotes::new("web1");
        first.write(&notes, runs((0..MOST_RECORDED).map(name), NOW), NOW).await.expect("a write");
        let mut second = RecordedNotes::new("web1");
        let more = runs((0..8_000).map(name), NOW + MINUTE);
        second.write(&notes, more, NOW + MINUTE).await.expect("a write");
        let stored = read_recorded(&notes, NOW, NOW + MINUTE).await.expect("notes");
        let kept: usize = stored.iter().filter_map(|stored| Some(stored.runs.as_ref()?.len())).sum();
        assert_eq!(kept, MOST_RECORDED);
        let bytes: usize =
            notes.notes("recorded/").await.expect("notes").iter().map(|(_, text)| text.len()).sum();
        assert!(bytes <= MOST_BYTES, "{bytes}");
    }

    #[tokio::test]
    async fn a_note_that_is_there_already_is_not_written_again() {
        let notes = MemoryStore::default();
        let mut node = RecordedNotes::new("web1");
        node.write(&notes, one("acme", NOW), NOW).await.expect("a write");
        // As if nobody had heard that the note was written.
        let (key, text) = notes.notes("recorded/").await.expect("notes").remove(0);
        node.pending.push_back(PendingNote { key, text, runs: 1 });
        node.write(&notes, VecDeque::new(), NOW).await.expect("a write");
        assert_eq!(tenants(&notes, NOW, NOW).await, ["web1 acme"]);
        assert!(node.pending.is_empty());
    }

    #[tokio::test]
    async fn a_note_that_cannot_be_read_is_said_to_be_one() {
        let notes = MemoryStore::default();
        let key = format!("{}{:016}", prefix_of(hour_of(NOW), "web1"), 7);
        let odd = CompareAndSet { key, expected: None, value: Some("9later".to_owned()) };
        assert_eq!(notes.compare_and_set(odd).await, Ok(true));
        let stored = read_recorded(&notes, NOW, NOW).await.expect("notes");
        assert!(stored.len() == 1 && stored[0].runs.is_none() && stored[0].node == "web1");
    }
}
