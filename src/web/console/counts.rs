//! Exact counts that pages ask for. A count looks at all that waits, so it may take longer than somebody waits for a page.
//!
//! Invariants:
//! - A page waits for a count for [`PATIENCE`] at most. What takes longer goes on in the background, and the page says how far it
//!   is; the same address asked for again goes on waiting for the same count.
//! - One count is made at a time. The others wait for their turn.
//! - Of counts that nobody has asked for in [`KEPT`], and of more than [`MOST`], nothing is kept, and those that go on end.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::address::ScreenAddress;
use crate::core::Timestamp;
use crate::runtime::rule_count::CountProgress;
use crate::task::clock::now;

/// How long a page waits for its count.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a count is kept after somebody has asked for it.
const KEPT: Duration = Duration::from_secs(300);
/// The most counts that are kept or made.
const MOST: usize = 16;

/// What was counted, as the one who asks knows its type.
type AnyCount = Arc<dyn Any + Send + Sync>;

/// The counts by their keys.
type CountRuns = Mutex<HashMap<String, CountRun>>;

/// The counts of one console.
pub(super) struct Counts {
    kept: Arc<CountRuns>,
    turn: Arc<Semaphore>,
}

/// A count that is made or was made.
struct CountRun {
    /// When somebody has asked for it last.
    asked: Instant,
    progress: Arc<CountProgress>,
    counted: watch::Receiver<Option<AnyCount>>,
    work: AbortHandle,
    /// What takes the count away when nobody has asked for it for [`KEPT`].
    timer: AbortHandle,
}

impl Drop for CountRun {
    fn drop(&mut self) {
        self.work.abort();
        self.timer.abort();
    }
}

/// A count as a page gets it.
#[derive(Debug, PartialEq)]
pub(super) enum Counted<T> {
    /// The count is over.
    Exact(Arc<T>),
    /// The count goes on.
    GoesOn(CountingShare),
}

/// How far a count is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct CountingShare {
    /// At how many tasks was looked.
    pub(super) looked_at: u64,
    /// At how many tasks there is to look, as far as that is known.
    pub(super) of: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { kept: Arc::default(), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Counts {
    /// What was counted under this key, or what `count` counts now. The key says all that the count depends on, also the
    /// moment that it is about, and each key has counts of one type.
    pub(super) async fn count<T, F>(
        &self,
        key: &str,
        count: impl FnOnce(Arc<CountProgress>) -> F,
    ) -> Counted<T>
    where
        T: Send + Sync + 'static,
        F: Future<Output = T> + 'static,
    {
        let (progress, mut counted) = self.run(key, count);
        let done = tokio::time::timeout(PATIENCE, counted.wait_for(Option::is_some)).await;
        if let Ok(done) = done.map(|done| done.ok().and_then(|done| Option::clone(&done))) {
            match done.and_then(|done| Arc::downcast::<T>(done).ok()) {
                Some(done) => return Counted::Exact(done),
                // It has broken off: whoever asks again begins anew.
                None => drop(self.kept.lock().remove(key)),
            }
        }
        let (looked_at, of) = progress.read();
        // Without the number of all, the number so far is known none the less.
        let looked_at = if of == 0 { looked_at } else { looked_at.min(of) };
        Counted::GoesOn(CountingShare { looked_at, of })
    }

    /// What was counted under this key, if that is over and kept.
    pub(super) fn known<T: Send + Sync + 'static>(&self, key: &str) -> Option<Arc<T>> {
        let kept = self.kept.lock();
        let counted = kept.get(key)?.counted.borrow().clone()?;
        Arc::downcast(counted).ok()
    }

    /// The run of this key, which begins now if there is none.
    fn run<T, F>(
        &self,
        key: &str,
        count: impl FnOnce(Arc<CountProgress>) -> F,
    ) -> (Arc<CountProgress>, watch::Receiver<Option<AnyCount>>)
    where
        T: Send + Sync + 'static,
        F: Future<Output = T> + 'static,
    {
        let (mut kept, asked) = (self.kept.lock(), Instant::now());
        if let Some(run) = kept.get_mut(key) {
            run.asked = asked;
            return (Arc::clone(&run.progress), run.counted.clone());
        }
        if kept.len() >= MOST {
            let oldest = kept.iter().min_by_key(|(_, run)| run.asked).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| kept.remove(&oldest));
        }
        let progress = Arc::new(CountProgress::default());
        let (tell, counted) = watch::channel(None);
        let (turn, work) = (Arc::clone(&self.turn), count(Arc::clone(&progress)));
        let work = rt::spawn(async move {
            let _turn = turn.acquire().await;
            let done: AnyCount = Arc::new(work.await);
            tell.send_replace(Some(done));
        });
        let run = CountRun {
            asked,
            progress: Arc::clone(&progress),
            counted: counted.clone(),
            work: work.abort_handle(),
            timer: self.timer(key.to_owned()),
        };
        kept.insert(key.to_owned(), run);
        (progress, counted)
    }

    /// Takes the count of this key away when nobody has asked for it for long, also while it goes on.
    fn timer(&self, key: String) -> AbortHandle {
        let kept = Arc::downgrade(&self.kept);
        let mut until = Instant::now() + KEPT;
        let wait = async move {
            loop {
                tokio::time::sleep_until(until).await;
                let Some(kept) = kept.upgrade() else { return };
                let mut kept = kept.lock();
                let Some(run) = kept.get(&key) else { return };
                until = run.asked + KEPT;
                if until <= Instant::now() {
                    drop(kept.remove(&key));
                    return;
                }
            }
        };
        rt::spawn(wait).abort_handle()
    }
}

/// The moment that the counts of a page are about: the one that its address names, as long as its count may be kept, or now.
pub(super) fn moment_of(address: &ScreenAddress, field: &str) -> Timestamp {
    let named = address.get(field).and_then(|micros| micros.parse().ok()).map(Timestamp::from_micros);
    let now = now();
    named.filter(|at| *at <= now && now.since(*at) < KEPT).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[actix_web::test]
    async fn a_count_that_takes_long_goes_on_and_is_found_again() {
        tokio::time::pause();
        let (counts, made) = (Counts::default(), Arc::new(AtomicU32::new(0)));
        let (end, ended) = oneshot::channel::<()>();
        let began = Arc::clone(&made);
        let first = counts.count("a", |_| async move {
            began.fetch_add(1, Ordering::SeqCst);
            ended.await.expect("somebody ends it");
            7_u64
        });
        assert_eq!(first.await, Counted::GoesOn(CountingShare { looked_at: 0, of: 0 }));
        // Another count waits for its turn.
        let other = counts.count("b", |_| async { 8_u64 });
        assert!(matches!(other.await, Counted::GoesOn(_)));
        assert_eq!(counts.known::<u64>("a"), None);
        end.send(()).expect("it goes on");
        let again = counts.count("a", |_| async { 0_u64 });
        assert_eq!(again.await, Counted::Exact(Arc::new(7)));
        assert_eq!(counts.known("a"), Some(Arc::new(7_u64)));
        let other = counts.count("b", |_| async { 0_u64 });
        assert_eq!(other.await, Counted::Exact(Arc::new(8)));
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn the_manual_names_the_fields_of_a_share() {
        let share = serde_json::to_value(CountingShare { looked_at: 1, of: 2 }).unwrap();
        let fields: Vec<&String> = share.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["looked_at", "of"]);
        let manual = include_str!("../../../docs/console-json-operations.md");
        let section = manual.split("## `brakes.counting`, `confirm.counting`").nth(1).unwrap();
        assert!(section.split("## ").next().unwrap().contains("| `looked_at`, `of` |"), "{section}");
    }

    #[actix_web::test]
    async fn counts_are_bounded_and_the_oldest_end() {
        tokio::time::pause();
        let counts = Counts::default();
        let (dropped, mut drops) = tokio::sync::mpsc::unbounded_channel::<()>();
        for n in 0..=MOST {
            let held = dropped.clone();
            let key = n.to_string();
            let never = counts.count(&key, |_| async move {
                let _held = held;
                std::future::pending::<u64>().await
            });
            assert!(matches!(never.await, Counted::GoesOn(_)));
        }
        assert_eq!(counts.kept.lock().len(), MOST);
        drop((dropped, counts));
        assert_eq!(drops.recv().await, None, "all have ended");
    }

    #[actix_web::test]
    async fn a_count_that_nobody_asks_for_any_more_ends_by_itself() {
        tokio::time::pause();
        let (counts, begun) = (Counts::default(), Instant::now());
        let (held, mut ends) = tokio::sync::mpsc::unbounded_channel::<()>();
        let never = counts.count("a", |_| async move {
            let _held = held;
            std::future::pending::<u64>().await
        });
        assert!(matches!(never.await, Counted::GoesOn(_)));
        // Whoever asks again keeps it.
        tokio::time::advance(KEPT / 2).await;
        let again = counts.count("a", |_| async { 0_u64 });
        assert!(matches!(again.await, Counted::GoesOn(_)));
        assert_eq!(ends.recv().await, None, "it has ended");
        assert!(begun.elapsed() >= KEPT + KEPT / 2, "{:?}", begun.elapsed());
        assert!(counts.kept.lock().is_empty());
    }

    #[test]
    fn an_address_names_the_moment_of_its_count_for_a_while() {
        let of = |micros: u64| {
            let address = ScreenAddress::of(super::super::address::PageName::Confirm);
            moment_of(&address.with("until", micros.to_string()), "until").as_micros()
        };
        let just_now = now().as_micros() - 1_000_000;
        assert_eq!(of(just_now), just_now);
        assert!(of(5) > just_now, "what was counted long ago is counted anew");
        assert!(of(u64::MAX) <= now().as_micros(), "nobody has counted what is still to come");
    }
}
