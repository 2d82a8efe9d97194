//! The table, and the thread that owns it.
//!
//! All that happens to a message is a [`Step`], done in order by one thread. That replaces a lock: nobody can see a
//! half-done step, and sinks are called between two transactions. The thread's wait for the next step is also the timer
//! for ETAs. Steps that wait at the same time share one transaction, because a commit costs a sync of the disk.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, SystemTime};

use celeriac::broker::{
    BrokerError, BrokerListener, Delivery, Settle, Settler, Sink, crash_reason, crash_result,
};
use celeriac::core::Timestamp;
use rusqlite::{Connection, Error, params};
use tokio::runtime::Handle;

use crate::broker::SqliteSettler;
use crate::steps::message;

/// The number of runs of one message that may end with their worker; at that number it is a dead letter.
pub const DELIVERY_LIMIT: u32 = 3;
/// The most steps that share a transaction.
const BATCH: usize = 256;
/// The longest sleep: the system's clock may be put forward meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The pause after a transaction that failed, for example because the disk is full.
const PAUSE: Duration = Duration::from_secs(1);

/// - `seq` is the place in the line. AUTOINCREMENT never gives one away twice, so new messages stay behind old ones.
/// - `due` is 0 for what could start, else the microsecond before which it must not. The indices follow from that.
/// - `crashes` and `started` are columns, so that the UPDATE below can count the runs that ended with the last process.
/// - What is delivered is known to this process alone: a temporary table ends with it, and all of it waits again.
const SCHEMA: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, queue TEXT NOT NULL, priority INTEGER NOT NULL,
        due INTEGER NOT NULL, waits_since INTEGER NOT NULL, crashes INTEGER NOT NULL,
        started INTEGER NOT NULL DEFAULT 0, message TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS by_id ON messages (id);
    CREATE INDEX IF NOT EXISTS by_rank ON messages (queue, priority DESC, seq) WHERE due = 0;
    CREATE INDEX IF NOT EXISTS by_age ON messages (queue, waits_since) WHERE due = 0;
    CREATE INDEX IF NOT EXISTS by_due ON messages (queue, due) WHERE due > 0;
    CREATE TABLE IF NOT EXISTS dead_letters (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, queue TEXT NOT NULL, letter TEXT NOT NULL);
    UPDATE messages SET crashes = crashes + 1, started = 0 WHERE started = 1;
    CREATE TEMP TABLE delivered (tag INTEGER PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, queue TEXT NOT NULL);
    CREATE TEMP VIEW ready AS SELECT * FROM messages WHERE due = 0 AND seq NOT IN (SELECT seq FROM delivered);
    COMMIT;";

/// What the database says outside, and what the broker says inside: only the first undoes the transaction.
pub type Answer<T> = rusqlite::Result<Result<T, BrokerError>>;
/// What is done in a transaction. It gives back who is told when that is committed, or has failed.
pub type Step = Box<dyn FnOnce(&mut Table) -> Tell + Send>;
type Tell = Box<dyn FnOnce(Result<(), BrokerError>) + Send>;

/// Makes a step of what is to be done and of who is told.
pub fn step<T: Send + 'static>(
    work: impl FnOnce(&mut Table) -> Answer<T> + Send + 'static,
    tell: impl FnOnce(Result<T, BrokerError>) + Send + 'static,
) -> Step {
    Box::new(move |table| {
        let answer = work(table).unwrap_or_else(|error| Err(table.fail(&error)));
        Box::new(move |committed| tell(committed.and(answer)))
    })
}

/// Who gets the messages of a queue.
pub struct Subscriber {
    pub number: u64,
    pub prefetch: usize,
    pub sink: Sink,
}

/// The deliveries that one subscriber gets when the transaction is committed.
type Batch = (String, Sink, Vec<Delivery>);

/// The messages, and who gets them.
pub struct Table {
    pub db: Connection,
    settler: Arc<dyn Settler>,
    pub subscribers: HashMap<String, Subscriber>,
    /// The runtime, which hears of the tasks that are given up, and the event loop for that.
    pub listener: Option<(Handle, Arc<dyn BrokerListener>)>,
    next_tag: u64,
    /// The earliest ETA that somebody waits for.
    next_due: Option<i64>,
    /// Why the transaction is to be undone.
    failure: Option<BrokerError>,
    stopped: bool,
}

/// The thread: steps, commit, deliveries, answers.
impl Table {
    pub fn open(file: &Path, steps: Sender<Step>) -> rusqlite::Result<Self> {
        let db = Connection::open(file)?;
        db.execute_batch(SCHEMA)?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(Self {
            db,
            settler: Arc::new(SqliteSettler(steps)),
            subscribers: HashMap::new(),
            listener: None,
            next_tag: 0,
            next_due: None,
            failure: None,
            stopped: false,
        })
    }

    pub fn run(mut self, steps: Receiver<Step>) {
        loop {
            let first = steps.recv_timeout(self.wait()).ok(); // none: an ETA has come
            if let Err(error) = self.db.execute_batch("BEGIN IMMEDIATE") {
                // Without its database it is a closed broker: who waits for an answer is told so.
                return tracing::error!(%error, "the table cannot be used any more");
            }
            let mut told = Vec::new();
            for step in first.into_iter().chain(steps.try_iter().take(BATCH)) {
                told.push(step(&mut self));
                if self.failure.is_some() {
                    break; // the other steps are for the next transaction
                }
            }
            // What is delivered is chosen in the same transaction, and handed over after it.
            let mut chosen = (Vec::new(), Vec::new());
            if self.failure.is_none() && !self.stopped {
                chosen = self.deliver().unwrap_or_else(|error| {
                    self.fail(&error);
                    Default::default()
                });
            }
            let (batches, given_up) = chosen;
            let committed = self.commit();
            if committed.is_ok() {
                batches.into_iter().for_each(|batch| self.hand_over(batch));
                given_up.into_iter().for_each(|delivery| self.give_up(delivery));
            } // else both are dropped: they were never noted, so nothing comes of that
            let tell_all = |told: Vec<Tell>| told.into_iter().for_each(|tell| tell(committed.clone()));
            if self.stopped {
                drop(self); // whoever is told of the close may open the file again
                drop(steps);
                return tell_all(told);
            }
            tell_all(told);
        }
    }

    /// How long there is nothing to do if no step comes.
    fn wait(&self) -> Duration {
        let until_due = |due: i64| Duration::from_micros(u64::try_from(due - micros(now())).unwrap_or(0));
        self.next_due.map_or(LONGEST_WAIT, |due| until_due(due).min(LONGEST_WAIT))
    }

    fn commit(&mut self) -> Result<(), BrokerError> {
        if self.failure.is_none()
            && let Err(error) = self.db.execute_batch("COMMIT")
        {
            self.fail(&error);
        }
        let Some(failure) = self.failure.take() else { return Ok(()) };
        let _ = self.db.execute_batch("ROLLBACK"); // an error: the database has done so itself
        std::thread::sleep(PAUSE);
        Err(failure)
    }

    fn fail(&mut self, error: &Error) -> BrokerError {
        tracing::error!(%error, "a transaction of the broker is undone");
        self.failure.insert(BrokerError::io(error.to_string())).clone()
    }

    /// Takes out what the subscribers may have, best priority first and then in order of arrival. The messages at the
    /// delivery limit come apart.
    fn deliver(&mut self) -> rusqlite::Result<(Vec<Batch>, Vec<Delivery>)> {
        let (mut batches, mut given_up, now) = (Vec::new(), Vec::new(), micros(now()));
        self.next_due = None;
        for (queue, subscriber) in &self.subscribers {
            let promote = "UPDATE messages SET due = 0 WHERE queue = ?1 AND due > 0 AND due <= ?2";
            self.db.prepare_cached(promote)?.execute(params![queue, now])?;
            let next = "SELECT min(due) FROM messages WHERE queue = ?1 AND due > 0";
            let next: Option<i64> = self.db.prepare_cached(next)?.query_row([queue], |row| row.get(0))?;
            self.next_due = [self.next_due, next].into_iter().flatten().min();
            let out = "SELECT count(*) FROM delivered WHERE queue = ?1";
            let out: usize = self.db.prepare_cached(out)?.query_row([queue], |row| row.get(0))?;
            let free = subscriber.prefetch.saturating_sub(out);
            if free == 0 {
                continue;
            }
            let first = "SELECT seq, crashes, message FROM ready WHERE queue = ?1 ORDER BY priority DESC, seq LIMIT ?2";
            let mut first = self.db.prepare_cached(first)?;
            let free = i64::try_from(free).unwrap_or(i64::MAX);
            let rows = first.query_map(params![queue, free], |row| Ok((row.get(0)?, message(row, 1, 2))))?;
            let mut deliveries = Vec::new();
            for row in rows.collect::<rusqlite::Result<Vec<(i64, _)>>>()? {
                let (seq, Ok(message)) = row else {
                    // A row that cannot be read must not hold up the others. It is put aside for a human to look at.
                    tracing::error!(queue, seq = row.0, "a message cannot be read");
                    self.db.execute("UPDATE messages SET due = ?1 WHERE seq = ?2", [i64::MAX, row.0])?;
                    continue;
                };
                self.next_tag += 1; // not by the database, which would give it away again after a rollback
                let out = "INSERT INTO delivered (tag, seq, queue) VALUES (?1, ?2, ?3)";
                self.db.prepare_cached(out)?.execute(params![self.next_tag, seq, queue])?;
                let list = if message.crashes < DELIVERY_LIMIT { &mut deliveries } else { &mut given_up };
                list.push(Delivery::new(self.next_tag, Arc::new(message), Arc::clone(&self.settler)));
            }
            if !deliveries.is_empty() {
                batches.push((queue.clone(), Arc::clone(&subscriber.sink), deliveries));
            }
        }
        Ok((batches, given_up))
    }

    /// Calls a sink. If it panics, its deliveries are dropped, which sends them back, and it is not called again.
    fn hand_over(&mut self, (queue, sink, deliveries): Batch) {
        if catch_unwind(AssertUnwindSafe(|| sink(deliveries))).is_err() {
            tracing::error!(queue, "a consumer panicked; its queue has no consumer now");
            self.subscribers.remove(&queue);
        }
    }

    /// Ends a task whose runs kept ending with their worker. It is a dead letter only when its record is kept: if this
    /// process dies before, the next one does it again.
    fn give_up(&self, delivery: Delivery) {
        let (record, reason) = (crash_result(delivery.message()), crash_reason(delivery.message().crashes));
        let end = Settle::DeadLetter { reason, result: None, follow_ups: None };
        let Some((runtime, listener)) = &self.listener else { return delivery.settle(end) };
        let kept = listener.end(record, Some(delivery.message()));
        runtime.spawn(async move {
            kept.await;
            delivery.settle(end);
        });
    }

    /// Ends the thread after this transaction.
    pub fn stop(&mut self) -> Answer<()> {
        self.stopped = true;
        Ok(Ok(()))
    }
}

pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// SQLite's integers have a sign. A time that does not fit is as good as never.
pub fn micros(time: Timestamp) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
