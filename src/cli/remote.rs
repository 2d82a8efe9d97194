//! `celeriac status`, `celeriac inspect` and `celeriac control`: Celery's remote control from the command line.
//!
//! Arguments, output and exit codes are those of Celery's own commands of the same names. Nodes of both kinds reply. With
//! `--directory`, the program that has an embedded store open does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::local::{StoreOrProgram, open_or_ask};
use super::place::{FleetSource, connect};
use super::{Failure, remote_arguments};
use crate::app::{Fleet, NodeReplies};
use crate::broker::Broker as _;

/// Where the fleet is, and how it is asked.
#[derive(Debug, Args)]
struct FleetArgs {
    #[command(flatten)]
    source: FleetSource,
    /// The directory of an embedded store whose program runs: that program is asked.
    #[arg(long, value_name = "DIR", conflicts_with = "destination")]
    directory: Option<PathBuf>,
    /// Only these nodes, with commas between their names.
    #[arg(short, long, value_name = "NODES", value_delimiter = ',')]
    destination: Vec<String>,
    /// How many seconds to wait for replies.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0)]
    timeout: f64,
    /// Print the replies as JSON.
    #[arg(short, long)]
    json: bool,
}

/// The arguments of `celeriac status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    fleet: FleetArgs,
}

/// The arguments of `celeriac inspect` and `celeriac control`.
#[derive(Debug, Args)]
pub(super) struct RemoteArgs {
    /// The command: `active`, `stats`, `rate_limit`, ..., or one that a program has added.
    #[arg(value_name = "METHOD")]
    method: String,
    /// Its arguments, in Celery's order; those of a program's own command as `name=value`.
    #[arg(value_name = "ARGS", allow_negative_numbers = true)]
    arguments: Vec<String>,
    #[command(flatten)]
    fleet: FleetArgs,
}

/// Prints which nodes are there.
pub(super) fn status(args: &StatusArgs, out: &mut impl Write) -> Result<(), Failure> {
    let replies = ask(&args.fleet, "ping", Map::new())?;
    if args.fleet.json {
        writeln!(out, "{}", json!(replies))?;
    } else {
        for (node, reply) in &replies {
            write!(out, "{}", said(node, reply, false))?;
        }
    }
    online(replies.len(), out)
}

/// Asks the nodes something, and prints what they say.
pub(super) fn inspect(args: &RemoteArgs, out: &mut impl Write) -> Result<(), Failure> {
    let arguments = remote_arguments::inspect(&args.method, &args.arguments).map_err(Failure::CommandLine)?;
    let replies = ask(&args.fleet, &args.method, arguments)
        .map_err(|failure| unknown(failure, remote_arguments::unknown_question(&args.method)))?;
    if args.fleet.json {
        writeln!(out, "{}", json!(replies))?;
        return Ok(());
    }
    for (node, reply) in &replies {
        write!(out, "{}", said(node, reply, true))?;
    }
    online(replies.len(), out)
}

/// Tells the nodes to change something, and prints what they say.
pub(super) fn control(args: &RemoteArgs, out: &mut impl Write) -> Result<(), Failure> {
    let arguments = remote_arguments::control(&args.method, &args.arguments).map_err(Failure::CommandLine)?;
    let replies = ask(&args.fleet, &args.method, arguments)
        .map_err(|failure| unknown(failure, remote_arguments::unknown_command(&args.method)))?;
    if args.fleet.json {
        let list: Vec<Value> = replies.into_iter().map(|(node, reply)| json!({ node: reply })).collect();
        writeln!(out, "{}", json!(list))?;
        return Ok(());
    }
    for (node, reply) in &replies {
        write!(out, "{}", said(node, reply, true))?;
    }
    Ok(())
}

/// Asks, and waits for the replies; that there is none is a failure with an exit code of its own.
fn ask(args: &FleetArgs, method: &str, arguments: Map<String, Value>) -> Result<NodeReplies, Failure> {
    let patience = patience(args.timeout)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(directory) = &args.directory {
        return runtime.block_on(ask_program(directory, method, arguments));
    }
    let url = args.source.url()?;
    let replies = runtime.block_on(async {
        let broker = connect(url).await?;
        let mut fleet = Fleet::over(Arc::clone(&broker)).within(patience);
        if !args.destination.is_empty() {
            fleet = fleet.nodes(args.destination.iter().cloned());
        }
        let replies = fleet.inspect(method, Value::Object(arguments)).await;
        let _ = broker.close().await;
        Ok::<_, Failure>(replies?)
    })?;
    if replies.is_empty() { Err(Failure::NoReply) } else { Ok(replies) }
}

/// Asks the program that has the store in this directory open.
async fn ask_program(
    directory: &Path,
    method: &str,
    arguments: Map<String, Value>,
) -> Result<NodeReplies, Failure> {
    match open_or_ask(directory).await? {
        StoreOrProgram::Program(program) => program.replies(method, Value::Object(arguments)).await,
        StoreOrProgram::Store(store) => {
            store.close().await?;
            let text = "The program of this store does not run, so nobody can be asked.";
            Err(Failure::Found(text.to_owned()))
        }
    }
}

/// That nobody replies to a command which nobody has to know may be a slip of the pen.
fn unknown(failure: Failure, about: Option<String>) -> Failure {
    match (failure, about) {
        (Failure::NoReply, Some(about)) => Failure::Unknown(about),
        (failure, _) => failure,
    }
}

/// How long nodes have to reply.
pub(super) fn patience(seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| Failure::CommandLine(format!("--timeout {seconds}: it takes a number of seconds")))
}

fn online(nodes: usize, out: &mut impl Write) -> Result<(), Failure> {
    writeln!(out, "\n{nodes} {} online.", if nodes == 1 { "node" } else { "nodes" })?;
    Ok(())
}

/// A node's reply as Celery prints it.
pub(super) fn said(node: &str, reply: &Value, with_body: bool) -> String {
    let (word, body) = match reply {
        Value::Object(object) if object.contains_key("ok") => ("OK", indented(&printed(&object["ok"]))),
        Value::Object(object) if object.contains_key("error") => {
            ("ERROR", indented(&printed(&object["error"])))
        }
        other => ("OK", printed(other)),
    };
    let body = if with_body { indented(&body) } else { String::new() };
    format!("->  {node}: {word}\n{body}")
}

/// A value: a line for each item of a list, text as it is, anything else as JSON.
fn printed(value: &Value) -> String {
    match value {
        Value::Array(items) if items.is_empty() => "- empty -".to_owned(),
        Value::Array(items) => {
            let item = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            items.iter().map(|value| format!("* {}", item(value))).collect::<Vec<_>>().join("\n")
        }
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_printed_by_its_type() {
        let pong = json!({"ok": "pong"});
        assert_eq!(said("w@h", &pong, false), "->  w@h: OK\n");
        assert_eq!(said("w@h", &pong, true), "->  w@h: OK\n        pong\n");
        assert_eq!(said("w@h", &json!({"error": "no"}), true), "->  w@h: ERROR\n        no\n");
        assert_eq!(said("w@h", &json!([]), true), "->  w@h: OK\n    - empty -\n");
        assert_eq!(said("w@h", &json!(["a", {"b": 1}]), true), "->  w@h: OK\n    * a\n    * {\"b\":1}\n");
        assert_eq!(
            said("w@h", &json!({"clock": 5}), true),
            "->  w@h: OK\n    {\n      \"clock\": 5\n    }\n"
        );
    }
}
