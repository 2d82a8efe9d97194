//! Why a message was refused, and which parts of it could be recognised all the same.

use crate::task::TaskId;

/// The error of a message that is no valid task. The caller keeps the message as it is, for somebody to look at. The
/// [recognised](Self::recognised) parts suffice to record the failure, so that a caller who waits for the result
/// learns of it.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("{reason}")]
pub struct DecodeError {
    /// Why the message was refused.
    pub reason: Reason,
    /// The parts that could be read in spite of that.
    pub recognised: Box<Recognised>,
}

crate::core::debug_as_display!(DecodeError);

/// The parts of a refused message that could be recognised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recognised {
    /// The id of the task.
    pub id: Option<TaskId>,
    /// The name of the task.
    pub task: Option<String>,
    /// The queue in which the caller waits for the result.
    pub reply_to: Option<String>,
    /// The id of the first task of the workflow.
    pub root_id: Option<TaskId>,
}

/// Why a message was refused.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The message has no content type.
    #[error(
        "the message has no content type, so its body cannot be told from noise; the sender is to say `application/json`"
    )]
    NoContentType,
    /// The message has properties that cannot be read, or could not be sent on as they are.
    #[error("the message cannot be read: {0}; it is kept with its properties as they came")]
    Unreadable(String),
    /// The content type is not JSON.
    #[error(
        "the body is {what} (`{content_type}`): only JSON is accepted; set `task_serializer = 'json'` at the sender"
    )]
    ContentType {
        /// The content type as the message states it.
        content_type: String,
        /// The kind of content, in words.
        what: &'static str,
    },
    /// The character encoding is not UTF-8, and the body is not ASCII.
    #[error("the body is encoded as `{0}`: only utf-8 is accepted")]
    ContentEncoding(String),
    /// The compression is one that Celeriac does not know.
    #[error("the body is compressed by `{0}`, which is none of gzip, bzip2, lzma, brotli and zstd")]
    Compression(String),
    /// The compressed body cannot be unpacked.
    #[error("the body does not unpack as `{compression}`: {error}")]
    Unpack {
        /// The compression as the header states it.
        compression: String,
        /// The error of the library that unpacks it.
        error: String,
    },
    /// The body is too large, packed or unpacked.
    #[error("the body takes more than {limit} bytes{}: store the object, and send its id", if *.unpacked { " when unpacked" } else { "" })]
    TooLarge {
        /// The most bytes that a body may have.
        limit: usize,
        /// Whether the body exceeds the limit only when it is unpacked.
        unpacked: bool,
    },
    /// The body is not JSON, or not the body of a task.
    #[error("the body is no task's: {0}")]
    Body(String),
    /// Neither the headers nor the body name a task.
    #[error("neither the headers nor the body name a task: this is not a Celery message")]
    NoTask,
    /// A header, or a field of a protocol 1 body, has a wrong value.
    #[error("`{name}` is {found}, but should be {expected}")]
    Header {
        /// The name of the header or field.
        name: String,
        /// The value that was there; long values are cut.
        found: String,
        /// A description of the values that are allowed.
        expected: &'static str,
    },
}

crate::core::debug_as_display!(Reason);

/// Why a task could not be put on the wire. Nothing was sent.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The arguments are not what [`Arguments`](crate::task::Arguments) promises.
    #[error("the {part} arguments of `{task}` are no JSON {expected}: {error}")]
    Arguments {
        /// The name of the task.
        task: String,
        /// The kind of arguments, `positional` or `keyword`.
        part: &'static str,
        /// The JSON type that they should have, `array` or `object`.
        expected: &'static str,
        /// The error of serde about the arguments.
        error: String,
    },
    /// Another part of the message cannot be written as JSON.
    #[error("the {what} of `{task}` have no form in JSON: {error}")]
    Json {
        /// The name of the task.
        task: String,
        /// The part of the message.
        what: &'static str,
        /// The error of serde about that part.
        error: String,
    },
}

crate::core::debug_as_display!(EncodeError);
