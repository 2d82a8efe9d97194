//! Headers as they lie in some client's own table.
//!
//! A message has some twenty of them, most are null, and each task that comes is read: so they are looked up where they
//! are, and only what is kept becomes a value.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// A table of headers.
pub trait Table {
    /// The header of this name.
    fn get(&self, name: &str) -> Option<Field<'_>>;

    /// Shows every header.
    fn each(&self, show: &mut dyn FnMut(&str, Field<'_>));
}

/// What a header says.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Anything else.
    Json(Cow<'a, Value>),
}

impl<'a> Field<'a> {
    /// As a value of its own.
    pub fn into_value(self) -> Value {
        match self {
            Self::Text(text) => text.into_owned().into(),
            Self::Json(value) => value.into_owned(),
        }
    }

    /// Its text, if it is that.
    pub fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Json(_) => None,
        }
    }

    /// Whether it says nothing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Json(value) if value.is_null())
    }
}

impl<'a> From<&'a Value> for Field<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.as_str().into()),
            other => Self::Json(Cow::Borrowed(other)),
        }
    }
}

impl Table for Map<String, Value> {
    fn get(&self, name: &str) -> Option<Field<'_>> {
        Map::get(self, name).map(Field::from)
    }

    fn each(&self, show: &mut dyn FnMut(&str, Field<'_>)) {
        self.iter().for_each(|(name, value)| show(name, value.into()));
    }
}
