//! Celery's remote control, asked of a fleet in which some workers are ours.

use serde_json::json;

use crate::fleet::mixed;

#[test]
fn questions_are_answered_by_those_who_know_them() {
    mixed().case("control.inspect", json!({}));
}

#[test]
fn an_empty_destination_is_everybody() {
    mixed().case("control.everybody", json!({}));
}

#[test]
fn a_revocation_is_answered_in_celerys_words() {
    mixed().case("control.revoke", json!({}));
}

#[test]
fn a_revocation_is_seen_at_once_by_who_waits() {
    mixed().case("control.revoke_marks_what_waits_nowhere", json!({}));
}

#[test]
fn answers_have_the_keys_of_celerys_own() {
    mixed().case("control.same_keys", json!({}));
}

#[test]
fn celerys_command_line_reaches_ours() {
    mixed().case("control.command_line", json!({}));
}

#[test]
fn workers_that_start_learn_what_is_revoked() {
    mixed().case("control.mingle", json!({}));
}

/// `@control_command` and `@inspect_command` in Python, `Builder::control_command` and `inspect_command` in Rust.
#[test]
fn commands_of_the_programs_own_are_called_alike() {
    mixed().case("control.own_commands", json!({}));
}
