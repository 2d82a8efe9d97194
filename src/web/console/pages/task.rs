//! One task: its state, its attempts with their errors, its arguments, what it belongs to, and what can be done with it.

use maud::{Markup, html};
use serde::Serialize;

use super::PageBody;
use super::family::{self, FamilyMember};
use crate::app::ControlError;
use crate::core::explanation::{Explanation, Remedy, TaskReason};
use crate::soil::Status;
use crate::task::clock::now;
use crate::task::{State, TaskId};
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::board::FRESH;
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::{NotAllowed, Permission};
use crate::web::console::task_facts::{ShownLogLine, TaskPageFacts};
use crate::web::console::visit::{ConsoleVisit, TASK_ACTS};
use crate::web::console::{arguments, parts, words};

/// The most bytes of a sentence of an explanation.
const SENTENCE: usize = 600;

/// What the page tells as data.
#[derive(Serialize)]
struct TaskData<'a> {
    #[serde(flatten)]
    facts: &'a TaskPageFacts,
    /// Why it does not run, and when it will. `null`: it is over, or nobody could be asked.
    why: Option<&'a Explanation>,
    /// The tasks around it that are known by their ids, with their states.
    family: &'a [FamilyMember],
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let (id, facts) = find(visit).await?;
    let at = now();
    // Progress and the place in line, as the user of the task sees them.
    let seen =
        if facts.is_unfinished() { visit.console.celeriac.soil().status(&id).await.ok() } else { None };
    let why = if facts.is_unfinished() { explained(visit, &id).await } else { None };
    let family = family::of(visit, &facts).await;
    let exact = format!("{}/arguments{}", visit.console.public, query_of(&id));
    let main = html! {
        (head(visit, &facts))
        div class="cols" {
            div class="stack" {
                @if let Some(why) = why.as_ref().filter(|why| why.state() == "waiting") { (reasons(why)) }
                (way(&facts))
                (running_log(&facts))
                (attempts(&facts))
                @if let Some(shown) = &facts.arguments { (arguments::markup(shown, &exact)) }
                @if facts.result.is_some() { (result(&facts)) }
            }
            div class="stack" {
                @if let Some(status) = &seen { (progress(status)) }
                (acts(visit, &facts))
                (family::markup(visit, &facts, &family))
                (record(visit, &facts))
            }
        }
    };
    let title = if facts.task.is_empty() {
        "Task".to_owned()
    } else {
        format!("{} {}", words::line(&facts.task, 60), facts.state)
    };
    Ok(PageBody::new(title, at, &TaskData { facts: &facts, why: why.as_ref(), family: &family }, main))
}

/// The task that the address names, if it is known and may be seen.
pub(in crate::web::console) async fn find(
    visit: &ConsoleVisit,
) -> Result<(TaskId, TaskPageFacts), ConsoleProblem> {
    let id = TaskId::from(visit.required("id")?);
    if !id.is_usable() {
        return Err(ConsoleProblem::malformed("An id has 1 to 255 bytes."));
    }
    let facts = TaskPageFacts::of(visit, &id).await?.ok_or_else(|| {
        let shown = words::line(id.as_str(), 80);
        ConsoleProblem::unknown(format!(
            "No task of the id `{shown}` waits, runs or left a record here: it was never accepted here, or its result was not kept, was forgotten, or has expired."
        ))
    })?;
    let (queue, tenant) = (facts.queue.as_str(), facts.tenant.as_deref());
    visit.ask_of_tenants(&[Permission::See], [(queue, tenant)]).await;
    if !visit.viewer.sees_task(queue, tenant) {
        return Err(NotAllowed::Denied(Permission::See, Some(facts.queue)).into());
    }
    visit.ask_of_tenants(&TASK_ACTS, [(queue, tenant)]).await;
    Ok((id, facts))
}

/// Why the task does not run, whoever looks at it. It is no more than is known: who does not answer is named in it.
async fn explained(visit: &ConsoleVisit, id: &TaskId) -> Option<Explanation> {
    let console = &visit.console;
    let name = format!("why {id}");
    let look = console.celeriac.explain(id);
    let looked = console.shared.looks.look::<Result<Explanation, ControlError>>(&name, FRESH, look).await;
    let mut why = (*looked.seen).as_ref().ok().cloned()?;
    if !visit.viewer.sees_any() {
        leave_out_others(visit, &mut why).await;
    }
    Some(why)
}

/// Takes out of an explanation what it says of tasks that whoever looks may not see: which one is in its lane, and whose failure
/// has blocked it, with which error.
async fn leave_out_others(visit: &ConsoleVisit, why: &mut Explanation) {
    for reason in &mut why.reasons {
        let other = match reason {
            TaskReason::LaneBusy { holder: Some(id), .. } | TaskReason::LaneBlocked { by: id, .. } => {
                id.clone()
            }
            _ => continue,
        };
        if is_seen(visit, &other).await {
            continue;
        }
        if let TaskReason::LaneBusy { holder, .. } = reason {
            *holder = None;
        } else if let TaskReason::LaneBlocked { by, error, .. } = reason {
            (*by, *error) = ("…".to_owned(), "its error is not shown here".to_owned());
        }
    }
}

/// Whether whoever looks may see the task of this id, as far as it is known whose it is.
async fn is_seen(visit: &ConsoleVisit, id: &str) -> bool {
    let id = TaskId::from(id);
    let stands = visit.console.celeriac.stands(std::slice::from_ref(&id)).await;
    let Some(stand) = stands.get(&id) else { return false };
    let (queue, tenant) = (stand.queue.as_str(), stand.tenant.as_deref());
    visit.ask_of_tenants(&[Permission::See], [(queue, tenant)]).await;
    visit.viewer.sees_task(queue, tenant)
}

/// The query that names a task.
fn query_of(id: &TaskId) -> String {
    let address = ScreenAddress::of(PageName::Queues).with("id", id.as_str());
    address.relative()
}

/// The mark of a state.
pub(super) fn mark_of(state: State) -> StatusMark {
    match state {
        State::Success | State::Ignored => StatusMark::Done,
        State::Failure | State::Rejected => StatusMark::Failed,
        State::Revoked => StatusMark::Held,
        State::Started => StatusMark::Run,
        State::Retry => StatusMark::Retry,
        _ => StatusMark::Idle,
    }
}

fn head(visit: &ConsoleVisit, facts: &TaskPageFacts) -> Markup {
    let name = if facts.task.is_empty() {
        "A task of an unknown name".to_owned()
    } else {
        words::line(&facts.task, 120)
    };
    let sentence = html! {
        span class="state" { (parts::mark(mark_of(facts.state), facts.state.as_str())) } " " (name) " "
        @match facts.state {
            State::Success => "has succeeded.",
            State::Failure => { "has failed for good" @if let Some(error) = last_error(facts) { ": " (words::line(error, 160)) } "." },
            State::Rejected => { "is a dead letter" @if let Some(kept) = &facts.kept { ": " (words::line(&kept.reason, 160)) } "." },
            State::Revoked => "was revoked.",
            State::Ignored => "asked for its outcome to be ignored.",
            State::Started => { "runs" @if let Some(time) = facts.runs_for() { ", for " (words::span(time)) } "." },
            State::Retry => "waits for its next attempt.",
            State::Received => { @if facts.is_elsewhere { "is with another process." } @else { "was fetched, and waits for a worker." } },
            _ => "waits.",
        }
    };
    let tasks = visit.href(&ScreenAddress::of(PageName::Tasks));
    let scope = html! {
        a href=(tasks) { "Tasks" } " / "
        @if !facts.queue.is_empty() { a href=(visit.queue(&facts.queue)) { (facts.queue) } " / " }
        span class="id" { (facts.id) }
        @if let Some(tenant) = &facts.tenant { " · tenant " a href=(visit.tenant(tenant)) { (words::line(tenant, 100)) } }
    };
    parts::headline(&sentence, &scope, None)
}

fn last_error(facts: &TaskPageFacts) -> Option<&str> {
    let kept = facts.kept.as_ref().map(|kept| kept.reason.as_str());
    kept.or_else(|| facts.errors.first().map(String::as_str))
}

/// *The* reason for which it waits, what else keeps it from starting, and what would help.
fn reasons(why: &Explanation) -> Markup {
    let says = |sentence: &str| words::line(sentence, SENTENCE);
    let others: Vec<String> = why.reasons.iter().skip(1).map(|reason| says(&why.says(reason))).collect();
    let remedies: Vec<Remedy> = why.remedies(why.reason());
    let scope = html! {
        "asked: " (says(&why.scope.asked.join(", ")))
        @if !why.scope.silent.is_empty() { "; no answer: " (says(&why.scope.silent.join(", "))) }
    };
    html! {
        (parts::card("why", "Why it waits", &scope, &html! {
            div class="pad stack" {
                p { strong { (says(&why.sentence())) } }
                @if let Some(starts) = why.starts_in_words() { p { (says(&starts)) } }
                @if !others.is_empty() {
                    h3 { "After that" }
                    ul class="why-list" { @for other in &others { li { (other) } } }
                }
                @if !remedies.is_empty() {
                    h3 { "What helps" }
                    ul class="why-list" {
                        @for remedy in &remedies { li { (says(&remedy.says)) " " span class="faint" { (remedy.by.as_str()) } } }
                    }
                }
                @for gap in &why.scope.cannot_know { p class="small faint" { (says(gap)) } }
            }
        }))
    }
}

/// The way through the states: what is known of it, in the order of its times.
fn way(facts: &TaskPageFacts) -> Markup {
    let now = now();
    let mut steps = vec![(StatusMark::Done, "PENDING, enqueued".to_owned(), facts.enqueued_at)];
    if let Some(eta) = facts.eta {
        let mark = if eta <= now { StatusMark::Done } else { StatusMark::Idle };
        steps.push((mark, "due (ETA)".to_owned(), Some(eta)));
    }
    if let Some(started_at) = facts.started_at {
        let mark = if facts.state == State::Started { StatusMark::Run } else { StatusMark::Done };
        steps.push((mark, "STARTED, last run".to_owned(), Some(started_at)));
    }
    let failed = facts.failed_attempts.iter();
    steps.extend(
        failed.map(|failed| {
            (StatusMark::Failed, format!("attempt {} failed", failed.attempt), Some(failed.at))
        }),
    );
    steps.sort_by_key(|(.., at)| *at);
    if facts.state.is_finished() {
        steps.push((mark_of(facts.state), facts.state.as_str().to_owned(), facts.finished_at));
    }
    html! {
        (parts::card("way", "Its way through the states", &html! { "times that the message or the record has" }, &html! {
            ol class="pad way" {
                @for (mark, step, at) in &steps {
                    li { strong { (parts::state(*mark, step)) } " " @match at { Some(at) => { (parts::time(*at)) " " span class="faint" { (words::ago(*at, now)) } } None => span class="faint" { "not known" } } }
                }
                @if facts.is_unfinished() { li { strong { (parts::state(mark_of(facts.state), facts.state.as_str())) } " " span class="faint" { "now" } } }
            }
        }))
    }
}

fn attempts(facts: &TaskPageFacts) -> Markup {
    let most = match facts.max_retries {
        Some(most) => format!("{} of {} runs", facts.attempts, most.saturating_add(1)),
        None => words::counted(u64::from(facts.attempts), "run", "runs"),
    };
    let scope = html! { (most) " · of many attempts the first and the last nine are kept" };
    let has_none = facts.failed_attempts.is_empty() && facts.errors.is_empty() && facts.traceback.is_none();
    html! {
        section class="card" aria-labelledby="attempts" data-still {
            header { h2 id="attempts" { "Attempts" } p class="scope" { (scope) } }
            @if has_none { div class="pad" { p class="faint small" { "None has failed, as far as is known." } } }
            @for attempt in facts.failed_attempts.iter().rev() {
                details open[attempt.attempt == facts.attempts] {
                    summary {
                        strong { "Attempt " (attempt.attempt) }
                        (parts::state(StatusMark::Failed, "failed"))
                        span class="faint" {
                            (parts::time(attempt.at))
                            @if let Some(worker) = &attempt.worker { " · " (worker) }
                            @if let Some(place) = &attempt.place { " · panicked at " (place) }
                        }
                    }
                    pre class="bad" { @if let Some(kind) = &attempt.error_type { (kind) ": " } (attempt.error) }
                    (log(&attempt.log, attempt.log_left_out))
                }
            }
            @if facts.failed_attempts.is_empty() && !facts.errors.is_empty() {
                div class="pad stack" {
                    @for error in &facts.errors { pre class="bad" { @if let Some(kind) = &facts.error_type { (kind) ": " } (error) } }
                }
            }
            @if let Some(traceback) = &facts.traceback {
                details { summary { "Traceback" } pre { (traceback) } }
            }
        }
    }
}

/// What the run that goes on here has logged so far.
fn running_log(facts: &TaskPageFacts) -> Markup {
    html! {
        @if let Some(lines) = &facts.log {
            (parts::card("log", "What it logs", &html! { "the last lines of the run that goes on, now" }, &html! {
                div class="pad" {
                    @if lines.is_empty() { p class="faint small" { "Nothing so far." } }
                    (log(lines, facts.log_left_out))
                }
            }))
        }
    }
}

/// The last lines that a body has logged.
fn log(lines: &[ShownLogLine], left_out: u64) -> Markup {
    let level_class = |level: &str| match level {
        "ERROR" => "lv bad",
        "WARN" => "lv warn",
        _ => "lv",
    };
    html! {
        @if !lines.is_empty() {
            ol class="log" aria-label="Its last log lines" {
                @if left_out > 0 {
                    li { span {} span class="lv" {} span class="faint" { (words::counted(left_out, "line", "lines")) " before these" } }
                }
                @for line in lines {
                    li { (parts::time(line.at)) span class=(level_class(&line.level)) { (line.level) } span { (line.text) } }
                }
            }
        }
    }
}

fn result(facts: &TaskPageFacts) -> Markup {
    html! {
        (parts::card("result", "Value", &html! { "what it returned, as JSON; the first 2 KB" }, &html! {
            div class="pad" { pre { (facts.result.as_deref().unwrap_or("null")) } }
        }))
    }
}

/// How far it is, and how many are before it.
fn progress(status: &Status) -> Markup {
    let percent = status.progress.as_ref().map(|progress| progress.percent);
    html! {
        @if percent.is_some() || status.note.is_some() || status.place.is_some() {
            (parts::card("progress", "As its user sees it", &html! { "now" }, &html! {
                div class="pad stack" {
                    @if let Some(percent) = percent {
                        progress max="100" value=(percent) aria-label="Progress of the task" { (percent) " %" }
                        p class="small" { (percent) " % done" }
                    }
                    @if let Some(note) = &status.note { p { (words::line(note, 300)) } }
                    @if let Some(place) = &status.place {
                        p { (words::counted(place.ahead, "task is", "tasks are")) @if place.or_more { " or more" } " before it in its queue." }
                    }
                }
            }))
        }
    }
}

/// What can be done with the task.
fn acts(visit: &ConsoleVisit, facts: &TaskPageFacts) -> Markup {
    let may = |permission| visit.viewer.may_with(permission, &facts.queue, facts.tenant.as_deref());
    let ask = |act: &str| ScreenAddress::of(PageName::Confirm).with("act", act).with("id", &facts.id);
    let can_revoke = facts.is_unfinished() && may(Permission::Revoke);
    let kept = facts.kept.as_ref();
    html! {
        @if can_revoke || kept.is_some() {
            (parts::card("acts", "What can be done", &html! { "each act says what it will do" }, &html! {
                div class="pad stack" {
                    @if let Some(kept) = kept {
                        p {
                            @if kept.is_dead_letter { "It is kept as a dead letter until somebody takes it." }
                            @else { "It is kept as a failed task" @if let Some(until) = kept.until { " until " (parts::time(until)) } "." }
                        }
                    }
                    div class="acts" {
                        @if can_revoke { (parts::ask_first(visit, &ask("revoke"), "Revoke", "this task")) }
                        @if kept.is_some() && may(Permission::Retry) { (parts::act_button(visit, "retry", &[("id", facts.id.as_str())], "Run again as it was", "")) }
                        @if kept.is_some() && may(Permission::Delete) { (parts::ask_first(visit, &ask("delete"), "Delete", "this task")) }
                    }
                }
                @if let Some((args, kwargs)) = kept.and_then(|kept| kept.editable.as_ref()).filter(|_| may(Permission::Edit)) {
                    (edit_form(visit, facts, args, kwargs))
                }
            }))
        }
    }
}

fn edit_form(visit: &ConsoleVisit, facts: &TaskPageFacts, args: &str, kwargs: &str) -> Markup {
    html! {
        details data-still {
            summary { "Edit and run again" }
            form class="stack" method="post" action=(parts::act_address(visit)) {
                (parts::act_fields(visit, "edit"))
                input type="hidden" name="id" value=(facts.id);
                (parts::field("args", "Arguments by position", "a JSON array", &html! {
                    textarea id="args" name="args" rows="4" spellcheck="false" { (if args.is_empty() { "[]" } else { args }) }
                }))
                (parts::field("kwargs", "Arguments by name", "a JSON object", &html! {
                    textarea id="kwargs" name="kwargs" rows="4" spellcheck="false" { (if kwargs.is_empty() { "{}" } else { kwargs }) }
                }))
                p class="small faint" { "The task keeps its id, its attempts are counted anew, and the failed one is gone from the list. A serial task comes to the lane of its new arguments." }
                div class="acts" { button class="main" { "Run with these arguments" } }
            }
        }
    }
}

fn record(visit: &ConsoleVisit, facts: &TaskPageFacts) -> Markup {
    let time = |time: Option<crate::Timestamp>| html! { @match time { Some(time) => (parts::time(time)), None => span class="faint" { "not known" } } };
    let text = |text: Option<String>| html! { @match text { Some(text) => (text), None => span class="faint" { "none" } } };
    let lane = facts.lane.as_ref().map(|(scope, key)| {
        let address = ScreenAddress::of(PageName::Lane).with("scope", scope).with("key", key);
        html! { a href=(visit.href(&address)) { (words::line(key, 80)) } }
    });
    let list = [
        ("State", html! { (facts.state.as_str()) }),
        ("Enqueued", time(facts.enqueued_at)),
        ("Last start", time(facts.started_at)),
        ("End", time(facts.finished_at)),
        (
            if facts.state.is_finished() { "Record until" } else { "Must start before" },
            time(facts.expires_at),
        ),
        ("Worker", text(facts.worker.clone())),
        ("Process", text(facts.pid.map(|pid| pid.to_string()))),
        ("Priority", text(facts.priority.map(|priority| priority.to_string()))),
        ("Lane", lane.unwrap_or_else(|| text(None))),
        ("File", text(facts.download.clone())),
    ];
    parts::card(
        "record",
        "Record",
        &html! { "as it is kept" },
        &html! { div class="pad" { (parts::facts(&list)) } },
    )
}
