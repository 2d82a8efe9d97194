//! All tasks of the store that are not over, for operators: to find those of a name, to count those of a rule, and to empty a
//! queue.
//!
//! A look through all of them is made on a thread of its own, and sees the tables as they were at its beginning, so that it
//! counts exactly however long it takes. It gives way to others every [`SLICE`], and ends when nobody waits for it any more.
//! One for a queue reads the rows of that queue and of lanes only.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::EmbeddedBroker;
use super::argument_index;
use super::command::EngineCommand;
use super::engine::Engine;
use super::lanes::{self, LaneBatch};
use super::paging::queues;
use super::ready_key::{ReadyKey, is_ready, line_bounds, tenants_bounds};
use super::rows::{TaskRow, decode, task_key};
use super::tables::{TableName, Tables, Writes};
use crate::broker::{BrokerError, QueueCounts, Remains, Removal, Standing, TaskFilter, UnfinishedTask};
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// A range of keys of a table: the table, the first key, and the end.
type TableRange = (TableName, &'static [u8], Bound<&'static [u8]>);

/// A range of keys as above, of which the keys are made.
type OwnedTableRange = (TableName, Vec<u8>, Bound<Vec<u8>>);

/// The most tasks that one commit takes out.
const STEP: usize = 1024;
/// For so long a look through all reads, before it rests.
const SLICE: Duration = Duration::from_millis(50);
const REST: Duration = Duration::from_millis(5);
/// After so many rows it looks at the clock.
const ROWS: u32 = 256;
/// Where the rows of tasks that are not over lie. Those in lanes come first: who takes them out in this order lets none of them
/// into its lane.
const RANGES: [TableRange; 2] = [
    (TableName::Lanes, &[lanes::WAITING], Bound::Excluded(&[lanes::WAITING + 1])),
    (TableName::Messages, &[], Bound::Unbounded),
];

impl EmbeddedBroker {
    /// The tasks on disk that are not over and that `wanted` chooses: those that wait in queues and in lanes, and those
    /// that are delivered. Rows that cannot be read are left out, and so are tasks that are in memory only. It reads the
    /// whole backlog.
    ///
    /// # Errors
    /// The store is closed.
    pub fn unfinished(&self, wanted: impl Fn(&Message) -> bool) -> Result<Vec<TaskId>, BrokerError> {
        self.look_through(None, wanted, || true)
    }

    /// The tasks of a queue, or of all, that `wanted` chooses. Before each row `goes_on` says whether the look goes on.
    fn look_through(
        &self,
        queue: Option<&str>,
        wanted: impl Fn(&Message) -> bool,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<Vec<TaskId>, BrokerError> {
        let tables = self.inner.shared.tables.read().as_ref().map_err(Clone::clone)?.as_of_now();
        let mut ids = Vec::new();
        for (table, start, end) in ranges(&tables, queue) {
            for (_, value) in tables.readable(table, &start, end.as_ref().map(Vec::as_slice)) {
                if !goes_on() {
                    return Ok(ids);
                }
                if let Ok(message) = decode::<Message>(&value)
                    && wanted(&message)
                {
                    ids.push(message.id);
                }
            }
        }
        Ok(ids)
    }

    /// As [`unfinished`](Self::unfinished), on a thread of its own, with all that was asked before; each with what it waits for,
    /// and at most `limit` of them.
    pub(super) async fn unfinished_on_disk(
        &self,
        filter: TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError> {
        let held = self.ask(|reply| EngineCommand::HeldKeys { reply }).await?;
        let read = move |tables: &Tables| {
            let (now, tables) = (now(), tables.as_of_now());
            let rows = RANGES.into_iter().flat_map(|(table, start, end)| {
                let rows = tables.readable(table, start, end);
                rows.map(move |(key, value)| (table, key, value))
            });
            let tasks = rows.filter_map(|(table, key, value)| {
                let standing = match table {
                    TableName::Lanes => Standing::InLine,
                    _ if ReadyKey::of(&key).is_some_and(|key| held.contains(&key)) => Standing::Delivered,
                    _ if is_ready(&key) => Standing::Ready,
                    _ => Standing::Scheduled,
                };
                let message = decode::<Message>(&value).ok()?;
                filter.takes_unfinished(&message, now).then_some(UnfinishedTask { message, standing })
            });
            tasks.take(limit).collect::<Vec<_>>()
        };
        self.on_disk(read).await
    }

    /// The ids of all of these.
    pub(super) async fn unfinished_ids_on_disk(
        &self,
        filter: TaskFilter,
    ) -> Result<Vec<TaskId>, BrokerError> {
        self.ask(|reply| EngineCommand::Queues { reply }).await?;
        let (store, now, stop) = (self.clone(), now(), StopOnDrop::default());
        let mut pace = Pace { stop: Arc::clone(&stop.0), since: Instant::now(), rows: 0 };
        let look = move || {
            let wanted = |message: &Message| filter.takes_unfinished(message, now);
            store.look_through(filter.named_queue(), wanted, || pace.goes_on())
        };
        blocking::unblock(look).await
    }

    /// Deletes the tasks of a queue that wait on disk, and says how many they were. No record is left of them, and
    /// nothing follows from them. What is delivered stays. `None`: there is no such queue. Celery's `purge`.
    ///
    /// # Errors
    /// The store is closed, or cannot be read or written. A part may be deleted by then.
    pub async fn purge(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        if self.waiting(queue).await?.is_none() {
            return Ok(None);
        }
        let mut purged = 0;
        for ids in self.unfinished(|message| message.queue == queue)?.chunks(STEP) {
            let ids = ids.to_vec();
            purged += self.ask(|reply| EngineCommand::Erase { ids, reply }).await?;
        }
        Ok(Some(purged))
    }

    /// The number of tasks of a queue that wait on disk: those that could start, those that wait for their ETA, and
    /// those that wait for their lane. `None`: there is no such queue.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn waiting(&self, queue: &str) -> Result<Option<u64>, BrokerError> {
        let queues = self.ask(|reply| EngineCommand::Queues { reply }).await?;
        if !queues.iter().any(|known| known == queue) {
            return Ok(None);
        }
        let queue = queue.to_owned();
        let counts = self.ask(|reply| EngineCommand::Counts { queue, reply }).await?;
        let QueueCounts { ready, scheduled, in_line, .. } = counts;
        Ok(Some(ready + scheduled + in_line))
    }
}

/// Where the rows of tasks of a queue that are not over lie, or of all: in the order of [`RANGES`].
fn ranges(tables: &Tables, queue: Option<&str>) -> Vec<OwnedTableRange> {
    let own = |(table, start, end): TableRange| (table, start.to_vec(), end.map(<[u8]>::to_vec));
    let [in_lanes, in_queues] = RANGES.map(own);
    if queue.is_none() {
        return vec![in_lanes, in_queues];
    }
    let of_queue = |number: u16| {
        let (start, end) = (line_bounds(number, None).0, tenants_bounds(number).1);
        (TableName::Messages, start, Bound::Excluded(end.to_vec()))
    };
    std::iter::once(in_lanes).chain(queues(tables, queue).into_iter().map(of_queue)).collect()
}

/// Ends a look when whoever waits for it goes away.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How a long look gives way to others.
struct Pace {
    stop: Arc<AtomicBool>,
    /// When it has rested.
    since: Instant,
    rows: u32,
}

impl Pace {
    /// Says before a row whether the look goes on, and rests when its time is over. The caller is on a thread of its own.
    fn goes_on(&mut self) -> bool {
        self.rows += 1;
        if self.rows < ROWS {
            return true;
        }
        self.rows = 0;
        if self.since.elapsed() >= SLICE {
            std::thread::sleep(REST);
            self.since = Instant::now();
        }
        !self.stop.load(Ordering::Relaxed)
    }
}

impl Engine {
    /// Deletes these tasks, unless they are delivered. Says how many it found.
    pub(super) fn erase(&mut self, ids: &[TaskId]) -> Result<u64, BrokerError> {
        let mut erased = 0;
        let mut found = Vec::new();
        // All that may fail comes first, because what the commit does to lanes is noted as the rows are taken out.
        for id in ids {
            match self.row(id)? {
                Some(TaskRow::InLine(_)) => {
                    let removal = self.remove(id, Box::new(|_| Remains::default()))?;
                    erased += u64::from(removal == Removal::Removed);
                }
                Some(TaskRow::At(key)) if self.holder(&key).is_none() => {
                    if let Some(message) = self.message(&key)? {
                        let queue = self.queue(&message.queue)?;
                        found.push((queue, key, message));
                    }
                }
                _ => {}
            }
        }
        if found.is_empty() {
            return Ok(erased);
        }
        let (mut writes, mut queues) = (Writes::default(), Vec::new());
        for (queue, key, message) in &found {
            writes.delete(TableName::Messages, key);
            writes.delete(TableName::Tasks, &task_key(&message.id));
            argument_index::delete_waiting(&mut writes, message, None);
            self.cursors[*queue].left_at(key);
            self.leaves_lane(message, None);
            self.lets_go(message);
            queues.push(*queue);
        }
        queues.sort_unstable();
        queues.dedup();
        self.commit_follow_ups(LaneBatch::default(), &queues, writes)?;
        Ok(erased + found.len() as u64)
    }
}
