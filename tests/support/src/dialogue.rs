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

    /// Says a line and waits for the answer. Panics when none comes.
    pub fn ask(&mut self, line: &str) -> String {
        let told = self.stdin.write_all(format!("{line}\n").as_bytes());
        let answer = told.ok().map(|()| self.answers.recv_timeout(PATIENCE));
        match answer {
            Some(Ok(answer)) => answer,
            Some(Err(RecvTimeoutError::Timeout)) => {
                panic!("{} did not answer `{line}` within {PATIENCE:?}: {}", self.what, self.log())
            }
            None | Some(Err(RecvTimeoutError::Disconnected)) => {
                panic!("{} ended when asked `{line}`: {}", self.what, self.log())
            }
        }
    }

    /// What it wrote to stderr.
    pub fn log(&self) -> String {
        self.process.last_of_log()
    }
}
