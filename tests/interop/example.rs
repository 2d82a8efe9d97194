//! The example of a mixed fleet, as a user runs it: its Rust worker and producer, its Python worker and producer.
//!
//! `cargo test` builds examples along with the tests; with `--test interop` alone, build the example first.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::services::{Program, Python, RabbitMq, Redis, Script, run};

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let target = test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let program = target.join("examples/celery");
    assert!(program.is_file(), "run `cargo test`, or `cargo build --example celery` before this test alone");
    program
}

#[test]
fn a_queue_that_was_moved_from_python() {
    let (broker, results) = (RabbitMq::shared().vhost("example"), Redis::shared().url_of(1));
    let python = Python::with_celery();
    let script = |file: &str| {
        Script::new(&format!("examples/celery/python/{file}"))
            .env("BROKER_URL", broker.clone())
            .env("RESULT_URL", results.clone())
    };
    let surroundings = |command: &mut Command| {
        command.env("BROKER_URL", &broker).env("RESULT_URL", &results);
    };
    let _python = python.worker(&script("tasks.py").arg("-Q").arg("orders"), "example");
    let mut worker = Program::start("the Rust worker", &program(), |command| {
        surroundings(command);
        command.arg("worker");
    });
    worker.await_line("serving prices");

    let said = python.run(&script("producer.py")).expect_success("producer.py");
    assert_eq!(said, "shoes 17800\ntotal 18150\nerror we do not sell hats\n");

    let ordered = run("the Rust producer", program(), |command| {
        surroundings(command);
        command.args(["order", "shoes=2", "laces=1"]);
    });
    assert_eq!(ordered.expect_success("the Rust producer"), "total 18150\n");
    assert!(worker.terminate().success());
}
