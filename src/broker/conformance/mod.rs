//! The promises of a [`Broker`], one test each, for those who write one.
//!
//! The subject says how the broker is opened, and every promise becomes a test of its own name:
//!
//! ```ignore
//! use celeriac::broker::conformance::BrokerUnderTest;
//!
//! struct Mine { broker: Arc<MyBroker>, store: Arc<MyStore> }
//!
//! #[async_trait::async_trait]
//! impl BrokerUnderTest for Mine {
//!     const DURABILITY: Durability = Durability::Disk;
//!     async fn open() -> Self { /* new and empty */ }
//!     fn broker(&self) -> Arc<dyn Broker> { self.broker.clone() }
//!     fn store(&self) -> Arc<dyn Store> { self.store.clone() }
//!     async fn reopen(self) -> Option<Self> { /* close it, open it again */ }
//!     async fn crash(self) -> Option<Self> { /* as after `kill -9`, open it again */ }
//! }
//!
//! celeriac::broker_conformance!(Mine, durable); // without `durable`: what needs no disk
//! ```
//!
//! The tests await deliveries and never sleep; they take two minutes of silence for a failure. They need `tokio`
//! with its macros and its multi-threaded runtime among the development dependencies.

mod bulk;
mod consuming;
mod failed;
mod finding;
mod follow_ups;
mod lanes;
mod limits;
mod order;
mod settling;
mod survival;
mod tenants;
mod unique_windows;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    Broker, BrokerError, Consumer, Delivery, FailedTasks, Inspect, Lanes, MessageLocation, QueueCounts,
    Results, Settle, UniqueWindows,
};
use crate::core::Timestamp;
use crate::store::Store;
use crate::task::clock::now;
use crate::task::{Arguments, Durability, Message, State, TaskId, TaskOptions, TaskResult};

pub use bulk::*;
pub use consuming::*;
pub use failed::*;
pub use finding::*;
pub use follow_ups::*;
pub use lanes::*;
pub use limits::{LIMITS, Limit};
pub use order::*;
pub use settling::*;
pub use survival::*;
pub use tenants::*;
pub use unique_windows::*;

/// A broker under test, with its store.
#[async_trait]
pub trait BrokerUnderTest: Sized + Send + Sync + 'static {
    /// The durability that the receipt of a task states.
    const DURABILITY: Durability;
    /// The number of runs of one message that may end with their worker; at that number it is a dead letter.
    const DELIVERY_LIMIT: u32 = super::embedded::DEFAULT_DELIVERY_LIMIT;
    /// The abilities of the broker. Where it lacks one, the tests expect something else; they leave nothing out.
    const ABILITIES: Abilities = Abilities::ALL;

    /// Opens a new broker with nothing in it.
    async fn open() -> Self;
    /// The broker under test.
    fn broker(&self) -> Arc<dyn Broker>;
    /// The store in which the results of settled tasks are.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes the broker and opens it again; `None` if nothing survives that.
    async fn reopen(self) -> Option<Self> {
        None
    }

    /// Opens the broker again as `kill -9` would leave it; `None` if nothing survives that.
    async fn crash(self) -> Option<Self> {
        None
    }
}

/// The abilities that not every broker has. What else is expected follows from the traits that the broker [hands
/// out](Broker) and from [`BrokerFacts::knows_all`](crate::broker::BrokerFacts::knows_all).
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// A message of a higher priority comes first. Otherwise priorities mean nothing, and messages come in order
    /// of arrival.
    pub priorities: bool,
    /// A message that goes back before it started is where it was. Otherwise it is somewhere in its queue.
    pub unstarted_keep_their_place: bool,
    /// A message that goes back with a crash counted is where it was. Otherwise it is at the end of its queue.
    pub crashed_keep_their_place: bool,
    /// The first run that ends with its process is counted. Otherwise only those after it are.
    pub first_crash_is_counted: bool,
    /// The counts are right when the question is asked. Otherwise they are right soon after.
    pub counts_at_once: bool,
    /// Messages that wait for their ETA are counted. Otherwise only those are that wait in this process.
    pub counts_scheduled: bool,
    /// Each ready message that is counted will start. Otherwise a copy of a message that was taken out or sent
    /// anew counts as well, until its turn comes.
    pub counts_no_copies: bool,
}

impl Abilities {
    /// A broker that has all abilities.
    pub const ALL: Self = Self {
        priorities: true,
        unstarted_keep_their_place: true,
        crashed_keep_their_place: true,
        first_crash_is_counted: true,
        counts_at_once: true,
        counts_scheduled: true,
        counts_no_copies: true,
    };
}

/// How long a silence is taken for a broken promise.
const PATIENCE: Duration = Duration::from_secs(120);

/// A consumer whose deliveries are awaited one by one.
pub struct Inbox {
    consumer: Box<dyn Consumer>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
}

impl Inbox {
    /// Consumes `queue`.
    ///
    /// # Panics
    /// The broker refuses the consumer.
    pub fn open(broker: &Arc<dyn Broker>, queue: &str, prefetch: usize) -> Self {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let sink = Arc::new(move |batch: Vec<Delivery>| {
            for delivery in batch {
                let _ = sender.send(delivery); // if the inbox is gone, the delivery is dropped and goes back
            }
        });
        let consumer = broker.consume(queue, prefetch, sink).expect("a consumer");
        Self { consumer, deliveries }
    }

    /// Awaits the next delivery.
    ///
    /// # Panics
    /// No delivery comes within two minutes.
    pub async fn next(&mut self) -> Delivery {
        let next = tokio::time::timeout(PATIENCE, self.deliveries.recv()).await;
        next.expect("a delivery within two minutes").expect("the consumer was dropped by its broker")
    }

    /// Awaits the next `n` deliveries.
    ///
    /// # Panics
    /// Fewer deliveries come.
    pub async fn take(&mut self, n: usize) -> Vec<Delivery> {
        let mut taken = Vec::with_capacity(n);
        while taken.len() < n {
            taken.push(self.next().await);
        }
        taken
    }

    /// Changes how many deliveries may be unsettled.
    pub fn set_prefetch(&self, prefetch: usize) {
        self.consumer.set_prefetch(prefetch);
    }

    /// The further deliveries that have come by now.
    ///
    /// # Panics
    /// The broker does not answer.
    pub async fn rest(&mut self, broker: &Arc<dyn Broker>, queue: &str) -> Vec<Delivery> {
        counts(broker, queue).await;
        std::iter::from_fn(|| self.deliveries.try_recv().ok()).collect()
    }

    /// Makes sure that no further delivery has come.
    ///
    /// # Panics
    /// There was one.
    pub async fn is_quiet(&mut self, broker: &Arc<dyn Broker>, queue: &str) {
        let more = self.rest(broker, queue).await;
        assert!(more.is_empty(), "nothing should have been delivered, but {more:?} was");
    }
}

/// The counts of a queue, once everything that was asked before is done.
///
/// # Panics
/// The broker does not answer.
pub async fn counts(broker: &Arc<dyn Broker>, queue: &str) -> QueueCounts {
    // A message that the first question finds is delivered when the second one is answered.
    let _ = broker.counts(queue).await.expect("counts");
    broker.counts(queue).await.expect("counts")
}

/// Expects these counts, as exactly and as soon as the broker can tell.
async fn expect<S: BrokerUnderTest>(broker: &Arc<dyn Broker>, queue: &str, mut expected: QueueCounts) {
    let start = std::time::Instant::now();
    if !S::ABILITIES.counts_scheduled {
        expected.scheduled = 0;
    }
    loop {
        let found = counts(broker, queue).await;
        if found == expected || S::ABILITIES.counts_at_once || start.elapsed() > PATIENCE {
            assert_eq!(found, expected, "counts of `{queue}`");
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Compares names; in their order if `ordered`.
fn same(mut found: Vec<String>, mut expected: Vec<String>, ordered: bool) {
    if !ordered {
        found.sort();
        expected.sort();
    }
    assert_eq!(found, expected);
}

fn count(ready: u64, scheduled: u64, unsettled: u64, dead: u64) -> QueueCounts {
    QueueCounts { ready, scheduled, unsettled, dead, in_line: 0 }
}

fn message<S: BrokerUnderTest>(queue: &str, n: usize) -> Message {
    sample(queue, n, S::DURABILITY)
}

/// The `n`th message for `queue`; its id is `queue-n`.
///
/// # Panics
/// It never panics, because a number has a form in JSON.
pub fn sample(queue: &str, n: usize, durability: Durability) -> Message {
    let options =
        TaskOptions { result_expires: Duration::from_secs(3600), durability, ..TaskOptions::default() };
    let arguments = Arguments::encode(&(n,)).expect("a number has a form in JSON");
    let id = TaskId::from(format!("{queue}-{n}"));
    Message::new(id, "conformance.task", arguments, queue, options, now())
}

/// A successful result of this message.
pub fn success(message: &Message) -> TaskResult {
    TaskResult {
        result: Some(message.arguments.args.clone()),
        attempts: 1,
        started_at: Some(now()),
        worker: Some(format!("{}#0", message.queue)),
        ..TaskResult::of(message, State::Success, now())
    }
}

/// Publishes the messages of these numbers.
async fn publish<S: BrokerUnderTest>(broker: &Arc<dyn Broker>, queue: &str, numbers: std::ops::Range<usize>) {
    for n in numbers {
        put(broker, message::<S>(queue, n)).await;
    }
}

async fn put(broker: &Arc<dyn Broker>, message: Message) {
    broker.publish(message, false).await.expect("a publish");
}

fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|d| d.message().id.to_string()).collect()
}

fn names(queue: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("{queue}-{n}")).collect()
}

async fn ack(delivery: Delivery) {
    delivery
        .settle_and_wait(Settle::Ack { result: None, follow_ups: None })
        .await
        .expect("an acknowledgement");
}

/// The ability that a promise is about.
fn inspect(broker: &Arc<dyn Broker>) -> &dyn Inspect {
    broker.inspect().expect("it can be asked for a task")
}

fn results(broker: &Arc<dyn Broker>) -> &dyn Results {
    broker.results().expect("it keeps results")
}

fn lanes(broker: &Arc<dyn Broker>) -> &dyn Lanes {
    broker.lanes().expect("it keeps lanes")
}

fn failed_tasks(broker: &Arc<dyn Broker>) -> &dyn FailedTasks {
    broker.failed_tasks().expect("it keeps failed tasks")
}

fn windows(broker: &Arc<dyn Broker>) -> &dyn UniqueWindows {
    broker.unique_windows().expect("it keeps unique windows")
}

async fn find(broker: &Arc<dyn Broker>, id: &TaskId) -> Result<Option<MessageLocation>, BrokerError> {
    inspect(broker).find(id).await
}

/// A record as it is kept: where others read it, they know this process by its name among them.
fn as_kept(broker: &Arc<dyn Broker>, store: &Arc<dyn Store>, record: TaskResult) -> TaskResult {
    let node = broker.events().and_then(|events| events.node()).filter(|_| store.is_shared());
    TaskResult { worker: node.or(record.worker.clone()), ..record }
}

fn far() -> Timestamp {
    now() + Duration::from_secs(3600)
}

/// Makes each promise a test, for a [`BrokerUnderTest`]: `broker_conformance!(Mine)`, or `broker_conformance!(Mine, durable)`
/// with those of a broker that survives its process. Those about an [ability](Broker) come on top, each with a line of its own:
/// `broker_conformance!(Mine, results)`, or `durable results`, and so `lanes`, `windows`, `failed`, `tenants` and `bulk`. A promise that is left
/// out has no test of its name.
#[macro_export]
macro_rules! broker_conformance {
    ($subject:ty) => {
        $crate::broker_conformance! { @tests $subject:
            receipt_tells_the_durability first_in_first_out high_priority_first urgent_overtakes_a_full_prefetch
            eta_is_kept etas_due_together requeue_waits_for_its_time
            prefetch_bounds_the_unsettled prefetch_can_change a_replaced_consumer_keeps_what_it_has
            a_dropped_consumer_gets_nothing_more queues_are_independent settling_in_the_sink
            a_sink_that_panics_loses_nothing every_message_exactly_once
            ack_removes unstarted_goes_back_unburnt started_goes_back_with_a_crash
            what_goes_back_keeps_its_place the_delivery_limit_makes_a_dead_letter requeue_replaces
            requeue_moves_to_another_queue
            dead_letters_and_requeue many_are_requeued settled_once
            unique_ids_are_refused find_tells_the_place unfinished_tasks_are_listed remove_takes_out_what_waits
            counts_at_each_step the_age_of_what_waits what_was_put_back_is_hastened
            closed_is_closed
        }
    };
    (@lanes $subject:ty) => {
        $crate::broker_conformance! { @tests $subject:
            a_lane_lets_one_in_at_a_time a_run_keeps_its_lane_to_its_end dead_letters_leave_their_lane
            failed_tasks_leave_their_lane revoked_ones_leave_their_lane an_eta_comes_before_the_lane
            a_lanes_concurrency_can_change
            newcomers_get_what_they_state a_failure_may_block_its_lane lanes_keep_their_order_under_load
        }
    };
    ($subject:ty, durable) => {
        $crate::broker_conformance! { $subject }
        $crate::broker_conformance! { @tests $subject:
            what_waits_survives what_is_settled_stays_settled crashes_are_counted dead_letters_survive
            order_goes_on_after_a_restart crash_limit_across_processes
        }
    };
    ($subject:ty, results) => {
        $crate::broker_conformance! { @tests $subject:
            ack_leaves_the_result what_follows_is_written_along what_was_sent_before_is_left_out a_task_is_replaced
            a_chord_sends_its_body_once a_chord_follows_from_an_end a_chord_gets_one_more_member
            a_group_is_taken_as_a_whole
        }
    };
    ($subject:ty, durable results) => {
        $crate::broker_conformance! { $subject, results }
        $crate::broker_conformance! { @tests $subject: parts_survive }
    };
    ($subject:ty, lanes) => {
        $crate::broker_conformance! { @lanes $subject }
    };
    ($subject:ty, durable lanes) => {
        $crate::broker_conformance! { @lanes $subject }
        $crate::broker_conformance! { @tests $subject: lanes_survive }
    };
    ($subject:ty, windows) => {
        $crate::broker_conformance! { @tests $subject:
            a_duplicate_joins a_window_ends_with_its_task a_window_passes a_window_ends_when_it_is_said
            of_many_duplicates_one_is_taken
        }
    };
    ($subject:ty, durable windows) => {
        $crate::broker_conformance! { $subject, windows }
        $crate::broker_conformance! { @tests $subject: windows_survive }
    };
    ($subject:ty, failed) => {
        $crate::broker_conformance! { @tests $subject:
            failed_tasks_are_kept failed_tasks_are_found failed_tasks_are_retried failed_tasks_are_edited
            failed_tasks_are_deleted dead_letters_are_failed_tasks
        }
    };
    ($subject:ty, durable failed) => {
        $crate::broker_conformance! { $subject, failed }
        $crate::broker_conformance! { @tests $subject: failed_tasks_survive }
    };
    ($subject:ty, tenants) => {
        $crate::broker_conformance! { @tests $subject:
            a_flood_of_one_tenant_hides_nobody tenants_share_what_is_delivered tenants_are_counted
        }
    };
    ($subject:ty, durable tenants) => {
        $crate::broker_conformance! { $subject, tenants }
        $crate::broker_conformance! { @tests $subject: tenants_survive }
    };
    ($subject:ty, bulk) => {
        $crate::broker_conformance! { @tests $subject:
            many_are_moved_in_their_order many_are_ended bulk_changes_are_undone what_has_run_is_not_undone
            what_was_moved_twice_comes_back_once what_the_caller_has_is_changed
        }
    };
    ($subject:ty, durable bulk) => {
        $crate::broker_conformance! { $subject, bulk }
        $crate::broker_conformance! { @tests $subject: bulk_changes_survive }
    };
    (@tests $subject:ty: $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::broker::conformance::$promise::<$subject>().await;
            }
        )*
    };
}
