//! Celeriac's own levers by remote control. Celery's workers know none of these commands, and are silent.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::handle::{Celeriac, ControlError};
use super::super::persistent::{KeptLever, forget_pause, keep};
use super::arguments::python_error;
use super::pool::MOST_OF_A_QUEUE as MOST_WORKERS;
use super::{BY_REMOTE_CONTROL, CommandResult, ControlCommand, PATIENCE, ok};
use crate::actors::queue::Steer;
use crate::core::autoscale::WorkerRange;
use crate::task::TaskId;

/// Starts nothing more in a queue; after a restart neither, if it is to be kept.
pub(super) async fn pause(command: &ControlCommand<'_>) -> CommandResult {
    let paused = steer(command, Steer::Pause, |queue| format!("paused {queue}"))?;
    keep_if_asked(command, KeptLever::Paused).await?;
    Ok(paused)
}

/// Lets a paused queue go on, and forgets that it was to be paused after a restart.
pub(super) async fn resume(command: &ControlCommand<'_>) -> CommandResult {
    let resumed = steer(command, Steer::Resume, |queue| format!("resumed {queue}"))?;
    let forgotten = forget_pause(&command.inner.runtime, queue_of(command)?).await;
    forgotten.map_err(|error| not_kept(&error.into()))?;
    Ok(resumed)
}

/// Gives a queue so many workers; after a restart too, if that is to be kept.
pub(super) async fn resize(command: &ControlCommand<'_>) -> CommandResult {
    let workers = command.arguments.whole("workers", 0)?;
    let Some(workers) =
        Some(workers).filter(|n| (1..=MOST_WORKERS).contains(n)).and_then(|n| usize::try_from(n).ok())
    else {
        let text = format!("workers must be a number from 1 to {MOST_WORKERS}; use 'pause' to stop a queue");
        return Err(python_error("ValueError", &text));
    };
    let resized = steer(command, Steer::Resize(workers), |queue| format!("{queue} has {workers} workers"))?;
    keep_if_asked(command, KeptLever::Workers(workers)).await?;
    Ok(resized)
}

/// Keeps what was set over restarts, if the command says `persistent`.
async fn keep_if_asked(command: &ControlCommand<'_>, lever: KeptLever) -> Result<(), String> {
    if !command.arguments.switch("persistent") {
        return Ok(());
    }
    keep(&command.inner.runtime, queue_of(command)?, lever).await.map_err(|error| not_kept(&error))
}

fn not_kept(error: &ControlError) -> String {
    python_error("RuntimeError", &error.to_string())
}

/// The physical name of the queue that the command is about.
fn queue_of<'a>(command: &'a ControlCommand<'_>) -> Result<&'a str, String> {
    let queue = command.arguments.text("queue")?;
    Ok(command.inner.catalogue().queue(queue).map_or(queue, |row| row.name.as_str()))
}

fn steer(command: &ControlCommand<'_>, steer: Steer, done: impl Fn(&str) -> String) -> CommandResult {
    let (queue, name) = (command.arguments.text("queue")?, queue_of(command)?);
    let act = steer.clone();
    if command.inner.queues.tell(name, steer) {
        command.inner.mark_act(&act, name, Some(BY_REMOTE_CONTROL));
        return Ok(ok(done(name)));
    }
    let known = command.inner.queues.names().join(", ");
    Err(python_error("ValueError", &format!("no queue '{queue}' is served here; there are: {known}")))
}

/// Why a task does not run, as far as this program knows: `Explanation` as JSON.
pub(super) async fn why(command: &ControlCommand<'_>) -> CommandResult {
    let id = TaskId::from(command.arguments.text("id")?);
    let explained = command.inner.explain(&id, PATIENCE).await;
    let explained = explained.map_err(|error| python_error("RuntimeError", &error.to_string()))?;
    serde_json::to_value(explained).map_err(|error| python_error("RuntimeError", &error.to_string()))
}

/// What this program knows of its queues, for `celeriac report` and `celeriac top`: `ReportFacts` as JSON.
pub(super) async fn figures(command: &ControlCommand<'_>) -> CommandResult {
    let celeriac = Celeriac { inner: Arc::clone(command.inner), who: None };
    let facts = celeriac.report_facts().await;
    serde_json::to_value(facts).map_err(|error| python_error("RuntimeError", &error.to_string()))
}

/// The queues of this process, with what they have in hand.
pub(super) async fn queues(command: &ControlCommand<'_>) -> CommandResult {
    let held = command.held(None, 0).await;
    let mut queues = Map::new();
    for row in command.rows() {
        let target = row.target.map(|target| target.as_secs_f64());
        let shown = match held.iter().find(|held| held.queue == row.name) {
            Some(held) => json!({
                "pool": row.pool.as_str(), "target": target, "workers": held.workers, "running": held.all_running,
                "reserved": held.all_reserved, "prefetch": held.prefetch, "paused": held.is_paused,
                "consuming": held.is_consuming, "max_workers": held.range.map(WorkerRange::max),
            }),
            None => {
                json!({ "pool": row.pool.as_str(), "target": target, "workers": row.workers, "answering": false })
            }
        };
        queues.insert(row.name, shown);
    }
    Ok(Value::Object(queues))
}
