//! How costs grow: `cargo bench --bench scale [-- [--quick] [10M] [CASE…]]`.
//!
//! - `backlog`: the CPU of an enqueue, and of a start and a settlement, while a thousand to a million tasks wait;
//!   with `10M`, ten million as well;
//! - `queues`: a hundred, a thousand and ten thousand queues: their start, memory, idle CPU, a task to each, and the
//!   shutdown;
//! - `same-second`: a hundred thousand tasks are due in the same second: how late the last one starts, and what
//!   others notice.
//!
//! `cargo bench --bench waiting [-- 10M]` has the restart, the memory and the urgent task of a deep backlog. Each
//! case has a directory of its own, which it removes, and an end to its patience, which it tells.

mod backlog;
mod queues;
mod same_second;
#[path = "../support/mod.rs"]
mod support;

use support::headline;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CASES: [&str; 3] = ["backlog", "queues", "same-second"];

/// Whether this case was asked for, or none by its name.
fn wanted(case: &str) -> bool {
    let mut named = std::env::args().filter(|argument| CASES.contains(&argument.as_str())).peekable();
    named.peek().is_none() || named.any(|argument| argument == case)
}

#[tokio::main]
async fn main() {
    if queues::is_part().await {
        return;
    }
    headline("scale");
    for case in CASES.into_iter().filter(|case| wanted(case)) {
        match case {
            "backlog" => backlog::costs().await,
            "queues" => queues::many().await,
            _ => same_second::due().await,
        }
    }
}
