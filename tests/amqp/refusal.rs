//! What RabbitMQ refuses for good is told at once, and costs nobody else anything; what is full slows those who send to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use celeriac::broker::amqp::{AmqpBroker, AmqpOptions, QueueSetup};
use celeriac::broker::conformance::{Inbox, sample};
use celeriac::broker::{
    Activity, Broker, BrokerError, BrokerListener, ControlRequest, Delivery, FollowUps, Settle,
};
use celeriac::store::StoreError;
use celeriac::task::{
    Durability, EnqueueError, EventFunnel, EventGroup, EventStream, Message, TaskOptions, TaskResult,
};
use celeriac::{Context, State, TaskId, task};
use futures_util::future::{BoxFuture, join, join_all};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::kit::{self, LONG, add, note, notes, status_of, until};
use crate::rabbit::{builder, impatient, runtime, vhost};
use crate::services::{Proxy, RabbitMq, RabbitMqOptions, blocking};

#[task(queue = "io")]
async fn larger(ctx: Context, size: usize) -> String {
    note(ctx.id(), "ran");
    "x".repeat(size)
}

#[task(queue = "io")]
async fn length(text: String) -> usize {
    text.len()
}

const TWENTY_YEARS: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// RabbitMQ takes no time to live of more than ten years, and closes the channel of who sends one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_in_twenty_years_is_one_that_the_worker_looks_at() {
    let url = vhost().await;
    let celeriac = runtime(&url).await;
    let client = || celeriac.client();
    // One for which nobody waits bears its time to live as RabbitMQ's own.
    let alone = larger::s(1).ignore_result(true).expires(TWENTY_YEARS).send(client()).await.unwrap();
    until("it runs", async || notes(alone.id()).len() == 1).await;
    let sum = add::s(1, 1).expires(TWENTY_YEARS).send(client()).await.unwrap();
    assert_eq!(sum.get(LONG).await, Ok(2));
    let chain =
        larger::s(3).then(length::p().expires(TWENTY_YEARS)).then(add::p(1).expires(5 * TWENTY_YEARS));
    let sent = chain.send(client()).await.unwrap();
    let in_time = tokio::time::timeout(LONG, sent.get(LONG)).await.unwrap();
    assert_eq!(in_time, Ok(4));
    celeriac.shutdown().await.unwrap();
}

/// A node that takes no message of more than 30 KB: each that is larger closes the channel on which all publish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_is_refused_and_nothing_else_is() {
    let node = blocking(|| RabbitMqOptions::new().config("max_message_size = 30000").start()).await;
    let url = node.url();
    // Whoever waits as long as a publish may take waits too long for this test.
    let patient = AmqpOptions::default().with_publish_timeout(10 * LONG);
    let celeriac = builder(&url).amqp_options(patient).start().await.unwrap();
    let client = || celeriac.client();
    let sent = join(
        join_all((0..5).map(|_| length::s("x".repeat(50_000)).send(client()).into_future())),
        join_all((0..300).map(|n| add::s(n, 1).send(client()).into_future())),
    );
    let (refused, sums) = tokio::time::timeout(LONG, sent).await.expect("all are answered");
    for error in refused {
        let error = error.expect_err("a refusal");
        assert!(matches!(error, EnqueueError::Refused { .. }) && error.is_permanent(), "{error:?}");
        assert!(error.to_string().contains("message size"), "{error}");
    }
    for (n, sum) in (0..).zip(sums) {
        assert_eq!(sum.unwrap().get(LONG).await, Ok(n + 1));
    }
    // As a step it fails, and what was to follow from it; the one before it has succeeded, once.
    let chain = larger::s(1_500_000).then(length::p()).then(add::p(1)).send(client()).await.unwrap();
    let error = tokio::time::timeout(LONG, chain.get(LONG)).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("message size"), "{error}");
    let step = chain.parent().expect("a step");
    let first = step.parent().expect("the first");
    let told = |id: &str| celeriac.async_result(id);
    assert_eq!(told(step.id().as_str()).state().await, Ok(State::Failure));
    assert_eq!(told(first.id().as_str()).state().await, Ok(State::Success));
    until("its delivery is done with", async || {
        let status = status_of(&celeriac, "io").await;
        (status.running, status.ready) == (0, 0)
    })
    .await;
    assert_eq!(notes(first.id()).len(), 1);
    assert_eq!(add::s(2, 2).send(client()).await.unwrap().get(LONG).await, Ok(4));
    celeriac.shutdown_within(Duration::from_secs(20)).await.unwrap();
}

/// Headers that fit no frame would close the connection, for RabbitMQ cannot read on behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_fit_no_frame_are_refused_before_they_are_sent() {
    let url = vhost().await;
    let broker: Arc<dyn Broker> = Arc::new(AmqpBroker::connect(&url, AmqpOptions::default()).await.unwrap());
    let mut large = sample("q", 0, Durability::Disk);
    large.headers.0.insert("x".to_owned(), "y".repeat(200_000).into());
    let error = broker.publish(large, false).await.unwrap_err();
    assert!(matches!(&error, BrokerError::Refused(text) if text.contains("headers")), "{error}");
    publish(&broker, "q", 1..2).await;
    let mut inbox = Inbox::open(&broker, "q", 1);
    assert_eq!(inbox.next().await.message().id.as_str(), "q-1");
    drop(inbox);
    broker.close().await.unwrap();
}

/// Hears what became of tasks that never came.
#[derive(Default)]
struct Heard(Mutex<Vec<TaskResult>>);

impl Heard {
    fn all(&self) -> Vec<TaskResult> {
        self.0.lock().unwrap().clone()
    }
}

impl BrokerListener for Heard {
    fn options(&self, _: &str) -> Option<TaskOptions> {
        None
    }

    fn plan_follow_ups(&self, _: &Message, _: &mut TaskResult) -> Option<Box<FollowUps>> {
        None
    }

    fn over(&self, record: TaskResult, _: Option<&Message>) {
        self.0.lock().unwrap().push(record);
    }

    fn end(&self, record: TaskResult, message: Option<&Message>) -> BoxFuture<'static, ()> {
        self.over(record, message);
        Box::pin(std::future::ready(()))
    }

    fn events(&self, groups: &[EventGroup]) -> EventStream {
        EventFunnel::default().listen(groups)
    }

    fn activity(&self) -> Activity {
        Activity::default()
    }

    fn parked(&self, _: &Arc<Message>) -> bool {
        false
    }

    fn lost(&self, _: Vec<u64>) {}

    fn revoked(&self, _: Vec<TaskId>, _: bool) -> BoxFuture<'static, Result<Vec<TaskId>, StoreError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn control(&self, _: ControlRequest) -> BoxFuture<'static, Option<Value>> {
        Box::pin(std::future::ready(None))
    }
}

fn followed_by(messages: Vec<Message>) -> Settle {
    let follow_ups = FollowUps { messages, ..FollowUps::default() };
    Settle::Ack { result: None, follow_ups: Some(Box::new(follow_ups)) }
}

async fn publish(broker: &Arc<dyn Broker>, queue: &str, range: std::ops::Range<usize>) {
    for n in range {
        broker.publish(sample(queue, n, Durability::Disk), false).await.unwrap();
    }
}

/// The address of a vhost for a user who may make no queue but `q` and our own. It is called once in a process.
async fn limited() -> String {
    let url = vhost().await;
    let name = url.rsplit('/').next().unwrap().to_owned();
    blocking(move || {
        let node = RabbitMq::shared();
        node.ctl(&["add_user", "limited", "limited"]);
        node.ctl(&["set_permissions", "-p", &name, "limited", "^(q|celer.*)$", ".*", ".*"]);
    })
    .await;
    url.replace("guest:guest", "limited:limited")
}

/// A step into a queue that this user may not make fails with the reason and is kept; the delivery is done with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_to_where_nobody_may_send_fails_and_is_a_dead_letter() {
    let limited = limited().await;
    let broker: Arc<dyn Broker> =
        Arc::new(AmqpBroker::connect(&limited, AmqpOptions::default()).await.unwrap());
    let heard = Arc::new(Heard::default());
    broker.events().unwrap().set_listener(Arc::clone(&heard) as _);
    let error = broker.publish(sample("forbidden", 0, Durability::Disk), false).await.unwrap_err();
    assert!(matches!(&error, BrokerError::Refused(text) if text.contains("set_permissions")), "{error}");
    let mut inbox = Inbox::open(&broker, "q", 2);
    publish(&broker, "q", 0..4).await;
    for n in 0..4 {
        let next = sample("forbidden", n, Durability::Disk);
        inbox.next().await.settle_and_wait(followed_by(vec![next])).await.unwrap();
    }
    let ids = |records: &[TaskResult]| records.iter().map(|r| r.id.to_string()).collect::<Vec<_>>();
    let records = heard.all();
    assert_eq!(ids(&records), ["forbidden-0", "forbidden-1", "forbidden-2", "forbidden-3"]);
    for record in &records {
        assert_eq!((record.state, record.error_type.as_deref()), (State::Failure, Some("Refused")));
        assert!(record.errors[0].contains("ACCESS_REFUSED"), "{:?}", record.errors);
    }
    let letters = broker.dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 4);
    assert!(letters.iter().all(|l| l.message.queue == "forbidden" && l.reason.contains("never can be")));
    let queue = broker.dead_letter_queue().unwrap();
    assert_eq!((queue.dead_from_here("forbidden"), queue.dead_from_here("q")), (4, 0));
    inbox.is_quiet(&broker, "q").await;
    drop(inbox);
    broker.close().await.unwrap();
}

/// Takes RabbitMQ away at the first refusal of a task: when the refusal is logged, before the dead letter is sent.
struct TakesAway {
    proxy: Arc<Proxy>,
    is_done: AtomicBool,
    is_away: Arc<Notify>,
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for TakesAway {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut refusal = Refusal(false);
        event.record(&mut refusal);
        if !refusal.0 || self.is_done.swap(true, Ordering::SeqCst) {
            return;
        }
        self.proxy.refuse();
        let (start, open) = (Instant::now(), || self.proxy.connections());
        while open() > 0 {
            assert!(start.elapsed() < LONG, "{} connections are open", open());
            std::thread::yield_now();
        }
        self.is_away.notify_one();
    }
}

/// Whether an event tells that a task was refused.
struct Refusal(bool);

impl tracing::field::Visit for Refusal {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 |= field.name() == "message" && format!("{value:?}") == "FAILURE";
    }
}

#[test]
fn a_connection_that_goes_before_a_dead_letter_is_sent_costs_no_letter() {
    kit::alone("refusal::a_connection_that_goes_in_a_process_of_its_own");
}

/// The first refused step is told when its letter is there, however long RabbitMQ is away, and so are the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a subscriber for all threads; run by `a_connection_that_goes_before_a_dead_letter_is_sent_costs_no_letter`"]
async fn a_connection_that_goes_in_a_process_of_its_own() {
    let limited = limited().await;
    let proxy = Arc::new(blocking(|| Proxy::start(RabbitMq::shared().address())).await);
    let is_away = Arc::new(Notify::new());
    let (way, told) = (Arc::clone(&proxy), Arc::clone(&is_away));
    let takes_away = TakesAway { proxy: way, is_done: AtomicBool::new(false), is_away: told };
    let subscriber = tracing_subscriber::registry().with(LevelFilter::ERROR).with(takes_away);
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let patience = impatient().publish_timeout;
    let broker = AmqpBroker::connect(&proxy.url(&limited), impatient()).await.unwrap();
    let broker: Arc<dyn Broker> = Arc::new(broker);
    let heard = Arc::new(Heard::default());
    broker.events().unwrap().set_listener(Arc::clone(&heard) as _);
    let step = |n| followed_by(vec![sample("forbidden", n, Durability::Disk)]);
    let mut inbox = Inbox::open(&broker, "q", 2);
    publish(&broker, "q", 0..4).await;
    inbox.next().await.settle(step(0));
    tokio::time::timeout(LONG, is_away.notified()).await.expect("it is refused");
    // For longer than a publish waits.
    let away = Instant::now();
    while away.elapsed() < 2 * patience {
        broker.publish(sample("q", 4, Durability::Disk), false).await.unwrap_err();
    }
    assert!(heard.all().is_empty(), "{:?}", heard.all());
    proxy.resume();
    until("what was delivered has come again", async || broker.counts("q").await.unwrap().unsettled == 2)
        .await;
    for n in 1..4 {
        inbox.next().await.settle(step(n));
    }
    until("each is told", async || heard.all().len() == 4).await;
    let sorted = |ids: Vec<&TaskId>| {
        let mut ids: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
        ids.sort();
        ids
    };
    let all = ["forbidden-0", "forbidden-1", "forbidden-2", "forbidden-3"];
    let records = heard.all();
    assert_eq!(sorted(records.iter().map(|record| &record.id).collect()), all);
    assert!(records.iter().all(|record| record.state == State::Failure));
    let letters = broker.dead_letters(10).await.unwrap();
    assert_eq!(sorted(letters.iter().map(|letter| &letter.message.id).collect()), all);
    until("all are acknowledged", async || {
        let counts = broker.counts("q").await.unwrap();
        (counts.ready, counts.unsettled) == (0, 0)
    })
    .await;
    drop(inbox);
    broker.close().await.unwrap();
}

/// Eight follow-ups of a full queue wait, with a prefetch of four, and what has nothing to do with it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_does_not_halt_the_queue_before_it() {
    let url = vhost().await;
    let mut setup = QueueSetup::default();
    setup.arguments.insert("x-max-length".into(), json!(1));
    setup.arguments.insert("x-overflow".into(), json!("reject-publish"));
    let options = AmqpOptions::default().queue("full", setup);
    let broker: Arc<dyn Broker> = Arc::new(AmqpBroker::connect(&url, options).await.unwrap());
    publish(&broker, "full", 0..1).await;
    let mut inbox = Inbox::open(&broker, "q", 4);
    publish(&broker, "q", 0..8).await;
    for n in 1..9 {
        inbox.next().await.settle(followed_by(vec![sample("full", n, Durability::Disk)]));
    }
    publish(&broker, "q", 8..20).await;
    for _ in 8..20 {
        let delivery = inbox.next().await;
        delivery.settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await.unwrap();
    }
    // Emptied, it gets all that was kept, once.
    let mut emptied = Inbox::open(&broker, "full", 20);
    let mut came: Vec<String> = Vec::new();
    let taken: Vec<Delivery> = emptied.take(9).await;
    for delivery in taken {
        came.push(delivery.message().id.to_string());
        delivery.settle(Settle::Ack { result: None, follow_ups: None });
    }
    came.sort();
    assert_eq!(came, (0..9).map(|n| format!("full-{n}")).collect::<Vec<_>>());
    emptied.is_quiet(&broker, "full").await;
    until("all are acknowledged", async || {
        let counts = broker.counts("q").await.unwrap();
        (counts.ready, counts.unsettled) == (0, 0)
    })
    .await;
    drop((inbox, emptied));
    broker.close().await.unwrap();
}

/// A user or a virtual host that is wrong is not an absence.
#[tokio::test]
async fn a_start_says_whether_nobody_is_there_or_nobody_is_let_in() {
    kit::quiet();
    let url = vhost().await;
    let start = async |url: String| builder(&url).start().await.err().expect("an error").to_string();
    let password = start(url.replace("guest:guest", "guest:secret")).await;
    assert!(password.contains("refuses the user or the password"), "{password}");
    let (host, _) = url.rsplit_once('/').unwrap();
    let missing = start(format!("{host}/nowhere")).await;
    assert!(missing.contains("refuses the virtual host") && missing.contains("`nowhere`"), "{missing}");
    for error in [password, missing] {
        assert!(!error.contains("start it") && !error.contains("secret"), "{error}");
    }
}
