//! Run times in notes: the note `run-times/NODE` says what the process of this name has measured. So processes never wait for
//! each other, and whoever asks adds the notes up.
//!
//! Invariant: a note takes at most [`MOST_BYTES`]. Of a book with more to say, what ran last is kept.

use super::{Notes, StoreError, packed};
use crate::core::Timestamp;
use crate::core::durations::{MOST_VALUES, RunTimeBook};
use crate::core::text::shortened;

/// The beginning of the names of the notes.
const PREFIX: &str = "run-times/";
/// The most bytes of a note.
const MOST_BYTES: usize = 1 << 20;
/// How hard a note is compressed: 1 to 22.
const LEVEL: i32 = 3;
/// How many bytes of the name of a node are in the name of a note.
const LONGEST_NODE: usize = 255;

/// The note of some process.
pub(crate) struct StoredRunTimes {
    pub(crate) key: String,
    pub(crate) text: String,
    /// When it was written, and what it says. `None`: it cannot be read.
    pub(crate) said: Option<(Timestamp, RunTimeBook)>,
}

/// The name of the note of the process of this name.
pub(crate) fn key_of(node: &str) -> String {
    format!("{PREFIX}{}", shortened(node, LONGEST_NODE))
}

/// The text of a book that is small enough for a note which is written now, and the book that is read from this text.
///
/// # Errors
/// The book has no form.
pub(crate) fn written(now: Timestamp, book: RunTimeBook) -> Result<(String, RunTimeBook), StoreError> {
    written_within(MOST_BYTES, now, book)
}

fn written_within(
    bytes: usize,
    now: Timestamp,
    mut book: RunTimeBook,
) -> Result<(String, RunTimeBook), StoreError> {
    let mut most = MOST_VALUES;
    loop {
        book.keep_newest(most);
        let text = packed(now, &book)?;
        if text.len() <= bytes || most == 0 {
            return Ok((text, book));
        }
        most /= 2;
    }
}

fn packed(now: Timestamp, book: &RunTimeBook) -> Result<String, StoreError> {
    packed::packed(&(now, book), LEVEL, "the book of run times")
}

/// When a note was written, and its book. `None`: the note is none of this version.
pub(crate) fn read(text: &str) -> Option<(Timestamp, RunTimeBook)> {
    packed::unpacked(text)
}

/// The notes of all processes.
///
/// # Errors
/// The notes cannot be read.
pub(crate) async fn read_all(notes: &dyn Notes) -> Result<Vec<StoredRunTimes>, StoreError> {
    let found = notes.notes(PREFIX).await?.into_iter();
    Ok(found.map(|(key, text)| StoredRunTimes { said: read(&text), key, text }).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::durations::{MOST_TENANTS, RunTimeKey, figures};

    const NOW: Timestamp = Timestamp::from_micros(1_795_348_800_000_000);

    /// A book with so many tenants and values, each of which has run so often.
    fn book_of(names: usize, runs: u64) -> RunTimeBook {
        let mut book = RunTimeBook::default();
        for run in 0..runs {
            for n in 0..names as u64 {
                let name = format!("name{n}");
                let keys =
                    [RunTimeKey::of_tenant("t", &name), RunTimeKey::of_value("t", Some(&name), "id", &name)];
                let spread = n * 2_654_435_761 + run * 40_503_000_017;
                let took = Duration::from_micros((spread % 1_000_003) << (spread % 13));
                let at = Timestamp::from_micros(NOW.as_micros() + (run * names as u64 + n) * 1_003);
                book.record(&keys, took, at);
            }
        }
        book
    }

    #[test]
    fn a_book_is_read_as_it_was_written() {
        let (text, kept) = written(NOW, book_of(3, 5)).unwrap();
        assert_eq!(kept, book_of(3, 5));
        assert_eq!(read(&text), Some((NOW, kept)));
        assert!(text.len() < 1_000, "{text}");
        for other in ["", "1", "2abc", "1!!", "1AAAA", &text[..text.len() / 2], &text[1..]] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_full_book_has_room_in_a_note() {
        let (text, kept) = written(NOW, book_of(MOST_VALUES.min(MOST_TENANTS), 1)).unwrap();
        assert!(text.len() <= MOST_BYTES, "{}", text.len());
        let oldest = RunTimeKey::of_tenant("t", "name0");
        assert!(figures([&kept], oldest).is_some(), "nothing is left out");
        assert_eq!(read(&text), Some((NOW, kept)));
    }

    #[test]
    fn of_a_book_with_too_much_to_say_what_ran_last_is_kept() {
        let (text, kept) = written_within(40_000, NOW, book_of(2_000, 30)).unwrap();
        assert!(text.len() <= 40_000, "{}", text.len());
        let newest = RunTimeKey::of_value("t", Some("name1999"), "id", "name1999");
        assert_eq!(figures([&kept], newest).map(|figures| figures.count), Some(30));
        assert_eq!(figures([&kept], RunTimeKey::of_tenant("t", "name0")), None);
        assert_eq!(read(&text), Some((NOW, kept)));
    }
}
