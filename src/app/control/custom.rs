//! The commands that a program adds to remote control: Celery's `@control_command` and `@inspect_command`.
//!
//! They run on the program's own runtime, and not on the thread that keeps the connection to RabbitMQ. So a command that
//! blocks or panics costs its own answer and nothing else. Few run at a time, so that slow ones keep no other question
//! from its answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::CommandResult;
use super::arguments::python_error;
use crate::app::StartError;
use crate::task::panic_message;

/// The most commands of the program that run at a time.
const AT_A_TIME: usize = 4;
/// How long a command may take. Whoever asks waits for about a second, unless he says otherwise.
const LONGEST: Duration = Duration::from_secs(10);

/// The names of the commands that every program answers.
const BUILT_IN: &[&str] = &[
    "active",
    "active_queues",
    "add_consumer",
    "autoscale",
    "bulk_acts",
    "cancel_bulk",
    "cancel_consumer",
    "clock",
    "conf",
    "disable_events",
    "dump_active",
    "dump_conf",
    "dump_reserved",
    "dump_revoked",
    "dump_schedule",
    "dump_tasks",
    "election",
    "enable_events",
    "figures",
    "heartbeat",
    "hello",
    "lane",
    "lanes",
    "memdump",
    "memsample",
    "objgraph",
    "pause",
    "ping",
    "pool_grow",
    "pool_restart",
    "pool_shrink",
    "query_task",
    "queues",
    "rate_limit",
    "registered",
    "report",
    "reserved",
    "resize",
    "resume",
    "revoke",
    "revoke_by_stamped_headers",
    "revoked",
    "scheduled",
    "set_concurrency",
    "shutdown",
    "stats",
    "terminate",
    "time_limit",
    "unblock",
    "undo_bulk",
    "why",
];

/// Why a command of the program has failed.
type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a command: it takes the arguments, a JSON object, and comes to the answer.
type CommandFn = Arc<dyn Fn(Value) -> BoxFuture<'static, Result<Value, CommandError>> + Send + Sync>;

/// Whether a command asks or changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum CommandKind {
    Inspect,
    Control,
}

/// A command of the program.
#[derive(Clone)]
struct ProgramCommand {
    kind: CommandKind,
    body: CommandFn,
}

/// The commands that the builder was given, in their order.
#[derive(Default)]
pub(in super::super) struct CustomCommands(Vec<(String, ProgramCommand)>);

impl CustomCommands {
    pub(in super::super) fn add<R>(
        &mut self,
        name: String,
        kind: CommandKind,
        body: impl Fn(Value) -> R + Send + Sync + 'static,
    ) where
        R: Future<Output = Result<Value, CommandError>> + Send + 'static,
    {
        let body: CommandFn = Arc::new(move |arguments| Box::pin(body(arguments)));
        self.0.push((name, ProgramCommand { kind, body }));
    }

    /// The commands by name. They run on the runtime of the caller.
    pub(in super::super) fn checked(&self) -> Result<ProgramCommands, StartError> {
        let mut commands = ProgramCommands::default();
        for (name, command) in &self.0 {
            let wrong = if name.trim().is_empty() {
                Some("it needs a name by which it is called")
            } else if BUILT_IN.contains(&name.as_str()) {
                Some("Celery or Celeriac has a command of this name; choose another one")
            } else if commands.by_name.contains_key(name) {
                Some("the program adds two commands of this name; each needs a name of its own")
            } else {
                None
            };
            if let Some(why) = wrong {
                return Err(StartError::ControlCommand { name: name.clone(), why });
            }
            commands.by_name.insert(name.clone(), command.clone());
        }
        // Without commands, no runtime is looked for.
        if !commands.by_name.is_empty() {
            commands.runtime = Handle::try_current().ok();
        }
        Ok(commands)
    }
}

/// The commands of a program that has started.
pub(in super::super) struct ProgramCommands {
    by_name: HashMap<String, ProgramCommand>,
    runtime: Option<Handle>,
    seats: Semaphore,
}

impl Default for ProgramCommands {
    fn default() -> Self {
        Self { by_name: HashMap::new(), runtime: None, seats: Semaphore::new(AT_A_TIME) }
    }
}

impl ProgramCommands {
    /// Runs a command of the program, and answers with what it says. `None`: there is no such command.
    pub(super) async fn obey(&self, method: &str, arguments: &Map<String, Value>) -> Option<CommandResult> {
        let command = self.by_name.get(method)?;
        let runtime = self.runtime.as_ref()?;
        let Ok(_seat) = self.seats.try_acquire() else {
            let text = format!("{method}() was not run: {AT_A_TIME} commands of this program run already");
            return Some(Err(python_error("RuntimeError", &text)));
        };
        if command.kind == CommandKind::Control {
            tracing::info!(command = method, "a command of the program was given by remote control");
        }
        let (body, arguments) = (Arc::clone(&command.body), Value::Object(arguments.clone()));
        let mut run = runtime.spawn(async move { body(arguments).await });
        Some(match timeout(LONGEST, &mut run).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(ended)) => match ended.try_into_panic() {
                Ok(panic) => {
                    let panic = panic_message(panic);
                    tracing::error!(command = method, %panic, "a command of the program panicked");
                    Err(python_error("RuntimeError", &format!("{method}() panicked: {panic}")))
                }
                Err(_) => {
                    let text = format!("{method}() was cut off: the program ends");
                    Err(python_error("RuntimeError", &text))
                }
            },
            Err(_) => {
                run.abort();
                tracing::error!(command = method, limit = ?LONGEST, "a command of the program was given up");
                let text = format!("{method}() was given up: it took longer than {LONGEST:?}");
                Err(python_error("TimeoutError", &text))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn commands(names: &[&str]) -> CustomCommands {
        let mut commands = CustomCommands::default();
        for name in names {
            commands.add((*name).to_owned(), CommandKind::Control, |arguments| async move { Ok(arguments) });
        }
        commands
    }

    #[test]
    fn every_command_of_the_dispatcher_is_known_as_built_in() {
        let source = include_str!("mod.rs");
        let arms = source.split_once("Some(match method {").expect("the dispatcher").1;
        let arms = arms.split_once("_ => return").expect("its last arm").0;
        let arms = arms.lines().filter_map(|line| line.split_once("=>"));
        let names = arms.flat_map(|(names, _)| names.split('|'));
        let names: Vec<&str> = names.map(|name| name.trim().trim_matches('"')).collect();
        assert!(names.contains(&"dump_active") && names.contains(&"resize"), "{names:?}");
        for name in names {
            assert!(BUILT_IN.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_name_that_means_something_else_is_refused() {
        for (names, why) in [
            (&["ping"][..], "has a command of this name"),
            (&["flush", "resize"][..], "has a command of this name"),
            (&["flush", "flush"][..], "two commands of this name"),
            (&[" "][..], "needs a name"),
        ] {
            let refused = commands(names).checked().map(drop);
            let error = refused.expect_err("a name that cannot be had").to_string();
            assert!(error.contains(names[names.len() - 1]) && error.contains(why), "{error}");
        }
    }

    #[tokio::test]
    async fn those_who_run_are_few_and_have_a_time() {
        tokio::time::pause();
        let mut commands = commands(&["echo"]);
        commands.add("hangs".to_owned(), CommandKind::Inspect, |_| std::future::pending());
        let commands = commands.checked().expect("good names");
        let Value::Object(arguments) = json!({"n": 5}) else { panic!("an object") };
        assert_eq!(commands.obey("echo", &arguments).await, Some(Ok(json!({"n": 5}))));
        assert_eq!(commands.obey("nosuch", &arguments).await, None);
        let hang = futures_util::future::join_all((0..AT_A_TIME).map(|_| commands.obey("hangs", &arguments)));
        // The others are polled first, so they have their seats by then.
        let late = commands.obey("echo", &arguments);
        let (given_up, refused) = futures_util::future::join(hang, late).await;
        let text = |answer: Option<CommandResult>| answer.expect("a command").expect_err("an error");
        assert!(text(refused).contains("4 commands of this program run already"));
        assert!(given_up.into_iter().all(|answer| text(answer).contains("longer than 10s")));
        // The seats are free again.
        assert_eq!(commands.obey("echo", &arguments).await, Some(Ok(json!({"n": 5}))));
    }
}
