//! The flows: what each is made of, what it comes to, and which of its parts have to run.
//!
//! A part is a task of the flow under a number of its own, so that the ledger can tell which one it was.

use celeriac::task;
use celeriac::task::canvas::{Canvas, IntoCanvas, chord, group};
use celeriac::{Context, TaskError};
use serde_json::Value;

use super::book::Line;
use super::child::life;
use crate::ledger::note;

/// The queue of all tasks here.
pub const QUEUE: &str = "flows";

/// What a flow is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Three steps, the second of which fails once, and a link on the first.
    Chain,
    /// Two members, a body, and a step after it.
    Chord,
    /// Groups and chords within the members of a group within a chain.
    Nested,
    /// A chain whose second step fails, with an errback.
    Errback,
    /// A chord of which a member fails, with an errback on its body.
    FailedChord,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Chain, Self::Chord, Self::Nested, Self::Errback, Self::FailedChord];

    /// That of the flow with this number.
    pub fn of(flow: u64) -> Self {
        Self::ALL[usize::try_from(flow % 5).expect("it is small")]
    }

    /// The parts that have to run.
    pub fn parts(self) -> &'static [u64] {
        match self {
            Self::Chain => &[0, 1, 2, LINK],
            Self::Chord => &[0, 1, 2, 3],
            Self::Nested => &[0, 1, 2, 3, 4, 5, 6, 7],
            Self::Errback => &[0, 1, LINK],
            Self::FailedChord => &[0, 1, LINK],
        }
    }

    /// The parts that must have ended before this one begins, and are settled when it has.
    pub fn before(self, part: u64) -> &'static [u64] {
        match (self, part) {
            (Self::Chain, 1 | LINK) | (Self::Nested, 1 | 3) | (Self::Errback, 1) => &[0],
            (Self::Chain | Self::Nested, 2) | (Self::Errback, LINK) => &[1],
            (Self::Chord, 2) | (Self::FailedChord, LINK) => &[0, 1],
            (Self::Chord, 3) => &[2],
            (Self::Nested, 4 | 5) => &[3],
            (Self::Nested, 6) => &[4, 5],
            (Self::Nested, 7) => &[2, 6],
            _ => &[],
        }
    }

    /// The last part, whose record is that of the flow; none, if it fails.
    pub fn last(self) -> Option<u64> {
        match self {
            Self::Chain => Some(2),
            Self::Chord => Some(3),
            Self::Nested => Some(7),
            Self::Errback | Self::FailedChord => None,
        }
    }

    /// What a flow comes to, in the words of a producer.
    pub fn end(self, flow: u64) -> String {
        match self {
            Self::Chain => format!("value {}", flow + 1 + 2),
            Self::Chord => format!("value {}", 2 * flow + 1 + 2 + 3),
            Self::Nested => format!("value {}", (flow + 1 + 2) + (2 * (flow + 3) + 4 + 5 + 6) + 7),
            Self::Errback => "failed RuntimeError".to_owned(),
            Self::FailedChord => "failed ChordError".to_owned(),
        }
    }

    /// The flow itself.
    pub fn canvas(self, flow: u64) -> Canvas {
        let (n, canvas) = (flow, |canvas: Canvas<u64>| canvas.untyped());
        canvas(match self {
            Self::Chain => first::s(n, 0).link(noted::p(n, LINK)).then(next::p(n, 1)).then(next::p(n, 2)),
            Self::Chord => chord([first::s(n, 0), first::s(n, 1)], body::p(n, 2)).then(next::p(n, 3)),
            Self::Nested => {
                let inner = group([next::p(n, 4), next::p(n, 5)]).then(body::p(n, 6));
                let members = [next::p(n, 1).then(next::p(n, 2)), next::p(n, 3).then(inner)];
                first::s(n, 0).then(group(members)).then(body::p(n, 7))
            }
            Self::Errback => {
                let step = fails::p(n, 1).link_error(noted::p(n, LINK));
                first::s(n, 0).then(step).then(next::p(n, 2))
            }
            Self::FailedChord => {
                let members = [first::s(n, 0).into_canvas(), fails::s(0, n, 1).into_canvas()];
                chord(members, body::p(n, 2).link_error(noted::p(n, LINK)))
            }
        })
    }
}

/// The part that is linked to another one.
pub const LINK: u64 = 10;

/// Whether a part fails at its first attempt.
fn is_flaky(flow: u64, part: u64) -> bool {
    (Shape::of(flow), part) == (Shape::Chain, 1)
}

async fn run(ctx: &Context, flow: u64, part: u64, value: u64) -> Result<u64, TaskError> {
    let (id, attempt) = (ctx.id().to_string(), ctx.retries());
    note(&Line::Start { life: life(), flow, part, id, attempt, again: ctx.is_redelivered() });
    if is_flaky(flow, part) && attempt == 0 {
        return Err(TaskError::transient("the first time"));
    }
    note(&Line::Done { life: life(), flow, part });
    Ok(value)
}

#[task(name = "flow.first", queue = "flows")]
async fn first(ctx: Context, flow: u64, part: u64) -> Result<u64, TaskError> {
    run(&ctx, flow, part, flow + part).await
}

#[task(name = "flow.next", queue = "flows", default_retry_delay = "2ms", retry_backoff = false)]
async fn next(ctx: Context, before: u64, flow: u64, part: u64) -> Result<u64, TaskError> {
    run(&ctx, flow, part, before + part).await
}

#[task(name = "flow.body", queue = "flows")]
async fn body(ctx: Context, parts: Vec<u64>, flow: u64, part: u64) -> Result<u64, TaskError> {
    run(&ctx, flow, part, parts.iter().sum::<u64>() + part).await
}

#[task(name = "flow.fails", queue = "flows")]
async fn fails(ctx: Context, _before: u64, flow: u64, part: u64) -> Result<u64, TaskError> {
    run(&ctx, flow, part, 0).await?;
    Err(TaskError::failure(["as it was meant to"])
        .with_python_type("builtins", "RuntimeError")
        .with_transient(false))
}

/// Linked to a success or a failure.
#[task(name = "flow.noted", queue = "flows")]
async fn noted(ctx: Context, _of: Value, flow: u64, part: u64) -> Result<(), TaskError> {
    run(&ctx, flow, part, 0).await.map(drop)
}
