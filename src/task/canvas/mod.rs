//! Tasks that follow from each other: chains, groups, chords, and what is linked to them. Celery's canvas.
//!
//! A canvas is written with [`Canvas`], given ids and sent by a client, and carried on by the workers: each message has with
//! it what comes after. What Celery publishes for a canvas is what is published here, so either side may go on with it.

mod addition;
mod aftermath;
mod builder;
mod builtin;
#[cfg(test)]
mod captured;
mod check;
mod chunks;
mod freeze;
mod join;
mod launch;
mod node;
mod replace;
mod result;

pub(crate) use addition::{Addition, addition};
pub(crate) use aftermath::{Aftermath, Cause, Part, after, after_chord};
#[doc(hidden)]
pub use builder::partial;
pub use builder::{Canvas, IntoCanvas, Launching, chain, chord, chunks, group, map, signature, starmap};
pub use freeze::Promise;
pub(crate) use freeze::{Freezer, Ids, Place};
pub(crate) use launch::{Call, Launch};
pub(crate) use node::Node;
pub(crate) use replace::replacement;
pub use result::CanvasResult;

/// Something that should be a signature is none; the text says what and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SignatureError(pub(crate) String);
