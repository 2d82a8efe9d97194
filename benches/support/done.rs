//! How much was done, in which time, and for how much CPU.

use std::time::{Duration, Instant};

use super::figures::Series;
use super::process::cpu;

/// One measurement. The CPU of a task, unlike the rate, hardly depends on what else the machine has to do.
#[derive(Clone, Copy)]
pub struct Done {
    /// Per second.
    pub rate: f64,
    /// Microseconds of CPU for each, of all threads of this process, in user and kernel mode.
    pub cpu: f64,
}

/// Measures from its start to its stop.
pub struct Watch {
    start: Instant,
    cpu: Duration,
}

impl Watch {
    pub fn start() -> Self {
        Self { start: Instant::now(), cpu: cpu() }
    }

    pub fn stop(self, count: u64) -> Done {
        let used = (cpu() - self.cpu).as_secs_f64() * 1e6;
        Done { rate: count as f64 / self.start.elapsed().as_secs_f64(), cpu: used / count as f64 }
    }
}

/// Measurements of one case, a round each.
#[derive(Clone, Default)]
pub struct Rounds {
    pub rate: Series,
    pub cpu: Series,
}

impl Rounds {
    pub fn push(&mut self, done: Done) {
        self.rate.push(done.rate);
        self.cpu.push(done.cpu);
    }
}
