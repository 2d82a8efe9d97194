//! The way from a child to its program: what is to be said, in order, and the questions that wait for their answers.
//!
//! A state or a bar that was not said yet is replaced by the newer one, so a body that reports in a tight loop waits for
//! nobody and fills nothing. Both are said before what comes after them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::SinkExt;
use parking_lot::Mutex;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::codec::FramedWrite;

use super::super::protocol::{
    BarReport, CHUNKS_ON_THE_WAY, ChildAnswer, LARGEST_FRAME, Question, Up, codec, encode,
};
use crate::task::{Ending, Headers, Json, current_message, span_headers};

/// From so many frames on that wait, events of bodies have to wait.
const MANY_FRAMES: usize = 4096;

/// What a child has to say, and what it has asked.
#[derive(Default)]
pub(super) struct Uplink {
    waiting: Mutex<UnsentFrames>,
    arrived: Notify,
    asked: Mutex<HashMap<u64, PendingAnswer>>,
    /// The number of the last question.
    questions: AtomicU64,
    /// The run that this child has or had last.
    run: AtomicU64,
}

#[derive(Default)]
struct UnsentFrames {
    state: Option<Up>,
    bar: Option<Up>,
    frames: VecDeque<Up>,
    is_closed: bool,
}

/// A question that is not answered.
struct PendingAnswer {
    answer: oneshot::Sender<ChildAnswer>,
    /// The room for chunks of a download.
    room: Arc<Semaphore>,
}

/// A question that was asked. If this is dropped before the answer has come, the program is told that nobody waits for it.
pub(super) struct Pending<'a> {
    uplink: &'a Uplink,
    pub(super) question: u64,
    pub(super) answer: oneshot::Receiver<ChildAnswer>,
    /// A permit for each chunk of a download that may be sent.
    pub(super) room: Arc<Semaphore>,
    /// Whether the program has to be told. A download that is not whole ends with its bytes, and the program clears it away.
    pub(super) withdraws: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let unanswered = self.uplink.asked.lock().remove(&self.question).is_some();
        if unanswered && self.withdraws {
            self.uplink.push(Up::Withdraw { question: self.question });
        }
    }
}

impl Uplink {
    /// The run that this child has or had last.
    pub(super) fn run(&self) -> u64 {
        self.run.load(Ordering::Acquire)
    }

    /// This run begins.
    pub(super) fn begin(&self, run: u64) {
        self.run.store(run, Ordering::Release);
    }

    /// Says this after all that was said before.
    pub(super) fn push(&self, up: Up) {
        self.waiting.lock().frames.push_back(up);
        self.arrived.notify_one();
    }

    /// Says the state of the run, in place of one that was not said yet. What a body left behind may report for an earlier
    /// run, and must not take the place of what this one has reported.
    pub(super) fn state(&self, run: u64, state: String, meta: Json) {
        if run == self.run() {
            self.waiting.lock().state = Some(Up::State { run, state, meta });
            self.arrived.notify_one();
        }
    }

    /// Says the progress of the run, in place of one that was not said yet.
    pub(super) fn bar(&self, run: u64, bar: BarReport) {
        if run == self.run() {
            self.waiting.lock().bar = Some(Up::Bar { run, bar });
            self.arrived.notify_one();
        }
    }

    /// Whether more may be said that nobody waits for.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.lock().frames.len() < MANY_FRAMES
    }

    /// Says nothing after what was said.
    pub(super) fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.arrived.notify_one();
    }

    /// Asks the program.
    pub(super) fn ask(&self, asks: Question) -> Pending<'_> {
        let question = self.questions.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        let room = Arc::new(Semaphore::new(CHUNKS_ON_THE_WAY));
        self.asked.lock().insert(question, PendingAnswer { answer: sender, room: Arc::clone(&room) });
        let in_body = current_message().is_some();
        let withdraws = !matches!(asks, Question::Keep(_));
        let span = if asks.sends() { span_headers() } else { Headers::default() };
        self.push(Up::Ask { run: self.run(), question, in_body, span, asks: Box::new(asks) });
        Pending { uplink: self, question, answer, room, withdraws }
    }

    /// Asks the program, and waits for its answer.
    pub(super) async fn answer_to(&self, asks: Question) -> Option<ChildAnswer> {
        let mut pending = self.ask(asks);
        (&mut pending.answer).await.ok()
    }

    /// The program has answered.
    pub(super) fn answered(&self, question: u64, answer: ChildAnswer) {
        let asked = self.asked.lock().remove(&question);
        if let Some(asked) = asked {
            let _ = asked.answer.send(answer);
        }
    }

    /// The program has taken a chunk.
    pub(super) fn chunk_taken(&self, question: u64) {
        if let Some(asked) = self.asked.lock().get(&question) {
            asked.room.add_permits(1);
        }
    }

    /// The next thing to say. `None`: there is nothing more, for ever.
    async fn next(&self) -> Option<Up> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                let UnsentFrames { state, bar, frames, is_closed } = &mut *waiting;
                if let Some(up) = state.take().or_else(|| bar.take()).or_else(|| frames.pop_front()) {
                    return Some(up);
                }
                if *is_closed {
                    return None;
                }
            }
            self.arrived.notified().await;
        }
    }
}

/// Writes what the child says until there is no more, or nobody hears it.
pub(super) async fn write(uplink: Arc<Uplink>, socket: OwnedWriteHalf) {
    let mut sink = FramedWrite::new(socket, codec());
    while let Some(up) = uplink.next().await {
        let Ok(bytes) = encode(&up).map(|bytes| (bytes.len() <= LARGEST_FRAME).then_some(bytes)) else {
            return;
        };
        let bytes = match (bytes, &up) {
            (Some(bytes), _) => bytes,
            (None, Up::Done { run, memory, .. }) => {
                let outcome = Err(too_large());
                let Ok(bytes) = encode(&Up::Done { run: *run, outcome, memory: *memory }) else { return };
                bytes
            }
            (None, _) => return,
        };
        if sink.send(bytes).await.is_err() {
            return;
        }
    }
}

/// The ending of a body whose value does not fit a frame.
fn too_large() -> Ending {
    let error = format!(
        "the result takes more than {LARGEST_FRAME} bytes, which is more than a child process can hand over: store the object, and return its id"
    );
    Ending::Fail { errors: vec![error], name: "ResultTooLarge".into() }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_body_in_a_tight_loop_says_its_last_state_before_its_end() {
        let uplink = Uplink::default();
        uplink.begin(1);
        for n in 0..1000_u64 {
            uplink.state(1, n.to_string(), Json::default());
            uplink.bar(1, BarReport { progress: Some((n, 1000)), note: None });
            uplink.state(0, "of an earlier run".to_owned(), Json::default());
        }
        uplink.push(Up::Done { run: 1, outcome: Ok("null".into()), memory: None });
        uplink.close();
        let next = || uplink.next().now_or_never().expect("it is there");
        assert!(matches!(next(), Some(Up::State { state, .. }) if state == "999"));
        assert!(matches!(next(), Some(Up::Bar { bar, .. }) if bar.progress == Some((999, 1000))));
        assert!(matches!(next(), Some(Up::Done { run: 1, .. })));
        assert!(next().is_none());
    }

    #[test]
    fn an_answer_comes_to_its_question() {
        let uplink = Uplink::default();
        uplink.begin(5);
        let mut first = uplink.ask(Question::Forget("a".into()));
        let mut second = uplink.ask(Question::Forget("b".into()));
        uplink.answered(second.question, ChildAnswer::Flag(Ok(true)));
        uplink.answered(second.question, ChildAnswer::Flag(Ok(false)));
        uplink.answered(99, ChildAnswer::Freed);
        assert!(matches!((&mut second.answer).now_or_never(), Some(Ok(ChildAnswer::Flag(Ok(true))))));
        assert!((&mut first.answer).now_or_never().is_none());
        let asked = uplink.next().now_or_never().flatten();
        assert!(matches!(asked, Some(Up::Ask { run: 5, question: 1, in_body: false, .. })));
    }

    #[test]
    fn a_question_that_nobody_waits_for_any_more_is_withdrawn() {
        let uplink = Uplink::default();
        let (answered, given_up) =
            (uplink.ask(Question::Forget("a".into())), uplink.ask(Question::Wait("b".into())));
        uplink.answered(answered.question, ChildAnswer::Flag(Ok(true)));
        drop(answered);
        drop(given_up);
        let next = || uplink.next().now_or_never().flatten();
        assert!(matches!(next(), Some(Up::Ask { question: 1, .. })));
        assert!(matches!(next(), Some(Up::Ask { question: 2, .. })));
        assert!(matches!(next(), Some(Up::Withdraw { question: 2 })));
        assert!(next().is_none());
    }
}
