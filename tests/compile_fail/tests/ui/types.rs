//! What only the compiler's types tell: the errors point at what the developer wrote.
#![allow(unused)]
use celeriac::{Context, task};

pub struct NoError;

#[task]
async fn no_error() -> Result<(), NoError> {
    Ok(())
}

#[task]
fn text_is_no_error(n: u32) -> Result<u32, String> {
    Ok(n)
}

#[task(retry_if = takes_a_number)]
async fn predicate_of_another_type() -> Result<(), std::io::Error> {
    Ok(())
}

fn takes_a_number(_: u32) -> bool {
    true
}

#[task(on_failure = takes_nothing)]
async fn hook_of_another_type() {}

fn takes_nothing() {}

#[task]
async fn context_of_another_crate(ctx: &other::Context) {}

mod other {
    pub struct Context;
}

fn caller() {
    let _ = hook_of_another_type::delay(5);
}

fn main() {
    let _ = Context::detached();
}
