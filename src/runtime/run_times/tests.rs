use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::store::{MemoryStore, Term};
use crate::task::{Arguments, Context, TENANT};

const SECOND: Duration = Duration::from_secs(1);
const PARAMS: &[&str] = &["build_id", "domain"];

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1_000)
}

fn build_id() -> Argument {
    Argument::Name("build_id".into())
}

fn keeper() -> RunTimeKeeper {
    let watched = vec![build_id(), Argument::Position(1), build_id()];
    RunTimeKeeper::watching(HashMap::from([("export", watched)]))
}

fn message(task: &str, tenant: Option<&str>, args: &str, kwargs: &str) -> Message {
    let mut message = Context::detached().message().clone();
    message.task = task.into();
    message.arguments = Arguments { args: args.into(), kwargs: kwargs.into() };
    if let Some(tenant) = tenant {
        message.headers.0.insert(TENANT.to_owned(), tenant.into());
    }
    message
}

/// A run of the task `mail`, of so many seconds, which ended then.
fn mailed(keeper: &RunTimeKeeper, seconds: u32, ended: u64) {
    keeper.record(&message("mail", None, "[]", ""), &[], SECOND * seconds, at(ended));
}

fn mail(keeper: &RunTimeKeeper) -> Option<(u64, u64)> {
    keeper.known("mail", None, None).map(|figures| (figures.count, figures.last.as_secs()))
}

async fn notes_of(notes: &dyn Notes) -> Vec<String> {
    read_all(notes).await.unwrap().into_iter().map(|note| note.key).collect()
}

#[test]
fn a_call_is_known_by_its_argument_however_it_is_given() {
    let keeper = keeper();
    let run = |tenant, args, kwargs, seconds| {
        keeper.record(&message("export", tenant, args, kwargs), PARAMS, SECOND * seconds, at(1));
    };
    run(None, r#"[7,"acme"]"#, "", 60);
    run(None, "", r#"{"build_id":8,"domain":"zoo"}"#, 5);
    run(Some("acme"), "no JSON", "none either", 3);
    let last = |tenant, value: Option<(&Argument, &str)>| {
        keeper.known("export", tenant, value).map(|figures| figures.last.as_secs())
    };
    let by = build_id();
    assert_eq!((last(None, Some((&by, "7"))), last(None, Some((&by, "8")))), (Some(60), Some(5)));
    assert_eq!(last(None, Some((&Argument::Position(1), "acme"))), Some(60));
    let count = keeper.known("export", None, Some((&by, "7"))).map(|figures| figures.count);
    assert_eq!(count, Some(1), "two routes name the argument");
    assert_eq!((last(None, Some((&by, "9"))), last(Some("acme"), Some((&by, "7")))), (None, None));
    assert_eq!((last(Some("acme"), None), last(Some("zoo"), None)), (Some(3), Some(3)));
    assert_eq!(keeper.figures_of(RunTimeKey::of_task("export")).map(|figures| figures.count), Some(3));
    assert_eq!(keeper.figures_of(RunTimeKey::of_tenant("export", "zoo")), None);
    assert_eq!(keeper.known("other", None, None), None);
}

#[tokio::test]
async fn what_is_known_outlasts_the_process() {
    let notes = MemoryStore::default();
    for life in 1..4 {
        let keeper = keeper();
        keeper.begin(&notes, "here").await.unwrap();
        assert_eq!(mail(&keeper), (life > 1).then_some((life - 1, 1)));
        mailed(&keeper, 1, life);
        assert_eq!(mail(&keeper), Some((life, 1)));
        for _ in 0..3 {
            keeper.exchange(&notes, false, at(life)).await.unwrap();
            assert_eq!(mail(&keeper), Some((life, 1)), "it is told once, wherever it is");
        }
    }
    assert_eq!(notes_of(&notes).await, ["run-times/here"]);
}

#[tokio::test]
async fn processes_know_what_others_have_measured() {
    let notes = MemoryStore::default();
    let both = [keeper(), keeper()];
    for (keeper, node) in both.iter().zip(["web1", "web2"]) {
        keeper.begin(&notes, node).await.unwrap();
    }
    for round in 1..4 {
        mailed(&both[0], 1, round * 10);
        mailed(&both[1], 2, round * 10 + 1);
        for keeper in both.iter().chain(&both) {
            keeper.exchange(&notes, true, at(round * 10)).await.unwrap();
        }
        assert_eq!(both.each_ref().map(mail), [Some((round * 2, 2)); 2]);
    }
    assert_eq!(notes_of(&notes).await, ["run-times/web1", "run-times/web2"]);
}

#[tokio::test]
async fn processes_of_one_name_add_to_one_note() {
    let notes = MemoryStore::default();
    let both = [keeper(), keeper()];
    for keeper in &both {
        keeper.begin(&notes, "web1").await.unwrap();
    }
    for round in 1..6 {
        for keeper in &both {
            mailed(keeper, 1, round);
            keeper.exchange(&notes, true, at(round)).await.unwrap();
        }
    }
    let third = keeper();
    third.begin(&notes, "web1").await.unwrap();
    assert_eq!(mail(&third), Some((10, 1)));
    assert_eq!(notes_of(&notes).await, ["run-times/web1"]);
}

#[tokio::test]
async fn what_nobody_writes_any_more_is_taken_over() {
    let notes = MemoryStore::default();
    for n in 0..3 {
        let gone = keeper();
        gone.begin(&notes, &format!("pod{n}")).await.unwrap();
        mailed(&gone, 1, 100 + n);
        gone.exchange(&notes, true, at(200)).await.unwrap();
    }
    let two_days = 2 * 24 * 60 * 60;
    let (living, other) = (keeper(), keeper());
    living.begin(&notes, "pod3").await.unwrap();
    other.begin(&notes, "pod4").await.unwrap();
    living.exchange(&notes, true, at(two_days)).await.unwrap();
    assert_eq!(notes_of(&notes).await.len(), 3, "they are not old enough");
    for _ in 0..2 {
        living.exchange(&notes, true, at(two_days + 201)).await.unwrap();
        other.exchange(&notes, true, at(two_days + 201)).await.unwrap();
        assert_eq!((mail(&living), mail(&other)), (Some((3, 1)), Some((3, 1))));
    }
    assert_eq!(notes_of(&notes).await, ["run-times/pod3"]);
    // Who has nothing new to say says that it lives.
    for day in 3..9 {
        living.exchange(&notes, true, at(day * two_days / 2)).await.unwrap();
        other.exchange(&notes, true, at(day * two_days / 2)).await.unwrap();
        assert_eq!(notes_of(&notes).await, ["run-times/pod3"], "{day}");
    }
    mailed(&living, 4, 5 * two_days);
    living.exchange(&notes, true, at(5 * two_days)).await.unwrap();
    other.exchange(&notes, true, at(5 * two_days)).await.unwrap();
    assert_eq!((mail(&living), mail(&other)), (Some((4, 4)), Some((4, 4))));
}

#[tokio::test]
async fn a_note_of_a_later_version_stays() {
    let notes = MemoryStore::default();
    let later = Some("9later".to_owned());
    let change = CompareAndSet { key: key_of("here"), expected: None, value: later.clone() };
    assert_eq!(notes.compare_and_set(change).await, Ok(true));
    let keeper = keeper();
    keeper.begin(&notes, "here").await.unwrap();
    mailed(&keeper, 1, 1);
    keeper.exchange(&notes, true, at(1)).await.unwrap();
    assert_eq!(notes.note(&key_of("here")).await, Ok(later));
    assert_eq!((mail(&keeper), notes_of(&notes).await.len()), (Some((1, 1)), 2));
}

/// Notes whose writes fail, before they happen or after that, in turn.
#[derive(Default)]
struct Flaky {
    notes: MemoryStore,
    writes: AtomicUsize,
}

#[async_trait]
impl Notes for Flaky {
    async fn note(&self, key: &str) -> Result<Option<String>, StoreError> {
        Notes::note(&self.notes, key).await
    }

    async fn notes(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        Notes::notes(&self.notes, prefix).await
    }

    async fn compare_and_set_all(
        &self,
        changes: Vec<CompareAndSet>,
        under: Option<Term>,
    ) -> Result<bool, StoreError> {
        let nth = self.writes.fetch_add(1, Ordering::SeqCst) % 3;
        if nth == 0 {
            return Err(StoreError::io("not written"));
        }
        let done = self.notes.compare_and_set_all(changes, under).await;
        if nth == 1 { Err(StoreError::io("perhaps written")) } else { done }
    }
}

#[tokio::test]
async fn a_run_counts_once_whatever_becomes_of_a_write() {
    let notes = Flaky::default();
    let keeper = keeper();
    keeper.begin(&notes, "here").await.unwrap();
    for run in 1..20 {
        mailed(&keeper, 1, run);
        let _ = keeper.exchange(&notes, run % 2 == 0, at(run)).await;
        assert_eq!(mail(&keeper), Some((run, 1)));
    }
    while keeper.exchange(&notes, false, at(20)).await.is_err() {}
    let next = self::keeper();
    next.begin(&notes, "here").await.unwrap();
    assert_eq!(mail(&next), Some((19, 1)));
}
