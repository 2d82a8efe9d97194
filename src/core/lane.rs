//! The line of one serial key: who may run, who waits, and what a newcomer and a failure do to the line.
//!
//! The members that wait are kept where the messages are (a sorted map, rows on a disk, a list in Redis), because a
//! line may be long and memory is bounded. So a [`Lane`] only knows how many members wait, and the ticket up to which
//! members were let in. Its caller keeps the waiting members in the order of their tickets, and lets in the first one
//! while the lane [has room](Lane::has_room).
//!
//! Invariants:
//! - The waiting member with the lowest ticket is let in first, and no newcomer passes a waiting member.
//! - The lane lets nobody in beyond the limit. A smaller limit does not end the runs that are in already.
//! - A holder stays a holder until it is [released](Lane::release), through crashes, retries and pauses. A release of
//!   a run that is not a holder, or no longer one, changes nothing.
//! - An idle lane equals a new one, so nobody needs to keep it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What a run does that finds its lane taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Newcomer {
    /// The run waits, however long that takes.
    #[default]
    Wait,
    /// The run waits this long and then fails. With zero it fails at once.
    FailAfter(Duration),
    /// The run is left out if another run waits already, as that run will do the work.
    Skip,
    /// The run takes the place of the run that waits last, which is given up.
    Replace,
}

/// What a lane does when one of its runs has failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum AfterFailure {
    /// The lane lets the next run in.
    #[default]
    Next,
    /// The lane lets nobody in until somebody unblocks it.
    Block,
    /// The failed run is kept where somebody can look at it, and the lane lets the next run in.
    Park,
}

/// A run that is in the lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder<I> {
    /// The id of the run.
    pub id: I,
    /// When the lane let the run in, in UTC.
    pub since: Timestamp,
}

/// Why a blocked lane lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block<I> {
    /// The id of the run whose failure blocked the lane.
    pub by: I,
    /// When the lane was blocked, in UTC.
    pub since: Timestamp,
    /// The error of the run, as text.
    pub reason: String,
}

/// Where a newcomer to a lane goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The newcomer may run at once.
    Enter,
    /// The newcomer waits in the line.
    Wait {
        /// When the newcomer has waited long enough and fails; `None`: it waits without a limit.
        until: Option<Timestamp>,
    },
    /// The newcomer fails, because it does not want to wait and the lane is taken.
    Refuse,
    /// The newcomer is left out, because the member that waits last will do its work.
    Skip,
    /// The newcomer waits in the line, and the member that waited last leaves the line.
    Replace,
}

/// The state of one lane, whose members have ids of the type `I`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane<I> {
    holders: Vec<Holder<I>>,
    waiting: u64,
    /// The limit that the newest member states.
    stated: u32,
    /// The limit that somebody has set by hand.
    adjusted: Option<u32>,
    blocked: Option<Block<I>>,
    served: u64,
}

impl<I: Clone + PartialEq> Lane<I> {
    /// An idle lane. All tickets given out later must be above `ticket`.
    pub fn new(ticket: u64) -> Self {
        Self { holders: Vec::new(), waiting: 0, stated: 1, adjusted: None, blocked: None, served: ticket }
    }

    /// A member arrives and states that at most `limit` members may be in at a time. The answer says where the member
    /// goes.
    pub fn arrive(&mut self, id: &I, limit: u32, newcomer: Newcomer, now: Timestamp) -> Admission {
        self.stated = limit;
        if self.holds(id) {
            return Admission::Enter;
        }
        if self.waiting == 0 && self.is_open() {
            self.holders.push(Holder { id: id.clone(), since: now });
            return Admission::Enter;
        }
        match newcomer {
            Newcomer::FailAfter(patience) if patience.is_zero() => Admission::Refuse,
            Newcomer::Skip if self.waiting > 0 => Admission::Skip,
            Newcomer::Replace if self.waiting > 0 => Admission::Replace,
            Newcomer::FailAfter(patience) => {
                self.waiting += 1;
                Admission::Wait { until: Some(now + patience) }
            }
            Newcomer::Wait | Newcomer::Skip | Newcomer::Replace => {
                self.waiting += 1;
                Admission::Wait { until: None }
            }
        }
    }

    /// Whether the first waiting member may go in now. If so, the caller [lets it in](Self::let_in) and asks again.
    pub fn has_room(&self) -> bool {
        self.waiting > 0 && self.is_open()
    }

    /// Lets the first waiting member in. `ticket` is its place in the line.
    pub fn let_in(&mut self, id: &I, ticket: u64, now: Timestamp) {
        self.waiting = self.waiting.saturating_sub(1);
        self.served = self.served.max(ticket);
        self.holders.push(Holder { id: id.clone(), since: now });
    }

    /// Records that a waiting member has left the line.
    pub fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Records that nobody waits, for a line that turns out to be shorter than was counted.
    pub fn nobody_waits(&mut self) {
        self.waiting = 0;
    }

    /// Ends the hold of a member. With `block` the lane then lets nobody in until [`unblock`](Self::unblock), for
    /// this reason. Returns false if the member was no holder.
    pub fn release(&mut self, id: &I, block: Option<String>, now: Timestamp) -> bool {
        let Some(at) = self.holders.iter().position(|holder| holder.id == *id) else { return false };
        self.holders.remove(at);
        if let Some(reason) = block {
            self.blocked.get_or_insert(Block { by: id.clone(), since: now, reason });
        }
        true
    }

    /// Ends a block. Returns false if the lane was not blocked.
    pub fn unblock(&mut self) -> bool {
        self.blocked.take().is_some()
    }

    /// Sets how many members may be in at a time, whatever they state; with 0, nobody goes in. `None` returns to what
    /// the members state.
    pub fn adjust(&mut self, limit: Option<u32>) {
        self.adjusted = limit;
    }

    /// Whether this member is in.
    pub fn holds(&self, id: &I) -> bool {
        self.holders.iter().any(|holder| holder.id == *id)
    }

    /// The members that are in, in the order in which they went in.
    pub fn holders(&self) -> &[Holder<I>] {
        &self.holders
    }

    /// How many members wait in the line.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// How many members may be in at a time.
    pub fn limit(&self) -> u32 {
        self.adjusted.unwrap_or(self.stated)
    }

    /// Whether the limit was set by hand.
    pub fn is_adjusted(&self) -> bool {
        self.adjusted.is_some()
    }

    /// Why the lane lets nobody in, if it is blocked.
    pub fn blocked(&self) -> Option<&Block<I>> {
        self.blocked.as_ref()
    }

    /// The ticket up to which members were let in: all waiting members have higher tickets.
    pub fn served(&self) -> u64 {
        self.served
    }

    /// Whether the lane equals a new one, so that nobody needs to remember it.
    pub fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiting == 0 && self.blocked.is_none() && self.adjusted.is_none()
    }

    fn is_open(&self) -> bool {
        self.blocked.is_none() && self.holders.len() < self.limit() as usize
    }
}

#[cfg(test)]
mod tests;
