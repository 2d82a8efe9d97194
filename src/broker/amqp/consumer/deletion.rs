//! What becomes of deliveries whose queue is deleted while this process holds them.
//!
//! RabbitMQ cancels the consumers of a deleted queue, each process hears of it at its own moment, and whoever is first makes
//! the queue anew. Those that look later find a queue, and RabbitMQ does not say that it is another one. So a line whose
//! consumer was cancelled takes its deliveries for gone, whether or not it finds the queue: a delivery that comes again after
//! all costs a second run, and one that is waited for in vain would cost the retry and the next steps of its run.
//!
//! A line that has lost its connection hears of no cancellation. It looks before it declares the queue itself, and takes its
//! deliveries for gone only if there is no queue. If somebody else has made the queue anew by then, nobody can know, and
//! what follows from those runs is not published.
//!
//! A line of several queues gives up the channel of all when one of them is deleted, and is not told if another one is deleted
//! after that. So it looks for all of them once more before it declares them.

use tokio::time::timeout;

use super::super::topology::short;
use super::QueueConsumer;
use super::channel::{KEEPER, PATIENCE};

/// Why a line does not know whether its queue is still the one from which it took its deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum QueueDoubt {
    /// The channel was lost, and the queue may have been deleted meanwhile.
    Away,
    /// RabbitMQ has cancelled a consumer, or has said that there is no such queue.
    Cancelled,
}

impl QueueConsumer {
    /// Looks whether the queue is still there, before this line makes it anew.
    pub(super) async fn look_for_queue(&mut self) {
        let Some(doubt) = self.doubt.take() else { return };
        // The queue of a broadcast goes with its connection, which `take_from` sees.
        if doubt == QueueDoubt::Away && (self.lost.is_empty() || self.own_queue.is_some()) {
            return;
        }
        let cancelled = std::mem::take(&mut self.cancelled);
        let names: Vec<String> = self.sources().map(str::to_owned).collect();
        for (source, name) in names.iter().enumerate() {
            // A deletion of one of the queue and its partitions says nothing of the others.
            let of_source = if cancelled.contains(&source) { doubt } else { QueueDoubt::Away };
            if !self.look_for_source(source, name, of_source).await {
                // Nobody has answered. The line looks again on the next connection.
                (self.doubt, self.cancelled) = (Some(doubt), cancelled);
                return;
            }
        }
    }

    /// Looks once more, after the pause, whether all queues of the line are still there.
    pub(super) async fn look_again(&mut self) {
        if self.flow.is_none() && !self.partitions.is_empty() {
            self.doubt = self.doubt.max(Some(QueueDoubt::Away));
            self.look_for_queue().await;
        }
    }

    /// Notes which of these consumers RabbitMQ has cancelled, all before the first of them costs the channel.
    pub(super) fn note_cancellations(&mut self, ended: impl Iterator<Item = u64>) {
        if !self.flow.as_ref().is_some_and(|flow| flow.channel.status().connected()) {
            return;
        }
        for consumer in ended.filter(|consumer| *consumer != KEEPER) {
            if self.plan.is_live(consumer) {
                self.note_cancelled(self.plan.source_of(consumer));
            }
        }
    }

    /// Notes that RabbitMQ has closed the channel and said in these words that there is no such queue. All consumers of the
    /// channel end by that, so it is the words that say which of the line's queues is meant.
    pub(super) fn note_missing(&mut self, words: &str) {
        let is_named = |name: &str| words.contains(&format!("queue '{name}'"));
        let named = if self.partitions.is_empty() { Some(0) } else { self.sources().position(is_named) };
        if let Some(source) = named {
            self.note_cancelled(source);
        }
    }

    /// Notes that RabbitMQ has cancelled the consumer of this source, or has said that it is not there.
    pub(super) fn note_cancelled(&mut self, source: usize) {
        self.doubt = Some(QueueDoubt::Cancelled);
        self.cancelled.insert(source);
    }

    /// Looks for the queue of this name from which the line takes. `false`: there is no connection any more.
    async fn look_for_source(&mut self, source: usize, name: &str, doubt: QueueDoubt) -> bool {
        let Ok(short_name) = short(name) else { return true };
        match timeout(PATIENCE, self.shared.topology.waiting(&short_name)).await {
            Ok(Ok(None)) => self.deleted(source, name, doubt, "there is no such queue"),
            Ok(Ok(Some(_))) if doubt == QueueDoubt::Cancelled => {
                self.deleted(source, name, doubt, "somebody has made it anew");
            }
            Ok(Err(_)) | Err(_) if !self.shared.link.is_up() => return false,
            // The queue is there, and perhaps its node is away: what it has comes again, and perhaps to another process.
            Ok(Ok(Some(_)) | Err(_)) | Err(_) => self.forget_early(Some(source)),
        }
        true
    }

    /// Takes the deliveries of a queue for gone.
    fn deleted(&mut self, source: usize, name: &str, doubt: QueueDoubt, found: &str) {
        let out = self.all_gone(source);
        self.remade = self.own_queue.is_none();
        tracing::warn!(
            queue = name,
            out,
            ?doubt,
            found,
            "the queue was deleted, and what waited in it; what was delivered goes on"
        );
    }
}
