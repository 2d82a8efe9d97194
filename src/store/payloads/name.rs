//! The names of files, where they come in and where they go out.
//!
//! What comes in is refused if it is a path or could break a header; what goes out is escaped all the same, as RFC 6266 has
//! it, because names also come from elsewhere.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::task::DownloadError;

/// What RFC 5987 lets stand as it is.
const ATTRIBUTE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The longest name that file systems take.
const LONGEST: usize = 255;

/// Headers that the response has anyway, or that are not for an application to set.
const RESERVED: [&str; 12] = [
    "accept-ranges",
    "connection",
    "content-disposition",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "etag",
    "keep-alive",
    "set-cookie",
    "trailer",
    "transfer-encoding",
];

/// The value of `Content-Disposition` that has a browser save a file under this name, whatever is in it.
///
/// ```
/// use celeriac::soil::content_disposition;
/// assert_eq!(content_disposition("cases.csv"), r#"attachment; filename="cases.csv""#);
/// assert_eq!(
///     content_disposition("Fälle \"neu\".csv"),
///     r#"attachment; filename="F_lle _neu_.csv"; filename*=UTF-8''F%C3%A4lle%20%22neu%22.csv"#
/// );
/// ```
pub fn content_disposition(name: &str) -> String {
    let name: String = name.chars().map(|c| if is_bad(c) || is_separator(c) { '_' } else { c }).collect();
    // Quotes, backslashes and percent signs are read differently by different browsers.
    let plain = |c: char| (c == ' ' || c.is_ascii_graphic()) && !matches!(c, '"' | '\\' | '%');
    let fallback: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if fallback == name {
        return format!("attachment; filename=\"{name}\"");
    }
    let encoded = utf8_percent_encode(&name, ATTRIBUTE);
    format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{encoded}")
}

/// A name that may be saved under.
pub(super) fn check_name(name: &str) -> Result<(), DownloadError> {
    let reason = if name.trim().is_empty() {
        "it is empty"
    } else if name.len() > LONGEST {
        "it has more than 255 bytes"
    } else if matches!(name, "." | "..") || name.chars().any(is_separator) {
        "it is a path"
    } else if name.chars().any(is_bad) {
        "it has line breaks or other control characters"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(100).flat_map(char::escape_debug).collect();
    Err(DownloadError::Name { name: shown, reason })
}

/// A header that may be sent along.
pub(super) fn check_header(name: &str, value: &str) -> Result<(), DownloadError> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let reason = if name.is_empty() || !name.chars().all(token) {
        "its name is none"
    } else if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
        "it is set by the response itself"
    } else if !value.chars().all(|c| c == '\t' || c == ' ' || c.is_ascii_graphic()) {
        "its value has line breaks or is not ASCII"
    } else {
        return Ok(());
    };
    Err(DownloadError::Header { name: name.chars().flat_map(char::escape_debug).collect(), reason })
}

/// A media type that may be sent.
pub(super) fn check_content_type(content_type: &str) -> Result<(), DownloadError> {
    let is_one = content_type.contains('/') && content_type.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    let wrong =
        || DownloadError::Header { name: "Content-Type".to_owned(), reason: "its value is no media type" };
    is_one.then_some(()).ok_or_else(wrong)
}

fn is_separator(c: char) -> bool {
    matches!(c, '/' | '\\')
}

/// Controls, and marks that turn the direction of what follows, so that `exe.fdp` looks like `pdf.exe`.
fn is_bad(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tricks_are_refused() {
        for (name, reason) in [
            ("", "empty"),
            ("  ", "empty"),
            ("..", "a path"),
            ("../x", "a path"),
            ("/etc/passwd", "a path"),
            ("a\\b", "a path"),
            ("C:\\x.csv", "a path"),
            ("a\r\nSet-Cookie: x", "control"),
            ("a\0b", "control"),
            ("\u{202e}fdp.exe", "control"),
            (&"x".repeat(256), "255 bytes"),
        ] {
            let refused = check_name(name).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
            assert!(!refused.contains(['\r', '\n', '\0']), "{refused:?}");
        }
        for name in ["a.csv", "Fälle (neu).xlsx", "...", "a b", "一.zip", &"x".repeat(255)] {
            check_name(name).unwrap();
        }
    }

    #[test]
    fn headers_cannot_be_split_or_doubled() {
        for (name, value) in [
            ("X-A\r\nB", "x"),
            ("", "x"),
            ("X A", "x"),
            ("X-A", "x\r\nSet-Cookie: y"),
            ("X-A", "ä"),
            ("Content-Length", "3"),
            ("ETag", "x"),
        ] {
            check_header(name, value).unwrap_err();
        }
        check_header("X-Robots-Tag", "noindex, nofollow").unwrap();
        check_content_type("text/csv; charset=utf-8").unwrap();
        for wrong in ["", "csv", "text/csv\r\nX: y", "text/ä"] {
            check_content_type(wrong).unwrap_err();
        }
    }

    #[test]
    fn whatever_the_name_the_header_stands() {
        for name in
            ["a\"; filename=\"b", "a\r\nb", "../x", "100 %", "Ä", "\u{202e}x", "a\\b", "", "naïve.csv"]
        {
            let value = content_disposition(name);
            assert!(value.is_ascii() && !value.contains(['\r', '\n', '\\']), "{value:?}");
            assert_eq!(value.matches('"').count(), 2, "{value}");
        }
        assert!(content_disposition("100 %").ends_with("filename*=UTF-8''100%20%25"));
    }
}
