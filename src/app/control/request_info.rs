//! A task as Celery's `Request.info()` shows it, in `active`, `reserved`, `scheduled` and `query_task`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::actors::held::HeldTask;
use crate::broker::{DeliveryInfo, ScheduledTask};
use crate::core::{Timestamp, instant};
use crate::protocol::{keyword_repr, positional_repr};
use crate::runtime::task_levers::shown_name;
use crate::task::Message;

/// The most bytes of arguments that are shown as they are in one answer; those of further tasks are shown as texts of about a
/// thousand characters. Replies of more than some hundred kilobytes make Flower slow.
const ROOM: usize = 256 << 10;
/// Celery's scheduler gives ETA tasks this priority.
const ETA_PRIORITY: u8 = 6;

/// Shows tasks of one node.
pub(super) struct RequestInfo<'a> {
    node: &'a str,
    /// Whether arguments are shown as texts.
    safe: bool,
    room: usize,
}

impl<'a> RequestInfo<'a> {
    pub(super) fn new(node: &'a str, safe: bool) -> Self {
        Self { node, safe, room: ROOM }
    }

    /// A task that runs here or waits here for a slot.
    pub(super) fn of(&mut self, task: &HeldTask) -> Value {
        self.show(&task.message, task.delivery_info.as_ref(), task.started_at, task.pid)
    }

    /// A task that waits for its ETA.
    pub(super) fn of_scheduled(&mut self, task: &ScheduledTask) -> Value {
        json!({
            "eta": instant::write(task.eta),
            "priority": ETA_PRIORITY,
            "request": self.show(&task.message, task.delivery_info.as_ref(), None, None),
        })
    }

    fn show(
        &mut self,
        message: &Message,
        info: Option<&Arc<DeliveryInfo>>,
        started_at: Option<Timestamp>,
        pid: Option<u32>,
    ) -> Value {
        let (args, kwargs) = self.arguments(message);
        let own = || DeliveryInfo {
            routing_key: message.queue.clone(),
            priority: Some(message.priority),
            ..DeliveryInfo::default()
        };
        json!({
            "id": message.id,
            "name": shown_name(message),
            "args": args,
            "kwargs": kwargs,
            "type": message.task,
            "hostname": self.node,
            "time_start": started_at.map(seconds),
            // A message that is settled before its run is acknowledged when that starts.
            "acknowledged": started_at.is_some() && !message.settles_late(),
            "delivery_info": info.map_or_else(own, |info| DeliveryInfo::clone(info)),
            "worker_pid": pid,
        })
    }

    fn arguments(&mut self, message: &Message) -> (Value, Value) {
        if message.hides_arguments() {
            // What the caller wants to be shown instead.
            let shown = |name: &str| message.headers.0.get(name).cloned().unwrap_or_else(|| "...".into());
            return (shown("argsrepr"), shown("kwargsrepr"));
        }
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let args = or(&message.arguments.args, "[]");
        let kwargs = or(&message.arguments.kwargs, "{}");
        let size = args.len() + kwargs.len();
        if !self.safe && size <= self.room {
            let read = (serde_json::from_str(&args), serde_json::from_str::<Map<String, Value>>(&kwargs));
            if let (Ok(args), Ok(kwargs)) = read {
                self.room -= size;
                return (args, kwargs.into());
            }
        }
        let text = |shown: Result<String, serde_json::Error>| shown.unwrap_or_else(|_| "...".to_owned());
        (text(positional_repr(&message.headers, &args)).into(), text(keyword_repr(&kwargs)).into())
    }
}

/// A time as Python's `time.time()` tells it.
pub(super) fn seconds(time: Timestamp) -> f64 {
    time.since(Timestamp::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{Arguments, Context, SHOWN_AS_LIST, Workflow};

    fn message() -> Message {
        let mut message = Context::detached().message().clone();
        message.id = "c6c437bd-b198-44af-b9d6-ea1194910119".into();
        message.task = "cap.sleeper".into();
        message.queue = "celery".into();
        message.arguments = Arguments { args: "[20]".into(), kwargs: String::new() };
        message
    }

    fn held(message: Message) -> HeldTask {
        let info =
            DeliveryInfo { routing_key: "celery".into(), priority: Some(0), ..DeliveryInfo::default() };
        HeldTask {
            message: Arc::new(message),
            delivery_info: Some(Arc::new(info)),
            started_at: None,
            pid: None,
            log: None,
        }
    }

    /// As Celery 5.7 answered (`control_replies.json` of the captures), but for the process's id.
    #[test]
    fn a_task_is_shown_as_celery_shows_it() {
        let waiting = held(message());
        let expected = json!({
            "id": "c6c437bd-b198-44af-b9d6-ea1194910119", "name": "cap.sleeper", "args": [20], "kwargs": {},
            "type": "cap.sleeper", "hostname": "w1@research", "time_start": null, "acknowledged": false,
            "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": false},
            "worker_pid": null,
        });
        assert_eq!(RequestInfo::new("w1@research", false).of(&waiting), expected);

        let mut early = message();
        early.acks_late = false;
        early.workflow = Some(Box::new(Workflow { shadow: Some("nick".into()), ..Workflow::default() }));
        let running = HeldTask {
            started_at: Some(Timestamp::from_micros(1_795_339_618_747_921)),
            pid: Some(41),
            ..held(early)
        };
        let mut expected = expected;
        expected["name"] = "nick".into();
        expected["args"] = "(20,)".into();
        expected["kwargs"] = "{}".into();
        expected["time_start"] = json!(1795339618.747921);
        expected["acknowledged"] = true.into();
        expected["worker_pid"] = 41.into();
        assert_eq!(RequestInfo::new("w1@research", true).of(&running), expected);
        let late = HeldTask { started_at: running.started_at, ..waiting };
        assert_eq!(RequestInfo::new("n", false).of(&late)["acknowledged"], false, "it is settled after it");
    }

    #[test]
    fn an_eta_is_written_as_celery_writes_it() {
        let eta = Timestamp::from_micros(1_795_339_738_743_795);
        let scheduled = ScheduledTask::new(eta, Arc::new(message()), None);
        let shown = RequestInfo::new("n", false).of_scheduled(&scheduled);
        assert_eq!(shown["eta"], "2026-11-22T09:28:58.743795+00:00");
        assert_eq!((&shown["priority"], &shown["request"]["time_start"]), (&json!(6), &Value::Null));
        assert_eq!(shown["request"]["delivery_info"]["routing_key"], "celery");
    }

    /// A call by Python's `apply_async([20])`.
    #[test]
    fn a_list_that_its_sender_shows_is_not_hidden() {
        let mut listed = message();
        listed.headers.0.insert(SHOWN_AS_LIST.into(), true.into());
        let shown = |safe| RequestInfo::new("n", safe).of(&held(listed.clone()))["args"].clone();
        assert_eq!((shown(false), shown(true)), (json!([20]), json!("[20]")));
    }

    #[test]
    fn what_is_hidden_stays_so_and_what_is_long_is_cut() {
        let mut hidden = message();
        hidden.headers.0.insert("argsrepr".into(), "***".into());
        let shown = RequestInfo::new("n", false).of(&held(hidden));
        assert_eq!((&shown["args"], &shown["kwargs"]), (&json!("***"), &json!("...")));

        let mut long = message();
        long.arguments.args = format!("[\"{}\"]", "x".repeat(ROOM / 2));
        let mut info = RequestInfo::new("n", false);
        assert!(info.of(&held(long.clone()))["args"].is_array());
        let cut = info.of(&held(long))["args"].clone();
        assert!(cut.as_str().is_some_and(|text| text.len() < 1100), "there is no room for another one");
        let mut broken = message();
        broken.arguments.args = "[1".into();
        assert_eq!(RequestInfo::new("n", false).of(&held(broken))["args"], "...");
    }
}
