//! The options of one call in the form of Celery's signatures. A call becomes a step of a canvas by writing them, and
//! the sender of the step reads them.

use std::time::Duration;

use chrono::DateTime;
use serde_json::Value;

use crate::core::{Timestamp, instant, time};
use crate::task::option_value::{self, count, is_nothing, tally};
use crate::task::{Durability, JsonMap, NewTask, PROPERTIES, SHOWN_AS_LIST, TaskId, TaskOptions, Workflow};

/// Reads Celery's options of a call. A value of the wrong type counts as not given, because a foreign signature must
/// not stop here.
pub(super) fn read_options(options: &JsonMap, new: &mut NewTask, workflow: &mut Workflow) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = |value: &Value| value.as_str().map(TaskId::from);
    // Celery takes zero for a limit that is not given.
    let limit = |value: &Value| option_value::seconds(value).filter(|limit| !limit.is_zero());
    let mut stamped = Vec::new();
    for (key, value) in options.iter() {
        if value.is_null() {
            continue;
        }
        match key {
            "task_id" => new.id = id(value),
            "queue" => new.options.queue = text(value).or(new.options.queue.take()),
            "priority" => {
                let priority = whole(value).map(|n| u8::try_from(n).unwrap_or(u8::MAX));
                new.options.priority = priority.unwrap_or(new.options.priority);
            }
            "countdown" => new.countdown = seconds(value),
            "eta" => new.eta = moment(value),
            "expires" => match seconds(value) {
                Some(after) => (new.options.expires, new.expires_at) = (Some(after), None),
                None => new.expires_at = moment(value),
            },
            "time_limit" => new.options.time_limit = limit(value).or(new.options.time_limit),
            "soft_time_limit" => new.options.soft_time_limit = limit(value).or(new.options.soft_time_limit),
            "retries" => new.retries = tally(value).unwrap_or(0),
            "max_retries" => {
                let most = count(value).or_else(|| value.as_u64().map(|_| u32::MAX));
                new.options.retry.max_retries = most.unwrap_or(new.options.retry.max_retries);
                new.options.stated.max_retries |= most.is_some();
            }
            // Python asks whether the value is true.
            "ignore_result" => new.options.ignore_result = !is_nothing(value),
            "durability" if *value == "memory" => new.options.durability = Durability::Memory,
            "durability" if *value == "disk" => new.options.durability = Durability::Disk,
            // Kombu writes the delivery mode as a word, or as the number that AMQP uses.
            "delivery_mode" if *value == "transient" || whole(value) == Some(1) => {
                new.options.durability = Durability::Memory;
            }
            "delivery_mode" if *value == "persistent" || whole(value) == Some(2) => {
                new.options.durability = Durability::Disk;
            }
            "headers" => {
                let headers = value.as_object().into_iter().flatten();
                new.headers.0.extend(headers.map(|(name, value)| (name.clone(), value.clone())));
            }
            "argsrepr" | "kwargsrepr" if value.is_string() => {
                new.headers.0.insert(key.to_owned(), value.value().clone());
            }
            "message_id" | "app_id" | "type" | "exchange" | "routing_key" | "compression"
                if value.is_string() =>
            {
                new.headers.set_property(key, value.value().clone());
            }
            "group_id" => workflow.group = text(value),
            "group_index" => workflow.group_index = count(value),
            "root_id" => workflow.root_id = id(value).or(workflow.root_id.take()),
            "replaced_task_nesting" => workflow.replaced_task_nesting = tally(value).unwrap_or(0),
            "reply_to" => workflow.reply_to = text(value),
            "shadow" => workflow.shadow = text(value),
            "stamped_headers" => {
                stamped = value.as_array().into_iter().flatten().filter_map(text).collect();
            }
            _ => {}
        }
    }
    for name in stamped {
        let value = options.get(&name).map_or(Value::Null, |value| value.value().clone());
        workflow.stamps.0.insert(name.clone(), value);
        if !workflow.stamped_headers.contains(&name) {
            workflow.stamped_headers.push(name);
        }
    }
}

/// A whole number from 0 on. A float such as Python's `5.0` counts as one.
fn whole(value: &Value) -> Option<u64> {
    // The conversion is exact below 2^53, and the comparison comes before the cut.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared before")]
    let of_float = |float: f64| {
        (float.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&float)).then_some(float as u64)
    };
    value.as_u64().or_else(|| value.as_f64().and_then(of_float))
}

/// A duration in seconds. A negative one is zero, and one that is too long lasts for ever.
fn seconds(value: &Value) -> Option<Duration> {
    time::seconds(value.as_f64()?)
}

/// A point in time as Python writes it. Without an offset it is in UTC.
fn moment(value: &Value) -> Option<Timestamp> {
    instant::read(value.as_str()?).map(|read| read.time)
}

/// Writes a point in time so that Python can read it; Python knows no year after 9999.
pub(crate) fn written(at: Timestamp) -> String {
    const LAST: i64 = 253_402_300_799_000_000;
    let micros = i64::try_from(at.as_micros()).unwrap_or(LAST).min(LAST);
    DateTime::from_timestamp_micros(micros).unwrap_or_default().to_rfc3339()
}

/// Writes the options of a call that differ from those of its task, in the form of a signature.
pub(crate) fn write_options(call: &NewTask, of_task: &TaskOptions) -> JsonMap {
    let mut options = JsonMap::new();
    let mut set =
        |key: &str, value: Option<Value>| options.extend(value.map(|value| (key.to_owned(), value.into())));
    let span = |span: Duration| Value::from(span.as_secs_f64());
    let time = |at: Timestamp| Value::from(written(at));
    let TaskOptions { queue, priority, retry, soft_time_limit, time_limit, expires, .. } = &call.options;
    set("task_id", call.id.as_ref().map(|id| Value::from(id.as_str())));
    set("queue", queue.clone().filter(|_| *queue != of_task.queue).map(Value::from));
    set("priority", (*priority != of_task.priority).then(|| Value::from(*priority)));
    let retries = retry.max_retries;
    // The program's default must not take the place of a number that the call states.
    let states_retries = call.options.stated.max_retries && !of_task.stated.max_retries;
    let differs = states_retries || retries != of_task.retry.max_retries;
    set("max_retries", differs.then(|| Value::from(retries)));
    set("time_limit", time_limit.filter(|_| *time_limit != of_task.time_limit).map(span));
    set("soft_time_limit", soft_time_limit.filter(|_| *soft_time_limit != of_task.soft_time_limit).map(span));
    set("expires", expires.filter(|_| *expires != of_task.expires).map(span));
    set("expires", call.expires_at.map(time));
    set("countdown", call.countdown.map(span));
    set("eta", call.eta.map(time));
    let ignore = call.options.ignore_result;
    set("ignore_result", (ignore != of_task.ignore_result).then(|| Value::from(ignore)));
    let durability = call.options.durability;
    let durability = (durability != of_task.durability).then(|| serde_json::to_value(durability).ok());
    set("durability", durability.flatten());
    // Celery has an option of its own for the text that is shown in place of the arguments.
    let (shown, headers): (Vec<_>, Vec<_>) = call
        .headers
        .0
        .clone()
        .into_iter()
        .filter(|(name, _)| name != PROPERTIES && name != SHOWN_AS_LIST)
        .partition(|(name, _)| matches!(name.as_str(), "argsrepr" | "kwargsrepr"));
    call.headers.properties().for_each(|(name, value)| set(name, Some(value.clone())));
    shown.into_iter().for_each(|(name, text)| set(&name, Some(text)));
    set("headers", (!headers.is_empty()).then(|| Value::Object(headers.into_iter().collect())));
    options
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: Value) -> (NewTask, Workflow) {
        let own = TaskOptions { time_limit: Some(Duration::from_secs(9)), ..TaskOptions::default() };
        let (mut call, mut workflow) = (NewTask::new("t", own), Workflow::default());
        let Value::Object(options) = options else { panic!("{options}") };
        read_options(&options.into(), &mut call, &mut workflow);
        (call, workflow)
    }

    /// Celery 5.7 hands these options of a step over as headers, so they mean what the headers of a message do.
    #[test]
    fn an_option_of_a_step_means_what_the_header_does() {
        for (limit, seconds) in [
            (json!("60"), Some(60.0)),
            (json!(" 1.5 "), Some(1.5)),
            (json!(60), Some(60.0)),
            (json!(0.25), Some(0.25)),
            (json!(0), None),
            (json!("0"), None),
            (json!(-1), None),
            (json!("-1"), None),
            (json!("soon"), None),
            (json!([60]), None),
        ] {
            let (call, _) = read(json!({"time_limit": limit, "soft_time_limit": limit}));
            let stated = seconds.map(Duration::from_secs_f64);
            assert_eq!(call.options.soft_time_limit, stated, "{limit}");
            // Without a limit of the call, that of the task holds.
            assert_eq!(call.options.time_limit, stated.or(Some(Duration::from_secs(9))), "{limit}");
        }
        for (number, retries, index) in [
            (json!("1"), 1, Some(1)),
            (json!(1), 1, Some(1)),
            (json!(1.0), 1, Some(1)),
            (json!(true), 1, Some(1)),
            (json!(1.5), 1, None),
            (json!(-1), 0, None),
            (json!("x"), 0, None),
            (json!(1_u64 << 40), u32::MAX, None),
        ] {
            let options = json!({"retries": number, "replaced_task_nesting": number, "group_index": number});
            let (call, workflow) = read(options);
            assert_eq!((call.retries, workflow.replaced_task_nesting), (retries, retries), "{number}");
            assert_eq!(workflow.group_index, index, "{number}");
        }
        for (ignore, ignored) in [
            (json!(1), true),
            (json!("yes"), true),
            (json!(true), true),
            (json!(0), false),
            (json!(""), false),
            (json!(false), false),
        ] {
            assert_eq!(read(json!({"ignore_result": ignore})).0.options.ignore_result, ignored, "{ignore}");
        }
        for (most, retries) in [(json!("2"), 2), (json!(2.0), 2), (json!(1_u64 << 40), u32::MAX)] {
            assert_eq!(read(json!({"max_retries": most})).0.options.retry.max_retries, retries, "{most}");
        }
    }
}
