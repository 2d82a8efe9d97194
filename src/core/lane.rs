//! The line of one serial key: who may run, who waits, and what a newcomer and a failure do to it.
//!
//! The waiting ones themselves lie wherever the messages lie (a sorted map, rows on a disk, a list in Redis), because a
//! line may be long and memory is bounded. So a lane knows how many wait, and up to which ticket they were let in; whoever
//! drives it keeps them in the order of their tickets, and lets in the first of them as long as the lane [has
//! room](Lane::has_room).
//!
//! Invariants:
//! - Of what came to wait, whoever has the lowest ticket is let in first, and nobody is let in past one that waits.
//! - Nobody is let in beyond the limit. A smaller limit does not end what is in already.
//! - A holder stays one until it is [released](Lane::release), through crashes, retries and pauses; a release of one that
//!   is no holder (any more) changes nothing.
//! - An idle lane equals a new one, so it need not be kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What becomes of a run that finds its lane taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Newcomer {
    /// It waits, however long that takes.
    #[default]
    Wait,
    /// It waits this long, and then fails; with zero, it does not wait.
    FailAfter(Duration),
    /// If one waits already it is left out: that one will do the work.
    Skip,
    /// It takes the place of the one that waits, which is given up.
    Replace,
}

/// What becomes of a lane whose run failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AfterFailure {
    /// The next one goes on.
    #[default]
    Next,
    /// Nobody goes on until somebody says so.
    Block,
    /// The failed run is set aside where it can be looked at, and the next one goes on.
    Park,
}

/// One that is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder<I> {
    /// Who.
    pub id: I,
    /// Since when.
    pub since: Timestamp,
}

/// Why nobody is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block<I> {
    /// Whose failure it was.
    pub by: I,
    /// When.
    pub since: Timestamp,
    /// What it said.
    pub reason: String,
}

/// Where a newcomer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In.
    Enter,
    /// Into the line; not longer than until this time, if there is one.
    Wait {
        /// When it has waited long enough.
        until: Option<Timestamp>,
    },
    /// Away: it does not want to wait.
    Refuse,
    /// Away: the last one that waits will do its work.
    Skip,
    /// Into the line, and the last one that waits leaves it.
    Replace,
}

/// The state of one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane<I> {
    holders: Vec<Holder<I>>,
    waiting: u64,
    /// As the newest member states it.
    stated: u32,
    /// As somebody set it by hand.
    adjusted: Option<u32>,
    blocked: Option<Block<I>>,
    served: u64,
}

impl<I: Clone + PartialEq> Lane<I> {
    /// An idle lane. Tickets that will be given out are above `ticket`.
    pub fn new(ticket: u64) -> Self {
        Self { holders: Vec::new(), waiting: 0, stated: 1, adjusted: None, blocked: None, served: ticket }
    }

    /// Somebody comes, who states that `limit` may be in at a time.
    pub fn arrive(&mut self, id: &I, limit: u32, newcomer: Newcomer, now: Timestamp) -> Entry {
        self.stated = limit;
        if self.holds(id) {
            return Entry::Enter;
        }
        if self.waiting == 0 && self.is_open() {
            self.holders.push(Holder { id: id.clone(), since: now });
            return Entry::Enter;
        }
        match newcomer {
            Newcomer::FailAfter(patience) if patience.is_zero() => Entry::Refuse,
            Newcomer::Skip if self.waiting > 0 => Entry::Skip,
            Newcomer::Replace if self.waiting > 0 => Entry::Replace,
            Newcomer::FailAfter(patience) => {
                self.waiting += 1;
                Entry::Wait { until: Some(now + patience) }
            }
            Newcomer::Wait | Newcomer::Skip | Newcomer::Replace => {
                self.waiting += 1;
                Entry::Wait { until: None }
            }
        }
    }

    /// Whether the first that waits may go in now. Let it in, and ask again.
    pub fn has_room(&self) -> bool {
        self.waiting > 0 && self.is_open()
    }

    /// The first that waits goes in; `ticket` is its place in the line.
    pub fn let_in(&mut self, id: &I, ticket: u64, now: Timestamp) {
        self.waiting = self.waiting.saturating_sub(1);
        self.served = self.served.max(ticket);
        self.holders.push(Holder { id: id.clone(), since: now });
    }

    /// One that waits leaves the line.
    pub fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Nobody waits, whatever was counted; for lines that turn out shorter than they should be.
    pub fn nobody_waits(&mut self) {
        self.waiting = 0;
    }

    /// A holder is done. `block`: nobody goes in until somebody says so, for this reason. False: it was no holder.
    pub fn release(&mut self, id: &I, block: Option<String>, now: Timestamp) -> bool {
        let Some(at) = self.holders.iter().position(|holder| holder.id == *id) else { return false };
        self.holders.remove(at);
        if let Some(reason) = block {
            self.blocked.get_or_insert(Block { by: id.clone(), since: now, reason });
        }
        true
    }

    /// Ends a block. False: there was none.
    pub fn unblock(&mut self) -> bool {
        self.blocked.take().is_some()
    }

    /// Sets how many may be in at a time, whatever its members state; with 0, nobody goes in. `None`: as they state.
    pub fn adjust(&mut self, limit: Option<u32>) {
        self.adjusted = limit;
    }

    /// Whether this one is in.
    pub fn holds(&self, id: &I) -> bool {
        self.holders.iter().any(|holder| holder.id == *id)
    }

    /// Those who are in, in the order in which they went in.
    pub fn holders(&self) -> &[Holder<I>] {
        &self.holders
    }

    /// How many wait.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// How many may be in at a time.
    pub fn limit(&self) -> u32 {
        self.adjusted.unwrap_or(self.stated)
    }

    /// Whether that was set by hand.
    pub fn is_adjusted(&self) -> bool {
        self.adjusted.is_some()
    }

    /// Why nobody is let in, if so.
    pub fn blocked(&self) -> Option<&Block<I>> {
        self.blocked.as_ref()
    }

    /// All that wait have tickets above this one.
    pub fn served(&self) -> u64 {
        self.served
    }

    /// Whether nothing needs to be remembered of it.
    pub fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiting == 0 && self.blocked.is_none() && self.adjusted.is_none()
    }

    fn is_open(&self) -> bool {
        self.blocked.is_none() && self.holders.len() < self.limit() as usize
    }
}

#[cfg(test)]
mod tests;
