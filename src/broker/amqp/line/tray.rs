//! The way to a line: commands in their order, and a tray where plain acknowledgements lie until there are enough for a run.
//!
//! A line that is woken for each settlement acknowledges each by itself, which RabbitMQ is slow at, and costs its thread more
//! than the settlement does. So the most frequent kind, an acknowledgement that nobody waits for, only wakes it when it is the
//! first one, from which the line counts a moment, and when there are enough. Whatever else is sent takes what lies there
//! along, ahead of itself: the line sees all in the order in which it was said.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Command, Done};
use crate::broker::{Settle, Settler};

/// The way to a line.
pub(in super::super) struct Tray {
    line: UnboundedSender<Command>,
    /// The deliveries that may be acknowledged.
    acknowledged: Mutex<Vec<u64>>,
    /// So many are enough for a run.
    enough: AtomicUsize,
}

/// Settles deliveries that have no past.
pub(super) struct Plain(pub(super) Arc<Tray>);

/// Settles deliveries that may have taken a process down before, and notes when they start.
pub(super) struct Suspect(pub(super) Arc<Tray>);

impl Tray {
    /// A tray, and its line's end.
    pub(super) fn new() -> (Arc<Self>, UnboundedReceiver<Command>) {
        let (line, commands) = unbounded_channel();
        (Arc::new(Self { line, acknowledged: Mutex::default(), enough: AtomicUsize::new(1) }), commands)
    }

    /// With this prefetch, a quarter of it is enough: the rest keeps the workers busy until RabbitMQ has sent more.
    pub(super) fn set_prefetch(&self, prefetch: usize) {
        self.enough.store((prefetch / 4).max(1), Ordering::Relaxed);
    }

    /// Sends a command, and what lies here before it.
    ///
    /// # Errors
    /// The line is gone. It has dropped its channel: RabbitMQ delivers again.
    pub(in super::super) fn send(&self, command: Command) -> Result<(), SendError<Command>> {
        let mut acknowledged = self.acknowledged();
        self.send_all(&mut acknowledged)?;
        self.line.send(command)
    }

    /// Sends what lies here.
    pub(super) fn empty(&self) {
        let _ = self.send_all(&mut self.acknowledged());
    }

    fn send_all(&self, acknowledged: &mut Vec<u64>) -> Result<(), SendError<Command>> {
        if acknowledged.is_empty() {
            return Ok(());
        }
        self.line.send(Command::Acknowledge(std::mem::take(acknowledged)))
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        if done.is_some() || !matches!(settle, Settle::Ack { sequel: None, .. }) {
            // Who waits for a line that is gone hears `Closed`, as `done` is dropped.
            let _ = self.send(Command::Settle { tag, settle: Box::new(settle), done });
            return;
        }
        let mut acknowledged = self.acknowledged();
        acknowledged.push(tag);
        let _ = if acknowledged.len() >= self.enough.load(Ordering::Relaxed) {
            self.send_all(&mut acknowledged)
        } else if acknowledged.len() == 1 {
            self.line.send(Command::AcknowledgeSoon)
        } else {
            Ok(())
        };
    }

    fn acknowledged(&self) -> MutexGuard<'_, Vec<u64>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settler for Plain {
    fn started(&self, _: &[u64]) {}

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        self.0.settle(tag, settle, done);
    }
}

impl Settler for Suspect {
    fn started(&self, tags: &[u64]) {
        if !tags.is_empty() {
            let _ = self.0.send(Command::Started(tags.to_vec()));
        }
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        self.0.settle(tag, settle, done);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const ACK: Settle = Settle::Ack { result: None, sequel: None };

    /// What a line is told, in short.
    fn told(commands: &mut UnboundedReceiver<Command>) -> Vec<String> {
        let told = |command| match command {
            Command::Acknowledge(tags) => format!("{tags:?}"),
            Command::AcknowledgeSoon => "soon".to_owned(),
            Command::Settle { tag, .. } => format!("settle {tag}"),
            Command::Prefetch { prefetch, .. } => format!("prefetch {prefetch}"),
            _ => "other".to_owned(),
        };
        std::iter::from_fn(|| commands.try_recv().ok()).map(told).collect()
    }

    #[test]
    fn the_line_is_woken_for_the_first_and_for_enough() {
        let (tray, mut commands) = Tray::new();
        tray.set_prefetch(16);
        (1..=3).for_each(|tag| tray.settle(tag, ACK, None));
        assert_eq!(told(&mut commands), ["soon"]);
        tray.settle(4, ACK, None);
        assert_eq!(told(&mut commands), ["[1, 2, 3, 4]"]);
        tray.settle(5, ACK, None);
        tray.empty();
        tray.empty();
        assert_eq!(told(&mut commands), ["soon", "[5]"]);
        tray.set_prefetch(1);
        tray.settle(6, ACK, None);
        assert_eq!(told(&mut commands), ["[6]"], "with few, each at once");
    }

    #[test]
    fn all_comes_in_the_order_in_which_it_was_said() {
        let (tray, mut commands) = Tray::new();
        tray.set_prefetch(100);
        tray.settle(1, ACK, None);
        tray.settle(2, Settle::Return { crashed: false }, None);
        tray.settle(3, ACK, None);
        tray.send(Command::Prefetch { consumer: 1, prefetch: 0 }).unwrap();
        let (done, _heard) = oneshot::channel();
        tray.settle(4, ACK, Some(done));
        let expected = ["soon", "[1]", "settle 2", "soon", "[3]", "prefetch 0", "settle 4"];
        assert_eq!(told(&mut commands), expected);
    }

    #[test]
    fn who_waits_for_a_line_that_is_gone_hears_so() {
        let (tray, commands) = Tray::new();
        tray.settle(1, ACK, None);
        drop(commands);
        let (done, mut heard) = oneshot::channel();
        tray.settle(2, ACK, Some(done));
        assert!(heard.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    }
}
