//! What an act will do, before it is done: how many tasks it is about, exactly, and which.

use std::sync::Arc;

use maud::{Markup, html};
use serde::Serialize;

use super::PageBody;
use crate::app::{BulkAction, BulkForecast, ControlError};
use crate::broker::TaskFilter;
use crate::core::Timestamp;
use crate::runtime::rule_count::CountProgress;
use crate::task::Message;
use crate::web::console::acts::OperatorAct;
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::counts::{Counted, CountingShare, moment_of};
use crate::web::console::fields::FormFields;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::{NotAllowed, Permission, Viewer};
use crate::web::console::task_rows::{TaskQuery, scanning};
use crate::web::console::token::{FIELD, ONCE, random};
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{Console, parts, words};

/// The field that says up to when tasks are counted.
const UNTIL: &str = "until";
/// How many of the tasks are shown.
const SAMPLE: usize = 10;
/// How many queues and names of tasks are shown.
const MOST_NAMES: usize = 20;

/// The page as data.
#[derive(Serialize)]
struct ConfirmData {
    what: String,
    permission: &'static str,
    /// How many tasks the act is about, if it is about several.
    count: Option<usize>,
    /// Up to when they were counted: what to pass as `until`.
    until: Option<String>,
    /// What a bulk act would be about, and whether it could be undone.
    bulk: Option<BulkForecast>,
    /// How far the count is, if it goes on. Whoever asks again with `until` gets the rest.
    counting: Option<CountingShare>,
}

/// The filter for failed tasks that an address states.
pub(in crate::web::console) fn failed_filter(
    console: &Console,
    address: &ScreenAddress,
) -> Result<TaskFilter, ConsoleProblem> {
    let mut filter = TaskQuery::of(address).filter(console)?;
    match address.get("kind") {
        None => {}
        Some("failed") => filter = filter.dead_letters(false),
        Some("dead") => filter = filter.dead_letters(true),
        Some(other) => {
            let shown = words::line(other, 40);
            return Err(ConsoleProblem::malformed(format!("`{shown}` is no kind: write failed or dead.")));
        }
    }
    if let Some(until) = address.get(UNTIL) {
        let micros = until
            .parse()
            .map_err(|_| ConsoleProblem::malformed("`until` is no time that was counted at."))?;
        filter = filter.until(Timestamp::from_micros(micros));
    }
    Ok(filter)
}

/// The filter for the failed tasks that an act is about: of those that the address states, the ones of queues for which whoever
/// acts has the permission.
pub(in crate::web::console) fn acted_filter(
    console: &Console,
    address: &ScreenAddress,
    viewer: &Viewer,
    permission: Permission,
) -> Result<TaskFilter, ConsoleProblem> {
    let (viewer, chooses) = (viewer.clone(), TaskQuery::of(address).chooses(console));
    // One function takes the place of another, so this one asks what that of the query asks.
    let is_meant = move |message: &Message| viewer.may(permission, Some(&message.queue)) && chooses(message);
    Ok(failed_filter(console, address)?.matching(is_meant))
}

/// How many failed tasks an act is about, exactly, or how far the count is. Who may do that with other queues has another count.
async fn count_failed(
    visit: &ConsoleVisit,
    chosen: &ScreenAddress,
    permission: Permission,
) -> Result<Counted<usize>, ConsoleProblem> {
    let (console, viewer) = (&visit.console, &visit.viewer);
    let filter = acted_filter(console, chosen, viewer, permission)?;
    let (word, allowed) = (permission.as_str(), viewer.allowed(permission));
    let key = format!("failed {word} {allowed:?} {}", chosen.relative());
    let celeriac = console.celeriac.clone();
    let count = |progress: Arc<CountProgress>| async move { celeriac.count_failed(&filter, &progress).await };
    Ok(match console.shared.counts.count::<Result<usize, ControlError>, _>(&key, count).await {
        Counted::Exact(counted) => Counted::Exact(Arc::new((*counted).clone()?)),
        Counted::GoesOn(share) => Counted::GoesOn(share),
    })
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let at = moment_of(&visit.address, UNTIL);
    let address = visit.address.clone().with(UNTIL, at.as_micros().to_string());
    let fields = FormFields::of(address.fields().map(|(name, value)| (name.to_owned(), value.to_owned())));
    let act = OperatorAct::read(&fields)?;
    let queue = address.get("queue").map(|queue| visit.console.physical(queue));
    let (mut bulk, mut counting) = (None, None);
    let (count, queue) = match &act {
        OperatorAct::RetryAll { chosen } | OperatorAct::DeleteAll { chosen } => {
            require(visit, act.permission(), queue.as_deref())?;
            let count = match count_failed(visit, chosen, act.permission()).await? {
                Counted::Exact(count) => Some((*count, chosen)),
                Counted::GoesOn(share) => {
                    counting = Some(share);
                    None
                }
            };
            (count, queue)
        }
        OperatorAct::Revoke { id, .. } | OperatorAct::Delete { id } | OperatorAct::Retry { id } => {
            let address = ScreenAddress::of(PageName::Task).with("id", id.as_str());
            let (_, facts) = super::task::find(&visit.at(address)).await?;
            if !visit.viewer.may_with(act.permission(), &facts.queue, facts.tenant.as_deref()) {
                return Err(NotAllowed::Denied(act.permission(), Some(facts.queue)).into());
            }
            (None, Some(facts.queue))
        }
        OperatorAct::Bulk(form) => {
            form.reach(&visit.console).check(visit, act.permission()).await?;
            match form.forecast(&visit.console).await {
                Counted::Exact(counted) => bulk = Some((*counted).clone()?),
                Counted::GoesOn(share) => counting = Some(share),
            }
            (None, queue)
        }
        _ => {
            require(visit, act.permission(), queue.as_deref())?;
            (None, queue)
        }
    };
    let sample = match &count {
        Some((_, chosen)) => {
            // It shows some of those that were counted, and they were looked for among all.
            let list = visit.at(scanning((*chosen).clone()));
            let mut first = super::failed::find(&list).await?.1.tasks;
            first.retain(|task| visit.viewer.may(act.permission(), Some(&task.queue)));
            first
        }
        None => Vec::new(),
    };
    let number = count.map(|(count, _)| count);
    let number = number.or(bulk.as_ref().map(|bulk| usize::try_from(bulk.found).unwrap_or(usize::MAX)));
    let sentence = match number {
        None if counting.is_some() => format!("Counting: {}?", act.what()),
        Some(0) => "Nothing matches any more.".to_owned(),
        Some(count) => format!("{}: {}?", words::counted(count as u64, "task", "tasks"), act.what()),
        None => format!("Shall the console {}?", act.what()),
    };
    let is_of_failed = matches!(act, OperatorAct::RetryAll { .. } | OperatorAct::DeleteAll { .. });
    let scope = html! {
        @if counting.is_some() { "nothing has been done yet" }
        @else if number.is_some() { "counted exactly, " (parts::time(at)) "; what comes later is left alone" } @else { "nothing has been done yet" }
        @if let Some(queue) = &queue { " · queue " (queue) }
        @else if is_of_failed { " · in the queues for which you may do that" }
        @else if bulk.is_some() || counting.is_some() { " · in every queue" }
    };
    let back = address
        .get("back")
        .and_then(ScreenAddress::read_relative)
        .unwrap_or(ScreenAddress::of(PageName::Queues));
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        @if let Some(share) = counting { (parts::card("counting", "How many there are", &html! { "what comes later is left alone" }, &parts::counting(share, &visit.href(&address)))) }
        section class="card" aria-labelledby="does" {
            header { h2 id="does" { "What it will do" } }
            div class="pad stack" {
                ul class="why-list" {
                    @for line in does(&act) { li { (line) } }
                    @if let Some(bulk) = &bulk { li { (undo_of(bulk)) } }
                }
                @if number != Some(0) && counting.is_none() { (form(visit, &address, &act)) }
                div class="acts" { a class="button" href=(visit.href(&back)) { "Back, and do nothing" } }
            }
        }
        @if !sample.is_empty() {
            (parts::card("sample", "The first of them", &html! { (sample.len().min(SAMPLE)) " of " (number.unwrap_or(sample.len())) }, &html! {
                ul class="needs" {
                    @for task in sample.iter().take(SAMPLE) {
                        li { (parts::mark(parts::StatusMark::Failed, "failed")) p { a href=(visit.task(&task.id)) { (words::line(&task.task, 80)) } " " span class="faint" { (task.error) } } }
                    }
                }
            }))
        }
        @if let Some(waiting) = bulk.as_ref().and_then(|bulk| bulk.waiting.as_ref()).filter(|waiting| waiting.tasks > 0) {
            (parts::card("where", "Which they are", &html! { "by queue and task, and some of them" }, &html! {
                ul class="needs" {
                    @for (name, count) in waiting.by_queue.iter().chain(&waiting.by_task).take(MOST_NAMES) {
                        li { (parts::mark(parts::StatusMark::Idle, "waits")) p { (words::line(name, 80)) ": " (words::count(*count)) } }
                    }
                    @for id in waiting.sample.iter().take(SAMPLE) {
                        li { (parts::mark(parts::StatusMark::Idle, "waits")) p { a href=(visit.task(id.as_str())) { code { (words::line(id.as_str(), 80)) } } } }
                    }
                }
            }))
        }
    };
    let until = (number.is_some() || counting.is_some()).then(|| at.as_micros().to_string());
    let permission = act.permission().as_str();
    let data = ConfirmData { what: act.what(), permission, count: number, until, bulk, counting };
    let again = counting.map(|_| visit.href(&address));
    Ok(PageBody::new("Confirm", at, &data, main).with_again(again))
}

/// Whether a bulk act can be undone.
fn undo_of(bulk: &BulkForecast) -> String {
    match &bulk.not_undoable {
        Some(why) => format!("It cannot be undone: {why}."),
        None => {
            "For ten minutes after its end it can be undone, as far as nothing has run meanwhile.".to_owned()
        }
    }
}

fn require(visit: &ConsoleVisit, permission: Permission, queue: Option<&str>) -> Result<(), ConsoleProblem> {
    if visit.viewer.may(permission, queue) {
        return Ok(());
    }
    Err(NotAllowed::Denied(permission, queue.map(str::to_owned)).into())
}

/// What an act does and what it leaves alone.
fn does(act: &OperatorAct) -> Vec<&'static str> {
    match act {
        OperatorAct::Revoke { .. } => vec![
            "A task that waits is taken out of its queue and is over, with the state REVOKED.",
            "A task that runs goes on to its end, unless its run is ended too; it is not tried again.",
            "What was to follow from its success does not follow.",
        ],
        OperatorAct::Retry { .. } | OperatorAct::RetryAll { .. } => vec![
            "Each goes back into its queue under its own id, with the same arguments, and its attempts are counted anew.",
            "Its record goes, so that the next one can be kept.",
            "The next steps of a chain or a chord do not follow: they have failed with it.",
        ],
        OperatorAct::Delete { .. } | OperatorAct::DeleteAll { .. } => vec![
            "The message is deleted with its arguments, and cannot be tried again. This cannot be undone.",
            "The record of the task stays for as long as results are kept.",
        ],
        OperatorAct::Bulk(form) => match form.action {
            BulkAction::Revoke => vec![
                "Each task that waits and matches is taken out of its queue and is over, with the state REVOKED.",
                "What was to follow from it fails; that is not undone. What runs is left alone.",
            ],
            BulkAction::Retry => vec![
                "Each goes back into its queue under its own id, with the same arguments, and its attempts are counted anew.",
            ],
            BulkAction::Move => vec![
                "Each goes to the end of the other queue, in the order in which they stand, and keeps its id, time, priority, tenant and place in its lane.",
                "What runs is left alone.",
            ],
            BulkAction::Purge => vec![
                "Each is deleted without a record. Nothing follows from it, and whoever waits for its result waits in vain: a chord of which it is a part is never complete.",
                "What runs is left alone.",
            ],
        },
        OperatorAct::RunNow { .. } => vec![
            "The task of the entry is enqueued once, now, besides its schedule.",
            "The schedule goes on as it is.",
        ],
        OperatorAct::Unblock { .. } => vec![
            "The lane that a failure has blocked goes on with the next task in line.",
            "The task that failed is not run again.",
        ],
        OperatorAct::SetConcurrency { .. } => vec![
            "From now on so many tasks of the lane run at a time, whatever they state; with 0 none starts. What runs goes on.",
            "It holds until somebody takes it back.",
        ],
        _ => vec!["It is done at once, and is written to the log with your name."],
    }
}

/// The form that does it.
fn form(visit: &ConsoleVisit, address: &ScreenAddress, act: &OperatorAct) -> Markup {
    let is_dangerous =
        matches!(act.permission(), Permission::Revoke | Permission::Delete | Permission::Purge);
    html! {
        form class="stack" method="post" action=(parts::act_address(visit)) {
            input type="hidden" name=(FIELD) value=(visit.token.text);
            input type="hidden" name=(ONCE) value=(random());
            @for (name, value) in address.fields().filter(|(name, _)| ![FIELD, ONCE].contains(name)) { input type="hidden" name=(name) value=(value); }
            @if let OperatorAct::Revoke { .. } = act {
                p { label class="check" { input type="checkbox" name="terminate" value="1"; "end its run, if it runs" } }
            }
            div class="acts" { button class=(if is_dangerous { "danger" } else { "main" }) { (label(act)) } }
        }
    }
}

fn label(act: &OperatorAct) -> &'static str {
    match act {
        OperatorAct::Revoke { .. } => "Revoke it",
        OperatorAct::Delete { .. } => "Delete it",
        OperatorAct::DeleteAll { .. } => "Delete them",
        OperatorAct::Retry { .. } => "Run it again",
        OperatorAct::RetryAll { .. } => "Run them again",
        OperatorAct::Bulk(form) => match form.action {
            BulkAction::Revoke => "Revoke them",
            BulkAction::Retry => "Run them again",
            BulkAction::Move => "Move them",
            BulkAction::Purge => "Purge them",
        },
        OperatorAct::RunNow { .. } => "Run it now",
        _ => "Do it",
    }
}
