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
    a_chord_that_grows: "canvas.grown";
    a_chord_that_fails: "canvas.failing_chord";
    a_chord_in_a_chain: "canvas.chord_in_a_chain";
    chains_in_a_chord: "canvas.chain_in_a_chord";
    chords_in_a_chord: "canvas.group_of_chords";
    groups_one_after_the_other: "canvas.group_of_groups_then";
    links: "canvas.linked";
    links_of_errors: "canvas.link_errors";
    children: "canvas.children";
    a_task_that_is_replaced: "canvas.replaced";
    the_options_of_a_step: "canvas.options_of_a_step";
}

#[test]
fn map_starmap_and_chunks() {
    mixed().case("canvas.mapped", json!({ "there": "rust" }));
}
