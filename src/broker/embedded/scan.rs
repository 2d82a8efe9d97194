//! How rows come off the disk: the next ones of a queue, and those whose ETA has come.

use std::ops::Bound;
use std::sync::Arc;

use super::engine::Engine;
use super::lanes::LaneBatch;
use super::rows::{
    ReadyKey, TaskRow, decode, due_of, ready_bounds, ready_key, scheduled_bounds, scheduled_key, task_key,
};
use super::tables::{Slice, Table, Tables, Writes};
use super::window::Window;
use crate::broker::{BrokerError, Delivery, lane};
use crate::core::Timestamp;
use crate::task::Message;
use crate::task::clock::now;

/// How many rows one scan or promotion takes.
const STEP: usize = 1024;

impl Engine {
    /// Fills the consumers that have room from the disk.
    pub(super) fn deliver(&mut self) {
        for queue in 0..self.windows.len() {
            while self.tables.is_some() && self.windows[queue].may_read() && self.windows[queue].wants_scan()
            {
                match self.scan(queue) {
                    Ok(deliveries) => self.send(queue, deliveries),
                    Err(error) => self.read_failed(queue, &error),
                }
            }
        }
    }

    fn read_failed(&mut self, queue: usize, error: &BrokerError) {
        let window = &mut self.windows[queue];
        tracing::error!(queue = %window.name, %error, "its waiting tasks cannot be read; trying again in a second");
        window.read_failed();
    }

    fn scan(&mut self, queue: usize) -> Result<Vec<Delivery>, BrokerError> {
        let tables = self.open_tables()?;
        let window = &mut self.windows[queue];
        let room = window.room().min(STEP);
        let mut rows = Vec::with_capacity(room);
        while rows.len() < room
            && let Some(key) = window.ahead.next()
        {
            if !window.holds(&key) {
                let row = tables.get(Table::Messages, &key)?; // none: it was revoked
                rows.extend(row.map(|value| (Slice::from(&key[..]), value)));
            }
        }
        if rows.len() < room
            && let Some((first, last)) = window.ahead.rest()
        {
            let (read, ended) = read(&tables, window, &first, Bound::Included(&last), room, &mut rows)?;
            window.ahead.was_read(read.as_deref(), ended);
        }
        if rows.len() < room && window.ahead.is_empty() {
            let (_, end) = ready_bounds(window.number);
            let from = window.scan_from();
            let (read, ended) = read(&tables, window, from, Bound::Excluded(&end), room, &mut rows)?;
            window.scanned(read.as_deref(), ended);
        }
        let mut deliveries = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let row =
                ReadyKey::try_from(&*key).map_err(|_| BrokerError::Io("a key of a wrong length".to_owned()));
            match row.and_then(|key| Ok((key, decode::<Message>(&value)?))) {
                Ok((key, message)) => deliveries.extend(self.hand_out_in_turn(queue, key, Arc::new(message))),
                Err(error) => {
                    let window = &mut self.windows[queue];
                    window.ready = window.ready.saturating_sub(1);
                    self.set_aside(queue, &key, &value, &error)?;
                }
            }
        }
        Ok(deliveries)
    }

    /// A row that cannot be decoded leaves the queue, so that it blocks nobody, and stays on disk for whoever can.
    fn set_aside(
        &mut self,
        queue: usize,
        key: &[u8],
        value: &[u8],
        error: &BrokerError,
    ) -> Result<(), BrokerError> {
        tracing::error!(queue = %self.windows[queue].name, ?key, %error, "a waiting row does not decode; it is set aside in the table `dead`");
        let mut writes = Writes::default();
        writes.delete(Table::Messages, key);
        writes.put(Table::Dead, &[b"damaged/", key].concat(), value);
        self.commit_now(&[queue], &writes)
    }

    /// Moves scheduled rows whose time has come to the ready ones.
    pub(super) fn promote_due(&mut self) {
        for queue in 0..self.windows.len() {
            while self.tables.is_some() && self.windows[queue].is_due(now()) && self.windows[queue].may_read()
            {
                if let Err(error) = self.promote(queue) {
                    self.read_failed(queue, &error);
                }
            }
        }
    }

    fn promote(&mut self, queue: usize) -> Result<(), BrokerError> {
        let tables = self.open_tables()?;
        let number = self.windows[queue].number;
        let (_, end) = scheduled_bounds(number);
        // Not from the very start: there lie the deleted rows of all that were due before.
        let earliest = self.windows[queue].next_due.unwrap_or(Timestamp::ZERO);
        let start = scheduled_key(number, earliest, 0);
        let now = now();
        let (mut writes, mut lanes) = (Writes::default(), LaneBatch::default());
        let mut promoted = Vec::new();
        let mut passing = 0;
        let mut damaged = Vec::new();
        let mut next = None;
        for row in tables.range(Table::Messages, &start, Bound::Excluded(&end))? {
            let (key, value) = row?;
            next = due_of(&key);
            if next.is_some_and(|due| due > now) || promoted.len() + damaged.len() + passing == STEP {
                break;
            }
            next = None;
            match decode::<Message>(&value) {
                Ok(message) if lane::lane_of(&message).is_some() => {
                    writes.delete(Table::Messages, &key);
                    self.pass_lane(&mut lanes, &tables, queue, &Arc::new(message), &value, false)?;
                    passing += 1;
                }
                Ok(message) => {
                    let ready = ready_key(number, message.priority, self.next_seq());
                    writes.delete(Table::Messages, &key);
                    writes.put(Table::Messages, &ready, &value);
                    writes.put(Table::Tasks, &task_key(&message.id), &TaskRow::at(&ready));
                    promoted.push(ready);
                }
                Err(error) => damaged.push((key, value, error)),
            }
        }
        let window = &mut self.windows[queue];
        window.scheduled = window.scheduled.saturating_sub((promoted.len() + damaged.len() + passing) as u64);
        window.ready += promoted.len() as u64;
        self.commit.queues.insert(queue);
        self.commit_lanes(lanes, writes)?;
        for (key, value, error) in damaged {
            self.set_aside(queue, &key, &value, &error)?;
        }
        let window = &mut self.windows[queue];
        window.next_due = next;
        for key in promoted {
            window.waits(&key);
        }
        Ok(())
    }
}

/// Adds rows that the window does not hold until there are `room`; the last that was looked at, and whether it was the
/// last there is.
fn read(
    tables: &Tables,
    window: &Window,
    start: &[u8],
    end: Bound<&[u8]>,
    room: usize,
    rows: &mut Vec<(Slice, Slice)>,
) -> Result<(Option<Slice>, bool), BrokerError> {
    let mut last = None;
    for row in tables.range(Table::Messages, start, end)? {
        if rows.len() == room {
            return Ok((last, false));
        }
        let (key, value) = row?;
        last = Some(key.clone());
        if !window.holds(&key) {
            rows.push((key, value));
        }
    }
    Ok((last, true))
}
