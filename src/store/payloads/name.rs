//! The names of files, where they come in and where they go out.
//!
//! A name that comes in is refused if it is a path or could break a header. A name that goes out is escaped all
//! the same, by the rules of RFC 6266, because names also come from other programs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::task::DownloadError;

/// The characters that RFC 5987 leaves as they are.
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

/// The longest name that file systems take, in bytes.
const LONGEST: usize = 255;

/// The headers that a task may set on the response of its file. All others belong to the server, the proxy
/// (`X-Accel-Redirect`, `X-Sendfile`) or the browser (`Location`, `Set-Cookie`, `Clear-Site-Data`, `Refresh`), and
/// new ones of these come up.
const ALLOWED: [&str; 8] = [
    "cache-control",
    "content-description",
    "content-digest",
    "content-language",
    "digest",
    "expires",
    "repr-digest",
    "x-robots-tag",
];
/// The beginning of the headers by which an application talks to its own clients.
const OWN: &str = "x-download-";

/// What a cache may be told: nothing that lets it give the file to somebody else.
const CACHING: [&str; 6] =
    ["immutable", "must-revalidate", "no-cache", "no-store", "no-transform", "private"];

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
    // Browsers differ in how they read quotes, backslashes and percent signs.
    let plain = |c: char| (c == ' ' || c.is_ascii_graphic()) && !matches!(c, '"' | '\\' | '%');
    let fallback: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    if fallback == name {
        return format!("attachment; filename=\"{name}\"");
    }
    let encoded = utf8_percent_encode(&name, ATTRIBUTE);
    format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{encoded}")
}

/// Checks a name under which a file is to be saved.
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

/// Checks a header that is to be sent along.
pub(crate) fn check_header(name: &str, value: &str) -> Result<(), DownloadError> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let reason = if name.is_empty() || !name.chars().all(token) {
        "its name is none"
    } else if !is_allowed(name) {
        "a task may set Cache-Control, Content-Description, Content-Digest, Content-Language, Digest, Expires, Repr-Digest, X-Robots-Tag, and what begins with X-Download-"
    } else if !value.chars().all(|c| c == '\t' || c == ' ' || c.is_ascii_graphic()) {
        "its value has line breaks or is not ASCII"
    } else if name.eq_ignore_ascii_case("cache-control") && !value.split(',').all(is_private) {
        "a file is for whoever may have it, so its caching is made of private, no-cache, no-store, no-transform, must-revalidate, immutable and max-age=SECONDS"
    } else {
        return Ok(());
    };
    Err(DownloadError::Header { name: name.chars().flat_map(char::escape_debug).collect(), reason })
}

fn is_allowed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ALLOWED.contains(&name.as_str()) || (name.starts_with(OWN) && name.len() > OWN.len())
}

fn is_private(directive: &str) -> bool {
    let directive = directive.trim().to_ascii_lowercase();
    let is_age = |age: &str| !age.is_empty() && age.bytes().all(|byte| byte.is_ascii_digit());
    CACHING.contains(&directive.as_str()) || directive.strip_prefix("max-age=").is_some_and(is_age)
}

/// Checks a media type that is to be sent.
pub(super) fn check_content_type(content_type: &str) -> Result<(), DownloadError> {
    let is_one = content_type.contains('/') && content_type.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    let wrong =
        || DownloadError::Header { name: "Content-Type".to_owned(), reason: "its value is no media type" };
    is_one.then_some(()).ok_or_else(wrong)
}

fn is_separator(c: char) -> bool {
    matches!(c, '/' | '\\')
}

/// Whether this is a control, or a mark that turns the direction of what follows, so that `exe.fdp` looks like
/// `pdf.exe`.
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
            ("X-Download-A\r\nB", "x"),
            ("", "x"),
            ("X-Download A", "x"),
            ("X-Download-A", "x\r\nSet-Cookie: y"),
            ("X-Download-A", "ä"),
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
    fn a_task_sets_no_header_that_servers_proxies_or_browsers_obey() {
        for name in [
            "X-Accel-Redirect",
            "x-accel-limit-rate",
            "X-Sendfile",
            "X-LIGHTTPD-send-file",
            "X-Reproxy-URL",
            "Location",
            "Content-Location",
            "Refresh",
            "Set-Cookie",
            "Set-Cookie2",
            "Clear-Site-Data",
            "Strict-Transport-Security",
            "Access-Control-Allow-Origin",
            "Content-Security-Policy",
            "Content-Type",
            "Content-Encoding",
            "Link",
            "Alt-Svc",
            "Server",
            "Status",
            "WWW-Authenticate",
            "X-Frame-Options",
            "X-Report",
            "X-Download-",
        ] {
            let refused = check_header(name, "x").unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains("X-Download-"), "{refused}");
        }
        for caching in
            ["public", "private, s-maxage=5", "max-age=", "max-age=5, public", "", "max-age=5 public"]
        {
            check_header("Cache-Control", caching).unwrap_err();
        }
        for (name, value) in [
            ("Cache-Control", "private, max-age=3600"),
            ("cache-control", "no-store"),
            ("Content-Language", "fr"),
            ("X-Download-Report", "monthly"),
        ] {
            check_header(name, value).unwrap();
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
