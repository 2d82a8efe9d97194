//! The promises about tenants, for brokers in which they take turns.

use std::collections::BTreeMap;

use super::*;
use crate::broker::{QueueTenants, Remains, Removal, TenantBacklog, TenantCounts};
use crate::task::TENANT;

/// The `n`th message for `queue`, on behalf of a tenant; the empty name is nobody's.
fn of<S: BrokerUnderTest>(queue: &str, n: usize, tenant: &str) -> Message {
    let mut message = message::<S>(queue, n);
    if !tenant.is_empty() {
        message.headers.0.insert(TENANT.to_owned(), tenant.into());
    }
    message
}

async fn publish_of<S: BrokerUnderTest>(
    broker: &Arc<dyn Broker>,
    queue: &str,
    numbers: std::ops::Range<usize>,
    tenant: &str,
) {
    let all: Vec<Message> = numbers.map(|n| of::<S>(queue, n, tenant)).collect();
    for some in all.chunks(1000) {
        broker.publish_all(some.to_vec(), false).await.expect("publishes");
    }
}

fn tenant_of(delivery: &Delivery) -> String {
    delivery.message().tenant().unwrap_or_default().to_owned()
}

/// How many of these deliveries each tenant has.
fn shares(deliveries: &[Delivery]) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    deliveries.iter().for_each(|delivery| *shares.entry(tenant_of(delivery)).or_default() += 1);
    shares
}

/// The numbers of the messages of one tenant among these deliveries, in their order.
fn numbers_of(deliveries: &[Delivery], tenant: &str) -> Vec<usize> {
    let own = deliveries.iter().filter(|delivery| tenant_of(delivery) == tenant);
    let numbers = own.map(|delivery| {
        let id = delivery.message().id.to_string();
        id.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a number")
    });
    numbers.collect()
}

fn tenants(broker: &Arc<dyn Broker>) -> &dyn TenantBacklog {
    broker.tenant_backlog().expect("its tenants take turns")
}

/// A tenant whose message comes behind thousands of another's has it delivered as soon as there is room for one, and at
/// once if it has none delivered yet. Its second one comes before the rest of the flood.
pub async fn a_flood_of_one_tenant_hides_nobody<S: BrokerUnderTest>() {
    const FLOOD: usize = 4000;
    let subject = S::open().await;
    let broker = subject.broker();
    // Those that wait when the consumer comes.
    publish_of::<S>(&broker, "before", 0..FLOOD, "flood").await;
    put(&broker, of::<S>("before", FLOOD, "quiet")).await;
    put(&broker, of::<S>("before", FLOOD + 1, "")).await;
    let mut inbox = Inbox::open(&broker, "before", 6);
    let first = inbox.take(6).await;
    let expected = [("", 1), ("flood", 4), ("quiet", 1)].map(|(tenant, n)| (tenant.to_owned(), n));
    assert_eq!(shares(&first), BTreeMap::from(expected));
    assert_eq!(numbers_of(&first, "flood"), [0, 1, 2, 3]);

    // Those that come when the consumer has all that it may have.
    let mut inbox = Inbox::open(&broker, "after", 6);
    publish_of::<S>(&broker, "after", 0..FLOOD, "flood").await;
    let mut held = inbox.take(6).await;
    inbox.is_quiet(&broker, "after").await;
    for (n, tenant) in [(FLOOD, "quiet"), (FLOOD + 1, "other"), (FLOOD + 2, "")] {
        put(&broker, of::<S>("after", n, tenant)).await;
        let next = inbox.next().await;
        assert_eq!(next.message().id.as_str(), format!("after-{n}"), "at once, beyond the prefetch");
        held.push(next);
    }
    put(&broker, of::<S>("after", FLOOD + 3, "quiet")).await;
    inbox.is_quiet(&broker, "after").await;
    // Nine are out, and six may be: when three and one more are over, there is room for one.
    for _ in 0..3 {
        ack(held.remove(0)).await;
        inbox.is_quiet(&broker, "after").await;
    }
    ack(held.remove(0)).await;
    assert_eq!(inbox.next().await.message().id.as_str(), format!("after-{}", FLOOD + 3));
    let mut rest = inbox.take(1).await; // the one that was dropped comes again, for its tenant has the fewest
    assert_eq!(numbers_of(&rest, "quiet"), [FLOOD + 3]);
    rest.extend(held);
    assert_eq!(shares(&rest)["flood"], 2);
}

/// Tenants that have enough messages have equally many delivered, however many they have, and each tenant's messages come
/// by priority and in the order of their arrival.
pub async fn tenants_share_what_is_delivered<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish_of::<S>(&broker, "q", 0..3000, "a").await;
    publish_of::<S>(&broker, "q", 3000..3100, "b").await;
    publish_of::<S>(&broker, "q", 3100..3200, "").await;
    publish_of::<S>(&broker, "q", 3200..3300, "d").await;
    let mut inbox = Inbox::open(&broker, "q", 20);
    let mut held = inbox.take(20).await;
    inbox.is_quiet(&broker, "q").await;
    let each = |n: usize| BTreeMap::from(["", "a", "b", "d"].map(|tenant| (tenant.to_owned(), n)));
    assert_eq!(shares(&held), each(5));
    let mut came: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut note = |deliveries: &[Delivery]| {
        for tenant in ["", "a", "b", "d"] {
            came.entry(tenant.to_owned()).or_default().extend(numbers_of(deliveries, tenant));
        }
    };
    note(&held);
    // Whosever ends, the shares stay.
    for turn in 0..120 {
        ack(held.remove(turn * 7 % 20)).await;
        let next = inbox.take(1).await;
        note(&next);
        held.extend(next);
        assert_eq!(shares(&held), each(5), "after {turn}");
    }
    let priority = |n: usize| Message { priority: 9, ..of::<S>("q", n, "a") };
    put(&broker, priority(9000)).await;
    put(&broker, priority(9001)).await;
    while shares(&held)["a"] > 3 {
        let place = held.iter().position(|delivery| tenant_of(delivery) == "a").expect("one of that tenant");
        ack(held.remove(place)).await;
        let next = inbox.take(1).await;
        note(&next);
        held.extend(next);
        if numbers_of(&held, "a").contains(&9001) {
            break;
        }
    }
    let own = |came: &BTreeMap<String, Vec<usize>>, tenant: &str| came[tenant].clone();
    let mut of_a = own(&came, "a");
    assert_eq!(of_a.split_off(of_a.len() - 2), [9000, 9001], "the urgent ones came first");
    for numbers in [of_a, own(&came, "b"), own(&came, ""), own(&came, "d")] {
        let first = numbers.first().copied().expect("some came");
        assert_eq!(numbers, (first..first + numbers.len()).collect::<Vec<_>>());
    }
}

/// Expects the counts that follow from all messages of each tenant and from those that are delivered.
async fn check(broker: &Arc<dyn Broker>, all: &BTreeMap<String, usize>, held: &[Delivery], when: &str) {
    let out = shares(held);
    let counts = all.iter().filter(|(tenant, size)| !tenant.is_empty() && **size > 0);
    let counts = counts.map(|(tenant, size)| {
        let unsettled = out.get(tenant).copied().unwrap_or_default();
        let (ready, unsettled) = ((size - unsettled) as u64, unsettled as u64);
        TenantCounts { tenant: tenant.clone(), ready, unsettled }
    });
    let mut expected: Vec<TenantCounts> = counts.collect();
    expected.sort_by_key(|counts| std::cmp::Reverse(counts.ready + counts.unsettled));
    let found = tenants(broker).tenants("q", 10).await.expect("an answer");
    assert_eq!((found.total, found.uncounted), (expected.len() as u64, 0), "{when}");
    assert_eq!(found.tenants, expected, "{when}");
}

/// What is known of the tenants is exact, whatever becomes of their messages.
pub async fn tenants_are_counted<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let known = async |limit: usize| tenants(&broker).tenants("q", limit).await.expect("an answer");
    assert_eq!(known(10).await, QueueTenants::default());
    let sizes = [("a", 12), ("b", 7), ("c", 3), ("d", 1), ("", 4)];
    let mut numbers = 0;
    for (tenant, size) in sizes {
        publish_of::<S>(&broker, "q", numbers..numbers + size, tenant).await;
        numbers += size;
    }
    put(&broker, Message { eta: Some(far()), ..of::<S>("q", 900, "later") }).await;
    let mut all: BTreeMap<String, usize> =
        sizes.into_iter().map(|(tenant, size)| (tenant.to_owned(), size)).collect();
    let mut held: Vec<Delivery> = Vec::new();
    check(&broker, &all, &held, "when all have come").await;
    let most = known(2).await;
    let names: Vec<&str> = most.tenants.iter().map(|counts| counts.tenant.as_str()).collect();
    assert_eq!((names, most.total), (vec!["a", "b"], 4));
    // The twelfth of the first tenant, and the last one without a tenant; one that waits for its time has no place.
    for (n, limit, expected) in
        [(11, 100, Some(11)), (11, 5, Some(5)), (26, 100, Some(3)), (900, 100, None), (901, 100, None)]
    {
        let id = TaskId::from(format!("q-{n}"));
        assert_eq!(tenants(&broker).line_before(&id, limit).await, Ok(expected), "{id}");
    }

    let mut inbox = Inbox::open(&broker, "q", 8);
    held.extend(inbox.take(8).await);
    check(&broker, &all, &held, "when some are delivered").await;
    let take = |held: &mut Vec<Delivery>, tenant: &str| {
        let place = held.iter().position(|delivery| tenant_of(delivery) == tenant);
        held.remove(place.expect("one of that tenant"))
    };
    let lose = |all: &mut BTreeMap<String, usize>, tenant: &str| {
        *all.get_mut(tenant).expect("a tenant") -= 1;
    };
    ack(take(&mut held, "a")).await;
    lose(&mut all, "a");
    held.extend(inbox.rest(&broker, "q").await);
    check(&broker, &all, &held, "when one is done").await;

    ack(take(&mut held, "d")).await;
    lose(&mut all, "d");
    held.extend(inbox.rest(&broker, "q").await);
    check(&broker, &all, &held, "when a tenant has none any more").await;

    // A retry is scheduled, and not ready; one without a time is ready again.
    for (tenant, due) in [("b", Some(far())), ("a", None)] {
        let delivery = take(&mut held, tenant);
        let message = Box::new(Message { retries: 1, ..Message::clone(delivery.message()) });
        delivery.settle_and_wait(Settle::Requeue { message, due }).await.expect("a requeue");
        if due.is_some() {
            lose(&mut all, tenant);
        }
        held.extend(inbox.rest(&broker, "q").await);
        check(&broker, &all, &held, "when one is to be tried again").await;
    }

    drop(take(&mut held, "c")); // it goes back
    held.extend(inbox.rest(&broker, "q").await);
    check(&broker, &all, &held, "when one has gone back").await;
    let mut crashed = take(&mut held, "c");
    crashed.started();
    drop(crashed);
    held.extend(inbox.rest(&broker, "q").await);
    check(&broker, &all, &held, "when one has crashed").await;

    let reason = "for a test".to_owned();
    let letter = Settle::DeadLetter { reason, result: None, follow_ups: None };
    take(&mut held, "a").settle_and_wait(letter).await.expect("a dead letter");
    lose(&mut all, "a");
    held.extend(inbox.rest(&broker, "q").await);
    check(&broker, &all, &held, "when one is a dead letter").await;

    // The last one of `a` waits, because fewer are delivered than it has.
    inbox.set_prefetch(0);
    let revoked = inspect(&broker).remove(&TaskId::from("q-11"), Box::new(|_| Remains::default())).await;
    assert_eq!(revoked, Ok(Removal::Removed));
    lose(&mut all, "a");
    check(&broker, &all, &held, "when one is revoked").await;
    put(&broker, of::<S>("q", 950, "newcomer")).await;
    all.insert("newcomer".to_owned(), 1);
    check(&broker, &all, &held, "when one has come that is not delivered").await;
    inbox.set_prefetch(100);
    let ready: usize = all.values().sum::<usize>() - held.len();
    held.extend(inbox.take(ready).await);
    check(&broker, &all, &held, "when all are delivered").await;
    for delivery in held.drain(..) {
        ack(delivery).await;
    }
    assert_eq!(known(10).await, QueueTenants::default());
}

/// What waits of each tenant is there again, and is counted; the tenants go on taking turns.
pub async fn tenants_survive<S: BrokerUnderTest>() {
    let mut subject = S::open().await;
    let broker = subject.broker();
    publish_of::<S>(&broker, "q", 0..300, "flood").await;
    put(&broker, of::<S>("q", 300, "quiet")).await;
    put(&broker, of::<S>("q", 301, "")).await;
    put(&broker, Message { eta: Some(far()), ..of::<S>("q", 302, "later") }).await;
    let mut inbox = Inbox::open(&broker, "q", 6);
    let mut held = inbox.take(6).await;
    // One of the flood is done, one is tried again, and the quiet one has begun.
    let of_flood = |held: &[Delivery]| held.iter().position(|delivery| tenant_of(delivery) == "flood");
    ack(held.remove(of_flood(&held).expect("one"))).await;
    let retried = held.remove(of_flood(&held).expect("one"));
    let message = Box::new(Message { retries: 1, ..Message::clone(retried.message()) });
    retried.settle_and_wait(Settle::Requeue { message, due: None }).await.expect("a requeue");
    held.iter_mut().filter(|delivery| tenant_of(delivery) == "quiet").for_each(Delivery::started);
    counts(&broker, "q").await;
    let expected = [("flood", 299), ("quiet", 1)].map(|(tenant, ready)| TenantCounts {
        tenant: tenant.to_owned(),
        ready,
        unsettled: 0,
    });
    drop(broker);
    subject = subject.crash().await.expect("a durable broker survives a crash");
    drop((held, inbox));
    for round in 0..4 {
        let broker = subject.broker();
        let found = tenants(&broker).tenants("q", 10).await.expect("an answer");
        assert_eq!((found.tenants, found.total), (expected.to_vec(), 2), "round {round}");
        expect::<S>(&broker, "q", count(301, 1, 0, 0)).await;
        drop(broker);
        let next = if round % 2 == 0 { subject.reopen().await } else { subject.crash().await };
        subject = next.expect("a durable broker can be opened again");
    }
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 400);
    let came = inbox.take(301).await;
    let first = shares(&came[..3]);
    assert_eq!(first, BTreeMap::from(["", "flood", "quiet"].map(|tenant| (tenant.to_owned(), 1))));
    let quiet = came.iter().find(|delivery| tenant_of(delivery) == "quiet").expect("it is there");
    assert_eq!(quiet.message().crashes, 1, "its start was not forgotten");
    let mut flood = numbers_of(&came, "flood");
    let again = flood.pop().expect("the one that was tried again, behind all others");
    assert_eq!((again, flood), (1, (2..300).collect::<Vec<_>>()));
}
