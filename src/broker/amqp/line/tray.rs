//! Where settlements lie until the line takes them.
//!
//! A line that is woken for each settlement acknowledges each by itself, which RabbitMQ is slow at, and costs its thread more
//! than the settlement does. So the most frequent kind, a plain acknowledgement that nobody waits for, only wakes it when it
//! is the first one, from which the line counts a moment, and when there are enough for a run. All others wake it at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Command, Commands, Done};
use crate::broker::{Settle, Settler};

/// A delivery's tag, how it ends, and who hears of it.
pub(super) type Settlement = (u64, Settle, Option<Done>);

/// The settlements that the line has not taken yet.
pub(super) struct Tray {
    line: Commands,
    settlements: Mutex<Vec<Settlement>>,
    /// So many are enough for a run.
    enough: AtomicUsize,
}

/// Settles deliveries that have no past.
pub(super) struct Plain(pub(super) Arc<Tray>);

/// Settles deliveries that may have taken a process down before, and notes when they start.
pub(super) struct Suspect(pub(super) Arc<Tray>);

impl Tray {
    pub(super) fn new(line: Commands) -> Arc<Self> {
        Arc::new(Self { line, settlements: Mutex::default(), enough: AtomicUsize::new(1) })
    }

    /// With this prefetch, a quarter of it is enough: the rest keeps the workers busy until RabbitMQ has sent more.
    pub(super) fn set_prefetch(&self, prefetch: usize) {
        self.enough.store((prefetch / 4).max(1), Ordering::Relaxed);
    }

    /// Takes all.
    pub(super) fn take(&self) -> Vec<Settlement> {
        std::mem::take(&mut *self.settlements())
    }

    /// Whether there are enough for a run.
    pub(super) fn is_full(&self) -> bool {
        self.settlements().len() >= self.enough.load(Ordering::Relaxed)
    }

    fn put(&self, tag: u64, settle: Settle, done: Option<Done>) {
        let patient = done.is_none() && matches!(settle, Settle::Ack { sequel: None, .. });
        let count = {
            let mut settlements = self.settlements();
            settlements.push((tag, settle, done));
            settlements.len()
        };
        let command = match count {
            _ if !patient => Command::Settle,
            n if n == self.enough.load(Ordering::Relaxed) => Command::Settle,
            1 => Command::SettleSoon,
            _ => return,
        };
        if self.line.send(command).is_err() {
            // A line that is gone has dropped its channel: RabbitMQ delivers again, and who waits hears `Closed`.
            self.take();
        }
    }

    fn settlements(&self) -> MutexGuard<'_, Vec<Settlement>> {
        self.settlements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settler for Plain {
    fn started(&self, _: &[u64]) {}

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        self.0.put(tag, settle, done);
    }
}

impl Settler for Suspect {
    fn started(&self, tags: &[u64]) {
        if !tags.is_empty() {
            let _ = self.0.line.send(Command::Started(tags.to_vec()));
        }
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        self.0.put(tag, settle, done);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const ACK: Settle = Settle::Ack { result: None, sequel: None };

    #[test]
    fn the_line_is_woken_for_the_first_and_for_enough_and_for_what_is_urgent() {
        let (line, mut commands) = mpsc::unbounded_channel();
        let tray = Tray::new(line);
        tray.set_prefetch(16);
        let plain = Plain(Arc::clone(&tray));
        (1..=3).for_each(|tag| plain.settle(tag, ACK, None));
        assert!(matches!(commands.try_recv(), Ok(Command::SettleSoon)) && commands.is_empty());
        assert!(!tray.is_full());
        plain.settle(4, ACK, None);
        assert!(matches!(commands.try_recv(), Ok(Command::Settle)) && commands.is_empty());
        assert!(tray.is_full());
        plain.settle(5, ACK, None);
        assert!(commands.is_empty());
        plain.settle(6, Settle::Return { crashed: false }, None);
        assert!(matches!(commands.try_recv(), Ok(Command::Settle)));
        let (done, _heard) = oneshot::channel();
        plain.settle(7, ACK, Some(done));
        assert!(matches!(commands.try_recv(), Ok(Command::Settle)));
        let tags: Vec<u64> = tray.take().into_iter().map(|(tag, ..)| tag).collect();
        assert_eq!(tags, [1, 2, 3, 4, 5, 6, 7]);
        tray.set_prefetch(1);
        plain.settle(8, ACK, None);
        assert!(matches!(commands.try_recv(), Ok(Command::Settle)), "with few, each at once");
    }

    #[test]
    fn who_waits_for_a_line_that_is_gone_hears_so() {
        let (line, commands) = mpsc::unbounded_channel();
        let plain = Plain(Tray::new(line));
        plain.settle(1, ACK, None);
        drop(commands);
        let (done, mut heard) = oneshot::channel();
        plain.settle(2, ACK, Some(done));
        assert!(heard.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    }
}
