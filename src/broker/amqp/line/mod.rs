//! The consuming end of one queue: a channel, the deliveries that are out, and what becomes of them.
//!
//! It is one task that owns all of it; the outside sends it [`Command`]s. What was settled is acknowledged when there is
//! enough for a run, or after a moment, and never before the work. When the channel is lost, so is the right to settle what
//! came through it: RabbitMQ delivers that again. What this process then still runs is recognised when it comes again, and
//! goes on under its new delivery tag instead of running twice.

mod arrival;
mod channel;
mod holding;
mod keeping;
mod settlement;
mod tray;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Shared;
use super::link::{Pause, State};
use super::ration::Ration;
use crate::broker::{BrokerError, Counts, Delivery, Settle, Settler, Sink};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskId};
use channel::{Flow, Streams};
use holding::{Holding, Place};
use tray::{Plain, Suspect};

pub(super) use tray::Tray;

/// How many deliveries a sink is given at a time, at most.
const BATCH: usize = 1024;
/// So long what was settled waits for more, while deliveries enough are still out. RabbitMQ is spared most of the frames; what
/// ended within it may run again if the process is killed.
const MOMENT: Duration = Duration::from_millis(5);
/// So long counts wait for what is being published.
const MOVING: Duration = Duration::from_secs(1);
/// A delivery of a lost channel that has not come again after this long is somebody else's.
const LOST_FOR: Duration = Duration::from_secs(300);

/// What a line is told.
pub(super) enum Command {
    /// A new consumer; it replaces the old one.
    Attach { consumer: u64, prefetch: usize, sink: Sink },
    /// The consumer was dropped.
    Detach { consumer: u64 },
    /// Its prefetch is to change.
    Prefetch { consumer: u64, prefetch: usize },
    /// A body is about to start, of a delivery that may have taken a process down before.
    Started(Vec<u64>),
    /// A delivery ends.
    Settle { tag: u64, settle: Box<Settle>, done: Option<Done> },
    /// These are done with.
    Acknowledge(Vec<u64>),
    /// There are some of that kind on the tray, but they can wait a moment for others.
    AcknowledgeSoon,
    /// What follows from a delivery is published.
    Posted { tag: u64, result: Result<(), BrokerError>, done: Option<Done> },
    /// Put a copy of this delivery into keeping.
    Keep { tag: u64, message: Box<Message> },
    /// A copy for the keeping could not be published.
    NotKept(u64),
    /// How many?
    Counts(oneshot::Sender<Counts>),
    /// Is it here?
    Find(TaskId, oneshot::Sender<bool>),
    /// Finish.
    Close(oneshot::Sender<()>),
}

/// Who hears of the end of a delivery.
pub(super) type Done = oneshot::Sender<Result<(), BrokerError>>;
/// Where a line is told things.
pub(super) type Commands = Arc<Tray>;

/// The consuming end of one queue.
pub(super) struct Line {
    shared: Arc<Shared>,
    queue: String,
    commands: mpsc::UnboundedReceiver<Command>,
    /// The way to itself.
    own: Commands,
    /// When the tray is emptied at the latest.
    empty_at: Option<Instant>,
    link: watch::Receiver<State>,
    flow: Option<Flow>,
    streams: Streams,
    holdings: HashMap<u64, Holding>,
    /// Deliveries of lost channels, by their tasks: when they come again, they are known.
    lost: HashMap<TaskId, u64>,
    /// What has come a little too early, by due time.
    early: BTreeSet<(Timestamp, u64)>,
    consumer: Option<(u64, Sink)>,
    ration: Ration,
    /// Who asks for counts, since when.
    asking: Vec<(Instant, oneshot::Sender<Counts>)>,
    /// Who hears of the next flush.
    flushed: Vec<Done>,
    pause: Pause,
    retry_at: Option<Instant>,
    /// RabbitMQ has cancelled a consumer, and nobody has looked why.
    cancelled: bool,
    /// When old deliveries are looked for next.
    patrol_at: Instant,
    settlers: Settlers,
    closing: Option<oneshot::Sender<()>>,
}

/// The two kinds of settlers: one that notes starts, for deliveries that may be poison, and one that has no need to.
struct Settlers {
    plain: Arc<dyn Settler>,
    suspect: Arc<dyn Settler>,
}

impl Line {
    /// Starts the line of a queue.
    pub(super) fn spawn(shared: Arc<Shared>, queue: String) -> Commands {
        let (own, commands) = Tray::new();
        let (plain, suspect) = (Plain(own.clone()), Suspect(own.clone()));
        let settlers = Settlers { plain: Arc::new(plain), suspect: Arc::new(suspect) };
        let link = shared.link.watch();
        let runtime = shared.runtime.clone();
        let line = Self {
            shared,
            queue,
            commands,
            own: own.clone(),
            empty_at: None,
            link,
            flow: None,
            streams: Streams::default(),
            holdings: HashMap::new(),
            lost: HashMap::new(),
            early: BTreeSet::new(),
            consumer: None,
            ration: Ration::default(),
            asking: Vec::new(),
            flushed: Vec::new(),
            pause: Pause::default(),
            retry_at: None,
            cancelled: false,
            patrol_at: Instant::now(),
            settlers,
            closing: None,
        };
        runtime.spawn(line.run());
        own
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
                Some(arrived) = self.streams.next() => self.take_in(arrived),
                changed = self.link.changed() => if changed.is_err() { break },
                () = tokio::time::sleep_until(wake) => {}
            }
            // Not only when nothing else comes: a busy line has old deliveries too.
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

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Attach { consumer, prefetch, sink } => {
                self.consumer = Some((consumer, sink));
                self.set_prefetch(prefetch);
                // Before anything is acknowledged that would make room for the consumers as they were.
                self.look_after_channel().await;
            }
            Command::Detach { consumer } => {
                if self.consumer.as_ref().is_some_and(|(current, _)| *current == consumer) {
                    self.detach();
                    self.look_after_channel().await;
                }
            }
            Command::Prefetch { consumer, prefetch } => {
                if self.consumer.as_ref().is_some_and(|(current, _)| *current == consumer) {
                    self.set_prefetch(prefetch);
                    self.look_after_channel().await;
                }
            }
            Command::Started(tags) => tags.into_iter().for_each(|tag| self.keep_suspect(tag)),
            Command::Settle { tag, settle, done } => self.settle(tag, *settle, done),
            Command::Acknowledge(tags) => {
                self.empty_at = None;
                for tag in tags {
                    self.settle(tag, Settle::Ack { result: None, sequel: None }, None);
                }
            }
            Command::AcknowledgeSoon => {
                self.empty_at.get_or_insert_with(|| Instant::now() + MOMENT);
            }
            Command::Posted { tag, result, done } => {
                self.posted(tag, result, done);
                self.answer_counts().await;
            }
            Command::Keep { tag, message } => self.publish_copy(tag, &message).await,
            Command::NotKept(tag) => {
                if let Some(holding) = self.holdings.get_mut(&tag) {
                    holding.handing_over = false;
                }
            }
            Command::Counts(asked) => {
                self.asking.push((Instant::now(), asked));
                self.answer_counts().await;
            }
            Command::Find(id, asked) => {
                let here = self.holdings.values().any(|h| h.message.id == id && h.place != Place::Lost);
                let _ = asked.send(here);
            }
            Command::Close(done) => {
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
        self.ration.set(prefetch);
        self.own.set_prefetch(prefetch);
    }

    /// Hands deliveries to the consumer; without one they go back as they are dropped.
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
        let holding = self.holdings.get(&tag)?;
        let settler = if holding.suspect { &self.settlers.suspect } else { &self.settlers.plain };
        let delivery = Delivery::new(tag, Arc::clone(&holding.message), Arc::clone(settler));
        let delivery = delivery.again(holding.suspect || holding.copy);
        Some(match &self.flow {
            Some(flow) => delivery.until(Arc::clone(&flow.lapsed)),
            None => delivery,
        })
    }

    /// What is to be done at some time.
    fn tick(&mut self) {
        let now = now();
        let mut due = Vec::new();
        while let Some((_, tag)) = self.early.first().copied().filter(|(due, _)| *due <= now) {
            self.early.pop_first();
            due.extend(self.delivery(tag));
        }
        self.hand_over(due);
        if Instant::now() >= self.patrol_at {
            self.patrol_at = Instant::now() + self.patrol();
            self.keep_the_old();
            self.forget_the_lost();
        }
    }

    fn forget_the_lost(&mut self) {
        let gone = |h: &Holding| h.place == Place::Lost && !h.posting && h.since.elapsed() > LOST_FOR;
        let tags: Vec<u64> = self.holdings.iter().filter(|(_, h)| gone(h)).map(|(tag, _)| *tag).collect();
        for tag in tags {
            self.let_go(tag);
        }
    }

    /// When something is to be done next, whatever else comes.
    fn next_wake(&self) -> Instant {
        let soon = self.early.first().map(|(due, _)| Instant::now() + due.since(now()));
        let asked = self.asking.first().map(|(since, _)| *since + MOVING);
        [soon, asked, self.retry_at, self.empty_at].into_iter().flatten().fold(self.patrol_at, Instant::min)
    }

    /// Answers who asks for counts, when nothing is on its way from one place to another, or has been for too long.
    async fn answer_counts(&mut self) {
        if self.asking.is_empty() {
            return;
        }
        let moving = self.holdings.values().any(|h| h.posting || h.handing_over);
        if moving && self.asking.iter().all(|(since, _)| since.elapsed() < MOVING) {
            return;
        }
        let counts = self.count().await;
        for (_, asked) in self.asking.drain(..) {
            let _ = asked.send(counts);
        }
    }

    /// All deliveries that RabbitMQ has ready, and those that are out.
    async fn count(&mut self) -> Counts {
        self.flush();
        let ready = match &self.flow {
            Some(flow) => flow.ready(&self.queue).await,
            None => None,
        };
        // What RabbitMQ has sent before it answered is taken in before this is.
        while let Some(Some(arrived)) = self.streams.next().now_or_never() {
            self.take_in(arrived);
        }
        let ready = match ready {
            Some(ready) => ready,
            None => self.shared.waiting(&self.queue).await.unwrap_or_default(),
        };
        let scheduled = self.early.len() as u64;
        let out = self.holdings.values().filter(|h| h.place != Place::Lost).count() as u64;
        Counts { ready, scheduled, unsettled: out - scheduled, dead: 0, in_line: 0 }
    }

    /// Whether a close has nothing left to wait for.
    fn is_over(&self) -> bool {
        self.closing.is_some() && !self.holdings.values().any(|h| h.posting)
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
