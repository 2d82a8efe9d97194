//! `celeriac brake`: lists, sets and takes away the brakes of a fleet, and counts what a rule is about.
//!
//! Brakes are kept in a note: of an embedded store, whose program reads it when it starts, or of the Redis beside RabbitMQ,
//! where all programs see it within a second. So a fleet need not answer to be braked.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Failure;
use super::filter::argument;
use super::place::{BrokerSource, Place, open_store, rabbitmq};
use super::requeue::span;
use super::table::{Column, TextTable};
use crate::app::variables::RESULT_BACKEND;
use crate::app::{Backend, RuleCount};
use crate::broker::{Broker, EmbeddedBroker, is_outbox_line};
use crate::catalogue::{Argument, one_line};
use crate::core::brake::{Brake, BrakeAction, BrakeError, BrakeNote, BrakeRule};
use crate::runtime::brakes::{NOTE, change_note, fits};
use crate::runtime::rule_count::count_unfinished;
use crate::store::chord::LARGEST_CHORD;
use crate::store::{Notes, Store};
use crate::task::clock::now;

/// The width of an operator's terminal.
const WIDTH: usize = 160;

/// The subcommands about brakes.
#[derive(Debug, Subcommand)]
pub(super) enum BrakeCommand {
    /// List the brakes that are kept, the oldest first.
    ///
    /// Those that stand in a catalogue are not among them: `celeriac check` prints these.
    List(BrakeListArgs),
    /// Set a brake: tasks that match do not start, start slowly, go to another queue, or are over.
    ///
    /// Over RabbitMQ all programs obey within a second. The program of a store obeys when it starts.
    Set(SetArgs),
    /// Take brakes away. What they have held starts.
    Remove(RemoveArgs),
    /// Count the tasks in a store that wait and match. Nothing is changed.
    DryRun(DryRunArgs),
}

/// Where the brakes are kept.
#[derive(Debug, Args)]
struct NoteSource {
    #[command(flatten)]
    source: BrokerSource,
    /// Where the results are, as `redis://host:6379/0`: over RabbitMQ the brakes are there, too.
    #[arg(long, value_name = "URL", env = RESULT_BACKEND, hide_env_values = true)]
    result_backend: Option<String>,
}

/// Which tasks are meant. All conditions have to hold.
#[derive(Debug, Args)]
pub(super) struct RuleArgs {
    /// Tasks whose name matches; `*` stands for any text, `?` for one character, `[ab]` for one of these.
    #[arg(long, value_name = "GLOB")]
    task: Option<String>,
    /// Tasks that wait in this queue.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Tasks of tenants whose name matches.
    #[arg(long, value_name = "GLOB")]
    tenant: Option<String>,
    /// Tasks of which this argument matches a regular expression from its beginning. NAME is that of the argument, or its
    /// position, from 0. May be given more than once for one argument: one of the expressions has to match.
    #[arg(long = "argument", value_name = "NAME=PATTERN", value_parser = argument)]
    arguments: Vec<(Argument, String)>,
    /// All tasks. Without it, a rule needs a condition.
    #[arg(long)]
    all: bool,
}

/// The arguments of `celeriac brake list`.
#[derive(Debug, Args)]
pub(super) struct BrakeListArgs {
    #[command(flatten)]
    place: NoteSource,
    /// Print the brakes as JSON.
    #[arg(short, long)]
    json: bool,
}

/// What a brake does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ActionWord {
    /// The tasks do not start.
    Pause,
    /// The tasks start at --rate at most, in each process.
    Slow,
    /// The tasks go to the queue --divert-to.
    Divert,
    /// The tasks are over: REVOKED, as when they expire.
    Expire,
}

/// The arguments of `celeriac brake set`.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// What happens to the tasks.
    #[arg(value_name = "ACTION", value_enum)]
    action: ActionWord,
    #[command(flatten)]
    rule: RuleArgs,
    /// The rate of `slow`: 10/s, 10/m or 10/h.
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,
    /// The other queue of `divert`.
    #[arg(long, value_name = "NAME")]
    divert_to: Option<String>,
    /// The id of the brake. One of the same id is replaced. Without it, the brake gets one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The name of whoever sets it.
    #[arg(long, value_name = "NAME", env = "USER")]
    owner: Option<String>,
    /// The reason for the brake.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long it lasts, such as `15m` or `1h30m`. Without it, until somebody takes it away.
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    lasts: Option<Duration>,
    #[command(flatten)]
    place: NoteSource,
    /// Print the brake as JSON.
    #[arg(short, long)]
    json: bool,
}

/// The arguments of `celeriac brake remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The ids of the brakes.
    #[arg(value_name = "ID", required = true, value_parser = NonEmptyStringValueParser::new())]
    ids: Vec<String>,
    #[command(flatten)]
    place: NoteSource,
    /// Print what was done as JSON.
    #[arg(short, long)]
    json: bool,
}

/// The arguments of `celeriac brake dry-run`.
#[derive(Debug, Args)]
pub(super) struct DryRunArgs {
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    source: BrokerSource,
    /// Print the numbers as JSON.
    #[arg(short, long)]
    json: bool,
}

pub(super) fn run(command: &BrakeCommand, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let place = match command {
            BrakeCommand::List(args) => &args.place,
            BrakeCommand::Set(args) => &args.place,
            BrakeCommand::Remove(args) => &args.place,
            BrakeCommand::DryRun(args) => return dry_run(args, out).await,
        };
        let keeper = NoteKeeper::open(place).await?;
        let done = match command {
            BrakeCommand::List(args) => list(args, keeper.notes()?, out).await,
            BrakeCommand::Set(args) => set(args, &keeper, out).await,
            BrakeCommand::Remove(args) => remove(args, keeper.notes()?, out).await,
            BrakeCommand::DryRun(_) => Ok(()),
        };
        let closed = keeper.close().await;
        done?;
        closed
    })
}

/// Who keeps the note of brakes.
enum NoteKeeper<'a> {
    Store(EmbeddedBroker),
    /// The store beside RabbitMQ, which is at this address.
    Beside(Arc<dyn Store>, &'a str),
}

impl<'a> NoteKeeper<'a> {
    async fn open(source: &'a NoteSource) -> Result<Self, Failure> {
        match (source.source.chosen()?, &source.result_backend) {
            (Place::Directory(directory), _) => {
                let store = open_store(directory)?;
                if store.queues().await?.iter().any(|queue| is_outbox_line(queue)) {
                    return Err(Failure::Found(
                        "This is the store of an outbox. Brakes are kept where the results are: name that with --result-backend, and RabbitMQ with --broker."
                            .to_owned(),
                    ));
                }
                Ok(Self::Store(store))
            }
            (Place::RabbitMq(url), Some(backend)) => {
                let backend = Backend::at(backend.clone()).open(Some(url), None, LARGEST_CHORD).await?;
                Ok(Self::Beside(backend.store, url))
            }
            (Place::RabbitMq(_), None) => Err(Failure::CommandLine(format!(
                "RabbitMQ keeps no brakes, they are kept beside the results: name the Redis with --result-backend, or {RESULT_BACKEND} in the environment"
            ))),
        }
    }

    fn notes(&self) -> Result<&dyn Notes, Failure> {
        match self {
            Self::Store(store) => Ok(store),
            Self::Beside(store, _) => store
                .notes()
                .filter(|_| store.is_shared())
                .ok_or_else(|| Failure::Found("This result backend keeps no brakes: Redis does.".to_owned())),
        }
    }

    /// Whether there is a queue of this name.
    async fn has(&self, queue: &str) -> Result<bool, Failure> {
        match self {
            Self::Store(store) => Ok(store.waiting(queue).await?.is_some()),
            Self::Beside(_, url) => {
                let broker = rabbitmq(url).await?;
                let waiting = broker.waiting(queue).await;
                let _ = broker.close().await;
                Ok(waiting?.is_some())
            }
        }
    }

    async fn close(&self) -> Result<(), Failure> {
        match self {
            Self::Store(store) => Ok(store.close().await?),
            Self::Beside(..) => Ok(()),
        }
    }
}

impl RuleArgs {
    pub(super) fn rule(&self) -> Result<BrakeRule, Failure> {
        let mut rule = if self.all { BrakeRule::all() } else { BrakeRule::new() };
        rule.task.clone_from(&self.task);
        rule.queue.clone_from(&self.queue);
        rule.tenant.clone_from(&self.tenant);
        if let Some((first, _)) = self.arguments.first() {
            if self.arguments.iter().any(|(argument, _)| argument != first) {
                let wrong = "a rule looks at one argument: give --argument the same name each time";
                return Err(Failure::CommandLine(wrong.to_owned()));
            }
            let name = match first {
                Argument::Name(name) => name.clone(),
                Argument::Position(at) => at.to_string(),
            };
            rule = rule.argument(name, self.arguments.iter().map(|(_, pattern)| pattern.as_str()));
        }
        rule.compile().map_err(refused)?;
        Ok(rule)
    }
}

impl SetArgs {
    fn action(&self) -> Result<BrakeAction, Failure> {
        let wrong = |text: &str| Err(Failure::CommandLine(text.to_owned()));
        match (self.action, &self.rate, &self.divert_to) {
            (ActionWord::Pause, None, None) => Ok(BrakeAction::Pause),
            (ActionWord::Expire, None, None) => Ok(BrakeAction::Expire),
            (ActionWord::Slow, Some(rate), None) => Ok(BrakeAction::slow(rate)),
            (ActionWord::Divert, None, Some(queue)) => Ok(BrakeAction::divert(queue)),
            (ActionWord::Slow, None, None) => wrong("say how fast: `slow` needs --rate, such as 10/m"),
            (ActionWord::Divert, None, None) => wrong("say where to: `divert` needs --divert-to QUEUE"),
            _ => wrong("--rate is for `slow`, and --divert-to is for `divert`: leave out what is too much"),
        }
    }
}

/// A brake that is refused: mostly, the command line says something wrong.
pub(super) fn refused(error: BrakeError) -> Failure {
    match error {
        BrakeError::TooMany => Failure::Found(error.to_string()),
        error => Failure::CommandLine(error.to_string()),
    }
}

async fn list(args: &BrakeListArgs, notes: &dyn Notes, out: &mut impl Write) -> Result<(), Failure> {
    let text = notes.note(NOTE).await?;
    let note = BrakeNote::read(text.as_deref())
        .map_err(|error| Failure::Found(format!("The note of brakes cannot be read: {error}")))?;
    let (mut brakes, unread) = note.brakes();
    let now = now();
    brakes.retain(|brake| !brake.has_ended(now));
    brakes.sort_by_key(|brake| brake.since);
    if args.json {
        let brakes: Vec<Value> = brakes.iter().map(told).collect();
        writeln!(out, "{}", json!({ "brakes": brakes, "unread": unread }))?;
        return Ok(());
    }
    let mut table = TextTable::new([
        Column::left("ID", 20),
        Column::left("ACTION", 30),
        Column::left("RULE", 50),
        Column::left("OWNER", 20),
        Column::left("UNTIL", 24),
        Column::left("REASON", WIDTH),
    ]);
    for brake in &brakes {
        table.add([
            brake.id.clone(),
            brake.action.to_string(),
            brake.rule.to_string(),
            brake.owner.clone().unwrap_or_default(),
            brake.until.map(|until| until.to_string()).unwrap_or_default(),
            brake.reason.clone().unwrap_or_default(),
        ]);
    }
    if !brakes.is_empty() {
        out.write_all(table.render(WIDTH).as_bytes())?;
    }
    writeln!(out, "{} in force.", counted(brakes.len() as u64, "brake"))?;
    if unread > 0 {
        writeln!(out, "{} of a newer version cannot be read here.", counted(unread as u64, "brake"))?;
    }
    Ok(())
}

async fn set(args: &SetArgs, keeper: &NoteKeeper<'_>, out: &mut impl Write) -> Result<(), Failure> {
    let (rule, action) = (args.rule.rule()?, args.action()?);
    let now = now();
    let mut brake = Brake::new(rule, action);
    brake.id = args.id.clone().unwrap_or_else(|| format!("{:08x}", rand::random::<u32>()));
    brake.owner = args.owner.clone().filter(|owner| !owner.is_empty());
    brake.reason.clone_from(&args.reason);
    brake.since = now;
    brake.until = args.lasts.map(|lasts| now + lasts);
    brake.check().map_err(refused)?;
    if brake.is_standing() {
        return Err(refused(BrakeError::Standing(brake.id)));
    }
    if let Some(until) = brake.until.filter(|until| *until <= now) {
        return Err(refused(BrakeError::Over { until }));
    }
    let notes = keeper.notes()?;
    let divert_to = match &brake.action {
        BrakeAction::Divert { divert_to } => Some(divert_to),
        _ => None,
    };
    for (field, queue) in [("queue", brake.rule.queue.as_ref()), ("divert_to", divert_to)] {
        if let Some(queue) = queue
            && !keeper.has(queue).await?
        {
            let (queue, hint) = (queue.clone(), String::new());
            return Err(refused(BrakeError::UnknownQueue { field, queue, hint }));
        }
    }
    change_note(notes, |note| Ok((note.with(&brake, now)?, ()))).await?.map_err(refused)?;
    if args.json {
        writeln!(out, "{}", json!({ "set": told(&brake) }))?;
        return Ok(());
    }
    let when = match keeper {
        NoteKeeper::Store(_) => "when the program of the store starts",
        NoteKeeper::Beside(..) => "within a second, in each program that keeps its results there",
    };
    writeln!(out, "{brake} is set. It holds {when}.")?;
    Ok(())
}

async fn remove(args: &RemoveArgs, notes: &dyn Notes, out: &mut impl Write) -> Result<(), Failure> {
    let (mut removed, mut unknown) = (Vec::new(), Vec::new());
    for id in &args.ids {
        let found = change_note(notes, |note| Ok((note.without(id, now()).0, note.has(id)))).await?;
        match found.map_err(refused)? {
            (_, true) => removed.push(id),
            (_, false) => unknown.push(id),
        }
    }
    if args.json {
        writeln!(out, "{}", json!({ "removed": removed, "unknown": unknown }))?;
        return Ok(());
    }
    for id in &removed {
        writeln!(out, "brake `{id}` is taken away.")?;
    }
    match unknown.first() {
        None => Ok(()),
        Some(id) => Err(Failure::Found(format!(
            "There is no brake `{id}`: it has ended, or was never kept here. `celeriac brake list` prints those that are."
        ))),
    }
}

async fn dry_run(args: &DryRunArgs, out: &mut impl Write) -> Result<(), Failure> {
    let rule = args.rule.rule()?;
    let Place::Directory(directory) = args.source.chosen()? else {
        return Err(Failure::Found(
            "RabbitMQ lets nobody look into its queues, so what waits there cannot be counted. `celeriac inspect reserved` asks the workers what they hold."
                .to_owned(),
        ));
    };
    let store = open_store(directory)?;
    let matcher = rule.compile().map_err(refused)?;
    let counted = count_unfinished(&store, rule.queue.as_deref(), &Arc::default(), move |message| {
        fits(&matcher, message, &[])
    })
    .await;
    let closed = store.close().await;
    let counted = counted?;
    closed?;
    tell(args, &rule, &counted, out)
}

fn tell(args: &DryRunArgs, rule: &BrakeRule, found: &RuleCount, out: &mut impl Write) -> Result<(), Failure> {
    if args.json {
        writeln!(out, "{}", json!({ "waiting": found }))?;
        return Ok(());
    }
    let verb = if found.tasks == 1 { "waits and matches" } else { "wait and match" };
    writeln!(out, "{} {verb}: {rule}.", counted(found.tasks, "task"))?;
    tell_counts(found, out)
}

/// The counts of each queue and of each task. Whoever has sent a task has chosen its name, so the names are brought to one line.
pub(super) fn tell_counts(found: &RuleCount, out: &mut impl Write) -> Result<(), Failure> {
    for (queue, count) in &found.by_queue {
        writeln!(out, "  in {}: {count}", one_line(queue))?;
    }
    for (task, count) in &found.by_task {
        writeln!(out, "  of {}: {count}", one_line(task))?;
    }
    Ok(())
}

/// A brake for programs: times are texts.
fn told(brake: &Brake) -> Value {
    let mut told = serde_json::to_value(brake).unwrap_or_default();
    told["since"] = brake.since.to_string().into();
    if let Some(until) = brake.until {
        told["until"] = until.to_string().into();
    }
    told
}

pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
