//! Rows of tasks that are not over, in the lists of a queue and of what was searched for.

use std::collections::HashSet;

use maud::{Markup, html};
use serde::Serialize;

use super::address::{LONGEST, ScreenAddress};
use super::arguments::ArgumentLine;
use super::pages::{LIST_FRESH, ROWS};
use super::parts::{self, StatusMark};
use super::problem::ConsoleProblem;
use super::rights::Permission;
use super::shared_looks::Looked;
use super::visit::ConsoleVisit;
use super::{Console, words};
use crate::app::ControlError;
use crate::broker::{Standing, TaskFilter, UnfinishedTask};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// The most bytes of an error in a row.
const ERROR: usize = 160;
/// The most pages that are looked at to find some of the tasks that are meant.
const MOST_PIECES: usize = 5;
/// The field of an address that says by which way tasks are found, and its value for a look through all of them.
const WAY: &str = "way";
const SCAN: &str = "scan";

/// A task in a list, without what would make the list large.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TaskListRow {
    pub(super) id: String,
    pub(super) task: String,
    pub(super) queue: String,
    pub(super) tenant: Option<String>,
    pub(super) is: TaskStanding,
    pub(super) priority: u8,
    /// The number of earlier runs that count as attempts.
    pub(super) tries: u32,
    pub(super) arguments: ArgumentLine,
    #[serde(serialize_with = "crate::core::json_time::iso")]
    pub(super) enqueued_at: Timestamp,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    pub(super) eta: Option<Timestamp>,
    /// The error of the last attempt.
    pub(super) error: Option<String>,
    /// The key of its lane.
    pub(super) lane: Option<String>,
}

/// What a task waits for, or that it runs. Other than for a broker, a task that a queue has fetched and that waits there for
/// a worker is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TaskStanding {
    Ready,
    Running,
    Scheduled,
    InLine,
}

impl TaskStanding {
    const ALL: [Self; 4] = [Self::Ready, Self::Running, Self::Scheduled, Self::InLine];

    fn of(task: &UnfinishedTask, running: &HashSet<TaskId>) -> Self {
        match task.standing {
            Standing::Delivered if running.contains(&task.message.id) => Self::Running,
            Standing::Ready | Standing::Delivered => Self::Ready,
            Standing::Scheduled => Self::Scheduled,
            Standing::InLine => Self::InLine,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Scheduled => "scheduled",
            Self::InLine => "in_line",
        }
    }

    /// Where the broker has such tasks.
    fn in_broker(self) -> &'static [Standing] {
        match self {
            Self::Ready => &[Standing::Ready, Standing::Delivered],
            Self::Running => &[Standing::Delivered],
            Self::Scheduled => &[Standing::Scheduled],
            Self::InLine => &[Standing::InLine],
        }
    }

    /// Its mark and its word.
    fn shown(self) -> (StatusMark, &'static str) {
        match self {
            Self::Ready => (StatusMark::Idle, "ready"),
            Self::Running => (StatusMark::Run, "running"),
            Self::Scheduled => (StatusMark::Held, "scheduled"),
            Self::InLine => (StatusMark::Held, "in line"),
        }
    }
}

/// A page of a list.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TaskRows {
    pub(super) tasks: Vec<TaskListRow>,
    /// What leads to the next page.
    pub(super) next: Option<String>,
    /// How many tasks were looked at for the page.
    pub(super) looked_at: Option<u64>,
    /// The argument by whose index they were found.
    pub(super) by_index: Option<String>,
}

/// What a list is made by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TaskQuery {
    pub(super) queue: Option<String>,
    pub(super) standing: Option<String>,
    pub(super) task: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) argument: Option<String>,
    pub(super) error: Option<String>,
    /// Whether all tasks are looked through, also where there is an index.
    pub(super) scans: bool,
}

impl TaskQuery {
    /// Reads the query of an address.
    pub(super) fn of(address: &ScreenAddress) -> Self {
        let of = |name: &str| address.get(name).map(str::to_owned);
        Self {
            queue: of("queue"),
            standing: of("standing"),
            task: of("task"),
            tenant: of("tenant"),
            argument: of("argument"),
            error: of("error"),
            scans: address.get(WAY) == Some(SCAN),
        }
    }

    /// Whether it chooses by more than the queue and the standing, so that tasks have to be looked through.
    pub(super) fn searches(&self) -> bool {
        let Self { queue: _, standing: _, scans: _, task, tenant, argument, error } = self;
        task.is_some() || tenant.is_some() || argument.is_some() || error.is_some()
    }

    fn standing(&self) -> Result<Option<TaskStanding>, ConsoleProblem> {
        let Some(word) = &self.standing else { return Ok(None) };
        let known = TaskStanding::ALL.into_iter().find(|standing| standing.as_str() == word);
        known.map(Some).ok_or_else(|| {
            let word = words::line(word, 40);
            ConsoleProblem::malformed(format!(
                "`{word}` is nothing that a task waits for: write ready, running, scheduled or in_line."
            ))
        })
    }

    /// The filter for tasks. By an argument it chooses tasks only whose arguments this console shows.
    pub(super) fn filter(&self, console: &Console) -> Result<TaskFilter, ConsoleProblem> {
        let filter = self.conditions()?;
        let is_choice = self.argument.is_some() || self.tenant.is_some();
        Ok(if is_choice { filter.matching(self.chooses(console)) } else { filter })
    }

    /// What of the query only a look at the message decides: whose task it is, and whether it may be found by its arguments.
    pub(super) fn chooses(&self, console: &Console) -> impl Fn(&Message) -> bool + Send + Sync + use<> {
        let tenant = self.tenant.clone();
        let shows = self.argument.as_ref().map(|_| console.shows_arguments());
        move |message| {
            tenant.as_deref().is_none_or(|tenant| message.tenant() == Some(tenant))
                && shows.as_ref().is_none_or(|shows| shows(message))
        }
    }

    fn conditions(&self) -> Result<TaskFilter, ConsoleProblem> {
        let mut filter = TaskFilter::new();
        if let Some(queue) = &self.queue {
            filter = filter.queue(queue);
        }
        if let Some(task) = &self.task {
            filter = filter.task(task).map_err(|error| ConsoleProblem::malformed(error.to_string()))?;
        }
        if let Some(error) = &self.error {
            filter = filter.error(error);
        }
        let filter = if self.scans { filter.scanning() } else { filter };
        Ok(match &self.argument {
            Some(text) => with_argument(filter, text),
            None => filter,
        })
    }
}

/// The filter with a condition on the arguments: `name=value` for one argument, and any other text for what they contain.
pub(super) fn with_argument(filter: TaskFilter, text: &str) -> TaskFilter {
    use crate::catalogue::Argument;
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match text.split_once('=') {
        Some((name, value)) if is_name(name) => match name.parse() {
            Ok(position) => filter.argument(Argument::Position(position), value),
            Err(_) => filter.argument(Argument::Name(name.to_owned()), value),
        },
        _ => filter.arguments_contain(text),
    }
}

impl TaskListRow {
    fn of(console: &Console, task: &UnfinishedTask, running: &HashSet<TaskId>) -> Self {
        let message = &task.message;
        Self {
            id: message.id.to_string(),
            task: words::line(&message.task, LONGEST),
            queue: message.queue.clone(),
            tenant: message.tenant().map(str::to_owned),
            is: TaskStanding::of(task, running),
            priority: message.priority,
            tries: message.tries(),
            arguments: console.argument_line(message),
            enqueued_at: message.enqueued_at,
            eta: message.eta,
            error: message.last_errors.first().map(|error| words::line(error, ERROR)),
            lane: message.serial.as_ref().map(|serial| serial.lane.key().to_owned()),
        }
    }
}

type SeenRows = Result<TaskRows, ControlError>;

/// The page of the list that the query and the place in it ask for, without the tasks that the viewer may not see.
pub(super) async fn find(
    visit: &ConsoleVisit,
    query: &TaskQuery,
    after: Option<&str>,
) -> Result<(Timestamp, TaskRows), ConsoleProblem> {
    let console = &visit.console;
    let (filter, standing) = (query.filter(console)?, query.standing()?);
    let after = after.map(|after| visit.opened(after)).transpose()?;
    let name = format!("tasks {query:?} {after:?}");
    let look = look(console, &filter, standing, after.as_deref());
    let Looked { at, seen } = console.shared.looks.look::<SeenRows>(&name, LIST_FRESH, look).await;
    let mut rows = (*seen).as_ref().map_err(ConsoleProblem::from)?.clone();
    let owners = rows.tasks.iter().map(|task| (task.queue.as_str(), task.tenant.as_deref()));
    visit.ask_of_tenants(&[Permission::See], owners).await;
    rows.tasks.retain(|task| visit.viewer.sees_task(&task.queue, task.tenant.as_deref()));
    // How much there is of others is nobody's business.
    rows.looked_at = rows.looked_at.filter(|_| visit.viewer.sees_any());
    rows.next = rows.next.map(|next| visit.sealed(next));
    Ok((at, rows))
}

/// Looks at one page after the other, until some of the tasks are meant, or enough was looked at.
async fn look(
    console: &Console,
    filter: &TaskFilter,
    standing: Option<TaskStanding>,
    after: Option<&str>,
) -> SeenRows {
    let Looked { seen, .. } = console.runs().await;
    let running: HashSet<TaskId> = match &*seen {
        Ok(runs) => runs.iter().filter(|run| !run.is_stuck).map(|run| run.id.clone()).collect(),
        Err(_) => HashSet::new(),
    };
    let standings = standing.map_or(&[] as &[Standing], TaskStanding::in_broker);
    let mut rows =
        TaskRows { tasks: Vec::new(), next: after.map(str::to_owned), looked_at: None, by_index: None };
    for _ in 0..MOST_PIECES {
        let page =
            console.celeriac.page_unfinished_tasks(filter, standings, rows.next.as_deref(), ROWS).await?;
        let all = page.tasks.iter().map(|task| TaskListRow::of(console, task, &running));
        rows.tasks = all.filter(|row| standing.is_none_or(|standing| row.is == standing)).collect();
        rows.looked_at = match (rows.looked_at, page.looked_at) {
            (Some(before), Some(now)) => Some(before + now),
            (before, now) => before.or(now),
        };
        rows.by_index = page.by_index;
        rows.next = page.next;
        if !rows.tasks.is_empty() || rows.next.is_none() {
            break;
        }
    }
    Ok(rows)
}

/// The table of these rows.
pub(super) fn table(visit: &ConsoleVisit, labelled_by: &str, rows: &TaskRows, caption: &str) -> Markup {
    let columns = [
        ("Task", false),
        ("Is", false),
        ("Arguments", false),
        ("Queue", false),
        ("Tries", true),
        ("Enqueued", true),
        ("Due", true),
    ];
    let now = now();
    let body = html! {
        @for task in &rows.tasks {
            tr data-key=(task.id) {
                @let (mark, word) = task.is.shown();
                th scope="row" {
                    span class="name" { (parts::mark(mark, word)) a href=(visit.task(&task.id)) { (words::line(&task.task, 100)) } }
                    @if let Some(error) = &task.error { span class="why" { "last error: " (error) } }
                }
                td data-l="is" { (word) @if let Some(lane) = &task.lane { span class="why" { "lane " (words::line(lane, 60)) } } }
                td class="full clip" data-l="arguments" { (task.arguments) @if let Some(tenant) = &task.tenant { span class="why" { "tenant " a href=(visit.tenant(tenant)) { (words::line(tenant, 60)) } } } }
                td data-l="queue" { a href=(visit.queue(&task.queue)) { (task.queue) } }
                (parts::number("tries", u64::from(task.tries)))
                td class="n" data-l="enqueued" { (words::ago(task.enqueued_at, now)) }
                td class="n" data-l="due" { @match task.eta { Some(eta) => (words::ago(eta, now)), None => span class="faint" { "at once" } } }
            }
        }
    };
    parts::table(labelled_by, &columns, &body, caption)
}

/// The address of a list, for all pages of it, with a look through all tasks.
pub(super) fn scanning(address: ScreenAddress) -> ScreenAddress {
    address.without("after").with(WAY, SCAN)
}

/// Says by which index the tasks of a list were found, and leads to those that it does not have.
pub(super) fn index_note(visit: &ConsoleVisit, by_index: Option<&str>) -> Markup {
    html! {
        @if let Some(argument) = by_index {
            (parts::note("", &html! {
                "Found by the index of " code { (words::line(argument, 60)) } ", which has the tasks that were enqueued since they are searched for by it. "
                a href=(visit.href(&scanning(visit.address.clone()))) { "Look through all tasks" }
            }))
        }
    }
}

/// What a list shows in the place of its rows, and how far it has looked.
pub(super) fn scope(rows: &TaskRows, query: &TaskQuery) -> String {
    let shown = words::counted(rows.tasks.len() as u64, "task", "tasks");
    if let Some(argument) = &rows.by_index {
        let rest = if rows.next.is_some() { "more follow" } else { "that is all" };
        return format!("{shown}; found by the index of {}; {rest}", words::line(argument, 60));
    }
    match (rows.looked_at, &rows.next) {
        (Some(looked_at), Some(_)) if query.searches() => {
            format!("{shown} of the {} that were looked through so far; more follow", words::count(looked_at))
        }
        (_, Some(_)) => format!("{shown}; more follow"),
        (Some(looked_at), None) if query.searches() => {
            format!("{shown}; all of the list was looked through, the last {} here", words::count(looked_at))
        }
        _ => format!("{shown}; that is all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::console::address::PageName;

    #[test]
    fn a_query_is_read_from_its_address() {
        let address = ScreenAddress::read(PageName::Tasks, "queue=mail&standing=ready&argument=a%3Db&x=y")
            .expect("an address");
        let query = TaskQuery::of(&address);
        assert_eq!((query.queue.as_deref(), query.argument.as_deref()), (Some("mail"), Some("a=b")));
        assert!(query.searches() && query.conditions().is_ok());
        assert!(matches!(query.standing(), Ok(Some(TaskStanding::Ready))));
        let odd = TaskQuery { standing: Some("asleep".to_owned()), ..TaskQuery::default() };
        assert!(odd.standing().is_err() && !odd.searches());
    }
}
