//! How rows come off the disk: the next rows of a queue, and the rows whose ETA has come.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use super::commit::RowKey;
use super::engine::Engine;
use super::lanes::LaneBatch;
use super::queue_cursor::QueueCursor;
use super::ready_key::{LineNumber, ReadyKey, line_bounds};
use super::rows::{TaskRow, decode, due_of, scheduled_bounds, scheduled_key, task_key};
use super::tables::{RawRow, Slice, TableName, Tables, Writes};
use crate::broker::{BrokerError, Delivery};
use crate::core::Timestamp;
use crate::task::Message;
use crate::task::clock::now;

/// The most rows that one scan or one promotion takes.
const STEP: usize = 1024;
/// In a store of up to so many queues, a debug build checks after each round that none of them was forgotten.
const LOOKED_OVER: usize = 64;

impl Engine {
    /// Looks at the queues in which there may be something to do: those that were touched, and those whose times have
    /// come. In all of them, rows that are due become ready before the consumers are filled.
    pub(super) fn look_at_queues(&mut self) {
        self.cursors.touch_timely(now, Instant::now);
        // The rows of a queue may go on in another one, which is touched by that.
        while self.tables.is_some()
            && let Some(queues) = self.cursors.begin_looks()
        {
            queues.iter().for_each(|queue| self.promote_due(*queue));
            for queue in &queues {
                self.deliver(*queue);
                if self.tables.is_some() {
                    self.cursors.looked_at(*queue);
                }
            }
            self.cursors.end_looks(queues);
        }
        debug_assert!(
            self.cursors.len() > LOOKED_OVER || self.cursors.forgotten().is_none(),
            "queue `{}` is forgotten",
            self.cursors.forgotten().unwrap_or_default()
        );
    }

    /// Delivers rows of a queue from the disk, if its consumer has room.
    fn deliver(&mut self, queue: usize) {
        self.cursors[queue].try_again(Instant::now);
        while self.tables.is_some()
            && self.cursors[queue].may_read(Instant::now)
            && self.cursors[queue].wants_scan()
        {
            match self.scan(queue) {
                Ok(deliveries) => self.send(queue, deliveries),
                Err(error) => self.read_failed(queue, &error),
            }
        }
    }

    fn read_failed(&mut self, queue: usize, error: &BrokerError) {
        let cursor = &mut self.cursors[queue];
        tracing::error!(queue = %cursor.name, %error, "its waiting tasks cannot be read; trying again in a second");
        cursor.read_failed(Instant::now());
    }

    fn scan(&mut self, queue: usize) -> Result<Vec<Delivery>, BrokerError> {
        let tables = self.open_tables()?;
        let rows = read_in_turns(&tables, &mut self.cursors[queue]);
        let mut deliveries = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let row = ReadyKey::of(&key).ok_or_else(|| BrokerError::io("a key of a wrong length".to_owned()));
            match row.and_then(|key| Ok((key, decode::<Message>(&value)?))) {
                Ok((key, message)) if message.crashes > 0 => {
                    deliveries.extend(self.hand_out_in_turn(queue, key, Arc::new(message)));
                }
                Ok((key, message)) => deliveries.push(self.hand_out(queue, key, Arc::new(message))),
                Err(error) => {
                    let cursor = &mut self.cursors[queue];
                    match ReadyKey::of(&key) {
                        Some(key) => cursor.left_ready(&key),
                        None => cursor.ready = cursor.ready.saturating_sub(1),
                    }
                    self.set_aside(queue, &key, &value, &error)?;
                }
            }
        }
        Ok(deliveries)
    }

    /// Takes a row that cannot be decoded out of its queue, so that it holds nobody up. It stays on disk for a
    /// program that can decode it.
    fn set_aside(
        &mut self,
        queue: usize,
        key: &[u8],
        value: &[u8],
        error: &BrokerError,
    ) -> Result<(), BrokerError> {
        tracing::error!(queue = %self.cursors[queue].name, ?key, %error, "a waiting row does not decode; it is set aside in the table `dead`");
        let mut writes = Writes::default();
        writes.delete(TableName::Messages, key);
        writes.put(TableName::Dead, &[b"damaged/", key].concat(), value);
        self.commit_now(&[queue], &writes)
    }

    /// Moves the scheduled rows of a queue whose time has come to the ready ones.
    fn promote_due(&mut self, queue: usize) {
        while self.tables.is_some()
            && self.cursors[queue].is_due(now)
            && self.cursors[queue].may_read(Instant::now)
        {
            if let Err(error) = self.promote(queue) {
                self.read_failed(queue, &error);
            }
        }
    }

    fn promote(&mut self, queue: usize) -> Result<(), BrokerError> {
        let tables = self.open_tables()?;
        let number = self.cursors[queue].number;
        let (_, end) = scheduled_bounds(number);
        // The read does not begin at the first possible key, because the deleted rows of all past ETAs lie there.
        let earliest = self.cursors[queue].next_due.unwrap_or(Timestamp::ZERO);
        let start = scheduled_key(number, earliest, 0);
        let now = now();
        let (mut writes, mut lanes) = (Writes::default(), LaneBatch::default());
        let mut promoted = Vec::new();
        let (mut passing, mut left) = (0, 0);
        let mut damaged = Vec::new();
        let mut next = None;
        let mut rows = tables.readable(TableName::Messages, &start, Bound::Excluded(&end));
        for (key, value) in rows.by_ref() {
            next = due_of(&key);
            if next.is_some_and(|due| due > now) || promoted.len() + damaged.len() + passing == STEP {
                break;
            }
            next = None;
            match decode::<Message>(&value) {
                Ok(message) if message.lane().is_some() => {
                    // While the lane cannot be read, its task stays scheduled, and the tasks behind it go on. The lane
                    // is read before anything is changed for the task.
                    if let Some(name) = message.lane()
                        && let Err(error) = lanes.open(&self.known_lanes, &tables, name, self.seq)
                    {
                        tracing::error!(id = %message.id, task = message.task, %error, "the lane of a due task cannot be read; the task waits, and is tried again");
                        left += 1;
                        continue;
                    }
                    writes.delete(TableName::Messages, &key);
                    self.pass_lane(&mut lanes, &tables, queue, &Arc::new(message), &value, false)?;
                    passing += 1;
                }
                Ok(message) => {
                    let seq = self.next_seq();
                    let cursor = &mut self.cursors[queue];
                    let ready = cursor.ready_key(&message, seq);
                    cursor.came(&RowKey::Ready(ready), &message);
                    writes.delete(TableName::Messages, &key);
                    writes.put_new(TableName::Messages, &ready, &value);
                    writes.put(TableName::Tasks, &task_key(&message.id), &TaskRow::at(&ready));
                    promoted.push(ready);
                }
                Err(error) => damaged.push((key, value, error)),
            }
        }
        // Rows that could not be read may still be due, so they are looked for again later.
        let cursor = &mut self.cursors[queue];
        if !rows.gaps.is_empty() || left > 0 {
            cursor.passed_over(Instant::now());
        }
        cursor.scheduled = cursor.scheduled.saturating_sub((promoted.len() + damaged.len() + passing) as u64);
        self.commit.queues.insert(queue);
        self.commit_lanes(lanes, writes)?;
        for (key, value, error) in damaged {
            self.set_aside(queue, &key, &value, &error)?;
        }
        let cursor = &mut self.cursors[queue];
        cursor.next_due = next;
        for key in promoted {
            cursor.waits(&key);
        }
        Ok(())
    }
}

/// Reads the next rows that are not held, in the order in which their lines take turns. A line that has fewer rows than it was
/// asked for gives way to the others in the next scan.
fn read_in_turns(tables: &Tables, cursor: &mut QueueCursor) -> Vec<RawRow> {
    let turns = cursor.turns(STEP);
    let Some(first) = turns.first().copied() else { return Vec::new() };
    if turns.iter().all(|line| *line == first) {
        return read_line(tables, cursor, first, turns.len()); // there is nothing to sort
    }
    // Each line is read once, and then the lines take turns.
    let mut shares: BTreeMap<LineNumber, usize> = BTreeMap::new();
    turns.iter().for_each(|line| *shares.entry(*line).or_default() += 1);
    let mut lines: BTreeMap<LineNumber, std::vec::IntoIter<RawRow>> = BTreeMap::new();
    for (line, share) in shares {
        lines.insert(line, read_line(tables, cursor, line, share).into_iter());
    }
    turns.iter().filter_map(|line| lines.get_mut(line)?.next()).collect()
}

/// Reads up to `count` rows of a line that are not held, in order. Passes over rows that cannot be read.
fn read_line(tables: &Tables, cursor: &mut QueueCursor, line: LineNumber, count: usize) -> Vec<RawRow> {
    let mut rows = Vec::with_capacity(count);
    if cursor.line(line).is_none() {
        cursor.has_no_line(line);
    }
    // Rows before the scan's position come first: they are more urgent than those behind it, or were handed back.
    while rows.len() < count
        && let Some(key) = cursor.line_mut(line).and_then(|line| line.revisit.next())
    {
        if !cursor.holds(&key) {
            match tables.get(TableName::Messages, &key) {
                Ok(row) => rows.extend(row.map(|value| (Slice::from(&key[..]), value))), // no row: the task was revoked
                Err(error) => {
                    cursor.passed_over(Instant::now());
                    if tables.tell(TableName::Messages, &key) {
                        tracing::error!(queue = %cursor.name, ?key, %error, "a waiting row cannot be read; it is passed over");
                    }
                }
            }
        }
    }
    if rows.len() < count
        && let Some((first, last)) = cursor.line(line).and_then(|line| line.revisit.rest())
    {
        let read = read(tables, cursor, &first, Bound::Included(&last), count, &mut rows);
        if let Some(line) = cursor.line_mut(line) {
            line.revisit.was_read(read.last.as_deref(), read.has_ended);
        }
    }
    // The scan goes on only when no row before its position is left.
    if rows.len() < count
        && let Some(from) = cursor.line(line).filter(|line| line.revisit.is_empty())
    {
        let from = from.scan_from().to_vec();
        let (_, end) = line_bounds(cursor.number, line);
        if from >= end {
            cursor.scanned(line, None, true); // an earlier scan broke off
            return rows;
        }
        let read = read(tables, cursor, &from, Bound::Excluded(&end), count, &mut rows);
        if read.broke_off {
            cursor.broke_off(line, &end);
        } else {
            cursor.scanned(line, read.last.as_deref(), read.has_ended);
        }
    }
    rows
}

/// How far a read has come.
struct ReadEnd {
    /// The last key that was looked at.
    last: Option<Slice>,
    /// Whether nothing lies behind it that can be read.
    has_ended: bool,
    /// Whether the rows behind it, up to the end, cannot be read.
    broke_off: bool,
}

/// Adds rows that the window does not hold to `rows`, until there are `room` of them, and passes over rows that
/// cannot be read.
fn read(
    tables: &Tables,
    cursor: &mut QueueCursor,
    start: &[u8],
    end: Bound<&[u8]>,
    room: usize,
    rows: &mut Vec<RawRow>,
) -> ReadEnd {
    let (mut last, mut has_ended) = (None, true);
    let mut found = tables.readable(TableName::Messages, start, end);
    for (key, value) in found.by_ref() {
        if rows.len() == room {
            has_ended = false;
            break;
        }
        last = Some(key.clone());
        if !cursor.holds(&key) {
            rows.push((key, value));
        }
    }
    if !found.gaps.is_empty() {
        cursor.passed_over(Instant::now());
    }
    let broke_off = has_ended && found.gaps.last().is_some_and(|gap| gap.to.is_none());
    ReadEnd { last, has_ended, broke_off }
}
