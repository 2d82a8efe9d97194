//! Checks a crontab while the program is compiled, so that a mistake is found before the program starts.
//!
//! The crate itself (`core::calendar`) decides what a valid crontab is, and reads the crontab again at the start. The
//! grammar of a field is the same file here and there.

use crate::grammar::{Bounds, numbers};

pub use crate::grammar::FIELDS;

/// Checks one field of a crontab. The error says what is wrong.
pub fn check_field(field: Bounds, text: &str) -> Result<(), String> {
    match numbers(field, text) {
        Ok(_) => Ok(()),
        Err(fault) => Err(format!("{} = \"{text}\": {fault}", field.name)),
    }
}

/// Checks a crontab of five fields. The error says what is wrong.
pub fn check_text(text: &str) -> Result<(), String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "a crontab has five fields, this one {}: minute, hour, day of month, month of year, day of week (0 is Sunday)",
            fields.len()
        ));
    }
    FIELDS.into_iter().zip(fields).try_for_each(|(field, text)| check_field(field, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of macros cannot use the crate that the macros are for. So the file is copied, and this test compares
    /// the two.
    #[test]
    fn the_grammar_is_the_crates() {
        assert_eq!(include_str!("grammar.rs"), include_str!("../../src/core/calendar/grammar.rs"));
    }

    #[test]
    fn rates_are_the_crates() {
        assert_eq!(include_str!("rate.rs"), include_str!("../../src/core/rate.rs"));
    }

    /// The macros accept and refuse what the file says. `tests/beat/declared.rs` compares the crate with the same file.
    #[test]
    fn what_is_accepted() {
        for line in include_str!("crontabs.tsv").lines() {
            let (accepted, text) = line.split_once('\t').unwrap();
            assert_eq!(check_text(text).is_ok(), accepted == "yes", "{text}");
        }
    }
}
