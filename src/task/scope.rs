//! The clock and the runtime of one test. They take the place of the process's own, on the test's thread and on the
//! threads that run bodies for it.
//!
//! Tests of one binary run side by side in one process, so neither may belong to the process.

use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use super::Client;
use crate::core::Timestamp;

/// A clock that stands still until somebody moves it.
#[derive(Debug)]
pub(crate) struct VirtualClock(AtomicU64);

impl VirtualClock {
    pub(crate) fn at(time: Timestamp) -> Self {
        Self(AtomicU64::new(time.as_micros()))
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Acquire))
    }

    /// Moves the clock forward to `time`. It never moves back.
    pub(crate) fn move_to(&self, time: Timestamp) {
        self.0.fetch_max(time.as_micros(), Ordering::AcqRel);
    }
}

/// The clock and the runtime of one test.
#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) client: Weak<dyn Client>,
}

thread_local! {
    static SCOPES: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
}

impl Scope {
    /// Puts the scope in force on this thread until the returned guard is dropped, on this thread.
    pub(crate) fn enter(self) -> ScopeGuard {
        let clock = Arc::clone(&self.clock);
        SCOPES.with_borrow_mut(|scopes| scopes.push(self));
        ScopeGuard { clock, thread: PhantomData }
    }

    /// Wraps a future so that the scope is in force whenever the future is polled.
    pub(crate) fn around<F: Future + Unpin>(&self, future: F) -> ScopedFuture<F> {
        ScopedFuture { scope: self.clone(), future }
    }
}

/// A future that is polled inside a scope, on whatever thread that happens.
pub(crate) struct ScopedFuture<F> {
    scope: Scope,
    future: F,
}

impl<F: Future + Unpin> Future for ScopedFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = self.scope.clone().enter();
        Pin::new(&mut self.future).poll(cx)
    }
}

/// A guard of a scope that is in force on this thread. The guard cannot move to another thread.
pub(crate) struct ScopeGuard {
    clock: Arc<VirtualClock>,
    thread: PhantomData<*const ()>,
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        SCOPES.with_borrow_mut(|scopes| {
            let last = scopes.iter().rposition(|scope| Arc::ptr_eq(&scope.clock, &self.clock));
            last.map(|at| scopes.remove(at));
        });
    }
}

/// The innermost scope of this thread whose test is not over.
pub(crate) fn here() -> Option<Scope> {
    SCOPES.with_borrow(|scopes| scopes.iter().rfind(|scope| scope.client.strong_count() > 0).cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::clock;

    #[test]
    fn a_clock_moves_forward_only() {
        let clock = VirtualClock::at(Timestamp::from_millis(5));
        clock.move_to(Timestamp::from_millis(7));
        clock.move_to(Timestamp::from_millis(6));
        assert_eq!(clock.now(), Timestamp::from_millis(7));
    }

    #[test]
    fn without_a_test_the_clock_is_the_systems() {
        assert!(here().is_none());
        assert!(clock::now() > Timestamp::from_millis(1_700_000_000_000));
    }
}
