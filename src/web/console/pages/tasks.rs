//! Tasks that wait, are scheduled or run, found by what they say.

use maud::{Markup, html};
use serde::Serialize;

use super::PageBody;
use crate::task::TaskId;
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::Permission;
use crate::web::console::task_facts::TaskPageFacts;
use crate::web::console::task_rows::{self, TaskQuery, TaskRows};
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// The page as data.
#[derive(Serialize)]
struct TasksData<'a> {
    /// The id that was looked for, if a task of that id is known.
    found_id: Option<&'a str>,
    tasks: &'a TaskRows,
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let wanted = visit.address.get("find").map(str::trim).filter(|text| !text.is_empty());
    let mut query = TaskQuery::of(&visit.address);
    if query.argument.is_none() {
        query.argument = wanted.map(str::to_owned);
    }
    let found_id = match wanted {
        Some(text) if text.len() <= 255 => known_id(visit, text).await?.then_some(text),
        _ => None,
    };
    let (at, tasks) = task_rows::find(visit, &query, visit.address.get("after")).await?;
    let sentence = match (tasks.tasks.len(), &tasks.next) {
        (0, None) => "No task that is not over matches.".to_owned(),
        (0, Some(_)) => "None of the tasks that were looked through so far matches.".to_owned(),
        (count, None) => format!(
            "{} that {} not over.",
            words::counted(count as u64, "task", "tasks"),
            if count == 1 { "is" } else { "are" }
        ),
        (count, Some(_)) => {
            format!("{} of more that are not over.", words::counted(count as u64, "task", "tasks"))
        }
    };
    let scope = html! { "waiting, scheduled, in lanes and running · " (task_rows::scope(&tasks, &query)) };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        @if let Some(id) = found_id {
            (parts::note("good", &html! { "There is a task of the id " a href=(visit.task(id)) { code { (words::line(id, 80)) } } "." }))
        }
        section class="card" aria-labelledby="filter" {
            header { h2 id="filter" { "Find" } p class="scope" { "all conditions must hold" } }
            (form(visit, &query))
        }
        (task_rows::index_note(visit, tasks.by_index.as_deref()))
        @if tasks.tasks.is_empty() {
            (nothing(visit, &query, tasks.next.is_some()))
        } @else {
            (parts::card("tasks", "Tasks", &html! { "by queue, in the order in which they would run" }, &html! {
                (task_rows::table(visit, "tasks", &tasks, "The list stays as it was found; find again for a new one."))
            }))
        }
        (parts::pager(visit, tasks.next.as_deref(), ""))
    };
    let data = TasksData { found_id, tasks: &tasks };
    Ok(PageBody::new("Tasks", at, &data, main))
}

/// Whether a task of this id is known, and may be seen.
async fn known_id(visit: &ConsoleVisit, text: &str) -> Result<bool, ConsoleProblem> {
    let facts = TaskPageFacts::of(visit, &TaskId::from(text)).await?;
    let Some(facts) = facts else { return Ok(false) };
    let (queue, tenant) = (facts.queue.as_str(), facts.tenant.as_deref());
    visit.ask_of_tenants(&[Permission::See], [(queue, tenant)]).await;
    Ok(visit.viewer.sees_task(queue, tenant))
}

fn form(visit: &ConsoleVisit, query: &TaskQuery) -> Markup {
    let queues = visit.queue_choices();
    let standings = [
        ("", "any"),
        ("ready", "ready"),
        ("running", "running"),
        ("scheduled", "scheduled"),
        ("in_line", "in line"),
    ];
    html! {
        form class="filters" action=(visit.href(&ScreenAddress::of(PageName::Tasks))) {
            div class="fields" {
                (parts::field("task", "Task", "* is any text", &parts::text_input("task", "task", query.task.as_deref())))
                (parts::field("argument", "Arguments", "contain, or name=value", &parts::text_input("argument", "argument", query.argument.as_deref())))
                (parts::field("error", "Last error", "contains", &parts::text_input("error", "error", query.error.as_deref())))
                (parts::field("queue", "Queue", "", &parts::select("queue", "queue", query.queue.as_deref(), &queues)))
                (parts::field("tenant", "Tenant", "exactly", &parts::text_input("tenant", "tenant", query.tenant.as_deref())))
                (parts::field("standing", "Is", "", &parts::select("standing", "standing", query.standing.as_deref(), &standings)))
            }
            div class="acts" {
                button class="main" { "Find" }
                a class="button" href=(visit.href(&ScreenAddress::of(PageName::Tasks))) { "All tasks" }
                a href=(visit.href(&failed_like(query))) { "Look among failed tasks" }
                a href=(visit.href(&bulk_like(query))) { "Act on all of a kind" }
            }
        }
    }
}

/// The failed tasks that the same query chooses.
fn failed_like(query: &TaskQuery) -> ScreenAddress {
    let parts = [
        ("task", &query.task),
        ("queue", &query.queue),
        ("tenant", &query.tenant),
        ("argument", &query.argument),
        ("error", &query.error),
    ];
    parts.into_iter().fold(ScreenAddress::of(PageName::Failed), |address, (name, value)| {
        address.with(name, value.clone().unwrap_or_default())
    })
}

/// The page of bulk acts, with what of the query a rule can say.
fn bulk_like(query: &TaskQuery) -> ScreenAddress {
    let value = |value: &Option<String>| value.clone().unwrap_or_default();
    ScreenAddress::of(PageName::Bulk)
        .with("task", value(&query.task))
        .with("queue", value(&query.queue))
        .with("tenant", value(&query.tenant))
}

fn nothing(visit: &ConsoleVisit, query: &TaskQuery, goes_on: bool) -> Markup {
    html! {
        @if goes_on {
            (parts::note("", &html! { "What a page may cost is bounded, so it ends before the list does. The next page looks further." }))
        } @else if query.searches() || query.queue.is_some() || query.standing.is_some() {
            (parts::empty("Nothing matches", &html! {
                "No task that waits, is scheduled or runs matches all conditions. Take one away, or look among "
                a href=(visit.href(&failed_like(query))) { "failed tasks" } "."
            }))
        } @else {
            (parts::empty("No task", &html! { "Nothing waits and nothing runs. A task appears here within a second of its " code { "delay" } "." }))
        }
    }
}
