//! The name that somebody may have meant who wrote a name that does not exist.

/// Names that are longer are no typing errors, and comparing them costs the product of their lengths.
const LONGEST: usize = 255;

/// The known name that `given` probably stands for: at most a third of the letters differ, and case does not count. Of
/// several it is the one with the fewest differences. It is `None` if no known name is near.
pub(crate) fn nearest<N: AsRef<str>>(given: &str, known: impl IntoIterator<Item = N>) -> Option<N> {
    if given.is_empty() || given.len() > LONGEST {
        return None;
    }
    let lower = given.to_lowercase();
    let letters = given.chars().count();
    known
        .into_iter()
        .filter(|name| name.as_ref().len() <= LONGEST)
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.as_ref().to_lowercase()), name))
        .filter(|(distance, name)| {
            let most = name.as_ref().chars().count();
            // Two short names that share no letter would be near by the rule of thirds.
            *distance <= letters.max(most).div_ceil(3) && *distance < most
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The question that ends the text of an error, such as "; did you mean `app::mail`?". It is empty if no known name is
/// near.
pub(crate) fn hint<N: AsRef<str>>(given: &str, known: impl IntoIterator<Item = N>) -> String {
    nearest(given, known).map_or_else(String::new, |known| format!("; did you mean `{}`?", known.as_ref()))
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
        assert_eq!(hint("wokers", known), "; did you mean `workers`?");
        assert_eq!(hint("colour", known), "");
    }
}
