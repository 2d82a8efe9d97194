//! A broker all of whose functions panic, behind its guard.

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::*;
use crate::broker::{
    AgendaPlace, BrokerConnection, BrokerListener, BulkChange, BulkOutcome, BulkPick, CasOutcome, FailedTask,
    Hastened, KeptTask, LaneFacts, LaneLever, MessageLocation, QueueTenants, RecordFn, Remains, Removal,
    Retried, ScheduledTask, Settle, Settler, Standing, TaskEdit, TaskFilter, TaskPage, UndoOutcome,
    UnfinishedTask,
};
use crate::core::Timestamp;
use crate::protocol::control::{Reply, Request};
use crate::store::{CompareAndSet, Leadership, Notes, StoreError, Term};
use crate::task::{Context, LaneName, UniqueKey};

/// The names of the functions of a trait.
fn functions<'a>(source: &'a str, of: &str) -> Vec<&'a str> {
    let (_, body) = source.split_once(&format!("pub trait {of}:")).expect("the trait");
    let body = body.split("\n}").next().expect("its end");
    body.lines()
        .filter_map(|line| line.trim().trim_start_matches("async ").strip_prefix("fn "))
        .filter_map(|rest| rest.split('(').next())
        .collect()
}

/// A function with a default that is not forwarded would quietly replace the broker's own.
#[test]
fn each_function_of_a_broker_is_forwarded() {
    let own = [include_str!("mod.rs"), include_str!("abilities.rs"), include_str!("settlement.rs")].concat();
    for (source, of, least) in [
        (include_str!("../mod.rs"), "Broker", 24),
        (include_str!("../mod.rs"), "Consumer", 1),
        (include_str!("../delivery.rs"), "Settler", 4),
        (include_str!("../results.rs"), "Results", 2),
        (include_str!("../lane.rs"), "Lanes", 3),
        (include_str!("../unique_windows.rs"), "UniqueWindows", 2),
        (include_str!("../inspect.rs"), "Inspect", 5),
        (include_str!("../notes.rs"), "BrokerNotes", 2),
        (include_str!("../../store/notes.rs"), "Notes", 6),
        (include_str!("../backlog.rs"), "Backlog", 2),
        (include_str!("../tenant_backlog.rs"), "TenantBacklog", 2),
        (include_str!("../bulk.rs"), "BulkChanges", 4),
        (include_str!("../listener.rs"), "Events", 7),
        (include_str!("../dead_letter.rs"), "DeadLetterQueue", 2),
        (include_str!("../failed/mod.rs"), "FailedTasks", 6),
    ] {
        let (_, guarded) = own.split_once(&format!("impl {of} for Guarded")).expect("the guard of a trait");
        let guarded = guarded.split("\n}").next().expect("its end");
        let names = functions(source, of);
        assert!(names.len() >= least, "{of}: {names:?}");
        for name in names {
            assert!(guarded.contains(&format!(" fn {name}(")), "`{of}::{name}` is to be forwarded");
        }
    }
}

struct Broken;

#[async_trait]
impl Broker for Broken {
    fn name(&self) -> &'static str {
        panic!("name")
    }
    fn facts(&self) -> BrokerFacts {
        panic!("facts")
    }
    fn condition(&self) -> Condition {
        panic!("condition")
    }
    async fn declare(&self, _: &str) -> Result<(), BrokerError> {
        panic!("declare")
    }
    async fn queues(&self) -> Result<Vec<String>, BrokerError> {
        panic!("queues")
    }
    async fn publish(&self, _: Message, _: bool) -> Result<Receipt, BrokerError> {
        tokio::task::yield_now().await;
        panic!("publish")
    }
    fn begin_publish(&self, message: Arc<Message>, unique: bool) -> PublishFuture<'_> {
        if message.queue == "begun" {
            panic!("publish")
        }
        self.publish(Arc::unwrap_or_clone(message), unique).into()
    }
    async fn publish_all(&self, _: Vec<Message>, _: bool) -> Result<(), BrokerError> {
        panic!("publish_all")
    }
    fn consume(&self, queue: &str, _: usize, _: Sink) -> Result<Box<dyn Consumer>, BrokerError> {
        if queue == "consumed" { Ok(Box::new(Broken)) } else { panic!("consume") }
    }
    async fn counts(&self, _: &str) -> Result<QueueCounts, BrokerError> {
        panic!("counts")
    }
    async fn dead_letters(&self, _: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        panic!("dead_letters")
    }
    async fn requeue_dead_letters(&self, _: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        panic!("requeue_dead_letters")
    }
    async fn requeue_dead_letter(&self, _: &TaskId) -> Result<bool, BrokerError> {
        panic!("requeue_dead_letter")
    }
    async fn close(&self) -> Result<(), BrokerError> {
        panic!("close")
    }
    fn results(&self) -> Option<&dyn Results> {
        Some(self)
    }
    fn lanes(&self) -> Option<&dyn Lanes> {
        Some(self)
    }
    fn unique_windows(&self) -> Option<&dyn UniqueWindows> {
        Some(self)
    }
    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
    fn notes(&self) -> Option<&dyn BrokerNotes> {
        Some(self)
    }
    fn backlog(&self) -> Option<&dyn Backlog> {
        Some(self)
    }
    fn events(&self) -> Option<&dyn Events> {
        Some(self)
    }
    fn dead_letter_queue(&self) -> Option<&dyn DeadLetterQueue> {
        Some(self)
    }
    fn failed_tasks(&self) -> Option<&dyn FailedTasks> {
        Some(self)
    }
    fn tenant_backlog(&self) -> Option<&dyn TenantBacklog> {
        Some(self)
    }
    fn bulk_changes(&self) -> Option<&dyn BulkChanges> {
        Some(self)
    }
}

impl Consumer for Broken {
    fn set_prefetch(&self, _: usize) {
        panic!("set_prefetch")
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        panic!("drop")
    }
}

#[async_trait]
impl Results for Broken {
    async fn publish_canvas(
        &self,
        _: Vec<Message>,
        _: Vec<(String, u64)>,
        _: bool,
    ) -> Result<(), BrokerError> {
        panic!("publish_canvas")
    }
    async fn publish_chord_member(
        &self,
        _: Vec<Message>,
        _: Vec<(String, u64)>,
        _: &str,
        _: &TaskId,
    ) -> Result<(), BrokerError> {
        panic!("publish_chord_member")
    }
}

#[async_trait]
impl Lanes for Broken {
    async fn lane(&self, _: &LaneName) -> Result<Option<LaneFacts>, BrokerError> {
        panic!("lane")
    }
    async fn busy_lanes(&self, _: usize) -> Result<Vec<LaneFacts>, BrokerError> {
        panic!("busy_lanes")
    }
    async fn steer_lane(&self, _: &LaneName, _: LaneLever) -> Result<bool, BrokerError> {
        panic!("steer_lane")
    }
}

#[async_trait]
impl UniqueWindows for Broken {
    async fn holder(&self, _: &UniqueKey) -> Result<Option<TaskId>, BrokerError> {
        panic!("holder")
    }
    async fn release(&self, _: &Message) -> Result<(), BrokerError> {
        panic!("release")
    }
}

#[async_trait]
impl Inspect for Broken {
    async fn find(&self, _: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
        panic!("find")
    }
    async fn position(&self, _: &TaskId, _: usize) -> Result<Option<usize>, BrokerError> {
        panic!("position")
    }
    async fn list_unfinished(&self, _: &TaskFilter, _: usize) -> Result<Vec<UnfinishedTask>, BrokerError> {
        panic!("list_unfinished")
    }
    async fn page_unfinished(
        &self,
        _: &TaskFilter,
        _: &[Standing],
        _: Option<&str>,
        _: usize,
    ) -> Result<TaskPage<UnfinishedTask>, BrokerError> {
        panic!("page_unfinished")
    }
    async fn unfinished_ids(&self, _: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        panic!("unfinished_ids")
    }
    async fn page_unfinished_ids(
        &self,
        _: &TaskFilter,
        _: Option<&str>,
        _: usize,
    ) -> Result<TaskPage<TaskId>, BrokerError> {
        panic!("page_unfinished_ids")
    }
    async fn remove(&self, _: &TaskId, _: RecordFn) -> Result<Removal, BrokerError> {
        panic!("remove")
    }
}

#[async_trait]
impl BrokerNotes for Broken {
    fn notes(&self) -> &dyn Notes {
        self
    }
    async fn publish_with_cas(&self, _: Message, _: CompareAndSet) -> Result<CasOutcome, BrokerError> {
        panic!("publish_with_cas")
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
impl Backlog for Broken {
    async fn oldest_ready(&self, _: &str) -> Result<Option<Timestamp>, BrokerError> {
        panic!("oldest_ready")
    }
    async fn hasten(&self, _: &str, _: AgendaPlace, _: usize) -> Result<Hastened, BrokerError> {
        panic!("hasten")
    }
}

#[async_trait]
impl TenantBacklog for Broken {
    async fn tenants(&self, _: &str, _: usize) -> Result<QueueTenants, BrokerError> {
        panic!("tenants")
    }
    async fn line_before(&self, _: &TaskId, _: usize) -> Result<Option<usize>, BrokerError> {
        panic!("line_before")
    }
}

#[async_trait]
impl BulkChanges for Broken {
    async fn change_all(
        &self,
        _: Option<&str>,
        _: &BulkChange,
        _: Vec<BulkPick>,
    ) -> Result<BulkOutcome, BrokerError> {
        panic!("change_all")
    }
    async fn kept_for(&self, _: &str, _: usize) -> Result<Vec<KeptTask>, BrokerError> {
        panic!("kept_for")
    }
    async fn undo(
        &self,
        _: &str,
        _: Vec<(KeptTask, Option<u64>)>,
        _: bool,
    ) -> Result<UndoOutcome, BrokerError> {
        panic!("undo")
    }
    async fn forget_kept(&self, _: &str) -> Result<(), BrokerError> {
        panic!("forget_kept")
    }
}

#[async_trait]
impl Events for Broken {
    fn node(&self) -> Option<String> {
        panic!("node")
    }
    fn set_listener(&self, _: Arc<dyn BrokerListener>) {
        panic!("set_listener")
    }
    async fn broadcast_revoke(&self, _: &[TaskId], _: bool) -> Result<(), BrokerError> {
        panic!("broadcast_revoke")
    }
    async fn ask(&self, _: Request, _: Duration) -> Result<Vec<Reply>, BrokerError> {
        panic!("ask")
    }
    fn connection(&self) -> Option<BrokerConnection> {
        panic!("connection")
    }
    fn queue_arguments(&self, _: &str) -> Map<String, Value> {
        panic!("queue_arguments")
    }
    async fn scheduled(&self, _: usize) -> Vec<ScheduledTask> {
        panic!("scheduled")
    }
}

#[async_trait]
impl DeadLetterQueue for Broken {
    async fn bury(&self, _: Message, _: &str) -> Result<(), BrokerError> {
        panic!("bury")
    }
    fn dead_from_here(&self, _: &str) -> u64 {
        panic!("dead_from_here")
    }
}

#[async_trait]
impl FailedTasks for Broken {
    async fn keep_failed(&self, _: FailedTask) -> Result<(), BrokerError> {
        panic!("keep_failed")
    }
    async fn list_failed(&self, _: &TaskFilter, _: usize) -> Result<Vec<FailedTask>, BrokerError> {
        panic!("list_failed")
    }
    async fn page_failed(
        &self,
        _: &TaskFilter,
        _: Option<&str>,
        _: usize,
    ) -> Result<TaskPage<FailedTask>, BrokerError> {
        panic!("page_failed")
    }
    async fn failed_ids(&self, _: &TaskFilter) -> Result<Vec<TaskId>, BrokerError> {
        panic!("failed_ids")
    }
    async fn retry_failed(&self, _: &[TaskId], _: Option<&TaskEdit>) -> Result<Retried, BrokerError> {
        panic!("retry_failed")
    }
    async fn delete_failed(&self, _: &[TaskId]) -> Result<Vec<TaskId>, BrokerError> {
        panic!("delete_failed")
    }
    fn dropped_failed(&self) -> u64 {
        panic!("dropped_failed")
    }
}

/// The guard of a broken broker, which is never dropped: nobody catches that.
fn guarded() -> Arc<dyn Broker> {
    let broken: Arc<dyn Broker> = Arc::new(Broken);
    std::mem::forget(Arc::clone(&broken));
    GuardedBroker::over(broken)
}

fn message() -> Message {
    Context::detached().message().clone()
}

/// Each function that has an error is called twice, and each of its panics is one.
#[tokio::test]
async fn a_panic_is_an_error() {
    let broker = guarded();
    let id = TaskId::from("a");
    let ids = std::slice::from_ref(&id);
    let (lane, key) = (LaneName::new("s", "k"), UniqueKey::new("s", "k"));
    let change = || CompareAndSet { key: "k".to_owned(), expected: None, value: None };
    let record = || -> RecordFn { Box::new(|_| Remains::default()) };
    let sink: Sink = Arc::new(|_| ());
    let results = broker.results().unwrap();
    let lanes = broker.lanes().unwrap();
    let windows = broker.unique_windows().unwrap();
    let inspect = broker.inspect().unwrap();
    let events = broker.events().unwrap();
    let own = broker.notes().unwrap();
    let letters = broker.dead_letter_queue().unwrap();
    let failed = broker.failed_tasks().unwrap();
    let bulk = broker.bulk_changes().unwrap();
    let to_another = BulkChange::Move { to: "other".to_owned() };
    let (all, task) = (TaskFilter::new(), || FailedTask {
        message: message(),
        reason: "r".to_owned(),
        failed_at: Timestamp::ZERO,
        expires_at: None,
    });
    let wait = Duration::ZERO;
    // This one panics before it has a future.
    let begun = Arc::new(Message { queue: "begun".to_owned(), ..message() });
    for _ in 0..2 {
        let said = [
            ("declare", broker.declare("q").await.err()),
            ("queues", broker.queues().await.err()),
            ("publish", broker.publish(message(), true).await.err()),
            ("publish", broker.begin_publish(Arc::clone(&begun), true).await.err()),
            ("publish_all", broker.publish_all(vec![message()], true).await.err()),
            ("consume", broker.consume("q", 1, Arc::clone(&sink)).err()),
            ("counts", broker.counts("q").await.err()),
            ("dead_letters", broker.dead_letters(1).await.err()),
            ("requeue_dead_letters", broker.requeue_dead_letters(ids).await.err()),
            ("requeue_dead_letter", broker.requeue_dead_letter(&id).await.err()),
            ("close", broker.close().await.err()),
            ("publish_canvas", results.publish_canvas(Vec::new(), Vec::new(), true).await.err()),
            (
                "publish_chord_member",
                results.publish_chord_member(Vec::new(), Vec::new(), "g", &id).await.err(),
            ),
            ("lane", lanes.lane(&lane).await.err()),
            ("busy_lanes", lanes.busy_lanes(1).await.err()),
            ("steer_lane", lanes.steer_lane(&lane, LaneLever::Unblock).await.err()),
            ("holder", windows.holder(&key).await.err()),
            ("release", windows.release(&message()).await.err()),
            ("find", inspect.find(&id).await.err()),
            ("position", inspect.position(&id, 1).await.err()),
            ("list_unfinished", inspect.list_unfinished(&all, 1).await.err()),
            ("page_unfinished", inspect.page_unfinished(&all, &[], None, 1).await.err()),
            ("unfinished_ids", inspect.unfinished_ids(&all).await.err()),
            ("page_unfinished_ids", inspect.page_unfinished_ids(&all, None, 1).await.err()),
            ("remove", inspect.remove(&id, record()).await.err()),
            ("publish_with_cas", own.publish_with_cas(message(), change()).await.err()),
            ("oldest_ready", broker.backlog().unwrap().oldest_ready("q").await.err()),
            ("hasten", broker.backlog().unwrap().hasten("q", (Timestamp::ZERO, 0), 1).await.err()),
            ("tenants", broker.tenant_backlog().unwrap().tenants("q", 1).await.err()),
            ("line_before", broker.tenant_backlog().unwrap().line_before(&id, 1).await.err()),
            ("change_all", bulk.change_all(None, &to_another, Vec::new()).await.err()),
            ("kept_for", bulk.kept_for("act", 1).await.err()),
            ("undo", bulk.undo("act", Vec::new(), true).await.err()),
            ("forget_kept", bulk.forget_kept("act").await.err()),
            ("broadcast_revoke", events.broadcast_revoke(ids, true).await.err()),
            ("ask", events.ask(Request::default(), wait).await.err()),
            ("bury", letters.bury(message(), "r").await.err()),
            ("keep_failed", failed.keep_failed(task()).await.err()),
            ("list_failed", failed.list_failed(&all, 1).await.err()),
            ("page_failed", failed.page_failed(&all, None, 1).await.err()),
            ("failed_ids", failed.failed_ids(&all).await.err()),
            ("retry_failed", failed.retry_failed(ids, None).await.err()),
            ("delete_failed", failed.delete_failed(ids).await.err()),
        ];
        for (what, error) in said {
            let panicked = BrokerError::Panicked(format!("the broker panicked in `{what}`: {what}"));
            assert_eq!(error, Some(panicked));
        }
        let notes = own.notes();
        let said = [
            ("note", notes.note("k").await.err()),
            ("notes", notes.notes("k").await.err()),
            ("compare_and_set", notes.compare_and_set(change()).await.err()),
            ("compare_and_set_all", notes.compare_and_set_all(vec![change()], None).await.err()),
            ("lead", notes.lead("e", "c", wait, Timestamp::ZERO).await.err()),
            ("resign", notes.resign("e", "c").await.err()),
        ];
        for (what, error) in said {
            let panicked = StoreError::Panicked(format!("the broker panicked in `{what}`: {what}"));
            assert_eq!(error, Some(panicked));
        }
        assert_eq!((broker.name(), broker.facts()), ("the program's own", CAUTIOUS));
        assert_eq!(broker.condition(), Condition::default());
        assert_eq!((events.node(), events.connection()), (None, None));
        assert!(events.queue_arguments("q").is_empty() && events.scheduled(1).await.is_empty());
        assert_eq!((letters.dead_from_here("q"), failed.dropped_failed()), (0, 0));
        let consumer = broker.consume("consumed", 1, Arc::clone(&sink)).unwrap();
        consumer.set_prefetch(2);
        drop(consumer); // panics, too
    }
}

/// Panics as often as it is told to, and then notes what it is told.
struct Strikes {
    left: Mutex<u32>,
    told: Mutex<Vec<String>>,
}

impl Strikes {
    fn new(left: u32) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(left), told: Mutex::default() })
    }

    fn strike(&self) {
        let mut left = self.left.lock();
        if *left > 0 {
            *left -= 1;
            panic!("a settler panics");
        }
    }
}

impl Settler for Strikes {
    fn note_started(&self, _: u64) {
        self.strike();
    }

    fn write_starts(&self) {
        self.strike();
    }

    fn check_fence(&self, _: u64) -> Option<oneshot::Receiver<bool>> {
        self.strike();
        None
    }

    fn settle(&self, tag: u64, settle: Settle, _: Option<oneshot::Sender<Result<(), BrokerError>>>) {
        self.strike();
        self.told.lock().push(format!("{tag} {settle:?}"));
    }
}

fn delivery(settler: &Arc<Strikes>) -> Delivery {
    settlement::guarded(Delivery::new(7, Arc::new(message()), Arc::<Strikes>::clone(settler)))
}

#[tokio::test]
async fn a_delivery_whose_settlement_panics_goes_back() {
    let end = || Settle::Ack { result: None, follow_ups: None };
    for (panics, told) in [
        (0, vec!["7 Ack { result: None, follow_ups: None }"]),
        (1, vec!["7 Return { crashed: true }"]),
        (2, vec!["7 Return { crashed: true }"]),
        (9, vec![]),
    ] {
        let settler = Strikes::new(panics);
        delivery(&settler).settle(end());
        assert_eq!(*settler.told.lock(), told, "after {panics} panics");
    }
    let settler = Strikes::new(1);
    assert!(delivery(&settler).settle_and_wait(end()).await.is_err(), "an end that is not safe");
    // A delivery that is dropped goes back in the same way.
    let settler = Strikes::new(1);
    drop(delivery(&settler));
    assert_eq!(*settler.told.lock(), ["7 Return { crashed: true }"]);
}

#[tokio::test]
async fn a_fence_that_panics_does_not_count_an_end_twice() {
    let mut delivery = delivery(&Strikes::new(99));
    delivery.started();
    Delivery::note_starts([&mut delivery].into_iter());
    assert!(!delivery.is_still_ours().await);
}
