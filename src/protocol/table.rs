//! Headers in the table of some client library.
//!
//! A message has about twenty headers, most of them null, and every message is read. So Celeriac looks them up in the
//! client's table and makes values only of those that it keeps.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// A table of headers, which a client library may have in a type of its own.
pub trait Table {
    /// The header of this name, if there is one.
    fn get(&self, name: &str) -> Option<Field<'_>>;

    /// Calls `show` with each header.
    fn each(&self, show: &mut dyn FnMut(&str, Field<'_>));

    /// Calls `show` with each header whose name is `wanted`. A table that has to make a [`Field`] of a header makes none of the
    /// others.
    fn each_of(&self, wanted: &dyn Fn(&str) -> bool, show: &mut dyn FnMut(&str, Field<'_>)) {
        self.each(&mut |name, field| {
            if wanted(name) {
                show(name, field);
            }
        });
    }
}

/// The value of a header.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// The header is a text.
    Text(Cow<'a, str>),
    /// The header is any other value.
    Json(Cow<'a, Value>),
}

impl<'a> Field<'a> {
    /// Makes a JSON value of the header.
    pub fn into_value(self) -> Value {
        match self {
            Self::Text(text) => text.into_owned().into(),
            Self::Json(value) => value.into_owned(),
        }
    }

    /// The text of the header, if it is a text.
    pub fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Json(_) => None,
        }
    }

    /// Whether the value is null.
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
