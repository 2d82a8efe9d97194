//! The lines of tenants in the embedded store: behind a long backlog, across restarts and kills, and in copies.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use celeriac::broker::conformance::{Inbox, counts};
use celeriac::broker::embedded::{salvage, verify};
use celeriac::broker::{
    Broker, Delivery, EmbeddedBroker, QueueCounts, Removal, Settle, Standing, TaskFilter,
};
use celeriac::core::Timestamp;
use celeriac::task::{Message, TENANT};

use crate::{copy, drain, message, open, publish, shared};

/// The `n`th message, on behalf of a tenant.
fn of(n: usize, tenant: &str) -> Message {
    let mut message = message(n);
    message.headers.0.insert(TENANT.to_owned(), tenant.into());
    message
}

async fn publish_of(broker: &EmbeddedBroker, numbers: Range<usize>, tenant: &str) {
    let all: Vec<Message> = numbers.map(|n| of(n, tenant)).collect();
    for some in all.chunks(1000) {
        broker.publish_all(some.to_vec(), false).await.unwrap();
    }
}

fn number(message: &Message) -> usize {
    message.id.as_str().strip_prefix("q-").unwrap().parse().unwrap()
}

/// The numbers of the messages of a tenant, in their order; of those without one if the name is empty.
fn numbers_of(messages: &[Message], tenant: &str) -> Vec<usize> {
    let own = messages.iter().filter(|message| message.tenant().unwrap_or_default() == tenant);
    own.map(number).collect()
}

/// How many tasks of each tenant are ready, and how many are delivered.
async fn known(broker: &EmbeddedBroker) -> BTreeMap<String, (u64, u64)> {
    counts(&shared(broker), "q").await;
    let found = broker.tenant_backlog().unwrap().tenants("q", 100).await.unwrap();
    assert_eq!((found.total, found.uncounted), (found.tenants.len() as u64, 0));
    found.tenants.into_iter().map(|counts| (counts.tenant, (counts.ready, counts.unsettled))).collect()
}

fn expected<const N: usize>(tenants: [(&str, u64, u64); N]) -> BTreeMap<String, (u64, u64)> {
    tenants.into_iter().map(|(tenant, ready, unsettled)| (tenant.to_owned(), (ready, unsettled))).collect()
}

fn far() -> Timestamp {
    Timestamp::from(SystemTime::now()) + Duration::from_secs(3600)
}

/// The only task of a tenant, behind 20,000 of another's, is delivered next: when the consumer has all that it may have, when
/// the program was started again, and when it was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_twenty_thousand_hides_nobody() {
    const FLOOD: usize = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let all = shared(&broker);
    let mut inbox = Inbox::open(&all, "q", 1024);
    publish_of(&broker, 0..FLOOD, "flood").await;
    let held = inbox.take(1024).await;
    inbox.is_quiet(&all, "q").await;
    publish_of(&broker, FLOOD..FLOOD + 1, "quiet").await;
    let next = inbox.next().await;
    assert_eq!(number(next.message()), FLOOD);
    assert_eq!(known(&broker).await, expected([("flood", 20_000 - 1024, 1024), ("quiet", 0, 1)]));
    // What a kill would leave: nothing that was written is taken back, nothing more is written.
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    drop((held, next, inbox, all));
    broker.close().await.unwrap();
    drop(broker);

    for dir in [dir.path(), killed.path()] {
        let broker = open(dir).unwrap();
        assert_eq!(known(&broker).await, expected([("flood", 20_000, 0), ("quiet", 1, 0)]));
        let mut inbox = Inbox::open(&shared(&broker), "q", 4);
        let first = inbox.take(4).await;
        let first: BTreeSet<usize> = first.iter().map(|delivery| number(delivery.message())).collect();
        assert_eq!(first, BTreeSet::from([0, 1, 2, FLOOD]));
        drop(inbox);
        broker.close().await.unwrap();
    }
}

/// A store of an earlier program, which knew of no tenants, goes on as it is, and gets tenants.
#[tokio::test]
async fn a_store_without_tenants_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    publish(&broker, 0..100).await;
    broker.close().await.unwrap();
    drop(broker);
    let broker = open(dir.path()).unwrap();
    assert_eq!(known(&broker).await, expected([]));
    publish_of(&broker, 100..150, "a").await;
    publish_of(&broker, 150..160, "b").await;
    publish(&broker, 160..170).await;
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    broker.close().await.unwrap();
    drop(broker);

    for dir in [dir.path(), killed.path()] {
        let broker = open(dir).unwrap();
        assert_eq!(known(&broker).await, expected([("a", 50, 0), ("b", 10, 0)]));
        let drained = drain(&broker, "q").await;
        assert_eq!(numbers_of(&drained, ""), (0..100).chain(160..170).collect::<Vec<_>>());
        assert_eq!(numbers_of(&drained, "a"), (100..150).collect::<Vec<_>>());
        assert_eq!(numbers_of(&drained, "b"), (150..160).collect::<Vec<_>>());
        let last_of_b = drained.iter().rposition(|message| message.tenant() == Some("b")).unwrap();
        assert!(last_of_b < 40, "they take turns, and {last_of_b} came before the last one of `b`");
        assert_eq!(known(&broker).await, expected([]));
        assert_eq!(counts(&shared(&broker), "q").await, QueueCounts::default());
        broker.close().await.unwrap();
        drop(broker);
        let found = verify(dir).unwrap();
        assert_eq!((found.damage, found.waiting), (Vec::new(), 0));
    }
}

/// Settles a delivery as its number says. Answers with how: whether its task is ready all the same.
fn settle(delivery: Delivery, ends: &mut BTreeMap<&'static str, u64>) -> bool {
    let message = delivery.message();
    let again = || Box::new(Message { retries: message.retries + 1, ..Message::clone(message) });
    let (how, settle) = match number(message) % 7 {
        0 if message.retries == 0 => ("again", Settle::Requeue { message: again(), due: None }),
        1 => ("later", Settle::Requeue { message: again(), due: Some(far()) }),
        2 => ("dead", Settle::DeadLetter { reason: "for a test".into(), result: None, follow_ups: None }),
        3 if message.crashes == 0 => ("crashed", Settle::Return { crashed: true }),
        _ => ("done", Settle::Ack { result: None, follow_ups: None }),
    };
    delivery.settle(settle);
    *ends.entry(how).or_default() += 1;
    matches!(how, "again" | "crashed")
}

/// What is known of ten tenants is exact, whatever becomes of their tasks, and after a restart and a kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_tenants_are_counted_whatever_becomes_of_their_tasks() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    let name = |n: usize| format!("tenant {}", n % 10);
    let mut waits: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let mut all = Vec::new();
    for n in 0..2000 {
        all.push(of(n, &name(n)));
        waits.entry(name(n)).or_default().insert(n);
    }
    broker.publish_all(all, false).await.unwrap();
    let expect = |waits: &BTreeMap<String, BTreeSet<usize>>| -> BTreeMap<String, (u64, u64)> {
        waits.iter().map(|(tenant, tasks)| (tenant.clone(), (tasks.len() as u64, 0))).collect()
    };
    assert_eq!(known(&broker).await, expect(&waits));

    let mut ends = BTreeMap::new();
    let shared_broker = shared(&broker);
    let mut inbox = Inbox::open(&shared_broker, "q", 50);
    for _ in 0..1000 {
        let delivery = inbox.next().await;
        let n = number(delivery.message());
        if !settle(delivery, &mut ends) {
            waits.get_mut(&name(n)).unwrap().remove(&n);
        }
    }
    inbox.set_prefetch(0);
    drop(inbox.rest(&shared_broker, "q").await); // they go back
    drop((inbox, shared_broker));
    assert_eq!(ends.len(), 5, "{ends:?}");
    assert_eq!(known(&broker).await, expect(&waits));
    broker.close().await.unwrap();
    drop(broker);

    let broker = open(dir.path()).unwrap();
    assert_eq!(known(&broker).await, expect(&waits), "after a restart");
    for tasks in waits.values_mut() {
        let id = message(tasks.pop_first().unwrap()).id;
        let removal = broker.inspect().unwrap().remove(&id, Box::new(|_| None.into())).await;
        assert_eq!(removal, Ok(Removal::Removed));
    }
    assert_eq!(known(&broker).await, expect(&waits), "when some are revoked");
    let killed = tempfile::tempdir().unwrap();
    copy(dir.path(), killed.path());
    let after = open(killed.path()).unwrap();
    assert_eq!(known(&after).await, expect(&waits), "after a kill");
    drop(after);

    let ready: usize = waits.values().map(BTreeSet::len).sum();
    assert_eq!(broker.purge("q").await.unwrap(), Some(ready as u64 + ends["later"]));
    for round in 0..2 {
        let broker = if round == 0 { broker.clone() } else { open(dir.path()).unwrap() };
        assert_eq!(known(&broker).await, expected([]));
        let dead = QueueCounts { dead: ends["dead"], ..QueueCounts::default() };
        assert_eq!(counts(&shared(&broker), "q").await, dead);
        broker.close().await.unwrap();
    }
    drop(broker);
    assert_eq!(verify(dir.path()).unwrap().damage, [] as [String; 0]);
}

/// A copy of a store has the lines of its tenants, and the look over it finds them sound.
#[tokio::test]
async fn a_copy_has_the_lines_of_the_tenants() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    publish(&broker, 0..5).await;
    publish_of(&broker, 5..25, "a").await;
    publish_of(&broker, 25..28, "b").await;
    broker.publish(Message { eta: Some(far()), ..of(28, "later") }, false).await.unwrap();
    broker.close().await.unwrap();
    drop(broker);
    let found = verify(dir.path()).unwrap();
    assert_eq!((found.damage, found.waiting, found.lost), (Vec::new(), 29, Vec::new()));

    let into = tempfile::tempdir().unwrap();
    let salvaged = salvage(dir.path(), into.path()).unwrap();
    assert_eq!((salvaged.damage, salvaged.waiting, salvaged.lost), (Vec::new(), 29, Vec::new()));
    assert_eq!(verify(into.path()).unwrap().damage, [] as [String; 0]);
    let broker = open(into.path()).unwrap();
    assert_eq!(known(&broker).await, expected([("a", 20, 0), ("b", 3, 0)]));
    let drained = drain(&broker, "q").await;
    assert_eq!(numbers_of(&drained, "a"), (5..25).collect::<Vec<_>>());
    assert_eq!(numbers_of(&drained, "b"), (25..28).collect::<Vec<_>>());
    assert_eq!(numbers_of(&drained, ""), (0..5).collect::<Vec<_>>());
    broker.close().await.unwrap();
}

/// Who looks at the tasks that wait, page by page, sees those of all lines, each once.
#[tokio::test]
async fn pages_have_the_tasks_of_all_lines() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).unwrap();
    publish(&broker, 0..3).await;
    broker.publish(Message { eta: Some(far()), ..of(3, "a") }, false).await.unwrap();
    publish_of(&broker, 4..7, "a").await;
    publish_of(&broker, 7..9, "b").await;
    for (standings, wanted) in [
        (vec![Standing::Ready], vec![0, 1, 2, 4, 5, 6, 7, 8]),
        (vec![Standing::Ready, Standing::Delivered], vec![0, 1, 2, 4, 5, 6, 7, 8]),
        (vec![Standing::Scheduled], vec![3]),
        (vec![Standing::Delivered], vec![]),
        (Vec::new(), (0..9).collect()),
    ] {
        for filter in [TaskFilter::new().queue("q"), TaskFilter::new()] {
            let (mut seen, mut after) = (Vec::new(), None::<String>);
            loop {
                let page =
                    broker.inspect().unwrap().page_unfinished(&filter, &standings, after.as_deref(), 2);
                let page = page.await.unwrap();
                seen.extend(page.tasks.iter().map(|task| number(&task.message)));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, wanted, "{standings:?}");
        }
    }
    broker.close().await.unwrap();
}
