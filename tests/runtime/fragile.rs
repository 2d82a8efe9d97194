//! A store and a broker of the program's own that panic: what they were asked for is not had, and everybody else goes
//! on.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use celeriac::catalogue::{Catalogue, Pool, PoolRow};
use celeriac::core::{IoFailure, Timestamp};
use celeriac::store::{
    ChordJoin, ChordPart, ChordStore, CompareAndSet, DuplicateStore, GroupResult, GroupStore, Leadership,
    MemoryStore, Notes, SharedRates, Store, StoreError, Term, UniqueWindowStore, WindowHold,
};
use celeriac::task::canvas::chord;
use celeriac::task::{PermitAnswer, PermitHolder, PermitKeeper, TaskResult, TrackedState, UniqueKey, Want};
use celeriac::{Celeriac, Context, State, TaskError, TaskId, task};

use self::broker::FragileBroker;
use crate::kit::{Gate, LONG, add, builder, hold, io_queue, quiet, until};

mod broker;

/// Panics twice at one function, and counts how often that is called.
struct Strikes {
    at: &'static str,
    calls: AtomicUsize,
}

impl Strikes {
    fn at(at: &'static str) -> Arc<Self> {
        Arc::new(Self { at, calls: AtomicUsize::new(0) })
    }

    fn strike(&self, what: &str) {
        if what == self.at && self.calls.fetch_add(1, Ordering::SeqCst) < 2 {
            panic!("{what} panics");
        }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// A store in memory with unique windows, which panics.
struct FragileStore {
    inner: Arc<MemoryStore>,
    windows: Mutex<HashMap<UniqueKey, (TaskId, bool)>>,
    strikes: Arc<Strikes>,
    /// Where it waits before it says what is revoked.
    gate: Option<Arc<Gate>>,
}

#[async_trait]
impl Store for FragileStore {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        self.strikes.strike("put");
        self.inner.put(result).await
    }
    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        self.strikes.strike("get");
        self.inner.get(id, now).await
    }
    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        self.strikes.strike("wait");
        self.inner.wait(id).await
    }
    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        self.strikes.strike("forget");
        self.inner.forget(id).await
    }
    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.strikes.strike("sweep");
        self.inner.sweep(now).await
    }
    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        self.strikes.strike("track");
        self.inner.track(state).await
    }
    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        self.strikes.strike("tracked");
        self.inner.tracked(id).await
    }
    async fn untrack(&self, id: &TaskId) -> Result<(), StoreError> {
        self.strikes.strike("untrack");
        self.inner.untrack(id).await
    }
    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        self.strikes.strike("revoke");
        self.inner.revoke(id, until).await
    }
    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        self.strikes.strike("revoked");
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        self.inner.revoked(ids, now).await
    }
    fn is_known_revoked(&self, _: &TaskId, _: Timestamp) -> Option<bool> {
        None
    }
    fn chords(&self) -> Option<&dyn ChordStore> {
        self.strikes.strike("chords");
        Some(self)
    }
    fn groups(&self) -> Option<&dyn GroupStore> {
        self.strikes.strike("groups");
        Some(self)
    }
    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        self.strikes.strike("duplicates");
        None
    }
    fn notes(&self) -> Option<&dyn Notes> {
        self.strikes.strike("notes");
        Some(self)
    }
    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        self.strikes.strike("unique_windows");
        Some(self)
    }
    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        self.strikes.strike("permits");
        let inner = self.inner.permits()?;
        Some(Arc::new(FragilePermits { inner, strikes: Arc::clone(&self.strikes) }))
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        self.inner.shared_rates()
    }
    fn reply_to(&self) -> Option<String> {
        self.strikes.strike("reply_to");
        None
    }
    fn is_shared(&self) -> bool {
        self.strikes.strike("is_shared");
        false
    }
}

impl FragileStore {
    fn new(strikes: Arc<Strikes>, gate: Option<Arc<Gate>>) -> Arc<Self> {
        Arc::new(Self { inner: Arc::default(), windows: Mutex::default(), strikes, gate })
    }

    fn chords_of(&self) -> &dyn ChordStore {
        self.inner.chords().unwrap()
    }

    fn groups_of(&self) -> &dyn GroupStore {
        self.inner.groups().unwrap()
    }

    fn notes_of(&self) -> &dyn Notes {
        Store::notes(&*self.inner).unwrap()
    }
}

#[async_trait]
impl ChordStore for FragileStore {
    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError> {
        self.strikes.strike("open_chord");
        self.chords_of().open_chord(group, size).await
    }
    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError> {
        self.strikes.strike("join_chord");
        self.chords_of().join_chord(part).await
    }
    async fn extend_chord(&self, group: &str, id: &TaskId) -> Result<(), StoreError> {
        self.strikes.strike("extend_chord");
        self.chords_of().extend_chord(group, id).await
    }
    async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.strikes.strike("close_chord");
        self.chords_of().close_chord(group, token).await
    }
    async fn close_failed_chord(&self, group: &str, token: &str) -> Result<(), StoreError> {
        self.strikes.strike("close_failed_chord");
        self.chords_of().close_failed_chord(group, token).await
    }
}

#[async_trait]
impl GroupStore for FragileStore {
    async fn save_group(&self, group: &GroupResult, lifetime: Option<Duration>) -> Result<(), StoreError> {
        self.strikes.strike("save_group");
        self.groups_of().save_group(group, lifetime).await
    }
    async fn group(&self, id: &str, now: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        self.strikes.strike("group");
        self.groups_of().group(id, now).await
    }
    async fn forget_group(&self, id: &str) -> Result<bool, StoreError> {
        self.strikes.strike("forget_group");
        self.groups_of().forget_group(id).await
    }
}

#[async_trait]
impl Notes for FragileStore {
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.strikes.strike("note");
        self.notes_of().note(key).await
    }
    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.strikes.strike("all notes");
        self.notes_of().notes(prefix).await
    }
    async fn compare_and_set_all(
        &self,
        changes: Vec<CompareAndSet>,
        under: Option<Term>,
    ) -> Result<bool, StoreError> {
        self.strikes.strike("compare_and_set_all");
        self.notes_of().compare_and_set_all(changes, under).await
    }
    async fn lead(
        &self,
        election: &str,
        candidate: &str,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Leadership, StoreError> {
        self.strikes.strike("lead");
        self.notes_of().lead(election, candidate, lease, now).await
    }
    async fn resign(&self, election: &str, candidate: &str) -> Result<(), StoreError> {
        self.strikes.strike("resign");
        self.notes_of().resign(election, candidate).await
    }
}

#[async_trait]
impl UniqueWindowStore for FragileStore {
    async fn acquire(&self, key: &UniqueKey, id: &TaskId, _: Duration) -> Result<WindowHold, StoreError> {
        self.strikes.strike("acquire");
        let mut windows = self.windows.lock().unwrap();
        Ok(match windows.get(key) {
            None => {
                windows.insert(key.clone(), (id.clone(), false));
                WindowHold::Begun
            }
            Some((holder, true)) if holder == id => WindowHold::Confirmed,
            Some((holder, false)) if holder == id => WindowHold::Begun,
            Some((holder, true)) => WindowHold::Taken(holder.clone()),
            Some((holder, false)) => WindowHold::Publishing(holder.clone()),
        })
    }
    async fn renew(&self, _: &UniqueKey, _: &TaskId, _: Duration) -> Result<bool, StoreError> {
        self.strikes.strike("renew");
        Ok(true)
    }
    async fn confirm(&self, key: &UniqueKey, id: &TaskId, _: Duration) -> Result<bool, StoreError> {
        self.strikes.strike("confirm");
        let mut windows = self.windows.lock().unwrap();
        let held = windows.get_mut(key).filter(|(holder, _)| holder == id);
        Ok(held.map(|held| held.1 = true).is_some())
    }
    async fn release(&self, key: &UniqueKey, id: &TaskId) -> Result<bool, StoreError> {
        self.strikes.strike("release");
        let mut windows = self.windows.lock().unwrap();
        let is_held = windows.get(key).is_some_and(|(holder, _)| holder == id);
        Ok(is_held && windows.remove(key).is_some())
    }
    async fn release_of(&self, id: &TaskId) -> Result<bool, StoreError> {
        self.strikes.strike("release_of");
        let mut windows = self.windows.lock().unwrap();
        let before = windows.len();
        windows.retain(|_, (holder, _)| holder != id);
        Ok(windows.len() < before)
    }
    async fn holder(&self, key: &UniqueKey) -> Result<Option<TaskId>, StoreError> {
        self.strikes.strike("holder");
        Ok(self.windows.lock().unwrap().get(key).map(|(holder, _)| holder.clone()))
    }
    fn carry_out(&self, work: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.strikes.strike("carry_out");
        tokio::spawn(work);
    }
}

struct FragilePermits {
    inner: Arc<dyn PermitKeeper>,
    strikes: Arc<Strikes>,
}

#[async_trait]
impl PermitKeeper for FragilePermits {
    async fn acquire(&self, wants: &[Want], holder: &str) -> Result<PermitAnswer, IoFailure> {
        self.strikes.strike("permits: acquire");
        self.inner.acquire(wants, holder).await
    }
    fn release(&self, wants: &[Want], holder: &str) {
        self.inner.release(wants, holder);
        self.strikes.strike("permits: release");
    }
    fn park(&self, wants: &[Want], holder: &str, within: Duration) {
        self.strikes.strike("permits: park");
        self.inner.park(wants, holder, within);
    }
    async fn freed(&self, at_most: Duration) {
        self.strikes.strike("permits: freed");
        self.inner.freed(at_most).await;
    }
    async fn holders(&self, name: &str) -> Result<Vec<PermitHolder>, IoFailure> {
        self.strikes.strike("permits: holders");
        self.inner.holders(name).await
    }
}

/// Asks something of each part of a store that bodies have to do with.
#[task(queue = "io", unique_for = "1h", max_retries = 0)]
async fn busy(ctx: Context, n: u64) -> Result<u64, TaskError> {
    let permit = ctx.lock("busy").fail_open().acquire().await;
    let _permit = permit.map_err(|error| TaskError::failure([error.to_string()]))?;
    ctx.progress(n, 100);
    Ok(n)
}

/// The same without a unique window, for brokers and stores that keep none.
#[task(queue = "io", max_retries = 0)]
async fn busy_at_will(ctx: Context, n: u64) -> Result<u64, TaskError> {
    busy(ctx, n).await
}

#[task(queue = "io")]
async fn sum(all: Vec<i64>) -> i64 {
    all.iter().sum()
}

/// Asks until an answer comes. Each panic costs one question.
async fn insist<T, E: std::fmt::Display, F: IntoFuture<Output = Result<T, E>>>(ask: impl Fn() -> F) -> T {
    for _ in 0..5 {
        match tokio::time::timeout(LONG, ask().into_future()).await.expect("an answer") {
            Ok(answer) => return answer,
            Err(error) => assert!(error.to_string().contains(" panics"), "{error}"),
        }
    }
    panic!("more panics than there are");
}

/// Sends eight tasks, and some chords, and sees all of them end.
async fn eight_tasks_end(celeriac: &Celeriac, unique: bool) {
    for n in 1..=8 {
        let (result, state) = if unique {
            let task = insist(|| busy::s(n).send(celeriac.client())).await;
            (insist(|| task.get(LONG)).await, insist(|| task.state()).await)
        } else {
            let task = insist(|| busy_at_will::s(n).send(celeriac.client())).await;
            (insist(|| task.get(LONG)).await, insist(|| task.state()).await)
        };
        assert_eq!((result, state), (n, State::Success));
        let _ = celeriac.queue("io").await; // the counts of the broker
    }
    for round in 1..=3 {
        let call = || chord([add::s(round, 1), add::s(round, 2)], sum::p());
        let body = insist(|| call().send(celeriac.client())).await;
        assert_eq!(insist(|| body.get(LONG)).await, 2 * round + 3);
    }
    until("the broker is asked again", async || celeriac.queue("io").await.is_ok()).await;
}

/// The functions of a store at which it panics, and whether eight tasks call it often enough to see that it is asked
/// again after its panics.
const STORE: &[(&str, bool)] = &[
    ("put", true),
    ("get", false),
    ("wait", true),
    ("forget", false),
    ("sweep", false),
    ("track", true),
    ("tracked", false),
    ("untrack", true),
    ("revoke", false),
    ("revoked", true),
    ("chords", true),
    ("groups", false),
    ("duplicates", false),
    ("notes", false),
    ("unique_windows", true),
    ("permits", false),
    ("reply_to", false),
    ("is_shared", true),
    ("open_chord", true),
    ("join_chord", true),
    ("extend_chord", false),
    ("close_chord", true),
    ("close_failed_chord", false),
    ("save_group", false),
    ("group", false),
    ("forget_group", false),
    ("note", false),
    ("all notes", false),
    ("compare_and_set_all", false),
    ("lead", false),
    ("resign", false),
    ("acquire", true),
    ("renew", false),
    ("confirm", true),
    ("release", true),
    ("release_of", false),
    ("holder", false),
    ("carry_out", true),
    ("permits: acquire", true),
    ("permits: release", true),
    ("permits: park", false),
    ("permits: freed", false),
    ("permits: holders", false),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_panics_anywhere_stalls_no_task() {
    for (at, again) in STORE.iter().copied() {
        let strikes = Strikes::at(at);
        let store = FragileStore::new(Arc::clone(&strikes), None);
        let start = || {
            let broker = FragileBroker::over(Arc::default(), false, Strikes::at("nothing"));
            builder().broker(broker, Arc::clone(&store) as _).start()
        };
        // A start that cannot read which queues are paused, or which brakes are set, must not go on as if none were.
        let refusal = match at {
            "all notes" => Some("the store panicked in `notes`: all notes panics"),
            "note" => Some("the store panicked in `note`: note panics"),
            _ => None,
        };
        for _ in 0..if refusal.is_some() { 2 } else { 0 } {
            let refused = start().await.err().map(|error| error.to_string());
            assert_eq!(refused.as_deref(), refusal);
        }
        let celeriac = start().await.unwrap();
        eight_tasks_end(&celeriac, true).await;
        celeriac.shutdown().await.unwrap();
        assert!(!again || strikes.calls() > 2, "`{at}` was called {} times", strikes.calls());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_panics_anywhere_stalls_no_task() {
    for keeps_results in [true, false] {
        for (at, again) in [
            ("publish", true),
            ("publish_all", !keeps_results),
            ("counts", true),
            ("settle", true),
            ("consume", true),
            ("note_started", false),
            ("write_starts", false),
            ("facts", true),
            ("condition", false),
        ] {
            let (strikes, store) = (Strikes::at(at), Arc::<MemoryStore>::default());
            let broker = FragileBroker::over(Arc::clone(&store), keeps_results, Arc::clone(&strikes));
            let celeriac = builder().broker(broker, store).start().await.unwrap();
            eight_tasks_end(&celeriac, false).await;
            celeriac.shutdown().await.unwrap();
            assert!(!again || strikes.calls() > 2, "`{at}` was called {} times", strikes.calls());
        }
    }
}

/// Whatever a queue has to do again because its broker panicked, the slots of its pool are all there afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_panics_takes_no_slot_along() {
    quiet();
    for at in ["publish", "counts", "settle", "consume", "note_started"] {
        let store = Arc::<MemoryStore>::default();
        let broker = FragileBroker::over(Arc::clone(&store), true, Strikes::at(at));
        let catalogue = Catalogue::new()
            .with_pool(Pool::Io, PoolRow::new(2).with_room(0).with_reserve(0))
            .with_queue(io_queue("io", 4));
        let builder = Celeriac::builder().catalogue(catalogue).broker(broker, store);
        let celeriac = builder.start().await.unwrap();
        eight_tasks_end(&celeriac, false).await;
        until("no slot is taken", async || celeriac.pools().iter().all(|pool| pool.running == 0)).await;
        let gate = Gate::new();
        for _ in 0..4 {
            drop(insist(|| hold::s(gate.name.clone()).send(celeriac.client())).await);
        }
        gate.entered(2).await;
        gate.open();
        gate.left(4).await;
        assert_eq!(gate.gauge.most(), 2, "panics in `{at}`");
        celeriac.shutdown().await.unwrap();
    }
}

/// A task waits until the store has said that it is not revoked. That is the reason which is told, and then the task starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_asked_is_named_until_it_answers() {
    let gate = Gate::new();
    let store = FragileStore::new(Strikes::at("nothing"), Some(Arc::clone(&gate)));
    let broker = FragileBroker::over(Arc::default(), false, Strikes::at("nothing"));
    let celeriac = builder().broker(broker, store).start().await.unwrap();
    let waiting = add::s(1, 2).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    until("the store is named", async || {
        celeriac.explain(waiting.id()).await.unwrap().reason().code() == "store_asked"
    })
    .await;
    gate.open();
    assert_eq!(waiting.get(LONG).await, Ok(3));
    celeriac.shutdown().await.unwrap();
}
