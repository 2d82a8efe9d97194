//! `celeriac events`: prints what happens to workers and tasks on RabbitMQ, as `celery events --dump` does.

use std::collections::{HashMap, VecDeque};
use std::io::Write;

use clap::Args;
use regex::Regex;
use serde_json::{Map, Value};

use super::Failure;
use super::place::{FleetSource, rabbitmq};
use super::requeue::glob;
use crate::broker::Broker;
use crate::catalogue::one_line;
use crate::core::{Timestamp, instant};
use crate::protocol::repr;

/// The most tasks that are remembered with their names, which only the first event of a task has.
const REMEMBERED: usize = 10_000;
/// The last second of the year 9999.
const LATEST: f64 = 253_402_300_799.0;

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    source: FleetSource,
    /// Only events of tasks whose name matches; `*` stands for any text. A task whose `task-received` or `task-sent` was
    /// not heard has no name.
    #[arg(long, value_name = "GLOB")]
    task: Option<String>,
    /// Only events of these types, such as `task-failed` or `worker-*`, with commas between them.
    #[arg(long = "type", value_name = "GLOBS", value_delimiter = ',')]
    types: Vec<String>,
    /// End after so many events.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print each event as a line of JSON, as it was sent.
    #[arg(short, long)]
    json: bool,
}

pub(super) fn run(args: &EventsArgs, out: &mut impl Write) -> Result<(), Failure> {
    let url = args.source.url()?;
    let mut printer = EventPrinter::new(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let broker = rabbitmq(url).await?;
        let mut events = broker.fleet_events().await?;
        // The output has events only.
        eprintln!("Listening to events; stop with Ctrl-C.");
        let mut left = args.count;
        while left != Some(0)
            && let Some(event) = events.next().await
        {
            if let Some(line) = printer.line(event) {
                writeln!(out, "{line}")?;
                out.flush()?;
                left = left.map(|left| left - 1);
            }
        }
        Ok(broker.close().await?)
    })
}

/// Chooses events, and writes them as lines.
struct EventPrinter {
    task: Option<Regex>,
    types: Vec<Regex>,
    json: bool,
    tasks: KnownTasks,
}

impl EventPrinter {
    fn new(args: &EventsArgs) -> Result<Self, Failure> {
        let pattern = |text: &String| {
            glob(text).ok_or_else(|| Failure::CommandLine(format!("`{text}` is no pattern that can be used")))
        };
        Ok(Self {
            task: args.task.as_ref().map(pattern).transpose()?,
            types: args.types.iter().map(pattern).collect::<Result<_, _>>()?,
            json: args.json,
            tasks: KnownTasks::default(),
        })
    }

    /// The line of an event; `None`: it is not asked for.
    fn line(&mut self, mut event: Map<String, Value>) -> Option<String> {
        // Before anything is left out, because later events of the task need it.
        self.tasks.learn(&event);
        let kind = event.get("type")?.as_str()?.to_lowercase();
        let task = event.get("uuid").and_then(Value::as_str).and_then(|id| self.tasks.get(id));
        let is_wanted = self.types.is_empty() || self.types.iter().any(|pattern| pattern.is_match(&kind));
        let is_of_task =
            self.task.as_ref().is_none_or(|pattern| task.is_some_and(|task| pattern.is_match(&task.name)));
        if !is_wanted || !is_of_task {
            return None;
        }
        if self.json {
            return Some(Value::Object(event).to_string());
        }
        let at = time(event.remove("timestamp").and_then(|at| at.as_f64()).unwrap_or_default());
        let node = event.remove("hostname").map(|node| shown(&node)).unwrap_or_default();
        event.remove("type");
        let mut said = Vec::new();
        if let Some(id) = event.remove("uuid") {
            said.push(task.map_or_else(|| format!("({})", shown(&id)), |task| task.described.clone()));
            if matches!(&*kind, "task-received" | "task-sent") {
                for told in ["name", "args", "kwargs"] {
                    event.remove(told);
                }
            }
        }
        let mut fields: Vec<String> =
            event.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
        fields.sort_unstable();
        said.push(fields.join(", "));
        let word = match &*kind {
            "worker-online" => "started".to_owned(),
            "worker-heartbeat" => "heartbeat".to_owned(),
            "worker-offline" => "shutdown".to_owned(),
            other => other.replace('-', " "),
        };
        // A text of a stranger must not steer the terminal, nor take a second line.
        Some(one_line(&format!("{node} [{at}] {word}: {}", said.join(" "))))
    }
}

/// What is known of a task by its first event.
struct KnownTask {
    name: String,
    /// The task with its arguments, as Celery shows it.
    described: String,
}

/// The tasks that were heard of last.
#[derive(Default)]
struct KnownTasks {
    by_id: HashMap<String, KnownTask>,
    by_age: VecDeque<String>,
}

impl KnownTasks {
    fn learn(&mut self, event: &Map<String, Value>) {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let (Some(id), Some(name)) = (text("uuid"), text("name")) else { return };
        let shown = |name: &str| event.get(name).map(shown).unwrap_or_default();
        let described = format!("{name}({id}) args={} kwargs={}", shown("args"), shown("kwargs"));
        let known = KnownTask { name: name.to_owned(), described };
        if self.by_id.insert(id.to_owned(), known).is_none() {
            self.by_age.push_back(id.to_owned());
        }
        while self.by_age.len() > REMEMBERED {
            if let Some(oldest) = self.by_age.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }

    fn get(&self, id: &str) -> Option<&KnownTask> {
        self.by_id.get(id)
    }
}

/// A value as Python's `str` shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr::value(&other.to_string()),
    }
}

/// A time in seconds since 1970 as Python's `str` shows it, in UTC.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is between the years 1970 and 9999
fn time(seconds: f64) -> String {
    let micros = (seconds.clamp(0.0, LATEST) * 1e6).round() as u64;
    instant::write(Timestamp::from_micros(micros)).replacen('T', " ", 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printer(task: Option<&str>, types: &[&str], json: bool) -> EventPrinter {
        let pattern = |text: &str| glob(text).expect("a pattern");
        let types = types.iter().map(|text| pattern(text)).collect();
        EventPrinter { task: task.map(pattern), types, json, tasks: KnownTasks::default() }
    }

    fn event(kind: &str, fields: Value) -> Map<String, Value> {
        let Value::Object(mut event) = fields else { panic!("an object") };
        event.insert("type".into(), kind.into());
        event.insert("hostname".into(), "w@h".into());
        event.insert("timestamp".into(), json!(1_795_339_462.481_693));
        event
    }

    fn received() -> Map<String, Value> {
        let task = json!({"uuid": "1", "name": "mail.send", "args": "(5,)", "kwargs": "{}", "eta": null});
        event("task-received", task)
    }

    /// The lines that `celery events --dump` of Celery 5.7 prints of the same events.
    #[test]
    fn events_are_printed_as_celery_does() {
        let mut printer = printer(None, &[], false);
        let at = "w@h [2026-11-22 09:24:22.481693+00:00]";
        let vitals = json!({"freq": 2.0, "loadavg": [0.5, 1.0], "sw_ident": "celeriac"});
        let heartbeat = event("worker-heartbeat", vitals);
        assert_eq!(
            printer.line(heartbeat),
            Some(format!("{at} heartbeat: freq=2.0, loadavg=[0.5, 1.0], sw_ident=celeriac"))
        );
        let task = "mail.send(1) args=(5,) kwargs={}";
        assert_eq!(printer.line(received()), Some(format!("{at} task received: {task} eta=None")));
        let succeeded = event("task-succeeded", json!({"uuid": "1", "result": "'a\nb'", "runtime": 0.5}));
        assert_eq!(
            printer.line(succeeded),
            Some(format!("{at} task succeeded: {task} result='a b', runtime=0.5"))
        );
        let unheard = event("task-failed", json!({"uuid": "2", "exception": "E('\u{1b}[31m')"}));
        assert_eq!(printer.line(unheard), Some(format!("{at} task failed: (2) exception=E('[31m')")));
    }

    #[test]
    fn only_what_is_asked_for_is_printed() {
        let failed = || event("task-failed", json!({"uuid": "1", "exception": "E()"}));
        let mut of_task = printer(Some("mail.*"), &["task-failed"], true);
        assert_eq!(of_task.line(failed()), None, "its name is not known yet");
        assert_eq!(of_task.line(received()), None, "another type");
        assert_eq!(of_task.line(failed()), Some(Value::Object(failed()).to_string()));
        assert_eq!(of_task.line(event("worker-online", json!({}))), None, "of no task");
        let mut others = printer(Some("*.other"), &[], true);
        assert_eq!((others.line(received()), others.line(failed())), (None, None));
        let mut workers = printer(None, &["worker-*", "task-sent"], true);
        assert!(workers.line(event("worker-online", json!({}))).is_some());
        assert_eq!(workers.line(failed()), None);
    }
}
