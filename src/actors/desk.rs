//! The desk of a worker: what the worker is to run next, and what it runs. The worker lays a task on it, and the worker's own
//! loop takes the tasks off, one after the other; both live on one event loop, so this takes no message.
//!
//! Invariants:
//! - What was laid on the desk is run, also if the worker goes at once: a worker that goes has told its runs to end before.
//! - The loop ends when the worker is gone and nothing is left on the desk.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use actix::Addr;

use super::running::{OwnRun, RunningTask};
use super::worker::{Retire, Start, Worker};

/// What a worker and its runs share.
#[derive(Default)]
pub(super) struct Desk(RefCell<State>);

#[derive(Default)]
struct State {
    /// What is to run, and has not begun: one task at most, because the queue gives a slot to one task at a time.
    starts: VecDeque<Start>,
    /// The run, with the tag of its delivery.
    run: Option<(u64, OwnRun)>,
    /// Set when the queue has let the worker go while it had a run: the worker is told to stop when the run ends.
    retires: Option<Addr<Worker>>,
    /// Wakes the worker's loop.
    waker: Option<Waker>,
    /// The worker is gone.
    is_closed: bool,
}

impl Desk {
    /// Lays a task on the desk. The worker has it from now on.
    pub(super) fn lay(&self, start: Start) {
        let mut state = self.0.borrow_mut();
        state.run = Some((start.delivery.tag(), OwnRun::of(&start.run)));
        state.starts.push_back(start);
        state.wake();
    }

    /// Waits for the next task. `None`: the worker is gone.
    pub(super) async fn next(&self) -> Option<Start> {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            match state.starts.pop_front() {
                None if !state.is_closed => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                next => Poll::Ready(next),
            }
        })
        .await
    }

    /// The worker is gone, and lays nothing more on the desk.
    pub(super) fn close(&self) {
        let mut state = self.0.borrow_mut();
        state.is_closed = true;
        state.wake();
    }

    /// Whether there is a run.
    pub(super) fn is_busy(&self) -> bool {
        self.0.borrow().run.is_some()
    }

    /// The run as it is at this moment.
    pub(super) fn running(&self) -> Option<RunningTask> {
        self.0.borrow().run.as_ref().map(|(_, run)| run.now())
    }

    /// Whether there is a run. If so, `worker` is sent [`Retire`] once more when the run is over.
    pub(super) fn wait_for_end(&self, worker: Addr<Worker>) -> bool {
        let mut state = self.0.borrow_mut();
        let is_busy = state.run.is_some();
        state.retires = is_busy.then_some(worker);
        is_busy
    }

    /// The run of the delivery with this tag is over.
    fn clear(&self, tag: u64) {
        let mut state = self.0.borrow_mut();
        state.run.take_if(|(at, _)| *at == tag);
        if let Some(worker) = state.retires.take() {
            worker.do_send(Retire);
        }
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Clears the desk when it is dropped, whether the run ended, panicked or was dropped itself.
pub(super) struct AtDesk(Rc<Desk>, u64);

impl AtDesk {
    /// The run of the delivery with this tag is at the desk.
    pub(super) fn of(desk: &Rc<Desk>, tag: u64) -> Self {
        Self(Rc::clone(desk), tag)
    }
}

impl Drop for AtDesk {
    fn drop(&mut self) {
        self.0.clear(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn the_loop_hears_of_the_end_of_its_worker() {
        let desk = Rc::new(Desk::default());
        let own = Rc::clone(&desk);
        let (began, begins) = tokio::sync::oneshot::channel();
        let waits = actix_rt::spawn(async move {
            let _ = began.send(());
            own.next().await.is_none()
        });
        begins.await.expect("it has begun");
        assert!(!desk.is_busy() && desk.running().is_none());
        desk.close();
        assert!(waits.await.expect("it has ended"), "there is nothing left to run");
        assert!(desk.next().await.is_none(), "and never will be");
    }
}
