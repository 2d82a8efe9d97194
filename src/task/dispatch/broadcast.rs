//! What may go to a broadcast: a queue whose tasks are run by every process that serves it.
//!
//! All these runs have one id. So a call is refused that needs one end, or one run: a result, a next step, a place in a
//! lane or in a unique window, a permit. Celery takes such calls, and then each run stores its result over the last one,
//! and sends the next step.

use super::Dispatcher;
use crate::task::canvas::{Node, NodeKind};
use crate::task::{Arguments, EnqueueError, HandedOver, Message};

impl Dispatcher {
    /// Refuses a message that needs one end, and whose queue is a broadcast.
    pub(super) fn check_broadcast(&self, message: &Message) -> Result<(), EnqueueError> {
        match needs_one_run(message) {
            Some(what) => Err(refused(&message.task, &message.queue, what)),
            None => Ok(()),
        }
    }

    /// Refuses a canvas with a task that goes to a broadcast and that something follows from or counts. `followed`: so it
    /// is for the last tasks of the node.
    pub(super) fn check_broadcasts(&self, node: &Node, followed: bool) -> Result<(), EnqueueError> {
        let options = &node.options;
        let linked = !(options.link.is_empty() && options.link_error.is_empty())
            || options.chord.is_some()
            || options.chain.as_ref().is_some_and(|chain| !chain.is_empty());
        let followed = followed || linked;
        match &node.kind {
            NodeKind::Task { name, .. } if followed => {
                let queue = self.route.queue(name, options.text("queue"), &Arguments::default());
                if let Some(queue) = queue.ok().filter(|queue| self.route.is_broadcast(queue)) {
                    return Err(refused(name, &queue, FOLLOWED));
                }
            }
            NodeKind::Task { .. } => {}
            NodeKind::Chain(steps) => {
                let last = steps.len().saturating_sub(1);
                let mut steps = steps.iter().enumerate();
                steps.try_for_each(|(i, step)| self.check_broadcasts(step, followed || i < last))?;
            }
            NodeKind::Group(members) => {
                members.iter().try_for_each(|member| self.check_broadcasts(member, true))?;
            }
            NodeKind::Chord(chord) => {
                self.check_broadcasts(&chord.header, true)?;
                self.check_broadcasts(&chord.body, followed)?;
            }
        }
        let others = options.link.iter().chain(&options.link_error).chain(options.chain.iter().flatten());
        others.chain(options.chord.as_deref()).try_for_each(|other| self.check_broadcasts(other, false))
    }
}

const FOLLOWED: &str = "something follows from the task or a group counts it, which each run would do anew: send it on its own, or as the last step of a chain";

/// Why a message cannot go to a broadcast.
fn needs_one_run(message: &Message) -> Option<&'static str> {
    if message.serial.is_some() {
        Some("the task is serial, and its runs would overlap: give it a queue of its own")
    } else if message.unique.is_some() {
        Some("the task has a unique window, which its first run would end: take `unique_for` away")
    } else if message.is_in_canvas() {
        Some(FOLLOWED)
    } else if HandedOver::of(message).is_some() {
        Some("it is handed a permit, which only one of the runs could hold: have each run ask for its own")
    } else if !message.ignore_result {
        Some(
            "all runs would store their results under one id: say `ignore_result` at the task or at the call",
        )
    } else {
        None
    }
}

fn refused(task: &str, queue: &str, what: &'static str) -> EnqueueError {
    EnqueueError::Broadcast { task: task.to_owned(), queue: queue.to_owned(), what: what.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::task::canvas::CanvasLimits;
    use crate::task::dispatch::{ParentTask, Router};
    use crate::task::registry::Registry;
    use crate::task::{NewTask, TaskOptions, Unique, UniqueKey};

    /// The queue `all` is a broadcast.
    struct All;

    impl Router for All {
        fn queue(&self, _: &str, wanted: Option<&str>, _: &Arguments) -> Result<String, EnqueueError> {
            Ok(wanted.unwrap_or("own").to_owned())
        }

        fn queue_of_last_resort(&self, _: &str, _: Option<&str>) -> String {
            "own".to_owned()
        }

        fn is_broadcast(&self, queue: &str) -> bool {
            queue == "all"
        }
    }

    fn dispatcher() -> Dispatcher {
        Dispatcher {
            registry: Registry::from_definitions(std::iter::empty()).unwrap(),
            route: Box::new(All),
            max_message_size: 1 << 10,
            limits: CanvasLimits::default(),
            reply_to: None,
            without_lanes: None,
            without_windows: None,
            without_exchanges: None,
            indexes_arguments: false,
        }
    }

    fn call(queue: &str) -> NewTask {
        let queue = Some(queue.to_owned());
        NewTask::new("reload", TaskOptions { queue, ignore_result: true, ..TaskOptions::default() })
    }

    fn told(call: NewTask) -> String {
        dispatcher().message(call).map_or_else(|error| error.to_string(), |message| message.queue)
    }

    #[test]
    fn a_call_that_needs_one_run_is_refused() {
        assert_eq!(told(call("all")), "all");
        let mut kept = call("all");
        kept.options.ignore_result = false;
        let begin = "`reload` goes to the broadcast `all`, which every process that serves it runs, but ";
        let error = told(kept.clone());
        assert!(error.starts_with(begin) && error.contains("say `ignore_result`"), "{error}");
        kept.options.queue = Some("own".to_owned());
        assert_eq!(told(kept), "own");
        let window = Unique::new(UniqueKey::new("t", "k"), std::time::Duration::from_secs(1));
        let error = told(NewTask { unique: Some(Box::new(window)), ..call("all") });
        assert!(error.contains("unique window"), "{error}");
        let lane = crate::task::SerialHeader::new(crate::task::LaneName::new("t", "k"));
        let error = told(NewTask { serial: Some(Box::new(lane)), ..call("all") });
        assert!(error.contains("is serial"), "{error}");
    }

    #[test]
    fn a_broadcast_may_only_be_the_last_step() {
        let task = |name: &str| {
            json!({"task": name, "args": [], "kwargs": {}, "subtask_type": null, "immutable": true,
                   "options": {"queue": if name == "news" { "all" } else { "own" }, "ignore_result": true}})
        };
        let of = |kind: &str, tasks: serde_json::Value| {
            json!({"task": format!("celery.{kind}"), "args": [], "kwargs": {"tasks": tasks}, "options": {},
                   "subtask_type": kind, "immutable": false})
        };
        let told = |canvas: serde_json::Value| {
            let canvas = serde_json::from_str(&canvas.to_string()).unwrap();
            let planned = dispatcher().plan_canvas(canvas);
            planned.map(|plan| plan.messages.len()).map_err(|error| error.to_string())
        };
        assert_eq!(told(task("news")), Ok(1));
        assert_eq!(told(of("chain", json!([task("a"), task("news")]))), Ok(1));
        for refused in [
            of("chain", json!([task("news"), task("a")])),
            of("chain", json!([task("a"), task("news"), task("a")])),
            of("group", json!([task("a"), task("news")])),
        ] {
            let error = told(refused).unwrap_err();
            assert!(error.starts_with("`news` goes to the broadcast `all`"), "{error}");
            assert!(error.contains("or as the last step of a chain"), "{error}");
        }
        // What comes from elsewhere is sent all the same.
        let call = crate::task::canvas::Call {
            task: "news".into(),
            args: Vec::new(),
            kwargs: Default::default(),
            options: json!({"queue": "all"}).as_object().unwrap().clone().into(),
            callbacks: Vec::new(),
            errbacks: Vec::new(),
            chain: Vec::new(),
            chord: None,
        };
        assert_eq!(dispatcher().next(call, &ParentTask::default()).queue, "all");
    }
}
