//! The child processes of a program's queues: how those of one queue are to be, and how many there are.

use tokio::sync::watch;

use crate::catalogue::{Pool, QueueRow};
use crate::core::child_life::ChildLimits;

/// How the child processes of a queue are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChildSettings {
    pub(crate) queue: String,
    pub(crate) limits: ChildLimits,
    /// The bytes of memory that a child may have at all.
    pub(crate) memory_limit: Option<u64>,
}

impl ChildSettings {
    /// The settings of the queue's row. `None`: its bodies run in this process.
    pub(crate) fn of(row: &QueueRow) -> Option<Self> {
        let limits = ChildLimits { max_tasks: row.max_tasks_per_child, max_memory: row.max_memory_per_child };
        let settings = Self { queue: row.name.clone(), limits, memory_limit: row.memory_limit_per_child };
        (row.pool == Pool::Process).then_some(settings)
    }
}

/// Why a queue cannot have child processes as its row wants them; `None`: it can. Of a row that is not in that pool,
/// nothing is asked.
pub(crate) fn impossible(row: &QueueRow) -> Option<&'static str> {
    if row.pool != Pool::Process || !row.served {
        return None;
    }
    if !cfg!(unix) {
        return Some("this system has no child processes that Celeriac could use: set pool = \"cpu\"");
    }
    let limits_memory = row.max_memory_per_child.is_some() || row.memory_limit_per_child.is_some();
    (limits_memory && !cfg!(target_os = "linux")).then_some(
        "the memory of child processes can be limited on Linux only: remove max_memory_per_child and memory_limit_per_child",
    )
}

/// How many child processes there are, so that a shutdown can wait until the last one is gone.
pub(crate) struct ChildCount(watch::Sender<usize>);

impl Default for ChildCount {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl ChildCount {
    /// Counts a child until the guard is dropped.
    pub(crate) fn one(&self) -> OneChild {
        self.0.send_modify(|count| *count += 1);
        OneChild(self.0.clone())
    }

    /// Waits until there is none.
    pub(crate) async fn none_left(&self) {
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// One child that is counted.
pub(crate) struct OneChild(watch::Sender<usize>);

impl Drop for OneChild {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_the_last_child_waits_for_all() {
        let count = ChildCount::default();
        assert!(count.none_left().now_or_never().is_some());
        let (one, other) = (count.one(), count.one());
        drop(one);
        assert!(count.none_left().now_or_never().is_none());
        drop(other);
        count.none_left().await;
    }

    #[test]
    fn only_a_queue_in_the_process_pool_has_children() {
        let row = QueueRow::new("q").with_max_tasks_per_child(3);
        assert_eq!((ChildSettings::of(&row), impossible(&row)), (None, None));
        let settings = ChildSettings::of(&row.with_pool(Pool::Process)).expect("it has");
        assert_eq!((settings.queue.as_str(), settings.limits.max_tasks), ("q", Some(3)));
    }
}
