//! The commands of the `celeriac` binary.
//!
//! A command reads its arguments, writes to the outputs that its caller passes, and returns how it ended. The exit
//! code is 0 when all is well, 1 when the thing that was examined has a fault, 2 when the command line is wrong, and
//! 69 when nobody replies.

mod brake;
mod bulk;
mod check;
#[cfg(feature = "web")]
mod console;
#[cfg(feature = "amqp")]
mod events;
mod failed;
mod figures;
mod filter;
mod history;
mod local;
mod new;
mod place;
mod purge;
mod queues;
mod remote;
mod remote_arguments;
mod report;
mod requeue;
mod revoke;
mod schedule;
mod simulate;
mod store;
mod table;
mod top;
mod waiting;
mod why;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::app::ControlError;
use crate::broker::BrokerError;
use crate::catalogue::{Catalogue, CatalogueErrors};
use crate::store::StoreError;

/// The exit code when nobody replies: `EX_UNAVAILABLE`, as with Celery.
const UNAVAILABLE: u8 = 69;

/// Begins a program with background tasks, and looks after them.
///
/// Exit codes: 0 all is well, 1 the thing that was examined has a fault, 2 the command line is wrong, 69 nobody replies.
#[derive(Debug, Parser)]
#[command(name = "celeriac", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a small program with one task, a catalogue and a test, in a directory that is not there yet.
    ///
    /// Nothing is overwritten. The program of the manual's first page is the same.
    New(new::NewArgs),
    /// Check a queue catalogue and explain what each queue promises.
    ///
    /// Prints every mistake at once to standard error, each with its line and what to do about it, and ends with 1.
    /// Without mistakes it prints a summary, the warnings, and a line for each queue.
    Check(CatalogueArgs),
    /// Print the table of the queues in a catalogue.
    Queues(queues::QueuesArgs),
    /// Put dead letters back into their queues.
    ///
    /// Their attempts are counted anew. Prints the letters that went back; with --dry-run, those that would go back.
    Requeue(requeue::RequeueArgs),
    /// List, retry, correct and delete tasks that have failed for good, dead letters among them.
    #[command(subcommand)]
    Failed(failed::FailedCommand),
    /// Pause, slow, divert or end tasks by a rule while programs run, and see which rules are in force.
    #[command(subcommand)]
    Brake(brake::BrakeCommand),
    /// Count all tasks in an embedded store that match a rule, and revoke, move, purge or retry them, or undo that. Its program
    /// must not run, but to list, cancel and undo: then it is asked.
    #[command(subcommand)]
    Bulk(bulk::BulkCommand),
    /// List the tasks that wait in an embedded store. Its program must not run.
    ///
    /// RabbitMQ lets nobody look into a queue; there, `celeriac inspect` asks the workers what they hold.
    Waiting(waiting::WaitingArgs),
    /// Say why a task does not run, and when it will start.
    ///
    /// Over RabbitMQ all programs are asked, and of an embedded store the program that has it open. If none has, it says what the
    /// store knows.
    Why(why::WhyArgs),
    /// Say what needs a person: which queue misses its promise, since when, what presses it, and who can do what about it.
    ///
    /// What was looked at and is not the cause is said too. Ends with 1 if anything needs a person.
    Report(report::ReportArgs),
    /// Show all queues in the terminal, what needs a person first, anew each second.
    Top(top::TopArgs),
    /// Open the console in a browser, for an embedded store whose program does not run, or for RabbitMQ.
    ///
    /// It runs no tasks, and answers whoever has the address that it prints, which contains a token.
    #[cfg(feature = "web")]
    Console(console::ConsoleArgs),
    /// Check an embedded store, or copy the readable part of a damaged one.
    ///
    /// The program of the store must not run. The command changes nothing in its directory.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Print what happened in the last seven days, by queue, task or tenant, and what operators did.
    ///
    /// Programs write it once a minute into their embedded store, or into Redis where it has their results.
    History(history::HistoryArgs),
    /// Say how long tasks would wait under a changed catalogue: a recorded hour or a written load, in virtual time.
    ///
    /// Programs record their last runs into their embedded store, or into Redis where it has their results. The same input gives
    /// the same output.
    Simulate(simulate::SimulateArgs),
    /// Print the periodic entries of a catalogue, the times at which each fires next, and warnings about them.
    Schedule(schedule::ScheduleArgs),
    /// List the workers on RabbitMQ that reply, Celery's and Celeriac's, or the program that has an embedded store open.
    Status(remote::StatusArgs),
    /// Ask the workers on RabbitMQ what they do, as `celery inspect` does, or the program that has an embedded store open.
    Inspect(remote::RemoteArgs),
    /// Have the workers on RabbitMQ change something, as `celery control` does, or the program that has an embedded store open.
    Control(remote::RemoteArgs),
    /// Print what happens to workers and tasks on RabbitMQ, a line for each event, as `celery events --dump` does.
    ///
    /// Workers send events of their tasks if they are told to: `celeriac control enable_events`.
    #[cfg(feature = "amqp")]
    Events(events::EventsArgs),
    /// Delete the tasks that wait in queues. It cannot be undone.
    ///
    /// No record is left of them, and nothing follows from them. What workers hold stays, and so do dead letters and, on
    /// RabbitMQ, tasks that wait for their time.
    Purge(purge::PurgeArgs),
    /// Revoke tasks: they do not start. They are named by their ids or by --task.
    ///
    /// In a store, the other conditions can be used too; `celeriac waiting` lists what they choose.
    Revoke(revoke::RevokeArgs),
}

/// The catalogue of a command, and the environment for which it is read.
#[derive(Debug, Args)]
struct CatalogueArgs {
    /// The file of the catalogue to read.
    #[arg(value_name = "FILE", default_value = "celeriac.toml")]
    file: PathBuf,
    /// Apply the changes of this environment to the catalogue.
    #[arg(short, long, value_name = "NAME")]
    environment: Option<String>,
}

impl CatalogueArgs {
    fn load(&self) -> Result<Catalogue, CatalogueErrors> {
        let catalogue = Catalogue::load(&self.file)?;
        match &self.environment {
            Some(name) => catalogue.for_environment(name),
            None => Ok(catalogue),
        }
    }
}

/// Why a command did not end well.
#[derive(thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Catalogue(#[from] CatalogueErrors),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    New(#[from] new::NewError),
    /// Something is wrong with a store, and the command has printed the details.
    #[error("{0}")]
    Found(String),
    /// The command line is wrong. The exit code is 2.
    #[error("error: {0}")]
    CommandLine(String),
    /// No node has replied. The exit code is that of Celery: 69.
    #[error("Error: No nodes replied within time constraint")]
    NoReply,
    /// No node has replied to a command that Celery and Celeriac do not have. The exit code is that of Celery: 69.
    #[error(
        "Error: No nodes replied within time constraint, and no program here has added this command: {0}"
    )]
    Unknown(String),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

crate::core::debug_as_display!(Failure);

/// Runs the command that the arguments of this process name, and returns the exit code.
pub fn run() -> ExitCode {
    // Clap itself answers --help (exit code 0) and a wrong command line (exit code 2).
    let line = CommandLine::parse();
    let mut out = io::stdout().lock();
    let done = match &line.command {
        Command::New(args) => new::run(args, &mut out),
        Command::Check(args) => check::run(args, &mut out),
        Command::Queues(args) => queues::run(args, &mut out),
        Command::Requeue(args) => requeue::run(args, &mut out),
        Command::Failed(command) => failed::run(command, &mut out),
        Command::Brake(command) => brake::run(command, &mut out),
        Command::Bulk(command) => bulk::run(command, &mut out),
        Command::Waiting(args) => waiting::run(args, &mut out),
        Command::Why(args) => why::run(args, &mut out),
        Command::Report(args) => report::run(args, &mut out),
        Command::Top(args) => top::run(args, &mut out),
        #[cfg(feature = "web")]
        Command::Console(args) => console::run(args, &mut out),
        Command::Store(command) => store::run(command, &mut out),
        Command::History(args) => history::run(args, &mut out),
        Command::Simulate(args) => simulate::run(args, &mut out),
        Command::Schedule(args) => schedule::run(args, &mut out),
        Command::Status(args) => remote::status(args, &mut out),
        Command::Inspect(args) => remote::inspect(args, &mut out),
        Command::Control(args) => remote::control(args, &mut out),
        #[cfg(feature = "amqp")]
        Command::Events(args) => events::run(args, &mut out),
        Command::Purge(args) => purge::run(args, &mut out),
        Command::Revoke(args) => revoke::run(args, &mut out),
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is closed too, nobody can be told.
            let _ = writeln!(io::stderr(), "{failure}");
            match failure {
                Failure::CommandLine(_) => ExitCode::from(2),
                Failure::NoReply | Failure::Unknown(_) => ExitCode::from(UNAVAILABLE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
