//! Limits that cannot be.

use celeriac::task;

#[task(rate_limit = "8/s", rate_key = "{gatway}")]
fn misspelt(gateway: String) {
    drop(gateway);
}

#[task(rate_scope = "fleet", max_running = 0)]
fn values(gateway: String) {
    drop(gateway);
}

#[task(rate_key = "{gateway}", limit_key = "{gateway}")]
fn keys_of_nothing(gateway: String) {
    drop(gateway);
}

#[task(breaker(errors = 5, off = 4))]
fn no_such_setting(gateway: String) {
    drop(gateway);
}

#[task(breaker(errors = 5, of = 4))]
fn more_errors_than_runs(gateway: String) {
    drop(gateway);
}

fn main() {}
