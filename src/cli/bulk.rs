//! `celeriac bulk`: counts all tasks in an embedded store that match a rule, and revokes them or tries them again.
//!
//! Only the program knows what follows from the end of a task, so it carries a revocation out: the command leaves the act in the
//! store. What has failed goes back at once; if the command dies on its way, the program does the rest.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::brake::{RuleArgs, counted, refused, tell_counts};
use super::failed::keeper;
use super::place::{BrokerSource, Place, TaskSource, open_store};
use super::requeue::open_with_records;
use super::table::{Column, TextTable};
use crate::app::{BulkAct, BulkAction, acts_in, begin_in};
use crate::broker::{Broker, BrokerNotes, EmbeddedBroker, Retried, TaskFilter, is_outbox_line};
use crate::catalogue::one_line;
use crate::core::brake::BrakeRule;
use crate::core::did_you_mean;
use crate::runtime::brakes::fits;
use crate::runtime::rule_count::count_unfinished;
use crate::store::Notes;
use crate::task::clock::now;

/// The width of an operator's terminal.
const WIDTH: usize = 160;
/// How many tasks go back in one step.
const BATCH: usize = 1000;

/// The subcommands about acts on many tasks.
#[derive(Debug, Subcommand)]
pub(super) enum BulkCommand {
    /// Count the tasks that wait and match. With --yes, revoke them.
    ///
    /// The program revokes them in the background when it starts. `celeriac brake set pause` with the same rule keeps them from
    /// starting until they are.
    Revoke(BulkRevokeArgs),
    /// Count the tasks that have failed for good and match. With --yes, put them back into their queues.
    ///
    /// Their attempts are counted anew.
    Retry(BulkRetryArgs),
    /// List the acts of the last week, and how far they are.
    List(BulkListArgs),
}

/// The arguments of `celeriac bulk revoke`.
#[derive(Debug, Args)]
pub(super) struct BulkRevokeArgs {
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    source: BrokerSource,
    /// Do it. Without this, the tasks are counted, and nothing is changed.
    #[arg(short, long)]
    yes: bool,
    /// Print the numbers and the act as JSON.
    #[arg(short, long)]
    json: bool,
}

/// The arguments of `celeriac bulk retry`.
#[derive(Debug, Args)]
pub(super) struct BulkRetryArgs {
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    place: TaskSource,
    /// Do it. Without this, the tasks are counted, and nothing is changed.
    #[arg(short, long)]
    yes: bool,
    /// Print the numbers and the act as JSON.
    #[arg(short, long)]
    json: bool,
}

/// The arguments of `celeriac bulk list`.
#[derive(Debug, Args)]
pub(super) struct BulkListArgs {
    #[command(flatten)]
    source: BrokerSource,
    /// Print the acts as JSON.
    #[arg(short, long)]
    json: bool,
}

pub(super) fn run(command: &BulkCommand, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            BulkCommand::Revoke(args) => {
                let rule = args.rule.rule()?;
                let store = open_store(directory(args.source.chosen()?)?)?;
                let done = revoke(args, rule, &store, out).await;
                ended(done, &store).await
            }
            BulkCommand::Retry(args) => {
                let rule = args.rule.rule()?;
                directory(args.place.chosen()?.place)?;
                let broker = open_with_records(&args.place, !args.yes).await?;
                let done = retry(args, rule, &broker, out).await;
                ended(done, &*broker).await
            }
            BulkCommand::List(args) => {
                let store = open_store(directory(args.source.chosen()?)?)?;
                let done = list(args, &store, out).await;
                ended(done, &store).await
            }
        }
    })
}

/// The directory of a store.
fn directory(place: Place<'_>) -> Result<&Path, Failure> {
    match place {
        Place::Directory(directory) => Ok(directory),
        Place::RabbitMq(_) => Err(Failure::Found(
            "RabbitMQ lets nobody look into its queues, so this needs the --directory of a store. `celeriac brake set expire` ends each task that matches as it comes, and `celeriac failed retry` puts back what has failed."
                .to_owned(),
        )),
    }
}

async fn ended(done: Result<(), Failure>, broker: &dyn Broker) -> Result<(), Failure> {
    let closed = broker.close().await;
    done?;
    Ok(closed?)
}

/// Makes sure that the queue of a rule is there.
async fn check_queue(rule: &BrakeRule, broker: &dyn Broker) -> Result<(), Failure> {
    let queues = broker.queues().await?;
    if queues.iter().any(|queue| is_outbox_line(queue)) {
        return Err(Failure::Found(
            "This is the store of an outbox, whose messages are on their way to RabbitMQ: look where they go to."
                .to_owned(),
        ));
    }
    match &rule.queue {
        Some(queue) if !queues.contains(queue) => {
            let hint = did_you_mean::hint(queue, &queues);
            Err(Failure::CommandLine(format!("there is no queue `{queue}`{hint}")))
        }
        _ => Ok(()),
    }
}

async fn revoke(
    args: &BulkRevokeArgs,
    rule: BrakeRule,
    store: &EmbeddedBroker,
    out: &mut impl Write,
) -> Result<(), Failure> {
    check_queue(&rule, store).await?;
    let matcher = rule.compile().map_err(refused)?;
    let found = count_unfinished(store, move |message| fits(&matcher, message, &[])).await?;
    let act = match args.yes && found.tasks > 0 {
        true => Some(begin_in(store, BulkAction::Revoke, rule.clone(), found.tasks).await?),
        false => None,
    };
    if args.json {
        let told = json!({ "waiting": found, "exact": is_exact(&rule), "act": act.as_ref().map(told) });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    let verb = if found.tasks == 1 { "waits and matches" } else { "wait and match" };
    writeln!(out, "{} {verb}: {rule}.", counted(found.tasks, "task"))?;
    tell_counts(&found, out)?;
    if !is_exact(&rule) {
        writeln!(
            out,
            "The program finds the argument by its name also where it was given by position, so it may revoke more than these."
        )?;
    }
    match act {
        Some(act) => {
            writeln!(out, "act `{}`: the program revokes them in the background when it starts.", act.id)?;
        }
        None if found.tasks > 0 => writeln!(out, "Nothing is changed. --yes revokes them.")?,
        None => {}
    }
    Ok(())
}

/// Whether the program finds as many tasks as are found here, where nobody knows the names of parameters.
fn is_exact(rule: &BrakeRule) -> bool {
    rule.argument.as_ref().is_none_or(|argument| argument.name.parse::<usize>().is_ok())
}

async fn retry(
    args: &BulkRetryArgs,
    rule: BrakeRule,
    broker: &Arc<dyn Broker>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let keeper = keeper(&**broker).await?;
    check_queue(&rule, &**broker).await?;
    let matcher = rule.compile().map_err(refused)?;
    let filter = TaskFilter::new().until(now()).matching(move |message| fits(&matcher, message, &[]));
    let ids = keeper.failed_ids(&filter).await?;
    let found = ids.len() as u64;
    let (mut act, mut stay) = (None, Vec::new());
    if args.yes && found > 0 {
        let notes = broker.notes().map(BrokerNotes::notes);
        let notes = notes.ok_or_else(|| Failure::Found("This store keeps no notes.".to_owned()))?;
        let begun = act.insert(begin_in(notes, BulkAction::Retry, rule.clone(), found).await?);
        for ids in ids.chunks(BATCH) {
            let Retried { ids, refused } = keeper.retry_failed(ids, None).await?;
            begun.done += ids.len() as u64;
            begun.failed += refused.len() as u64;
            begun.keep(notes).await?;
            stay.extend(refused);
        }
        begun.ended_at = Some(now());
        begun.keep(notes).await?;
    }
    if args.json {
        let refused: Vec<Value> =
            stay.iter().map(|(id, why)| json!({ "id": id.as_str(), "reason": why })).collect();
        let told = json!({ "failed": found, "refused": refused, "act": act.as_ref().map(told) });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    let verb = if found == 1 { "matches" } else { "match" };
    writeln!(out, "{} {verb}: {rule}.", counted(found, "failed task"))?;
    for (id, why) in &stay {
        writeln!(out, "{} stays: {}", one_line(id.as_str()), one_line(why))?;
    }
    match act {
        Some(act) => writeln!(out, "act `{}`: {} of {found} went back to their queues.", act.id, act.done)?,
        None if found > 0 => writeln!(out, "Nothing is changed. --yes puts them back into their queues.")?,
        None => {}
    }
    Ok(())
}

async fn list(args: &BulkListArgs, notes: &dyn Notes, out: &mut impl Write) -> Result<(), Failure> {
    let acts = acts_in(notes).await?;
    if args.json {
        let acts: Vec<Value> = acts.iter().map(told).collect();
        writeln!(out, "{}", json!({ "acts": acts }))?;
        return Ok(());
    }
    let mut table = TextTable::new([
        Column::left("ID", 12),
        Column::left("ACT", 8),
        Column::left("RULE", 50),
        Column::left("BEGUN", 24),
        Column::left("ENDED", 24),
        Column::right("FOUND", 10),
        Column::right("DONE", 10),
        Column::right("FAILED", 10),
        Column::left("ERROR", WIDTH),
    ]);
    for act in &acts {
        table.add([
            act.id.clone(),
            word(act.action).to_owned(),
            act.rule.to_string(),
            act.begun_at.to_string(),
            act.ended_at.map(|at| at.to_string()).unwrap_or_default(),
            act.found.to_string(),
            act.done.to_string(),
            act.failed.to_string(),
            act.error.clone().unwrap_or_default(),
        ]);
    }
    if !acts.is_empty() {
        out.write_all(table.render(WIDTH).as_bytes())?;
    }
    let open = acts.iter().filter(|act| act.ended_at.is_none()).count();
    writeln!(out, "{}, {open} not over.", counted(acts.len() as u64, "act"))?;
    Ok(())
}

fn word(action: BulkAction) -> &'static str {
    match action {
        BulkAction::Revoke => "revoke",
        BulkAction::Retry => "retry",
    }
}

/// An act for programs: times are texts.
fn told(act: &BulkAct) -> Value {
    let mut told = serde_json::to_value(act).unwrap_or_default();
    told["begun_at"] = act.begun_at.to_string().into();
    if let Some(ended_at) = act.ended_at {
        told["ended_at"] = ended_at.to_string().into();
    }
    told
}
