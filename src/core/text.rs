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

/// The most errors that the record of a task has, and the most bytes that they take together. Where there are more, the
/// last one says how many are left out.
pub const MOST_ERRORS: usize = 1_000;
/// The most bytes of all errors of a task together: see [`MOST_ERRORS`].
pub const MOST_ERROR_BYTES: usize = 1 << 20;

/// As many of these errors as the record of a task may have, and in place of the others one that counts them. Errors that
/// are not too many come back as they were. No more of them are held at a time than are kept, and one.
pub fn bounded_errors(errors: impl IntoIterator<Item = String>) -> Vec<String> {
    /// What is left for the errors beside the one that counts the others, and the shortest beginning that says something.
    const TEXTS: usize = MOST_ERROR_BYTES - 64;
    const SHORTEST: usize = 100;
    let (mut kept, mut bytes, mut more) = (Vec::new(), 0, 0_usize);
    for error in errors {
        if more > 0 {
            more += 1;
            continue;
        }
        if kept.len() < MOST_ERRORS && bytes + error.len() <= MOST_ERROR_BYTES {
            bytes += error.len();
            kept.push(error);
            continue;
        }
        // This one is cut if there is room for a part of it, or else counted; and so are the last ones before it, so that
        // what counts them has room.
        let mut next = Some(error);
        while let Some(error) = next {
            let (most, room) = (MOST_ERRORS - usize::from(more > 0), TEXTS.saturating_sub(bytes));
            if kept.len() < most && room >= SHORTEST {
                let beginning = shortened(&error, room).into_owned();
                bytes += beginning.len();
                kept.push(beginning);
            } else {
                more += 1;
            }
            let is_too_much = kept.len() >= MOST_ERRORS || bytes > TEXTS;
            next = if more > 0 && is_too_much { kept.pop() } else { None };
            bytes -= next.as_ref().map_or(0, String::len);
        }
    }
    if more > 0 {
        kept.push(format!("and {more} more"));
    }
    kept
}

/// The errors of a task for a line of the log: the first ones, and how many there are beside them.
pub fn logged_errors(errors: &[String]) -> Vec<String> {
    let mut first = first_errors(errors);
    let more = errors.len() - first.len();
    if more > 0 {
        first.push(format!("and {more} more in its record"));
    }
    first
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
        let logged = logged_errors(&errors);
        assert_eq!((&logged[..8], &logged[8..]), (&first[..], &["and 1 more in its record".to_owned()][..]));
        assert_eq!(logged_errors(&first), first);
    }

    #[test]
    fn a_record_has_so_many_errors_and_counts_the_others() {
        let texts = |count: usize, len: usize| (0..count).map(move |_| "x".repeat(len));
        let bytes = |errors: &[String]| errors.iter().map(String::len).sum::<usize>();
        for (count, len) in [(0, 0), (MOST_ERRORS, 1), (1, MOST_ERROR_BYTES), (4, MOST_ERROR_BYTES / 4)] {
            assert!(bounded_errors(texts(count, len)).into_iter().eq(texts(count, len)), "{count} of {len}");
        }
        for (count, len, kept, last) in [
            (1_500, 1, MOST_ERRORS, "and 501 more"),
            (64, 1 << 20, 2, "and 63 more"),
            (5, MOST_ERROR_BYTES / 4, 5, "and 1 more"),
            (1, 64 << 20, 1, "xxx... (67108864 bytes)"),
            (1_200, 1_000, MOST_ERRORS, "and 201 more"),
            (2, 1_000_000, 2, "xxx... (1000000 bytes)"),
        ] {
            let bounded = bounded_errors(texts(count, len));
            assert_eq!(bounded.len(), kept, "{count} of {len}");
            assert!(bounded[kept - 1].ends_with(last), "{count} of {len}: {}", bounded[kept - 1].len());
            assert!(bytes(&bounded) <= MOST_ERROR_BYTES);
            assert_eq!(bounded_errors(bounded.clone()), bounded, "once more changes nothing");
        }
    }
}
