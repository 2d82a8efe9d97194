//! How rows come off the disk: the next ones of a queue, and those whose ETA has come.

use std::collections::HashMap;
use std::sync::Arc;

use super::commit::{Table, Writes, commit_error, write};
use super::engine::Engine;
use super::tables::{ReadyKey, TaskRow, decode, due_of, ready_bounds, ready_key, scheduled_bounds};
use crate::broker::{BrokerError, Delivery};
use crate::core::Timestamp;
use crate::task::Message;
use crate::task::clock::now;

/// How many rows one scan or promotion takes before others get their turn.
const STEP: usize = 1024;

impl Engine {
    /// Fills the consumers that have room from the disk.
    pub(super) fn deliver(&mut self) {
        for queue in 0..self.windows.len() {
            while self.windows[queue].wants_scan() && self.may_scan() {
                match self.scan(queue) {
                    Ok(deliveries) if deliveries.is_empty() => break,
                    Ok(deliveries) => self.send(HashMap::from([(queue, deliveries)])),
                    Err(error) => self.scan_failed(&error),
                }
            }
        }
    }

    fn scan(&mut self, queue: usize) -> Result<Vec<Delivery>, BrokerError> {
        let Some(tables) = self.tables.clone() else { return Ok(Vec::new()) };
        let window = &self.windows[queue];
        let room = window.room().min(STEP);
        let (_, end) = ready_bounds(window.number);
        let mut rows = Vec::with_capacity(room);
        let mut last = None;
        let mut ended = true;
        for row in tables.messages.range(window.scan_from().to_vec()..end.to_vec()) {
            if rows.len() == room {
                ended = false;
                break;
            }
            let (key, value) = row.into_inner().map_err(|e| unreadable(&e))?;
            if !window.holds(&key) {
                rows.push((key.clone(), value));
            }
            last = Some(key);
        }
        self.windows[queue].scanned(last.as_deref(), ended);
        let mut deliveries = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let Ok(ready) = ReadyKey::try_from(&*key) else { continue };
            match decode::<Message>(&value) {
                Ok(message) => deliveries.extend(self.hand_out(queue, ready, Arc::new(message))),
                Err(error) => self.set_aside(queue, &key, &value, &error)?,
            }
        }
        Ok(deliveries)
    }

    /// A row that cannot be read leaves the queue, so that it blocks nobody, and stays on disk for whoever can.
    fn set_aside(&mut self, queue: usize, key: &[u8], value: &[u8], error: &BrokerError) -> Result<(), BrokerError> {
        tracing::error!(queue = %self.windows[queue].name, ?key, %error, "a waiting row does not decode; it is set aside in the table `dead`");
        let Some(tables) = self.tables.clone() else { return Ok(()) };
        let mut writes = Writes::default();
        writes.delete(Table::Messages, key);
        writes.put(Table::Dead, &[b"damaged/", key].concat(), value);
        self.windows[queue].ready = self.windows[queue].ready.saturating_sub(1);
        write(&tables, &[&writes]).map_err(|e| commit_error(&self.dir, &e))
    }

    /// Moves scheduled rows whose time has come to the ready ones.
    pub(super) fn promote_due(&mut self) {
        for queue in 0..self.windows.len() {
            let due = |e: &Self| e.windows[queue].consumer.is_some() && e.windows[queue].next_due.is_some_and(|d| d <= now());
            while due(self) && self.may_scan() {
                if let Err(error) = self.promote(queue) {
                    self.scan_failed(&error);
                }
            }
        }
    }

    fn promote(&mut self, queue: usize) -> Result<(), BrokerError> {
        let Some(tables) = self.tables.clone() else { return Ok(()) };
        let number = self.windows[queue].number;
        let (start, end) = scheduled_bounds(number);
        let now = now();
        let mut writes = Writes::default();
        let mut arrived = Vec::new();
        for row in tables.messages.range(start..end).take(STEP) {
            let (key, value) = row.into_inner().map_err(|e| unreadable(&e))?;
            if due_of(&key).is_some_and(|due| due > now) {
                break;
            }
            match decode::<Message>(&value) {
                Ok(message) => {
                    let seq = self.next_seq();
                    let ready = ready_key(number, message.priority, seq);
                    writes.delete(Table::Messages, &key);
                    writes.put(Table::Messages, &ready, &value);
                    writes.put(Table::Tasks, message.id.as_str().as_bytes(), &TaskRow::at(&ready));
                    arrived.push(ready);
                }
                Err(error) => {
                    self.windows[queue].ready += 1; // `set_aside` takes one off
                    self.windows[queue].scheduled = self.windows[queue].scheduled.saturating_sub(1);
                    self.set_aside(queue, &key, &value, &error)?;
                }
            }
        }
        let window = &mut self.windows[queue];
        window.ready += arrived.len() as u64;
        window.scheduled = window.scheduled.saturating_sub(arrived.len() as u64);
        self.commit_now(&[queue], &writes)?;
        for key in arrived {
            self.windows[queue].rewind(&key);
        }
        self.find_next_due(queue)
    }

    /// Looks up the earliest ETA of a queue.
    pub(super) fn find_next_due(&mut self, queue: usize) -> Result<(), BrokerError> {
        let Some(tables) = &self.tables else { return Ok(()) };
        let (start, end) = scheduled_bounds(self.windows[queue].number);
        let first = tables.messages.range(start..end).next();
        let due: Option<Timestamp> = match first {
            Some(row) => due_of(&row.key().map_err(|e| unreadable(&e))?),
            None => None,
        };
        self.windows[queue].next_due = due;
        Ok(())
    }
}

pub(super) fn unreadable(error: &fjall::Error) -> BrokerError {
    BrokerError::Io(format!("the store cannot be read: {error}"))
}
