//! Lanes against a reference that keeps the whole line and works everything out anew after each step, in virtual
//! time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[test]
fn a_newcomer_enters_an_open_lane_and_waits_before_a_taken_one() {
    let mut lane = Lane::new(7);
    assert!(lane.is_idle());
    assert_eq!(lane.arrive(&'a', 1, Newcomer::FailAfter(Duration::ZERO), at(1)), Admission::Enter);
    assert_eq!(lane.arrive(&'a', 1, Newcomer::Wait, at(1)), Admission::Enter, "it is in already");
    assert_eq!(lane.arrive(&'b', 1, Newcomer::FailAfter(Duration::ZERO), at(2)), Admission::Refuse);
    let patience = Newcomer::FailAfter(Duration::from_millis(90));
    assert_eq!(lane.arrive(&'c', 1, patience, at(2)), Admission::Wait { until: Some(at(92)) });
    assert_eq!(lane.arrive(&'d', 1, Newcomer::Skip, at(3)), Admission::Skip);
    assert_eq!(lane.arrive(&'e', 1, Newcomer::Replace, at(3)), Admission::Replace);
    assert_eq!((lane.waiting(), lane.served(), lane.has_room()), (1, 7, false));
    assert!(!lane.release(&'c', None, at(4)), "it only waits");
    assert!(lane.release(&'a', None, at(4)) && !lane.release(&'a', None, at(4)));
    assert!(lane.has_room());
    lane.let_in(&'c', 9, at(5));
    assert_eq!(lane.holders(), [Holder { id: 'c', since: at(5) }]);
    assert!(lane.release(&'c', None, at(6)) && lane.is_idle());
}

#[test]
fn nobody_enters_past_one_that_waits() {
    let mut lane = Lane::new(0);
    lane.arrive(&1, 1, Newcomer::Wait, at(0));
    lane.arrive(&2, 1, Newcomer::Wait, at(0));
    lane.release(&1, None, at(1));
    assert_eq!(lane.arrive(&3, 1, Newcomer::Wait, at(1)), Admission::Wait { until: None });
}

#[test]
fn a_blocked_lane_lets_nobody_in_until_it_is_unblocked() {
    let mut lane = Lane::new(0);
    lane.arrive(&1, 1, Newcomer::Wait, at(0));
    assert!(lane.release(&1, Some("boom".into()), at(3)));
    assert!(!lane.is_idle());
    assert_eq!(lane.blocked(), Some(&Block { by: 1, since: at(3), reason: "boom".into() }));
    assert_eq!(lane.arrive(&2, 1, Newcomer::Wait, at(4)), Admission::Wait { until: None });
    assert!(!lane.has_room());
    assert!(lane.unblock() && !lane.unblock());
    assert!(lane.has_room());
}

#[derive(Clone, Debug)]
enum ModelStep {
    Arrive { limit: u32, newcomer: Newcomer },
    Release { which: usize, blocks: bool },
    Leave { which: usize },
    Unblock,
    Adjust(Option<u32>),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<ModelStep>> {
    let newcomer = prop_oneof![
        4 => Just(Newcomer::Wait),
        2 => (0..30_u64).prop_map(|ms| Newcomer::FailAfter(Duration::from_millis(ms))),
        1 => Just(Newcomer::Skip),
        1 => Just(Newcomer::Replace),
    ];
    let step = prop_oneof![
        8 => (1..4_u32, newcomer).prop_map(|(limit, newcomer)| ModelStep::Arrive { limit, newcomer }),
        6 => (0..8_usize, prop::bool::weighted(0.1)).prop_map(|(which, blocks)| ModelStep::Release { which, blocks }),
        1 => (0..8_usize).prop_map(|which| ModelStep::Leave { which }),
        1 => Just(ModelStep::Unblock),
        1 => prop::option::of(0..4_u32).prop_map(ModelStep::Adjust),
        3 => (0..20_u64).prop_map(ModelStep::Pass),
    ];
    prop::collection::vec(step, 0..120)
}

/// A lane, driven as a broker drives it.
struct Driven {
    lane: Lane<u64>,
    line: BTreeMap<u64, u64>,
    deadlines: BTreeMap<(Timestamp, u64), u64>,
}

/// The whole truth in one list: each member that has not ended, in the order of acceptance.
#[derive(Default)]
struct Reference {
    members: Vec<(u64, Option<Timestamp>, bool)>,
    limit: u32,
    adjusted: Option<u32>,
    blocked: bool,
}

impl Reference {
    fn is_in(&self) -> Vec<u64> {
        self.members.iter().filter(|(.., inside)| *inside).map(|(id, ..)| *id).collect()
    }

    fn line(&self) -> Vec<u64> {
        self.members.iter().filter(|(.., inside)| !*inside).map(|(id, ..)| *id).collect()
    }

    fn settle(&mut self) {
        let limit = self.adjusted.unwrap_or(self.limit) as usize;
        while !self.blocked && self.is_in().len() < limit {
            let Some(first) = self.members.iter_mut().find(|(.., inside)| !*inside) else { break };
            first.2 = true;
        }
    }
}

impl Driven {
    fn let_in(&mut self, now: Timestamp) {
        while self.lane.has_room() {
            let Some((ticket, id)) = self.line.pop_first() else { panic!("one is said to wait") };
            assert!(ticket > self.lane.served());
            self.lane.let_in(&id, ticket, now);
        }
    }
}

fn run(steps: Vec<ModelStep>) {
    let mut driven = Driven { lane: Lane::new(0), line: BTreeMap::new(), deadlines: BTreeMap::new() };
    let mut reference = Reference { limit: 1, ..Reference::default() };
    let mut now = at(1_000);
    let mut next = 0;
    let mut started = Vec::new();
    for step in steps {
        match step {
            ModelStep::Arrive { limit, newcomer } => {
                next += 1;
                let id = next; // the ticket of the member is the same number
                let taken = reference.blocked
                    || !reference.line().is_empty()
                    || reference.is_in().len() >= reference.adjusted.unwrap_or(limit) as usize;
                reference.limit = limit;
                let expected = match newcomer {
                    _ if !taken => Admission::Enter,
                    Newcomer::FailAfter(Duration::ZERO) => Admission::Refuse,
                    Newcomer::FailAfter(patience) => Admission::Wait { until: Some(now + patience) },
                    Newcomer::Skip if !reference.line().is_empty() => Admission::Skip,
                    Newcomer::Replace if !reference.line().is_empty() => Admission::Replace,
                    _ => Admission::Wait { until: None },
                };
                let entry = driven.lane.arrive(&id, limit, newcomer, now);
                assert_eq!(entry, expected);
                match entry {
                    Admission::Enter => reference.members.push((id, None, true)),
                    Admission::Wait { until } => {
                        driven.line.insert(id, id);
                        if let Some(until) = until {
                            driven.deadlines.insert((until, id), id);
                        }
                        reference.members.push((id, until, false));
                    }
                    Admission::Replace => {
                        driven.line.pop_last();
                        driven.line.insert(id, id);
                        let last = *reference.line().last().expect("one waits");
                        reference.members.retain(|(other, ..)| *other != last);
                        reference.members.push((id, None, false));
                    }
                    Admission::Refuse | Admission::Skip => {}
                }
            }
            ModelStep::Release { which, blocks } => {
                let holders = reference.is_in();
                if let Some(id) = holders.get(which % holders.len().max(1)) {
                    assert!(driven.lane.release(id, blocks.then(|| "it failed".to_owned()), now));
                    reference.members.retain(|(other, ..)| other != id);
                    reference.blocked |= blocks;
                }
            }
            ModelStep::Leave { which } => {
                let line = reference.line();
                if let Some(id) = line.get(which % line.len().max(1)) {
                    driven.line.remove(id);
                    driven.lane.leave();
                    reference.members.retain(|(other, ..)| other != id);
                }
            }
            ModelStep::Unblock => {
                assert_eq!(driven.lane.unblock(), std::mem::take(&mut reference.blocked));
            }
            ModelStep::Adjust(limit) => {
                driven.lane.adjust(limit);
                reference.adjusted = limit;
            }
            ModelStep::Pass(millis) => {
                now = now + Duration::from_millis(millis);
                while let Some(first) = driven.deadlines.first_entry().filter(|first| first.key().0 <= now) {
                    if driven.line.remove(&first.remove()).is_some() {
                        driven.lane.leave();
                    }
                }
                reference
                    .members
                    .retain(|(_, until, inside)| *inside || until.is_none_or(|until| until > now));
            }
        }
        driven.let_in(now);
        reference.settle();
        let mut holders: Vec<u64> = driven.lane.holders().iter().map(|holder| holder.id).collect();
        for id in &holders {
            if !started.contains(id) {
                started.push(*id);
            }
        }
        holders.sort_unstable();
        assert_eq!(holders, reference.is_in());
        assert!(driven.line.values().copied().eq(reference.line()));
        assert_eq!(driven.lane.waiting(), driven.line.len() as u64);
        assert_eq!(driven.lane.blocked().is_some(), reference.blocked);
        if reference.members.is_empty() && !reference.blocked && reference.adjusted.is_none() {
            assert!(driven.lane.is_idle());
        }
    }
    assert!(started.is_sorted(), "they start in the order of acceptance: {started:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lane_is_like_its_reference(steps in steps()) {
        run(steps);
    }
}
