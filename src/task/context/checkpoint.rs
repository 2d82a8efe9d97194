//! Checkpoints: the places where a long body can stop and go on later, in another run, so that others need not wait for its
//! end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
#[cfg(unix)]
use std::time::Duration;

use super::Context;
use crate::task::{Interrupt, Signature, Task, TaskError};

/// How often it is looked whether the slot of a body in another process is wanted back.
#[cfg(unix)]
const LOOK: Duration = Duration::from_millis(100);

/// A pool of slots, as a run sees it that has one of them.
pub(crate) trait SlotOwner: Send + Sync {
    /// Whether any task waits that might get a slot if one was free. Costs an atomic load.
    fn is_wanted(&self) -> bool;

    /// Whether the run of this number is to give its slot up. The pool counts on it from then on.
    fn wants_back(&self, run: u64) -> bool;
}

/// The slot that a run has of a pool.
pub(crate) struct LentSlot {
    pub(crate) owner: Arc<dyn SlotOwner>,
    /// The number of the run in the pool.
    pub(crate) run: u64,
}

impl Context {
    /// Ends the run here, to go on with the arguments of `next` in a later run, if something wants its slot more: a task that
    /// its queue has promised to start sooner, a tenant that has had less of the slots, or the end of the program. If nothing
    /// does, the body goes on. It is meant to be called again and again, wherever the body can go on from.
    ///
    /// The task keeps its id, its progress and its place in a canvas ([`TaskError::continue_with`]), and no attempt is counted.
    /// It waits at the end of its queue. A body that does its work and then asks does it once:
    ///
    /// ```
    /// use celeriac::{Context, TaskError, task};
    ///
    /// #[task]
    /// fn rebuild(ctx: &Context, table: String, first: u64) -> Result<u64, TaskError> {
    ///     for row in first..1_000 {
    ///         ctx.checkpoint(|| rebuild::s(table.clone(), row))?; // all rows before this one are done
    ///         println!("{table}: row {row}");
    ///     }
    ///     Ok(1_000)
    /// }
    /// # fn main() { assert_eq!(rebuild(&Context::detached(), "forms".into(), 998).unwrap(), 1_000); }
    /// ```
    ///
    /// While nothing wants the slot, a call costs a few nanoseconds. A run keeps its slot for a moment in any case, so that it
    /// gets on, and runs give way one after the other. Where queues share no slots, only the end of the program ends a run here.
    ///
    /// # Errors
    /// The run should end: `next` is in the error, which the body returns as it is. If the task was revoked, reached its soft
    /// time limit or lost its lane, the error is that of [`check`](Self::check), and the task does not go on.
    pub fn checkpoint<T: Task>(&self, next: impl FnOnce() -> Signature<T>) -> Result<(), TaskError> {
        match self.interrupt() {
            None if !self.is_to_give_way() => Ok(()),
            None | Some(Interrupt::Shutdown) => Err(TaskError::continue_with(next())),
            Some(interrupt) => Err(interrupt.into()),
        }
    }

    fn is_to_give_way(&self) -> bool {
        let wants_back = |slot: &LentSlot| slot.owner.is_wanted() && slot.owner.wants_back(slot.run);
        self.run.gives_way.load(Ordering::Acquire) || self.run.slot.get().is_some_and(wants_back)
    }

    /// Notes the slot that the run has.
    pub(crate) fn lend(&self, slot: LentSlot) {
        let _ = self.run.slot.set(slot);
    }

    /// Has the body end at its next checkpoint.
    #[cfg(unix)]
    pub(crate) fn give_way(&self) {
        self.run.gives_way.store(true, Ordering::Release);
    }

    /// Completes when the slot is wanted back, for a body in another process, which cannot ask for itself.
    #[cfg(unix)]
    pub(crate) async fn slot_wanted_back(&self) {
        let Some(slot) = self.run.slot.get() else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK).await;
            if slot.owner.is_wanted() && slot.owner.wants_back(slot.run) {
                return;
            }
        }
    }
}
