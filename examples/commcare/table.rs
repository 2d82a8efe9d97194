//! The queues as a table of text.

use std::time::Duration;

use celeriac::actors::QueueStatus;
use celeriac::catalogue::{QueueRow, format_span};

const HEAD: [&str; 14] = [
    "QUEUE",
    "I/O",
    "CLASS",
    "TARGET",
    "WORKERS",
    "DONE",
    "FAILED",
    "RETRIED",
    "REQUEUED",
    "DEAD",
    "START p50",
    "p95",
    "max",
    "WITHIN",
];
/// These keep to the left; numbers keep to the right.
const WORDS: usize = 3;

/// One line a queue, columns as wide as they need to be.
pub fn render(rows: &[QueueRow], queues: &[QueueStatus]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    let of_queue =
        |queue: &QueueStatus| rows.iter().find(|row| row.name == queue.name).map(|row| line(row, queue));
    lines.extend(queues.iter().filter_map(of_queue));
    let widths: [usize; HEAD.len()] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            text.push_str(if column == 0 { "" } else { "  " });
            text.push_str(&if column < WORDS { format!("{cell:width$}") } else { format!("{cell:>width$}") });
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn line(row: &QueueRow, queue: &QueueStatus) -> [String; HEAD.len()] {
    let wait = &queue.time_to_start;
    let waited = |d: Duration| if wait.count == 0 { "-".to_owned() } else { human(d) };
    [
        queue.name.clone(),
        row.io_bound.map_or("?", |io| if io { "yes" } else { "no" }).to_owned(),
        row.target_class.map_or("-", |class| class.as_str()).to_owned(),
        row.target.map_or("-".to_owned(), format_span),
        queue.workers.to_string(),
        queue.done.to_string(),
        queue.failed.to_string(),
        queue.retried.to_string(),
        queue.requeued.to_string(),
        queue.dead.to_string(),
        waited(wait.p50),
        waited(wait.p95),
        waited(wait.max),
        match (wait.target, wait.count) {
            (Some(_), 1..) => format!("{}%", wait.within_target * 100 / wait.count),
            _ => "-".to_owned(),
        },
    ]
}

/// A wait, to two digits or so.
fn human(wait: Duration) -> String {
    let seconds = wait.as_secs_f64();
    match seconds {
        s if s < 0.01 => format!("{:.1}ms", s * 1e3),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 100.0 => format!("{s:.1}s"),
        s => format!("{s:.0}s"),
    }
}
