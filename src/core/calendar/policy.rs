//! What happens to ticks that were missed, and to ticks whose predecessor still waits or runs.

use std::time::Duration;

use super::Schedule;
use crate::core::Timestamp;

/// What beat does about ticks that came due while it could not publish: the program was down, the machine slept, the
/// broker was away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfire {
    /// Beat publishes one task for all of them: the last tick, however late it is. Celery's beat does the same.
    #[default]
    Once,
    /// Beat skips missed ticks. A tick counts as missed when it is later than [`Misfire::GRACE`].
    Skip,
    /// Beat publishes each missed tick that is not older than `within`.
    All {
        /// The greatest age of a tick that beat still publishes.
        within: Duration,
    },
}

impl Misfire {
    /// A tick that is later than this was missed. The value is a minute, as in Quartz.
    pub const GRACE: Duration = Duration::from_secs(60);
    /// Beat makes up for at most this many ticks of an entry at a time. The next ticks follow when these are
    /// published.
    pub(super) const BATCH: usize = 100;

    /// The ticks in `(last, now]` that fire, in the order of time.
    pub(super) fn choose(self, schedule: &Schedule, last: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        match self {
            Self::Once => schedule.last_until(last, now).into_iter().collect(),
            Self::Skip => schedule
                .last_until(last, now)
                .filter(|at| now.since(*at) <= Self::GRACE)
                .into_iter()
                .collect(),
            Self::All { within } => {
                // A tick that is exactly as old as `within` still runs.
                let floor = last.max(now - within - Duration::from_micros(1));
                std::iter::successors(schedule.next_after(floor), |at| schedule.next_after(*at))
                    .take_while(|at| *at <= now)
                    .take(Self::BATCH)
                    .collect()
            }
        }
    }
}

/// What beat does about a tick while the run of the tick before it is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overlap {
    /// At most one tick waits. While the task of the tick before still waits to start, beat publishes nothing, as
    /// that task stands for this tick too. While it runs, beat holds this tick and publishes it when the run is over.
    /// So runs never overlap, and tasks do not pile up.
    #[default]
    BufferOne,
    /// Beat drops the tick, whether the task of the tick before waits or runs.
    Skip,
    /// Beat publishes every tick as a task of its own.
    Allow,
}
