//! Celery's message protocol: what crosses the wire, and what it means here. Bytes in, types out.
//!
//! Nothing here talks to anybody. A task becomes a [`WireMessage`] by [`encode`] and a task again by [`decode`]; what became
//! of it is a document of [`result`]; what workers are told is a request of [`control`]. Target is Celery 5.7; what 4.x and
//! 5.x clients leave out, and protocol 1, are read as well. What is refused is refused with a reason, and with what could be
//! recognised, so that it can be kept and recorded: no input panics, and none takes more memory than the [`Arrival`] allows.

mod compression;
mod decode;
mod embed;
mod encode;
mod error;
pub(crate) mod glob;
mod headers;
mod instant;
mod private;
mod repr;
mod table;
mod wire;

pub mod control;
pub mod result;

pub use decode::{Arrival, decode, decode_parts};
pub use encode::encode;
pub use error::{DecodeError, EncodeError, Reason, Recognised};
pub use table::{Field, Table};
pub use wire::{Properties, WireMessage};

/// The media type of all that we write, and the only one that we read.
pub const JSON: &str = "application/json";
