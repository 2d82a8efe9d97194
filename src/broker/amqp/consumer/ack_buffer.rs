//! The way to a line. Commands go to the line in their order. Plain acknowledgements first collect in an ack buffer
//! until there are enough for a run.
//!
//! If each settlement woke the line, the line would acknowledge each delivery by itself. RabbitMQ is slow at single
//! acknowledgements, and the wake-up costs the line's thread more than the settlement does. The most frequent
//! settlement is an acknowledgement that nobody waits for. It wakes the line in two cases only: when it is the first in
//! the ack buffer, because the line then begins to count a moment, and when there are enough. Every other command takes
//! the content of the ack buffer along, ahead of itself. The line therefore sees all commands in the order in which
//! they were sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::{ConsumerCommand, Done};
use crate::broker::{Settle, Settler};

/// The way to a line.
pub(in super::super) struct AckBuffer {
    line: UnboundedSender<ConsumerCommand>,
    /// The tags of the deliveries that may be acknowledged.
    acknowledged: Mutex<Vec<u64>>,
    /// The number of acknowledgements that make a run.
    enough: AtomicUsize,
}

/// Settles deliveries that come for the first time.
pub(super) struct Plain(pub(super) Arc<AckBuffer>);

/// Settles deliveries that may have taken a process down before. It also notes when their bodies start.
pub(super) struct Suspect(pub(super) Arc<AckBuffer>);

impl AckBuffer {
    /// Makes an ack buffer and the receiving end of its line.
    pub(super) fn new() -> (Arc<Self>, UnboundedReceiver<ConsumerCommand>) {
        let (line, commands) = unbounded_channel();
        (Arc::new(Self { line, acknowledged: Mutex::default(), enough: AtomicUsize::new(1) }), commands)
    }

    /// Sets the number of acknowledgements that make a run to a quarter of the prefetch. The other three quarters keep
    /// the workers busy until RabbitMQ has sent more.
    pub(super) fn set_prefetch(&self, prefetch: usize) {
        self.enough.store((prefetch / 4).max(1), Ordering::Relaxed);
    }

    /// Sends a command, with the content of the ack buffer before it.
    ///
    /// # Errors
    /// The line is gone. It has dropped its channel, so RabbitMQ delivers again.
    pub(in super::super) fn send(&self, command: ConsumerCommand) -> Result<(), SendError<ConsumerCommand>> {
        let mut acknowledged = self.acknowledged();
        self.send_all(&mut acknowledged)?;
        self.line.send(command)
    }

    /// Sends the content of the ack buffer.
    pub(super) fn empty(&self) {
        let _ = self.send_all(&mut self.acknowledged());
    }

    fn send_all(&self, acknowledged: &mut Vec<u64>) -> Result<(), SendError<ConsumerCommand>> {
        if acknowledged.is_empty() {
            return Ok(());
        }
        self.line.send(ConsumerCommand::Acknowledge(std::mem::take(acknowledged)))
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        if done.is_some() || !matches!(settle, Settle::Ack { follow_ups: None, .. }) {
            // If the line is gone, `done` is dropped, and its receiver reads that as `Closed`.
            let _ = self.send(ConsumerCommand::Settle { tag, settle: Box::new(settle), done });
            return;
        }
        let mut acknowledged = self.acknowledged();
        acknowledged.push(tag);
        let _ = if acknowledged.len() >= self.enough.load(Ordering::Relaxed) {
            self.send_all(&mut acknowledged)
        } else if acknowledged.len() == 1 {
            self.line.send(ConsumerCommand::AcknowledgeSoon)
        } else {
            Ok(())
        };
    }

    fn acknowledged(&self) -> MutexGuard<'_, Vec<u64>> {
        self.acknowledged.lock()
    }
}

impl Settler for Plain {
    fn note_started(&self, _: u64) {}

    fn write_starts(&self) {}

    fn check_fence(&self, _: u64) -> Option<oneshot::Receiver<bool>> {
        None
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        self.0.settle(tag, settle, done);
    }
}

impl Settler for Suspect {
    fn note_started(&self, tag: u64) {
        let _ = self.0.send(ConsumerCommand::Started(tag));
    }

    fn write_starts(&self) {}

    fn check_fence(&self, _: u64) -> Option<oneshot::Receiver<bool>> {
        None
    }

    fn settle(&self, tag: u64, settle: Settle, done: Option<Done>) {
        self.0.settle(tag, settle, done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: Settle = Settle::Ack { result: None, follow_ups: None };

    /// The commands that a line was sent, in a short form.
    fn told(commands: &mut UnboundedReceiver<ConsumerCommand>) -> Vec<String> {
        let told = |command| match command {
            ConsumerCommand::Acknowledge(tags) => format!("{tags:?}"),
            ConsumerCommand::AcknowledgeSoon => "soon".to_owned(),
            ConsumerCommand::Settle { tag, .. } => format!("settle {tag}"),
            ConsumerCommand::Prefetch { prefetch, .. } => format!("prefetch {prefetch}"),
            _ => "other".to_owned(),
        };
        std::iter::from_fn(|| commands.try_recv().ok()).map(told).collect()
    }

    #[test]
    fn the_line_is_woken_for_the_first_and_for_enough() {
        let (ack_buffer, mut commands) = AckBuffer::new();
        ack_buffer.set_prefetch(16);
        (1..=3).for_each(|tag| ack_buffer.settle(tag, ACK, None));
        assert_eq!(told(&mut commands), ["soon"]);
        ack_buffer.settle(4, ACK, None);
        assert_eq!(told(&mut commands), ["[1, 2, 3, 4]"]);
        ack_buffer.settle(5, ACK, None);
        ack_buffer.empty();
        ack_buffer.empty();
        assert_eq!(told(&mut commands), ["soon", "[5]"]);
        ack_buffer.set_prefetch(1);
        ack_buffer.settle(6, ACK, None);
        assert_eq!(told(&mut commands), ["[6]"], "with few, each at once");
    }

    #[test]
    fn all_comes_in_the_order_in_which_it_was_said() {
        let (ack_buffer, mut commands) = AckBuffer::new();
        ack_buffer.set_prefetch(100);
        ack_buffer.settle(1, ACK, None);
        ack_buffer.settle(2, Settle::Return { crashed: false }, None);
        ack_buffer.settle(3, ACK, None);
        ack_buffer.send(ConsumerCommand::Prefetch { consumer: 1, prefetch: 0 }).unwrap();
        let (done, _heard) = oneshot::channel();
        ack_buffer.settle(4, ACK, Some(done));
        let expected = ["soon", "[1]", "settle 2", "soon", "[3]", "prefetch 0", "settle 4"];
        assert_eq!(told(&mut commands), expected);
    }

    #[test]
    fn who_waits_for_a_line_that_is_gone_hears_so() {
        let (ack_buffer, commands) = AckBuffer::new();
        ack_buffer.settle(1, ACK, None);
        drop(commands);
        let (done, mut heard) = oneshot::channel();
        ack_buffer.settle(2, ACK, Some(done));
        assert!(heard.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    }
}
