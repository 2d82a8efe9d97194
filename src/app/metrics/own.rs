//! Celeriac's own metrics: by queue, what is promised, how it is kept, and what is in the way.

use std::fmt;
use std::time::Duration;

use super::families::{Families, MetricLabel};
use super::reading::Reading;
use crate::actors::QueueStatus;
use crate::core::health::threshold;

/// The name of a metric, what it says, and its value for a queue. `None`: the queue does not have it.
type Metric<T> = (&'static str, &'static str, fn(&QueueStatus) -> Option<T>);

const GAUGES: [Metric<f64>; 12] = [
    ("celeriac_target_seconds", "The promised longest time-to-start.", |queue| {
        seconds(queue.time_to_start.target)
    }),
    ("celeriac_threshold_seconds", "How long the queue may be blocked before it is called ill.", |queue| {
        seconds(threshold(queue.time_to_start.target))
    }),
    ("celeriac_blockage_seconds", "For how long nothing has started although tasks wait.", |queue| {
        seconds(Some(queue.blockage))
    }),
    ("celeriac_oldest_wait_seconds", "For how long the oldest ready task has waited.", |queue| {
        seconds(Some(queue.oldest_wait))
    }),
    (
        "celeriac_oldest_held_seconds",
        "For how long a limit has kept the oldest held task from starting.",
        |queue| seconds(Some(queue.oldest_held)),
    ),
    ("celeriac_promise_used_ratio", "How much of its target the oldest ready task has waited.", |queue| {
        let target = queue.time_to_start.target.filter(|target| !target.is_zero())?;
        Some(queue.oldest_wait.as_secs_f64() / target.as_secs_f64())
    }),
    (
        "celeriac_start_prediction_coverage",
        "The share of forecasts of starts that came true lately; it is to be 0.8.",
        |queue| Some(queue.forecasts.coverage().unwrap_or(f64::NAN)),
    ),
    ("celeriac_dead_letters", "Dead letters of the queue.", |queue| Some(queue.dead as f64)),
    ("celeriac_stuck_bodies", "Bodies that were given up and still hold a thread.", |queue| {
        Some(queue.stuck as f64)
    }),
    ("celeriac_queue_paused", "Whether an operator has paused the queue.", |queue| flag(queue.paused)),
    ("celeriac_queue_halted", "Whether the queue has stopped itself.", |queue| flag(queue.halted.is_some())),
    ("celeriac_broker_away", "Whether the broker did not say what waits in it.", |queue| flag(queue.away)),
];

const COUNTERS: [Metric<u64>; 6] = [
    ("celeriac_requeued", "Tasks that were postponed, continued or handed back.", |queue| {
        Some(queue.requeued)
    }),
    ("celeriac_panics", "Bodies that panicked.", |queue| Some(queue.panics)),
    ("celeriac_timed_out", "Bodies that reached their hard time limit.", |queue| Some(queue.timed_out)),
    ("celeriac_children_lost", "Runs whose child process ended before them.", |queue| Some(queue.lost)),
    ("celeriac_overlaps", "Serial tasks that the broker let in beside a run of their key.", |queue| {
        Some(queue.overlaps)
    }),
    ("celeriac_workers_replaced", "Workers that were replaced after a panic or a death.", |queue| {
        Some(queue.replaced)
    }),
];

pub(super) fn encode(reading: &Reading, families: &mut Families<'_>) -> fmt::Result {
    let version = [([("version", env!("CARGO_PKG_VERSION"))], 1.0)];
    families.gauges("celeriac_build_info", "The version of Celeriac.", version)?;
    let up = reading.queues.iter().map(|queue| (of(&queue.status), 1.0));
    let down = reading.missing.iter().map(|name| ([("queue", name.as_str())], 0.0));
    families.gauges("celeriac_queue_up", "Whether the queue answers.", up.chain(down))?;
    histograms(reading, families)?;
    let demoted = reading.demoted.iter().map(|(queue, calls)| ([("queue", queue.as_str())], *calls));
    let help = "Calls that went to another queue, because their tenant was above the rate of this one.";
    families.counters("celeriac_demoted", help, demoted)?;
    let statuses = || reading.queues.iter().map(|queue| &queue.status);
    for (name, help, value) in GAUGES {
        families.gauges(name, help, statuses().filter_map(|queue| Some((of(queue), value(queue)?))))?;
    }
    for (name, help, value) in COUNTERS {
        families.counters(name, help, statuses().filter_map(|queue| Some((of(queue), value(queue)?))))?;
    }
    let promised = || statuses().filter(|queue| queue.time_to_start.target.is_some());
    let starts = promised().flat_map(|queue| {
        let waits = &queue.time_to_start;
        let late = waits.count.saturating_sub(waits.within_target);
        [with(queue, "within", "true", waits.within_target), with(queue, "within", "false", late)]
    });
    families.counters("celeriac_starts", "First starts, within the target and later.", starts)?;
    let slots = statuses().flat_map(|queue| {
        let idle = queue.workers.saturating_sub(queue.running);
        [with(queue, "state", "busy", queue.running as f64), with(queue, "state", "idle", idle as f64)]
    });
    families.gauges("celeriac_slots", "Worker slots.", slots)?;
    families.gauges(
        "celeriac_waiting",
        "Tasks that wait, by what they wait for.",
        statuses().flat_map(waiting),
    )
}

fn histograms(reading: &Reading, families: &mut Families<'_>) -> fmt::Result {
    let starts = reading.queues.iter().map(|queue| (of(&queue.status), queue.accounts.time_to_start()));
    families.histograms("celeriac_time_to_start_seconds", "Seconds until tasks first started.", starts)?;
    let held = reading.queues.iter().map(|queue| (of(&queue.status), queue.accounts.limit_waits()));
    let help = "Seconds for which limits kept tasks from starting.";
    families.histograms("celeriac_limit_wait_seconds", help, held)?;
    let runs = reading.queues.iter().flat_map(|queue| {
        let status = &queue.status;
        queue.accounts.run_times().map(move |(state, run_times)| with(status, "state", state, run_times))
    });
    let help = "Seconds that runs took, by the state that they left their task in.";
    families.histograms("celeriac_time_to_run_seconds", help, runs)
}

fn of(queue: &QueueStatus) -> [MetricLabel<'_>; 1] {
    [("queue", queue.name.as_str())]
}

fn with<'r, T>(
    queue: &'r QueueStatus,
    label: &'static str,
    text: &'static str,
    value: T,
) -> ([MetricLabel<'r>; 2], T) {
    ([("queue", queue.name.as_str()), (label, text)], value)
}

/// What the tasks of a queue wait for. A ready task waits for a slot, unless nothing starts at all.
fn waiting(queue: &QueueStatus) -> [([MetricLabel<'_>; 2], f64); 6] {
    let (paused, halted) = (queue.paused, queue.halted.is_some());
    let ready = |here: bool| if here { queue.ready as f64 } else { 0.0 };
    [
        with(queue, "reason", "slot", ready(!paused && !halted)),
        with(queue, "reason", "pause", ready(paused)),
        with(queue, "reason", "halt", ready(halted && !paused)),
        with(queue, "reason", "eta", queue.scheduled as f64),
        with(queue, "reason", "lane", queue.in_line as f64),
        with(queue, "reason", "limit", queue.held as f64),
    ]
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

fn flag(is_set: bool) -> Option<f64> {
    Some(f64::from(u8::from(is_set)))
}
