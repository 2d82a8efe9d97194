//! The metrics of celery-exporter (danihodovic/celery-exporter), by their names, labels and buckets.
//!
//! That exporter listens to Celery's events; here each count grows where the event is sent, whether anybody listens or not. As
//! there, all counters of a task begin at 0 when it comes first, so that Prometheus sees the first increase.

use std::fmt;
use std::iter::once;

use super::families::{Families, MetricLabel};
use super::reading::{QueueTask, Reading, TaskReading};
use crate::actors::QueueAccounts;
use crate::core::accounts::TaskAccounts;

/// The name of a counter, what it says, and what it counts.
type CounterFamily = (&'static str, &'static str, fn(&TaskAccounts) -> u64);

/// The counters of tasks that come to a queue here.
const COUNTERS: [CounterFamily; 6] = [
    ("celery_task_received", "Tasks that a worker received.", |task| task.received),
    ("celery_task_started", "Tasks that a worker started.", |task| task.started),
    ("celery_task_succeeded", "Tasks that succeeded.", |task| task.succeeded),
    ("celery_task_rejected", "Tasks that were rejected: put back, or made dead letters.", |task| {
        task.rejected
    }),
    ("celery_task_revoked", "Tasks that were revoked or had expired.", |task| task.revoked),
    ("celery_task_retried", "Attempts that failed and are tried again.", |task| task.retried),
];

pub(super) fn encode(reading: &Reading, families: &mut Families<'_>) -> fmt::Result {
    tasks(reading, families)?;
    workers(reading, families)?;
    queues(&reading.queues, families)
}

fn tasks(reading: &Reading, families: &mut Families<'_>) -> fmt::Result {
    let host = reading.host.as_str();
    let sent = reading.tasks.iter().filter(|(_, task)| task.accounts.sent > 0);
    let sent = sent.map(|(key, task)| (labels(host, key), task.accounts.sent));
    families.counters("celery_task_sent", "Calls that this program sent.", sent)?;
    for (name, help, count) in COUNTERS {
        let shown = reading.tasks.iter().filter(|(_, task)| task.has_come || count(&task.accounts) > 0);
        families.counters(name, help, shown.map(|(key, task)| (labels(host, key), count(&task.accounts))))?;
    }
    let failed = reading.tasks.iter().filter(|(_, task)| task.has_come || task.accounts.failed.total() > 0);
    let failed = failed.flat_map(|(key, task)| failures(host, key, task));
    families.counters("celery_task_failed", "Tasks that failed for good.", failed)?;
    let ran = reading.tasks.iter().filter(|(_, task)| task.accounts.run_times.count() > 0);
    let ran = ran.map(|(key, task)| (labels(host, key), &task.accounts.run_times));
    families.histograms("celery_task_runtime", "Seconds that successful runs took.", ran)?;
    let waited = reading.tasks.iter().filter(|(_, task)| task.accounts.waits.count() > 0);
    let waited = waited.map(|(key, task)| (labels(host, key), &task.accounts.waits));
    let help = "Seconds that tasks waited in their queue for a start, without the time until their ETA.";
    families.histograms("celery_task_queue_wait_time", help, waited)
}

fn labels<'r>(host: &'r str, key: &'r QueueTask) -> [MetricLabel<'r>; 3] {
    [("name", key.task.as_str()), ("hostname", host), ("queue_name", key.queue.as_str())]
}

/// A series without an exception, which stays 0, and one for each exception.
fn failures<'r>(
    host: &'r str,
    key: &'r QueueTask,
    task: &'r TaskReading,
) -> impl Iterator<Item = ([MetricLabel<'r>; 4], u64)> {
    let [name, hostname, queue] = labels(host, key);
    let of = move |exception: &'r str| [name, hostname, ("exception", exception), queue];
    once((of(""), 0)).chain(task.accounts.failed.iter().map(move |(error, count)| (of(error), count)))
}

fn workers(reading: &Reading, families: &mut Families<'_>) -> fmt::Result {
    let hostname = [("hostname", reading.host.as_str())];
    let up = f64::from(u8::from(reading.is_up));
    families.gauges("celery_worker_up", "Whether the program takes tasks.", [(hostname, up)])?;
    let active = reading.active as f64;
    families.gauges("celery_worker_tasks_active", "Bodies that run now.", [(hostname, active)])
}

fn queues(queues: &[QueueAccounts], families: &mut Families<'_>) -> fmt::Result {
    let mut gauges = |name: &str, help: &str, value: fn(&QueueAccounts) -> f64| {
        let series = queues.iter().map(|queue| ([("queue_name", queue.status.name.as_str())], value(queue)));
        families.gauges(name, help, series)
    };
    let consumes = |queue: &QueueAccounts| f64::from(u8::from(queue.is_consuming));
    gauges("celery_queue_length", "Tasks that could start now.", |queue| queue.status.ready as f64)?;
    gauges("celery_active_consumer_count", "Consumers that this program has on the queue.", consumes)?;
    gauges("celery_active_worker_count", "Whether this program serves the queue.", consumes)?;
    gauges("celery_active_process_count", "Worker slots of the queue.", |queue| queue.status.workers as f64)
}
