//! `celeriac store`: checks an embedded store, or copies the readable part of a damaged one.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use crate::broker::embedded::{salvage, verify};
use crate::task::TaskId;

/// The subcommands about an embedded store.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Read each file and each row, and list those that cannot be read.
    ///
    /// Ends with 1 if anything is damaged. Works on a copy in the directory of the store and removes it afterwards:
    /// table files are linked and take no room, the log is copied.
    Verify(VerifyArgs),
    /// Copy all readable rows to a new store, and list those that cannot be read.
    ///
    /// The old store stays as it is. Give the program the new directory when you have looked at the list.
    Salvage(SalvageArgs),
}

/// The arguments of `celeriac store verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The directory of the store. Its program must not run.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
}

/// The arguments of `celeriac store salvage`.
#[derive(Debug, Args)]
pub(super) struct SalvageArgs {
    /// The directory of the store. Its program must not run.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// A new or empty directory for the copy.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
}

pub(super) fn run(command: &StoreCommand, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        StoreCommand::Verify(args) => {
            let found = verify(&args.directory)?;
            for text in found.notes.iter().chain(&found.damage) {
                writeln!(out, "{text}")?;
            }
            lost(&found.lost, "cannot be read", out)?;
            let (waiting, results, dead) = (found.waiting, found.results, letters(found.dead, found.failed));
            writeln!(out, "{waiting} waiting tasks, {results} results and {dead} can be read.")?;
            let directory = args.directory.display();
            if found.damage.is_empty() && found.lost.is_empty() {
                writeln!(out, "The store {directory} is sound.")?;
                return Ok(());
            }
            Err(Failure::Found(format!(
                "The store {directory} is damaged. Put back a copy of it, or copy what can be read with `celeriac store salvage --directory {directory} --into NEW`."
            )))
        }
        StoreCommand::Salvage(args) => {
            let done = salvage(&args.directory, &args.into)?;
            for text in &done.damage {
                writeln!(out, "{text}")?;
            }
            lost(&done.lost, "is lost", out)?;
            let (waiting, results, dead) = (done.waiting, done.results, letters(done.dead, done.failed));
            let into = args.into.display();
            writeln!(out, "{waiting} waiting tasks, {results} results and {dead} are in {into}.")?;
            Ok(())
        }
    }
}

/// The dead letters, and the failed tasks that are kept beside them, if there are any.
fn letters(dead: u64, failed: u64) -> String {
    match failed {
        0 => format!("{dead} dead letters"),
        _ => format!("{dead} dead letters (and {failed} failed tasks)"),
    }
}

fn lost(ids: &[TaskId], what: &str, out: &mut impl Write) -> Result<(), Failure> {
    for id in ids {
        writeln!(out, "task {id} waited and {what}")?;
    }
    Ok(())
}
