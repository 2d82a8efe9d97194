//! The tasks that children run, and what must become of each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use celeriac::task::HookEvent;
use celeriac::{Context, TaskError, task};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::ledger::{How, Line, note, now};

/// What a task of the mixed load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Returns at once, on the event loop.
    Quick,
    /// Waits some milliseconds on the event loop.
    SlowIo,
    /// Returns at once, on a thread.
    Cpu,
    /// Holds a thread for some milliseconds.
    SlowCpu,
    /// Fails one to three times, then succeeds.
    Flaky,
    /// Fails until its retries are used up.
    Hopeless,
    /// Fails once and for all.
    Permanent,
    /// Panics, is tried once more, panics.
    Panic,
    /// Goes on with a new cursor three times.
    Chain,
    /// Postpones itself once.
    Postponed,
    /// Acknowledged before it runs: at most once.
    Early,
    /// Waits in memory only: may vanish.
    Volatile,
    /// Keeps no result.
    Silent,
    /// Carries up to 40 KB.
    Fat,
    /// Ends in the dead letters.
    Rejected,
    /// Is revoked before its ETA.
    Revoked,
}

impl Kind {
    const MIX: [Self; 20] = [
        Self::Quick,
        Self::Quick,
        Self::SlowIo,
        Self::SlowIo,
        Self::SlowIo,
        Self::Cpu,
        Self::SlowCpu,
        Self::SlowCpu,
        Self::Flaky,
        Self::Hopeless,
        Self::Permanent,
        Self::Panic,
        Self::Chain,
        Self::Postponed,
        Self::Early,
        Self::Volatile,
        Self::Silent,
        Self::Fat,
        Self::Rejected,
        Self::Revoked,
    ];

    /// One of the mix.
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self::MIX[rng.random_range(0..Self::MIX.len())]
    }

    /// Whether an acknowledgement is a promise that it runs, whatever happens.
    pub fn is_durable(self) -> bool {
        !matches!(self, Self::Early | Self::Volatile)
    }

    /// Whether its record can be read afterwards, through crashes too.
    pub fn keeps_record(self) -> bool {
        self.is_durable() && self != Self::Silent
    }

    /// The states in which it may end.
    pub fn expected(self) -> &'static [&'static str] {
        match self {
            Self::Hopeless | Self::Permanent | Self::Panic => &["FAILURE"],
            Self::Rejected => &["REJECTED"],
            Self::Revoked => &["REVOKED", "SUCCESS"],
            _ => &["SUCCESS"],
        }
    }
}

static PANICS: AtomicU64 = AtomicU64::new(0);
/// Tells that fifty runs of this process have panicked.
pub static MANY_PANICS: Notify = Notify::const_new();

/// What task `n` returns when it returns.
pub fn value(n: u64) -> u64 {
    n.wrapping_mul(3) + 1
}

/// The tenant of task `n`; empty: it has none.
pub fn tenant_of(n: u64) -> String {
    match n % 7 {
        0 => String::new(),
        tenant => format!("tenant {tenant}"),
    }
}

/// Notes the begin of a run, and its end whatever ends it.
pub struct Run {
    n: u64,
    ended: bool,
}

impl Run {
    pub fn start(ctx: &Context, n: u64, cursor: u32) -> Self {
        let message = ctx.message();
        assert_eq!(message.continuations, cursor, "the cursor is the number of continuations");
        note(&Line::Start {
            n,
            cursor,
            retries: ctx.retries(),
            crashes: message.crashes,
            attempt: ctx.attempt(),
            redelivered: ctx.is_redelivered(),
            at: now(),
        });
        Self { n, ended: false }
    }

    pub fn end(mut self, how: How) {
        self.ended = true;
        note(&Line::End { n: self.n, how });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.ended {
            let how = if std::thread::panicking() { How::Panicked } else { How::Cut };
            note(&Line::End { n: self.n, how });
        }
    }
}

/// How a run of this kind ends; `next` continues it.
fn outcome(
    ctx: &Context,
    n: u64,
    kind: Kind,
    cursor: u32,
    next: impl FnOnce() -> TaskError,
) -> (How, Result<u64, TaskError>) {
    assert_eq!(ctx.message().tenant().unwrap_or_default(), tenant_of(n), "a task keeps its tenant");
    match kind {
        Kind::Flaky if u64::from(ctx.retries()) <= n % 3 => (How::Error, Err(TaskError::transient("flaky"))),
        Kind::Hopeless => (How::Error, Err(TaskError::transient("hopeless"))),
        Kind::Permanent => (How::Error, Err(TaskError::permanent("permanent"))),
        Kind::Panic => {
            if PANICS.fetch_add(1, Ordering::SeqCst) + 1 == 50 {
                MANY_PANICS.notify_one();
            }
            panic!("a task of kind Panic does what it is there for")
        }
        Kind::Chain if cursor < 3 => (How::Continued, Err(next())),
        // A postponed message has an ETA, which it did not have before.
        Kind::Postponed if ctx.message().eta.is_none() => {
            (How::Postponed, Err(TaskError::postpone(Duration::from_millis(10))))
        }
        Kind::Rejected => (How::Rejected, Err(TaskError::reject("of kind Rejected"))),
        _ => (How::Value, Ok(value(n))),
    }
}

/// Milliseconds that a run of this kind takes.
fn duration(n: u64, kind: Kind) -> Option<Duration> {
    matches!(kind, Kind::SlowIo | Kind::SlowCpu).then(|| Duration::from_millis(5 + n % 25))
}

fn told(ctx: &Context, _: &HookEvent) {
    if let Some(n) = ctx.header("n").and_then(serde_json::Value::as_u64) {
        note(&Line::Told { n });
    }
}

async fn run_io(
    ctx: Context,
    n: u64,
    kind: Kind,
    cursor: u32,
    next: impl FnOnce() -> TaskError,
) -> Result<u64, TaskError> {
    let run = Run::start(&ctx, n, cursor);
    if let Some(duration) = duration(n, kind) {
        tokio::time::sleep(duration).await;
    }
    let (how, result) = outcome(&ctx, n, kind, cursor, next);
    run.end(how);
    result
}

/// On the event loop, with hooks: its settlement is waited for.
#[task(name = "hooked", queue = "io", default_retry_delay = "5ms", retry_backoff = false, on_success = told, on_failure = told)]
pub async fn hooked(
    ctx: Context,
    n: u64,
    kind: Kind,
    cursor: u32,
    padding: String,
) -> Result<u64, TaskError> {
    let next = move || TaskError::continue_with(hooked::s(n, kind, cursor + 1, padding));
    run_io(ctx, n, kind, cursor, next).await
}

/// On the event loop, without hooks.
#[task(name = "plain", queue = "io2", default_retry_delay = "5ms", retry_backoff = false)]
pub async fn plain(ctx: Context, n: u64, kind: Kind, cursor: u32, padding: String) -> Result<u64, TaskError> {
    let next = move || TaskError::continue_with(plain::s(n, kind, cursor + 1, padding));
    run_io(ctx, n, kind, cursor, next).await
}

/// Settled before it runs.
#[task(name = "early", queue = "io", acks_late = false)]
pub async fn early(ctx: Context, n: u64, kind: Kind, cursor: u32, padding: String) -> Result<u64, TaskError> {
    run_io(ctx, n, kind, cursor, move || TaskError::permanent(padding)).await
}

/// On a thread.
#[task(name = "compute", queue = "cpu", default_retry_delay = "5ms", retry_backoff = false)]
pub fn compute(ctx: &Context, n: u64, kind: Kind, cursor: u32, padding: String) -> Result<u64, TaskError> {
    let run = Run::start(ctx, n, cursor);
    if let Some(duration) = duration(n, kind) {
        std::thread::sleep(duration); // stands for work
    }
    let next = || TaskError::continue_with(compute::s(n, kind, cursor + 1, padding));
    let (how, result) = outcome(ctx, n, kind, cursor, next);
    run.end(how);
    result
}
