//! How often one key has started on a local day.
//!
//! Where a store keeps the counts, the limiter takes shares of a day's cap from it, and starts runs from its share. So the
//! count in the store is never lower than what has started, whenever a process dies: the rest of a share that a process had
//! is lost with it, and the cap is kept. The counts of the two latest days are kept, because clocks that are put back over
//! midnight show a day once more.

use std::time::Duration;

use super::limiter::{LimitClock, LimitQuestion, Refused};
use super::{LimitedBy, PendingQuestion};
use crate::core::calendar::{LocalDay, Zone};

#[derive(Clone, Debug, Default)]
pub(super) struct DayCounts(Vec<DayCount>);

#[derive(Clone, Debug)]
struct DayCount {
    day: LocalDay,
    started: u32,
    /// How many may start here, as far as the store was asked.
    granted: u32,
    /// The store has nothing left for this day.
    is_spent: bool,
    question: PendingQuestion,
}

/// How many starts a process takes from the store at a time: a twentieth of the day's cap, and a hundred at most.
pub(super) fn share(cap: u32) -> u32 {
    (cap / 20).clamp(1, 100)
}

impl DayCounts {
    /// Whether another run may start today. `is_kept`: a store keeps the counts.
    pub(super) fn check(
        &mut self,
        cap: u32,
        zone: Zone,
        is_kept: bool,
        now: LimitClock,
    ) -> Result<(), Refused> {
        let day = LocalDay::at(now.wall, zone);
        let count = self.of(day);
        if !is_kept {
            count.granted = cap;
            count.is_spent = true;
        }
        if count.started < count.granted {
            return Ok(());
        }
        if count.is_spent {
            return Err(Refused::by(LimitedBy::Daily(cap), Some(day.end(zone).since(now.wall))));
        }
        let question = LimitQuestion::Day { day, cap, share: share(cap) };
        let question = count.question.ask(now.steady).then_some(question);
        let wait = Some(count.question.wait(now.steady));
        Err(Refused { question, ..Refused::by(LimitedBy::Unanswered, wait) })
    }

    /// Counts a start of today, and returns the day.
    pub(super) fn start(&mut self, zone: Zone, now: LimitClock) -> LocalDay {
        let day = LocalDay::at(now.wall, zone);
        let count = self.of(day);
        count.started = count.started.saturating_add(1);
        day
    }

    /// Takes a start back that came to nothing.
    pub(super) fn take_back(&mut self, day: LocalDay) {
        if let Some(count) = self.0.iter_mut().find(|count| count.day == day) {
            count.started = count.started.saturating_sub(1);
        }
    }

    /// The store has granted a share of a day; `Some(0)`: nothing is left. `None`: it has not answered.
    pub(super) fn grant(&mut self, day: LocalDay, share: Option<u32>, now: Duration) {
        let Some(count) = self.0.iter_mut().find(|count| count.day == day) else { return };
        match share {
            Some(share) => {
                count.granted = count.granted.saturating_add(share);
                count.is_spent = share == 0;
                count.question.answered(now, Duration::ZERO);
            }
            None => count.question.answered(now, super::LOOK_AGAIN),
        }
    }

    /// Takes out the parts of shares that nothing has started from, with their days.
    pub(super) fn unused(&mut self) -> impl Iterator<Item = (LocalDay, u32)> {
        self.0.iter_mut().filter_map(|count| {
            let unused = count.granted.saturating_sub(count.started);
            count.granted = count.granted.min(count.started);
            (unused > 0).then_some((count.day, unused))
        })
    }

    /// How many have started here today.
    pub(super) fn started(&self, zone: Zone, now: LimitClock) -> u32 {
        let today = LocalDay::at(now.wall, zone);
        self.0.iter().find(|count| count.day == today).map_or(0, |count| count.started)
    }

    /// Whether nothing is lost when the counts are forgotten: all of them are of days that are over.
    pub(super) fn is_idle(&self, zone: Zone, now: LimitClock) -> bool {
        let today = LocalDay::at(now.wall, zone);
        self.0.iter().all(|count| {
            count.day < today
                || (count.started == 0 && count.granted == 0 && count.question.asked_at.is_none())
        })
    }

    fn of(&mut self, day: LocalDay) -> &mut DayCount {
        let at = match self.0.iter().position(|count| count.day == day) {
            Some(at) => at,
            None => {
                if self.0.len() >= 2
                    && let Some(oldest) = (0..self.0.len()).min_by_key(|at| self.0[*at].day)
                {
                    self.0.swap_remove(oldest);
                }
                let question = PendingQuestion::default();
                self.0.push(DayCount { day, started: 0, granted: 0, is_spent: false, question });
                self.0.len() - 1
            }
        };
        &mut self.0[at]
    }
}
