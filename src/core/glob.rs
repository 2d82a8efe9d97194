//! Patterns of names with `*` and `?`, as in Python's `fnmatch`: nodes in control messages, tasks in routes and brakes. And
//! the regular expressions that people write beside them.

use regex::{Regex, RegexBuilder};

/// The most memory of a compiled pattern, which is enough for any pattern that a person writes.
const MAX_PATTERN: usize = 1 << 20;

/// Whether a name is a pattern that may match other names, too.
pub(crate) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Compiles a regular expression that has to match from the beginning of a text, as Python's `re.match` does.
///
/// # Errors
/// The pattern cannot be used: the pattern, and the reason.
pub(crate) fn from_start(pattern: &str) -> Result<Regex, (String, String)> {
    // The pattern is compiled alone first, because `a)(b` is valid only between these parentheses.
    compile(pattern)?;
    compile(&format!("^(?:{pattern})")).map_err(|(_, reason)| (pattern.to_owned(), reason))
}

/// Compiles a regular expression.
///
/// # Errors
/// The pattern cannot be used: the pattern, and the reason.
pub(crate) fn compile(pattern: &str) -> Result<Regex, (String, String)> {
    RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build().map_err(|error| {
        // The last line says what is wrong, and the lines above show where.
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        (pattern.to_owned(), reason)
    })
}

/// The regular expression that matches the same whole names as the pattern. It knows `*`, `?`, `[seq]` and `[!seq]`.
pub(crate) fn as_regex(pattern: &str) -> String {
    let mut out = String::from("(?s)^");
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' => match rest.as_str().char_indices().skip(1).find(|(_, c)| *c == ']') {
                // A bracket that is never closed stands for itself.
                None => out.push_str(r"\["),
                Some((end, _)) => {
                    let set = &rest.as_str()[..end];
                    let (not, set) = set.strip_prefix('!').map_or(("", set), |set| ("^", set));
                    out.push('[');
                    out.push_str(not);
                    for c in set.chars() {
                        if "[]^&~\\".contains(c) {
                            out.push('\\');
                        }
                        out.push(c);
                    }
                    out.push(']');
                    rest = rest.as_str()[end + 1..].chars();
                }
            },
            other => out.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push('$');
    out
}
