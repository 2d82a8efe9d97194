//! The promises about tasks that have failed for good.

use super::*;
use crate::broker::{FailedTask, Retried, TaskEdit, TaskFilter};
use crate::catalogue::Argument;
use crate::task::FailedAttempt;

/// The number of failed tasks in the promises about many.
const MANY: usize = 100;
/// How long they are kept.
const HOUR: Duration = Duration::from_secs(3600);

/// The record of a task that has failed.
fn failure(message: &Message) -> TaskResult {
    let errors = vec!["the server is down".to_owned()];
    TaskResult {
        state: State::Failure,
        result: None,
        errors,
        error_type: Some("Outage".to_owned()),
        ..success(message)
    }
}

/// The task as it is kept for this long.
fn kept_for(message: &Message, life: Duration) -> FailedTask {
    let record = failure(message);
    let mut message = message.clone();
    message.note_failed_attempt(FailedAttempt::of(&record, Some("src/mail.rs:12:5")));
    let failed_at = record.finished_at;
    FailedTask { message, reason: record.errors.join(": "), failed_at, expires_at: Some(failed_at + life) }
}

/// Ends the delivery as a failure that is kept for an hour; the task as it is kept.
pub(super) async fn fail_for_good(delivery: Delivery) -> FailedTask {
    let (result, task) = (failure(delivery.message()), kept_for(delivery.message(), HOUR));
    let end = Settle::Fail { failed: Box::new(task.clone()), result: Some(result), follow_ups: None };
    delivery.settle_and_wait(end).await.expect("a failure");
    task
}

/// Sends tasks of these numbers and has them all fail.
pub(super) async fn failures<S: BrokerUnderTest>(
    broker: &Arc<dyn Broker>,
    queue: &str,
    numbers: std::ops::Range<usize>,
) -> Vec<FailedTask> {
    let mut inbox = Inbox::open(broker, queue, numbers.len());
    publish::<S>(broker, queue, numbers.clone()).await;
    let mut tasks = Vec::new();
    for delivery in inbox.take(numbers.len()).await {
        tasks.push(fail_for_good(delivery).await);
    }
    tasks
}

/// The numbers of the failed tasks of the queue that the filter chooses, in order.
pub(super) async fn numbers(broker: &Arc<dyn Broker>, filter: TaskFilter) -> Vec<usize> {
    let listed = failed_tasks(broker).list_failed(&filter, 1000).await.expect("failed tasks");
    let ids = failed_tasks(broker).failed_ids(&filter).await.expect("their ids");
    assert_eq!(sorted(listed.into_iter().map(|task| task.message.id).collect()), sorted(ids.clone()));
    let mut numbers: Vec<usize> =
        ids.iter().filter_map(|id| id.as_str().rsplit('-').next()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

pub(super) fn task_ids(queue: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<TaskId> {
    names(queue, numbers).into_iter().map(TaskId::from).collect()
}

fn sorted(mut ids: Vec<TaskId>) -> Vec<TaskId> {
    ids.sort();
    ids
}

/// A task that failed for good is over, and is kept with its arguments, its errors and the time until which it is kept. It is
/// no dead letter. One whose time is over is not shown.
pub async fn failed_tasks_are_kept<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    let tasks = failures::<S>(&broker, "q", 0..3).await;
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
    let listed = failed_tasks(&broker).list_failed(&TaskFilter::new(), 10).await.expect("failed tasks");
    assert_eq!(listed.len(), 3);
    for (found, task) in listed.iter().zip(&tasks) {
        assert_eq!(
            (&found.message.id, &found.message.task, &found.message.queue, &found.message.arguments),
            (&task.message.id, &task.message.task, &task.message.queue, &task.message.arguments)
        );
        assert_eq!((&found.reason, found.attempts()), (&task.reason, task.attempts()));
        let millis = |at: Option<Timestamp>| at.map(|at| at.as_millis());
        assert_eq!(millis(Some(found.failed_at)), millis(Some(task.failed_at)));
        assert_eq!(millis(found.expires_at), millis(task.expires_at));
        assert!(!found.is_dead_letter());
    }
    let first = failed_tasks(&broker).list_failed(&TaskFilter::new(), 2).await.expect("failed tasks");
    assert_eq!(first, listed[..2], "the oldest come first");
    for limit in [1, 2, 3, 9] {
        let (mut paged, mut after) = (Vec::new(), None::<String>);
        let is_newest_first = loop {
            let all = TaskFilter::new();
            let page = failed_tasks(&broker).page_failed(&all, after.as_deref(), limit);
            let page = page.await.expect("a page");
            assert!(page.tasks.len() <= limit, "{} tasks on a page of {limit}", page.tasks.len());
            paged.extend(page.tasks);
            let Some(next) = page.next else { break page.is_newest_first };
            after = Some(next);
        };
        if is_newest_first {
            paged.reverse();
        }
        assert_eq!(paged, listed, "page by page they are the same, in the stated order");
    }
    let id = &tasks[0].message.id;
    assert_eq!(find(&broker, id).await, Ok(None), "it is over");
    if broker.results().is_some() {
        assert_eq!(store.get(id, now()).await.expect("a store").map(|r| r.state), Some(State::Failure));
    }

    // What ended before it ran is kept without a delivery.
    failed_tasks(&broker).keep_failed(kept_for(&message::<S>("q", 9), HOUR)).await.expect("it is kept");
    failed_tasks(&broker)
        .keep_failed(kept_for(&message::<S>("q", 8), Duration::ZERO))
        .await
        .expect("it has expired");
    assert_eq!(numbers(&broker, TaskFilter::new()).await, [0, 1, 2, 9]);
    assert_eq!(failed_tasks(&broker).dropped_failed(), 0);
}

/// Failed tasks are found by id, queue, name, error, argument and age.
pub async fn failed_tasks_are_found<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    failures::<S>(&broker, "q", 0..3).await;
    failures::<S>(&broker, "other", 5..7).await;
    let all = TaskFilter::new;
    assert_eq!(numbers(&broker, all()).await, [0, 1, 2, 5, 6]);
    assert_eq!(numbers(&broker, all().queue("other")).await, [5, 6]);
    assert_eq!(numbers(&broker, all().ids(["q-1", "other-6", "q-6"])).await, [1, 6]);
    assert_eq!(numbers(&broker, all().argument(Argument::Position(0), "2")).await, [2]);
    assert_eq!(numbers(&broker, all().arguments_contain("5")).await, [5]);
    assert_eq!(numbers(&broker, all().error("is down").queue("q")).await, [0, 1, 2]);
    assert_eq!(numbers(&broker, all().younger_than(HOUR).queue("q")).await, [0, 1, 2]);
    let task = |pattern| all().task(pattern).expect("a pattern");
    assert_eq!(numbers(&broker, task("conformance.*")).await, [0, 1, 2, 5, 6]);
    for none in [task("other.*"), all().error("is up"), all().older_than(HOUR), all().queue("nobody's")] {
        assert_eq!(numbers(&broker, none).await, [0; 0]);
    }
}

/// Failed tasks go back into their queues with their attempts counted anew, and without their records; the others stay. A task
/// goes back once.
pub async fn failed_tasks_are_retried<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let (broker, store) = (subject.broker(), subject.store());
    failures::<S>(&broker, "q", 0..MANY).await;
    let even = task_ids("q", (0..MANY).step_by(2));
    let retried = failed_tasks(&broker).retry_failed(&even, None).await.expect("a retry");
    assert_eq!((sorted(retried.ids), retried.refused), (sorted(even.clone()), vec![]));
    assert_eq!(numbers(&broker, TaskFilter::new()).await, (1..MANY).step_by(2).collect::<Vec<_>>());
    let again = failed_tasks(&broker).retry_failed(&even, None).await.expect("a retry");
    assert_eq!(again, Retried::default(), "they are no failed tasks any more");
    let mut inbox = Inbox::open(&broker, "q", MANY);
    let mut came = Vec::new();
    for delivery in inbox.take(even.len()).await {
        let message = delivery.message();
        assert_eq!((message.retries, message.crashes, message.failed_attempts()), (0, 0, vec![]));
        assert_eq!(store.get(&message.id, now()).await, Ok(None), "it is not over any more");
        came.push(message.id.clone());
        ack(delivery).await;
    }
    assert_eq!(sorted(came), sorted(even));
    inbox.is_quiet(&broker, "q").await;
}

/// What is wrong with the arguments of failed tasks is put right when they are retried. A task for which that cannot be done stays.
pub async fn failed_tasks_are_edited<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    failures::<S>(&broker, "q", 0..4).await;
    let all = task_ids("q", 0..4);
    let edit = TaskEdit::new(|message| match message.id.as_str() {
        "q-3" => Err("not this one".to_owned()),
        id => Ok(Arguments { args: format!("[\"{id}\"]"), kwargs: r#"{"more":1}"#.to_owned() }),
    });
    let retried = failed_tasks(&broker).retry_failed(&all, Some(&edit)).await.expect("a retry");
    assert_eq!(sorted(retried.ids), task_ids("q", 0..3));
    assert_eq!(retried.refused, [(TaskId::from("q-3"), "not this one".to_owned())]);
    let left = failed_tasks(&broker).list_failed(&TaskFilter::new(), 10).await.expect("failed tasks");
    assert_eq!(left.iter().map(|task| task.message.arguments.args.as_str()).collect::<Vec<_>>(), ["[3]"]);
    let mut inbox = Inbox::open(&broker, "q", 4);
    for delivery in inbox.take(3).await {
        let Message { id, arguments, .. } = &**delivery.message();
        let expected = (format!("[\"{id}\"]"), r#"{"more":1}"#.to_owned());
        assert_eq!((arguments.args.clone(), arguments.kwargs.clone()), expected);
        ack(delivery).await;
    }
}

/// Failed tasks are deleted for good; the others stay.
pub async fn failed_tasks_are_deleted<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    failures::<S>(&broker, "q", 0..5).await;
    let some = [task_ids("q", [1, 3]), vec![TaskId::from("nobody")]].concat();
    assert_eq!(failed_tasks(&broker).delete_failed(&some).await.map(sorted), Ok(task_ids("q", [1, 3])));
    assert_eq!(failed_tasks(&broker).delete_failed(&some).await, Ok(vec![]));
    assert_eq!(numbers(&broker, TaskFilter::new()).await, [0, 2, 4]);
    expect::<S>(&broker, "q", count(0, 0, 0, 0)).await;
}

/// Dead letters are listed, retried, edited and deleted as failed tasks are, and are kept until somebody does so.
pub async fn dead_letters_are_failed_tasks<S: BrokerUnderTest>() {
    let subject = S::open().await;
    let broker = subject.broker();
    let mut inbox = Inbox::open(&broker, "q", 3);
    publish::<S>(&broker, "q", 0..3).await;
    for delivery in inbox.take(3).await {
        let end = Settle::DeadLetter { reason: "no such task".to_owned(), result: None, follow_ups: None };
        delivery.settle_and_wait(end).await.expect("a dead letter");
    }
    failures::<S>(&broker, "other", 5..6).await;
    assert_eq!(numbers(&broker, TaskFilter::new()).await, [0, 1, 2, 5]);
    let listed = failed_tasks(&broker)
        .list_failed(&TaskFilter::new().error("no such"), 10)
        .await
        .expect("failed tasks");
    assert!(listed.len() == 3 && listed.iter().all(FailedTask::is_dead_letter), "{listed:?}");
    expect::<S>(&broker, "q", count(0, 0, 0, 3)).await;

    let edit = TaskEdit::set(Argument::Position(0), 77);
    let retried =
        failed_tasks(&broker).retry_failed(&task_ids("q", [0]), Some(&edit)).await.expect("a retry");
    assert_eq!((retried.ids, retried.refused), (task_ids("q", [0]), vec![]));
    let delivery = inbox.next().await;
    assert_eq!(delivery.message().arguments.args, "[77]");
    ack(delivery).await;
    assert_eq!(failed_tasks(&broker).delete_failed(&task_ids("q", [2])).await, Ok(task_ids("q", [2])));
    expect::<S>(&broker, "q", count(0, 0, 0, 1)).await;
    let letters = broker.dead_letters(10).await.expect("dead letters");
    assert_eq!(letters.iter().map(|l| l.message.id.as_str()).collect::<Vec<_>>(), ["q-1"]);
}
