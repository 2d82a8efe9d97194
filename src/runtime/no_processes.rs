//! The process pool on a system where Celeriac has none: no child process starts there, and no process is one. A program
//! whose catalogue wants such a pool does not start.

use std::io;
use std::sync::Arc;

use super::Runtime;
use super::children::ChildSettings;
use super::run::{AfterRun, Run};
use crate::task::Ending;

/// A child process, of which there is none.
pub(crate) enum ChildProcess {}

/// Whoever waits for what becomes of a child process.
#[derive(Clone)]
pub(crate) enum ChildWatch {}

impl ChildProcess {
    pub(crate) fn start(_: &ChildSettings, _: usize, _: &Arc<Runtime>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn pid(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn watch(&self) -> ChildWatch {
        match *self {}
    }

    pub(crate) fn after_run(&self) -> AfterRun {
        match *self {}
    }
}

impl ChildWatch {
    pub(crate) async fn ready(&self) -> Result<(), String> {
        match *self {}
    }

    pub(crate) async fn gone(&self) -> String {
        match *self {}
    }
}

pub(super) async fn run_in_child(_: &Run, child: &ChildProcess) -> Result<String, Ending> {
    match *child {}
}

pub(crate) mod child {
    /// Whether this process is a child of a process pool.
    pub(crate) fn is_child() -> bool {
        false
    }
}
