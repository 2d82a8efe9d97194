//! How many tasks that wait match a rule: counted one by one, as the broker finds them, without a list of them.
//!
//! A count is exact, so it takes the longer the more waits. Whoever waits for it is told [how far](CountProgress) it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::broker::{Broker, BrokerError, Inspect, TaskFilter};
use crate::core::accounts::OTHER;
use crate::task::{Message, TaskId};

/// How many names of tasks are told apart.
const MOST_NAMES: usize = 1_000;
/// How many ids are told.
const SAMPLE: usize = 20;

/// The tasks that wait and match a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuleCount {
    /// The number of tasks that match the rule.
    pub tasks: u64,
    /// The number of those tasks in each queue.
    pub by_queue: BTreeMap<String, u64>,
    /// The number of those tasks by the name of the task. Of more than a thousand names, the rest is `other`.
    pub by_task: BTreeMap<String, u64>,
    /// The ids of some of them.
    pub sample: Vec<TaskId>,
}

impl RuleCount {
    fn add(&mut self, message: &Message) {
        self.tasks += 1;
        count(&mut self.by_queue, &message.queue);
        let is_known = self.by_task.contains_key(&message.task) || self.by_task.len() < MOST_NAMES;
        count(&mut self.by_task, if is_known { message.task.as_str() } else { OTHER });
        if self.sample.len() < SAMPLE {
            self.sample.push(message.id.clone());
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

/// How far a count is, for those who wait for it.
#[derive(Debug, Default)]
pub(crate) struct CountProgress {
    looked_at: Arc<AtomicU64>,
    of: AtomicU64,
}

impl CountProgress {
    /// At how many tasks was looked, and how many there were when the count began, as far as that is known.
    #[cfg(feature = "web")]
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.looked_at.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }

    /// The same filter, which tells here at how many failed tasks was looked. How many there are in all is not known.
    pub(crate) fn noted_by(&self, filter: TaskFilter) -> TaskFilter {
        filter.noting_looks(Arc::clone(&self.looked_at))
    }

    /// Finds out at how many tasks the count will look: those of a queue, or of all. The broker has these numbers at hand.
    pub(crate) async fn begin(&self, broker: &dyn Broker, queue: Option<&str>) {
        let queues = match queue {
            Some(queue) => vec![queue.to_owned()],
            None => broker.queues().await.unwrap_or_default(),
        };
        for queue in queues {
            // Without the number of one queue the count goes on; only its end is known less well.
            if let Ok(counts) = broker.counts(&queue).await {
                let tasks = counts.ready + counts.scheduled + counts.unsettled + counts.in_line;
                self.of.fetch_add(tasks, Ordering::Relaxed);
            }
        }
    }
}

/// Counts the tasks that are not over and that `is_meant` chooses, of all that the broker knows, or of those of one queue.
///
/// # Errors
/// The broker is closed or cannot be reached.
pub(crate) async fn count_unfinished(
    inspect: &dyn Inspect,
    queue: Option<&str>,
    progress: &Arc<CountProgress>,
    is_meant: impl Fn(&Message) -> bool + Send + Sync + 'static,
) -> Result<RuleCount, BrokerError> {
    let counted = Arc::new(Mutex::new(RuleCount::default()));
    let (counts, progress) = (Arc::clone(&counted), Arc::clone(progress));
    let look = queue.map_or_else(TaskFilter::new, |queue| TaskFilter::new().queue(queue));
    let look = look.matching(move |message| {
        progress.looked_at.fetch_add(1, Ordering::Relaxed);
        if is_meant(message) {
            counts.lock().add(message);
        }
        false
    });
    inspect.unfinished_ids(&look).await?;
    let counted = counted.lock().clone();
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Broker, MemoryBroker};
    use crate::store::MemoryStore;
    use crate::task::Context;

    #[tokio::test]
    async fn tasks_are_counted_by_queue_and_name() {
        let broker = MemoryBroker::new(Arc::new(MemoryStore::default()));
        for n in 0..MOST_NAMES + 50 {
            let mut message = Context::detached().message().clone();
            message.id = format!("id-{n}").into();
            message.task = format!("task-{n}");
            message.queue = if n % 2 == 0 { "even".to_owned() } else { "odd".to_owned() };
            broker.publish(message, true).await.unwrap();
        }
        let is_even = |message: &Message| message.queue == "even";
        let progress = Arc::new(CountProgress::default());
        progress.begin(&broker, None).await;
        let found = count_unfinished(&broker, None, &progress, is_even).await.unwrap();
        let looked_at = |progress: &CountProgress| {
            (progress.looked_at.load(Ordering::Relaxed), progress.of.load(Ordering::Relaxed))
        };
        assert_eq!(looked_at(&progress), (1_050, 1_050));
        assert_eq!((found.tasks, found.by_task.len(), found.sample.len()), (525, 525, SAMPLE));
        assert_eq!(found.by_queue, BTreeMap::from([("even".to_owned(), 525)]));
        let all = count_unfinished(&broker, None, &Arc::default(), |_| true).await.unwrap();
        assert_eq!((all.tasks, all.by_task[OTHER], all.by_queue.len()), (1_050, 50, 2));
        let progress = Arc::new(CountProgress::default());
        progress.begin(&broker, Some("odd")).await;
        let odd = count_unfinished(&broker, Some("odd"), &progress, |_| true).await.unwrap();
        assert_eq!((odd.tasks, looked_at(&progress)), (525, (525, 525)));
    }
}
