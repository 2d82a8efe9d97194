//! The table promise × broker, made of the tests that really exist, against the list of what cannot be promised.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use celeriac::broker::conformance::{LIMITS, Limit};

/// The columns of the table, and the test modules that make each of them.
const BROKERS: &[(&str, &[&str])] = &[
    ("memory", &["memory"]),
    ("embedded", &["embedded"]),
    ("RabbitMQ classic", &["amqp::classic", "split::on_classic_queues"]),
    ("RabbitMQ quorum", &["amqp::quorum", "split::on_quorum_queues"]),
    ("RabbitMQ with lanes", &["redis_lanes", "split::with_lanes"]),
    ("outbox", &["outbox"]),
];

/// The names of all promises, in the order in which `broker_conformance!` lists them.
fn promises() -> Vec<&'static str> {
    let source = include_str!("../../src/broker/conformance/mod.rs");
    let mut names = Vec::new();
    for list in source.split("@tests $subject:").skip(1) {
        let list = list.split('}').next().unwrap_or_default();
        if !list.contains('$') {
            names.extend(list.split_whitespace());
        }
    }
    names
}

/// The tests of this program, by module.
fn tests() -> BTreeMap<String, BTreeSet<String>> {
    let this = std::env::current_exe().expect("the path of this program");
    let told = Command::new(this).arg("--list").output().expect("the list of the tests");
    let mut modules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&told.stdout).lines() {
        if let Some((module, name)) = line.strip_suffix(": test").and_then(|path| path.rsplit_once("::")) {
            modules.entry(module.to_owned()).or_default().insert(name.to_owned());
        }
    }
    modules
}

/// The numbers of the limits of a promise on a broker, counted from 1, of those that leave a part of it or of the others.
fn limits(broker: &str, promise: &str, in_part: bool) -> Vec<String> {
    let is_meant = |limit: &Limit| {
        limit.in_part == in_part && limit.brokers.contains(&broker) && limit.promises.contains(&promise)
    };
    let numbered = LIMITS.iter().zip(1..).filter(|(limit, _)| is_meant(limit));
    numbered.map(|(_, number): (_, usize)| number.to_string()).collect()
}

#[test]
fn each_promise_is_kept_or_the_list_says_why_not() {
    let (promises, tests) = (promises(), tests());
    assert!(promises.len() > 50, "{promises:?}");
    let mut table = String::from("| promise |");
    BROKERS.iter().for_each(|(broker, _)| write!(table, " {broker} |").unwrap());
    table.push_str("\n|---|");
    BROKERS.iter().for_each(|_| table.push_str("---|"));
    for promise in &promises {
        write!(table, "\n| {} |", promise.replace('_', " ")).unwrap();
        for (broker, modules) in BROKERS {
            let runs = modules.iter().any(|module| tests[*module].contains(*promise));
            let (partly, never) = (limits(broker, promise, true), limits(broker, promise, false));
            assert_eq!(
                runs,
                never.is_empty(),
                "{broker}, `{promise}`: it has a test, or a limit says why not"
            );
            let cell = match (never.is_empty(), partly.is_empty()) {
                (true, true) => "kept".to_owned(),
                (true, false) => format!("in part ({})", partly.join(", ")),
                (false, _) => format!("no ({})", never.join(", ")),
            };
            write!(table, " {cell} |").unwrap();
        }
    }
    table.push('\n');
    for (index, limit) in LIMITS.iter().enumerate() {
        for promise in limit.promises {
            assert!(promises.contains(promise), "limit {}: no promise `{promise}`", index + 1);
        }
        write!(table, "\n{}. {}", index + 1, limit.because).unwrap();
    }
    println!("{table}");
    let page = include_str!("../../docs/promises.md");
    assert!(page.contains(&table), "docs/promises.md does not have this table:\n{table}");
}
