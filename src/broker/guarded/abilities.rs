//! The abilities of a broker that may panic. A broker that has stopped to hand out an ability fails the calls that
//! come for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{GuardedBroker, calm, caught};
use crate::broker::{
    AgendaPlace, Backlog, BrokerConnection, BrokerError, BrokerListener, BrokerNotes, BulkChange,
    BulkChanges, BulkOutcome, BulkPick, CasOutcome, DeadLetterQueue, Events, FailedTask, FailedTasks,
    Hastened, Inspect, KeptTask, LaneFacts, LaneLever, Lanes, MessageLocation, QueueBinding, QueueTenants,
    RecordFn, Removal, Results, Retried, ScheduledTask, Standing, TaskEdit, TaskFilter, TaskPage,
    TenantBacklog, UndoOutcome, UnfinishedTask, UniqueWindows,
};
use crate::core::Timestamp;
use crate::protocol::control::{Reply, Request};
use crate::store::{CompareAndSet, Leadership, Notes, StoreError, Term};
use crate::task::{LaneName, Message, TaskId, UniqueKey, panic};

/// The ability that the broker had when it was asked first.
fn still<T>(ability: Option<T>, what: &str) -> Result<T, BrokerError> {
    ability.ok_or_else(|| BrokerError::io(format!("the broker does not hand out its {what} any more")))
}

impl GuardedBroker {
    fn own_results(&self) -> Result<&dyn Results, BrokerError> {
        still(self.given.results(), "results")
    }

    fn own_lanes(&self) -> Result<&dyn Lanes, BrokerError> {
        still(self.given.lanes(), "lanes")
    }

    fn own_windows(&self) -> Result<&dyn UniqueWindows, BrokerError> {
        still(self.given.unique_windows(), "unique windows")
    }

    fn own_inspect(&self) -> Result<&dyn Inspect, BrokerError> {
        still(self.given.inspect(), "inspection")
    }

    fn own_notes(&self) -> Result<&dyn BrokerNotes, BrokerError> {
        still(self.given.notes(), "notes")
    }

    fn own_backlog(&self) -> Result<&dyn Backlog, BrokerError> {
        still(self.given.backlog(), "backlog")
    }

    fn own_events(&self) -> Result<&dyn Events, BrokerError> {
        still(self.given.events(), "events")
    }

    fn own_letters(&self) -> Result<&dyn DeadLetterQueue, BrokerError> {
        still(self.given.dead_letter_queue(), "dead letter queue")
    }

    fn own_tenants(&self) -> Result<&dyn TenantBacklog, BrokerError> {
        still(self.given.tenant_backlog(), "tenants")
    }

    fn own_bulk(&self) -> Result<&dyn BulkChanges, BrokerError> {
        still(self.given.bulk_changes(), "bulk changes")
    }

    fn own_failed(&self) -> Result<&dyn FailedTasks, BrokerError> {
        still(self.given.failed_tasks(), "failed tasks")
    }
}

#[async_trait]
impl Results for GuardedBroker {
    async fn publish_canvas(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError> {
        let publish = async { self.own_results()?.publish_canvas(messages, sizes, unique).await };
        caught("publish_canvas", publish).await
    }

    async fn publish_chord_member(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        group: &str,
        member: &TaskId,
    ) -> Result<(), BrokerError> {
        let publish =
            async { self.own_results()?.publish_chord_member(messages, sizes, group, member).await };
        caught("publish_chord_member", publish).await
    }
}

#[async_trait]
impl Lanes for GuardedBroker {
    async fn lane(&self, lane: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        caught("lane", async { self.own_lanes()?.lane(lane).await }).await
    }

    async fn busy_lanes(&self, limit: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        caught("busy_lanes", async { self.own_lanes()?.busy_lanes(limit).await }).await
    }

    async fn steer_lane(&self, lane: &LaneName, lever: LaneLever) -> Result<bool, BrokerError> {
        caught("steer_lane", async { self.own_lanes()?.steer_lane(lane, lever).await }).await
    }
}

#[async_trait]
impl UniqueWindows for GuardedBroker {
    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        caught("holder", async { self.own_windows()?.holder(key).await }).await
    }

    async fn release(&self, message: &Message) -> Result<(), BrokerError> {
        caught("release", async { self.own_windows()?.release(message).await }).await
    }
}

#[async_trait]
impl Inspect for GuardedBroker {
    async fn find(&self, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        caught("find", async { self.own_inspect()?.find(id).await }).await
    }

    async fn position(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        caught("position", async { self.own_inspect()?.position(id, limit).await }).await
    }

    async fn list_unfinished(
        &self,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<Vec<UnfinishedTask>, BrokerError> {
        let list = async { self.own_inspect()?.list_unfinished(filter, limit).await };
        caught("list_unfinished", list).await
    }

    async fn page_unfinished(
        &self,
        filter: &TaskFilter,
        standings: &[Standing],
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<UnfinishedTask>, BrokerError> {
        let page = async { self.own_inspect()?.page_unfinished(filter, standings, after, limit).await };
        caught("page_unfinished", page).await
    }

    async fn unfinished_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        caught("unfinished_ids", async { self.own_inspect()?.unfinished_ids(filter).await }).await
    }

    async fn page_unfinished_ids(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<TaskId>, BrokerError> {
        let page = async { self.own_inspect()?.page_unfinished_ids(filter, after, limit).await };
        caught("page_unfinished_ids", page).await
    }

    async fn remove(&self, id: &TaskId, record: RecordFn) -> Result<Removal, BrokerError> {
        caught("remove", async { self.own_inspect()?.remove(id, record).await }).await
    }
}

#[async_trait]
impl BrokerNotes for GuardedBroker {
    fn notes(&self) -> &dyn Notes {
        self
    }

    async fn publish_with_cas(
        &self,
        message: Message,
        change: CompareAndSet,
    ) -> Result<CasOutcome, BrokerError> {
        caught("publish_with_cas", async { self.own_notes()?.publish_with_cas(message, change).await }).await
    }
}

/// The notes themselves have the errors of stores.
#[async_trait]
impl Notes for GuardedBroker {
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        let note = async { self.own_notes()?.notes().note(key).await };
        panic::caught("broker", "note", note, StoreError::Panicked).await
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let notes = async { self.own_notes()?.notes().notes(prefix).await };
        panic::caught("broker", "notes", notes, StoreError::Panicked).await
    }

    async fn compare_and_set(&self, change: CompareAndSet) -> Result<bool, StoreError> {
        let set = async { self.own_notes()?.notes().compare_and_set(change).await };
        panic::caught("broker", "compare_and_set", set, StoreError::Panicked).await
    }

    async fn compare_and_set_all(
        &self,
        changes: Vec<CompareAndSet>,
        under: Option<Term>,
    ) -> Result<bool, StoreError> {
        let set = async { self.own_notes()?.notes().compare_and_set_all(changes, under).await };
        panic::caught("broker", "compare_and_set_all", set, StoreError::Panicked).await
    }

    async fn lead(
        &self,
        election: &str,
        candidate: &str,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Leadership, StoreError> {
        let lead = async { self.own_notes()?.notes().lead(election, candidate, lease, now).await };
        panic::caught("broker", "lead", lead, StoreError::Panicked).await
    }

    async fn resign(&self, election: &str, candidate: &str) -> Result<(), StoreError> {
        let resign = async { self.own_notes()?.notes().resign(election, candidate).await };
        panic::caught("broker", "resign", resign, StoreError::Panicked).await
    }
}

#[async_trait]
impl Backlog for GuardedBroker {
    async fn oldest_ready(&self, queue: &str) -> Result<Option<Timestamp>, BrokerError> {
        caught("oldest_ready", async { self.own_backlog()?.oldest_ready(queue).await }).await
    }

    async fn hasten(&self, queue: &str, from: AgendaPlace, limit: usize) -> Result<Hastened, BrokerError> {
        caught("hasten", async { self.own_backlog()?.hasten(queue, from, limit).await }).await
    }
}

#[async_trait]
impl TenantBacklog for GuardedBroker {
    async fn tenants(&self, queue: &str, limit: usize) -> Result<QueueTenants, BrokerError> {
        caught("tenants", async { self.own_tenants()?.tenants(queue, limit).await }).await
    }

    async fn line_before(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError> {
        caught("line_before", async { self.own_tenants()?.line_before(id, limit).await }).await
    }
}

#[async_trait]
impl BulkChanges for GuardedBroker {
    async fn change_all(
        &self,
        act: Option<&str>,
        change: &BulkChange,
        picks: Vec<BulkPick>,
    ) -> Result<BulkOutcome, BrokerError> {
        caught("change_all", async { self.own_bulk()?.change_all(act, change, picks).await }).await
    }

    async fn kept_for(&self, act: &str, limit: usize) -> Result<Vec<KeptTask>, BrokerError> {
        caught("kept_for", async { self.own_bulk()?.kept_for(act, limit).await }).await
    }

    async fn undo(
        &self,
        act: &str,
        picks: Vec<(KeptTask, Option<u64>)>,
        is_last: bool,
    ) -> Result<UndoOutcome, BrokerError> {
        caught("undo", async { self.own_bulk()?.undo(act, picks, is_last).await }).await
    }

    async fn forget_kept(&self, act: &str) -> Result<(), BrokerError> {
        caught("forget_kept", async { self.own_bulk()?.forget_kept(act).await }).await
    }
}

#[async_trait]
impl Events for GuardedBroker {
    fn node(&self) -> Option<String> {
        calm("node", || self.given.events()?.node())
    }

    fn set_listener(&self, listener: Arc<dyn BrokerListener>) {
        calm("set_listener", || {
            if let Some(events) = self.given.events() {
                events.set_listener(listener);
            }
        });
    }

    async fn broadcast_revoke(&self, ids: &[TaskId], terminate: bool) -> Result<(), BrokerError> {
        let tell = async { self.own_events()?.broadcast_revoke(ids, terminate).await };
        caught("broadcast_revoke", tell).await
    }

    async fn ask(&self, request: Request, patience: Duration) -> Result<Vec<Reply>, BrokerError> {
        caught("ask", async { self.own_events()?.ask(request, patience).await }).await
    }

    fn connection(&self) -> Option<BrokerConnection> {
        calm("connection", || self.given.events()?.connection())
    }

    fn queue_arguments(&self, queue: &str) -> Map<String, Value> {
        calm("queue_arguments", || {
            self.given.events().map(|events| events.queue_arguments(queue)).unwrap_or_default()
        })
    }

    fn has_exchanges(&self) -> bool {
        calm("has_exchanges", || self.given.events().is_some_and(|events| events.has_exchanges()))
    }

    fn binding(&self, queue: &str) -> Option<QueueBinding> {
        calm("binding", || self.given.events()?.binding(queue))
    }

    async fn bind(&self, queue: &str, binding: QueueBinding) -> Result<(), BrokerError> {
        caught("bind", async { self.own_events()?.bind(queue, binding).await }).await
    }

    fn own_queue(&self, queue: &str) -> Option<String> {
        calm("own_queue", || self.given.events()?.own_queue(queue))
    }

    async fn scheduled(&self, limit: usize) -> Vec<ScheduledTask> {
        let scheduled = async { Ok::<_, BrokerError>(self.own_events()?.scheduled(limit).await) };
        caught("scheduled", scheduled).await.unwrap_or_default()
    }
}

#[async_trait]
impl DeadLetterQueue for GuardedBroker {
    async fn bury(&self, message: Message, reason: &str) -> Result<(), BrokerError> {
        caught("bury", async { self.own_letters()?.bury(message, reason).await }).await
    }

    fn dead_from_here(&self, queue: &str) -> u64 {
        calm("dead_from_here", || {
            self.given.dead_letter_queue().map_or(0, |letters| letters.dead_from_here(queue))
        })
    }
}

#[async_trait]
impl FailedTasks for GuardedBroker {
    async fn keep_failed(&self, task: FailedTask) -> Result<(), BrokerError> {
        caught("keep_failed", async { self.own_failed()?.keep_failed(task).await }).await
    }

    async fn list_failed(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<FailedTask>, BrokerError> {
        caught("list_failed", async { self.own_failed()?.list_failed(filter, limit).await }).await
    }

    async fn page_failed(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<FailedTask>, BrokerError> {
        caught("page_failed", async { self.own_failed()?.page_failed(filter, after, limit).await }).await
    }

    async fn failed_ids(&self, filter: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        caught("failed_ids", async { self.own_failed()?.failed_ids(filter).await }).await
    }

    async fn retry_failed(&self, ids: &[TaskId], edit: Option<&TaskEdit>) -> Result<Retried, BrokerError> {
        caught("retry_failed", async { self.own_failed()?.retry_failed(ids, edit).await }).await
    }

    async fn delete_failed(&self, ids: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        caught("delete_failed", async { self.own_failed()?.delete_failed(ids).await }).await
    }

    fn dropped_failed(&self) -> u64 {
        calm("dropped_failed", || self.given.failed_tasks().map_or(0, |failed| failed.dropped_failed()))
    }
}
