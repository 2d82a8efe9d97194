//! Python sends, Rust works, Python reads the results.

use serde_json::{Value, json};

use crate::fleet::mixed;

macro_rules! on_the_rust_side {
    ($($name:ident: $case:literal;)*) => {$(
        #[test]
        fn $name() {
            mixed().case($case, json!({ "side": "rust" }));
        }
    )*};
}

on_the_rust_side! {
    a_call_and_its_value: "plain.positional";
    arguments_by_keyword: "plain.kwargs";
    what_is_left_out_and_what_is_left_over: "plain.spread";
    every_value_that_json_has: "plain.values";
    compressed_bodies: "plain.compressed";
    the_clients_own_id_and_headers: "plain.own_id";
    headers_of_a_tracer: "plain.headers";
    protocol_1: "plain.old_protocol";
    an_error_by_class_and_arguments: "endings.error";
    an_error_of_the_applications_own_class: "endings.own_class";
    an_unknown_task: "endings.unknown_task";
    wrong_arguments: "endings.wrong_arguments";
    retries: "endings.retries";
    retries_that_end: "endings.retries_end";
    progress_looked_up: "endings.progress";
    progress_told: "endings.progress_told";
    a_bar: "endings.bar";
    an_eta: "times.eta";
    an_expiry_in_time: "times.in_time";
    an_expiry_too_late: "times.expires";
    revoked_while_it_waits: "times.revoke_waiting";
    revoked_while_it_runs: "times.revoke_running";
}

#[test]
fn two_hundred_in_flight() {
    mixed().case("plain.many", json!({ "side": "rust", "count": 200 }));
}

#[test]
fn a_broadcast() {
    mixed().case("plain.broadcast", json!({}));
}

#[test]
fn a_countdown() {
    mixed().case("times.countdown", json!({ "side": "rust", "seconds": 1.2 }));
}

#[test]
fn priorities() {
    mixed().case("times.priorities", json!({ "side": "rust", "queue": "rust-priority" }));
}

/// The call says so, or the task does: nothing is kept.
#[test]
fn ignored_results_leave_nothing() {
    for case in ["plain.ignore_result", "plain.ignored_by_the_task"] {
        let Value::String(id) = mixed().case(case, json!({ "side": "rust" })) else { panic!("an id") };
        let kept = mixed().redis.cli(&["keys", &format!("*{id}*")]);
        assert_eq!(kept, "", "{case}");
    }
}
