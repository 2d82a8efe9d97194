//! Whether a queue is well: what its promise allows, and what is more than that.
//!
//! CommCare HQ's rule: a queue is ill when it is blocked, or its tasks are delayed, for longer than its target and for longer
//! than five minutes. Before there was that floor, short blocks were the alarms that nobody could do anything about.

use std::time::Duration;

use serde::Serialize;

/// The shortest time after which a queue is called ill.
pub const FLOOR: Duration = Duration::from_secs(5 * 60);

/// How bad a trouble is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// Somebody should look at it by day.
    Warning,
    /// Tasks do not run that should. Somebody should look at it now.
    Critical,
}

/// What is known of a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueFacts {
    /// The promised longest time-to-start, if there is a promise.
    pub target: Option<Duration>,
    /// For how long nothing has started although tasks wait.
    pub blockage: Duration,
    /// For how long the oldest ready task has waited. What a limit holds is not ready.
    pub oldest_wait: Duration,
    /// Whether an operator has paused the queue.
    pub is_paused: bool,
    /// Whether the queue has stopped itself.
    pub is_halted: bool,
}

/// What is wrong with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueTrouble {
    /// The queue has stopped itself.
    Halted,
    /// Nothing starts although tasks wait, for longer than `most`.
    Blocked {
        /// How long that is allowed to last.
        most: Duration,
    },
    /// Tasks start, but the oldest that waits has waited for longer than `most`.
    Delayed {
        /// How long it is allowed to wait.
        most: Duration,
    },
}

impl QueueTrouble {
    /// Returns the severity of the trouble.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Halted | Self::Blocked { .. } => Severity::Critical,
            Self::Delayed { .. } => Severity::Warning,
        }
    }
}

/// How long a queue with this target may be blocked, and its oldest task may wait. `None`: nothing is promised, so nothing is
/// too long.
///
/// ```
/// use celeriac::core::health::threshold;
/// use std::time::Duration;
/// assert_eq!(threshold(Some(Duration::from_secs(30))), Some(Duration::from_secs(300)));
/// assert_eq!(threshold(Some(Duration::from_secs(3_600))), Some(Duration::from_secs(3_600)));
/// assert_eq!(threshold(None), None);
/// ```
pub fn threshold(target: Option<Duration>) -> Option<Duration> {
    target.map(|target| target.max(FLOOR))
}

/// The worst that is wrong with a queue; `None`: it is well. A pause is what an operator wants, and no trouble.
pub fn trouble(facts: &QueueFacts) -> Option<QueueTrouble> {
    if facts.is_halted {
        return Some(QueueTrouble::Halted);
    }
    let most = threshold(facts.target).filter(|_| !facts.is_paused)?;
    if facts.blockage > most {
        return Some(QueueTrouble::Blocked { most });
    }
    (facts.oldest_wait > most).then_some(QueueTrouble::Delayed { most })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn facts(target: Option<Duration>, blockage: Duration, oldest_wait: Duration) -> QueueFacts {
        QueueFacts { target, blockage, oldest_wait, is_paused: false, is_halted: false }
    }

    #[test]
    fn a_queue_may_be_blocked_for_its_target_and_for_five_minutes() {
        let blocked = |target: Duration, blockage| trouble(&facts(Some(target), blockage, blockage));
        assert_eq!(blocked(MINUTE, 5 * MINUTE), None);
        assert_eq!(blocked(MINUTE, 5 * MINUTE + MINUTE), Some(QueueTrouble::Blocked { most: 5 * MINUTE }));
        assert_eq!(blocked(60 * MINUTE, 59 * MINUTE), None);
        assert_eq!(blocked(60 * MINUTE, 61 * MINUTE), Some(QueueTrouble::Blocked { most: 60 * MINUTE }));
    }

    #[test]
    fn a_queue_that_starts_tasks_too_late_is_delayed() {
        let delayed = facts(Some(MINUTE), MINUTE, 6 * MINUTE);
        let found = trouble(&delayed).expect("it is too late");
        assert_eq!(
            (found, found.severity()),
            (QueueTrouble::Delayed { most: 5 * MINUTE }, Severity::Warning)
        );
    }

    #[test]
    fn a_pause_excuses_a_queue_and_a_halt_does_not() {
        let late = facts(Some(MINUTE), 60 * MINUTE, 60 * MINUTE);
        assert_eq!(trouble(&QueueFacts { is_paused: true, ..late }), None);
        let halted = QueueFacts { is_paused: true, is_halted: true, ..late };
        assert_eq!(trouble(&halted), Some(QueueTrouble::Halted));
    }

    proptest! {
        /// What is not promised is never late, and a longer wait never makes a queue well.
        #[test]
        fn any_queue_only_gets_worse_with_time(
            target in prop::option::of(0u64..10_000),
            blockage in 0u64..20_000,
            more in 0u64..20_000,
            later in 0u64..20_000,
        ) {
            let seconds = Duration::from_secs;
            let at = |time: u64| {
                trouble(&facts(target.map(seconds), seconds(blockage + time), seconds(blockage + more + time)))
                    .map(|trouble| trouble.severity())
            };
            prop_assert!(at(later) >= at(0));
            prop_assert!(target.is_some() || at(later).is_none());
        }
    }
}
