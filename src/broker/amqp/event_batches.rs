//! The events of tasks that wait to be published, written and gathered into messages.
//!
//! What happens to tasks goes together, as with Celery; a call and what a body tells have a message each. Messages go in the order
//! of their events. There is room for so many events; beyond that the oldest ones go, one by one, out of whichever message they
//! are in.

use std::collections::VecDeque;
use std::sync::Arc;

use lapin::types::ShortString;

use crate::protocol::events::MULTI;

/// A message with this many bytes takes no further event, so that it fits one frame of AMQP (128 KiB) and no receiver has to
/// take in too much at once. Celery's workers put at most 24 events into one; receivers take any number.
const FULL: usize = 64 << 10;

/// Events that wait, in messages.
pub(super) struct EventBatches {
    batches: VecDeque<EventBatch>,
    /// How many events wait.
    waiting: usize,
    /// How many may wait.
    most: usize,
}

/// Events that go in one message.
struct EventBatch {
    key: ShortString,
    hostname: Arc<str>,
    /// The events. Where several may go together, each of them is behind one byte, and a bracket closes them.
    text: Vec<u8>,
    /// Where each event that is left begins, with the byte before it.
    starts: VecDeque<usize>,
    takes_more: bool,
}

/// What became of a message that was to be handed to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handover {
    /// The connection has written the message.
    Written,
    /// The connection has taken it, and nobody knows whether it was written.
    Unknown,
    /// The channel was closed, and has taken nothing.
    Refused,
}

/// A message of events, ready to be published.
pub(super) struct EventMessage<'a> {
    pub(super) key: &'a ShortString,
    /// The node that tells of these events.
    pub(super) hostname: &'a str,
    pub(super) body: &'a [u8],
}

impl EventBatches {
    /// With room for so many events.
    pub(super) fn new(most: usize) -> Self {
        Self { batches: VecDeque::new(), waiting: 0, most }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Adds an event of this node, which goes with others. `write` appends its text. Returns how many events were dropped for
    /// it.
    pub(super) fn add(&mut self, hostname: &Arc<str>, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        match self.batches.back_mut().filter(|last| last.takes(hostname)) {
            Some(last) => last.add(write),
            None => {
                let mut batch = EventBatch::new(MULTI.into(), hostname);
                batch.takes_more = true;
                batch.add(write);
                self.batches.push_back(batch);
            }
        }
        self.make_room()
    }

    /// Adds an event that has a message to itself, as [`add`](Self::add) does.
    pub(super) fn add_alone(
        &mut self,
        key: ShortString,
        hostname: &Arc<str>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> u64 {
        let mut batch = EventBatch::new(key, hostname);
        batch.starts.push_back(0);
        write(&mut batch.text);
        self.batches.push_back(batch);
        self.make_room()
    }

    /// The next messages, at most so many. They take no further events, and wait until they are [settled](Self::settle).
    pub(super) fn first(&mut self, most: usize) -> impl Iterator<Item = EventMessage<'_>> {
        self.batches.iter_mut().take(most).map(EventBatch::message)
    }

    /// Removes the first messages, of which these are the outcomes, up to the last one that the connection has taken: none of
    /// those may be sent twice, nor behind one that came after it. What was refused behind them waits on. Returns how many
    /// events were in messages of which nobody knows whether they were written.
    pub(super) fn settle(&mut self, outcomes: &[Handover]) -> u64 {
        let last = outcomes.iter().rposition(|outcome| *outcome != Handover::Refused);
        let taken = last.map_or(0, |last| last + 1).min(self.batches.len());
        let mut lost = 0;
        for (batch, outcome) in self.batches.drain(..taken).zip(outcomes) {
            let events = batch.starts.len();
            self.waiting -= events;
            if *outcome != Handover::Written {
                lost += events as u64;
            }
        }
        lost
    }

    /// Counts an event that was added, and drops the oldest ones if there are too many.
    fn make_room(&mut self) -> u64 {
        self.waiting += 1;
        let mut dropped = 0;
        while self.waiting > self.most
            && let Some(oldest) = self.batches.front_mut()
        {
            oldest.starts.pop_front();
            if oldest.starts.is_empty() {
                self.batches.pop_front();
            }
            self.waiting -= 1;
            dropped += 1;
        }
        dropped
    }
}

impl EventBatch {
    fn new(key: ShortString, hostname: &Arc<str>) -> Self {
        let (text, starts) = (Vec::new(), VecDeque::new());
        Self { key, hostname: Arc::clone(hostname), text, starts, takes_more: false }
    }

    /// Whether another event of this node may go with these.
    fn takes(&self, hostname: &Arc<str>) -> bool {
        self.takes_more && self.text.len() < FULL && self.hostname == *hostname
    }

    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.starts.push_back(self.text.len());
        self.text.push(b',');
        write(&mut self.text);
    }

    fn message(&mut self) -> EventMessage<'_> {
        let start = self.starts.front().copied().unwrap_or(0);
        if std::mem::take(&mut self.takes_more) {
            self.text.push(b']');
        }
        // One that goes alone is an object; those that go together are a list, whose first ones may have been dropped.
        if self.text.get(start) == Some(&b',') {
            self.text[start] = b'[';
        }
        EventMessage { key: &self.key, hostname: &self.hostname, body: &self.text[start..] }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str) -> Arc<str> {
        name.into()
    }

    fn number(n: usize) -> impl FnOnce(&mut Vec<u8>) {
        move |out| out.extend_from_slice(format!("{{\"n\":{n}}}").as_bytes())
    }

    /// The messages that wait: the key, the node, and the numbers of their events.
    fn messages(batches: &mut EventBatches, most: usize) -> Vec<(String, String, Vec<usize>)> {
        let number = |event: &serde_json::Value| usize::try_from(event["n"].as_u64().unwrap()).unwrap();
        let message = |message: EventMessage<'_>| {
            let body: serde_json::Value = serde_json::from_slice(message.body).expect("JSON");
            let is_alone = message.key.as_str() != MULTI;
            assert_eq!(body.is_object(), is_alone, "{body}");
            let numbers = match &body {
                serde_json::Value::Array(events) => events.iter().map(number).collect(),
                one => vec![number(one)],
            };
            (message.key.as_str().to_owned(), message.hostname.to_owned(), numbers)
        };
        batches.first(most).map(message).collect()
    }

    #[test]
    fn what_may_go_together_does_and_all_goes_in_its_order() {
        let mut batches = EventBatches::new(100);
        let (me, other) = (node("w@h"), node("gen@h"));
        for n in 0..3 {
            assert_eq!(batches.add(&me, number(n)), 0);
        }
        batches.add_alone("task.sent".into(), &other, number(3));
        batches.add(&me, number(4));
        batches.add(&node("w@h"), number(5));
        batches.add(&node("renamed@h"), number(6));
        let message =
            |key: &str, node: &str, numbers: &[usize]| (key.to_owned(), node.to_owned(), numbers.to_vec());
        let expected = [
            message(MULTI, "w@h", &[0, 1, 2]),
            message("task.sent", "gen@h", &[3]),
            message(MULTI, "w@h", &[4, 5]),
            message(MULTI, "renamed@h", &[6]),
        ];
        assert_eq!(messages(&mut batches, 2), expected[..2]);
        assert_eq!(messages(&mut batches, 9), expected, "nothing goes before it is published");
        batches.add(&node("renamed@h"), number(7));
        assert_eq!(batches.settle(&[Handover::Written; 3]), 0);
        let expected = [message(MULTI, "renamed@h", &[6]), message(MULTI, "renamed@h", &[7])];
        assert_eq!(messages(&mut batches, 9), expected, "a message that is under way stays as it is");
        assert_eq!(batches.settle(&[Handover::Written; 2]), 0);
        assert!(batches.is_empty() && batches.waiting == 0);
    }

    #[test]
    fn what_the_connection_has_taken_is_never_sent_again() {
        use Handover::{Refused, Unknown, Written};
        for (outcomes, left, lost) in [
            (&[Unknown, Written, Unknown, Refused][..], &[6, 7][..], 4),
            (&[Written, Written, Refused, Refused], &[4, 5, 6, 7], 0),
            (&[Refused, Written, Refused, Refused], &[4, 5, 6, 7], 2),
            (&[Refused; 4], &[0, 1, 2, 3, 4, 5, 6, 7], 0),
            (&[Unknown; 4], &[], 8),
            (&[], &[0, 1, 2, 3, 4, 5, 6, 7], 0),
        ] {
            let mut batches = EventBatches::new(100);
            for (n, name) in [(0, "a"), (1, "a"), (2, "b"), (3, "b"), (4, "c"), (5, "c"), (6, "d"), (7, "d")]
            {
                batches.add(&node(name), number(n));
            }
            assert_eq!(messages(&mut batches, 4).len(), 4);
            assert_eq!(batches.settle(outcomes), lost, "{outcomes:?}");
            let waiting: Vec<usize> =
                messages(&mut batches, usize::MAX).into_iter().flat_map(|(_, _, all)| all).collect();
            assert_eq!((waiting.as_slice(), batches.waiting), (left, left.len()), "{outcomes:?}");
        }
    }

    #[test]
    fn a_message_that_is_full_is_followed_by_another() {
        let mut batches = EventBatches::new(100);
        for _ in 0..5 {
            batches.add(&node("w@h"), |out| {
                out.extend_from_slice(format!("\"{}\"", "x".repeat(FULL / 2)).as_bytes())
            });
        }
        let counts: Vec<usize> = batches.batches.iter().map(|batch| batch.starts.len()).collect();
        assert_eq!(counts, [2, 2, 1]);
    }

    proptest! {
        /// Whatever is added, tried and published: no event is lost but the oldest beyond the limit, and each of them is counted.
        #[test]
        fn the_oldest_events_are_dropped_one_by_one_and_counted(
            steps in proptest::collection::vec((0..4_u8, 0..4_usize), 0..200),
            most in 1..20_usize,
        ) {
            let mut batches = EventBatches::new(most);
            let mut expected = VecDeque::new();
            let (mut added, mut dropped) = (0, 0);
            for (step, count) in steps {
                let lost = match step {
                    0 | 1 => batches.add(&node("w@h"), number(added)),
                    2 => batches.add_alone("task.x".into(), &node("w@h"), number(added)),
                    _ => {
                        let published: usize = messages(&mut batches, count).iter().map(|(_, _, all)| all.len()).sum();
                        prop_assert_eq!(batches.settle(&vec![Handover::Written; count]), 0);
                        expected.drain(..published);
                        continue;
                    }
                };
                expected.push_back(added);
                added += 1;
                dropped += lost;
                let too_many = expected.len().saturating_sub(most);
                expected.drain(..too_many);
                prop_assert_eq!(lost, too_many as u64);
                prop_assert_eq!(batches.waiting, expected.len());
            }
            let left: Vec<usize> = messages(&mut batches, usize::MAX).into_iter().flat_map(|(_, _, all)| all).collect();
            prop_assert_eq!(&left, &Vec::from(expected));
            prop_assert!(dropped <= added as u64);
        }
    }
}
