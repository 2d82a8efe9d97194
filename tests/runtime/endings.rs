//! Each way in which a run can end, and what follows.

use std::num::ParseIntError;
use std::time::Duration;

use celeriac::{Celeriac, Context, State, TaskError, task};

use crate::kit::{LONG, add, add_cpu, note, notes, on_both, record, status_of, until, until_status};

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("the server is busy")]
    Busy,
    #[error("no such user `{0}`")]
    NoSuchUser(String),
    #[error("the form does not read")]
    Form(#[from] FormError),
}

#[derive(Debug, thiserror::Error)]
#[error("field `age` is wrong")]
pub struct FormError(#[from] ParseIntError);

fn is_busy(error: &MailError) -> bool {
    matches!(error, MailError::Busy)
}

#[tokio::test]
async fn a_value_comes_back() {
    on_both(|celeriac| async move {
        let on_the_loop = add::s(40, 2).send(celeriac.client()).await.unwrap();
        let on_a_thread = add_cpu::s(1, 2).send(celeriac.client()).await.unwrap();
        // An async body in a pool of threads.
        let elsewhere = add::s(2, 2).queue("cpu").send(celeriac.client()).await.unwrap();
        assert_eq!(on_the_loop.get(LONG).await, Ok(42));
        assert_eq!(on_a_thread.get(LONG).await, Ok(3));
        assert_eq!(elsewhere.get(LONG).await, Ok(4));
        let record = record(&on_the_loop).await;
        assert_eq!(
            (record.state, record.result.as_deref(), record.attempts),
            (State::Success, Some("42"), 1)
        );
        assert_eq!((record.task.as_str(), record.queue.as_str()), ("runtime::kit::add", "io"));
        assert!(record.worker.unwrap().starts_with("io#"));
        assert!(record.enqueued_at <= record.started_at.unwrap());
        assert!(record.started_at.unwrap() <= record.finished_at);
        assert!(record.errors.is_empty() && record.error_type.is_none());
    })
    .await;
}

#[task(queue = "io", max_retries = 2, default_retry_delay = 0.01)]
async fn reads_a_form(ctx: &Context) -> Result<(), MailError> {
    note(ctx.id(), format!("attempt {} retries {}", ctx.attempt(), ctx.retries()));
    "x".parse::<u8>().map_err(FormError)?;
    Ok(())
}

#[tokio::test]
async fn an_error_is_retried_as_often_as_the_policy_says_and_then_fails_with_its_causes() {
    on_both(|celeriac| async move {
        let failing = reads_a_form::s().send(celeriac.client()).await.unwrap();
        let record = record(&failing).await;
        assert_eq!(record.state, State::Failure);
        assert_eq!(
            record.errors,
            ["the form does not read", "field `age` is wrong", "invalid digit found in string"]
        );
        assert!(record.error_type.unwrap().ends_with("endings::MailError"));
        assert_eq!(record.attempts, 3);
        assert_eq!(
            notes(failing.id()),
            ["attempt 1 retries 0", "attempt 2 retries 1", "attempt 3 retries 2"]
        );
        until_status(&celeriac, "io", |s| (s.failed, s.retried, s.done) == (1, 2, 0)).await;
    })
    .await;
}

#[task(queue = "io", max_retries = 1, default_retry_delay = 0.01, retry_if = is_busy)]
async fn sends_mail(ctx: &Context, user: String) -> Result<String, MailError> {
    note(ctx.id(), "tried");
    match user.as_str() {
        "busy once" if ctx.attempt() == 1 => Err(MailError::Busy),
        "busy once" => Ok("sent".to_owned()),
        _ => Err(MailError::NoSuchUser(user)),
    }
}

#[tokio::test]
async fn the_predicate_decides_which_errors_are_tried_again() {
    on_both(|celeriac| async move {
        let busy = sends_mail::s("busy once".into()).send(celeriac.client()).await.unwrap();
        let unknown = sends_mail::s("zoe".into()).send(celeriac.client()).await.unwrap();
        assert_eq!(busy.get(LONG).await.as_deref(), Ok("sent"));
        assert_eq!(record(&busy).await.attempts, 2);
        let record = record(&unknown).await;
        assert_eq!((record.state, record.attempts), (State::Failure, 1));
        assert_eq!(record.errors, ["no such user `zoe`"]);
    })
    .await;
}

/// Says itself how it ends, the first time; then what it was told.
#[task(queue = "io", max_retries = 1, default_retry_delay = "1h")]
async fn ends(ctx: &Context, how: String) -> Result<String, TaskError> {
    note(ctx.id(), format!("attempt {}", ctx.attempt()));
    if notes(ctx.id()).len() > 1 {
        return Ok(format!("attempt {}", ctx.attempt()));
    }
    let soon = Duration::from_millis(10);
    Err(match how.as_str() {
        "permanent" => TaskError::permanent("the form was deleted"),
        "retry in" => TaskError::retry_in(soon, "the lock is taken"),
        "postpone" => TaskError::postpone(soon),
        "put back" => TaskError::reject_and_requeue("not on this machine"),
        "postpone until" => TaskError::postpone_until(std::time::SystemTime::now() + soon),
        "fail" => TaskError::fail(["row 3: no name", "row 7: no age"]),
        "ignore" => TaskError::ignore(),
        "reject" => TaskError::reject("not mine"),
        "other task" => TaskError::continue_with(add::s(1, 2)),
        other => panic!("{other}"),
    })
}

async fn end(celeriac: &Celeriac, how: &str) -> (celeriac::task::TaskResult, Vec<String>) {
    let result = ends::s(how.into()).send(celeriac.client()).await.unwrap();
    (record(&result).await, notes(result.id()))
}

#[tokio::test]
async fn what_burns_an_attempt_and_what_does_not() {
    on_both(|celeriac| async move {
        for (how, value, attempts) in [
            ("retry in", "attempt 2", 2),
            ("postpone", "attempt 1", 1),
            ("postpone until", "attempt 1", 1),
            ("put back", "attempt 1", 1),
        ] {
            let (record, notes) = end(&celeriac, how).await;
            assert_eq!(record.state, State::Success, "{how}");
            assert_eq!(record.result.as_deref(), Some(format!("{value:?}").as_str()), "{how}");
            assert_eq!((record.attempts, notes.len()), (attempts, 2), "{how}");
        }
        let status = until_status(&celeriac, "io", |s| (s.retried, s.requeued, s.done) == (1, 3, 4)).await;
        assert_eq!(status.time_to_start.count, 4, "counted once a task, at its first start");
    })
    .await;
}

/// Asks for a smaller page as long as the page is too large, twice at most whatever its policy says.
#[task(queue = "io", max_retries = 0)]
async fn fetches(size: u32) -> Result<u32, TaskError> {
    if size > 100 {
        let error = TaskError::permanent("too large").with_countdown(Duration::ZERO).with_max_retries(2);
        return Err(error.with_arguments(fetches::s(size / 2)));
    }
    Ok(size)
}

#[tokio::test]
async fn a_retry_may_have_other_arguments_and_another_limit() {
    on_both(|celeriac| async move {
        let small = fetches::s(400).send(celeriac.client()).await.unwrap();
        let small = record(&small).await;
        assert_eq!((small.state, small.result.as_deref(), small.attempts), (State::Success, Some("100"), 3));
        let large = fetches::s(1000).send(celeriac.client()).await.unwrap();
        let large = record(&large).await;
        assert_eq!(
            (large.state, large.errors, large.attempts),
            (State::Failure, vec!["too large".into()], 3)
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_over_at_once() {
    on_both(|celeriac| async move {
        for (how, state, errors) in [
            ("permanent", State::Failure, vec!["the form was deleted"]),
            ("fail", State::Failure, vec!["row 3: no name", "row 7: no age"]),
            ("ignore", State::Ignored, vec![]),
        ] {
            let (record, notes) = end(&celeriac, how).await;
            assert_eq!((record.state, record.attempts, notes.len()), (state, 1, 1), "{how}");
            assert_eq!(record.errors, errors, "{how}");
            assert_eq!(record.result, None, "{how}");
        }
        let (record, _) = end(&celeriac, "other task").await;
        assert_eq!(record.state, State::Failure);
        assert!(
            record.errors[0].contains("wanted to continue as `runtime::kit::add`"),
            "{:?}",
            record.errors
        );
    })
    .await;
}

#[tokio::test]
async fn a_rejected_task_is_a_dead_letter_that_can_be_revived() {
    on_both(|celeriac| async move {
        let rejected = ends::s("reject".into()).send(celeriac.client()).await.unwrap();
        let first = record(&rejected).await;
        assert_eq!((first.state, first.errors), (State::Rejected, vec!["not mine".to_owned()]));
        let letters = celeriac.dead_letters(10).await.unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!((&letters[0].message.id, letters[0].reason.as_str()), (rejected.id(), "not mine"));
        assert_eq!(status_of(&celeriac, "io").await.dead, 1);

        assert!(celeriac.requeue_dead_letter(rejected.id()).await.unwrap());
        let second = record(&rejected).await;
        assert_eq!((second.state, second.result.as_deref()), (State::Success, Some("\"attempt 1\"")));
        assert!(celeriac.dead_letters(10).await.unwrap().is_empty());
        assert!(!celeriac.requeue_dead_letter(rejected.id()).await.unwrap(), "there is none any more");
    })
    .await;
}

#[task(queue = "io", max_retries = 0, acks_on_failure_or_timeout = false)]
async fn is_kept_when_it_fails(ctx: &Context) -> Result<u32, TaskError> {
    note(ctx.id(), "ran");
    if notes(ctx.id()).len() == 1 { Err(TaskError::failure(["the disk is full"])) } else { Ok(2) }
}

#[tokio::test]
async fn a_task_that_is_not_acknowledged_on_failure_is_a_dead_letter_as_well() {
    on_both(|celeriac| async move {
        let failing = is_kept_when_it_fails::s().send(celeriac.client()).await.unwrap();
        let first = record(&failing).await;
        assert_eq!((first.state, first.errors), (State::Failure, vec!["the disk is full".to_owned()]));
        let letters = celeriac.dead_letters(10).await.unwrap();
        let letters: Vec<_> = letters.iter().map(|l| (&l.message.id, l.reason.as_str())).collect();
        assert_eq!(letters, [(failing.id(), "failed: the disk is full")]);
        assert!(celeriac.requeue_dead_letter(failing.id()).await.unwrap());
        let second = record(&failing).await;
        assert_eq!((second.state, second.result.as_deref()), (State::Success, Some("2")));
    })
    .await;
}

#[task(queue = "io", max_retries = 0, ignore_result, store_errors_even_if_ignored)]
async fn keeps_errors_only(fail: bool) -> Result<u32, TaskError> {
    if fail { Err(TaskError::failure(["no"])) } else { Ok(1) }
}

#[tokio::test]
async fn the_errors_of_a_task_without_a_result_may_be_kept() {
    on_both(|celeriac| async move {
        let well = keeps_errors_only::s(false).send(celeriac.client()).await.unwrap();
        let failing = keeps_errors_only::s(true).send(celeriac.client()).await.unwrap();
        until_status(&celeriac, "io", |s| (s.done, s.failed) == (1, 1)).await;
        until("the failure is stored", async || failing.result().await.unwrap().is_some()).await;
        let kept = failing.result().await.unwrap().map(|record| (record.state, record.errors));
        assert_eq!(kept, Some((State::Failure, vec!["no".to_owned()])));
        assert_eq!(well.result().await.unwrap(), None);
    })
    .await;
}

/// "Process one chunk, then requeue."
#[task(queue = "io")]
async fn imports(ctx: Context, cursor: u32, chunks: u32) -> Result<u32, TaskError> {
    note(ctx.id(), format!("chunk {cursor}, attempt {}", ctx.attempt()));
    if cursor < chunks {
        return Err(TaskError::continue_with(imports::s(cursor + 1, chunks)));
    }
    Ok(cursor)
}

#[tokio::test]
async fn a_cursor_goes_through_five_chunks_under_one_id() {
    on_both(|celeriac| async move {
        let import = imports::s(1, 5).id(format!("import-{}", celeriac::TaskId::new()));
        let import = import.send(celeriac.client()).await.unwrap();
        assert_eq!(import.get(LONG).await, Ok(5));
        let chunks: Vec<_> = (1..=5).map(|n| format!("chunk {n}, attempt 1")).collect();
        assert_eq!(notes(import.id()), chunks);
        assert_eq!(record(&import).await.attempts, 1);
    })
    .await;
}

#[task(queue = "io", acks_late = false, max_retries = 1, default_retry_delay = 0.01)]
async fn acknowledged_early(ctx: &Context, fail: bool) -> Result<u32, TaskError> {
    note(ctx.id(), "ran");
    if fail && ctx.attempt() == 1 {
        return Err(TaskError::transient("once"));
    }
    Ok(ctx.attempt())
}

#[tokio::test]
async fn early_acknowledged_tasks_leave_results_and_retry_as_others_do() {
    on_both(|celeriac| async move {
        let well = acknowledged_early::s(false).send(celeriac.client()).await.unwrap();
        let again = acknowledged_early::s(true).send(celeriac.client()).await.unwrap();
        assert_eq!(well.get(LONG).await, Ok(1));
        assert_eq!(again.get(LONG).await, Ok(2));
        assert_eq!((notes(well.id()).len(), notes(again.id()).len()), (1, 2));
    })
    .await;
}

/// A local task and a timer, on the event loop or on a thread.
#[task(queue = "io")]
async fn spawns_locally() -> u32 {
    let value = std::rc::Rc::new(7);
    let there = actix_rt::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        *value
    });
    there.await.unwrap()
}

#[tokio::test]
async fn a_body_may_spawn_local_tasks_in_either_pool() {
    on_both(|celeriac| async move {
        for queue in ["io", "cpu"] {
            let spawned = spawns_locally::s().queue(queue).send(celeriac.client()).await.unwrap();
            assert_eq!(spawned.get(LONG).await, Ok(7), "{queue}");
        }
    })
    .await;
}
