//! The access for code that keeps something of its own in the same database: running its scripts, and the places of its
//! keys.

use std::sync::Arc;

use redis::{Script, ScriptInvocation};

use super::{RedisInner, RedisOptions, RedisStore};
use crate::store::StoreError;

impl RedisStore {
    /// The options with which the store was opened.
    pub(crate) fn options(&self) -> &RedisOptions {
        &self.core.options
    }

    /// The beginning of the keys of the lanes.
    pub(crate) fn lanes_prefix(&self) -> String {
        self.core.keys.lanes()
    }

    /// The value of a setting of Redis, or `None` if Redis does not tell it.
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

    /// Has Redis run a script that may run twice. The store tries for as long as its patience lasts. `fill` gives the
    /// script its keys and arguments. Its second argument says whether Redis was asked before, in which case the writes
    /// of that call may be there. `key` is the key that errors name.
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
