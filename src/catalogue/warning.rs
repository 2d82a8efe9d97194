//! Warnings about parts of a catalogue that are allowed and probably not meant.

use std::fmt;
use std::time::Duration;

use super::error::{Position, quote};
use super::queue_row::{Pool, QueueRow, TargetClass};
use super::{Catalogue, format_span};

/// A queue with more blocking threads than this on one machine is seldom meant.
pub const MANY_CPU_WORKERS: usize = 64;

/// A queue with more child processes than this on one machine is seldom meant.
pub const MANY_CHILDREN: usize = 64;

/// A warning about one queue. It prints like an error, with `warning:` before it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The name of the file, as given to the parser.
    pub file: String,
    /// Where the row stands; `None` for a row that was built in code.
    pub position: Option<Position>,
    /// The name of the queue.
    pub queue: String,
    /// What is doubtful about the queue.
    pub kind: WarningKind,
}

/// The kinds of warnings. The text of each says what to do.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WarningKind {
    /// The class and the number of the target contradict each other.
    #[error("promises {class}, but its target is {}; change one of them", format_span(*.target))]
    ClassContradictsTarget {
        /// The stated class of the target.
        class: TargetClass,
        /// The target that the row states.
        target: Duration,
    },
    /// The queue has no target, so nobody can tell whether its tasks start late.
    #[error("has no target, so nobody can tell when it is late; add target = \"...\"")]
    NoTarget,
    /// The queue is in the cpu pool and has more workers than [`MANY_CPU_WORKERS`].
    #[error(
        "has {workers} workers in the cpu pool, one thread each; lower workers, or set pool = \"io\" if they wait"
    )]
    ManyCpuWorkers {
        /// How many workers the queue has.
        workers: usize,
    },
    /// The queue is in the process pool and has more workers than [`MANY_CHILDREN`].
    #[error(
        "has {workers} workers in the process pool, and each is a process with all of the program in it; lower workers"
    )]
    ManyChildren {
        /// How many workers the queue has.
        workers: usize,
    },
    /// The queue states something about child processes, and has none.
    #[error(
        "states {column}, which says something in the process pool only; set pool = \"process\" or remove it"
    )]
    NoChildren {
        /// The first of the columns about child processes.
        column: &'static str,
    },
    /// The queue is guaranteed workers, and its pool has no slots that queues share.
    #[error(
        "states min_workers, which says something where queues share slots; add slots = ... in [pool.{pool}], or remove it"
    )]
    NothingShared {
        /// The pool of the queue.
        pool: Pool,
    },
    /// The tasks compute, and run on the event loop.
    #[error(
        "is not I/O bound but in the io pool, where a long computation holds up others; set pool = \"cpu\""
    )]
    ComputesOnEventLoop,
    /// The queue holds fewer deliveries than it has workers.
    #[error("holds at most {prefetch} deliveries for {workers} workers, so some never work; raise prefetch")]
    PrefetchBelowWorkers {
        /// The most deliveries that the queue holds.
        prefetch: usize,
        /// How many workers the queue has.
        workers: usize,
    },
    /// The most workers of the queue are fewer than its fewest.
    #[error(
        "has {workers} workers and max_workers = {max_workers}, so it never grows; raise max_workers or lower workers"
    )]
    MaxBelowWorkers {
        /// The stated most.
        max_workers: usize,
        /// How many workers the queue has at least.
        workers: usize,
    },
    /// Tasks that name no queue go to a queue that has no row.
    #[error(
        "is where tasks without a queue go, but it has no row; add a [[queue]] for it or set default_queue"
    )]
    DefaultWithoutRow,
}

crate::core::debug_as_display!(Warning, WarningKind);

/// All warnings: first the one about the default queue, then the others in the order of the rows.
pub(super) fn warnings(catalogue: &Catalogue) -> Vec<Warning> {
    let warn = |queue: &str, kind| Warning {
        file: catalogue.file.clone(),
        position: catalogue.positions.get(queue).copied(),
        queue: queue.to_owned(),
        kind,
    };
    let default = (catalogue.resolve(&catalogue.default_queue).is_none())
        .then(|| warn(&catalogue.default_queue, WarningKind::DefaultWithoutRow));
    // The program that serves a queue makes its promise, so other programs do not warn about it.
    let here = catalogue.queues.iter().filter(|row| row.served);
    let rows = here.flat_map(|row| {
        let is_alone = row.min_workers > 0 && catalogue.pool_of(row).is_none();
        let shares = is_alone.then_some(WarningKind::NothingShared { pool: row.pool });
        of_row(row).chain(shares).map(|kind| warn(&row.name, kind))
    });
    default.into_iter().chain(rows).collect()
}

fn of_row(row: &QueueRow) -> impl Iterator<Item = WarningKind> {
    let (pool, workers) = (row.pool, row.most_workers());
    let target = match (row.target_class, row.target) {
        (_, None) => Some(WarningKind::NoTarget),
        (Some(class), Some(target)) if !class.covers(target) => {
            Some(WarningKind::ClassContradictsTarget { class, target })
        }
        _ => None,
    };
    let many = pool == Pool::Cpu && workers > MANY_CPU_WORKERS;
    let children = pool == Pool::Process && workers > MANY_CHILDREN;
    let column = row.child_columns().next().filter(|_| pool != Pool::Process);
    let computes = pool == Pool::Io && row.io_bound == Some(false);
    let short = row.prefetch.filter(|prefetch| *prefetch < workers);
    [
        target,
        many.then_some(WarningKind::ManyCpuWorkers { workers }),
        children.then_some(WarningKind::ManyChildren { workers }),
        column.map(|column| WarningKind::NoChildren { column }),
        computes.then_some(WarningKind::ComputesOnEventLoop),
        short.map(|prefetch| WarningKind::PrefetchBelowWorkers { prefetch, workers }),
        row.max_workers
            .filter(|most| *most < row.workers)
            .map(|max_workers| WarningKind::MaxBelowWorkers { max_workers, workers: row.workers }),
    ]
    .into_iter()
    .flatten()
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(at) = self.position {
            write!(f, ":{at}")?;
        }
        write!(f, ": warning: queue {} {}", quote(&self.queue), self.kind)
    }
}
