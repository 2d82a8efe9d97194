//! The lines of a queue, one for each tenant, and which of them contend for a slot.
//!
//! Invariants:
//! - A line contends with its first task, its head. It is in one [`Contest`] of its queue, or in none.
//! - Among the heads of one queue, whose promises are the same, the one that waits longest is due first, whether the pool
//!   has time or not. So a contest is sorted once, and a decision looks at its first entry.

use std::cmp::Reverse;

use super::lazy_heap::LazyHeap;
use super::line_items::LineItems;
use super::tenant::Spent;
use crate::core::Timestamp;
use crate::core::number_map::NumberMap;

/// The place of a task in its line.
pub(super) type LineKey = (Reverse<u8>, u64);

/// The lines of a queue, by tenant.
pub(super) type Lines = NumberMap<usize, Line>;

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
    pub(super) items: LineItems,
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
    /// The heads of tenants that are owed. In force is what the place of a line says.
    owed: LazyHeap<Head>,
    /// All its tenants by what they have had, in the same way.
    by_spent: LazyHeap<(Spent, usize)>,
    lines: usize,
    /// The number of its lines whose tenants are owed.
    owed_lines: usize,
    weight: u128,
    /// What they have had, each times its weight.
    weighted: u128,
    /// Of the entries that are in force, the first ones, unless something has changed since.
    first: Option<FirstEntries>,
}

/// The first entries of a contest.
#[derive(Clone, Copy, Debug)]
struct FirstEntries {
    owed: Option<Head>,
    least: Option<(Spent, usize)>,
}

impl Contest {
    pub(super) fn enter(&mut self, place: &LinePlace) {
        if place.is_owed {
            self.owed.push(place.head);
            self.owed_lines += 1;
        }
        self.by_spent.push((place.spent, place.head.tenant));
        self.lines += 1;
        self.weight += u128::from(place.weight);
        self.weighted = self.weighted.saturating_add(weighted(place));
        self.first = None;
    }

    pub(super) fn leave(&mut self, place: &LinePlace) {
        self.owed_lines -= usize::from(place.is_owed);
        self.lines -= 1;
        if self.lines == 0 {
            self.owed.clear();
            self.by_spent.clear();
        }
        self.weight -= u128::from(place.weight);
        self.weighted = self.weighted.saturating_sub(weighted(place));
        self.first = None;
    }

    /// A line has changed that contends here: what its tenant has had, or whether it is owed.
    pub(super) fn change(&mut self, before: &LinePlace, after: &LinePlace) {
        if after.is_owed && !before.is_owed {
            self.owed.push(after.head);
        }
        self.owed_lines = self.owed_lines + usize::from(after.is_owed) - usize::from(before.is_owed);
        if after.spent != before.spent {
            self.by_spent.push((after.spent, after.head.tenant));
        }
        self.weighted = self.weighted.saturating_sub(weighted(before)).saturating_add(weighted(after));
        self.first = None;
    }

    /// Forgets entries that are not in force, if they are many. It is called after each change. `number` is that of the contest.
    pub(super) fn tidy(&mut self, number: usize, lines: &Lines) {
        self.owed.tidy(self.owed_lines, |head| is_owed_head(lines, number, head));
        self.by_spent.tidy(self.lines, |entry| is_spent(lines, number, entry));
    }

    /// Finds the first entries that are in force, so that [`first`](Self::first) and [`least`](Self::least) tell them.
    pub(super) fn look(&mut self, number: usize, lines: &Lines) {
        if self.first.is_none() {
            let owed = self.owed.first(|head| is_owed_head(lines, number, head));
            let least = self.by_spent.first(|entry| is_spent(lines, number, entry));
            self.first = Some(FirstEntries { owed, least });
        }
    }

    /// The head that is due first of those whose tenants are owed.
    pub(super) fn first(&self) -> Option<Head> {
        self.first.and_then(|first| first.owed)
    }

    /// The tenant that has had least.
    pub(super) fn least(&self) -> Option<(Spent, usize)> {
        self.first.and_then(|first| first.least)
    }

    /// The weights of all its tenants, and what they have had, each times its weight.
    pub(super) fn sums(&self) -> (u128, u128) {
        (self.weight, self.weighted)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// The number of its lines.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }
}

/// The place of a tenant's line, if it is in this contest.
fn place_in(lines: &Lines, tenant: usize, contest: usize) -> Option<&LinePlace> {
    lines.get(&tenant)?.place.as_ref().filter(|place| place.blocks == contest)
}

fn is_owed_head(lines: &Lines, contest: usize, head: &Head) -> bool {
    place_in(lines, head.tenant, contest).is_some_and(|place| place.is_owed && place.head == *head)
}

fn is_spent(lines: &Lines, contest: usize, (spent, tenant): &(Spent, usize)) -> bool {
    place_in(lines, *tenant, contest).is_some_and(|place| place.spent == *spent)
}

pub(super) fn weighted(place: &LinePlace) -> u128 {
    place.spent.saturating_mul(u128::from(place.weight))
}
