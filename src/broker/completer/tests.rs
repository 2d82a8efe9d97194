use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;
use crate::broker::{
    Backlog, BrokerFacts, BrokerNotes, BulkChanges, Condition, Consumer, DeadLetter, DeadLetterQueue, Events,
    FailedTasks, Inspect, Lanes, QueueCounts, Results, Sink, TenantBacklog,
};
use crate::core::Timestamp;
use crate::store::{
    ChordStore, DuplicateStore, GroupStore, MemoryStore, Notes, SharedRates, UniqueWindowStore,
};
use crate::task::clock::now;
use crate::task::{Arguments, PermitKeeper, Receipt, TaskId, TaskOptions, TrackedState};

/// A broker that refuses each publish with the same error, and burials with those that a test has prepared.
struct Refusing {
    error: BrokerError,
    burials: Mutex<VecDeque<BrokerError>>,
    tried: Mutex<Vec<TaskId>>,
    letters: Mutex<Vec<(TaskId, String)>>,
}

impl Refusing {
    fn new(error: BrokerError, burials: impl IntoIterator<Item = BrokerError>) -> Self {
        let burials = Mutex::new(burials.into_iter().collect());
        Self { error, burials, tried: Mutex::default(), letters: Mutex::default() }
    }
}

#[async_trait]
impl Broker for Refusing {
    fn name(&self) -> &'static str {
        "refusing"
    }

    fn facts(&self) -> BrokerFacts {
        BrokerFacts { is_shared: true, knows_all: false, delivery_limit: None }
    }

    fn condition(&self) -> Condition {
        Condition::default()
    }

    async fn declare(&self, _: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        Ok(Vec::new())
    }

    async fn publish(&self, message: Message, _: bool) -> Result<Receipt, BrokerError> {
        self.tried.lock().push(message.id);
        Err(self.error.clone())
    }

    async fn publish_all(&self, messages: Vec<Message>, unique: bool) -> Result<(), BrokerError> {
        for message in messages {
            self.publish(message, unique).await?;
        }
        Ok(())
    }

    fn consume(&self, _: &str, _: usize, _: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        Err(BrokerError::Closed)
    }

    async fn counts(&self, _: &str) -> Result<QueueCounts, BrokerError> {
        Ok(QueueCounts::default())
    }

    async fn dead_letters(&self, _: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        Ok(Vec::new())
    }

    async fn requeue_dead_letters(&self, _: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        Ok(Vec::new())
    }

    async fn close(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    fn results(&self) -> Option<&dyn Results> {
        None
    }

    fn lanes(&self) -> Option<&dyn Lanes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        None
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        None
    }

    fn notes(&self) -> Option<&dyn BrokerNotes> {
        None
    }

    fn backlog(&self) -> Option<&dyn Backlog> {
        None
    }

    fn events(&self) -> Option<&dyn Events> {
        None
    }

    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        Some(self)
    }

    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        None
    }

    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        None
    }

    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        None
    }
}

#[async_trait]
impl DeadLetterQueue for Refusing {
    async fn bury(&self, message: Message, reason: &str) -> Result<(), BrokerError> {
        if let Some(error) = self.burials.lock().pop_front() {
            return Err(error);
        }
        self.letters.lock().push((message.id, reason.to_owned()));
        Ok(())
    }

    fn dead_from_here(&self, _: &str) -> u64 {
        self.letters.lock().len() as u64
    }
}

/// A store that notes when it is given which record.
struct Recording {
    inner: MemoryStore,
    is_shared: bool,
    counts_chords: bool,
    puts: Mutex<Vec<(TaskResult, Instant)>>,
}

impl Recording {
    fn new(is_shared: bool, counts_chords: bool) -> Self {
        Self { inner: MemoryStore::default(), is_shared, counts_chords, puts: Mutex::default() }
    }
}

#[async_trait]
impl Store for Recording {
    async fn put(&self, result: TaskResult) -> Result<bool, StoreError> {
        self.puts.lock().push((result.clone(), Instant::now()));
        Store::put(&self.inner, result).await
    }

    async fn get(&self, id: &TaskId, now: Timestamp) -> Result<Option<TaskResult>, StoreError> {
        Store::get(&self.inner, id, now).await
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, StoreError> {
        Store::wait(&self.inner, id).await
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, StoreError> {
        Store::forget(&self.inner, id).await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        Store::sweep(&self.inner, now).await
    }

    async fn track(&self, state: TrackedState) -> Result<(), StoreError> {
        Store::track(&self.inner, state).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, StoreError> {
        Store::tracked(&self.inner, id).await
    }

    async fn untrack(&self, id: &TaskId) -> Result<(), StoreError> {
        Store::untrack(&self.inner, id).await
    }

    async fn revoke(&self, id: &TaskId, until: Timestamp) -> Result<(), StoreError> {
        Store::revoke(&self.inner, id, until).await
    }

    async fn revoked(&self, ids: &[TaskId], now: Timestamp) -> Result<Vec<TaskId>, StoreError> {
        Store::revoked(&self.inner, ids, now).await
    }

    fn is_known_revoked(&self, _: &TaskId, _: Timestamp) -> Option<bool> {
        None
    }

    fn reply_to(&self) -> Option<String> {
        None
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn chords(&self) -> Option<&dyn ChordStore> {
        Store::chords(&self.inner).filter(|_| self.counts_chords)
    }

    fn groups(&self) -> Option<&dyn GroupStore> {
        None
    }

    fn duplicates(&self) -> Option<&dyn DuplicateStore> {
        None
    }

    fn notes(&self) -> Option<&dyn Notes> {
        None
    }

    fn unique_windows(&self) -> Option<&dyn UniqueWindowStore> {
        None
    }

    fn permits(&self) -> Option<Arc<dyn PermitKeeper>> {
        None
    }
    fn shared_rates(&self) -> Option<&dyn SharedRates> {
        None
    }
}

fn nothing(_: &Message, _: &mut TaskResult) -> Option<Box<FollowUps>> {
    None
}

fn completer<'a>(store: &'a Recording, broker: &'a Refusing) -> Completer<'a> {
    Completer { store, broker, marks_sent: false, windows: None, plan_follow_ups: &nothing }
}

fn message(id: &str) -> Message {
    Message::new(id.into(), "task", Arguments::default(), "q", TaskOptions::default(), now())
}

/// Publishes the message `next`. Whoever tries for ever fails here, after an hour in which nobody waits.
async fn publish(broker: &Refusing, store: &Recording) {
    let completer = completer(store, broker);
    let published = completer.publish(vec![message("next")]);
    timeout(Duration::from_secs(3600), published).await.expect("it ends");
}

/// The state of the only record, and the name of its error.
fn only(store: &Recording) -> (TaskId, State, Option<String>) {
    let puts = store.puts.lock();
    let [(record, _)] = &puts[..] else { panic!("{puts:?}") };
    (record.id.clone(), record.state, record.error_type.clone())
}

fn failed() -> (TaskId, State, Option<String>) {
    ("next".into(), State::Failure, Some("Refused".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_given_up_once() {
    let store = Recording::new(false, true);
    let broker = Refusing::new(BrokerError::Invalid("the id has 300 bytes".to_owned()), []);
    publish(&broker, &store).await;
    assert_eq!(*broker.tried.lock(), [TaskId::from("next")]);
    let reason = "it was not published, and never can be: the id has 300 bytes".to_owned();
    assert_eq!(*broker.letters.lock(), [(TaskId::from("next"), reason)]);
    assert_eq!(only(&store), failed());
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_tried_until_it_is_kept_and_the_record_comes_after_it() {
    let (store, began) = (Recording::new(false, true), Instant::now());
    let passing = [BrokerError::io("the connection is lost"), BrokerError::Full("no room".to_owned())];
    let broker = Refusing::new(BrokerError::Refused("too large".to_owned()), passing);
    publish(&broker, &store).await;
    assert_eq!(broker.letters.lock().len(), 1);
    assert_eq!(only(&store), failed());
    let told = store.puts.lock()[0].1 - began;
    assert!(told >= Duration::from_millis(300), "told after {told:?}: the letter needs two pauses");
}

/// A letter can be too large as well, and a closed broker keeps none: the task has failed all the same.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_can_never_be_kept_holds_nobody_up() {
    for never in [BrokerError::Refused("too large".to_owned()), BrokerError::Closed] {
        let store = Recording::new(false, true);
        let broker = Refusing::new(BrokerError::Refused("too large".to_owned()), [never]);
        publish(&broker, &store).await;
        assert!(broker.letters.lock().is_empty());
        assert_eq!(only(&store), failed());
    }
}

/// The time between the record of the only member of a chord, which has failed, and that of the chord's body.
async fn between_member_and_body(store: &Recording) -> Duration {
    let broker = Refusing::new(BrokerError::Closed, []);
    Store::chords(&store.inner).unwrap().open_chord("g", 1).await.unwrap();
    let member = message("member");
    let body = TaskResult::of(&message("body"), State::Failure, now());
    let value = json!({"exc_type": "ValueError", "exc_message": ["broken"], "exc_module": "builtins"});
    let part = ChordPart {
        group: "g".to_owned(),
        id: member.id.clone(),
        index: Some(0),
        state: State::Failure,
        value: value.into(),
    };
    let then = Box::new(|parts: Vec<ChordPart>| {
        assert_eq!(parts.len(), 1);
        FollowUps { records: vec![body], ..FollowUps::default() }
    });
    let follow_ups = FollowUps { chords: vec![ChordEnd { part, then }], ..FollowUps::default() };
    let result = Some(TaskResult::of(&member, State::Failure, now()));
    let end = Settle::Ack { result, follow_ups: Some(Box::new(follow_ups)) };
    completer(store, &broker).end(&member, end).await;
    let puts = store.puts.lock();
    let [(first, wrote_member), (second, wrote_body)] = &puts[..] else { panic!("{puts:?}") };
    assert_eq!((first.id.as_str(), second.id.as_str()), ("member", "body"));
    *wrote_body - *wrote_member
}

/// A Python client looks at the member and then at the body, and raises the error of the first that has failed.
#[tokio::test(start_paused = true)]
async fn others_can_read_how_a_member_failed_before_its_chord_has() {
    let counted = between_member_and_body(&Recording::new(true, true)).await;
    assert!(counted >= CAUSE_FIRST, "{counted:?}");
    let uncounted = between_member_and_body(&Recording::new(true, false)).await;
    assert!(uncounted >= CAUSE_FIRST, "of a chord that can never be counted: {uncounted:?}");
    let alone = between_member_and_body(&Recording::new(false, true)).await;
    assert_eq!(alone, Duration::ZERO, "nobody else reads it");
}
