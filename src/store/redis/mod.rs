//! Results in Redis, in Celery's own documents and keys, so that both sides of a mixed fleet read each other's.
//!
//! Everything happens on one thread of the store's own, so that it may be called from any thread and any runtime, and
//! outlives each of them. Three things are ours: finished is final also for FAILURE and REVOKED, a document carries the
//! rest of our record under the key `celeriac`, and revocations have keys of their own.

mod chords;
mod keys;
pub(crate) mod lanes;
mod link;
mod notes;
mod permits;
mod records;
mod scripts;
mod watch;
mod windows;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{
    ChordJoin, ChordPart, Claim, GroupResult, Notes, Store, StoreError, TrackedState, Waiters, Windows,
};
use crate::core::Timestamp;
use crate::protocol::result::Meta;
use crate::task::{PermitKeeper, TaskId, TaskResult};
use keys::Keys;
use link::Link;
use permits::HeldHere;
use scripts::Scripts;
use watch::{Interest, Watch};

/// How a [`RedisStore`] behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisOptions {
    /// In front of every key and channel, as Celery's `global_keyprefix` in `result_backend_transport_options`: a `_` follows
    /// it unless it ends in one of `: _ - .`. Default none.
    pub global_keyprefix: Option<String>,
    /// How long states of tasks that are not over, groups and chords are kept; records say it themselves. Celery's
    /// `result_expires`. Default one day.
    pub result_expires: Duration,
    /// How long a call tries again while Redis cannot be reached, restarts, or loads its data. Default 10 s. Waits for
    /// results go on however long that takes.
    pub patience: Duration,
    /// How long whoever is to send the body of a chord has for it; when it is over, the next one who joins does. Default
    /// 10 s.
    pub chord_lease: Duration,
    /// How long a process that runs serial tasks is taken for alive without a word from it: so long others wait with its
    /// lanes when it has died on another machine. Default 10 s.
    pub lane_lease: Duration,
    /// Whether processes of one machine see that another one there is dead, and do not wait for its lease (on Linux). Default
    /// yes.
    pub lane_neighbours: bool,
    /// The most that one result document may take, in bytes. Default 512 MiB, which is the most that Redis takes.
    pub max_document_size: usize,
    /// Of `rediss://`: a PEM file with the certificate authorities that the server is checked against. Default: that of redis-py's
    /// `ssl_ca_certs` in the address, or else the system's.
    pub ca_certs: Option<PathBuf>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            global_keyprefix: None,
            result_expires: Duration::from_secs(24 * 60 * 60),
            patience: Duration::from_secs(10),
            chord_lease: Duration::from_secs(10),
            lane_lease: Duration::from_secs(10),
            lane_neighbours: true,
            max_document_size: 512 << 20,
            ca_certs: None,
        }
    }
}

/// Keeps records in Redis, as Celery's Redis backend does. A handle; clones are the same store.
///
/// ```no_run
/// # async fn demo() -> Result<(), celeriac::store::StoreError> {
/// use celeriac::store::{RedisOptions, RedisStore, Store};
/// let store = RedisStore::connect("redis://127.0.0.1:6379/1", RedisOptions::default()).await?;
/// let result = store.wait(&"d29f1c66-6b4f-4f1c-9a3a-0b8f1b1d9c51".into()).await?;
/// println!("{}", result.state);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    core: Arc<Core>,
    runtime: Handle,
    interests: UnboundedSender<Interest>,
}

/// What the store's thread works with.
struct Core {
    link: Link,
    keys: Keys,
    scripts: Scripts,
    options: RedisOptions,
    waiters: Waiters,
    held_here: HeldHere,
}

impl RedisStore {
    /// Connects to the database that the address names: `redis://user:password@host:port/database`, `rediss://` over TLS, or
    /// `redis+unix:///path?db=database`.
    ///
    /// # Errors
    /// The address is wrong, or the server cannot be reached within [`RedisOptions::patience`].
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let core = Arc::new(Core {
            link: Link::new(url, options.patience, options.ca_certs.as_deref())?,
            keys: Keys::new(options.global_keyprefix.as_deref()),
            scripts: Scripts::new(),
            options,
            waiters: Waiters::default(),
            held_here: HeldHere::default(),
        });
        let no_thread =
            |error: std::io::Error| StoreError::Io(format!("the store's thread did not start: {error}"));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let handle = runtime.handle().clone();
        let (interests, to_serve) = unbounded_channel();
        let served = Arc::clone(&core);
        // It ends when the last handle is dropped: then nobody can change an interest any more.
        std::thread::Builder::new()
            .name("celeriac-redis".to_owned())
            .spawn(move || {
                runtime.block_on(watch::serve(Arc::clone(&served), to_serve));
                served.waiters.close();
            })
            .map_err(no_thread)?;
        let store = Self { core, runtime: handle, interests };
        store
            .run(|core| async move {
                core.link
                    .run("none", |mut connection, _| async move {
                        redis::cmd("PING").exec_async(&mut connection).await
                    })
                    .await
            })
            .await?;
        Ok(store)
    }

    /// The server and database, for logs; without the password.
    pub fn address(&self) -> &str {
        &self.core.link.address
    }

    /// The store's thread, for those who have something to do there.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Does something on the store's thread.
    async fn run<T, W, F>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(Arc<Core>) -> F,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.runtime.spawn(work(Arc::clone(&self.core))).await.unwrap_or(Err(StoreError::Closed))
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        self.run(|core| async move { core.put(result).await }).await
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        let id = id.clone();
        let record = self.run(|core| async move { core.read(&id).await }).await?;
        Ok(record.filter(|record| record.expires_at > now))
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        let waiting = self.core.waiters.subscribe(id);
        let _watch = Watch::new(&self.interests, id);
        waiting.record().await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        let key = self.core.keys.task(id.as_str());
        self.run(|core| async move { core.delete(key).await }).await
    }

    // Redis lets records expire by itself.
    async fn sweep(&self, _: Timestamp) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        self.run(|core| async move { core.track(state).await }).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        let id = id.clone();
        let meta = self.run(|core| async move { core.meta(&id).await }).await?;
        Ok(match meta {
            Some(Meta::Tracked(state)) => Some(state),
            _ => None,
        })
    }

    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        let id = id.clone();
        self.run(|core| async move { core.revoke(&id, until).await }).await
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        let ids = ids.to_vec();
        self.run(|core| async move { core.revoked(ids, now).await }).await
    }

    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        let group = group.to_owned();
        self.run(|core| async move { core.open_chord(&group, size).await }).await
    }

    async fn extend_chord(&self, group: &str, id: &TaskId) -> Result<(), StoreError> {
        let (group, id) = (group.to_owned(), id.clone());
        self.run(|core| async move { core.extend_chord(&group, &id).await }).await
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        self.run(|core| async move { core.join_chord(part).await }).await
    }

    async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        let (group, token) = (group.to_owned(), token.to_owned());
        self.run(|core| async move { core.close_chord(&group, &token).await }).await
    }

    async fn save_group(&self, group: &GroupResult, lifetime: Option<Duration>) -> Result<(), StoreError> {
        let group = group.clone();
        self.run(|core| async move { core.save_group(&group, lifetime).await }).await
    }

    // Redis lets it expire by itself.
    async fn group(&self, id: &str, _now: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        let id = id.to_owned();
        self.run(|core| async move { core.group(&id).await }).await
    }

    async fn forget_group(&self, id: &str) -> Result<bool, StoreError> {
        let key = self.core.keys.group(id);
        self.run(|core| async move { core.delete(key).await }).await
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Vec<bool>, StoreError> {
        let claims = claims.to_vec();
        self.run(|core| async move { core.claim(&claims).await }).await
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        Some(Arc::new(self.clone()))
    }

    fn windows(&self) -> Option<&dyn Windows> {
        Some(self)
    }
}
