//! The start of a program whose directory another process still has, as in a rolling deploy: the embedded store has one
//! owner at a time. The new process waits for the end of the old one, and its calls wait with it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::builder::Builder;
use crate::broker::BrokerError;
use crate::core::time::deadline;
use crate::task::canvas::Promise;
use crate::task::{
    self, Client, EnqueueError, GetError, Message, NewTask, RawSignature, Receipt, State, TaskId, TaskResult,
    TrackedState,
};

/// How often the start looks whether the directory is free.
const LOOK: Duration = Duration::from_millis(50);

impl Builder {
    /// Has [`start`](Self::start) wait this long for the directory of the embedded store, and for that of an
    /// [outbox](crate::broker::OutboxBroker), if another process has it: the old one of a rolling deploy, which still
    /// ends its tasks. Without this, the start fails at once. The start goes on within a twentieth of a second after the
    /// end of the other process.
    ///
    /// Calls of this process wait too: from the beginning of the start until it is over, `delay` waits instead of failing
    /// with [`NotRunning`](crate::EnqueueError::NotRunning). So a program may serve requests before its start is over,
    /// and refuses none of them. If the start fails, they fail.
    ///
    /// ```no_run
    /// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
    /// use celeriac::Celeriac;
    /// use std::time::Duration;
    /// let builder = Celeriac::builder().directory("data").wait_for_directory(Duration::from_secs(60));
    /// let celeriac = builder.start().await?;
    /// # celeriac.shutdown().await?;
    /// # Ok(()) }
    /// ```
    pub fn wait_for_directory(mut self, at_most: Duration) -> Self {
        self.patience = at_most;
        self
    }
}

/// Opens what has one owner as soon as nobody else has it, or fails after `patience`. `open` changes nothing if another
/// process is the owner.
///
/// # Errors
/// What `open` fails with; another owner only after `patience`.
pub(super) async fn when_free<T, F>(patience: Duration, mut open: impl FnMut() -> F) -> Result<T, BrokerError>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    let until = deadline(Instant::now(), patience);
    let mut told = false;
    loop {
        match open().await {
            Err(BrokerError::InUse { path, owner }) if Instant::now() < until => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(target: "celeriac", directory = %path.display(), owner, ?patience, "another process has the directory; waiting for its end");
                }
                tokio::time::sleep(LOOK).await;
            }
            opened => return opened,
        }
    }
}

/// The calls that wait for the start of the runtime. Dropped without an [answer](Self::answer), it fails them.
pub(super) struct WaitingCalls {
    started: watch::Sender<Option<Arc<dyn Client>>>,
    client: Arc<dyn Client>,
}

impl WaitingCalls {
    /// Has `delay` wait from now on.
    pub(super) fn open() -> Self {
        let (started, is_started) = watch::channel(None);
        let client: Arc<dyn Client> = Arc::new(WaitingClient { started: is_started });
        task::install(Arc::clone(&client));
        Self { started, client }
    }

    /// Passes all waiting calls on to the runtime, which `delay` finds by itself by now.
    pub(super) fn answer(self, runtime: Arc<dyn Client>) {
        self.started.send_replace(Some(runtime));
    }
}

impl Drop for WaitingCalls {
    fn drop(&mut self) {
        task::uninstall(&self.client);
    }
}

/// The client of a runtime that is about to start. Results of calls that waited go on by it.
struct WaitingClient {
    started: watch::Receiver<Option<Arc<dyn Client>>>,
}

impl WaitingClient {
    /// The runtime, when it has started. `None`: it did not start.
    async fn runtime(&self) -> Option<Arc<dyn Client>> {
        let mut started = self.started.clone();
        started.wait_for(Option::is_some).await.ok()?.clone()
    }

    async fn to_enqueue(&self) -> Result<Arc<dyn Client>, EnqueueError> {
        self.runtime().await.ok_or(EnqueueError::NotRunning)
    }

    async fn to_ask(&self) -> Result<Arc<dyn Client>, GetError> {
        let failed = || GetError::Store("the runtime that was to answer did not start".to_owned());
        self.runtime().await.ok_or_else(failed)
    }
}

#[async_trait]
impl Client for WaitingClient {
    async fn enqueue(&self, call: Box<NewTask>) -> Result<Receipt, EnqueueError> {
        self.to_enqueue().await?.enqueue(call).await
    }

    async fn enqueue_many(&self, calls: Vec<NewTask>) -> Result<Vec<Receipt>, EnqueueError> {
        self.to_enqueue().await?.enqueue_many(calls).await
    }

    async fn launch(&self, canvas: RawSignature) -> Result<Promise, EnqueueError> {
        self.to_enqueue().await?.launch(canvas).await
    }

    async fn add_to_chord(
        &self,
        member: &Message,
        canvas: RawSignature,
        nth: u32,
    ) -> Result<Promise, EnqueueError> {
        self.to_enqueue().await?.add_to_chord(member, canvas, nth).await
    }

    async fn state(&self, id: &TaskId) -> Result<State, GetError> {
        self.to_ask().await?.state(id).await
    }

    async fn result(&self, id: &TaskId) -> Result<Option<TaskResult>, GetError> {
        self.to_ask().await?.result(id).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, GetError> {
        self.to_ask().await?.tracked(id).await
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        self.to_ask().await?.wait(id).await
    }

    async fn expect(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        self.to_ask().await?.expect(id).await
    }

    async fn revoke(&self, id: &TaskId, terminate: bool) -> Result<bool, GetError> {
        self.to_ask().await?.revoke(id, terminate).await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, GetError> {
        self.to_ask().await?.forget(id).await
    }

    async fn save_group(&self, group: &Promise, lifetime: Option<Duration>) -> Result<(), GetError> {
        self.to_ask().await?.save_group(group, lifetime).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::task::{Durability, TaskOptions};

    /// A directory that somebody else has for so many looks.
    async fn opened(patience: Duration, looks: u32) -> (Result<(), BrokerError>, u32) {
        let count = AtomicU32::new(0);
        let opened = when_free(patience, || async {
            match count.fetch_add(1, Ordering::Relaxed) < looks {
                true => Err(BrokerError::InUse { path: "data".into(), owner: "4711".into() }),
                false => Ok(()),
            }
        });
        (opened.await, count.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_is_waited_for_as_long_as_is_said() {
        let minute = Duration::from_secs(60);
        assert_eq!(opened(minute, 7).await, (Ok(()), 8));
        let (refused, looks) = opened(Duration::ZERO, 1).await;
        assert!(matches!(refused, Err(BrokerError::InUse { .. })) && looks == 1);
        let begun = Instant::now();
        let (refused, _) = opened(minute, u32::MAX).await;
        assert!(matches!(refused, Err(BrokerError::InUse { .. })));
        assert!(begun.elapsed() >= minute && begun.elapsed() < minute + 2 * LOOK);
        // Any other error is no reason to wait.
        let damaged = when_free(minute, || async { Err::<(), _>(BrokerError::io("damaged")) });
        assert_eq!(damaged.await, Err(BrokerError::io("damaged")));
    }

    /// A runtime that takes everything.
    struct Takes;

    #[async_trait]
    impl Client for Takes {
        async fn enqueue(&self, call: Box<NewTask>) -> Result<Receipt, EnqueueError> {
            Ok(Receipt::new("given".into(), call.task, Durability::Disk))
        }

        async fn state(&self, _: &TaskId) -> Result<State, GetError> {
            Ok(State::Success)
        }

        async fn result(&self, _: &TaskId) -> Result<Option<TaskResult>, GetError> {
            Ok(None)
        }

        async fn wait(&self, id: &TaskId) -> Result<TaskResult, GetError> {
            Err(GetError::Unknown(id.clone()))
        }

        async fn revoke(&self, _: &TaskId, terminate: bool) -> Result<bool, GetError> {
            Ok(terminate)
        }

        async fn forget(&self, _: &TaskId) -> Result<bool, GetError> {
            Ok(true)
        }
    }

    #[tokio::test]
    async fn calls_wait_for_the_runtime_and_fail_if_it_does_not_start() {
        let call = || Box::new(NewTask::new("t", TaskOptions::default()));
        let (started, is_started) = watch::channel(None);
        let client = WaitingClient { started: is_started };
        let (receipt, _) = tokio::join!(client.enqueue(call()), async {
            started.send_replace(Some(Arc::new(Takes) as Arc<dyn Client>));
        });
        assert_eq!(receipt.unwrap().queue, "t");
        // What has waited once waits no more, also when the start is long over.
        drop(started);
        assert_eq!(client.state(&"t".into()).await, Ok(State::Success));
        assert_eq!(client.revoke(&"t".into(), true).await, Ok(true));

        let (started, is_started) = watch::channel(None);
        let client = WaitingClient { started: is_started };
        let (refused, ()) = tokio::join!(client.enqueue(call()), async { drop(started) });
        assert_eq!(refused, Err(EnqueueError::NotRunning));
        let error = client.state(&"t".into()).await.unwrap_err().to_string();
        assert!(error.contains("did not start"), "{error}");
    }
}
