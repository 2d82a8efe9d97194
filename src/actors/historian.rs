//! The historian: an actor that once a minute asks the queues what has happened, and writes it into the notes of the store, with the
//! runs that simulations begin with. The root builds it, on its own thread, where no task body can block it; readers reach it through
//! [`HistorianParts`].
//!
//! Invariants:
//! - Nothing waits for the historian. While the notes cannot be written, it keeps what there is in a bounded amount of memory,
//!   and writes it later.
//! - What a queue has handed in is in the history once, whichever actor dies. A process that is killed loses what it has
//!   counted since the last write, a minute at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, WrapFuture};
use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use tokio_util::sync::CancellationToken;

use super::patience::PATIENCE;
use super::queues::Queues;
use crate::core::history::{Hour, KEPT_HOURS, Mark, hour_of};
use crate::runtime::Runtime;
use crate::runtime::history_inbox::HistoryNews;
use crate::store::history::{HourNote, forget_old};
use crate::store::recorded_runs::RecordedNotes;
use crate::task::clock::now;

/// How often the history is written.
const ROUND: Duration = Duration::from_secs(60);
/// How long the queues may take to hand in what they have counted when the program ends.
const AT_THE_END: Duration = Duration::from_millis(200);
/// The most hours that keep all their rows in memory while the notes cannot be written; of older ones only sums are kept.
const WHOLE_HOURS: usize = 3;

/// What the historian is made of. It outlives the actor, which the root builds from it each time.
pub(crate) struct HistorianParts {
    runtime: Arc<Runtime>,
    queues: Queues,
    /// The name under which this process writes.
    node: String,
    hours: tokio::sync::Mutex<Hours>,
    recording: tokio::sync::Mutex<RunNotes>,
    closing: CancellationToken,
    /// An actor that nobody has the address of would end.
    address: Mutex<Option<Addr<Historian>>>,
}

/// The hours that are not written yet, or to which something may be added.
#[derive(Default)]
pub(crate) struct Hours {
    notes: BTreeMap<u64, HourNote>,
    /// The hour in which old notes were last deleted.
    tidied: Option<u64>,
    /// Whether the last write has failed.
    is_failing: bool,
}

/// The runs of this process on their way into notes.
struct RunNotes {
    notes: RecordedNotes,
    /// Whether the last write has failed.
    is_failing: bool,
}

impl HistorianParts {
    pub(crate) fn new(runtime: Arc<Runtime>, queues: Queues, node: String) -> Self {
        let (hours, closing) = (tokio::sync::Mutex::default(), CancellationToken::new());
        let recording = RunNotes { notes: RecordedNotes::new(&node), is_failing: false };
        let recording = tokio::sync::Mutex::new(recording);
        Self { runtime, queues, node, hours, recording, closing, address: Mutex::new(None) }
    }

    pub(super) fn lives_at(&self, address: Addr<Historian>) {
        *self.address.lock() = Some(address);
    }

    /// Has the queues hand in what they have counted, for as long as `patience`, and adds it to the hours. Who reads holds
    /// the answer while it reads, so that nothing is counted twice. A queue that does not answer hands in later.
    pub(crate) async fn collect(&self, patience: Duration) -> MutexGuard<'_, Hours> {
        self.queues.hand_in_minutes(patience).await;
        let mut hours = self.hours.lock().await;
        hours.add(self.runtime.history.take(), &self.node);
        hours
    }

    /// What this process has not written yet, by hour, with its name. Beside what the notes say it is all that there is.
    pub(crate) async fn unwritten(&self, hours: &mut Hours) -> Vec<(u64, Hour)> {
        for note in hours.notes.values_mut() {
            // If the notes cannot be read, who reads them will hear of it.
            let _ = note.settle(self.runtime.notes()).await;
        }
        hours.notes.iter().map(|(number, note)| (*number, note.unwritten())).collect()
    }

    /// The name under which this process writes.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Writes for the last time, when the queues have ended their runs.
    pub(crate) async fn end(&self, mark: Mark) {
        self.closing.cancel();
        self.runtime.history.mark(mark);
        let mut hours = self.collect(AT_THE_END).await;
        self.write(&mut hours).await;
        drop(hours);
        self.record().await;
    }

    async fn run(&self) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        rounds.tick().await; // the first one comes at once
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return,
                _ = rounds.tick() => {}
            }
            let mut hours = self.collect(PATIENCE).await;
            self.write(&mut hours).await;
            drop(hours);
            self.record().await;
        }
    }

    /// Writes the runs that have ended since the last time.
    async fn record(&self) {
        let mut recording = self.recording.lock().await;
        let runs = self.runtime.recorded.take();
        let written = recording.notes.write(self.runtime.notes(), runs, now()).await;
        let is_failing = written.is_err();
        let was_failing = std::mem::replace(&mut recording.is_failing, is_failing);
        match written {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "the runs for simulations cannot be written now; it is tried again each minute");
            }
            Ok(()) if was_failing => tracing::info!("the runs for simulations are written again"),
            Err(_) | Ok(()) => {}
        }
    }

    /// Writes what is new. What cannot be written stays for the next time.
    async fn write(&self, hours: &mut Hours) {
        let this_hour = hour_of(now());
        if let Err(error) = self.try_write(hours, this_hour).await {
            if !std::mem::replace(&mut hours.is_failing, true) {
                tracing::warn!(%error, "the history cannot be written now; it is tried again each minute");
            }
        } else if std::mem::take(&mut hours.is_failing) {
            tracing::info!("the history is written again");
        }
        hours.forget(this_hour);
    }

    async fn try_write(&self, hours: &mut Hours, this_hour: u64) -> Result<(), crate::store::StoreError> {
        let notes = self.runtime.notes();
        let is_new = hours.notes.values().any(|note| !note.is_written());
        // Nothing is looked for where nothing is written.
        if is_new && hours.tidied != Some(this_hour) && forget_old(notes, this_hour).await? {
            hours.tidied = Some(this_hour);
        }
        for note in hours.notes.values_mut() {
            note.write(notes).await?;
        }
        Ok(())
    }
}

impl Hours {
    fn note(&mut self, hour: u64, node: &str) -> &mut HourNote {
        self.notes.entry(hour).or_insert_with(|| HourNote::new(hour, node))
    }

    fn add(&mut self, HistoryNews { minutes, marks }: HistoryNews, node: &str) {
        for (queue, rows) in minutes {
            for row in rows {
                self.note(row.minute / 60, node).pending().add(&queue, &row);
            }
        }
        for mark in marks {
            self.note(hour_of(mark.at), node).pending().mark(mark);
        }
    }

    /// Takes less memory: hours that are over and written go, and of those that cannot be written only sums stay.
    fn forget(&mut self, this_hour: u64) {
        self.notes.retain(|hour, note| {
            let is_kept = hour.saturating_add(KEPT_HOURS) >= this_hour;
            is_kept && (*hour >= this_hour || !note.is_written())
        });
        let older = self.notes.len().saturating_sub(WHOLE_HOURS);
        self.notes.values_mut().take(older).for_each(HourNote::shrink);
    }
}

/// The actor of the history: its loop.
pub(crate) struct Historian {
    parts: Arc<HistorianParts>,
}

impl Historian {
    pub(super) fn new(parts: Arc<HistorianParts>) -> Self {
        Self { parts }
    }
}

impl Actor for Historian {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let parts = Arc::clone(&self.parts);
        let run = async move { parts.run().await };
        ctx.spawn(run.into_actor(self));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::history::{HistoryCounts, HistoryFilter, MinuteRows, Rows, minute_begins};

    fn news(minute: u64) -> HistoryNews {
        let counts = HistoryCounts { received: 1, ..HistoryCounts::default() };
        let rows = MinuteRows { minute, tasks: vec![("t".into(), counts)], ..MinuteRows::default() };
        HistoryNews { minutes: vec![("q".to_owned(), vec![rows])], ..HistoryNews::default() }
    }

    #[test]
    fn what_cannot_be_written_stays_for_seven_days_and_takes_less_memory() {
        let mut hours = Hours::default();
        for hour in 0..300 {
            hours.add(news(hour * 60 + 7), "web1");
            hours.add(news(hour * 60 + 8), "web1");
            hours.forget(hour);
        }
        let kept: Vec<u64> = hours.notes.keys().copied().collect();
        assert_eq!((kept[0], kept.len()), (299 - KEPT_HOURS, 169));
        let all = HistoryFilter::between(minute_begins(0), minute_begins(300 * 60));
        let mut rows = Rows::new(all);
        hours.notes.iter().for_each(|(number, note)| rows.add(*number, &note.unwritten()));
        let received: Vec<u64> = rows.finish().iter().map(|row| row.counts.received).collect();
        assert_eq!(received, [2; 169]);
    }
}
