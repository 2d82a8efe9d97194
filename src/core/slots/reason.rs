//! Why a task of a pool waits. The scheduler's own state is read, so the reason is the one that keeps the task from starting:
//! once it is taken away, the task starts or has the next reason.

use std::fmt;
use std::time::Duration;

use super::Slots;
use super::fault::Fault;
use super::tenant::Owed;
use crate::core::Timestamp;

/// Why a waiting task of a pool does not start. Of several reasons it is the first, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotHold {
    /// The queue starts nothing: it is paused, has stopped itself, shuts down, or its actor is being built anew.
    Closed,
    /// A gate holds the task, and says why.
    Gate,
    /// All workers of the queue are busy.
    QueueFull,
    /// Its tenant has as many slots as one tenant may have while others are about.
    Room {
        /// The number of slots that the tenant has.
        held: usize,
        /// The number of slots of the pool.
        of: usize,
    },
    /// The task is likely to take longer than a tighter promise, and the slots that are left are kept for that promise.
    Reserved {
        /// The target of that promise.
        target: Duration,
    },
    /// Its tenant has had more than its share, and tenants that are owed go first.
    OverShare,
    /// Others are before it.
    Behind {
        /// The most tasks that start before it, if no more come.
        at_most: usize,
        /// How many of them are ahead of it in its own line.
        own: usize,
    },
}

impl SlotHold {
    /// Whether the pool keeps slots from this very task that others may have.
    pub fn is_for_others(&self) -> bool {
        matches!(self, Self::Room { .. } | Self::Reserved { .. } | Self::OverShare)
    }

    /// What an operator can do about it, as a sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Room { .. } => "Give the pool more slots, or less `room`: `[pool...]` of the catalogue.",
            Self::Reserved { .. } => {
                "Give the pool more slots, or less `reserve`; state the `typical_duration` of the queue if its tasks are short."
            }
            Self::OverShare => {
                "Give the pool more slots, or the tenant a larger weight: `Celeriac::set_tenant_weight`."
            }
            Self::Closed | Self::Gate => "See what its queue or its gate says.",
            Self::QueueFull => "Give the queue more workers.",
            Self::Behind { .. } => "Give the pool more slots: `Celeriac::resize_pool`.",
        }
    }
}

impl fmt::Display for SlotHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("its queue starts nothing now"),
            Self::Gate => f.write_str("a gate holds it"),
            Self::QueueFull => f.write_str("all workers of its queue are busy"),
            Self::Room { held, of } => {
                write!(
                    f,
                    "its tenant has {held} of {of} slots and leaves the others to tenants that are about"
                )
            }
            Self::Reserved { target } => {
                write!(
                    f,
                    "it takes long, and the slots that are left are kept for tasks that are promised to start within {target:?}"
                )
            }
            Self::OverShare => f.write_str("its tenant has had more than its share"),
            Self::Behind { at_most, own } => {
                write!(f, "at most {at_most} tasks start before it, {own} of them of its own line")
            }
        }
    }
}

impl Slots {
    /// Why a task does not start, as of the last [`dispatch`](Self::dispatch). `None`: it does not wait here. O(n) in the tasks
    /// of its queue.
    pub fn hold_of(&self, queue: usize, tag: u64, now: Timestamp) -> Option<SlotHold> {
        let of = self.queues.get(queue)?;
        if of.held.contains_key(&tag) {
            return Some(SlotHold::Gate);
        }
        let (tenant, line, ahead, item) = of.lines.iter().find_map(|(tenant, line)| {
            let (ahead, (_, item)) = line.items.iter().enumerate().find(|(_, (_, item))| item.tag == tag)?;
            Some((*tenant, line, ahead, item))
        })?;
        let account = &self.tenants.accounts[tenant];
        let most = self.costs.most(item.task, &account.costs, of.terms.typical);
        let blocks = self.promises.blocked(of.promise, most);
        let open_to = self.promises.open_to(self.rules.slots, now);
        let room = SlotHold::Room { held: account.running, of: self.rules.slots };
        Some(if self.has(Fault::Lies) {
            room
        } else if !of.is_open || of.is_asleep {
            SlotHold::Closed
        } else if of.free == 0 {
            SlotHold::QueueFull
        } else if account.is_crowding {
            room
        } else if blocks > open_to {
            SlotHold::Reserved { target: self.promises.target(open_to).unwrap_or_default() }
        } else if account.owed != Owed::Yes && ahead == 0 {
            SlotHold::OverShare
        } else if self.has(Fault::ForgetsOthers) {
            SlotHold::Behind { at_most: 0, own: 0 }
        } else {
            SlotHold::Behind { at_most: self.waiting() - (line.items.len() - ahead), own: ahead }
        })
    }
}
