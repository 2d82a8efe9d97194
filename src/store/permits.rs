//! The permits of one process, kept in its memory, because the holder of a permit ends with the process. A permit
//! that was handed over to a task which has not started outlives the process, if there are notes to keep it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::core::IoFailure;
use crate::core::permits::{PermitHolder, Permits, Want};
use crate::task::clock::now;
use crate::task::{PermitAnswer, PermitKeeper};

/// Keeps permits that are handed over through the end of the process. It must not block.
pub(crate) trait Parking: Send + Sync + 'static {
    /// The permits that were parked when the process ended, with their names.
    fn parked(&self) -> Result<Vec<(String, PermitHolder)>, IoFailure>;
    /// Notes that a permit is parked.
    fn park(&self, name: &str, holder: &PermitHolder);
    /// Notes that a permit is not parked any more.
    fn unpark(&self, name: &str, holder: &str);
}

/// Keeps permits for one process.
#[derive(Default)]
pub(crate) struct LocalPermits {
    state: Mutex<PermitTable>,
    freed: Notify,
    parking: Option<Box<dyn Parking>>,
}

#[derive(Default)]
struct PermitTable {
    permits: Permits,
    /// Whether the permits are known that an earlier run of the program parked.
    is_restored: bool,
    /// The permits that are noted as parked, as holder and name. The others need no note.
    parked: BTreeSet<(String, String)>,
}

impl LocalPermits {
    /// Keeps permits for one process, with a place for those that are handed over.
    pub(crate) fn parking(parking: impl Parking) -> Self {
        Self { parking: Some(Box::new(parking)), ..Self::default() }
    }

    fn state(&self) -> Result<MutexGuard<'_, PermitTable>, IoFailure> {
        let mut state = self.state.lock();
        if let Some(parking) = self.parking.as_ref().filter(|_| !state.is_restored) {
            let now = now();
            for (name, holder) in parking.parked()? {
                if holder.until.is_some_and(|until| until <= now) {
                    // The task of the permit never came for it.
                    parking.unpark(&name, &holder.holder);
                    continue;
                }
                state.parked.insert((holder.holder.clone(), name.clone()));
                state.permits.restore(&name, holder);
            }
            state.is_restored = true;
        }
        Ok(state)
    }

    fn unpark(&self, state: &mut PermitTable, wants: &[Want], holder: &str) {
        let Some(parking) = self.parking.as_ref().filter(|_| !state.parked.is_empty()) else { return };
        for name in names(wants) {
            if state.parked.remove(&(holder.to_owned(), name.to_owned())) {
                parking.unpark(name, holder);
            }
        }
    }
}

fn names(wants: &[Want]) -> impl Iterator<Item = &str> {
    wants.iter().map(|want| want.name.as_str())
}

#[async_trait]
impl PermitKeeper for LocalPermits {
    async fn acquire(&self, wants: &[Want], holder: &str) -> Result<PermitAnswer, IoFailure> {
        let mut state = self.state()?;
        Ok(match state.permits.acquire(wants, holder, now()) {
            Ok(tokens) => {
                self.unpark(&mut state, wants, holder);
                PermitAnswer::Granted { tokens, lost: Arc::new(AtomicBool::new(false)) }
            }
            Err(busy) => PermitAnswer::Busy(busy),
        })
    }

    fn release(&self, wants: &[Want], holder: &str) {
        let Ok(mut state) = self.state() else { return };
        if state.permits.release(names(wants), holder) {
            self.unpark(&mut state, wants, holder);
            drop(state);
            self.freed.notify_waiters();
        }
    }

    fn park(&self, wants: &[Want], holder: &str, within: Duration) {
        let Ok(mut state) = self.state() else { return };
        let now = now();
        state.permits.limit(names(wants), holder, now + within);
        let Some(parking) = &self.parking else { return };
        for name in names(wants) {
            if let Some(held) = state.permits.holders(name, now).iter().find(|h| h.holder == holder) {
                parking.park(name, held);
                state.parked.insert((holder.to_owned(), name.to_owned()));
            }
        }
    }

    async fn freed(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.freed.notified()).await;
    }

    async fn holders(&self, name: &str) -> Result<Vec<PermitHolder>, IoFailure> {
        Ok(self.state()?.permits.holders(name, now()))
    }
}
