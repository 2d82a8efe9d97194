//! The lever on the range of a queue's workers.

use std::ops::RangeInclusive;

use serde_json::json;

use super::fleet::{Fleet, NodeReplies};
use super::handle::{Celeriac, ControlError};
use crate::actors::queue::Steer;
use crate::core::autoscale::WorkerRange;

impl Celeriac {
    /// Lets the number of workers of a queue follow its load, within this range: Celery's `autoscale`. The queue grows at
    /// once when tasks wait for workers, and shrinks when it has had less to do for half a minute. A range of one number
    /// fixes it. [`resize`](Self::resize) sets the fewest from then on. It lasts until a restart of the program; the
    /// catalogue's `workers` and `max_workers` state it for good.
    ///
    /// ```no_run
    /// # async fn demo(celeriac: celeriac::Celeriac) -> Result<(), celeriac::app::ControlError> {
    /// celeriac.autoscale("export_queue", 2..=20).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// There is no such queue, it does not answer, or the range has no number above zero.
    pub async fn autoscale(&self, queue: &str, workers: RangeInclusive<usize>) -> Result<(), ControlError> {
        self.steer(queue, Steer::Range(checked(&workers)?)).await
    }
}

impl Fleet {
    /// Lets the number of workers of a queue follow its load, within this range, in each program of ours that serves it.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect), or the range has no number above zero.
    pub async fn autoscale(
        &self,
        queue: &str,
        workers: RangeInclusive<usize>,
    ) -> Result<NodeReplies, ControlError> {
        let range = checked(&workers)?;
        let arguments = json!({ "queue": queue, "min": range.min(), "max": range.max() });
        self.control("autoscale", arguments).await
    }
}

fn checked(workers: &RangeInclusive<usize>) -> Result<WorkerRange, ControlError> {
    let (min, max) = (*workers.start(), *workers.end());
    match min > max || max == 0 {
        true => Err(ControlError::WorkerRange { min, max }),
        false => Ok(WorkerRange::new(min, max)),
    }
}
