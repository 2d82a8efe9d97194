//! Durations and limits.
#![allow(unused)]
use celeriac::task;

#[task(time_limit = "30", soft_time_limit = "5 minutes", expires = "soon")]
async fn text() {}

#[task(default_retry_delay = -1, retry_backoff_max = 5u64, expires = true)]
async fn numbers() {}

#[task(default_retry_delay = "1h1h", expires = "", result_expires = "200000d")]
async fn more_text() {}

#[task(time_limit = 0, expires = "0s", result_expires = 0)]
async fn zero() {}

#[task(soft_time_limit = "1m", time_limit = 60)]
async fn equal() {}

#[task(time_limit = "1m", soft_time_limit = "1h30m")]
async fn greater() {}

fn main() {}
