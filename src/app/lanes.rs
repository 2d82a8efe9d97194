//! The levers of lanes: what holds a serial key up, and how it goes on.

use super::handle::{Celeriac, ControlError};
use crate::actors::serial::{GetLane, LaneStatus, Pull, status};
use crate::broker::LaneLever;
use crate::task::LaneName;

impl Celeriac {
    /// The lanes that are not idle, by name, up to `limit`: who is in, how many wait, which are blocked.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn lanes(&self, limit: usize) -> Result<Vec<LaneStatus>, ControlError> {
        let mut all = Vec::new();
        for facts in self.runtime().broker.lanes(limit).await? {
            let status = match self.ask(&facts.name).await {
                Some(asked) => asked?.map(|asked| LaneStatus { next: Vec::new(), ..asked }),
                None => status(Some(facts), &Default::default()),
            };
            all.extend(status); // none: it has become idle since
        }
        Ok(all)
    }

    /// The lane of this key; the scope is the task's name unless the task states another. `None`: it is idle.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn lane(&self, scope: &str, key: &str) -> Result<Option<LaneStatus>, ControlError> {
        let lane = LaneName::new(scope, key);
        match self.ask(&lane).await {
            Some(asked) => asked,
            None => Ok(status(self.runtime().broker.lane(&lane).await?, &Default::default())),
        }
    }

    /// Lets a lane go on that a failure has blocked. `false`: it was not blocked.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn unblock(&self, scope: &str, key: &str) -> Result<bool, ControlError> {
        self.pull(scope, key, LaneLever::Unblock).await
    }

    /// Lets so many of a lane run at a time from now on, whatever its task states; it is remembered until it is set to
    /// `None`. With 0 nobody starts. What runs already goes on.
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

    /// Asks the lane's actor. `None`: it has none, for nothing of it runs here.
    async fn ask(&self, lane: &LaneName) -> Option<Result<Option<LaneStatus>, ControlError>> {
        let address = self.runtime().serials.address(lane)?;
        Some(address.send(GetLane).await.ok()?.map_err(ControlError::from))
    }

    async fn pull(&self, scope: &str, key: &str, lever: LaneLever) -> Result<bool, ControlError> {
        let lane = LaneName::new(scope, key);
        if let Some(address) = self.runtime().serials.address(&lane)
            && let Ok(moved) = address.send(Pull(lever)).await
        {
            return Ok(moved?);
        }
        Ok(self.runtime().broker.steer_lane(&lane, lever).await?)
    }
}
