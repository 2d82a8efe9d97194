//! How far a task is, and when that is worth telling.
//!
//! Invariants:
//! - The bar never goes back, through retries, crashes and continuations: it shows the furthest progress that the
//!   task ever reported. An attempt that starts over moves the bar again once it has come further than the attempt
//!   before it.
//! - The bar never reaches the end by itself: a task is done when its outcome says so. `10 of 10` is shown as 9 of 10
//!   until then.
//! - `0 of 0` is not done. With an unknown total, `7 of 0` is shown as 7 steps and 0 %.
//! - The bar is told at each whole percent, else at most once in each [`QUIET`], and the last value at the end of a
//!   run. So a loop of ten million steps tells it about a hundred times.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// The least time between two tellings within one percent.
pub const QUIET: Duration = Duration::from_millis(200);

/// How far a task is, in steps and percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Progress {
    /// How many steps are done; fewer than `total` until the task is over.
    pub current: u64,
    /// How many steps there are in all; 0: unknown.
    pub total: u64,
    /// The progress in whole percent, 0 to 99; 100 only for a task that succeeded.
    pub percent: u8,
}

impl Progress {
    /// The progress of a task that is not over. `current` is cut to one step before `total`.
    pub fn of(current: u64, total: u64) -> Self {
        if total == 0 {
            return Self { current, total, percent: 0 };
        }
        let current = current.min(total - 1);
        let percent = u128::from(current) * 100 / u128::from(total);
        Self { current, total, percent: u8::try_from(percent).unwrap_or(99).min(99) }
    }

    /// The progress of a task that succeeded.
    pub fn done(total: u64) -> Self {
        Self { current: total, total, percent: 100 }
    }

    /// The share of the steps that are done, from 0 to 1; 0 if the total is unknown.
    pub fn share(&self) -> f64 {
        if self.total == 0 { 0.0 } else { self.current as f64 / self.total as f64 }
    }

    /// Compares two by their shares of steps done, then by their steps.
    fn compare(&self, other: &Self) -> Ordering {
        // With an unknown total, the share is zero.
        let share = |one: &Self, other: &Self| match one.total {
            0 => 0,
            _ => u128::from(one.current) * u128::from(other.total.max(1)),
        };
        share(self, other).cmp(&share(other, self)).then(self.current.cmp(&other.current))
    }

    /// The progress that is further; `self` if both are equal.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if other.compare(&self) == Ordering::Greater { other } else { self }
    }
}

/// The progress bar of one task, and what was told of it.
#[derive(Clone, Debug, Default)]
pub struct Bar {
    shown: Option<Progress>,
    note: Option<String>,
    note_is_new: bool,
    told_at: Option<Timestamp>,
}

impl Bar {
    /// The bar of a task that an earlier run has shown already.
    pub fn resumed(shown: Option<Progress>, note: Option<String>) -> Self {
        Self { shown, note, note_is_new: false, told_at: None }
    }

    /// The progress that the bar shows.
    pub fn shown(&self) -> Option<Progress> {
        self.shown
    }

    /// The text that stands beside the bar.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The task reports its progress. Returns whether this has to be told now.
    pub fn report(&mut self, current: u64, total: u64, now: Timestamp) -> bool {
        let before = self.shown;
        if !self.move_to(current, total) {
            return false;
        }
        let percent = |shown: Option<Progress>| shown.map(|shown| shown.percent);
        let is_due = percent(before) != percent(self.shown) || self.is_due(now);
        if is_due {
            self.told(now);
        }
        is_due
    }

    /// The task reports the text beside the bar. Returns whether this has to be told now.
    pub fn set_note(&mut self, note: &str, now: Timestamp) -> bool {
        if self.note.as_deref() != Some(note) {
            self.note = Some(note.to_owned());
            self.note_is_new = true;
        }
        self.note_is_new && self.is_due(now) && {
            self.told(now);
            true
        }
    }

    /// Some time has passed since the task last reported this progress. Returns whether there is news that has to be
    /// told now.
    pub fn tick(&mut self, current: u64, total: u64, now: Timestamp) -> bool {
        // Nothing may be told too early. News that is not due stays new.
        if !self.is_due(now) {
            return false;
        }
        let is_new = self.move_to(current, total) | self.note_is_new;
        if is_new {
            self.told(now);
        }
        is_new
    }

    /// The run has ended, and this was its last progress. Returns whether there is news that was not told yet.
    pub fn close(&mut self, current: u64, total: u64) -> bool {
        let is_new = self.move_to(current, total) | self.note_is_new;
        self.note_is_new = false;
        is_new
    }

    /// The first step that makes another whole percent of `total`. No earlier step needs a look at the bar.
    pub fn next_step(&self, total: u64) -> u64 {
        let next = self.shown.map_or(0, |shown| u128::from(shown.percent) + 1);
        if total == 0 || next > 99 {
            return u64::MAX;
        }
        u64::try_from((next * u128::from(total)).div_ceil(100)).unwrap_or(u64::MAX)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        // A clock that was set back must not silence the bar.
        self.told_at.is_none_or(|told| now.since(told) >= QUIET || now < told)
    }

    fn told(&mut self, now: Timestamp) {
        self.told_at = Some(now);
        self.note_is_new = false;
    }

    /// Moves the bar if that is further. Returns whether the bar moved.
    fn move_to(&mut self, current: u64, total: u64) -> bool {
        let next = Progress::of(current, total);
        let further = self.shown.is_none_or(|shown| next.compare(&shown) == Ordering::Greater);
        // A report of zero steps of zero says nothing.
        if !further || (self.shown.is_none() && (current, total) == (0, 0)) {
            return false;
        }
        self.shown = Some(next);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neither_nothing_nor_everything_is_done() {
        for (current, total, shown) in [
            (0, 0, (0, 0, 0)),
            (7, 0, (7, 0, 0)),
            (0, 10, (0, 10, 0)),
            (10, 10, (9, 10, 90)),
            (12, 10, (9, 10, 90)),
            (1, 1, (0, 1, 0)),
            (999, 1000, (999, 1000, 99)),
            (1000, 1000, (999, 1000, 99)),
            (u64::MAX, u64::MAX, (u64::MAX - 1, u64::MAX, 99)),
        ] {
            let progress = Progress::of(current, total);
            assert_eq!((progress.current, progress.total, progress.percent), shown, "{current} of {total}");
        }
        let mut bar = Bar::default();
        assert!(!bar.report(0, 0, Timestamp::ZERO) && bar.shown().is_none());
        assert_eq!(Progress::done(3).percent, 100);
    }

    #[test]
    fn a_loop_of_ten_million_tells_each_percent() {
        let (mut bar, total, now) = (Bar::default(), 10_000_000, Timestamp::from_millis(5));
        let mut told = 0;
        let mut next = 0;
        for current in 1..=total {
            if current >= next {
                told += u32::from(bar.report(current, total, now));
                next = bar.next_step(total);
            }
        }
        assert!(!bar.close(total, total) || bar.shown().unwrap().current == total - 1);
        assert_eq!(told, 100);
    }

    #[test]
    fn slow_steps_are_told_as_time_passes() {
        let mut bar = Bar::default();
        let mut told = Vec::new();
        for ms in (0..2_000).step_by(50) {
            if bar.tick(ms + 1, 1_000_000, Timestamp::from_millis(ms)) {
                told.push(ms);
            }
        }
        assert_eq!(told, (0..2_000).step_by(200).collect::<Vec<_>>());
    }

    #[test]
    fn a_note_is_told_with_its_time_and_not_twice() {
        let at = Timestamp::from_millis;
        let mut bar = Bar::default();
        assert!(bar.set_note("reading", at(0)));
        assert!(!bar.set_note("reading", at(500)));
        assert!(bar.set_note("writing", at(600)));
        assert!(!bar.set_note("zipping", at(700)), "too early");
        assert!(bar.tick(0, 0, at(900)) && !bar.tick(0, 0, at(2_000)));
        assert!(!bar.set_note("closing", at(950)) && bar.close(0, 0), "the last one is told at the end");
    }

    proptest! {
        /// Tasks may report any progress in any number of attempts, with a clock that goes any way.
        #[test]
        fn the_bar_never_goes_back_and_never_ends(
            steps in prop::collection::vec((0u64..5_000, 0u64..2_000, 0u64..2_000, 0u8..8), 1..200)
        ) {
            let (mut bar, mut seen, mut told_at) = (Bar::default(), None::<Progress>, None::<Timestamp>);
            for (ms, current, total, act) in steps {
                let now = Timestamp::from_millis(ms);
                let before = bar.shown();
                let told = match act {
                    0 => { bar = Bar::resumed(bar.shown(), None); told_at = None; false }
                    1 => bar.close(current, total),
                    2 => bar.set_note(&format!("{current}"), now),
                    3 | 4 => bar.tick(current, total, now),
                    _ => bar.report(current, total, now),
                };
                if let Some(shown) = bar.shown() {
                    prop_assert!(shown.percent < 100 && (shown.total == 0 || shown.current < shown.total));
                    if let Some(seen) = seen {
                        prop_assert_ne!(shown.compare(&seen), Ordering::Less);
                        prop_assert!(shown.percent >= seen.percent);
                    }
                    seen = Some(shown);
                }
                if told && act != 1 {
                    let percent = |p: Option<Progress>| p.map(|p| p.percent);
                    let quiet = told_at.is_none_or(|at| now.since(at) >= QUIET || now < at);
                    prop_assert!(quiet || percent(before) != percent(bar.shown()), "told too often");
                    told_at = Some(now);
                }
            }
        }

        /// The next step at which somebody looks is the first step that makes another percent.
        #[test]
        fn no_percent_is_missed(total in 1u64..3_000, start in 0u64..3_000) {
            let mut bar = Bar::default();
            bar.report(start, total, Timestamp::ZERO);
            let next = bar.next_step(total);
            let shown = bar.shown().map_or(0, |shown| shown.percent);
            for current in start..total {
                prop_assert_eq!(Progress::of(current, total).percent > shown, current >= next);
            }
        }
    }
}
