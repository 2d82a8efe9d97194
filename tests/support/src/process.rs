//! A process that a test starts and that does not outlive it.
//!
//! The kernel sends SIGKILL to a child whose parent *thread* has ended, so all are started by one thread that lives as
//! long as the process. `setpriv` asks for that signal: it is part of Debian's base system, and safe Rust cannot.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use super::await_condition;

/// A running process; dropped, it is killed.
pub struct Process {
    what: String,
    child: Child,
    log: PathBuf,
}

/// What a program that has ended said.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Process {
    /// Starts a program whose stdout and stderr go to `log`.
    pub fn start(
        what: &str,
        program: impl AsRef<Path>,
        log: PathBuf,
        set: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = tied_to_this_process(program.as_ref());
        let out = File::create(&log).expect("a log for the service");
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a second handle")).stderr(out);
        set(&mut command);
        let child = spawn(command).unwrap_or_else(|error| panic!("{what} does not start: {error}"));
        Self { what: what.to_owned(), child, log }
    }

    /// Starts a program whose stderr goes to `log`, and whose stdin and stdout are [pipes](Self::take_pipes).
    pub fn start_with_pipes(
        what: &str,
        program: &Path,
        log: PathBuf,
        set: impl FnOnce(&mut Command),
    ) -> Self {
        Self::start(what, program, log, |command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            set(command);
        })
    }

    /// Once, of a program that was started with pipes.
    pub fn take_pipes(&mut self) -> (ChildStdin, ChildStdout) {
        let pipes = self.child.stdin.take().zip(self.child.stdout.take());
        pipes.expect("it was started with pipes, and they were not taken")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has written.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last of it, for messages.
    pub fn last_of_log(&self) -> String {
        last_of(&self.log())
    }

    /// Waits for a condition that comes true while the process runs; its end fails the test at once.
    pub fn await_condition<T>(&mut self, what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
        await_condition(&format!("{}: {what}", self.what), || {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                panic!("{} ended with {status} before: {what}\n{}", self.what, self.last_of_log());
            }
            condition().map_err(|why| format!("{why}\n{}", self.last_of_log()))
        })
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_some()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("not 0");
        // Until it is waited for, the pid stays its own, even after its end.
        let _ = kill_process(pid, signal);
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.child.wait().expect("the child is ours")
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let child = &mut self.child;
        let log = &self.log;
        await_condition(&format!("the end of {}", self.what), || {
            child
                .try_wait()
                .expect("the child is ours")
                .ok_or_else(|| last_of(&String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default())))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill();
        }
    }
}

/// Runs a program to its end.
pub fn run(what: &str, program: impl AsRef<Path>, set: impl FnOnce(&mut Command)) -> Output {
    run_with_input(what, program, "", set)
}

/// As [`run`], of a program that reads this from its stdin. It is written before anything is read, so it must fit into a
/// pipe.
pub fn run_with_input(
    what: &str,
    program: impl AsRef<Path>,
    input: &str,
    set: impl FnOnce(&mut Command),
) -> Output {
    let mut command = tied_to_this_process(program.as_ref());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    set(&mut command);
    let mut child = spawn(command).unwrap_or_else(|error| panic!("{what} does not start: {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended without reading says by its status what it thinks of that.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Output {
    /// What it wrote to stdout; panics with all that it said when it failed.
    pub fn expect_success(self, what: &str) -> String {
        assert!(
            self.status.success(),
            "{what}: {}\nstdout: {}\nstderr: {}",
            self.status,
            last_of(&self.stdout),
            last_of(&self.stderr)
        );
        self.stdout
    }
}

pub fn last_of(text: &str) -> String {
    let from = text.len().saturating_sub(6000);
    text[text.ceil_char_boundary(from)..].to_owned()
}

/// The path of a program that the tests need, or a failure that says which package has it.
pub fn program(candidates: &[&str], package: &str) -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = candidates.iter().find_map(|candidate| {
        if candidate.contains('/') {
            return Some(PathBuf::from(candidate)).filter(|path| path.exists());
        }
        std::env::split_paths(&paths).map(|dir| dir.join(candidate)).find(|path| path.exists())
    });
    found.unwrap_or_else(|| {
        panic!("none of {candidates:?} is here: run ./test.sh, or 'apt-get install {package}'")
    })
}

fn tied_to_this_process(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

type Birth = (Command, Sender<io::Result<Child>>);

fn spawn(command: Command) -> io::Result<Child> {
    static MOTHER: LazyLock<Mutex<Sender<Birth>>> = LazyLock::new(|| {
        let (asked, births) = channel::<Birth>();
        let thread = std::thread::Builder::new().name("services".to_owned());
        let living = thread.spawn(move || {
            for (mut command, born) in births {
                let _ = born.send(command.spawn());
            }
        });
        living.expect("a thread");
        Mutex::new(asked)
    });
    let (born, child) = channel();
    let mother = MOTHER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    mother.send((command, born)).expect("the thread lives as long as the process");
    drop(mother);
    child.recv().expect("the thread answers")
}
