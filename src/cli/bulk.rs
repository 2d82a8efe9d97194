//! `celeriac bulk`: counts all tasks in an embedded store that match a rule, and revokes, moves, purges or tries them again.
//!
//! Only the program knows what follows from the end of a task, so it carries a revocation out: the command leaves the act in the
//! store. All else is done at once, because nothing follows from it; if the command dies on its way, the program does the rest.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::brake::{RuleArgs, counted, refused, tell_counts};
use super::failed::keeper;
use super::local::{LocalProgram, StoreOrProgram, open_or_ask};
use super::place::{BrokerSource, Place, TaskSource, open_store};
use super::requeue::open_with_records;
use super::table::{Column, TextTable};
use crate::app::{BulkAct, BulkAction, BulkOrder, acts_in, begin_in, why_not_undoable};
use crate::broker::{
    Broker, BrokerNotes, BulkChange, BulkChanges, BulkPick, EmbeddedBroker, Inspect, KeptTask, Remains,
    Retried, TaskFilter, is_outbox_line,
};
use crate::catalogue::one_line;
use crate::core::brake::BrakeRule;
use crate::core::did_you_mean;
use crate::runtime::brakes::fits;
use crate::runtime::rule_count::count_unfinished;
use crate::task::Message;
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
    Revoke(BulkWaitingArgs),
    /// Count the tasks that wait and match. With --yes, put them to the end of another queue.
    ///
    /// They keep their ids, times, priorities, tenants and places in lanes.
    Move(BulkMoveArgs),
    /// Count the tasks that wait and match. With --yes, delete them.
    ///
    /// No record is left of them, and nothing follows from them.
    Purge(BulkWaitingArgs),
    /// Count the tasks that have failed for good and match. With --yes, put them back into their queues.
    ///
    /// Their attempts are counted anew.
    Retry(BulkRetryArgs),
    /// List the acts of the last week, and how far they are.
    List(BulkListArgs),
    /// Cancel an act that is not over: what is done stays done, and the rest is left alone.
    Cancel(BulkOneArgs),
    /// Undo an act within ten minutes of its end: what it has revoked, moved or purged is where it was, unless it has run.
    Undo(BulkOneArgs),
}

/// The arguments of an act on what waits.
#[derive(Debug, Args)]
pub(super) struct BulkWaitingArgs {
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

/// The arguments of `celeriac bulk move`.
#[derive(Debug, Args)]
pub(super) struct BulkMoveArgs {
    /// The other queue.
    #[arg(long, value_name = "NAME")]
    to: String,
    #[command(flatten)]
    waiting: BulkWaitingArgs,
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

/// The arguments of what is done to one act.
#[derive(Debug, Args)]
pub(super) struct BulkOneArgs {
    /// The id of the act, as `celeriac bulk list` prints it.
    id: String,
    #[command(flatten)]
    source: BrokerSource,
    /// Print the act as JSON.
    #[arg(short, long)]
    json: bool,
}

pub(super) fn run(command: &BulkCommand, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            BulkCommand::Revoke(args) => on_waiting(BulkAction::Revoke, None, args, out).await,
            BulkCommand::Move(args) => on_waiting(BulkAction::Move, Some(&args.to), &args.waiting, out).await,
            BulkCommand::Purge(args) => on_waiting(BulkAction::Purge, None, args, out).await,
            BulkCommand::Cancel(args) => match open_or_ask(directory(args.source.chosen()?)?).await? {
                StoreOrProgram::Store(store) => {
                    let done = cancel(args, &store, out).await;
                    ended(done, &store).await
                }
                StoreOrProgram::Program(program) => {
                    let says = "the program ends it at its next step";
                    ask(args, "cancel_bulk", says, &program, out).await
                }
            },
            BulkCommand::Undo(args) => match open_or_ask(directory(args.source.chosen()?)?).await? {
                StoreOrProgram::Store(store) => {
                    let done = undo(args, &store, out).await;
                    ended(done, &store).await
                }
                StoreOrProgram::Program(program) => {
                    let says = "the program takes it back in the background";
                    ask(args, "undo_bulk", says, &program, out).await
                }
            },
            BulkCommand::Retry(args) => {
                let rule = args.rule.rule()?;
                directory(args.place.chosen()?.place)?;
                let broker = open_with_records(&args.place, !args.yes).await?;
                let done = retry(args, rule, &broker, out).await;
                ended(done, &*broker).await
            }
            BulkCommand::List(args) => match open_or_ask(directory(args.source.chosen()?)?).await? {
                StoreOrProgram::Store(store) => {
                    let done = match acts_in(&store).await {
                        Ok(acts) => list(args, &acts, out),
                        Err(error) => Err(error.into()),
                    };
                    ended(done, &store).await
                }
                StoreOrProgram::Program(program) => {
                    let mut told = program.answer("bulk_acts", Value::Null).await?;
                    let acts = told.get_mut("acts").map(Value::take).unwrap_or_default();
                    let acts: Vec<BulkAct> = read(acts)?;
                    list(args, &acts, out)
                }
            },
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

async fn on_waiting(
    action: BulkAction,
    to: Option<&String>,
    args: &BulkWaitingArgs,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let rule = args.rule.rule()?;
    let store = open_store(directory(args.source.chosen()?)?)?;
    let order =
        BulkOrder { action, rule, to: to.cloned(), by: std::env::var("USER").ok(), then: now(), keeps: true };
    let done = act_on_waiting(args, order, &store, out).await;
    ended(done, &store).await
}

/// Makes sure that the queue of a rule is there, and the one to which tasks are moved.
async fn check_queues(rule: &BrakeRule, to: Option<&String>, broker: &dyn Broker) -> Result<(), Failure> {
    let queues = broker.queues().await?;
    if queues.iter().any(|queue| is_outbox_line(queue)) {
        return Err(Failure::Found(
            "This is the store of an outbox, whose messages are on their way to RabbitMQ: look where they go to."
                .to_owned(),
        ));
    }
    match rule.queue.iter().chain(to).find(|queue| !queues.contains(queue)) {
        Some(queue) => {
            let hint = did_you_mean::hint(queue, &queues);
            Err(Failure::CommandLine(format!("there is no queue `{queue}`{hint}")))
        }
        None => Ok(()),
    }
}

/// Counts the tasks that an act on what waits is about, and with `--yes` begins the act.
async fn act_on_waiting(
    args: &BulkWaitingArgs,
    order: BulkOrder,
    store: &EmbeddedBroker,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (action, rule, to) = (order.action, order.rule.clone(), order.to.clone());
    check_queues(&rule, to.as_ref(), store).await?;
    let found =
        count_unfinished(store, rule.queue.as_deref(), &Arc::default(), meant_by(&rule, to.clone())?).await?;
    let not_undoable = why_not_undoable(action, true, &acts_in(store).await?, found.tasks);
    let mut act = match args.yes && found.tasks > 0 {
        true => Some(begin_in(store, order, found.tasks).await?),
        false => None,
    };
    if let Some(act) = act.as_mut().filter(|_| action != BulkAction::Revoke) {
        change(act, &rule, to.as_deref(), store).await?;
    }
    // What the program does, it finds by its own knowledge.
    let is_exact = action != BulkAction::Revoke || is_exact(&rule);
    if args.json {
        let told = json!({ "waiting": found, "exact": is_exact, "not_undoable": not_undoable, "act": act.as_ref().map(told) });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    let verb = if found.tasks == 1 { "waits and matches" } else { "wait and match" };
    writeln!(out, "{} {verb}: {rule}.", counted(found.tasks, "task"))?;
    tell_counts(&found, out)?;
    if !is_exact {
        writeln!(
            out,
            "The program finds the argument by its name also where it was given by position, so it may revoke more than these."
        )?;
    }
    if let Some(why) = not_undoable.filter(|_| found.tasks > 0) {
        let tense = if act.is_some() { "cannot" } else { "could not" };
        writeln!(out, "This {tense} be undone: {why}.")?;
    }
    let (does, done) = match action {
        BulkAction::Move => ("moves", "moved"),
        BulkAction::Purge => ("deletes", "deleted"),
        _ => ("revokes", "revoked"),
    };
    match act {
        Some(act) if action == BulkAction::Revoke => {
            writeln!(out, "act `{}`: the program revokes them in the background when it starts.", act.id)?;
        }
        Some(act) => {
            writeln!(out, "act `{}`: {} {done}.", act.id, counted(act.done, "task"))?;
            if act.is_undoable {
                writeln!(out, "`celeriac bulk undo {}` takes it back within ten minutes.", act.id)?;
            }
        }
        None if found.tasks > 0 => writeln!(out, "Nothing is changed. --yes {does} them.")?,
        None => {}
    }
    Ok(())
}

/// Chooses the tasks that match and are not in the queue `to`.
fn meant_by(
    rule: &BrakeRule,
    to: Option<String>,
) -> Result<impl Fn(&Message) -> bool + Send + Sync + 'static + use<>, Failure> {
    let matcher = rule.compile().map_err(refused)?;
    Ok(move |message: &Message| to.as_ref() != Some(&message.queue) && fits(&matcher, message, &[]))
}

/// Moves or deletes what waits and matches. Nothing is delivered, because the program does not run.
async fn change(
    act: &mut BulkAct,
    rule: &BrakeRule,
    to: Option<&str>,
    store: &EmbeddedBroker,
) -> Result<(), Failure> {
    let change = match to {
        Some(to) => BulkChange::Move { to: to.to_owned() },
        None => BulkChange::End { remains: Arc::new(|_: &Message| Remains::default()) },
    };
    let filter = TaskFilter::new().matching(meant_by(rule, to.map(str::to_owned))?);
    let kept = act.is_undoable.then(|| act.id.clone());
    for ids in store.unfinished_ids(&filter).await?.chunks(BATCH) {
        let picks = ids.iter().map(|id| BulkPick { id: id.clone(), tag: None }).collect();
        act.done += store.change_all(kept.as_deref(), &change, picks).await?.done.len() as u64;
        act.keep(store).await?;
    }
    act.ended_at = Some(now());
    act.keep(store).await?;
    Ok(())
}

/// The act of this id.
async fn act_of(id: &str, store: &EmbeddedBroker) -> Result<BulkAct, Failure> {
    let act = acts_in(store).await?.into_iter().find(|act| act.id == id);
    act.ok_or_else(|| {
        let text = "of the last week; `celeriac bulk list` prints those that there are";
        Failure::Found(format!("There is no act `{}` {text}.", one_line(id)))
    })
}

/// Ends an act. Nobody carries it out meanwhile, because the program does not run.
async fn cancel(args: &BulkOneArgs, store: &EmbeddedBroker, out: &mut impl Write) -> Result<(), Failure> {
    let id = &args.id;
    let mut act = act_of(id, store).await?;
    let cannot = |why| Failure::Found(format!("The act `{id}` cannot be cancelled: {why}."));
    act.begin_cancel(now(), std::env::var("USER").ok()).map_err(cannot)?;
    act.ended_at = Some(now());
    act.keep(store).await?;
    if args.json {
        writeln!(out, "{}", told(&act))?;
        return Ok(());
    }
    writeln!(out, "act `{id}` is cancelled: {} of {} were done.", counted(act.done, "task"), act.found)?;
    if act.undoable_until().is_some() && act.done > 0 {
        writeln!(out, "`celeriac bulk undo {id}` takes them back within ten minutes.")?;
    }
    Ok(())
}

async fn undo(args: &BulkOneArgs, store: &EmbeddedBroker, out: &mut impl Write) -> Result<(), Failure> {
    let id = &args.id;
    let mut act = act_of(id, store).await?;
    let cannot = |why| Failure::Found(format!("The act `{id}` cannot be undone: {why}."));
    act.begin_undo(now()).map_err(cannot)?;
    act.keep(store).await?;
    while act.goes_on() {
        let kept = store.kept_for(id, BATCH).await?;
        let is_over = kept.is_empty();
        let picks: Vec<(KeptTask, Option<u64>)> = kept.into_iter().map(|kept| (kept, None)).collect();
        let outcome = store.undo(id, picks, true).await?;
        if is_over {
            store.forget_kept(id).await?;
        }
        if let Some(undo) = &mut act.undo {
            undo.back += outcome.back.len() as u64;
            undo.left += outcome.left.len() as u64;
            undo.ended_at = is_over.then(now);
        }
        act.keep(store).await?;
    }
    if args.json {
        writeln!(out, "{}", told(&act))?;
        return Ok(());
    }
    let (back, left) = act.undo.as_ref().map_or((0, 0), |undo| (undo.back, undo.left));
    writeln!(out, "act `{id}`: {} where they were before it.", verb(back))?;
    if left > 0 {
        writeln!(out, "{} as they are: they have run, or were changed again.", left_as(left))?;
    }
    Ok(())
}

fn verb(count: u64) -> String {
    format!("{} {}", counted(count, "task"), if count == 1 { "is" } else { "are" })
}

fn left_as(count: u64) -> String {
    format!("{} {}", counted(count, "task"), if count == 1 { "stays" } else { "stay" })
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
    check_queues(&rule, None, &**broker).await?;
    let matcher = rule.compile().map_err(refused)?;
    let filter = TaskFilter::new().until(now()).matching(move |message| fits(&matcher, message, &[]));
    let ids = keeper.failed_ids(&filter).await?;
    let found = ids.len() as u64;
    let (mut act, mut stay) = (None, Vec::new());
    if args.yes && found > 0 {
        let notes = broker.notes().map(BrokerNotes::notes);
        let notes = notes.ok_or_else(|| Failure::Found("This store keeps no notes.".to_owned()))?;
        let by = std::env::var("USER").ok();
        let order = BulkOrder {
            action: BulkAction::Retry,
            rule: rule.clone(),
            to: None,
            by,
            then: now(),
            keeps: false,
        };
        let begun = act.insert(begin_in(notes, order, found).await?);
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

/// Reads what the program has answered.
fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        Failure::Found(format!("The program of this store answers something else: {error}."))
    })
}

/// Has the program that runs do something to an act. `says`: what it does.
async fn ask(
    args: &BulkOneArgs,
    method: &str,
    says: &str,
    program: &LocalProgram,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let act: BulkAct = read(program.answer(method, json!({ "id": args.id })).await?)?;
    match args.json {
        true => writeln!(out, "{}", told(&act))?,
        false => {
            let done = counted(act.done, "task");
            writeln!(out, "act `{}`: {says}; {done} of {} done by now.", act.id, act.found)?;
        }
    }
    Ok(())
}

fn list(args: &BulkListArgs, acts: &[BulkAct], out: &mut impl Write) -> Result<(), Failure> {
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
        Column::left("UNDO", 40),
        Column::left("ERROR", WIDTH),
    ]);
    for act in acts {
        table.add([
            act.id.clone(),
            act.action.as_str().to_owned(),
            what_of(act),
            act.begun_at.to_string(),
            act.ended_at.map(|at| at.to_string()).unwrap_or_default(),
            act.found.to_string(),
            act.done.to_string(),
            act.failed.to_string(),
            undo_of(act),
            note_of(act),
        ]);
    }
    if !acts.is_empty() {
        out.write_all(table.render(WIDTH).as_bytes())?;
    }
    let open = acts.iter().filter(|act| act.goes_on()).count();
    writeln!(out, "{}, {open} not over.", counted(acts.len() as u64, "act"))?;
    Ok(())
}

/// What an act is about, and where it moves that.
fn what_of(act: &BulkAct) -> String {
    match &act.to {
        Some(to) => format!("{} to {to}", act.rule),
        None => act.rule.to_string(),
    }
}

/// Whether an act can be undone, or how far that is.
fn undo_of(act: &BulkAct) -> String {
    match (&act.undo, act.undoable_until()) {
        (Some(undo), _) => format!("{} back, {} left", undo.back, undo.left),
        (None, Some(until)) if until > now() => format!("until {until}"),
        _ => String::new(),
    }
}

/// Why it has ended, or is to end, before all was done.
fn note_of(act: &BulkAct) -> String {
    match (&act.error, &act.cancel) {
        (Some(error), _) => error.clone(),
        (None, Some(cancel)) => match &cancel.by {
            Some(by) => format!("cancelled by {by}"),
            None => "cancelled".to_owned(),
        },
        (None, None) => String::new(),
    }
}

/// An act for programs: times are texts.
fn told(act: &BulkAct) -> Value {
    let mut told = serde_json::to_value(act).unwrap_or_default();
    told["begun_at"] = act.begun_at.to_string().into();
    told["ended_at"] = json!(act.ended_at.map(|at| at.to_string()));
    told["undoable_until"] = json!(act.undoable_until().filter(|at| *at > now()).map(|at| at.to_string()));
    if let Some(cancel) = &act.cancel {
        told["cancel"]["at"] = cancel.at.to_string().into();
    }
    if let Some(undo) = &act.undo {
        told["undo"]["begun_at"] = undo.begun_at.to_string().into();
        told["undo"]["ended_at"] = json!(undo.ended_at.map(|at| at.to_string()));
    }
    told
}
