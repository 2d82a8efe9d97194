//! Searches that cannot be.

use celeriac::task;
use celeriac::task::RestByName;

#[task(search = ["form", "user", "user"])]
fn misspelt(form_id: u64, user: String) {
    drop((form_id, user));
}

#[task(search = ["options"])]
fn rest(user: String, options: RestByName<u64>) {
    drop((user, options));
}

#[task(search = ["user"])]
fn nothing() {}

#[task(search = "user")]
fn text(user: String) {
    drop(user);
}

#[task(search = [])]
fn empty(user: String) {
    drop(user);
}

#[task(search = [user])]
fn bare(user: String) {
    drop(user);
}

fn main() {}
