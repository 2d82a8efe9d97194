//! The arguments of a command, as anybody may send them.
//!
//! A wrong one is answered as Celery answers it: with the text of Python's exception. An argument that a command does
//! not know is no mistake, as in Celery.

use serde_json::{Map, Value};

use crate::core::text::shortened;

/// The most characters of a value in an error.
const SHOWN: usize = 100;

/// The arguments of one command.
#[derive(Clone, Copy)]
pub(super) struct ControlArguments<'a> {
    method: &'a str,
    all: &'a Map<String, Value>,
}

impl<'a> ControlArguments<'a> {
    pub(super) fn new(method: &'a str, all: &'a Map<String, Value>) -> Self {
        Self { method, all }
    }

    /// All arguments, as they were sent.
    pub(super) fn all(&self) -> &'a Map<String, Value> {
        self.all
    }

    /// An argument, unless it is null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.all.get(name).filter(|value| !value.is_null())
    }

    /// A text that must be there.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, String> {
        self.optional_text(name)?.ok_or_else(|| self.wrong(&format!("needs '{name}', a text")))
    }

    /// A text that may be missing; the empty text counts as missing.
    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&'a str>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(other) => Err(self.wrong(&format!("takes a text as '{name}', not {}", brief(other)))),
        }
    }

    /// A whole number, which may be written as a text; `default` if it is missing.
    pub(super) fn whole(&self, name: &str, default: i64) -> Result<i64, String> {
        let number = match self.get(name) {
            None => Some(default),
            Some(Value::Number(number)) => number.as_i64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        let wrong = || self.wrong(&format!("takes a whole number as '{name}', not {}", self.shown(name)));
        number.ok_or_else(wrong)
    }

    /// A number of seconds, which may be written as a text.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<std::time::Duration>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let wrong = || self.wrong(&format!("takes seconds as '{name}', not {}", self.shown(name)));
        let number = number.filter(|number| *number >= 0.0).ok_or_else(wrong)?;
        // As in Celery, no seconds are no limit.
        Ok(crate::core::time::seconds(number).filter(|limit| !limit.is_zero()))
    }

    /// Whether a switch is on, by Python's idea of truth.
    pub(super) fn switch(&self, name: &str) -> bool {
        match self.get(name) {
            None => false,
            Some(Value::Bool(on)) => *on,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => {
                !matches!(text.to_lowercase().as_str(), "" | "0" | "no" | "off" | "false")
            }
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            Some(Value::Null) => false,
        }
    }

    /// The texts of a list, or one text; what is no text in it is left out.
    pub(super) fn texts(&self, name: &str) -> Vec<&'a str> {
        match self.get(name) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn shown(&self, name: &str) -> String {
        self.get(name).map(brief).unwrap_or_default()
    }

    fn wrong(&self, what: &str) -> String {
        python_error("TypeError", &format!("{}() {what}", self.method))
    }
}

/// A value in an error, which may be as long as its sender likes.
fn brief(value: &Value) -> String {
    shortened(&value.to_string(), SHOWN).to_string()
}

/// What Python's `repr` says of an exception with one text.
pub(super) fn python_error(class: &str, text: &str) -> String {
    format!("{class}({})", quoted(text))
}

/// A text as Python's `repr` shows it.
pub(super) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut shown = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if c == quote => shown.extend(['\\', c]),
            c if u32::from(c) < 32 || u32::from(c) == 127 => {
                shown.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => shown.push(c),
        }
    }
    shown.push(quote);
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_reads_as_pythons() {
        assert_eq!(python_error("KeyError", "q"), "KeyError('q')");
        assert_eq!(python_error("ValueError", "it's"), "ValueError(\"it's\")");
        assert_eq!(python_error("E", "a'b\"c\\d\n\u{1}é"), r#"E('a\'b"c\\d\n\x01é')"#);
    }

    #[test]
    fn arguments_of_the_wrong_type_are_refused_and_none_panics() {
        let odd = json!({
            "text": "a", "empty": "", "null": null, "number": 5, "float": 2.5, "written": "7", "list": ["a", 5, null, "b"],
            "object": {"a": 1}, "true": true, "no": "no", "huge": u64::MAX, "negative": -1, "nan": "nan",
        });
        let Value::Object(odd) = odd else { panic!("an object") };
        let arguments = ControlArguments::new("rate_limit", &odd);
        assert_eq!(arguments.text("text"), Ok("a"));
        for name in ["empty", "null", "missing"] {
            assert_eq!(arguments.optional_text(name), Ok(None));
            let error = format!("TypeError(\"rate_limit() needs '{name}', a text\")");
            assert_eq!(arguments.text(name), Err(error));
        }
        let error = "TypeError(\"rate_limit() takes a text as 'number', not 5\")";
        assert_eq!(arguments.text("number"), Err(error.to_owned()));
        assert_eq!(["number", "written", "missing"].map(|n| arguments.whole(n, 1)), [Ok(5), Ok(7), Ok(1)]);
        for name in ["float", "list", "object", "true", "huge", "text"] {
            assert!(arguments.whole(name, 1).is_err(), "{name}");
        }
        assert_eq!(arguments.seconds("float"), Ok(Some(Duration::from_millis(2500))));
        assert_eq!(arguments.seconds("missing"), Ok(None));
        assert_eq!(arguments.seconds("huge"), Ok(Some(Duration::MAX)));
        for name in ["negative", "nan", "list", "text"] {
            assert!(arguments.seconds(name).is_err(), "{name}");
        }
        assert_eq!(["true", "number", "list", "text"].map(|n| arguments.switch(n)), [true; 4]);
        assert_eq!(["no", "empty", "null", "missing"].map(|n| arguments.switch(n)), [false; 4]);
        assert_eq!(arguments.texts("list"), ["a", "b"]);
        assert_eq!(arguments.texts("text"), ["a"]);
        assert!(arguments.texts("object").is_empty());
    }
}
