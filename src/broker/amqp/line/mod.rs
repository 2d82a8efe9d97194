//! The consuming end of one queue: a channel, the deliveries that are out, and what becomes of them.
//!
//! It is one task that owns all of it; the outside sends it [`Command`]s. What was settled is acknowledged whenever no
//! command waits any more, so that acknowledgements come in runs and never before the work. When the channel is lost, so is
//! the right to settle what came through it: RabbitMQ delivers that again. What this process then still runs is recognised
//! when it comes again, and goes on under its new delivery tag instead of running twice.

mod arrival;
mod channel;
mod holding;
mod keeping;
mod settlement;

use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// How many deliveries a sink is given at a time, at most.
const BATCH: usize = 1024;
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
    Settle { tag: u64, settle: Settle, done: Option<Done> },
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
pub(super) type Commands = mpsc::UnboundedSender<Command>;

/// The consuming end of one queue.
pub(super) struct Line {
    shared: Arc<Shared>,
    queue: String,
    commands: mpsc::UnboundedReceiver<Command>,
    own: Commands,
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
    /// Who hears of the next flush.
    flushed: Vec<Done>,
    pause: Pause,
    retry_at: Option<Instant>,
    settlers: Settlers,
    closing: Option<oneshot::Sender<()>>,
}

/// The two kinds of settlers: one that notes starts, for deliveries that may be poison, and one that has no need to.
struct Settlers {
    plain: Arc<dyn Settler>,
    suspect: Arc<dyn Settler>,
}

struct Plain(Commands);
struct Suspect(Commands);

impl Settler for Plain {
    fn started(&self, _: &[u64]) {}

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        // A line that is gone has dropped its channel: RabbitMQ delivers again, and `done` hears `Closed` as it is dropped.
        let _ = self.0.send(Command::Settle { tag, settle, done });
    }
}

impl Settler for Suspect {
    fn started(&self, tags: &[u64]) {
        if !tags.is_empty() {
            let _ = self.0.send(Command::Started(tags.to_vec()));
        }
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        let _ = self.0.send(Command::Settle { tag, settle, done });
    }
}

impl Line {
    /// Starts the line of a queue.
    pub(super) fn spawn(shared: Arc<Shared>, queue: String) -> Commands {
        let (own, commands) = mpsc::unbounded_channel();
        let settlers =
            Settlers { plain: Arc::new(Plain(own.clone())), suspect: Arc::new(Suspect(own.clone())) };
        let link = shared.link.watch();
        let runtime = shared.runtime.clone();
        let line = Self {
            shared,
            queue,
            commands,
            own: own.clone(),
            link,
            flow: None,
            streams: Streams::default(),
            holdings: HashMap::new(),
            lost: HashMap::new(),
            early: BTreeSet::new(),
            consumer: None,
            ration: Ration::default(),
            flushed: Vec::new(),
            pause: Pause::default(),
            retry_at: None,
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
                () = tokio::time::sleep_until(wake) => self.tick(),
            }
            self.flush();
        }
        self.end().await;
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Attach { consumer, prefetch, sink } => {
                self.consumer = Some((consumer, sink));
                self.ration.set(prefetch);
            }
            Command::Detach { consumer } => {
                if self.consumer.as_ref().is_some_and(|(current, _)| *current == consumer) {
                    self.detach();
                }
            }
            Command::Prefetch { consumer, prefetch } => {
                if self.consumer.as_ref().is_some_and(|(current, _)| *current == consumer) {
                    self.ration.set(prefetch);
                }
            }
            Command::Started(tags) => tags.into_iter().for_each(|tag| self.keep_suspect(tag)),
            Command::Settle { tag, settle, done } => self.settle(tag, settle, done),
            Command::Posted { tag, result, done } => self.posted(tag, result, done),
            Command::Keep { tag, message } => self.publish_copy(tag, &message).await,
            Command::NotKept(tag) => {
                if let Some(holding) = self.holdings.get_mut(&tag) {
                    holding.handing_over = false;
                }
            }
            Command::Counts(asked) => {
                let counts = self.count().await;
                let _ = asked.send(counts);
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
        self.ration.set(0);
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
        Some(Delivery::new(tag, Arc::clone(&holding.message), Arc::clone(settler)))
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
        self.keep_the_old();
        self.forget_the_lost();
    }

    fn forget_the_lost(&mut self) {
        if self.lost.is_empty() {
            return;
        }
        let gone = |h: &Holding| h.place == Place::Lost && h.since.elapsed() > LOST_FOR;
        let tags: Vec<u64> =
            self.lost.values().copied().filter(|t| self.holdings.get(t).is_none_or(gone)).collect();
        for tag in tags {
            self.let_go(tag);
        }
    }

    fn next_wake(&self) -> Instant {
        let soon = self.early.first().map(|(due, _)| Instant::now() + due.since(now()));
        let watch = Some(Instant::now() + self.patrol()).filter(|_| !self.holdings.is_empty());
        let far = Instant::now() + Duration::from_secs(3600);
        [soon, watch, self.retry_at].into_iter().flatten().min().unwrap_or(far)
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

/// Orders what has come from several consumers of a channel as the channel had it.
type InOrder = BTreeMap<u64, (u64, lapin::message::Delivery)>;
