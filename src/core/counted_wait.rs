//! From when the waiting of a task counts for the promise of its queue. It is one rule for the scheduler, the accounts, the health
//! of a queue, the metrics and every screen, so what presses the scheduler is what a person sees.
//!
//! Nothing counts for which the queue can do nothing: the time before the ETA; the wait for the task's lane, for a brake or a
//! limit, each of which has a figure of its own; the time in which the tenant had more than its share of the slots. A task that
//! has run before, and comes back without a time, waits anew.

use super::Timestamp;

/// The times that decide from when the waiting of a task counts. A time that is not stated decides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitTimes {
    /// When the task was enqueued, or from when its waiting has counted so far.
    pub since: Timestamp,
    /// The ETA of the task, if it has one.
    pub eta: Option<Timestamp>,
    /// When its lane let it in.
    pub let_in_at: Option<Timestamp>,
    /// When it came back after a run.
    pub came_back_at: Option<Timestamp>,
    /// Since when no brake or limit holds it.
    pub free_since: Option<Timestamp>,
    /// Since when its tenant is owed again.
    pub owed_since: Option<Timestamp>,
}

impl WaitTimes {
    /// From when the waiting counts: the last of the times.
    pub fn counts_from(self) -> Timestamp {
        let Self { since, eta, let_in_at, came_back_at, free_since, owed_since } = self;
        let later = [eta, let_in_at, came_back_at, free_since, owed_since];
        later.into_iter().flatten().fold(since, Timestamp::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    #[test]
    fn what_the_queue_can_do_nothing_about_does_not_count() {
        let plain = WaitTimes { since: at(10), ..WaitTimes::default() };
        assert_eq!(plain.counts_from(), at(10));
        for times in [
            WaitTimes { eta: Some(at(20)), ..plain },
            WaitTimes { let_in_at: Some(at(20)), ..plain },
            WaitTimes { came_back_at: Some(at(20)), ..plain },
            WaitTimes { free_since: Some(at(20)), ..plain },
            WaitTimes { owed_since: Some(at(20)), ..plain },
        ] {
            assert_eq!(times.counts_from(), at(20), "{times:?}");
            let all = WaitTimes { eta: Some(at(5)), free_since: Some(at(30)), ..times };
            assert_eq!(all.counts_from(), at(30), "the last one decides: {all:?}");
        }
        assert_eq!(
            WaitTimes { eta: Some(at(5)), ..plain }.counts_from(),
            at(10),
            "it was over at the enqueue"
        );
    }
}
