//! Python with the real Celery from PyPI, in an environment that is made once and kept in `target/`.
//!
//! `CELERIAC_TEST_PYTHON=/path/to/python` uses another Python, which has Celery already. A second environment has a server
//! that speaks S3.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::dialogue::Dialogue;
use super::home::{Home, target};
use super::process::{Output, Process, program, run};

/// What pip is asked for.
const CELERY: &str = "celery[redis]==5.7.*";
const FLOWER: &str = "celery[redis]==5.7.* flower==2.2.*";
const EXPORTER: &str = "prometheus-exporter-celery==0.11.*";
/// Celery, and what traces it. The instrumentation has only versions that pip takes if they are named.
const OTEL: &str =
    "celery[redis]==5.7.* opentelemetry-sdk==1.45.* opentelemetry-instrumentation-celery==0.66b2";
const MOTO: &str = "moto[s3,server]==5.*";
/// A package that brings axe-core 4.12.1, and drives another browser, which is left out.
const AXE: &str = "--no-deps axe-playwright-python==0.1.8";
/// Celery, and what its integration tests import.
const SUITE: &str = "celery[redis]==5.7.0 pydantic==2.* pytest==9.* pytest-subtests pytest-timeout==2.*";

/// The interpreter.
#[derive(Clone, Debug)]
pub struct Python {
    interpreter: PathBuf,
}

/// A script to be run: its file, its arguments, its environment.
#[derive(Clone, Debug, Default)]
pub struct Script {
    file: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A running `celery -A … worker`.
pub struct CeleryWorker {
    process: Process,
    home: Home,
    node: String,
}

/// Another program in Python that runs until this is dropped.
pub struct Server {
    process: Process,
    _home: Home,
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of a program in Python ends with:\n{}", self.process.last_of_log());
        }
    }
}

impl Script {
    /// A file, from the root of the repository.
    pub fn new(file: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Self { file: root.join(file), ..Self::default() }
    }

    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

impl Python {
    /// Python with Celery 5.7. The first call of all makes the environment, which takes half a minute and asks PyPI.
    pub fn with_celery() -> Self {
        static MADE: OnceLock<Python> = OnceLock::new();
        MADE.get_or_init(|| match std::env::var_os("CELERIAC_TEST_PYTHON") {
            Some(interpreter) => Self { interpreter: interpreter.into() },
            None => Self { interpreter: make_environment("python-celery-5.7", CELERY, |_, _| {}) },
        })
        .clone()
    }

    /// Python with Celery and Flower. The first call makes the environment.
    pub fn with_flower() -> Self {
        static MADE: OnceLock<Python> = OnceLock::new();
        MADE.get_or_init(|| Self { interpreter: make_environment("python-flower-2.2", FLOWER, |_, _| {}) })
            .clone()
    }

    /// Python with celery-exporter (its name on PyPI is prometheus-exporter-celery). The first call makes the environment.
    pub fn with_exporter() -> Self {
        static MADE: OnceLock<Python> = OnceLock::new();
        MADE.get_or_init(|| Self {
            interpreter: make_environment("python-exporter-0.11", EXPORTER, |_, _| {}),
        })
        .clone()
    }

    /// Python with Celery and OpenTelemetry's instrumentation of it. The first call makes the environment.
    pub fn with_otel() -> Self {
        static MADE: OnceLock<Python> = OnceLock::new();
        MADE.get_or_init(|| Self { interpreter: make_environment("python-otel-0.66", OTEL, |_, _| {}) })
            .clone()
    }

    /// Python with moto, whose server keeps buckets in its memory. The first call makes the environment.
    pub(super) fn with_moto() -> Self {
        static MADE: OnceLock<Python> = OnceLock::new();
        MADE.get_or_init(|| Self { interpreter: make_environment("python-moto-5", MOTO, |_, _| {}) }).clone()
    }

    /// The file of axe-core, a script for pages that finds what keeps people from using them. Of the package in which it
    /// comes nothing is run. The first call makes the environment.
    pub fn axe_core() -> PathBuf {
        let interpreter = make_environment("python-axe-0.1.8", AXE, |_, _| {});
        let lib = interpreter.parent().and_then(Path::parent).expect("it is in bin/").join("lib");
        let pythons = std::fs::read_dir(&lib).expect("an environment has a lib/").flatten();
        let mut files =
            pythons.map(|python| python.path().join("site-packages/axe_playwright_python/axe.min.js"));
        files.find(|file| file.is_file()).expect("the package has axe.min.js")
    }

    /// Python with Celery 5.7.0 and what its own integration tests need, and the directory of its sdist, which has the
    /// tests. The first call makes both.
    pub fn with_celery_suite() -> (Self, PathBuf) {
        let sdist = |interpreter: &Path, dir: &Path| {
            run("pip download", interpreter, |command| {
                command.args([
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--no-deps",
                ]);
                command.args(["--no-binary", "celery", "celery==5.7.0", "--dest"]).arg(dir);
            })
            .expect_success("pip download celery==5.7.0");
            run("tarfile", interpreter, |command| {
                command.args(["-m", "tarfile", "-e"]).arg(dir.join("celery-5.7.0.tar.gz")).arg(dir);
            })
            .expect_success("python -m tarfile");
        };
        let interpreter = make_environment("python-celery-suite-5.7.0", SUITE, sdist);
        let dir = interpreter.parent().and_then(Path::parent).expect("it is in bin/ of its environment");
        let tests = dir.join("celery-5.7.0");
        (Self { interpreter }, tests)
    }

    pub fn interpreter(&self) -> &Path {
        &self.interpreter
    }

    /// Runs a script to its end.
    pub fn run(&self, script: &Script) -> Output {
        run(&script.file.display().to_string(), &self.interpreter, |command| {
            command.arg(&script.file).args(&script.arguments).envs(script.environment.iter().cloned());
            unbuffered(command);
        })
    }

    /// Starts a script that is spoken to.
    pub fn converse(&self, script: &Script) -> Dialogue {
        Dialogue::start(&script.file.display().to_string(), &self.interpreter, |command| {
            command.arg(&script.file).args(&script.arguments).envs(script.environment.iter().cloned());
            unbuffered(command);
        })
    }

    /// Starts another command of `celery -A …`, such as `flower`, with the app in this script.
    pub fn celery(&self, what: &str, script: &Script, arguments: &[String]) -> Server {
        let home = Home::new("celery");
        let dir = script.file.parent().expect("a script is in a directory").to_owned();
        let app = script.file.file_stem().expect("a script has a name").to_owned();
        let process = Process::start(what, &self.interpreter, home.join("log"), |command| {
            command.args(["-m", "celery", "-A"]).arg(app).args(arguments);
            command.envs(script.environment.iter().cloned()).env("PYTHONPATH", &dir).current_dir(home.path());
            unbuffered(command);
        });
        Server { process, _home: home }
    }

    /// Starts a program of one line, such as a command of a package that has no module to run.
    pub fn code(&self, what: &str, code: &str, arguments: &[String]) -> Server {
        let home = Home::new("python");
        let process = Process::start(what, &self.interpreter, home.join("log"), |command| {
            command.args(["-c", code]).args(arguments).current_dir(home.path());
            unbuffered(command);
        });
        Server { process, _home: home }
    }

    /// Starts a worker of the app in this script (its arguments are more options of `celery worker`), and waits until it
    /// says that it is ready. `node` is the part of its name before the `@localhost`.
    pub fn worker(&self, script: &Script, node: &str) -> CeleryWorker {
        let home = Home::new("celery");
        let dir = script.file.parent().expect("a script is in a directory").to_owned();
        let app = script.file.file_stem().expect("a script has a name").to_owned();
        let what = format!("the Celery worker {node}");
        let node = format!("{node}@localhost");
        let mut process = Process::start(&what, &self.interpreter, home.join("log"), |command| {
            command
                .args(["-m", "celery", "-A"])
                .arg(app)
                .args(["worker", "--hostname", &node, "--loglevel", "INFO"])
                .args(&script.arguments)
                .envs(script.environment.iter().cloned())
                .env("PYTHONPATH", &dir)
                .current_dir(home.path());
            unbuffered(command);
        });
        let log = home.join("log");
        process.await_condition("it is ready", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains(&format!("{node} ready")) { Ok(()) } else { Err("not yet".to_owned()) }
        });
        CeleryWorker { process, home, node }
    }
}

impl CeleryWorker {
    /// `name@localhost`.
    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A warm shutdown: what runs is finished.
    pub fn stop(mut self) -> String {
        self.process.terminate();
        self.process.log()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.kill();
    }
}

impl Drop for CeleryWorker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of {} ends with:\n{}", self.node, self.process.last_of_log());
        }
    }
}

fn unbuffered(command: &mut std::process::Command) {
    command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1").env("C_FORCE_ROOT", "1");
}

/// Test binaries may run at once: the first makes it, the others wait. `more` is what it needs beside packages; it gets
/// the interpreter and the environment's directory.
fn make_environment(name: &str, packages: &str, more: impl FnOnce(&Path, &Path)) -> PathBuf {
    let target = target();
    let dir = target.join(name);
    let interpreter = dir.join("bin/python");
    let ready = dir.join("ready");
    let lock = std::fs::File::create(target.join(format!("{name}.lock"))).expect("a file in target/");
    lock.lock().expect("a lock in target/");
    if std::fs::read_to_string(&ready).is_ok_and(|made_of| made_of == packages) && interpreter.exists() {
        return interpreter;
    }
    let _ = std::fs::remove_dir_all(&dir);
    let python = program(&["/usr/bin/python3", "python3"], "python3-venv");
    run("python3 -m venv", &python, |command| {
        command.args(["-m", "venv"]).arg(&dir);
    })
    .expect_success("python3 -m venv (Debian has it in the package python3-venv)");
    run("pip", &interpreter, |command| {
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        command.args(packages.split_whitespace());
    })
    .expect_success(&format!("pip install {packages}"));
    more(&interpreter, &dir);
    std::fs::write(&ready, packages).expect("a file in target/");
    interpreter
}
