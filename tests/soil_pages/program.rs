//! The commcare example as a user runs it, to be killed and started again at the same address.
//!
//! `cargo test` builds examples along with the tests; with `--test soil_pages` alone, build the example first.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use celeriac_test_support::Process;

pub struct Program {
    process: Process,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// Where its log lies.
    _home: tempfile::TempDir,
}

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let target = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let program = target.join("examples/commcare");
    let missing =
        "is not built: run `cargo test`, or `cargo build --example commcare` before this test alone";
    assert!(program.is_file(), "{} {missing}", program.display());
    program
}

impl Program {
    pub fn start(data: &Path, port: &str) -> Self {
        let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        // An export is still being made when a browser that has to share two cores has come to its page.
        let options = ["--port", port, "--grace", "1", "--demo-seconds", "30"];
        let log = home.path().join("log");
        let mut process = Process::start_with_pipes("the example", &program(), log, |command| {
            command.arg("--data").arg(data).args(options).env("RUST_LOG", "error");
        });
        let (_, stdout) = process.take_pipes();
        let line = BufReader::new(stdout).lines().next();
        let line =
            line.unwrap_or_else(|| panic!("it does not say where it is: {}", process.last_of_log())).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("an address");
        Self { url: url.trim_end_matches('/').to_owned(), process, _home: home }
    }

    /// As a power cut does it.
    pub fn kill(mut self) {
        self.process.kill();
    }
}
