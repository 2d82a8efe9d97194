//! How rows that are safe on disk become deliveries of their queue's consumer.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::commit::{ArrivedRow, RowKey};
use super::engine::Engine;
use super::lanes;
use super::queue_cursor::AttachedConsumer;
use super::ready_key::ReadyKey;
use super::settlement::RowSettler;
use crate::broker::{Delivery, call_sink};
use crate::task::Message;

impl Engine {
    /// Delivers those of these rows, which are on disk, for which a consumer has room; a later scan finds the
    /// others.
    pub(super) fn arrived(&mut self, arrivals: Vec<ArrivedRow>) {
        let mut ready = Vec::with_capacity(arrivals.len());
        for ArrivedRow { queue, place, message } in arrivals {
            match place {
                RowKey::Scheduled(due, _) => self.cursors[queue].scheduled_for(due),
                RowKey::Ready(key) => ready.push((key, queue, message)),
            }
        }
        ready.sort_by_key(|(key, ..)| *key); // sorted by queue, then by line, and within it in the order in which they run
        let crowded = self.crowded(&ready);
        let mut ready = ready.into_iter().peekable();
        while let Some((_, queue, _)) = ready.peek() {
            let queue = *queue;
            let mut out = Vec::new();
            while let Some((key, _, message)) = ready.next_if(|(_, q, _)| *q == queue) {
                if crowded.contains(&queue) || !self.cursors[queue].is_next(&key) {
                    self.cursors[queue].waits(&key);
                } else if message.crashes > 0 {
                    out.extend(self.hand_out_in_turn(queue, key, message));
                } else {
                    out.push(self.hand_out(queue, key, message));
                }
            }
            self.send(queue, out);
        }
    }

    /// The queues for which more of these rows have come than there is room for, from several lines: a scan lets the lines
    /// take turns. Nothing is allocated where a queue has one line.
    fn crowded(&self, ready: &[(ReadyKey, usize, Arc<Message>)]) -> BTreeSet<usize> {
        let queues = ready.chunk_by(|(_, one, _), (_, other, _)| one == other);
        let crowded = queues.filter_map(|rows| {
            let ((first, queue, _), (last, ..)) = (rows.first()?, rows.last()?);
            let is_crowded = first.line() != last.line() && rows.len() > self.cursors[*queue].room();
            is_crowded.then_some(*queue)
        });
        crowded.collect()
    }

    /// Makes a delivery of a row.
    pub(super) fn hand_out(&mut self, queue: usize, key: ReadyKey, message: Arc<Message>) -> Delivery {
        self.next_tag += 1;
        let tag = self.next_tag;
        let cursor = &mut self.cursors[queue];
        cursor.hold(tag, key, Arc::clone(&message));
        let sender = self.sender.clone();
        let settler = RowSettler { sender, shared: Arc::clone(&self.shared), queue: cursor.number, key };
        let fence = message.serial.is_some().then(|| lanes::token(key.seq(), &message));
        let delivery = Delivery::new(tag, message, Arc::new(settler));
        match fence {
            Some(token) => delivery.fenced(token),
            None => delivery,
        }
    }

    pub(super) fn send(&mut self, queue: usize, deliveries: Vec<Delivery>) {
        let Some(consumer) = &self.cursors[queue].consumer else { return };
        if !deliveries.is_empty() && !call_sink(&consumer.sink, deliveries) {
            self.cursors[queue].consumer = None;
        }
    }

    pub(super) fn consume(&mut self, queue: &str, consumer: AttachedConsumer) {
        match self.queue(queue) {
            Ok(index) => {
                self.cursors[index].consumer = Some(consumer);
                self.cursors[index].look_again();
            }
            Err(error) => tracing::error!(queue, %error, "nothing will be delivered"),
        }
    }
}
