//! Lanes of serial keys: who is in, how many wait, which are blocked, and the levers on them.

use std::time::Duration;

use maud::{Markup, html};
use serde::Serialize;

use super::{PageBody, ROWS};
use crate::actors::LaneStatus;
use crate::app::{ControlError, Replies};
use crate::task::clock::now;
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::Permission;
use crate::web::console::shared_looks::Looked;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// How long a look at the lanes is shared.
const FRESH: Duration = Duration::from_secs(1);
/// The most lanes that can be paged through; a single one is found by its key.
const MOST: usize = 1_000;
/// The lanes on a page, which take more bytes each than the rows of other lists.
const LANES: usize = 30;
/// The most squares of a line.
const SQUARES: u64 = 12;

/// The list as data.
#[derive(Serialize)]
struct LanesData<'a> {
    lanes: &'a [LaneStatus],
    /// The lanes that did not answer within a second.
    missing: &'a [String],
    next: Option<String>,
}

type SeenLanes = Result<Replies<LaneStatus>, ControlError>;

/// Whether whoever looks may see lanes.
fn check(visit: &ConsoleVisit) -> Result<(), ConsoleProblem> {
    if visit.viewer.sees_all() {
        return Ok(());
    }
    Err(ConsoleProblem::denied(
        "A lane may have tasks of any queue, so lanes are shown to those who have the permission `see` for every queue.",
    ))
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    check(visit)?;
    let from: usize = match visit.address.get("after").map(str::parse) {
        None => 0,
        Some(Ok(from)) if from < MOST => from,
        Some(_) => return Err(ConsoleProblem::malformed("`after` is no place in the list of lanes.")),
    };
    let until = from + LANES;
    let look = visit.console.celeriac.lanes(until + 1);
    let name = format!("lanes {until}");
    let Looked { at, seen } = visit.console.shared.looks.look::<SeenLanes>(&name, FRESH, look).await;
    let replies = (*seen).as_ref().map_err(ConsoleProblem::from)?;
    let mut lanes: Vec<LaneStatus> = replies.iter().skip(from).take(LANES).cloned().collect();
    let goes_on = replies.len() > until && until < MOST;
    let next = goes_on.then(|| until.to_string());
    lanes.sort_by_key(|lane| (lane.blocked.is_none(), std::cmp::Reverse(lane.waiting)));
    let blocked = lanes.iter().filter(|lane| lane.blocked.is_some()).count();
    let waiting = lanes.iter().filter(|lane| lane.waiting > 0).count();
    let sentence = match (lanes.len(), blocked) {
        (0, _) => "No lane is live.".to_owned(),
        (_, 0) => format!(
            "{} and {} somebody waiting; none is blocked.",
            words::counted(lanes.len() as u64, "lane is live", "lanes are live"),
            words::counted(waiting as u64, "has", "have")
        ),
        (_, blocked) => format!("{} blocked.", words::counted(blocked as u64, "lane is", "lanes are")),
    };
    let scope = html! { "lanes with a task in them · by name, those that are blocked and the longest first on each page" };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        @for name in &replies.missing { (parts::note("warn", &html! { "The lane " strong { (words::line(name, 80)) } " does not answer within a second." })) }
        (find_form(visit))
        @if lanes.is_empty() {
            (parts::empty("All lanes are idle", &html! {
                "A lane is the line of one serial key. One shows here when a task of " code { "#[serial_task(key = \"…\")]" } " waits or runs."
            }))
        } @else {
            (parts::card("lanes", "Lanes", &html! { "a square is a task that waits, the one that is in on the left" }, &table(visit, &lanes)))
        }
        (parts::pager(visit, next.as_deref(), ""))
    };
    let data = LanesData { lanes: &lanes, missing: &replies.missing, next: next.clone() };
    Ok(PageBody::new("Lanes", at, &data, main))
}

fn find_form(visit: &ConsoleVisit) -> Markup {
    html! {
        section class="card" aria-labelledby="find-lane" {
            header { h2 id="find-lane" { "Find a lane" } p class="scope" { "by its exact key" } }
            form class="filters" action=(visit.href(&ScreenAddress::of(PageName::Lane))) {
                div class="fields" {
                    (parts::field("scope", "Scope", "a task's name, unless it states another", &parts::text_input("scope", "scope", None)))
                    (parts::field("key", "Key", "", &parts::text_input("key", "key", None)))
                }
                div class="acts" { button { "Find" } }
            }
        }
    }
}

/// The mark and the word for a lane.
fn condition(lane: &LaneStatus) -> (StatusMark, &'static str) {
    if lane.blocked.is_some() {
        (StatusMark::Failed, "blocked")
    } else if lane.is_adjusted && lane.concurrency == 0 {
        (StatusMark::Held, "stopped by hand")
    } else if lane.holders.iter().any(|holder| holder.run.is_some()) {
        (StatusMark::Run, "moves")
    } else if lane.holders.is_empty() {
        (StatusMark::Idle, "empty")
    } else {
        (StatusMark::Retry, "its head waits")
    }
}

fn address(lane: &LaneStatus) -> ScreenAddress {
    ScreenAddress::of(PageName::Lane).with("scope", &lane.scope).with("key", &lane.key)
}

fn table(visit: &ConsoleVisit, lanes: &[LaneStatus]) -> Markup {
    let columns = [
        ("Key", false),
        ("Is", false),
        ("Line", false),
        ("In line", true),
        ("Who is in", false),
        ("Since", true),
    ];
    let now = now();
    let rows = html! {
        @for lane in lanes {
            @let (mark, word) = condition(lane);
            tr data-key=(format!("{}/{}", lane.scope, lane.key)) {
                th scope="row" {
                    span class="name" { (parts::mark(mark, word)) a href=(visit.href(&address(lane))) { (words::line(&lane.key, 80)) } }
                    span class="why" { (words::line(&lane.scope, 80)) }
                }
                td class=[lane.blocked.is_some().then_some("bad")] data-l="is" { (word) }
                td class="off" { (squares(lane.waiting)) }
                (parts::number("in line", lane.waiting))
                td class="full" data-l="who is in" {
                    @match lane.holders.first() {
                        Some(holder) => {
                            a href=(visit.task(holder.id.as_str())) { @match &holder.run { Some(run) => (words::line(&run.task, 60)), None => code { (words::line(holder.id.as_str(), 36)) } } }
                            @if lane.holders.len() > 1 { span class="faint" { " and " (lane.holders.len() - 1) " more" } }
                        }
                        None => span class="faint" { "nobody" }
                    }
                }
                td class="n" data-l="since" { @match lane.holders.first() { Some(holder) => (words::ago(holder.since, now)), None => "–" } }
            }
        }
    };
    parts::table(
        "lanes",
        &columns,
        &rows,
        "A lane that a failure has blocked lets nobody in until somebody lets it go on.",
    )
}

fn squares(waiting: u64) -> Markup {
    let shown = waiting.min(SQUARES);
    html! {
        svg width="168" height="14" role="img" aria-label=(words::counted(waiting, "task in line", "tasks in line")) {
            @for at in 0..shown { rect class="f-quiet" x=(at * 11) width="9" height="14" rx="1.5" {} }
            @if waiting > SQUARES { text x="134" y="11" { "+" (words::count(waiting - SQUARES)) } }
        }
    }
}

type SeenLane = Result<Option<LaneStatus>, ControlError>;

pub(super) async fn look_at_one(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    check(visit)?;
    let (scope, key) = (visit.required("scope")?, visit.required("key")?);
    let look = visit.console.celeriac.lane(scope, key);
    let name = format!("lane {} {scope}{key}", scope.len());
    let Looked { at, seen } = visit.console.shared.looks.look::<SeenLane>(&name, FRESH, look).await;
    let lane = (*seen).as_ref().map_err(ConsoleProblem::from)?;
    let crumbs = html! {
        a href=(visit.href(&ScreenAddress::of(PageName::Lanes))) { "Lanes" } " / " (words::line(scope, 80)) " / " (words::line(key, 80))
    };
    let main = match lane {
        None => html! {
            (parts::headline(&html! { "The lane " (words::line(key, 80)) " is idle." }, &crumbs, None))
            (parts::empty("Nobody is in and nobody waits", &html! { "If tasks of this key should be here, look at the spelling of the key and at its scope." }))
        },
        Some(lane) => one(visit, lane, &crumbs),
    };
    Ok(PageBody::new(format!("Lane {}", words::line(key, 60)), at, lane, main))
}

fn one(visit: &ConsoleVisit, lane: &LaneStatus, crumbs: &Markup) -> Markup {
    let (mark, word) = condition(lane);
    let now = now();
    let sentence = html! {
        span class="state" { (parts::mark(mark, word)) } " The lane " (words::line(&lane.key, 80)) ": " (word) ", "
        (words::counted(lane.waiting, "task waits", "tasks wait")) "."
    };
    let facts = [
        (
            "Runs at a time",
            html! { (lane.concurrency) @if lane.is_adjusted { ", set by hand" } @else { ", as its tasks state" } },
        ),
        (
            "Blocked",
            html! {
                @match &lane.blocked {
                    Some(block) => { "by " a href=(visit.task(block.by.as_str())) { code { (words::line(block.by.as_str(), 60)) } } ", " (words::ago(block.since, now)) ": " (words::line(&block.reason, 300)) }
                    None => span class="faint" { "no" }
                }
            },
        ),
    ];
    html! {
        (parts::headline(&sentence, crumbs, None))
        div class="cols" {
            div class="stack" {
                (parts::card("in", "Who is in", &html! { "in the order in which they were let in" }, &html! {
                    ul class="needs" {
                        @for holder in &lane.holders {
                            li {
                                (parts::mark(if holder.run.is_some() { StatusMark::Run } else { StatusMark::Idle }, if holder.run.is_some() { "runs here" } else { "does not run here" }))
                                p {
                                    a href=(visit.task(holder.id.as_str())) { code { (words::line(holder.id.as_str(), 60)) } }
                                    @match &holder.run {
                                        Some(run) => { " " (words::line(&run.task, 80)) ", attempt " (run.attempt) " on " (run.worker) ", started " (words::ago(run.started_at, now)) }
                                        None => " waits for a worker or for its next attempt, or runs in another process"
                                    }
                                    ", let in " (words::ago(holder.since, now))
                                }
                            }
                        }
                        @if lane.holders.is_empty() { li { span {} p class="faint" { "Nobody." } } }
                    }
                }))
                (parts::card("line", "Who waits", &html! { "the first " (lane.next.len()) " of " (words::count(lane.waiting)) }, &html! {
                    ol class="needs" data-still {
                        @for waiting in lane.next.iter().take(ROWS) {
                            li {
                                (parts::mark(StatusMark::Held, "waits"))
                                p { a href=(visit.task(waiting.id.as_str())) { (words::line(&waiting.task, 80)) } " " span class="faint" { "enqueued " (words::ago(waiting.enqueued_at, now)) } }
                            }
                        }
                        @if lane.next.is_empty() { li { span {} p class="faint" { "Nobody." } } }
                    }
                }))
            }
            div class="stack" {
                (parts::card("is", "The lane", &html! { "now" }, &html! { div class="pad" { (parts::facts(&facts)) } }))
                @if visit.viewer.may(Permission::SteerLane, None) { (levers(visit, lane)) }
            }
        }
    }
}

/// The levers of a lane.
fn levers(visit: &ConsoleVisit, lane: &LaneStatus) -> Markup {
    let ask = |act: &str| {
        ScreenAddress::of(PageName::Confirm)
            .with("act", act)
            .with("scope", &lane.scope)
            .with("key", &lane.key)
    };
    html! {
        (parts::card("levers", "Levers", &html! { "they hold until they are taken back" }, &html! {
            div class="pad acts" {
                @if lane.blocked.is_some() { (parts::ask_first(visit, &ask("unblock"), "Let it go on", "")) }
                @if !(lane.is_adjusted && lane.concurrency == 0) {
                    (parts::ask_first(visit, &ask("set_concurrency").with("concurrency", "0"), "Stop it", ""))
                }
                @if lane.is_adjusted { (parts::ask_first(visit, &ask("set_concurrency"), "As its tasks state", "")) }
            }
        }))
    }
}
