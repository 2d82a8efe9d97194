//! The commands of the `celeriac` binary.
//!
//! A command reads its arguments, writes to the outputs it is given and says how it ended. Exit codes: 0 when all is
//! well, 1 when something is wrong with what was asked about, 2 when the command line itself is wrong.

mod check;
mod queues;
mod requeue;
mod schedule;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::app::ControlError;
use crate::app::catalogue::{Catalogue, CatalogueErrors};
use crate::broker::BrokerError;
use crate::store::StoreError;

/// Looks after background tasks.
///
/// Exit codes: 0 all is well, 1 what was looked at is not, 2 the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "celeriac", version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a queue catalogue and explain what each queue promises.
    ///
    /// Prints every mistake at once to standard error, each with its line and what to do about it, and ends with 1.
    /// Without mistakes it prints a summary, what is doubtful, and a line for each queue.
    Check(CatalogueArgs),
    /// Print the table of the queues in a catalogue.
    Queues(CatalogueArgs),
    /// Put dead letters back into their queues.
    ///
    /// Their attempts are counted anew. Prints which they were; with --dry-run, which they would be.
    Requeue(requeue::RequeueArgs),
    /// Print the periodic entries of a catalogue, when each fires next, and what is doubtful about them.
    Schedule(schedule::ScheduleArgs),
}

/// Which catalogue, as whom.
#[derive(Debug, Args)]
struct CatalogueArgs {
    /// The catalogue to read.
    #[arg(value_name = "FILE", default_value = "celeriac.toml")]
    file: PathBuf,
    /// Lay the overrides of this environment over it.
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
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Catalogue(#[from] CatalogueErrors),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Runs the command that the arguments of this process name.
pub fn run() -> ExitCode {
    // Clap answers --help (0) and a wrong command line (2) itself.
    let line = CommandLine::parse();
    let mut out = io::stdout().lock();
    let done = match &line.command {
        Command::Check(args) => check::run(args, &mut out),
        Command::Queues(args) => queues::run(args, &mut out),
        Command::Requeue(args) => requeue::run(args, &mut out),
        Command::Schedule(args) => schedule::run(args, &mut out),
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // There is nobody left to tell when standard error is closed too.
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}
