//! Looks for failed tasks and dead letters in the tables, and takes them off.
//!
//! A look reads each row on a thread of its own, and remembers only the places of those that are meant. Whoever takes tasks off
//! then tells the engine their keys, a step at a time; it leaves alone what somebody else has taken meanwhile.

use std::collections::HashSet;
use std::ops::Bound;

use async_trait::async_trait;

use super::EmbeddedBroker;
use super::command::EngineCommand;
use super::failed::{FAILED, FAILED_KEY, FailedPick};
use super::rows::decode;
use super::tables::{TableName, Tables};
use crate::broker::failed::oldest_first;
use crate::broker::{
    BrokerError, DeadLetter, FailedTask, FailedTasks, Retried, TaskEdit, TaskFilter, TaskPage,
};
use crate::task::TaskId;
use crate::task::clock::now;

/// The bytes of the key of a dead letter.
const LETTER_KEY: usize = 8;
/// The most tasks that one request takes.
const STEP: usize = 256;

/// The failed task in a row of the table `dead`; `None`: the row was set aside, or cannot be read.
pub(super) fn failed_in(key: &[u8], value: &[u8]) -> Option<FailedTask> {
    match key.len() {
        LETTER_KEY => decode::<DeadLetter>(value).ok().map(FailedTask::from),
        FAILED_KEY => decode::<FailedTask>(value).ok().filter(|_| key[0] == FAILED),
        _ => None,
    }
}

/// A failed task that was found, and where its row is.
struct FoundFailed {
    seq: u64,
    key: Vec<u8>,
    id: TaskId,
}

/// The id of the task in a row, which begins with it. `None`: it is no row of ours.
fn id_in(value: &[u8]) -> Option<&str> {
    let (_, row) = value.split_first()?;
    postcard::take_from_bytes::<&str>(row).ok().map(|(id, _)| id)
}

/// The failed tasks and dead letters of these ids, or of all, that `is_meant` chooses, the oldest first. Of each only its place
/// is remembered. A row of another id is not decoded: that costs most of a look.
fn find(
    tables: &Tables,
    ids: Option<&HashSet<TaskId>>,
    is_meant: impl Fn(&FailedTask) -> bool,
) -> Vec<FoundFailed> {
    let ids: Option<HashSet<&str>> = ids.map(|ids| ids.iter().map(TaskId::as_str).collect());
    let is_other =
        |value: &[u8]| ids.as_ref().is_some_and(|ids| id_in(value).is_some_and(|id| !ids.contains(id)));
    let rows = tables.readable(TableName::Dead, &[], Bound::Unbounded);
    let mut found: Vec<_> = rows
        .filter(|(_, value)| !is_other(value))
        .filter_map(|(key, value)| {
            let task = failed_in(&key, &value).filter(&is_meant)?;
            let seq = key.last_chunk().map_or(0, |seq| u64::from_be_bytes(*seq));
            Some(FoundFailed { seq, key: key.to_vec(), id: task.message.id })
        })
        .collect();
    found.sort_by_key(|found| found.seq);
    found
}

impl EmbeddedBroker {
    /// Reads the tables on a thread of their own. All that was asked and settled before this is on disk by then.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables) -> T + Send + 'static,
    ) -> Result<T, BrokerError> {
        self.ask(|reply| EngineCommand::Queues { reply }).await?;
        let tables = self.inner.shared.tables.read().as_ref().map_err(Clone::clone)?.clone();
        Ok(blocking::unblock(move || read(&tables)).await)
    }

    /// Takes tasks, a step at a time. Answers with the ids of those that were still there.
    async fn take_picks(&self, mut picks: Vec<FailedPick>) -> Result<Vec<TaskId>, BrokerError> {
        let mut taken = Vec::with_capacity(picks.len());
        while !picks.is_empty() {
            let rest = picks.split_off(picks.len().min(STEP));
            let picks = std::mem::replace(&mut picks, rest);
            taken.extend(self.ask(|reply| EngineCommand::TakeFailed { picks, reply }).await?);
        }
        Ok(taken)
    }
}

#[async_trait]
impl FailedTasks for EmbeddedBroker {
    async fn keep_failed(&self, task: FailedTask) -> Result<(), BrokerError> {
        if super::is_volatile(&task.message) {
            return self.inner.volatile.keep_failed(task).await;
        }
        self.ask(|reply| EngineCommand::KeepFailed { task: Box::new(task), reply }).await
    }

    async fn list_failed(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<FailedTask>, BrokerError> {
        let mut tasks = self.inner.volatile.list_failed(filter, limit).await?;
        let filter = filter.clone();
        let on_disk = self.on_disk(move |tables| {
            let now = now();
            let found = find(tables, filter.wanted_ids(), |task| filter.takes(task, now));
            let rows = found.into_iter().take(limit).filter_map(|found| {
                let row = tables.get(TableName::Dead, &found.key).ok().flatten()?;
                failed_in(&found.key, &row)
            });
            rows.collect::<Vec<_>>()
        });
        tasks.extend(on_disk.await?);
        Ok(oldest_first(tasks, limit))
    }

    async fn page_failed(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<FailedTask>, BrokerError> {
        self.page_of_failed(filter, after, limit).await
    }

    async fn failed_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        let mut ids = self.inner.volatile.failed_ids(filter).await?;
        let filter = filter.clone();
        let on_disk = self.on_disk(move |tables| {
            let now = now();
            let found = find(tables, filter.wanted_ids(), |task| filter.takes(task, now));
            found.into_iter().map(|found| found.id).collect::<Vec<_>>()
        });
        ids.extend(on_disk.await?);
        Ok(ids)
    }

    async fn retry_failed(&self, ids: &[TaskId], edit: Option<&TaskEdit>) -> Result<Retried, BrokerError> {
        let mut retried = self.inner.volatile.retry_failed(ids, edit).await?;
        let mut wanted: HashSet<TaskId> = ids.iter().cloned().collect();
        for id in retried.ids.iter().chain(retried.refused.iter().map(|(id, _)| id)) {
            wanted.remove(id);
        }
        if wanted.is_empty() {
            return Ok(retried);
        }
        let edit = edit.cloned();
        let picked = self.on_disk(move |tables| {
            let (now, mut picks, mut refused) = (now(), Vec::new(), Vec::new());
            let is_meant = |task: &FailedTask| wanted.contains(&task.message.id) && !task.has_expired(now);
            let mut seen = HashSet::new();
            for FoundFailed { key, id, .. } in find(tables, Some(&wanted), is_meant) {
                let row = tables.get(TableName::Dead, &key).ok().flatten();
                let Some(task) = row.and_then(|row| failed_in(&key, &row)) else { continue };
                if !seen.insert(id.clone()) {
                    continue; // another one of its id, which an earlier life of the id has left
                }
                match task.again(edit.as_ref(), now) {
                    Ok(message) => picks.push(FailedPick { key, id, message: Some(Box::new(message)) }),
                    Err(why) => refused.push((id, why)),
                }
            }
            (picks, refused)
        });
        let (picks, refused) = picked.await?;
        retried.refused.extend(refused);
        retried.ids.extend(self.take_picks(picks).await?);
        Ok(retried)
    }

    async fn delete_failed(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let mut deleted = self.inner.volatile.delete_failed(ids).await?;
        let wanted: HashSet<TaskId> = ids.iter().filter(|id| !deleted.contains(id)).cloned().collect();
        if !wanted.is_empty() {
            let found = self
                .on_disk(move |tables| find(tables, Some(&wanted), |task| wanted.contains(&task.message.id)))
                .await?;
            let picks =
                found.into_iter().map(|FoundFailed { key, id, .. }| FailedPick { key, id, message: None });
            deleted.extend(self.take_picks(picks.collect()).await?);
        }
        Ok(deleted)
    }

    fn dropped_failed(&self) -> u64 {
        self.inner.shared.dropped_failed() + self.inner.volatile.dropped_failed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::encode;
    use super::*;
    use crate::core::Timestamp;
    use crate::task::Context;

    #[test]
    fn a_row_begins_with_the_id_of_its_task() {
        let mut message = Context::detached().message().clone();
        for id in ["a", "", &"é".repeat(127), &"x".repeat(255)] {
            message.id = id.into();
            let (message, reason, at) = (message.clone(), "down".to_owned(), Timestamp::from_millis(1));
            let letter = DeadLetter { message: message.clone(), reason: reason.clone(), died_at: at };
            let failed = FailedTask { message, reason, failed_at: at, expires_at: Some(at) };
            for row in [encode(&failed).unwrap(), encode(&letter).unwrap()] {
                assert_eq!(id_in(&row), Some(id));
            }
        }
        for row in [&[][..], &[1], &[1, 200], &[1, 3, b'a'], &[1, 1, 0xff]] {
            assert_eq!(id_in(row), None, "{row:?}");
        }
    }
}
