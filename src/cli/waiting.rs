//! `celeriac waiting`: lists the tasks that wait in an embedded store whose program does not run.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};

use super::Failure;
use super::filter::{FilterArgs, by_index, by_which_index};
use super::place::open_store;
use super::table::{Column, TextTable};
use crate::broker::{Broker, EmbeddedBroker, Inspect, TaskFilter, UnfinishedTask};

/// The width of an operator's terminal.
const WIDTH: usize = 160;
/// The most tasks of one page of the list.
const PAGE: usize = 1000;

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
    /// Look through all tasks, also where there is an index of an argument. It finds those too that were enqueued before they
    /// declared that they are searched for by it.
    #[arg(long)]
    scan: bool,
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
    let filter = by_index(args.filter.filter(&args.ids)?, store, args.scan)?;
    let WaitingTasks { tasks, all, by_index } = look(store, &filter, args.limit).await?;
    if args.json {
        let tasks: Vec<Value> = tasks.iter().map(told).collect();
        writeln!(out, "{}", json!({ "waiting": tasks, "all": all, "by_index": by_index }))?;
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
    writeln!(
        out,
        "{} of {all} waiting {what} that match.{}",
        tasks.len(),
        by_which_index(by_index.as_deref())
    )?;
    Ok(())
}

/// The tasks that match.
struct WaitingTasks {
    /// The first of them, as many as are listed.
    tasks: Vec<UnfinishedTask>,
    /// How many there are.
    all: usize,
    /// The argument by whose index they were found.
    by_index: Option<String>,
}

/// Looks for the tasks page by page. While that takes its time, it tells somebody at a terminal how far it is.
async fn look(store: &EmbeddedBroker, filter: &TaskFilter, limit: usize) -> Result<WaitingTasks, Failure> {
    let mut found = WaitingTasks { tasks: Vec::new(), all: 0, by_index: None };
    let (mut after, mut looked_at) = (None::<String>, 0);
    loop {
        let page = store.page_unfinished(filter, &[], after.as_deref(), PAGE).await?;
        found.all += page.tasks.len();
        found.tasks.extend(page.tasks.into_iter().take(limit.saturating_sub(found.tasks.len())));
        found.by_index = found.by_index.or(page.by_index);
        looked_at += page.looked_at.unwrap_or_default();
        let is_told = after.is_some() && io::stderr().is_terminal();
        after = page.next;
        if is_told {
            // Each number stands in the place of the one before, and the last one makes room for the list.
            let end = if after.is_some() { "" } else { "\r\x1b[K" };
            write!(io::stderr(), "\r{looked_at} tasks looked through{end}")?;
        }
        if after.is_none() {
            return Ok(found);
        }
    }
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
