//! Any canvas gives what it gives when it is worked out by hand, and each of its tasks runs exactly once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use celeriac::task::canvas::{Canvas, chain, chord, group};
use celeriac::{Celeriac, task};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::kit::{LONG, apart, embedded, memory};

#[derive(Clone, Debug)]
enum Tree {
    Task(i64),
    Chain(Vec<Tree>),
    Group(Vec<Tree>),
    Chord(Vec<Tree>, Box<Tree>),
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = (1..100_i64).prop_map(Tree::Task);
    leaf.prop_recursive(3, 14, 3, |inner| {
        let several = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            3 => several.clone().prop_map(Tree::Chain),
            2 => several.clone().prop_map(Tree::Group),
            2 => (several, inner).prop_map(|(header, body)| Tree::Chord(header, Box::new(body))),
        ]
    })
}

/// How often each task ran, by the case and the number of the task in it.
static RUNS: LazyLock<Mutex<HashMap<String, Vec<usize>>>> = LazyLock::new(Mutex::default);

#[task(max_retries = 0)]
async fn step(input: Value, n: i64, case: String, number: usize) -> i64 {
    let mut runs = RUNS.lock().unwrap();
    let runs = runs.entry(case).or_default();
    if runs.len() <= number {
        runs.resize(number + 1, 0);
    }
    runs[number] += 1;
    flat(&input).iter().sum::<i64>() + n
}

#[task]
async fn start() -> i64 {
    1
}

/// The numbers in a result, in order.
fn flat(value: &Value) -> Vec<i64> {
    match value {
        Value::Array(list) => list.iter().flat_map(flat).collect(),
        other => vec![other.as_i64().unwrap()],
    }
}

impl Tree {
    fn canvas(&self, case: &str, tasks: &mut usize) -> Canvas {
        let mut all = |trees: &[Self]| trees.iter().map(|tree| tree.canvas(case, tasks)).collect::<Vec<_>>();
        match self {
            Self::Task(n) => {
                *tasks += 1;
                step::p(*n, case.to_owned(), *tasks - 1).untyped()
            }
            Self::Chain(steps) => chain(all(steps)),
            Self::Group(members) => group(all(members)).untyped(),
            Self::Chord(header, body) => {
                let header = all(header);
                chord(header, body.canvas(case, tasks))
            }
        }
    }

    /// The same by hand.
    fn value(&self, input: &Value) -> Value {
        match self {
            Self::Task(n) => Value::from(flat(input).iter().sum::<i64>() + n),
            Self::Chain(steps) => steps.iter().fold(input.clone(), |value, step| step.value(&value)),
            Self::Group(members) => members.iter().map(|member| member.value(input)).collect(),
            Self::Chord(header, body) => {
                let results: Value = header.iter().map(|member| member.value(input)).collect();
                body.value(&results)
            }
        }
    }
}

async fn check(celeriac: &Celeriac, tree: &Tree) {
    static CASES: AtomicUsize = AtomicUsize::new(0);
    let case = format!("case {}", CASES.fetch_add(1, Ordering::Relaxed));
    let mut tasks = 0;
    let canvas = start::s().then(tree.canvas(&case, &mut tasks));
    let result = canvas.send(celeriac.client()).await.unwrap().get(LONG).await;
    assert_eq!(result.map(|value| flat(&value)), Ok(flat(&tree.value(&Value::from(1)))));
    assert_eq!(RUNS.lock().unwrap().remove(&case), Some(vec![1; tasks]));
}

fn check_many(cases: u32, celeriac: impl Future<Output = Celeriac>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let celeriac = runtime.block_on(celeriac);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&trees(), |tree| {
        runtime.block_on(check(&celeriac, &tree));
        Ok(())
    });
    runtime.block_on(celeriac.shutdown()).unwrap();
    outcome.unwrap();
}

#[test]
fn any_canvas_in_memory() {
    check_many(300, memory());
}

#[test]
fn any_canvas_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    check_many(60, embedded(dir.path()));
}

#[test]
fn any_canvas_with_results_apart() {
    check_many(100, apart());
}

/// Canvases that once did not end: what follows a group was lost if it was a chord.
#[test]
fn a_chord_after_groups() {
    use Tree::{Chain, Chord, Group, Task};
    let nested = || Chord(vec![Task(10), Task(70)], Box::new(Task(40)));
    let group = |n: i64| Group((0..n).map(Task).collect());
    let trees = [
        Chain(vec![group(2), group(3), nested()]),
        Chain(vec![group(2), group(3), group(2), nested()]),
        Chain(vec![group(2), group(3), Chord(vec![Task(69), nested(), Task(81)], Box::new(Task(81)))]),
        Chain(vec![Chord(vec![Task(1), Task(2)], Box::new(group(2))), nested(), Task(3)]),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for celeriac in [memory().await, apart().await] {
            for tree in &trees {
                check(&celeriac, tree).await;
            }
            celeriac.shutdown().await.unwrap();
        }
    });
}
