//! Whether a delivery is to run at all.

use super::runtime::Runtime;
use super::serial;
use crate::task::{Judge, TaskDefinition, Verdict};

/// The task that it is of; else what becomes of it without a run.
pub(crate) fn admit(runtime: &Runtime, judge: &Judge<'_>) -> Result<&'static TaskDefinition, Box<Verdict>> {
    let message = judge.message;
    if let Some(at) = message.expires.filter(|at| *at <= judge.now) {
        return Err(Box::new(judge.expired(at)));
    }
    if runtime.broker.delivery_limit().is_some_and(|limit| message.crashes >= limit) {
        return Err(Box::new(judge.worker_lost()));
    }
    let registry = &runtime.dispatcher.registry;
    let Some(definition) = registry.get(&message.task) else {
        let hint = registry.nearest(&message.task);
        let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let reason = format!("no task named `{}` in this program{hint}", message.task);
        return Err(Box::new(judge.not_registered(&reason)));
    };
    match serial::before_start(judge, definition, &*runtime.broker) {
        Some(verdict) => Err(Box::new(verdict)),
        None => Ok(definition),
    }
}
