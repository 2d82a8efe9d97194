//! Options that are none, or are not written as options are.
#![allow(unused)]
use celeriac::task;

#[task(quue = "email", max_retires = 3, colour = "red")]
async fn unknown() {}

#[task(bind = true, autoretry_for = (Exception,), eta = 5)]
async fn known_elsewhere() {}

#[task(queue = "a", acks_late, queue = "b")]
async fn twice() {}

#[task(queue, expires("2d"), celery::name = "x")]
async fn shape() {}

#[task(queue "email")]
async fn syntax() {}

#[task(queue = )]
async fn no_value() {}

// All at once: the options, and what keeps the function from being a task.
#[task(queue = 5, priority = 300)]
async fn several(text: &str) {}

// The rest of the program is checked as if the option were not there: `delay` is no error here.
fn caller() {
    let _ = unknown::delay();
}

fn main() {}
