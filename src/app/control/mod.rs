//! Remote control: the commands of Celery 5.7's workers (`celery inspect`, `celery control`, Flower, the exporters),
//! our own levers by the same way, and commands that the program adds.
//!
//! A command is answered within a fraction of a second however busy the program is, because whoever asks waits for
//! about one. So whatever an actor has to say is asked of all actors at once and has a [deadline](PATIENCE); the answer
//! leaves out who misses it. Lists have a [bound](MOST). The shapes and the words are those of Celery's
//! `worker/control.py`, because tools compare them.

mod active_queues;
mod arguments;
mod bulk;
mod conf;
mod consumers;
mod custom;
mod inspect;
mod lanes;
mod levers;
mod memory;
mod own;
mod pool;
mod process;
mod registered;
mod request_info;
mod revocations;
mod stamps;
mod stats;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
#[cfg(any(unix, feature = "web"))]
use std::sync::Weak;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::handle::CeleriacInner;
#[cfg(unix)]
use super::local_control::LocalSocket;
use super::shutdown::ShutdownSignal;
use crate::broker::ControlRequest;
use crate::catalogue::QueueRow;
use arguments::{ControlArguments, python_error};
use custom::ProgramCommands;
use memory::MemorySamples;
use pool::AddedWorkers;
use revocations::Revocations;

pub(super) use conf::Settings;
pub(super) use custom::{CommandKind, CustomCommands};
pub(super) use revocations::mark_revoked;

/// How long an actor may take to say what it has. Celery's tools wait for about a second, and on a busy machine an event loop
/// that is not blocked at all may take more than 100 ms.
const PATIENCE: Duration = Duration::from_millis(250);
/// The most items of a list of tasks.
const MOST: usize = 1_000;
/// Who does what remote control asks for, in the marks of the history. A request does not say who has sent it.
const BY_REMOTE_CONTROL: &str = "remote control";

/// What a command comes to: the reply, or the text of its error.
type CommandResult = Result<Value, String>;

/// What remote control keeps.
pub(super) struct ControlState {
    started_at: Instant,
    pub(super) settings: Settings,
    /// What was heard to be revoked.
    pub(super) revocations: Revocations,
    samples: MemorySamples,
    /// The queues that were added while the program runs.
    added: Mutex<Vec<QueueRow>>,
    /// The workers that were added while the program runs.
    added_workers: AddedWorkers,
    pub(super) shutdown: ShutdownSignal,
    /// The commands that the program has added.
    pub(super) commands: ProgramCommands,
    /// The socket in the directory of the store; empty if there is none.
    #[cfg(unix)]
    pub(super) local: Mutex<Option<LocalSocket>>,
    /// Where the consoles of this program answer, as far as they know. The routes of each own its address, so one that
    /// is not mounted any more has none.
    #[cfg(any(unix, feature = "web"))]
    consoles: Mutex<Vec<Weak<str>>>,
}

impl Default for ControlState {
    fn default() -> Self {
        Self {
            started_at: Instant::now(),
            settings: Settings::default(),
            revocations: Revocations::default(),
            samples: MemorySamples::default(),
            added: Mutex::default(),
            added_workers: AddedWorkers::default(),
            shutdown: ShutdownSignal::default(),
            commands: ProgramCommands::default(),
            #[cfg(unix)]
            local: Mutex::default(),
            #[cfg(any(unix, feature = "web"))]
            consoles: Mutex::default(),
        }
    }
}

impl ControlState {
    fn added(&self) -> MutexGuard<'_, Vec<QueueRow>> {
        self.added.lock()
    }

    /// Where the console answers that was mounted last and still is.
    #[cfg(unix)]
    pub(super) fn console(&self) -> Option<Arc<str>> {
        self.consoles.lock().iter().rev().find_map(Weak::upgrade)
    }
}

#[cfg(feature = "web")]
impl super::handle::Celeriac {
    /// Notes where a console of this program answers, for whoever asks the program by the socket of its store. It is
    /// known for as long as somebody else holds the address.
    pub(crate) fn note_console(&self, url: &Arc<str>) {
        let mut consoles = self.inner.control.consoles.lock();
        consoles.retain(|mounted| mounted.strong_count() > 0);
        consoles.push(Arc::downgrade(url));
    }
}

/// A command and the runtime that is asked.
struct ControlCommand<'a> {
    inner: &'a Arc<CeleriacInner>,
    node: &'a str,
    clock: u64,
    arguments: ControlArguments<'a>,
}

impl ControlCommand<'_> {
    fn state(&self) -> &ControlState {
        &self.inner.control
    }

    /// The rows of all queues that this process serves.
    fn rows(&self) -> Vec<QueueRow> {
        let rows = self.inner.catalogue().queues.iter().filter(|row| row.served).cloned();
        rows.chain(self.state().added().iter().cloned()).collect()
    }
}

/// Answers a command; `None`: there is no such command, and nobody is answered.
pub(super) async fn answer(inner: &Arc<CeleriacInner>, request: ControlRequest) -> Option<Value> {
    let command = ControlCommand {
        inner,
        node: &request.node,
        clock: request.clock,
        arguments: ControlArguments::new(&request.method, &request.arguments),
    };
    let answer = AssertUnwindSafe(obey(&request.method, &command)).catch_unwind().await;
    let answer = answer.unwrap_or_else(|panic| {
        let panic = crate::task::panic_message(panic);
        tracing::error!(method = request.method, %panic, "a command of remote control panicked");
        Some(Err(python_error("RuntimeError", &panic)))
    })?;
    Some(answer.unwrap_or_else(nok))
}

async fn obey(method: &str, command: &ControlCommand<'_>) -> Option<CommandResult> {
    Some(match method {
        "active" | "dump_active" => inspect::active(command).await,
        "reserved" | "dump_reserved" => inspect::reserved(command).await,
        "scheduled" | "dump_schedule" => inspect::scheduled(command).await,
        "revoked" | "dump_revoked" => inspect::revoked(command),
        "query_task" => inspect::query_task(command).await,
        "clock" => Ok(json!({ "clock": command.clock })),
        "hello" => inspect::hello(command),
        "registered" | "dump_tasks" => registered::registered(command),
        "active_queues" => active_queues::active_queues(command).await,
        "stats" => stats::stats(command).await,
        "conf" | "dump_conf" => conf::conf(command),
        "report" => Ok(conf::report(command)),
        "memsample" => Ok(memory::sample(command)),
        "memdump" => memory::dump(command),
        "objgraph" => Err(python_error("ImportError", "Requires the objgraph library")),
        "rate_limit" => levers::rate_limit(command),
        "time_limit" => levers::time_limit(command),
        "pool_grow" => pool::grow(command).await,
        "pool_shrink" => pool::shrink(command).await,
        "pool_restart" => Err(python_error("ValueError", "Pool restarts not enabled")),
        "autoscale" => pool::autoscale(command).await,
        "add_consumer" => consumers::add(command).await,
        "cancel_consumer" => consumers::cancel(command),
        "election" => Ok(Value::Null),
        "revoke_by_stamped_headers" => stamps::revoke_by_stamped_headers(command).await,
        "shutdown" => return levers::shutdown(command),
        "pause" => own::pause(command).await,
        "resume" => own::resume(command).await,
        "resize" => own::resize(command).await,
        "queues" => own::queues(command).await,
        "figures" => own::figures(command).await,
        "why" => own::why(command).await,
        "lanes" => lanes::lanes(command).await,
        "lane" => lanes::lane(command).await,
        "unblock" => lanes::unblock(command).await,
        "bulk_acts" => bulk::acts(command).await,
        "cancel_bulk" => bulk::cancel(command).await,
        "undo_bulk" => bulk::undo(command).await,
        "set_concurrency" => lanes::set_concurrency(command).await,
        _ => return command.state().commands.obey(method, command.arguments.all()).await,
    })
}

/// The reply of a command that was obeyed.
fn ok(text: impl Into<String>) -> Value {
    json!({ "ok": text.into() })
}

/// The reply of a command that was not.
fn nok(text: impl Into<String>) -> Value {
    json!({ "error": text.into() })
}
