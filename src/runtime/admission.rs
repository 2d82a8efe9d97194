//! Admission: whether a delivery is to run at all. The queue calls it before it gives a worker a delivery. The
//! checks go from the cheapest to those that need the task's definition.

use super::Runtime;
use crate::broker::Broker;
use crate::core::did_you_mean;
use crate::task::{Judge, TaskDefinition, Verdict};

/// Decides whether a delivery runs. Returns its task, or the verdict that ends it without a run: it has expired,
/// has ended its process too often, is of a task that this program does not have, or may not run because of its
/// lane.
pub(crate) fn admit(runtime: &Runtime, judge: &Judge<'_>) -> Result<&'static TaskDefinition, Box<Verdict>> {
    let message = judge.message;
    // The program is asked last, because it may look things up.
    if let Some(at) = message.expires.filter(|at| *at <= judge.now)
        && !runtime.hooks.exempts(message)
    {
        return Err(Box::new(judge.expired(at)));
    }
    // The stamps of a task are a part of its workflow.
    let is_stamped_out = message.workflow.is_some() && runtime.revoked_stamps.has(message);
    if is_stamped_out || was_revoked_meanwhile(runtime, judge) {
        return Err(Box::new(judge.revoked_waiting()));
    }
    if runtime.broker.facts().delivery_limit.is_some_and(|limit| message.crashes >= limit) {
        return Err(Box::new(judge.worker_lost()));
    }
    let registry = &runtime.dispatcher.registry;
    let Some(definition) = registry.get(&message.task) else {
        let hint = did_you_mean::hint(&message.task, registry.names());
        let reason = format!("no task named `{}` in this program{hint}", message.task);
        return Err(Box::new(judge.not_registered(&reason)));
    };
    match before_start(judge, definition, &*runtime.broker) {
        Some(verdict) => Err(Box::new(verdict)),
        None => Ok(definition),
    }
}

/// Whether this process has heard of the task's revocation since the delivery was lined up, and its queue was not told yet. A
/// broker that knows all takes a revoked task out by itself.
fn was_revoked_meanwhile(runtime: &Runtime, judge: &Judge<'_>) -> bool {
    !runtime.broker.facts().knows_all
        && runtime.store.is_known_revoked(&judge.message.id, judge.now) == Some(true)
}

/// The verdict about a delivery whose task is serial, or whose lane has refused it; `None`: it may run.
fn before_start(judge: &Judge<'_>, definition: &TaskDefinition, broker: &dyn Broker) -> Option<Verdict> {
    let message = judge.message;
    let refusal = match (&message.serial, definition.serial) {
        (None, None) => return None,
        (Some(serial), _) if broker.lanes().is_some() => serial.refusal.as_ref(),
        // It has no lane although its task is serial: its sender knows of no lanes, or the task was made serial
        // since. It goes back to stand in its lane.
        (None, Some(serial)) if broker.lanes().is_some() => {
            return Some(match serial(&message.arguments) {
                Ok(serial) => judge.lined_up(serial),
                Err(error) => judge.dead(&error.told(&message.headers)),
            });
        }
        _ => {
            let name = broker.name();
            let text =
                format!("the task is serial, and the broker `{name}` keeps no lanes: its runs could overlap");
            return Some(judge.dead(&text));
        }
    };
    refusal.map(|refusal| judge.refused(refusal))
}
