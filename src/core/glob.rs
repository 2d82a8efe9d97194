//! Patterns of names with `*` and `?`, as in Python's `fnmatch`: nodes in control messages, tasks in routes.

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
