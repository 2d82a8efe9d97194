//! The lines of a queue, one for each tenant, and which of them contend for a slot.
//!
//! Invariants:
//! - A line contends with its first task, its head. It is in one [`Contest`] of its queue, or in none.
//! - Among the heads of one queue, whose promises are the same, the one that waits longest is due first, whether the pool
//!   has time or not. So a contest is sorted once, and a decision looks at its first entry.
//! - What the tenants have had a contest knows as it was [told](Contest::tell) last: before each decision for which that
//!   matters.

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
    /// What its tenant has had, as its contest was told last.
    pub(super) told: Option<Spent>,
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
    lines: usize,
    /// The heads of tenants that are owed. In force is what the place of a line says.
    owed: LazyHeap<Head>,
    owed_lines: usize,
    /// The first of these that is in force. `None`: it may be another one by now.
    first: Option<Option<Head>>,
    /// What the tenants have had of whose lines it was [told](Self::tell), in the same way.
    by_spent: LazyHeap<(Spent, usize)>,
    told_lines: usize,
    /// The weights of these, and what they have had, each times its weight.
    weight: u128,
    weighted: u128,
}

impl Contest {
    pub(super) fn enter(&mut self, place: &LinePlace) {
        self.lines += 1;
        if place.is_owed {
            self.owe(place);
        }
    }

    pub(super) fn leave(&mut self, place: &LinePlace) {
        self.lines -= 1;
        if place.is_owed {
            self.disown(place);
        }
        if let Some(spent) = place.told {
            self.told_lines -= 1;
            self.weight -= u128::from(place.weight);
            self.weighted = self.weighted.saturating_sub(weighted(spent, place.weight));
        }
        if self.lines == 0 {
            self.owed.clear();
            self.by_spent.clear();
        }
    }

    /// The tenant of a line is owed from now on.
    pub(super) fn owe(&mut self, place: &LinePlace) {
        self.owed.push(place.head);
        self.owed_lines += 1;
        if let Some(first) = &mut self.first {
            *first = [*first, Some(place.head)].into_iter().flatten().min();
        }
    }

    /// The tenant of a line is not owed any more.
    pub(super) fn disown(&mut self, place: &LinePlace) {
        self.owed_lines -= 1;
        if self.first == Some(Some(place.head)) {
            self.first = None;
        }
    }

    /// The tenant of a line has had so much by now.
    pub(super) fn tell(&mut self, place: &mut LinePlace, spent: Spent) {
        let before = place.told.replace(spent);
        if before == Some(spent) {
            return;
        }
        match before {
            Some(before) => self.weighted = self.weighted.saturating_sub(weighted(before, place.weight)),
            None => {
                self.told_lines += 1;
                self.weight += u128::from(place.weight);
            }
        }
        self.weighted = self.weighted.saturating_add(weighted(spent, place.weight));
        self.by_spent.push((spent, place.head.tenant));
    }

    /// Forgets entries that are not in force, if they are many. It is called after each change. `number` is that of the contest.
    pub(super) fn tidy(&mut self, number: usize, lines: &Lines) {
        self.owed.tidy(self.owed_lines, |head| is_owed_head(lines, number, head));
        self.by_spent.tidy(self.told_lines, |entry| is_told(lines, number, entry));
    }

    /// Finds the first head that is in force, so that [`first`](Self::first) tells it.
    pub(super) fn look(&mut self, number: usize, lines: &Lines) {
        if self.first.is_none() {
            self.first = Some(self.owed.first(|head| is_owed_head(lines, number, head)));
        }
    }

    /// The head that is due first of those whose tenants are owed.
    pub(super) fn first(&self) -> Option<Head> {
        self.first.flatten()
    }

    /// The tenant that has had least, of those that it was told of.
    pub(super) fn least(&mut self, number: usize, lines: &Lines) -> Option<(Spent, usize)> {
        self.by_spent.first(|entry| is_told(lines, number, entry))
    }

    /// The weights of all tenants that it was told of, and what they have had, each times its weight.
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

fn is_told(lines: &Lines, contest: usize, (spent, tenant): &(Spent, usize)) -> bool {
    place_in(lines, *tenant, contest).is_some_and(|place| place.told == Some(*spent))
}

fn weighted(spent: Spent, weight: u64) -> u128 {
    spent.saturating_mul(u128::from(weight))
}
