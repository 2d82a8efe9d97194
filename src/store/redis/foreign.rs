//! What those who keep something of their own in the same database need of it: scripts, and where their keys are.

use std::sync::Arc;

use redis::{Script, ScriptInvocation};

use super::{RedisInner, RedisOptions, RedisStore};
use crate::store::StoreError;

impl RedisStore {
    /// What it was opened with.
    pub(crate) fn options(&self) -> &RedisOptions {
        &self.core.options
    }

    /// What the keys of the lanes begin with.
    pub(crate) fn lanes_prefix(&self) -> String {
        self.core.keys.lanes()
    }

    /// What Redis is set to, if it says so.
    pub(crate) async fn setting(&self, name: &'static str) -> Option<String> {
        let asked = self.run(move |core| async move {
            core.link
                .run(name, |mut connection, _| async move {
                    let mut command = redis::cmd("CONFIG");
                    command.arg("GET").arg(name);
                    command.query_async::<Vec<String>>(&mut connection).await
                })
                .await
        });
        asked.await.ok().and_then(|pair| pair.into_iter().nth(1))
    }

    /// Has Redis run a script that may run twice, tried for as long as the store's patience lasts. `fill` gives it its keys and
    /// arguments, and is told whether Redis was asked before, when what it wrote then may be there. `key` is what errors name.
    pub(crate) async fn call_script<T, F>(
        &self,
        key: String,
        script: Arc<Script>,
        fill: F,
    ) -> Result<T, StoreError>
    where
        T: redis::FromRedisValue + Send + 'static,
        F: Fn(&mut ScriptInvocation<'_>, bool) + Send + Sync + 'static,
    {
        let work = move |core: Arc<RedisInner>| async move {
            let (script, fill) = (&script, &fill);
            core.link
                .run(&key, |mut connection, was_asked| async move {
                    let mut call = script.prepare_invoke();
                    fill(&mut call, was_asked);
                    call.invoke_async(&mut connection).await
                })
                .await
        };
        self.run(work).await
    }
}
