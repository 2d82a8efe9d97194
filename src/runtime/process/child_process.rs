//! A child process as its worker has it: it is started, given one run after the other, and ended.
//!
//! What the socket brings is handled by the [driver](super::driver), a task beside this. The two share [`Shared`].

use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;

use super::VARIABLE;
use super::driver::Driver;
use super::protocol::{Down, RunOrder, Welcome, codec, encode, write};
use crate::core::ChildLife;
use crate::core::child_life::{ChildDeath, ChildStop, UsedUp};
use crate::runtime::Runtime;
use crate::runtime::children::ChildSettings;
use crate::runtime::run::AfterRun;
use crate::task::{Context, Ending, Interrupt, Message};

/// How long the end of a process is waited for that was killed. Only a process that the kernel itself holds takes longer.
pub(super) const DEATH_PATIENCE: Duration = Duration::from_secs(10);

/// A frame to the child; the program holds messages by reference.
pub(super) type Order<'a> = Down<&'a Message>;

/// A child process. Dropping it ends the process.
pub(crate) struct ChildProcess {
    shared: Arc<Shared>,
}

/// What the handle of a child and its driver share.
pub(super) struct Shared {
    pub(super) pid: u32,
    state: Mutex<ChildState>,
    /// Frames for the child.
    frames: mpsc::UnboundedSender<Bytes>,
    /// Cancelled when the process is to be killed.
    pub(super) kill: CancellationToken,
    /// Cancelled when the process was told to end.
    pub(super) dismissed: CancellationToken,
    /// Cancelled when the child is ready for its first task.
    pub(super) ready: CancellationToken,
    /// Cancelled when the process is gone, or cannot be ended.
    gone: CancellationToken,
    /// How the process ended, once it has.
    cause: OnceLock<String>,
}

struct ChildState {
    life: ChildLife,
    /// The number of the last run.
    runs: u64,
    active: Option<ActiveRun>,
    /// Whether a run was to begin that the child could not take any more.
    has_missed_one: bool,
}

/// The run that the child has.
struct ActiveRun {
    run: u64,
    context: Context,
    end: oneshot::Sender<ChildRunEnd>,
    /// The permits that the body holds, by their holder, and the flags that say whether they are lost.
    permits: Vec<(String, Arc<AtomicBool>)>,
}

/// How a run in a child ended.
pub(super) enum ChildRunEnd {
    /// The body has ended.
    Body(Result<String, Ending>),
    /// The process has ended, in this way, and the run with it.
    Lost(String),
}

/// Whoever waits for what becomes of a child. It does not keep the child.
#[derive(Clone)]
pub(crate) struct ChildWatch(Arc<Shared>);

impl ChildProcess {
    /// Starts a child for a worker. It must be called on an event loop, which then drives the child.
    ///
    /// # Errors
    /// The process cannot be started.
    pub(crate) fn start(
        settings: &ChildSettings,
        slot: usize,
        runtime: &Arc<Runtime>,
    ) -> std::io::Result<Self> {
        let (own, childs) = Pair::pair()?;
        own.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(own)?.into_split();
        let mut command = this_program()?;
        command.stdin(Stdio::from(OwnedFd::from(childs)));
        let process = command.spawn()?;
        drop(command); // with it goes this process's copy of the child's end of the socket
        let pid = process.id().ok_or_else(|| std::io::Error::other("the process has no id"))?;
        let (frames, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write(waiting, writer));
        let shared = Arc::new(Shared {
            pid,
            state: Mutex::new(ChildState {
                life: ChildLife::new(settings.limits),
                runs: 0,
                active: None,
                has_missed_one: false,
            }),
            frames,
            kill: CancellationToken::new(),
            dismissed: CancellationToken::new(),
            ready: CancellationToken::new(),
            gone: CancellationToken::new(),
            cause: OnceLock::new(),
        });
        let welcome = Welcome {
            queue: settings.queue.clone(),
            slot,
            memory_limit: settings.memory_limit,
            tells_memory: settings.limits.max_memory.is_some(),
        };
        let driver = Driver {
            shared: Arc::clone(&shared),
            runtime: Arc::clone(runtime),
            welcome,
            process,
            frames: FramedRead::new(reader, codec()),
            questions: FuturesUnordered::new(),
            aborts: Default::default(),
            uploads: Default::default(),
            refusal: None,
            is_over: false,
            _counted: runtime.children.one(),
        };
        tokio::spawn(driver.run());
        Ok(Self { shared })
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// Whoever waits for what becomes of the child.
    pub(crate) fn watch(&self) -> ChildWatch {
        ChildWatch(Arc::clone(&self.shared))
    }

    /// What becomes of the worker after a run in this child.
    pub(crate) fn after_run(&self) -> AfterRun {
        let state = self.shared.state.lock();
        match state.life.used_up() {
            Some(used_up) => {
                let why = match used_up {
                    UsedUp::Tasks(tasks) => format!("it has run {tasks} tasks"),
                    UsedUp::Memory(bytes) => format!("it has {bytes} bytes of memory"),
                };
                tracing::debug!(pid = self.shared.pid, why, "a child process is used up and is replaced");
                AfterRun::Recycled
            }
            None if state.has_missed_one => AfterRun::Died,
            None if state.life.is_fit() => AfterRun::Stays,
            None => AfterRun::Replaced,
        }
    }

    /// Has the child run the body of a task. `None`: the child cannot take a run any more.
    pub(super) fn begin(&self, context: &Context) -> Option<ChildRun<'_>> {
        let (sender, end) = oneshot::channel();
        let handed = context.handed_permit();
        let permits = handed.iter().map(|(permit, lost)| (permit.holder.clone(), Arc::clone(lost))).collect();
        let run = {
            let mut state = self.shared.state.lock();
            if !state.life.begin() {
                state.has_missed_one = true;
                return None;
            }
            state.runs += 1;
            let run = state.runs;
            state.active = Some(ActiveRun { run, context: context.clone(), end: sender, permits });
            run
        };
        let message = context.message();
        // A task that has not begun has shown nothing.
        let has_begun = context.is_redelivered() || message.has_begun();
        self.shared.send(&Order::Run(Box::new(RunOrder {
            run,
            message,
            worker: context.worker().to_owned(),
            fence: context.fencing_token(),
            again: context.is_again(),
            has_keeper: context.has_keeper(),
            handed: handed.map(|(permit, _)| permit),
            shown: has_begun.then(|| context.shown_before()).flatten(),
        })));
        Some(ChildRun { shared: &self.shared, run, end, is_over: false })
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        let stop = self.shared.state.lock().life.dismiss();
        match stop {
            Some(ChildStop::Dismiss) => {
                self.shared.send(&Order::Dismiss);
                self.shared.dismissed.cancel();
            }
            Some(ChildStop::Kill) => self.shared.kill.cancel(),
            None => {}
        }
    }
}

/// This program, to be started again: the very file that runs, even if another one lies in its place by now.
fn this_program() -> std::io::Result<Command> {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let mut command = if cfg!(target_os = "linux") {
        Command::new("/proc/self/exe")
    } else {
        Command::new(std::env::current_exe()?)
    };
    if let Some(name) = name {
        command.arg0(name);
    }
    command.args(arguments).env(VARIABLE, "1").process_group(0).kill_on_drop(true);
    Ok(command)
}

impl ChildWatch {
    /// Waits until the child is ready for its first task.
    ///
    /// # Errors
    /// The process has ended before, in this way.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        tokio::select! {
            () = self.0.ready.cancelled() => Ok(()),
            () = self.0.gone.cancelled() => Err(self.0.cause()),
        }
    }

    /// Waits until the process has ended, and says how.
    pub(crate) async fn gone(&self) -> String {
        self.0.gone.cancelled().await;
        self.0.cause()
    }
}

impl Shared {
    /// Sends a frame to the child. If the child is gone, nobody misses it.
    pub(super) fn send(&self, frame: &impl Serialize) {
        match encode(frame) {
            Ok(bytes) => drop(self.frames.send(bytes)),
            Err(error) => {
                tracing::error!(pid = self.pid, %error, "a child process cannot be told what it has to know; it is killed");
                self.end_now();
            }
        }
    }

    /// Ends the process now, whatever it does.
    pub(super) fn end_now(&self) {
        if self.state.lock().life.kill() {
            self.kill.cancel();
        }
    }

    /// The child says that it is ready. `false`: that is no news.
    pub(super) fn is_ready_now(&self) -> bool {
        let is_news = self.state.lock().life.ready();
        if is_news {
            self.ready.cancel();
        }
        is_news
    }

    /// The context of this run, if the child still has it.
    pub(super) fn context_of(&self, run: u64) -> Option<Context> {
        let state = self.state.lock();
        state.active.as_ref().filter(|active| active.run == run).map(|active| active.context.clone())
    }

    /// The body of this run holds permits under this name; `lost` says when it has lost them.
    pub(super) fn watch_permits(&self, run: u64, holder: String, lost: Arc<AtomicBool>) {
        if let Some(active) = self.state.lock().active.as_mut().filter(|active| active.run == run) {
            active.permits.retain(|(other, _)| *other != holder);
            active.permits.push((holder, lost));
        }
    }

    /// The permits of the run that are lost and of which the child does not know it: the run, and their holders.
    pub(super) fn lost_permits(&self) -> (u64, Vec<String>) {
        let mut state = self.state.lock();
        let Some(active) = &mut state.active else { return (0, Vec::new()) };
        let is_lost = |lost: &Arc<AtomicBool>| lost.load(Ordering::Acquire);
        let (lost, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut active.permits).into_iter().partition(|(_, lost)| is_lost(lost));
        active.permits = held;
        (active.run, lost.into_iter().map(|(holder, _)| holder).collect())
    }

    /// The body of this run has ended.
    pub(super) fn body_ended(&self, run: u64, outcome: Result<String, Ending>, memory: Option<u64>) {
        let mut state = self.state.lock();
        if state.active.as_ref().is_some_and(|active| active.run == run)
            && state.life.end(memory)
            && let Some(active) = state.active.take()
        {
            let _ = active.end.send(ChildRunEnd::Body(outcome));
        }
    }

    /// The process has ended, in this way. Says what that means, and the task whose run ended with it.
    pub(super) fn process_ended(&self, cause: String) -> (ChildDeath, Option<Context>) {
        let (death, active) = {
            let mut state = self.state.lock();
            (state.life.exited(), state.active.take())
        };
        let _ = self.cause.set(cause.clone());
        let context = active.map(|active| {
            let _ = active.end.send(ChildRunEnd::Lost(cause));
            active.context
        });
        self.gone.cancel();
        (death, context)
    }

    fn cause(&self) -> String {
        self.cause.get().cloned().unwrap_or_default()
    }
}

/// A run in a child. It completes when the body has ended, or the process. Dropping it before kills the process.
pub(super) struct ChildRun<'a> {
    shared: &'a Shared,
    run: u64,
    end: oneshot::Receiver<ChildRunEnd>,
    is_over: bool,
}

impl ChildRun<'_> {
    /// Tells the body to end.
    pub(super) fn interrupt(&self, interrupt: Interrupt) {
        self.shared.send(&Order::Interrupt { run: self.run, interrupt });
    }

    /// Has the body end at its next checkpoint.
    pub(super) fn give_way(&self) {
        self.shared.send(&Order::GiveWay { run: self.run });
    }

    /// Kills the process, and waits until it is gone.
    pub(super) async fn kill(&mut self) {
        self.is_over = true;
        self.shared.end_now();
        self.shared.gone.cancelled().await;
    }
}

impl Future for ChildRun<'_> {
    type Output = ChildRunEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<ChildRunEnd> {
        Pin::new(&mut self.end).poll(cx).map(|end| {
            self.is_over = true;
            end.unwrap_or_else(|_| ChildRunEnd::Lost("is out of reach".to_owned()))
        })
    }
}

impl Drop for ChildRun<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.end_now();
        }
    }
}
