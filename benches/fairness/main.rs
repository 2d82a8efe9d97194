//! Who waits for whom: `cargo bench --bench fairness [-- [--quick] [CASE…]]`. Each case has a reference in the same run.
//!
//! - `flood`: one tenant floods a queue of 50 slots, and another one sends a task now and then;
//! - `tenants`: a thousand tenants, of which one floods; and all of them, beside some that ask for less than their shares and one
//!   that asks for more;
//! - `long`: the flood of one tenant with tasks of 40 seconds, at a twentieth of their time;
//! - `keys`: the flooder spreads over serial keys and over keys with a rate;
//! - `queues`: twelve queues with the promises and the load of CommCare HQ's, at 1/200 of their time: workers of their own, one
//!   line, a pool;
//! - `catalogue`: the 24 queues of `celeriac.toml` with today's workers, and in two pools;
//! - `elephants`: all slots have tasks that give way at their checkpoints, and an urgent task comes;
//! - `cost`: what a start costs with a pool, and what a decision costs by itself;
//! - `pickup`: a million tasks of one tenant wait, ten million with `-- pickup 10M`, and ten others have a few each;
//! - `memory`: a hundred thousand tenants have a task each.
//!
//! `cargo bench --bench rabbitmq -- flood` is the flood on RabbitMQ. No case asserts a time; `elephants` asserts that each piece of
//! work was done once.

#[path = "../support/mod.rs"]
mod support;

mod catalogue;
mod cost;
mod elephants;
mod flood;
mod load;
mod memory;
mod pickup;
mod queues;
mod waits;

use support::headline;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The slots of a queue that is flooded.
const SLOTS: usize = 50;
const CASES: [&str; 10] =
    ["flood", "tenants", "long", "keys", "queues", "catalogue", "elephants", "cost", "pickup", "memory"];

/// Whether this case was asked for, or none by its name.
fn wanted(case: &str) -> bool {
    let mut named = std::env::args().filter(|argument| CASES.contains(&argument.as_str())).peekable();
    named.peek().is_none() || named.any(|argument| argument == case)
}

#[tokio::main]
async fn main() {
    if memory::is_part().await {
        return;
    }
    headline("fairness");
    for case in CASES.into_iter().filter(|case| wanted(case)) {
        match case {
            "flood" => flood::one_tenant().await,
            "tenants" => flood::a_thousand_tenants().await,
            "long" => flood::long_tasks().await,
            "keys" => flood::many_keys().await,
            "queues" => queues::promises().await,
            "catalogue" => catalogue::promises().await,
            "elephants" => elephants::giving_way().await,
            "cost" => cost::starts().await,
            "memory" => memory::of_tenants(),
            _ => pickup::of_others().await,
        }
    }
}
