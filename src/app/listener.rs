//! What a shared broker tells the runtime: revocations, lost lanes, and tasks that ended without a delivery. The
//! broker calls [`RuntimeListener`] from its own threads.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use tokio::runtime::Handle;

use super::control::{self, mark_revoked};
use super::handle::CeleriacInner;
use crate::actors::queues::Queues;
use crate::broker::{Activity, BrokerListener, ControlRequest, FollowUps};
use crate::runtime::Runtime;
use crate::store::StoreError;
use crate::task::clock::now;
use crate::task::{EventGroup, EventStream, Message, TaskId, TaskOptions, TaskResult};

/// How long a revocation is remembered. Celery's workers forget theirs after three hours, but a task that waits for
/// its ETA may come much later.
pub(super) const REVOKED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many ids of one revocation are stored and told to the queues at a time.
const AT_A_TIME: usize = 64;
/// How long a queue may take to answer a revocation: whoever revokes by remote control waits for about a second.
const PATIENCE: Duration = Duration::from_millis(250);

/// The runtime as its broker sees it. Until the tree is there, it has no queues.
pub(super) struct RuntimeListener {
    runtime: Arc<Runtime>,
    queues: OnceLock<Queues>,
    /// Where the ends of tasks are stored that a broker tells of on a thread without a runtime of its own.
    handle: Handle,
    attended: OnceLock<Weak<CeleriacInner>>,
}

impl RuntimeListener {
    /// # Panics
    /// The thread is in no tokio runtime.
    pub(super) fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime, queues: OnceLock::new(), handle: Handle::current(), attended: OnceLock::new() }
    }

    /// The tree is there: these are its queues.
    pub(super) fn grown(&self, queues: Queues) {
        let _ = self.queues.set(queues);
    }

    /// From now on this runtime answers commands of remote control.
    pub(super) fn attend(&self, celeriac: Weak<CeleriacInner>) {
        let _ = self.attended.set(celeriac);
    }

    fn attended(&self) -> Option<Arc<CeleriacInner>> {
        self.attended.get()?.upgrade()
    }

    /// The queues; none as long as the tree is not there.
    fn queues(&self) -> Queues {
        self.queues.get().cloned().unwrap_or_default()
    }
}

impl BrokerListener for RuntimeListener {
    fn options(&self, task: &str) -> Option<TaskOptions> {
        self.runtime.dispatcher.registry.options(task)
    }

    fn plan_follow_ups(&self, message: &Message, record: &mut TaskResult) -> Option<Box<FollowUps>> {
        self.runtime.follow_ups(message, record)
    }

    fn over(&self, record: TaskResult, message: Option<&Message>) {
        let handle = Handle::try_current().unwrap_or_else(|_| self.handle.clone());
        handle.spawn(self.end(record, message));
    }

    fn end(&self, record: TaskResult, message: Option<&Message>) -> BoxFuture<'static, ()> {
        let (runtime, message) = (Arc::clone(&self.runtime), message.cloned());
        Box::pin(async move { runtime.over(message.as_ref(), record).await })
    }

    fn events(&self, groups: &[EventGroup]) -> EventStream {
        self.runtime.events.listen(groups)
    }

    fn activity(&self) -> Activity {
        self.runtime.activity.read()
    }

    fn parked(&self, message: &Arc<Message>) -> bool {
        self.runtime.events.is_heard(EventGroup::Run) && self.runtime.announce(message)
    }

    fn lost(&self, tags: Vec<u64>) {
        self.queues().lost(&tags);
    }

    fn revoked(
        &self,
        ids: Vec<TaskId>,
        terminate: bool,
    ) -> BoxFuture<'static, Result<Vec<TaskId>, StoreError>> {
        let (store, queues) = (Arc::clone(&self.runtime.store), self.queues());
        if let Some(celeriac) = self.attended() {
            celeriac.control.revocations.add(ids.iter().map(TaskId::as_str));
        }
        Box::pin(async move {
            let (store, queues) = (&store, &queues);
            let mut told = stream::iter(ids)
                .map(|id| async move {
                    // The store is told first, so that deliveries from now on are seen to be revoked; then the
                    // queues revoke what they have.
                    let stored = store.revoke(&id, now() + REVOKED_FOR).await;
                    if let Err(error) = &stored {
                        tracing::warn!(%id, %error, "a revocation cannot be kept; it holds for what this process has already");
                    }
                    let copies = queues.revoke_copies(&id, terminate, PATIENCE).await;
                    if stored.is_ok()
                        && !copies.may_run
                        && let Err(error) = mark_revoked(&**store, &id).await
                    {
                        tracing::warn!(%id, %error, "the result store does not say that a task is revoked");
                    }
                    (id, copies.here, stored)
                })
                .buffered(AT_A_TIME);
            let (mut all, mut result) = (Vec::new(), Ok(()));
            while let Some((id, here, stored)) = told.next().await {
                all.extend(here.then_some(id));
                result = result.and(stored);
            }
            result.map(|()| all)
        })
    }

    fn control(&self, request: ControlRequest) -> BoxFuture<'static, Option<Value>> {
        let celeriac = self.attended();
        Box::pin(async move { control::answer(&celeriac?, request).await })
    }
}
