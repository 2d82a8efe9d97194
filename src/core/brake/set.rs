//! All brakes that are in force, and what they decide together about one task.

use super::{Brake, BrakeAction, BrakeError, RuleMatcher, Subject};
use crate::core::Timestamp;

/// Some brakes, compiled. The oldest come first.
#[derive(Debug, Default)]
pub struct BrakeSet {
    brakes: Vec<CompiledBrake>,
    diverts: bool,
    sends_away: bool,
}

#[derive(Debug)]
struct CompiledBrake {
    brake: Brake,
    matcher: RuleMatcher,
    per_second: Option<f64>,
}

/// What the brakes decide about a task that could start. The numbers are those of [`BrakeSet::brake`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Braking {
    /// No brake is about it.
    Free,
    /// It starts if each of these brakes has a token for it.
    Slow(Vec<usize>),
    /// It does not start.
    Pause(usize),
    /// It goes to the queue that the brake names.
    Divert(usize),
    /// It is over.
    Expire(usize),
}

impl BrakeSet {
    /// Compiles brakes. Those that have a mistake are left out, and are the second part of the answer.
    pub fn new(brakes: impl IntoIterator<Item = Brake>) -> (Self, Vec<(Brake, BrakeError)>) {
        let (mut compiled, mut wrong) = (Vec::new(), Vec::new());
        for brake in brakes {
            let parts = brake.check().and_then(|()| Ok((brake.rule.compile()?, brake.action.per_second()?)));
            match parts {
                Ok((matcher, per_second)) => compiled.push(CompiledBrake { brake, matcher, per_second }),
                Err(error) => wrong.push((brake, error)),
            }
        }
        compiled.sort_by(|one, other| {
            (one.brake.since, &one.brake.id).cmp(&(other.brake.since, &other.brake.id))
        });
        let any = |is_such: fn(&BrakeAction) -> bool| compiled.iter().any(|one| is_such(&one.brake.action));
        let diverts = any(|action| matches!(action, BrakeAction::Divert { .. }));
        let sends_away = diverts || any(|action| matches!(action, BrakeAction::Expire));
        (Self { brakes: compiled, diverts, sends_away }, wrong)
    }

    /// Whether there is no brake.
    pub fn is_empty(&self) -> bool {
        self.brakes.is_empty()
    }

    /// The brakes, the oldest first.
    pub fn brakes(&self) -> impl Iterator<Item = &Brake> {
        self.brakes.iter().map(|one| &one.brake)
    }

    /// The brake of this number: its place in [`brakes`](Self::brakes).
    pub fn brake(&self, index: usize) -> Option<&Brake> {
        self.brakes.get(index).map(|one| &one.brake)
    }

    /// The rate of each brake, in starts a second; `None`: it slows nothing.
    pub fn rates(&self) -> impl Iterator<Item = Option<f64>> {
        self.brakes.iter().map(|one| one.per_second)
    }

    /// Says whether any brake diverts tasks.
    pub fn diverts(&self) -> bool {
        self.diverts
    }

    /// Whether a brake diverts or ends tasks, so that tasks which match do not wait here for their start.
    pub fn sends_away(&self) -> bool {
        self.sends_away
    }

    /// Decides about a task by the strictest brake that matches: see [`BrakeAction`]. Of several brakes that divert or end
    /// it, the oldest acts; of several that pause it, the one that lasts longest.
    pub fn decide(&self, subject: &Subject<'_>, now: Timestamp) -> Braking {
        let (mut divert, mut slow) = (None, Vec::new());
        let mut pause: Option<(usize, &Brake)> = None;
        for (index, one) in self.brakes.iter().enumerate() {
            let brake = &one.brake;
            if brake.has_ended(now) || !one.matcher.matches(subject) {
                continue;
            }
            match &brake.action {
                BrakeAction::Expire => return Braking::Expire(index),
                BrakeAction::Divert { divert_to } => {
                    if !subject.stays && divert_to != subject.queue {
                        divert = divert.or(Some(index));
                    }
                }
                BrakeAction::Pause => {
                    if pause.is_none_or(|(_, longest)| lasts_longer(brake, longest)) {
                        pause = Some((index, brake));
                    }
                }
                BrakeAction::Slow { .. } => slow.push(index),
            }
        }
        match (divert, pause, slow.is_empty()) {
            (Some(index), ..) => Braking::Divert(index),
            (None, Some((index, _)), _) => Braking::Pause(index),
            (None, None, false) => Braking::Slow(slow),
            (None, None, true) => Braking::Free,
        }
    }
}

/// Whether a brake ends later than another one.
fn lasts_longer(brake: &Brake, other: &Brake) -> bool {
    match (brake.until, other.until) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(until), Some(other)) => until > other,
    }
}
