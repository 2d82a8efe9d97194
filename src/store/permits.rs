//! The permits of one process, kept in its memory, because the holder of a permit ends with the process. A permit
//! that was handed over to a task which has not started outlives the process, if there are notes to keep it.
//!
//! A parked permit is timed by the steady clock: a wall clock that is put forward gives it to nobody early. A steady
//! time means nothing to another process, so a note says until when the permit is parked by the wall clock, and for
//! how long it was parked at all. The next process counts what is left by the wall clock that it finds, and never
//! more than the whole: a wall clock that was put back meanwhile keeps nobody waiting for longer. One that was put
//! forward since the note cannot be told from time that has passed, and ends the permit early.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::core::permits::{PermitHolder, Permits, Want};
use crate::core::{IoFailure, Timestamp};
use crate::task::clock::{now, steady};
use crate::task::{PermitAnswer, PermitKeeper};

/// The note of a permit that is parked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ParkedPermit {
    /// The name of the permit.
    pub(crate) name: String,
    /// Who is to have it, until when by the wall clock.
    pub(crate) holder: PermitHolder,
    /// For how long it was parked at all.
    pub(crate) within: Duration,
}

impl ParkedPermit {
    /// How long the permit is still parked, when the wall clock says `now`.
    fn left(&self, now: Timestamp) -> Duration {
        self.holder.until.map_or(self.within, |until| until.since(now).min(self.within))
    }
}

/// Keeps permits that are handed over through the end of the process. It must not block.
pub(crate) trait Parking: Send + Sync + 'static {
    /// The permits that were parked when the process ended.
    fn parked(&self) -> Result<Vec<ParkedPermit>, IoFailure>;
    /// Notes that a permit is parked.
    fn park(&self, permit: &ParkedPermit);
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
            let (wall, steady) = (now(), steady());
            for parked in parking.parked()? {
                let left = parked.left(wall);
                let ParkedPermit { name, mut holder, .. } = parked;
                if left.is_zero() {
                    // The task of the permit never came for it.
                    parking.unpark(&name, &holder.holder);
                    continue;
                }
                holder.until = Some(steady + left);
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
        Ok(match state.permits.acquire(wants, holder, steady()) {
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
        let (wall, steady) = (now(), steady());
        state.permits.limit(names(wants), holder, steady + within);
        let Some(parking) = &self.parking else { return };
        for name in names(wants) {
            let held = state.permits.holders(name, steady).into_iter().find(|held| held.holder == holder);
            if let Some(held) = held {
                let holder = PermitHolder { until: Some(wall + within), ..held };
                state.parked.insert((holder.holder.clone(), name.to_owned()));
                parking.park(&ParkedPermit { name: name.to_owned(), holder, within });
            }
        }
    }

    async fn freed(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.freed.notified()).await;
    }

    async fn holders(&self, name: &str) -> Result<Vec<PermitHolder>, IoFailure> {
        let (wall, steady) = (now(), steady());
        let mut holders = self.state()?.permits.holders(name, steady);
        for held in &mut holders {
            held.until = held.until.map(|until| wall + until.since(steady)); // as people read it
        }
        Ok(holders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::clock::Jump;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// Keeps its notes as the embedded store does, through the end of a process.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<ParkedPermit>>>);

    impl Parking for Notes {
        fn parked(&self) -> Result<Vec<ParkedPermit>, IoFailure> {
            Ok(self.0.lock().clone())
        }

        fn park(&self, permit: &ParkedPermit) {
            self.0.lock().push(permit.clone());
        }

        fn unpark(&self, name: &str, holder: &str) {
            self.0.lock().retain(|parked| (parked.name.as_str(), &*parked.holder.holder) != (name, holder));
        }
    }

    fn lock() -> [Want; 1] {
        [Want { name: "lock".to_owned(), limit: 1 }]
    }

    async fn is_free(permits: &LocalPermits) -> bool {
        let free = matches!(permits.acquire(&lock(), "b").await.unwrap(), PermitAnswer::Granted { .. });
        permits.release(&lock(), "b");
        free
    }

    async fn parked(notes: &Notes) -> LocalPermits {
        let permits = LocalPermits::parking(notes.clone());
        assert!(matches!(permits.acquire(&lock(), "a").await.unwrap(), PermitAnswer::Granted { .. }));
        permits.park(&lock(), "a", HOUR);
        permits
    }

    #[tokio::test]
    async fn a_wall_clock_that_is_put_forward_gives_a_parked_permit_to_nobody() {
        let permits = parked(&Notes::default()).await;
        let mut clock = Jump::default();
        clock.wall(2 * HOUR);
        assert!(!is_free(&permits).await, "two hours later by the wall clock alone");
        let until = permits.holders("lock").await.unwrap()[0].until.unwrap();
        assert!(until > now() && until <= now() + HOUR, "an hour from now, as people read it");
        clock.pass(HOUR);
        assert!(is_free(&permits).await, "an hour has passed");
    }

    #[tokio::test]
    async fn the_next_process_counts_what_is_left_of_a_parked_permit() {
        let mut clock = Jump::default();
        let notes = Notes::default();
        parked(&notes).await;
        clock.pass(HOUR / 2);
        let next = LocalPermits::parking(notes.clone());
        assert!(!is_free(&next).await, "half an hour is left");
        clock.pass(HOUR / 2);
        assert!(is_free(&next).await, "an hour has passed in all");

        // The wall clock is put back between two processes: the permit is parked for its hour, and no longer.
        let notes = Notes::default();
        clock.wall(48 * HOUR);
        parked(&notes).await;
        drop(clock);
        let mut clock = Jump::default();
        let next = LocalPermits::parking(notes.clone());
        assert!(!is_free(&next).await);
        clock.pass(HOUR);
        assert!(is_free(&next).await);

        // A permit for which nobody came is gone with its note.
        let notes = Notes::default();
        parked(&notes).await;
        clock.pass(HOUR);
        assert!(is_free(&LocalPermits::parking(notes.clone())).await);
        assert_eq!(notes.0.lock().len(), 0);
    }
}
