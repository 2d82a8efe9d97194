//! When an entry fires: a crontab in a zone, or every so often.
//!
//! The rule for clocks that are put forward and back, of which Celery has none:
//! - An entry that names hours is about times of day. It fires **once for each of its clock times**: the first time that
//!   the clock shows it, and if the clock skips it, at the first instant after the gap. Several that fall on one instant
//!   are one tick.
//! - An entry of every hour (`hour` lets all 24 through) is about minutes. It fires **whenever the clock shows** one of
//!   its times: both times if a clock time comes twice, not at all if it is skipped. So `*/15` goes on every quarter
//!   of an hour when the clocks are put back, and is not hurried when they are put forward.

use std::fmt;
use std::time::Duration;

use chrono::NaiveDateTime;

use super::zone::{Moment, seconds, timestamp};
use super::{Crontab, Zone};
use crate::core::Timestamp;

/// When something is due, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the times of a crontab, by the clocks of a zone.
    Crontab {
        /// The times.
        crontab: Box<Crontab>,
        /// Whose clocks.
        zone: Zone,
    },
    /// At each multiple of this since 1970, UTC, so that neither a restart nor a late tick moves the next one. Celery's
    /// `timedelta` with `relative=True`. Never below a millisecond.
    Every(Duration),
}

/// A time at which something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    /// The second.
    pub(super) at: i64,
    /// The clock time that it stands for; of several, the last.
    pub(super) clock: NaiveDateTime,
}

/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(1);

impl Schedule {
    /// The times of a crontab in a zone.
    pub fn crontab(crontab: Crontab, zone: Zone) -> Self {
        Self::Crontab { crontab: Box::new(crontab), zone }
    }

    /// The first time after this one; `None` when there is none before the year 2101.
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

    /// The next `n` times.
    pub fn preview(&self, after: Timestamp, n: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after), |at| self.next_after(*at)).take(n).collect()
    }

    /// The last time in `(floor, now]`.
    pub fn last_until(&self, floor: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if let Self::Every(interval) = self {
            let interval = micros(*interval);
            return Some(Timestamp::from_micros(now.as_micros() / interval * interval))
                .filter(|at| *at > floor);
        }
        // Backwards in windows twice as long each time, so that neither a long absence of a dense schedule nor the long
        // gaps of a sparse one take many steps.
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
            window *= 2;
        }
    }
}

fn micros(interval: Duration) -> u64 {
    u64::try_from(interval.max(SHORTEST).as_micros()).unwrap_or(u64::MAX)
}

/// The first tick of a crontab in a zone after this second.
pub(super) fn next_tick(crontab: &Crontab, zone: Zone, after: i64) -> Option<Tick> {
    if crontab.is_every_hour() { next_shown(crontab, zone, after) } else { next_of_day(crontab, zone, after) }
}

/// Of an entry that is about times of day.
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
            // Times that come a second time are behind us.
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

/// Of an entry that is about minutes.
fn next_shown(crontab: &Crontab, zone: Zone, after: i64) -> Option<Tick> {
    /// Longer than any clock was ever put back.
    const FAR: i64 = 48 * 3600;
    // The clock goes on evenly from `from` until the offset changes; then it is looked at anew, this second included.
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
                // The first second of the new offset may itself be a tick, which `time_after` finds.
            }
            _ if at <= from + FAR => return Some(Tick { at, clock: next }),
            _ => {
                // Nothing matches in between, whatever happens to the clocks; only near the time they matter.
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
