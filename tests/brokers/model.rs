//! The embedded broker against a model of it: whatever happens in whatever order, restarts and crashes included,
//! nothing is lost, nothing comes twice, and the order is right.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use celeriac::broker::conformance::{BrokerUnderTest, Inbox, counts, sample, success};
use celeriac::broker::{Broker, Delivery, MessageLocation, QueueCounts, Removal, Settle};
use celeriac::core::Timestamp;
use celeriac::task::{Durability, Message, TaskId};
use proptest::prelude::*;

use crate::embedded::Embedded;

/// Runs that may end with their worker.
const LIMIT: u32 = Embedded::DELIVERY_LIMIT;

#[derive(Clone, Debug)]
enum Step {
    Publish { priority: u8, eta: Eta },
    PublishTogether(u8),
    Start(usize),
    Settle(usize, How),
    SetPrefetch(usize),
    ReplaceConsumer(usize),
    Remove(usize),
    Revive(usize),
    Reopen,
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum Eta {
    None,
    Past,
    Far,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Ack,
    Requeue { priority: u8 },
    Postpone,
    Return,
    Crash,
    Drop,
    Bury,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let eta = prop_oneof![3 => Just(Eta::None), 1 => Just(Eta::Past), 1 => Just(Eta::Far)];
    let priority = || prop_oneof![3 => Just(0_u8), 1 => Just(5_u8), 1 => Just(255_u8)];
    let how = prop_oneof![
        4 => Just(How::Ack),
        1 => priority().prop_map(|priority| How::Requeue { priority }),
        1 => Just(How::Postpone),
        1 => Just(How::Return),
        1 => Just(How::Crash),
        2 => Just(How::Drop),
        1 => Just(How::Bury),
    ];
    let step = prop_oneof![
        8 => (priority(), eta).prop_map(|(priority, eta)| Step::Publish { priority, eta }),
        2 => (1..20_u8).prop_map(Step::PublishTogether),
        3 => (0..100_usize).prop_map(Step::Start),
        10 => ((0..100_usize), how).prop_map(|(which, how)| Step::Settle(which, how)),
        2 => (0..6_usize).prop_map(Step::SetPrefetch),
        1 => (0..6_usize).prop_map(Step::ReplaceConsumer),
        1 => (0..100_usize).prop_map(Step::Remove),
        1 => (0..100_usize).prop_map(Step::Revive),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

/// By priority, high first, then by arrival.
type Rank = (Reverse<u8>, u64);

/// One message.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    priority: u8,
    retries: u32,
    crashes: u32,
}

/// What a queue should be like. Its messages are told by number.
#[derive(Default)]
struct Model {
    known: Vec<Known>,
    ready: BTreeMap<Rank, usize>,
    scheduled: Vec<usize>,
    /// In the order of delivery: the message, its place, whether it was started.
    delivered: Vec<(usize, Rank, bool)>,
    dead: Vec<usize>,
    prefetch: usize,
    sequence: u64,
}

impl Model {
    fn add(&mut self, priority: u8) -> usize {
        self.known.push(Known { priority, ..Known::default() });
        self.known.len() - 1
    }

    fn line_up(&mut self, n: usize) {
        self.sequence += 1;
        self.ready.insert((Reverse(self.known[n].priority), self.sequence), n);
    }

    /// What goes out now, in order.
    fn release(&mut self) -> Vec<usize> {
        let mut out = Vec::new();
        while self.delivered.len() < self.prefetch
            && let Some((rank, n)) = self.next()
        {
            self.ready.remove(&rank);
            self.delivered.push((n, rank, false));
            out.push(n);
        }
        out
    }

    /// The first that may go out: of those that one more crash would end, one is out at a time.
    fn next(&self) -> Option<(Rank, usize)> {
        let is_last = |n: usize| self.known[n].crashes > 0 && self.known[n].crashes + 1 >= LIMIT;
        let one_is_out = self.delivered.iter().any(|(n, ..)| is_last(*n));
        self.ready.iter().find(|(_, n)| !(one_is_out && is_last(**n))).map(|(rank, n)| (*rank, *n))
    }

    fn go_back(&mut self, n: usize, rank: Rank, crashed: bool) {
        self.known[n].crashes += u32::from(crashed);
        if crashed && self.known[n].crashes >= LIMIT {
            self.dead.push(n);
        } else {
            self.ready.insert(rank, n);
        }
    }

    fn all_go_back(&mut self) {
        for (n, rank, started) in std::mem::take(&mut self.delivered) {
            self.go_back(n, rank, started);
        }
    }

    /// Takes a waiting one out.
    fn remove(&mut self, n: usize) -> bool {
        let before = self.ready.len() + self.scheduled.len();
        self.ready.retain(|_, waiting| *waiting != n);
        self.scheduled.retain(|waiting| *waiting != n);
        self.ready.len() + self.scheduled.len() < before
    }

    fn counts(&self) -> QueueCounts {
        QueueCounts {
            ready: self.ready.len() as u64,
            scheduled: self.scheduled.len() as u64,
            unsettled: self.delivered.len() as u64,
            dead: self.dead.len() as u64,
            in_line: 0,
        }
    }
}

fn message(n: usize) -> Message {
    sample("q", n, Durability::Disk)
}

fn far() -> Timestamp {
    Timestamp::from(SystemTime::now()) + Duration::from_secs(3600)
}

/// The broker and its model, side by side.
struct Run {
    model: Model,
    subject: Embedded,
    broker: Arc<dyn Broker>,
    inbox: Inbox,
    /// As in the model.
    held: Vec<Delivery>,
}

impl Run {
    async fn new() -> Self {
        let subject = Embedded::open().await;
        let broker = subject.broker();
        let inbox = Inbox::open(&broker, "q", 0);
        Self { model: Model::default(), subject, broker, inbox, held: Vec::new() }
    }

    async fn step(mut self, step: Step) -> Self {
        match step {
            Step::Publish { priority, eta } => {
                let n = self.model.add(priority);
                let eta = match eta {
                    Eta::None => None,
                    Eta::Past => Some(far() - Duration::from_secs(3601)),
                    Eta::Far => Some(far()),
                };
                self.broker.publish(Message { priority, eta, ..message(n) }, true).await.unwrap();
                match eta.filter(|eta| *eta > Timestamp::from(SystemTime::now())) {
                    Some(_) => self.model.scheduled.push(n),
                    None => self.model.line_up(n),
                }
            }
            Step::PublishTogether(how_many) => {
                let new: Vec<usize> = (0..how_many).map(|_| self.model.add(0)).collect();
                let publishes = new.iter().map(|n| self.broker.publish(message(*n), false));
                futures_util::future::try_join_all(publishes).await.unwrap();
                new.into_iter().for_each(|n| self.model.line_up(n));
            }
            Step::Start(which) if !self.held.is_empty() => {
                let which = which % self.held.len();
                self.held[which].started();
                self.model.delivered[which].2 = true;
            }
            Step::Settle(which, how) if !self.held.is_empty() => {
                self.settle(which % self.held.len(), how).await
            }
            Step::SetPrefetch(prefetch) => {
                self.inbox.set_prefetch(prefetch);
                self.model.prefetch = prefetch;
            }
            Step::ReplaceConsumer(prefetch) => {
                self.inbox = Inbox::open(&self.broker, "q", prefetch);
                self.model.prefetch = prefetch;
            }
            Step::Remove(which) if !self.model.known.is_empty() => {
                let n = which % self.model.known.len();
                let removal = self
                    .broker
                    .inspect()
                    .unwrap()
                    .remove(&message(n).id, Box::new(|_| None.into()))
                    .await
                    .unwrap();
                let expected = if self.model.remove(n) {
                    Removal::Removed
                } else if self.model.delivered.iter().any(|(d, ..)| *d == n) {
                    Removal::Delivered { queue: "q".to_owned() }
                } else {
                    Removal::Unknown
                };
                assert_eq!(removal, expected, "of {n}");
            }
            Step::Revive(which) if !self.model.dead.is_empty() => {
                let n = self.model.dead.remove(which % self.model.dead.len());
                assert_eq!(self.broker.requeue_dead_letter(&message(n).id).await, Ok(true));
                (self.model.known[n].retries, self.model.known[n].crashes) = (0, 0);
                self.model.line_up(n);
            }
            Step::Reopen => {
                drop((self.inbox, self.held, self.broker));
                self.model.all_go_back();
                let subject = self.subject.reopen().await.unwrap();
                return Self::resume(self.model, subject);
            }
            Step::Crash => {
                self.model.all_go_back();
                let subject = self.subject.crash().await.unwrap();
                return Self::resume(self.model, subject);
            }
            Step::Start(_) | Step::Settle(..) | Step::Remove(_) | Step::Revive(_) => {} // nothing there
        }
        self
    }

    fn resume(model: Model, subject: Embedded) -> Self {
        let broker = subject.broker();
        let inbox = Inbox::open(&broker, "q", model.prefetch);
        Self { model, subject, broker, inbox, held: Vec::new() }
    }

    async fn settle(&mut self, which: usize, how: How) {
        let delivery = self.held.remove(which);
        let (n, rank, started) = self.model.delivered.remove(which);
        let model = &mut self.model;
        let again = Message { retries: delivery.message().retries + 1, ..Message::clone(delivery.message()) };
        let result = Some(success(delivery.message()));
        let end = match how {
            How::Ack => Settle::Ack { result: result.clone(), follow_ups: None },
            How::Requeue { priority } => {
                model.known[n].priority = priority;
                model.known[n].retries += 1;
                model.line_up(n);
                Settle::Requeue { message: Box::new(Message { priority, ..again }), due: None }
            }
            How::Postpone => {
                model.known[n].retries += 1;
                model.scheduled.push(n);
                Settle::Requeue { message: Box::new(again), due: Some(far()) }
            }
            How::Return => {
                model.go_back(n, rank, false);
                Settle::Return { crashed: false }
            }
            How::Crash => {
                model.go_back(n, rank, true);
                Settle::Return { crashed: true }
            }
            How::Drop => {
                model.go_back(n, rank, started);
                return;
            }
            How::Bury => {
                model.dead.push(n);
                Settle::DeadLetter { reason: "for a test".to_owned(), result: None, follow_ups: None }
            }
        };
        delivery.settle_and_wait(end).await.unwrap();
        if let How::Ack = how {
            let record = self.subject.store().get(&message(n).id, far() - Duration::from_secs(3600)).await;
            assert_eq!(record, Ok(result));
        }
    }

    /// What was delivered, and what is counted, is what the model says.
    async fn check(&mut self) {
        let expected = self.model.release();
        let delivered = self.inbox.rest(&self.broker, "q").await;
        let ids: Vec<&TaskId> = delivered.iter().map(|d| &d.message().id).collect();
        let expected_ids: Vec<TaskId> = expected.iter().map(|n| message(*n).id).collect();
        assert_eq!(ids, expected_ids.iter().collect::<Vec<_>>());
        for (n, delivery) in expected.into_iter().zip(&delivered) {
            let (message, known) = (delivery.message(), self.model.known[n]);
            assert_eq!(
                (message.priority, message.retries, message.crashes),
                (known.priority, known.retries, known.crashes)
            );
        }
        self.held.extend(delivered);
        assert_eq!(counts(&self.broker, "q").await, self.model.counts());
    }

    /// Each message is where the model has it, and what waits comes in its order.
    async fn finish(mut self) {
        for n in 0..self.model.known.len() {
            let waits = self.model.scheduled.contains(&n) || self.model.ready.values().any(|w| *w == n);
            let is_delivered = self.model.delivered.iter().any(|(d, ..)| *d == n);
            match self.broker.inspect().unwrap().find(&message(n).id).await.unwrap() {
                Some(MessageLocation::Waiting(_)) => assert!(waits, "{n} waits"),
                Some(MessageLocation::Delivered { .. }) => assert!(is_delivered, "{n} is delivered"),
                None => assert!(!waits && !is_delivered, "{n} is not known"),
            }
        }
        let mut dead: Vec<TaskId> =
            self.broker.dead_letters(1000).await.unwrap().into_iter().map(|l| l.message.id).collect();
        let mut expected: Vec<TaskId> = self.model.dead.iter().map(|n| message(*n).id).collect();
        dead.sort();
        expected.sort();
        assert_eq!(dead, expected);
        for step in [Step::Crash, Step::SetPrefetch(1000)] {
            self = self.step(step).await;
            self.check().await;
        }
    }
}

#[test]
fn a_broker_is_like_its_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in steps {
                run = run.step(step).await;
                run.check().await;
            }
            run.finish().await;
        });
    });
}
