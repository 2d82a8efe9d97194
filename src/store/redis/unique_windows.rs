//! Unique windows in Redis. Each window has three keys. One holds the id of the window's holder. One finds the window
//! by this id. One exists until the holder's task is known to be published. Redis deletes all of them in time.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;

use super::{RedisInner, RedisStore};
use crate::store::{StoreError, UniqueWindowStore, WindowHold};
use crate::task::{TaskId, UniqueKey};

#[async_trait]
impl UniqueWindowStore for RedisStore {
    async fn acquire(&self, key: &UniqueKey, id: &TaskId, lease: Duration) -> Result<WindowHold, StoreError> {
        let (key, id) = (key.clone(), id.clone());
        self.run(move |core| async move { core.acquire_window(&key, &id, lease).await }).await
    }

    async fn renew(&self, key: &UniqueKey, id: &TaskId, lease: Duration) -> Result<bool, StoreError> {
        let (key, id) = (key.clone(), id.clone());
        self.run(move |core| async move { core.prolong(&key, &id, lease, false).await }).await
    }

    async fn confirm(&self, key: &UniqueKey, id: &TaskId, window: Duration) -> Result<bool, StoreError> {
        let (key, id) = (key.clone(), id.clone());
        self.run(move |core| async move { core.prolong(&key, &id, window, true).await }).await
    }

    async fn release(&self, key: &UniqueKey, id: &TaskId) -> Result<bool, StoreError> {
        let (key, id) = (key.clone(), id.clone());
        self.run(move |core| async move { core.release_window(Some(&key), &id).await }).await
    }

    async fn release_of(&self, id: &TaskId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.run(move |core| async move { core.release_window(None, &id).await }).await
    }

    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError> {
        let key = key.clone();
        self.run(move |core| async move { core.holder(&key).await }).await
    }

    fn carry_out(&self, work: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.runtime.spawn(work);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 53)
}

impl RedisInner {
    /// The keys of a window: the window, the window of its holder, and the mark that the holder is not yet known to be
    /// published.
    fn window_keys(&self, key: &UniqueKey, id: &TaskId) -> [String; 3] {
        [self.keys.window(key), self.keys.window_of(id.as_str()), self.keys.window_publishing(key)]
    }

    async fn acquire_window(
        &self,
        key: &UniqueKey,
        id: &TaskId,
        lease: Duration,
    ) -> Result<WindowHold, StoreError> {
        let keys = &self.window_keys(key, id);
        let (holder, is_publishing): (Option<String>, bool) = self
            .link
            .run(&keys[0], |mut connection, _| async move {
                let mut call = self.scripts.acquire_window.prepare_invoke();
                call.key(keys).arg(id.as_str()).arg(millis(lease));
                call.invoke_async(&mut connection).await
            })
            .await?;
        Ok(match holder {
            None => WindowHold::Begun,
            Some(holder) if holder == id.as_str() => WindowHold::Confirmed,
            Some(holder) if is_publishing => WindowHold::Publishing(holder.into()),
            Some(holder) => WindowHold::Taken(holder.into()),
        })
    }

    /// Prolongs a window for this time from now. `is_published` says that its task is known to be published.
    async fn prolong(
        &self,
        key: &UniqueKey,
        id: &TaskId,
        time: Duration,
        is_published: bool,
    ) -> Result<bool, StoreError> {
        let keys = &self.window_keys(key, id);
        self.link
            .run(&keys[0], |mut connection, _| async move {
                let mut call = self.scripts.prolong.prepare_invoke();
                call.key(keys).arg(id.as_str()).arg(millis(time)).arg(u8::from(is_published));
                call.invoke_async(&mut connection).await
            })
            .await
    }

    async fn release_window(&self, key: Option<&UniqueKey>, id: &TaskId) -> Result<bool, StoreError> {
        // The name of a window that an older build began may be the name of other windows too. The holder's id is not
        // shared.
        let windows = &key.map(|key| [self.keys.window(key), self.keys.window_before(key)]);
        let of = &self.keys.window_of(id.as_str());
        self.link
            .run(of, |mut connection, _| async move {
                let mut call = self.scripts.release_window.prepare_invoke();
                call.key(of);
                for window in windows.iter().flatten() {
                    call.key(window);
                }
                call.arg(id.as_str()).invoke_async(&mut connection).await
            })
            .await
    }

    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError> {
        let (window, publishing) = (&self.keys.window(key), &self.keys.window_publishing(key));
        let (holder, publishing): (Option<String>, Option<String>) = self
            .link
            .run(window, |mut connection, _| async move {
                redis::cmd("MGET").arg(window).arg(publishing).query_async(&mut connection).await
            })
            .await?;
        Ok(holder.filter(|_| publishing.is_none()).map(TaskId::from))
    }
}
