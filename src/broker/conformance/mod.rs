//! The promises of a [`Broker`], one test each: for those who write one.
//!
//! Say how yours is opened, and every promise becomes a test of its own name:
//!
//! ```ignore
//! use celeriac::broker::conformance::Subject;
//!
//! struct Mine { broker: Arc<MyBroker>, store: Arc<MyStore> }
//!
//! #[async_trait::async_trait]
//! impl Subject for Mine {
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
//! The tests await deliveries and never sleep; they take 20 seconds of silence for a failure. They need `tokio` with
//! its macros and its multi-threaded runtime among the development dependencies.

mod consuming;
mod finding;
mod lanes;
mod order;
mod sequels;
mod settling;
mod survival;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Broker, Consumer, Counts, Delivery, Settle};
use crate::core::{RetryPolicy, Timestamp};
use crate::store::Store;
use crate::task::clock::now;
use crate::task::{Arguments, Durability, Message, State, TaskId, TaskResult};

pub use consuming::*;
pub use finding::*;
pub use lanes::*;
pub use order::*;
pub use sequels::*;
pub use settling::*;
pub use survival::*;
pub use windows::*;

/// A broker under test.
#[async_trait]
pub trait Subject: Sized + Send + Sync + 'static {
    /// What the receipt of a task says.
    const DURABILITY: Durability;
    /// So many runs that ended with their worker make a dead letter.
    const DELIVERY_LIMIT: u32 = super::embedded::DEFAULT_DELIVERY_LIMIT;
    /// What else it can do. What it cannot do is expected otherwise, not left out.
    const ABILITIES: Abilities = Abilities::ALL;

    /// A new one with nothing in it.
    async fn open() -> Self;
    /// The broker.
    fn broker(&self) -> Arc<dyn Broker>;
    /// Where the results go that it settles along.
    fn store(&self) -> Arc<dyn Store>;

    /// Closed and opened again; `None` when nothing survives that.
    async fn reopen(self) -> Option<Self> {
        None
    }

    /// Opened again as `kill -9` would leave it; `None` when nothing survives that.
    async fn crash(self) -> Option<Self> {
        None
    }
}

/// What not every broker can do. Beside these, [`Broker::knows_all`] and [`Broker::settles_results`] say what is expected.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// A higher priority goes first. Else priorities mean nothing: first in, first out.
    pub priorities: bool,
    /// What goes back before it started is where it was. Else it is somewhere in its queue.
    pub unstarted_keep_their_place: bool,
    /// What goes back with a crash counted is where it was. Else it is at the end.
    pub crashed_keep_their_place: bool,
    /// The first run that ends with its process is counted. Else only those after it are.
    pub first_crash_is_counted: bool,
    /// The counts are right when the question is asked. Else they are soon after.
    pub counts_at_once: bool,
    /// What waits for its ETA is counted. Else it is not, except if it waits in this process.
    pub counts_scheduled: bool,
    /// What is ready is what will start. Else a copy of what was taken out, or sent anew, counts until its turn comes.
    pub counts_no_copies: bool,
}

impl Abilities {
    /// Everything.
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

/// How long silence is taken for a broken promise.
const PATIENCE: Duration = Duration::from_secs(20);

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
                let _ = sender.send(delivery); // dropped with the inbox, it goes back
            }
        });
        let consumer = broker.consume(queue, prefetch, sink).expect("a consumer");
        Self { consumer, deliveries }
    }

    /// The next delivery.
    ///
    /// # Panics
    /// None comes.
    pub async fn next(&mut self) -> Delivery {
        let next = tokio::time::timeout(PATIENCE, self.deliveries.recv()).await;
        next.expect("a delivery within 20 seconds").expect("the consumer was dropped by its broker")
    }

    /// The next `n` deliveries.
    ///
    /// # Panics
    /// Fewer come.
    pub async fn take(&mut self, n: usize) -> Vec<Delivery> {
        let mut taken = Vec::with_capacity(n);
        while taken.len() < n {
            taken.push(self.next().await);
        }
        taken
    }

    /// Changes the prefetch.
    pub fn set_prefetch(&self, prefetch: usize) {
        self.consumer.set_prefetch(prefetch);
    }

    /// What else was delivered by now.
    ///
    /// # Panics
    /// The broker does not answer.
    pub async fn rest(&mut self, broker: &Arc<dyn Broker>, queue: &str) -> Vec<Delivery> {
        counts(broker, queue).await;
        std::iter::from_fn(|| self.deliveries.try_recv().ok()).collect()
    }

    /// Makes sure that nothing more was delivered.
    ///
    /// # Panics
    /// Something was.
    pub async fn is_quiet(&mut self, broker: &Arc<dyn Broker>, queue: &str) {
        let more = self.rest(broker, queue).await;
        assert!(more.is_empty(), "nothing should have been delivered, but {more:?} was");
    }
}

/// The counts of a queue once all that was asked before is done.
///
/// # Panics
/// The broker does not answer.
pub async fn counts(broker: &Arc<dyn Broker>, queue: &str) -> Counts {
    // What the first question finds is delivered when the second one is answered.
    let _ = broker.counts(queue).await.expect("counts");
    broker.counts(queue).await.expect("counts")
}

/// Expects these counts, as exactly and as soon as the broker can tell.
async fn expect<S: Subject>(broker: &Arc<dyn Broker>, queue: &str, mut expected: Counts) {
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

/// These names, in this order if `ordered`.
fn same(mut found: Vec<String>, mut expected: Vec<String>, ordered: bool) {
    if !ordered {
        found.sort();
        expected.sort();
    }
    assert_eq!(found, expected);
}

fn count(ready: u64, scheduled: u64, unsettled: u64, dead: u64) -> Counts {
    Counts { ready, scheduled, unsettled, dead, in_line: 0 }
}

fn message<S: Subject>(queue: &str, n: usize) -> Message {
    sample(queue, n, S::DURABILITY)
}

/// The `n`th message for `queue`; its id is `queue-n`.
///
/// # Panics
/// Never: a number has a form in JSON.
pub fn sample(queue: &str, n: usize, durability: Durability) -> Message {
    Message {
        id: TaskId::from(format!("{queue}-{n}")),
        task: "conformance.task".to_owned(),
        arguments: Arguments::encode(&(n,)).expect("a number has a form in JSON"),
        queue: queue.to_owned(),
        priority: 0,
        eta: None,
        expires: None,
        enqueued_at: now(),
        first_started_at: None,
        retries: 0,
        crashes: 0,
        continuations: 0,
        retry: RetryPolicy::default(),
        autoretry: true,
        soft_time_limit: None,
        time_limit: None,
        acks_late: true,
        ignore_result: false,
        result_expires: Duration::from_secs(3600),
        durability,
        headers: crate::task::Headers::default(),
        last_errors: Vec::new(),
        workflow: None,
        serial: None,
        unique: None,
    }
}

/// A successful result of this message.
pub fn success(message: &Message) -> TaskResult {
    TaskResult {
        id: message.id.clone(),
        task: message.task.clone(),
        queue: message.queue.clone(),
        state: State::Success,
        result: Some(message.arguments.args.clone()),
        errors: Vec::new(),
        error_type: None,
        error_module: None,
        traceback: None,
        attempts: 1,
        enqueued_at: message.enqueued_at,
        started_at: Some(now()),
        finished_at: now(),
        worker: Some(format!("{}#0", message.queue)),
        expires_at: now() + message.result_expires,
        lineage: None,
        download: None,
    }
}

/// Publishes the messages of these numbers.
async fn publish<S: Subject>(broker: &Arc<dyn Broker>, queue: &str, numbers: std::ops::Range<usize>) {
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
    delivery.settle_and_wait(Settle::Ack { result: None, sequel: None }).await.expect("an acknowledgement");
}

fn far() -> Timestamp {
    now() + Duration::from_secs(3600)
}

/// Makes each promise a test, for a [`Subject`]: `broker_conformance!(Mine)`, or `broker_conformance!(Mine, durable)`
/// with those of a broker that survives its process. Those of one that keeps serial tasks in lanes come on top with
/// `broker_conformance!(Mine, lanes)`, or `durable lanes`; those of one that keeps dedupe windows with `windows`, or
/// `durable windows`.
#[macro_export]
macro_rules! broker_conformance {
    ($subject:ty) => {
        $crate::broker_conformance! { @tests $subject:
            receipt_tells_the_durability first_in_first_out high_priority_first urgent_overtakes_a_full_prefetch
            eta_is_kept etas_due_together requeue_waits_for_its_time
            prefetch_bounds_the_unsettled prefetch_can_change a_replaced_consumer_keeps_what_it_has
            a_dropped_consumer_gets_nothing_more queues_are_independent settling_in_the_sink
            a_sink_that_panics_loses_nothing every_message_exactly_once
            ack_removes ack_leaves_the_result unstarted_goes_back_unburnt started_goes_back_with_a_crash
            what_goes_back_keeps_its_place the_delivery_limit_makes_a_dead_letter requeue_replaces
            dead_letters_and_revival many_are_revived settled_once
            unique_ids_are_refused find_tells_the_place remove_takes_out_what_waits counts_at_each_step
            what_follows_is_written_along what_was_sent_before_is_left_out a_task_is_replaced
            a_chord_sends_its_body_once a_chord_follows_from_an_end a_chord_gets_one_more_member
            a_group_is_taken_as_a_whole
            closed_is_closed
        }
    };
    (@lanes $subject:ty) => {
        $crate::broker_conformance! { @tests $subject:
            a_lane_lets_one_in_at_a_time a_run_keeps_its_lane_to_its_end dead_letters_leave_their_lane
            revoked_ones_leave_their_lane an_eta_comes_before_the_lane a_lanes_concurrency_can_change
            newcomers_get_what_they_state a_failure_may_block_its_lane lanes_keep_their_order_under_load
        }
    };
    ($subject:ty, durable) => {
        $crate::broker_conformance! { $subject }
        $crate::broker_conformance! { @tests $subject:
            what_waits_survives what_is_settled_stays_settled crashes_are_counted dead_letters_survive
            order_goes_on_after_a_restart crash_limit_across_processes parts_survive
        }
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
    (@tests $subject:ty: $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::broker::conformance::$promise::<$subject>().await;
            }
        )*
    };
}
