//! All queues: how each keeps its promise, and which need a person.

use maud::{Markup, html};
use serde::Serialize;

use super::{PageBody, live};
use crate::core::report::{QueueCondition, predicate};
use crate::web::console::board::{QueueBoard, QueueLine};
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::Permission;
use crate::web::console::samples::Series;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// The most queues on one page.
const MOST: usize = 100;
/// The most queues that are named as needing a person.
const MOST_NEEDS: usize = 6;

/// The page as data.
#[derive(Serialize)]
struct QueuesData<'a> {
    queues: &'a [QueueLine],
    /// The queues that did not answer within a second.
    missing: &'a [String],
    /// How many queues there are in all.
    count: usize,
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let board = QueueBoard::with_kept_promises(visit).await?;
    let lately = visit.console.shared.samples.series(|queue| visit.viewer.sees(queue));
    let from: usize = match visit.address.get("after").map(str::parse) {
        None => 0,
        Some(Ok(from)) => from,
        Some(Err(_)) => return Err(ConsoleProblem::malformed("`after` is no place in the list of queues.")),
    };
    let shown = board.queues.get(from..).unwrap_or_default();
    let shown = &shown[..shown.len().min(MOST)];
    let next = (from + shown.len() < board.queues.len()).then(|| (from + shown.len()).to_string());
    let whose = match visit.console.celeriac.serves_any() {
        true => "that this program serves",
        false => "that wait for other programs",
    };
    let scope = html! {
        (words::counted(board.queues.len() as u64, "queue", "queues")) " " (whose) " · "
        "waits and runs as of now, percentiles since the program started"
    };
    let main = html! {
        (parts::headline(&html! { (sentence(&board)) }, &scope, None))
        @for name in &board.missing {
            (parts::note("warn", &html! {
                strong { (name) } " does not answer within a second: a task blocks its event loop, or its actor is being built anew."
            }))
        }
        @if board.queues.is_empty() && board.missing.is_empty() {
            (parts::empty("No queue", &html! {
                "This program serves no queue that you may see. A queue is there as soon as a task names it, or a row of "
                code { "celeriac.toml" } "."
            }))
        } @else {
            (needs(visit, &board))
            (figures(&board, &lately))
            (parts::card("queues", "Queues", &html! { "what needs a person first, then by share of promise used" }, &html! {
                (table(visit, shown))
                @if next.is_some() || from > 0 {
                    (parts::pager(visit, next.as_deref(), &format!("{} of {}", shown.len(), board.queues.len())))
                }
            }))
        }
    };
    let data = QueuesData { queues: shown, missing: &board.missing, count: board.queues.len() };
    Ok(PageBody::new("Queues", board.at, &data, main))
}

/// How things are, in one sentence.
fn sentence(board: &QueueBoard) -> String {
    use QueueCondition as Is;
    let mut parts: Vec<String> = [
        (Is::Halted, "has stopped itself", "have stopped themselves"),
        (Is::Late, "is late", "are late"),
        (Is::Stuck, "is stuck", "are stuck"),
        (Is::Unserved, "is served by nobody", "are served by nobody"),
        (Is::AtRisk, "will be late soon", "will be late soon"),
        (Is::Paused, "is paused", "are paused"),
        (
            Is::Away,
            "cannot be counted, because the broker is away",
            "cannot be counted, because the broker is away",
        ),
    ]
    .into_iter()
    .filter_map(|(condition, one, many)| {
        let count = board.count(condition) as u64;
        let verb = if count == 1 { one } else { many };
        (count > 0).then(|| format!("{} {verb}", words::counted(count, "queue", "queues")))
    })
    .collect();
    if !board.missing.is_empty() {
        let count = board.missing.len() as u64;
        parts.push(words::counted(count, "queue does not answer", "queues do not answer"));
    }
    let running: usize = board.queues.iter().map(|queue| queue.status.running).sum();
    let later: u64 = board.queues.iter().map(|queue| queue.status.scheduled + queue.status.in_line).sum();
    let is_idle = board.count(Is::Idle) == board.queues.len();
    match parts.as_slice() {
        [] if is_idle && later == 0 => "Nothing waits, and nothing runs.".to_owned(),
        [] if is_idle => format!(
            "Nothing is ready, and nothing runs; {}.",
            words::counted(
                later,
                "task waits for its time or its lane",
                "tasks wait for their time or their lane"
            )
        ),
        [] => format!("All queues are well; {}.", words::counted(running as u64, "task runs", "tasks run")),
        parts => format!("{}.", parts.join("; ")),
    }
}

/// The queues that need a person, each with a sentence and a link.
fn needs(visit: &ConsoleVisit, board: &QueueBoard) -> Markup {
    let all: Vec<&QueueLine> = board.queues.iter().filter(|queue| queue.condition.needs_a_person()).collect();
    html! {
        @if !all.is_empty() {
            (parts::card("needs", "What needs a person", &html! { (all.len()) " of " (board.queues.len()) }, &html! {
                ul class="needs" {
                    @for queue in all.iter().take(MOST_NEEDS) {
                        li data-key=(queue.status.name) {
                            @let (mark, word) = queue.condition.shown();
                            (parts::mark(mark, word))
                            p { (why(queue)) }
                            div class="acts" {
                                a href=(visit.queue(&queue.status.name)) { "Look" span class="hidden" { " at " (queue.status.name) } }
                            }
                        }
                    }
                    @if all.len() > MOST_NEEDS { li { span {} p class="faint" { (all.len() - MOST_NEEDS) " more, below." } } }
                }
            }))
        }
    }
}

fn why(queue: &QueueLine) -> Markup {
    let reason = queue.status.halted.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    html! { strong { (queue.figures.name) } " " (predicate(&queue.figures)) (reason) "." }
}

fn figures(board: &QueueBoard, lately: &Series) -> Markup {
    let sum = |number: fn(&QueueLine) -> u64| -> u64 { board.queues.iter().map(number).sum() };
    let figure_with = |name: &str, value: u64, under: &str, chart: Option<Markup>| {
        html! {
            div { dt { (name) } dd { div class="big" { (words::count(value)) } div class="under" { (under) } @if let Some(chart) = chart { (chart) } } }
        }
    };
    let figure = |name: &str, value: u64, under: &str| figure_with(name, value, under, None);
    let ready = (lately.at.len() > 1).then(|| {
        let (over, values) = (live::over(lately), live::floats(&lately.ready));
        let most = words::count(lately.ready.iter().copied().max().unwrap_or_default());
        html! { svg class="spark" role="img" aria-label=(format!("ready in {over}: {most} at most")) { (parts::line(&values, 1.0)) } }
    });
    let ready_under = if ready.is_some() {
        format!("could start · line: {}", live::over(lately))
    } else {
        "could start".to_owned()
    };
    html! {
        section class="card" aria-label="Figures of all queues" {
            dl class="figs" {
                (figure("running now", sum(|queue| queue.status.running as u64), "in this program"))
                (figure_with("ready now", sum(|queue| queue.status.ready), ready_under.as_str(), ready))
                (figure("scheduled", sum(|queue| queue.status.scheduled), "wait for their time"))
                (figure("in lanes", sum(|queue| queue.status.in_line), "wait for their key"))
                (figure("failed", sum(|queue| queue.status.failed), "since the program started"))
            }
        }
    }
}

fn table(visit: &ConsoleVisit, queues: &[QueueLine]) -> Markup {
    let columns = [
        ("Queue", false),
        ("Promise", true),
        ("Used now", false),
        ("Kept, 24 h", true),
        ("p50", true),
        ("p95", true),
        ("Running", true),
        ("Ready", true),
        ("Scheduled", true),
        ("In line", true),
        ("Failed", true),
        ("Dead", true),
        ("Blocked", true),
        ("", true),
    ];
    let rows = html! { @for queue in queues { (row(visit, queue)) } };
    let caption = "Kept, 24 h: how many of the first starts kept the promise at least, in all processes that keep their results in one place, a minute old at most. p50 and p95: how long tasks waited for their first start. Blocked: for how long nothing started while a task was ready.";
    parts::table("queues", &columns, &rows, caption)
}

fn row(visit: &ConsoleVisit, queue: &QueueLine) -> Markup {
    let status = &queue.status;
    let (mark, word) = queue.condition.shown();
    let wait = &status.time_to_start;
    let waited = |wait| if status.time_to_start.count == 0 { "–".to_owned() } else { words::span(wait) };
    html! {
        tr data-key=(status.name) {
            th scope="row" {
                span class="name" { (parts::mark(mark, word)) a href=(visit.queue(&status.name)) { (status.name) } }
                @if queue.condition.needs_a_person() { span class="why" { (word) } }
            }
            td class="n" data-l="promise" { @if let Some(target) = &queue.target { (target) } @else { span class="faint" { "none" } } }
            td class="used full" data-l="used now" {
                @match queue.promise_used { Some(share) => (parts::used(share)), None => span class="faint" { "no target" } }
            }
            td class="n off" data-l="kept, 24 h" { @match &queue.kept { Some(kept) => (format!("{:.1} %", (kept.share() * 1_000.0).floor() / 10.0)), None => "–" } }
            td class="n off" data-l="p50" { (waited(wait.p50)) }
            td class="n" data-l="p95" { (waited(wait.p95)) }
            td class="n" data-l="running" {
                (words::count(status.running as u64)) " " span class="faint" { "of " (words::count(status.workers as u64)) }
                (parts::thin_bar(status.running as u64, status.workers as u64))
            }
            (parts::number("ready", status.ready))
            (parts::number("scheduled", status.scheduled))
            (parts::number("in line", status.in_line))
            (parts::number("failed", status.failed))
            (parts::number("dead", status.dead))
            td class=(if status.blockage.is_zero() { "n zero" } else { "n" }) data-l="blocked" { (words::span(status.blockage)) }
            td class="act" { @if visit.viewer.may(Permission::Pause, Some(&status.name)) { (pause_button(visit, queue)) } }
        }
    }
}

/// The button that pauses a queue or ends its pause.
pub(super) fn pause_button(visit: &ConsoleVisit, queue: &QueueLine) -> Markup {
    let name = &queue.status.name;
    let (act, label) = if queue.status.paused { ("resume", "Resume") } else { ("pause", "Pause") };
    html! { div class="row-acts" { (parts::act_button(visit, act, &[("queue", name.as_str())], label, name)) } }
}
