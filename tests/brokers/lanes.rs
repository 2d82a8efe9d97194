//! Lanes of the embedded broker against a model, in random lives with crashes and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use celeriac::broker::conformance::{BrokerUnderTest, Inbox, counts, sample, success};
use celeriac::broker::{Broker, Delivery, LaneLever, Removal, Settle};
use celeriac::task::{Durability, LaneName, Message, SerialHeader, TaskId};
use proptest::prelude::*;

use crate::embedded::Embedded;

const KEYS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum How {
    Ack,
    Requeue,
    Return,
    Crash,
    Bury,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize),
    Settle(usize, How),
    /// Two at once, so that they are one commit.
    PublishAndSettle(usize, usize),
    Remove(usize),
    Revive(usize),
    Adjust(usize, Option<u32>),
    Reopen,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![
        4 => Just(How::Ack),
        2 => Just(How::Requeue),
        1 => Just(How::Return),
        2 => Just(How::Crash),
        1 => Just(How::Bury),
    ];
    let step = prop_oneof![
        8 => (0..KEYS).prop_map(Step::Publish),
        8 => (any::<usize>(), how).prop_map(|(which, how)| Step::Settle(which, how)),
        4 => (0..KEYS, any::<usize>()).prop_map(|(key, which)| Step::PublishAndSettle(key, which)),
        2 => any::<usize>().prop_map(Step::Remove),
        1 => any::<usize>().prop_map(Step::Revive),
        1 => (0..KEYS, prop::option::of(0..3_u32)).prop_map(|(key, limit)| Step::Adjust(key, limit)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..50)
}

/// One lane: who is in, who waits, each in order.
#[derive(Default)]
struct Lane {
    inside: Vec<usize>,
    line: Vec<usize>,
    adjusted: Option<u32>,
}

struct Run {
    subject: Embedded,
    broker: Arc<dyn Broker>,
    inbox: Inbox,
    held: Vec<Delivery>,
    lanes: [Lane; KEYS],
    crashes: BTreeMap<usize, u32>,
    dead: Vec<usize>,
    next: usize,
}

/// One key lets two in.
fn limit(key: usize) -> u32 {
    if key == 0 { 2 } else { 1 }
}

fn name(key: usize) -> LaneName {
    LaneName::new("model", format!("key {key}"))
}

fn key_of(n: usize) -> usize {
    n % KEYS
}

fn message(n: usize) -> Message {
    let serial = SerialHeader::new(name(key_of(n))).with_concurrency(limit(key_of(n)));
    Message { serial: Some(Box::new(serial)), ..sample("q", n, Durability::Disk) }
}

fn number(delivery: &Delivery) -> usize {
    delivery.message().id.as_str()[2..].parse().unwrap()
}

impl Run {
    fn open(subject: Embedded) -> Self {
        let broker = subject.broker();
        let inbox = Inbox::open(&broker, "q", 1000);
        let (lanes, crashes, dead) = Default::default();
        Self { subject, broker, inbox, held: Vec::new(), lanes, crashes, dead, next: 0 }
    }

    /// Lets the model's lanes go on.
    fn let_in(&mut self) {
        for (key, lane) in self.lanes.iter_mut().enumerate() {
            let limit = lane.adjusted.unwrap_or_else(|| limit(key)) as usize;
            while lane.inside.len() < limit && !lane.line.is_empty() {
                lane.inside.push(lane.line.remove(0));
            }
        }
    }

    fn comes(&mut self, key: usize) -> Message {
        let n = self.next * KEYS + key;
        self.next += 1;
        self.lanes[key].line.push(n);
        message(n)
    }

    /// The model's part of an end, and how it is asked for.
    fn ends(&mut self, delivery: &Delivery, how: How) -> Settle {
        let n = number(delivery);
        let leave = |run: &mut Self| run.lanes[key_of(n)].inside.retain(|other| *other != n);
        match how {
            How::Ack => {
                leave(self);
                Settle::Ack { result: Some(success(delivery.message())), follow_ups: None }
            }
            How::Requeue => {
                let message = Message { retries: 1, ..Message::clone(delivery.message()) };
                Settle::Requeue { message: Box::new(message), due: None }
            }
            How::Return => Settle::Return { crashed: false },
            How::Crash => {
                let crashes = self.crashes.entry(n).or_default();
                *crashes += 1;
                if *crashes == Embedded::DELIVERY_LIMIT {
                    leave(self);
                    self.dead.push(n);
                }
                Settle::Return { crashed: true }
            }
            How::Bury => {
                leave(self);
                self.dead.push(n);
                Settle::DeadLetter { reason: "for a test".to_owned(), result: None, follow_ups: None }
            }
        }
    }

    async fn step(mut self, step: Step) -> Self {
        match step {
            Step::Publish(key) => {
                let message = self.comes(key);
                self.broker.publish(message, true).await.unwrap();
            }
            Step::Settle(which, how) if !self.held.is_empty() => {
                let delivery = self.held.swap_remove(which % self.held.len());
                let settle = self.ends(&delivery, how);
                delivery.settle_and_wait(settle).await.unwrap();
            }
            Step::PublishAndSettle(key, which) if !self.held.is_empty() => {
                let delivery = self.held.swap_remove(which % self.held.len());
                // Begun in this order.
                let message = self.comes(key);
                let settle = self.ends(&delivery, How::Ack);
                let broker = Arc::clone(&self.broker);
                let (published, settled) =
                    tokio::join!(broker.publish(message, true), delivery.settle_and_wait(settle));
                published.unwrap();
                settled.unwrap();
            }
            Step::Remove(which) => {
                let lines: Vec<usize> = self.lanes.iter().flat_map(|lane| lane.line.clone()).collect();
                if let Some(n) = lines.get(which % lines.len().max(1)) {
                    let id = message(*n).id;
                    let removed = self
                        .broker
                        .inspect()
                        .unwrap()
                        .remove(&id, Box::new(|m| Some(success(m)).into()))
                        .await;
                    assert_eq!(removed, Ok(Removal::Removed));
                    self.lanes[key_of(*n)].line.retain(|other| other != n);
                }
            }
            Step::Revive(which) if !self.dead.is_empty() => {
                let n = self.dead.swap_remove(which % self.dead.len());
                assert_eq!(self.broker.requeue_dead_letter(&message(n).id).await, Ok(true));
                self.crashes.remove(&n);
                self.lanes[key_of(n)].line.push(n);
            }
            Step::Adjust(key, limit) => {
                let adjusted =
                    self.broker.lanes().unwrap().steer_lane(&name(key), LaneLever::Concurrency(limit)).await;
                assert_eq!(adjusted, Ok(true));
                self.lanes[key].adjusted = limit;
            }
            Step::Reopen => {
                let Self { subject, lanes, crashes, dead, next, held, inbox, broker } = self;
                drop((held, inbox, broker));
                let mut run = Self::open(subject.reopen().await.unwrap());
                (run.lanes, run.crashes, run.dead, run.next) = (lanes, crashes, dead, next);
                return run;
            }
            Step::Crash => {
                let Self { subject, lanes, crashes, dead, next, held, inbox, broker } = self;
                let after = subject.crash().await.unwrap();
                drop((held, inbox, broker));
                let mut run = Self::open(after);
                (run.lanes, run.crashes, run.dead, run.next) = (lanes, crashes, dead, next);
                return run;
            }
            Step::Settle(..) | Step::PublishAndSettle(..) | Step::Revive(_) => {} // nothing there
        }
        self
    }

    async fn check(&mut self) {
        self.let_in();
        self.held.extend(self.inbox.rest(&self.broker, "q").await);
        let running: BTreeSet<usize> = self.held.iter().map(number).collect();
        let inside: BTreeSet<usize> = self.lanes.iter().flat_map(|lane| lane.inside.clone()).collect();
        // Of those that one more crash would end, one is delivered at a time, whatever their lanes.
        let is_last = |n: &&usize| self.crashes.get(n).is_some_and(|c| c + 1 == Embedded::DELIVERY_LIMIT);
        let (last, others): (BTreeSet<usize>, BTreeSet<usize>) = inside.iter().partition(is_last);
        assert!(running.is_superset(&others), "{running:?} are delivered, {others:?} should be");
        assert!(running.is_subset(&inside), "{running:?} are delivered, only {inside:?} may be");
        assert_eq!(running.intersection(&last).count(), last.len().min(1), "one of {last:?} at a time");
        let count = counts(&self.broker, "q").await;
        let waiting: usize = self.lanes.iter().map(|lane| lane.line.len()).sum();
        let held_up = inside.len() - running.len();
        let expected = (held_up as u64, running.len() as u64, waiting as u64, self.dead.len() as u64);
        assert_eq!((count.ready, count.unsettled, count.in_line, count.dead), expected);
        for (key, lane) in self.lanes.iter().enumerate() {
            let Some(facts) = self.broker.lanes().unwrap().lane(&name(key)).await.unwrap() else {
                assert!(lane.inside.is_empty() && lane.line.is_empty() && lane.adjusted.is_none());
                continue;
            };
            let ids = |numbers: &[usize]| -> Vec<TaskId> { numbers.iter().map(|n| message(*n).id).collect() };
            let holders: Vec<TaskId> = facts.holders.into_iter().map(|holder| holder.id).collect();
            assert_eq!(holders, ids(&lane.inside));
            let next: Vec<TaskId> = facts.next.into_iter().map(|waiting| waiting.id).collect();
            assert_eq!((next, facts.waiting), (ids(&lane.line), lane.line.len() as u64));
        }
    }
}

#[test]
fn lanes_are_like_their_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(async {
            let mut run = Run::open(Embedded::open().await);
            for step in steps {
                run = run.step(step).await;
                run.check().await;
            }
        });
    });
}
