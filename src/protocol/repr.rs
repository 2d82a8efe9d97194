//! Arguments as Python shows them: the text of the headers `argsrepr` and `kwargsrepr`, for Flower and for logs.
//!
//! The rules are those of Celery's `saferepr`, as its results show them: about 1024 characters and three levels, with
//! three dots for what is left out. Before that the text is checked to be JSON.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::task::token::{Token, Tokens};
use crate::task::{Headers, SHOWN_AS_LIST};

/// The most characters of the text, as Celery's `resultrepr_maxsize`.
const MAX_CHARS: i64 = 1024;
const MAX_LEVELS: usize = 3;
/// The most bytes that are set aside for a text. A longer one makes room for itself.
const LIKELY: usize = 1024;

/// Shows a JSON array as a Python tuple: `(2, 'x')`.
pub(crate) fn positional(args: &str) -> Result<String, serde_json::Error> {
    run(args, Shape::Tuple)
}

/// Shows the positional arguments of a message with these headers: as a tuple, or as a list if its sender did so.
pub(crate) fn positional_of(headers: &Headers, args: &str) -> Result<String, serde_json::Error> {
    let tuple = positional(args)?;
    Ok(if headers.0.contains_key(SHOWN_AS_LIST) { value(args) } else { tuple })
}

/// Shows a JSON object as a Python dict: `{'x': 1, 'y': None}`.
pub(crate) fn keyword(kwargs: &str) -> Result<String, serde_json::Error> {
    run(kwargs, Shape::Dict)
}

/// Shows any JSON text as Python's `repr` shows the value: `5`, `'abc'`, `[1, 2]`, `None`. Text that is no JSON is
/// shown as far as it can be read.
pub(crate) fn value(json: &str) -> String {
    shown(json.trim(), "[")
}

/// Shows a text as Python's `repr` does, with all escapes that it has below U+00A0.
pub(crate) fn text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            letter if letter == quote => out.extend(['\\', quote]),
            // Writing into a string never fails.
            letter if letter.is_control() => drop(write!(out, "\\x{:02x}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push(quote);
    out
}

/// The type that the outermost value must have.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Tuple,
    Dict,
}

fn run(text: &str, shape: Shape) -> Result<String, serde_json::Error> {
    // Most tasks have no arguments of one of the two kinds.
    match (text, shape) {
        ("[]", Shape::Tuple) => return Ok("()".to_owned()),
        ("{}", Shape::Dict) => return Ok("{}".to_owned()),
        _ => {}
    }
    // This checks the JSON at any depth. Numbers stay text, so that a number with forty digits is shown with forty.
    let json: &RawValue = serde_json::from_str(text)?;
    let found = match json.get().as_bytes().first() {
        Some(b'[') if shape == Shape::Tuple => None,
        Some(b'{') if shape == Shape::Dict => None,
        Some(b'[') => Some("an array"),
        Some(b'{') => Some("an object"),
        Some(b'"') => Some("a string"),
        Some(b'n') => Some("null"),
        Some(b't' | b'f') => Some("a boolean"),
        _ => Some("a number"),
    };
    match found {
        None => Ok(shown(json.get(), "(")),
        Some(found) => Err(serde_json::Error::custom(format!("it is {found}"))),
    }
}

/// A bracket that was opened and is not closed yet.
struct OpenContainer {
    close: &'static str,
    /// Whether there was room to write the opening bracket.
    shown: bool,
    /// How many commas the container has so far.
    commas: usize,
    is_empty: bool,
}

/// The text of a value, whose array has this bracket if it is one.
fn shown(json: &str, array: &'static str) -> String {
    // The text is about as long as the JSON, and little longer than the most characters.
    let room = json.len().min(LIKELY) + 16;
    let mut writer = ReprWriter { out: String::with_capacity(room), left: MAX_CHARS, cut: false };
    let mut open: Vec<OpenContainer> = Vec::new();
    let mut tokens = Tokens::of(json);
    while let Some(token) = tokens.next() {
        if let (Some(outer), Token::Open(_) | Token::Text(_) | Token::Plain(_)) = (open.last_mut(), token) {
            outer.is_empty = false;
        }
        match token {
            Token::Open(bracket) if open.len() >= MAX_LEVELS => {
                tokens.skip_opened();
                writer.token(if bracket == b'{' { "{...}" } else { "[...]" });
            }
            Token::Open(bracket) => {
                let (bracket, close) = match (bracket, open.len()) {
                    (b'{', _) => ("{", "}"),
                    (_, 0) if array == "(" => ("(", ")"),
                    _ => ("[", "]"),
                };
                let shown = writer.token(bracket);
                open.push(OpenContainer { close, shown, commas: 0, is_empty: true });
            }
            Token::Close => {
                if let Some(OpenContainer { close, shown: true, commas, is_empty }) = open.pop() {
                    writer.put(if close == ")" && commas == 0 && !is_empty { ",)" } else { close });
                }
            }
            Token::Comma => {
                if let Some(outer) = open.last_mut() {
                    outer.commas += 1;
                }
                writer.token(", ");
            }
            Token::Colon => drop(writer.token(": ")),
            // What has no escapes is the text itself.
            Token::Text(text) if !text.contains('\\') => writer.quoted(text.trim_matches('"')),
            // Half of a surrogate pair is no valid text in Rust, so it is shown as it was written.
            Token::Text(text) => match serde_json::from_str::<Cow<'_, str>>(text) {
                Ok(text) => writer.quoted(&text),
                Err(_) => writer.quoted(text.trim_matches('"')),
            },
            Token::Plain("true") => writer.plain("True"),
            Token::Plain("false") => writer.plain("False"),
            Token::Plain("null") => writer.plain("None"),
            Token::Plain(number) => writer.plain(&shown_number(number)),
        }
    }
    writer.out
}

/// A number as Python shows it; integers of any size keep all of their digits.
fn shown_number(number: &str) -> Cow<'_, str> {
    match number {
        "-0" => "0".into(),
        integer if !integer.contains(['.', 'e', 'E']) => integer.into(),
        float => float.parse().map_or(number.into(), |value: f64| self::float(value).into()),
    }
}

struct ReprWriter {
    out: String,
    /// How many more characters there is room for.
    left: i64,
    /// Whether there was no room for something. From then on, only closing brackets are written.
    cut: bool,
}

impl ReprWriter {
    /// Writes a token if there is room. Returns whether there was.
    fn token(&mut self, text: &str) -> bool {
        let room = self.room();
        if room {
            self.put(text);
        }
        room
    }

    /// Writes a text in quotes. As in Celery, only quotes in the text are escaped.
    fn quoted(&mut self, text: &str) {
        if self.room() {
            let (shown, dots) = self.cut_to_fit(text);
            self.put("'");
            for (at, part) in shown.split('\'').enumerate() {
                if at > 0 {
                    self.put("\\'");
                }
                self.put(part);
            }
            self.put(dots);
            self.put("'");
        }
    }

    fn plain(&mut self, text: &str) {
        if self.room() {
            let (shown, dots) = self.cut_to_fit(text);
            self.put(shown);
            self.put(dots);
        }
    }

    /// The part of a value that there is room for, cut at a blank if there is one, and dots if something was cut.
    fn cut_to_fit<'t>(&self, text: &'t str) -> (&'t str, &'static str) {
        let room = usize::try_from(self.left).unwrap_or(0);
        // A text has at least as many bytes as characters, so the first test is the cheap one.
        if text.len() < room || text.chars().count() < room {
            return (text, "");
        }
        let end = text.char_indices().nth(room).map_or(text.len(), |(at, _)| at);
        (text[..end].rsplit_once(' ').map_or(&text[..end], |(before, _)| before), "...")
    }

    /// Writes a text, whether there is room or not.
    fn put(&mut self, text: &str) {
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

/// A float as Python's `repr` shows it: the fewest digits that read back, with an exponent below 1e-4 and from 1e16.
fn float(value: f64) -> String {
    if value.is_infinite() {
        return if value < 0.0 { "-inf" } else { "inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or(0) {
        -4..=15 => format!("{value:?}"),
        exponent => {
            let mut text = digits.to_owned();
            let sign = if exponent < 0 { '-' } else { '+' };
            // Writing into a string never fails.
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
            (
                "[1000000000000000000000000000000,-0,1E+2,1e400,-1e400,18446744073709551615,117.63331139400017]",
                "(1000000000000000000000000000000, 0, 100.0, inf, -inf, 18446744073709551615, 117.63331139400017)",
            ),
            (r#"["cut \ud83d","\u00e9"]"#, r"('cut \ud83d', 'é')"),
        ] {
            assert_eq!(positional(json).unwrap(), python);
        }
        assert_eq!(keyword("{}").unwrap(), "{}");
        let dict = keyword(r#"{"x":1,"a":null,"k'":{"b":true}}"#).unwrap();
        assert_eq!(dict, r"{'x': 1, 'a': None, 'k\'': {'b': True}}");
    }

    /// The expected lengths and ends are those that Celery 5.7 gives for the same values.
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
    fn results_and_texts_are_shown_as_python_shows_them() {
        for (json, python) in [
            ("5", "5"),
            ("\"abc\"", "'abc'"),
            ("null", "None"),
            ("[1,[2]]", "[1, [2]]"),
            ("{\"a\":[true]}", "{'a': [True]}"),
            ("[]", "[]"),
            ("1e2", "100.0"),
            ("", ""),
        ] {
            assert_eq!(value(json), python);
        }
        assert!(value(&format!("\"{}\"", "x".repeat(5000))).len() < 1100);
        for (plain, python) in [
            ("bad", "'bad'"),
            ("it's", "\"it's\""),
            ("it's \"so\"", r#"'it\'s "so"'"#),
            ("a\n\t\\\u{7}", r"'a\n\t\\\x07'"),
            ("é", "'é'"),
        ] {
            assert_eq!(text(plain), python);
        }
    }

    #[test]
    fn no_arguments_are_shown_as_any_others() {
        for empty in ["[]", "[ ]", " []"] {
            assert_eq!(positional(empty).unwrap(), "()");
        }
        for empty in ["{}", "{ }", "{} "] {
            assert_eq!(keyword(empty).unwrap(), "{}");
        }
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
