//! Tasks that fail with errors of no certain type: `Box<dyn Error>`, and with the feature `anyhow::Result`.

use std::error::Error;

use celeriac::testing::{self, TestApp};
use celeriac::{State, TaskError, task};

fn read_number(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.parse()
}

#[task(autoretry = false)]
async fn boxed(text: String) -> Result<u32, Box<dyn Error + Send + Sync>> {
    if text.is_empty() {
        return Err("the text is empty".into());
    }
    Ok(read_number(&text)?)
}

/// A body on a thread, with predicates that are asked for the error as it is.
#[task(retry_if = is_temporary, throws = is_number)]
fn boxed_on_a_thread(text: String) -> Result<u32, Box<dyn Error>> {
    Ok(read_number(&text)?)
}

#[allow(clippy::borrowed_box)] // the predicates take the task's own type of error
fn is_temporary(_: &Box<dyn Error>) -> bool {
    false
}

#[allow(clippy::borrowed_box)]
fn is_number(error: &Box<dyn Error>) -> bool {
    error.is::<std::num::ParseIntError>()
}

#[task(autoretry = false)]
async fn converted(text: String) -> Result<u32, TaskError> {
    let read = move || -> Result<u32, Box<dyn Error + Send + Sync>> { Ok(read_number(&text)?) };
    read().map_err(TaskError::from_boxed)
}

const NO_DIGIT: &str = "invalid digit found in string";

async fn app() -> TestApp {
    testing::start().await.unwrap()
}

#[tokio::test]
async fn a_task_may_fail_with_a_boxed_error() {
    let app = app().await;
    for (text, errors) in [("", "the text is empty"), ("x", NO_DIGIT)] {
        let failed = boxed::s(text.into()).send(app.client()).await.unwrap();
        app.run_until_idle().await;
        let record = failed.result().await.unwrap().unwrap();
        assert_eq!((record.state, record.errors), (State::Failure, vec![errors.to_owned()]));
    }
    let passed = boxed::s("7".into()).send(app.client()).await.unwrap();
    let threaded = boxed_on_a_thread::s("x".into()).send(app.client()).await.unwrap();
    let within = converted::s("x".into()).send(app.client()).await.unwrap();
    app.run_until_idle().await;
    assert_eq!(passed.state().await, Ok(State::Success));
    for failed in [threaded.result().await, within.result().await] {
        let record = failed.unwrap().unwrap();
        assert_eq!((record.state, record.attempts), (State::Failure, 1));
        assert_eq!(record.errors, [NO_DIGIT]);
    }
}

#[cfg(feature = "anyhow")]
mod anyhow_results {
    use anyhow::Context;

    use super::*;

    #[task(autoretry = false)]
    async fn import(text: String) -> anyhow::Result<u32> {
        let rows =
            read_number(&text).context("the number of rows").with_context(|| format!("import {text}"))?;
        if rows == 0 {
            anyhow::bail!(TaskError::reject("nothing to import"));
        }
        anyhow::ensure!(rows < 100, "{rows} rows are too many");
        Ok(rows)
    }

    #[tokio::test]
    async fn a_task_may_return_a_result_of_anyhow() {
        let app = app().await;
        for (text, state, errors) in [
            ("7", State::Success, vec![]),
            ("x", State::Failure, vec!["import x", "the number of rows", NO_DIGIT]),
            ("0", State::Rejected, vec!["nothing to import"]),
            ("100", State::Failure, vec!["100 rows are too many"]),
        ] {
            let sent = import::s(text.into()).send(app.client()).await.unwrap();
            app.run_until_idle().await;
            let record = sent.result().await.unwrap().unwrap();
            let errors: Vec<String> = errors.into_iter().map(str::to_owned).collect();
            assert_eq!((record.state, record.errors), (state, errors));
        }
    }
}
