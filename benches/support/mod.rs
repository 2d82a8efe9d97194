//! What the benchmarks share: figures, the process's own accounts, the limit for durable work.
//!
//! A figure alone says little on a machine that others use too, so every benchmark measures a limit in the same run,
//! interleaves the cases in rounds, and prints medians with their range and the ratio to the limit. A goal that is
//! missed is said, and fails nothing: whether it was the program or the neighbours, only a reader can tell.

// Each benchmark is a program of its own and uses a part of this.
#![allow(dead_code)]

pub mod bare_log;
pub mod disk_probe;
pub mod done;
pub mod figures;
pub mod plot;
pub mod process;
pub mod store;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Whether to run a small version of everything, to see that it works: `--quick`, or `CELERIAC_BENCH_QUICK=1`.
pub fn quick() -> bool {
    static QUICK: OnceLock<bool> = OnceLock::new();
    *QUICK.get_or_init(|| {
        std::env::args().any(|arg| arg == "--quick") || std::env::var_os("CELERIAC_BENCH_QUICK").is_some()
    })
}

/// `full`, or `small` in a quick run.
pub fn sized<T>(full: T, small: T) -> T {
    if quick() { small } else { full }
}

/// How often each case is measured.
pub fn rounds() -> usize {
    sized(3, 1)
}

/// How long a case that runs for a time runs.
pub fn span() -> Duration {
    sized(Duration::from_millis(1200), Duration::from_millis(150))
}

/// The first line of every benchmark: what else the machine had to do counts for more than its make.
pub fn headline(name: &str) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    println!("# {name}: {cores} cores, load {load} before, {} rounds, median [least-most]", rounds());
}

/// Nanoseconds since the program asked first; small enough for an atomic.
pub fn nanos() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}
