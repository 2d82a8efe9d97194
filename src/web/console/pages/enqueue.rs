//! A form for a call of a task, made of the names of its parameters.

use maud::{Markup, html};
use serde::Serialize;

use super::PageBody;
use crate::task::clock::now;
use crate::task::{Arguments, TaskDefinition};
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::call_form::{ARGUMENT, task_here};
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::Permission;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, token, words};

/// The most tasks of the list; others are found by their names.
const MOST: usize = 200;

/// The page as data.
#[derive(Serialize)]
struct EnqueueData {
    /// The tasks that whoever looks may call, by their names.
    tasks: Vec<CallableTask>,
    /// The task whose form is shown.
    task: Option<CallableTask>,
}

/// A task that can be called.
#[derive(Clone, Serialize)]
struct CallableTask {
    name: &'static str,
    parameters: &'static [&'static str],
    /// The file and line of its definition.
    location: &'static str,
    /// The queue to which a call goes, unless its arguments say otherwise.
    queue: String,
}

impl CallableTask {
    /// The task, if whoever looks may call it.
    fn of(visit: &ConsoleVisit, task: &'static TaskDefinition) -> Option<Self> {
        let place = visit.console.celeriac.place_of_call(task.name, &Arguments::default());
        let (queue, _) = place.ok()?;
        let may = visit.viewer.may(Permission::Enqueue, Some(&queue));
        may.then_some(Self { name: task.name, parameters: task.params, location: task.location, queue })
    }
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let all = visit.console.celeriac.tasks_here();
    let known = all.len();
    let mine: Vec<CallableTask> = all.into_iter().filter_map(|task| CallableTask::of(visit, task)).collect();
    let asked = visit.address.get("task").map(str::trim).filter(|name| !name.is_empty());
    let task = match asked {
        None => None,
        Some(name) => match mine.iter().find(|task| task.name == name) {
            Some(task) => Some(task.clone()),
            None => return Err(not_callable(visit, name)),
        },
    };
    let wanted = visit.address.get("name").map(str::trim).unwrap_or_default();
    let listed: Vec<&CallableTask> = mine.iter().filter(|task| task.name.contains(wanted)).collect();
    let sentence = match &task {
        Some(task) => format!("Call {} by hand.", task.name),
        None => "Call a task by hand.".to_owned(),
    };
    let scope = html! {
        "you may call " (words::counted(mine.len() as u64, "task", "tasks")) " of the " (words::count(known as u64)) " that this program has"
    };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        @if let Some(task) = &task { (form(visit, task)) }
        @if mine.is_empty() {
            (parts::empty("No task that you may call", &html! {
                "Tasks are the functions of this program with " code { "#[task]" } ". Calling one by hand needs the permission " code { "enqueue" } " for its queue."
            }))
        } @else {
            (parts::card("tasks", "Tasks", &html! { (listed.len().min(MOST)) " of " (mine.len()) }, &list(visit, wanted, &listed)))
        }
    };
    let data = EnqueueData { tasks: listed.into_iter().cloned().collect(), task };
    Ok(PageBody::new("Enqueue", now(), &data, main))
}

/// Why there is no form for a task.
fn not_callable(visit: &ConsoleVisit, name: &str) -> ConsoleProblem {
    match task_here(&visit.console, name) {
        Err(problem) => problem,
        Ok(task) => {
            let place = visit.console.celeriac.place_of_call(task.name, &Arguments::default());
            match place {
                Ok((queue, _)) => ConsoleProblem::denied(format!(
                    "It needs the permission `enqueue` for the queue `{queue}`, which the program does not give you. Ask who runs it."
                )),
                Err(error) => ConsoleProblem::malformed(error.to_string()),
            }
        }
    }
}

/// The form of a task: a field for each parameter.
fn form(visit: &ConsoleVisit, task: &CallableTask) -> Markup {
    let plain = task.parameters.iter().filter(|name| !name.starts_with('*'));
    let is_open = task.parameters.iter().any(|name| name.starts_with("**"));
    let takes_rest = task.parameters.iter().any(|name| name.starts_with('*') && !name.starts_with("**"));
    let scope = html! { (task.location) " · goes to " a href=(visit.queue(&task.queue)) { (task.queue) } ", unless a route says otherwise" };
    let back = ScreenAddress::of(PageName::Enqueue).with("task", task.name);
    parts::card(
        "call",
        task.name,
        &scope,
        &html! {
            form class="pad stack" method="post" action=(parts::act_address(visit)) {
                input type="hidden" name=(token::FIELD) value=(visit.token.text);
                input type="hidden" name=(token::ONCE) value=(token::random());
                input type="hidden" name="act" value="enqueue";
                input type="hidden" name="task" value=(task.name);
                input type="hidden" name="back" value=(back.relative());
                @if task.parameters.is_empty() { p class="faint" { "It takes no arguments." } }
                div class="fields" {
                    @for (at, name) in plain.enumerate() {
                        @let id = format!("argument-{at}");
                        @let field = format!("{ARGUMENT}{name}");
                        (parts::field(&id, name, "JSON", &html! { textarea id=(id) name=(field) rows="2" spellcheck="false" {} }))
                    }
                }
                @if is_open { p class="small faint" { "It takes arguments of other names as well; a script can send them as " code { (ARGUMENT) "NAME" } "." } }
                @if takes_rest { p class="small faint" { "Its further arguments by position cannot be written here: call it from the program." } }
                p class="small faint" { "A text stands in double quotes, as in " code { "\"acme\"" } "; a field that is empty leaves its argument out. The call is made as the task states itself, and noted with your name." }
                div class="acts" { button class="main" { "Enqueue" } }
            }
        },
    )
}

fn list(visit: &ConsoleVisit, wanted: &str, tasks: &[&CallableTask]) -> Markup {
    let address = |task: &CallableTask| ScreenAddress::of(PageName::Enqueue).with("task", task.name);
    html! {
        form class="filters" action=(visit.href(&ScreenAddress::of(PageName::Enqueue))) {
            div class="fields" { (parts::field("find-task", "Name", "contains", &parts::text_input("find-task", "name", Some(wanted)))) }
            div class="acts" { button { "Find" } }
        }
        @if tasks.is_empty() {
            div class="pad" { p class="faint" { "No task that you may call has such a name." } }
        } @else {
            ul class="pad why-list" {
                @for task in tasks.iter().take(MOST) {
                    li { a href=(visit.href(&address(task))) { (task.name) } " " span class="faint" { "(" (task.parameters.join(", ")) ")" } }
                }
            }
        }
    }
}
