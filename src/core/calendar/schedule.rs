//! When an entry fires: at the times of a crontab in a zone, or at an interval.
//!
//! The rule for clocks that are put forward and back, of which Celery has none:
//! - An entry that names hours is about times of day. It fires **once for each of its clock times**: the first time
//!   that the clock shows it or, if the clock skips it, at the first instant after the gap. Several clock times that
//!   fall on one instant are one tick.
//! - An entry of every hour (`hour` matches all 24) is about minutes. It fires **whenever the clock shows** one of
//!   its times: twice if the clock shows that time twice, not at all if the clock skips it. So `*/15` fires every
//!   quarter of an hour when the clocks are put back, and fires no faster when they are put forward.

use std::fmt;
use std::time::Duration;

use chrono::NaiveDateTime;

use super::zone::{Moment, seconds, timestamp};
use super::{Crontab, Zone};
use crate::core::Timestamp;

/// The times at which an entry is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// The entry is due at the times of a crontab, by the clocks of a zone.
    Crontab {
        /// The clock times at which the entry is due.
        crontab: Box<Crontab>,
        /// The zone whose clocks count.
        zone: Zone,
    },
    /// The entry is due at each multiple of this interval since 1970 in UTC, so that neither a restart nor a late
    /// tick moves the next tick. Celery's `timedelta` with `relative=True` does the same. An interval below a
    /// millisecond counts as a millisecond.
    Every(Duration),
}

/// One time at which an entry is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    /// When the entry is due, in seconds since 1970.
    pub(super) at: i64,
    /// The clock time for which the entry fires. If several fall on this instant, it is the last of them.
    pub(super) clock: NaiveDateTime,
}

/// The shortest interval of [`Schedule::Every`].
const SHORTEST: Duration = Duration::from_millis(1);

impl Schedule {
    /// Makes a schedule of a crontab and the zone whose clocks count.
    pub fn crontab(crontab: Crontab, zone: Zone) -> Self {
        Self::Crontab { crontab: Box::new(crontab), zone }
    }

    /// The first time after `after`; `None` when no time matches before the year 10000.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Crontab { crontab, zone } => {
                next_tick(crontab, *zone, seconds(after)).map(|tick| timestamp(tick.at))
            }
            Self::Every(interval) => {
                let interval = micros(*interval);
                let ticks = after.as_micros() / interval + 1;
                ticks.checked_mul(interval).map(Timestamp::from_micros)
            }
        }
    }

    /// The first `n` times after `after`, or fewer if the schedule ends.
    pub fn preview(&self, after: Timestamp, n: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after), |at| self.next_after(*at)).take(n).collect()
    }

    /// The last time in `(floor, now]`; `None` if there is none.
    pub fn last_until(&self, floor: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if let Self::Every(interval) = self {
            let interval = micros(*interval);
            return Some(Timestamp::from_micros(now.as_micros() / interval * interval))
                .filter(|at| *at > floor);
        }
        // The search goes backwards in windows of doubling length, so that neither a long absence of a dense schedule
        // nor the long gaps of a sparse schedule take many steps.
        let mut window = Duration::from_secs(60);
        loop {
            let start = floor.max(now - window);
            let mut next = self.next_after(start).filter(|at| *at <= now);
            let mut last = None;
            while let Some(at) = next {
                last = Some(at);
                next = self.next_after(at).filter(|at| *at <= now);
            }
            if last.is_some() || start == floor {
                return last;
            }
            window = window.saturating_mul(2);
        }
    }
}

fn micros(interval: Duration) -> u64 {
    u64::try_from(interval.max(SHORTEST).as_micros()).unwrap_or(u64::MAX)
}

/// The first tick after the second `after` of a crontab in a zone.
pub(super) fn next_tick(crontab: &Crontab, zone: Zone, after: i64) -> Option<Tick> {
    if crontab.is_every_hour() { next_shown(crontab, zone, after) } else { next_of_day(crontab, zone, after) }
}

/// Finds the next tick of an entry that is about times of day.
fn next_of_day(crontab: &Crontab, zone: Zone, after: i64) -> Option<Tick> {
    let mut clock = zone.clock(after);
    let mut found: Option<Tick> = None;
    loop {
        let Some(next) = crontab.time_after(clock) else { return found };
        clock = next;
        let (at, skipped) = match zone.moment(clock) {
            Moment::Once(at) | Moment::Twice(at) => (at, false),
            Moment::Skipped(at) => (at, true),
        };
        match found {
            // The clock showed this time before `after` and now shows it again.
            _ if at <= after => {}
            Some(tick) if at > tick.at => return found,
            _ => {
                let tick = Tick { at, clock };
                if found.is_none() && !skipped {
                    return Some(tick);
                }
                found = Some(tick);
            }
        }
    }
}

/// Finds the next tick of an entry that is about minutes.
fn next_shown(crontab: &Crontab, zone: Zone, after: i64) -> Option<Tick> {
    /// The time in seconds by which no clock was ever put back, with a margin.
    const FAR: i64 = 48 * 3600;
    // The clock runs evenly from `from` until the offset changes. The loop then reads the clock anew, at the second
    // of the change.
    let mut from = after;
    let mut clock = zone.clock(after);
    loop {
        let next = crontab.time_after(clock)?;
        let offset = zone.offset(from);
        let at = next.and_utc().timestamp() - offset;
        match zone.change(from, at.min(from + FAR)) {
            Some(change) if change <= at => {
                from = change;
                clock = zone.clock(change) - chrono::TimeDelta::seconds(1);
                // The first second of the new offset may itself be a tick. `time_after` finds it, as the clock is
                // set a second back.
            }
            _ if at <= from + FAR => return Some(Tick { at, clock: next }),
            _ => {
                // No clock time matches in between, whatever happens to the clocks. So the loop goes on shortly
                // before `at`.
                from = (at - FAR).max(from + 1);
                clock = zone.clock(from);
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crontab { crontab, zone } => write!(f, "{crontab} ({zone})"),
            Self::Every(interval) => write!(f, "every {interval:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
