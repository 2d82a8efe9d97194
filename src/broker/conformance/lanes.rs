//! The promises of lanes: runs of one serial key never overlap, and start in the order in which they were
//! accepted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::broker::{BrokerError, LaneFacts, LaneLever, MessageLocation, Removal};
use crate::task::{AfterFailure, LaneName, Newcomer, Receipt, Refusal, SerialHeader};

fn lane(key: &str) -> LaneName {
    LaneName::new("conformance.task", key)
}

fn serial_with<S: BrokerUnderTest>(
    queue: &str,
    n: usize,
    key: &str,
    change: impl FnOnce(SerialHeader) -> SerialHeader,
) -> Message {
    Message { serial: Some(Box::new(change(SerialHeader::new(lane(key))))), ..message::<S>(queue, n) }
}

fn serial<S: BrokerUnderTest>(queue: &str, n: usize, key: &str) -> Message {
    serial_with::<S>(queue, n, key, |serial| serial)
}

async fn send(broker: &Arc<dyn Broker>, message: Message) -> Receipt {
    broker.publish(message, false).await.expect("a publish")
}

async fn facts(broker: &Arc<dyn Broker>, key: &str) -> Option<LaneFacts> {
    lanes(broker).lane(&lane(key)).await.expect("facts")
}

async fn in_line(broker: &Arc<dyn Broker>, queue: &str) -> u64 {
    counts(broker, queue).await.in_line
}

/// Expects this number in line, soon.
async fn expect_in_line(broker: &Arc<dyn Broker>, queue: &str, expected: u64) {
    let start = std::time::Instant::now();
    while in_line(broker, queue).await != expected {
        assert!(start.elapsed() < PATIENCE, "{expected} should be in line");
        tokio::task::yield_now().await;
    }
}

/// Expects these counts. If copies may count as ready, it expects only the number in line.
async fn expect_waiting<S: BrokerUnderTest>(broker: &Arc<dyn Broker>, queue: &str, expected: QueueCounts) {
    if S::ABILITIES.counts_no_copies {
        expect::<S>(broker, queue, expected).await;
    } else {
        expect_in_line(broker, queue, expected.in_line).await;
    }
}

/// Expects that all lanes are forgotten, soon.
async fn expect_idle(broker: &Arc<dyn Broker>) {
    let start = std::time::Instant::now();
    loop {
        let lanes = lanes(broker).busy_lanes(10).await.expect("lanes");
        if lanes.is_empty() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "an idle lane is forgotten: {lanes:?}");
        tokio::task::yield_now().await;
    }
}

async fn fail(delivery: Delivery) {
    let errors = vec!["boom".to_owned()];
    let result = TaskResult { state: State::Failure, errors, ..success(delivery.message()) };
    let end = Settle::Ack { result: Some(result), follow_ups: None };
    delivery.settle_and_wait(end).await.expect("an acknowledgement");
}

async fn again(delivery: Delivery, due: Option<Timestamp>) {
    let message = Message { retries: delivery.message().retries + 1, ..Message::clone(delivery.message()) };
    let requeue = Settle::Requeue { message: Box::new(message), due };
    delivery.settle_and_wait(requeue).await.expect("a requeue");
}

/// A lane lets one run in at a time, in order, across queues. A run that waits is not ready. Other keys and plain
/// tasks are not held up.
pub async fn a_lane_lets_one_in_at_a_time<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    assert!(broker.lanes().is_some());
    let mut inbox = Inbox::open(&broker, "q", 10);
    let mut other = Inbox::open(&broker, "other", 10);
    for n in 0..3 {
        send(&broker, serial::<S>("q", n, "a")).await;
    }
    send(&broker, serial::<S>("other", 3, "a")).await;
    send(&broker, serial::<S>("q", 4, "b")).await;
    put(&broker, message::<S>("q", 5)).await;
    let mut first = inbox.take(3).await;
    first.sort_by_key(|delivery| delivery.message().id.clone());
    assert_eq!(ids(&first), names("q", [0, 4, 5]));
    inbox.is_quiet(&broker, "q").await;
    expect::<S>(&broker, "q", QueueCounts { in_line: 2, unsettled: 3, ..QueueCounts::default() }).await;
    expect::<S>(&broker, "other", QueueCounts { in_line: 1, ..QueueCounts::default() }).await;
    let a = facts(&broker, "a").await.expect("it is not idle");
    assert_eq!((a.concurrency, a.is_adjusted, a.waiting, &a.blocked), (1, false, 3, &None));
    assert_eq!(a.holders.iter().map(|h| h.id.as_str()).collect::<Vec<_>>(), ["q-0"]);
    assert_eq!(a.next.iter().map(|w| w.id.as_str()).collect::<Vec<_>>(), ["q-1", "q-2", "other-3"]);
    assert!(matches!(find(&broker, &TaskId::from("q-1")).await, Ok(Some(MessageLocation::Waiting(_)))));
    let taken = broker.publish(serial::<S>("q", 2, "a"), true).await;
    assert_eq!(taken, Err(BrokerError::DuplicateId(TaskId::from("q-2"))));
    let names_of_lanes: HashSet<LaneName> =
        lanes(&broker).busy_lanes(10).await.expect("lanes").into_iter().map(|facts| facts.name).collect();
    assert_eq!(names_of_lanes, HashSet::from([lane("a"), lane("b")]));
    let freed = now();
    ack(first.remove(0)).await;
    let second = inbox.next().await;
    assert_eq!(second.message().id.as_str(), "q-1");
    assert!(second.message().due() >= freed, "the time in line is not its queue's");
    inbox.is_quiet(&broker, "q").await;
    ack(second).await;
    ack(inbox.next().await).await;
    let last = other.next().await;
    assert_eq!(last.message().id.as_str(), "other-3");
    ack(last).await;
    first.into_iter().for_each(|d| d.settle(Settle::Ack { result: None, follow_ups: None }));
    expect::<S>(&broker, "q", QueueCounts::default()).await;
    expect_idle(&broker).await;
}

/// A run that is retried, postponed, handed back or crashed keeps its lane, and no run passes it. Each start has a
/// higher fencing token.
pub async fn a_run_keeps_its_lane_to_its_end<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 10);
    for n in 0..2 {
        send(&broker, serial::<S>("q", n, "a")).await;
    }
    let mut tokens = Vec::new();
    let mut run = async |inbox: &mut Inbox, id: &str| {
        let mut delivery = inbox.next().await;
        assert_eq!(delivery.message().id.as_str(), id);
        tokens.push(delivery.fence().expect("a token"));
        delivery.started();
        delivery
    };
    again(run(&mut inbox, "q-0").await, None).await;
    let soon = now() + Duration::from_millis(40);
    again(run(&mut inbox, "q-0").await, Some(soon)).await;
    let back = run(&mut inbox, "q-0").await;
    back.settle_and_wait(Settle::Return { crashed: false }).await.expect("a return");
    drop(run(&mut inbox, "q-0").await); // the drop counts as a crash
    let last = run(&mut inbox, "q-0").await;
    assert_eq!(last.message().crashes, 1);
    inbox.is_quiet(&broker, "q").await;
    assert_eq!(in_line(&broker, "q").await, 1);
    fail(last).await;
    ack(run(&mut inbox, "q-1").await).await;
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    assert_eq!(facts(&broker, "a").await, None);
}

/// A task that crashed too often, or was rejected, leaves its lane with its end. A dead letter that is put back
/// comes to its lane again.
pub async fn dead_letters_leave_their_lane<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 10);
    for n in 0..3 {
        send(&broker, serial::<S>("q", n, "a")).await;
    }
    for _ in 0..S::DELIVERY_LIMIT {
        let mut delivery = inbox.next().await;
        assert_eq!(delivery.message().id.as_str(), "q-0");
        delivery.started();
    }
    let second = inbox.next().await;
    assert_eq!(second.message().id.as_str(), "q-1");
    let dead = Settle::DeadLetter { reason: "why not".to_owned(), result: None, follow_ups: None };
    second.settle_and_wait(dead).await.expect("a dead letter");
    let third = inbox.next().await;
    assert_eq!(third.message().id.as_str(), "q-2");
    assert_eq!(broker.requeue_dead_letter(&TaskId::from("q-0")).await, Ok(true));
    expect_in_line(&broker, "q", 1).await;
    ack(third).await;
    ack(inbox.next().await).await;
    expect::<S>(&broker, "q", count(0, 0, 0, 1)).await;
    assert_eq!(facts(&broker, "a").await, None);
}

/// A task that failed for good and is kept leaves its lane with its end. When it is tried again, it comes to its lane again.
pub async fn failed_tasks_leave_their_lane<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 10);
    for n in 0..2 {
        send(&broker, serial::<S>("q", n, "a")).await;
    }
    let first = inbox.next().await;
    assert_eq!(first.message().id.as_str(), "q-0");
    failed::fail_for_good(first).await;
    let second = inbox.next().await;
    assert_eq!(second.message().id.as_str(), "q-1");
    let retried = failed_tasks(&broker).retry_failed(&[TaskId::from("q-0")], None).await.expect("a retry");
    assert_eq!((retried.ids, retried.refused), (vec![TaskId::from("q-0")], vec![]));
    expect_in_line(&broker, "q", 1).await;
    ack(second).await;
    let again = inbox.next().await;
    assert_eq!(again.message().id.as_str(), "q-0");
    ack(again).await;
    expect::<S>(&broker, "q", QueueCounts::default()).await;
    assert_eq!(facts(&broker, "a").await, None);
}

/// A run that waits can be taken out, and so can a holder that no process has yet; the next run goes in.
pub async fn revoked_ones_leave_their_lane<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    for n in 0..4 {
        send(&broker, serial::<S>("q", n, "a")).await;
    }
    expect_waiting::<S>(&broker, "q", QueueCounts { in_line: 3, ready: 1, ..QueueCounts::default() }).await;
    let revoke = async |n: usize| {
        let record = |m: &Message| Some(TaskResult { state: State::Revoked, ..success(m) }).into();
        let id = TaskId::from(format!("q-{n}"));
        assert_eq!(inspect(&broker).remove(&id, Box::new(record)).await, Ok(Removal::Removed));
        assert_eq!(find(&broker, &id).await, Ok(None));
        assert_eq!(store.get(&id, now()).await.expect("a store").expect("a record").state, State::Revoked);
    };
    revoke(1).await;
    revoke(0).await;
    expect_waiting::<S>(&broker, "q", QueueCounts { in_line: 1, ready: 1, ..QueueCounts::default() }).await;
    let mut inbox = Inbox::open(&broker, "q", 10);
    let delivery = inbox.next().await;
    assert_eq!(delivery.message().id.as_str(), "q-2");
    again(delivery, Some(far())).await;
    revoke(2).await; // it waited for its next attempt, and held its lane
    ack(inbox.next().await).await;
    expect::<S>(&broker, "q", QueueCounts::default()).await;
    assert_eq!(facts(&broker, "a").await, None);
}

/// A message with an ETA comes to its lane when the ETA has come, and stands behind the runs that came before.
pub async fn an_eta_comes_before_the_lane<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let soon = now() + Duration::from_secs(3);
    send(&broker, Message { eta: Some(soon), ..serial::<S>("q", 0, "a") }).await;
    send(&broker, serial::<S>("q", 1, "a")).await;
    assert_eq!(facts(&broker, "a").await.expect("one is in").waiting, 0);
    let mut inbox = Inbox::open(&broker, "q", 10);
    let first = inbox.next().await;
    assert_eq!(first.message().id.as_str(), "q-1");
    expect_in_line(&broker, "q", 1).await;
    assert!(now() >= soon);
    send(&broker, serial::<S>("q", 2, "a")).await;
    ack(first).await;
    for n in [0, 2] {
        let delivery = inbox.next().await;
        assert_eq!(delivery.message().id.as_str(), format!("q-{n}"));
        ack(delivery).await;
    }
}

/// Several runs are let in at a time. Their number can be changed by hand, which lasts until it is changed again.
pub async fn a_lanes_concurrency_can_change<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let two = |n| serial_with::<S>("q", n, "a", |serial| serial.with_concurrency(2));
    for n in 0..8 {
        send(&broker, two(n)).await;
    }
    let mut inbox = Inbox::open(&broker, "q", 10);
    let mut held = inbox.take(2).await;
    inbox.is_quiet(&broker, "q").await;
    let set = async |limit| {
        assert_eq!(lanes(&broker).steer_lane(&lane("a"), LaneLever::Concurrency(limit)).await, Ok(true));
    };
    set(Some(4)).await;
    held.extend(inbox.take(2).await);
    set(Some(0)).await;
    for delivery in held.drain(..) {
        ack(delivery).await;
    }
    inbox.is_quiet(&broker, "q").await;
    let paused = facts(&broker, "a").await.expect("four wait");
    assert_eq!((paused.concurrency, paused.is_adjusted, paused.waiting), (0, true, 4));
    set(None).await;
    held.extend(inbox.take(2).await);
    inbox.is_quiet(&broker, "q").await;
    assert_eq!(ids(&held), names("q", [4, 5]));
    for delivery in held {
        ack(delivery).await;
    }
    for delivery in inbox.take(2).await {
        ack(delivery).await;
    }
    assert_eq!(facts(&broker, "a").await, None);
}

/// A run that finds its lane busy gets what it states: a refusal at once or after its patience, the task whose
/// waiting it joins, or that task's place.
pub async fn newcomers_get_what_they_state<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 10);
    let with = |n, newcomer| serial_with::<S>("q", n, "a", |serial| serial.with_newcomer(newcomer));
    let refusal = |delivery: &Delivery| delivery.message().serial.clone().expect("it is serial").refusal;
    let receipt = send(&broker, with(0, Newcomer::FailAfter(Duration::ZERO))).await;
    assert!(!receipt.joined);
    let first = inbox.next().await;
    assert_eq!((refusal(&first), first.message().id.as_str()), (None, "q-0"));

    send(&broker, with(1, Newcomer::FailAfter(Duration::ZERO))).await;
    let refused = inbox.next().await;
    assert_eq!(refusal(&refused), Some(Refusal::CouldNotAcquireLock));
    ack(refused).await;

    let begin = now();
    send(&broker, with(2, Newcomer::FailAfter(Duration::from_millis(50)))).await;
    let refused = inbox.next().await;
    assert_eq!(
        (refusal(&refused), refused.message().id.as_str()),
        (Some(Refusal::CouldNotAcquireLock), "q-2")
    );
    assert!(now().since(begin) >= Duration::from_millis(50));
    ack(refused).await;
    assert_eq!(facts(&broker, "a").await.expect("one is in").waiting, 0);

    assert!(!send(&broker, with(3, Newcomer::Skip)).await.joined);
    let receipt = send(&broker, with(4, Newcomer::Skip)).await;
    assert!(receipt.joined && receipt.id.as_str() == "q-3");
    assert_eq!(find(&broker, &TaskId::from("q-4")).await, Ok(None));

    send(&broker, with(5, Newcomer::Replace)).await;
    let replaced = inbox.next().await;
    let by = TaskId::from("q-5");
    assert_eq!((refusal(&replaced), replaced.message().id.as_str()), (Some(Refusal::Replaced { by }), "q-3"));
    ack(replaced).await;
    assert_eq!(in_line(&broker, "q").await, 1);
    ack(first).await;
    let last = inbox.next().await;
    assert_eq!((refusal(&last), last.message().id.as_str()), (None, "q-5"));
    ack(last).await;
    assert_eq!(facts(&broker, "a").await, None);
    expect::<S>(&broker, "q", QueueCounts::default()).await;
}

/// A failure blocks a lane that states so, with or without a record that is kept; a success does not.
pub async fn a_failure_may_block_its_lane<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    let mut inbox = Inbox::open(&broker, "q", 10);
    let block = |n| serial_with::<S>("q", n, "a", |serial| serial.with_after_failure(AfterFailure::Block));
    for n in 0..3 {
        send(&broker, Message { ignore_result: n == 1, ..block(n) }).await;
    }
    let delivery = inbox.next().await;
    let end = Settle::Ack { result: Some(success(delivery.message())), follow_ups: None };
    delivery.settle_and_wait(end).await.expect("an acknowledgement");
    fail(inbox.next().await).await;
    inbox.is_quiet(&broker, "q").await;
    if broker.results().is_some() {
        assert_eq!(store.get(&TaskId::from("q-1"), now()).await, Ok(None), "its result is not to be kept");
    }
    let blocked = facts(&broker, "a").await.expect("it is blocked").blocked.expect("a reason");
    assert_eq!((blocked.by.as_str(), blocked.reason.as_str()), ("q-1", "boom"));
    assert_eq!(lanes(&broker).steer_lane(&lane("a"), LaneLever::Unblock).await, Ok(true));
    assert_eq!(lanes(&broker).steer_lane(&lane("a"), LaneLever::Unblock).await, Ok(false));
    ack(inbox.next().await).await;
    assert_eq!(facts(&broker, "a").await, None);
}

/// Many keys, several producers and many workers that end their runs in every way: no two runs of a key overlap,
/// and the runs of a key end in the order of its messages.
pub async fn lanes_keep_their_order_under_load<S: BrokerUnderTest>() {
    const KEYS: usize = 40;
    const PRODUCERS: usize = 4;
    const EACH: usize = 300;
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 16);
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let broker = Arc::clone(&broker);
        producers.spawn(async move {
            // Each key has one producer, so that its order is known.
            let publishes = (0..EACH).map(|n| {
                let key = format!("{producer}-{}", n % (KEYS / PRODUCERS));
                broker.publish(serial::<S>("q", producer * EACH + n, &key), false)
            });
            futures_util::future::try_join_all(publishes).await.expect("publishes");
        });
    }
    let mut rng = StdRng::seed_from_u64(7);
    let mut running: HashMap<LaneName, usize> = HashMap::new();
    let mut last: HashMap<LaneName, usize> = HashMap::new();
    let mut held: VecDeque<Delivery> = VecDeque::new();
    let mut ended = 0;
    while ended < PRODUCERS * EACH {
        if held.is_empty() || rng.random_bool(0.5) {
            tokio::select! {
                biased;
                delivery = inbox.next(), if held.len() < 16 => {
                    let (message, n) = (delivery.message(), number(&delivery));
                    let lane = message.serial.as_ref().expect("it is serial").lane.clone();
                    assert!(last.get(&lane).is_none_or(|last| *last < n), "{n} after {last:?}");
                    assert_eq!(running.insert(lane, n), None, "two of one key");
                    held.push_back(delivery);
                }
                () = std::future::ready(()), if !held.is_empty() => {}
            }
        }
        if rng.random_bool(0.5) {
            continue;
        }
        let at = rng.random_range(0..held.len().max(1));
        let Some(mut delivery) = held.remove(at) else { continue };
        let lane = delivery.message().serial.as_ref().expect("it is serial").lane.clone();
        let n = running.remove(&lane).expect("it runs");
        match rng.random_range(0..10) {
            0 => again(delivery, None).await,
            1 => again(delivery, Some(now() + Duration::from_millis(2))).await,
            2 => drop(delivery),
            3 if delivery.message().crashes + 1 < S::DELIVERY_LIMIT => {
                delivery.started();
                drop(delivery);
            }
            _ => {
                last.insert(lane, n);
                ended += 1;
                ack(delivery).await;
            }
        }
    }
    producers.join_all().await;
    expect::<S>(&broker, "q", QueueCounts::default()).await;
    expect_idle(&broker).await;
}

fn number(delivery: &Delivery) -> usize {
    delivery.message().id.as_str()[2..].parse().expect("a number")
}

/// Holders, lines, blocks, settings and patience are there again after a restart and after a crash.
pub async fn lanes_survive<S: BrokerUnderTest>() {
    let mut subject = S::open().await;
    let broker = subject.broker();
    for n in 0..4 {
        send(&broker, serial::<S>("q", n, "a")).await;
    }
    let patient = |serial: SerialHeader| serial.with_newcomer(Newcomer::FailAfter(Duration::from_millis(1)));
    for n in 4..6 {
        send(&broker, serial_with::<S>("q", n, "a", patient)).await;
    }
    send(&broker, serial_with::<S>("q", 6, "b", |s| s.with_after_failure(AfterFailure::Block))).await;
    send(&broker, serial::<S>("q", 7, "b")).await;
    let set = lanes(&broker).steer_lane(&lane("c"), LaneLever::Concurrency(Some(3))).await;
    assert_eq!(set, Ok(true));
    let mut inbox = Inbox::open(&broker, "q", 10);
    let mut tokens = Vec::new();
    let start = std::time::Instant::now();
    while facts(&broker, "b").await.expect("it is not idle").blocked.is_none() {
        assert!(start.elapsed() < PATIENCE, "a failure does not block its lane");
        let mut delivery = inbox.next().await;
        match number(&delivery) {
            0 => {
                tokens.push(delivery.fence());
                delivery.started();
                std::mem::forget(delivery); // this task runs when the process dies
            }
            6 => fail(delivery).await,
            _ => ack(delivery).await, // they are told that they waited long enough
        }
    }
    while facts(&broker, "a").await.expect("it is not idle").waiting > 3 {
        assert!(start.elapsed() < PATIENCE, "those that have no patience do not leave their line");
        tokio::task::yield_now().await;
    }
    while let Some(delivery) = inbox.rest(&broker, "q").await.pop() {
        ack(delivery).await;
    }
    let before = (facts(&broker, "a").await, facts(&broker, "b").await, facts(&broker, "c").await);
    drop(broker);
    for round in 0..3 {
        drop((inbox, broker_of(&subject)));
        subject = if round == 1 {
            subject.reopen().await.expect("a durable broker can be opened again")
        } else {
            subject.crash().await.expect("a durable broker survives a crash")
        };
        let broker = broker_of(&subject);
        let after = (facts(&broker, "a").await, facts(&broker, "b").await, facts(&broker, "c").await);
        assert_eq!(after, before);
        expect_waiting::<S>(&broker, "q", QueueCounts { ready: 1, in_line: 4, ..QueueCounts::default() })
            .await;
        inbox = Inbox::open(&broker, "q", 0);
    }
    let broker = broker_of(&subject);
    assert_eq!(lanes(&broker).steer_lane(&lane("b"), LaneLever::Unblock).await, Ok(true));
    inbox.set_prefetch(10);
    let mut order = Vec::new();
    for _ in 0..5 {
        let delivery = inbox.next().await;
        if number(&delivery) < 4 {
            order.push(number(&delivery));
            tokens.push(delivery.fence());
        }
        ack(delivery).await;
    }
    assert_eq!(order, [0, 1, 2, 3]);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    assert_eq!(lanes(&broker).steer_lane(&lane("c"), LaneLever::Concurrency(None)).await, Ok(true));
    expect_idle(&broker).await;
}

fn broker_of<S: BrokerUnderTest>(subject: &S) -> Arc<dyn Broker> {
    subject.broker()
}
