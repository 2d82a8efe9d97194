//! A store all of whose functions panic, behind its guard.

use super::*;
use crate::store::GroupMember;
use crate::task::{Json, State};

/// The names of the functions of a trait.
fn functions<'a>(source: &'a str, of: &str) -> Vec<&'a str> {
    let (_, body) = source.split_once(&format!("pub trait {of}:")).expect("the trait");
    let body = body.split("\n}").next().expect("its end");
    body.lines()
        .filter_map(|line| line.trim().trim_start_matches("async ").strip_prefix("fn "))
        .filter_map(|rest| rest.split('(').next())
        .collect()
}

/// The functions of each trait that a store has to do with, with the least number of them.
const TRAITS: [(&str, &str, usize); 8] = [
    (include_str!("../mod.rs"), "Store", 18),
    (include_str!("../chord.rs"), "ChordStore", 5),
    (include_str!("../group.rs"), "GroupStore", 3),
    (include_str!("../duplicates.rs"), "DuplicateStore", 1),
    (include_str!("../notes.rs"), "Notes", 6),
    (include_str!("../unique_windows.rs"), "UniqueWindowStore", 7),
    (include_str!("../shared_rates.rs"), "SharedRates", 1),
    (include_str!("../../task/permit.rs"), "PermitKeeper", 5),
];

/// A function with a default that is not forwarded would quietly replace the store's own.
#[test]
fn each_function_of_a_store_is_forwarded() {
    let own = include_str!("../guarded.rs");
    for (source, of, least) in TRAITS {
        let names = functions(source, of);
        assert!(names.len() >= least, "{names:?}");
        for name in names {
            let is_there = own.contains(&format!(" fn {name}(")) || own.contains(&format!(" fn {name}<"));
            assert!(is_there, "`{of}::{name}` is to be forwarded in guarded.rs");
        }
    }
}

struct Broken;

#[async_trait]
impl Store for Broken {
    async fn put(&self, _: TaskResult) -> Result<bool, StoreError> {
        panic!("put")
    }
    async fn get(&self, _: &TaskId, _: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        panic!("get")
    }
    async fn wait(&self, _: &TaskId) -> Result<TaskResult, StoreError> {
        tokio::task::yield_now().await;
        panic!("wait")
    }
    async fn forget(&self, _: &TaskId) -> Result<bool, StoreError> {
        panic!("forget")
    }
    async fn sweep(&self, _: Timestamp) -> Result<usize, StoreError> {
        panic!("sweep")
    }
    async fn track(&self, _: TrackedState) -> Result<(), StoreError> {
        panic!("track")
    }
    async fn tracked(&self, _: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        panic!("tracked")
    }
    async fn untrack(&self, _: &TaskId) -> Result<(), StoreError> {
        panic!("untrack")
    }
    async fn revoke(&self, _: &TaskId, _: Timestamp) -> Result<(), StoreError> {
        panic!("revoke")
    }
    async fn revoked(&self, _: &[TaskId], _: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        panic!("revoked")
    }
    fn is_known_revoked(&self, _: &TaskId, _: Timestamp) -> Option<bool> {
        panic!("is_known_revoked")
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
    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }
    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        Some(self)
    }
    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        Some(Arc::new(Broken))
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        Some(self)
    }
    fn is_shared(&self) -> bool {
        panic!("is_shared")
    }
    fn reply_to(&self) -> Option<String> {
        panic!("reply_to")
    }
}

#[async_trait]
impl ChordStore for Broken {
    async fn open_chord(&self, _: &str, _: u64) -> Result<(), StoreError> {
        panic!("open_chord")
    }
    async fn join_chord(&self, _: ChordPart) -> Result<ChordJoin, StoreError> {
        panic!("join_chord")
    }
    async fn extend_chord(&self, _: &str, _: &TaskId) -> Result<(), StoreError> {
        panic!("extend_chord")
    }
    async fn close_chord(&self, _: &str, _: &str) -> Result<(), StoreError> {
        panic!("close_chord")
    }
    async fn close_failed_chord(&self, _: &str, _: &str) -> Result<(), StoreError> {
        panic!("close_failed_chord")
    }
}

#[async_trait]
impl GroupStore for Broken {
    async fn save_group(&self, _: &GroupResult, _: Option<Duration>) -> Result<(), StoreError> {
        panic!("save_group")
    }
    async fn group(&self, _: &str, _: Timestamp) -> Result<Option<GroupResult>, StoreError> {
        panic!("group")
    }
    async fn forget_group(&self, _: &str) -> Result<bool, StoreError> {
        panic!("forget_group")
    }
}

#[async_trait]
impl DuplicateStore for Broken {
    async fn claim(&self, _: &[DuplicateClaim]) -> Result<Vec<bool>, StoreError> {
        panic!("claim")
    }
}

#[async_trait]
impl Notes for Broken {
    async fn note(&self, _: &str) -> Result<Option<String>, StoreError> {
        panic!("note")
    }
    async fn notes(&self, _: &str) -> Result<Vec<(String, String)>, StoreError> {
        panic!("notes")
    }
    async fn compare_and_set(&self, _: CompareAndSet) -> Result<bool, StoreError> {
        panic!("compare_and_set")
    }
    async fn compare_and_set_all(&self, _: Vec<CompareAndSet>, _: Option<Term>) -> Result<bool, StoreError> {
        panic!("compare_and_set_all")
    }
    async fn lead(&self, _: &str, _: &str, _: Duration, _: Timestamp) -> Result<Leadership, StoreError> {
        panic!("lead")
    }
    async fn resign(&self, _: &str, _: &str) -> Result<(), StoreError> {
        panic!("resign")
    }
}

#[async_trait]
impl SharedRates for Broken {
    async fn take_starts(&self, _: &str, _: StartsWanted) -> Result<StartsGranted, StoreError> {
        panic!("take_starts")
    }
}

#[async_trait]
impl UniqueWindowStore for Broken {
    async fn acquire(&self, _: &UniqueKey, _: &TaskId, _: Duration) -> Result<WindowHold, StoreError> {
        panic!("acquire")
    }
    async fn renew(&self, _: &UniqueKey, _: &TaskId, _: Duration) -> Result<bool, StoreError> {
        panic!("renew")
    }
    async fn confirm(&self, _: &UniqueKey, _: &TaskId, _: Duration) -> Result<bool, StoreError> {
        panic!("confirm")
    }
    async fn release(&self, _: &UniqueKey, _: &TaskId) -> Result<bool, StoreError> {
        panic!("release")
    }
    async fn release_of(&self, _: &TaskId) -> Result<bool, StoreError> {
        panic!("release_of")
    }
    async fn holder(&self, _: &UniqueKey) -> Result<Option<TaskId>, StoreError> {
        panic!("holder")
    }
    fn carry_out(&self, _: Pin<Box<dyn Future<Output = ()> + Send>>) {
        panic!("carry_out")
    }
}

#[async_trait]
impl PermitKeeper for Broken {
    async fn acquire(&self, _: &[Want], _: &str) -> Result<PermitAnswer, IoFailure> {
        panic!("acquire")
    }
    fn release(&self, _: &[Want], _: &str) {
        panic!("release")
    }
    fn park(&self, _: &[Want], _: &str, _: Duration) {
        panic!("park")
    }
    async fn freed(&self, _: Duration) {
        panic!("freed")
    }
    async fn holders(&self, _: &str) -> Result<Vec<PermitHolder>, IoFailure> {
        panic!("holders")
    }
}

/// Each function that has an error is called twice, and each of its panics is one.
#[tokio::test]
async fn a_panic_is_an_error() {
    let store = GuardedStore::over(Arc::new(Broken));
    let (id, now) = (TaskId::from("a"), Timestamp::ZERO);
    let record = || TaskResult::new(id.clone(), String::new(), State::Success, now, now);
    let (state, meta) = ("PROGRESS".to_owned(), Json::default());
    let tracked = || {
        let (id, state, meta) = (id.clone(), state.clone(), meta.clone());
        TrackedState { id, state, meta, traceback: None, lineage: None }
    };
    let value = Json::default();
    let part = || {
        let (group, id, value) = ("g".to_owned(), id.clone(), value.clone());
        ChordPart { group, id, index: None, state: State::Success, value }
    };
    let group = GroupResult::new("g", [GroupMember::Task(id.clone())]);
    let change = || CompareAndSet { key: "k".to_owned(), expected: None, value: None };
    let claim = [DuplicateClaim { id: id.clone(), copy: "c".to_owned(), until: now }];
    let (key, lease) = (UniqueKey::new("s", "k"), Duration::ZERO);
    let chords = store.chords().unwrap();
    let groups = store.groups().unwrap();
    let notes = store.notes().unwrap();
    let windows = store.unique_windows().unwrap();
    let rates = store.shared_rates().unwrap();
    let wanted = StartsWanted { interval: lease, starts: 1, ahead: lease };
    for _ in 0..2 {
        let said = [
            ("put", store.put(record()).await.err()),
            ("get", store.get(&id, now).await.err()),
            ("wait", store.wait(&id).await.err()),
            ("forget", store.forget(&id).await.err()),
            ("sweep", store.sweep(now).await.err()),
            ("track", store.track(tracked()).await.err()),
            ("tracked", store.tracked(&id).await.err()),
            ("untrack", store.untrack(&id).await.err()),
            ("revoke", store.revoke(&id, now).await.err()),
            ("revoked", store.revoked(std::slice::from_ref(&id), now).await.err()),
            ("open_chord", chords.open_chord("g", 1).await.err()),
            ("join_chord", chords.join_chord(part()).await.err()),
            ("extend_chord", chords.extend_chord("g", &id).await.err()),
            ("close_chord", chords.close_chord("g", "t").await.err()),
            ("close_failed_chord", chords.close_failed_chord("g", "t").await.err()),
            ("save_group", groups.save_group(&group, None).await.err()),
            ("group", groups.group("g", now).await.err()),
            ("forget_group", groups.forget_group("g").await.err()),
            ("claim", store.duplicates().unwrap().claim(&claim).await.err()),
            ("note", notes.note("k").await.err()),
            ("notes", notes.notes("k").await.err()),
            ("compare_and_set", notes.compare_and_set(change()).await.err()),
            ("compare_and_set_all", notes.compare_and_set_all(vec![change()], None).await.err()),
            ("lead", notes.lead("e", "c", lease, now).await.err()),
            ("resign", notes.resign("e", "c").await.err()),
            ("acquire", windows.acquire(&key, &id, lease).await.err()),
            ("renew", windows.renew(&key, &id, lease).await.err()),
            ("confirm", windows.confirm(&key, &id, lease).await.err()),
            ("release", windows.release(&key, &id).await.err()),
            ("release_of", windows.release_of(&id).await.err()),
            ("holder", windows.holder(&key).await.err()),
            ("take_starts", rates.take_starts("r", wanted).await.err()),
        ];
        for (what, error) in said {
            let panicked = StoreError::Panicked(format!("the store panicked in `{what}`: {what}"));
            assert_eq!(error, Some(panicked));
        }
        assert!(!store.is_shared() && store.reply_to().is_none());
        assert_eq!(store.is_known_revoked(&id, now), None);
    }
}

#[tokio::test(start_paused = true)]
async fn permits_of_a_store_that_panics_are_errors() {
    let permits = GuardedStore::over(Arc::new(Broken)).permits().unwrap();
    let wants = [Want { name: "a".to_owned(), limit: 1 }];
    for _ in 0..2 {
        let said = permits.acquire(&wants, "h").await.unwrap_err().to_string();
        assert_eq!(said, "the store panicked in `acquire`: acquire");
        let said = permits.holders("a").await.unwrap_err().to_string();
        assert_eq!(said, "the store panicked in `holders`: holders");
        permits.release(&wants, "h");
        permits.park(&wants, "h", Duration::ZERO);
        // Whoever waits for a permit asks again after the pause, and not at once.
        let begun = tokio::time::Instant::now();
        permits.freed(Duration::from_secs(1)).await;
        assert!(begun.elapsed() >= Duration::from_secs(1));
    }
}

/// The publish of a call with a window is such work: its caller waits for what becomes of it.
#[tokio::test]
async fn work_that_a_store_has_not_begun_is_carried_out_all_the_same() {
    let store = GuardedStore::over(Arc::new(Broken));
    for _ in 0..2 {
        let (told, done) = tokio::sync::oneshot::channel();
        store.unique_windows().unwrap().carry_out(Box::pin(async move { told.send(7).unwrap() }));
        assert_eq!(done.await, Ok(7));
    }
}
