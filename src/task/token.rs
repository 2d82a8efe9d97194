//! A tokenizer for text that is known to be JSON. It does not recurse and does not read numbers.

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

/// Copies the text with null in place of each `NaN`, `Infinity` and `-Infinity`.
#[cfg(any(test, feature = "redis"))]
pub(crate) fn without_not_finite(text: &str) -> String {
    let (mut out, mut copied) = (String::new(), 0);
    let mut tokens = Tokens::of(text);
    while let Some(token) = tokens.next() {
        if let Token::Plain(plain @ ("NaN" | "Infinity" | "-Infinity")) = token {
            out.push_str(&text[copied..tokens.at() - plain.len()]);
            out.push_str("null");
            copied = tokens.at();
        }
    }
    out.push_str(&text[copied..]);
    out
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
        assert_eq!(without_not_finite("[NaN, \"NaN\",-Infinity,1]"), "[null, \"NaN\",null,1]");
    }
}
