//! Workflows that a Python client builds, with members on both sides, in either order.

use serde_json::json;

use crate::fleet::mixed;

macro_rules! on_both_sides {
    ($($name:ident: $case:literal;)*) => {$(
        #[test]
        fn $name() {
            for (here, there) in [("rust", "python"), ("python", "rust")] {
                mixed().case($case, json!({ "here": here, "there": there }));
            }
        }
    )*};
}

on_both_sides! {
    a_chain_from_side_to_side: "canvas.chained";
    an_immutable_step: "canvas.immutable";
    a_chain_that_fails: "canvas.failing_chain";
    parents_and_roots: "canvas.relations";
    a_group: "canvas.grouped";
    a_chord: "canvas.chorded";
    a_chord_that_is_sent_again: "canvas.sent_again";
    a_chord_that_grows: "canvas.grown";
    a_chord_that_fails: "canvas.failing_chord";
    a_chord_in_a_chain: "canvas.chord_in_a_chain";
    chains_in_a_chord: "canvas.chain_in_a_chord";
    chords_in_a_chord: "canvas.group_of_chords";
    groups_one_after_the_other: "canvas.group_of_groups_then";
    a_chord_that_fails_into_a_group: "canvas.chord_that_fails_into_a_group";
    what_is_left_of_a_failed_chord: "canvas.what_is_left_of_a_failed_chord";
    a_header_member_that_ends_in_a_group: "canvas.header_member_that_ends_in_a_group";
    a_header_of_one_or_none: "canvas.header_of_one_or_none";
    a_task_that_is_replaced_by_nothing: "canvas.replaced_by_nothing";
    errbacks_of_what_expired: "canvas.expired_tasks_call_no_errbacks";
    links: "canvas.linked";
    links_of_errors: "canvas.link_errors";
    children: "canvas.children";
    a_task_that_is_replaced: "canvas.replaced";
    the_options_of_a_step: "canvas.options_of_a_step";
    values_to_the_last_digit: "canvas.exact";
}

#[test]
fn a_step_hides_its_arguments_and_keeps_its_properties() {
    for here in ["rust", "python"] {
        mixed().case("canvas.hidden", json!({ "here": here, "there": "python" }));
    }
}

/// Celery's own workers may lose a member of such a chord.
#[test]
fn a_chord_that_is_sent_again_at_once() {
    mixed().case("canvas.sent_again_at_once", json!({ "here": "rust" }));
}

#[test]
fn what_is_no_number_is_told_of() {
    mixed().case("canvas.no_number", json!({ "here": "rust", "there": "python" }));
}

#[test]
fn map_starmap_and_chunks() {
    mixed().case("canvas.mapped", json!({ "there": "rust" }));
}
