//! Values of the wrong type or out of range.
#![allow(unused)]
use celeriac::task;

#[task(name = 5, queue = email)]
async fn words() {}

#[task(name = "", queue = "")]
async fn empty_words() {}

#[task(priority = 256, max_retries = -1)]
async fn out_of_range() {}

#[task(priority = "high", max_retries = None)]
async fn not_integers() {}

#[task(max_retries = 3.0, priority = 5u32)]
async fn nor_these() {}

#[task(acks_late = "yes", ignore_result = 1, retry_backoff = 2, retry_jitter = True)]
async fn not_booleans() {}

#[task(durability = "ram")]
async fn no_durability() {}

#[task(durability = Memory)]
async fn no_text() {}

#[task(retry_if = "is_busy", on_failure = |_, _| {}, before_start = 1)]
async fn not_paths() -> Result<(), std::io::Error> {
    Ok(())
}

#[task(retry_if = is_busy)]
async fn no_error_to_ask_about() -> u32 {
    1
}

fn main() {}
