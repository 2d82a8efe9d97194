//! Functions that cannot be tasks, and what is no function.
#![allow(unused)]
use celeriac::task;

#[task]
async fn generic<T: Clone>(value: T) {}

#[task]
async fn lifetime<'a>(value: u8) {}

#[task]
async fn bounded(value: u8)
where
    u8: Clone,
{
}

#[task]
unsafe fn not_safe() {}

#[task]
const fn constant() {}

#[task]
extern "C" fn foreign() {}

#[task]
async fn opaque() -> impl Clone {}

#[task]
async fn lent() -> Result<&'static str, std::io::Error> {
    Ok("")
}

struct Mailer;

impl Mailer {
    #[task]
    async fn send(&self, user: u64) {}
}

#[task]
struct NoFunction;

#[task(queue = "email")]
mod no_function {}

fn main() {}
