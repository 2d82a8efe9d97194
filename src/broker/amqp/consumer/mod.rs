//! The consuming end of one queue. It has a channel, and keeps the deliveries that are not settled and how they end.
//!
//! One task, the line, owns this state, and other parts of the broker send it [`ConsumerCommand`]s. The line
//! acknowledges settled deliveries when there are enough for a run, or after a moment. If the channel is lost, the
//! process also loses the right to settle the deliveries that came through the channel, and RabbitMQ delivers them
//! again. The line recognises a delivery that this process still runs when it comes again. The run then goes on under
//! the new delivery tag, and the task does not run twice.
//!
//! The life of a delivery, by its [`DeliveryLocation`]:
//! ```text
//!  RabbitMQ         its copy has come
//!  delivers ---> Queue ----------------> GuardQueue        settle: what follows is published, confirmed (`posting`),
//!                |  ^                       |                   then the delivery is acknowledged
//!   channel lost |  | comes again           | channel lost
//!                v  |                       |
//!               Lost <----------------------+           settle: the end is remembered (`ended`), and takes effect
//!                |  |                                           when the delivery comes again
//!                |  | queue deleted, perhaps
//!                |  +-------------> Gone                settle: what follows is published at once; should the message
//!                |                                              come again all the same, it is acknowledged
//!                | does not come again within `LOST_FOR`
//!                v
//!            forgotten: it is another process's by now
//! ```

mod ack_buffer;
mod arrival;
mod broadcast;
mod channel;
mod dead_letter;
mod deletion;
mod guard_queue;
mod in_flight;
mod settlement;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::types::ShortString;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::AmqpInner;
use super::link::{LinkState, ReconnectPause};
use super::prefetch::SourcePlans;
use crate::broker::{BrokerError, Delivery, DeliveryInfo, QueueCounts, ScheduledTask, Settle, Settler, Sink};
use crate::core::Timestamp;
use crate::core::number_map::TagMap;
use crate::core::time::deadline;
use crate::task::clock::now;
use crate::task::{Message, TaskId};
use ack_buffer::{Plain, Suspect};
use channel::{ConsumerStreams, Flow};
use deletion::QueueDoubt;
use in_flight::{DeliveryLocation, InFlight};

pub(super) use ack_buffer::AckBuffer;

/// The most deliveries that a sink is given at a time.
const BATCH: usize = 1024;
/// How long an acknowledgement may wait for others while enough deliveries are still unsettled. The pause spares
/// RabbitMQ most of the frames. If the process is killed within it, a task that ended within it may run again.
const MOMENT: Duration = Duration::from_millis(5);
/// How long the answer with the counts waits for messages that are being published.
const MOVING: Duration = Duration::from_secs(1);
/// The most deliveries that make room for others while the messages that follow from them wait for a full queue.
const MOST_WAITING: usize = 1024;
/// How long a delivery of a lost channel may take to come again. After this time the delivery belongs to another
/// process.
const LOST_FOR: Duration = Duration::from_secs(300);

/// A message to a line.
pub(super) enum ConsumerCommand {
    /// A new consumer replaces the old one.
    Attach { consumer: u64, prefetch: usize, sink: Sink },
    /// The consumer was dropped.
    Detach { consumer: u64 },
    /// The consumer's prefetch changes.
    Prefetch { consumer: u64, prefetch: usize },
    /// The body of this delivery is about to start. The task may have taken a process down before.
    Started(u64),
    /// A delivery ends.
    Settle { tag: u64, settle: Box<Settle>, done: Option<Done> },
    /// These deliveries are over, and nothing follows from them.
    Acknowledge(Vec<u64>),
    /// The ack buffer holds such deliveries, but they can wait a moment for others.
    AcknowledgeSoon,
    /// The messages that follow from a delivery were published, or could not be.
    Posted { tag: u64, result: Result<(), BrokerError>, done: Option<Done> },
    /// A message that follows from this delivery waits for room in a full queue.
    Waits(u64),
    /// A copy of this delivery must be put into the guard queue.
    Keep { tag: u64, message: Box<Message> },
    /// The copy of this delivery could not be put into the guard queue.
    NotKept(u64),
    /// Asks for the counts of the queue: the messages that RabbitMQ has, and the deliveries that are here.
    Counts(oneshot::Sender<QueueCounts>),
    /// Asks for the counts of the deliveries that are here.
    Here(oneshot::Sender<QueueCounts>),
    /// Asks for the tasks that wait in this process for their ETA.
    Early(oneshot::Sender<Vec<ScheduledTask>>),
    /// Asks whether this process has a task.
    Find(TaskId, oneshot::Sender<bool>),
    /// Asks for all tasks that this process has.
    Held(oneshot::Sender<Vec<Arc<Message>>>),
    /// Asks the line to end.
    Close(oneshot::Sender<()>),
}

/// The sender that tells how a settlement went.
pub(super) type Done = oneshot::Sender<Result<(), BrokerError>>;
/// The channel through which others send commands to a line.
pub(super) type ConsumerHandle = Arc<AckBuffer>;

/// The consuming end of one queue.
pub(super) struct QueueConsumer {
    shared: Arc<AmqpInner>,
    queue: String,
    /// The queue of this process alone, if the line is that of a broadcast.
    own_queue: Option<ShortString>,
    /// The partitions of the queue, from which the line takes as well.
    partitions: Vec<String>,
    commands: mpsc::UnboundedReceiver<ConsumerCommand>,
    /// The sender of commands to this line itself.
    own: ConsumerHandle,
    /// The latest time at which the ack buffer is emptied.
    empty_at: Option<Instant>,
    link: watch::Receiver<LinkState>,
    flow: Option<Flow>,
    streams: ConsumerStreams,
    in_flight: TagMap<InFlight>,
    /// The deliveries of lost channels by their tasks, so that the line recognises them when they come again.
    lost: HashMap<TaskId, u64>,
    /// The deliveries that go back, with their times.
    returning: VecDeque<(Instant, u64)>,
    /// The deliveries that have come a little too early, by due time.
    early: BTreeSet<(Timestamp, u64)>,
    consumer: Option<(u64, Sink)>,
    plan: SourcePlans,
    /// The number of deliveries that may be unsettled.
    prefetch: usize,
    /// The deliveries whose follow-ups wait for room in a full queue. They take no place from other deliveries.
    waiting: HashSet<u64>,
    /// The callers who ask for counts, and since when they wait.
    asking: Vec<(Instant, oneshot::Sender<QueueCounts>)>,
    /// The callers who wait until the next flush has reached RabbitMQ.
    flushed: Vec<Done>,
    pause: ReconnectPause,
    retry_at: Option<Instant>,
    /// Why the line has yet to look whether its queue is still there; `None`: it need not.
    doubt: Option<QueueDoubt>,
    /// The sources of which RabbitMQ has cancelled a consumer, or has said that they are not there.
    cancelled: BTreeSet<usize>,
    /// Whether the queue was deleted, and may have been made anew without its place at the end of the delays.
    remade: bool,
    /// The time at which the line looks for old deliveries next.
    patrol_at: Instant,
    settlers: Settlers,
    /// How the last delivery came. The next delivery has mostly come in the same way, and then shares this value.
    last_info: Option<Arc<DeliveryInfo>>,
    closing: Option<oneshot::Sender<()>>,
}

/// The two kinds of settler. One notes starts, for deliveries that may be poison. The other does not need to.
struct Settlers {
    plain: Arc<dyn Settler>,
    suspect: Arc<dyn Settler>,
}

impl QueueConsumer {
    /// Starts the line of a queue.
    pub(super) fn spawn(shared: Arc<AmqpInner>, queue: String) -> ConsumerHandle {
        let runtime = shared.runtime.clone();
        let line = Self::new(shared, queue);
        let own = line.own.clone();
        runtime.spawn(line.run());
        own
    }

    fn new(shared: Arc<AmqpInner>, queue: String) -> Self {
        let (own, commands) = AckBuffer::new();
        let (plain, suspect) = (Plain(own.clone()), Suspect(own.clone()));
        let settlers = Settlers { plain: Arc::new(plain), suspect: Arc::new(suspect) };
        let link = shared.link.watch();
        let partitions = shared.options.partition_names(&queue);
        let plan = SourcePlans::new(partitions.len());
        Self {
            shared,
            queue,
            own_queue: None,
            partitions,
            commands,
            own,
            empty_at: None,
            link,
            flow: None,
            streams: ConsumerStreams::default(),
            in_flight: TagMap::default(),
            lost: HashMap::new(),
            returning: VecDeque::new(),
            early: BTreeSet::new(),
            consumer: None,
            plan,
            prefetch: 0,
            waiting: HashSet::new(),
            asking: Vec::new(),
            flushed: Vec::new(),
            pause: ReconnectPause::default(),
            retry_at: None,
            doubt: None,
            cancelled: BTreeSet::new(),
            remade: false,
            patrol_at: Instant::now(),
            settlers,
            last_info: None,
            closing: None,
        }
    }

    async fn run(mut self) {
        loop {
            self.look_after_channel().await;
            if self.is_over() {
                break;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                Some(command) = self.commands.recv() => {
                    self.obey(command).await;
                    while let Ok(command) = self.commands.try_recv() {
                        self.obey(command).await;
                    }
                }
                Some(arrived) = self.streams.next() => self.take_in(arrived).await,
                changed = self.link.changed() => if changed.is_err() { break },
                () = tokio::time::sleep_until(wake) => {}
            }
            // The line looks at the timers in each turn and not only in idle turns, because a busy line has old
            // deliveries too.
            if Instant::now() >= wake {
                if self.empty_at.take_if(|at| *at <= Instant::now()).is_some() {
                    self.own.empty();
                }
                self.tick();
                self.answer_counts().await;
            }
            self.flush();
        }
        self.end().await;
    }

    async fn obey(&mut self, command: ConsumerCommand) {
        match command {
            ConsumerCommand::Attach { consumer, prefetch, sink } => {
                self.consumer = Some((consumer, sink));
                self.set_prefetch(prefetch);
                // The channel comes first, because an acknowledgement would make room for the consumers as they were.
                self.look_after_channel().await;
            }
            ConsumerCommand::Detach { consumer } => {
                if self.consumer.as_ref().is_some_and(|(current, _)| *current == consumer) {
                    self.detach();
                    self.look_after_channel().await;
                }
            }
            ConsumerCommand::Prefetch { consumer, prefetch } => {
                if self.consumer.as_ref().is_some_and(|(current, _)| *current == consumer) {
                    self.set_prefetch(prefetch);
                    self.look_after_channel().await;
                }
            }
            ConsumerCommand::Started(tag) => self.keep_suspect(tag),
            ConsumerCommand::Settle { tag, settle, done } => self.settle(tag, *settle, done),
            ConsumerCommand::Acknowledge(tags) => {
                self.empty_at = None;
                for tag in tags {
                    self.settle(tag, Settle::Ack { result: None, follow_ups: None }, None);
                }
            }
            ConsumerCommand::AcknowledgeSoon => {
                self.empty_at.get_or_insert_with(|| Instant::now() + MOMENT);
            }
            ConsumerCommand::Posted { tag, result, done } => {
                self.posted(tag, result, done);
                self.answer_counts().await;
            }
            ConsumerCommand::Waits(tag) => {
                if self.in_flight.get(&tag).is_some_and(|in_flight| in_flight.posting)
                    && self.waiting.insert(tag)
                {
                    self.make_room();
                    self.look_after_channel().await;
                }
            }
            ConsumerCommand::Keep { tag, message } => self.publish_copy(tag, &message).await,
            ConsumerCommand::NotKept(tag) => {
                if let Some(in_flight) = self.in_flight.get_mut(&tag) {
                    in_flight.handing_over = false;
                }
            }
            ConsumerCommand::Counts(asked) => {
                self.asking.push((Instant::now(), asked));
                self.answer_counts().await;
            }
            ConsumerCommand::Here(asked) => drop(asked.send(self.here(0))),
            ConsumerCommand::Early(asked) => drop(asked.send(self.early())),
            ConsumerCommand::Find(id, asked) => {
                let here =
                    self.in_flight.values().any(|h| h.message.id == id && h.place != DeliveryLocation::Lost);
                let _ = asked.send(here);
            }
            ConsumerCommand::Held(asked) => {
                let here = self.in_flight.values().filter(|h| h.place != DeliveryLocation::Lost);
                let _ = asked.send(here.map(|h| Arc::clone(&h.message)).collect());
            }
            ConsumerCommand::Close(done) => {
                self.detach();
                self.closing = Some(done);
            }
        }
    }

    fn detach(&mut self) {
        self.consumer = None;
        self.set_prefetch(0);
    }

    fn set_prefetch(&mut self, prefetch: usize) {
        self.prefetch = prefetch;
        self.own.set_prefetch(prefetch);
        self.make_room();
    }

    /// Lets RabbitMQ send more deliveries in place of those whose runs are over but whose follow-ups wait. A full queue
    /// then holds up only those who send to it. There is a limit, because each of these deliveries takes memory. The
    /// room grows in steps, because each change begins a consumer.
    fn make_room(&mut self) {
        let waiting = self.waiting.len();
        let more = if waiting == 0 { 0 } else { waiting.next_power_of_two().max(self.prefetch) };
        let more = if self.prefetch == 0 { 0 } else { more.min(MOST_WAITING) };
        self.plan.set(self.prefetch + more);
    }

    /// Hands deliveries to the consumer. If there is no consumer, the dropped deliveries go back.
    fn hand_over(&mut self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        if let Some((_, sink)) = &self.consumer
            && !crate::broker::call_sink(sink, deliveries)
        {
            self.detach();
        }
    }

    fn delivery(&self, tag: u64) -> Option<Delivery> {
        let in_flight = self.in_flight.get(&tag)?;
        let settler = if in_flight.suspect { &self.settlers.suspect } else { &self.settlers.plain };
        let delivery = Delivery::new(tag, Arc::clone(&in_flight.message), Arc::clone(settler));
        let delivery = delivery.again(in_flight.suspect || in_flight.copy);
        let delivery = delivery.with_info(in_flight.info.clone()).announced(in_flight.announced);
        Some(match &self.flow {
            Some(flow) => delivery.until(Arc::clone(&flow.lapsed)),
            None => delivery,
        })
    }

    /// Does the work that has come due.
    fn tick(&mut self) {
        let now = now();
        let (mut due, mut has_waited) = (Vec::new(), false);
        while let Some((_, tag)) = self.early.first().copied().filter(|(due, _)| *due <= now) {
            self.early.pop_first();
            has_waited |= self.waiting.remove(&tag);
            due.extend(self.delivery(tag));
        }
        if has_waited {
            self.make_room();
        }
        self.hand_over(due);
        self.return_the_rested();
        if Instant::now() >= self.patrol_at {
            self.patrol_at = Instant::now() + self.patrol();
            self.keep_the_old();
            self.forget_the_lost();
        }
    }

    fn forget_the_lost(&mut self) {
        let gone =
            |h: &InFlight| h.place == DeliveryLocation::Lost && !h.posting && h.since.elapsed() > LOST_FOR;
        let tags: Vec<u64> = self.in_flight.iter().filter(|(_, h)| gone(h)).map(|(tag, _)| *tag).collect();
        for tag in tags {
            self.let_go(tag);
        }
    }

    /// The time of the line's next timer. Commands and arrivals may come before it.
    fn next_wake(&self) -> Instant {
        let soon = self.early.first().map(|(due, _)| deadline(Instant::now(), due.since(now())));
        let asked = self.asking.first().map(|(since, _)| *since + MOVING);
        let returns = self.returning.front().map(|(at, _)| *at);
        [soon, asked, returns, self.retry_at, self.empty_at]
            .into_iter()
            .flatten()
            .fold(self.patrol_at, Instant::min)
    }

    /// Answers the callers who ask for counts, unless messages are being moved and the callers have waited for a short
    /// time only.
    async fn answer_counts(&mut self) {
        if self.asking.is_empty() {
            return;
        }
        let on_its_way =
            |(tag, h): (&u64, &InFlight)| h.posting && !self.waiting.contains(tag) || h.handing_over;
        let moving = self.in_flight.iter().any(on_its_way);
        if moving && self.asking.iter().all(|(since, _)| since.elapsed() < MOVING) {
            return;
        }
        let counts = self.count().await;
        for (_, asked) in self.asking.drain(..) {
            let _ = asked.send(counts);
        }
    }

    /// Counts the messages that RabbitMQ has ready and the deliveries that are unsettled.
    async fn count(&mut self) -> QueueCounts {
        self.flush();
        let sources: Vec<String> = self.sources().map(str::to_owned).collect();
        let ready = match &self.flow {
            Some(flow) => flow.ready(&sources).await,
            None => None,
        };
        // The line takes in the messages that RabbitMQ sent before its answer, and counts after that.
        while let Some(Some(arrived)) = self.streams.next().now_or_never() {
            self.take_in(arrived).await;
        }
        let ready = match ready {
            Some(ready) => ready,
            None => self.shared.waiting(self.source()).await.unwrap_or_default(),
        };
        self.here(ready)
    }

    /// The counts of the unsettled deliveries, with this number of ready messages.
    fn here(&self, ready: u64) -> QueueCounts {
        let scheduled = self.early.len() as u64;
        let out = self.in_flight.values().filter(|h| h.place != DeliveryLocation::Lost).count() as u64;
        QueueCounts { ready, scheduled, unsettled: out.saturating_sub(scheduled), dead: 0, in_line: 0 }
    }

    /// The tasks that wait in this process for their ETA, by ETA.
    fn early(&self) -> Vec<ScheduledTask> {
        let held = |(eta, tag): &(Timestamp, u64)| {
            let in_flight = self.in_flight.get(tag)?;
            Some(ScheduledTask::new(*eta, Arc::clone(&in_flight.message), in_flight.info.clone()))
        };
        self.early.iter().filter_map(held).collect()
    }

    /// Whether a close has nothing left to wait for.
    fn is_over(&self) -> bool {
        let rest = self.returning.len();
        self.closing.is_some() && self.in_flight.values().filter(|h| h.posting).count() <= rest
    }

    async fn end(mut self) {
        self.flush();
        if let Some(flow) = self.flow.take() {
            flow.close().await;
        }
        if let Some(done) = self.closing.take() {
            let _ = done.send(());
        }
    }
}
