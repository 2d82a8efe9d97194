//! Opens the store again after a restart, and after the disk refused a commit.
//!
//! While the store cannot be written, it refuses publishes with the reason, and keeps settlements. A failed commit may
//! be in the log nevertheless. It is removed there, because a task whose publish was refused must not run. After
//! pauses that grow, the store is opened again and writes the settlements that it has kept.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acknowledged::Acknowledged;
use super::commit::RowEnd;
use super::engine::Engine;
use super::failed::FailedTotals;
use super::known_lanes::KnownLanes;
use super::lanes::{LaneBatch, LaneStep, Newcoming};
use super::queue_cursor::QueueCursor;
use super::ready_key::ReadyKey;
use super::rows::{CLAIMS, SEQ, StoredQueue, decode, queue_of};
use super::start_log::LoggedStarts;
use super::tables::{TableName, Tables, Writes, io_error, is_full};
use super::{hot_log, mend};
use crate::broker::{BrokerError, lane};
use crate::core::Backoff;
use crate::core::Timestamp;

/// The first pause before the store is opened again after a failed write.
const REOPEN_AFTER: Duration = Duration::from_millis(100);
/// The longest pause before the store is opened again.
const REOPEN_AT_MOST: Duration = Duration::from_secs(2);
/// The pause after an attempt to mend the store has failed.
const MEND_AGAIN: Duration = Duration::from_secs(30);

/// The pauses before the store is opened again after a failed write.
pub(super) const fn reopening() -> Backoff {
    Backoff::new(REOPEN_AFTER, REOPEN_AT_MOST)
}

/// The failure of a write. The store is closed after it.
pub(super) struct WriteFailure {
    pub(super) error: BrokerError,
    pub(super) retry_at: Instant,
    /// The sequence number of the commit that failed.
    seq: u64,
    /// Whether the database's background work has failed, and nobody has looked for the damage behind that yet.
    is_broken: bool,
}

impl Engine {
    /// Takes newly opened tables into use.
    pub(super) fn adopt(&mut self, tables: Tables) -> Result<(), BrokerError> {
        self.load_meta(&tables)?;
        self.load_lines(&tables)?;
        self.known_lanes = KnownLanes::open(&tables)?;
        self.shared.set_tables(Ok(tables.clone()));
        self.tables = Some(tables);
        Ok(())
    }

    fn load_meta(&mut self, tables: &Tables) -> Result<(), BrokerError> {
        let damaged = |error: String| BrokerError::Damaged { path: self.dir.join("db"), error };
        if let Some(seq) = tables.get(TableName::Meta, SEQ)? {
            let seq = <[u8; 8]>::try_from(&*seq).map_err(|e| damaged(format!("the sequence: {e}")))?;
            self.seq = self.seq.max(u64::from_be_bytes(seq));
        }
        let mut rows = Vec::new();
        for row in tables.range(TableName::Meta, b"queue/", std::ops::Bound::Excluded(b"queue0"))? {
            let (key, value) = row?;
            let name = String::from_utf8_lossy(&key[b"queue/".len()..]).into_owned();
            let row = StoredQueue::decode(&value).map_err(|e| damaged(format!("queue `{name}`: {e}")))?;
            rows.push((name, row));
        }
        rows.sort_by_key(|(_, row)| row.number);
        let mut failed = Vec::new();
        for row in tables.range(TableName::Meta, b"failed/", std::ops::Bound::Excluded(b"failed0"))? {
            let (key, value) = row?;
            let name = String::from_utf8_lossy(&key[b"failed/".len()..]).into_owned();
            let totals = decode::<FailedTotals>(&value)
                .map_err(|e| damaged(format!("the failed tasks of queue `{name}`: {e}")))?;
            failed.push((name, totals));
        }
        for cursor in self.cursors.iter_mut() {
            (cursor.ready, cursor.scheduled, cursor.dead, cursor.in_line) = (0, 0, 0, 0); // the next commit rewrites them
            (cursor.failed, cursor.failed_on_disk) = (FailedTotals::default(), FailedTotals::default());
        }
        for (name, row) in rows {
            let number = usize::from(row.number);
            // A number that was given out but never written stays unused, because the number of a queue is its index.
            while !self.by_name.contains_key(&name) && self.cursors.len() < number {
                self.cursors.push(QueueCursor::new(String::new(), self.cursors.len() as u16));
            }
            let index = self.known_queue(&name)?;
            if index != number {
                let error = format!("queue `{name}` has the number {number} of another one");
                return Err(BrokerError::Damaged { path: self.dir.join("db"), error });
            }
            let cursor = &mut self.cursors[index];
            (cursor.ready, cursor.scheduled, cursor.dead) = (row.ready, row.scheduled, row.dead);
            cursor.in_line = row.in_line;
        }
        for (name, totals) in failed {
            if let Some(index) = self.by_name.get(&name) {
                let cursor = &mut self.cursors[*index];
                (cursor.failed, cursor.failed_on_disk) = (totals, totals);
            }
        }
        self.commit.queues.clear();
        self.next_deadline = Some(Timestamp::ZERO);
        Ok(())
    }

    /// Counts the runs that ended with the process that had the store before. Their tasks wait again, or become dead
    /// letters if they crashed once too often. Starts of an earlier generation were counted already, but their process
    /// was killed before it could begin a new file of starts.
    pub(super) fn recover_crashed(&mut self, found: &LoggedStarts) -> Result<(), BrokerError> {
        let mut generation = found.generation;
        let uncounted = self.open_tables()?.get(TableName::Meta, CLAIMS)?;
        let uncounted =
            uncounted.and_then(|row| Some(u64::from_be_bytes((*row).try_into().ok()?))).unwrap_or(0);
        if generation >= uncounted {
            generation += u64::from(self.count_crashes(&found.started, generation + 1)?);
        }
        let reset = self.shared.start_log.reset(generation.max(uncounted));
        reset.map_err(|e| io_error(&self.dir.join("claims"), e))
    }

    /// Counts these crashes. Returns whether there were any, in which case `next` is the new generation.
    fn count_crashes(&mut self, started: &HashSet<ReadyKey>, next: u64) -> Result<bool, BrokerError> {
        let (mut writes, mut lanes) = (Writes::default(), LaneBatch::default());
        let mut queues = Vec::new();
        let tables = self.open_tables()?;
        for key in started {
            let Some(queue) = queue_of(key).map(usize::from).filter(|q| *q < self.cursors.len()) else {
                continue;
            };
            let message = match self.message(key) {
                Ok(Some(message)) => message,
                Ok(None) => continue, // the row's delivery was settled
                Err(error) => {
                    tracing::error!(?key, %error, "the crash of a task that cannot be read is not counted");
                    continue;
                }
            };
            tracing::info!(id = %message.id, task = %message.task, crashes = message.crashes.saturating_add(1), "its run ended with the process");
            let (ended, mut record) = (message.clone(), None);
            let end = self.count_crash(&mut writes, queue, key, message, &mut record);
            if let RowEnd::Dead = end {
                if let Some(lane) = ended.lane() {
                    let block = lane::blocks(&ended, record.as_ref());
                    self.release_lane(&mut lanes, &tables, lane, &ended.id, block)?;
                }
                if let Some(unique) = &ended.unique {
                    lanes.unique_windows.release(&tables, &unique.key, &ended.id)?;
                }
            }
            queues.push(queue);
        }
        if writes.is_empty() {
            return Ok(false);
        }
        writes.put(TableName::Meta, CLAIMS, &next.to_be_bytes());
        self.commit.queues.extend(queues);
        self.commit_lanes(lanes, writes).map(|()| true)
    }

    /// Closes the tables after a failed write, and refuses the publishes that were about to be written.
    pub(super) fn fail(&mut self, error: BrokerError) {
        tracing::error!(%error, "the store is closed until it can be written again");
        self.shared.set_tables(Err(error.clone()));
        self.reclaim.end();
        let tables = self.tables.take();
        let is_broken = tables.as_ref().is_some_and(Tables::is_broken);
        if let Some(tables) = tables {
            tables.stop(); // somebody may read them still
            tables.close();
        }
        let retry_at = Instant::now() + self.reopening.pause();
        self.failure = Some(WriteFailure { error: error.clone(), retry_at, seq: self.seq, is_broken });
        // Before anybody hears that his task was refused: this process may end before the store is opened again.
        if let Err(error) = self.take_off_failed() {
            tracing::warn!(%error, "the failed commit is not out of the log yet");
        }
        self.commit.publishes = Writes::default();
        self.commit.ids.clear();
        // Settlements are kept, and so are the messages that follow from them, so the ids of these messages stay taken.
        let kept = self.commit.arrivals.iter().map(|arrival| arrival.message.id.clone());
        self.commit.ids.extend(kept.chain(self.commit.records.iter().map(|record| record.id.clone())));
        for step in std::mem::take(&mut self.commit.steps) {
            match step {
                LaneStep::Arrive(Newcoming { is_kept: false, reply, .. }) => {
                    reply.map(|reply| reply.send(Err(error.clone())));
                }
                LaneStep::Arrive(kept) => {
                    self.commit.ids.insert(kept.message.id.clone());
                    self.commit.steps.push(LaneStep::Arrive(kept));
                }
                end @ (LaneStep::Release { .. } | LaneStep::ReleaseWindow { .. }) => {
                    self.commit.steps.push(end)
                }
            }
        }
        // The rows of these publishes were counted when the publishes were staged.
        for published in self.commit.published.drain(..) {
            self.cursors[published.arrival.queue].left(&published.arrival.place);
            published.reply.map(|reply| reply.send(Err(error.clone())));
        }
    }

    /// Opens the store again after a failure when its time has come, and writes what was kept.
    pub(super) fn try_reopen(&mut self) {
        let Some(failure) = &mut self.failure else { return };
        if Instant::now() < failure.retry_at {
            return;
        }
        failure.retry_at = Instant::now() + self.reopening.peek();
        // A disk that is still full would fail again.
        if matches!(failure.error, BrokerError::Full(_)) && is_full(&self.dir) {
            return;
        }
        if failure.is_broken && !self.is_mended() {
            return;
        }
        self.reopening.pause(); // the next attempt waits longer
        // The failed commit must be out of the log before it can be replayed.
        let opened = self.take_off_failed().and_then(|()| super::open_tables(&self.dir));
        if let Err(error) = opened.and_then(|tables| self.adopt(tables)) {
            tracing::warn!(%error, "the store cannot be opened yet");
            return;
        }
        // The counts were read from disk, and lack the settlements that memory has kept.
        self.count_kept();
        self.failure = None;
        if self.acknowledged.is_none() {
            match Acknowledged::open(&self.dir, self.seq) {
                Ok(acknowledged) => self.acknowledged = Some(acknowledged),
                Err(error) => {
                    tracing::warn!(%error, "how far the store has acknowledged is not noted; should its log be cut short now, that cannot be told");
                }
            }
        }
        for settlement in std::mem::take(&mut self.deferred) {
            self.gather(settlement);
        }
        self.flush();
        if self.failure.is_none() {
            tracing::info!("the store can be written again");
        }
        // Rows that were delivered or promoted before the failure may differ from the disk. So each queue is read from
        // its beginning.
        for cursor in self.cursors.iter_mut() {
            cursor.look_again();
        }
    }

    /// Looks for damage and mends it, on a thread of its own. Returns whether this is done. Meanwhile the store refuses
    /// publishes and keeps the ends of runs.
    fn is_mended(&mut self) -> bool {
        let Some(mending) = self.mending.take() else {
            if let Err(error) = self.take_off_failed() {
                tracing::warn!(%error, "the store cannot be mended yet");
                return false;
            }
            let held = self.cursors.iter().flat_map(|cursor| cursor.held.values());
            let in_hand = held.map(|held| (held.key, Arc::clone(&held.message))).collect();
            let dir = self.dir.clone();
            let work = move || mend::mend(&dir, &in_hand);
            // If no thread can be had now, the next call tries again.
            self.mending = std::thread::Builder::new().name("celeriac-mending".to_owned()).spawn(work).ok();
            return false;
        };
        if !mending.is_finished() {
            self.mending = Some(mending);
            return false;
        }
        let panicked = |panic| Err(BrokerError::io(crate::task::panic_message(panic)));
        match mending.join().unwrap_or_else(panicked) {
            Ok(is_new) => {
                if is_new {
                    // The new database has nothing of the commit that failed, and another log.
                    self.acknowledged = None;
                }
                if let Some(failure) = &mut self.failure {
                    failure.is_broken = false;
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, "the store cannot be mended");
                if let Some(failure) = &mut self.failure {
                    (failure.error, failure.retry_at) = (error, Instant::now() + MEND_AGAIN);
                }
                false
            }
        }
    }

    /// Makes sure that the failed commit is not on disk. The tables must be closed.
    pub(super) fn take_off_failed(&self) -> Result<(), BrokerError> {
        let Some(failure) = &self.failure else { return Ok(()) };
        hot_log::wipe_last_frame(&self.dir.join("db").join(hot_log::DIR), failure.seq)
    }

    /// Adds the kept settlements to the counts from disk, which are those of the last good commit.
    fn count_kept(&mut self) {
        for settled in &self.commit.settled {
            self.commit.queues.insert(settled.queue);
            let cursor = &mut self.cursors[settled.queue];
            match &settled.end {
                RowEnd::Back => continue,
                RowEnd::Gone => {}
                RowEnd::Dead => cursor.dead += 1,
                RowEnd::Failed(change) => change.count(&mut cursor.failed),
                RowEnd::Replaced(arrival) => {
                    self.commit.queues.insert(arrival.queue);
                    self.cursors[arrival.queue].came(&arrival.place, &arrival.message);
                }
            }
            self.cursors[settled.queue].left_ready(&settled.held.key);
        }
        for arrival in &self.commit.arrivals {
            self.commit.queues.insert(arrival.queue);
            self.cursors[arrival.queue].came(&arrival.place, &arrival.message);
        }
    }

    /// Writes the last commit before the store closes. Returns an error if not all settlements are safe.
    pub(super) fn last_flush(&mut self) -> Result<(), BrokerError> {
        self.flush();
        if let Some(failure) = &mut self.failure {
            failure.retry_at = Instant::now();
            self.try_reopen();
        }
        let kept = self.commit.writes() || !self.deferred.is_empty();
        self.failure.as_ref().filter(|_| kept).map_or(Ok(()), |f| Err(f.error.clone()))
    }
}
