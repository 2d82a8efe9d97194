//! The driver of a child process: a task that reads what the child says, answers its questions, and sees it end.
//!
//! Invariants:
//! - Whatever becomes of the driver, nobody waits for a run in its child in vain: if it is dropped, the process is killed,
//!   and the run has ended.
//! - The process group is killed before the process is waited for. Until then its id is not given to another one.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::OwnedReadHalf;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep_until, timeout};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::answers::{Asker, Piece, sender_of};
use super::child_process::{DEATH_PATIENCE, Order, Shared};
use super::exit_text::exit_text;
use super::protocol::{BarReport, Question, Up, Welcome};
use super::until;
use crate::core::child_life::ChildDeath;
use crate::runtime::Runtime;
use crate::runtime::children::OneChild;
use crate::task::{Client, Context, EventGroup, EventKind, Message, TaskEvent, current};

/// How long a child may take until it is ready: a program that loads much at its start needs its time.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a child may take to end after it was told to.
const DISMISSAL_PATIENCE: Duration = Duration::from_secs(5);
/// How often the driver looks whether a child has ended that was told to.
#[cfg(target_os = "linux")]
const DISMISSAL_LOOK: Duration = Duration::from_millis(5);
/// How often the driver looks at what nobody tells it.
const LOOK: Duration = Duration::from_secs(1);
/// How long the last frames of a process are waited for that has ended.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// A question that is being answered. It completes with its number.
type Answering = Pin<Box<dyn Future<Output = u64> + Send>>;

/// The driver of one child.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) welcome: Welcome,
    pub(super) process: Child,
    pub(super) frames: FramedRead<OwnedReadHalf, LengthDelimitedCodec>,
    /// The questions that are being answered.
    pub(super) questions: FuturesUnordered<Answering>,
    /// What ends the answering of a question, by its number.
    pub(super) aborts: HashMap<u64, AbortHandle>,
    /// The downloads that the child sends, by their questions.
    pub(super) uploads: HashMap<u64, mpsc::UnboundedSender<Piece>>,
    /// Why the child says that it cannot work.
    pub(super) refusal: Option<String>,
    /// Whether the end of the process is told.
    pub(super) is_over: bool,
    pub(super) _counted: OneChild,
}

impl Driver {
    /// Drives the child until its process is gone.
    pub(super) async fn run(mut self) {
        let fault = self.serve().await;
        self.end(fault).await;
    }

    /// Serves the child until it ends or is to be killed. Returns what is wrong with it, if something is.
    async fn serve(&mut self) -> Option<String> {
        let start = Instant::now() + START_PATIENCE;
        let mut looks = interval_at(Instant::now() + LOOK, LOOK);
        // When the process is killed that was told to end.
        let mut ends_at = None;
        loop {
            tokio::select! {
                () = self.shared.kill.cancelled() => return None,
                frame = self.frames.next() => match frame {
                    Some(Ok(frame)) => {
                        if let Some(fault) = self.take(&frame) {
                            return Some(fault);
                        }
                    }
                    // A process that dies may reset its socket.
                    Some(Err(_)) | None => return None,
                },
                Some(question) = self.questions.next(), if !self.questions.is_empty() => {
                    self.aborts.remove(&question);
                }
                () = self.shared.dismissed.cancelled(), if ends_at.is_none() => {
                    ends_at = Some(Instant::now() + DISMISSAL_PATIENCE);
                }
                () = until(ends_at) => {
                    self.kill();
                    return None;
                }
                () = sleep_until(start), if !self.shared.ready.is_cancelled() => {
                    return Some(format!(
                        "was not ready within {START_PATIENCE:?}: does its `main` reach `Builder::start`, with the arguments of this program?"
                    ));
                }
                _ = looks.tick() => {
                    self.tell_lost_permits();
                    if has_ended(self.shared.pid) {
                        // What it has started holds its end of the socket.
                        self.take_last_frames().await;
                        return None;
                    }
                }
            }
        }
    }

    async fn take_last_frames(&mut self) {
        let frames = async {
            while let Some(Ok(frame)) = self.frames.next().await {
                if self.take(&frame).is_some() {
                    return;
                }
            }
        };
        let _ = timeout(LAST_FRAMES, frames).await;
    }

    /// Takes a frame in. Returns what is wrong with it, if something is.
    fn take(&mut self, frame: &BytesMut) -> Option<String> {
        let up = match postcard::from_bytes::<Up>(frame) {
            Ok(up) => up,
            Err(error) => return Some(format!("sent what cannot be read ({error}), and was killed")),
        };
        let context_of = |run| self.shared.context_of(run);
        match up {
            Up::Hello => self.shared.send(&Order::Welcome(self.welcome.clone())),
            Up::Ready => {
                if self.shared.is_ready_now() {
                    let Welcome { queue, slot, .. } = &self.welcome;
                    tracing::debug!(queue, slot, pid = self.shared.pid, "a child process is ready");
                }
            }
            Up::CannotStart(why) => self.refusal = Some(why),
            Up::State { run, state, meta } => {
                if let Some(context) = context_of(run) {
                    context.report(&state, meta);
                }
            }
            Up::Bar { run, bar } => {
                if let Some(context) = context_of(run) {
                    move_bar(&context, bar);
                }
            }
            Up::Event { run, name, fields } => {
                if let Some(context) = context_of(run) {
                    self.tell_event(&context, &name, &fields);
                }
            }
            Up::Failed { run, errors } => {
                if let Some(context) = context_of(run) {
                    drop(context.fail(errors));
                }
            }
            Up::Logged { run, lines } => {
                if let Some(log) = context_of(run).as_ref().and_then(Context::log) {
                    log.receive(lines);
                }
            }
            Up::Traced { run, span } => {
                if let Some(context) = context_of(run) {
                    context.note_trace(span);
                }
            }
            Up::Ask { run, question, in_body, span, asks } => {
                let sender =
                    if in_body { context_of(run).map(|context| sender_of(&context, &span)) } else { None };
                self.answer(run, question, sender, *asks);
            }
            Up::Withdraw { question } => {
                if let Some(abort) = self.aborts.remove(&question) {
                    abort.abort();
                }
            }
            Up::Chunk { question, bytes } => self.upload(question, Piece::Bytes(bytes.0)),
            Up::ChunksEnd { question, error } => {
                self.upload(question, Piece::End(error));
                self.uploads.remove(&question);
            }
            Up::ReleasePermits { run, holder } => {
                if let Some(context) = context_of(run) {
                    context.release_for_body(&holder);
                }
            }
            Up::ParkPermits { run, holder, within } => {
                if let Some(context) = context_of(run) {
                    context.park_for_body(&holder, within);
                }
            }
            Up::Done { run, outcome, memory } => {
                self.uploads.clear();
                self.shared.body_ended(run, outcome, memory);
            }
        }
        None
    }

    fn tell_event(&self, context: &Context, name: &str, fields: &str) {
        self.runtime.events.emit(EventGroup::Custom, || {
            let fields = Arc::new(serde_json::from_str(fields).ok()?);
            let kind = EventKind::Custom { name: name.into(), fields };
            Some(TaskEvent::now(Arc::clone(context.message_arc()), kind))
        });
    }

    /// Has a question answered, beside what else goes on.
    fn answer(&mut self, run: u64, number: u64, sender: Option<Arc<Message>>, question: Question) {
        let asker = Asker {
            shared: Arc::clone(&self.shared),
            run,
            question: number,
            context: self.shared.context_of(run),
            sender,
            client: self.client(),
        };
        let uploaded = match &question {
            Question::Keep(_) => {
                let (sender, pieces) = mpsc::unbounded_channel();
                self.uploads.insert(number, sender);
                Some(pieces)
            }
            _ => None,
        };
        let (abort, registration) = AbortHandle::new_pair();
        self.aborts.insert(number, abort);
        let answering = Abortable::new(asker.answer(question, uploaded), registration);
        self.questions.push(Box::pin(answering.map(move |_| number)));
    }

    /// The client of the runtime that the child belongs to.
    fn client(&self) -> Option<Arc<dyn Client>> {
        self.runtime.client.get().and_then(std::sync::Weak::upgrade).or_else(current)
    }

    fn upload(&self, question: u64, piece: Piece) {
        // Nobody takes the pieces of a download that was refused.
        if let Some(upload) = self.uploads.get(&question) {
            let _ = upload.send(piece);
        }
    }

    fn tell_lost_permits(&self) {
        let (run, holders) = self.shared.lost_permits();
        for holder in holders {
            self.shared.send(&Order::PermitLost { run, holder });
        }
    }

    /// Ends the process, and tells everybody how it has ended.
    async fn end(&mut self, fault: Option<String>) {
        // Nobody hears the answers. A question that is not driven on must not hold what others wait for.
        self.questions.clear();
        self.uploads.clear();
        if self.shared.dismissed.is_cancelled() && fault.is_none() {
            let _ = timeout(DISMISSAL_PATIENCE, ended(&mut self.process, self.shared.pid)).await;
        }
        // What it has started is killed along with it, also if it has ended by itself.
        self.kill();
        let exit = timeout(DEATH_PATIENCE, self.process.wait()).await;
        let told = match exit {
            Ok(Ok(status)) => exit_text(status, self.welcome.memory_limit.is_some()),
            Ok(Err(error)) => format!("cannot be waited for: {error}"),
            Err(_) => format!("does not end although it was killed {DEATH_PATIENCE:?} ago"),
        };
        let cause = fault.or(self.refusal.take()).unwrap_or(told);
        self.tell_end(cause);
    }

    /// Kills the process and all that it has started.
    fn kill(&self) {
        let pid = i32::try_from(self.shared.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.process.id().is_some())
            && let Err(error) = kill_process_group(pid, Signal::KILL)
        {
            tracing::debug!(pid = self.shared.pid, %error, "the group of a child process cannot be killed");
        }
    }

    fn tell_end(&mut self, cause: String) {
        self.is_over = true;
        let Welcome { queue, slot, .. } = &self.welcome;
        let (queue, slot, pid) = (queue.as_str(), *slot, self.shared.pid);
        let (death, context) = self.shared.process_ended(cause.clone());
        match (death, context) {
            (ChildDeath::WhileBusy, Some(context)) => {
                let (id, task) = (context.id(), context.task());
                tracing::warn!(queue, slot, pid, %id, task, "a child process {cause} while it ran a task");
            }
            (ChildDeath::Expected, _) => {
                tracing::debug!(queue, slot, pid, "a child process {cause}, as it was to")
            }
            // Its worker goes with it, and the queue says so.
            _ => tracing::debug!(queue, slot, pid, "a child process {cause}"),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.is_over {
            self.kill();
            self.tell_end("was killed: its event loop ended".to_owned());
        }
    }
}

/// Moves the bar of a run as its body moved it.
fn move_bar(context: &Context, bar: BarReport) {
    let BarReport { progress, note } = bar;
    if let Some((current, total)) = progress {
        context.progress(current, total);
    }
    if let Some(note) = note {
        context.progress_note(note);
    }
}

/// Whether a child of this process has ended. It stays to be waited for.
#[cfg(target_os = "linux")]
fn has_ended(pid: u32) -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Where the program ignores SIGCHLD, the kernel itself has waited for it.
    pid.is_some_and(|pid| {
        matches!(waitid(WaitId::Pid(pid), look), Ok(Some(_)) | Err(rustix::io::Errno::CHILD))
    })
}

/// Waits until a child of this process has ended. It stays to be waited for, so that its group can still be killed.
#[cfg(target_os = "linux")]
async fn ended(_: &mut Child, pid: u32) {
    let mut looks = interval_at(Instant::now(), DISMISSAL_LOOK);
    while !has_ended(pid) {
        looks.tick().await;
    }
}

/// Elsewhere the end of the socket is all that tells of the end of a process.
#[cfg(not(target_os = "linux"))]
fn has_ended(_: u32) -> bool {
    false
}

/// Waits until a child of this process has ended. What it has started cannot be killed any more then.
#[cfg(not(target_os = "linux"))]
async fn ended(process: &mut Child, _: u32) {
    let _ = process.wait().await;
}
