//! What was seen a moment ago, for the many who ask at the same time.
//!
//! A status that is a tenth of a second old is as good as a new one to a page that asks each second, and a broker that is
//! asked by ten thousand pages has something else to do. Only what is not over is remembered: an end is always looked up.

use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::Status;
use crate::task::TaskId;

/// So long a sight is good.
const GOOD: Duration = Duration::from_millis(100);
/// More than are asked for in such a time; beyond that the old ones are dropped.
const MOST: usize = 4096;

/// The sights of one runtime.
#[derive(Default)]
pub(crate) struct Sights(DashMap<TaskId, (Instant, Status)>);

impl Sights {
    pub(super) fn recent(&self, id: &TaskId) -> Option<Status> {
        let seen = self.0.get(id)?;
        (seen.0.elapsed() < GOOD).then(|| seen.1.clone())
    }

    pub(super) fn seen(&self, status: &Status) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (at, _)| at.elapsed() < GOOD);
        }
        if self.0.len() < MOST {
            self.0.insert(status.id.clone(), (Instant::now(), status.clone()));
        }
    }
}
