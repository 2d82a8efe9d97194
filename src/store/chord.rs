//! Counts the members of a chord's header as they end. The last one sends the body; what is sent, `task/canvas/end_plan.rs`
//! decides.

use async_trait::async_trait;
use serde_json::json;

use super::StoreError;
use crate::task::{Json, State, TaskId};

/// An ability of stores: they count the members of chords.
#[async_trait]
pub trait ChordStore: Send + Sync {
    /// States how many members a chord's header has, before the first of them is sent.
    ///
    /// # Errors
    /// The size is not kept.
    async fn open_chord(&self, group: &str, size: u64) -> Result<(), StoreError>;

    /// Counts the end of a member. Each member counts once, however often it joins.
    ///
    /// # Errors
    /// The member is not counted.
    async fn join_chord(&self, part: ChordPart) -> Result<ChordJoin, StoreError>;

    /// Adds a member to a chord, which one of its members has sent. The member counts once, however often it is
    /// added. It is Celery's `add_to_chord`. A broker that keeps results does this together with the publish.
    ///
    /// # Errors
    /// The member is not added.
    async fn extend_chord(&self, group: &str, id: &TaskId) -> Result<(), StoreError>;

    /// Closes a chord whose body was sent: forgets its parts, and answers each member that still joins with
    /// `Waiting`.
    ///
    /// # Errors
    /// The chord is not closed.
    async fn close_chord(&self, group: &str, token: &str) -> Result<(), StoreError>;

    /// Closes a chord whose body has failed because a member did. As [`close_chord`](Self::close_chord), but where
    /// Celery keeps the parts until they expire, they stay, so that the good ones can be saved.
    ///
    /// # Errors
    /// The chord is not closed.
    async fn close_failed_chord(&self, group: &str, token: &str) -> Result<(), StoreError>;
}

/// The number of parts that a chord has, stated before its first member is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChordSize {
    /// The id of the chord's group.
    pub group: String,
    /// The number of parts that there will be.
    pub size: u64,
}

/// What a member of a chord's header that has ended contributes to the chord.
#[derive(Clone, Debug, PartialEq)]
pub struct ChordPart {
    /// The id of the chord's group.
    pub group: String,
    /// The id of the member.
    pub id: TaskId,
    /// The member's place in the header.
    pub index: Option<u32>,
    /// How the member ended: `Success`, or one of the states that fail the chord.
    pub state: State,
    /// The member's value, or Celery's document of its error (`exc_type`, `exc_message`, `exc_module`).
    pub value: Json,
}

/// The answer to a member that has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum ChordJoin {
    /// Other members are missing, or the body was sent already.
    Waiting,
    /// All members have ended, and the caller sends the body. A caller that does not call [`ChordStore::close_chord`]
    /// in time is taken for dead, and the next one that joins sends the body.
    Complete {
        /// The proof for `close_chord` that the caller is the one who sends the body.
        token: String,
        /// All parts, by index; parts without one come last.
        parts: Vec<ChordPart>,
    },
}

/// The most that the values of a chord's parts may take together, in bytes, if nothing else is said: the body is given all of
/// them at once. As much as a canvas may send at once.
pub(crate) const LARGEST_CHORD: usize = 64 << 20;

/// What a chord whose parts take more than that is complete with instead: its body fails, and says why. They are counted before
/// they are read, as nobody has room for ten thousand results of 16 MiB.
pub(crate) fn too_large(group: &str, most: usize) -> ChordPart {
    let told = format!(
        "the results of its members take more than {most} bytes together, and its body would be given all of them: let each store what is large and return its id; the builder's `max_canvas_size` changes the limit"
    );
    let value = json!({"exc_type": "ChordError", "exc_module": "celery.exceptions", "exc_message": [told]});
    let (id, state) = (TaskId::from(group), State::Failure);
    ChordPart { group: group.to_owned(), id, index: None, state, value: value.into() }
}

/// Why nothing is added to a chord.
pub(crate) fn not_open(group: &str) -> String {
    format!("chord {group} takes no more members: it was never opened, or its body was sent")
}
