//! A flood in RabbitMQ, and tenants that have to live beside it: in one line, in turns of what is prefetched, and with partitions of
//! the queue by tenant.

use std::time::Duration;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::catalogue::{Catalogue, Pool, QueueRow};
use celeriac::{Celeriac, task};

use super::Place;
use super::support::figures::{Latency, Table, flood_goal, time};
use super::support::sized;
use super::waits::{self, on_behalf, send, timed};

const WORKERS: usize = 50;
/// How long a task runs.
const RUN: Duration = Duration::from_millis(20);
const PARTITIONS: u8 = 8;
/// The tenants beside the one that floods: one of them may have its two partitions with the flood by chance.
const OTHERS: usize = 5;
/// So many tasks of the flood are published together.
const BATCH: usize = 1_000;
/// Who has not started so long after the last one was sent is not waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// A task of the flood.
#[task(name = "bench.flood", ignore_result)]
async fn runs(micros: u64) {
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

/// How the flood and the others share a queue.
struct Case {
    name: &'static str,
    queue: &'static str,
    /// The number of tasks that are there before.
    tasks: usize,
    has_tenants: bool,
    partitions: Option<u8>,
}

impl Case {
    fn row(&self, is_served: bool) -> QueueRow {
        let row = QueueRow::new(self.queue).with_pool(Pool::Io).with_workers(WORKERS).with_served(is_served);
        match self.partitions {
            Some(partitions) => row.with_partitions(partitions),
            None => row,
        }
    }

    fn tenant(&self, name: impl FnOnce() -> String) -> Option<String> {
        self.has_tenants.then(name)
    }
}

/// A program with this queue.
pub async fn runtime(place: &Place, row: QueueRow) -> Celeriac {
    let options = AmqpOptions::default().queue_type(place.queue_type);
    // The builder makes the broker, because it tells it which queues have partitions.
    Celeriac::builder()
        .catalogue(Catalogue::new().with_queue(row))
        .amqp(place.rabbit.url())
        .amqp_options(options)
        .result_backend(place.redis.url())
        .start()
        .await
        .expect("the runtime starts")
}

/// How long the tasks of the others wait, and how many of them have not started in the end.
async fn beside(place: &Place, case: &Case) -> (Latency, usize) {
    waits::forget();
    let micros = RUN.as_micros() as u64;
    let sending = runtime(place, case.row(false)).await;
    for first in (0..case.tasks).step_by(BATCH) {
        let numbers = first..(first + BATCH).min(case.tasks);
        let call = |_| on_behalf(runs::s(micros).queue(case.queue), case.tenant(|| "flood".to_owned()));
        send(numbers.map(call)).await;
    }
    sending.shutdown().await.expect("the runtime shuts down");
    let running = runtime(place, case.row(true)).await;
    tokio::time::sleep(10 * RUN).await;
    let count = sized(60, 10);
    for number in 0..count {
        waits::asked(number);
        let call = timed::s(number, micros).queue(case.queue);
        let call = on_behalf(call, case.tenant(|| format!("other {}", number % OTHERS)));
        drop(call.delay().await.expect("accepted"));
        tokio::time::sleep(5 * RUN).await;
    }
    waits::started(count, PATIENCE).await;
    let waited = waits::all(count);
    // What is left of the flood stays in its queue, which no other case has.
    running.shutdown_within(Duration::from_secs(1)).await.expect("the runtime shuts down");
    waited
}

/// Measures each way to share a queue.
pub async fn beside_tenants(place: &Place) {
    let tasks = sized(20_000, 3_000);
    let case =
        |name, queue, tasks, has_tenants, partitions| Case { name, queue, tasks, has_tenants, partitions };
    let cases = [
        case("alone", "bench-flood-none", 0, true, None),
        case("in one line with the flood", "bench-flood-line", tasks, false, None),
        case("tenants, no partitions", "bench-flood-tenants", tasks, true, None),
        case("tenants, 8 partitions", "bench-flood-partitions", tasks, true, Some(PARTITIONS)),
    ];
    let mut table = Table::new(&["a task of the others waits", "p50", "p95", "p99", "max", "not started"]);
    let mut tails = Vec::new();
    for case in &cases {
        let (waits, unstarted) = beside(place, case).await;
        tails.push(waits.quantile(0.95));
        table.row([vec![case.name.to_owned()], waits.cells().to_vec(), vec![unstarted.to_string()]].concat());
    }
    table.print(&format!(
        "`flood`: {tasks} tasks of {} of one tenant are in RabbitMQ before those of {OTHERS} others, {WORKERS} workers; the confirm is \
         a part of the wait",
        time(RUN)
    ));
    let Some((alone, beside)) = tails.split_first() else { return };
    println!();
    for (case, tail) in cases.iter().skip(1).zip(beside) {
        let times = tail.as_secs_f64() / alone.as_secs_f64().max(1e-6);
        let line =
            format!("p95 {}: {} beside {} alone, {times:.1} times", case.name, time(*tail), time(*alone));
        // Without tenants there is nobody who could have a share.
        match case.has_tenants {
            true => println!("{line}; {}", flood_goal(*tail, *alone, RUN)),
            false => println!("{line}"),
        }
    }
}
