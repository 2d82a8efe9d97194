//! The tenants of the embedded broker against a model of them: whatever happens in whatever order, restarts and crashes
//! included, nothing is lost, nothing comes twice, each tenant's tasks come in their order, and no tenant is hidden.
//!
//! The model does not say which task comes next, because that depends on what comes together. It says what must hold
//! of whatever comes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use celeriac::broker::conformance::{BrokerUnderTest, Inbox, counts, sample};
use celeriac::broker::{Broker, Delivery, QueueCounts, Removal, Settle};
use celeriac::task::{Durability, Message, TENANT};
use proptest::prelude::*;

use crate::embedded::Embedded;

#[derive(Clone, Debug)]
enum Step {
    Publish { tenant: u8, priority: u8 },
    PublishTogether(Vec<u8>),
    Settle(usize, How),
    SetPrefetch(usize),
    ReplaceConsumer(usize),
    Remove(usize),
    Reopen,
    Crash,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Ack,
    Requeue { priority: u8 },
    Return,
    Drop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tenant = || prop_oneof![3 => Just(1_u8), 1 => 0..5_u8];
    let priority = || prop_oneof![3 => Just(0_u8), 1 => Just(5_u8), 1 => Just(255_u8)];
    let how = prop_oneof![
        4 => Just(How::Ack),
        1 => priority().prop_map(|priority| How::Requeue { priority }),
        1 => Just(How::Return),
        2 => Just(How::Drop),
    ];
    let step = prop_oneof![
        8 => (tenant(), priority()).prop_map(|(tenant, priority)| Step::Publish { tenant, priority }),
        2 => prop::collection::vec(tenant(), 1..20).prop_map(Step::PublishTogether),
        10 => ((0..100_usize), how).prop_map(|(which, how)| Step::Settle(which, how)),
        2 => (0..6_usize).prop_map(Step::SetPrefetch),
        1 => (0..6_usize).prop_map(Step::ReplaceConsumer),
        1 => (0..100_usize).prop_map(Step::Remove),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

/// By priority, high first, then by arrival.
type Rank = (Reverse<u8>, u64);

/// One message.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Its tenant; 0: none.
    tenant: u8,
    priority: u8,
    retries: u32,
}

/// What a queue should be like. Its messages are told by number.
#[derive(Default)]
struct Model {
    known: Vec<Known>,
    ready: BTreeMap<(u8, Rank), usize>,
    /// The message and its place.
    delivered: Vec<(usize, Rank)>,
    prefetch: usize,
    sequence: u64,
}

impl Model {
    fn add(&mut self, tenant: u8, priority: u8) -> Message {
        self.known.push(Known { tenant, priority, retries: 0 });
        let n = self.known.len() - 1;
        let mut message = Message { priority, ..sample("q", n, Durability::Disk) };
        if tenant > 0 {
            message.headers.0.insert(TENANT.to_owned(), name(tenant).into());
        }
        self.line_up(n);
        message
    }

    fn line_up(&mut self, n: usize) {
        self.sequence += 1;
        let Known { tenant, priority, .. } = self.known[n];
        self.ready.insert((tenant, (Reverse(priority), self.sequence)), n);
    }

    /// Notes that a message is delivered. It must be the first of its tenant's, and there must be room for it.
    fn give(&mut self, n: usize) {
        let tenant = self.known[n].tenant;
        let first = self.ready.iter().find(|((of, _), _)| *of == tenant).map(|(key, n)| (*key, *n));
        let (key, _) = first.filter(|(_, first)| *first == n).unwrap_or_else(|| {
            panic!("{n} comes, and of tenant {tenant} the next one is {first:?}");
        });
        let is_extra = self.delivered.len() >= self.prefetch;
        assert!(self.prefetch > 0 && (!is_extra || self.out_of(tenant) == 0), "there is no room for {n}");
        self.ready.remove(&key);
        self.delivered.push((n, key.1));
    }

    fn go_back(&mut self, n: usize, rank: Rank) {
        self.ready.insert((self.known[n].tenant, rank), n);
    }

    fn all_go_back(&mut self) {
        for (n, rank) in std::mem::take(&mut self.delivered) {
            self.go_back(n, rank);
        }
    }

    fn out_of(&self, tenant: u8) -> usize {
        self.delivered.iter().filter(|(n, _)| self.known[*n].tenant == tenant).count()
    }

    fn ready_of(&self, tenant: u8) -> usize {
        self.ready.keys().filter(|(of, _)| *of == tenant).count()
    }

    /// The tenants that have messages which are not delivered.
    fn waiting(&self) -> BTreeSet<u8> {
        self.ready.keys().map(|(tenant, _)| *tenant).collect()
    }

    fn counts(&self) -> QueueCounts {
        let (ready, unsettled) = (self.ready.len() as u64, self.delivered.len() as u64);
        QueueCounts { ready, unsettled, ..QueueCounts::default() }
    }

    /// How many messages of each tenant are ready, and how many are delivered.
    fn tenants(&self) -> BTreeMap<String, (u64, u64)> {
        let all = (1..5).map(|tenant| (tenant, self.ready_of(tenant) as u64, self.out_of(tenant) as u64));
        all.filter(|(_, ready, out)| ready + out > 0)
            .map(|(of, ready, out)| (name(of), (ready, out)))
            .collect()
    }
}

fn name(tenant: u8) -> String {
    format!("tenant {tenant}")
}

fn number(message: &Message) -> usize {
    message.id.as_str().strip_prefix("q-").unwrap().parse().unwrap()
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
        Self::with(Model::default(), Embedded::open().await)
    }

    fn with(model: Model, subject: Embedded) -> Self {
        let broker = subject.broker();
        let inbox = Inbox::open(&broker, "q", model.prefetch);
        Self { model, subject, broker, inbox, held: Vec::new() }
    }

    async fn step(mut self, step: Step) -> Self {
        match step {
            Step::Publish { tenant, priority } => {
                let message = self.model.add(tenant, priority);
                self.broker.publish(message, true).await.unwrap();
            }
            Step::PublishTogether(tenants) => {
                let messages = tenants.into_iter().map(|tenant| self.model.add(tenant, 0));
                let messages: Vec<Message> = messages.collect();
                let publishes = messages.into_iter().map(|message| self.broker.publish(message, false));
                futures_util::future::try_join_all(publishes).await.unwrap();
            }
            Step::Settle(which, how) if !self.held.is_empty() => {
                self.settle(which % self.held.len(), how).await;
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
                let id = sample("q", n, Durability::Disk).id;
                let removal = self.broker.inspect().unwrap().remove(&id, Box::new(|_| None.into())).await;
                let before = self.model.ready.len();
                self.model.ready.retain(|_, waiting| *waiting != n);
                let expected = if self.model.ready.len() < before {
                    Removal::Removed
                } else if self.model.delivered.iter().any(|(delivered, _)| *delivered == n) {
                    Removal::Delivered { queue: "q".to_owned() }
                } else {
                    Removal::Unknown
                };
                assert_eq!(removal, Ok(expected), "of {n}");
            }
            Step::Reopen => {
                drop((self.inbox, self.held, self.broker));
                self.model.all_go_back();
                return Self::with(self.model, self.subject.reopen().await.unwrap());
            }
            Step::Crash => {
                self.model.all_go_back();
                return Self::with(self.model, self.subject.crash().await.unwrap());
            }
            Step::Settle(..) | Step::Remove(_) => {} // nothing there
        }
        self
    }

    async fn settle(&mut self, which: usize, how: How) {
        let delivery = self.held.remove(which);
        let (n, rank) = self.model.delivered.remove(which);
        let model = &mut self.model;
        let end = match how {
            How::Ack => Settle::Ack { result: None, follow_ups: None },
            How::Requeue { priority } => {
                let known = &mut model.known[n];
                (known.priority, known.retries) = (priority, known.retries + 1);
                let message =
                    Message { priority, retries: known.retries, ..Message::clone(delivery.message()) };
                model.line_up(n);
                Settle::Requeue { message: Box::new(message), due: None }
            }
            How::Return => {
                model.go_back(n, rank);
                Settle::Return { crashed: false }
            }
            How::Drop => {
                model.go_back(n, rank);
                return;
            }
        };
        delivery.settle_and_wait(end).await.unwrap();
    }

    /// Notes what was delivered. `is_batch`: several messages have come, and some may be delivered before others came.
    async fn check(&mut self, is_batch: bool) {
        let delivered = self.inbox.rest(&self.broker, "q").await;
        let model = &mut self.model;
        let mut given = BTreeSet::new();
        for delivery in &delivered {
            let message = delivery.message();
            let n = number(message);
            model.give(n);
            let Known { tenant, priority, retries } = model.known[n];
            assert_eq!((message.priority, message.retries), (priority, retries));
            given.insert(tenant);
        }
        self.held.extend(delivered);
        let waiting = model.waiting();
        if model.prefetch > 0 && !waiting.is_empty() {
            assert!(model.delivered.len() >= model.prefetch, "there is room, and {waiting:?} wait");
        }
        for waiting in waiting.into_iter().filter(|_| model.prefetch > 0) {
            let fewest = model.out_of(waiting);
            assert!(fewest > 0, "tenant {waiting} is hidden");
            for tenant in given.iter().filter(|_| !is_batch) {
                let out = model.out_of(*tenant);
                assert!(out <= fewest + 1, "{tenant} got its {out}th, and tenant {waiting} has {fewest}");
            }
        }
        assert_eq!(counts(&self.broker, "q").await, self.model.counts());
        let found = self.broker.tenant_backlog().unwrap().tenants("q", 10).await.unwrap();
        let found = found.tenants.into_iter().map(|counts| (counts.tenant, (counts.ready, counts.unsettled)));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), self.model.tenants());
    }

    /// All that is not over is there, once.
    async fn finish(mut self) {
        for step in [Step::Crash, Step::SetPrefetch(1000)] {
            self = self.step(step).await;
            self.check(false).await;
        }
        assert!(self.model.ready.is_empty());
    }
}

#[test]
fn tenants_are_like_their_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in steps())| {
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in steps {
                let is_batch = matches!(step, Step::PublishTogether(_));
                run = run.step(step).await;
                run.check(is_batch).await;
            }
            run.finish().await;
        });
    });
}
