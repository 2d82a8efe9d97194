use super::*;
use crate::broker::refused_result;
use crate::task::canvas::CanvasLimits;
use crate::task::registry::Registry;
use crate::task::{Arguments, Context, EnqueueError, RawSignature, Router, Workflow};

/// A router that sends the task `unwritable` to a queue whose name no broker can hold, and every other one to `q`.
struct UnwritableQueue;

impl Router for UnwritableQueue {
    fn queue(&self, task: &str, _: Option<&str>, _: &Arguments) -> Result<String, EnqueueError> {
        Ok(if task == "unwritable" { "q".repeat(300) } else { "q".to_owned() })
    }

    fn queue_of_last_resort(&self, _: &str, _: Option<&str>) -> String {
        "q".to_owned()
    }
}

fn dispatcher(limits: CanvasLimits) -> Arc<Dispatcher> {
    Arc::new(Dispatcher {
        registry: Registry::from_definitions(std::iter::empty()).unwrap(),
        route: Box::new(UnwritableQueue),
        max_message_size: 1 << 16,
        limits,
        reply_to: None,
        without_lanes: None,
        without_windows: None,
        without_exchanges: None,
        indexes_arguments: false,
    })
}

fn raw(text: &str) -> RawSignature {
    serde_json::from_str(text).unwrap()
}

/// The follow-ups of a task that succeeds with 1 and has this rest of a chain, of which the next step stands last.
fn followed(chain: &[&str], limits: CanvasLimits) -> FollowUps {
    let workflow = Workflow { chain: chain.iter().map(|step| raw(step)).collect(), ..Workflow::default() };
    let message = Message { workflow: Some(Box::new(workflow)), ..Context::detached().message().clone() };
    let mut record = refused_result(&message, String::new());
    (record.state, record.errors, record.result) = (State::Success, Vec::new(), Some("1".to_owned()));
    *follow_ups(&dispatcher(limits), &Arc::default(), &message, &mut record).unwrap()
}

const LAST: &str =
    r#"{"task":"last","options":{"task_id":"last","group_id":"g","group_index":4,"chord":{"task":"body"}}}"#;
const UNWRITABLE: &str = r#"{"task":"unwritable","options":{"task_id":"step","link_error":[{"task":"errback","options":{"task_id":"called"}}]}}"#;

/// A step that cannot be written, now or later, fails. So does what was to follow from it, and its errback is called.
#[test]
fn a_step_that_cannot_be_written_fails_with_all_that_hangs_on_it() {
    let FollowUps { messages, mut records, sizes, chords } =
        followed(&[LAST, UNWRITABLE], CanvasLimits::default());
    let [errback] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((errback.id.as_str(), errback.arguments.args.as_str()), ("called", r#"["step"]"#));
    records.sort_by(|one, another| one.id.cmp(&another.id));
    let ids: Vec<_> = records.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["last", "step"]);
    for record in &records {
        assert_eq!((record.state, record.error_type.as_deref()), (State::Failure, Some("ValueError")));
        assert!(
            record.errors[0].starts_with("it cannot be enqueued: the name of the queue")
                || record.errors[0].contains("the queue of task `unwritable` has 300 bytes"),
            "{:?}",
            record.errors
        );
    }
    let [ChordEnd { part, .. }] = &chords[..] else { panic!("{chords:?}") };
    assert_eq!((part.group.as_str(), part.id.as_str(), part.index), ("g", "last", Some(4)));
    assert_eq!((part.state, &part.value["exc_type"]), (State::Failure, &"ValueError".into()));
    assert!(sizes.is_empty());
}

/// However many members of a group fail in this way, together they send no more messages than may be sent at once.
#[test]
fn the_errbacks_of_many_that_fail_have_one_limit() {
    let members = vec![UNWRITABLE.replace("step", "").replace(r#""task_id":"","#, ""); 20].join(",");
    let members = members.replace(r#","options":{"task_id":"called"}"#, "");
    let group = format!(r#"{{"task":"celery.group","kwargs":{{"tasks":[{members}]}}}}"#);
    let limits = CanvasLimits { tasks: 25, ..CanvasLimits::default() };
    let FollowUps { messages, records, .. } = followed(&[&group], limits);
    assert_eq!(
        (records.len(), messages.len()),
        (20, 5),
        "each has failed, and some of their errbacks are called"
    );
}
