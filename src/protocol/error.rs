//! Why a message was refused, and what could be recognised of it all the same.

use crate::task::TaskId;

/// A message that is no task that can be run. It is to be kept as it is, for somebody to look at; what was
/// [recognised](Self::recognised) suffices to record the failure, so that whoever waits for the result learns of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{reason}")]
pub struct DecodeError {
    /// What was wrong.
    pub reason: Reason,
    /// What could be read before, and despite of that.
    pub recognised: Box<Recognised>,
}

/// What could be recognised of a message that was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recognised {
    /// Its id.
    pub id: Option<TaskId>,
    /// The task's name.
    pub task: Option<String>,
    /// Where the caller waits for the result.
    pub reply_to: Option<String>,
    /// The first task of its workflow.
    pub root_id: Option<TaskId>,
}

/// What was wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No content type.
    #[error(
        "the message has no content type, so its body cannot be told from noise; the sender is to say `application/json`"
    )]
    NoContentType,
    /// A content type that is not JSON.
    #[error(
        "the body is {what} (`{content_type}`): only JSON is accepted; set `task_serializer = 'json'` at the sender"
    )]
    ContentType {
        /// What the message says.
        content_type: String,
        /// What that is, in words.
        what: &'static str,
    },
    /// A character encoding that is not UTF-8.
    #[error("the body is encoded as `{0}`: only utf-8 is accepted")]
    ContentEncoding(String),
    /// A compression that nobody here knows.
    #[error("the body is compressed by `{0}`, which is none of gzip, bzip2, lzma, brotli and zstd")]
    Compression(String),
    /// A compressed body that does not unpack.
    #[error("the body does not unpack as `{compression}`: {error}")]
    Unpack {
        /// What the header says.
        compression: String,
        /// What the library said.
        error: String,
    },
    /// Too large, packed or unpacked.
    #[error("the body takes more than {limit} bytes{}: store the object, and send its id", if *.unpacked { " when unpacked" } else { "" })]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
        /// Whether it was packed.
        unpacked: bool,
    },
    /// A body that is not JSON, or no task's.
    #[error("the body is no task's: {0}")]
    Body(String),
    /// Neither headers nor body name a task.
    #[error("neither the headers nor the body name a task: this is not a Celery message")]
    NoTask,
    /// A header (or a field of a protocol 1 body) that is not what it should be.
    #[error("`{name}` is {found}, but should be {expected}")]
    Header {
        /// Its name.
        name: String,
        /// What was there; long values are cut.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// Why a task could not be put on the wire. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Arguments that are not what [`Arguments`](crate::task::Arguments) promises.
    #[error("the {part} arguments of `{task}` are no JSON {expected}: {error}")]
    Arguments {
        /// The task.
        task: String,
        /// `positional` or `keyword`.
        part: &'static str,
        /// `array` or `object`.
        expected: &'static str,
        /// What serde said.
        error: String,
    },
    /// Something else without a form in JSON.
    #[error("the {what} of `{task}` have no form in JSON: {error}")]
    Json {
        /// The task.
        task: String,
        /// Which part of the message.
        what: &'static str,
        /// What serde said.
        error: String,
    },
}
