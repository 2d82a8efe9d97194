//! How a run is told to end, and whether a revocation still counts.

use std::sync::atomic::Ordering;

use super::Context;
use crate::task::Interrupt;

// The reasons to end a run, the stronger one higher: a revocation may follow a shutdown, but never the other way round.
pub(super) const NONE: u8 = 0;
const SOFT: u8 = 1;
const SHUTDOWN: u8 = 2;
const REVOKED: u8 = 3;
const LANE_LOST: u8 = 4;

// The state of a revocation while the task runs. One atomic cell holds it, so that a revocation either counts or learns
// that it came too late.
pub(super) const OPEN: u8 = 0;
const WAS_REVOKED: u8 = 1;
const DECIDED: u8 = 2;

impl Context {
    /// The reason why the run should end now, if there is one.
    pub fn interrupt(&self) -> Option<Interrupt> {
        match self.run.interrupt.load(Ordering::Acquire) {
            SOFT => Some(Interrupt::SoftTimeLimit),
            REVOKED => Some(Interrupt::Revoked),
            SHUTDOWN => Some(Interrupt::Shutdown),
            LANE_LOST => Some(Interrupt::LaneLost),
            _ => None,
        }
    }

    /// Ends a loop when the run should end: `ctx.check()?` returns at a soft time limit, a revocation or a shutdown.
    ///
    /// # Errors
    /// The run should end, for the reason in the error.
    pub fn check(&self) -> Result<(), Interrupt> {
        self.interrupt().map_or(Ok(()), Err)
    }

    /// Waits until the run should end, and answers with the reason. It is meant for `select!`.
    pub async fn interrupted(&self) -> Interrupt {
        self.told(|_| true).await
    }

    /// Waits until the runtime has to stop the body itself, because the task was revoked with `terminate` or its lane
    /// is lost. It does so even if the body was told to end for another reason before.
    pub(crate) async fn terminated(&self) -> Interrupt {
        self.told(|interrupt| matches!(interrupt, Interrupt::Revoked | Interrupt::LaneLost)).await
    }

    /// Waits until the run should end for another reason than this one.
    pub(crate) async fn interrupted_beyond(&self, known: Option<Interrupt>) -> Interrupt {
        self.told(|interrupt| Some(interrupt) != known).await
    }

    async fn told(&self, wanted: impl Fn(Interrupt) -> bool) -> Interrupt {
        loop {
            // The waiter is armed before the look, so that no notice is lost between the two.
            let told = self.run.told.notified();
            if let Some(interrupt) = self.interrupt().filter(|interrupt| wanted(*interrupt)) {
                return interrupt;
            }
            told.await;
        }
    }

    /// Notes that the task was revoked: it will not run again, and with `terminate` the body is told to end. The answer
    /// is `false` if the revocation came too late, because the end of the task is decided.
    pub(crate) fn revoke(&self, terminate: bool) -> bool {
        let before =
            self.run.revocation.compare_exchange(OPEN, WAS_REVOKED, Ordering::AcqRel, Ordering::Acquire);
        if before == Err(DECIDED) {
            return false;
        }
        if terminate {
            self.interrupt_with(Interrupt::Revoked);
        }
        true
    }

    /// Closes the run to revocations when its end is judged, and answers whether it was revoked before.
    pub(crate) fn decide(&self) -> bool {
        self.run.revocation.swap(DECIDED, Ordering::AcqRel) == WAS_REVOKED
    }

    /// Tells the body to end. The strongest reason stays: a lost lane, then a revocation, then a shutdown, then the
    /// soft time limit.
    pub(crate) fn interrupt_with(&self, interrupt: Interrupt) {
        let code = match interrupt {
            Interrupt::SoftTimeLimit => SOFT,
            Interrupt::Revoked => REVOKED,
            Interrupt::Shutdown => SHUTDOWN,
            Interrupt::LaneLost => LANE_LOST,
        };
        self.run.interrupt.fetch_max(code, Ordering::AcqRel);
        self.run.told.notify_waiters();
    }
}
