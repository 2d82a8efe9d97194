//! Turns a call into the message that waits for it: joins the task's options with the call's, and finds the queue.
//!
//! Callers use it, and so do workers, for the tasks that follow from the end of another one. Relative options such as a
//! countdown count from the time of sending, not from the time at which the signature was made.

mod broadcast;
mod canvas_plan;
mod committed;
mod delivery;
mod headers;
mod options;
mod router;

use std::sync::Arc;

use super::canvas::{Call, CanvasLimits};
use super::registry::Registry;
use super::{
    Arguments, CONFIRM, DEMOTED, EnqueueError, Headers, Json, Message, NewTask, ParentTask, SENDING,
    SerialHeader, TaskDefinition, TaskId, Unique, Workflow, check_id,
};
use crate::core::Timestamp;
use crate::task::clock::now;
pub(crate) use canvas_plan::CanvasPlan;
pub(crate) use committed::CallDocument;
use options::read_options;
pub(crate) use options::{write_options, written};
#[cfg(test)]
pub(crate) use router::OneQueue;
pub(crate) use router::{RoutedQueue, Router};

/// Makes messages of calls.
pub(crate) struct Dispatcher {
    pub(crate) registry: Registry,
    pub(crate) route: Box<dyn Router>,
    /// The largest size of a call's arguments in bytes, and of its headers.
    pub(crate) max_message_size: usize,
    /// The bounds of what one canvas, or one end of a task, sends at once.
    pub(crate) limits: CanvasLimits,
    /// The queue for results by rpc, for brokers that have one.
    pub(crate) reply_to: Option<String>,
    /// The broker's name, if the broker keeps no lanes.
    pub(crate) without_lanes: Option<&'static str>,
    /// The broker's name, if neither the broker nor the store keeps unique windows.
    pub(crate) without_windows: Option<&'static str>,
    /// The broker's name, if the broker has no exchanges.
    pub(crate) without_exchanges: Option<&'static str>,
    /// Whether the broker keeps an index of the arguments by which tasks are searched for.
    pub(crate) indexes_arguments: bool,
}

impl Dispatcher {
    /// Makes the message of a caller's call.
    ///
    /// # Errors
    /// The arguments or headers are too large, the id or a name is not usable, the queue is not known, a key cannot be made,
    /// the broker lacks lanes or unique windows, or the queue is a broadcast and the call needs one end.
    pub(crate) fn message(&self, mut call: NewTask) -> Result<Message, EnqueueError> {
        let known = self.registry.get(&call.task);
        let unique = self.unique(&mut call, known)?;
        let mut message = self.message_of(call, known)?;
        message.unique = unique;
        if self.route.is_broadcast(&message.queue) {
            self.check_broadcast(&message)?;
        }
        Ok(message)
    }

    /// The steps from a call to its message, without its unique window. `known` is the task, if this program has it. The message
    /// follows from the task whose body sends it, if one does. Most calls state no headers, and skip what is about these.
    fn message_of(&self, mut call: NewTask, known: Option<&TaskDefinition>) -> Result<Message, EnqueueError> {
        let size = call.arguments.len();
        if size > self.max_message_size {
            return Err(EnqueueError::TooLarge { task: call.task, size, limit: self.max_message_size });
        }
        let states_headers = !call.headers.0.is_empty();
        if states_headers || self.registry.names_tenant(known) {
            self.put_tenant(&mut call, known)?;
        }
        let is_searched = self.indexes_arguments && known.is_some_and(|task| !task.search.is_empty());
        if states_headers || is_searched {
            self.put_search(&mut call, known);
        }
        let has_headers = !call.headers.0.is_empty();
        if has_headers {
            self.check_headers(&call)?;
        }
        if let Some(id) = &call.id {
            check_id("the task id", id.as_str()).map_err(|bad| EnqueueError::BadId { len: bad.len })?;
        }
        let mut shadow = None;
        if has_headers {
            self.check_delivery(&call)?;
            shadow = call.headers.take_property("shadow");
        }
        let wanted = call.options.queue.as_deref();
        let queue = self.route.queue_for(call.headers.tenant(), &call.task, wanted, &call.arguments)?;
        let queue = noted(queue, &mut call.headers);
        call.serial = self.serial(&mut call, known)?;
        let now = now();
        self.fill_in_defaults(&mut call, known, now);
        let parent = ParentTask::current();
        if !parent.trace.0.is_empty() {
            call.headers.inherit_trace(&parent.trace);
        }
        let workflow = self.sent_by(parent, shadow);
        Ok(fill_in(call, queue, workflow, now))
    }

    /// The place of a message that is part of no canvas: who sent it, who waits for it, and the name that is shown for it. `None`:
    /// there is nothing to say.
    fn sent_by(&self, parent: ParentTask, shadow: Option<String>) -> Option<Box<Workflow>> {
        let ParentTask { root_id, parent_id, .. } = parent;
        let reply_to = &self.reply_to;
        if root_id.is_none() && parent_id.is_none() && reply_to.is_none() && shadow.is_none() {
            return None;
        }
        let reply_to = reply_to.clone();
        Some(Box::new(Workflow { root_id, parent_id, reply_to, shadow, ..Workflow::default() }))
    }

    /// Makes the message of a call that follows from the end of a task. That end has happened, so the call cannot be
    /// refused any more.
    pub(crate) fn next(&self, call: Call, origin: &ParentTask) -> Message {
        let named = inner_task(&call).to_owned();
        let known = self.registry.get(&call.task);
        let (mut call, workflow) = self.read(call, known, origin);
        self.put_fit_tenant(&mut call, known);
        self.put_search(&mut call, known);
        let wanted = call.options.queue.as_deref();
        let tenant = call.headers.tenant();
        let queue = match self.route.queue_for(tenant, &named, wanted, &call.arguments) {
            Ok(queue) => noted(queue, &mut call.headers),
            Err(error) => {
                let queue = self.route.queue_of_last_resort(&named, wanted);
                if wanted != Some(&queue) {
                    tracing::error!(%error, queue, "the next step of a workflow goes to another queue");
                }
                queue
            }
        };
        // If the key cannot be made here, the worker finds that out too and moves the message to the dead letters.
        call.serial = self.serial(&mut call, known).unwrap_or_default();
        let now = now();
        self.fill_in_defaults(&mut call, known, now);
        fill_in(call, queue, workflow, now)
    }

    /// Fills in the program's defaults, for what neither the call nor its task states.
    fn fill_in_defaults(&self, call: &mut NewTask, known: Option<&TaskDefinition>, now: Timestamp) {
        let is_stated = call.options.expires.is_some() || call.expires_at.is_some();
        self.registry.fill_in(&call.task, known, &mut call.options);
        // Nobody who sends a task for next week means that a default takes it away before its time.
        if let Some(after) = call.options.expires.filter(|_| !is_stated) {
            let due = call.eta.or_else(|| call.countdown.map(|delay| now + delay));
            call.expires_at = Some(due.map_or(now, |due| due.max(now)) + after);
        }
    }

    /// The lane of a call: the call's own, or else the one of its task.
    fn serial(
        &self,
        call: &mut NewTask,
        known: Option<&TaskDefinition>,
    ) -> Result<Option<Box<SerialHeader>>, EnqueueError> {
        let serial = match (call.serial.take(), known.and_then(|known| known.serial)) {
            (Some(serial), _) => serial,
            (None, None) => return Ok(None),
            (None, Some(serial)) => Box::new(serial(&call.arguments).map_err(|error| {
                EnqueueError::NoKey { task: call.task.clone(), error: error.told(&call.headers) }
            })?),
        };
        match self.without_lanes {
            Some(broker) => Err(EnqueueError::NoLanes { task: call.task.clone(), broker: broker.into() }),
            None => Ok(Some(serial)),
        }
    }

    /// The unique window of a call: the call's own, or else the one of its task.
    fn unique(
        &self,
        call: &mut NewTask,
        known: Option<&TaskDefinition>,
    ) -> Result<Option<Box<Unique>>, EnqueueError> {
        let unique = match (call.unique.take(), known.and_then(|known| known.unique)) {
            (Some(unique), _) => unique,
            (None, None) => return Ok(None),
            (None, Some(unique)) => Box::new(unique(&call.arguments).map_err(|error| {
                EnqueueError::NoKey { task: call.task.clone(), error: error.told(&call.headers) }
            })?),
        };
        match self.without_windows {
            _ if unique.window.is_zero() => Ok(None),
            Some(broker) => Err(EnqueueError::NoWindows { task: call.task.clone(), broker: broker.into() }),
            None => Ok(Some(unique)),
        }
    }

    /// Reads the options of a call in a canvas, and what the call carries of its workflow.
    fn read(
        &self,
        call: Call,
        known: Option<&TaskDefinition>,
        origin: &ParentTask,
    ) -> (NewTask, Option<Box<Workflow>>) {
        let task_options = known.map(|task| (task.options)()).unwrap_or_default();
        let mut new = NewTask::new(call.task.clone(), task_options);
        let inner = inner_task(&call);
        if inner != call.task {
            // `celery.map` and the like wait in the queue of the task that they call.
            new.options.queue = self.route.queue(inner, None, &Arguments::default()).ok();
        }
        let kwargs = if call.kwargs.is_empty() { String::new() } else { call.kwargs.to_text() };
        new.arguments = Arguments { args: call.positional(), kwargs };
        let mut workflow = Workflow {
            root_id: origin.root_id.clone(),
            parent_id: origin.parent_id.clone(),
            stamped_headers: origin.stamped_headers.clone(),
            stamps: origin.stamps.clone(),
            ..Workflow::default()
        };
        read_options(&call.options, &mut new, &mut workflow);
        // Somebody goes on when a step is sent: the end of the step before it, or the caller who waits for the last one.
        new.options.confirm = true;
        hide_items(&call, &mut new.headers);
        if let Some(sending) = &origin.sending {
            new.headers.0.insert(SENDING.to_owned(), sending.clone());
        }
        new.headers.inherit_trace(&origin.trace);
        let Call { callbacks, errbacks, chain, chord, .. } = call;
        let chord = chord.map(Arc::unwrap_or_clone);
        let workflow = Workflow { callbacks, errbacks, chain, chord, ..workflow };
        (new, Some(workflow).filter(|workflow| *workflow != Workflow::default()).map(Box::new))
    }
}

/// The name of the task that a call is about: for `celery.map` and the like, the task that they call.
fn inner_task(call: &Call) -> &str {
    let inner = inner_signature(call).and_then(|task| task.get("task")?.as_str());
    inner.unwrap_or(&call.task)
}

/// The signature that `celery.map` and the like call with each item.
fn inner_signature(call: &Call) -> Option<&Json> {
    matches!(call.task.as_str(), "celery.map" | "celery.starmap" | "celery.chunks")
        .then(|| call.kwargs.get("task"))
        .flatten()
}

/// Hides the items of `celery.map` and the like if the task that they call hides its arguments, because the items
/// become these arguments. Items and signature are keyword arguments here.
fn hide_items(call: &Call, headers: &mut Headers) {
    let options = inner_signature(call).and_then(|task| task.get("options"));
    let of =
        |key: &str| options.and_then(|options| options.get(key).or_else(|| options.get("headers")?.get(key)));
    let hidden =
        ["argsrepr", "kwargsrepr"].into_iter().find_map(|key| of(key).filter(|shown| shown.is_string()));
    let Some(_) = inner_signature(call) else { return };
    let own = headers.0.get("argsrepr").cloned();
    if let Some(shown) = own.as_ref().or(hidden) {
        headers.0.entry("kwargsrepr".to_owned()).or_insert_with(|| shown.clone());
    }
}

/// Notes in the headers of a call for which queue it was, if it goes to another one. Answers with the name of the queue.
fn noted(queue: RoutedQueue, headers: &mut Headers) -> String {
    if let Some(from) = queue.instead_of {
        headers.0.insert(DEMOTED.to_owned(), from.into());
    }
    queue.name
}

/// Makes the message of a call that is ready to go to this queue.
fn fill_in(call: NewTask, queue: String, workflow: Option<Box<Workflow>>, now: Timestamp) -> Message {
    let NewTask {
        task,
        arguments,
        options,
        id,
        countdown,
        eta,
        expires_at,
        mut headers,
        serial,
        retries,
        ..
    } = call;
    if !options.confirm {
        headers.set_property(CONFIRM, false.into());
    }
    let id = id.unwrap_or_else(|| TaskId::new_at(now));
    let mut message = Message::new(id, task, arguments, queue, options, now);
    message.eta = eta.or_else(|| countdown.map(|delay| now + delay));
    message.expires = expires_at.or(message.expires);
    message.retries = retries;
    message.headers = headers;
    message.workflow = workflow;
    message.serial = serial;
    message
}

#[cfg(test)]
mod extremes;
#[cfg(test)]
mod traces;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::task::{Context, Durability, JsonMap, Signature, Task, TaskOptions};

    struct Mail;

    impl Task for Mail {
        type Args = (u8,);
        type Output = ();
        const NAME: &'static str = "mail";
        const PARAMS: &'static [&'static str] = &["user"];

        fn options() -> TaskOptions {
            TaskOptions { queue: Some("email".into()), priority: 3, ..TaskOptions::default() }
        }
    }

    /// Gives each task the queue that it asks for, or else `own`.
    struct NowhereOrOwn;

    impl Router for NowhereOrOwn {
        fn queue(&self, task: &str, wanted: Option<&str>, _: &Arguments) -> Result<String, EnqueueError> {
            match wanted {
                Some("nowhere") => {
                    let (task, queue) = (task.to_owned(), "nowhere".to_owned());
                    Err(EnqueueError::UnknownQueue { task, queue, hint: String::new() })
                }
                wanted => Ok(wanted.unwrap_or("own").to_owned()),
            }
        }

        fn queue_of_last_resort(&self, _: &str, _: Option<&str>) -> String {
            "last".to_owned()
        }
    }

    pub(super) fn dispatcher() -> Dispatcher {
        let registry = Registry::from_definitions(std::iter::empty()).unwrap();
        Dispatcher {
            registry,
            route: Box::new(NowhereOrOwn),
            max_message_size: 1 << 10,
            limits: CanvasLimits::default(),
            reply_to: None,
            without_lanes: None,
            without_windows: None,
            without_exchanges: None,
            indexes_arguments: false,
        }
    }

    fn call(options: Value) -> Call {
        Call {
            task: "mail".into(),
            args: vec![1.into()],
            kwargs: JsonMap::new(),
            options: options.as_object().unwrap().clone().into(),
            callbacks: Vec::new(),
            errbacks: Vec::new(),
            chain: Vec::new(),
            chord: None,
        }
    }

    #[test]
    fn what_differs_from_the_task_is_written_and_read() {
        let eta = Timestamp::from_millis(4_102_444_800_500);
        let second = Duration::from_secs;
        let signature = Signature::<Mail>::new(&(1,))
            .queue("slow")
            .priority(9)
            .eta(eta)
            .expires(second(60))
            .time_limit(second(20))
            .soft_time_limit(Duration::from_millis(1500))
            .max_retries(7)
            .header("tenant", "a")
            .argsrepr("***")
            .ignore_result(true)
            .durability(Durability::Memory)
            .id("mine");
        let plain = write_options(&Signature::<Mail>::new(&(1,)).into_parts().0, &Mail::options());
        assert!(plain.is_empty(), "{plain:?}");
        let options = write_options(&signature.into_parts().0, &Mail::options());
        assert_eq!(options["eta"], "2100-01-01T00:00:00.500+00:00");
        let message =
            dispatcher().next(Call { options, ..call(serde_json::json!({})) }, &ParentTask::default());
        assert_eq!((message.id.as_str(), message.queue.as_str(), message.priority), ("mine", "slow", 9));
        assert_eq!((message.eta, message.time_limit), (Some(eta), Some(second(20))));
        assert_eq!(message.soft_time_limit, Some(Duration::from_millis(1500)));
        assert_eq!((message.retry.max_retries, message.ignore_result), (7, true));
        assert_eq!(message.durability, Durability::Memory);
        assert_eq!(message.expires, Some(message.enqueued_at + second(60)));
        assert_eq!(
            (&message.headers.0["tenant"], &message.headers.0["argsrepr"]),
            (&"a".into(), &"***".into())
        );
        assert_eq!(message.workflow, None);
    }

    #[test]
    fn what_python_writes_is_read_and_what_is_odd_is_left_out() {
        let options = serde_json::json!({
            "task_id": "t", "countdown": 5, "expires": "2100-01-01T00:00:00", "time_limit": null, "priority": "high",
            "soft_time_limit": [], "headers": 3, "serializer": "json", "group_id": "g", "group_index": 2,
            "stamped_headers": ["tenant"], "tenant": "acme", "queue": null,
        });
        let message = dispatcher().next(call(options), &ParentTask::default());
        assert_eq!(message.eta, Some(message.enqueued_at + Duration::from_secs(5)));
        assert_eq!(message.expires, Some(Timestamp::from_millis(4_102_444_800_000)));
        assert_eq!((message.priority, message.soft_time_limit, message.queue.as_str()), (0, None, "own"));
        let workflow = message.workflow.unwrap();
        assert_eq!((workflow.group.as_deref(), workflow.group_index), (Some("g"), Some(2)));
        assert_eq!(
            (workflow.stamped_headers, &workflow.stamps.0["tenant"]),
            (vec!["tenant".into()], &"acme".into())
        );
    }

    #[test]
    fn a_step_keeps_what_its_sender_said() {
        let options = serde_json::json!({
            "priority": 5.0, "delivery_mode": 1, "retries": 3.0, "message_id": "m", "app_id": "hq", "type": "import",
            "argsrepr": "***", "kwargsrepr": "{***}",
        });
        let message = dispatcher().next(call(options), &ParentTask::default());
        assert_eq!((message.priority, message.retries, message.durability), (5, 3, Durability::Memory));
        let wire = crate::protocol::encode(&message, message.enqueued_at).unwrap();
        let properties = &wire.properties;
        assert_eq!(
            [&properties.message_id, &properties.app_id, &properties.kind].map(Option::as_deref),
            [Some("m"), Some("hq"), Some("import")]
        );
        assert_eq!(
            (&wire.headers["argsrepr"], &wire.headers["kwargsrepr"]),
            (&"***".into(), &"{***}".into())
        );
        assert_eq!((&wire.headers["retries"], properties.delivery_mode), (&3.into(), Some(1)));
        assert!(!wire.headers.contains_key("celeriac-properties"));
        // The properties stay when the message is sent again.
        let options = |name: &str| (name == "mail").then(Mail::options);
        let arrival = crate::protocol::Arrival::new("own", message.enqueued_at, &options);
        let again = crate::protocol::decode(&wire, &arrival).unwrap();
        assert_eq!(again.headers, message.headers);
        for (given, durability) in [
            (serde_json::json!("transient"), Durability::Memory),
            (2.into(), Durability::Disk),
            ("persistent".into(), Durability::Disk),
            ("odd".into(), Durability::Disk),
        ] {
            let message =
                dispatcher().next(call(serde_json::json!({"delivery_mode": given})), &ParentTask::default());
            assert_eq!(message.durability, durability);
        }
        for odd in [serde_json::json!(5.5), (-1).into(), "5".into()] {
            assert_eq!(
                dispatcher()
                    .next(call(serde_json::json!({"priority": odd})), &ParentTask::default())
                    .priority,
                0
            );
        }
    }

    #[test]
    fn items_of_a_task_that_hides_its_arguments_are_hidden() {
        let shown = |task: &str, options: Value| {
            let mut call = call(serde_json::json!({}));
            call.task = task.to_owned();
            call.kwargs.insert("task", serde_json::json!({"task": "mail", "options": options}));
            call.kwargs.insert("it", serde_json::json!(["hunter2"]));
            let message = dispatcher().next(call, &ParentTask::default());
            crate::protocol::encode(&message, message.enqueued_at).unwrap().headers["kwargsrepr"].to_string()
        };
        for task in ["celery.map", "celery.starmap", "celery.chunks"] {
            assert_eq!(shown(task, serde_json::json!({"argsrepr": "***"})), "\"***\"");
            assert_eq!(shown(task, serde_json::json!({"headers": {"argsrepr": "***"}})), "\"***\"");
            assert!(shown(task, serde_json::json!({})).contains("hunter2"));
        }
        assert!(shown("mine", serde_json::json!({"argsrepr": "***"})).contains("hunter2"));
    }

    #[test]
    fn arguments_are_sent_as_they_were_written() {
        let odd = "[1e400,-0.0,1E+2,1000000000000000000000000000000,18446744073709551615,{\"z\":1,\"a\":2}]";
        let kwargs = format!(r#"{{"z":{odd},"a":{{"__type__":"date","__value__":"2026-11-22"}}}}"#);
        let call = Call {
            args: serde_json::from_str(odd).unwrap(),
            kwargs: serde_json::from_str(&kwargs).unwrap(),
            ..call(serde_json::json!({}))
        };
        let message = dispatcher().next(call, &ParentTask::default());
        assert_eq!((message.arguments.args.as_str(), message.arguments.kwargs), (odd, kwargs));
    }

    #[test]
    fn what_follows_inherits_and_cannot_be_refused() {
        let mut parent = Context::detached().message().clone();
        parent.id = "parent".into();
        let workflow = Workflow {
            stamped_headers: vec!["tenant".into()],
            stamps: Headers([("tenant".into(), "acme".into())].into()),
            ..Workflow::default()
        };
        parent.workflow = Some(Box::new(workflow));
        let message =
            dispatcher().next(call(serde_json::json!({"queue": "nowhere"})), &ParentTask::of(&parent));
        assert_eq!(message.queue, "last");
        let workflow = message.workflow.unwrap();
        assert_eq!((workflow.root_id, workflow.parent_id), (Some("parent".into()), Some("parent".into())));
        assert_eq!(workflow.stamps.0["tenant"], "acme");
    }
}
