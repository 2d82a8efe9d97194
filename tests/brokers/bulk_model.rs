//! Whatever is moved and ended, in whatever order it is undone: what waits is as if nothing had been, if nothing has run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use celeriac::broker::conformance::{BrokerUnderTest, Inbox, counts, sample};
use celeriac::broker::{Broker, BulkChange, BulkPick, MessageLocation, QueueCounts, Remains, RemainsFn};
use celeriac::core::Timestamp;
use celeriac::task::{Message, TENANT, TaskId};
use proptest::prelude::*;

use crate::embedded::Embedded;
use crate::memory::Memory;

const QUEUES: [&str; 2] = ["p", "q"];

/// One message.
#[derive(Clone, Copy, Debug)]
struct Sent {
    queue: usize,
    /// Its tenant; 0: none.
    tenant: u8,
    priority: u8,
    is_scheduled: bool,
}

/// One act: which of the messages it is about, as many bits, and where it moves them; `None`: it ends them.
#[derive(Clone, Debug)]
struct Act {
    chosen: Vec<bool>,
    to: Option<usize>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let priority = prop_oneof![3 => Just(0_u8), 1 => Just(5_u8)];
    (0..2_usize, 0..3_u8, priority, prop::bool::weighted(0.2))
        .prop_map(|(queue, tenant, priority, is_scheduled)| Sent { queue, tenant, priority, is_scheduled })
}

fn act() -> impl Strategy<Value = Act> {
    let to = prop_oneof![2 => (0..2_usize).prop_map(Some), 1 => Just(None)];
    (prop::collection::vec(any::<bool>(), 30), to).prop_map(|(chosen, to)| Act { chosen, to })
}

fn message(n: usize, sent: Sent, far: Timestamp, durability: celeriac::task::Durability) -> Message {
    let mut message = sample("t", n, durability);
    message.queue = QUEUES[sent.queue].to_owned();
    message.priority = sent.priority;
    message.eta = sent.is_scheduled.then_some(far);
    if sent.tenant > 0 {
        message.headers.0.insert(TENANT.to_owned(), format!("tenant-{}", sent.tenant).into());
    }
    message
}

/// Changes what the act chooses.
async fn change(broker: &Arc<dyn Broker>, name: &str, act: &Act, sent: usize) {
    let chosen = act.chosen.iter().take(sent).enumerate().filter(|(_, is_chosen)| **is_chosen);
    let picks = chosen.map(|(n, _)| BulkPick { id: TaskId::from(format!("t-{n}")), tag: None }).collect();
    let remains: RemainsFn = Arc::new(|_: &Message| Remains::default());
    let change = match act.to {
        Some(to) => BulkChange::Move { to: QUEUES[to].to_owned() },
        None => BulkChange::End { remains },
    };
    broker.bulk_changes().unwrap().change_all(Some(name), &change, picks).await.unwrap();
}

async fn undo(broker: &Arc<dyn Broker>, name: &str) {
    let bulk = broker.bulk_changes().unwrap();
    let kept = bulk.kept_for(name, 1_000).await.unwrap();
    let picks = kept.into_iter().map(|kept| (kept, None)).collect();
    let undone = bulk.undo(name, picks, true).await.unwrap();
    assert!(undone.left.is_empty(), "{undone:?}");
}

/// The counts of each queue, where each scheduled task waits, and the order in which the tasks of each tenant come.
#[derive(Debug, PartialEq)]
struct Snapshot {
    counts: Vec<QueueCounts>,
    scheduled: BTreeMap<usize, String>,
    order: BTreeMap<(String, String), Vec<String>>,
}

async fn snapshot(broker: &Arc<dyn Broker>, sent: &[Sent]) -> Snapshot {
    let (mut found, mut scheduled, mut order) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for (n, _) in sent.iter().enumerate().filter(|(_, sent)| sent.is_scheduled) {
        let id = TaskId::from(format!("t-{n}"));
        let Some(MessageLocation::Waiting(message)) = broker.inspect().unwrap().find(&id).await.unwrap()
        else {
            panic!("{id} does not wait");
        };
        scheduled.insert(n, message.queue);
    }
    for queue in QUEUES {
        let waiting = counts(broker, queue).await;
        let mut inbox = Inbox::open(broker, queue, 1_000);
        for delivery in inbox.take(usize::try_from(waiting.ready).unwrap()).await {
            let message = delivery.message();
            let tenant = message.tenant().unwrap_or_default().to_owned();
            let came: &mut Vec<String> = order.entry((queue.to_owned(), tenant)).or_default();
            came.push(message.id.to_string());
        }
        found.push(waiting);
    }
    Snapshot { counts: found, scheduled, order }
}

/// What waits after these acts were done one after the other and undone from the last to the first, and what waits without them.
async fn compare<S: BrokerUnderTest>(sent: &[Sent], acts: &[Act]) {
    let far = celeriac_now() + Duration::from_secs(3_600);
    let mut snapshots = Vec::new();
    for acts in [&[][..], acts] {
        let subject = S::open().await;
        let broker = subject.broker();
        for queue in QUEUES {
            broker.declare(queue).await.unwrap();
        }
        for (n, sent) in sent.iter().enumerate() {
            broker.publish(message(n, *sent, far, S::DURABILITY), true).await.unwrap();
        }
        for (n, act) in acts.iter().enumerate() {
            change(&broker, &format!("act-{n}"), act, sent.len()).await;
        }
        for n in (0..acts.len()).rev() {
            undo(&broker, &format!("act-{n}")).await;
        }
        snapshots.push(snapshot(&broker, sent).await);
    }
    assert_eq!(snapshots[0], snapshots[1]);
}

/// Any message says what the time is.
fn celeriac_now() -> Timestamp {
    sample("t", 0, celeriac::task::Durability::Memory).enqueued_at
}

#[test]
fn what_was_changed_and_undone_waits_as_if_nothing_had_been() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() };
    let (sent, acts) = (prop::collection::vec(sent(), 1..30), prop::collection::vec(act(), 1..4));
    proptest!(config, |(sent in sent, acts in acts)| {
        runtime.block_on(async {
            compare::<Memory>(&sent, &acts).await;
            compare::<Embedded>(&sent, &acts).await;
        });
    });
}
