//! Keys made of several parts: different parts never make the same key.
//!
//! People read keys and give them to `lane`, `unique` and `unblock` by hand. So a part stands in its key as it is,
//! wherever its end is clear. Only a part whose end would not be clear is written as `%LENGTH:PART`, with its length
//! in bytes. With `-` between them, "malawi" and "fp-cases" make `malawi-fp-cases`, and "malawi-fp" and "cases" make
//! `%9:malawi-fp-cases`.
//!
//! A reader who knows the texts around the parts can read the parts back, as the tests do: a part that begins with
//! `%` states its length, and any other part ends where the text behind it first occurs. The last part ends with the
//! key.

use std::fmt::Display;

/// The key of these parts with these texts around them. `texts` has one element more than `parts`: the first stands
/// before the first part and the last behind the last part. With the same texts, different parts make different keys.
#[doc(hidden)]
pub fn joined(texts: &[&str], parts: &[&dyn Display]) -> String {
    let mut key = texts.first().copied().unwrap_or_default().to_owned();
    let last = parts.len().saturating_sub(1);
    for (n, part) in parts.iter().enumerate() {
        let (part, behind) = (part.to_string(), texts.get(n + 1).copied().unwrap_or_default());
        let is_clear = match n {
            // The only part needs no length: it is all that is between the two texts.
            _ if last == 0 => true,
            _ if n == last => !part.starts_with('%'),
            _ => ends_clearly(&part, behind),
        };
        if !is_clear {
            key.push_str(&format!("%{}:", part.len()));
        }
        key.push_str(&part);
        key.push_str(behind);
    }
    key
}

/// Whether a reader who knows the text behind a part sees where the part ends.
fn ends_clearly(part: &str, behind: &str) -> bool {
    if behind.is_empty() {
        return false;
    }
    let read = [part, behind].concat();
    !read.starts_with('%') && read.find(behind) == Some(part.len())
}

/// The key of these parts, with `-` between them: the key that the template `"{domain}-{kind}"` makes of its
/// parameters. Use it for keys that you make by hand, such as names of locks, and to look up a key of a task.
/// Different parts never make the same key, which `format!("{domain}-{kind}")` does not promise.
///
/// ```
/// use celeriac::task::key_of;
/// assert_eq!(key_of(["demo", "cases"]), "demo-cases");
/// assert_ne!(key_of(["malawi-fp", "cases"]), key_of(["malawi", "fp-cases"]));
/// ```
pub fn key_of<P: Display>(parts: impl IntoIterator<Item = P>) -> String {
    let parts: Vec<P> = parts.into_iter().collect();
    let mut texts = vec!["-"; parts.len() + 1];
    texts[0] = "";
    texts[parts.len()] = "";
    let parts: Vec<&dyn Display> = parts.iter().map(|part| part as &dyn Display).collect();
    joined(&texts, &parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(texts: &[&str], parts: &[String]) -> String {
        let parts: Vec<&dyn Display> = parts.iter().map(|part| part as &dyn Display).collect();
        joined(texts, &parts)
    }

    /// Reads the parts of a key back.
    fn read(texts: &[&str], key: &str) -> Vec<String> {
        let mut rest = key.strip_prefix(texts[0]).unwrap().strip_suffix(texts[texts.len() - 1]).unwrap();
        let count = texts.len() - 1;
        if count == 1 {
            return vec![rest.to_owned()];
        }
        let mut parts = Vec::new();
        for n in 0..count {
            let length = if let Some(coded) = rest.strip_prefix('%') {
                let (length, part) = coded.split_once(':').unwrap();
                rest = part;
                length.parse().unwrap()
            } else if n + 1 == count {
                rest.len()
            } else {
                rest.find(texts[n + 1]).unwrap()
            };
            parts.push(rest[..length].to_owned());
            rest = &rest[length..];
            if n + 1 < count {
                rest = rest.strip_prefix(texts[n + 1]).unwrap();
            }
        }
        assert_eq!(rest, "");
        parts
    }

    #[test]
    fn parts_stand_as_they_are_unless_that_leaves_a_doubt() {
        for (parts, key) in [
            (vec![], ""),
            (vec!["malawi-fp"], "malawi-fp"),
            (vec!["%1:a"], "%1:a"),
            (vec!["malawi", "cases"], "malawi-cases"),
            (vec!["malawi", "fp-cases"], "malawi-fp-cases"),
            (vec!["malawi-fp", "cases"], "%9:malawi-fp-cases"),
            (vec!["malawi", "fp", "cases"], "malawi-fp-cases"),
            (vec!["", ""], "-"),
            (vec!["%", "%"], "%1:%-%1:%"),
        ] {
            assert_eq!(key_of(&parts), key, "{parts:?}");
        }
        assert_eq!(joined(&["", "", ""], &[&"ab", &"c"]), "%2:abc");
        assert_eq!(joined(&["", "", ""], &[&"a", &"bc"]), "%1:abc");
        assert_eq!(joined(&["<", "--", ">"], &[&"a-", &7]), "<%2:a---7>");
    }

    proptest! {
        /// A reader can read the parts of a key back, so different parts never share a key.
        #[test]
        fn the_parts_of_a_key_can_be_read_back(
            texts in prop::collection::vec("[-%:1a]{0,2}", 2..5),
            parts in prop::collection::vec("[-%:1aü]{0,5}", 4),
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let parts = &parts[..texts.len() - 1];
            let key = key(&texts, parts);
            prop_assert_eq!(read(&texts, &key), parts, "{}", key);
        }
    }
}
