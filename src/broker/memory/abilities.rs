//! The abilities of the broker in memory: what it can do beside what every [`Broker`](crate::broker::Broker) does.

use std::sync::Arc;

use async_trait::async_trait;

use super::entries::Entry;
use super::{MemoryBroker, MemorySpot};
use crate::broker::{
    BrokerError, BrokerNotes, CasOutcome, Inspect, LaneFacts, LaneLever, Lanes, MessageLocation,
    QueueTenants, RecordFn, Remains, Removal, Results, Standing, TaskFilter, TaskPage, TenantBacklog,
    UnfinishedTask, UniqueWindows, task_page,
};
use crate::store::{CompareAndSet, Notes};
use crate::task::clock::now;
use crate::task::{LaneName, Message, TaskId, UniqueKey};

#[async_trait]
impl Results for MemoryBroker {
    async fn publish_canvas(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        self.publish_together(messages, &sizes, None, unique)
    }

    async fn publish_chord_member(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        group: &str,
        _member: &TaskId,
    ) -> Result<(), BrokerError> {
        self.publish_together(messages, &sizes, Some(group), true)
    }
}

#[async_trait]
impl Lanes for MemoryBroker {
    async fn lane(&self, name: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        let state = self.shared.lock()?;
        Ok(state.lanes.facts(name, &state.entries))
    }

    async fn busy_lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        Ok(self.shared.lock()?.lanes.all(limit))
    }

    async fn steer_lane(&self, name: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        let mut state = self.shared.lock()?;
        let moved = state.steer_lane(name, lever);
        self.shared.hand_over_stirred(state);
        Ok(moved)
    }
}

#[async_trait]
impl UniqueWindows for MemoryBroker {
    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        Ok(self.shared.lock()?.windows.holder_of(key))
    }

    async fn release(&self, message: &Message) -> Result<(), BrokerError> {
        if let Ok(mut state) = self.shared.lock() {
            state.windows.release(message);
        }
        Ok(())
    }
}

impl MemorySpot {
    fn standing(self) -> Standing {
        match self {
            Self::Ready(_) => Standing::Ready,
            Self::Scheduled(_) => Standing::Scheduled,
            Self::InLine(_) => Standing::InLine,
            Self::Delivered => Standing::Delivered,
        }
    }
}

impl MemoryBroker {
    /// The tasks that the filter chooses, in the order of their enqueue. The broker is not locked while the filter looks.
    fn unfinished(&self, filter: &TaskFilter) -> Result<Vec<(Arc<Message>, MemorySpot)>, BrokerError> {
        let state = self.shared.lock()?;
        let task = |entry: &Entry| (Arc::clone(&entry.message), entry.spot);
        let mut tasks: Vec<_> = match filter.indexed() {
            Some(argument) => {
                let found = state.arguments.find(argument).filter_map(|id| state.entries.find(id));
                found.map(|(_, entry)| task(entry)).collect()
            }
            None => state.entries.known().map(task).collect(),
        };
        drop(state);
        let now = now();
        tasks.retain(|(message, _)| filter.takes_unfinished(message, now));
        tasks.sort_by_key(|(message, _)| message.enqueued_at);
        Ok(tasks)
    }
}

#[async_trait]
impl Inspect for MemoryBroker {
    async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        let state = self.shared.lock()?;
        Ok(state.entries.find(id).map(|(_, entry)| match entry.spot {
            MemorySpot::Delivered => MessageLocation::Delivered { queue: entry.message.queue.clone() },
            MemorySpot::Ready(_) | MemorySpot::Scheduled(_) | MemorySpot::InLine(_) => {
                MessageLocation::Waiting(Box::new(Message::clone(&entry.message)))
            }
        }))
    }

    async fn position(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        let state = self.shared.lock()?;
        let Some((_, entry)) = state.entries.find(id) else { return Ok(None) };
        let (MemorySpot::Ready(rank), Some(line)) = (entry.spot, state.queues.get(entry.queue)) else {
            return Ok(None);
        };
        let before = line.ready.before(rank, &entry.message, limit);
        Ok(Some(line.unsettled.len().saturating_add(before).min(limit)))
    }

    async fn list_unfinished(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError> {
        let tasks = self.unfinished(filter)?.into_iter().take(limit);
        let tasks = tasks.map(|(message, spot)| UnfinishedTask {
            message: Arc::unwrap_or_clone(message),
            standing: spot.standing(),
        });
        Ok(tasks.collect())
    }

    async fn page_unfinished(
        &self,
        filter: &TaskFilter,
        standings: &[Standing],
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<UnfinishedTask>, BrokerError> {
        let offset = task_page::offset(after)?;
        let mut tasks = self.unfinished(filter)?;
        tasks.retain(|(_, spot)| standings.is_empty() || standings.contains(&spot.standing()));
        let rest = tasks.into_iter().skip(offset).map(|(message, spot)| UnfinishedTask {
            message: Arc::unwrap_or_clone(message),
            standing: spot.standing(),
        });
        let by_index = filter.indexed().map(|(name, _)| name.to_owned());
        Ok(TaskPage { by_index, ..TaskPage::of_list(rest, offset, limit) })
    }

    async fn unfinished_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        let mut tasks = self.unfinished(filter)?;
        // Those in lanes, then those that are delivered, and then the others as they stand.
        tasks.sort_by_key(|(_, spot)| match spot {
            MemorySpot::InLine(ticket) => (0, *ticket),
            MemorySpot::Delivered => (1, 0),
            MemorySpot::Ready(rank) => (2, rank.sequence()),
            MemorySpot::Scheduled((_, sequence)) => (2, *sequence),
        });
        Ok(tasks.into_iter().map(|(message, _)| message.id.clone()).collect())
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        let mut state = self.shared.lock()?;
        let Some((at, entry)) = state.entries.find(id) else { return Ok(Removal::Unknown) };
        let queue = entry.queue;
        if let MemorySpot::Delivered = entry.spot {
            return Ok(Removal::Delivered { queue: entry.message.queue.clone() });
        }
        let Some(message) = state.withdraw(at) else { return Ok(Removal::Unknown) };
        state.leave_lane(&message, None);
        state.windows.release(&message);
        let Remains { record, follow_ups } = record(&message);
        if let Some(record) = record {
            self.shared.store.insert(record);
        }
        self.shared.follow(&mut state, follow_ups.map(|follow_ups| *follow_ups));
        self.shared.hand_over(state, queue);
        Ok(Removal::Removed)
    }
}

#[async_trait]
impl TenantBacklog for MemoryBroker {
    async fn tenants(&self, queue: &str, limit: usize) -> Result<QueueTenants, BrokerError> {
        let tenants = self.shared.lock()?.queues.named(queue).map(|line| line.ready.tenants());
        Ok(tenants.unwrap_or_default().cut(limit))
    }

    async fn line_before(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        let state = self.shared.lock()?;
        let Some((_, entry)) = state.entries.find(id) else { return Ok(None) };
        let (MemorySpot::Ready(rank), Some(line)) = (entry.spot, state.queues.get(entry.queue)) else {
            return Ok(None);
        };
        Ok(Some(line.ready.line_before(rank, &entry.message, limit)))
    }
}

#[async_trait]
impl BrokerNotes for MemoryBroker {
    fn notes(&self) -> &dyn Notes {
        &*self.shared.store
    }

    async fn publish_with_cas(
        &self,
        message: Message,
        change: CompareAndSet,
    ) -> Result<CasOutcome, BrokerError> {
        self.publish_with_note(message, &change)
    }
}
