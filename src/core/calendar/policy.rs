//! What becomes of ticks that were missed, and of ticks that meet the one before them.

use std::time::Duration;

use super::Schedule;
use crate::core::Timestamp;

/// What becomes of ticks that came due while nobody looked: the program was down, the machine asleep, the broker away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfire {
    /// One run stands for all of them: the last, however late. Celery does it so.
    #[default]
    Once,
    /// They are skipped. A tick that is no later than [`Misfire::GRACE`] was not missed.
    Skip,
    /// Each of them runs that is not older than this.
    All {
        /// How old, at most.
        within: Duration,
    },
}

impl Misfire {
    /// A tick that is later than this was missed: a minute, as in Quartz.
    pub const GRACE: Duration = Duration::from_secs(60);
    /// At most so many ticks are made up for at a time; the next follow when these are published.
    pub(super) const BATCH: usize = 100;

    /// Which of the ticks in `(last, now]` fire, in order.
    pub(super) fn choose(self, schedule: &Schedule, last: Timestamp, now: Timestamp) -> Vec<Timestamp> {
        match self {
            Self::Once => schedule.last_until(last, now).into_iter().collect(),
            Self::Skip => schedule
                .last_until(last, now)
                .filter(|at| now.since(*at) <= Self::GRACE)
                .into_iter()
                .collect(),
            Self::All { within } => {
                // The bound itself is in: a tick that is exactly so old still runs.
                let floor = last.max(now - within - Duration::from_micros(1));
                std::iter::successors(schedule.next_after(floor), |at| schedule.next_after(*at))
                    .take_while(|at| *at <= now)
                    .take(Self::BATCH)
                    .collect()
            }
        }
    }
}

/// What becomes of a tick while the run of the tick before it is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overlap {
    /// At most one waits: while the one before still waits to start, it stands for this one too; while it runs, this one is
    /// held, and published when that run is over. Runs never overlap, and none piles up.
    #[default]
    BufferOne,
    /// Dropped, whether the one before waits or runs.
    Skip,
    /// Published all the same: each tick is a task of its own.
    Allow,
}
