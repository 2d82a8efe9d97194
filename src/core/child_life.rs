//! The life of one child process of a process pool: it starts, takes one task after the other, and ends by itself, by a
//! kill, or because it is used up.
//!
//! Invariants:
//! - A child has at most one run, and each run ends once: with its outcome, or with the process.
//! - A child that is used up, is being ended or is gone takes no run.
//! - The caller is told once to stop the process, and once what its end means.

/// The limits at which a child is recycled: Celery's `worker_max_tasks_per_child` and `worker_max_memory_per_child`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildLimits {
    /// The number of runs after which the child is used up; `None`: there is no such number.
    pub max_tasks: Option<u32>,
    /// The resident memory in bytes above which the child is used up, looked at after each run; `None`: it may grow.
    pub max_memory: Option<u64>,
}

/// Why a child takes no more tasks although nothing is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedUp {
    /// The child has run as many tasks as it may.
    Tasks(u32),
    /// The child has kept this many bytes of memory after a run, which is more than it may.
    Memory(u64),
}

/// The meaning of the end of a child's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildDeath {
    /// The process ended before it was ready for its first task.
    WhileStarting,
    /// The process ended by itself while it had no task.
    WhileIdle,
    /// The process ended by itself while it ran a task, and the run ended with it.
    WhileBusy,
    /// The process was to end.
    Expected,
}

/// The way in which the caller stops a child's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildStop {
    /// The process has nothing to do, and ends by itself when it is told to.
    Dismiss,
    /// The process has to be killed.
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChildPhase {
    Starting,
    Idle,
    Busy,
    /// It has no run, and takes none.
    UsedUp,
    /// It was dismissed or killed, and its process may still be there.
    Stopped,
    Gone,
}

/// The life of one child.
#[derive(Clone, Debug)]
pub struct ChildLife {
    limits: ChildLimits,
    phase: ChildPhase,
    runs: u32,
    used_up: Option<UsedUp>,
}

impl ChildLife {
    /// A child whose process has just been started.
    pub fn new(limits: ChildLimits) -> Self {
        Self { limits, phase: ChildPhase::Starting, runs: 0, used_up: None }
    }

    /// The child says that it is ready for tasks. `false`: it has said so before, or is to end.
    pub fn ready(&mut self) -> bool {
        let is_news = self.phase == ChildPhase::Starting;
        if is_news {
            self.phase = ChildPhase::Idle;
        }
        is_news
    }

    /// Gives the child a run. `false`: it cannot take one now.
    pub fn begin(&mut self) -> bool {
        let takes = self.phase == ChildPhase::Idle;
        if takes {
            self.phase = ChildPhase::Busy;
            self.runs = self.runs.saturating_add(1);
        }
        takes
    }

    /// The child has told the outcome of its run, and has this many bytes of memory now. `false`: it had no run whose
    /// outcome counts.
    pub fn end(&mut self, memory: Option<u64>) -> bool {
        if self.phase != ChildPhase::Busy {
            return false;
        }
        let ChildLimits { max_tasks, max_memory } = self.limits;
        let by_tasks = max_tasks.filter(|most| self.runs >= *most).map(|_| UsedUp::Tasks(self.runs));
        let by_memory = memory.filter(|used| max_memory.is_some_and(|most| *used > most)).map(UsedUp::Memory);
        self.used_up = by_tasks.or(by_memory);
        self.phase = if self.used_up.is_some() { ChildPhase::UsedUp } else { ChildPhase::Idle };
        true
    }

    /// Nobody needs the child any more. `Some`: the caller stops the process in this way; `None`: that was done before.
    pub fn dismiss(&mut self) -> Option<ChildStop> {
        let stop = match self.phase {
            ChildPhase::Idle | ChildPhase::UsedUp => ChildStop::Dismiss,
            ChildPhase::Starting | ChildPhase::Busy => ChildStop::Kill,
            ChildPhase::Stopped | ChildPhase::Gone => return None,
        };
        self.phase = ChildPhase::Stopped;
        Some(stop)
    }

    /// The child must end now, whatever it does. `false`: it is being ended, or is gone.
    pub fn kill(&mut self) -> bool {
        let lives = !matches!(self.phase, ChildPhase::Stopped | ChildPhase::Gone);
        if lives {
            self.phase = ChildPhase::Stopped;
        }
        lives
    }

    /// The process has ended. A second call says that this was expected.
    pub fn exited(&mut self) -> ChildDeath {
        match std::mem::replace(&mut self.phase, ChildPhase::Gone) {
            ChildPhase::Starting => ChildDeath::WhileStarting,
            // What is used up was about to be dismissed.
            ChildPhase::UsedUp | ChildPhase::Stopped | ChildPhase::Gone => ChildDeath::Expected,
            ChildPhase::Idle => ChildDeath::WhileIdle,
            ChildPhase::Busy => ChildDeath::WhileBusy,
        }
    }

    /// Why the child takes no more tasks, if it is used up.
    pub fn used_up(&self) -> Option<UsedUp> {
        self.used_up
    }

    /// Whether the child may take a run, now or when the one that it has is over.
    pub fn is_fit(&self) -> bool {
        matches!(self.phase, ChildPhase::Starting | ChildPhase::Idle | ChildPhase::Busy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ready(max_tasks: Option<u32>, max_memory: Option<u64>) -> ChildLife {
        let mut child = ChildLife::new(ChildLimits { max_tasks, max_memory });
        assert!(child.ready());
        child
    }

    #[test]
    fn a_child_is_used_up_after_its_tasks_or_above_its_memory() {
        let mut child = ready(Some(2), None);
        assert!(child.begin() && child.end(Some(u64::MAX)) && child.is_fit());
        assert!(child.begin() && child.end(None) && !child.is_fit());
        assert_eq!(child.used_up(), Some(UsedUp::Tasks(2)));
        assert!(!child.begin());
        assert_eq!(child.dismiss(), Some(ChildStop::Dismiss));
        assert_eq!((child.dismiss(), child.exited()), (None, ChildDeath::Expected));

        let mut child = ready(None, Some(100));
        assert!(child.begin() && child.end(Some(100)) && child.is_fit(), "it may have as much");
        assert!(child.begin() && child.end(Some(101)) && !child.is_fit());
        assert_eq!(child.used_up(), Some(UsedUp::Memory(101)));
    }

    #[test]
    fn what_its_death_means_depends_on_what_it_did() {
        let limits = ChildLimits::default();
        assert_eq!(ChildLife::new(limits).exited(), ChildDeath::WhileStarting);
        assert_eq!(ready(None, None).exited(), ChildDeath::WhileIdle);
        let mut busy = ready(None, None);
        assert!(busy.begin());
        assert_eq!((busy.exited(), busy.exited()), (ChildDeath::WhileBusy, ChildDeath::Expected));
        let mut killed = ready(None, None);
        assert!(killed.begin() && killed.kill() && !killed.kill());
        assert!(!killed.end(None), "an outcome that comes after the kill does not count");
        assert_eq!(killed.exited(), ChildDeath::Expected);
    }

    #[test]
    fn a_child_that_nobody_needs_is_told_to_end_unless_it_is_at_work() {
        assert_eq!(ChildLife::new(ChildLimits::default()).dismiss(), Some(ChildStop::Kill));
        assert_eq!(ready(None, None).dismiss(), Some(ChildStop::Dismiss));
        let mut busy = ready(None, None);
        assert!(busy.begin());
        assert_eq!(busy.dismiss(), Some(ChildStop::Kill));
    }

    proptest! {
        /// Whatever comes in whatever order: no run beside another, no run of a child that is not fit, as many ends as
        /// runs, and one stop.
        #[test]
        fn no_order_of_events_breaks_a_rule(
            max_tasks in prop::option::of(1_u32..5),
            max_memory in prop::option::of(0_u64..20),
            events in prop::collection::vec((0_u8..6, 0_u64..40), 1..80),
        ) {
            let mut child = ChildLife::new(ChildLimits { max_tasks, max_memory });
            let (mut is_ready, mut is_over, mut has_run) = (false, false, false);
            let (mut runs, mut ends, mut stops) = (0_u32, 0_u32, 0_u32);
            for (event, memory) in events {
                match event {
                    0 => {
                        let news = child.ready();
                        prop_assert_eq!(news, !is_ready && !is_over);
                        is_ready |= news;
                    }
                    1 => {
                        let fit = child.is_fit();
                        if child.begin() {
                            prop_assert!(fit && is_ready && !is_over && !has_run);
                            has_run = true;
                            runs += 1;
                        }
                    }
                    2 => {
                        let ended = child.end(Some(memory));
                        prop_assert_eq!(ended, has_run);
                        if ended {
                            has_run = false;
                            ends += 1;
                            let used_up = max_tasks.is_some_and(|most| runs >= most)
                                || max_memory.is_some_and(|most| memory > most);
                            prop_assert_eq!(!child.is_fit(), used_up);
                        }
                    }
                    3 | 4 => {
                        let stopped = if event == 3 { child.kill() } else { child.dismiss().is_some() };
                        prop_assert_eq!(stopped, !is_over);
                        stops += u32::from(stopped);
                        // The run ends with the process.
                        ends += u32::from(std::mem::take(&mut has_run));
                        is_over = true;
                    }
                    _ => {
                        let death = child.exited();
                        prop_assert_eq!(death == ChildDeath::WhileBusy, has_run);
                        ends += u32::from(std::mem::take(&mut has_run));
                        is_over = true;
                    }
                }
                prop_assert_eq!(ends + u32::from(has_run), runs);
                prop_assert!(stops <= 1 && max_tasks.is_none_or(|most| runs <= most));
                prop_assert!(!is_over || !child.is_fit());
            }
        }
    }
}
