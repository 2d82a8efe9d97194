//! Whether forecasts come true, and how wide they have to be so that eight in ten do.
//!
//! A sample of the forecasts is remembered until their tasks start. Each that comes out wrong makes all later ones wider, and
//! each that comes out right makes them a little narrower: adaptive conformal inference, with a factor on the width. The
//! steps are such that they even out when the promised share is right, whatever the load, and however wrong the model of
//! the queue is. The price of a wrong model is a wide forecast, and not a wrong one.

use std::collections::VecDeque;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::core::Timestamp;

/// The share of forecasts that is to come true.
const SHARE: f64 = 0.8;
/// How far one outcome moves the logarithm of the factor.
const STEP: f64 = 0.08;
/// The logarithm of the largest factor; that of the smallest is its negative.
const WIDEST: f64 = 4.0;
/// How many forecasts wait for their outcomes at a time. They were all made with nearly one factor, so with many more of
/// them the factor would swing.
const MOST_MADE: usize = 32;
/// How many outcomes the record has.
const KEPT: usize = 1_000;

/// How often forecasts of starts came true lately: of a sample of them, the newest thousand at most. In JSON it has the
/// share as well, as `coverage`, which is null until there is an outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForecastRecord {
    /// How many came true: the task started between the two times.
    pub right: u64,
    /// How many have come to an outcome.
    pub of: u64,
}

impl ForecastRecord {
    /// The share that came true, from 0 to 1. It is to be 0.8. `None`: there is no outcome yet.
    pub fn coverage(&self) -> Option<f64> {
        (self.of > 0).then(|| self.right as f64 / self.of as f64)
    }
}

impl Serialize for ForecastRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = serializer.serialize_struct("ForecastRecord", 3)?;
        record.serialize_field("right", &self.right)?;
        record.serialize_field("of", &self.of)?;
        record.serialize_field("coverage", &self.coverage())?;
        record.end()
    }
}

/// The forecasts of one queue that wait for their outcomes, and what came of the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Calibration {
    made: Vec<Made>,
    /// The logarithm of the factor on the width of forecasts.
    log_factor: f64,
    outcomes: VecDeque<bool>,
    right: u64,
}

/// A forecast whose task has not started.
#[derive(Clone, Copy, Debug)]
struct Made {
    tag: u64,
    from: Timestamp,
    to: Timestamp,
}

impl Calibration {
    /// By how much the width that the model says is to be multiplied.
    pub(super) fn factor(&self) -> f64 {
        self.log_factor.exp()
    }

    pub(super) fn record(&self) -> ForecastRecord {
        ForecastRecord { right: self.right, of: self.outcomes.len() as u64 }
    }

    /// Whether no more forecasts can be remembered now.
    pub(super) fn is_full(&self) -> bool {
        self.made.len() >= MOST_MADE
    }

    /// Remembers that the task of this delivery was to start between these times.
    pub(super) fn made(&mut self, tag: u64, from: Timestamp, to: Timestamp) {
        if !self.is_full() {
            self.made.push(Made { tag, from, to });
        }
    }

    /// The task of this delivery starts.
    pub(super) fn started(&mut self, tag: u64, now: Timestamp) {
        if let Some(Made { from, to, .. }) = self.take(tag) {
            self.came_out((from..=to).contains(&now));
        }
    }

    /// The delivery has gone without a start, so nothing is learnt from it.
    pub(super) fn left(&mut self, tag: u64) {
        self.take(tag);
    }

    /// Something has happened that no forecast is about, such as a pause: nothing is learnt from those that were made.
    pub(super) fn forget_made(&mut self) {
        self.made.clear();
    }

    /// Counts the forecasts as wrong whose time is over, although their tasks have not started.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let before = self.made.len();
        self.made.retain(|made| made.to >= now);
        for _ in self.made.len()..before {
            self.came_out(false);
        }
    }

    fn take(&mut self, tag: u64) -> Option<Made> {
        let at = self.made.iter().position(|made| made.tag == tag)?;
        Some(self.made.swap_remove(at))
    }

    fn came_out(&mut self, is_right: bool) {
        let step = if is_right { -STEP * (1.0 - SHARE) } else { STEP * SHARE };
        self.log_factor = (self.log_factor + step).clamp(-WIDEST, WIDEST);
        if self.outcomes.len() >= KEPT {
            let was_right = self.outcomes.pop_front().unwrap_or_default();
            self.right -= u64::from(was_right);
        }
        self.outcomes.push_back(is_right);
        self.right += u64::from(is_right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn an_outcome_is_counted_once_and_what_left_is_not() {
        let mut all = Calibration::default();
        assert_eq!(all.record().coverage(), None);
        for tag in 1..=5 {
            all.made(tag, at(10), at(20));
        }
        all.started(1, at(10));
        all.started(2, at(9));
        all.started(2, at(15));
        all.left(3);
        all.started(3, at(15));
        all.expire(at(20));
        assert_eq!((all.record().right, all.record().of), (1, 2));
        all.expire(at(21));
        assert_eq!((all.record().right, all.record().of), (1, 4), "those whose time is over were wrong");
        all.started(4, at(22));
        all.made(9, at(30), at(40));
        all.forget_made();
        all.started(9, at(50));
        assert_eq!((all.record().right, all.record().of), (1, 4));
        let json = serde_json::to_value(all.record()).unwrap();
        assert_eq!(json, serde_json::json!({ "right": 1, "of": 4, "coverage": 0.25 }));
    }

    #[test]
    fn the_factor_rests_where_eight_in_ten_come_true() {
        let mut all = Calibration::default();
        let before = all.factor();
        for tag in 0..1_000 {
            all.made(tag, at(10), at(20));
            all.started(tag, at(if tag % 5 == 0 { 30 } else { 15 }));
        }
        assert!((all.factor() - before).abs() < 0.1, "{}", all.factor());
        assert_eq!(all.record().coverage(), Some(0.8));
        for tag in 0..200 {
            all.made(tag, at(10), at(20));
            all.started(tag, at(30));
        }
        assert!((all.factor().ln() - WIDEST).abs() < 1e-9, "it does not grow without end");
    }

    #[test]
    fn few_are_remembered_at_a_time_and_the_record_is_of_the_newest() {
        let mut all = Calibration::default();
        (0..100).for_each(|tag| all.made(tag, at(10), at(20)));
        assert!(all.is_full());
        all.expire(at(100));
        assert_eq!(all.record().of, MOST_MADE as u64);
        for tag in 0..KEPT as u64 {
            all.made(tag, at(110), at(120));
            all.started(tag, at(115));
        }
        assert_eq!((all.record().right, all.record().of), (KEPT as u64, KEPT as u64));
    }
}
