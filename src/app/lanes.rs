//! The operator's levers on lanes: what holds a serial key up, and how it goes on. The broker has the facts of a
//! lane; if the lane has runs here, its actor adds them.

use super::handle::{Celeriac, ControlError};
use super::replies::Replies;
use crate::actors::serial::{LaneStatus, status};
use crate::broker::LaneLever;
use crate::task::LaneName;

impl Celeriac {
    /// The lanes that are not idle, ordered by name, at most `limit`: which tasks are in, how many wait, which
    /// lanes are blocked. The actors of lanes that have a run here are asked for it, all at once. A lane whose
    /// actor does not answer within a second is left out and named `scope/key` in [`Replies::missing`];
    /// [`lane`](Self::lane) says what the broker knows of it.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn lanes(&self, limit: usize) -> Result<Replies<LaneStatus>, ControlError> {
        let lanes = self.runtime().busy_lanes(limit).await?;
        let asked = lanes.into_iter().map(async |facts| {
            let runs = self.inner.serials.runs(&facts.name).await;
            let name = format!("{}/{}", facts.name.scope(), facts.name.key());
            (name, runs.ok().map(|runs| status(facts, &runs)))
        });
        Ok(Replies::of(futures_util::future::join_all(asked).await))
    }

    /// The lane of a serial key. The scope is the task's name, unless the task states another one. `None`: the lane
    /// is idle. If its actor does not answer within a second, the status has no runs.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn lane(&self, scope: &str, key: &str) -> Result<Option<LaneStatus>, ControlError> {
        let lane = LaneName::new(scope, key);
        let Some(facts) = self.runtime().lane(&lane).await? else { return Ok(None) };
        let runs = self.inner.serials.runs(&lane).await.unwrap_or_default();
        Ok(Some(status(facts, &runs)))
    }

    /// Lets a lane go on that a failure has blocked. `false`: it was not blocked.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn unblock(&self, scope: &str, key: &str) -> Result<bool, ControlError> {
        self.pull(scope, key, LaneLever::Unblock).await
    }

    /// Sets how many runs of a lane may go on at a time, whatever its tasks state. The limit is remembered until it
    /// is set to `None`. With 0 nothing starts. Runs go on.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn set_concurrency(
        &self,
        scope: &str,
        key: &str,
        concurrency: Option<u32>,
    ) -> Result<(), ControlError> {
        self.pull(scope, key, LaneLever::Concurrency(concurrency)).await.map(|_| ())
    }

    async fn pull(&self, scope: &str, key: &str, lever: LaneLever) -> Result<bool, ControlError> {
        let lane = LaneName::new(scope, key);
        if let Some(moved) = self.inner.serials.pull(&lane, lever).await {
            return Ok(moved?);
        }
        Ok(self.runtime().steer_lane(&lane, lever).await?)
    }
}
