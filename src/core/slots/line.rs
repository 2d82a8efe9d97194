//! The lines of a queue, one for each tenant, and which of them contend for a slot.
//!
//! Invariants:
//! - In a line the higher priority goes first, then the order of arrival.
//! - A line contends with its first task, its head. It is in one [`Contest`] of its queue, or in none.
//! - Among the heads of one queue, whose promises are the same, the one that waits longest is due first, whether the pool
//!   has time or not. So a contest is sorted once, and a decision looks at its first entry.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::tenant::Spent;
use crate::core::Timestamp;

/// The place of a task in its line.
pub(super) type LineKey = (Reverse<u8>, u64);

/// A task that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) tag: u64,
    /// From when its time-to-start counts.
    pub(super) since: Timestamp,
    /// The number of its task.
    pub(super) task: usize,
}

/// The tasks of one tenant that wait in one queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub(super) items: BTreeMap<LineKey, Item>,
    /// Where the line contends, if it does.
    pub(super) place: Option<LinePlace>,
}

/// Where a line contends.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinePlace {
    /// How many of the pool's promises a run of its head would block: the number of its contest.
    pub(super) blocks: usize,
    pub(super) head: Head,
    /// What its tenant has had.
    pub(super) spent: Spent,
    pub(super) weight: u64,
    /// Whether its tenant is owed.
    pub(super) is_owed: bool,
}

/// The head of a line. Heads of one queue are ordered as they are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    /// From when its waiting counts.
    pub(super) since: Timestamp,
    pub(super) priority: Reverse<u8>,
    pub(super) arrival: u64,
    pub(super) tenant: usize,
}

/// The lines of one queue whose heads would block the same promises.
#[derive(Clone, Debug, Default)]
pub(super) struct Contest {
    /// The heads of tenants that are owed.
    owed: BTreeSet<Head>,
    /// All its tenants by what they have had.
    by_spent: BTreeSet<(Spent, usize)>,
    weight: u128,
    /// What they have had, each times its weight.
    weighted: u128,
}

impl Contest {
    pub(super) fn enter(&mut self, place: &LinePlace) {
        if place.is_owed {
            self.owed.insert(place.head);
        }
        self.by_spent.insert((place.spent, place.head.tenant));
        self.weight += u128::from(place.weight);
        self.weighted = self.weighted.saturating_add(weighted(place));
    }

    pub(super) fn leave(&mut self, place: &LinePlace) {
        if place.is_owed {
            self.owed.remove(&place.head);
        }
        self.by_spent.remove(&(place.spent, place.head.tenant));
        self.weight -= u128::from(place.weight);
        self.weighted = self.weighted.saturating_sub(weighted(place));
    }

    /// The head that is due first of those whose tenants are owed.
    pub(super) fn first(&self) -> Option<Head> {
        self.owed.first().copied()
    }

    /// The tenant that has had least.
    pub(super) fn least(&self) -> Option<(Spent, usize)> {
        self.by_spent.first().copied()
    }

    /// The weights of all its tenants, and what they have had, each times its weight.
    pub(super) fn sums(&self) -> (u128, u128) {
        (self.weight, self.weighted)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_spent.is_empty()
    }
}

fn weighted(place: &LinePlace) -> u128 {
    place.spent.saturating_mul(u128::from(place.weight))
}
