//! Looks that all consoles share: fifty people who look at one page cost as much as one.
//!
//! Invariants:
//! - What is looked at is looked at by one at a time. Who comes meanwhile waits, and gets what that one saw.
//! - A look is shared for a moment only, and knows when it was made; the pages say so.
//! - An act forgets all looks, so that whoever has acted sees what came of it.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::core::Timestamp;
use crate::task::clock::now;

/// From this many different looks on, those that nobody has asked for in [`IDLE`] are dropped.
const MANY: usize = 64;
const IDLE: Duration = Duration::from_secs(10);
/// The most different looks that are remembered at all.
const MOST: usize = 512;

type AnyLook = Arc<dyn Any + Send + Sync>;
type LookSlot = Arc<tokio::sync::Mutex<Option<LastLook>>>;

struct LastLook {
    /// When the look had been made.
    done: Instant,
    /// When the look had begun, which is what its numbers are as old as.
    at: Timestamp,
    seen: AnyLook,
}

/// The looks of one console.
#[derive(Default)]
pub(super) struct SharedLooks(Mutex<HashMap<String, (Instant, LookSlot)>>);

/// What was seen, and when.
pub(super) struct Looked<T> {
    pub(super) at: Timestamp,
    pub(super) seen: Arc<T>,
}

impl<T> Clone for Looked<T> {
    fn clone(&self) -> Self {
        Self { at: self.at, seen: Arc::clone(&self.seen) }
    }
}

impl SharedLooks {
    /// What was seen under this name at most `fresh` ago, or what `look` sees now. Each name has looks of one type.
    pub(super) async fn look<T: Any + Send + Sync>(
        &self,
        name: &str,
        fresh: Duration,
        look: impl Future<Output = T>,
    ) -> Looked<T> {
        let slot = self.slot(name);
        let mut last = slot.lock().await;
        if let Some(LastLook { done, at, seen }) = &*last
            && done.elapsed() < fresh
            && let Ok(seen) = Arc::clone(seen).downcast::<T>()
        {
            return Looked { at: *at, seen };
        }
        let at = now();
        let seen = Arc::new(look.await);
        *last = Some(LastLook { done: Instant::now(), at, seen: Arc::clone(&seen) as AnyLook });
        Looked { at, seen }
    }

    /// Forgets all looks.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    fn slot(&self, name: &str) -> LookSlot {
        let mut slots = self.0.lock();
        if slots.len() >= MANY && !slots.contains_key(name) {
            slots.retain(|_, (asked, _)| asked.elapsed() < IDLE);
            if slots.len() >= MOST {
                slots.clear();
            }
        }
        let (asked, slot) =
            slots.entry(name.to_owned()).or_insert_with(|| (Instant::now(), LookSlot::default()));
        *asked = Instant::now();
        Arc::clone(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn fifty_who_look_at_once_cost_one_look() {
        let (looks, made) = (SharedLooks::default(), AtomicUsize::new(0));
        let look = || async {
            tokio::task::yield_now().await;
            made.fetch_add(1, Ordering::SeqCst)
        };
        let all = join_all((0..50).map(|_| looks.look("board", LONG, look()))).await;
        assert!(all.iter().all(|looked| *looked.seen == 0));
        assert_eq!(made.load(Ordering::SeqCst), 1);
        assert_eq!(*looks.look("another", LONG, look()).await.seen, 1);
        looks.forget();
        assert_eq!(*looks.look("board", LONG, look()).await.seen, 2, "after an act it is looked anew");
        assert_eq!(*looks.look("board", Duration::ZERO, look()).await.seen, 3, "it is not fresh any more");
    }

    #[tokio::test]
    async fn looks_are_bounded_whatever_is_asked_for() {
        let looks = SharedLooks::default();
        for n in 0..3 * MOST {
            looks.look(&format!("page {n}"), LONG, async { n }).await;
        }
        assert!(looks.0.lock().len() <= MOST);
        let looked = looks.look("page 0", LONG, async { "text" }).await;
        assert_eq!(*looked.clone().seen, "text");
    }
}
