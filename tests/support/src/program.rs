//! A program of this repository that runs beside the test.

use std::path::Path;
use std::process::{Command, ExitStatus};

use super::home::Home;
use super::process::Process;

/// The program; dropped, it is killed.
pub struct Program {
    process: Process,
    home: Home,
}

impl Program {
    pub fn start(what: &str, program: &Path, set: impl FnOnce(&mut Command)) -> Self {
        let home = Home::new("program");
        Self { process: Process::start(what, program, home.join("log"), set), home }
    }

    /// Waits until it has said this line.
    pub fn await_line(&mut self, line: &str) {
        let log = self.home.join("log");
        self.process.await_condition(&format!("it says `{line}`"), || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.lines().any(|said| said == line) { Ok(()) } else { Err("not yet".to_owned()) }
        });
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate()
    }
}
