//! Waits for records. One connection is subscribed to the channels of all tasks for which anybody waits.
//!
//! The store subscribes once to each such task, while anybody waits for it. A record may have been announced before a
//! subscription. So the store reads the key itself after each new subscription, and after each subscription that was
//! made anew because the connection was lost. A record may also have been announced before somebody began to wait for a task
//! that others have waited for, so the store reads the key for each who joins them, too.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::RedisResult;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::RedisInner;
use super::link::BACKOFF;
use crate::core::Backoff;
use crate::store::StoreError;
use crate::task::TaskId;

/// How often the store asks a silent connection whether it is there, as long as anybody waits.
const ASK: Duration = Duration::from_secs(5);
/// How long the answer may take before the connection counts as lost.
const ANSWER: Duration = Duration::from_secs(5);
/// The most channels that one command names, and the most keys that are read together.
const BATCH: usize = 256;

/// A caller begins or ends a wait for a record.
#[derive(Debug)]
pub(super) enum Interest {
    More(TaskId),
    Less(TaskId),
}

/// Keeps the subscription to a task for as long as this value lives.
pub(super) struct Subscription {
    interests: UnboundedSender<Interest>,
    id: TaskId,
}

impl Subscription {
    pub(super) fn new(interests: &UnboundedSender<Interest>, id: &TaskId) -> Self {
        // If nobody receives the change, the store is closed, and the waiters are told so.
        let _ = interests.send(Interest::More(id.clone()));
        Self { interests: interests.clone(), id: id.clone() }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self.interests.send(Interest::Less(self.id.clone()));
    }
}

/// The number of callers who wait, by task.
#[derive(Default)]
struct SubscribedTasks(HashMap<TaskId, usize>);

impl SubscribedTasks {
    /// Takes in a batch of changes, and returns what they come to.
    fn change(&mut self, interests: &mut Vec<Interest>) -> InterestChanges {
        // Whether anybody waited before the batch, and whether somebody begins in it.
        let mut before: HashMap<TaskId, (bool, bool)> = HashMap::new();
        for interest in interests.drain(..) {
            let (id, more) = match interest {
                Interest::More(id) => (id, true),
                Interest::Less(id) => (id, false),
            };
            let count = self.0.entry(id.clone()).or_default();
            before.entry(id).or_insert((*count > 0, false)).1 |= more;
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
        }
        let mut changed = InterestChanges::default();
        for (id, (was, begins)) in before {
            let is = self.0.get(&id).is_some_and(|count| *count > 0);
            match (was, is) {
                (false, true) => changed.new.push(id),
                (true, false) => changed.gone.push(id),
                (true, true) if begins => changed.joined.push(id),
                _ => {}
            }
        }
        self.0.retain(|_, count| *count > 0);
        changed
    }
}

/// What a batch of changes comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct InterestChanges {
    /// The tasks for which nobody waited before.
    new: Vec<TaskId>,
    /// The tasks for which one more waits.
    joined: Vec<TaskId>,
    /// The tasks for which nobody waits any more.
    gone: Vec<TaskId>,
}

/// Serves the waits until the store is dropped.
pub(super) async fn serve(core: Arc<RedisInner>, mut interests: UnboundedReceiver<Interest>) {
    let mut watched = SubscribedTasks::default();
    let mut backoff = BACKOFF;
    loop {
        // If nobody waits, the store keeps no connection either.
        while watched.0.is_empty() {
            if let ControlFlow::Break(()) = take(&mut interests, &mut watched).await {
                return;
            }
        }
        let ended = match core.link.subscriber().await {
            Ok(connection) => {
                let (sink, stream) = connection.split();
                let listening = Listening { core: &core, sink, stream };
                listening.until_lost(&mut interests, &mut watched, &mut backoff).await
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(ControlFlow::Break(())) => return,
            Ok(ControlFlow::Continue(())) => tracing::debug!("nobody waits for results in redis any more"),
            Err(error) => {
                let (address, waits) = (&core.link.address, watched.0.len());
                tracing::warn!(address, %error, waits, "waits for results go on as soon as redis is back");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// Waits for the next change while there is no connection.
async fn take(interests: &mut UnboundedReceiver<Interest>, watched: &mut SubscribedTasks) -> ControlFlow<()> {
    let mut batch = Vec::new();
    if interests.recv_many(&mut batch, BATCH).await == 0 {
        return ControlFlow::Break(());
    }
    watched.change(&mut batch);
    ControlFlow::Continue(())
}

/// A connection with subscriptions.
struct Listening<'a> {
    core: &'a Arc<RedisInner>,
    sink: PubSubSink,
    stream: PubSubStream,
}

impl Listening<'_> {
    /// Serves the waits over this connection. Returns `Break` if the store is dropped, and `Continue` if nobody waits
    /// any more.
    async fn until_lost(
        mut self,
        interests: &mut UnboundedReceiver<Interest>,
        watched: &mut SubscribedTasks,
        backoff: &mut Backoff,
    ) -> RedisResult<ControlFlow<()>> {
        let all: Vec<TaskId> = watched.0.keys().cloned().collect();
        self.subscribe(all).await?;
        backoff.reset();
        let mut batch = Vec::new();
        loop {
            let silence = tokio::time::sleep(ASK);
            tokio::select! {
                changes = interests.recv_many(&mut batch, BATCH) => {
                    if changes == 0 {
                        return Ok(ControlFlow::Break(()));
                    }
                    let InterestChanges { new, joined, gone } = watched.change(&mut batch);
                    self.unsubscribe(gone).await?;
                    self.subscribe(new).await?;
                    if !joined.is_empty() {
                        tokio::spawn(look(Arc::clone(self.core), joined));
                    }
                    // The store keeps a connection without subscriptions, because the next wait most likely comes soon.
                }
                message = self.stream.next() => match message {
                    Some(message) => {
                        if let Some(id) = self.core.keys.id_of(message.get_channel_name()) {
                            self.core.announced(&id.into(), message.get_payload_bytes());
                        }
                    }
                    None if watched.0.is_empty() => return Ok(ControlFlow::Continue(())),
                    None => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
                },
                () = silence, if !watched.0.is_empty() => answered(self.sink.ping()).await?,
            }
        }
    }

    async fn subscribe(&mut self, ids: Vec<TaskId>) -> RedisResult<()> {
        for ids in ids.chunks(BATCH) {
            let channels = self.channels(ids);
            answered(self.sink.subscribe(channels)).await?;
            // The look runs beside this loop, because the loop must go on reading announcements.
            tokio::spawn(look(Arc::clone(self.core), ids.to_vec()));
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, ids: Vec<TaskId>) -> RedisResult<()> {
        for ids in ids.chunks(BATCH) {
            let channels = self.channels(ids);
            answered(self.sink.unsubscribe(channels)).await?;
        }
        Ok(())
    }

    fn channels(&self, ids: &[TaskId]) -> Vec<String> {
        ids.iter().map(|id| self.core.keys.task(id.as_str())).collect()
    }
}

/// Waits for an answer for a limited time, because a half-open connection never answers.
pub(super) async fn answered<T>(asked: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let lost = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(lost)
}

/// Reads the records that may have been written before the subscription, or before somebody joined those who wait.
async fn look(core: Arc<RedisInner>, ids: Vec<TaskId>) {
    let core = &core;
    futures_util::stream::iter(ids)
        .for_each_concurrent(32, |id| async move {
            let mut backoff = BACKOFF;
            while core.waiters.has(&id) {
                match core.read(&id).await {
                    Ok(Some(record)) => return core.waiters.wake(&record),
                    Ok(None) => return,
                    // If Redis cannot be reached, the wait goes on.
                    Err(StoreError::Io(error)) => {
                        tracing::warn!(%id, %error, "a wait for a result goes on");
                        tokio::time::sleep(backoff.pause()).await;
                    }
                    Err(error) => return core.waiters.fail(&id, &error),
                }
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_subscribed_to_once_and_until_the_last_one_goes() {
        let (a, b) = (TaskId::from("a"), TaskId::from("b"));
        let more = |id: &TaskId| Interest::More(id.clone());
        let less = |id: &TaskId| Interest::Less(id.clone());
        let mut watched = SubscribedTasks::default();
        let mut change = |mut batch: Vec<Interest>| watched.change(&mut batch);
        let (none, only) = (InterestChanges::default, || vec![a.clone()]);
        assert_eq!(change(vec![more(&a), more(&a)]), InterestChanges { new: only(), ..none() });
        assert_eq!(change(vec![less(&a), more(&b), less(&b)]), none());
        // Its record may have been announced before this one began to wait.
        assert_eq!(change(vec![less(&a), more(&a)]), InterestChanges { joined: only(), ..none() });
        assert_eq!(change(vec![less(&a)]), InterestChanges { gone: only(), ..none() });
        assert!(watched.0.is_empty());
    }
}
