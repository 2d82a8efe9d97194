//! The promises of brokers that change many waiting tasks in one step, and take such a change back.

use super::*;
use crate::broker::{
    BrokerError, BulkChange, BulkChanges, BulkOutcome, BulkPick, Remains, RemainsFn, UndoOutcome,
};
use crate::task::{LaneName, SerialHeader};

fn bulk(broker: &Arc<dyn Broker>) -> &dyn BulkChanges {
    broker.bulk_changes().expect("it changes many tasks in one step")
}

fn picks(queue: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<BulkPick> {
    names(queue, numbers).into_iter().map(|id| BulkPick { id: id.into(), tag: None }).collect()
}

fn to(queue: &str) -> BulkChange {
    BulkChange::Move { to: queue.to_owned() }
}

/// An end that leaves a record.
fn revocation() -> BulkChange {
    let record = |message: &Message| TaskResult { state: State::Revoked, ..success(message) };
    let remains: RemainsFn = Arc::new(move |message: &Message| Remains::from(Some(record(message))));
    BulkChange::End { remains }
}

/// An end that leaves nothing.
fn deletion() -> BulkChange {
    let remains: RemainsFn = Arc::new(|_: &Message| Remains::default());
    BulkChange::End { remains }
}

async fn change(
    broker: &Arc<dyn Broker>,
    act: &str,
    change: &BulkChange,
    picks: Vec<BulkPick>,
) -> BulkOutcome {
    bulk(broker).change_all(Some(act), change, picks).await.expect("a change")
}

fn done(outcome: &BulkOutcome) -> Vec<String> {
    outcome.done.iter().map(|message| message.id.to_string()).collect()
}

/// Undoes all that is kept for an act, without what is delivered.
async fn undo(broker: &Arc<dyn Broker>, act: &str, is_last: bool) -> UndoOutcome {
    let kept = bulk(broker).kept_for(act, 100).await.expect("what is kept");
    let picks = kept.into_iter().map(|kept| (kept, None)).collect();
    bulk(broker).undo(act, picks, is_last).await.expect("an undo")
}

fn sorted(ids: &[TaskId]) -> Vec<String> {
    let mut ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids
}

/// Tasks that are moved come to the end of the other queue in the order in which they are named, and those that are not due
/// wait there for their time. A task that is there already stays where it is.
pub async fn many_are_moved_in_their_order<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..4).await;
    put(&broker, Message { eta: Some(far()), ..message::<S>("q", 4) }).await;
    publish::<S>(&broker, "other", 9..10).await;
    let moved = change(&broker, "act", &to("other"), picks("q", 0..6)).await;
    assert_eq!((done(&moved), moved.busy), (names("q", 0..5), Vec::new()));
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
    expect::<S>(&broker, "other", count(5, 1, 0, 0)).await;
    match find(&broker, &TaskId::from("q-4")).await {
        Ok(Some(MessageLocation::Waiting(message))) => assert_eq!(message.queue, "other"),
        found => panic!("{found:?}"),
    }
    assert!(done(&change(&broker, "again", &to("other"), picks("q", 0..5)).await).is_empty());
    let mut inbox = Inbox::open(&broker, "other", 5);
    let held = inbox.take(5).await;
    assert_eq!(ids(&held), [names("other", [9]), names("q", 0..4)].concat());
    assert!(held.iter().all(|delivery| delivery.message().queue == "other"));
}

/// Tasks that are ended leave what they are to leave, or nothing.
pub async fn many_are_ended<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    publish::<S>(&broker, "q", 0..3).await;
    put(&broker, Message { eta: Some(far()), ..message::<S>("q", 3) }).await;
    assert_eq!(done(&change(&broker, "act", &deletion(), picks("q", [0, 3, 99])).await), names("q", [0, 3]));
    assert_eq!(done(&change(&broker, "act", &revocation(), picks("q", [1])).await), names("q", [1]));
    expect::<S>(&broker, "q", count(1, 0, 0, 0)).await;
    for n in [0, 1, 3] {
        let id = TaskId::from(format!("q-{n}"));
        assert_eq!(find(&broker, &id).await, Ok(None));
        let state = store.get(&id, now()).await.expect("a store").map(|record| record.state);
        assert_eq!(state, (n == 1).then_some(State::Revoked), "{id}");
    }
    let kept = bulk(&broker).kept_for("act", 100).await.expect("what is kept");
    assert_eq!(kept.len(), 3);
    assert_eq!(bulk(&broker).kept_for("act", 2).await, Ok(kept[..2].to_vec()));
    assert_eq!(bulk(&broker).forget_kept("act").await, Ok(()));
    assert_eq!(bulk(&broker).kept_for("act", 100).await, Ok(Vec::new()));
    bulk(&broker).change_all(None, &deletion(), picks("q", [2])).await.expect("a change");
    assert_eq!(bulk(&broker).kept_for("", 100).await, Ok(Vec::new()), "nothing is kept without an act");
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
}

/// What was moved or ended is where it was, in its order, as if nothing had been.
pub async fn bulk_changes_are_undone<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    let serial = |n| {
        let header = SerialHeader::new(LaneName::new("conformance.task", "bulk"));
        Message { serial: Some(Box::new(header)), ..message::<S>("q", n) }
    };
    publish::<S>(&broker, "q", 0..6).await;
    put(&broker, serial(6)).await;
    put(&broker, serial(7)).await;
    put(&broker, Message { eta: Some(far()), ..message::<S>("q", 8) }).await;
    let before = QueueCounts { in_line: 1, ..count(7, 1, 0, 0) };
    expect::<S>(&broker, "q", before).await;

    let moved = change(&broker, "move", &to("other"), picks("q", [1, 2, 6, 7, 8])).await;
    assert_eq!(moved.done.len(), 5);
    expect::<S>(&broker, "other", QueueCounts { in_line: 1, ..count(3, 1, 0, 0) }).await;
    assert_eq!(change(&broker, "end", &revocation(), picks("q", 3..5)).await.done.len(), 2);
    expect::<S>(&broker, "q", count(2, 0, 0, 0)).await;

    let back = undo(&broker, "end", false).await;
    assert_eq!((sorted(&back.back), back.left, back.busy), (names("q", 3..5), Vec::new(), Vec::new()));
    assert_eq!(store.get(&TaskId::from("q-3"), now()).await, Ok(None), "its record is gone");
    let back = undo(&broker, "move", false).await;
    assert_eq!(sorted(&back.back), names("q", [1, 2, 6, 7, 8]));
    expect::<S>(&broker, "q", before).await;
    expect::<S>(&broker, "other", count(0, 0, 0, 0)).await;
    assert_eq!(bulk(&broker).kept_for("move", 100).await, Ok(Vec::new()));
    assert_eq!(undo(&broker, "move", false).await, UndoOutcome::default(), "an undo is done once");

    // Who waits in a lane is ended before who has it.
    assert_eq!(change(&broker, "lane", &deletion(), picks("q", [7, 6])).await.done.len(), 2);
    assert_eq!(lanes(&broker).busy_lanes(10).await.map(|lanes| lanes.len()), Ok(0));
    assert_eq!(undo(&broker, "lane", false).await.back.len(), 2);
    expect::<S>(&broker, "q", before).await;
    let mut inbox = Inbox::open(&broker, "q", 8);
    let mut held = inbox.take(7).await;
    assert_eq!(ids(&held), names("q", 0..7));
    inbox.is_quiet(&broker, "q").await;
    ack(held.remove(6)).await;
    assert_eq!(inbox.next().await.message().id.as_str(), "q-7", "the lane goes on");
}

/// What has run since it was changed stays as it is, and what is delivered is brought back only with its delivery.
pub async fn what_has_run_is_not_undone<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..4).await;
    change(&broker, "act", &to("other"), picks("q", 0..3)).await;
    change(&broker, "act", &deletion(), picks("q", [3])).await;
    put(&broker, message::<S>("q", 3)).await; // somebody has sent it anew
    let mut inbox = Inbox::open(&broker, "other", 1);
    let mut runs = inbox.next().await;
    runs.started();
    let result = Some(success(runs.message()));
    runs.settle_and_wait(Settle::Ack { result, follow_ups: None }).await.expect("an acknowledgement");
    let delivery = inbox.next().await;

    let undone = undo(&broker, "act", false).await;
    assert_eq!((sorted(&undone.back), sorted(&undone.left)), (names("q", [2]), names("q", [0, 3])));
    assert_eq!(undone.busy.len(), 1);
    let picks = vec![(undone.busy[0].clone(), Some(delivery.tag()))];
    let undone = bulk(&broker).undo("act", picks, false).await.expect("an undo");
    assert_eq!(undone.back, [TaskId::from("q-1")]);
    drop(delivery);
    expect::<S>(&broker, "other", count(0, 0, 0, 0)).await;
    expect::<S>(&broker, "q", count(3, 0, 0, 0)).await;

    change(&broker, "last", &to("other"), self::picks("q", [1])).await;
    let delivery = inbox.next().await;
    assert_eq!(undo(&broker, "last", true).await.left, [TaskId::from("q-1")], "somebody has it");
    ack(delivery).await;
}

/// A task that an act has moved twice, because somebody has moved it back meanwhile, comes back once, to its first place.
pub async fn what_was_moved_twice_comes_back_once<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..2).await;
    for (act, queue) in [("act", "other"), ("back", "q"), ("act", "other")] {
        assert_eq!(done(&change(&broker, act, &to(queue), picks("q", [0])).await), names("q", [0]));
    }
    let undone = undo(&broker, "act", true).await;
    assert_eq!((sorted(&undone.back), sorted(&undone.left)), (names("q", [0]), names("q", [0])));
    assert_eq!(bulk(&broker).kept_for("act", 100).await, Ok(Vec::new()));
    expect::<S>(&broker, "q", count(2, 0, 0, 0)).await;
    expect::<S>(&broker, "other", count(0, 0, 0, 0)).await;
    let mut inbox = Inbox::open(&broker, "q", 3);
    let held = inbox.take(2).await;
    assert_eq!(ids(&held), names("q", 0..2));
    inbox.is_quiet(&broker, "q").await;
}

/// A delivered task is changed only if its delivery is named, which ends with that. If somebody else has one of the tasks, none
/// is changed.
pub async fn what_the_caller_has_is_changed<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..3).await;
    let mut inbox = Inbox::open(&broker, "q", 2);
    let mut held = inbox.take(2).await;
    let refused = change(&broker, "act", &to("other"), picks("q", 0..3)).await;
    assert_eq!((sorted(&refused.busy), done(&refused)), (names("q", 0..2), Vec::new()));
    expect::<S>(&broker, "q", count(1, 0, 2, 0)).await;
    let tags = held.iter().map(|delivery| Some(delivery.tag())).chain([None]);
    let named = picks("q", 0..3).into_iter().zip(tags).map(|(pick, tag)| BulkPick { tag, ..pick }).collect();
    assert_eq!(done(&change(&broker, "act", &to("other"), named).await), names("q", 0..3));
    let late = held.remove(0).settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await;
    assert_eq!(late, Err(BrokerError::Stale));
    drop(held);
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
    inbox.is_quiet(&broker, "q").await;
    let mut inbox = Inbox::open(&broker, "other", 3);
    assert_eq!(ids(&inbox.take(3).await), names("q", 0..3));
}

/// What undoes a change survives a crash, as the change does.
pub async fn bulk_changes_survive<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    publish::<S>(&broker, "q", 0..6).await;
    change(&broker, "act", &deletion(), picks("q", [0, 4])).await;
    change(&broker, "act", &to("other"), picks("q", [1, 5])).await;
    drop(broker);
    let subject = subject.crash().await.expect("a durable broker survives a crash");
    let broker = subject.broker();
    expect::<S>(&broker, "q", count(2, 0, 0, 0)).await;
    assert_eq!(sorted(&undo(&broker, "act", true).await.back), names("q", [0, 1, 4, 5]));
    drop(broker);
    let subject = subject.crash().await.expect("a durable broker survives a crash");
    let broker = subject.broker();
    expect::<S>(&broker, "q", count(6, 0, 0, 0)).await;
    expect::<S>(&broker, "other", count(0, 0, 0, 0)).await;
    let mut inbox = Inbox::open(&broker, "q", 6);
    assert_eq!(ids(&inbox.take(6).await), names("q", 0..6));
}
