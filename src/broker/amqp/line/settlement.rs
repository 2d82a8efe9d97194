//! How deliveries end. What follows from one is published and confirmed before it is acknowledged: should the process or the
//! connection go in between, the task comes again, and nothing is lost.

use super::super::outgoing;
use super::super::publisher::Post;
use super::holding::Place;
use super::{Command, Done, Line};
use crate::broker::dead_letter::{crash_reason, crash_result};
use crate::broker::{BrokerError, Settle};
use crate::task::Message;
use crate::task::clock::now;

impl Line {
    /// Ends a delivery.
    pub(super) fn settle(&mut self, tag: u64, settle: Settle, done: Option<Done>) {
        let Some(holding) = self.holdings.get_mut(&tag).filter(|h| !h.posting && h.ended.is_none()) else {
            answer(done, Err(BrokerError::Stale));
            return;
        };
        if holding.place == Place::Lost {
            // RabbitMQ has it back. What has run is over all the same, and ends when it comes again, if it comes here; what was
            // to be acknowledged before its run has not run.
            if holding.message.acks_late && !matches!(settle, Settle::Return { .. }) {
                holding.ended = Some(settle);
            } else {
                self.let_go(tag);
            }
            return answer(done, Err(BrokerError::Stale));
        }
        let holding_message = std::sync::Arc::clone(&holding.message);
        match settle {
            // By far the most.
            Settle::Ack { sequel: None, .. } => self.posted(tag, Ok(()), done),
            Settle::Ack { sequel, .. } => {
                let messages = sequel.map(|sequel| sequel.messages).unwrap_or_default();
                self.publish_then_acknowledge(tag, &messages, done);
            }
            Settle::Requeue { mut message, due } => {
                message.eta = due.or(message.eta);
                self.publish_then_acknowledge(tag, &[*message], done);
            }
            Settle::Return { crashed: true } => self.crashed(tag, Message::clone(&holding_message), done),
            Settle::Return { crashed: false } => self.hand_back(tag, done),
            Settle::DeadLetter { reason, sequel, .. } => {
                let messages = sequel.map(|sequel| sequel.messages).unwrap_or_default();
                let letter = letter(&holding_message, &reason);
                self.post_all(
                    tag,
                    messages.iter().map(|m| outgoing::task(m, now())).chain([letter]).collect(),
                    done,
                );
            }
        }
    }

    /// To the dead letters, by our own decision.
    pub(super) fn bury(&mut self, tag: u64, reason: &str, done: Option<Done>) {
        let Some(holding) = self.holdings.get(&tag) else { return };
        self.shared.over(crash_result(&holding.message), Some(&holding.message));
        let letter = letter(&holding.message, reason);
        self.post_all(tag, vec![letter], done);
    }

    fn crashed(&mut self, tag: u64, mut message: Message, done: Option<Done>) {
        message.crashes += 1;
        if message.crashes >= self.shared.options.delivery_limit {
            let reason = crash_reason(message.crashes);
            if let Some(holding) = self.holdings.get_mut(&tag) {
                holding.message = std::sync::Arc::new(message);
            }
            self.bury(tag, &reason, done);
        } else {
            self.publish_then_acknowledge(tag, &[message], done);
        }
    }

    fn hand_back(&mut self, tag: u64, done: Option<Done>) {
        let Some(holding) = self.holdings.get(&tag) else { return };
        match holding.place {
            // The copy says that it is running, which it is not; and it would wait for its time to live. Or there is none.
            Place::Keeping { .. } | Place::Gone => {
                let message = Message::clone(&holding.message);
                self.publish_then_acknowledge(tag, &[message], done);
            }
            place => {
                self.holdings.remove(&tag);
                self.give_back(place);
                self.flushed.extend(done);
            }
        }
    }

    fn publish_then_acknowledge(&mut self, tag: u64, messages: &[Message], done: Option<Done>) {
        let now = now();
        self.post_all(tag, messages.iter().map(|message| outgoing::task(message, now)).collect(), done);
    }

    fn post_all(&mut self, tag: u64, posts: Vec<Result<Post, BrokerError>>, done: Option<Done>) {
        match posts.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(posts) => self.post(tag, posts, done),
            Err(error) => {
                tracing::error!(queue = self.queue, %error, "what follows from a run cannot be written; the task goes back");
                if let Some(holding) = self.holdings.remove(&tag) {
                    self.give_back(holding.place);
                }
                answer(done, Err(error));
            }
        }
    }

    /// Publishes these, then acknowledges.
    pub(super) fn post(&mut self, tag: u64, posts: Vec<Post>, done: Option<Done>) {
        if posts.is_empty() {
            return self.posted(tag, Ok(()), done);
        }
        let Some(holding) = self.holdings.get_mut(&tag) else { return };
        holding.posting = true;
        let (publisher, own) = (std::sync::Arc::clone(&self.shared.publisher), self.own.clone());
        self.shared.runtime.spawn(async move {
            let all = futures_util::future::try_join_all(posts.iter().map(|post| publisher.insist(post)));
            let result = all.await.map(|_| ());
            let _ = own.send(Command::Posted { tag, result, done });
        });
    }

    /// What follows is published, or never will be.
    pub(super) fn posted(&mut self, tag: u64, result: Result<(), BrokerError>, done: Option<Done>) {
        let Some(mut holding) = self.holdings.remove(&tag) else { return answer(done, result) };
        match result {
            Ok(()) if holding.place == Place::Lost => {
                // It comes again, although it is over: it is acknowledged when it does, if it comes here.
                holding.posting = false;
                holding.ended = Some(Settle::Ack { result: None, sequel: None });
                self.holdings.insert(tag, holding);
                answer(done, Ok(()));
            }
            Ok(()) => {
                self.acknowledge(holding.place);
                self.flushed.extend(done);
            }
            Err(error) => {
                self.lost.remove(&holding.message.id);
                self.give_back(holding.place);
                answer(done, Err(error));
            }
        }
    }

    /// The channel of a delivery is gone.
    pub(super) fn lost(&mut self, tag: u64) {
        let Some(holding) = self.holdings.get_mut(&tag) else { return };
        if !matches!(holding.place, Place::Lost | Place::Gone) {
            holding.place = Place::Lost;
            holding.handing_over = false;
            holding.since = tokio::time::Instant::now();
            self.lost.insert(holding.message.id.clone(), tag);
        }
    }

    /// A lost one will not come again, for its queue was deleted: what follows from it is this process's to publish.
    pub(super) fn gone(&mut self, tag: u64) {
        let Some(holding) = self.holdings.get_mut(&tag) else { return };
        holding.place = Place::Gone;
        if let Some(settle) = holding.ended.take() {
            self.settle(tag, settle, None);
        }
    }

    /// A lost one has come again: it goes on, or ends as it already has.
    pub(super) fn found(&mut self, tag: u64, place: Place) {
        let Some(holding) = self.holdings.get_mut(&tag) else { return };
        tracing::debug!(queue = self.queue, id = %holding.message.id, "a task that goes on here came again and is recognised");
        holding.place = place;
        holding.since = tokio::time::Instant::now();
        holding.suspect = true;
        self.lost.remove(&holding.message.id);
        if let Some(settle) = holding.ended.take() {
            self.settle(tag, settle, None);
        }
    }

    /// A lost one is somebody else's by now.
    pub(super) fn let_go(&mut self, tag: u64) {
        if let Some(holding) = self.holdings.remove(&tag) {
            self.lost.remove(&holding.message.id);
        }
    }
}

fn letter(message: &Message, reason: &str) -> Result<Post, BrokerError> {
    let now = now();
    let wire = outgoing::encode(message, now)?;
    Ok(outgoing::dead(wire, &message.queue, reason, message.id.as_str(), now))
}

fn answer(done: Option<Done>, verdict: Result<(), BrokerError>) {
    if let Some(done) = done {
        let _ = done.send(verdict);
    }
}
