//! A tokenizer for text that is known to be JSON. It does not recurse and does not read numbers.

use std::borrow::Cow;

/// One token of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// An opening `{` or `[`.
    Open(u8),
    /// A closing `}` or `]`.
    Close,
    Comma,
    Colon,
    /// A string with its quotes and escapes.
    Text(&'a str),
    /// A number or a constant such as `true`.
    Plain(&'a str),
}

/// Iterates over the tokens of a text. A text that is not JSON gives tokens that mean nothing.
#[derive(Clone)]
pub(crate) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The byte offset at which the last token ended.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Skips to the end of the object or array that was opened last.
    pub(crate) fn skip_opened(&mut self) {
        let mut depth = 1_usize;
        for token in self {
            match token {
                Token::Open(_) => depth += 1,
                Token::Close => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let bytes = self.text.as_bytes();
        let start = self.at + bytes[self.at..].iter().position(|byte| !byte.is_ascii_whitespace())?;
        let first = bytes[start];
        let rest = &bytes[start + 1..];
        let length = match first {
            b'{' | b'[' | b'}' | b']' | b',' | b':' => 0,
            b'"' => {
                let mut escaped = false;
                let end = rest.iter().position(|byte| {
                    let ends = *byte == b'"' && !escaped;
                    escaped = *byte == b'\\' && !escaped;
                    ends
                });
                end.map_or(rest.len(), |end| end + 1)
            }
            _ => {
                let ends = |byte: &u8| {
                    byte.is_ascii_whitespace()
                        || matches!(byte, b'{' | b'[' | b'}' | b']' | b',' | b':' | b'"')
                };
                rest.iter().position(ends).unwrap_or(rest.len())
            }
        };
        self.at = start + 1 + length;
        // Each token begins and ends beside an ASCII byte or at an end of the text, so the slice is on a character
        // boundary.
        let token = self.text.get(start..self.at).unwrap_or_default();
        Some(match first {
            b'{' | b'[' => Token::Open(first),
            b'}' | b']' => Token::Close,
            b',' => Token::Comma,
            b':' => Token::Colon,
            b'"' => Token::Text(token),
            _ => Token::Plain(token),
        })
    }
}

/// Finds the first number that JSON does not have: `NaN`, `Infinity` or `-Infinity`, which Python writes by default.
pub(crate) fn not_finite(text: &str) -> Option<&str> {
    Tokens::of(text).find_map(|token| match token {
        Token::Plain(plain @ ("NaN" | "Infinity" | "-Infinity")) => Some(plain),
        _ => None,
    })
}

/// The levels of a value that [`readable`] keeps. `serde_json` reads fewer than 128.
const MAX_LEVELS: usize = 120;
/// The largest float, which stands for a number that no float can hold: it is as true, and has the same sign.
const LARGEST: &str = "1.7976931348623157e308";

/// Copies a text for somebody who only looks at it, so that a [`Value`](serde_json::Value) can hold all of it, and one
/// odd part does not take the rest along. Half of a surrogate pair becomes U+FFFD, a number beyond all floats becomes
/// the largest float, `NaN` and the infinities become texts of these names, and whatever is nested more than 120 levels
/// deep becomes null.
pub(crate) fn readable(text: &str) -> String {
    let (mut out, mut copied, mut depth) = (String::new(), 0, 0_usize);
    let mut tokens = Tokens::of(text);
    while let Some(token) = tokens.next() {
        let at = tokens.at();
        let (start, instead) = match token {
            Token::Open(_) if depth == MAX_LEVELS => {
                tokens.skip_opened();
                (at - 1, Cow::Borrowed("null"))
            }
            Token::Open(_) => {
                depth += 1;
                continue;
            }
            Token::Close => {
                depth = depth.saturating_sub(1);
                continue;
            }
            Token::Text(text) => match without_halves(text) {
                Some(whole) => (at - text.len(), Cow::Owned(whole)),
                None => continue,
            },
            Token::Plain(plain @ ("NaN" | "Infinity" | "-Infinity")) => {
                (at - plain.len(), Cow::Owned(format!("\"{plain}\"")))
            }
            Token::Plain(number) if is_too_large(number) => {
                let sign = if number.starts_with('-') { "-" } else { "" };
                (at - number.len(), Cow::Owned(format!("{sign}{LARGEST}")))
            }
            Token::Plain(_) | Token::Comma | Token::Colon => continue,
        };
        out.push_str(&text[copied..start]);
        out.push_str(&instead);
        copied = tokens.at();
    }
    out.push_str(&text[copied..]);
    out
}

/// Whether no float can hold this number.
fn is_too_large(number: &str) -> bool {
    let is_digits = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    number.bytes().all(is_digits) && number.parse::<f64>().is_ok_and(f64::is_infinite)
}

/// Copies a string token with U+FFFD in place of each half of a surrogate pair. `None`: it has none.
fn without_halves(text: &str) -> Option<String> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(next) = text.as_bytes().get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\\')) {
        let escape = at + next;
        at = match unit(escape) {
            Some(0xd800..=0xdbff) if matches!(unit(escape + 6), Some(0xdc00..=0xdfff)) => escape + 12,
            Some(0xd800..=0xdfff) => {
                out.push_str(&text[copied..escape]);
                out.push('\u{fffd}');
                copied = escape + 6;
                copied
            }
            Some(_) => escape + 6,
            None => escape + 2,
        };
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out)
}

/// Finds the text of a member of the object that `text` is. Of two members of one name the last counts, as in Python.
pub(crate) fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut tokens = Tokens::of(text);
    tokens.next().filter(|token| *token == Token::Open(b'{'))?;
    let mut found = None;
    while let Some(Token::Text(key)) = tokens.next() {
        tokens.next().filter(|token| *token == Token::Colon)?;
        let start = tokens.at();
        if let Some(Token::Open(_)) = tokens.next() {
            tokens.skip_opened();
        }
        if key.trim_matches('"') == name {
            found = text.get(start..tokens.at()).map(str::trim);
        }
        if tokens.next() != Some(Token::Comma) {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let all: Vec<_> = Tokens::of(r#" {"a\"\\": [1e5,true ,"é"]}"#).collect();
        let text = Token::Text;
        let expected = [
            Token::Open(b'{'),
            text(r#""a\"\\""#),
            Token::Colon,
            Token::Open(b'['),
            Token::Plain("1e5"),
            Token::Comma,
            Token::Plain("true"),
            Token::Comma,
            text("\"é\""),
            Token::Close,
            Token::Close,
        ];
        assert_eq!(all, expected);
        let mut tokens = Tokens::of("[[1,[2]],3]");
        tokens.by_ref().take(2).for_each(drop);
        tokens.skip_opened();
        assert_eq!(tokens.next(), Some(Token::Comma));
        // The iteration over nonsense ends too.
        for nonsense in ["\"abc", "\"\\", "é", "[1", "]]", "\u{a0}x\"é"] {
            assert!(Tokens::of(nonsense).count() < 4, "{nonsense}");
        }
    }

    #[test]
    fn numbers_that_are_none() {
        assert_eq!(not_finite("[1, {\"a\": NaN}]"), Some("NaN"));
        assert_eq!(not_finite("[-Infinity"), Some("-Infinity"));
        assert_eq!(not_finite("[\"NaN\", \"Infinity\", nan]"), None);
    }

    #[test]
    fn what_is_only_looked_at_loses_the_odd_part_and_no_more() {
        for (text, copy) in [
            (r#"{"a": 1, "b": "x\n\u00e9"}"#, r#"{"a": 1, "b": "x\n\u00e9"}"#),
            (r#"["cut \ud83d", "é\udc4d!"]"#, "[\"cut \u{fffd}\", \"é\u{fffd}!\"]"),
            (r#"["\ud83d\udc4d", "\\ud83d"]"#, r#"["\ud83d\udc4d", "\\ud83d"]"#),
            (r#"["\ud83d\ud83d\udc4d\ud83d"]"#, "[\"\u{fffd}\\ud83d\\udc4d\u{fffd}\"]"),
            (r#"{"\ud83d":1e400}"#, "{\"\u{fffd}\":1.7976931348623157e308}"),
            ("[-1e400, 1e-400]", "[-1.7976931348623157e308, 1e-400]"),
            ("[NaN,-Infinity, 1e308]", r#"["NaN","-Infinity", 1e308]"#),
        ] {
            assert_eq!(readable(text), copy);
            assert!(serde_json::from_str::<serde_json::Value>(copy).is_ok(), "{copy}");
        }
        let digits = "9".repeat(400);
        assert_eq!(readable(&digits), LARGEST);
        let deep = format!("{{\"a\":1,\"b\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let read: serde_json::Value = serde_json::from_str(&readable(&deep)).unwrap();
        assert_eq!((&read["a"], read["b"].is_array()), (&1.into(), true));
        for nonsense in ["\"abc", "\"\\", "\"\\é", "\"\\ud83", "é", "[1", "]]", "\u{a0}x\"é", ""] {
            assert_eq!(readable(nonsense), nonsense);
        }
    }

    #[test]
    fn a_member_is_found_without_reading_the_rest() {
        let text = r#"{"status":"A", "result": {"result": [NaN]} ,"n":1e400,"result":"\ud83d" }"#;
        assert_eq!(member(text, "result"), Some(r#""\ud83d""#));
        assert_eq!((member(text, "status"), member(text, "n")), (Some("\"A\""), Some("1e400")));
        assert_eq!(member("{\"result\": [NaN, 1]}", "result"), Some("[NaN, 1]"));
        for none in ["{}", "[1]", "", "{\"a\"", "{\"a\":1,", "x", "{1:2}"] {
            assert_eq!(member(none, "result"), None, "{none}");
        }
    }
}
