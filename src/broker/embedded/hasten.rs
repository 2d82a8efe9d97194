//! Makes rows due before their time: those of tasks that were put back until later because something held them.
//!
//! The rows stay scheduled, at the time of now, so they become ready as all rows do whose time has come.

use std::ops::Bound;
use std::time::Duration;

use super::engine::Engine;
use super::rows::{TaskRow, agenda_place, decode, encode, scheduled_bounds, scheduled_key, task_key};
use super::tables::{TableName, Writes};
use crate::broker::{AgendaPlace, BrokerError, Hastened};
use crate::task::Message;
use crate::task::clock::now;

/// The least time after which a row is not due.
const MOMENT: Duration = Duration::from_micros(1);

impl Engine {
    /// Looks at the next scheduled rows of a queue, and makes those due that were put back.
    pub(super) fn hasten(
        &mut self,
        queue: &str,
        from: AgendaPlace,
        limit: usize,
    ) -> Result<Hastened, BrokerError> {
        let mut hastened = Hastened::default();
        let Some(index) = self.by_name.get(queue).copied() else { return Ok(hastened) };
        let tables = self.open_tables()?;
        let (number, now) = (self.cursors[index].number, now());
        // The deleted rows of past times lie before these, and a read would step over each of them.
        let (due, seq) = from.max((now + MOMENT, 0));
        let start = scheduled_key(number, due, seq);
        let (_, end) = scheduled_bounds(number);
        let mut writes = Writes::default();
        let rows = tables.readable(TableName::Messages, &start, Bound::Excluded(&end));
        for (looked, (key, value)) in rows.enumerate() {
            if looked == limit.max(1) {
                hastened.next = agenda_place(&key);
                break;
            }
            // A row that does not decode is set aside when it is due.
            let message = decode::<Message>(&value).ok().and_then(|message| message.hastened(now));
            let Some(message) = message else { continue };
            let Ok(row) = encode(&message) else { continue };
            let place = scheduled_key(number, now, self.next_seq());
            writes.delete(TableName::Messages, &key);
            writes.put(TableName::Messages, &place, &row);
            writes.put(TableName::Tasks, &task_key(&message.id), &TaskRow::at(&place));
            hastened.made_due += 1;
        }
        if hastened.made_due > 0 {
            self.commit_now(&[index], &writes)?;
            self.cursors[index].scheduled_for(now);
        }
        Ok(hastened)
    }
}
