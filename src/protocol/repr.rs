//! Arguments as Python shows them: the text of the headers `argsrepr` and `kwargsrepr`, for Flower and for logs.
//!
//! The rules are those of Celery's `saferepr` as its results show them: about 1024 characters, three levels, and what is
//! left out is three dots. It is written while the JSON is read, in one pass, and so also finds out whether that is JSON.

use std::fmt;
use std::fmt::Write as _;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Celery's `resultrepr_maxsize`.
const MAX_CHARS: i64 = 1024;
const MAX_LEVELS: usize = 3;

/// A JSON array as a Python tuple: `(2, 'x')`.
pub(super) fn positional(args: &str) -> Result<String, serde_json::Error> {
    run(args, Shape::Tuple)
}

/// A JSON object as a Python dict: `{'x': 1, 'y': None}`.
pub(super) fn keyword(kwargs: &str) -> Result<String, serde_json::Error> {
    run(kwargs, Shape::Dict)
}

/// What the outermost value has to be.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Tuple,
    Dict,
    Any,
}

fn run(text: &str, shape: Shape) -> Result<String, serde_json::Error> {
    let mut writer = Writer { out: String::new(), left: MAX_CHARS, cut: false };
    let mut json = serde_json::Deserializer::from_str(text);
    Node { writer: &mut writer, shape, level: 0 }.deserialize(&mut json)?;
    json.end()?;
    Ok(writer.out)
}

struct Writer {
    out: String,
    /// Characters that may still follow.
    left: i64,
    /// No room was left when something was to follow: only what is open is closed.
    cut: bool,
}

impl Writer {
    /// Says whether there was room.
    fn token(&mut self, text: &str) -> bool {
        let room = self.room();
        if room {
            self.out.push_str(text);
            self.left -= count(text);
        }
        room
    }

    /// Text in quotes. As in Celery, only quotes in it are escaped.
    fn quoted(&mut self, text: &str) {
        if self.room() {
            let (shown, dots) = self.cut_to_fit(text);
            let shown = format!("'{}{dots}'", shown.replace('\'', "\\'"));
            self.token(&shown);
        }
    }

    fn plain(&mut self, text: &str) {
        if self.room() {
            let (shown, dots) = self.cut_to_fit(text);
            let shown = format!("{shown}{dots}");
            self.token(&shown);
        }
    }

    /// So much of a value as there is room for, cut at a blank if there is one.
    fn cut_to_fit<'t>(&self, text: &'t str) -> (&'t str, &'static str) {
        let room = usize::try_from(self.left).unwrap_or(0);
        // No text has more characters than bytes.
        if text.len() < room || text.chars().count() < room {
            return (text, "");
        }
        let end = text.char_indices().nth(room).map_or(text.len(), |(at, _)| at);
        (text[..end].rsplit_once(' ').map_or(&text[..end], |(before, _)| before), "...")
    }

    fn close(&mut self, text: &str) {
        self.out.push_str(text);
        self.left -= count(text);
    }

    fn room(&mut self) -> bool {
        if self.left <= 0 && !self.cut {
            self.cut = true;
            self.out.push_str(", ...");
        }
        !self.cut
    }
}

fn count(text: &str) -> i64 {
    i64::try_from(text.chars().count()).unwrap_or(i64::MAX)
}

struct Node<'a> {
    writer: &'a mut Writer,
    shape: Shape,
    level: usize,
}

impl Node<'_> {
    fn wrong<E: Error>(&self, found: &str) -> Result<(), E> {
        Err(E::custom(format!("it is {found}")))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Beyond the end nothing is looked at, and so no depth of nesting can hurt.
        if self.writer.cut {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

/// Numbers and constants, which are only wrong as the outermost value.
macro_rules! plain {
    ($($method:ident($value:ident: $type:ty) => $text:expr, $found:literal;)*) => {$(
        fn $method<E: Error>(self, $value: $type) -> Result<(), E> {
            if self.shape != Shape::Any {
                return self.wrong($found);
            }
            self.writer.plain(&$text);
            Ok(())
        }
    )*};
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    plain! {
        visit_bool(v: bool) => if v { "True" } else { "False" }, "a boolean";
        visit_i64(v: i64) => v.to_string(), "a number";
        visit_u64(v: u64) => v.to_string(), "a number";
        visit_f64(v: f64) => float(v), "a number";
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.shape != Shape::Any {
            return self.wrong("null");
        }
        self.writer.plain("None");
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if self.shape != Shape::Any {
            return self.wrong("a string");
        }
        self.writer.quoted(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let tuple = match self.shape {
            Shape::Dict => return self.wrong("an array"),
            shape => shape == Shape::Tuple,
        };
        if self.level >= MAX_LEVELS {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            self.writer.token("[...]");
            return Ok(());
        }
        let open = self.writer.token(if tuple { "(" } else { "[" });
        let mut length = 0_usize;
        loop {
            // Whether another one follows is only known with it, so the comma is written by the one that follows.
            let node = Node { writer: &mut *self.writer, shape: Shape::Any, level: self.level + 1 };
            if items.next_element_seed(Follower { node, first: length == 0 })?.is_none() {
                break;
            }
            length += 1;
        }
        if open {
            self.writer.close(match (tuple, length) {
                (false, _) => "]",
                (true, 1) => ",)",
                (true, _) => ")",
            });
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        if self.shape == Shape::Tuple {
            return self.wrong("an object");
        }
        if self.level >= MAX_LEVELS {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            self.writer.token("{...}");
            return Ok(());
        }
        let open = self.writer.token("{");
        let mut first = true;
        loop {
            let node = Node { writer: &mut *self.writer, shape: Shape::Any, level: MAX_LEVELS };
            if entries.next_key_seed(Follower { node, first })?.is_none() {
                break;
            }
            self.writer.token(": ");
            entries.next_value_seed(Node {
                writer: &mut *self.writer,
                shape: Shape::Any,
                level: self.level + 1,
            })?;
            first = false;
        }
        if open {
            self.writer.close("}");
        }
        Ok(())
    }
}

/// An element with the comma before it.
struct Follower<'a> {
    node: Node<'a>,
    first: bool,
}

impl<'de> DeserializeSeed<'de> for Follower<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.first {
            self.node.writer.token(", ");
        }
        self.node.deserialize(deserializer)
    }
}

/// Python's `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16.
fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..=15 => format!("{value:?}"),
        exponent => {
            let mut text = digits.to_owned();
            let sign = if exponent < 0 { '-' } else { '+' };
            // Writing into a string does not fail.
            let _ = write!(text, "e{sign}{:02}", exponent.unsigned_abs());
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python_shows_it() {
        for (json, python) in [
            ("[2,3]", "(2, 3)"),
            ("[\"x\"]", "('x',)"),
            ("[]", "()"),
            ("[[[[[1]]]]]", "([[[...]]],)"),
            (r#"[{"a":{"b":{"c":{"d":1}}}}]"#, "({'a': {'b': {...}}},)"),
            ("[\"it's\",true,false,null]", "('it\\'s', True, False, None)"),
            (
                "[1.5,1e16,1e-7,1e22,123456789.123,-0.0,1e300,0.0001,0.00001,3.0]",
                "(1.5, 1e+16, 1e-07, 1e+22, 123456789.123, -0.0, 1e+300, 0.0001, 1e-05, 3.0)",
            ),
            ("[[],{},[]]", "([], {}, [])"),
            ("[[[],[[]],[[[]]]]]", "([[], [[...]], [[...]]],)"),
        ] {
            assert_eq!(positional(json).unwrap(), python);
        }
        assert_eq!(keyword("{}").unwrap(), "{}");
        let dict = keyword(r#"{"x":1,"a":null,"k'":{"b":true}}"#).unwrap();
        assert_eq!(dict, r"{'x': 1, 'a': None, 'k\'': {'b': True}}");
    }

    /// Lengths and ends are those that Celery 5.7 gives for the same values.
    #[test]
    fn long_arguments_are_cut_and_closed() {
        let long = positional(&format!("[\"{}\",2]", "x".repeat(1100))).unwrap();
        assert!(long.len() == 1035 && long.ends_with("xxxx...', ...)"), "{long}");
        let numbers: Vec<u32> = (0..400).collect();
        let long = positional(&format!("[{}]", serde_json::to_string(&numbers).unwrap())).unwrap();
        assert!(long.len() == 1035 && long.ends_with("4, 225, 22..., ...],)"), "{long}");
        let two = format!(r#"[{{"a":"{}","b":"{}"}},5]"#, "x".repeat(600), "y".repeat(600));
        let long = positional(&two).unwrap();
        assert!(long.len() == 1036 && long.ends_with("yyyyyy...'}, ...)"), "{long}");
        let long = positional(&format!("[[\"{}\"]]", "x".repeat(1030))).unwrap();
        assert!(long.len() == 1032 && long.ends_with("xxxxxx...'],)"), "{long}");
    }

    #[test]
    fn what_is_no_json_array_or_object_is_refused() {
        for wrong in ["{}", "1", "null", "\"x\"", "true", "1.5", "[1", "[1]]", "", "[NaN]"] {
            assert!(positional(wrong).is_err(), "{wrong}");
        }
        for wrong in ["[]", "null", "{\"a\":}", "{\"a\":1}x"] {
            assert!(keyword(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn any_depth_is_read_without_recursion() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(positional(&deep).unwrap(), "([[[...]]],)");
    }
}
