//! Writes values as Python's `repr` does, for the texts of errors that Python programs compare.

use serde_json::Value;

/// Writes a JSON value as Python shows it.
pub(super) fn of(value: &Value) -> String {
    let all = |list: &[Value]| list.iter().map(of).collect::<Vec<_>>().join(", ");
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(list) => format!("[{}]", all(list)),
        Value::Object(map) => {
            let items = map.iter().map(|(key, value)| format!("{}: {}", quoted(key), of(value)));
            format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Quotes a text as Python does: in single quotes, unless the text has single quotes and no double ones.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Cuts a text to `longest` bytes, and adds three dots if it was longer.
pub(super) fn shortened(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        text.truncate((0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python 3 shows these values like this.
    #[test]
    fn values_are_shown_as_python_shows_them() {
        for (json, python) in [
            (r#""it is""#, "'it is'"),
            (r#""it's""#, "\"it's\""),
            (r#""it's \"so\"""#, r#"'it\'s "so"'"#),
            (r#""a\nb\\c\u0001""#, r"'a\nb\\c\x01'"),
            ("42", "42"),
            ("[null, true, false]", "[None, True, False]"),
            (r#"{"k": "v"}"#, "{'k': 'v'}"),
            (r#""ä""#, "'ä'"),
        ] {
            assert_eq!(of(&serde_json::from_str(json).unwrap()), python);
        }
        assert_eq!(shortened("ä".repeat(50), 31), format!("{}...", "ä".repeat(15)));
    }
}
