use serde_json::json;

use super::*;
use crate::task::{Context, TaskError};

fn message(retries: u32) -> Message {
    let mut message = Context::detached().message().clone();
    message.task = "app::t".into();
    message.retries = retries;
    message.autoretry = true;
    message.retry.max_retries = 3;
    message.retry.jitter = false;
    message
}

fn judge(message: &Message, ending: Ending) -> Verdict {
    judge_revoked(message, ending, false)
}

fn judge_revoked(message: &Message, ending: Ending, revoked: bool) -> Verdict {
    judge_told(message, ending, revoked, false)
}

fn judge_told(message: &Message, ending: Ending, revoked: bool, terminated: bool) -> Verdict {
    let now = Timestamp::from_millis(5_000);
    let judge = Judge {
        started_at: Some(now),
        worker: Some("q#1"),
        revoked,
        terminated,
        ..Judge::unstarted(message, now)
    };
    judge.judge(Err(ending))
}

fn failure(transient: Option<bool>) -> Ending {
    Ending::Failure { messages: vec!["boom".into()], name: "E".into(), transient }
}

fn state(verdict: Verdict) -> Option<(State, u32, Vec<String>)> {
    match verdict {
        Verdict::Over(r) => Some((r.state, r.attempts, r.errors)),
        _ => None,
    }
}

#[test]
fn an_error_is_retried_until_the_policy_gives_up() {
    let Verdict::Again { message: again, due, next, .. } = judge(&message(0), failure(None)) else {
        panic!()
    };
    assert_eq!((again.retries, next), (1, Next::Retry));
    assert_eq!(due, Some(Timestamp::from_millis(15_000)));
    assert_eq!(again.last_errors, ["boom"]);
    assert_eq!(again.first_started_at, Some(Timestamp::from_millis(5_000)));
    let over = state(judge(&message(3), failure(None)));
    assert_eq!(over, Some((State::Failure, 4, vec!["boom".into()])));
}

#[test]
fn a_message_takes_the_attempts_that_failed_along_until_it_is_continued() {
    let panicked = || Ending::Failure {
        messages: vec!["boom".into()],
        name: ErrorName { place: Some("src/mail.rs:3:5".into()), ..ErrorName::from("Panic") },
        transient: None,
    };
    let Verdict::Again { message: first, .. } = judge(&message(0), failure(None)) else { panic!() };
    let Verdict::Again { message: second, .. } = judge(&first, panicked()) else { panic!() };
    let attempts = second.failed_attempts();
    let told: Vec<_> = attempts
        .iter()
        .map(|failed| {
            (failed.attempt, failed.error_type.as_deref(), failed.error.as_str(), failed.place.as_deref())
        })
        .collect();
    let place = Some("src/mail.rs:3:5");
    assert_eq!(told, [(1, Some("E"), "boom", None), (2, Some("Panic"), "boom", place)]);
    assert_eq!((attempts[1].at, attempts[1].worker.as_deref()), (Timestamp::from_millis(5_000), Some("q#1")));
    let next = Ending::Continue { task: "app::t".into(), arguments: Ok(Arguments::default()) };
    let Verdict::Again { message: continued, .. } = judge(&second, next) else { panic!() };
    assert_eq!(continued.failed_attempts(), []);
}

#[test]
fn what_an_error_is_called_in_python_is_in_the_record_also_after_retries() {
    let error = || {
        let error = TaskError::failure(["bad"]).with_python_type("builtins", "ValueError");
        error.with_python_args(json!(["bad", 42])).into_ending()
    };
    for retries in [0, 3] {
        match judge(&message(retries), error()) {
            Verdict::Over(record) if retries == 3 => {
                assert_eq!(record.error_type.as_deref(), Some("ValueError"));
                assert_eq!(record.error_module.as_deref(), Some("builtins"));
                assert_eq!(record.error_arguments, Some(json!(["bad", 42]).into()));
            }
            verdict => assert!(matches!(verdict, Verdict::Again { .. }) && retries == 0),
        }
    }
    let Verdict::Over(record) = judge(&message(3), failure(None)) else { panic!() };
    assert_eq!((record.error_type.as_deref(), record.error_module), (Some("E"), None));
    let other = TaskError::ignore().with_python_type("builtins", "ValueError").into_ending();
    assert!(matches!(other, Ending::Ignore));
}

#[test]
fn permanent_errors_and_tasks_without_autoretry_fail_at_once() {
    assert_eq!(state(judge(&message(0), failure(Some(false)))).unwrap().0, State::Failure);
    let mut quiet = message(0);
    quiet.autoretry = false;
    assert_eq!(state(judge(&quiet, failure(None))).unwrap().0, State::Failure);
    assert!(matches!(judge(&quiet, failure(Some(true))), Verdict::Again { .. }));
}

#[test]
fn a_retry_may_say_its_delay_its_limit_its_expiry_and_its_arguments() {
    let next = Arguments { args: "[7]".into(), kwargs: String::new() };
    let ending = |task: &'static str, max_retries| Ending::Retry {
        messages: vec!["later".into()],
        name: "E".into(),
        next: Box::new(NextAttempt {
            after: Some(Duration::from_secs(1)),
            max_retries: Some(max_retries),
            expires: Some(Duration::from_secs(2)),
            arguments: Some((task.into(), Ok(next.clone()))),
        }),
    };
    // The task's own limit is 3.
    let Verdict::Again { message: m, due, failed: Some(failed), .. } =
        judge(&message(3), ending("app::t", 4))
    else {
        panic!()
    };
    assert_eq!((&m.arguments, m.retries, m.retry.max_retries), (&next, 4, 3));
    assert_eq!((due, failed.error_type.as_deref()), (Some(Timestamp::from_millis(6_000)), Some("E")));
    assert_eq!(m.expires, Some(Timestamp::from_millis(7_000)));
    // One that says none keeps that of the call.
    let until = Some(Timestamp::from_millis(8_000));
    let call = Message { expires: until, ..message(0) };
    let Verdict::Again { message: m, .. } = judge(&call, failure(None)) else { panic!() };
    assert_eq!(m.expires, until);
    let over = state(judge(&message(0), ending("app::t", 0)));
    assert_eq!(over, Some((State::Failure, 1, vec!["later".into()])));
    let (_, _, errors) = state(judge(&message(0), ending("app::u", 4))).unwrap();
    assert!(errors[0].contains("wanted to be retried as `app::u`"), "{errors:?}");
}

#[test]
fn postpone_and_continue_burn_no_attempt() {
    let Verdict::Again { message: m, due, .. } =
        judge(&message(2), Ending::Postpone { until: Until::In(Duration::from_secs(1)) })
    else {
        panic!()
    };
    assert_eq!((m.retries, due), (2, Some(Timestamp::from_millis(6_000))));
    let next = Arguments { args: "[7]".into(), kwargs: String::new() };
    let ending = Ending::Continue { task: "app::t".into(), arguments: Ok(next.clone()) };
    let Verdict::Again { message: m, due: None, next: Next::Continue, .. } = judge(&message(2), ending)
    else {
        panic!()
    };
    assert_eq!((m.retries, m.continuations, m.arguments), (0, 1, next));
    let other = Ending::Continue { task: "app::u".into(), arguments: Ok(Arguments::default()) };
    assert!(state(judge(&message(0), other)).unwrap().2[0].contains("wanted to continue as `app::u`"));
}

#[test]
fn the_next_arguments_may_be_as_large_as_those_of_a_call() {
    let m = message(0);
    let judge = Judge { max_message_size: 10, ..Judge::unstarted(&m, Timestamp::ZERO) };
    let of = |len: usize| Arguments { args: "x".repeat(len), kwargs: String::new() };
    let go_on = |len| Ending::Continue { task: "app::t".into(), arguments: Ok(of(len)) };
    let retry = |len| Ending::Retry {
        messages: vec!["later".into()],
        name: "E".into(),
        next: Box::new(NextAttempt {
            arguments: Some(("app::t".into(), Ok(of(len)))),
            ..NextAttempt::default()
        }),
    };
    for (fits, too_large) in [(go_on(10), go_on(11)), (retry(10), retry(11))] {
        assert!(matches!(judge.judge(Err(fits)), Verdict::Again { .. }));
        let (state, _, errors) = state(judge.judge(Err(too_large))).unwrap();
        assert_eq!(state, State::Failure);
        let text = "the arguments of `app::t` take 11 bytes, the limit is 10: store the object";
        assert!(errors[0].starts_with(text), "{errors:?}");
    }
}

#[test]
fn whatever_a_body_says_the_record_is_bounded() {
    let (m, long) = (message(3), "x".repeat(MOST_ERROR_BYTES + 1));
    let errors = || vec![long.clone(), "second".to_owned()];
    let python = TaskError::failure(errors()).with_python_type("m", long.as_str()).into_ending();
    let fail = Ending::Fail { errors: errors(), name: "Fail".into() };
    let reject = Ending::Reject { reason: long.clone(), name: "Reject".into() };
    for ending in [python, fail, reject] {
        let (Verdict::Over(record) | Verdict::Dead { record, .. }) = judge(&m, ending) else { panic!() };
        assert!(record.errors.iter().map(String::len).sum::<usize>() <= MOST_ERROR_BYTES);
        assert!(record.errors[0].ends_with("... (1048577 bytes)"));
        assert!(record.error_type.is_some_and(|name| name.len() <= ERROR));
    }
    let ending = TaskError::failure(errors()).into_ending();
    let Verdict::Again { message: again, .. } = judge(&message(0), ending) else { panic!() };
    assert_eq!(again.last_errors, bounded_errors(errors()));
    let reject = TaskError::reject(&long).into_ending();
    let Verdict::Dead { reason, .. } = judge(&m, reject) else { panic!() };
    assert!(reason.len() <= MOST_ERROR_BYTES);
}

#[test]
fn what_is_put_back_burns_no_attempt_and_waits_longer_each_time() {
    let rejected = || TaskError::reject_and_requeue("no").into_ending();
    let put_back = |message: &Message| match judge(message, rejected()) {
        Verdict::Again { message, due, next: Next::Requeue, failed: None } => (message, due.unwrap()),
        other => panic!("{other:?}"),
    };
    let (mut again, due) = put_back(&message(2));
    assert_eq!((again.retries, again.requeues(), again.eta), (2, 1, Some(due)));
    assert_eq!((due, &again.last_errors), (Timestamp::from_millis(6_000), &vec!["no".to_owned()]));
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let (next, due) = put_back(&again);
        pauses.push(due.since(Timestamp::from_millis(5_000)).as_secs());
        again = next;
    }
    assert_eq!((pauses, again.requeues()), (vec![2, 4, 8, 16, 32, 60, 60], 8));
    // What goes on in another way begins anew.
    let Verdict::Again { message: tried, .. } = judge(&again, failure(None)) else { panic!() };
    assert_eq!((tried.requeues(), tried.retries), (0, 3));
    let revoked = judge_revoked(&again, rejected(), true);
    assert_eq!(state(revoked).unwrap().0, State::Revoked);
}

#[test]
fn a_revoked_run_is_not_tried_again_but_what_it_decided_itself_stays() {
    let m = message(0);
    assert_eq!(state(judge_revoked(&m, failure(None), true)).unwrap().0, State::Revoked);
    let fail = Ending::Fail { errors: vec!["no".into()], name: "Fail".into() };
    assert_eq!(state(judge_revoked(&m, fail, true)).unwrap().0, State::Failure);
    let ok = Judge {
        message: &m,
        now: Timestamp::ZERO,
        started_at: None,
        worker: None,
        entropy: 0,
        revoked: true,
        terminated: false,
        limits: CanvasLimits::default(),
        max_message_size: usize::MAX,
    };
    assert_eq!(state(ok.judge(Ok("1".into()))).unwrap().0, State::Success);
}

#[test]
fn a_revocation_that_tells_no_body_to_end_leaves_a_real_failure_as_it_is() {
    let ends =
        |retries, ending, terminated| state(judge_told(&message(retries), ending, true, terminated)).unwrap();
    let boom = vec!["boom".to_owned()];
    // The last attempt, or one that is never tried again, has failed. Where another attempt would follow, the task
    // is revoked.
    assert_eq!(ends(3, failure(None), false), (State::Failure, 4, boom.clone()));
    assert_eq!(ends(0, failure(Some(false)), false), (State::Failure, 1, boom));
    let retry = || TaskError::retry("later").into_ending();
    assert_eq!(ends(3, retry(), false).0, State::Failure);
    assert_eq!(ends(0, retry(), false).0, State::Revoked);
    assert_eq!(ends(3, Ending::Interrupted(Interrupt::SoftTimeLimit), false).0, State::Failure);
    assert_eq!(ends(0, Ending::Ignore, false).0, State::Ignored);
    let until = Until::In(Duration::from_secs(1));
    assert_eq!(ends(0, Ending::Postpone { until }, false).0, State::Revoked);
    assert_eq!(ends(0, Ending::Interrupted(Interrupt::Shutdown), false).0, State::Revoked);
    // A run that was told to end may end in any way, and its task is revoked.
    assert_eq!(ends(3, failure(Some(false)), true).0, State::Revoked);
    let m = message(0);
    let judge = |terminated| Judge { revoked: true, terminated, ..Judge::unstarted(&m, Timestamp::ZERO) };
    let limit = Duration::from_secs(1);
    assert_eq!(state(judge(false).time_limit(limit)).unwrap().0, State::Failure);
    assert_eq!(state(judge(true).time_limit(limit)).unwrap().0, State::Revoked);
}

#[test]
fn interrupts() {
    let m = message(0);
    assert_eq!(judge(&m, Ending::Interrupted(Interrupt::Shutdown)), Verdict::HandBack);
    assert_eq!(state(judge(&m, Ending::Interrupted(Interrupt::Revoked))).unwrap().0, State::Revoked);
    assert!(matches!(judge(&m, Ending::Interrupted(Interrupt::SoftTimeLimit)), Verdict::Again { .. }));
    assert!(matches!(
        judge(&m, Ending::Reject { reason: "r".into(), name: "Reject".into() }),
        Verdict::Dead { .. }
    ));
    assert_eq!(state(judge(&m, Ending::Ignore)).unwrap().0, State::Ignored);
}
