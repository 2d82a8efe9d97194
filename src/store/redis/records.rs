//! Reads and writes result documents of tasks that are over and of tasks that are not.

use std::time::Duration;

use super::RedisInner;
use crate::core::Timestamp;
use crate::protocol::result::{Detail, Meta, MetaError, decode, encode, encode_tracked};
use crate::store::{StoreError, TrackedState};
use crate::task::clock::now;
use crate::task::{TaskId, TaskResult};

/// The expiry of an old document without a stated one, when a new document wants to replace it: the old one never gives
/// way.
const NEVER: Timestamp = Timestamp::from_micros(u64::MAX);

/// The outcome of an attempt to replace a document.
enum Replaced {
    /// The new document is written and announced.
    Yes,
    /// The old document stays.
    No,
}

impl RedisInner {
    /// Returns the record of a task that is over. An unreadable document of an unfinished task counts as no record yet.
    pub(super) async fn read(&self, id: &TaskId) -> Result<Option<TaskResult>, StoreError> {
        match self.held(id).await? {
            Some(Ok(Meta::Over(record))) => Ok(Some(*record)),
            Some(Err(error)) if error.is_over != Some(false) => Err(self.unreadable(id, &error)),
            _ => Ok(None),
        }
    }

    /// Returns the content of a task's document.
    pub(super) async fn meta(&self, id: &TaskId) -> Result<Option<Meta>, StoreError> {
        self.held(id).await?.transpose().map_err(|error| self.unreadable(id, &error))
    }

    async fn held(&self, id: &TaskId) -> Result<Option<Result<Meta, MetaError>>, StoreError> {
        let key = &self.keys.task(id.as_str());
        let held: Option<Vec<u8>> = self
            .link
            .run(key, |mut connection, _| async move {
                redis::cmd("GET").arg(key).query_async(&mut connection).await
            })
            .await?;
        Ok(held.map(|document| decode(id, &document, self.by_redis())))
    }

    /// The expiry of a document that does not state one. Python's documents do not. Redis deletes such a document in
    /// time, so a document that is there has not expired.
    fn by_redis(&self) -> Timestamp {
        now() + self.options.result_expires.max(Duration::from_secs(1))
    }

    fn unreadable(&self, id: &TaskId, error: &MetaError) -> StoreError {
        let key = self.keys.task(id.as_str());
        StoreError::Refused(format!(
            "{error}; it is in redis at {} under `{key}`: look at it, and delete it if it is nobody's",
            self.link.address
        ))
    }

    /// Takes in a document that somebody has announced. If it says that the task is over and cannot be read otherwise,
    /// the callers who wait get an error, because no other document comes. Nonsense ends no wait.
    pub(super) fn announced(&self, id: &TaskId, document: &[u8]) {
        match decode(id, document, self.by_redis()) {
            Ok(Meta::Over(record)) => self.waiters.wake(&record),
            Ok(Meta::Tracked(_)) => {}
            Err(error) => {
                tracing::warn!(%id, %error, "an announcement of a result is not understood");
                if error.is_over == Some(true) {
                    self.waiters.fail(id, &self.unreadable(id, &error));
                }
            }
        }
    }

    /// Keeps a record unless there is one. It replaces the state of an unfinished task.
    pub(super) async fn put(&self, record: TaskResult) -> Result<bool, StoreError> {
        let lifetime = record.expires_at.since(record.finished_at);
        let document = encode(&record, Detail::Full);
        let gives_way = |held: &Meta| match held {
            Meta::Over(held) => {
                held.expires_at <= record.finished_at || (held.is_mark() && !record.is_mark())
            }
            Meta::Tracked(_) => true,
        };
        let replaced = self.replace(&record.id, document, lifetime, gives_way).await?;
        let kept = matches!(replaced, Replaced::Yes);
        if kept {
            self.waiters.wake(&record);
        }
        Ok(kept)
    }

    /// Keeps the state of a task, unless the task is over.
    pub(super) async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        let gives_way = |held: &Meta| match held {
            Meta::Over(held) => held.expires_at <= now() || held.is_mark(),
            Meta::Tracked(_) => true,
        };
        self.replace(&state.id, encode_tracked(&state), self.options.result_expires, gives_way).await?;
        Ok(())
    }

    /// Writes a document in place of an old one that gives way to it. Nobody else can write between the look and the
    /// write. If the write finds another document than expected, this function decides anew.
    async fn replace(
        &self,
        id: &TaskId,
        document: String,
        lifetime: Duration,
        gives_way: impl Fn(&Meta) -> bool,
    ) -> Result<Replaced, StoreError> {
        let key = &self.keys.task(id.as_str());
        if document.len() > self.options.max_document_size {
            return Err(StoreError::Refused(format!(
                "the result document of task {id} takes {} bytes, the limit is {}: store the object, and return its id",
                document.len(),
                self.options.max_document_size
            )));
        }
        let (seconds, document) = (whole_seconds(lifetime), document.as_bytes());
        // Most of the time there is no document. This function assumes so first, and then one exchange is enough.
        let mut believed: Option<Vec<u8>> = None;
        loop {
            let expected = &believed;
            let (written, held): (bool, Option<Vec<u8>>) = self
                .link
                .run(key, |mut connection, again| async move {
                    let mut call = self.scripts.replace.prepare_invoke();
                    call.key(key).arg(document).arg(seconds);
                    if let Some(expected) = expected {
                        call.arg(expected);
                    }
                    let (written, held): (bool, Option<Vec<u8>>) = call.invoke_async(&mut connection).await?;
                    // The document was written, and then the answer was lost.
                    let by_us = again && held.as_deref() == Some(document);
                    Ok((written || by_us, held))
                })
                .await?;
            if written {
                return Ok(Replaced::Yes);
            }
            match held.as_deref().map(|held| decode(id, held, NEVER)) {
                Some(Ok(held)) if !gives_way(&held) => return Ok(Replaced::No),
                // The document of an unfinished task has nothing that its end could take away.
                Some(Err(error)) if error.is_over != Some(false) => return Err(self.unreadable(id, &error)),
                _ => {}
            }
            believed = held;
        }
    }

    /// Deletes a document. Returns whether there was one.
    pub(super) async fn delete(&self, key: String) -> Result<bool, StoreError> {
        let key = &key;
        self.link
            .run(key, |mut connection, _| async move {
                redis::cmd("DEL").arg(key).query_async(&mut connection).await
            })
            .await
    }
}

/// A lifetime in seconds, because Redis counts in seconds. It is at least one, because Redis refuses zero.
pub(super) fn whole_seconds(lifetime: Duration) -> u64 {
    // Redis adds the lifetime to the time in milliseconds, and refuses a sum that does not fit. A thousand years fit.
    const LONGEST: u64 = 1000 * 365 * 24 * 3600;
    lifetime.as_secs().saturating_add(u64::from(lifetime.subsec_nanos() > 0)).clamp(1, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_one_that_redis_takes() {
        for (lifetime, seconds) in [
            (Duration::ZERO, 1),
            (Duration::from_millis(1), 1),
            (Duration::from_millis(1_001), 2),
            (Duration::MAX, 31_536_000_000),
            (Duration::from_secs(u64::MAX), 31_536_000_000),
        ] {
            assert_eq!(whole_seconds(lifetime), seconds, "{lifetime:?}");
        }
    }
}
