//! Celery's own integration tests, of its sdist, against a worker of Celeriac's.
//!
//! This program is the parent that runs pytest, and the worker that a plugin of pytest starts ([`worker`]). What must
//! pass is in `passes-5.7.0.txt`, which may only grow; what fails, and why, is in `fails-5.7.0.txt`, which may only
//! shrink.
//! docs/testing-celeriac.md says how it is run.

mod lists;
mod suite;
mod verdict;
mod worker;

use std::process::ExitCode;
use std::time::Instant;

use celeriac_test_support as services;

use lists::Lists;
use services::{Python, RabbitMq};
use suite::Outcome;

/// Set for the copy of this program that is the worker.
const ROLE: &str = "CELERY_SUITE_ROLE";

fn main() -> ExitCode {
    if std::env::var_os(ROLE).is_some() {
        return worker::run();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let lists = Lists::read();
    let everything = std::env::var("CELERY_SUITE").is_ok_and(|what| what == "all");
    let chosen = lists.choose(&arguments, everything);
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|test| println!("{test}: test"));
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        println!("no test has such a name");
        return ExitCode::SUCCESS;
    }
    let begin = Instant::now();
    let (python, tests) = Python::with_celery_suite();
    let node = RabbitMq::start();
    let run = |half: &str, chosen: &[&str]| suite::run(&python, &tests, &node, half, chosen);
    let mut outcomes = in_halves(&chosen, run);
    // On a starved machine a test may pass its time limit although nothing is wrong.
    let starved: Vec<String> =
        outcomes.iter().filter(|o| o.timed_out() && lists.passes(&o.test)).map(|o| o.test.clone()).collect();
    if !starved.is_empty() {
        println!("{} timed out, and run again:", starved.len());
        let again: Vec<&str> = starved.iter().map(String::as_str).collect();
        for second in run("again", &again) {
            outcomes.retain(|first| first.test != second.test);
            outcomes.push(second);
        }
    }
    verdict::tell(&lists, &chosen, &outcomes, begin.elapsed())
}

/// Runs the tests on two vhosts at once, every other test on each.
fn in_halves(chosen: &[&str], run: impl Fn(&str, &[&str]) -> Vec<Outcome> + Sync) -> Vec<Outcome> {
    if chosen.len() < 10 {
        return run("alone", chosen);
    }
    let half = |first| chosen.iter().skip(first).step_by(2).copied().collect::<Vec<_>>();
    let (one, other) = (half(0), half(1));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run("other", &other));
        let mut outcomes = run("one", &one);
        outcomes.extend(other.join().expect("the other half ran"));
        outcomes
    })
}
