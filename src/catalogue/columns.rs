//! The columns of a queue in a file: in its `[[queue]]`, and in an environment that overrides some of them.

use std::time::Duration;

use serde_json::{Map, Value};

use super::queue_row::{Pool, QueueRow, TargetClass};
use super::queue_setup::{QueueType, can_be_partitions, partitions_advice};
use super::rate_limits::read_limit;
use super::section::{Section, SourceText};
use crate::core::token_bucket::RateLimit;

/// The keys of a queue besides its name.
pub(super) const COLUMNS: [&str; 27] = [
    "io_bound",
    "target_class",
    "target",
    "target_comment",
    "description",
    "typical_duration",
    "notes",
    "pool",
    "workers",
    "max_workers",
    "prefetch",
    "max_restarts",
    "restart_window",
    "max_tasks_per_child",
    "max_memory_per_child",
    "memory_limit_per_child",
    "keep_failed",
    "served",
    "queue_type",
    "max_priority",
    "queue_arguments",
    "broadcast",
    "min_workers",
    "shared",
    "partitions",
    "demote_above",
    "demote_to",
];

/// The columns that a table states. The others are `None` and change nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Columns {
    io_bound: Option<bool>,
    target_class: Option<TargetClass>,
    target: Option<Duration>,
    target_comment: Option<String>,
    description: Option<String>,
    typical_duration: Option<String>,
    notes: Option<String>,
    pool: Option<Pool>,
    workers: Option<u32>,
    max_workers: Option<u32>,
    prefetch: Option<u32>,
    max_restarts: Option<u32>,
    restart_window: Option<Duration>,
    max_tasks_per_child: Option<u32>,
    max_memory_per_child: Option<u64>,
    memory_limit_per_child: Option<u64>,
    keep_failed: Option<Duration>,
    served: Option<bool>,
    queue_type: Option<QueueType>,
    max_priority: Option<u8>,
    queue_arguments: Option<Map<String, Value>>,
    broadcast: Option<bool>,
    min_workers: Option<u32>,
    shared: Option<bool>,
    partitions: Option<u8>,
    demote_above: Option<RateLimit>,
    demote_to: Option<String>,
}

impl Columns {
    /// Reads the columns of a table and reports those whose values are wrong.
    pub(super) fn read(section: &Section<'_>, source: &mut SourceText<'_>) -> Self {
        Self {
            io_bound: section.boolean("io_bound", source),
            target_class: section.choice(
                "target_class",
                &TargetClass::ALL.map(|class| (class.as_str(), class)),
                source,
            ),
            target: section.span_of_time("target", source),
            target_comment: section.text("target_comment", source),
            description: section.text("description", source),
            typical_duration: section.text("typical_duration", source),
            notes: section.text("notes", source),
            pool: section.choice("pool", &Pool::ALL.map(|pool| (pool.as_str(), pool)), source),
            workers: section.number("workers", 1, source),
            max_workers: section.number("max_workers", 1, source),
            prefetch: section.number("prefetch", 1, source),
            // Zero is allowed: then the first crash stops the queue.
            max_restarts: section.number("max_restarts", 0, source),
            restart_window: section.span_of_time("restart_window", source),
            max_tasks_per_child: section.number("max_tasks_per_child", 1, source),
            max_memory_per_child: section.size("max_memory_per_child", source),
            memory_limit_per_child: section.size("memory_limit_per_child", source),
            // Zero is allowed: then no failed task is kept.
            keep_failed: section.span_or_zero("keep_failed", source),
            served: section.boolean("served", source),
            queue_type: section.choice(
                "queue_type",
                &QueueType::ALL.map(|kind| (kind.as_str(), kind)),
                source,
            ),
            max_priority: section.small_number("max_priority", 1, source),
            queue_arguments: section.json("queue_arguments", "{ x-max-length = 1000 }", source),
            broadcast: section.boolean("broadcast", source),
            min_workers: section.number("min_workers", 0, source),
            shared: section.boolean("shared", source),
            partitions: read_partitions(section, source),
            demote_above: read_demote_above(section, source),
            demote_to: section.text("demote_to", source),
        }
    }

    /// Sets the stated columns in a row.
    pub(super) fn apply(&self, row: QueueRow) -> QueueRow {
        let row = lay(row, self.io_bound, QueueRow::with_io_bound);
        let row = lay(row, self.target_class, QueueRow::with_target_class);
        let row = lay(row, self.target, QueueRow::with_target);
        let row = lay(row, self.target_comment.as_ref(), QueueRow::with_target_comment);
        let row = lay(row, self.description.as_ref(), QueueRow::with_description);
        let row = lay(row, self.typical_duration.as_ref(), QueueRow::with_typical_duration);
        let row = lay(row, self.notes.as_ref(), QueueRow::with_notes);
        let row = lay(row, self.pool, QueueRow::with_pool);
        let row = lay(row, self.workers.map(as_count), QueueRow::with_workers);
        let row = lay(row, self.max_workers.map(as_count), QueueRow::with_max_workers);
        let row = lay(row, self.prefetch.map(as_count), QueueRow::with_prefetch);
        let row = lay(row, self.max_restarts, QueueRow::with_max_restarts);
        let row = lay(row, self.restart_window, QueueRow::with_restart_window);
        let row = lay(row, self.max_tasks_per_child, QueueRow::with_max_tasks_per_child);
        let row = lay(row, self.max_memory_per_child, QueueRow::with_max_memory_per_child);
        let row = lay(row, self.memory_limit_per_child, QueueRow::with_memory_limit_per_child);
        let row = lay(row, self.keep_failed, QueueRow::with_keep_failed);
        let row = lay(row, self.served, QueueRow::with_served);
        let row = lay(row, self.queue_type, QueueRow::with_queue_type);
        let row = lay(row, self.max_priority, QueueRow::with_max_priority);
        let row = lay(row, self.queue_arguments.clone(), QueueRow::with_queue_arguments);
        let row = lay(row, self.broadcast, QueueRow::with_broadcast);
        let row = lay(row, self.min_workers.map(as_count), QueueRow::with_min_workers);
        let row = lay(row, self.shared, QueueRow::with_shared);
        let row = lay(row, self.partitions, QueueRow::with_partitions);
        let row = lay(row, self.demote_above.clone(), QueueRow::with_demote_above);
        lay(row, self.demote_to.as_ref(), QueueRow::with_demote_to)
    }
}

/// Reads the number of partitions.
fn read_partitions(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<u8> {
    let number = section.number("partitions", 0, source)?;
    let partitions = u8::try_from(number).ok().filter(|number| can_be_partitions(*number));
    if let (None, Some(item)) = (partitions, section.get("partitions")) {
        section.report_bad_value("partitions", item, partitions_advice(), source);
    }
    partitions
}

/// Reads the rate above which calls of a tenant go to another queue.
fn read_demote_above(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<RateLimit> {
    let rate = read_limit(section, "demote_above", source)?;
    if let (None, Some(item)) = (&rate, section.get("demote_above")) {
        let advice = "write a rate above zero such as \"30/m\", or remove it".to_owned();
        section.report_bad_value("demote_above", item, advice, source);
    }
    rate
}

fn lay<T>(row: QueueRow, value: Option<T>, set: impl FnOnce(QueueRow, T) -> QueueRow) -> QueueRow {
    match value {
        Some(value) => set(row, value),
        None => row,
    }
}

fn as_count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
