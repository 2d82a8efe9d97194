//! One text for each JSON value, however the value was written: for comparing and hashing values, not for passing
//! them on.
//!
//! The members of an object stand in the order of their names at every depth, because the maps that they come from
//! have no order (each `HashMap` of Rust has its own). Strings have the fewest escapes, and there is no white space.
//! Numbers keep their text, because reading them could change them. The code works on text, and so does not depend on
//! how `serde_json` keeps values.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The depth to which values are rewritten; deeper values stay as they were written. No task can read arguments that
/// are deeper.
const DEEPEST: usize = 128;

/// The canonical text of a JSON text. A text that is not JSON stays as it is.
pub(crate) fn canonical(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    write(json, DEEPEST, &mut text);
    text
}

fn write(json: &str, depth: usize, text: &mut String) {
    let json = json.trim_matches([' ', '\t', '\n', '\r']);
    let is_written = depth > 0
        && match json.as_bytes().first() {
            Some(b'{') => object(json, depth, text),
            Some(b'[') => array(json, depth, text),
            Some(b'"') => string(json, text),
            _ => false,
        };
    if !is_written {
        text.push_str(json);
    }
}

fn object(json: &str, depth: usize, text: &mut String) -> bool {
    let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) else { return false };
    text.push('{');
    for (n, (name, value)) in members.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        write(value.get(), depth - 1, text);
    }
    text.push('}');
    true
}

fn array(json: &str, depth: usize, text: &mut String) -> bool {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(json) else { return false };
    text.push('[');
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        write(item.get(), depth - 1, text);
    }
    text.push(']');
    true
}

fn string(json: &str, text: &mut String) -> bool {
    let Ok(string) = serde_json::from_str::<String>(json) else { return false };
    text.push_str(&serde_json::Value::from(string).to_string());
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_value_has_one_text() {
        for (json, text) in [
            (r#"[1,"a",null,true]"#, r#"[1,"a",null,true]"#),
            (r#" { "b" : [ {"d":1, "c":2} ] , "a" : 1 } "#, r#"{"a":1,"b":[{"c":2,"d":1}]}"#),
            (r#"["\u00fc\/"]"#, r#"["ü/"]"#),
            (r#"{"\u0062":1,"a":2}"#, r#"{"a":2,"b":1}"#),
            // Numbers stay exact.
            (
                "[117.63331139400017, 18446744073709551616, 1e400, 1.0]",
                "[117.63331139400017,18446744073709551616,1e400,1.0]",
            ),
            // A text that cannot be read stays as it is.
            (r#"["\ud83d"]"#, r#"["\ud83d"]"#),
            ("", ""),
            ("[1,", "[1,"),
        ] {
            assert_eq!(canonical(json), text, "{json}");
        }
        let deep = ["[".repeat(10_000), "]".repeat(10_000)].concat();
        assert_eq!(canonical(&deep), deep);
    }

    proptest! {
        /// The canonical text means the same as its source, and texts that mean the same have the same canonical
        /// text.
        #[test]
        fn the_order_of_members_is_no_matter(members in prop::collection::btree_map("[a-c]{1,2}", any::<i64>(), 0..6)) {
            let written = |members: Vec<(&String, &i64)>| {
                let members: Vec<_> = members.iter().map(|(name, n)| format!("\"{name}\": {{\"x\":{n}}}")).collect();
                format!("[{{{}}}]", members.join(", "))
            };
            let there = written(members.iter().collect());
            let back = written(members.iter().rev().collect());
            prop_assert_eq!(canonical(&there), canonical(&back));
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(value(&canonical(&there)), value(&back));
        }
    }
}
