//! One run of pytest: a vhost and a Redis of its own, a worker, a list of tests, and what became of each.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::ROLE;
use crate::services::{Home, Process, Python, RabbitMq, Redis};

/// How long one test may take. Some wait for half of that.
const LIMIT: Duration = Duration::from_secs(240);

/// What became of a test.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    pub test: String,
    pub failed: bool,
    pub skipped: bool,
    pub seconds: f64,
    pub why: String,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        !self.failed && !self.skipped
    }

    /// Whether the test waited for something that did not come in time.
    pub fn timed_out(&self) -> bool {
        self.failed && self.why.contains("Timeout")
    }
}

/// Runs these tests of the suite below `tests`, and tells of each as soon as it is over.
pub fn run(python: &Python, tests: &Path, node: &RabbitMq, half: &str, chosen: &[&str]) -> Vec<Outcome> {
    let home = Home::new(&format!("celery-suite-{half}"));
    let redis = Redis::start();
    let broker = node.vhost(half).replace("amqp://", "pyamqp://");
    std::fs::write(home.join("tests"), chosen.join("\n")).expect("a file");
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/celery_suite");
    let program = std::env::current_exe().expect("this program has a path");
    let mut pytest = Process::start("pytest", python.interpreter(), home.join("log"), |command| {
        command
            .current_dir(tests)
            .args([
                "-m",
                "pytest",
                "-p",
                "extworker",
                "-p",
                "celery.contrib.pytest",
                "-p",
                "no:cacheprovider",
            ])
            .args(["-v", "-rA", "--timeout", &LIMIT.as_secs().to_string()])
            .arg(format!("@{}", home.join("tests").display()))
            .env("PYTHONPATH", format!("{}:{}", plugin.display(), tests.display()))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TEST_BROKER", broker)
            .env("TEST_BACKEND", redis.url())
            .env("REDIS_HOST", "127.0.0.1")
            .env("REDIS_PORT", redis.address().port().to_string())
            // The worker ends with pytest, however that ends.
            .env("SUITE_WORKER", format!("exec setpriv --pdeathsig KILL -- '{}'", program.display()))
            .env("SUITE_WORKER_LOG", home.join("worker"))
            .env("SUITE_OUTCOMES", home.join("outcomes"))
            .env(ROLE, "worker");
    });
    let mut outcomes = Vec::new();
    let mut told = Instant::now();
    loop {
        let ended = pytest.has_ended();
        let text = std::fs::read_to_string(home.join("outcomes")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines().skip(outcomes.len()) {
            let outcome: Outcome = serde_json::from_str(line).expect("the plugin writes outcomes");
            let word = if outcome.passed() { "ok" } else { "FAILED" };
            println!("test {} ... {word} ({:.1} s)", outcome.test, outcome.seconds);
            outcomes.push(outcome);
            told = Instant::now();
        }
        if ended {
            break;
        }
        if told.elapsed() > LIMIT + Duration::from_secs(60) {
            println!("no test of this half has ended for {:?}; it is given up", told.elapsed());
            pytest.kill();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if outcomes.iter().any(|outcome| !outcome.passed()) || outcomes.len() < chosen.len() {
        keep_logs(&home, half, &pytest);
    }
    outcomes
}

/// Copies the logs to where the next run does not remove them.
fn keep_logs(home: &Home, half: &str, pytest: &Process) {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("celery_suite");
    std::fs::create_dir_all(&kept).expect("a directory below target/");
    for (log, name) in [("log", "pytest"), ("worker", "worker")] {
        let _ = std::fs::copy(home.join(log), kept.join(format!("{half}-{name}.log")));
    }
    if !home.join("outcomes").exists() {
        println!("pytest ran no test: {}", pytest.last_of_log());
    }
    println!("the logs are in {}", kept.display());
}
