//! Copies what can be read of a damaged store to a new one. The damaged store stays as it is.
//!
//! Rows are copied as they are, and what depends on lost rows is put right: counts are counted anew, and each
//! task's row names the place of its message. If a lane's holder or its record is lost, all runs that waited in
//! the lane pass it anew, in their order.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::argument_index;
use super::copy::Copy;
use super::disk_tables;
use super::failed::{FailedTotals, failed_key, parts_of};
use super::home;
use super::lanes;
use super::lock::DirLock;
use super::mend::InHand;
use super::ready_key::{ReadyKey, is_ready};
use super::rows::{SEQ, StoredQueue, TaskRow, decode, encode, id_of, queue_of, scheduled_key, task_key};
use super::tables::{TableName, Tables, Writes};
use super::tenant_lines::{self, StoredLine};
use super::verify::{each, hex, message_at};
use crate::broker::{BrokerError, DeadLetter, FailedTask};
use crate::core::Timestamp;
use crate::core::lane::Lane;
use crate::task::{Message, TaskId};

/// The report of a salvage: what was copied to the new store, and what was lost.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Salvaged {
    /// The damage that was found, and what it cost, in words.
    pub damage: Vec<String>,
    /// The number of messages that wait in the new store.
    pub waiting: u64,
    /// The number of records of tasks that are over.
    pub results: u64,
    /// The number of dead letters that were found.
    pub dead: u64,
    /// The number of failed tasks that are kept.
    pub failed: u64,
    /// The tasks that are known to have waited and are not in the new store.
    pub lost: Vec<TaskId>,
}

/// Copies what can be read of the store in `dir`, whose program must not be running, to a new store in `into`.
///
/// # Errors
/// There is no store, another process has it, `into` is not a new or an empty directory, or `into` cannot be
/// written.
pub fn salvage(dir: impl AsRef<Path>, into: impl AsRef<Path>) -> Result<Salvaged, BrokerError> {
    let into = into.as_ref();
    if home::examine(into)? != home::DirectoryContents::Nothing {
        let found = "a store".to_owned();
        return Err(BrokerError::NotAStore { path: into.to_owned(), found });
    }
    let copy = Copy::of(dir.as_ref())?;
    let _lock = DirLock::take(into)?;
    copy_to(&copy, into, &InHand::new())
}

/// Copies all of a store to a new one. What is in somebody's hands is in the new one whether its row can be read or not.
pub(super) fn copy_to(copy: &Copy, into: &Path, in_hand: &InHand) -> Result<Salvaged, BrokerError> {
    let old = copy.tables()?;
    let new = Tables::open(into, None)?;
    let salvaged = Salvaged { damage: copy.damage.clone(), ..Salvaged::default() };
    let (queues, lines, failed) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut work = Work { old, new, writes: Writes::default(), salvaged, seq: 0, queues, lines, failed };
    let done = work.all(in_hand);
    let Work { new, mut salvaged, .. } = work;
    new.close();
    let files = copy.damaged_files(&salvaged.damage);
    salvaged.damage.splice(0..0, files);
    done.map(|()| salvaged)
}

struct Work {
    old: Tables,
    new: Tables,
    writes: Writes,
    salvaged: Salvaged,
    seq: u64,
    /// The queues of the store by their numbers, each with its name and its row.
    queues: HashMap<u16, (String, StoredQueue)>,
    /// The lines of tenants, by the numbers of queue and line.
    lines: HashMap<(u16, u32), StoredLine>,
    /// The failed tasks of each queue.
    failed: HashMap<u16, FailedTotals>,
}

impl Work {
    fn all(&mut self, in_hand: &InHand) -> Result<(), BrokerError> {
        self.read_queues();
        self.copy_messages()?;
        for (key, message) in in_hand {
            if self.new.get(TableName::Messages, key)?.is_none() {
                self.put_message(key, message, &encode(&**message)?);
            }
        }
        self.write_if(0)?;
        self.copy_lanes()?;
        self.copy_tasks()?;
        self.copy_others()?;
        self.write_counts()
    }

    /// Calls `take` for each readable row of the old table, and writes the rows that `take` puts as it goes.
    fn each(
        &mut self,
        table: TableName,
        mut take: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), BrokerError>,
    ) -> Result<(), BrokerError> {
        let (old, mut damage) = (self.old.clone(), std::mem::take(&mut self.salvaged.damage));
        let mut done = Ok(());
        each(&old, table, &mut damage, |key, value, damage| {
            if done.is_ok() {
                std::mem::swap(&mut self.salvaged.damage, damage);
                done = take(self, key, value).and_then(|()| self.write_if(ROWS));
                std::mem::swap(&mut self.salvaged.damage, damage);
            }
        });
        self.salvaged.damage = damage;
        done.and_then(|()| self.write_if(0))
    }

    fn write_if(&mut self, rows: usize) -> Result<(), BrokerError> {
        if self.writes.len() > rows {
            self.new.write(&[&self.writes])?;
            self.writes.clear();
        }
        Ok(())
    }

    fn damage(&mut self, text: String) {
        self.salvaged.damage.push(text);
    }

    /// Reads the names and numbers of the queues; their counts are counted anew.
    fn read_queues(&mut self) {
        let (old, mut damage) = (self.old.clone(), Vec::new());
        each(&old, TableName::Meta, &mut damage, |key, value, _| {
            if let Some(name) = key.strip_prefix(b"queue/")
                && let Ok(StoredQueue { number, .. }) = StoredQueue::decode(value)
            {
                let row = StoredQueue { number, ..StoredQueue::default() };
                self.queues.insert(number, (String::from_utf8_lossy(name).into_owned(), row));
            }
        });
    }

    /// The row of a queue. A queue whose row is lost is known by its messages.
    fn queue(&mut self, number: u16, name: &str) -> &mut StoredQueue {
        let row = || (name.to_owned(), StoredQueue { number, ..StoredQueue::default() });
        &mut self.queues.entry(number).or_insert_with(row).1
    }

    fn number_of(&mut self, name: &str) -> u16 {
        let known = self.queues.iter().find(|(_, (known, _))| known == name).map(|(number, _)| *number);
        known.unwrap_or_else(|| {
            let number = (0..u16::MAX).find(|number| !self.queues.contains_key(number)).unwrap_or(u16::MAX);
            self.queue(number, name);
            number
        })
    }

    fn put_message(&mut self, key: &[u8], message: &Message, value: &[u8]) {
        let number = queue_of(key).unwrap_or_default();
        let row = self.queue(number, &message.queue);
        *(if is_ready(key) { &mut row.ready } else { &mut row.scheduled }) += 1;
        if let Some(line) = ReadyKey::of(key).and_then(|key| key.line()) {
            let kept = self.lines.entry((number, line)).or_insert_with(|| StoredLine::of(line, message));
            kept.ready += 1;
        }
        self.seq = self.seq.max(key.last_chunk().map_or(0, |seq| u64::from_be_bytes(*seq)));
        self.salvaged.waiting += 1;
        self.writes.put(TableName::Messages, key, value);
        self.writes.put(TableName::Tasks, &task_key(&message.id), &TaskRow::at(key));
        argument_index::add_waiting(&mut self.writes, message);
    }

    fn copy_messages(&mut self) -> Result<(), BrokerError> {
        self.each(TableName::Messages, |this, key, value| {
            let message = match decode::<Message>(value) {
                Ok(message) => message,
                Err(error) => {
                    this.damage(format!(
                        "a waiting row does not decode and is set aside: {}: {error}",
                        hex(key)
                    ));
                    this.writes.put(TableName::Dead, &[b"damaged/", key].concat(), value);
                    return Ok(());
                }
            };
            // The row of the message's task may be lost. If two messages have one id, the one that the task's row
            // names counts.
            let row = this.old.get(TableName::Tasks, &task_key(&message.id)).ok().flatten();
            let stays = match row.as_deref().map(TaskRow::decode) {
                Some(Ok(TaskRow::At(named))) if named == key => true,
                Some(Ok(TaskRow::Over(_))) => false,
                Some(Ok(place)) => message_at(&this.old, &place).is_none(),
                None | Some(Err(_)) => true,
            };
            if stays {
                this.put_message(key, &message, value);
            } else {
                this.damage(format!("a row of task {} is out of date and left out", message.id));
            }
            Ok(())
        })
    }

    fn copy_lanes(&mut self) -> Result<(), BrokerError> {
        let mut whole: HashSet<Vec<u8>> = HashSet::new();
        self.each(TableName::Lanes, |this, key, value| {
            if lanes::is_waiting(key) {
                return this.copy_waiting(key, value, &whole);
            }
            if argument_index::is_entry(key) {
                return Ok(()); // it is made anew with the row that it leads to
            }
            if key.first() != Some(&lanes::RECORD) {
                this.writes.put(TableName::Lanes, key, value); // the deadlines of waiting runs, and unique windows
                return Ok(());
            }
            match decode::<Lane<TaskId>>(value) {
                Ok(mut lane) => {
                    let gone = |id: &TaskId| {
                        let row = this.old.get(TableName::Tasks, &task_key(id)).ok().flatten();
                        let place = row.and_then(|row| TaskRow::decode(&row).ok());
                        place.is_none_or(|place| message_at(&this.old, &place).is_none())
                    };
                    let gone: Vec<TaskId> =
                        lane.holders().iter().map(|h| h.id.clone()).filter(gone).collect();
                    if gone.is_empty() {
                        whole.insert(key.to_vec());
                        this.writes.put(TableName::Lanes, key, value);
                        return Ok(());
                    }
                    this.damage(format!("a lane is passed anew, for {gone:?} had it and cannot be read"));
                    for id in gone {
                        lane.release(&id, None, Timestamp::ZERO);
                    }
                    lane.nobody_waits();
                    if !lane.is_idle() {
                        this.writes.put(TableName::Lanes, key, &encode(&lane)?);
                    }
                }
                Err(error) => this
                    .damage(format!("a lane is passed anew, for it does not decode: {}: {error}", hex(key))),
            }
            Ok(())
        })
    }

    /// Copies a run that waits in a lane. It stays in the line if the lane is whole; otherwise it comes to its
    /// lane anew.
    fn copy_waiting(
        &mut self,
        key: &[u8],
        value: &[u8],
        whole: &HashSet<Vec<u8>>,
    ) -> Result<(), BrokerError> {
        let message = match decode::<Message>(value) {
            Ok(message) => message,
            Err(error) => {
                self.damage(format!(
                    "a row in a lane does not decode and is set aside: {}: {error}",
                    hex(key)
                ));
                self.writes.put(TableName::Dead, &[b"damaged/", key].concat(), value);
                return Ok(());
            }
        };
        let number = self.number_of(&message.queue);
        let ticket = key.last_chunk().map_or(0, |ticket| u64::from_be_bytes(*ticket));
        self.seq = self.seq.max(ticket);
        if lanes::record_of(&message).is_some_and(|record| whole.contains(&record)) {
            self.queue(number, &message.queue).in_line += 1;
            self.salvaged.waiting += 1;
            self.writes.put(TableName::Lanes, key, value);
            self.writes.put(TableName::Tasks, &task_key(&message.id), &TaskRow::in_line(key));
            argument_index::add_waiting(&mut self.writes, &message);
        } else {
            // The message is due at once, in the order of the line; when it is promoted, it passes its lane.
            self.put_message(&scheduled_key(number, Timestamp::ZERO, ticket), &message, value);
        }
        Ok(())
    }

    /// Copies the message of a task that no reading of the table came to, because its row lies between damaged ones. The row
    /// of the task says where it is.
    fn copy_between_damage(&mut self, task: &[u8], place: &TaskRow) -> Result<(), BrokerError> {
        let Some(message) = message_at(&self.old, place) else {
            self.salvaged.lost.push(id_of(task));
            return Ok(());
        };
        match place {
            TaskRow::At(key) => self.put_message(key, &message, &encode(&message)?),
            // It comes to its lane anew, in its place in the line.
            TaskRow::InLine(key) => {
                let number = self.number_of(&message.queue);
                let ticket = key.last_chunk().map_or(0, |ticket| u64::from_be_bytes(*ticket));
                self.put_message(
                    &scheduled_key(number, Timestamp::ZERO, ticket),
                    &message,
                    &encode(&message)?,
                );
            }
            TaskRow::Over(_) => {}
        }
        Ok(())
    }

    /// Copies the records. The rows of tasks that are not over were written with their messages.
    fn copy_tasks(&mut self) -> Result<(), BrokerError> {
        self.each(TableName::Tasks, |this, key, value| {
            match TaskRow::decode(value) {
                Ok(TaskRow::Over(_)) => {
                    this.salvaged.results += 1;
                    this.writes.put(TableName::Tasks, key, value);
                }
                Ok(place) => {
                    if this.new.get(TableName::Tasks, key)?.is_none() {
                        this.copy_between_damage(key, &place)?;
                    }
                }
                Err(error) => this.damage(format!("the row of task {} does not decode: {error}", id_of(key))),
            }
            Ok(())
        })
    }

    fn copy_others(&mut self) -> Result<(), BrokerError> {
        self.each(TableName::Dead, |this, key, value| {
            if let Some((_, seq)) = parts_of(key)
                && let Ok(task) = decode::<FailedTask>(value)
            {
                let number = this.number_of(&task.message.queue);
                this.queue(number, &task.message.queue);
                this.failed.entry(number).or_default().add(value.len() as u64);
                this.salvaged.failed += 1;
                this.seq = this.seq.max(seq);
                let key = failed_key(number, seq);
                this.writes.put(TableName::Dead, &key, value);
                argument_index::add_failed(&mut this.writes, &task.message, &key);
                return Ok(());
            }
            if key.len() == 8
                && let Ok(letter) = decode::<DeadLetter>(value)
            {
                let number = this.number_of(&letter.message.queue);
                this.queue(number, &letter.message.queue).dead += 1;
                this.salvaged.dead += 1;
                this.seq = this.seq.max(key.last_chunk().map_or(0, |seq| u64::from_be_bytes(*seq)));
                argument_index::add_failed(&mut this.writes, &letter.message, key);
            }
            this.writes.put(TableName::Dead, key, value);
            Ok(())
        })?;
        self.each(TableName::Expiries, |this, key, value| {
            this.writes.put(TableName::Expiries, key, value);
            Ok(())
        })?;
        self.each(TableName::Meta, |this, key, value| {
            match (key == SEQ, <[u8; 8]>::try_from(value)) {
                (true, Ok(seq)) => this.seq = this.seq.max(u64::from_be_bytes(seq)),
                // The counts of queues and lanes are written anew, and the starts of the old store and its log mean
                // nothing in the new one.
                _ if key.starts_with(b"queue/") || key.starts_with(b"failed/") || COUNTED.contains(&key) => {}
                _ if key.starts_with(tenant_lines::LINES) => {}
                _ => this.writes.put(TableName::Meta, key, value),
            }
            Ok(())
        })
    }

    fn write_counts(&mut self) -> Result<(), BrokerError> {
        for ((queue, number), line) in &self.lines {
            let key = tenant_lines::line_key(*queue, *number);
            self.writes.put(TableName::Meta, &key, &encode(line)?);
        }
        let with_tenants: HashSet<u16> = self.lines.keys().map(|(queue, _)| *queue).collect();
        for (name, row) in self.queues.values() {
            let row_bytes = row.encode(with_tenants.contains(&row.number))?;
            self.writes.put(TableName::Meta, format!("queue/{name}").as_bytes(), &row_bytes);
            if let Some(failed) = self.failed.get(&row.number) {
                self.writes.put(TableName::Meta, format!("failed/{name}").as_bytes(), &encode(failed)?);
            }
        }
        // Well behind any sequence that may have been written and lost.
        let seq = self.seq.saturating_add(1 << 20);
        self.writes.put(TableName::Meta, SEQ, &seq.to_be_bytes());
        self.write_if(0)
    }
}

/// The number of rows that are written together.
const ROWS: usize = 2000;
/// The keys of the table `meta` whose rows are made anew.
const COUNTED: [&[u8]; 3] = [super::rows::LANES, super::rows::CLAIMS, disk_tables::FLUSHED];
