//! The properties of the machine, each with a fault that it finds: a property that no fault breaks says nothing.
//!
//! - I1 a slot idles only if no head may start; the exceptions are the reserve and the room
//! - I2 of the heads of one stage, none starts before one whose promise is used more, or whose deadline is earlier
//! - I3 two tenants with work differ by a bounded amount of slot time, by their weights
//! - I4 a head is passed by a bounded number of starts, and once its promise is at risk only by heads that are worse off
//! - I5 in a line: priority, then arrival
//! - I6 what is charged is what was used and what goes on; no slot is lost
//! - I7 idling buys no more than a round of the slots
//! - I8 no more runs than slots and workers; a tenant leaves room, and long runs leave the reserve
//! - I9 one history gives one sequence of starts
//! - I10 the reason is true: once it is taken away, the task starts or has the next one
//! - I11 twice the weight is twice the share
//! - I12 who asks for no more than its share waits for one run at most, however many others flood
//!
//! [`world`] plays random histories against a model that is too simple to be wrong; [`shares`] runs tenants against each other
//! in virtual time, and [`floods`] many of them; [`books`] compares what the machine keeps with what a search finds.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::fault::Fault;
use world::{Op, Property, World, op};

mod books;
mod examples;
mod floods;
mod shares;
mod world;

/// One of these, another one each time.
pub(super) fn any<T>(candidates: impl Iterator<Item = T>) -> Option<T> {
    static TURNS: AtomicUsize = AtomicUsize::new(0);
    let mut all: Vec<T> = candidates.collect();
    let turn = TURNS.fetch_add(1, Ordering::Relaxed);
    if all.is_empty() { None } else { Some(all.swap_remove(turn % all.len())) }
}

/// Plays random histories, always the same ones, and says whether the property holds in all of them.
fn holds(property: Property, fault: Option<Fault>) -> Result<(), String> {
    let shrinks = if fault.is_some() { 0 } else { 20_000 };
    let config =
        Config { cases: 120, failure_persistence: None, max_shrink_iters: shrinks, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let histories = prop::collection::vec(op(), 1..70);
    let played = TestRunner::new_with_rng(config, rng)
        .run(&histories, |ops: Vec<Op>| World::new(fault).play(&ops, property).map_err(TestCaseError::fail));
    played.map_err(|error| error.to_string())
}

/// The property holds, and each of these faults breaks it.
fn is_found_by(property: Property, faults: &[Fault]) {
    if let Err(error) = holds(property, None) {
        panic!("{property:?}: {error}");
    }
    for fault in faults {
        assert!(holds(property, Some(*fault)).is_err(), "{property:?} does not find {fault:?}");
    }
}

#[test]
fn i1_a_slot_idles_only_if_nothing_may_start() {
    is_found_by(Property::NoIdling, &[Fault::IdlesLastSlot]);
}

#[test]
fn i2_the_promise_decides_within_a_stage() {
    is_found_by(Property::PromiseFirst, &[Fault::ForgetsPromise]);
}

#[test]
fn i4_who_is_at_risk_is_passed_only_by_who_is_worse_off() {
    is_found_by(Property::NoStarving, &[Fault::StarvesOldest]);
}

#[test]
fn i5_a_line_keeps_its_order() {
    is_found_by(Property::LineOrder, &[Fault::ReversesLine]);
}

#[test]
fn i6_no_slot_and_no_charge_is_lost() {
    is_found_by(Property::NothingLost, &[Fault::LeaksSlot, Fault::ForgetsCost, Fault::KeepsEstimate]);
}

#[test]
fn i8_no_bound_is_passed() {
    is_found_by(Property::Bounds, &[Fault::ExceedsSlots, Fault::ForgetsRoom, Fault::ForgetsReserve]);
}

#[test]
fn i9_one_history_gives_one_sequence_of_starts() {
    is_found_by(Property::SameStarts, &[Fault::Wavers]);
}

#[test]
fn i10_the_reason_is_true() {
    is_found_by(Property::TrueReasons, &[Fault::Lies, Fault::ForgetsOthers]);
}
