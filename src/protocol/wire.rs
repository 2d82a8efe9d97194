//! A message as it crosses the wire, without types of any client library.

use serde_json::{Map, Value};

/// A message as it crosses the wire: AMQP's basic properties, headers and body.
///
/// The headers are JSON values. Code that talks AMQP converts them from and to a field table: integers of any width
/// are numbers, `Void` is null, bytes are text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireMessage {
    /// The basic properties of the message.
    pub properties: Properties,
    /// The headers of the message.
    pub headers: Map<String, Value>,
    /// The body as it was sent, which may be compressed.
    pub body: Vec<u8>,
}

/// The basic properties of AMQP that Celery uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// The media type of the body; Celery and Celeriac write `application/json`.
    pub content_type: Option<String>,
    /// The character encoding of the body; Celery and Celeriac write `utf-8`.
    pub content_encoding: Option<String>,
    /// Whether the broker keeps the message on its disk: 2 says yes, 1 says no.
    pub delivery_mode: Option<u8>,
    /// The priority, 0 to 255; the higher number goes first.
    pub priority: Option<u8>,
    /// The id of the task; in a result, the id of the task whose result it is.
    pub correlation_id: Option<String>,
    /// The queue for results, if the caller reads them by `rpc://`.
    pub reply_to: Option<String>,
    /// After how many milliseconds the broker may drop the message, as decimal text.
    pub expiration: Option<String>,
    /// The id that the application gave the message; Celery sets none.
    pub message_id: Option<String>,
    /// The application that sent the message; Celery sets none.
    pub app_id: Option<String>,
    /// The kind of the message in the application's terms, AMQP's `type`; Celery sets none.
    pub kind: Option<String>,
}

/// The same as [`Properties`], borrowed from wherever the message lies. A message that comes is read by them without a copy of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BorrowedProperties<'a> {
    pub(crate) content_type: Option<&'a str>,
    pub(crate) content_encoding: Option<&'a str>,
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) priority: Option<u8>,
    pub(crate) correlation_id: Option<&'a str>,
    pub(crate) reply_to: Option<&'a str>,
    pub(crate) message_id: Option<&'a str>,
    pub(crate) app_id: Option<&'a str>,
    pub(crate) kind: Option<&'a str>,
}

impl<'a> From<&'a Properties> for BorrowedProperties<'a> {
    fn from(properties: &'a Properties) -> Self {
        Self {
            content_type: properties.content_type.as_deref(),
            content_encoding: properties.content_encoding.as_deref(),
            delivery_mode: properties.delivery_mode,
            priority: properties.priority,
            correlation_id: properties.correlation_id.as_deref(),
            reply_to: properties.reply_to.as_deref(),
            message_id: properties.message_id.as_deref(),
            app_id: properties.app_id.as_deref(),
            kind: properties.kind.as_deref(),
        }
    }
}
