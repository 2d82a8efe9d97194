//! How rows come off the disk: the next ones of a queue, and those whose ETA has come.

use std::ops::Bound;
use std::sync::Arc;

use super::engine::Engine;
use super::rows::{ReadyKey, TaskRow, decode, due_of, ready_bounds, ready_key, scheduled_bounds, task_key};
use super::tables::{Table, Writes};
use crate::broker::{BrokerError, Delivery};
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
        let window = &self.windows[queue];
        let room = window.room().min(STEP);
        let (_, end) = ready_bounds(window.number);
        let mut rows = Vec::with_capacity(room);
        let mut last = None;
        let mut ended = true;
        for row in tables.range(Table::Messages, window.scan_from(), Bound::Excluded(&end))? {
            if rows.len() == room {
                ended = false;
                break;
            }
            let (key, value) = row?;
            last = Some(key.clone());
            if !window.holds(&key) {
                rows.push((key, value));
            }
        }
        self.windows[queue].scanned(last.as_deref(), ended);
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
        let (start, end) = scheduled_bounds(number);
        let now = now();
        let mut writes = Writes::default();
        let mut promoted = Vec::new();
        let mut damaged = Vec::new();
        let mut next = None;
        for row in tables.range(Table::Messages, &start, Bound::Excluded(&end))? {
            let (key, value) = row?;
            next = due_of(&key);
            if next.is_some_and(|due| due > now) || promoted.len() + damaged.len() == STEP {
                break;
            }
            next = None;
            match decode::<Message>(&value) {
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
        window.scheduled = window.scheduled.saturating_sub((promoted.len() + damaged.len()) as u64);
        window.ready += promoted.len() as u64;
        if !writes.is_empty() {
            self.commit_now(&[queue], &writes)?;
        }
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
