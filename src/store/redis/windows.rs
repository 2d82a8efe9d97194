//! Dedupe windows: a key for each, with the id of who holds it, and one that finds it by that id. Both go by themselves.

use std::time::Duration;

use async_trait::async_trait;

use super::{Core, RedisStore};
use crate::store::{StoreError, Windows};
use crate::task::{TaskId, UniqueKey};

#[async_trait]
impl Windows for RedisStore {
    async fn hold(
        &self,
        key: &UniqueKey,
        id: &TaskId,
        window: Duration,
    ) -> Result<Option<TaskId>, StoreError> {
        let (key, id) = (key.clone(), id.clone());
        self.run(move |core| async move { core.hold(&key, &id, window).await }).await
    }

    async fn let_go(&self, key: &UniqueKey, id: &TaskId) -> Result<bool, StoreError> {
        let (key, id) = (key.clone(), id.clone());
        self.run(move |core| async move { core.let_go(Some(&key), &id).await }).await
    }

    async fn let_go_of(&self, id: &TaskId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.run(move |core| async move { core.let_go(None, &id).await }).await
    }

    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError> {
        let key = key.clone();
        self.run(move |core| async move { core.holder(&key).await }).await
    }
}

impl Core {
    async fn hold(
        &self,
        key: &UniqueKey,
        id: &TaskId,
        window: Duration,
    ) -> Result<Option<TaskId>, StoreError> {
        let (window_key, of) = (&self.keys.window(key), &self.keys.window_of(id.as_str()));
        let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 53);
        let holder: Option<String> = self
            .link
            .run(window_key, |mut connection, _| async move {
                let mut call = self.scripts.hold.prepare_invoke();
                call.key(window_key).key(of).arg(id.as_str()).arg(millis);
                call.invoke_async(&mut connection).await
            })
            .await?;
        Ok(holder.map(TaskId::from))
    }

    async fn let_go(&self, key: Option<&UniqueKey>, id: &TaskId) -> Result<bool, StoreError> {
        let (window_key, of) = (&key.map(|key| self.keys.window(key)), &self.keys.window_of(id.as_str()));
        self.link
            .run(of, |mut connection, _| async move {
                let mut call = self.scripts.let_go.prepare_invoke();
                call.key(of);
                if let Some(window_key) = window_key {
                    call.key(window_key);
                }
                call.arg(id.as_str()).invoke_async(&mut connection).await
            })
            .await
    }

    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError> {
        let key = &self.keys.window(key);
        let holder: Option<String> = self
            .link
            .run(key, |mut connection, _| async move {
                redis::cmd("GET").arg(key).query_async(&mut connection).await
            })
            .await?;
        Ok(holder.map(TaskId::from))
    }
}
