//! Acts on many tasks by remote control: which there are, and their end before all is done.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::handle::{Celeriac, ControlError};
use super::arguments::python_error;
use super::{BY_REMOTE_CONTROL, CommandResult, ControlCommand};

fn celeriac(command: &ControlCommand<'_>) -> Celeriac {
    Celeriac { inner: Arc::clone(command.inner), who: Some(BY_REMOTE_CONTROL.into()) }
}

fn failed(error: &ControlError) -> String {
    python_error("RuntimeError", &error.to_string())
}

fn told(value: &impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(value).map_err(|error| python_error("RuntimeError", &error.to_string()))
}

/// The acts of the last week: `BulkAct`s as JSON.
pub(super) async fn acts(command: &ControlCommand<'_>) -> CommandResult {
    let acts = celeriac(command).bulk().acts().await.map_err(|error| failed(&error))?;
    Ok(json!({ "acts": told(&acts)? }))
}

/// Cancels an act. The answer is the act as it is then.
pub(super) async fn cancel(command: &ControlCommand<'_>) -> CommandResult {
    let id = command.arguments.text("id")?;
    told(&celeriac(command).cancel_bulk(id).await.map_err(|error| failed(&error))?)
}

/// Undoes an act, in the background. The answer is the act as it is then.
pub(super) async fn undo(command: &ControlCommand<'_>) -> CommandResult {
    let id = command.arguments.text("id")?;
    told(&celeriac(command).undo_bulk(id).await.map_err(|error| failed(&error))?)
}
