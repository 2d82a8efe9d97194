//! Marks: what somebody did, or a program, that explains why a curve bends.

use serde::{Deserialize, Serialize};

use crate::core::Timestamp;
use crate::core::text::shortened;

/// How many bytes of each text of a mark are kept.
const LONGEST: usize = 200;

/// A mark in the history: the start or the end of a program, or an act of an operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mark {
    /// The time at which it happened.
    #[serde(serialize_with = "at")]
    pub at: Timestamp,
    /// What happened, in one word: `start`, `stop`, `pause`, `resume`, `resize`, or a word of the program's own.
    pub what: String,
    /// What it happened to: the name of a queue.
    pub subject: Option<String>,
    /// What else there is to say: the version of the program, the number of workers.
    pub detail: Option<String>,
    /// Who did it, if somebody has said so.
    pub who: Option<String>,
}

/// In JSON a time is text for people, and in a store a number.
fn at<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        crate::core::json_time::iso(at, serializer)
    } else {
        at.serialize(serializer)
    }
}

impl Mark {
    /// A mark of something that happened at `at`. Each of its texts is cut to 200 bytes.
    pub fn new(at: Timestamp, what: &str) -> Self {
        Self { at, what: cut(what), subject: None, detail: None, who: None }
    }

    /// The same mark, of something that happened to this queue.
    #[must_use]
    pub fn of(self, subject: &str) -> Self {
        Self { subject: Some(cut(subject)), ..self }
    }

    /// The same mark, with something more to say.
    #[must_use]
    pub fn detail(self, detail: &str) -> Self {
        Self { detail: Some(cut(detail)), ..self }
    }

    /// The same mark, of something that this person or program did.
    #[must_use]
    pub fn by(self, who: Option<&str>) -> Self {
        Self { who: who.map(cut), ..self }
    }
}

fn cut(text: &str) -> String {
    shortened(text, LONGEST).replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_and_have_no_control_characters() {
        let mark = Mark::new(Timestamp::ZERO, "pause").of(&"q".repeat(1_000)).detail("a\nb").by(Some("anna"));
        assert!(mark.subject.as_ref().is_some_and(|queue| queue.len() <= LONGEST));
        assert_eq!((mark.detail.as_deref(), mark.who.as_deref()), (Some("a b"), Some("anna")));
        assert_eq!(mark.clone().by(None).who, None);
    }

    #[test]
    fn a_time_is_text_in_json_and_a_number_in_a_store() {
        let mark = Mark::new(Timestamp::from_millis(1_795_348_800_000), "start");
        let json = serde_json::to_value(&mark).unwrap();
        assert_eq!(json["at"], "2026-11-22T12:00:00+00:00");
        let bytes = postcard::to_stdvec(&mark).unwrap();
        assert_eq!(postcard::from_bytes::<Mark>(&bytes), Ok(mark));
    }
}
