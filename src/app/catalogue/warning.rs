//! What a catalogue may say and probably does not mean.

use std::fmt;
use std::time::Duration;

use super::error::{Position, quote};
use super::queue_row::{Pool, QueueRow, TargetClass};
use super::{Catalogue, format_span};

/// More blocking threads than this for one queue on one machine are seldom meant.
pub const MANY_CPU_WORKERS: usize = 64;

/// One doubtful thing about a queue. It prints like an error, with `warning:` before it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// What the file was called.
    pub file: String,
    /// Where the row stands; `None` for one that was built in code.
    pub position: Option<Position>,
    /// The queue.
    pub queue: String,
    /// What is doubtful.
    pub kind: WarningKind,
}

/// What is doubtful. The text of each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WarningKind {
    /// Class and number of the target contradict each other.
    #[error("promises {class}, but its target is {}; change one of them", format_span(*.target))]
    ClassContradictsTarget {
        /// The class.
        class: TargetClass,
        /// The number.
        target: Duration,
    },
    /// There is no number to keep or to break.
    #[error("has no target, so nobody can tell when it is late; add target = \"...\"")]
    NoTarget,
    /// A cpu pool with more workers than [`MANY_CPU_WORKERS`].
    #[error(
        "has {workers} workers in the cpu pool, one thread each; lower workers, or set pool = \"io\" if they wait"
    )]
    ManyCpuWorkers {
        /// The workers.
        workers: usize,
    },
    /// Tasks that compute on the event loop.
    #[error(
        "is not I/O bound but in the io pool, where a long computation holds up others; set pool = \"cpu\""
    )]
    ComputesOnEventLoop,
    /// Fewer deliveries than workers.
    #[error("holds at most {prefetch} deliveries for {workers} workers, so some never work; raise prefetch")]
    PrefetchBelowWorkers {
        /// The deliveries.
        prefetch: usize,
        /// The workers.
        workers: usize,
    },
    /// Tasks without a queue go to a queue that has no row.
    #[error(
        "is where tasks without a queue go, but it has no row; add a [[queue]] for it or set default_queue"
    )]
    DefaultWithoutRow,
}

/// All warnings, in the order of the rows.
pub(super) fn warnings(catalogue: &Catalogue) -> Vec<Warning> {
    let warn = |queue: &str, kind| Warning {
        file: catalogue.file.clone(),
        position: catalogue.positions.get(queue).copied(),
        queue: queue.to_owned(),
        kind,
    };
    let default = (catalogue.resolve(&catalogue.default_queue).is_none())
        .then(|| warn(&catalogue.default_queue, WarningKind::DefaultWithoutRow));
    // What is served elsewhere is promised there.
    let here = catalogue.queues.iter().filter(|row| row.served);
    let rows = here.flat_map(|row| of_row(row).map(|kind| warn(&row.name, kind)));
    default.into_iter().chain(rows).collect()
}

fn of_row(row: &QueueRow) -> impl Iterator<Item = WarningKind> {
    let &QueueRow { workers, pool, .. } = row;
    let target = match (row.target_class, row.target) {
        (_, None) => Some(WarningKind::NoTarget),
        (Some(class), Some(target)) if !class.covers(target) => {
            Some(WarningKind::ClassContradictsTarget { class, target })
        }
        _ => None,
    };
    let many = pool == Pool::Cpu && workers > MANY_CPU_WORKERS;
    let computes = pool == Pool::Io && row.io_bound == Some(false);
    let short = row.prefetch.filter(|prefetch| *prefetch < workers);
    [
        target,
        many.then_some(WarningKind::ManyCpuWorkers { workers }),
        computes.then_some(WarningKind::ComputesOnEventLoop),
        short.map(|prefetch| WarningKind::PrefetchBelowWorkers { prefetch, workers }),
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
