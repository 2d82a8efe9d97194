//! The lanes of serial tasks, by remote control: what holds a key up, and how it goes on. Lanes in Redis are those of the whole
//! fleet, so any of its programs can be asked.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::super::handle::{Celeriac, ControlError};
use super::arguments::python_error;
use super::{BY_REMOTE_CONTROL, CommandResult, ControlCommand, MOST, ok};

/// How long the keeper of the lanes may take. Celery's tools wait for a second.
const KEEPER: Duration = Duration::from_millis(700);
/// How many lanes are listed if the command does not say.
const LISTED: i64 = 100;

/// The lanes that are not idle, by name.
pub(super) async fn lanes(command: &ControlCommand<'_>) -> CommandResult {
    let limit = command.arguments.whole("limit", LISTED)?;
    let limit = usize::try_from(limit).ok().filter(|limit| (1..=MOST).contains(limit));
    let limit = limit
        .ok_or_else(|| python_error("ValueError", &format!("limit must be a number from 1 to {MOST}")))?;
    let celeriac = celeriac(command);
    shown(&answered(celeriac.lanes(limit)).await?.replies)
}

/// One lane; null: it is idle.
pub(super) async fn lane(command: &ControlCommand<'_>) -> CommandResult {
    let (scope, key) = named(command)?;
    let celeriac = celeriac(command);
    shown(&answered(celeriac.lane(scope, key)).await?)
}

/// Lets a lane go on that a failure has blocked.
pub(super) async fn unblock(command: &ControlCommand<'_>) -> CommandResult {
    let (scope, key) = named(command)?;
    let celeriac = celeriac(command);
    let was_blocked = answered(celeriac.unblock(scope, key)).await?;
    let what = if was_blocked { "goes on" } else { "was not blocked" };
    Ok(ok(format!("the lane {scope}-{key} {what}")))
}

/// How many runs of a lane may go on at a time; without a number, as many as its tasks say.
pub(super) async fn set_concurrency(command: &ControlCommand<'_>) -> CommandResult {
    let (scope, key) = named(command)?;
    let stated = match command.arguments.get("concurrency") {
        None => None,
        Some(_) => {
            let stated = u32::try_from(command.arguments.whole("concurrency", 0)?).ok();
            Some(stated.ok_or_else(|| python_error("ValueError", "concurrency must be a number from 0 on"))?)
        }
    };
    let celeriac = celeriac(command);
    answered(celeriac.set_concurrency(scope, key, stated)).await?;
    Ok(ok(match stated {
        Some(concurrency) => format!("the lane {scope}-{key} has the concurrency {concurrency}"),
        None => format!("the lane {scope}-{key} has the concurrency of its tasks"),
    }))
}

fn celeriac(command: &ControlCommand<'_>) -> Celeriac {
    Celeriac { inner: Arc::clone(command.inner), who: Some(BY_REMOTE_CONTROL.into()) }
}

/// The scope and the key of the lane that the command is about.
fn named<'a>(command: &ControlCommand<'a>) -> Result<(&'a str, &'a str), String> {
    Ok((command.arguments.text("scope")?, command.arguments.text("key")?))
}

async fn answered<T>(asked: impl Future<Output = Result<T, ControlError>>) -> Result<T, String> {
    match timeout(KEEPER, asked).await {
        Ok(answer) => answer.map_err(|error| python_error("RuntimeError", &error.to_string())),
        Err(_) => {
            let text = format!("who keeps the lanes does not answer within {KEEPER:?}");
            Err(python_error("TimeoutError", &text))
        }
    }
}

fn shown(status: &impl Serialize) -> CommandResult {
    serde_json::to_value(status).map_err(|error| python_error("RuntimeError", &error.to_string()))
}
