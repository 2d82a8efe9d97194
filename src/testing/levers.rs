//! Tests of the levers on a program that work in a test too: those of beat, of a queue and of a source poller.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::core::Timestamp;
use crate::core::calendar::Schedule;
use crate::core::explanation::TaskReason;
use crate::task::source_poller::{Due, Source, SourcePoller};
use crate::task::{Periodic, Task, TaskId};
use crate::{Celeriac, EnqueueError, State, TaskError, assert_enqueued, assert_not_enqueued, task, testing};

const MINUTE: Duration = Duration::from_secs(60);
const MIDNIGHT: Timestamp = Timestamp::from_millis(1_772_323_200_000); // 2026-03-01T00:00Z

#[task(queue = "levers")]
async fn tick() -> u32 {
    7
}

fn each_minute(name: &str) -> Periodic {
    Periodic::new(name, tick::Task::NAME, Schedule::Every(MINUTE))
}

#[tokio::test]
async fn beat_is_steered_under_the_tests_clock() {
    let program = Celeriac::builder().periodic(each_minute("written"));
    let app = testing::builder().program(program).at(MIDNIGHT).beat(true).start().await.unwrap();
    let beat = app.celeriac().beat();
    beat.put(each_minute("added")).await.unwrap();
    let names =
        async || beat.entries().await.unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names().await, ["added", "written"]);
    app.advance(MINUTE).await;
    assert_enqueued!(app, tick(), times = 2);
    let status = beat.entries().await.unwrap().remove(0);
    assert_eq!((status.published, status.last), (1, MIDNIGHT + MINUTE));
    assert_eq!(status.next, Some(MIDNIGHT + 2 * MINUTE));

    beat.pause("written").await.unwrap();
    app.forget();
    app.advance(3 * MINUTE).await;
    assert_enqueued!(app, tick(), times = 3);
    assert!(beat.entries().await.unwrap()[1].paused);
    beat.resume("written").await.unwrap();
    beat.remove("added").await.unwrap();
    assert_eq!(names().await, ["written"]);
    app.forget();
    app.advance(2 * MINUTE).await;
    assert_enqueued!(app, tick(), times = 2); // beat does not make up for ticks that came due in the pause

    app.forget();
    let receipt = beat.trigger("written").await.unwrap();
    assert_enqueued!(app, tick(), times = 1, header = ("celery_beat_task", true));
    assert_eq!(app.run_until_idle().await, 1);
    assert_eq!(app.record(&receipt.id).unwrap().result.as_deref(), Some("7"));

    let error = beat.pause("writen").await.unwrap_err().to_string();
    assert_eq!(error, "no periodic entry `writen`; did you mean `written`?");
    let error = beat.remove("written").await.unwrap_err().to_string();
    assert!(error.contains("is in the program"), "{error}");
    let error = beat.put(Periodic::new("bad", tick::Task::NAME, Schedule::Every(Duration::ZERO))).await;
    assert!(error.unwrap_err().to_string().contains("too often"));
    beat.resign().await.unwrap();
    app.advance(MINUTE).await;
    assert!(beat.entries().await.is_err());
}

/// The other thread does not have the test's clock, but the lever does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beat_is_steered_from_other_threads_as_well() {
    let program = Celeriac::builder();
    let app = testing::builder().program(program).at(MIDNIGHT).beat(true).start().await.unwrap();
    let beat = app.celeriac().beat();
    tokio::spawn(async move { beat.put(each_minute("added")).await }).await.unwrap().unwrap();
    let status = app.celeriac().beat().entries().await.unwrap().remove(0);
    assert_eq!((status.last, status.next), (MIDNIGHT, Some(MIDNIGHT + MINUTE)));
}

#[tokio::test]
async fn eagerly_what_is_triggered_runs_at_once() {
    let program = Celeriac::builder().periodic(each_minute("written"));
    let app = testing::builder().program(program).at(MIDNIGHT).beat(true).eager(true).start().await.unwrap();
    let receipt = app.celeriac().beat().trigger("written").await.unwrap();
    assert_eq!(app.record(&receipt.id).unwrap().result.as_deref(), Some("7"));
}

#[tokio::test]
async fn without_beat_that_is_what_is_said() {
    let app = testing::start().await.unwrap();
    let error = app.celeriac().beat().entries().await.unwrap_err().to_string();
    assert!(error.contains("testing::builder().beat(true)"), "{error}");
}

/// Many tests run in this process at the same time as this one. A test must not find the runtime of another.
#[test]
fn a_test_without_a_runtime_finds_nobody_elses() {
    let (started, is_started) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let neighbour = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let app = runtime.block_on(testing::start()).unwrap();
        started.send(()).unwrap();
        ended.recv().unwrap();
        runtime.block_on(async { assert_not_enqueued!(app, tick()) });
    });
    is_started.recv().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let forgotten = runtime.block_on(async { tick::delay().await });
    assert_eq!(forgotten.err(), Some(EnqueueError::NotRunning));
    end.send(()).unwrap();
    neighbour.join().unwrap();
}

#[tokio::test]
async fn a_queue_says_what_waits_in_it() {
    let app = testing::builder().at(MIDNIGHT).start().await.unwrap();
    tick::delay().await.unwrap();
    tick::s().countdown(MINUTE).delay().await.unwrap();
    app.jump(Duration::from_secs(5));
    let queue = app.celeriac().queue("levers").await.unwrap();
    assert_eq!((queue.ready, queue.scheduled, queue.blockage), (1, 1, Duration::from_secs(5)));
    let error = app.celeriac().pause("levers").await.unwrap_err().to_string();
    assert!(error.contains("the test itself runs its tasks"), "{error}");
    assert!(app.celeriac().queue("lever").await.unwrap_err().to_string().contains("no queue `lever`"));
}

#[task(queue = "levers", max_retries = 1, default_retry_delay = 60, retry_jitter = false)]
async fn fails() -> Result<(), TaskError> {
    Err(TaskError::failure(["not today"]))
}

#[tokio::test]
async fn why_a_task_waits_is_told_by_the_tests_clock() {
    let app = testing::builder().at(MIDNIGHT).start().await.unwrap();
    let explained = async |id: &TaskId| app.celeriac().explain(id).await.unwrap();
    let later = tick::s().countdown(MINUTE).delay().await.unwrap();
    let explanation = explained(later.id()).await;
    assert_eq!(*explanation.reason(), TaskReason::NotDue { at: MIDNIGHT + MINUTE });
    assert_eq!(explanation.as_of, MIDNIGHT);
    app.jump(MINUTE);
    assert_eq!(*explained(later.id()).await.reason(), TaskReason::Starting);
    assert_eq!(app.run_until_idle().await, 1);
    let state = "SUCCESS".to_owned();
    let over = TaskReason::Over { state, at: MIDNIGHT + MINUTE };
    assert_eq!(*explained(later.id()).await.reason(), over);

    let failing = fails::delay().await.unwrap();
    assert_eq!(app.step().await.unwrap().state, State::Retry);
    let next = TaskReason::RetryAt { attempt: 2, at: app.now() + MINUTE };
    assert_eq!(*explained(failing.id()).await.reason(), next);
    assert_eq!(app.advance(MINUTE).await, 1);
    assert_eq!(explained(failing.id()).await.state(), "over");
}

struct One(AtomicBool);

#[async_trait]
impl Source for One {
    async fn due(&self, _limit: usize) -> Result<Vec<Due>, TaskError> {
        Ok(if self.0.load(Ordering::SeqCst) { vec![Due::new("1", tick::s())] } else { Vec::new() })
    }

    async fn enqueued(&self, _keys: &[String]) -> Result<(), TaskError> {
        self.0.store(false, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn a_source_poller_looks_when_it_is_told_to() {
    let poller = SourcePoller::new("one", One(AtomicBool::new(true))).queue("levers");
    let program = Celeriac::builder().poller(poller);
    let app = testing::builder().program(program).start().await.unwrap();
    let status = async || app.celeriac().pollers().await.unwrap().remove(0);
    assert_eq!(status().await.looks, 0);
    app.celeriac().pause_poller("one").await.unwrap();
    app.celeriac().run_poller("one").await.unwrap();
    assert_not_enqueued!(app, tick());
    app.celeriac().resume_poller("one").await.unwrap();
    for _ in 0..2 {
        app.celeriac().run_poller("one").await.unwrap();
    }
    assert_enqueued!(app, tick(), times = 1);
    assert_eq!((status().await.looks, status().await.enqueued, status().await.failures), (2, 1, 0));
}
