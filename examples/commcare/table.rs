//! The table of the queues, for terminals.

use std::fmt::Write;
use std::time::Duration;

use celeriac::actors::QueueStatus;
use celeriac::app::catalogue::{Catalogue, format_span};

/// One line a queue.
pub fn render(catalogue: &Catalogue, queues: &[QueueStatus]) -> String {
    let mut table = format!(
        "{:<30} {:>4} {:>8} {:>7} {:>7} {:>7} {:>9} {:>9} {:>9} {:>6} {:>6} {:>7} {:>4}\n",
        "queue",
        "i/o",
        "class",
        "target",
        "waiting",
        "running",
        "start p50",
        "p95",
        "max",
        "done",
        "failed",
        "retried",
        "dead"
    );
    for queue in queues {
        let row = catalogue.queue(&queue.name);
        let io = row.and_then(|r| r.io_bound).map_or("", |io| if io { "yes" } else { "no" });
        let class = row.and_then(|r| r.target_class).map_or("", |class| class.as_str());
        let target = queue.time_to_start.target.map_or(String::new(), format_span);
        let start = &queue.time_to_start;
        let waiting = queue.ready + queue.scheduled;
        // Writing into a String cannot fail.
        let _ = writeln!(
            table,
            "{:<30} {io:>4} {class:>8} {target:>7} {waiting:>7} {:>7} {:>9} {:>9} {:>9} {:>6} {:>6} {:>7} {:>4}",
            queue.name,
            queue.running,
            millis(start.p50),
            millis(start.p95),
            millis(start.max),
            queue.done,
            queue.failed + queue.rejected,
            queue.retried,
            queue.dead,
        );
    }
    table
}

fn millis(time: Duration) -> String {
    format!("{:.1}ms", time.as_secs_f64() * 1e3)
}
