//! Downloads and progress as Soil shows them to users: what is being made now, and one task or group by its id.

use std::time::Duration;

use maud::{Markup, html};
use serde::Serialize;

use super::PageBody;
use crate::soil::{SoilState, Status};
use crate::task::clock::now;
use crate::task::{DownloadFacts, TaskId};
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::shared_looks::Looked;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{Console, parts, words};

/// The most runs whose progress is looked at.
const MOST: usize = 100;
/// How long a look at them is shared.
const FRESH: Duration = Duration::from_secs(2);

/// The page as data. It has the statuses that the users get.
#[derive(Serialize)]
struct DownloadsData<'a> {
    /// The task that was asked for.
    asked: Option<&'a Status>,
    /// Tasks that run here and have said how far they are.
    in_progress: &'a [Status],
}

type SeenProgress = Result<Vec<Status>, ConsoleProblem>;

/// The statuses of the tasks that run here and have said how far they are.
async fn progress(console: &Console) -> SeenProgress {
    let (soil, Looked { seen, .. }) = (console.celeriac.soil(), console.runs().await);
    let running = (*seen).as_ref().map_err(ConsoleProblem::from)?;
    let mut in_progress = Vec::new();
    for run in running.iter().take(MOST) {
        let status = soil.status(&run.id).await?;
        if (status.progress.is_some() || status.note.is_some()) && !status.is_over() {
            in_progress.push(status);
        }
    }
    Ok(in_progress)
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let soil = visit.console.celeriac.soil();
    let at = now();
    let asked = match visit.address.get("id").map(TaskId::from) {
        None => None,
        Some(id) if !id.is_usable() => return Err(ConsoleProblem::malformed("An id has 1 to 255 bytes.")),
        Some(id) => {
            let status = soil.status(&id).await?;
            Some(status).filter(|status| is_seen(visit, status))
        }
    };
    let console = &visit.console;
    let Looked { seen, .. } =
        console.shared.looks.look::<SeenProgress>("in progress", FRESH, progress(console)).await;
    let in_progress = (*seen).as_ref().map_err(Clone::clone)?;
    let in_progress: Vec<Status> =
        in_progress.iter().filter(|status| is_seen(visit, status)).cloned().collect();
    let sentence = match in_progress.len() {
        0 => "Nothing that runs here says how far it is.".to_owned(),
        count => format!(
            "{} how far it is.",
            words::counted(count as u64, "running task says", "running tasks say")
        ),
    };
    let scope = html! { "in this program, now · of the first " (MOST) " runs" };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        section class="card" aria-labelledby="find-download" data-still {
            header { h2 id="find-download" { "Find a download" } p class="scope" { "by the id of its task" } }
            form class="filters" action=(visit.href(&ScreenAddress::of(PageName::Downloads))) {
                div class="fields" { (parts::field("id", "Id", "", &parts::text_input("id", "id", visit.address.get("id")))) }
                div class="acts" { button { "Find" } }
            }
        }
        @if let Some(status) = &asked { (one(visit, status)) }
        @else if visit.address.get("id").is_some() { (parts::note("warn", &html! { "That download belongs to a queue that you may not see." })) }
        @if in_progress.is_empty() {
            (parts::empty("Nothing in progress", &html! { "A task is here while it runs, once it has called " code { "ctx.progress(done, total)" } ". Soil keeps no list of finished files; each is found by the id of its task." }))
        } @else {
            (parts::card("progress", "In progress", &html! { "as their users see it" }, &table(visit, &in_progress)))
        }
    };
    let data = DownloadsData { asked: asked.as_ref(), in_progress: &in_progress };
    Ok(PageBody::new("Downloads", at, &data, main))
}

/// Whether whoever looks may see the task. A status does not say whose it is, so it is for those who may see the queue.
fn is_seen(visit: &ConsoleVisit, status: &Status) -> bool {
    match &status.queue {
        Some(queue) => visit.viewer.sees(queue),
        None => visit.viewer.sees_any(),
    }
}

fn state(status: &Status) -> (StatusMark, &'static str) {
    match status.state {
        SoilState::Missing if status.gone => (StatusMark::Idle, "gone: its file has expired"),
        SoilState::Missing => (StatusMark::Idle, "not known"),
        SoilState::NotStarted => (StatusMark::Idle, "waits"),
        SoilState::Started => (StatusMark::Run, "in progress"),
        SoilState::Success => (StatusMark::Done, "ready"),
        SoilState::Failed => (StatusMark::Failed, "failed"),
    }
}

fn percent(status: &Status) -> Markup {
    html! {
        @match &status.progress {
            Some(progress) => {
                (progress.percent) " %" @if progress.total > 0 { span class="why" { (words::count(progress.current)) " of " (words::count(progress.total)) } }
            }
            None => span class="faint" { "–" }
        }
    }
}

fn table(visit: &ConsoleVisit, statuses: &[Status]) -> Markup {
    let columns = [("Task", false), ("Queue", false), ("Note", false), ("Done", true)];
    let rows = html! {
        @for status in statuses {
            @let (mark, word) = state(status);
            tr data-key=(status.id.as_str()) {
                th scope="row" {
                    span class="name" { (parts::mark(mark, word)) a href=(visit.task(status.id.as_str())) { (words::line(status.task.as_deref().unwrap_or(status.id.as_str()), 100)) } }
                }
                td data-l="queue" { (status.queue.as_deref().unwrap_or_default()) }
                td class="full" data-l="note" { (words::line(status.note.as_deref().unwrap_or_default(), 200)) }
                td class="n" data-l="done" { (percent(status)) }
            }
        }
    };
    parts::table(
        "progress",
        &columns,
        &rows,
        "A bar never goes back, and is full only when its task has succeeded.",
    )
}

/// The task that was asked for.
fn one(visit: &ConsoleVisit, status: &Status) -> Markup {
    let (mark, word) = state(status);
    let file = |file: &DownloadFacts| {
        let owners = if file.owners.is_empty() {
            "everybody who has the link".to_owned()
        } else {
            file.owners.join(", ")
        };
        html! {
            (words::line(&file.name, 200)) ", " (words::size(usize::try_from(file.size).unwrap_or(usize::MAX))) ", until " (parts::time(file.expires_at))
            span class="why faint" { " for " (words::line(&owners, 200)) }
        }
    };
    let facts = [
        ("State", html! { (parts::state(mark, word)) }),
        (
            "Task",
            html! { a href=(visit.task(status.id.as_str())) { code { (words::line(status.id.as_str(), 80)) } } @if let Some(task) = &status.task { " " (words::line(task, 100)) } },
        ),
        ("Progress", percent(status)),
        ("Note", html! { (words::line(status.note.as_deref().unwrap_or("none"), 300)) }),
        (
            "File",
            html! { @match &status.download { Some(facts) => (file(facts)), None => span class="faint" { "none" } } },
        ),
        (
            "Errors",
            html! { @if status.errors.is_empty() { span class="faint" { "none" } } @else { (words::line(&status.errors.join("; "), 400)) } },
        ),
    ];
    parts::card(
        "asked",
        "What was asked for",
        &html! { "as its user sees it" },
        &html! { div class="pad" { (parts::facts(&facts)) } },
    )
}
