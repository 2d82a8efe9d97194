//! Why a state was not reported.

/// The most bytes that the data of a state may take as JSON. A state waits in memory for each task that runs, and is written
/// as often as it is reported.
pub(super) const MOST_META: usize = 64 << 10;

/// The reason why a state was not accepted.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateStateError {
    /// The state is one in which a task ends.
    #[error("`{0}` is how a task ends: return from the body instead, or use `TaskError::fail`")]
    Final(String),
    /// The text is not usable as the name of a state; the number is its length in bytes.
    #[error("a state has a name of 1 to 100 bytes, such as PROGRESS; this one has {0}")]
    Name(usize),
    /// The data of the state has no form in JSON.
    #[error("what goes with state `{state}` has no form in JSON: {error}")]
    Meta {
        /// The name of the state.
        state: String,
        /// The error of serde.
        error: String,
    },
    /// The data of the state takes too many bytes; a state carries facts to show, and no results.
    #[error(
        "what goes with state `{state}` takes {size} bytes, the limit is {MOST_META}: store what is large, and report its id"
    )]
    TooLarge {
        /// The name of the state.
        state: String,
        /// The bytes that the data takes as JSON.
        size: usize,
    },
}

crate::core::debug_as_display!(UpdateStateError);
