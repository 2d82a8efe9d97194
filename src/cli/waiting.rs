//! `celeriac waiting`: lists the tasks that wait in an embedded store whose program does not run.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};

use super::Failure;
use super::filter::FilterArgs;
use super::place::open_store;
use super::table::{Column, TextTable};
use crate::broker::{Broker, EmbeddedBroker, Inspect, UnfinishedTask};

/// The width of an operator's terminal.
const WIDTH: usize = 160;

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct WaitingArgs {
    /// The ids of the tasks.
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// The directory of the store.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// List at most this many.
    #[arg(short, long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print the tasks as JSON, with their arguments.
    #[arg(short, long)]
    json: bool,
}

pub(super) fn run(args: &WaitingArgs, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = open_store(&args.directory)?;
        let done = list(args, &store, out).await;
        let closed = store.close().await;
        done?;
        Ok(closed?)
    })
}

async fn list(args: &WaitingArgs, store: &EmbeddedBroker, out: &mut impl Write) -> Result<(), Failure> {
    let filter = args.filter.filter(&args.ids)?;
    let tasks = store.list_unfinished(&filter, args.limit).await?;
    let all = match tasks.len() < args.limit {
        true => tasks.len(),
        false => store.unfinished_ids(&filter).await?.len(),
    };
    if args.json {
        let tasks: Vec<Value> = tasks.iter().map(told).collect();
        writeln!(out, "{}", json!({ "waiting": tasks, "all": all }))?;
        return Ok(());
    }
    let mut table = TextTable::new([
        Column::left("ID", 36),
        Column::left("QUEUE", 30),
        Column::left("TASK", 40),
        Column::left("STATE", 9),
        Column::left("SINCE", 24),
    ]);
    for UnfinishedTask { message, standing } in &tasks {
        table.add([
            message.id.to_string(),
            message.queue.clone(),
            message.task.clone(),
            standing.as_str().to_owned(),
            message.enqueued_at.to_string(),
        ]);
    }
    if !tasks.is_empty() {
        out.write_all(table.render(WIDTH).as_bytes())?;
    }
    let what = if all == 1 { "task" } else { "tasks" };
    writeln!(out, "{} of {all} waiting {what} that match.", tasks.len())?;
    Ok(())
}

/// A task for programs.
fn told(UnfinishedTask { message, standing }: &UnfinishedTask) -> Value {
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let (args, kwargs) = match (message.hides_arguments(), message.arguments.kwargs.as_str()) {
        (true, _) => (Value::Null, Value::Null),
        (false, "") => (value(&message.arguments.args), json!({})),
        (false, kwargs) => (value(&message.arguments.args), value(kwargs)),
    };
    json!({
        "id": message.id.as_str(), "task": message.task, "queue": message.queue, "state": standing.as_str(),
        "args": args, "kwargs": kwargs, "since": message.enqueued_at.to_string(), "retries": message.retries,
        "last_errors": message.last_errors,
    })
}
