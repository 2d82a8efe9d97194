//! The SQL of the steps: what becomes of messages between their insert and their end.

use celeriac::broker::{
    AgendaPlace, BrokerError, DeadLetter, FollowUps, Hastened, QueueCounts, Settle, Standing, TaskFilter,
    UnfinishedTask,
};
use celeriac::core::Timestamp;
use celeriac::task::{Message, TaskId};
use rusqlite::types::Type;
use rusqlite::{Error, OptionalExtension, Row, named_params, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::table::{Answer, Table, micros, now};

impl Table {
    pub fn declare(&self, queue: &str) -> Answer<()> {
        self.db.execute("INSERT OR IGNORE INTO queues (name) VALUES (?1)", [queue])?;
        Ok(Ok(()))
    }

    pub fn queues(&self) -> Answer<Vec<String>> {
        let names = "SELECT name FROM queues UNION SELECT DISTINCT queue FROM messages";
        self.db.prepare_cached(names)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>().map(Ok)
    }

    pub fn has(&self, id: &TaskId) -> rusqlite::Result<bool> {
        self.db.prepare_cached("SELECT 1 FROM messages WHERE id = ?1")?.exists([id.as_str()])
    }

    /// Puts a message at the end of its line, or on the agenda.
    pub fn insert(&self, message: &Message, due: Option<Timestamp>) -> rusqlite::Result<()> {
        let insert = "INSERT INTO messages (id, queue, priority, due, waits_since, crashes, message)
            VALUES (:id, :queue, :priority, :due, :waits_since, :crashes, :message)";
        self.db.prepare_cached(insert)?.execute(named_params! {
            ":id": message.id.as_str(),
            ":queue": message.queue,
            ":priority": message.priority,
            ":due": due.filter(|due| *due > now()).map_or(0, micros),
            ":waits_since": micros(message.due()),
            ":crashes": message.crashes,
            ":message": json(message)?,
        })?;
        Ok(())
    }

    pub fn delete(&self, seq: i64) -> rusqlite::Result<()> {
        self.db.prepare_cached("DELETE FROM messages WHERE seq = ?1")?.execute([seq]).map(drop)
    }

    /// Sends what follows from an end. A message that is there was sent by an earlier run, which died after that.
    pub fn follow(&self, follow_ups: Option<Box<FollowUps>>) -> rusqlite::Result<()> {
        for message in follow_ups.map(|follow_ups| follow_ups.messages).unwrap_or_default() {
            if !self.has(&message.id)? {
                self.insert(&message, message.eta)?;
            }
        }
        Ok(())
    }

    pub fn note_start(&self, tag: u64) -> Answer<()> {
        let start = "UPDATE messages SET started = 1 WHERE seq = (SELECT seq FROM delivered WHERE tag = ?1)";
        self.db.prepare_cached(start)?.execute([tag])?;
        Ok(Ok(()))
    }

    /// Ends a delivery, once: its tag is gone after that.
    pub fn settle(&self, tag: u64, settle: Settle) -> Answer<()> {
        let end = "DELETE FROM delivered WHERE tag = ?1 RETURNING seq";
        let seq = self.db.prepare_cached(end)?.query_row([tag], |row| row.get(0)).optional()?;
        let Some(seq) = seq else { return Ok(Err(BrokerError::Stale)) };
        match settle {
            // The row is still in its place.
            Settle::Return { crashed } => {
                let back = "UPDATE messages SET started = 0, crashes = crashes + ?1 WHERE seq = ?2";
                self.db.prepare_cached(back)?.execute(params![crashed, seq])?;
            }
            // A new row, because a retry goes to the end of the line.
            Settle::Requeue { message, due } => {
                self.delete(seq)?;
                self.insert(&message, due)?;
            }
            // The row goes first: a task may be replaced by a message of its own id. This broker keeps no failed tasks,
            // and is sent none.
            Settle::Ack { follow_ups, .. } | Settle::Fail { follow_ups, .. } => {
                self.delete(seq)?;
                self.follow(follow_ups)?;
            }
            Settle::DeadLetter { reason, follow_ups, result: _ } => {
                self.bury(seq, reason)?;
                self.follow(follow_ups)?;
            }
        }
        Ok(Ok(()))
    }

    fn bury(&self, seq: i64, reason: String) -> rusqlite::Result<()> {
        let taken = "DELETE FROM messages WHERE seq = ?1 RETURNING crashes, message";
        let message = self.db.prepare_cached(taken)?.query_row([seq], |row| message(row, 0, 1))?;
        tracing::warn!(id = %message.id, task = message.task, reason, "dead letter");
        let (id, queue) = (message.id.to_string(), message.queue.clone());
        let letter = json(&DeadLetter { message, reason, died_at: now() })?;
        let bury = "INSERT INTO dead_letters (id, queue, letter) VALUES (?1, ?2, ?3)";
        self.db.prepare_cached(bury)?.execute([id, queue, letter]).map(drop)
    }

    /// Takes a dead letter out.
    pub fn exhume(&self, id: &TaskId) -> rusqlite::Result<Option<DeadLetter>> {
        let taken = "DELETE FROM dead_letters WHERE seq = (SELECT min(seq) FROM dead_letters WHERE id = ?1)
            RETURNING letter";
        self.db.prepare_cached(taken)?.query_row([id.as_str()], |row| parsed(row, 0)).optional()
    }

    pub fn dead_letters(&self, limit: usize) -> Answer<Vec<DeadLetter>> {
        let letters = "SELECT letter FROM dead_letters ORDER BY seq LIMIT ?1";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.db
            .prepare_cached(letters)?
            .query_map([limit], |row| parsed(row, 0))?
            .collect::<Result<_, _>>()
            .map(Ok)
    }

    pub fn counts(&self, queue: &str) -> Answer<QueueCounts> {
        let counts = "SELECT
            (SELECT count(*) FROM ready WHERE queue = ?1),
            (SELECT count(*) FROM messages WHERE queue = ?1 AND due > 0),
            (SELECT count(*) FROM delivered WHERE queue = ?1),
            (SELECT count(*) FROM dead_letters WHERE queue = ?1)";
        let counts = self.db.prepare_cached(counts)?.query_row([queue], |row| {
            let [ready, scheduled, unsettled, dead] = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
            Ok(QueueCounts { ready, scheduled, unsettled, dead, in_line: 0 })
        })?;
        Ok(Ok(counts))
    }

    /// The place of a task, its message, and whether a consumer has it.
    pub fn find(&self, id: &TaskId) -> rusqlite::Result<Option<(i64, Message, bool)>> {
        let find =
            "SELECT seq, crashes, message, seq IN (SELECT seq FROM delivered) FROM messages WHERE id = ?1";
        let found = |row: &Row<'_>| Ok((row.get(0)?, message(row, 1, 2)?, row.get(3)?));
        self.db.prepare_cached(find)?.query_row([id.as_str()], found).optional()
    }

    /// The tasks that the filter chooses, up to a limit, in the order of their rows.
    pub fn unfinished(&self, filter: &TaskFilter, limit: usize) -> rusqlite::Result<Vec<UnfinishedTask>> {
        let all =
            "SELECT due, seq IN (SELECT seq FROM delivered), crashes, message FROM messages ORDER BY seq";
        let mut all = self.db.prepare_cached(all)?;
        let rows = all.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, message(row, 2, 3))))?;
        let mut chosen = Vec::new();
        for row in rows {
            let (due, is_delivered, Ok(message)) = row? else { continue }; // one that cannot be read is put aside
            if chosen.len() >= limit {
                break;
            }
            if filter.takes_unfinished(&message, now()) {
                let standing = match (is_delivered, due) {
                    (true, _) => Standing::Delivered,
                    (false, 0) => Standing::Ready,
                    (false, _) => Standing::Scheduled,
                };
                chosen.push(UnfinishedTask { message, standing });
            }
        }
        Ok(chosen)
    }

    pub fn position(&self, id: &TaskId, limit: usize) -> Answer<Option<usize>> {
        let before = "SELECT
                (SELECT count(*) FROM delivered WHERE queue = it.queue) + (SELECT count(*) FROM ready WHERE
                queue = it.queue AND (priority > it.priority OR priority = it.priority AND seq < it.seq))
            FROM ready AS it WHERE id = ?1";
        let before = self.db.prepare_cached(before)?.query_row([id.as_str()], |row| row.get(0));
        Ok(Ok(before.optional()?.map(|before: usize| before.min(limit))))
    }

    pub fn oldest_ready(&self, queue: &str) -> Answer<Option<Timestamp>> {
        let oldest = "SELECT waits_since FROM ready WHERE queue = ?1 ORDER BY waits_since LIMIT 1";
        let oldest = self.db.prepare_cached(oldest)?.query_row([queue], |row| row.get(0)).optional()?;
        Ok(Ok(oldest.map(Timestamp::from_micros)))
    }

    /// Puts those at the end of the line that were put back until later because something held them.
    pub fn hasten(&self, queue: &str, from: AgendaPlace, limit: usize) -> Answer<Hastened> {
        let (now, limit) = (now(), limit.max(1));
        let (due, seq) = from.max((now, u64::MAX)); // what is due by now is promoted in any case
        let seq = i64::try_from(seq).unwrap_or(i64::MAX);
        let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let agenda = "SELECT due, seq, crashes, message FROM messages
            WHERE queue = ?1 AND due > 0 AND (due, seq) >= (?2, ?3) ORDER BY due, seq LIMIT ?4";
        let mut agenda = self.db.prepare_cached(agenda)?;
        let rows = agenda.query_map(params![queue, micros(due), seq, one_more], |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, i64>(1)?, message(row, 2, 3)))
        })?;
        let mut hastened = Hastened::default();
        let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        for (looked, (due, seq, message)) in rows.into_iter().enumerate() {
            if looked == limit {
                hastened.next = Some((Timestamp::from_micros(due), seq.unsigned_abs()));
                break;
            }
            let Some(early) = message.ok().and_then(|message| message.hastened(now)) else { continue };
            self.delete(seq)?;
            self.insert(&early, None)?;
            hastened.made_due += 1;
        }
        Ok(Ok(hastened))
    }
}

fn json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(error.into()))
}

fn parsed<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, error.into()))
}

/// The message of a row. Its crashes are counted in a column of their own.
pub fn message(row: &Row<'_>, crashes: usize, message: usize) -> rusqlite::Result<Message> {
    Ok(Message { crashes: row.get(crashes)?, ..parsed(row, message)? })
}
