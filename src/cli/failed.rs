//! `celeriac failed`: lists tasks that have failed for good, puts them back into their queues, as they are or with other
//! arguments, and deletes them. One is named by its id; without ids, all that match are meant.

use std::io::{self, Write};
use std::sync::Arc;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::filter::{FilterArgs, argument, by_index, by_which_index};
use super::place::{BrokerSource, Place, TaskSource, open, open_store};
use super::purge::says_yes;
use super::requeue::open_with_records;
use super::table::{Column, TextTable};
use crate::broker::{
    Broker, EmbeddedBroker, FailedTask, FailedTasks, Retried, TaskEdit, TaskFilter, is_outbox_line,
};
use crate::catalogue::{Argument, one_line};
use crate::task::{Arguments, FailedAttempt, LogLine, Message, TaskId};

/// The width of an operator's terminal.
const WIDTH: usize = 160;
/// How many tasks go back, or are deleted, in one step.
const BATCH: usize = 1000;

/// The subcommands about failed tasks.
#[derive(Debug, Subcommand)]
pub(super) enum FailedCommand {
    /// List failed tasks, the oldest first.
    List(FailedListArgs),
    /// Put failed tasks back into their queues, with their attempts counted anew.
    ///
    /// Without ids and conditions, all go back. With --set, --args or --kwargs, they go back with other arguments.
    Retry(RetryArgs),
    /// Delete failed tasks. It cannot be undone.
    ///
    /// Without ids and conditions, all are deleted. Their records stay.
    Delete(DeleteArgs),
}

/// The arguments of `celeriac failed list`.
#[derive(Debug, Args)]
pub(super) struct FailedListArgs {
    /// The ids of the tasks.
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    source: BrokerSource,
    /// List at most this many.
    #[arg(short, long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Look through all tasks, also where a store has an index of an argument. It finds those too that were enqueued before they
    /// declared that they are searched for by it.
    #[arg(long)]
    scan: bool,
    /// Print the arguments and the attempts of each task below the table.
    #[arg(short, long)]
    verbose: bool,
    /// Print the tasks as JSON, with their arguments and attempts.
    #[arg(short, long)]
    json: bool,
}

/// The arguments of `celeriac failed retry`.
#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// The ids of the tasks.
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    place: TaskSource,
    /// Set one argument, by its name or by its position, from 0. VALUE is JSON; what is no JSON is a text. May be given
    /// more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = argument)]
    set: Vec<(Argument, String)>,
    /// Set all positional arguments, as a JSON array.
    #[arg(long, value_name = "JSON")]
    args: Option<String>,
    /// Set all arguments that are given by name, as a JSON object.
    #[arg(long, value_name = "JSON")]
    kwargs: Option<String>,
    /// Print the ids of the tasks that would go back, and put none of them back.
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print what was done as JSON.
    #[arg(short, long)]
    json: bool,
}

/// The arguments of `celeriac failed delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The ids of the tasks.
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    source: BrokerSource,
    /// Do not ask whether it is meant.
    #[arg(short, long)]
    yes: bool,
    /// Print the ids of those that were deleted as JSON.
    #[arg(short, long)]
    json: bool,
}

pub(super) fn run(command: &FailedCommand, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = match command {
            FailedCommand::List(args) => store_of(args)?,
            _ => None,
        };
        let broker: Arc<dyn Broker> = match command {
            FailedCommand::List(args) => match &store {
                Some(store) => Arc::new(store.clone()),
                None => open(args.source.chosen()?).await?,
            },
            FailedCommand::Retry(args) => open_with_records(&args.place, args.dry_run).await?,
            FailedCommand::Delete(args) => open(args.source.chosen()?).await?,
        };
        let done = match (keeper(&*broker).await, command) {
            (Err(failure), _) => Err(failure),
            (Ok(keeper), FailedCommand::List(args)) => list(args, keeper, store.as_ref(), out).await,
            (Ok(keeper), FailedCommand::Retry(args)) => retry(args, keeper, out).await,
            (Ok(keeper), FailedCommand::Delete(args)) => delete(args, keeper, out).await,
        };
        let closed = broker.close().await;
        done?;
        Ok(closed?)
    })
}

/// The embedded store that is named, which may have an index of arguments.
fn store_of(args: &FailedListArgs) -> Result<Option<EmbeddedBroker>, Failure> {
    match args.source.chosen()? {
        Place::Directory(directory) => Ok(Some(open_store(directory)?)),
        Place::RabbitMq(_) => Ok(None),
    }
}

/// Who keeps the failed tasks. An outbox keeps none: what it holds never came to its broker.
pub(super) async fn keeper(broker: &dyn Broker) -> Result<&dyn FailedTasks, Failure> {
    if broker.queues().await?.iter().any(|queue| is_outbox_line(queue)) {
        return Err(Failure::Found(
            "This is the store of an outbox. Its dead letters go back with `celeriac requeue`; the failed tasks are where the outbox sends to."
                .to_owned(),
        ));
    }
    broker
        .failed_tasks()
        .ok_or_else(|| Failure::Found(format!("The broker `{}` keeps no failed tasks.", broker.name())))
}

async fn list(
    args: &FailedListArgs,
    keeper: &dyn FailedTasks,
    store: Option<&EmbeddedBroker>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut filter = args.filter.filter(&args.ids)?;
    if let Some(store) = store {
        filter = by_index(filter, store, args.scan)?;
    }
    let by_index = filter.indexed().map(|(name, _)| name.to_owned());
    let (tasks, all) = look(args, keeper, &filter, by_index.is_some()).await?;
    if args.json {
        let tasks: Vec<Value> = tasks.iter().map(told).collect();
        writeln!(out, "{}", json!({ "failed": tasks, "all": all, "by_index": by_index }))?;
        return Ok(());
    }
    let mut table = TextTable::new([
        Column::left("ID", 36),
        Column::left("QUEUE", 30),
        Column::left("TASK", 40),
        Column::left("FAILED AT", 24),
        Column::left("ERROR", WIDTH),
    ]);
    for FailedTask { message, reason, failed_at, .. } in &tasks {
        let task = if message.task.is_empty() { "(no task)".to_owned() } else { message.task.clone() };
        let reason = reason.lines().next().unwrap_or_default().to_owned();
        table.add([message.id.to_string(), message.queue.clone(), task, failed_at.to_string(), reason]);
    }
    if !tasks.is_empty() {
        out.write_all(table.render(WIDTH).as_bytes())?;
    }
    for task in tasks.iter().filter(|_| args.verbose) {
        write!(out, "\n{}", at_length(task))?;
    }
    let way = by_which_index(by_index.as_deref());
    writeln!(out, "{} of {} that match.{way}", tasks.len(), counted(all))?;
    Ok(())
}

/// The tasks that are listed, the oldest first, and how many match.
async fn look(
    args: &FailedListArgs,
    keeper: &dyn FailedTasks,
    filter: &TaskFilter,
    is_indexed: bool,
) -> Result<(Vec<FailedTask>, usize), Failure> {
    if !is_indexed {
        let tasks = keeper.list_failed(filter, args.limit).await?;
        let all = match tasks.len() < args.limit {
            true => tasks.len(),
            false => keeper.failed_ids(filter).await?.len(),
        };
        return Ok((tasks, all));
    }
    // An index has the newest first, and as many tasks as match: to list the oldest, all of them are read.
    let (mut tasks, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = keeper.page_failed(filter, after.as_deref(), BATCH).await?;
        tasks.extend(page.tasks);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let all = tasks.len();
    tasks.sort_by_key(|task| task.failed_at);
    tasks.truncate(args.limit);
    Ok((tasks, all))
}

async fn retry(args: &RetryArgs, keeper: &dyn FailedTasks, out: &mut impl Write) -> Result<(), Failure> {
    let (filter, edit) = (args.filter.filter(&args.ids)?, edit(args)?);
    let ids = keeper.failed_ids(&filter).await?;
    let mut retried = Retried::default();
    if args.dry_run {
        retried.ids.clone_from(&ids);
    } else {
        for ids in ids.chunks(BATCH) {
            let Retried { ids, refused } = keeper.retry_failed(ids, edit.as_ref()).await?;
            retried.ids.extend(ids);
            retried.refused.extend(refused);
        }
    }
    let key = if args.dry_run { "would_retry" } else { "retried" };
    if args.json {
        let refused: Vec<Value> =
            retried.refused.iter().map(|(id, why)| json!({ "id": id.as_str(), "reason": why })).collect();
        writeln!(out, "{}", json!({ key: texts(&retried.ids), "refused": refused, "all": ids.len() }))?;
        return Ok(());
    }
    for id in retried.ids.iter().filter(|_| args.dry_run) {
        writeln!(out, "{id}")?;
    }
    for (id, why) in &retried.refused {
        writeln!(out, "{id} stays: {why}")?;
    }
    let verb = if args.dry_run { "would go back" } else { "went back" };
    writeln!(out, "{} of {} {verb} to their queues.", retried.ids.len(), counted(ids.len()))?;
    Ok(())
}

async fn delete(args: &DeleteArgs, keeper: &dyn FailedTasks, out: &mut impl Write) -> Result<(), Failure> {
    let ids = keeper.failed_ids(&args.filter.filter(&args.ids)?).await?;
    if !ids.is_empty() && !args.yes && !is_meant(ids.len())? {
        return Err(Failure::Found("Nothing was deleted.".to_owned()));
    }
    let mut deleted = Vec::new();
    for ids in ids.chunks(BATCH) {
        deleted.extend(keeper.delete_failed(ids).await?);
    }
    if args.json {
        writeln!(out, "{}", json!({ "deleted": texts(&deleted) }))?;
    } else {
        writeln!(out, "{} deleted.", counted(deleted.len()))?;
    }
    Ok(())
}

/// Asks on standard error, so that the output has the number only.
fn is_meant(count: usize) -> Result<bool, io::Error> {
    let mut err = io::stderr().lock();
    writeln!(err, "This deletes {}, and cannot be undone.", counted(count))?;
    says_yes(&mut err)
}

/// What is changed in each task, if anything is.
fn edit(args: &RetryArgs) -> Result<Option<TaskEdit>, Failure> {
    let mut edits = Vec::new();
    if args.args.is_some() || args.kwargs.is_some() {
        let (positional, by_name) = (args.args.clone(), args.kwargs.clone());
        edits.push(TaskEdit::new(move |message| {
            let Arguments { args, kwargs } = message.arguments.clone();
            Ok(Arguments {
                args: positional.clone().unwrap_or(args),
                kwargs: by_name.clone().unwrap_or(kwargs),
            })
        }));
    }
    for (argument, value) in &args.set {
        let value: Value = serde_json::from_str(value).unwrap_or_else(|_| value.as_str().into());
        edits.push(TaskEdit::set(argument.clone(), value));
    }
    Ok(edits.into_iter().reduce(TaskEdit::and).map(|edit| edit.then(|before, _| plain(before))))
}

/// Makes sure that a task has no lane: only its program knows the lane of other arguments.
fn plain(message: &Message) -> Result<(), String> {
    match message.serial {
        Some(_) => {
            Err("it is serial, and only its program knows the lane of other arguments: edit it there"
                .to_owned())
        }
        None => Ok(()),
    }
}

/// Arguments as JSON; a text that is none, as an earlier version may have left, as it is.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// The arguments by position and by name, if they may be shown.
fn shown(message: &Message) -> Option<(Value, Value)> {
    let Arguments { args, kwargs } = &message.arguments;
    let kwargs = if kwargs.is_empty() { json!({}) } else { value(kwargs) };
    (!message.hides_arguments()).then(|| (value(args), kwargs))
}

/// A task for programs.
fn told(task: &FailedTask) -> Value {
    let FailedTask { message, reason, failed_at, expires_at } = task;
    let (args, kwargs) = shown(message).unwrap_or_default();
    let attempts: Vec<Value> = task
        .attempts()
        .iter()
        .map(|FailedAttempt { attempt, at, error_type, error, place, worker, log, log_left_out, .. }| {
            json!({
                "attempt": attempt, "at": at.to_string(), "error_type": error_type, "error": error, "place": place,
                "worker": worker, "log": log.iter().map(logged).collect::<Vec<_>>(), "log_left_out": log_left_out,
            })
        })
        .collect();
    json!({
        "id": message.id.as_str(), "task": message.task, "queue": message.queue, "args": args, "kwargs": kwargs,
        "arguments_hidden": message.hides_arguments(), "error": reason, "failed_at": failed_at.to_string(),
        "kept_until": expires_at.map(|at| at.to_string()), "dead_letter": task.is_dead_letter(), "attempts": attempts,
    })
}

/// A task for a reader: its arguments, how long it is kept, and its attempts.
fn at_length(task: &FailedTask) -> String {
    let message = &task.message;
    let arguments = match shown(message) {
        Some((args, kwargs)) => format!("args {args} kwargs {kwargs}"),
        None => "arguments not shown, because the call hides them".to_owned(),
    };
    let kept = match task.expires_at {
        Some(at) => format!("kept until {at}"),
        None => "a dead letter".to_owned(),
    };
    let (id, name) = (one_line(message.id.as_str()), one_line(&message.task));
    let mut text = format!("{id} {name} {arguments}; {kept}\n");
    for attempt in task.attempts() {
        let error_type = attempt.error_type.map(|error_type| format!("{error_type}: ")).unwrap_or_default();
        let place = attempt.place.map(|place| format!(" at {place}")).unwrap_or_default();
        // Whoever sent the message may have written its headers.
        let error = one_line(&format!("{error_type}{}{place}", attempt.error));
        text += &format!("  {} attempt {}: {error}\n", attempt.at, attempt.attempt);
        if attempt.log_left_out > 0 && !attempt.log.is_empty() {
            text += &format!("    ({} lines of its log are not kept)\n", attempt.log_left_out);
        }
        for LogLine { at, level, text: line, .. } in &attempt.log {
            text += &format!("    {at} {:5} {}\n", one_line(level), one_line(line));
        }
    }
    text
}

/// A line of a log for programs.
fn logged(LogLine { at, level, text, .. }: &LogLine) -> Value {
    json!({ "at": at.to_string(), "level": level, "text": text })
}

fn texts(ids: &[TaskId]) -> Vec<&str> {
    ids.iter().map(TaskId::as_str).collect()
}

fn counted(count: usize) -> String {
    format!("{count} failed {}", if count == 1 { "task" } else { "tasks" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::task::Context;

    #[test]
    fn what_somebody_else_has_written_into_a_message_cannot_steer_the_terminal() {
        let mut message = Context::detached().message().clone();
        message.task = "a\u{1b}[31m\nb".to_owned();
        let line = json!({ "at": 5, "level": "IN\u{7}FO", "text": "c\u{1b}[2J" });
        let attempt = json!({ "attempt": 1, "at": 5, "error": "d\r\u{1b}", "place": "\u{7}", "log": [line] });
        message.headers.0.insert("celeriac_attempts".to_owned(), json!([attempt]).to_string().into());
        let reason = "no".to_owned();
        let task = FailedTask { message, reason, failed_at: Timestamp::ZERO, expires_at: None };
        let text = at_length(&task);
        assert!(text.contains("attempt 1: d") && text.contains("c[2J"), "{text:?}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n') && text.lines().count() == 3, "{text:?}");
    }
}
