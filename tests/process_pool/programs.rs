//! Other programs: one that is killed, one that has a single thread for blocking bodies, and the example.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::kit::{self, Gate, is_alive};

/// This program in another role.
fn in_role(role: &str, gate: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("CRASH_ROLE", role).env("PROCESS_POOL_GATE", gate).stdin(Stdio::null());
    command
}

pub fn a_program_that_is_killed_leaves_no_child() {
    kit::block_on(async {
        let gate = Gate::new();
        let mut program = in_role("victim", &gate.path()).spawn().unwrap();
        let said = gate.entered().await;
        let ids: Vec<u32> = said.split(' ').map(|id| id.parse().unwrap()).collect();
        assert!(ids.iter().all(|id| is_alive(*id)));
        program.kill().unwrap();
        program.wait().unwrap();
        kit::until("the child and what it has started are gone", async || {
            !ids.iter().any(|id| is_alive(*id))
        })
        .await;
    });
}

pub fn waiting_for_a_thread_is_no_run_time() {
    let gate = Gate::new();
    let status = in_role("one_thread", &gate.path()).env("BLOCKING_MAX_THREADS", "1").status().unwrap();
    assert!(status.success(), "{status}");
}

pub fn the_example_says_what_it_did() {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let example = target.join("examples/processes");
    let missing =
        "is not built: run `cargo test`, or `cargo build --example processes` before this test alone";
    assert!(example.is_file(), "{} {missing}", example.display());
    let ended = Command::new(example).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{out}{err}");
    for line in ["signal 6 (SIGABRT)", "time limit of 1s", "The letter was written all the same."] {
        assert!(out.contains(line), "{line} is missing:\n{out}\n{err}");
    }
}
