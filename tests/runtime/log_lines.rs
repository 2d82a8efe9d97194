//! What the body of a failed attempt has logged is kept with the attempt.

use celeriac::broker::TaskFilter;
use celeriac::task::{FailedAttempt, Task};
use celeriac::{AsyncResult, Celeriac, Context, State, TaskError, task};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::kit::{self, record};

#[task(queue = "io", max_retries = 1, default_retry_delay = "1ms", retry_jitter = false)]
async fn talks(ctx: Context, lines: u32) -> Result<(), TaskError> {
    for line in 0..lines {
        tracing::info!(attempt = ctx.attempt(), "line {line}");
        tokio::task::yield_now().await;
    }
    Err(TaskError::transient("no more to say"))
}

#[task(queue = "cpu", max_retries = 0)]
fn talks_on_a_thread() -> Result<(), TaskError> {
    tracing::warn!("said on a thread");
    tracing::debug!("not worth it");
    Err(TaskError::permanent("no"))
}

#[task(queue = "io", max_retries = 0, keep_log = false)]
async fn is_discreet() -> Result<(), TaskError> {
    tracing::info!("a secret");
    Err(TaskError::permanent("no"))
}

#[test]
fn the_lines_of_an_attempt_are_kept_with_it() {
    kit::alone("log_lines::in_a_process_of_its_own");
}

async fn attempts<T: Task>(celeriac: &Celeriac, call: AsyncResult<T>) -> Vec<FailedAttempt> {
    assert_eq!(record(&call).await.state, State::Failure);
    let filter = TaskFilter::new().ids([call.id().clone()]);
    let failed = celeriac.failed_tasks(&filter, 9).await.unwrap();
    failed[0].attempts()
}

fn texts(attempt: &FailedAttempt) -> Vec<String> {
    attempt.log.iter().map(|line| format!("{} {}", line.level, line.text)).collect()
}

#[tokio::test]
#[ignore = "a subscriber for all threads; run by `the_lines_of_an_attempt_are_kept_with_it`"]
async fn in_a_process_of_its_own() {
    tracing_subscriber::registry().with(celeriac::log_lines()).init();
    let dir = tempfile::tempdir().unwrap();
    for celeriac in [kit::memory().await, kit::embedded(dir.path()).await] {
        let client = || celeriac.client();
        let few = attempts(&celeriac, talks::s(2).send(client()).await.unwrap()).await;
        let told: Vec<_> = few.iter().map(texts).collect();
        let line = |n, attempt| format!("INFO line {n} attempt={attempt}");
        assert_eq!(told, [[line(0, 1), line(1, 1)], [line(0, 2), line(1, 2)]]);
        assert!(few[0].log[0].at <= few[0].log[1].at && few[0].log[1].at <= few[0].at);
        let many = attempts(&celeriac, talks::s(70).send(client()).await.unwrap()).await;
        assert_eq!((many[1].log.len(), many[1].log_left_out), (50, 20));
        assert_eq!(many[1].log[49].text, "line 69 attempt=2");
        let threaded = attempts(&celeriac, talks_on_a_thread::s().send(client()).await.unwrap()).await;
        assert_eq!(texts(&threaded[0]), ["WARN said on a thread"]);
        let discreet = attempts(&celeriac, is_discreet::s().send(client()).await.unwrap()).await;
        assert!(discreet[0].log.is_empty() && discreet[0].log_left_out == 0);
        celeriac.shutdown().await.unwrap();
    }
}
