//! How a queue is, in one word: the rule by which the console, `celeriac top` and `celeriac report` say what needs a person
//! first.

use std::time::Duration;

use serde::Serialize;

use super::facts::{QueueFigures, QueueService};

/// A queue with ready tasks that starts nothing for so long is stuck, whatever it promises. HQ has the same bound.
pub(super) const STUCK: Duration = Duration::from_secs(5 * 60);

/// How a queue is, in one word. What has to be looked at first is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum QueueCondition {
    /// It has stopped itself, because its workers died too often.
    Halted,
    /// Its oldest ready task waits longer than it promises.
    Late,
    /// It has ready tasks and starts nothing.
    Stuck,
    /// It has ready tasks, and no program takes them.
    Unserved,
    /// It does not answer.
    Silent,
    /// It will be late soon.
    AtRisk,
    /// It has used more than half of its promise.
    Strained,
    /// An operator has paused it.
    Paused,
    /// The broker cannot be asked.
    Away,
    /// It works, and keeps its promise, if it has one.
    Fine,
    /// It has nothing to do.
    Idle,
}

impl QueueCondition {
    /// The condition of a queue with these figures. What limits and brakes hold is not ready, and makes no queue late.
    pub fn of(queue: &QueueFigures) -> Self {
        let used = promise_used(queue).unwrap_or_default();
        match queue {
            queue if queue.halted.is_some() => Self::Halted,
            queue if queue.paused => Self::Paused,
            queue if queue.away => Self::Away,
            queue if queue.service == QueueService::Silent => Self::Silent,
            _ if used >= 1.0 => Self::Late,
            queue if queue.blockage >= STUCK => Self::Stuck,
            queue if queue.service != QueueService::Served && queue.ready > 0 => Self::Unserved,
            _ if used >= 0.8 => Self::AtRisk,
            _ if used >= 0.5 => Self::Strained,
            queue if queue.running == 0 && queue.ready == 0 && queue.held == 0 => Self::Idle,
            _ => Self::Fine,
        }
    }

    /// Returns the word for the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Halted => "halted",
            Self::Late => "late",
            Self::Stuck => "stuck",
            Self::Unserved => "unserved",
            Self::Silent => "silent",
            Self::AtRisk => "at risk",
            Self::Strained => "strained",
            Self::Paused => "paused",
            Self::Away => "broker away",
            Self::Fine => "fine",
            Self::Idle => "idle",
        }
    }

    /// Whether the queue does not keep up, so that it is worth a look who has so many tasks in it.
    pub(crate) fn is_pressed(self) -> bool {
        matches!(self, Self::Late | Self::Stuck | Self::AtRisk | Self::Unserved)
    }

    /// Whether somebody should look at it.
    pub fn needs_a_person(self) -> bool {
        !matches!(self, Self::Strained | Self::Fine | Self::Idle)
    }
}

/// The share of its promise that a queue has used for its oldest ready task; `None`: it promises nothing.
pub fn promise_used(queue: &QueueFigures) -> Option<f64> {
    let target = queue.target.filter(|target| !target.is_zero())?;
    Some(queue.oldest_wait.as_secs_f64() / target.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waits(waited: u64, target: Option<u64>) -> QueueFigures {
        QueueFigures {
            ready: 1,
            oldest_wait: Duration::from_secs(waited),
            target: target.map(Duration::from_secs),
            ..QueueFigures::named("email")
        }
    }

    #[test]
    fn the_promise_decides_and_a_pause_excuses() {
        use QueueCondition as Is;
        for (waited, expected) in
            [(0, Is::Fine), (49, Is::Fine), (50, Is::Strained), (80, Is::AtRisk), (100, Is::Late)]
        {
            assert_eq!(Is::of(&waits(waited, Some(100))), expected, "{waited}");
        }
        let paused = QueueFigures { paused: true, ..waits(900, Some(100)) };
        assert_eq!(Is::of(&paused), Is::Paused);
        let halted = QueueFigures { halted: Some("they die".to_owned()), ..paused };
        assert_eq!(Is::of(&halted), Is::Halted);
        assert_eq!(Is::of(&QueueFigures::named("email")), Is::Idle);
        assert_eq!(Is::of(&QueueFigures { blockage: STUCK, ..waits(300, None) }), Is::Stuck);
        let stopped = QueueFigures { service: QueueService::ProgramStopped, ..waits(1, None) };
        assert_eq!(Is::of(&stopped), Is::Unserved);
        let silent = QueueFigures { service: QueueService::Silent, ..QueueFigures::named("email") };
        assert_eq!(Is::of(&silent), Is::Silent);
    }

    proptest! {
        /// A queue that only waits longer is never called better.
        #[test]
        fn waiting_makes_no_queue_better(waited in 0u64..10_000, more in 0u64..10_000, target in 1u64..5_000) {
            let of = |waited| QueueCondition::of(&waits(waited, Some(target)));
            let rank = |condition: QueueCondition| match condition {
                QueueCondition::Fine | QueueCondition::Idle => 3,
                QueueCondition::Strained => 2,
                QueueCondition::AtRisk => 1,
                _ => 0,
            };
            prop_assert!(rank(of(waited + more)) <= rank(of(waited)));
        }
    }
}
