//! The follow-ups of the end of a task: the next step of its chain, callbacks and errbacks, its part of a chord.
//! This file makes the messages, records and chord parts; the broker gets them with the settlement and carries them
//! out.

use std::sync::Arc;
use std::time::Duration;

use super::Runtime;
use super::events::tell_sent;
use crate::broker::{BrokerError, ChordEnd, FollowUps, limits};
use crate::protocol::result::Exception;
use crate::store::{ChordPart, ChordSize};
use crate::task::canvas::{
    CanvasLimits, Cause, EndPlan, Launch, LostTask, Part, after, note_called, plan_chord_end,
};
use crate::task::clock::now;
use crate::task::{Dispatcher, EventFunnel, Json, Lineage, Message, ParentTask, State, TaskId, TaskResult};

impl Runtime {
    /// The follow-ups of the end of `message`; `None`: it has none. The record is told its children. If they cannot
    /// be made, the task fails instead, and its errbacks follow.
    pub(crate) fn follow_ups(&self, message: &Message, record: &mut TaskResult) -> Option<Box<FollowUps>> {
        follow_ups(&self.dispatcher, &self.events, message, record)
    }
}

fn follow_ups(
    dispatcher: &Arc<Dispatcher>,
    events: &Arc<EventFunnel>,
    message: &Message,
    record: &mut TaskResult,
) -> Option<Box<FollowUps>> {
    message.workflow.as_deref()?;
    let end_plan = after(message, record, dispatcher.limits).or_else(|error| {
        // The task fails, so that all that hangs on it hears of it.
        tracing::error!(id = %message.id, task = message.task, %error, "a task's follow-ups cannot be made; it fails");
        (record.state, record.result) = (State::Failure, None);
        record.errors = vec![format!("it succeeded, but what should follow from it cannot: {error}")];
        record.error_type = Some("SignatureError".to_owned());
        after(message, record, dispatcher.limits)
    });
    let end_plan = end_plan.ok()?;
    if !end_plan.launch.children.is_empty() {
        let lineage = record.lineage.get_or_insert_default();
        lineage.children.clone_from(&end_plan.launch.children);
    }
    Follower::of(dispatcher, events, message).follow_ups(end_plan).map(Box::new)
}

/// What is sent in the place of `message`, which is replaced by a canvas.
pub(super) fn instead(
    dispatcher: &Arc<Dispatcher>,
    events: &Arc<EventFunnel>,
    message: &Message,
    launch: Launch,
) -> Box<FollowUps> {
    let end_plan = EndPlan { launch, ..EndPlan::default() };
    let follow_ups = Follower::of(dispatcher, events, message).follow_ups(end_plan);
    Box::new(follow_ups.unwrap_or_default())
}

/// Makes the messages and records that follow from one task. A copy of it goes along to the end of a chord, because
/// the chord's body is made there.
#[derive(Clone)]
struct Follower {
    dispatcher: Arc<Dispatcher>,
    events: Arc<EventFunnel>,
    origin: ParentTask,
    reply_to: Option<String>,
    result_expires: Duration,
}

impl Follower {
    fn of(dispatcher: &Arc<Dispatcher>, events: &Arc<EventFunnel>, message: &Message) -> Self {
        Self {
            dispatcher: Arc::clone(dispatcher),
            events: Arc::clone(events),
            origin: ParentTask::of(message),
            reply_to: message.workflow.as_deref().and_then(|workflow| workflow.reply_to.clone()),
            result_expires: message.result_expires,
        }
    }

    /// The follow-ups of this plan; `None`: it has none.
    fn follow_ups(&self, end_plan: EndPlan) -> Option<FollowUps> {
        self.sequel_within(end_plan, &mut { self.dispatcher.limits })
    }

    /// The same within a limit. `left` is how much may still be sent together with it; its own part is taken off.
    fn sequel_within(&self, end_plan: EndPlan, left: &mut CanvasLimits) -> Option<FollowUps> {
        let (tasks, bytes) = end_plan.launch.taken();
        *left = left.less(tasks, bytes);
        let EndPlan { launch: Launch { calls, chords, .. }, lost, parts } = end_plan;
        if calls.is_empty() && lost.is_empty() && parts.is_empty() {
            return None;
        }
        let mut follow_ups = FollowUps {
            messages: Vec::with_capacity(calls.len()),
            records: lost.into_iter().map(|lost| self.lost(lost)).collect(),
            sizes: chords.into_iter().map(|(group, size)| ChordSize { group, size }).collect(),
            chords: parts.into_iter().map(|part| self.chord_end(part)).collect(),
        };
        for call in calls {
            let message = self.dispatcher.next(call, &self.origin);
            match limits::check(&message) {
                Ok(()) => {
                    // As in Celery it is told before the end of the task is, and before it can be received.
                    tell_sent(&self.events, &message);
                    follow_ups.messages.push(message);
                }
                Err(error) => self.fail_instead(&message, &error, &mut follow_ups, left),
            }
        }
        Some(follow_ups)
    }

    /// Fails the task of a call that cannot be written to the broker, now or later, and adds the follow-ups of that
    /// failure.
    fn fail_instead(
        &self,
        message: &Message,
        error: &BrokerError,
        follow_ups: &mut FollowUps,
        left: &mut CanvasLimits,
    ) {
        tracing::error!(task = message.task, %error, "what follows from a task cannot be enqueued; it has failed");
        let cause = Arc::new(Cause {
            state: State::Failure,
            errors: vec![format!("it cannot be enqueued: {error}")],
            error_type: Some("ValueError".to_owned()),
            error_module: None,
            error_arguments: None,
            traceback: None,
            called: Vec::new(),
        });
        let (id, task) = (message.id.clone(), message.task.clone());
        let record = self.lost(LostTask { id, task, cause, children: Vec::new() });
        match after(message, &record, *left) {
            Ok(end_plan) => {
                let more = self.sequel_within(end_plan, left).unwrap_or_default();
                follow_ups.messages.extend(more.messages);
                follow_ups.records.extend(more.records);
                follow_ups.sizes.extend(more.sizes);
                follow_ups.chords.extend(more.chords);
            }
            Err(error) => {
                tracing::error!(task = message.task, %error, "what should follow from a failed task cannot be made");
            }
        }
        follow_ups.records.push(record);
    }

    /// The part of a chord's member, and how the chord's body is made when all parts are there.
    fn chord_end(&self, part: Part) -> ChordEnd {
        let Part { group, id, task, index, state, value, body } = part;
        let follower = self.clone();
        let value = value.unwrap_or_else(|cause| self.error(id.clone(), task, cause));
        let part = ChordPart { group: group.clone(), id, index, state, value };
        let limits = self.dispatcher.limits;
        let then = move |parts: Vec<ChordPart>| {
            let parts = parts.into_iter().map(|part| (part.id, part.state, part.value)).collect();
            let end_plan = plan_chord_end(&group, body, follower.reply_to.as_deref(), parts, limits);
            follower.follow_ups(end_plan).unwrap_or_default()
        };
        ChordEnd { part, then: Box::new(then) }
    }

    /// The error of a member as a JSON value, in the form in which Python reads it from records.
    fn error(&self, id: TaskId, task: String, cause: Arc<Cause>) -> Json {
        let called = cause.called.clone();
        let record = self.lost(LostTask { id, task, cause, children: Vec::new() });
        let mut error = serde_json::to_value(Exception::of(&record)).unwrap_or_default();
        note_called(&mut error, &called);
        error.into()
    }

    /// The record of a task that will never run.
    fn lost(&self, lost: LostTask) -> TaskResult {
        let now = now();
        let LostTask { id, task, cause, children } = lost;
        let cause = Arc::unwrap_or_clone(cause);
        let lineage = Lineage { children, ..Lineage::default() };
        TaskResult {
            errors: cause.errors,
            error_type: cause.error_type,
            error_module: cause.error_module,
            error_arguments: cause.error_arguments,
            traceback: cause.traceback,
            lineage: (lineage != Lineage::default()).then(|| Box::new(lineage)),
            ..TaskResult::new(id, task, cause.state, now, now + self.result_expires)
        }
    }
}

#[cfg(test)]
mod tests;
