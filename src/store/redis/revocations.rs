//! Revocations in Redis. Each has a key of its own, which ends with it. A sorted set has the ids of all of them, and each
//! new one is announced on a channel.
//!
//! A process that starts tasks subscribes to that channel, then reads the sorted set. From then on it knows of each
//! revocation without asking ([`KnownRevocations`]). Every second it sends a question through the subscription, and the
//! answer confirms that everything before was delivered. When the connection is lost, or when the answer does not come,
//! the knowledge ends and the store is asked again until there is a new subscription.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use parking_lot::{Mutex, MutexGuard};
use redis::{Msg, RedisError, RedisResult};
use tokio::time::MissedTickBehavior;

use super::RedisInner;
use super::link::BACKOFF;
use super::records::whole_seconds;
use super::watch::answered;
use crate::core::known_revocations::{KnownRevocations, MOST};
use crate::core::{Backoff, Timestamp};
use crate::store::StoreError;
use crate::task::TaskId;
use crate::task::clock::{now, steady};

/// How often the subscription is asked whether it still delivers.
const ASK: Duration = Duration::from_secs(1);

/// What this process has heard of revocations.
#[derive(Default)]
pub(super) struct RevocationFeed {
    known: Mutex<KnownRevocations>,
    has_begun: AtomicBool,
}

impl RevocationFeed {
    /// Whether the subscription is wanted for the first time. The caller then begins it.
    pub(super) fn begins(&self) -> bool {
        !self.has_begun.load(Ordering::Relaxed) && !self.has_begun.swap(true, Ordering::Relaxed)
    }

    /// Whether a task is revoked, if that is known here.
    pub(super) fn is_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        self.known().is_revoked(id.as_str(), || id.made_at(), now, steady())
    }

    fn known(&self) -> MutexGuard<'_, KnownRevocations> {
        self.known.lock()
    }
}

/// Follows the announcements for as long as the store's thread lives.
pub(super) async fn follow(core: Arc<RedisInner>) {
    let mut backoff = BACKOFF;
    loop {
        let Err(error) = core.listen(&mut backoff).await;
        core.revocations.known().end();
        let address = &core.link.address;
        // Only the first failure is told: the attempts after it fail for the same reason.
        if backoff.peek() == BACKOFF.peek() {
            tracing::warn!(address, %error, "revocations are not heard; the store is asked about each task until they are");
        } else {
            tracing::debug!(address, %error, "revocations are still not heard");
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

impl RedisInner {
    /// Keeps a revocation, and announces it.
    pub(super) async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        let key = self.keys.revoked(id.as_str());
        let seconds = whole_seconds(until.since(now()));
        let mut script = self.scripts.revoke.key(&key);
        script.key(self.keys.revocations()).arg(seconds).arg(until.as_micros());
        script.arg(id.as_str()).arg(self.channel());
        let script = &script;
        self.link
            .run(&key, |mut connection, _| async move { script.invoke_async::<()>(&mut connection).await })
            .await?;
        // This process need not wait for its own announcement.
        self.revocations.known().hear(id.as_str(), until, now());
        Ok(())
    }

    /// Finds the revoked ones of these tasks. Mostly no task is revoked at all, and then one small question is enough
    /// for any number of tasks.
    pub(super) async fn revoked(&self, ids: Vec<TaskId>, at: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let all = &self.keys.revocations();
        let is_any: bool = self
            .link
            .run(all, |mut connection, _| async move {
                redis::cmd("EXISTS").arg(all).query_async(&mut connection).await
            })
            .await?;
        if !is_any {
            return Ok(Vec::new());
        }
        let keys: &Vec<String> = &ids.iter().map(|id| self.keys.revoked(id.as_str())).collect();
        let until: Vec<Option<u64>> = self
            .link
            .run(all, |mut connection, _| async move {
                redis::cmd("MGET").arg(keys).query_async(&mut connection).await
            })
            .await?;
        let revoked = |until: Option<u64>| until.is_some_and(|until| until > at.as_micros());
        Ok(ids.into_iter().zip(until).filter_map(|(id, until)| revoked(until).then_some(id)).collect())
    }

    fn channel(&self) -> String {
        self.keys.revocation_channel(self.link.database)
    }

    /// Subscribes, and takes in announcements until the subscription is lost.
    async fn listen(&self, backoff: &mut Backoff) -> Result<Infallible, StoreError> {
        let broken = |error: RedisError| self.link.explain("", &error);
        let (mut sink, mut stream) = self.link.subscriber().await.map_err(broken)?.split();
        answered(sink.subscribe(self.channel())).await.map_err(broken)?;
        // What is announced from here on waits in the stream until the ids from before were read.
        let (since, asked_at) = (now(), steady());
        let earlier = self.all_revoked().await?;
        self.revocations.known().begin(earlier, since, asked_at);
        backoff.reset();
        tracing::debug!(address = &self.link.address, "revocations are heard");
        let mut ask = tokio::time::interval(ASK);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = stream.next() => self.hear(message).map_err(broken)?,
                _ = ask.tick() => {
                    let asked_at = (now(), steady());
                    answered(sink.ping::<()>()).await.map_err(broken)?;
                    // The answer has come after all that was announced before the question.
                    for message in arrived(&mut stream) {
                        self.hear(message).map_err(broken)?;
                    }
                    self.revocations.known().confirm(asked_at.0, asked_at.1);
                }
            }
        }
    }

    /// All revoked tasks, with the ends of their revocations; `None`: there are too many to know them all.
    async fn all_revoked(&self) -> Result<Option<Vec<(String, Timestamp)>>, StoreError> {
        let all = &self.keys.revocations();
        let revoked: Vec<(String, f64)> = self
            .link
            .run(all, |mut connection, _| async move {
                let mut read = redis::cmd("ZRANGE");
                read.arg(all).arg(0).arg(MOST).arg("WITHSCORES");
                read.query_async(&mut connection).await
            })
            .await?;
        let until = |seconds: f64| Timestamp::ZERO + crate::core::time::seconds(seconds).unwrap_or_default();
        let revoked: Vec<_> = revoked.into_iter().map(|(id, seconds)| (id, until(seconds))).collect();
        // The last place asks for one more than are kept.
        Ok((revoked.len() <= MOST).then_some(revoked))
    }

    /// Takes in an announcement; `None`: the connection is lost.
    fn hear(&self, message: Option<Msg>) -> RedisResult<()> {
        let Some(message) = message else {
            return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
        };
        match revocation(message.get_payload_bytes()) {
            Some((id, until)) => self.revocations.known().hear(id, until, now()),
            None => tracing::warn!("an announcement of a revocation is not understood"),
        }
        Ok(())
    }
}

/// Everything that a stream has at once, and `None` again and again if it has ended. tokio tells a task that has taken many
/// items in one go that there are no more for now. That must not be believed here, so its budget is left out of account.
fn arrived<S: Stream + Unpin>(stream: &mut S) -> impl Iterator<Item = Option<S::Item>> {
    std::iter::from_fn(|| tokio::task::coop::unconstrained(stream.next()).now_or_never())
}

/// Reads an announcement: the end of the revocation in microseconds since 1970, a space, and the id of the task.
fn revocation(payload: &[u8]) -> Option<(&str, Timestamp)> {
    let (until, id) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some((id, Timestamp::from_micros(until.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_has_the_end_and_the_id() {
        let until = Timestamp::from_micros(1_796_040_000_000_000);
        assert_eq!(revocation(b"1796040000000000 a b"), Some(("a b", until)));
        for nonsense in [&b""[..], b"a", b"x y", b"-1 a", b"\xff 1"] {
            assert_eq!(revocation(nonsense), None);
        }
    }

    #[tokio::test]
    async fn all_announcements_that_are_there_are_taken_however_many_they_are() {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for n in 0..5000 {
            sender.send(n).unwrap();
        }
        let mut stream = futures_util::stream::poll_fn(|cx| receiver.poll_recv(cx));
        assert_eq!(arrived(&mut stream).count(), 5000);
        drop(sender);
        assert_eq!(arrived(&mut stream).next(), Some(None), "it has ended");
    }

    #[test]
    fn the_subscription_begins_once() {
        let feed = RevocationFeed::default();
        assert!(feed.begins() && !feed.begins());
        assert_eq!(feed.is_revoked(&"a".into(), now()), None);
    }
}
