//! What a shared broker has to tell, and who is to hear it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::actors::queue::{Lost, Queue, Revoke};
use crate::actors::root::Queues;
use crate::actors::runtime::Runtime;
use crate::broker::Attendant;
use crate::task::clock::now;
use crate::task::{Message, TaskId, TaskOptions, TaskResult};

/// How long a revocation is remembered. Celery's workers forget theirs after three hours; a task that waits for its ETA
/// may come much later.
pub(super) const REVOKED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// The runtime, as its broker sees it.
pub(super) struct RuntimeAttendant {
    runtime: Arc<Runtime>,
    queues: OnceLock<Queues>,
}

impl RuntimeAttendant {
    pub(super) fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime, queues: OnceLock::new() }
    }

    /// The queues are there now.
    pub(super) fn grown(&self, queues: Queues) {
        let _ = self.queues.set(queues);
    }

    fn addresses(&self) -> Vec<actix::Addr<Queue>> {
        self.queues
            .get()
            .into_iter()
            .flat_map(|queues| queues.iter().map(|q| q.value().clone()).collect::<Vec<_>>())
            .collect()
    }
}

impl Attendant for RuntimeAttendant {
    fn options(&self, task: &str) -> Option<TaskOptions> {
        self.runtime.dispatcher.registry.get(task).map(|definition| (definition.options)())
    }

    fn over(&self, mut record: TaskResult, message: Option<&Message>) {
        let runtime = Arc::clone(&self.runtime);
        let sequel = message.and_then(|message| runtime.sequel(message, &mut record));
        let message = message.filter(|message| message.unique.is_some()).cloned();
        tokio::spawn(async move {
            if let Some(message) = message {
                runtime.window_at_end(&message).await;
            }
            runtime.put_result(record).await;
            runtime.carry_out(sequel).await;
        });
    }

    fn lost(&self, tags: Vec<u64>) {
        for queue in self.addresses() {
            queue.do_send(Lost(tags.clone()));
        }
    }

    fn revoked(&self, ids: Vec<TaskId>, terminate: bool) {
        let (store, queues) = (Arc::clone(&self.runtime.store), self.addresses());
        tokio::spawn(async move {
            for id in ids {
                // First, so that what comes from now on is seen to be revoked; then what is here already.
                if let Err(error) = store.revoke(&id, now() + REVOKED_FOR).await {
                    tracing::warn!(%id, %error, "a revocation cannot be kept; it holds for what this process has already");
                }
                for queue in &queues {
                    let _ = queue.send(Revoke { id: id.clone(), terminate }).await;
                }
            }
        });
    }
}
