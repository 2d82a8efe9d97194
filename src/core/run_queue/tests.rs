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
fn a_clock_that_steps_back_does_not_reorder_arrivals() {
    let mut queue = RunQueue::new(10);
    queue.arrive(1, (), 0, None, at(5_000));
    queue.arrive(2, (), 0, None, at(1_000));
    queue.arrive(3, (), 0, Some(at(1_100)), at(1_000));
    assert_eq!(released(&mut queue, at(1_050)), [1, 2]);
    assert_eq!(released(&mut queue, at(1_100)), [3]);
}

/// Somebody else decides the order, and the bounds of the queue hold all the same.
#[test]
fn one_item_is_released_out_of_turn() {
    let mut queue = RunQueue::new(1);
    for tag in 1..4 {
        queue.arrive(tag, tag, 0, None, at(0));
    }
    queue.arrive(9, 9, 0, Some(at(50)), at(0));
    assert_eq!((queue.get(2), queue.get(7)), (Some(&2), None));
    assert_eq!(
        (queue.release_tag(9, at(10)), queue.release_tag(7, at(10))),
        (None, None),
        "not due, and unknown"
    );
    queue.pause();
    assert_eq!(queue.release_tag(2, at(10)), None);
    queue.resume();
    assert_eq!(queue.release_tag(2, at(10)), Some(2));
    assert!(queue.is_running(2) && queue.get(2).is_none());
    assert_eq!(queue.release_tag(3, at(10)), None, "as many run as may");
    queue.finish(2);
    assert_eq!(queue.release_tag(9, at(60)), Some(9));
    queue.finish(9);
    assert_eq!(released(&mut queue, at(60)), [1]);
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
