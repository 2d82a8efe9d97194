//! Many calls with one receipt.

use celeriac::task::Task as _;
use celeriac::{EnqueueError, Signature, State, task};

use crate::kit::{LONG, builder, on_both};

#[task(queue = "io")]
async fn double(n: u64) -> u64 {
    2 * n
}

#[task(queue = "io")]
fn join(left: String, right: u8) -> String {
    format!("{left}{right}")
}

#[task(queue = "io")]
fn answer() -> u8 {
    42
}

#[task(queue = "io", unique_for = "1h")]
async fn once(n: u64) -> u64 {
    n
}

#[tokio::test]
async fn many_calls_are_taken_and_answered_in_their_order() {
    on_both(|celeriac| async move {
        let sent = Signature::send_many((0..1_000).map(double::s), celeriac.client()).await.unwrap();
        assert_eq!(sent.len(), 1_000);
        for (n, result) in (0..).zip(&sent) {
            assert_eq!(result.get(LONG).await, Ok(2 * n));
        }
        let none =
            Signature::send_many(Vec::<Signature<double::Task>>::new(), celeriac.client()).await.unwrap();
        assert!(none.is_empty());
        let own = [double::s(1).id("mine"), double::s(2).queue("one")];
        let sent = Signature::send_many(own, celeriac.client()).await.unwrap();
        let alone = double::s(3).send(celeriac.client()).await.unwrap();
        assert_eq!(sent[0].receipt().durability, alone.receipt().durability, "many promise what one does");
        assert_eq!((sent[0].id().as_str(), sent[1].receipt().queue.as_str()), ("mine", "one"));
        assert_eq!((sent[0].get(LONG).await, sent[1].get(LONG).await), (Ok(2), Ok(4)));
    })
    .await;
}

/// One argument is an item itself, several are a tuple, and none is `()`.
#[tokio::test]
async fn a_task_takes_its_arguments_as_they_are() {
    let celeriac = builder().in_memory().start().await.unwrap();
    let client = || celeriac.client();
    let calls = [("a".to_owned(), 1), ("b".to_owned(), 2)];
    let joined =
        Signature::send_many(calls.map(|(left, right)| join::s(left, right)), client()).await.unwrap();
    assert_eq!(joined[1].get(LONG).await, Ok("b2".to_owned()));
    // Without a runtime of its own, `delay_many` finds the one that was started last; here only its form counts.
    let forms =
        (double::delay_many([1, 2]), join::delay_many([("c".to_owned(), 3)]), answer::delay_many([()]));
    drop(forms);
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_refused_leaves_none_behind() {
    on_both(|celeriac| async move {
        celeriac.pause("io").await.unwrap();
        let first = double::s(0).id("taken").send(celeriac.client()).await.unwrap();
        let unknown = [double::s(1), double::s(2).queue("oi"), double::s(3)];
        let error = Signature::send_many(unknown, celeriac.client()).await.unwrap_err();
        assert!(matches!(&error, EnqueueError::UnknownQueue { queue, .. } if queue == "oi"), "{error}");
        let taken = [double::s(1), double::s(2).id("taken"), double::s(3)];
        let error = Signature::send_many(taken, celeriac.client()).await.unwrap_err();
        assert_eq!(error, EnqueueError::DuplicateId { id: "taken".into() });
        let twice = [double::s(1).id("same"), double::s(2).id("same")];
        let error = Signature::send_many(twice, celeriac.client()).await.unwrap_err();
        assert_eq!(error, EnqueueError::DuplicateId { id: "same".into() });
        assert_eq!(celeriac.queue("io").await.unwrap().ready, 1, "only the first call waits");
        celeriac.resume("io").await.unwrap();
        assert_eq!(first.get(LONG).await, Ok(0));
        assert_eq!(celeriac.client().state(&"same".into()).await, Ok(State::Unknown));
    })
    .await;
}

#[tokio::test]
async fn calls_that_may_join_others_do_so() {
    on_both(|celeriac| async move {
        celeriac.pause("io").await.unwrap();
        let sent = Signature::send_many([7, 8, 7].map(once::s), celeriac.client()).await.unwrap();
        assert_eq!(
            sent.iter().map(|result| result.receipt().joined).collect::<Vec<_>>(),
            [false, false, true]
        );
        assert_eq!(sent[0].id(), sent[2].id(), "{} joins the first", once::Task::NAME);
        celeriac.resume("io").await.unwrap();
        assert_eq!((sent[1].get(LONG).await, sent[2].get(LONG).await), (Ok(8), Ok(7)));
    })
    .await;
}
