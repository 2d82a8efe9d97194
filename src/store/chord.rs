//! Counting the members of a chord's header as they end; the last one sends the body.

use serde_json::Value;

use crate::task::{State, TaskId};

/// How many parts a chord has; said before its first member is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChordSize {
    /// The chord's group id.
    pub group: String,
    /// How many parts there will be.
    pub size: u64,
}

/// One member of a chord's header is over.
#[derive(Clone, Debug, PartialEq)]
pub struct ChordPart {
    /// The chord's group id.
    pub group: String,
    /// The member.
    pub id: TaskId,
    /// Its place in the header.
    pub index: Option<u32>,
    /// How it ended: `Success`, or one of the states that fail the chord.
    pub state: State,
    /// Its value, or Celery's document of its error (`exc_type`, `exc_message`, `exc_module`).
    pub value: Value,
}

/// What the end of a member came to.
#[derive(Clone, Debug, PartialEq)]
pub enum ChordJoin {
    /// Others are missing, or the body was sent already.
    Waiting,
    /// All are there, and the caller is the one who sends the body. Who does not say [`Store::close_chord`] in time is
    /// taken for dead, and the next who joins sends it.
    ///
    /// [`Store::close_chord`]: super::Store::close_chord
    Complete {
        /// Proves it to `close_chord`.
        token: String,
        /// All parts, by index; those without one last.
        parts: Vec<ChordPart>,
    },
}

/// Why nothing is added to a chord.
pub(crate) fn not_open(group: &str) -> String {
    format!("chord {group} takes no more members: it was never opened, or its body was sent")
}
