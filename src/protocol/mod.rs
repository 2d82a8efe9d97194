//! Celery's message protocol: the bytes that cross the wire, and the types that they stand for.
//!
//! Nothing here does any I/O. [`encode`] makes a [`WireMessage`] of a task, and [`decode`] makes a task of it again.
//! The outcome of a task is a document of [`result`], a command to workers is a request of [`control`], and [`events`]
//! tell what happens to workers and tasks. The target is Celery 5.7. Messages of 4.x and other 5.x clients, which leave
//! parts out, and messages of protocol 1 are read as well. A refusal has a reason and the parts that could be
//! recognised, so that the message can be kept and the failure recorded. No input panics, and none takes more memory
//! than the [`Arrival`] allows.

mod compression;
mod decode;
mod embed;
mod encode;
mod encoded;
mod error;
mod headers;
mod private;
pub(crate) mod repr;
mod table;
mod wire;

pub mod control;
pub mod events;
pub mod result;

pub use decode::{Arrival, decode, decode_parts};
#[cfg(feature = "amqp")]
pub(crate) use decode::{decode_borrowed, refused};
pub use encode::encode;
#[cfg(feature = "amqp")]
pub(crate) use encode::encode_parts;
pub(crate) use encode::host;
#[cfg(feature = "amqp")]
pub(crate) use encoded::{ENCODING, EncodedTask, HeaderValue};
pub use error::{DecodeError, EncodeError, Reason, Recognised};
pub(crate) use repr::{keyword as keyword_repr, positional_of as positional_repr};
pub use table::{Field, Table};
#[cfg(feature = "amqp")]
pub(crate) use wire::BorrowedProperties;
pub use wire::{Properties, WireMessage};

/// The media type of all bodies that Celeriac writes, and the only one that it reads.
pub const JSON: &str = "application/json";
