//! How long runs took is known by task, tenant and argument, also after a restart, and sends the next call where the catalogue
//! says.

use std::path::Path;
use std::time::Duration;

use celeriac::catalogue::{Argument, Catalogue, RouteRow};
use celeriac::core::calendar::Schedule;
use celeriac::core::durations::RunTimeBy;
use celeriac::task::{Arguments, Periodic, TENANT, Task};
use celeriac::testing::{self, TestApp};
use celeriac::{Builder, Celeriac, Signature, State, TaskError, task};

use crate::kit::{Gate, LONG, io_queue, record};

/// What each run here exceeds.
const LIMIT: Duration = Duration::from_millis(1);
/// An interval of which no tick comes due while the tests live.
const RARELY: Duration = Duration::from_secs(4_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);

async fn takes_longer_than_the_limit() {
    tokio::time::sleep(5 * LIMIT).await;
}

#[task(name = "durations.export", queue = "exports")]
async fn export(build_id: u64) -> u64 {
    takes_longer_than_the_limit().await;
    build_id
}

#[task(name = "durations.pick", queue = "exports")]
async fn pick(build_id: u64) -> u64 {
    build_id
}

#[task(name = "durations.never", queue = "exports")]
async fn never(build_id: u64) {
    let _ = build_id;
    takes_longer_than_the_limit().await;
}

#[task(name = "durations.ends", queue = "exports", max_retries = 0)]
async fn ends(how: String) -> Result<(), TaskError> {
    takes_longer_than_the_limit().await;
    match how.as_str() {
        "error" => Err(TaskError::permanent("it broke")),
        "ignored" => Err(TaskError::ignore()),
        "limit" => std::future::pending().await,
        _ => Ok(()),
    }
}

/// Its run takes as long as the test lets the clock go on while it stands at the gate.
#[task(name = "durations.stepped", queue = "exports")]
async fn stepped(build_id: String, gate: String) {
    let _ = build_id;
    Gate::named(&gate).pass().await;
}

fn longer_than(task: &str, least: Duration) -> RouteRow {
    RouteRow::new(task, "big").with_longer_than(least)
}

fn program(rows: impl IntoIterator<Item = RouteRow>) -> Builder {
    let catalogue = ["exports", "big", "quick"]
        .into_iter()
        .fold(Catalogue::new(), |all, name| all.with_queue(io_queue(name, 4)));
    let catalogue = rows.into_iter().fold(catalogue, Catalogue::with_route_row);
    let nightly = Periodic::new("export 7", export::Task::NAME, Schedule::Every(RARELY))
        .arguments(Arguments { args: "[7]".to_owned(), kwargs: String::new() });
    Celeriac::builder().catalogue(catalogue).periodic(nightly).arbiters(2)
}

fn exports() -> Builder {
    let by_build = |task| longer_than(task, LIMIT).with_run_times_of(Argument::Name("build_id".into()));
    program([by_build("durations.export"), longer_than("durations.never", Duration::from_secs(3_600))])
}

async fn on_disk(dir: &Path) -> Celeriac {
    exports().directory(dir).start().await.unwrap()
}

/// The queue that a call goes to. The call has run when this returns.
async fn ran_in<T: Task>(celeriac: &Celeriac, call: Signature<T>) -> String {
    let sent = call.send(celeriac.client()).await.unwrap();
    let queue = sent.receipt().queue.clone();
    assert_eq!(record(&sent).await.queue, queue);
    queue
}

#[tokio::test]
async fn what_took_long_goes_to_another_queue_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    for celeriac in [exports().in_memory().start().await.unwrap(), on_disk(dir.path()).await] {
        let known = || celeriac.durations("durations.export");
        assert_eq!(known().figures(), None);
        assert_eq!(ran_in(&celeriac, export::s(7)).await, "exports", "nobody knows how long it takes");
        assert_eq!(ran_in(&celeriac, export::s(7)).await, "big");
        assert_eq!(ran_in(&celeriac, export::s(8)).await, "exports", "it is about another build");
        assert_eq!(ran_in(&celeriac, export::s(7).queue("quick")).await, "quick", "the call says it");
        for _ in 0..2 {
            assert_eq!(ran_in(&celeriac, never::s(7)).await, "exports", "it does not take an hour");
        }
        let figures = known().figures().unwrap();
        assert!(figures.count == 4 && figures.last > LIMIT && figures.mean > LIMIT, "{figures:?}");
        let of_build = |build: &str| known().argument("build_id", build).figures().map(|known| known.count);
        assert_eq!((of_build("7"), of_build("8"), of_build("9")), (Some(3), Some(1), None));
        assert_eq!(known().tenant("acme").figures(), None);

        // The step of a workflow, and a tick of beat.
        let chain = pick::s(7).then(export::p()).send(celeriac.client()).await.unwrap();
        assert_eq!(chain.get(LONG).await, Ok(7));
        assert_eq!(celeriac.client().wait(chain.id()).await.unwrap().queue, "big");
        assert_eq!(celeriac.beat().trigger("export 7").await.unwrap().queue, "big");
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn it_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac = on_disk(dir.path()).await;
    assert_eq!(ran_in(&celeriac, export::s(7)).await, "exports");
    let before = celeriac.durations("durations.export").argument("build_id", "7").figures().unwrap();
    celeriac.shutdown().await.unwrap();
    for life in 1..3 {
        let celeriac = on_disk(dir.path()).await;
        let known = || celeriac.durations("durations.export").argument("build_id", "7").figures().unwrap();
        assert_eq!(known().count, life);
        assert!(life > 1 || known() == before, "{:?}", known());
        assert_eq!(ran_in(&celeriac, export::s(7)).await, "big");
        assert_eq!(ran_in(&celeriac, export::s(life + 100)).await, "exports");
        celeriac.shutdown().await.unwrap();
    }
}

/// An error says nothing about how long the work takes. A time limit says that it takes longer.
#[tokio::test]
async fn successes_and_time_limits_count() {
    let by_how = longer_than("durations.ends", LIMIT).with_run_times_of(Argument::Position(0));
    let celeriac = program([by_how]).in_memory().start().await.unwrap();
    for (how, state, next) in [
        ("error", State::Failure, "exports"),
        ("ignored", State::Ignored, "exports"),
        ("limit", State::Failure, "big"),
        ("success", State::Success, "big"),
    ] {
        for queue in ["exports", next] {
            let call = ends::s(how.into());
            let call = if how == "limit" { call.time_limit(Duration::from_millis(50)) } else { call };
            let sent = call.send(celeriac.client()).await.unwrap();
            assert_eq!((sent.receipt().queue.as_str(), record(&sent).await.state), (queue, state), "{how}");
        }
    }
    let of_task = celeriac.durations("durations.ends").figures().unwrap();
    assert_eq!(of_task.count, 4);
    celeriac.shutdown().await.unwrap();
}

/// Runs a call for so long by the clock of the test. Returns the queue that it went to.
async fn step(app: &TestApp, build: &str, tenant: Option<&str>, took: Duration) -> String {
    let gate = Gate::new();
    let call = stepped::s(build.into(), gate.name.clone());
    let call = if let Some(tenant) = tenant { call.header(TENANT, tenant) } else { call };
    let sent = call.send(app.client()).await.unwrap();
    let (ran, ()) = tokio::join!(app.step(), async {
        gate.entered(1).await;
        app.jump(took);
        gate.open();
    });
    assert_eq!(ran.unwrap().state, State::Success);
    sent.receipt().queue.clone()
}

#[tokio::test]
async fn the_last_run_with_an_argument_decides() {
    let row =
        longer_than("durations.stepped", 10 * MINUTE).with_run_times_of(Argument::Name("build_id".into()));
    let app = testing::builder().program(program([row])).start().await.unwrap();
    for (build, tenant, took, queue) in [
        ("a", None, 20, "exports"),
        ("a", None, 5, "big"),
        ("a", None, 20, "exports"),
        ("b", None, 10, "exports"),
        ("b", None, 11, "exports"),
        ("b", None, 1, "big"),
        ("a", Some("acme"), 30, "exports"),
        ("a", Some("zoo"), 1, "exports"),
        ("a", Some("acme"), 1, "big"),
        ("a", None, 1, "big"),
    ] {
        assert_eq!(step(&app, build, tenant, took * MINUTE).await, queue, "{build} of {tenant:?}");
    }
    let known = app.celeriac().durations("durations.stepped").tenant("acme").figures().unwrap();
    assert_eq!((known.count, known.last), (2, MINUTE));
}

#[tokio::test]
async fn the_figures_of_the_tenant_decide_and_else_those_of_the_task() {
    let by_mean = longer_than("durations.stepped", 10 * MINUTE).with_run_time_by(RunTimeBy::Mean);
    let quick = RouteRow::new("durations.stepped", "quick").with_shorter_than(2 * MINUTE);
    let app = testing::builder().program(program([by_mean, quick])).start().await.unwrap();
    for (tenant, took, queue) in [
        (Some("slow"), 40, "exports"),
        (None, 2, "big"),
        (Some("slow"), 1, "big"),
        (Some("new"), 1, "big"),
        (Some("new"), 1, "quick"),
        (None, 30, "quick"),
        (Some("slow"), 5, "big"),
        (Some("new"), 5, "quick"),
        (Some("new"), 5, "exports"),
    ] {
        assert_eq!(step(&app, "any", tenant, took * MINUTE).await, queue, "{tenant:?}");
    }
}
