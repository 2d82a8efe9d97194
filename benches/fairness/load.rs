//! A load of many queues that follows a model, at so many times its speed, and how much of its promise each of them uses.

use std::f64::consts::TAU;
use std::time::{Duration, Instant};

use celeriac::catalogue::Catalogue;

use super::support::nanos;
use super::support::store::Running;
use super::waits::{self, MOST, timed};

/// The queues live so much faster than those that they are modelled on.
pub const FASTER: f64 = 200.0;

/// A queue of the model. Times are in seconds of the model.
pub struct Modelled {
    pub name: String,
    pub target: f64,
    /// The mean of its runs, and how far they scatter.
    pub mean: f64,
    pub scatter: f64,
    /// How many slots it keeps busy on average, at a load of 1.
    pub work: f64,
}

/// A task of the model: when it comes, in which queue, and how long it runs, all in seconds of the model.
pub struct Event {
    pub at: f64,
    pub queue: usize,
    pub runs: f64,
}

/// Numbers by chance, the same ones each time.
struct Chance(u64);

impl Chance {
    /// Above 0, at most 1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}

/// What comes in so many seconds, at this part of what the slots can do. Each queue has its rush hour once in `period` seconds.
pub fn events(queues: &[Modelled], load: f64, span: f64, period: f64) -> Vec<Event> {
    let mut chance = Chance(7);
    let mut events = Vec::new();
    for (queue, &Modelled { mean, scatter, work, .. }) in queues.iter().enumerate() {
        let rate = load * work / mean;
        let mut at = 0.0;
        loop {
            let now = rate * (1.0 + 0.6 * (TAU * at / period + queue as f64).sin());
            at += -chance.uniform().ln() / now;
            if at > span {
                break;
            }
            let runs = (mean.ln() - scatter * scatter / 2.0 + scatter * chance.normal()).exp();
            events.push(Event { at, queue, runs: runs.min(20.0 * mean) });
        }
    }
    events.sort_by(|one, other| one.at.total_cmp(&other.at));
    events.truncate(MOST);
    events
}

/// The model's time at the speed of the measurement.
pub fn scaled(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds / FASTER)
}

/// The part of its promise that each queue uses for 95 of 100 tasks. What has not started at the end has waited until then. `line`:
/// the one queue that all tasks go to.
pub async fn used(
    catalogue: Catalogue,
    queues: &[Modelled],
    events: &[Event],
    line: Option<&str>,
) -> Vec<f64> {
    waits::forget();
    let running = Running::memory(catalogue).await;
    let start = Instant::now();
    for (number, event) in events.iter().enumerate() {
        tokio::time::sleep_until((start + scaled(event.at)).into()).await;
        waits::asked(number);
        let micros = (event.runs / FASTER * 1e6) as u64;
        let queue = line.unwrap_or(&queues[event.queue].name);
        drop(timed::s(number, micros).queue(queue).delay().await.expect("accepted"));
    }
    let end = nanos();
    let mut parts = vec![Vec::new(); queues.len()];
    for (number, event) in events.iter().enumerate() {
        let waited = waits::waited(number, end).0 as f64 / 1e9;
        parts[event.queue].push(waited * FASTER / queues[event.queue].target);
    }
    running.celeriac.shutdown_within(Duration::from_millis(100)).await.expect("it shuts down");
    let tail = |mut parts: Vec<f64>| {
        parts.sort_by(f64::total_cmp);
        parts.get(parts.len() * 95 / 100).or(parts.last()).copied().unwrap_or(0.0)
    };
    parts.into_iter().map(tail).collect()
}
