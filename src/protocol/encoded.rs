//! A task as it is written, in parts that belong to no client library.
//!
//! Each task that is sent has some twenty headers. Most of them are null, or are borrowed from the task. They are a sorted list
//! here, of which the table of a client library, or the map of a [`WireMessage`], is made in one pass.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::{JSON, Properties, WireMessage};

/// The character encoding of all bodies that Celeriac writes.
pub(crate) const ENCODING: &str = "utf-8";

/// A task that is written and that has no form of a client library yet.
#[derive(Debug)]
pub(crate) struct EncodedTask<'a> {
    pub(crate) properties: EncodedProperties<'a>,
    /// The headers in the order of their names, each of which is there once.
    pub(crate) headers: Vec<(&'a str, HeaderValue<'a>)>,
    /// The body, which may be compressed.
    pub(crate) body: Vec<u8>,
}

/// The basic properties of a task beside its content type and its encoding, which are [`JSON`] and [`ENCODING`].
#[derive(Debug)]
pub(crate) struct EncodedProperties<'a> {
    pub(crate) delivery_mode: u8,
    pub(crate) priority: u8,
    pub(crate) correlation_id: &'a str,
    pub(crate) reply_to: Option<&'a str>,
    pub(crate) expiration: Option<String>,
    pub(crate) message_id: Option<&'a str>,
    pub(crate) app_id: Option<&'a str>,
    pub(crate) kind: Option<&'a str>,
}

/// The value of a header that is written.
#[derive(Debug)]
pub(crate) enum HeaderValue<'a> {
    Null,
    Bool(bool),
    Number(u32),
    Text(Cow<'a, str>),
    /// A list of two plain values.
    Pair([Value; 2]),
    /// A table; `None` is an empty one.
    Table(Option<&'a BTreeMap<String, Value>>),
    Json(Cow<'a, Value>),
}

impl<'a> HeaderValue<'a> {
    /// A text, or null if there is none.
    pub(super) fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.into()))
    }

    /// A number, or null if there is none.
    pub(super) fn number(number: Option<u32>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }

    fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(yes) => yes.into(),
            Self::Number(number) => number.into(),
            Self::Text(text) => Value::String(text.into_owned()),
            Self::Pair(pair) => Value::Array(pair.into()),
            Self::Table(table) => {
                let entries = table.into_iter().flatten();
                Value::Object(entries.map(|(name, value)| (name.clone(), value.clone())).collect())
            }
            Self::Json(value) => value.into_owned(),
        }
    }
}

impl From<EncodedProperties<'_>> for Properties {
    fn from(properties: EncodedProperties<'_>) -> Self {
        Self {
            content_type: Some(JSON.to_owned()),
            content_encoding: Some(ENCODING.to_owned()),
            delivery_mode: Some(properties.delivery_mode),
            priority: Some(properties.priority),
            correlation_id: Some(properties.correlation_id.to_owned()),
            reply_to: properties.reply_to.map(str::to_owned),
            expiration: properties.expiration,
            message_id: properties.message_id.map(str::to_owned),
            app_id: properties.app_id.map(str::to_owned),
            kind: properties.kind.map(str::to_owned),
        }
    }
}

impl From<EncodedTask<'_>> for WireMessage {
    fn from(task: EncodedTask<'_>) -> Self {
        let EncodedTask { properties, headers, body } = task;
        let headers =
            headers.into_iter().map(|(name, value)| (name.to_owned(), value.into_value())).collect();
        Self { properties: properties.into(), headers, body }
    }
}
