//! Which tasks this process has, and which it has heard to be revoked.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::request_info::RequestInfo;
use super::{CommandResult, ControlCommand, MOST, PATIENCE};
use crate::actors::held::HeldTasks;
use crate::task::TaskId;

impl ControlCommand<'_> {
    /// What all queues have that answer in time.
    pub(super) async fn held(&self, ids: Option<HashSet<TaskId>>, limit: usize) -> Vec<HeldTasks> {
        self.inner.queues.held(ids, limit, PATIENCE).await
    }

    /// What waits for its ETA.
    async fn scheduled(&self) -> Vec<crate::broker::ScheduledTask> {
        match self.inner.runtime.broker.events() {
            Some(events) => timeout(PATIENCE, events.scheduled(MOST)).await.unwrap_or_default(),
            None => Vec::new(),
        }
    }
}

/// The tasks whose bodies run.
pub(super) async fn active(command: &ControlCommand<'_>) -> CommandResult {
    let mut info = RequestInfo::new(command.node, command.arguments.switch("safe"));
    let held = command.held(None, MOST).await;
    Ok(held.iter().flat_map(|held| &held.running).take(MOST).map(|task| info.of(task)).collect())
}

/// The tasks that wait here for a slot.
pub(super) async fn reserved(command: &ControlCommand<'_>) -> CommandResult {
    let mut info = RequestInfo::new(command.node, false);
    let held = command.held(None, MOST).await;
    Ok(held.iter().flat_map(|held| &held.reserved).take(MOST).map(|task| info.of(task)).collect())
}

/// The tasks that came here and wait for their ETA, here or in the broker.
pub(super) async fn scheduled(command: &ControlCommand<'_>) -> CommandResult {
    let mut info = RequestInfo::new(command.node, false);
    Ok(command.scheduled().await.iter().map(|task| info.of_scheduled(task)).collect())
}

/// The ids that were heard to be revoked, the oldest first.
pub(super) fn revoked(command: &ControlCommand<'_>) -> CommandResult {
    Ok(json!(command.state().revocations.list()))
}

/// Where the tasks of these ids are in this process.
pub(super) async fn query_task(command: &ControlCommand<'_>) -> CommandResult {
    let ids = command.arguments.texts("ids").into_iter().take(MOST).map(TaskId::from);
    let ids: HashSet<TaskId> = ids.collect();
    let mut info = RequestInfo::new(command.node, false);
    let mut found = Map::new();
    let (held, scheduled) = tokio::join!(command.held(Some(ids.clone()), MOST), command.scheduled());
    for task in scheduled.iter().filter(|task| ids.contains(&task.message.id)) {
        let shown = info.of_scheduled(task)["request"].take();
        found.insert(task.message.id.to_string(), json!(["scheduled", shown]));
    }
    for held in &held {
        let states = [("reserved", &held.reserved), ("active", &held.running)];
        for (state, task) in
            states.iter().flat_map(|(state, tasks)| tasks.iter().map(move |task| (state, task)))
        {
            found.insert(task.message.id.to_string(), json!([state, info.of(task)]));
        }
    }
    Ok(found.into())
}

/// A worker that starts tells what it knows to be revoked, and asks what this one knows: Celery's mingle.
pub(super) fn hello(command: &ControlCommand<'_>) -> CommandResult {
    if command.arguments.optional_text("from_node")? == Some(command.node) {
        return Ok(Value::Null);
    }
    let revocations = &command.state().revocations;
    match command.arguments.get("revoked") {
        // Workers before 5.7 send an object whose keys are the ids.
        Some(Value::Object(ids)) => revocations.add(ids.keys().map(String::as_str)),
        _ => revocations.add(command.arguments.texts("revoked")),
    }
    Ok(json!({ "revoked": revocations.list(), "clock": command.clock }))
}
