//! The programs on the broker and what runs in them, as they say of themselves by Celery's remote control.
//!
//! Invariant: what others say is text of a bounded length, and there is a bounded number of it, whatever they answer.

use std::time::Duration;

use maud::{Markup, html};
use serde::Serialize;
use serde_json::{Value, json};

use super::ROWS;
use crate::Celeriac;
use crate::core::Timestamp;
use crate::core::json_time::optional_iso;
use crate::task::clock::now;
use crate::web::console::parts::StatusMark;
use crate::web::console::rights::{Permission, Viewer};
use crate::web::console::shared_looks::Looked;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// How long what the fleet says is shared: each question waits a second for its replies.
const FRESH: Duration = Duration::from_secs(10);
/// The most programs of the fleet that are shown.
const MOST_NODES: usize = 50;
/// The most runs of a program that are looked at: stuck bodies first, then the longest.
const MOST_RUNS: usize = 200;
/// The most bytes of the id of a task, and of a name.
const ID: usize = 255;
const NAME: usize = 100;

/// A program of the fleet, as it says of itself.
#[derive(Clone, Debug, Serialize)]
pub(super) struct WorkerNode {
    pub(super) name: String,
    pid: Option<u64>,
    uptime_seconds: Option<u64>,
    workers: Option<u64>,
    /// What it is built on, such as `prefork` or `celeriac:io+cpu`.
    pool: Option<String>,
    /// How many tasks run in it that may be seen, stuck bodies not among them; `None`: it has not said.
    running: Option<usize>,
    /// How many bodies go on in it although their runs were given up. Celery's workers do not say so.
    stuck: Option<usize>,
    #[serde(skip)]
    runs: Vec<NodeRun>,
}

/// A task that runs in a program of the fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct NodeRun {
    node: String,
    id: String,
    task: String,
    /// The queue that it came through; `None`: its program does not say.
    queue: Option<String>,
    #[serde(serialize_with = "optional_iso")]
    started_at: Option<Timestamp>,
    pid: Option<u64>,
    /// Whether its run was given up, and its body goes on.
    is_stuck: bool,
}

impl WorkerNode {
    /// What a program says to the questions `stats` and `active`.
    fn of(name: &str, stats: Option<&Value>, active: Option<&Value>) -> Self {
        let name = words::line(name, NAME);
        let said = |field: &str| stats.and_then(|stats| stats.get(field));
        let pool = |field: &str| said("pool").and_then(|pool| pool.get(field));
        let active = active.and_then(Value::as_array);
        let running = active.into_iter().flatten().filter_map(|run| NodeRun::of(&name, run));
        let queues = said("queues").and_then(Value::as_object);
        let stuck: Vec<NodeRun> = queues
            .into_iter()
            .flatten()
            .filter_map(|(queue, shown)| Some((queue, shown.get("stuck")?.as_array()?)))
            .flat_map(|(queue, bodies)| bodies.iter().map(move |body| (queue, body)))
            .filter_map(|(queue, body)| Some(NodeRun::of(&name, body)?.stuck_in(queue)))
            .collect();
        let mut runs: Vec<NodeRun> = stuck.into_iter().chain(running).collect();
        runs.sort_by_key(|run| (!run.is_stuck, run.started_at));
        runs.truncate(MOST_RUNS);
        Self {
            pid: said("pid").and_then(Value::as_u64),
            uptime_seconds: said("uptime").and_then(Value::as_u64),
            workers: pool("max-concurrency").and_then(Value::as_u64),
            pool: pool("implementation").and_then(Value::as_str).map(|name| words::line(name, 60)),
            running: active.map(Vec::len),
            stuck: queues.map(|_| runs.iter().filter(|run| run.is_stuck).count()),
            name,
            runs,
        }
    }

    /// The same, without the runs that whoever looks may not see.
    fn seen_by(mut self, viewer: &Viewer) -> Self {
        // The other programs of a fleet may have queues that the catalogue of this one does not name.
        if viewer.may_everywhere(Permission::See) {
            return self;
        }
        self.runs.retain(|run| run.queue.as_deref().is_some_and(|queue| viewer.sees(queue)));
        let count = |is_stuck: bool| self.runs.iter().filter(|run| run.is_stuck == is_stuck).count();
        let (running, stuck) = (count(false), count(true));
        self.running = self.running.map(|_| running);
        self.stuck = self.stuck.map(|_| stuck);
        self
    }
}

impl NodeRun {
    /// A task as Celery's `Request.info()` shows it. `None`: it has no id, so it is none.
    fn of(node: &str, run: &Value) -> Option<Self> {
        let text = |field: &str| run.get(field).and_then(Value::as_str);
        let seconds = run.get("time_start").and_then(Value::as_f64);
        let since = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let queue = run.get("delivery_info").and_then(|info| info.get("routing_key")).and_then(Value::as_str);
        Some(Self {
            node: node.to_owned(),
            id: words::line(text("id")?, ID),
            task: words::line(text("name").or(text("type")).unwrap_or_default(), NAME),
            queue: queue.map(|queue| words::line(queue, ID)),
            started_at: since.map(|since| Timestamp::ZERO + since),
            pid: run.get("worker_pid").and_then(Value::as_u64),
            is_stuck: false,
        })
    }

    fn stuck_in(self, queue: &str) -> Self {
        Self { queue: Some(words::line(queue, ID)), is_stuck: true, ..self }
    }
}

/// What a fleet says; the error says why it cannot be asked.
type SeenNodes = Result<Vec<WorkerNode>, String>;

/// The programs on the broker, of whose runs those that whoever looks may see, and when they were asked.
pub(super) async fn look(visit: &ConsoleVisit) -> (Timestamp, SeenNodes) {
    let (looks, celeriac) = (&visit.console.shared.looks, &visit.console.celeriac);
    let Looked { at, seen } = looks.look::<SeenNodes>("fleet", FRESH, ask(celeriac)).await;
    let nodes = (*seen).clone();
    (at, nodes.map(|nodes| nodes.into_iter().map(|node| node.seen_by(&visit.viewer)).collect()))
}

async fn ask(celeriac: &Celeriac) -> SeenNodes {
    let fleet = celeriac.fleet();
    // With `safe` the arguments, which are not shown here, come as short texts.
    let (stats, active) =
        tokio::join!(fleet.inspect("stats", Value::Null), fleet.inspect("active", json!({ "safe": true })),);
    let stats = stats.map_err(|error| error.to_string())?;
    let active = active.map_err(|error| error.to_string())?;
    let mut names: Vec<&String> = stats.keys().chain(active.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let node = |name: &String| WorkerNode::of(name, stats.get(name), active.get(name));
    Ok(names.into_iter().take(MOST_NODES).map(node).collect())
}

/// The runs of the programs that are not this one, stuck bodies first and then the longest, and how many there are.
pub(super) fn runs_elsewhere<'a>(nodes: &'a [WorkerNode], own: Option<&str>) -> (Vec<&'a NodeRun>, usize) {
    let others = nodes.iter().filter(|node| Some(node.name.as_str()) != own);
    let mut runs: Vec<&NodeRun> = others.clone().flat_map(|node| &node.runs).collect();
    let count = others.map(|node| node.running.unwrap_or(0) + node.stuck.unwrap_or(0)).sum();
    runs.sort_by_key(|run| (!run.is_stuck, run.started_at));
    runs.truncate(ROWS);
    (runs, count)
}

/// The programs, with what they say of themselves.
pub(super) fn markup(own: Option<&str>, at: Timestamp, nodes: &SeenNodes) -> Markup {
    let scope = html! { "asked at " (parts::time(at)) " · who is silent may be gone or busy" };
    let content = html! {
        @match (own, nodes) {
            (None, _) => { div class="pad" { p class="faint small" { "The broker is this program's alone, so there are no others." } } }
            (_, Err(error)) => { div class="pad" { (parts::note("warn", &html! { (error) })) } }
            (_, Ok(nodes)) => { (table(own, nodes)) }
        }
    };
    parts::card("fleet", "Programs on the broker", &scope, &content)
}

fn table(own: Option<&str>, nodes: &[WorkerNode]) -> Markup {
    let columns = [
        ("Program", false),
        ("Process", true),
        ("Up for", true),
        ("Workers", true),
        ("Running", true),
        ("Stuck", true),
        ("Pool", false),
    ];
    let unknown = || html! { span class="faint" { "not said" } };
    let rows = html! {
        @for node in nodes {
            @let is_stuck = node.stuck.is_some_and(|stuck| stuck > 0);
            @let (mark, word) = if is_stuck { (StatusMark::Failed, "has stuck bodies") } else { (StatusMark::Fine, "answers") };
            tr data-key=(node.name) {
                th scope="row" {
                    span class="name" { (parts::mark(mark, word)) (node.name) }
                    @if Some(node.name.as_str()) == own { span class="why" { "this program" } }
                }
                td class="n" data-l="process" { @match node.pid { Some(pid) => (pid), None => (unknown()) } }
                td class="n" data-l="up for" { @match node.uptime_seconds { Some(seconds) => (words::span(Duration::from_secs(seconds))), None => (unknown()) } }
                td class="n" data-l="workers" { @match node.workers { Some(workers) => (words::count(workers)), None => (unknown()) } }
                td class="n" data-l="running" { @match node.running { Some(running) => (words::count(running as u64)), None => (unknown()) } }
                td class="n" data-l="stuck" { @match node.stuck { Some(stuck) => span class=[is_stuck.then_some("bad")] { (words::count(stuck as u64)) }, None => (unknown()) } }
                td data-l="pool" { @match &node.pool { Some(pool) => (pool), None => (unknown()) } }
            }
        }
    };
    parts::table(
        "fleet",
        &columns,
        &rows,
        "As they say of themselves, by Celery's remote control. Celery's workers do not say which bodies are stuck.",
    )
}

/// What runs in the other programs.
pub(super) fn runs_markup(visit: &ConsoleVisit, at: Timestamp, runs: &[&NodeRun], count: usize) -> Markup {
    let columns =
        [("Task", false), ("Program", false), ("Queue", false), ("Process", true), ("Runs for", true)];
    let now = now();
    let unknown = || html! { span class="faint" { "not said" } };
    let rows = html! {
        @for run in runs {
            @let (mark, word) = if run.is_stuck { (StatusMark::Failed, "stuck") } else { (StatusMark::Run, "runs") };
            tr data-key=(format!("{} {} {}", run.node, run.id, run.is_stuck)) {
                th scope="row" {
                    span class="name" { (parts::mark(mark, word)) a href=(visit.task(&run.id)) { (run.task) } }
                    @if run.is_stuck { span class="why bad" { "given up, and its body on a thread goes on: what it returns is refused" } }
                }
                td data-l="program" { (run.node) }
                td data-l="queue" { @match &run.queue { Some(queue) => (queue), None => (unknown()) } }
                td class="n" data-l="process" { @match run.pid { Some(pid) => (pid), None => (unknown()) } }
                td class="n" data-l="runs for" { @match run.started_at { Some(at) => (words::span(now.since(at))), None => (unknown()) } }
            }
        }
    };
    let scope = html! { (runs.len()) " of " (words::count(count as u64)) ", stuck bodies first, then the longest · asked at " (parts::time(at)) };
    let table = parts::table(
        "elsewhere",
        &columns,
        &rows,
        "As these programs say of themselves. Each names a thousand runs at most.",
    );
    parts::card("elsewhere", "Runs in the other programs", &scope, &table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, started_at: f64) -> Value {
        // As Celery 5.7 answers.
        json!({
            "id": id, "name": "cap.sleeper", "args": "(20,)", "kwargs": "{}", "type": "cap.sleeper",
            "hostname": "w1@h", "time_start": started_at, "acknowledged": false, "worker_pid": 41,
            "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0, "redelivered": false},
        })
    }

    #[test]
    fn a_program_is_told_with_what_runs_in_it() {
        let body = json!({ "id": "deaf", "name": "shop.deaf", "time_start": 150.0 });
        let stats = json!({
            "pid": 7, "uptime": 60, "pool": { "max-concurrency": 4, "implementation": "celeriac:io+cpu" },
            "queues": { "cpu": { "stuck": [body] }, "io": { "workers": 1, "answering": false } },
        });
        let active = json!([run("late", 200.5), run("early", 100.0)]);
        let node = WorkerNode::of("w1@h", Some(&stats), Some(&active));
        assert_eq!((node.pid, node.workers, node.running, node.stuck), (Some(7), Some(4), Some(2), Some(1)));
        let told = |run: &NodeRun| (run.id.clone(), run.queue.clone().unwrap_or_default(), run.is_stuck);
        let expected = [("deaf", "cpu", true), ("early", "celery", false), ("late", "celery", false)];
        let expected = expected.map(|(id, queue, is_stuck)| (id.to_owned(), queue.to_owned(), is_stuck));
        assert_eq!(node.runs.iter().map(told).collect::<Vec<_>>(), expected);
        assert_eq!(node.runs[2].started_at, Some(Timestamp::from_millis(200_500)));
        let celerys = WorkerNode::of("w2@h", Some(&json!({ "pid": 8 })), Some(&json!([run("c", 50.0)])));
        assert_eq!((celerys.running, celerys.stuck), (Some(1), None), "it does not say what is stuck");
        let silent = WorkerNode::of("w3@h", None, None);
        assert_eq!((silent.running, silent.stuck, silent.runs.len()), (None, None, 0));
        let nodes = [node, celerys, silent];
        let ids = |own| {
            let (runs, count) = runs_elsewhere(&nodes, own);
            (runs.into_iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), count)
        };
        assert_eq!(ids(None), (vec!["deaf", "c", "early", "late"], 4));
        assert_eq!(ids(Some("w1@h")), (vec!["c"], 1), "what runs here is told apart");
    }

    #[test]
    fn what_is_no_answer_of_celerys_is_left_out_and_what_is_long_is_cut() {
        let long = "x".repeat(10_000);
        let odd = json!([
            null, 7, {}, { "id": 5 },
            { "id": long, "name": long, "time_start": -1.0, "worker_pid": "x", "delivery_info": [] },
            { "id": "n", "type": "t", "time_start": f64::MAX },
        ]);
        let stats = json!({ "pid": "x", "pool": [], "queues": { "q": { "stuck": { "id": 1 } }, "r": 5 } });
        let node = WorkerNode::of(&long, Some(&stats), Some(&odd));
        assert!(node.name.len() <= NAME && node.runs.len() == 2, "{node:?}");
        assert!(node.runs.iter().all(|run| run.id.len() <= ID && run.task.len() <= NAME), "{node:?}");
        assert!(node.runs.iter().all(|run| run.started_at.is_none() && run.pid.is_none()), "{node:?}");
        let many: Vec<Value> = (0..5 * MOST_RUNS).map(|n| run(&n.to_string(), n as f64)).collect();
        let node = WorkerNode::of("w", None, Some(&Value::Array(many)));
        assert_eq!((node.runs.len(), node.running), (MOST_RUNS, Some(5 * MOST_RUNS)));
        let error = WorkerNode::of("w", Some(&json!({ "error": "no" })), Some(&json!({ "error": "no" })));
        assert_eq!((error.running, error.stuck), (None, None));
    }
}
