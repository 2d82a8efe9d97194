//! A program that is spoken to: a line in, a line out.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use super::PATIENCE;
use super::home::Home;
use super::process::Process;

/// The program; dropped, it is killed. Questions are asked one at a time.
pub struct Dialogue {
    what: String,
    process: Process,
    stdin: ChildStdin,
    answers: Receiver<String>,
    home: Home,
}

impl Dialogue {
    pub fn start(what: &str, program: &std::path::Path, set: impl FnOnce(&mut Command)) -> Self {
        let home = Home::new("dialogue");
        let mut process = Process::start_with_pipes(what, program, home.join("log"), set);
        let (stdin, stdout) = process.take_pipes();
        let (said, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        Self { what: what.to_owned(), process, stdin, answers, home }
    }

    /// Says a line and waits for the answer. The error says why none comes, with what the program wrote to stderr.
    pub fn ask(&mut self, line: &str) -> Result<String, String> {
        match self.stdin.write_all(format!("{line}\n").as_bytes()) {
            Ok(()) => self.next_answer(),
            Err(error) => Err(format!("{} does not listen: {error}\n{}", self.what, self.log())),
        }
    }

    /// Waits for one more answer, after one that was to another question.
    pub fn next_answer(&mut self) -> Result<String, String> {
        self.answers.recv_timeout(PATIENCE).map_err(|error| {
            let why = match error {
                RecvTimeoutError::Timeout => format!("did not answer within {PATIENCE:?}"),
                RecvTimeoutError::Disconnected => "ended and did not answer".to_owned(),
            };
            format!("{} {why}\n{}", self.what, self.log())
        })
    }

    /// What it wrote to stderr.
    pub fn log(&self) -> String {
        self.process.last_of_log()
    }
}
