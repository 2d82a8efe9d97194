//! What operators change for single tasks, and the end of the program.

use serde_json::Value;

use super::arguments::{python_error, quoted};
use super::{CommandResult, ControlCommand, nok, ok};
use crate::actors::queue::Steer;
use crate::core::rate::{RateError, rate};

/// How many runs of a task start here each second, minute or hour.
pub(super) fn rate_limit(command: &ControlCommand<'_>) -> CommandResult {
    let task = command.arguments.text("task_name")?;
    let text = match command.arguments.get("rate_limit") {
        None | Some(Value::Bool(false)) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => {
            return Err(python_error("TypeError", "rate_limit() takes a text or a number as 'rate_limit'"));
        }
    };
    let per_second = match rate(&text) {
        Ok(rate) => rate,
        Err(RateError::Unit(unit)) => return Err(python_error("KeyError", &unit)),
        Err(RateError::NotANumber(number)) => {
            let error = format!("could not convert string to float: {}", quoted(&number));
            return Ok(nok(format!("Invalid rate limit string: {}", python_error("ValueError", &error))));
        }
    };
    let runtime = &command.inner.runtime;
    if runtime.dispatcher.registry.get(task).is_none() {
        return Ok(nok("unknown task"));
    }
    runtime.limit_rate(task, &text, per_second);
    command.inner.queues.tell_all(|| Steer::Look);
    tracing::info!(task, rate_limit = text, "a rate limit was set by remote control");
    Ok(ok(match per_second {
        Some(_) => "new rate limit set successfully",
        None => "rate limit disabled successfully",
    }))
}

/// The time limits of the runs of a task that start from now on.
pub(super) fn time_limit(command: &ControlCommand<'_>) -> CommandResult {
    let task = command.arguments.text("task_name")?;
    let limits = (command.arguments.seconds("soft")?, command.arguments.seconds("hard")?);
    let runtime = &command.inner.runtime;
    if runtime.dispatcher.registry.get(task).is_none() {
        return Ok(nok("unknown task"));
    }
    runtime.levers.limit_time(task, limits);
    tracing::info!(task, soft = ?limits.0, hard = ?limits.1, "time limits were set by remote control");
    Ok(ok("time limits set successfully"))
}

/// Tells whoever waits for the end of the program that it was asked for. As in Celery, nobody is answered.
pub(super) fn shutdown(command: &ControlCommand<'_>) -> Option<CommandResult> {
    let text = command.arguments.optional_text("msg").ok().flatten().unwrap_or("Got shutdown from remote");
    let heard = command.state().shutdown.ask();
    tracing::warn!(
        text = crate::core::text::shortened(text, 200).as_ref(),
        heard,
        "a shutdown was asked for"
    );
    let nobody = "this program does not wait to be told by remote control to end: it calls neither `run_until_signal` nor `shutdown_requested`";
    (!heard).then(|| Ok(nok(nobody)))
}
