//! What runs: in this process with its children, body by body, and in the other programs on the broker.

use maud::{Markup, html};
use serde::Serialize;

use super::fleet::{self, NodeRun, WorkerNode};
use super::{PageBody, ROWS};
use crate::actors::RunningTask;
use crate::task::clock::now;
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::shared_looks::Looked;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// The page as data.
#[derive(Serialize)]
struct ProcessesData<'a> {
    pid: u32,
    /// The name of this program in the fleet.
    node: Option<String>,
    running: &'a [RunningTask],
    /// How many run in all queues that may be seen.
    count: usize,
    /// The queues that did not answer within a second.
    missing: &'a [String],
    /// The other programs on the broker, by their names.
    fleet: &'a [WorkerNode],
    /// What runs in those: stuck bodies first, then the longest.
    fleet_running: &'a [&'a NodeRun],
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let from: usize = match visit.address.get("after").map(str::parse) {
        None => 0,
        Some(Ok(from)) => from,
        Some(Err(_)) => return Err(ConsoleProblem::malformed("`after` is no place in the list of runs.")),
    };
    let console = &visit.console;
    let Looked { at, seen } = console.runs().await;
    let replies = (*seen).as_ref().map_err(ConsoleProblem::from)?;
    let mut runs: Vec<&RunningTask> = replies.iter().filter(|run| visit.viewer.sees(&run.queue)).collect();
    runs.sort_by_key(|run| (!run.is_stuck, run.started_at));
    let shown: Vec<RunningTask> = runs.iter().skip(from).take(ROWS).map(|run| (*run).clone()).collect();
    let next = (from + shown.len() < runs.len()).then(|| (from + shown.len()).to_string());
    let stuck = runs.iter().filter(|run| run.is_stuck).count();
    let node = console.celeriac.node();
    let (asked_at, fleet) = match &node {
        Some(_) if visit.viewer.sees_any() => fleet::look(visit).await,
        _ => (at, Ok(Vec::new())),
    };
    let nodes = fleet.as_deref().unwrap_or_default();
    let (elsewhere, elsewhere_count) = fleet::runs_elsewhere(nodes, node.as_deref());
    let missing: Vec<String> =
        replies.missing.iter().filter(|name| visit.viewer.sees(name)).cloned().collect();
    let sentence = match (runs.len(), stuck) {
        (0, _) => "Nothing runs in this program.".to_owned(),
        (count, 0) => format!("{} in this program.", words::counted(count as u64, "task runs", "tasks run")),
        (count, stuck) => format!(
            "{} in this program; {} that nobody could stop.",
            words::counted(count as u64, "task runs", "tasks run"),
            words::counted(stuck as u64, "is a body", "are bodies")
        ),
    };
    let pid = std::process::id();
    let scope = html! { "process " (pid) @if let Some(node) = &node { " · " (node) } " · Celeriac " (env!("CARGO_PKG_VERSION")) };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        @for name in &missing { (parts::note("warn", &html! { "The queue " strong { (name) } " does not answer within a second, so its runs are not among these." })) }
        @if shown.is_empty() {
            (parts::empty("Nothing runs", &html! { "A task is here from the start of its body to its end." }))
        } @else {
            (parts::card("runs", "Runs", &html! { "stuck bodies first, then the longest" }, &table(visit, &shown)))
            @if next.is_some() || from > 0 { (parts::pager(visit, next.as_deref(), &format!("{} of {}", shown.len(), runs.len()))) }
        }
        (fleet::markup(node.as_deref(), asked_at, &fleet))
        @if !elsewhere.is_empty() { (fleet::runs_markup(visit, asked_at, &elsewhere, elsewhere_count)) }
    };
    let data = ProcessesData {
        pid,
        node: node.clone(),
        running: &shown,
        count: runs.len(),
        missing: &missing,
        fleet: nodes,
        fleet_running: &elsewhere,
    };
    Ok(PageBody::new("Processes", at, &data, main))
}

fn table(visit: &ConsoleVisit, runs: &[RunningTask]) -> Markup {
    let columns = [
        ("Task", false),
        ("Queue", false),
        ("Worker", false),
        ("Pool", false),
        ("Process", true),
        ("Attempt", true),
        ("Runs for", true),
    ];
    let now = now();
    let rows = html! {
        @for run in runs {
            @let time = now.since(run.started_at);
            @let is_over = run.time_limit.is_some_and(|limit| time > limit);
            @let (mark, word) = if run.is_stuck { (StatusMark::Failed, "stuck") } else if run.interrupt.is_some() { (StatusMark::Held, "told to end") } else { (StatusMark::Run, "runs") };
            tr data-key=(format!("{} {}", run.id, run.is_stuck)) {
                th scope="row" {
                    span class="name" { (parts::mark(mark, word)) a href=(visit.task(run.id.as_str())) { (words::line(&run.task, 100)) } }
                    @if run.is_stuck { span class="why bad" { "given up, and its body on a thread goes on: what it returns is refused" } }
                    @else if run.interrupt.is_some() { span class="why" { "told to end" } }
                }
                td data-l="queue" { a href=(visit.queue(&run.queue)) { (run.queue) } }
                td data-l="worker" { (run.worker) }
                td data-l="pool" { (run.pool) }
                td class="n" data-l="process" { (run.pid) }
                (parts::number("attempt", u64::from(run.attempt)))
                td class="n" data-l="runs for" {
                    span class=[is_over.then_some("bad")] { (words::span(time)) }
                    @if let Some(limit) = run.time_limit { span class="why" { "limit " (words::span(limit)) } }
                }
            }
        }
    };
    parts::table("runs", &columns, &rows, "The process is this one, or a child of a process pool.")
}
