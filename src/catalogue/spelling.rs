//! "Did you mean": finds the known name that is nearest to a mistyped one.

use super::error::quote;

/// The text `did you mean "x"?`, or the text of `otherwise` if no known name is near.
pub(super) fn advice<'k>(
    given: &str,
    known: impl IntoIterator<Item = &'k str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    match nearest(given, known) {
        Some(name) => format!("did you mean {}?", quote(name)),
        None => otherwise(),
    }
}

/// The known name that `given` probably meant: at most a third of the letters differ, and case does not count.
fn nearest<'k>(given: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Longer names are no typing errors, and comparing them costs the product of their lengths.
    const LONGEST: usize = 255;
    if given.is_empty() || given.len() > LONGEST {
        return None;
    }
    let lower = given.to_lowercase();
    known
        .into_iter()
        .filter(|name| name.len() <= LONGEST)
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= given.chars().count().max(name.chars().count()).div_ceil(3))
        // Two short names that share no letter would be near by the rule of thirds.
        .filter(|(distance, name)| *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_strangers_are_not() {
        let known = ["workers", "target", "target_class", "io"];
        assert_eq!(nearest("wokers", known), Some("workers"));
        assert_eq!(nearest("WORKER", known), Some("workers"));
        assert_eq!(nearest("target-class", known), Some("target_class"));
        assert_eq!(nearest("oi", known), Some("io"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"w".repeat(300), known), None);
    }
}
