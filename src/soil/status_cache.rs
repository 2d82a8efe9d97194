//! A short-lived cache of statuses, for the many pages that ask at the same time.
//!
//! A status that is a tenth of a second old is as good as a new one to a page that asks each second, and a broker that
//! is asked by ten thousand pages has other work to do. The cache holds only tasks that are not over: the end of a task
//! is always looked up.

use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::Status;
#[cfg(feature = "web")]
use super::overview::Overviews;
use crate::task::TaskId;

/// A cached status is good for this long.
const GOOD: Duration = Duration::from_millis(100);
/// The cache holds at most this many statuses. When it is full, statuses that are too old are dropped first.
const MOST: usize = 4096;

/// The cached statuses of one runtime.
#[derive(Default)]
pub(crate) struct StatusCache {
    tasks: DashMap<TaskId, (Instant, Status)>,
    /// The overviews that pages of groups have asked for.
    #[cfg(feature = "web")]
    pub(super) groups: Overviews,
}

impl StatusCache {
    pub(super) fn recent(&self, id: &TaskId) -> Option<Status> {
        let seen = self.tasks.get(id)?;
        (seen.0.elapsed() < GOOD).then(|| seen.1.clone())
    }

    pub(super) fn seen(&self, status: &Status) {
        if self.tasks.len() >= MOST {
            self.tasks.retain(|_, (at, _)| at.elapsed() < GOOD);
        }
        if self.tasks.len() < MOST {
            self.tasks.insert(status.id.clone(), (Instant::now(), status.clone()));
        }
    }
}
