//! `celeriac revoke`: revokes tasks by their ids, or all that can be found of a name.
//!
//! In an embedded store every task can be found, by all that its message says. In RabbitMQ nobody can look: only what
//! workers hold is known, by asking them, and the command says what it could not see.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use futures_util::future::try_join_all;
use regex::Regex;
use serde_json::{Value, json};

use super::Failure;
use super::filter::FilterArgs;
use super::place::{BrokerSource, Place, RabbitMq, open_store, rabbitmq};
use super::remote::{patience, said};
use super::requeue::glob;
use crate::app::{ControlError, Fleet, NodeReplies, order};
use crate::broker::{Broker, EmbeddedBroker, Inspect};
use crate::task::TaskId;

/// The most ids of one request.
const AT_A_TIME: usize = 1000;
/// How often workers are asked what they hold. Each answer has a thousand tasks at most, and revoked ones make room.
const LOOKS: usize = 20;

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The ids of the tasks.
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Also end those that run.
    #[arg(long)]
    terminate: bool,
    #[command(flatten)]
    source: BrokerSource,
    /// How many seconds to wait for replies of workers.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0)]
    timeout: f64,
    /// Print what was done as JSON.
    #[arg(short, long)]
    json: bool,
}

impl RevokeArgs {
    /// Makes sure that the command line says what to revoke, in one way.
    fn check(&self) -> Result<(), Failure> {
        let wrong = match (self.ids.is_empty(), self.filter.is_empty()) {
            (true, true) => {
                "name the tasks by their ids, or say which ones with --task, --queue and the like"
            }
            (false, false) => "an id says by itself which task is meant: leave the other conditions out",
            _ => return Ok(()),
        };
        Err(Failure::CommandLine(wrong.to_owned()))
    }

    /// The pattern for names, which is all that workers can be asked by; `None`: the tasks are named by their ids.
    fn pattern(&self) -> Result<Option<Regex>, Failure> {
        if !self.ids.is_empty() {
            return Ok(None);
        }
        let Some(text) = self.filter.only_task() else {
            return Err(Failure::CommandLine(
                "over RabbitMQ nobody can look into the messages that wait: name the tasks by --task alone, or by their ids"
                    .to_owned(),
            ));
        };
        let wrong = || Failure::CommandLine(format!("`{text}` is no pattern that can be used"));
        glob(text).map(Some).ok_or_else(wrong)
    }
}

pub(super) fn run(args: &RevokeArgs, out: &mut impl Write) -> Result<(), Failure> {
    let place = args.source.chosen()?;
    args.check()?;
    let patience = patience(args.timeout)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match place {
            Place::Directory(directory) => in_store(args, directory, out).await,
            Place::RabbitMq(url) => {
                let pattern = args.pattern()?;
                let broker = rabbitmq(url).await?;
                let fleet = Fleet::over(Arc::clone(&broker) as Arc<dyn Broker>).within(patience);
                let done = match &pattern {
                    Some(pattern) => held(args, &broker, &fleet, pattern, out).await,
                    None => by_id(args, &fleet, out).await,
                };
                let _ = broker.close().await;
                done
            }
        }
    })
}

/// Leaves an order in the store for each task that is not over; nothing runs, so `--terminate` makes no difference.
async fn in_store(args: &RevokeArgs, directory: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let store = open_store(directory)?;
    let done = order_in(args, &store, out).await;
    let closed = store.close().await;
    done?;
    Ok(closed?)
}

async fn order_in(args: &RevokeArgs, store: &EmbeddedBroker, out: &mut impl Write) -> Result<(), Failure> {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    match args.ids.is_empty() {
        true => found = store.unfinished_ids(&args.filter.filter(&[])?).await?,
        false => {
            for id in args.ids.iter().map(|id| TaskId::from(id.as_str())) {
                match store.find(&id).await? {
                    Some(_) => found.push(id),
                    None => unknown.push(id),
                }
            }
        }
    }
    order(store, &found).await?;
    if args.json {
        writeln!(out, "{}", json!({ "revoked": found, "unknown": unknown }))?;
        return Ok(());
    }
    for id in &unknown {
        writeln!(out, "{id} does not wait here: it is over, or was never here")?;
    }
    let tasks = if found.len() == 1 { "task is" } else { "tasks are" };
    writeln!(out, "{} {tasks} revoked when the program starts, before anything runs.", found.len())?;
    Ok(())
}

/// Tells all workers that these ids are revoked, and prints what they say.
async fn by_id(args: &RevokeArgs, fleet: &Fleet, out: &mut impl Write) -> Result<(), Failure> {
    let mut replies = NodeReplies::new();
    for ids in args.ids.chunks(AT_A_TIME) {
        replies.extend(revoke(fleet, ids, args.terminate).await?);
    }
    if replies.is_empty() {
        return Err(Failure::NoReply);
    }
    if args.json {
        writeln!(out, "{}", json!({ "revoked": args.ids, "replies": replies }))?;
        return Ok(());
    }
    for (node, reply) in &replies {
        write!(out, "{}", said(node, reply, true))?;
    }
    Ok(())
}

async fn revoke<S: AsRef<str>>(
    fleet: &Fleet,
    ids: &[S],
    terminate: bool,
) -> Result<NodeReplies, ControlError> {
    let ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
    let signal = terminate.then_some("SIGTERM");
    fleet.control("revoke", json!({ "task_id": ids, "terminate": terminate, "signal": signal })).await
}

/// The questions that say which tasks workers hold.
const QUESTIONS: [&str; 3] = ["active", "reserved", "scheduled"];

/// Revokes the tasks of a name that workers hold, and says what nobody could see.
async fn held(
    args: &RevokeArgs,
    broker: &RabbitMq,
    fleet: &Fleet,
    pattern: &Regex,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut nodes = BTreeSet::new();
    // Each task with the question whose answer had it last.
    let mut found: BTreeMap<String, &'static str> = BTreeMap::new();
    for _ in 0..LOOKS {
        let asked = QUESTIONS.map(|question| fleet.inspect(question, Value::Null));
        let mut new = Vec::new();
        for (question, replies) in QUESTIONS.into_iter().zip(try_join_all(asked).await?) {
            for (node, tasks) in replies {
                for id in ids_of(&tasks, pattern) {
                    if found.insert(id.clone(), question).is_none() {
                        new.push(id);
                    }
                }
                nodes.insert(node);
            }
        }
        if nodes.is_empty() {
            return Err(Failure::NoReply);
        }
        if new.is_empty() {
            break;
        }
        for ids in new.chunks(AT_A_TIME) {
            revoke(fleet, ids, args.terminate).await?;
        }
    }
    let mut not_seen = BTreeMap::new();
    let queues: BTreeSet<String> =
        fleet.inspect("active_queues", Value::Null).await?.values().flat_map(names_of).collect();
    for queue in queues {
        if let Some(waiting) = broker.waiting(&queue).await?.filter(|waiting| *waiting > 0) {
            not_seen.insert(queue, waiting);
        }
    }
    if args.json {
        writeln!(out, "{}", json!({ "revoked": found, "nodes": nodes, "not_seen": not_seen }))?;
        return Ok(());
    }
    let (tasks, workers) = (counted(found.len(), "task"), counted(nodes.len(), "node"));
    let [running, reserved, scheduled] =
        QUESTIONS.map(|question| found.values().filter(|place| **place == question).count());
    writeln!(
        out,
        "{tasks} revoked on {workers}: {running} active, {reserved} reserved, {scheduled} scheduled."
    )?;
    if running > 0 && !args.terminate {
        writeln!(out, "Those that are active go on; --terminate ends them.")?;
    }
    let waiting: Vec<String> = not_seen.iter().map(|(queue, count)| format!("{queue}: {count}")).collect();
    let waiting = if waiting.is_empty() { String::new() } else { format!(" ({})", waiting.join(", ")) };
    writeln!(
        out,
        "Not seen: messages that wait in RabbitMQ{waiting}, and what nodes hold that did not reply. Run this again when they are delivered."
    )?;
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The ids of the tasks in a worker's answer whose names match. What waits for its time is the `request` of its entry.
fn ids_of(tasks: &Value, pattern: &Regex) -> Vec<String> {
    let tasks = tasks.as_array().into_iter().flatten();
    let requests = tasks.map(|task| task.get("request").unwrap_or(task));
    let wanted = requests.filter(|request| {
        let name = |key: &str| request.get(key).and_then(Value::as_str);
        name("name").or(name("type")).is_some_and(|name| pattern.is_match(name))
    });
    wanted.filter_map(|request| request.get("id")?.as_str().map(str::to_owned)).collect()
}

/// The names in a worker's answer to `active_queues`.
fn names_of(queues: &Value) -> Vec<String> {
    let queues = queues.as_array().into_iter().flatten();
    queues.filter_map(|queue| queue.get("name")?.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_of_a_name_are_found_in_an_answer() {
        let pattern = glob("mail.*").expect("a pattern");
        let active = json!([
            {"id": "1", "name": "mail.send", "type": "mail.send"}, {"id": "2", "name": "other"},
            {"name": "mail.send"}, {"id": "3", "type": "mail.old"}, 5, null,
        ]);
        assert_eq!(ids_of(&active, &pattern), ["1", "3"]);
        let scheduled = json!([{"eta": "…", "priority": 0, "request": {"id": "4", "name": "mail.send"}}]);
        assert_eq!(ids_of(&scheduled, &pattern), ["4"]);
        for odd in [json!({"error": "no"}), json!(null), json!("mail.send")] {
            assert!(ids_of(&odd, &pattern).is_empty() && names_of(&odd).is_empty(), "{odd}");
        }
        assert_eq!(names_of(&json!([{"name": "email"}, {"exchange": {}}])), ["email"]);
    }
}
