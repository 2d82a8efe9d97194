//! Examples that read as documentation, then random histories against a model too simple to be wrong.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn released<T>(queue: &mut RunQueue<T>, now: Timestamp) -> Vec<u64> {
    std::iter::from_fn(|| queue.release(now)).map(|(tag, _)| tag).collect()
}

#[test]
fn higher_priority_first_then_arrival() {
    let mut queue = RunQueue::new(10);
    for (tag, priority) in [(1, 0), (2, 5), (3, 0), (4, 9), (5, 5)] {
        assert!(queue.arrive(tag, (), priority, None, at(tag)));
    }
    assert_eq!(released(&mut queue, at(10)), [4, 2, 5, 1, 3]);
}

#[test]
fn who_waits_can_be_looked_at_and_knows_how_many_are_before_it() {
    let mut queue = RunQueue::new(1);
    for (tag, priority) in [(1, 0), (2, 5), (3, 0), (4, 9)] {
        queue.arrive(tag, tag * 10, priority, None, at(tag));
    }
    queue.arrive(5, 50, 9, Some(at(1_000)), at(6));
    assert_eq!([4, 2, 1, 3].map(|tag| queue.ahead_of(tag)), [0, 1, 2, 3].map(Some));
    assert_eq!((queue.ahead_of(5), queue.get(5)), (None, Some(&50)), "it is not ready");
    assert_eq!((queue.ahead_of(9), queue.get(9)), (None, None));
    assert_eq!(queue.release(at(10)), Some((4, 40)));
    assert_eq!((queue.ahead_of(4), queue.get(4), queue.ahead_of(3)), (None, None, Some(2)));
}

#[test]
fn the_held_ones_of_a_group_are_counted() {
    let mut queue = RunQueue::new(10);
    for (tag, group) in [(1, 7), (2, 8), (3, 7)] {
        queue.arrive(tag, (), 0, None, at(tag));
        assert!(queue.hold(tag, group, 0, at(tag)));
    }
    assert_eq!([7, 8, 9].map(|group| queue.held_in(group)), [2, 1, 0]);
    queue.bring_back(7, at(10));
    assert_eq!([7, 8].map(|group| queue.held_in(group)), [1, 1]);
}

#[test]
fn no_more_than_the_limit_runs_and_a_finish_frees_a_place() {
    let mut queue = RunQueue::new(2);
    for tag in 1..=4 {
        queue.arrive(tag, (), 0, None, at(0));
    }
    assert_eq!(released(&mut queue, at(0)), [1, 2]);
    assert!(queue.finish(1));
    assert_eq!(released(&mut queue, at(0)), [3]);
    assert_eq!((queue.ready(), queue.running()), (1, 2));
}

#[test]
fn a_scheduled_one_arrives_at_its_due_time_however_late_somebody_looks() {
    let mut queue = RunQueue::new(10);
    queue.arrive(1, (), 0, Some(at(100)), at(0));
    queue.arrive(2, (), 0, None, at(50));
    assert_eq!((queue.ready(), queue.scheduled(), queue.next_due()), (1, 1, Some(at(100))));
    // Nobody released at 100. Still, item 1 was due before item 3 came; of 1 and 4, due at the same time, 1 came
    // first.
    queue.arrive(4, (), 0, Some(at(100)), at(60));
    queue.arrive(3, (), 0, None, at(150));
    assert_eq!(released(&mut queue, at(200)), [2, 1, 4, 3]);
    assert_eq!(queue.next_due(), None);
}

#[test]
fn a_due_time_that_has_come_is_ready_at_once() {
    let mut queue = RunQueue::new(1);
    queue.arrive(1, (), 0, Some(at(10)), at(10));
    assert_eq!((queue.ready(), queue.oldest_ready_since()), (1, Some(at(10))));
}

#[test]
fn a_late_finish_and_a_second_delivery_are_refused() {
    let mut queue = RunQueue::new(1);
    assert!(queue.arrive(1, "first", 0, None, at(0)));
    assert!(!queue.arrive(1, "again", 0, None, at(0)), "held as ready");
    assert!(!queue.finish(1), "not running yet");
    assert_eq!(queue.release(at(0)), Some((1, "first")));
    assert!(!queue.arrive(1, "again", 0, None, at(0)), "held as running");
    assert_eq!(queue.remove(1), None, "running ones are not taken out");
    assert!(queue.finish(1));
    assert!(!queue.finish(1), "finished is final");
}

#[test]
fn shrinking_stops_nothing_and_releases_nothing_until_there_is_room() {
    let mut queue = RunQueue::new(3);
    for tag in 1..=5 {
        queue.arrive(tag, (), 0, None, at(0));
    }
    assert_eq!(released(&mut queue, at(0)), [1, 2, 3]);
    queue.resize(1);
    for tag in 1..=2 {
        assert!(queue.finish(tag));
        assert_eq!(queue.release(at(0)), None);
    }
    assert!(queue.finish(3));
    assert_eq!(released(&mut queue, at(0)), [4]);
}

#[test]
fn a_pause_holds_releases_but_time_goes_on() {
    let mut queue = RunQueue::new(1);
    queue.pause();
    queue.arrive(1, (), 0, Some(at(10)), at(0));
    assert_eq!(queue.release(at(20)), None);
    assert_eq!((queue.ready(), queue.oldest_ready_since()), (1, Some(at(10))));
    queue.resume();
    assert_eq!(released(&mut queue, at(20)), [1]);
}

#[test]
fn clear_hands_back_what_waits_and_leaves_what_runs() {
    let mut queue = RunQueue::new(1);
    queue.arrive(1, 'a', 0, None, at(0));
    queue.arrive(2, 'b', 0, Some(at(90)), at(0));
    queue.arrive(3, 'c', 0, Some(at(80)), at(0));
    queue.arrive(4, 'd', 0, None, at(0));
    queue.arrive(5, 'e', 7, None, at(0));
    assert_eq!(released(&mut queue, at(0)), [5]);
    assert_eq!(queue.find(|item| *item > 'b'), Some(4));
    assert_eq!(queue.clear(), [(1, 'a'), (4, 'd'), (3, 'c'), (2, 'b')]);
    assert_eq!((queue.ready(), queue.scheduled(), queue.running()), (0, 0, 1));
    assert_eq!((queue.oldest_ready_since(), queue.next_due()), (None, None));
    assert!(queue.is_running(5));
}

/// An item that waited elsewhere before keeps its age, and passes no other item.
#[test]
fn an_age_comes_along() {
    let mut queue = RunQueue::new(1);
    queue.arrive(1, (), 0, None, at(50));
    assert!(queue.arrive_ready(2, (), 0, at(10), at(60)));
    assert!(!queue.arrive_ready(2, (), 0, at(5), at(60)), "held as ready");
    assert!(queue.arrive_ready(3, (), 0, at(99), at(60)), "a clock of another machine that is ahead");
    assert_eq!(queue.oldest_ready_since(), Some(at(10)));
    assert_eq!(queue.release(at(60)).map(|(tag, ())| tag), Some(1));
    queue.finish(1);
    assert_eq!((queue.remove(2), queue.oldest_ready_since()), (Some(()), Some(at(60))));
    assert_eq!(queue.release(at(70)).map(|(tag, ())| tag), Some(3));
    assert_eq!(queue.oldest_ready_since(), None);
}

#[test]
fn the_oldest_ready_is_the_one_passed_over() {
    let mut queue = RunQueue::new(1);
    queue.arrive(1, (), 0, None, at(1));
    queue.arrive(2, (), 9, None, at(2));
    assert_eq!(released(&mut queue, at(3)), [2]);
    assert_eq!(queue.oldest_ready_since(), Some(at(1)));
}

#[test]
fn a_held_one_stands_in_nobodys_way_and_keeps_its_place() {
    let mut queue = RunQueue::new(1);
    for (tag, priority) in [(1, 0), (2, 5), (3, 0), (4, 0)] {
        queue.arrive(tag, tag, priority, None, at(tag));
    }
    assert!(queue.hold(1, 7, 0, at(10)) && queue.hold(2, 7, 0, at(11)) && queue.hold(3, 8, 0, at(12)));
    assert!(!queue.hold(1, 7, 0, at(10)), "held already");
    assert_eq!((queue.ready(), queue.held(), queue.last_held(7)), (1, 3, Some(1)));
    assert_eq!((queue.oldest_ready_since(), queue.oldest_held_since()), (Some(at(4)), Some(at(10))));
    assert_eq!(queue.find(|tag| *tag == 3), Some(3), "it still waits");
    assert_eq!(queue.first(at(20)), Some((4, &4)));
    // The one of the higher priority comes back first, and passes those that came before it, as ever.
    assert_eq!((queue.bring_back(7, at(19)), queue.held_since(2)), (Some(2), Some(at(11))));
    assert_eq!((queue.ready_since(2), queue.ready_since(1)), (Some(at(19)), None), "since nothing keeps it");
    assert_eq!(queue.first(at(20)), Some((2, &2)));
    assert_eq!((queue.bring_back(7, at(20)), queue.held_since(4)), (Some(1), None));
    assert_eq!((queue.bring_back(7, at(20)), queue.last_held(7)), (None, None));
    assert_eq!(queue.release_tag(1), Some(1), "in whatever order its caller wants");
    assert_eq!((queue.release_tag(2), queue.first(at(20))), (None, None), "the limit is reached");
    queue.finish(1);
    assert_eq!(queue.remove(3), Some(3));
    assert!(queue.hold(2, 9, 0, at(30)));
    assert_eq!(queue.oldest_held_since(), Some(at(11)), "since something kept it first");
    assert_eq!(queue.clear(), [(4, 4), (2, 2)]);
    assert_eq!((queue.ready(), queue.held(), queue.oldest_held_since()), (0, 0, None));
}

/// A flood of line 1 and two other lines: they come back in turns, and within a line in the order of arrival.
#[test]
fn lines_of_a_group_come_back_in_turns() {
    let mut queue = RunQueue::new(usize::MAX);
    for tag in 0..10 {
        assert!(queue.arrive(tag, (), 0, None, at(tag)));
        let line = match tag {
            6 | 8 => 2,
            7 => 3,
            _ => 1,
        };
        assert!(queue.hold(tag, 7, line, at(20)));
    }
    assert_eq!((queue.held(), queue.last_held(7)), (10, Some(9)), "the last one of the longest line");
    let next = |queue: &mut RunQueue<()>| queue.bring_back(7, at(30));
    let come: Vec<Option<u64>> = (0..4).map(|_| next(&mut queue)).collect();
    assert_eq!(come, [Some(0), Some(6), Some(7), Some(1)]);
    // The gate was not open after all: that was nobody's turn.
    assert!(queue.hold(1, 7, 1, at(40)));
    assert_eq!(next(&mut queue), Some(1));
    // Line 3 comes again, behind line 2, although it has nothing else.
    assert!(queue.arrive(10, (), 0, None, at(50)) && queue.hold(10, 7, 3, at(50)));
    let come: Vec<u64> = std::iter::from_fn(|| next(&mut queue)).collect();
    assert_eq!(come, [8, 2, 10, 3, 4, 5, 9]);
    assert_eq!((queue.held(), queue.ready(), queue.last_held(7)), (0, 11, None));
}

#[test]
fn a_line_whose_only_item_is_held_again_has_its_turn_still() {
    let mut queue = RunQueue::new(usize::MAX);
    for (tag, line) in [(0, 1), (1, 2), (2, 2)] {
        assert!(queue.arrive(tag, (), 0, None, at(tag)) && queue.hold(tag, 7, line, at(5)));
    }
    assert_eq!(queue.bring_back(7, at(6)), Some(0));
    assert!(queue.hold(0, 7, 1, at(7)), "it is asked, and held again");
    assert_eq!(queue.bring_back(7, at(8)), Some(0), "it is asked before the other line");
    assert!(queue.hold(0, 8, 1, at(9)), "now another gate holds it");
    assert_eq!((queue.bring_back(7, at(9)), queue.bring_back(8, at(9))), (Some(1), Some(0)));
}

#[test]
fn a_clock_that_steps_back_does_not_reorder_arrivals() {
    let mut queue = RunQueue::new(10);
    queue.arrive(1, (), 0, None, at(5_000));
    queue.arrive(2, (), 0, None, at(1_000));
    queue.arrive(3, (), 0, Some(at(1_100)), at(1_000));
    assert_eq!(released(&mut queue, at(1_050)), [1, 2]);
    assert_eq!(released(&mut queue, at(1_100)), [3]);
}

/// One item of the reference model. `serial` distinguishes two arrivals with the same tag.
#[derive(Clone, Debug)]
struct HeldItem {
    tag: u64,
    serial: u64,
    priority: u8,
    /// When the item became ready or will become ready.
    since: Timestamp,
    state: ItemState,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ItemState {
    Ready,
    Scheduled,
    Running,
}

/// The reference: one list in the order of arrival, scanned from end to end for every question.
#[derive(Default)]
struct Model {
    all: Vec<HeldItem>,
    limit: usize,
    paused: bool,
}

impl Model {
    fn of(&self, state: ItemState) -> impl Iterator<Item = &HeldItem> {
        self.all.iter().filter(move |held| held.state == state)
    }

    fn look(&mut self, now: Timestamp) {
        for held in &mut self.all {
            if held.state == ItemState::Scheduled && held.since <= now {
                held.state = ItemState::Ready;
            }
        }
    }

    fn arrive(
        &mut self,
        tag: u64,
        serial: u64,
        priority: u8,
        due: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        self.look(now);
        if self.all.iter().any(|held| held.tag == tag) {
            return false;
        }
        let (since, state) = match due {
            Some(due) if due > now => (due, ItemState::Scheduled),
            _ => (now, ItemState::Ready),
        };
        self.all.push(HeldItem { tag, serial, priority, since, state });
        true
    }

    /// The ready items as they should leave, then the scheduled ones. The sorts are stable, so ties stay in arrival
    /// order.
    fn in_order(&self) -> Vec<(u64, u64)> {
        let mut ready: Vec<&HeldItem> = self.of(ItemState::Ready).collect();
        ready.sort_by_key(|held| (Reverse(held.priority), held.since));
        let mut scheduled: Vec<&HeldItem> = self.of(ItemState::Scheduled).collect();
        scheduled.sort_by_key(|held| held.since);
        ready.into_iter().chain(scheduled).map(|held| (held.tag, held.serial)).collect()
    }

    fn release(&mut self, now: Timestamp) -> Option<(u64, u64)> {
        self.look(now);
        if self.paused
            || self.of(ItemState::Running).count() >= self.limit
            || self.of(ItemState::Ready).count() == 0
        {
            return None;
        }
        let (tag, serial) = self.in_order()[0];
        self.all.iter_mut().find(|held| held.tag == tag)?.state = ItemState::Running;
        Some((tag, serial))
    }

    fn take(&mut self, tag: u64, fits: impl Fn(ItemState) -> bool) -> Option<u64> {
        let at = self.all.iter().position(|held| held.tag == tag && fits(held.state))?;
        Some(self.all.remove(at).serial)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Arrive { tag: u64, priority: u8, due_in: Option<i64> },
    Release,
    ReleaseAll,
    Finish(u64),
    Remove(u64),
    Clear,
    Resize(usize),
    Pause,
    Resume,
    Advance(u64),
}

/// Operations with few tags, few priorities and coarse times, so that collisions and ties are common.
fn op() -> impl Strategy<Value = Op> {
    let due_in = prop_oneof![2 => Just(None), 3 => (-3i64..12).prop_map(Some)];
    prop_oneof![
        12 => (0u64..32, 0u8..3, due_in).prop_map(|(tag, priority, due_in)| Op::Arrive { tag, priority, due_in }),
        6 => Just(Op::Release),
        2 => Just(Op::ReleaseAll),
        6 => (0u64..32).prop_map(Op::Finish),
        3 => (0u64..32).prop_map(Op::Remove),
        1 => Just(Op::Clear),
        2 => (0usize..7).prop_map(Op::Resize),
        1 => Just(Op::Pause),
        2 => Just(Op::Resume),
        6 => (0u64..6).prop_map(Op::Advance),
    ]
}

fn release_both(
    queue: &mut RunQueue<u64>,
    model: &mut Model,
    now: Timestamp,
) -> Result<Option<u64>, TestCaseError> {
    let running = queue.running();
    let out = queue.release(now);
    prop_assert_eq!(out, model.release(now));
    prop_assert_eq!(queue.running(), running + usize::from(out.is_some()));
    if let Some((tag, _)) = out {
        prop_assert!(queue.running() <= queue.limit(), "released above the limit");
        prop_assert!(!queue.is_paused());
        prop_assert!(queue.is_running(tag));
    }
    Ok(out.map(|(_, serial)| serial))
}

fn agree(queue: &RunQueue<u64>, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(queue.ready(), model.of(ItemState::Ready).count());
    prop_assert_eq!(queue.scheduled(), model.of(ItemState::Scheduled).count());
    prop_assert_eq!(queue.running(), model.of(ItemState::Running).count());
    prop_assert_eq!(queue.next_due(), model.of(ItemState::Scheduled).map(|held| held.since).min());
    prop_assert_eq!(queue.oldest_ready_since(), model.of(ItemState::Ready).map(|held| held.since).min());
    let waiting: Vec<(u64, u64)> = queue.waiting().map(|(tag, serial)| (tag, *serial)).collect();
    prop_assert_eq!(waiting, model.in_order());
    // The indexes behind the counts agree with the waiting items.
    prop_assert_eq!(queue.waiting.len(), queue.line.len() + queue.agenda.len());
    prop_assert_eq!(queue.ready_since.len(), queue.line.len());
    for tag in 0..32 {
        prop_assert_eq!(queue.is_running(tag), model.of(ItemState::Running).any(|held| held.tag == tag));
    }
    prop_assert_eq!((queue.limit(), queue.is_paused()), (model.limit, model.paused));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_history_is_that_of_the_model(limit in 0usize..7, ops in prop::collection::vec(op(), 1..200)) {
        let mut queue = RunQueue::new(limit);
        let mut model = Model { limit, ..Model::default() };
        let mut now = at(1_000);
        let (mut accepted, mut left) = (0u64, HashSet::new());
        for op in ops {
            match op {
                Op::Arrive { tag, priority, due_in } => {
                    let due = due_in.map(|by| at(now.as_millis().saturating_add_signed(by)));
                    let taken = queue.arrive(tag, accepted, priority, due, now);
                    prop_assert_eq!(taken, model.arrive(tag, accepted, priority, due, now));
                    accepted += u64::from(taken);
                }
                Op::Release => {
                    if let Some(serial) = release_both(&mut queue, &mut model, now)? {
                        prop_assert!(left.insert(serial), "released twice");
                    }
                }
                Op::ReleaseAll => {
                    while let Some(serial) = release_both(&mut queue, &mut model, now)? {
                        prop_assert!(left.insert(serial), "released twice");
                    }
                    prop_assert!(queue.is_paused() || queue.ready() == 0 || queue.running() >= queue.limit());
                }
                Op::Finish(tag) => {
                    prop_assert_eq!(queue.finish(tag), model.take(tag, |state| state == ItemState::Running).is_some());
                }
                Op::Remove(tag) => {
                    let out = queue.remove(tag);
                    prop_assert_eq!(out, model.take(tag, |state| state != ItemState::Running));
                    prop_assert!(out.is_none_or(|serial| left.insert(serial)), "removed after it had left");
                }
                Op::Clear => {
                    let out = queue.clear();
                    prop_assert_eq!(&out, &model.in_order());
                    model.all.retain(|held| held.state == ItemState::Running);
                    for (_, serial) in out {
                        prop_assert!(left.insert(serial), "handed back after it had left");
                    }
                }
                Op::Resize(limit) => {
                    queue.resize(limit);
                    model.limit = limit;
                }
                Op::Pause => {
                    queue.pause();
                    model.paused = true;
                }
                Op::Resume => {
                    queue.resume();
                    model.paused = false;
                }
                Op::Advance(millis) => now = now + Duration::from_millis(millis),
            }
            agree(&queue, &model)?;
            // No item is lost: each accepted item has left or still waits.
            prop_assert_eq!(accepted, (left.len() + queue.ready() + queue.scheduled()) as u64);
        }
    }
}

#[derive(Clone, Debug)]
enum HoldOp {
    Arrive(u8),
    HoldFirst(u64),
    BringBack(u64),
    BringAllBack,
    Release,
    Remove(usize),
}

fn hold_op() -> impl Strategy<Value = HoldOp> {
    prop_oneof![
        4 => (0u8..3).prop_map(HoldOp::Arrive),
        4 => (0u64..3).prop_map(HoldOp::HoldFirst),
        2 => (0u64..3).prop_map(HoldOp::BringBack),
        1 => Just(HoldOp::BringAllBack),
        2 => Just(HoldOp::Release),
        1 => (0usize..8).prop_map(HoldOp::Remove),
    ]
}

proptest! {
    /// The reference is one list in the order of arrival, with the group of each item that is held.
    #[test]
    fn held_ones_come_back_where_they_were(ops in prop::collection::vec(hold_op(), 1..200)) {
        let mut queue = RunQueue::new(usize::MAX);
        let mut model: Vec<(u64, u8, Option<u64>)> = Vec::new();
        let now = at(1_000);
        let order = |model: &[(u64, u8, Option<u64>)], group: Option<u64>| {
            let mut found: Vec<_> = model.iter().filter(|item| item.2 == group).copied().collect();
            found.sort_by_key(|item| Reverse(item.1)); // a stable sort, so ties stay in the order of arrival
            found.into_iter().map(|item| item.0).collect::<Vec<u64>>()
        };
        for (tag, op) in ops.into_iter().enumerate() {
            let tag = tag as u64;
            match op {
                HoldOp::Arrive(priority) => {
                    prop_assert!(queue.arrive(tag, (), priority, None, now));
                    model.push((tag, priority, None));
                }
                HoldOp::HoldFirst(group) => {
                    let first = queue.first(now).map(|(tag, ())| tag);
                    prop_assert_eq!(first, order(&model, None).first().copied());
                    if let Some(first) = first {
                        prop_assert!(queue.hold(first, group, 0, now));
                        model.iter_mut().filter(|item| item.0 == first).for_each(|item| item.2 = Some(group));
                    }
                }
                HoldOp::BringBack(group) => {
                    let first = order(&model, Some(group)).first().copied();
                    prop_assert_eq!(queue.bring_back(group, now), first);
                    model.iter_mut().filter(|item| Some(item.0) == first).for_each(|item| item.2 = None);
                }
                HoldOp::BringAllBack => {
                    queue.bring_all_back(now);
                    model.iter_mut().for_each(|item| item.2 = None);
                }
                HoldOp::Release => {
                    let first = order(&model, None).first().copied();
                    prop_assert_eq!(queue.release(now).map(|(tag, ())| tag), first);
                    model.retain(|item| Some(item.0) != first);
                }
                HoldOp::Remove(at) if at < model.len() => {
                    prop_assert_eq!(queue.remove(model[at].0), Some(()));
                    model.remove(at);
                }
                HoldOp::Remove(_) => {}
            }
            prop_assert_eq!(queue.ready(), order(&model, None).len());
            prop_assert_eq!(queue.held(), model.len() - queue.ready());
            prop_assert_eq!(queue.held_since.len(), queue.held());
            prop_assert_eq!(queue.ready_since.len(), queue.ready());
            for group in 0..3 {
                prop_assert_eq!(queue.last_held(group), order(&model, Some(group)).last().copied());
            }
        }
    }
}
