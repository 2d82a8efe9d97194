//! The names and texts of a message that AMQP writes with one byte for their length. RabbitMQ has no room for a longer one,
//! and a Python worker neither. So they are refused where a task is called, on every broker alike: a task must not lose a
//! header because its queue moves to RabbitMQ.

use serde_json::Value;

use super::Headers;

/// The most bytes of the name of a header, of a name inside of its value, and of the text of a property.
const LONGEST: usize = 255;

/// The properties of a message that a caller may set, and what it is published by.
pub(crate) const OWN_PROPERTIES: [&str; 5] = ["message_id", "app_id", "type", "exchange", "routing_key"];

/// Checks the headers of a call, and the properties that are kept among them.
///
/// # Errors
/// A name or a property is not usable; the text says which one, and what to do.
pub(crate) fn check_call(headers: &Headers) -> Result<(), String> {
    headers.0.iter().try_for_each(|(name, value)| check_header("header", name, value))?;
    let mut properties = OWN_PROPERTIES.iter().filter_map(|name| Some((name, headers.property(name)?)));
    properties.try_for_each(|(name, text)| check_property(name, text))
}

/// Checks the name of a header or a stamp, and the names inside of its value. `kind` is which of the two it is.
///
/// # Errors
/// A name is empty or too long.
pub(crate) fn check_header(kind: &str, name: &str, value: &Value) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("the name of a {kind} is empty; give it 1 to {LONGEST} bytes"));
    }
    check_length(kind, name, value)
}

/// As [`check_header`], of what has come from somewhere, where an empty name is none of our business.
///
/// # Errors
/// A name is too long.
pub(crate) fn check_length(kind: &str, name: &str, value: &Value) -> Result<(), String> {
    let told = |long: &str| {
        let begin: String = long.chars().take(40).collect();
        format!("(it begins with `{}`) has {} bytes", begin.escape_debug(), long.len())
    };
    // Most names are short, and each header of each message comes through here: the text is made where it is needed.
    let advice = || format!("give it at most {LONGEST}, and put what is long into the value");
    if name.len() > LONGEST {
        return Err(format!("the name of a {kind} {}; {}", told(name), advice()));
    }
    match long_name(value) {
        Some(long) => Err(format!("a name in the value of {kind} `{name}` {}; {}", told(long), advice())),
        None => Ok(()),
    }
}

/// Checks the text of a property.
///
/// # Errors
/// It is too long.
pub(crate) fn check_property(name: &str, text: &str) -> Result<(), String> {
    if text.len() <= LONGEST {
        return Ok(());
    }
    let begin: String = text.chars().take(40).collect();
    Err(format!(
        "the property `{name}` (it begins with `{}`) has {} bytes; give it at most {LONGEST}, and send what is long as an argument",
        begin.escape_debug(),
        text.len()
    ))
}

/// The first name in a value that is too long.
fn long_name(value: &Value) -> Option<&str> {
    match value {
        Value::Array(items) => items.iter().find_map(long_name),
        Value::Object(map) => {
            map.iter().find_map(
                |(name, value)| {
                    if name.len() > LONGEST { Some(name.as_str()) } else { long_name(value) }
                },
            )
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_have_1_to_255_bytes_at_any_depth() {
        let (longest, long) = ("n".repeat(255), "n".repeat(256));
        let nested = |name: &str| json!([1, {"a": {name: null}}]);
        assert_eq!(check_header("header", &longest, &nested(&longest)), Ok(()));
        assert_eq!(check_header("header", "h", &json!({"": long})), Ok(()), "a text may be of any length");
        let begin = "n".repeat(40);
        let advice = "give it at most 255, and put what is long into the value";
        let text = format!("the name of a stamp (it begins with `{begin}`) has 256 bytes; {advice}");
        assert_eq!(check_header("stamp", &long, &Value::Null), Err(text));
        let of = "a name in the value of header `h`";
        let text = format!("{of} (it begins with `{begin}`) has 256 bytes; {advice}");
        assert_eq!(check_header("header", "h", &nested(&long)), Err(text));
        let empty = check_header("header", "", &Value::Null).unwrap_err();
        assert_eq!(empty, "the name of a header is empty; give it 1 to 255 bytes");
        assert_eq!(check_length("header", "", &Value::Null), Ok(()));
    }

    #[test]
    fn a_property_has_up_to_255_bytes() {
        let mut headers = Headers::default();
        headers.set_property("app_id", "a".repeat(255).into());
        assert_eq!(check_call(&headers), Ok(()));
        headers.set_property("message_id", "\n".repeat(256).into());
        let refused = check_call(&headers).unwrap_err();
        assert!(refused.starts_with("the property `message_id` (it begins with `\\n\\n"), "{refused}");
        assert!(refused.contains("has 256 bytes; give it at most 255"), "{refused}");
    }
}
