//! Where a runtime may be started and tasks enqueued from: any executor, any thread.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpResponse, web};
use celeriac::catalogue::QueueRow;
use celeriac::task::Client;
use celeriac::{Celeriac, EnqueueError, State, TaskError, task};

use crate::kit::{LONG, add, builder, embedded, hold, memory, status_of};

const _: () = {
    const fn handle<T: Clone + Send + Sync + 'static>() {}
    handle::<Celeriac>();
    handle::<Arc<dyn Client>>();
    handle::<celeriac::AsyncResult<add::Task>>();
};

async fn sum(celeriac: web::Data<Celeriac>, path: web::Path<(i64, i64)>) -> HttpResponse {
    let (a, b) = path.into_inner();
    let sum = add::s(a, b).send(celeriac.client()).await.unwrap();
    HttpResponse::Ok().body(sum.get(LONG).await.unwrap().to_string())
}

async fn blocking_sum(celeriac: web::Data<Celeriac>) -> HttpResponse {
    let client = celeriac.client();
    let sum = web::block(move || add::s(20, 22).send(client).wait()).await.unwrap().unwrap();
    HttpResponse::Ok().body(sum.get(LONG).await.unwrap().to_string())
}

#[actix_web::test]
async fn in_the_handlers_of_an_actix_web_server() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let data = web::Data::new(celeriac.clone());
    let app = App::new()
        .app_data(data)
        .route("/sum/{a}/{b}", web::get().to(sum))
        .route("/blocking", web::get().to(blocking_sum));
    let app = actix_web::test::init_service(app).await;
    for (uri, expected) in [("/sum/1/2", "3"), ("/blocking", "42"), ("/sum/5/5", "10")] {
        let request = actix_web::test::TestRequest::get().uri(uri).to_request();
        assert_eq!(actix_web::test::call_and_read_body(&app, request).await, expected, "{uri}");
    }
    assert!(celeriac.shutdown().await.unwrap().drained);
}

#[tokio::test]
async fn what_is_served_elsewhere_is_only_sent_there() {
    let row = QueueRow::new("elsewhere").with_served(false);
    let celeriac = builder().queue(row).in_memory().start().await.unwrap();
    let sent = add::s(1, 1).queue("elsewhere").send(celeriac.client()).await.unwrap();
    assert_eq!(sent.receipt().queue, "elsewhere");
    // By the end of one that was sent later, the first would be over too.
    let here = add::s(2, 2).send(celeriac.client()).await.unwrap();
    assert_eq!(here.get(LONG).await, Ok(4));
    assert_eq!(sent.state().await, Ok(State::Pending));
    assert!(celeriac.queues().await.unwrap().iter().all(|queue| queue.name != "elsewhere"));
    let error = celeriac.pause("elsewhere").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "queue `elsewhere` is served elsewhere, as its row says (served = false): ask there"
    );
    assert!(celeriac.shutdown().await.unwrap().drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_tokio_program_of_many_threads() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = embedded(dir.path()).await;
    let sending: Vec<_> = (0..50)
        .map(|n| {
            let client = celeriac.client();
            tokio::spawn(async move { add::s(n, n).send(client).await.unwrap().get(LONG).await })
        })
        .collect();
    for (n, sum) in sending.into_iter().enumerate() {
        assert_eq!(sum.await.unwrap(), Ok(2 * n as i64));
    }
    assert!(celeriac.shutdown().await.unwrap().drained);
}

#[test]
fn in_a_tokio_program_of_one_thread_that_rests_between() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let celeriac = tokio.block_on(embedded(dir.path()));
    let sum = tokio.block_on(add::s(1, 2).send(celeriac.client()).into_future()).unwrap();
    // The program's own executor stands still here; the runtime has threads of its own.
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(other.block_on(sum.get(LONG)), Ok(3));
    assert!(tokio.block_on(celeriac.shutdown()).unwrap().drained);
}

#[tokio::test]
async fn from_threads_that_are_not_asynchronous() {
    let dir = tempfile::tempdir().unwrap();
    for celeriac in [memory().await, embedded(dir.path()).await] {
        let client = celeriac.client();
        let plain = std::thread::spawn(move || add::s(1, 2).send(client).wait());
        let client = celeriac.client();
        let blocking = tokio::task::spawn_blocking(move || add::s(3, 4).send(client).wait());
        assert_eq!(blocking.await.unwrap().unwrap().get(LONG).await, Ok(7));
        assert_eq!(plain.join().unwrap().unwrap().get(LONG).await, Ok(3));
        celeriac.shutdown().await.unwrap();
    }
}

/// A task on a thread that enqueues another; the runtime is the one that it runs in.
#[task(queue = "cpu")]
fn enqueues(at: String) -> Result<String, TaskError> {
    let client = RUNTIMES.lock().unwrap()[&at].clone();
    Ok(add::s(1, 2).send(client).wait()?.id().to_string())
}

static RUNTIMES: std::sync::LazyLock<std::sync::Mutex<std::collections::HashMap<String, Arc<dyn Client>>>> =
    std::sync::LazyLock::new(Default::default);

#[tokio::test]
async fn from_inside_a_task_on_a_thread() {
    let celeriac = memory().await;
    RUNTIMES.lock().unwrap().insert("inside".into(), celeriac.client());
    let outer = enqueues::s("inside".into()).send(celeriac.client()).await.unwrap();
    let inner = outer.get(LONG).await.unwrap();
    let inner = tokio::time::timeout(LONG, celeriac.client().wait(&inner.as_str().into())).await.unwrap();
    assert_eq!(inner.unwrap().result.as_deref(), Some("3"));
    RUNTIMES.lock().unwrap().clear();
    celeriac.shutdown().await.unwrap();
}

/// Libraries that are asynchronous inside look for the runtime: a plain function finds that of its queue.
#[task(queue = "cpu", max_retries = 0)]
fn uses_the_handle(n: u32) -> u32 {
    let handle = tokio::runtime::Handle::current();
    handle.block_on(async move { tokio::spawn(async move { n * 2 }).await.unwrap_or(0) })
}

#[tokio::test]
async fn a_plain_function_finds_the_runtime() {
    let celeriac = memory().await;
    let doubled = uses_the_handle::s(21).send(celeriac.client()).await.unwrap();
    assert_eq!(doubled.get(LONG).await, Ok(42));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn two_runtimes_side_by_side_know_nothing_of_each_other() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, other) = (embedded(one.path()).await, embedded(other.path()).await);
    let here = add::s(1, 1).id("same").send(one.client()).await.unwrap();
    let there = add::s(2, 2).id("same").send(other.client()).await.unwrap();
    assert_eq!((here.get(LONG).await, there.get(LONG).await), (Ok(2), Ok(4)));
    one.pause("io").await.unwrap();
    assert!(!status_of(&other, "io").await.paused);
    one.shutdown().await.unwrap();
    assert_eq!(add::s(1, 1).send(one.client()).await.err(), Some(EnqueueError::ShuttingDown));
    assert_eq!(add::s(3, 3).send(other.client()).await.unwrap().get(LONG).await, Ok(6));
    other.shutdown().await.unwrap();
}

/// Alone in a process of its own, because `delay` is the whole process's.
#[tokio::test]
#[ignore = "`delay_goes_to_the_runtime_that_was_started_last_and_still_runs` runs it in a process of its own"]
async fn delay_in_a_process_of_its_own() {
    assert_eq!(add::delay(1, 1).await.err(), Some(EnqueueError::NotRunning));
    let first = memory().await;
    let by_first = add::delay(1, 1).await.unwrap();
    let second = memory().await;
    let by_second = add::delay(2, 2).await.unwrap();
    assert_eq!((by_first.get(LONG).await, by_second.get(LONG).await), (Ok(2), Ok(4)));
    assert_eq!(first.client().result(by_second.id()).await, Ok(None), "the second one ran it");
    second.shutdown().await.unwrap();
    let again = add::delay(3, 3).await.unwrap();
    assert_eq!(again.get(LONG).await, Ok(6), "the first one still runs");
    let last = memory().await;
    first.shutdown().await.unwrap();
    assert_eq!(add::delay(4, 4).wait_on_a_thread().await, Ok(8));
    last.shutdown().await.unwrap();
    assert_eq!(add::delay(1, 1).await.err(), Some(EnqueueError::NotRunning));
}

trait OnAThread {
    async fn wait_on_a_thread(self) -> Result<i64, celeriac::GetError>;
}

impl OnAThread for celeriac::task::Enqueue<add::Task> {
    async fn wait_on_a_thread(self) -> Result<i64, celeriac::GetError> {
        tokio::task::spawn_blocking(|| self.wait()).await.unwrap().unwrap().get(LONG).await
    }
}

#[test]
fn delay_goes_to_the_runtime_that_was_started_last_and_still_runs() {
    crate::kit::alone("embedding::delay_in_a_process_of_its_own");
}

/// What blocks an event loop is the task's fault; the others' loops go on, and the end comes all the same.
#[task(queue = "io")]
async fn blocks_its_loop(gate: String) {
    crate::kit::Gate::named(&gate).pass_blocking();
}

#[tokio::test]
async fn a_blocked_event_loop_holds_up_neither_other_queues_nor_the_end() {
    let celeriac = memory().await;
    let gate = crate::kit::Gate::new();
    blocks_its_loop::s(gate.name.clone()).send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    // `cpu` is on the other loop.
    let next = hold::s({
        let open = crate::kit::Gate::new();
        open.open();
        open.name.clone()
    });
    assert_eq!(next.queue("cpu").send(celeriac.client()).await.unwrap().get(LONG).await, Ok(1));
    let report = celeriac.shutdown_within(Duration::from_millis(100)).await.unwrap();
    assert!(!report.drained);
    gate.open();
}
