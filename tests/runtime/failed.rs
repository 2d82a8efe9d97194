//! What failed for good is kept, found, put right and tried again, in memory and on disk.

use std::time::Duration;

use celeriac::broker::{TaskEdit, TaskFilter};
use celeriac::catalogue::{Argument, QueueRow};
use celeriac::{Celeriac, State, TaskError, TaskId, task};

use crate::kit::{LONG, add, builder, embedded, on_both, quiet, record, until};

const OLD: &str = "old.example.org";
const NEW: &str = "new.example.org";

/// Charges a customer by way of a payment gateway. The old one is switched off.
#[task(queue = "io", max_retries = 1, default_retry_delay = 0.001)]
async fn charge(customer: u32, gateway: String) -> Result<u32, TaskError> {
    match gateway.as_str() {
        NEW => Ok(customer),
        OLD => Err(TaskError::from_display(format!("{gateway} is switched off"))),
        _ => Err(TaskError::permanent(format!("{gateway} is no gateway"))),
    }
}

/// Is settled before it runs.
#[task(queue = "io", max_retries = 0, acks_late = false)]
async fn hasty(customer: u32) -> Result<(), TaskError> {
    Err(TaskError::permanent(format!("customer {customer} is not there")))
}

#[task(queue = "forgetful", max_retries = 0)]
async fn forgotten() -> Result<(), TaskError> {
    Err(TaskError::permanent("nobody looks"))
}

#[task(queue = "io", max_retries = 0)]
async fn rejected() -> Result<(), TaskError> {
    Err(TaskError::reject("not for us"))
}

fn at(gateway: &str) -> TaskFilter {
    TaskFilter::new().argument(Argument::Name("gateway".to_owned()), gateway)
}

async fn count(celeriac: &Celeriac, filter: &TaskFilter) -> usize {
    celeriac.failed_tasks(filter, 1000).await.unwrap().len()
}

#[tokio::test]
async fn a_hundred_failed_tasks_are_found_by_an_argument_put_right_and_tried_again() {
    on_both(|celeriac| async move {
        let client = celeriac.client();
        let (mut lost, mut odd) = (Vec::new(), Vec::new());
        for customer in 0..100 {
            lost.push(charge::s(customer, OLD.to_owned()).send(client.clone()).await.unwrap());
            if customer % 4 == 0 {
                odd.push(charge::s(customer, "none".to_owned()).send(client.clone()).await.unwrap());
            }
        }
        for result in lost.iter().chain(&odd) {
            assert_eq!(record(result).await.state, State::Failure);
        }
        let failed = celeriac.failed_tasks(&at(OLD), 1000).await.unwrap();
        assert_eq!(failed.len(), 100);
        for task in &failed {
            let attempts = task.attempts();
            let numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.attempt).collect();
            assert_eq!((numbers, task.is_dead_letter()), (vec![1, 2], false));
            assert!(attempts.iter().all(|attempt| attempt.error.contains("switched off")), "{attempts:?}");
            assert!(attempts[0].worker.as_deref().is_some_and(|worker| worker.starts_with("io#")));
        }
        let by_error = TaskFilter::new().task("*::charge").unwrap().queue("io").error("is no gateway");
        assert_eq!(count(&celeriac, &by_error).await, 25);

        let edit = TaskEdit::set(Argument::Name("gateway".to_owned()), NEW);
        let retried = celeriac.edit_and_retry_failed(&at(OLD), edit).await.unwrap();
        assert_eq!((retried.ids.len(), retried.refused), (100, vec![]));
        for (customer, result) in (0..).zip(&lost) {
            assert_eq!(result.get(LONG).await, Ok(customer));
            assert_eq!(record(result).await.attempts, 1, "they are counted anew");
        }
        assert_eq!((count(&celeriac, &at(OLD)).await, count(&celeriac, &TaskFilter::new()).await), (0, 25));

        // One that is tried again as it is fails again, and is kept once.
        let one = TaskFilter::new().ids([odd[0].id().clone()]);
        assert_eq!(celeriac.retry_failed(&one).await.unwrap().ids, [odd[0].id().clone()]);
        assert_eq!(record(&odd[0]).await.state, State::Failure);
        assert_eq!(count(&celeriac, &one).await, 1);
        assert_eq!(celeriac.delete_failed(&by_error).await.unwrap().len(), 25);
        assert_eq!(count(&celeriac, &TaskFilter::new()).await, 0);
        assert_eq!(celeriac.dropped_failed_tasks(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_success_leaves_nothing_a_rejection_a_dead_letter_and_a_hasty_task_is_kept_as_well() {
    on_both(|celeriac| async move {
        let client = celeriac.client();
        assert_eq!(add::s(1, 2).send(client.clone()).await.unwrap().get(LONG).await, Ok(3));
        assert_eq!(count(&celeriac, &TaskFilter::new()).await, 0);
        let hasty = hasty::s(7).send(client.clone()).await.unwrap();
        assert_eq!(record(&hasty).await.state, State::Failure);
        let failed = celeriac.failed_tasks(&TaskFilter::new(), 9).await.unwrap();
        assert_eq!(failed.iter().map(|task| &task.message.id).collect::<Vec<_>>(), [hasty.id()]);
        assert_eq!(failed[0].message.arguments.args, "[7]");
        let rejected = rejected::s().send(client).await.unwrap();
        assert_eq!(record(&rejected).await.state, State::Rejected);
        let letter = TaskFilter::new().ids([rejected.id().clone()]);
        until("the letter is listed", async || count(&celeriac, &letter).await == 1).await;
        let failed = celeriac.failed_tasks(&letter, 9).await.unwrap();
        assert!(failed[0].is_dead_letter() && failed[0].reason.contains("not for us"), "{failed:?}");
        assert_eq!(celeriac.retry_failed(&letter).await.unwrap().ids, [rejected.id().clone()]);
        assert_eq!(record(&rejected).await.state, State::Rejected, "it has run again");
    })
    .await;
}

#[tokio::test]
async fn a_queue_may_keep_none() {
    let row = || QueueRow::new("forgetful").with_keep_failed(Duration::ZERO);
    let dir = tempfile::tempdir().unwrap();
    for builder in [builder().in_memory(), builder().directory(dir.path())] {
        let celeriac = builder.queue(row()).start().await.unwrap();
        let forgotten = forgotten::s().send(celeriac.client()).await.unwrap();
        assert_eq!(record(&forgotten).await.state, State::Failure);
        assert_eq!(count(&celeriac, &TaskFilter::new()).await, 0);
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn they_are_there_after_a_restart() {
    quiet();
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let lost = charge::s(5, OLD.to_owned()).send(celeriac.client()).await.unwrap();
    let id: TaskId = lost.id().clone();
    assert_eq!(record(&lost).await.state, State::Failure);
    celeriac.shutdown().await.unwrap();

    let celeriac = embedded(dir.path()).await;
    let failed = celeriac.failed_tasks(&at(OLD), 9).await.unwrap();
    assert_eq!(
        failed.iter().map(|task| (&task.message.id, task.attempts().len())).collect::<Vec<_>>(),
        [(&id, 2)]
    );
    let edit = TaskEdit::set(Argument::Name("gateway".to_owned()), NEW);
    assert_eq!(celeriac.edit_and_retry_failed(&at(OLD), edit).await.unwrap().ids, std::slice::from_ref(&id));
    let record = tokio::time::timeout(LONG, celeriac.client().wait(&id)).await.unwrap().unwrap();
    assert_eq!((record.state, record.result.as_deref()), (State::Success, Some("5")));
    celeriac.shutdown().await.unwrap();
}
