//! The items that are held, by group; in each group the lines of several tenants take turns.
//!
//! A group has what one gate holds back. When the gate opens, the first item of the line whose turn it is comes back, so that
//! no tenant's backlog keeps the others from a gate that all of them share. Invariants:
//! - Of one line the item comes back first that has the higher priority, then the one that became ready first.
//! - A line that has given an item goes behind the other lines of its group. So does a line that gets its first item: whoever
//!   brings one item after the other has no more turns than whoever has a backlog.
//! - An item that comes back and is held again by the same group has used up no turn of its line.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The place of an item in its line.
pub(super) type HeldRank = (Reverse<u8>, u64);

/// The turn that an item has used which came back.
#[derive(Clone, Copy, Debug)]
pub(super) struct UsedTurn {
    group: u64,
    line: u64,
    turn: u64,
}

/// All items that are held, by their tags. Each call costs O(log n) unless it says otherwise.
#[derive(Debug, Default)]
pub(super) struct HeldItems {
    groups: BTreeMap<u64, HeldGroup>,
    len: usize,
    next_turn: u64,
}

/// The items that are held together.
#[derive(Debug, Default)]
struct HeldGroup {
    lines: BTreeMap<u64, HeldLine>,
    /// The lines by their turns: the first one gives next.
    turns: BTreeSet<(u64, u64)>,
    /// The lines by the number of their items.
    lengths: BTreeSet<(usize, u64)>,
}

#[derive(Debug)]
struct HeldLine {
    turn: u64,
    items: BTreeMap<HeldRank, u64>,
}

impl HeldItems {
    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The number of items of a group.
    pub(super) fn len_of(&self, group: u64) -> usize {
        let lines = self.groups.get(&group).into_iter().flat_map(|group| group.lines.values());
        lines.map(|line| line.items.len()).sum()
    }

    /// The tags of all items, group by group and line by line.
    pub(super) fn tags(&self) -> impl Iterator<Item = &u64> {
        let lines = self.groups.values().flat_map(|group| group.lines.values());
        lines.flat_map(|line| line.items.values())
    }

    /// The first of the groups.
    pub(super) fn first_group(&self) -> Option<u64> {
        self.groups.first_key_value().map(|(group, _)| *group)
    }

    /// Adds an item to a line of a group. `used`: the turn in which it came back from a group before.
    pub(super) fn insert(
        &mut self,
        (group, line): (u64, u64),
        rank: HeldRank,
        tag: u64,
        used: Option<UsedTurn>,
    ) {
        let unused = used.filter(|used| (used.group, used.line) == (group, line)).map(|used| used.turn);
        let newest = self.next_turn;
        self.next_turn += 1;
        let of = self.groups.entry(group).or_default();
        let HeldGroup { lines, turns, lengths } = of;
        let held = lines.entry(line).or_insert_with(|| {
            turns.insert((newest, line));
            lengths.insert((0, line));
            HeldLine { turn: newest, items: BTreeMap::new() }
        });
        if let Some(turn) = unused.filter(|turn| *turn < held.turn) {
            turns.remove(&(held.turn, line));
            turns.insert((turn, line));
            held.turn = turn;
        }
        lengths.remove(&(held.items.len(), line));
        if held.items.insert(rank, tag).is_none() {
            self.len += 1;
        }
        lengths.insert((held.items.len(), line));
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, (group, line): (u64, u64), rank: HeldRank) {
        let Some(of) = self.groups.get_mut(&group) else { return };
        let Some(held) = of.lines.get_mut(&line) else { return };
        let before = held.items.len();
        if held.items.remove(&rank).is_none() {
            return;
        }
        self.len -= 1;
        of.lengths.remove(&(before, line));
        if held.items.is_empty() {
            of.turns.remove(&(held.turn, line));
            of.lines.remove(&line);
        } else {
            of.lengths.insert((before - 1, line));
        }
        if of.lines.is_empty() {
            self.groups.remove(&group);
        }
    }

    /// Takes out the item of a group whose turn it is. Returns its tag, and the turn that its line has used.
    pub(super) fn take_next(&mut self, group: u64) -> Option<(u64, UsedTurn)> {
        let newest = self.next_turn;
        let of = self.groups.get_mut(&group)?;
        let (turn, line) = *of.turns.first()?;
        let held = of.lines.get_mut(&line)?;
        let (rank, tag) = held.items.first_key_value().map(|(rank, tag)| (*rank, *tag))?;
        self.next_turn += 1;
        of.turns.remove(&(turn, line));
        of.turns.insert((newest, line));
        held.turn = newest;
        self.remove((group, line), rank);
        Some((tag, UsedTurn { group, line, turn }))
    }

    /// The item of a group that can best wait: the last one of its longest line.
    pub(super) fn last(&self, group: u64) -> Option<u64> {
        let of = self.groups.get(&group)?;
        let (_, longest) = of.lengths.last()?;
        of.lines.get(longest)?.items.last_key_value().map(|(_, tag)| *tag)
    }
}
