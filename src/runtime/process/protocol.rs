//! What crosses the socket between a program and a child of its process pool.
//!
//! A frame is one value in `postcard`, behind its length. Both ends are the same program, started from the same file, so
//! the frames have no version. A frame that cannot be read means that the other end is broken: the program kills such a
//! child, and a child ends.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::codec::{FramedWrite, LengthDelimitedCodec};

use crate::task::canvas::Promise;
use crate::task::run_log::LogExcerpt;
use crate::task::{
    About, DownloadError, Ending, EnqueueError, GetError, HandedPermit, Headers, Interrupt, Json, NewTask,
    RawSignature, Receipt, State, TaskId, TaskResult, TrackedState, Want,
};

/// The most bytes of a frame. Results and messages have limits of their own, far below.
pub(super) const LARGEST_FRAME: usize = 1 << 30;

/// The bytes of a download that one frame carries at most.
pub(super) const CHUNK: usize = 256 << 10;

/// How many chunks of a download may be on their way.
pub(super) const CHUNKS_ON_THE_WAY: usize = 8;

/// From the program to the child. `M` is how the sender holds a message.
#[derive(Serialize, Deserialize)]
pub(super) enum Down<M> {
    /// The answer to [`Up::Hello`].
    Welcome(Welcome),
    /// Run this task. The child has no other run.
    Run(Box<RunOrder<M>>),
    /// The body of the run is to end.
    Interrupt { run: u64, interrupt: Interrupt },
    /// The body of the run is to end at its next checkpoint.
    GiveWay { run: u64 },
    /// The answer to a question of the child.
    Answer { question: u64, answer: Box<ChildAnswer> },
    /// A chunk of a download was taken, so another one may follow.
    ChunkTaken { question: u64 },
    /// The permits that the run held under this name are lost.
    PermitLost { run: u64, holder: String },
    /// Nobody needs the child any more.
    Dismiss,
}

/// What a child has to know before its first task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) queue: String,
    pub(super) slot: usize,
    /// The bytes of memory that the child may have at all.
    pub(super) memory_limit: Option<u64>,
    /// Whether the child says with each outcome how much memory it has.
    pub(super) tells_memory: bool,
}

/// A run, as its body needs it.
#[derive(Serialize, Deserialize)]
pub(super) struct RunOrder<M> {
    pub(super) run: u64,
    pub(super) message: M,
    pub(super) worker: String,
    pub(super) fence: Option<u64>,
    pub(super) again: bool,
    /// Whether somebody keeps permits.
    pub(super) has_keeper: bool,
    /// The permit that came with the task.
    pub(super) handed: Option<HandedPermit>,
    /// What earlier runs of the task have shown.
    pub(super) shown: Option<TrackedState>,
}

/// From the child to the program.
#[derive(Serialize, Deserialize)]
pub(super) enum Up {
    /// The child's `main` has come to the start of the runtime.
    Hello,
    /// The child is ready for its first task.
    Ready,
    /// The child cannot work, for this reason, and ends.
    CannotStart(String),
    /// The body has reported a state.
    State { run: u64, state: String, meta: Json },
    /// The body has reported its progress.
    Bar { run: u64, bar: BarReport },
    /// The body has sent an event, whose fields are a JSON object.
    Event { run: u64, name: String, fields: String },
    /// The body has failed the task with these errors.
    Failed { run: u64, errors: Vec<String> },
    /// The body has logged these lines.
    Logged { run: u64, lines: LogExcerpt },
    /// The span of the run, in the headers of a message. What follows from the run is below it.
    Traced { run: u64, span: Headers },
    /// The child asks. `in_body` says whether the body itself does, on the thread that runs it; `span` is the one in which it
    /// sends something.
    Ask { run: u64, question: u64, in_body: bool, span: Headers, asks: Box<Question> },
    /// Nobody waits for the answer any more.
    Withdraw { question: u64 },
    /// More bytes of the download of a [`Question::Keep`].
    Chunk { question: u64, bytes: Blob },
    /// There are no more bytes, or they could not be read.
    ChunksEnd { question: u64, error: Option<String> },
    /// The body gives its permits of this name back.
    ReleasePermits { run: u64, holder: String },
    /// The body has handed its permits of this name over to a task.
    ParkPermits { run: u64, holder: String, within: Duration },
    /// The run is over.
    Done { run: u64, outcome: Result<String, Ending>, memory: Option<u64> },
}

/// A progress bar as the body moved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BarReport {
    /// Steps done and steps in all.
    pub(super) progress: Option<(u64, u64)>,
    pub(super) note: Option<String>,
}

/// A question of a child.
#[derive(Serialize, Deserialize)]
pub(super) enum Question {
    Enqueue(Box<NewTask>),
    EnqueueMany(Vec<NewTask>),
    Launch(Box<RawSignature>),
    AddToChord { canvas: Box<RawSignature>, nth: u32 },
    State(TaskId),
    Result(TaskId),
    Tracked(TaskId),
    Wait(TaskId),
    Expect(TaskId),
    Revoke { id: TaskId, terminate: bool },
    Forget(TaskId),
    SaveGroup { group: Promise, lifetime: Option<Duration> },
    Acquire { wants: Vec<Want>, holder: String },
    Freed { at_most: Duration },
    Keep(About),
}

impl Question {
    /// Whether the child sends a task.
    pub(super) fn sends(&self) -> bool {
        matches!(self, Self::Enqueue(_) | Self::Launch(_) | Self::AddToChord { .. })
    }
}

/// The answer to a question of a child.
#[derive(Serialize, Deserialize)]
pub(super) enum ChildAnswer {
    Enqueued(Result<Receipt, EnqueueError>),
    EnqueuedMany(Result<Vec<Receipt>, EnqueueError>),
    Launched(Result<Promise, EnqueueError>),
    State(Result<State, GetError>),
    Result(Result<Option<Box<TaskResult>>, GetError>),
    Tracked(Result<Option<Box<TrackedState>>, GetError>),
    Flag(Result<bool, GetError>),
    Saved(Result<(), GetError>),
    Acquired(Result<PermitReply, String>),
    Freed,
    Kept(Result<(), KeepRefusal>),
}

/// The answer to a question for permits.
#[derive(Serialize, Deserialize)]
pub(super) enum PermitReply {
    /// All of them are held, with these tokens.
    Granted(Vec<u64>),
    /// None is held, because too many hold the one at this place.
    Busy(usize),
}

/// Why a download was not kept.
#[derive(Serialize, Deserialize)]
pub(super) enum KeepRefusal {
    NoPlace,
    Full { name: String, error: String },
    Store { name: String, error: String },
}

impl From<DownloadError> for KeepRefusal {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::NoPlace => Self::NoPlace,
            DownloadError::Full { name, error } => Self::Full { name, error },
            DownloadError::Store { name, error } => Self::Store { name, error },
            other => Self::Store { name: "download".to_owned(), error: other.to_string() },
        }
    }
}

impl From<KeepRefusal> for DownloadError {
    fn from(refused: KeepRefusal) -> Self {
        match refused {
            KeepRefusal::NoPlace => Self::NoPlace,
            KeepRefusal::Full { name, error } => Self::Full { name, error },
            KeepRefusal::Store { name, error } => Self::Store { name, error },
        }
    }
}

/// Bytes that are copied as a whole, and not one by one as a list of numbers.
pub(super) struct Blob(pub(super) Bytes);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(Whole)
    }
}

/// The frames of a socket.
pub(super) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(LARGEST_FRAME).new_codec()
}

/// Encodes a frame.
pub(super) fn encode(frame: &impl Serialize) -> Result<Bytes, postcard::Error> {
    postcard::to_stdvec(frame).map(Bytes::from)
}

/// Writes encoded frames until there are no more, or the socket is closed. What is there at once is written at once.
pub(super) async fn write(mut frames: UnboundedReceiver<Bytes>, socket: OwnedWriteHalf) {
    let mut sink = FramedWrite::new(socket, codec());
    while let Some(frame) = frames.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            if sink.feed(frame).await.is_err() {
                return; // whoever reads from the socket finds it closed as well
            }
            next = frames.try_recv().ok();
        }
        if SinkExt::<Bytes>::flush(&mut sink).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Message;
    use crate::task::{Context, TaskError, TaskOptions};

    fn there_and_back<T: Serialize + serde::de::DeserializeOwned>(frame: &T) -> T {
        postcard::from_bytes(&encode(frame).expect("encoded")).expect("decoded")
    }

    #[test]
    fn an_order_arrives_as_it_was_sent() {
        let context = Context::detached();
        let mut message = context.message().clone();
        message.task = "app::export".into();
        message.headers.0.insert("tenant".into(), serde_json::json!({"name": "acme"}));
        let order = RunOrder {
            run: 7,
            message: &message,
            worker: "q#1".into(),
            fence: Some(9),
            again: true,
            has_keeper: false,
            handed: None,
            shown: None,
        };
        let bytes = encode(&Down::Run(Box::new(order))).expect("encoded");
        let Down::<Message>::Run(order) = postcard::from_bytes(&bytes).expect("decoded") else {
            panic!("another frame")
        };
        assert_eq!((order.run, order.message, order.fence, order.again), (7, message, Some(9), true));
    }

    #[test]
    fn every_ending_of_a_body_arrives_as_it_was_sent() {
        use crate::task::{Arguments, ErrorName, NextAttempt, Until};
        let name = ErrorName { module: Some("app".into()), ..ErrorName::from("E") };
        let next = NextAttempt {
            after: Some(Duration::from_secs(1)),
            max_retries: Some(2),
            expires: None,
            arguments: Some(("app::t".into(), Ok(Arguments { args: "[1]".into(), kwargs: String::new() }))),
        };
        let endings = [
            Ending::Failure { messages: vec!["a".into()], name: name.clone(), transient: Some(false) },
            Ending::Retry { messages: vec!["a".into()], name: name.clone(), next: Box::new(next) },
            Ending::Postpone { until: Until::In(Duration::from_millis(5)) },
            Ending::Continue { task: "app::t".into(), arguments: Err("no".into()) },
            TaskError::replace_with(RawSignature { task: "t".into(), ..RawSignature::default() })
                .into_ending(),
            Ending::Fail { errors: vec!["b".into()], name: name.clone() },
            Ending::Ignore,
            Ending::Reject { reason: "r".into(), name },
            Ending::Requeue { reason: "r".into() },
            Ending::Interrupted(Interrupt::LaneLost),
            Ending::TimeLimit(Duration::from_secs(3)),
        ];
        for ending in endings {
            let text = format!("{ending:?}");
            let up = Up::Done { run: 1, outcome: Err(ending), memory: Some(5) };
            let Up::Done { run: 1, outcome: Err(back), memory: Some(5) } = there_and_back(&up) else {
                panic!("another frame")
            };
            assert_eq!(format!("{back:?}"), text);
        }
    }

    #[test]
    fn a_call_and_its_errors_arrive_as_they_were_sent() {
        let options = TaskOptions { queue: Some("mail".into()), priority: 3, ..TaskOptions::default() };
        let call = NewTask::new("app::mail", options.clone());
        let asks = Box::new(Question::Enqueue(Box::new(call)));
        let span = Headers([("traceparent".to_owned(), "00-1-2-01".into())].into());
        let up = Up::Ask { run: 1, question: 2, in_body: true, span: span.clone(), asks };
        let Up::Ask { asks, span: arrived, .. } = there_and_back(&up) else { panic!("another frame") };
        let Question::Enqueue(call) = *asks else { panic!("another question") };
        assert_eq!((call.task.as_str(), call.options, arrived), ("app::mail", options, span));
        let error = EnqueueError::NoLanes { task: "t".into(), broker: "memory".into() };
        let down = Down::<Message>::Answer {
            question: 2,
            answer: Box::new(ChildAnswer::Enqueued(Err(error.clone()))),
        };
        let Down::Answer { answer, .. } = there_and_back(&down) else { panic!("another frame") };
        let ChildAnswer::Enqueued(Err(back)) = *answer else { panic!("another answer") };
        assert_eq!(back, error);
    }

    #[test]
    fn bytes_are_copied_as_they_are() {
        let bytes = Bytes::from(vec![0, 255, 7, 0]);
        let Up::Chunk { question: 3, bytes: Blob(back) } =
            there_and_back(&Up::Chunk { question: 3, bytes: Blob(bytes.clone()) })
        else {
            panic!("another frame")
        };
        assert_eq!(back, bytes);
        assert!(postcard::from_bytes::<Up>(&[200, 1, 2]).is_err(), "there is no such frame");
    }
}
