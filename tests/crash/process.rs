//! A child process: started from this very program, listened to, killed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::ledger;

/// Longer than anything takes on a slow machine; who waits this long has hung.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Where a scenario lives: the store, the ledger, and what children wrote to stderr.
pub struct Home {
    dir: Option<tempfile::TempDir>,
    store: PathBuf,
    lives: u64,
}

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = dir.path().join("store");
        Self { dir: Some(dir), store, lives: 0 }
    }

    /// Puts the store elsewhere; ledger and logs stay.
    pub fn with_store(mut self, store: PathBuf) -> Self {
        self.store = store;
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("it lives").path()
    }

    pub fn store(&self) -> &Path {
        &self.store
    }

    pub fn ledger(&self) -> PathBuf {
        self.path().join("ledger")
    }

    /// How many children were started.
    pub fn lives(&self) -> u64 {
        self.lives
    }

    /// Starts a child in this role; `orders` is the first line of its stdin.
    pub fn spawn(&mut self, role: &str, orders: &str) -> Life {
        self.spawn_with(role, orders, |command| command)
    }

    /// As [`spawn`](Self::spawn), with more environment.
    pub fn spawn_with(
        &mut self,
        role: &str,
        orders: &str,
        set: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Life {
        self.lives += 1;
        let log = self.path().join(format!("stderr-{}", self.lives));
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command
            .env("CRASH_ROLE", role)
            .env("CRASH_STORE", &self.store)
            .env("CRASH_LEDGER", self.ledger())
            .env("CRASH_LIFE", self.lives.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log for the child"));
        set(&mut command);
        let spawned_at = ledger::now();
        let mut child = command.spawn().expect("the child starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        // A child that dies at once does not read its orders.
        let _ = stdin.write_all(format!("{orders}\n").as_bytes());
        let stdout = child.stdout.take().expect("it is piped");
        let (told, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        Life { child, stdin, lines, log, spawned_at }
    }
}

impl Drop for Home {
    /// What a failed scenario leaves is kept for whoever wants to know why.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            println!("    the files of the failed case are in {}", dir.keep().display());
        }
    }
}

/// A running child.
pub struct Life {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    log: PathBuf,
    /// Microseconds since 1970.
    pub spawned_at: u64,
}

/// The last of what a child wrote to stderr.
fn last_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let from = text.len().saturating_sub(4000);
    text[text.ceil_char_boundary(from)..].to_owned()
}

/// How a child ended.
#[derive(Debug)]
pub struct Death {
    pub status: ExitStatus,
    pub stderr: String,
}

impl Death {
    /// By signal 9.
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    pub fn assert_clean(&self) {
        assert!(self.status.success(), "{}: {}", self.status, self.stderr);
        self.assert_no_panic();
    }

    /// Panics of tasks that are there to panic are not in the log; any other is a bug.
    pub fn assert_no_panic(&self) {
        assert!(!self.stderr.contains("panicked at"), "a child panicked: {}", self.stderr);
    }
}

impl Life {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the child says a line that begins with `word`, and returns it. `None`: it ended instead.
    pub fn hears(&self, word: &str) -> Option<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with(word) => return Some(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the child did not say `{word}` within {PATIENCE:?}: {}", self.stderr())
                }
            }
        }
    }

    /// As [`hears`](Self::hears), and the child must live.
    pub fn expect(&self, word: &str) -> String {
        self.hears(word)
            .unwrap_or_else(|| panic!("the child ended before it said `{word}`: {}", self.stderr()))
    }

    /// Whether the child has said something that begins with `word` since it was last listened to.
    #[allow(dead_code)] // `tests/faults` asks
    pub fn has_said(&self, word: &str) -> bool {
        self.lines.try_iter().any(|line| line.starts_with(word))
    }

    /// Waits until the child has said all of these, in any order.
    pub fn expect_all(&self, words: [&str; 2]) {
        let first = self.expect("");
        let second = words.iter().find(|word| **word != first).expect("two words");
        assert!(words.contains(&first.as_str()), "the child said `{first}`");
        self.expect(second);
    }

    /// Tells the child a line.
    pub fn tell(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).expect("the child listens");
    }

    /// Tells it a line, if it lives.
    #[allow(dead_code)] // `tests/faults` does
    pub fn tell_if_alive(&mut self, line: &str) {
        let _ = self.stdin.write_all(format!("{line}\n").as_bytes());
    }

    pub fn stderr(&self) -> String {
        last_of(&self.log)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("not 0");
        // It may have ended by itself; until it is waited for, the pid stays its own.
        let _ = kill_process(pid, signal);
    }

    pub fn kill_9(self) -> Death {
        self.signal(Signal::KILL);
        self.death()
    }

    /// Waits for its end.
    pub fn death(mut self) -> Death {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    panic!("the child did not end within {PATIENCE:?}: {}", last_of(&self.log));
                }
            }
        }
        let status = self.child.wait().expect("the child is ours");
        Death { status, stderr: last_of(&self.log) }
    }
}
