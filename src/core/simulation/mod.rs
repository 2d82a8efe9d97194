//! What-if: how long tasks would wait for their starts under other pools, queues and weights.
//!
//! A [`SimulatedLoad`] is what comes: tasks with their times and with how long their runs take, as programs have
//! [recorded](RunRecorder) them or as somebody has [written](LoadRow) them. A [`SlotPlan`] is what is there: the pools and the queues
//! of a catalogue. [`simulate`] brings the tasks of the load to [`core::slots`](super::slots) in virtual time, the machine that
//! gives the slots away in a program too, and answers with a [`SimulationReport`].
//!
//! Invariants:
//! - The same plan and the same load give the same report, to the bit. Numbers that look random are drawn when a written load is
//!   made, and a seed decides all of them.
//! - Each task of the load starts once, and runs for as long as the load says.
//! - A load has at most [`MOST_ARRIVALS`] tasks, and a simulation takes memory in proportion to them.
//! - What is not in a plan is not simulated: limits, brakes, lanes, pauses, prefetch, restarts, and events at which programs start.

mod engine;
mod load;
mod plan;
mod recording;
mod report;
mod written;

#[cfg(test)]
mod tests;

use super::did_you_mean::nearest;

pub use engine::start_times;
pub use load::{LONGEST_RUN, MOST_ARRIVALS, SimulatedLoad, TaskArrival};
pub use plan::{PlannedPool, PlannedQueue, SlotPlan};
pub use recording::{MOST_RECORDED, RecordedRuns, RunRecorder};
pub use report::{
    SimulatedPool, SimulatedQueue, SimulatedTenant, SimulationReport, StartTimes, measured, simulate,
};
pub use written::{Coming, LoadRow, RunLength};

/// Why a load cannot be simulated.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// The load has more tasks than a simulation takes.
    #[error(
        "the load has more than {} tasks, which is the most that is simulated at a time; take a shorter time or lower rates",
        MOST_ARRIVALS
    )]
    TooManyArrivals,
    /// The load has no tasks.
    #[error("the load has no tasks, so there is nothing to simulate; take a longer time or higher rates")]
    NoArrivals,
    /// The plan has no queue of this name.
    #[error(
        "the load has tasks for the queue {queue:?}, and the catalogue has no such queue that is served; {advice}"
    )]
    UnknownQueue {
        /// The name of the queue.
        queue: String,
        /// What to do.
        advice: String,
    },
    /// A queue has no workers, or its pool has no slots for it.
    #[error("the queue {queue:?} never starts a task, because it has no workers; give it some")]
    NeverStarts {
        /// The name of the queue.
        queue: String,
    },
}

crate::core::debug_as_display!(SimulationError);

impl SimulationError {
    fn unknown_queue(queue: &str, plan: &SlotPlan) -> Self {
        let known = plan.queues.iter().map(|queue| queue.name.as_str());
        let advice = match nearest(queue, known) {
            Some(name) => format!("did you mean {name:?}?"),
            None => "add its row, or an alias that leads to the queue which has its tasks then".to_owned(),
        };
        Self::UnknownQueue { queue: queue.to_owned(), advice }
    }
}
