//! Keeps results in Redis, in Celery's own documents and keys. Both sides of a mixed fleet can then read each other's
//! results.
//!
//! All work happens on one thread of the store's own. The store may therefore be called on any thread and in any
//! runtime, and outlives each of them. Three things are Celeriac's own:
//!
//! - A finished record is final also for FAILURE and REVOKED.
//! - A document carries the rest of Celeriac's record under the key `celeriac`.
//! - Revocations have keys of their own.

mod chords;
mod foreign;
mod keys;
mod link;
mod notes;
mod permits;
mod rates;
mod records;
mod revocations;
mod scripts;
mod sentinel;
mod unique_windows;
mod watch;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::chord::LARGEST_CHORD;
use super::{
    ChordJoin, ChordPart, ChordStore, DuplicateClaim, DuplicateStore, GroupResult, GroupStore, Notes,
    SharedRates, Store, StoreError, TrackedState, UniqueWindowStore, Waiters,
};
use crate::core::Timestamp;
use crate::protocol::result::Meta;
use crate::task::{PermitKeeper, TaskId, TaskResult};
use keys::Keys;
use link::RedisLink;
use permits::HeldHere;
use revocations::RevocationFeed;
use scripts::Scripts;
use watch::{Interest, Subscription};

/// The options of a [`RedisStore`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisOptions {
    /// The prefix of every key and channel, as Celery's `global_keyprefix` in `result_backend_transport_options`. A `_`
    /// follows it unless it ends in one of `: _ - .`. The default is no prefix.
    pub global_keyprefix: Option<String>,
    /// For `sentinel://`: the name of the master that the sentinels are asked for, as Celery's `master_name` in
    /// `result_backend_transport_options`. The default is `?master_name=` of the address.
    pub master_name: Option<String>,
    /// How long the states of unfinished tasks, groups and chords are kept. Each record states its own time. This is
    /// Celery's `result_expires`. The default is one day.
    pub result_expires: Duration,
    /// How long a call is tried again while Redis cannot be reached, restarts, or loads its data. The default is 10 s.
    /// A wait for a result goes on however long that takes. With sentinels, choose
    /// more than a failover takes: they wait for `down-after-milliseconds`, 30 s by default, before they begin one.
    pub patience: Duration,
    /// How long the process that sends the body of a chord has for it. After this time the next process that joins the
    /// chord sends the body. The default is 10 s.
    pub chord_lease: Duration,
    /// The lease of a process on its lanes: how long a silent process is taken for alive. When a process dies,
    /// processes on other machines wait for this time before they take its lanes over. The default is 10 s.
    pub lane_lease: Duration,
    /// Whether a process sees that another one on its machine is dead, and then does not wait for the lease of the dead
    /// one (on Linux). The default is yes.
    pub lane_neighbours: bool,
    /// The most bytes that one result document may take. The default is 512 MiB, which is the most that Redis takes.
    pub max_document_size: usize,
    /// For TLS: a PEM file with the certificate authorities against which the server is checked. The default is
    /// the file that redis-py's `ssl_ca_certs` in the address names, or else the system's authorities.
    pub ca_certs: Option<PathBuf>,
    /// The most bytes that the results of all members of a chord may take together.
    pub(crate) max_chord_size: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            global_keyprefix: None,
            master_name: None,
            result_expires: Duration::from_secs(24 * 60 * 60),
            patience: Duration::from_secs(10),
            chord_lease: Duration::from_secs(10),
            lane_lease: Duration::from_secs(10),
            lane_neighbours: true,
            max_document_size: 512 << 20,
            ca_certs: None,
            max_chord_size: LARGEST_CHORD,
        }
    }
}

/// Keeps records in Redis, as Celery's Redis backend does. This type is a handle, and its clones are the same store.
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
    core: Arc<RedisInner>,
    runtime: Handle,
    interests: UnboundedSender<Interest>,
}

/// The state of the store. The store's thread works with it.
struct RedisInner {
    link: RedisLink,
    keys: Keys,
    scripts: Scripts,
    options: RedisOptions,
    waiters: Waiters,
    held_here: HeldHere,
    revocations: RevocationFeed,
}

impl RedisStore {
    /// Connects to the database that the address names: `redis://user:password@host:port/database`, `rediss://` over
    /// TLS, or `redis+unix:///path?db=database`.
    ///
    /// `sentinel://user:password@host:port/database;sentinel://host:port` is Celery's address of a master that sentinels
    /// know; the first part says user, password and database of the master. [`RedisOptions::master_name`] names it, or
    /// `?master_name=` in the address, where `sentinel_username=` and `sentinel_password=` are for the sentinels, and
    /// `ssl=true` and `sentinel_ssl=true` speak TLS to the master and to the sentinels. Each new connection asks the
    /// sentinels, so a failover is followed.
    ///
    /// # Errors
    /// The address is wrong, or the server cannot be reached within [`RedisOptions::patience`].
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, StoreError> {
        let core = Arc::new(RedisInner {
            link: RedisLink::new(url, &options)?,
            keys: Keys::new(options.global_keyprefix.as_deref()),
            scripts: Scripts::new(),
            options,
            waiters: Waiters::default(),
            held_here: HeldHere::default(),
            revocations: RevocationFeed::default(),
        });
        let no_thread =
            |error: std::io::Error| StoreError::io(format!("the store's thread did not start: {error}"));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let handle = runtime.handle().clone();
        let (interests, to_serve) = unbounded_channel();
        let served = Arc::clone(&core);
        // The thread ends when the last handle is dropped, because nobody can change an interest any more then.
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
                    .run("", |mut connection, _| async move {
                        redis::cmd("PING").exec_async(&mut connection).await
                    })
                    .await
            })
            .await?;
        Ok(store)
    }

    /// The server and the database without the password, for logs.
    pub fn address(&self) -> &str {
        &self.core.link.address
    }

    /// The event loop of the store's thread, for other code that must run there.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs `work` on the store's thread.
    async fn run<T, W, F>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: FnOnce(Arc<RedisInner>) -> F,
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
        let _watch = Subscription::new(&self.interests, id);
        waiting.record().await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        let key = self.core.keys.task(id.as_str());
        self.run(|core| async move { core.delete(key).await }).await
    }

    // Redis deletes expired records by itself.
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

    // Whoever asks begins the subscription: a program that only sends tasks needs none.
    fn is_known_revoked(&self, id: &TaskId, now: Timestamp) -> Option<bool> {
        if self.core.revocations.begins() {
            self.runtime.spawn(revocations::follow(Arc::clone(&self.core)));
        }
        self.core.revocations.is_revoked(id, now)
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
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        Some(self)
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        Some(self)
    }

    async fn untrack(&self, _: &TaskId) -> Result<(), StoreError> {
        Ok(())
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        Some(self)
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        Some(self)
    }

    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        Some(self)
    }

    fn reply_to(&self) -> Option<String> {
        None
    }
}

#[async_trait]
impl ChordStore for RedisStore {
    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        let group = group.to_owned();
        self.run(|core| async move { core.open_chord(&group, size).await }).await
    }

    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        self.run(|core| async move { core.join_chord(part).await }).await
    }

    async fn extend_chord(&self, group: &str, id: &TaskId) -> Result<(), StoreError> {
        let (group, id) = (group.to_owned(), id.clone());
        self.run(|core| async move { core.extend_chord(&group, &id).await }).await
    }

    async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        let (group, token) = (group.to_owned(), token.to_owned());
        self.run(|core| async move { core.close_chord(&group, &token).await }).await
    }

    async fn close_failed_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        let (group, token) = (group.to_owned(), token.to_owned());
        self.run(|core| async move { core.close_failed_chord(&group, &token).await }).await
    }
}

#[async_trait]
impl GroupStore for RedisStore {
    async fn save_group(&self, group: &GroupResult, lifetime: Option<Duration>) -> Result<(), StoreError> {
        let group = group.clone();
        self.run(|core| async move { core.save_group(&group, lifetime).await }).await
    }

    // Redis deletes an expired group by itself.
    async fn group(&self, id: &str, _now: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        let id = id.to_owned();
        self.run(|core| async move { core.group(&id).await }).await
    }

    async fn forget_group(&self, id: &str) -> Result<bool, StoreError> {
        let key = self.core.keys.group(id);
        self.run(|core| async move { core.delete(key).await }).await
    }
}

#[async_trait]
impl DuplicateStore for RedisStore {
    async fn claim(&self, claims: &[DuplicateClaim]) -> Result<Vec<bool>, StoreError> {
        let claims = claims.to_vec();
        self.run(|core| async move { core.claim(&claims).await }).await
    }
}
