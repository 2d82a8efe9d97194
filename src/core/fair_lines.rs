//! Which of several lines gives the next item, so that a long line hides no other.
//!
//! A line holds the waiting items of one tenant. Whoever has room for an item asks [`FairLines`] which line gives it. The
//! machine knows of each line whether it has an item to give, how many of its items are out, and when it gave last. It
//! holds no items, so its memory grows with the number of lines and not with the backlog.
//!
//! Invariants:
//! - The line that has the fewest items out for its weight gives next; of lines that are equal, the one that gave longest
//!   ago. So lines that always have an item to give have equally many out, by weight.
//! - While there is room and a line has an item to give, some line is next.
//! - A line that has nothing out may give one item beyond the room, so that a line whose first item comes when the room is
//!   used up is represented all the same. All lines together give at most [`MOST_EXTRA`] items beyond the room, and none
//!   if there is no room at all.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

/// The most items that all lines together give beyond the room.
pub const MOST_EXTRA: usize = 1024;

/// The pass of a line of weight 1 that has one item out.
const UNIT: u64 = 1 << 40;

/// The lines that take turns. A line is known by its key, and is forgotten when it has nothing to give and nothing out.
/// Each call costs O(log n) unless it says otherwise.
#[derive(Debug, Default)]
pub struct FairLines<K> {
    /// The line that is known, while it is the only one. It takes no turns, so it has a place of its own, and whoever has
    /// one line pays for no search.
    alone: Option<(K, LineShare)>,
    /// The lines that are known, if they are several.
    lines: BTreeMap<K, LineShare>,
    /// Of several lines, those that have an item to give, with their passes and their last turns: the first one is next.
    order: BTreeSet<(u64, u64, K)>,
    /// Returns the number of items that are out.
    out: usize,
    last_turn: u64,
}

/// What a line has had so far.
#[derive(Clone, Copy, Debug)]
struct LineShare {
    /// How many of the line's items are out.
    out: usize,
    weight: u32,
    /// The turn in which the line gave last; 0: it has not given yet.
    last_turn: u64,
    /// Whether the line has an item to give.
    gives: bool,
}

impl Default for LineShare {
    fn default() -> Self {
        Self { out: 0, weight: 1, last_turn: 0, gives: false }
    }
}

impl LineShare {
    /// The place in the order, if the line has an item to give.
    fn place(&self) -> Option<(u64, u64)> {
        let pass = UNIT.saturating_mul(self.out as u64) / u64::from(self.weight);
        self.gives.then_some((pass, self.last_turn))
    }

    fn is_idle(&self) -> bool {
        self.out == 0 && !self.gives && self.weight == 1
    }
}

impl<K: Ord + Clone> FairLines<K> {
    /// Notes whether a line has an item to give.
    pub fn set_giving(&mut self, line: &K, gives: bool) {
        self.change(line, |share| share.gives = gives);
    }

    /// Sets the weight of a line, which is 1 unless it is set: a line of weight 2 has twice as many items out as one of
    /// weight 1. A weight of 0 counts as 1.
    pub fn weigh(&mut self, line: &K, weight: u32) {
        self.change(line, |share| share.weight = weight.max(1));
    }

    /// Notes that a line has given an item.
    pub fn gave(&mut self, line: &K) {
        self.out += 1;
        self.last_turn += 1;
        let turn = self.last_turn;
        self.change(line, |share| (share.out, share.last_turn) = (share.out + 1, turn));
    }

    /// Notes that an item of a line is not out any more: it is over, or has come back.
    pub fn took_back(&mut self, line: &K) {
        let mut came = 0;
        self.change(line, |share| {
            came = share.out.min(1);
            share.out -= came;
        });
        self.out -= came;
    }

    /// The line that gives the next item, if at most `room` items may be out.
    pub fn next(&self, room: usize) -> Option<&K> {
        let (line, is_first) = self.first()?;
        self.fits(is_first, room).then_some(line)
    }

    /// The line whose turn it is, and whether it has nothing out.
    fn first(&self) -> Option<(&K, bool)> {
        if let Some((line, share)) = &self.alone {
            return share.gives.then_some((line, share.out == 0));
        }
        let (line, share) = self.lines.get_key_value(&self.order.first()?.2)?;
        Some((line, share.out == 0))
    }

    /// Whether several lines are known, so that the order has those that have an item to give.
    fn takes_turns(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Whether this line may give an item now, if at most `room` items may be out.
    pub fn may_give(&self, line: &K, room: usize) -> bool {
        self.fits(self.out_of(line) == 0, room)
    }

    /// Whether one more item fits. `is_first`: its line has nothing out.
    fn fits(&self, is_first: bool, room: usize) -> bool {
        let most = if is_first && room > 0 { room.saturating_add(MOST_EXTRA) } else { room };
        self.out < most
    }

    /// The lines that give the next items, one turn after the other, at most `most`, as if each of them always had an item
    /// to give. O(n log n) in the number of turns.
    pub fn turns(&mut self, room: usize, most: usize) -> Vec<K> {
        if let Some((line, is_first)) = self.first().filter(|_| self.order.len() < 2) {
            let free = room.saturating_sub(self.out).max(usize::from(self.fits(is_first, room)));
            return vec![line.clone(); free.min(most)]; // there is nobody to take turns with
        }
        let mut turns = Vec::new();
        while turns.len() < most
            && let Some(line) = self.next(room).cloned()
        {
            self.gave(&line);
            turns.push(line);
        }
        turns.iter().for_each(|line| self.took_back(line));
        turns
    }

    /// Whether any line has an item to give.
    pub fn any_gives(&self) -> bool {
        self.first().is_some()
    }

    /// Returns the number of items of a line that are out.
    pub fn out_of<Q: Ord + ?Sized>(&self, line: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        match &self.alone {
            Some((alone, share)) if Borrow::<Q>::borrow(alone) == line => share.out,
            Some(_) => 0,
            None => self.lines.get(line).map_or(0, |share| share.out),
        }
    }

    /// Returns the number of items that are out.
    pub fn out(&self) -> usize {
        self.out
    }

    /// The lines that have an item to give or items out, each with the number of its items that are out.
    pub fn lines(&self) -> impl Iterator<Item = (&K, usize)> {
        let alone = self.alone.iter().map(|(line, share)| (line, share.out));
        alone.chain(self.lines.iter().map(|(line, share)| (line, share.out)))
    }

    /// Changes a line, and its place in the order.
    fn change(&mut self, line: &K, change: impl FnOnce(&mut LineShare)) {
        if !self.takes_turns() {
            let Some((alone, share)) = &mut self.alone else { return self.come_alone(line, change) };
            if *alone == *line {
                change(share);
                if share.is_idle() {
                    self.alone = None;
                }
                return;
            }
            self.begin_turns();
        }
        if !self.lines.contains_key(line) {
            self.lines.insert(line.clone(), LineShare::default());
        }
        let Some(share) = self.lines.get_mut(line) else { return };
        let before = share.place();
        change(share);
        let (after, is_idle) = (share.place(), share.is_idle());
        if before != after {
            if let Some((pass, turn)) = before {
                self.order.remove(&(pass, turn, line.clone()));
            }
            if let Some((pass, turn)) = after {
                self.order.insert((pass, turn, line.clone()));
            }
        }
        if is_idle {
            self.lines.remove(line);
            if self.lines.len() == 1 {
                self.end_turns();
            }
        }
    }

    /// The first line comes, unless it is idle all the same.
    fn come_alone(&mut self, line: &K, change: impl FnOnce(&mut LineShare)) {
        let mut share = LineShare::default();
        change(&mut share);
        if !share.is_idle() {
            self.alone = Some((line.clone(), share));
        }
    }

    /// A line that was alone gets its place in the order, because another one comes.
    fn begin_turns(&mut self) {
        if let Some((line, share)) = self.alone.take() {
            self.order.extend(share.place().map(|(pass, turn)| (pass, turn, line.clone())));
            self.lines.insert(line, share);
        }
    }

    /// A line is alone, because the others have gone.
    fn end_turns(&mut self) {
        self.alone = self.lines.pop_first();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines with numbers of waiting items, whose items are taken out while there is room.
    #[derive(Default)]
    struct Model {
        fair: FairLines<u8>,
        waiting: BTreeMap<u8, usize>,
        room: usize,
    }

    impl Model {
        fn come(&mut self, line: u8, items: usize) {
            *self.waiting.entry(line).or_default() += items;
            self.fair.set_giving(&line, self.waiting[&line] > 0);
        }

        /// Takes one item out, and checks that it was the right line's.
        fn give(&mut self) -> Option<u8> {
            let line = *self.fair.next(self.room)?;
            let out = self.fair.out_of(&line);
            let least = self.giving().map(|other| self.fair.out_of(&other)).min();
            assert_eq!(Some(out), least, "line {line} does not have the fewest out");
            assert!(self.fair.may_give(&line, self.room));
            self.fair.gave(&line);
            let left = self.waiting.get_mut(&line).expect("it has an item");
            *left -= 1;
            let gives = *left > 0;
            self.fair.set_giving(&line, gives);
            Some(line)
        }

        fn fill(&mut self) -> Vec<u8> {
            std::iter::from_fn(|| self.give()).collect()
        }

        fn giving(&self) -> impl Iterator<Item = u8> {
            self.waiting.iter().filter(|(_, items)| **items > 0).map(|(line, _)| *line)
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Come(u8, usize),
        End(u8),
        Room(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..6_u8, 1..40_usize).prop_map(|(line, items)| Event::Come(line, items)),
            8 => (0..6_u8).prop_map(Event::End),
            1 => (0..30_usize).prop_map(Event::Room),
        ]
    }

    proptest! {
        /// Whatever comes and ends: no room is left while an item waits, each line that waits is represented, nothing is
        /// out beyond the room but the first item of a line, and what is counted is right.
        #[test]
        fn the_room_is_used_and_nobody_is_hidden(events in prop::collection::vec(event(), 1..120)) {
            let mut model = Model { room: 10, ..Model::default() };
            let mut out: BTreeMap<u8, usize> = BTreeMap::new();
            for event in events {
                match event {
                    Event::Come(line, items) => model.come(line, items),
                    Event::End(line) => {
                        let ended = out.entry(line).or_default();
                        if *ended > 0 {
                            *ended -= 1;
                            model.fair.took_back(&line);
                        }
                    }
                    Event::Room(room) => model.room = room,
                }
                for line in model.fill() {
                    *out.entry(line).or_default() += 1;
                }
                prop_assert_eq!(model.fair.out(), out.values().sum::<usize>());
                for (line, count) in &out {
                    prop_assert_eq!(model.fair.out_of(line), *count);
                }
                let waits: Vec<u8> = model.giving().collect();
                prop_assert_eq!(model.fair.any_gives(), !waits.is_empty());
                prop_assert!(waits.is_empty() || model.fair.out() >= model.room, "room is left");
                if model.room > 0 {
                    for line in &waits {
                        prop_assert!(out.get(line).is_some_and(|count| *count > 0), "line {} is hidden", line);
                    }
                }
                // Who is alone has no place in the order; of several, those that give have one each.
                let places = if model.fair.lines.len() > 1 { waits.len() } else { 0 };
                prop_assert_eq!(model.fair.order.len(), places);
                // What is known beyond that is nothing: lines that are idle are forgotten.
                let known: BTreeSet<u8> = model.fair.lines().map(|(line, _)| *line).collect();
                let meant = waits.into_iter().chain(out.iter().filter(|(_, n)| **n > 0).map(|(line, _)| *line));
                prop_assert_eq!(known, meant.collect::<BTreeSet<_>>());
            }
        }

        /// Lines that never run out have equally many out, whatever the room is and whoever came first.
        #[test]
        fn floods_share_the_room_equally(room in 1..200_usize, lines in 1..8_u8, ends in prop::collection::vec(0..8_u8, 0..400)) {
            let mut model = Model { room, ..Model::default() };
            model.come(0, 10_000);
            model.fill();
            for line in 1..lines {
                model.come(line, 10_000);
            }
            model.fill();
            for line in ends {
                model.fair.took_back(&(line % lines));
                model.fill();
            }
            // Until the first line has given back what it had too much, the others catch up.
            while model.fair.out_of(&0) > room.div_ceil(usize::from(lines)) {
                model.fair.took_back(&0);
                model.fill();
            }
            let out: Vec<usize> = (0..lines).map(|line| model.fair.out_of(&line)).collect();
            let (least, most) = (out.iter().min(), out.iter().max());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{:?}", out);
        }

        /// The planned turns are those that are taken.
        #[test]
        fn turns_are_those_that_follow(room in 0..40_usize, outs in prop::collection::vec(0..9_usize, 1..6), most in 0..50_usize) {
            let mut fair = FairLines::default();
            for (line, out) in outs.iter().enumerate() {
                fair.set_giving(&line, true);
                (0..*out).for_each(|_| fair.gave(&line));
            }
            let turns = fair.turns(room, most);
            prop_assert_eq!(fair.out(), outs.iter().sum::<usize>(), "a plan changes nothing");
            let mut counts = outs.clone();
            for line in &turns {
                prop_assert!(counts.iter().all(|count| counts[*line] <= *count), "{:?} of {:?}", turns, outs);
                counts[*line] += 1;
            }
            prop_assert!(turns.len() == most || counts.iter().sum::<usize>() >= room);
        }
    }

    #[test]
    fn a_newcomer_is_next_also_where_the_room_is_used_up() {
        let mut model = Model { room: 100, ..Model::default() };
        model.come(1, 20_000);
        assert_eq!(model.fill().len(), 100);
        model.come(2, 3);
        assert_eq!(model.fill(), [2], "one beyond the room");
        model.fair.took_back(&1);
        assert_eq!(model.fill(), [] as [u8; 0], "101 were out, and 100 may be");
        model.fair.took_back(&1);
        assert_eq!(model.fill(), [2], "it has the fewest");
        model.room = 0;
        model.come(3, 1);
        assert_eq!(model.fill(), [] as [u8; 0], "nothing comes where nothing may be out");
    }

    #[test]
    fn what_goes_beyond_the_room_is_bounded() {
        let mut fair = FairLines::default();
        for line in 0..2 * MOST_EXTRA {
            fair.set_giving(&line, true);
        }
        assert_eq!(fair.turns(1, usize::MAX).len(), 1 + MOST_EXTRA);
    }

    #[test]
    fn a_line_that_is_alone_has_no_place_to_lose() {
        let mut model = Model { room: 3, ..Model::default() };
        model.come(1, 50);
        for _ in 0..10 {
            let free = model.room - model.fair.out();
            assert_eq!(model.fill().len(), free);
            model.fair.took_back(&1);
            assert!(model.fair.order.is_empty(), "nothing is sorted for one line");
        }
        model.fair.took_back(&7);
        assert_eq!((model.fair.out(), model.fair.lines().count()), (2, 1), "nobody knows that line");
        // A second line comes while the first one has items out, and goes.
        model.come(2, 1);
        assert_eq!(model.fill(), [2]);
        model.fair.took_back(&2);
        assert_eq!((model.fill(), model.fair.order.len()), (vec![1], 0));
    }

    #[test]
    fn shares_are_by_weight() {
        let mut fair = FairLines::default();
        for line in ["a", "b", "c"] {
            fair.set_giving(&line, true);
        }
        fair.weigh(&"b", 3);
        fair.weigh(&"c", 0);
        for line in fair.turns(500, 500) {
            fair.gave(&line);
        }
        let out: Vec<usize> = ["a", "b", "c"].iter().map(|line| fair.out_of(line)).collect();
        assert!((99..=101).contains(&out[0]) && (298..=302).contains(&out[1]), "{out:?}");
        assert_eq!(out.iter().sum::<usize>(), 500);
    }
}
