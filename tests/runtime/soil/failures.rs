//! Both ways to fail, and the oldest one.

use celeriac::soil::SoilState;
use celeriac::{Context, State, TaskError, task};
use serde_json::{Value, json};

use crate::kit::{on_both, record};

/// Says that it has failed, and then does whatever it is told to do.
#[task(queue = "io", max_retries = 3, default_retry_delay = "0s")]
async fn fail_then(ctx: Context, what: String) -> Result<u32, TaskError> {
    ctx.fail(["row 3: no name", "row 7: no age"]);
    ctx.fail(["a later one, which is ignored"]);
    ctx.progress(99, 100);
    ctx.update_state("PROGRESS", json!({"current": 99, "total": 100}))?;
    match what.as_str() {
        "return" => Ok(1),
        "retry" => Err(TaskError::retry("again")),
        "fail" => Err(TaskError::failure(["something else"])),
        "postpone" => Err(TaskError::postpone(std::time::Duration::from_secs(3600))),
        "ignore" => Err(TaskError::ignore()),
        _ => panic!("after it had failed"),
    }
}

/// Returns the error that `fail` gives.
#[task(queue = "io")]
async fn fail_at_once(ctx: Context) -> Result<(), TaskError> {
    Err(ctx.fail(vec!["one".to_owned(), "two".to_owned()]))
}

#[task(queue = "io")]
async fn with_errors(errors: Vec<String>) -> Result<(), TaskError> {
    Err(TaskError::failure(errors).with_transient(false))
}

#[task(queue = "io")]
async fn gives(value: Value) -> Value {
    value
}

#[tokio::test]
async fn who_has_failed_has_failed_whatever_follows() {
    on_both(|celeriac| async move {
        for what in ["return", "retry", "fail", "postpone", "ignore", "panic"] {
            let task = fail_then::s(what.into()).send(celeriac.client()).await.unwrap();
            let record = record(&task).await;
            assert_eq!((record.state, record.attempts), (State::Failure, 1), "{what}");
            assert!(!task.successful().await.unwrap(), "{what}");
            let seen = celeriac.soil().status(task.id()).await.unwrap();
            assert_eq!(seen.state, SoilState::Failed, "{what}");
            assert_eq!(seen.errors, ["row 3: no name", "row 7: no age"], "{what}");
            assert_eq!(seen.progress, None, "states after the failure are ignored: {what}");
        }
        let task = fail_at_once::s().send(celeriac.client()).await.unwrap();
        record(&task).await;
        assert_eq!(celeriac.soil().status(task.id()).await.unwrap().errors, ["one", "two"]);
    })
    .await;
}

#[tokio::test]
async fn the_text_of_an_error_is_the_error() {
    on_both(|celeriac| async move {
        for (given, shown) in [
            (vec!["no such domain"], vec!["no such domain"]),
            (vec!["a", "b"], vec!["a", "b"]),
            (vec!["\tone\ttwo"], vec!["one", "two"]),
        ] {
            let errors = given.iter().map(|&error| error.to_owned()).collect();
            let task = with_errors::s(errors).send(celeriac.client()).await.unwrap();
            record(&task).await;
            let seen = celeriac.soil().status(task.id()).await.unwrap();
            assert_eq!(
                (seen.state, seen.errors),
                (SoilState::Failed, shown.iter().map(|&e| e.to_owned()).collect())
            );
        }
        let task = with_errors::s(vec!["a\tb".into()]).send(celeriac.client()).await.unwrap();
        record(&task).await;
        let plain = celeriac.soil().with_error_separator("");
        assert_eq!(plain.status(task.id()).await.unwrap().errors, ["a\tb"]);
    })
    .await;
}

#[tokio::test]
async fn hqs_oldest_way_to_fail_is_to_return_errors() {
    on_both(|celeriac| async move {
        let task =
            gives::s(json!({"errors": ["no rows"], "messages": "x"})).send(celeriac.client()).await.unwrap();
        record(&task).await;
        let seen = celeriac.soil().status(task.id()).await.unwrap();
        assert_eq!((seen.state, seen.errors), (SoilState::Failed, vec!["no rows".to_owned()]));
        let task =
            gives::s(json!({"errors": [], "messages": ["1 row"]})).send(celeriac.client()).await.unwrap();
        record(&task).await;
        let seen = celeriac.soil().status(task.id()).await.unwrap();
        assert_eq!((seen.state, seen.messages()), (SoilState::Success, vec!["1 row".to_owned()]));
    })
    .await;
}
