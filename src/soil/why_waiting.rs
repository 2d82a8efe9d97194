//! Why a task waits, in the few ways that its user can be told of, and when it is likely to start.
//!
//! Operators ask [`Celeriac::explain`](crate::Celeriac::explain), which knows more. Here is what one look at the task's place
//! says, because thousands of pages may ask for it at a time.

use serde::Serialize;

use super::QueueSummary;
use crate::core::Timestamp;
use crate::core::forecast::StartForecast;
use crate::runtime::task_location::TaskLocation;

/// The reason for which a task waits, for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhyWaiting {
    /// It is to start at a later time.
    NotDue,
    /// It has begun before, and goes on at a later time: an attempt has failed, or it was postponed.
    Retry,
    /// Somebody has paused its queue.
    Paused,
    /// Its queue has stopped itself.
    Halted,
    /// Another task of its serial key has to end first.
    Lane,
    /// Something holds its kind back: a rate limit, a brake or a limit.
    Held,
    /// Others are before it, or all workers are busy.
    Busy,
}

/// When a task is likely to start, in whole seconds from now. The times are rounded, so that they do not change with each
/// look: below a minute to ten seconds, below an hour to minutes, else to ten minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StartsBetween {
    /// The earlier end of the forecast, in seconds from now.
    pub from_seconds: u64,
    /// The later end of the forecast, in seconds from now.
    pub to_seconds: u64,
}

impl WhyWaiting {
    /// Why the task in this place waits. `None`: it does not, or it is about to start, or nobody can say.
    pub(super) fn of(place: &TaskLocation, line: Option<&QueueSummary>) -> Option<Self> {
        let is_behind = place.place.is_some_and(|place| place.ahead > 0);
        if place.is_running {
            None
        } else if place.due.is_some() {
            Some(if place.has_begun { Self::Retry } else { Self::NotDue })
        } else if line.is_some_and(|line| line.paused) {
            Some(Self::Paused)
        } else if line.is_some_and(|line| line.halted) {
            Some(Self::Halted)
        } else if place.is_in_line {
            Some(Self::Lane)
        } else if place.is_held {
            Some(Self::Held)
        } else if is_behind || line.is_some_and(|line| line.workers > 0 && line.running >= line.workers) {
            Some(Self::Busy)
        } else {
            None
        }
    }
}

impl StartsBetween {
    #[cfg(all(test, feature = "web"))]
    pub(crate) fn of_seconds(from_seconds: u64, to_seconds: u64) -> Self {
        Self { from_seconds, to_seconds }
    }

    /// The times of a forecast, if it has any.
    pub(super) fn of(forecast: &StartForecast, now: Timestamp) -> Option<Self> {
        let StartForecast::Between { from, to, .. } = forecast else { return None };
        let (from, to) = (from.since(now).as_secs(), to.since(now).as_secs() + 1);
        let unit = |seconds: u64| match seconds {
            ..60 => 10,
            60..3_600 => 60,
            _ => 600,
        };
        Some(Self {
            from_seconds: from / unit(from) * unit(from),
            to_seconds: to.div_ceil(unit(to)).saturating_mul(unit(to)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use WhyWaiting::{Busy, Halted, Held, Lane, NotDue, Paused, Retry};

    use super::*;
    use crate::core::forecast::ForecastRecord;
    use crate::runtime::task_location::QueuePosition;

    #[test]
    fn the_first_reason_that_applies_is_told() {
        let mut place = TaskLocation {
            due: Some(Timestamp::from_millis(5)),
            is_in_line: true,
            is_held: true,
            place: Some(QueuePosition::new(1, false)),
            ..TaskLocation::default()
        };
        let mut line = QueueSummary {
            name: "exports".to_owned(),
            workers: 1,
            running: 1,
            ready: 1,
            paused: true,
            halted: true,
            blocked_seconds: 0,
        };
        let mut told = vec![WhyWaiting::of(&place, Some(&line))];
        place.has_begun = true;
        told.push(WhyWaiting::of(&place, Some(&line)));
        place.due = None;
        told.push(WhyWaiting::of(&place, Some(&line)));
        line.paused = false;
        told.push(WhyWaiting::of(&place, Some(&line)));
        line.halted = false;
        told.push(WhyWaiting::of(&place, Some(&line)));
        place.is_in_line = false;
        told.push(WhyWaiting::of(&place, Some(&line)));
        place.is_held = false;
        told.push(WhyWaiting::of(&place, Some(&line)));
        place.place = None;
        told.push(WhyWaiting::of(&place, Some(&line)));
        line.running = 0;
        told.push(WhyWaiting::of(&place, Some(&line)));
        let all = [NotDue, Retry, Paused, Halted, Lane, Held, Busy, Busy].map(Some);
        assert_eq!(told, [&all[..], &[None][..]].concat());
        place.is_running = true;
        assert_eq!(WhyWaiting::of(&place, None), None);
    }

    #[test]
    fn times_are_rounded_outwards() {
        let now = Timestamp::from_millis(1_000_000);
        for (from, to, expected) in [
            (0, 3, (0, 10)),
            (19, 41, (10, 50)),
            (100, 200, (60, 240)),
            (3_599, 4_000, (3_540, 4_200)),
            (10_000, 20_000, (9_600, 20_400)),
        ] {
            let at = |seconds| now + Duration::from_secs(seconds);
            let record = ForecastRecord::default();
            let said = StartForecast::Between { from: at(from), to: at(to), record };
            let said = StartsBetween::of(&said, now).map(|it| (it.from_seconds, it.to_seconds));
            assert_eq!(said, Some(expected), "{from} to {to}");
        }
        assert_eq!(StartsBetween::of(&StartForecast::Open, now), None);
    }
}
