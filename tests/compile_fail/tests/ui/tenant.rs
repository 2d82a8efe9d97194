//! Tenants that cannot be.

use celeriac::task;

#[task(tenant = "acme")]
fn constant(domain: String, user: u64) {
    drop((domain, user));
}

#[task(tenant = "{domian}")]
fn misspelt(domain: String) {
    drop(domain);
}

#[task(tenant = "acme")]
fn nothing() {}

#[task(tenant = 7)]
fn value(domain: String) {
    drop(domain);
}

fn main() {}
