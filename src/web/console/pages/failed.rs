//! Tasks that have failed for good and dead letters: found by what they say, tried again, corrected, deleted.

use maud::{Markup, html};
use serde::Serialize;

use super::confirm::failed_filter;
use super::{LIST_FRESH, PageBody, ROWS};
use crate::app::ControlError;
use crate::broker::FailedTask;
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::web::console::address::{LONGEST, PageName, ScreenAddress};
use crate::web::console::arguments::ArgumentLine;
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::Permission;
use crate::web::console::shared_looks::Looked;
use crate::web::console::task_rows::{TaskQuery, index_note};
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{Console, parts, words};

/// The most bytes of an error in a row.
const ERROR: usize = 240;

/// A failed task in a list.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FailedRow {
    pub(super) id: String,
    pub(super) task: String,
    pub(super) queue: String,
    tenant: Option<String>,
    is_dead_letter: bool,
    pub(super) error: String,
    arguments: ArgumentLine,
    /// How many of its attempts failed, as far as they are kept.
    attempts: usize,
    #[serde(serialize_with = "crate::core::json_time::iso")]
    failed_at: Timestamp,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    kept_until: Option<Timestamp>,
}

/// A page of the list.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FailedRows {
    pub(super) tasks: Vec<FailedRow>,
    pub(super) next: Option<String>,
    looked_at: Option<u64>,
    is_newest_first: bool,
    /// The argument by whose index they were found.
    by_index: Option<String>,
}

impl FailedRow {
    fn of(console: &Console, task: &FailedTask) -> Self {
        let message = &task.message;
        Self {
            id: message.id.to_string(),
            task: words::line(&message.task, LONGEST),
            queue: message.queue.clone(),
            tenant: message.tenant().map(str::to_owned),
            is_dead_letter: task.is_dead_letter(),
            error: words::line(&task.reason, ERROR),
            arguments: console.argument_line(message),
            attempts: task.attempts().len(),
            failed_at: task.failed_at,
            kept_until: task.expires_at,
        }
    }
}

type SeenFailedRows = Result<FailedRows, ControlError>;

/// A page of the failed tasks that the address chooses, of which the viewer may see the queue.
pub(super) async fn find(visit: &ConsoleVisit) -> Result<(Timestamp, FailedRows), ConsoleProblem> {
    let (console, after) = (&visit.console, visit.address.get("after"));
    let after = after.map(|after| visit.opened(after)).transpose()?;
    let filter = failed_filter(console, &visit.address)?;
    let look = async {
        let page = console.celeriac.page_failed_tasks(&filter, after.as_deref(), ROWS).await?;
        let tasks = page.tasks.iter().map(|task| FailedRow::of(console, task)).collect();
        let (next, looked_at, is_newest_first) = (page.next, page.looked_at, page.is_newest_first);
        Ok::<_, ControlError>(FailedRows { tasks, next, looked_at, is_newest_first, by_index: page.by_index })
    };
    let query = TaskQuery::of(&visit.address);
    let name = format!(
        "failed {query:?} {:?} {:?} {after:?}",
        visit.address.get("kind"),
        visit.address.get("until")
    );
    let Looked { at, seen } = console.shared.looks.look::<SeenFailedRows>(&name, LIST_FRESH, look).await;
    let mut rows = (*seen).as_ref().map_err(ConsoleProblem::from)?.clone();
    let owners = rows.tasks.iter().map(|task| (task.queue.as_str(), task.tenant.as_deref()));
    visit.ask_of_tenants(&[Permission::See, Permission::Retry, Permission::Delete], owners).await;
    rows.tasks.retain(|task| visit.viewer.sees_task(&task.queue, task.tenant.as_deref()));
    rows.looked_at = rows.looked_at.filter(|_| visit.viewer.sees_any());
    rows.next = rows.next.map(|next| visit.sealed(next));
    Ok((at, rows))
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let (at, rows) = find(visit).await?;
    let query = TaskQuery::of(&visit.address);
    let kind = visit.address.get("kind");
    let (one, many) = match kind {
        Some("dead") => ("dead letter", "dead letters"),
        Some("failed") => ("failed task", "failed tasks"),
        _ => ("failed task or dead letter", "failed tasks and dead letters"),
    };
    let shown = words::counted(rows.tasks.len() as u64, one, many);
    let is_all = rows.next.is_none() && visit.address.get("after").is_none();
    let sentence = match rows.tasks.len() {
        0 if rows.next.is_some() => "None of those that were looked through so far matches.".to_owned(),
        0 => format!("No {one}."),
        _ if is_all => format!("{shown}."),
        _ => format!("{shown} on this page, of more."),
    };
    let order = if rows.is_newest_first { "newest first" } else { "oldest first" };
    let scope = html! { "kept until their time is over · " (order) @if let Some(argument) = &rows.by_index { " · found by the index of " (words::line(argument, 60)) } @else if let Some(count) = rows.looked_at { " · " (words::count(count)) " looked through for this page" } };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        section class="card" aria-labelledby="filter" {
            header { h2 id="filter" { "Find" } p class="scope" { "all conditions must hold" } }
            (form(visit, &query, kind))
        }
        (index_note(visit, rows.by_index.as_deref()))
        @if rows.tasks.is_empty() {
            (nothing(&query, kind, rows.next.is_some()))
        } @else {
            (list(visit, &rows))
            (all_that_match(visit))
        }
        (parts::pager(visit, rows.next.as_deref(), ""))
    };
    Ok(PageBody::new("Failed", at, &rows, main))
}

fn form(visit: &ConsoleVisit, query: &TaskQuery, kind: Option<&str>) -> Markup {
    let queues = visit.queue_choices();
    let kinds = [("", "all"), ("failed", "failed tasks"), ("dead", "dead letters")];
    html! {
        form class="filters" action=(visit.href(&ScreenAddress::of(PageName::Failed))) {
            div class="fields" {
                (parts::field("task", "Task", "* is any text", &parts::text_input("task", "task", query.task.as_deref())))
                (parts::field("error", "Error", "contains", &parts::text_input("error", "error", query.error.as_deref())))
                (parts::field("argument", "Arguments", "contain, or name=value", &parts::text_input("argument", "argument", query.argument.as_deref())))
                (parts::field("queue", "Queue", "", &parts::select("queue", "queue", query.queue.as_deref(), &queues)))
                (parts::field("tenant", "Tenant", "exactly", &parts::text_input("tenant", "tenant", query.tenant.as_deref())))
                (parts::field("kind", "Kind", "", &parts::select("kind", "kind", kind, &kinds)))
            }
            div class="acts" {
                button class="main" { "Find" }
                a class="button" href=(visit.href(&ScreenAddress::of(PageName::Failed))) { "All of them" }
            }
        }
    }
}

fn list(visit: &ConsoleVisit, rows: &FailedRows) -> Markup {
    let columns = [
        ("Task", false),
        ("Error and arguments", false),
        ("Queue", false),
        ("Attempts", true),
        ("Failed", true),
        ("", true),
    ];
    let now = now();
    let ask =
        |task: &FailedRow| ScreenAddress::of(PageName::Confirm).with("act", "delete").with("id", &task.id);
    let body = html! {
        @for task in &rows.tasks {
            @let may = |permission| visit.viewer.may_with(permission, &task.queue, task.tenant.as_deref());
            tr data-key=(task.id) {
                th scope="row" {
                    span class="name" {
                        (parts::mark(StatusMark::Failed, if task.is_dead_letter { "dead letter" } else { "failed" }))
                        a href=(visit.task(&task.id)) { (words::line(&task.task, 100)) }
                    }
                    @if task.is_dead_letter { span class="why" { "dead letter" } }
                }
                td class="full" data-l="error" { (task.error) span class="why" { (task.arguments) @if let Some(tenant) = &task.tenant { " · tenant " a href=(visit.tenant(tenant)) { (words::line(tenant, 60)) } } } }
                td data-l="queue" { a href=(visit.queue(&task.queue)) { (task.queue) } }
                (parts::number("attempts", task.attempts as u64))
                td class="n" data-l="failed" { (words::ago(task.failed_at, now)) @if let Some(until) = task.kept_until { span class="why" { "kept " (words::ago(until, now)) } } }
                td class="act" {
                    div class="row-acts" {
                        @if may(Permission::Retry) { button name="id" value=(task.id) { "Run again" span class="hidden" { " " (words::line(&task.task, 60)) } } }
                        @if may(Permission::Delete) { (parts::ask_first(visit, &ask(task), "Delete", &words::line(&task.task, 60))) }
                    }
                }
            }
        }
    };
    let table = parts::table(
        "failed",
        &columns,
        &body,
        "Run again: under its id, with its arguments, its attempts counted anew. The list stays as it was found.",
    );
    parts::card(
        "failed",
        "Failed",
        &html! { "with their arguments and the last error" },
        &html! {
            // One form for all rows: the button says which task is meant.
            form method="post" action=(parts::act_address(visit)) { (parts::act_fields(visit, "retry")) (table) }
        },
    )
}

/// What can be done with all that the filter chooses, on this page and the others.
fn all_that_match(visit: &ConsoleVisit) -> Markup {
    let queue = visit.address.get("queue").map(|queue| visit.console.physical(queue));
    let may = |permission| visit.viewer.may(permission, queue.as_deref());
    let ask = |act: &str| {
        let fields = ["task", "queue", "tenant", "argument", "error", "kind"];
        fields.into_iter().fold(ScreenAddress::of(PageName::Confirm).with("act", act), |address, name| {
            address.with(name, visit.address.get(name).unwrap_or_default())
        })
    };
    html! {
        @if may(Permission::Retry) || may(Permission::Delete) {
            section class="card pad-all" aria-label="All that match" {
                div class="acts" {
                    span class="small faint" { "All that match, on every page: they are counted first." }
                    @if may(Permission::Retry) { (parts::ask_first(visit, &ask("retry_all"), "Run all of them again", "")) }
                    @if may(Permission::Delete) { (parts::ask_first(visit, &ask("delete_all"), "Delete all of them", "")) }
                }
            }
        }
    }
}

fn nothing(query: &TaskQuery, kind: Option<&str>, goes_on: bool) -> Markup {
    html! {
        @if goes_on {
            (parts::note("", &html! { "What a page may cost is bounded, so it ends before the list does. The next page looks further." }))
        } @else if query.searches() || query.queue.is_some() || kind.is_some() {
            (parts::empty("Nothing matches", &html! { "None of the failed tasks that are kept matches all conditions. Take one away, or look among all of them." }))
        } @else {
            (parts::empty("None has failed", &html! {
                "Every task that ended and is still remembered has succeeded, or is being retried. One that fails for good is kept here with its arguments, for as long as its queue says ("
                code { "keep_failed" } ")."
            }))
        }
    }
}
