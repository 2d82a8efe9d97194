//! Permits of one process: kept in its memory, because whoever holds one ends with it. Those that were handed over to a task
//! that has not started outlive it, where there are notes to keep them.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::core::permits::{PermitHolder, Permits, Want};
use crate::task::clock::now;
use crate::task::{Asked, PermitKeeper};

/// Keeps what is handed over through the end of the process. It must not block.
pub(crate) trait Parking: Send + Sync + 'static {
    /// What was parked when the process ended, by name.
    fn parked(&self) -> Result<Vec<(String, PermitHolder)>, String>;
    /// This one is parked.
    fn park(&self, name: &str, holder: &PermitHolder);
    /// This one is not parked any more.
    fn unpark(&self, name: &str, holder: &str);
}

/// Keeps permits for one process.
#[derive(Default)]
pub(crate) struct LocalPermits {
    state: Mutex<State>,
    freed: Notify,
    parking: Option<Box<dyn Parking>>,
}

#[derive(Default)]
struct State {
    permits: Permits,
    /// What was parked by an earlier life of the program is known.
    is_restored: bool,
    /// What is noted as parked: holder and name. The rest needs no note.
    parked: BTreeSet<(String, String)>,
}

impl LocalPermits {
    /// With a place for what is handed over.
    pub(crate) fn parking(parking: impl Parking) -> Self {
        Self { parking: Some(Box::new(parking)), ..Self::default() }
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parking) = self.parking.as_ref().filter(|_| !state.is_restored) {
            for (name, holder) in parking.parked()? {
                state.parked.insert((holder.holder.clone(), name.clone()));
                state.permits.restore(&name, holder);
            }
            state.is_restored = true;
        }
        Ok(state)
    }

    fn unpark(&self, state: &mut State, wants: &[Want], holder: &str) {
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
    async fn acquire(&self, wants: &[Want], holder: &str) -> Result<Asked, String> {
        let mut state = self.state()?;
        Ok(match state.permits.acquire(wants, holder, now()) {
            Ok(tokens) => {
                self.unpark(&mut state, wants, holder);
                Asked::Granted { tokens, lost: Arc::new(AtomicBool::new(false)) }
            }
            Err(busy) => Asked::Busy(busy),
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

    async fn holders(&self, name: &str) -> Result<Vec<PermitHolder>, String> {
        Ok(self.state()?.permits.holders(name, now()))
    }
}
