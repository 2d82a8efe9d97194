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

    /// The macros accept and refuse the same crontabs as the crate.
    #[test]
    fn as_the_crate_has_it() {
        for text in [
            "* * * * *",
            "1,13,30-45,50-59/2 * * * *",
            "0 22-2 * * *",
            "0 0 29-1 * *",
            "0 0 1 nov-FEB *",
            "0 6 * * tuesday/2",
            "+8 09 * * *",
            "5/15 * * * *",
            "60 * * * *",
            "0 0 * * 7",
            "*/0 * * * *",
            "1,,2 * * * *",
            "0 0 * *",
            "0 4, 5 * * *",
            "@daily",
            "",
        ] {
            let ours = check_text(text).is_ok();
            assert_eq!(ours, text.parse::<celeriac::core::calendar::Crontab>().is_ok(), "{text}");
        }
    }
}
