//! What a body logs says of which run it is; which failures are errors in the log.

use celeriac::task::TENANT;
use celeriac::{Celeriac, TaskError, task};

use crate::kit::{self, LONG, Log};

#[task(queue = "io", max_retries = 1, default_retry_delay = "1ms", retry_jitter = false)]
async fn says(text: String) -> Result<(), TaskError> {
    tokio::task::yield_now().await;
    tracing::info!(text, "said on the event loop");
    Err(TaskError::from_display("once more"))
}

#[task(queue = "cpu", max_retries = 0)]
fn writes(text: String) {
    tracing::info!(text, "said on a thread");
}

#[test]
fn each_line_of_a_body_names_its_run() {
    kit::alone("spans::each_line_in_a_process_of_its_own");
}

#[tokio::test]
#[ignore = "a subscriber for all threads; run by `each_line_of_a_body_names_its_run`"]
async fn each_line_in_a_process_of_its_own() {
    let log = Log::capture(tracing::Level::INFO);
    let celeriac: Celeriac = kit::memory().await;
    let looped = says::s("one".into()).header(TENANT, "acme").send(celeriac.client()).await.unwrap();
    let threaded = writes::s("two".into()).send(celeriac.client()).await.unwrap();
    looped.get(LONG).await.unwrap_err();
    assert_eq!(threaded.get(LONG).await, Ok(()));
    celeriac.shutdown().await.unwrap();
    let lines = |of: &str| -> Vec<String> {
        log.text().lines().filter(|line| line.contains(of)).map(str::to_owned).collect()
    };
    let said = lines("said on the event loop");
    assert_eq!(said.len(), 2, "{said:?}");
    for (line, attempt) in said.iter().zip(1..) {
        let (task, id) = ("runtime::spans::says", looped.id());
        for part in [
            format!("task={task:?}"),
            format!("id={id}"),
            "queue=\"io\"".into(),
            "tenant=\"acme\"".into(),
            format!("attempt={attempt}"),
        ] {
            assert!(line.contains(&part), "{part} is not in {line}");
        }
    }
    let said = lines("said on a thread");
    assert!(said.len() == 1 && said[0].contains(&format!("id={}", threaded.id())), "{said:?}");
    assert!(!said[0].contains("tenant"), "nobody has stated one: {said:?}");
}

#[derive(Debug, thiserror::Error)]
enum MailError {
    #[error("no such user")]
    NoSuchUser,
    #[error("no server")]
    NoServer,
}

fn is_no_such_user(error: &MailError) -> bool {
    matches!(error, MailError::NoSuchUser)
}

#[task(queue = "io", max_retries = 1, default_retry_delay = "1ms", throws = is_no_such_user)]
async fn mails(to_nobody: bool) -> Result<(), MailError> {
    Err(if to_nobody { MailError::NoSuchUser } else { MailError::NoServer })
}

#[test]
fn an_expected_error_is_none_in_the_log() {
    kit::alone("spans::levels_in_a_process_of_its_own");
}

#[tokio::test]
#[ignore = "a subscriber for all threads; run by `an_expected_error_is_none_in_the_log`"]
async fn levels_in_a_process_of_its_own() {
    let log = Log::capture(tracing::Level::INFO);
    let celeriac: Celeriac = kit::memory().await;
    let levels = async |to_nobody: bool| -> Vec<String> {
        let result = mails::s(to_nobody).send(celeriac.client()).await.unwrap();
        let record = kit::record(&result).await;
        assert_eq!((record.state, record.attempts), (celeriac::State::Failure, 2));
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains(record.id.as_str()));
        // The line begins with the time.
        lines.filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect()
    };
    assert_eq!(levels(true).await, ["INFO", "INFO"]);
    assert_eq!(levels(false).await, ["WARN", "ERROR"]);
    celeriac.shutdown().await.unwrap();
}
