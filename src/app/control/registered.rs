//! The tasks of this program, with what they state.

use std::time::Duration;

use serde_json::Value;

use super::{CommandResult, ControlCommand};
use crate::runtime::start_limits::StartLimits;
use crate::runtime::task_levers::TaskLevers;
use crate::task::TaskOptions;

/// What is told of each task if the question names nothing.
const DEFAULT: [&str; 3] = ["exchange", "routing_key", "rate_limit"];
/// The most attributes of one question.
const MOST: usize = 100;

/// The names of the tasks, each with the attributes that were asked for and that it has.
pub(super) fn registered(command: &ControlCommand<'_>) -> CommandResult {
    let asked: Vec<&str> = command.arguments.texts("taskinfoitems");
    let asked = if asked.is_empty() { DEFAULT.to_vec() } else { asked };
    let asked: Vec<&str> = asked.into_iter().filter(|item| !item.starts_with('_')).take(MOST).collect();
    let with_builtins = command.arguments.switch("builtins");
    let runtime = &command.inner.runtime;
    let registry = &runtime.dispatcher.registry;
    let names = registry.names().into_iter();
    let names = names.filter(|name| with_builtins || !name.starts_with("celery."));
    let limits = (&runtime.levers, &*runtime.limits);
    let told = names.filter_map(|name| Some(described(name, &registry.options(name)?, &asked, limits)));
    Ok(told.map(Value::from).collect())
}

/// The limits of tasks: those of each process, and those by keys.
type TaskLimits<'a> = (&'a TaskLevers, &'a StartLimits);

fn described(task: &str, options: &TaskOptions, asked: &[&str], limits: TaskLimits<'_>) -> String {
    let told =
        asked.iter().filter_map(|item| Some(format!("{item}={}", attribute(task, options, item, limits)?)));
    let told: Vec<String> = told.collect();
    if told.is_empty() { task.to_owned() } else { format!("{task} [{}]", told.join(" ")) }
}

/// An attribute of a Celery task as Python's `str` shows it; `None`: the task has no such attribute, or it is `None`.
fn attribute(
    task: &str,
    options: &TaskOptions,
    name: &str,
    (levers, limits): TaskLimits<'_>,
) -> Option<String> {
    let (soft, hard) = levers.time_limits_of(task).unwrap_or((options.soft_time_limit, options.time_limit));
    let truth = |value: bool| Some(if value { "True" } else { "False" }.to_owned());
    match name {
        "name" => Some(task.to_owned()),
        "rate_limit" => levers.rate_of(task).or_else(|| limits.rate_of(task)),
        "max_retries" => {
            Some(options.retry.max_retries).filter(|most| *most != u32::MAX).map(|most| most.to_string())
        }
        "queue" => options.queue.clone(),
        "priority" => Some(options.priority).filter(|priority| *priority > 0).map(|p| p.to_string()),
        "soft_time_limit" => soft.map(seconds),
        "time_limit" => hard.map(seconds),
        "expires" => options.expires.map(seconds),
        "acks_late" => truth(options.acks_late),
        "acks_on_failure_or_timeout" => truth(options.acks_on_failure_or_timeout),
        "ignore_result" => truth(options.ignore_result),
        "store_errors_even_if_ignored" => truth(options.store_errors_even_if_ignored),
        "track_started" => truth(options.track_started),
        "serializer" => Some("json".to_owned()),
        _ => None,
    }
}

/// Seconds, with a fraction if there is one.
fn seconds(length: Duration) -> String {
    length.as_secs_f64().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_described_as_celery_does() {
        let levers = TaskLevers::default();
        let options =
            TaskOptions { soft_time_limit: Some(Duration::from_millis(1500)), ..TaskOptions::default() };
        let by_keys = StartLimits::default();
        let told = |asked: &[&str]| described("cap.rl", &options, asked, (&levers, &by_keys));
        assert_eq!(told(&DEFAULT), "cap.rl");
        assert_eq!(
            told(&["name", "nosuch", "soft_time_limit", "time_limit"]),
            "cap.rl [name=cap.rl soft_time_limit=1.5]"
        );
        assert_eq!(told(&["acks_late", "ignore_result"]), "cap.rl [acks_late=True ignore_result=False]");
        levers.limit_rate("cap.rl", "2/s", Some(2.0));
        levers.limit_time("cap.rl", (None, Some(Duration::from_secs(10))));
        assert_eq!(told(&DEFAULT), "cap.rl [rate_limit=2/s]");
        assert_eq!(told(&["soft_time_limit", "time_limit"]), "cap.rl [time_limit=10]");
    }
}
