//! A message as it crosses the wire, free of any client library.

use serde_json::{Map, Value};

/// A message as it crosses the wire: AMQP's basic properties, headers and body.
///
/// Headers are JSON values: whoever talks AMQP turns a field table into them and back. Integers of any width are numbers,
/// `Void` is null, bytes are text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireMessage {
    /// The basic properties.
    pub properties: Properties,
    /// The headers.
    pub headers: Map<String, Value>,
    /// The body, as it is: maybe compressed.
    pub body: Vec<u8>,
}

/// Those of AMQP's basic properties that Celery uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// `application/json`.
    pub content_type: Option<String>,
    /// `utf-8`.
    pub content_encoding: Option<String>,
    /// 2: kept on the broker's disk. 1: not.
    pub delivery_mode: Option<u8>,
    /// 0 to 255, higher first.
    pub priority: Option<u8>,
    /// The task's id; of a result, whose it is.
    pub correlation_id: Option<String>,
    /// The queue for results, if the caller reads them by `rpc://`.
    pub reply_to: Option<String>,
    /// After how many milliseconds the broker may drop it, as decimal text.
    pub expiration: Option<String>,
}
