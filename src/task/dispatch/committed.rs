//! A call as the commit table holds it: everything that the call says, as JSON.
//!
//! It is written where the call is made, perhaps in a program that runs no Celeriac, and becomes a message where it is
//! forwarded. So it holds what decides how the task runs, and not the queue's place: that is found by the catalogue of the
//! program that forwards it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Dispatcher, ParentTask};
use crate::core::{RetryPolicy, Timestamp};
use crate::task::clock::now;
use crate::task::{
    Arguments, CommitRow, Durability, EnqueueError, HandedOver, Headers, Message, NewTask, SerialHeader,
    StatedOptions, TaskId, TaskOptions, Unique, Workflow, check_id,
};

/// The form of the column `call`. Other versions of Celeriac read it, so a field that is added needs
/// `#[serde(default)]`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CallDocument {
    id: TaskId,
    task: String,
    arguments: Arguments,
    /// The queue that the call or its task names.
    queue: Option<String>,
    priority: u8,
    retry: RetryPolicy,
    autoretry: bool,
    acks_late: bool,
    /// Which options the task states itself.
    stated: StatedOptions,
    soft_time_limit: Option<Duration>,
    time_limit: Option<Duration>,
    ignore_result: bool,
    result_expires: Duration,
    durability: Durability,
    eta: Option<Timestamp>,
    expires: Option<Timestamp>,
    retries: u32,
    headers: Headers,
    serial: Option<Box<SerialHeader>>,
    unique: Option<Box<Unique>>,
    /// The task whose body made the call, and the first of those that led to it.
    root_id: Option<TaskId>,
    parent_id: Option<TaskId>,
}

impl CallDocument {
    /// The row of a call. Countdown and expiry count from now.
    ///
    /// # Errors
    /// The id is not usable, or the call hands over a permit.
    pub(crate) fn row(call: NewTask) -> Result<CommitRow, EnqueueError> {
        let NewTask {
            task,
            arguments,
            options,
            id,
            countdown,
            eta,
            expires_at,
            retries,
            mut headers,
            serial,
            unique,
        } = call;
        let id = id.unwrap_or_else(TaskId::new);
        check_id("the task id", id.as_str()).map_err(|bad| EnqueueError::BadId { len: bad.len })?;
        if HandedOver::of_headers(&headers).is_some() {
            let what = "a permit is handed over to it, and nobody would give the permit back if the transaction is rolled back: let the task ask for the permit itself".to_owned();
            return Err(EnqueueError::Name { task, what });
        }
        // All options are named, so that an option that is added is thought of. Those that are left out belong to the task
        // and not to the call, except `confirm`: the row goes when the task is published, so that is always confirmed.
        let TaskOptions {
            queue,
            priority,
            retry,
            autoretry,
            acks_late,
            soft_time_limit,
            time_limit,
            expires,
            ignore_result,
            result_expires,
            durability,
            stated,
            confirm: _,
            acks_on_failure_or_timeout: _,
            store_errors_even_if_ignored: _,
            track_started: _,
            rate_limit: _,
            rate_scope: _,
            max_running: _,
            breaker: _,
            send_events: _,
            keep_log: _,
        } = options;
        let now = now();
        let ParentTask { root_id, parent_id, trace, .. } = ParentTask::current();
        headers.inherit_trace(&trace);
        let document = Self {
            id: id.clone(),
            task: task.clone(),
            arguments,
            queue,
            priority,
            retry,
            autoretry,
            acks_late,
            stated,
            soft_time_limit,
            time_limit,
            ignore_result,
            result_expires,
            durability,
            eta: eta.or_else(|| countdown.map(|delay| now + delay)),
            expires: expires_at.or_else(|| expires.map(|after| now + after)),
            retries,
            headers,
            serial,
            unique,
            root_id,
            parent_id,
        };
        match serde_json::to_string(&document) {
            Ok(call) => Ok(CommitRow::new(id, task, call)),
            Err(error) => Err(EnqueueError::Arguments { task, error: error.to_string() }),
        }
    }

    /// The call, and the tasks that led to it.
    fn into_call(self) -> (NewTask, Option<TaskId>, Option<TaskId>) {
        let options = TaskOptions {
            queue: self.queue,
            priority: self.priority,
            retry: self.retry,
            autoretry: self.autoretry,
            acks_late: self.acks_late,
            soft_time_limit: self.soft_time_limit,
            time_limit: self.time_limit,
            ignore_result: self.ignore_result,
            result_expires: self.result_expires,
            durability: self.durability,
            stated: self.stated,
            ..TaskOptions::default()
        };
        let call = NewTask {
            arguments: self.arguments,
            id: Some(self.id),
            eta: self.eta,
            expires_at: self.expires,
            retries: self.retries,
            headers: self.headers,
            serial: self.serial,
            unique: self.unique,
            ..NewTask::new(self.task, options)
        };
        (call, self.root_id, self.parent_id)
    }
}

impl Dispatcher {
    /// Makes the message of a row of a commit table.
    ///
    /// # Errors
    /// The row cannot be read, or a reason that [`message`](Self::message) names.
    pub(crate) fn committed(&self, row: &CommitRow) -> Result<Message, EnqueueError> {
        let document: CallDocument = serde_json::from_str(&row.call).map_err(|error| {
            let what = format!("the call in its row is none of this version of Celeriac: {error}");
            EnqueueError::Name { task: row.task.clone(), what }
        })?;
        if document.id != row.id {
            let what = format!("its row has the id `{}`, and the call in it `{}`", row.id, document.id);
            return Err(EnqueueError::Name { task: row.task.clone(), what });
        }
        let (call, root_id, parent_id) = document.into_call();
        let message = self.message(call)?;
        let workflow = message.workflow.map(|workflow| *workflow).unwrap_or_default();
        let workflow = Workflow { root_id, parent_id, ..workflow };
        let workflow = Some(workflow).filter(|workflow| *workflow != Workflow::default());
        Ok(Message { workflow: workflow.map(Box::new), ..message })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::dispatcher;
    use super::*;
    use crate::task;
    use crate::task::{LaneName, Signature, Task, UniqueKey};

    #[task(queue = "email", priority = 3, max_retries = 1, expires = "1h", autoretry = false)]
    fn send_email(user: u64) {
        let _ = user;
    }

    /// The message of a call that was written into a commit table and forwarded by a program without the task.
    fn forwarded<T: Task>(signature: Signature<T>) -> Result<Message, EnqueueError> {
        let (call, arguments) = signature.into_parts();
        let row = CallDocument::row(NewTask { arguments: arguments.unwrap(), ..call })?;
        dispatcher().committed(&row)
    }

    #[test]
    fn a_forwarded_call_says_what_the_call_said() {
        let before = now();
        let message = forwarded(send_email::s(42)).unwrap();
        assert_eq!(
            (message.task.as_str(), message.arguments.args.as_str()),
            (send_email::Task::NAME, "[42]")
        );
        assert_eq!((message.queue.as_str(), message.priority, message.retry.max_retries), ("email", 3, 1));
        assert!(!message.autoretry && message.acks_late && message.eta.is_none());
        let hour = Duration::from_secs(3600);
        assert!(message.expires.unwrap() >= before + hour && message.expires.unwrap() <= now() + hour);
        assert_eq!((message.workflow, message.serial, message.unique), (None, None, None));

        let second = Duration::from_secs;
        let lane = SerialHeader::new(LaneName::new("mail", "42"));
        let mut call = send_email::s(42)
            .id("mine")
            .queue("slow")
            .countdown(second(60))
            .priority(9)
            .time_limit(second(20))
            .soft_time_limit(second(10))
            .max_retries(7)
            .header("tenant", "acme")
            .shadow("nick")
            .ignore_result(true)
            .durability(Durability::Memory)
            .unique_for(second(5))
            .unique_key("42")
            .into_parts();
        call.0.serial = Some(Box::new(lane.clone()));
        let row = CallDocument::row(NewTask { arguments: call.1.unwrap(), ..call.0 }).unwrap();
        let message = dispatcher().committed(&row).unwrap();
        assert_eq!((message.id.as_str(), message.queue.as_str(), message.priority), ("mine", "slow", 9));
        assert!(message.eta.unwrap() >= before + second(60) && message.eta.unwrap() <= now() + second(60));
        assert_eq!((message.time_limit, message.soft_time_limit), (Some(second(20)), Some(second(10))));
        assert_eq!((message.retry.max_retries, message.ignore_result), (7, true));
        assert_eq!(message.durability, Durability::Memory);
        assert_eq!(message.headers.0["tenant"], "acme");
        assert_eq!(message.workflow.unwrap().shadow.as_deref(), Some("nick"));
        assert_eq!(message.serial, Some(Box::new(lane)));
        let window = Unique::new(UniqueKey::new(send_email::Task::NAME, "42"), second(5));
        assert_eq!(message.unique, Some(Box::new(window)));
    }

    #[test]
    fn what_cannot_be_forwarded_is_told() {
        let unknown = forwarded(send_email::s(1).queue("nowhere")).unwrap_err();
        assert!(
            matches!(&unknown, EnqueueError::UnknownQueue { queue, .. } if queue == "nowhere"),
            "{unknown}"
        );
        let mut row =
            CallDocument::row(NewTask { id: Some("a".into()), ..NewTask::new("t", TaskOptions::default()) })
                .unwrap();
        row.id = "b".into();
        let other = dispatcher().committed(&row).unwrap_err();
        assert!(other.to_string().contains("its row has the id `b`, and the call in it `a`"), "{other}");
        row.call = "{\"version\":9}".into();
        let later = dispatcher().committed(&row).unwrap_err();
        assert!(later.to_string().contains("is none of this version of Celeriac"), "{later}");
        assert!([unknown, other, later].iter().all(EnqueueError::is_permanent));
    }
}
