//! The failed tasks of the broker in memory: a line for each queue, of which the oldest are dropped when there are too many.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryBroker, MemoryState};
use crate::broker::failed::oldest_first;
use crate::broker::{
    BrokerError, FailedTask, FailedTasks, MOST_FAILED, MOST_FAILED_BYTES, Retried, TaskEdit, TaskFilter,
    TaskPage, task_page,
};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// How many failed tasks a queue keeps, and how many bytes they may take.
#[derive(Clone, Copy)]
struct FailedLimits {
    most: usize,
    bytes: usize,
}

/// The failed tasks of all queues.
pub(super) struct MemoryFailed {
    queues: BTreeMap<String, FailedQueue>,
    limits: FailedLimits,
    /// How many were dropped because there were too many.
    dropped: u64,
}

/// The failed tasks of one queue, the oldest first, each with its bytes.
#[derive(Default)]
struct FailedQueue {
    tasks: VecDeque<(usize, Arc<FailedTask>)>,
    bytes: usize,
}

impl Default for MemoryFailed {
    fn default() -> Self {
        let limits = FailedLimits {
            most: usize::try_from(MOST_FAILED).unwrap_or(usize::MAX),
            bytes: usize::try_from(MOST_FAILED_BYTES).unwrap_or(usize::MAX),
        };
        Self { queues: BTreeMap::new(), limits, dropped: 0 }
    }
}

impl FailedQueue {
    fn pop(&mut self) -> Option<Arc<FailedTask>> {
        let (bytes, task) = self.tasks.pop_front()?;
        self.bytes -= bytes;
        Some(task)
    }

    /// Takes the tasks of this id out. Says whether there were any.
    fn take(&mut self, id: &TaskId) -> bool {
        let before = self.tasks.len();
        self.tasks.retain(|(_, task)| task.message.id != *id);
        if self.tasks.len() == before {
            return false;
        }
        self.bytes = self.tasks.iter().map(|(bytes, _)| bytes).sum();
        true
    }
}

impl MemoryFailed {
    /// Keeps a task. What has expired goes, and the oldest of its queue go if there are too many.
    pub(super) fn keep(&mut self, task: FailedTask, now: Timestamp) {
        let limits = self.limits;
        let line = self.queues.entry(task.message.queue.clone()).or_default();
        let bytes = bytes_of(&task);
        line.bytes += bytes;
        line.tasks.push_back((bytes, Arc::new(task)));
        while line.tasks.front().is_some_and(|(_, first)| first.has_expired(now)) {
            line.pop();
        }
        while line.tasks.len() > limits.most || (line.bytes > limits.bytes && line.tasks.len() > 1) {
            let Some(task) = line.pop() else { break };
            self.dropped += 1;
            let message = &task.message;
            tracing::warn!(id = %message.id, task = message.task, queue = message.queue, most = limits.most, "a failed task is dropped, because its queue keeps too many");
        }
    }

    /// Takes the tasks of this id out. Says whether there were any.
    fn take(&mut self, id: &TaskId) -> bool {
        self.queues.values_mut().fold(false, |found, line| line.take(id) | found)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<FailedTask>> {
        self.queues.values().flat_map(|line| line.tasks.iter().map(|(_, task)| task))
    }
}

/// About how many bytes a task takes: its arguments, its headers and its errors.
fn bytes_of(task: &FailedTask) -> usize {
    let message = &task.message;
    let headers = serde_json::to_string(&message.headers.0).map_or(0, |text| text.len());
    message.arguments.len() + headers + message.task.len() + task.reason.len()
}

impl MemoryState {
    /// Takes a failed task or a dead letter out. Says whether there was one of this id.
    fn take_failed(&mut self, id: &TaskId) -> bool {
        let before = self.dead.len();
        self.dead.retain(|letter| letter.message.id != *id);
        self.failed.take(id) || self.dead.len() < before
    }
}

impl MemoryBroker {
    /// All failed tasks and dead letters.
    fn failed(&self) -> Result<Vec<Arc<FailedTask>>, BrokerError> {
        let state = self.shared.lock()?;
        let letters = state.dead.iter().map(|letter| Arc::new(FailedTask::from(letter.clone())));
        Ok(letters.chain(state.failed.all().cloned()).collect())
    }

    /// Those that the filter chooses. The broker is not locked while it looks.
    fn chosen(&self, filter: &TaskFilter) -> Result<Vec<Arc<FailedTask>>, BrokerError> {
        let now = now();
        let mut tasks: Vec<_> = self.failed()?.into_iter().filter(|task| filter.takes(task, now)).collect();
        tasks.sort_by_key(|task| task.failed_at);
        Ok(tasks)
    }

    /// Puts a failed task back as this message, unless a task of its id waits or runs. Says whether it is back.
    fn put_back(&self, message: Message) -> Result<bool, BrokerError> {
        let mut state = self.shared.lock()?;
        if state.entries.knows(&message.id) || !state.take_failed(&message.id) {
            return Ok(false);
        }
        let queue = state.queue(&message.queue);
        self.shared.store.remove(&message.id);
        self.shared.arrive(&mut state, Arc::new(message), queue, None, false);
        self.shared.hand_over(state, queue);
        Ok(true)
    }
}

#[async_trait]
impl FailedTasks for MemoryBroker {
    async fn keep_failed(&self, task: FailedTask) -> Result<(), BrokerError> {
        self.shared.lock()?.failed.keep(task, now());
        Ok(())
    }

    async fn list_failed(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<FailedTask>, BrokerError> {
        let chosen = self.chosen(filter)?.into_iter().take(limit).map(Arc::unwrap_or_clone).collect();
        Ok(oldest_first(chosen, limit))
    }

    async fn page_failed(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<FailedTask>, BrokerError> {
        let offset = task_page::offset(after)?;
        let newest_first = self.chosen(filter)?.into_iter().rev();
        let page = TaskPage::of_list(newest_first.skip(offset).map(Arc::unwrap_or_clone), offset, limit);
        Ok(TaskPage { is_newest_first: true, ..page })
    }

    async fn failed_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        Ok(self.chosen(filter)?.iter().map(|task| task.message.id.clone()).collect())
    }

    async fn retry_failed(&self, ids: &[TaskId], edit: Option<&TaskEdit>) -> Result<Retried, BrokerError> {
        let (mut retried, mut seen) = (Retried::default(), HashSet::new());
        for task in self.chosen(&TaskFilter::new().ids(ids.iter().cloned()))? {
            let id = task.message.id.clone();
            if !seen.insert(id.clone()) {
                continue; // another one of its id
            }
            match Arc::unwrap_or_clone(task).again(edit, now()) {
                Ok(message) => {
                    if self.put_back(message)? {
                        retried.ids.push(id);
                    }
                }
                Err(why) => retried.refused.push((id, why)),
            }
        }
        Ok(retried)
    }

    async fn delete_failed(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        let mut state = self.shared.lock()?;
        Ok(ids.iter().filter(|id| state.take_failed(id)).cloned().collect())
    }

    fn dropped_failed(&self) -> u64 {
        self.shared.state.lock().failed.dropped
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::task::Context;

    fn failed(id: usize, bytes: usize, now: Timestamp) -> FailedTask {
        let mut message = Context::detached().message().clone();
        message.id = TaskId::from(id.to_string());
        message.task = String::new();
        message.arguments.args = "x".repeat(bytes);
        let expires_at = Some(now + Duration::from_secs(10));
        FailedTask { message, reason: String::new(), failed_at: now, expires_at }
    }

    fn ids(kept: &MemoryFailed) -> Vec<String> {
        kept.all().map(|task| task.message.id.to_string()).collect()
    }

    #[test]
    fn of_too_many_the_oldest_go_and_are_counted() {
        let now = Timestamp::from_millis(1_000);
        let limits = FailedLimits { most: 3, bytes: 1_000 };
        let mut kept = MemoryFailed { limits, ..MemoryFailed::default() };
        for id in 0..5 {
            kept.keep(failed(id, 10, now), now);
        }
        assert_eq!((ids(&kept), kept.dropped), (vec!["2".to_owned(), "3".to_owned(), "4".to_owned()], 2));
        kept.keep(failed(5, 980, now), now);
        assert_eq!((ids(&kept), kept.dropped), (vec!["4".to_owned(), "5".to_owned()], 4));
        kept.keep(failed(6, 5_000, now), now);
        assert_eq!((ids(&kept), kept.dropped), (vec!["6".to_owned()], 6), "one is kept, however large");
        // What has expired goes without being counted.
        let later = now + Duration::from_secs(10);
        kept.keep(failed(7, 10, later), later);
        assert_eq!((ids(&kept), kept.dropped), (vec!["7".to_owned()], 6));
        assert!(kept.take(&TaskId::from("7")) && !kept.take(&TaskId::from("7")));
        assert!(kept.queues.values().all(|line| line.bytes == 0));
    }
}
