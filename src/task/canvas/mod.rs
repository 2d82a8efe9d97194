//! Tasks that follow from each other: chains, groups and chords, with their callbacks and errbacks. Celery's canvas.
//!
//! A program writes a canvas with [`Canvas`]. The client gives ids to its tasks and sends the first of them. The
//! workers carry it on, because each message has with it everything that comes after. The messages are those that
//! Celery publishes for the same canvas, so either side may go on with it.

mod addition;
mod builder;
mod builtin;
#[cfg(test)]
mod captured;
mod check;
mod chunks;
mod end_plan;
mod errbacks;
mod freeze;
mod join;
mod launch;
mod limits;
mod node;
mod replace;
mod repr;
mod result;

pub(crate) use addition::{Addition, addition};
#[doc(hidden)]
pub use builder::partial;
pub use builder::{Canvas, IntoCanvas, Launching, chain, chord, chunks, group, map, signature, starmap};
pub(crate) use end_plan::{Cause, EndPlan, LostTask, Part, after, plan_chord_end};
pub(crate) use errbacks::note_called;
pub use freeze::Promise;
pub(crate) use freeze::{CanvasPosition, Freezer, Ids};
pub(crate) use launch::{Call, Launch};
pub(crate) use limits::{CanvasLimits, json_len};
pub(crate) use node::{Node, NodeKind};
pub(crate) use replace::replacement;
pub use result::CanvasResult;

/// The error of something that should be a signature and is none. The text says what it is and where.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignatureError(pub(crate) String);

crate::core::debug_as_display!(SignatureError);
