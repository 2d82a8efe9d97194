//! The lanes in Redis against those of `core`, in random lives: who is in, who waits, who is refused, what blocks, and that each
//! start has a higher token than the one before, also when the process that had them is gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use celeriac::State;
use celeriac::broker::conformance::{BrokerUnderTest, Inbox, sample, success};
use celeriac::broker::{Broker, Delivery, LaneLever, Removal, Settle};
use celeriac::core::lane::{Admission, Lane};
use celeriac::core::{Timestamp, lane};
use celeriac::task::{
    AfterFailure, Durability, LaneName, Message, Newcomer, SerialHeader, TaskId, TaskResult,
};
use proptest::prelude::*;

use crate::redis_lanes::{RedisLanes, place};
use crate::services::{Redis, blocking};

const KEYS: usize = 3;
/// Longer than a process that is only slow takes to renew it. Each crash costs one.
const LEASE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
enum How {
    Succeed,
    Fail,
    Retry,
    Return,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(usize, Newcomer),
    Settle(usize, How),
    Remove(usize),
    Unblock(usize),
    Adjust(usize, Option<u32>),
    /// The process is gone with all that it had.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let newcomer = prop_oneof![
        6 => Just(Newcomer::Wait),
        1 => Just(Newcomer::Skip),
        1 => Just(Newcomer::Replace),
        1 => Just(Newcomer::FailAfter(Duration::ZERO)),
        1 => Just(Newcomer::FailAfter(Duration::from_secs(3600))),
    ];
    let how = prop_oneof![4 => Just(How::Succeed), 2 => Just(How::Fail), 2 => Just(How::Retry), 1 => Just(How::Return)];
    let step = prop_oneof![
        8 => (0..KEYS, newcomer).prop_map(|(key, newcomer)| Step::Publish(key, newcomer)),
        8 => (any::<usize>(), how).prop_map(|(which, how)| Step::Settle(which, how)),
        1 => any::<usize>().prop_map(Step::Remove),
        2 => (0..KEYS).prop_map(Step::Unblock),
        2 => (0..KEYS, prop::option::of(0..3_u32)).prop_map(|(key, limit)| Step::Adjust(key, limit)),
    ];
    // A lease has to end, so there is one at most.
    let crash = prop::option::weighted(0.5, any::<prop::sample::Index>());
    (prop::collection::vec(step, 1..60), crash).prop_map(|(mut steps, crash)| {
        if let Some(at) = crash {
            steps.insert(at.index(steps.len()), Step::Crash);
        }
        steps
    })
}

/// A lane of `core`, and those who wait for it.
struct Model {
    lane: Lane<TaskId>,
    line: VecDeque<(u64, TaskId)>,
}

struct Run {
    subject: RedisLanes,
    broker: Arc<dyn Broker>,
    inbox: Inbox,
    queue: String,
    lanes: Vec<Model>,
    held: BTreeMap<TaskId, Delivery>,
    /// These are to be told that they do not run.
    refused: BTreeSet<TaskId>,
    keys: BTreeMap<TaskId, usize>,
    tokens: [u64; KEYS],
}

/// What the model has for a clock; nothing in it depends on that.
const NOW: Timestamp = Timestamp::from_micros(0);

/// One key lets two in, and one is blocked by failures.
fn limit(key: usize) -> u32 {
    if key == 0 { 2 } else { 1 }
}

fn blocks(key: usize) -> bool {
    key == 2
}

fn name(key: usize) -> LaneName {
    LaneName::new("model", format!("key {key}"))
}

impl Run {
    fn open(subject: RedisLanes, queue: String) -> Self {
        let broker = subject.broker();
        let inbox = Inbox::open(&broker, &queue, 1000);
        let lanes = (0..KEYS).map(|_| Model { lane: Lane::new(0), line: VecDeque::new() }).collect();
        let (held, refused, keys, tokens) = Default::default();
        Self { subject, broker, inbox, queue, lanes, held, refused, keys, tokens }
    }

    fn let_in(&mut self) {
        for Model { lane, line } in &mut self.lanes {
            while lane.has_room()
                && let Some((ticket, id)) = line.pop_front()
            {
                lane.let_in(&id, ticket, NOW);
            }
        }
    }

    async fn step(mut self, step: Step) -> Self {
        match step {
            Step::Publish(key, newcomer) => self.publish(key, newcomer).await,
            Step::Settle(which, how) if !self.held.is_empty() => {
                let id = self.held.keys().nth(which % self.held.len()).cloned().unwrap();
                self.settle(id, how).await;
            }
            Step::Remove(which) => {
                let waiting: Vec<TaskId> =
                    self.lanes.iter().flat_map(|m| m.line.iter().map(|(_, id)| id.clone())).collect();
                if let Some(id) = waiting.get(which % waiting.len().max(1)) {
                    let removed = self
                        .broker
                        .inspect()
                        .unwrap()
                        .remove(id, Box::new(|m| Some(success(m)).into()))
                        .await;
                    assert_eq!(removed, Ok(Removal::Removed));
                    let Model { lane, line } = &mut self.lanes[self.keys[id]];
                    lane.leave();
                    line.retain(|(_, other)| other != id);
                }
            }
            Step::Unblock(key) => {
                let expected = self.lanes[key].lane.unblock();
                assert_eq!(
                    self.broker.lanes().unwrap().steer_lane(&name(key), LaneLever::Unblock).await,
                    Ok(expected)
                );
            }
            Step::Adjust(key, limit) => {
                self.lanes[key].lane.adjust(limit);
                let adjusted =
                    self.broker.lanes().unwrap().steer_lane(&name(key), LaneLever::Concurrency(limit)).await;
                assert_eq!(adjusted, Ok(true));
            }
            Step::Crash => {
                let Self { subject, broker, inbox, queue, lanes, held, refused, keys, tokens } = self;
                held.into_values().for_each(std::mem::forget); // who is killed says nothing more
                drop((inbox, broker));
                let run = Self::open(subject.crash().await.unwrap(), queue);
                return Self { lanes, refused, keys, tokens, ..run };
            }
            Step::Settle(..) => {} // nothing there
        }
        self
    }

    async fn publish(&mut self, key: usize, newcomer: Newcomer) {
        let n = self.keys.len();
        let after = if blocks(key) { AfterFailure::Block } else { AfterFailure::Next };
        let serial = SerialHeader::new(name(key)).with_concurrency(limit(key)).with_newcomer(newcomer);
        let serial = Some(Box::new(serial.with_after_failure(after)));
        let message = Message { serial, ..sample(&self.queue, n, Durability::Disk) };
        let id = message.id.clone();
        self.keys.insert(id.clone(), key);
        let receipt = self.broker.publish(message, true).await.unwrap();
        let Model { lane, line } = &mut self.lanes[key];
        let place = (n as u64, id.clone());
        match lane.arrive(&id, limit(key), newcomer, NOW) {
            Admission::Enter => {}
            Admission::Wait { .. } => line.push_back(place),
            Admission::Refuse => drop(self.refused.insert(id)),
            Admission::Skip => {
                assert!(receipt.joined);
                assert_eq!(Some(&receipt.id), line.back().map(|(_, id)| id));
            }
            Admission::Replace => {
                self.refused.extend(line.pop_back().map(|(_, id)| id));
                line.push_back(place);
            }
        }
    }

    async fn settle(&mut self, id: TaskId, how: How) {
        let delivery = self.held.remove(&id).unwrap();
        let key = self.keys[&id];
        let ends = |state| {
            let errors = if state == State::Failure { vec!["boom".to_owned()] } else { Vec::new() };
            let result = TaskResult { state, errors, ..success(delivery.message()) };
            Settle::Ack { result: Some(result), follow_ups: None }
        };
        let settle = match how {
            How::Succeed => ends(State::Success),
            How::Fail => ends(State::Failure),
            How::Return => Settle::Return { crashed: false },
            How::Retry => {
                let retries = delivery.message().retries + 1;
                let message = Message { retries, ..Message::clone(delivery.message()) };
                Settle::Requeue { message: Box::new(message), due: None }
            }
        };
        if matches!(how, How::Succeed | How::Fail) {
            let block = (blocks(key) && matches!(how, How::Fail)).then(|| "boom".to_owned());
            assert!(self.lanes[key].lane.release(&id, block, NOW));
        }
        delivery.settle_and_wait(settle).await.unwrap();
    }

    /// Who is in is delivered, and nobody else; the facts are those of the model.
    async fn check(&mut self) {
        self.let_in();
        let inside: BTreeSet<TaskId> =
            self.lanes.iter().flat_map(|m| m.lane.holders().iter().map(|h| h.id.clone())).collect();
        while self.held.len() < inside.len() || !self.refused.is_empty() {
            let delivery = self.inbox.next().await;
            let id = delivery.message().id.clone();
            if delivery.message().serial.as_ref().is_some_and(|serial| serial.refusal.is_some()) {
                assert!(self.refused.remove(&id), "{id} is refused");
                delivery.settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await.unwrap();
                continue;
            }
            let (key, token) = (self.keys[&id], delivery.fence().unwrap());
            assert!(token > self.tokens[key], "{token} after {}", self.tokens[key]);
            self.tokens[key] = token;
            assert!(inside.contains(&id), "{id} is delivered, and only {inside:?} are in");
            assert!(self.held.insert(id, delivery).is_none(), "twice");
        }
        for (key, Model { lane, line }) in self.lanes.iter().enumerate() {
            let facts = self.broker.lanes().unwrap().lane(&name(key)).await.unwrap();
            let Some(facts) = facts else {
                assert!(lane.is_idle(), "{lane:?}");
                continue;
            };
            let ids = |holders: &[lane::Holder<TaskId>]| -> Vec<TaskId> {
                holders.iter().map(|holder| holder.id.clone()).collect()
            };
            assert_eq!(ids(&facts.holders), ids(lane.holders()));
            let next: Vec<TaskId> = facts.next.into_iter().map(|waiting| waiting.id).collect();
            let line: Vec<TaskId> = line.iter().map(|(_, id)| id.clone()).collect();
            assert_eq!((next, facts.waiting), (line, lane.waiting()));
            let block = |block: &lane::Block<TaskId>| (block.by.clone(), block.reason.clone());
            assert_eq!(facts.blocked.as_ref().map(block), lane.blocked().map(block));
            assert_eq!(facts.is_adjusted, lane.is_adjusted());
            if lane.is_adjusted() || !lane.holders().is_empty() {
                assert_eq!(facts.concurrency, lane.limit());
            }
        }
    }
}

#[test]
fn lanes_in_redis_are_those_of_core() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (url, prefix) = runtime.block_on(place());
    let redis = runtime.block_on(blocking(|| Redis::shared().url()));
    let cases = std::sync::atomic::AtomicUsize::new(0);
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(async {
            let n = cases.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let prefix = format!("{prefix}-{n}");
            let subject = RedisLanes::with(url.clone(), prefix, redis.clone(), LEASE).await;
            let mut run = Run::open(subject, format!("model-{n}"));
            for step in steps {
                run = run.step(step).await;
                run.check().await;
            }
        });
    });
}
