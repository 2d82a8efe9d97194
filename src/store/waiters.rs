//! The callers that wait for records.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::sync::oneshot;

use super::StoreError;
use crate::task::{TaskId, TaskResult};

/// The answer to a waiter.
type Notice = Result<Arc<TaskResult>, StoreError>;

/// The waiters by task id. A record that arrives wakes all waiters of its id. If nobody waits, it costs one load.
#[derive(Default)]
pub(crate) struct Waiters {
    by_id: DashMap<TaskId, Vec<oneshot::Sender<Notice>>>,
    count: AtomicUsize,
}

/// A wait for a record. If it is dropped, it leaves nothing behind.
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    id: &'a TaskId,
    record: oneshot::Receiver<Notice>,
}

impl Waiters {
    /// Begins to wait for the record of `id`. The caller subscribes first, and then looks whether the record is
    /// there already.
    pub(crate) fn subscribe<'a>(&'a self, id: &'a TaskId) -> Waiter<'a> {
        let (sender, record) = oneshot::channel();
        self.count.fetch_add(1, Ordering::SeqCst);
        self.by_id.entry(id.clone()).or_default().push(sender);
        Waiter { waiters: self, id, record }
    }

    /// Wakes those who wait for this record.
    pub(crate) fn wake(&self, result: &TaskResult) {
        let waiting = self.take(&result.id);
        if !waiting.is_empty() {
            let result = Arc::new(result.clone());
            for waiter in waiting {
                let _ = waiter.send(Ok(Arc::clone(&result)));
            }
        }
    }

    /// Tells those who wait for this record why it cannot be had.
    #[cfg(any(feature = "amqp", feature = "redis"))]
    pub(crate) fn fail(&self, id: &TaskId, error: &StoreError) {
        for waiter in self.take(id) {
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// Whether anybody waits for this record.
    #[cfg(feature = "redis")]
    pub(crate) fn has(&self, id: &TaskId) -> bool {
        self.by_id.contains_key(id)
    }

    fn take(&self, id: &TaskId) -> Vec<oneshot::Sender<Notice>> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let waiting = self.by_id.remove(id).map(|(_, waiting)| waiting).unwrap_or_default();
        self.count.fetch_sub(waiting.len(), Ordering::SeqCst);
        waiting
    }

    /// Tells all waiters that no record comes any more.
    pub(crate) fn close(&self) {
        self.by_id.retain(|_, waiting| {
            self.count.fetch_sub(waiting.len(), Ordering::SeqCst);
            false
        });
    }
}

impl Waiter<'_> {
    /// Waits for the record.
    pub(crate) async fn record(mut self) -> Result<TaskResult, StoreError> {
        (&mut self.record).await.unwrap_or(Err(StoreError::Closed)).map(|record| TaskResult::clone(&record))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.record.close();
        self.waiters.by_id.remove_if_mut(self.id, |_, waiting| {
            let before = waiting.len();
            waiting.retain(|w| !w.is_closed());
            self.waiters.count.fetch_sub(before - waiting.len(), Ordering::SeqCst);
            waiting.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_waiters_leave_nothing_behind() {
        let waiters = Waiters::default();
        let (a, b) = (TaskId::from("a"), TaskId::from("b"));
        let waiting = [waiters.subscribe(&a), waiters.subscribe(&a), waiters.subscribe(&b)];
        assert_eq!((waiters.count.load(Ordering::SeqCst), waiters.by_id.len()), (3, 2));
        let [first, second, third] = waiting;
        drop(first);
        drop(third);
        assert_eq!((waiters.count.load(Ordering::SeqCst), waiters.by_id.len()), (1, 1));
        waiters.close();
        drop(second);
        assert_eq!((waiters.count.load(Ordering::SeqCst), waiters.by_id.len()), (0, 0));
    }
}
