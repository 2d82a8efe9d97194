//! Hooks around a run, a task's own and the program's; what their panics change and what not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use celeriac::task::HookEvent;
use celeriac::{Context, State, TaskError, task};

use crate::kit::{Gate, LONG, add, builder, hold, note, notes, on_both, record, status_of, until};

fn noted(ctx: &Context, event: &HookEvent) {
    note(ctx.id(), format!("{event:?}"));
}

#[task(
    queue = "io",
    max_retries = 1,
    default_retry_delay = 0.01,
    before_start = noted,
    on_success = noted,
    on_retry = noted,
    on_failure = noted
)]
async fn hooked(ctx: &Context, fail: u32) -> Result<u32, TaskError> {
    note(ctx.id(), "body");
    if ctx.attempt() <= fail { Err(TaskError::failure(["no", "really"])) } else { Ok(ctx.attempt()) }
}

#[tokio::test]
async fn hooks_are_told_what_happens_in_order() {
    on_both(|celeriac| async move {
        for (fail, expected) in [
            (0, vec!["BeforeStart", "body", "Success(\"1\")"]),
            (
                1,
                vec![
                    "BeforeStart",
                    "body",
                    "Retry([\"no\", \"really\"])",
                    "BeforeStart",
                    "body",
                    "Success(\"2\")",
                ],
            ),
            (
                2,
                vec![
                    "BeforeStart",
                    "body",
                    "Retry([\"no\", \"really\"])",
                    "BeforeStart",
                    "body",
                    "Failure([\"no\", \"really\"])",
                ],
            ),
        ] {
            let result = hooked::s(fail).send(celeriac.client()).await.unwrap();
            record(&result).await;
            until("all hooks were called", async || notes(result.id()).len() >= expected.len()).await;
            assert_eq!(notes(result.id()), expected, "fails {fail} times");
        }
    })
    .await;
}

/// The outcome is recorded when the hook hears of it.
#[task(queue = "io", on_success = looks_at_the_record)]
async fn looked_at() {}

fn looks_at_the_record(ctx: &Context, _: &HookEvent) {
    let client = LOOKED.lock().unwrap().clone().unwrap();
    let state = futures_executor::block_on(client.state(ctx.id())).unwrap();
    note(ctx.id(), state.as_str());
}

static LOOKED: Mutex<Option<Arc<dyn celeriac::task::Client>>> = Mutex::new(None);

#[tokio::test]
async fn a_hook_comes_after_the_record() {
    on_both(|celeriac| async move {
        *LOOKED.lock().unwrap() = Some(celeriac.client());
        let result = looked_at::s().send(celeriac.client()).await.unwrap();
        until("the hook was called", async || !notes(result.id()).is_empty()).await;
        assert_eq!(notes(result.id()), ["SUCCESS"]);
        *LOOKED.lock().unwrap() = None;
    })
    .await;
}

fn panics(ctx: &Context, event: &HookEvent) {
    note(ctx.id(), format!("{event:?}"));
    panic!("the hook is broken");
}

#[task(
    queue = "one",
    max_retries = 1,
    default_retry_delay = 0.01,
    on_success = panics,
    on_retry = panics,
    on_failure = panics
)]
async fn badly_hooked(ctx: &Context, fail: u32) -> Result<u32, TaskError> {
    if ctx.attempt() <= fail { Err(TaskError::failure(["no"])) } else { Ok(ctx.attempt()) }
}

#[tokio::test]
async fn a_hook_that_panics_changes_no_outcome() {
    on_both(|celeriac| async move {
        for (fail, state, attempts, calls) in
            [(0, State::Success, 1, 1), (1, State::Success, 2, 2), (2, State::Failure, 2, 2)]
        {
            let result = badly_hooked::s(fail).send(celeriac.client()).await.unwrap();
            let record = record(&result).await;
            assert_eq!((record.state, record.attempts), (state, attempts));
            until("the hooks were called", async || notes(result.id()).len() == calls).await;
        }
        // The only worker is well.
        let next = add::s(1, 1).queue("one").send(celeriac.client()).await.unwrap();
        assert_eq!(next.get(LONG).await, Ok(2));
        assert_eq!(status_of(&celeriac, "one").await.panics, 0, "no body panicked");
    })
    .await;
}

#[task(queue = "io", max_retries = 1, default_retry_delay = 0.01, before_start = panics)]
async fn cannot_start(ctx: &Context) {
    note(ctx.id(), "body");
}

#[tokio::test]
async fn a_panic_before_the_start_fails_the_attempt() {
    on_both(|celeriac| async move {
        let result = cannot_start::s().send(celeriac.client()).await.unwrap();
        let record = record(&result).await;
        assert_eq!((record.state, record.attempts), (State::Failure, 2));
        assert_eq!(record.errors, ["the hook is broken"]);
        assert_eq!(record.error_type.as_deref(), Some("Panic"));
        assert_eq!(notes(result.id()), ["BeforeStart", "BeforeStart"], "the body never ran");
    })
    .await;
}

#[tokio::test]
async fn the_programs_hook_hears_of_every_final_failure_and_of_nothing_else() {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&heard);
    let celeriac = builder()
        .in_memory()
        .on_failure(move |ctx, event| told.lock().unwrap().push(format!("{} {event:?}", ctx.task())))
        .start()
        .await
        .unwrap();
    let client = celeriac.client();
    hooked::s(1).send(client.clone()).await.unwrap().get(LONG).await.unwrap();
    record(&hooked::s(2).send(client.clone()).await.unwrap()).await;
    // The task's own hook panics, the program's is called all the same.
    record(&badly_hooked::s(2).send(client.clone()).await.unwrap()).await;
    let options = celeriac::task::TaskOptions::default();
    client.enqueue(Box::new(celeriac::task::NewTask::new("nope", options))).await.unwrap();
    until("three were heard of", async || heard.lock().unwrap().len() == 3).await;
    celeriac.shutdown().await.unwrap();
    let mut heard = heard.lock().unwrap().clone();
    heard.sort();
    assert_eq!(
        heard,
        [
            "nope Failure([\"no task named `nope` in this program\"])",
            "runtime::hooks::badly_hooked Failure([\"no\"])",
            "runtime::hooks::hooked Failure([\"no\", \"really\"])",
        ]
    );
}

#[task(queue = "io", max_retries = 1, default_retry_delay = 0.05, before_start = noted, after_return = noted)]
async fn comes_back(ctx: &Context, how: String) -> Result<u32, TaskError> {
    note(ctx.id(), "body");
    let is_first = notes(ctx.id()).len() < 3;
    match how.as_str() {
        "is retried" if is_first => Err(TaskError::retry("once")),
        "is postponed" if is_first => Err(TaskError::postpone(Duration::from_millis(50))),
        "is ignored" => Err(TaskError::ignore()),
        "is rejected" => Err(TaskError::reject("no")),
        _ => Ok(1),
    }
}

#[tokio::test]
async fn each_run_that_has_started_is_told_to_be_over_with_its_state() {
    on_both(|celeriac| async move {
        let run =
            |state: &str| vec!["BeforeStart".to_owned(), "body".to_owned(), format!("AfterReturn({state})")];
        for (how, states) in [
            ("succeeds", vec!["Success"]),
            ("is retried", vec!["Retry", "Success"]),
            ("is postponed", vec!["Pending", "Success"]),
            ("is ignored", vec!["Ignored"]),
            ("is rejected", vec!["Rejected"]),
        ] {
            let result = comes_back::s(how.into()).send(celeriac.client()).await.unwrap();
            record(&result).await;
            let expected: Vec<String> = states.into_iter().flat_map(run).collect();
            until("all hooks were called", async || notes(result.id()).len() >= expected.len()).await;
            assert_eq!(notes(result.id()), expected, "{how}");
        }
    })
    .await;
}

#[task(queue = "io", max_retries = 1, default_retry_delay = 0.05)]
async fn plain(ctx: &Context, fail: u32) -> Result<u32, TaskError> {
    if ctx.attempt() <= fail { Err(TaskError::failure(["no"])) } else { Ok(ctx.attempt()) }
}

#[tokio::test]
async fn the_program_has_a_hook_for_each_event() {
    let heard = |ctx: &Context, event: &HookEvent| note(ctx.id(), format!("{event:?}"));
    let celeriac = builder()
        .in_memory()
        .before_start(heard)
        .on_success(heard)
        .on_retry(heard)
        .on_failure(heard)
        .on_revoked(heard)
        .after_return(heard)
        .start()
        .await
        .unwrap();
    let client = || celeriac.client();
    for (fail, expected) in [
        (0, vec!["BeforeStart", "Success(\"1\")", "AfterReturn(Success)"]),
        (
            2,
            vec![
                "BeforeStart",
                "Retry([\"no\"])",
                "AfterReturn(Retry)",
                "BeforeStart",
                "Failure([\"no\"])",
                "AfterReturn(Failure)",
            ],
        ),
    ] {
        let result = plain::s(fail).send(client()).await.unwrap();
        record(&result).await;
        until("all hooks were called", async || notes(result.id()).len() >= expected.len()).await;
        assert_eq!(notes(result.id()), expected, "fails {fail} times");
    }

    // One that waits has no run, so nothing is said of one.
    let waiting = plain::s(0).countdown(LONG).send(client()).await.unwrap();
    assert_eq!(waiting.revoke(false).await, Ok(true));
    until("the hook was called", async || !notes(waiting.id()).is_empty()).await;
    assert_eq!(notes(waiting.id()), ["Revoked([\"the task was revoked before it started\"])"]);
    let gate = Gate::new();
    let running = hold::s(gate.name.clone()).send(client()).await.unwrap();
    gate.entered(1).await;
    assert_eq!(running.revoke(true).await, Ok(true));
    let expected =
        ["BeforeStart", "Revoked([\"the task was revoked while it ran\"])", "AfterReturn(Revoked)"];
    until("all hooks were called", async || notes(running.id()).len() >= expected.len()).await;
    assert_eq!(notes(running.id()), expected);
    celeriac.shutdown().await.unwrap();
}
