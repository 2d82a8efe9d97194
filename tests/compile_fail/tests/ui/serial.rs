//! Serial tasks whose keys and options cannot be.

use celeriac::{serial_task, task};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Form {
    domain: String,
}

#[serial_task(key = "{domian}-{user_id}")]
fn misspelt(domain: String, user_id: u64) {}

#[serial_task(key = "{tenant}")]
fn unknown(domain: String, user_id: u64) {}

#[serial_task(key = "{form.domian}")]
fn no_such_field(form: Form) {}

#[serial_task(key = "{form}")]
fn not_shown(form: Form) {}

#[serial_task(key = "{note}")]
fn not_shown_either(note: Option<String>) {}

#[serial_task(key = "{domain")]
fn half_a_brace(domain: String) {}

#[serial_task(key = "{form.domain()}")]
fn a_call(form: Form) {}

#[serial_task(key = "{domain}")]
fn no_parameters() {}

#[serial_task(key = 7, concurrency = 0, newcomer = "drop", after_failure = next, scope = "")]
fn values(domain: String) {}

#[serial_task(key = "{domain}", newcomer = "skip", fail_after = "3s", acks_late = false)]
fn contradictions(domain: String) {}

#[serial_task(timeout = "5m", concurency = 2)]
fn options(domain: String) {}

#[task(key = "{domain}")]
fn plain(domain: String) {}

#[serial_task]
struct NoFunction;

fn main() {}
