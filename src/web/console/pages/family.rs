//! What a task belongs to: the tasks before, beside and after it, as a tree with their states.

use maud::{Markup, html};
use serde::Serialize;

use super::task::mark_of;
use crate::app::TaskStand;
use crate::task::{State, TaskId};
use crate::web::console::board::FRESH;
use crate::web::console::rights::Permission;
use crate::web::console::task_facts::{RELATIVES, Relatives, TaskPageFacts};
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// A task of the family that is known by its id.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FamilyMember {
    /// What it is to the task of the page.
    is: Kinship,
    id: String,
    /// Its name and its state. `null`: nothing is known of it, or it may not be seen.
    task: Option<String>,
    state: Option<State>,
}

/// What a task is to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kinship {
    /// The first task of the workflow.
    Root,
    /// The task that has sent it.
    Parent,
    /// A task that it has sent.
    Child,
}

type SeenStands = std::collections::HashMap<TaskId, TaskStand>;

/// The family of a task, with the states of those that whoever looks may see.
pub(super) async fn of(visit: &ConsoleVisit, facts: &TaskPageFacts) -> Vec<FamilyMember> {
    let Relatives { root, parent, children, .. } = &facts.relatives;
    let root = root.iter().filter(|root| **root != facts.id && parent.as_ref() != Some(*root));
    let all: Vec<(Kinship, &String)> = root
        .map(|id| (Kinship::Root, id))
        .chain(parent.iter().map(|id| (Kinship::Parent, id)))
        .chain(children.iter().map(|id| (Kinship::Child, id)))
        .collect();
    if all.is_empty() {
        return Vec::new();
    }
    let ids: Vec<TaskId> =
        all.iter().map(|(_, id)| TaskId::from(id.as_str())).filter(TaskId::is_usable).collect();
    let (looks, name) = (&visit.console.shared.looks, format!("family {}", facts.id));
    let stands = looks.look::<SeenStands>(&name, FRESH, visit.console.celeriac.stands(&ids)).await.seen;
    let owners = stands.values().map(|stand| (stand.queue.as_str(), stand.tenant.as_deref()));
    visit.ask_of_tenants(&[Permission::See], owners).await;
    let member = |(is, id): (Kinship, &String)| {
        let stand = stands.get(&TaskId::from(id.as_str()));
        let seen = stand.filter(|stand| visit.viewer.sees_task(&stand.queue, stand.tenant.as_deref()));
        FamilyMember {
            is,
            id: id.clone(),
            task: seen.map(|stand| words::line(&stand.task, 100)),
            state: seen.map(|stand| stand.state),
        }
    };
    all.into_iter().map(member).collect()
}

/// The tree, if the task does not stand alone.
pub(super) fn markup(visit: &ConsoleVisit, facts: &TaskPageFacts, family: &[FamilyMember]) -> Markup {
    let Relatives { group, children, next, chord, on_success, on_failure, .. } = &facts.relatives;
    let of = |is: Kinship| family.iter().filter(move |member| member.is == is);
    let own = html! {
        (parts::mark(mark_of(facts.state), facts.state.as_str())) " " strong { "this task" } " " span class="faint" { (facts.state.as_str()) }
        @if let Some(group) = group { ", a member of the group " code { (words::line(group, 60)) } }
        ul {
            @for child in of(Kinship::Child) { li { "has sent " (shown(visit, child)) } }
            @if children.len() >= RELATIVES { li class="faint" { "and perhaps more" } }
            @for name in next { li { "then " code { (name) } } }
            @if let Some(body) = chord { li { "when all members of the chord have succeeded, " code { (body) } } }
            @for name in on_success { li { "on success " code { (name) } } }
            @for name in on_failure { li { "on failure " code { (name) } } }
        }
    };
    let below_parent = of(Kinship::Parent).fold(html! { li { (own) } }, |inner, parent| {
        html! { li { "sent by " (shown(visit, parent)) ul { (inner) } } }
    });
    let tree = of(Kinship::Root).fold(below_parent, |inner, root| {
        html! { li { "began with " (shown(visit, root)) ul { (inner) } } }
    });
    html! {
        @if !facts.relatives.is_alone() {
            (parts::card("belongs", "Where it belongs", &html! { "as far as its message and the records say; states now" }, &html! {
                div class="pad tree" { ul class="root" { (tree) } }
            }))
        }
    }
}

/// A member of the family, with its state if that is known.
fn shown(visit: &ConsoleVisit, member: &FamilyMember) -> Markup {
    let id = words::line(&member.id, 60);
    html! {
        @if let Some(state) = member.state { (parts::mark(mark_of(state), state.as_str())) " " }
        a href=(visit.task(&member.id)) { @match &member.task { Some(task) => (task), None => code { (id) } } }
        " " span class="faint" { @match member.state { Some(state) => (state.as_str()), None => "nothing more is known, or it may not be seen" } }
    }
}
