//! Unique windows that cannot be.

use celeriac::{serial_task, task};

#[task(unique_for = "5m", unique_key = "{domian}")]
fn misspelt(domain: String) {}

#[task(unique_for = 0, unique_until = "end", unique_key = 7)]
fn values(domain: String) {}

#[task(unique_until = "start")]
fn no_window(domain: String) {}

#[serial_task(unique_key = "{domain}")]
fn as_in_hq(domain: String) {}

#[task(unique_for = "5m", acks_late = false)]
fn nobody_knows(domain: String) {}

#[task(unique_for = "5m", unique_until = "start", acks_late = false)]
fn fine(domain: String) {}

fn main() {}
