//! The commcare example as a user runs it, to be killed and started again at the same address.
//!
//! `cargo test` builds examples along with the tests; with `--test soil_pages` alone, build the example first.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub struct Program {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub url: String,
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
        let mut child = Command::new(program())
            .arg("--data")
            .arg(data)
            .args(["--port", port, "--grace", "1"])
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("it says where it is").unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("an address");
        Self { url: url.trim_end_matches('/').to_owned(), child }
    }

    /// As a power cut does it.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.url.rsplit(':').next().unwrap().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
