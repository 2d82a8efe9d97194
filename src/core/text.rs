//! Texts that others have written, cut to the length that an error, a log line or a header allows.

use std::borrow::Cow;

/// The longest text of an error that a message carries, in bytes.
pub const ERROR: usize = 2_000;

/// The beginning of a text that is longer than `most` bytes, with a note of its length. A text that fits is returned
/// as it is.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let note = format!("... ({} bytes)", text.len());
    let end = text.floor_char_boundary(most.saturating_sub(note.len()));
    Cow::Owned(format!("{}{note}", &text[..end]))
}

/// The first errors of a task, each cut to [`ERROR`] bytes. A message carries at most eight.
pub fn first_errors(errors: &[String]) -> Vec<String> {
    const MOST: usize = 8;
    errors.iter().take(MOST).map(|error| shortened(error, ERROR).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened(&"x".repeat(100), 30), format!("{}... (100 bytes)", "x".repeat(15)));
        let umlauts = "\u{e4}".repeat(100);
        let short = shortened(&umlauts, 30);
        assert_eq!(short, format!("{}... (200 bytes)", "\u{e4}".repeat(7)));
        assert_eq!(shortened(&umlauts, 0), "... (200 bytes)");
    }

    #[test]
    fn of_many_errors_the_first_are_kept() {
        let errors: Vec<String> = (0..9).map(|n| n.to_string().repeat(3_000)).collect();
        let first = first_errors(&errors);
        assert_eq!(first.len(), 8);
        assert!(first.iter().all(|error| error.len() == ERROR));
    }
}
