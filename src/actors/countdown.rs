//! Tells somebody when the last of several things is done: each of them holds a clone, and drops it then.

use std::sync::Arc;

use tokio::sync::oneshot;

/// Its receiver is told when the last clone of this is dropped: each child that is built holds one.
pub(super) type Countdown = Arc<DropTells>;

pub(super) struct DropTells(Option<oneshot::Sender<()>>);

impl DropTells {
    /// A countdown that tells this receiver, if there is one.
    pub(super) fn countdown(told: Option<oneshot::Sender<()>>) -> Countdown {
        Arc::new(Self(told))
    }
}

impl Drop for DropTells {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            let _ = told.send(());
        }
    }
}
