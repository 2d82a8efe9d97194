//! Operators before millions of waiting rows: `cargo bench --bench rows [-- --quick] [-- --rows N]`.
//!
//! How long they wait for a page of a list, for the counts, for the task of one argument and for a page of the console; whether an
//! urgent task of another tenant has to wait for the rows; and how long it takes to count a million of them exactly, and to revoke
//! them, while tasks of another queue start, and whether these notice. Ten million rows, or a million with `--quick`; `--rows N`
//! or CELERIAC_BENCH_ROWS says another number. Of more rows than the disk takes, or than are filled in within four minutes, there
//! are as many as that, and it says so.

mod support;

use std::time::{Duration, Instant};

use actix_web::App;
use actix_web::body::to_bytes;
use actix_web::dev::Service;
use actix_web::test::{TestRequest, init_service};
use celeriac::broker::TaskFilter;
use celeriac::catalogue::{Argument, Catalogue, Pool, QueueRow};
use celeriac::core::brake::BrakeRule;
use celeriac::task;
use celeriac::web::Console;
use parking_lot::Mutex;
use support::figures::{Latency, Table, goal, rate, time};
use support::process::{disk, size};
use support::store::{self, Running, directory, fitting};
use support::{headline, nanos, sized};

const DEEP: &str = "deep";
const SIDE: &str = "side";
/// Few workers on tasks of 2 ms, so that the rows keep them busy.
const WORKERS: usize = 4;
const BUSY: Duration = Duration::from_millis(2);
/// The tenant of the rows that are revoked, and that of the others.
const GOES: &str = "goes";
const STAYS: &str = "stays";
/// The most rows that are revoked.
const REVOKED: u64 = 1_000_000;
/// The longest that rows are filled in.
const FILL: Duration = Duration::from_secs(240);
/// How long an operator waits who notices no wait.
const LOOK: Duration = Duration::from_millis(100);
/// How long an operator waits for an act on all rows.
const ACT: Duration = Duration::from_secs(30);
/// How long an operator waits for the page that counts, or says how far the count is.
const ANSWER: Duration = Duration::from_secs(1);
/// A list that was looked at is shown again for so long.
const FRESH: Duration = Duration::from_millis(2_100);

/// How long each of the timed tasks has waited for its start, in nanoseconds.
static WAITS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

#[task(name = "rows.backlog", ignore_result, queue = "deep", search = ["form_id"])]
async fn backlog(form_id: u64, payload: String) {
    let _ = (form_id, payload);
    tokio::time::sleep(BUSY).await;
}

#[task(name = "rows.timed", ignore_result, queue = "side")]
async fn timed(asked: u64) {
    WAITS.lock().push(nanos().saturating_sub(asked));
}

fn catalogue() -> Catalogue {
    let queue = |name| QueueRow::new(name).with_pool(Pool::Io).with_workers(WORKERS);
    Catalogue::new().with_queue(queue(DEEP)).with_queue(queue(SIDE))
}

/// Fills in so many rows, or as many as there is time for. Answers with their number.
async fn fill(rows: u64) -> u64 {
    store::fill(rows, FILL, |number| {
        let tenant = if number < REVOKED { GOES } else { STAYS };
        backlog::s(number, "x".repeat(130)).tenant(tenant)
    })
    .await
}

/// How many rows the command line or the environment asks for.
fn asked_for() -> Option<u64> {
    let by_word = std::env::args().skip_while(|word| word != "--rows").nth(1);
    by_word.or_else(|| std::env::var("CELERIAC_BENCH_ROWS").ok())?.parse().ok()
}

/// How long something takes, several times.
async fn times<F: Future<Output = ()>>(count: usize, mut what: impl FnMut(usize) -> F) -> Latency {
    let mut took = Latency::new();
    for nth in 0..count {
        let start = Instant::now();
        what(nth).await;
        took.record(start.elapsed().as_nanos() as u64);
    }
    took
}

/// How long timed tasks of another tenant wait for their start, one every few milliseconds, until something is done.
async fn starts_until<T>(queue: &str, done: impl Future<Output = T>) -> (T, Latency) {
    WAITS.lock().clear();
    let mut done = std::pin::pin!(done);
    let mut sent = 0;
    let mut every = tokio::time::interval(Duration::from_millis(5));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let answer = loop {
        tokio::select! {
            answer = &mut done => break answer,
            _ = every.tick() => {
                timed::s(nanos()).queue(queue).priority(9).tenant("other").delay().await.expect("accepted");
                sent += 1;
            }
        }
    };
    let mut waits = Latency::new();
    while WAITS.lock().len() < sent {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    WAITS.lock().drain(..).for_each(|wait| waits.record(wait));
    (answer, waits)
}

/// A page of the console, as its server makes it, without the way to a browser.
async fn console_page(console: &Console, path: &str) -> Duration {
    let app = init_service(App::new().service(console.clone())).await;
    let request = TestRequest::get().uri(path).to_request();
    let start = Instant::now();
    let response = app.call(request).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(response.status().is_success(), "{path}: {}", response.status());
    let body = to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("{path}: the body broke off"));
    let took = start.elapsed();
    assert!(!body.is_empty());
    took
}

fn by_form(number: u64) -> TaskFilter {
    TaskFilter::new().argument(Argument::Name("form_id".to_owned()), number.to_string())
}

/// The questions that an operator asks while the rows wait.
async fn looks(running: &Running, rows: u64, table: &mut Table) {
    let count = sized(200, 20);
    let mut row = |what: &str, took: Latency| {
        let met = goal(took.quantile(0.99) <= LOOK, "p99 of 100 ms");
        table.row([vec![what.to_owned()], took.cells().to_vec(), vec![met]].concat());
    };
    let (celeriac, all) = (&running.celeriac, TaskFilter::new());
    let page = |filter: TaskFilter| async move {
        celeriac.page_unfinished_tasks(&filter, &[], None, 50).await.expect("a page")
    };
    row(
        "a page of the list of all tasks",
        times(count, |_| async {
            assert_eq!(page(all.clone()).await.tasks.len(), 50);
        })
        .await,
    );
    row(
        "the counts of the queue",
        times(count, |_| async {
            let counts = running.broker.counts(DEEP).await.expect("the broker counts");
            assert_eq!(counts.ready + counts.unsettled, rows);
        })
        .await,
    );
    let spread = |nth: usize| rows / count as u64 * nth as u64;
    row(
        "the task of one form_id, which is declared",
        times(count, |nth| async move {
            let found = page(by_form(spread(nth))).await;
            assert_eq!((found.tasks.len(), found.by_index.as_deref()), (1, Some("form_id")));
        })
        .await,
    );
    row(
        "the same, not declared: one page of a look through all",
        times(count, |nth| async move {
            page(by_form(spread(nth)).scanning()).await;
        })
        .await,
    );
    let console = Console::new(celeriac).authorize(|_, _| Some("bench"));
    let mut of_list = Latency::new();
    for _ in 0..sized(10, 3) {
        of_list.record(console_page(&console, "/console/tasks").await.as_nanos() as u64);
        tokio::time::sleep(FRESH).await;
    }
    row("the console's page of all tasks, at the server", of_list);
    let mut of_form = Latency::new();
    for nth in 0..count {
        let path = format!("/console/tasks?argument=form_id%3D{}", spread(nth));
        of_form.record(console_page(&console, &path).await.as_nanos() as u64);
    }
    row("the console's page of one form_id, at the server", of_form);
    // What takes longer than the page waits goes on, and the page says so.
    let path = format!("/console/confirm?act=bulk_revoke&queue={DEEP}&tenant={GOES}");
    let took = console_page(&console, &path).await;
    println!(
        "the console answers an act on the rows of a tenant in {}; {}",
        time(took),
        goal(took <= ANSWER, "1 s")
    );
}

#[actix_web::main]
async fn main() {
    headline("rows");
    let dir = directory();
    let wanted = fitting(dir.path(), asked_for().unwrap_or(sized(10_000_000, 1_000_000)));
    let running = Running::embedded(dir.path(), catalogue()).await;
    let for_a_while = || tokio::time::sleep(sized(Duration::from_secs(5), Duration::from_secs(1)));
    let ((), alone) = starts_until(DEEP, for_a_while()).await;
    running.celeriac.pause(DEEP).await.expect("it pauses");
    let start = Instant::now();
    let rows = fill(wanted).await;
    let took = start.elapsed();
    if rows < wanted {
        println!("{} are over: {rows} of {wanted} rows are filled in", time(FILL));
    }
    println!(
        "{rows} rows in {}, {}, {}",
        time(took),
        rate(rows as f64 / took.as_secs_f64()),
        size(disk(dir.path()))
    );

    let mut table = Table::new(&[&format!("{rows} rows wait"), "p50", "p95", "p99", "max", ""]);
    looks(&running, rows, &mut table).await;
    table.print("What an operator waits for");

    let mut table =
        Table::new(&["a task of another tenant, from enqueue to start", "p50", "p95", "p99", "max", ""]);
    let mut row = |what: &str, waits: &Latency| {
        let met = goal(waits.quantile(0.99) <= LOOK, "p99 of 100 ms");
        table.row([vec![what.to_owned()], waits.cells().to_vec(), vec![met]].concat());
    };
    row("in the queue, before the rows", &alone);
    running.celeriac.resume(DEEP).await.expect("it resumes");
    let ((), urgent) = starts_until(DEEP, for_a_while()).await;
    running.celeriac.pause(DEEP).await.expect("it pauses");
    row("in the queue, all workers on the rows", &urgent);

    let ((), before) = starts_until(SIDE, for_a_while()).await;
    let rule = BrakeRule::new().queue(DEEP).tenant(GOES);
    let start = Instant::now();
    let counted = async { running.celeriac.bulk().count_waiting(&rule).await.expect("a count") };
    let (found, while_counted) = starts_until(SIDE, counted).await;
    let of_count = start.elapsed();
    let start = Instant::now();
    let revoked = async {
        let act = running.celeriac.bulk().revoke(&rule).await.expect("an act");
        running.celeriac.bulk().wait(&act.id).await.expect("it ends")
    };
    let (act, during) = starts_until(SIDE, revoked).await;
    let took = start.elapsed();
    row("in another queue, before an act on all", &before);
    row("in another queue, during an exact count", &while_counted);
    row("in another queue, during the act", &during);
    table.print("Whether the rows, and an act on them, are in the way");

    println!("\n{} rows of {rows} counted exactly in {}", found.tasks, time(of_count));
    let speed = rate(act.done as f64 / took.as_secs_f64());
    println!("{} rows revoked in {}, {speed}", act.done, time(took));
    let for_a_million = took.mul_f64(REVOKED as f64 / act.done.max(1) as f64);
    println!("{}", goal(for_a_million <= ACT, "30 s for a million"));
    running.shutdown().await;
}
