//! How the store comes back: after a restart, and after the disk refused a commit.
//!
//! While it is sick, publishes are refused with the reason and settlements are kept. A failed commit may be in the
//! journal nevertheless, so it is taken off there: who was refused must not find the task run. The store is opened
//! again after growing pauses, and then the settlements are written.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::claims::Found;
use super::commit::{End, Place};
use super::engine::Engine;
use super::journal;
use super::known_lanes::KnownLanes;
use super::lanes::{LaneBatch, Newcoming, Step};
use super::rows::{CLAIMS, QueueRow, ReadyKey, SEQ, decode, queue_of};
use super::tables::{Table, Tables, Writes, io_error, is_full};
use super::window::Window;
use crate::broker::{BrokerError, lane};
use crate::core::Timestamp;

/// The pause before the store is opened again after a failure, and its longest.
pub(super) const REOPEN_AFTER: Duration = Duration::from_millis(100);
const REOPEN_AT_MOST: Duration = Duration::from_secs(2);

/// The store could not be written.
pub(super) struct Failure {
    pub(super) error: BrokerError,
    pub(super) retry_at: Instant,
    /// The sequence of the commit that failed.
    seq: u64,
}

impl Engine {
    /// Takes newly opened tables into use.
    pub(super) fn adopt(&mut self, tables: Tables) -> Result<(), BrokerError> {
        self.load_meta(&tables)?;
        self.known_lanes = KnownLanes::open(&tables)?;
        self.shared.set_tables(Ok(tables.clone()));
        self.tables = Some(tables);
        Ok(())
    }

    fn load_meta(&mut self, tables: &Tables) -> Result<(), BrokerError> {
        let damaged = |error: String| BrokerError::Damaged { path: self.dir.join("db"), error };
        if let Some(seq) = tables.get(Table::Meta, SEQ)? {
            let seq = <[u8; 8]>::try_from(&*seq).map_err(|e| damaged(format!("the sequence: {e}")))?;
            self.seq = self.seq.max(u64::from_be_bytes(seq));
        }
        let mut rows = Vec::new();
        for row in tables.range(Table::Meta, b"queue/", std::ops::Bound::Excluded(b"queue0"))? {
            let (key, value) = row?;
            let name = String::from_utf8_lossy(&key[b"queue/".len()..]).into_owned();
            let row = decode::<QueueRow>(&value).map_err(|e| damaged(format!("queue `{name}`: {e}")))?;
            rows.push((name, row));
        }
        rows.sort_by_key(|(_, row)| row.number);
        for window in &mut self.windows {
            (window.ready, window.scheduled, window.dead, window.in_line) = (0, 0, 0, 0); // written again with the next commit
        }
        for (name, row) in rows {
            let number = usize::from(row.number);
            // A number that was given out but never written stays unused: a queue's number is its index.
            while !self.by_name.contains_key(&name) && self.windows.len() < number {
                self.windows.push(Window::new(String::new(), self.windows.len() as u16));
            }
            let index = self.queue(&name)?;
            if index != number {
                let error = format!("queue `{name}` has the number {number} of another one");
                return Err(BrokerError::Damaged { path: self.dir.join("db"), error });
            }
            let window = &mut self.windows[index];
            (window.ready, window.scheduled, window.dead) = (row.ready, row.scheduled, row.dead);
            window.in_line = row.in_line;
        }
        self.commit.queues.clear();
        self.next_deadline = Some(Timestamp::ZERO);
        Ok(())
    }

    /// Counts the runs that ended with the process that had the store before: their tasks wait again, or, once too
    /// often, lie in the dead letters. Claims of an earlier generation were counted, and their process was killed
    /// before it could say so in their file.
    pub(super) fn recover_crashed(&mut self, found: &Found) -> Result<(), BrokerError> {
        let mut generation = found.generation;
        let uncounted = self.open_tables()?.get(Table::Meta, CLAIMS)?;
        let uncounted =
            uncounted.and_then(|row| Some(u64::from_be_bytes((*row).try_into().ok()?))).unwrap_or(0);
        if generation >= uncounted {
            generation += u64::from(self.count_crashes(&found.started, generation + 1)?);
        }
        let reset = self.shared.claims.reset(generation.max(uncounted));
        reset.map_err(|e| io_error(&self.dir.join("claims"), &e))
    }

    /// Says whether there were any, in which case `next` is the generation now.
    fn count_crashes(&mut self, started: &HashSet<ReadyKey>, next: u64) -> Result<bool, BrokerError> {
        let (mut writes, mut lanes) = (Writes::default(), LaneBatch::default());
        let mut queues = Vec::new();
        let tables = self.open_tables()?;
        for key in started {
            let Some(queue) = queue_of(key).map(usize::from).filter(|q| *q < self.windows.len()) else {
                continue;
            };
            let message = match self.message(key) {
                Ok(Some(message)) => message,
                Ok(None) => continue, // it was settled
                Err(error) => {
                    tracing::error!(?key, %error, "the crash of a task that cannot be read is not counted");
                    continue;
                }
            };
            tracing::info!(id = %message.id, task = %message.task, crashes = message.crashes + 1, "its run ended with the process");
            let (ended, mut record) = (message.clone(), None);
            let end = self.count_crash(&mut writes, queue, key, message, &mut record);
            if let End::Dead = end {
                if let Some(lane) = lane::lane_of(&ended) {
                    let block = lane::blocks(&ended, record.as_ref());
                    self.release_lane(&mut lanes, &tables, lane, &ended.id, block)?;
                }
                if let Some(unique) = &ended.unique {
                    lanes.dedupe.let_go(&tables, &unique.key, &ended.id)?;
                }
            }
            queues.push(queue);
        }
        if writes.is_empty() {
            return Ok(false);
        }
        writes.put(Table::Meta, CLAIMS, &next.to_be_bytes());
        self.commit.queues.extend(queues);
        self.commit_lanes(lanes, writes).map(|()| true)
    }

    /// Closes the tables after a write failed, and refuses the publishes that were to be written.
    pub(super) fn fail(&mut self, error: BrokerError) {
        tracing::error!(%error, "the store is closed until it can be written again");
        self.shared.set_tables(Err(error.clone()));
        self.reclaim.end();
        if let Some(tables) = self.tables.take() {
            tables.close();
        }
        self.commit.publishes = Writes::default();
        self.commit.ids.clear();
        // What follows from settled tasks is kept as they are.
        let kept = self.commit.arrivals.iter().map(|arrival| arrival.message.id.clone());
        self.commit.ids.extend(kept.chain(self.commit.records.iter().map(|record| record.id.clone())));
        for step in std::mem::take(&mut self.commit.steps) {
            match step {
                Step::Arrive(Newcoming { is_kept: false, reply, .. }) => {
                    reply.map(|reply| reply.send(Err(error.clone())));
                }
                Step::Arrive(kept) => {
                    self.commit.ids.insert(kept.message.id.clone());
                    self.commit.steps.push(Step::Arrive(kept));
                }
                end @ (Step::Release { .. } | Step::LetGo { .. }) => self.commit.steps.push(end),
            }
        }
        for published in self.commit.published.drain(..) {
            let count = self.windows[published.arrival.queue].count(&published.arrival.place);
            *count = count.saturating_sub(1);
            published.reply.map(|reply| reply.send(Err(error.clone())));
        }
        self.failure = Some(Failure { error, retry_at: Instant::now() + self.pause, seq: self.seq });
        self.pause = (self.pause * 2).min(REOPEN_AT_MOST);
    }

    /// Opens the store again after a failure, when it is time, and writes what was kept.
    pub(super) fn try_reopen(&mut self) {
        let pause = self.pause;
        let Some(failure) = &mut self.failure else { return };
        if Instant::now() < failure.retry_at {
            return;
        }
        failure.retry_at = Instant::now() + pause;
        if matches!(failure.error, BrokerError::Full(_)) && is_full(&self.dir) {
            return;
        }
        self.pause = (pause * 2).min(REOPEN_AT_MOST);
        let opened = self.take_off_failed().and_then(|()| Tables::open(&self.dir));
        if let Err(error) = opened.and_then(|tables| self.adopt(tables)) {
            tracing::warn!(%error, "the store cannot be opened yet");
            return;
        }
        self.count_kept();
        self.failure = None;
        for settlement in std::mem::take(&mut self.deferred) {
            self.settle(settlement);
        }
        self.flush();
        if self.failure.is_none() {
            tracing::info!("the store can be written again");
        }
        for window in &mut self.windows {
            window.look_again();
        }
    }

    /// Makes sure that the commit which failed is not on disk. The tables must be closed.
    pub(super) fn take_off_failed(&self) -> Result<(), BrokerError> {
        let Some(failure) = &self.failure else { return Ok(()) };
        journal::take_off(&self.dir.join("db"), &[SEQ, &failure.seq.to_be_bytes()].concat())
    }

    /// What was read back are the counts of the last good commit: the settlements kept since come on top.
    fn count_kept(&mut self) {
        for settled in &self.commit.settled {
            self.commit.queues.insert(settled.queue);
            let window = &mut self.windows[settled.queue];
            match &settled.end {
                End::Back => continue,
                End::Gone => {}
                End::Dead => window.dead += 1,
                End::Replaced(arrival) => *window.count(&arrival.place) += 1,
            }
            window.ready = window.ready.saturating_sub(1);
        }
        for arrival in &self.commit.arrivals {
            self.commit.queues.insert(arrival.queue);
            *self.windows[arrival.queue].count(&arrival.place) += 1;
        }
    }

    /// The last commit before the end: whether everything settled is safe.
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

impl Window {
    /// The count that a row at this place belongs to.
    pub(super) fn count(&mut self, place: &Place) -> &mut u64 {
        match place {
            Place::Ready(_) => &mut self.ready,
            Place::Scheduled(..) => &mut self.scheduled,
        }
    }
}
