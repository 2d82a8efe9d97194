//! Periodic entries: when each fires, in words and as times, what became of its last tick, and its levers.

use std::collections::HashMap;
use std::time::Duration;

use maud::{Markup, html};
use serde::Serialize;

use super::PageBody;
use super::task::mark_of;
use crate::actors::{BeatError, EntryOrigin, EntryStatus};
use crate::app::TaskStand;
use crate::core::Timestamp;
use crate::core::calendar::{Misfire, Overlap, Schedule};
use crate::task::clock::now;
use crate::task::{Periodic, TaskId};
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::{NotAllowed, Permission};
use crate::web::console::shared_looks::Looked;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

const FRESH: Duration = Duration::from_secs(1);
/// The most entries on one page.
const MOST: usize = 100;
/// How many of the next times of an entry are shown.
const NEXT: usize = 20;

/// The list as data.
#[derive(Serialize)]
struct PeriodicData<'a> {
    entries: Vec<EntryLine<'a>>,
    count: usize,
}

/// An entry as data.
#[derive(Serialize)]
struct EntryLine<'a> {
    #[serde(flatten)]
    status: &'a EntryStatus,
    in_words: String,
    /// Its next times, if it is not paused and does not fire for tenants.
    upcoming: Vec<String>,
}

impl<'a> EntryLine<'a> {
    fn of(status: &'a EntryStatus, count: usize) -> Self {
        let upcoming = upcoming(status, count).iter().map(ToString::to_string).collect();
        Self { status, in_words: status.entry.schedule.in_words(), upcoming }
    }
}

type SeenEntries = Result<Vec<EntryStatus>, BeatError>;
/// How the tasks of past ticks stand.
type SeenTicks = HashMap<TaskId, TaskStand>;

async fn entries(visit: &ConsoleVisit) -> Looked<SeenEntries> {
    let beat = visit.console.celeriac.beat();
    visit
        .console
        .shared
        .looks
        .look::<SeenEntries>("entries", FRESH, async move { beat.entries().await })
        .await
}

/// The next times of an entry.
fn upcoming(status: &EntryStatus, count: usize) -> Vec<Timestamp> {
    if status.paused || status.tenants.is_some() {
        return Vec::new();
    }
    status.entry.schedule.preview(now(), count)
}

/// The queue of the entry's tasks, if whoever looks may not see it.
fn unseen_queue<'a>(visit: &'a ConsoleVisit, status: &EntryStatus) -> Option<&'a str> {
    let queue = visit.console.celeriac.queue_of_entry(&status.entry)?;
    (!visit.viewer.sees(queue)).then_some(queue)
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let Looked { at, seen } = entries(visit).await;
    let entries = match &*seen {
        Ok(entries) => entries.as_slice(),
        Err(BeatError::Off) => {
            let main = html! {
                (parts::headline(&html! { "Beat is switched off in this program." }, &html! { "periodic entries" }, None))
                (parts::empty("No entry fires here", &html! { "Beat is off by " code { "beat = false" } " in the catalogue, or by " code { ".beat(false)" } ". Another program of the application may fire them." }))
            };
            return Ok(PageBody::new("Periodic", at, &PeriodicData { entries: Vec::new(), count: 0 }, main));
        }
        Err(error) => return Err(error.into()),
    };
    let entries: Vec<&EntryStatus> =
        entries.iter().filter(|entry| unseen_queue(visit, entry).is_none()).collect();
    let from: usize = match visit.address.get("after").map(str::parse) {
        None => 0,
        Some(Ok(from)) => from,
        Some(Err(_)) => return Err(ConsoleProblem::malformed("`after` is no place in the list of entries.")),
    };
    let shown = entries.get(from..).unwrap_or_default();
    let shown = &shown[..shown.len().min(MOST)];
    let next = (from + shown.len() < entries.len()).then(|| (from + shown.len()).to_string());
    let failing = entries.iter().filter(|entry| entry.error.is_some()).count();
    let paused = entries.iter().filter(|entry| entry.paused).count();
    let sentence = match (entries.len(), failing, paused) {
        (0, ..) => "There is no periodic entry.".to_owned(),
        (count, 0, 0) => {
            format!("{} as planned.", words::counted(count as u64, "entry fires", "entries fire"))
        }
        (count, 0, paused) => format!(
            "{} of {}.",
            words::counted(paused as u64, "is paused", "are paused"),
            words::counted(count as u64, "entry", "entries")
        ),
        (_, failing, _) => format!(
            "{} could not be published.",
            words::counted(failing as u64, "entry's last tick", "entries' last ticks")
        ),
    };
    let scope = html! { "what this process fires while it leads · counts since it began to lead" };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        @if entries.is_empty() {
            (parts::empty("No entry", &html! { "Add " code { "#[periodic_task(crontab(minute = 0))]" } " to a task, or a " code { "[[periodic]]" } " row to " code { "celeriac.toml" } "." }))
        } @else {
            (parts::card("entries", "Entries", &html! { "by name · times are those of each entry's zone in words, and yours in the column" }, &table(visit, shown)))
            @if next.is_some() || from > 0 { (parts::pager(visit, next.as_deref(), &format!("{} of {}", shown.len(), entries.len()))) }
        }
    };
    let data = PeriodicData {
        entries: shown.iter().map(|entry| EntryLine::of(entry, 1)).collect(),
        count: entries.len(),
    };
    Ok(PageBody::new("Periodic", at, &data, main))
}

/// The mark and the word for an entry.
fn condition(entry: &EntryStatus) -> (StatusMark, &'static str) {
    if entry.paused {
        (StatusMark::Held, "paused")
    } else if entry.error.is_some() {
        (StatusMark::Failed, "its last tick failed")
    } else if entry.held {
        (StatusMark::Run, "a tick waits for the last run")
    } else {
        (StatusMark::Fine, "as planned")
    }
}

fn table(visit: &ConsoleVisit, entries: &[&EntryStatus]) -> Markup {
    let columns = [
        ("Entry", false),
        ("Fires", false),
        ("Next", true),
        ("Last", true),
        ("Published", true),
        ("Coalesced", true),
        ("", true),
    ];
    let now = now();
    let rows = html! {
        @for entry in entries {
            @let (mark, word) = condition(entry);
            tr data-key=(entry.name) {
                th scope="row" {
                    span class="name" { (parts::mark(mark, word)) a href=(visit.href(&address(&entry.name))) { (words::line(&entry.name, 80)) } }
                    span class="why" { (words::line(&entry.task, 80)) @if let Some(error) = &entry.error { span class="bad" { " · " (words::line(error, 160)) } } }
                }
                td class="full" data-l="fires" { (entry.entry.schedule.in_words()) @if let Some(tenants) = entry.tenants { span class="why" { "for each of " (tenants) " tenants" } } }
                td class="n" data-l="next" { @match entry.next { Some(next) => (words::ago(next, now)), None => span class="faint" { (if entry.paused { "paused" } else { "–" }) } } }
                td class="n" data-l="last" { (last(entry, now)) }
                (parts::number("published", entry.published))
                (parts::number("coalesced", entry.coalesced))
                td class="act" { div class="row-acts" { (buttons(visit, entry)) } }
            }
        }
    };
    parts::table(
        "entries",
        &columns,
        &rows,
        "Last: up to when the ticks are decided. Coalesced: ticks that were dropped because the one before was not over.",
    )
}

fn last(entry: &EntryStatus, now: Timestamp) -> Markup {
    html! {
        @if entry.last == Timestamp::ZERO { span class="faint" { "never" } } @else { (words::ago(entry.last, now)) }
    }
}

fn address(name: &str) -> ScreenAddress {
    ScreenAddress::of(PageName::Entry).with("name", name)
}

fn buttons(visit: &ConsoleVisit, entry: &EntryStatus) -> Markup {
    let may = |permission| visit.viewer.may(permission, None);
    let name = entry.name.as_str();
    let (act, label) = if entry.paused { ("resume_entry", "Resume") } else { ("pause_entry", "Pause") };
    html! {
        @if may(Permission::RunNow) && entry.tenants.is_none() {
            (parts::ask_first(visit, &ScreenAddress::of(PageName::Confirm).with("act", "run_now").with("entry", name), "Run now", name))
        }
        @if may(Permission::PauseEntry) { (parts::act_button(visit, act, &[("entry", name)], label, name)) }
    }
}

pub(super) async fn look_at_one(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let name = visit.required("name")?;
    let Looked { at, seen } = entries(visit).await;
    let entries = (*seen).as_ref().map_err(ConsoleProblem::from)?;
    let unknown = || {
        let shown = words::line(name, 80);
        ConsoleProblem::unknown(format!("There is no periodic entry `{shown}`."))
    };
    let status = entries.iter().find(|entry| entry.name == name).ok_or_else(unknown)?;
    if let Some(queue) = unseen_queue(visit, status) {
        return Err(NotAllowed::Denied(Permission::See, Some(queue.to_owned())).into());
    }
    let ids: Vec<TaskId> =
        status.past.iter().filter_map(|tick| tick.id.as_deref()).map(TaskId::from).collect();
    let (looks, of_ticks) = (&visit.console.shared.looks, format!("ticks {name}"));
    let stands = looks.look::<SeenTicks>(&of_ticks, FRESH, visit.console.celeriac.stands(&ids)).await.seen;
    let (mark, word) = condition(status);
    let sentence = html! { span class="state" { (parts::mark(mark, word)) } " " (words::line(name, 100)) " fires " (status.entry.schedule.in_words()) "; " (word) "." };
    let crumbs = html! { a href=(visit.href(&ScreenAddress::of(PageName::Periodic))) { "Periodic" } " / " (words::line(name, 100)) };
    let main = html! {
        (parts::headline(&sentence, &crumbs, Some(buttons(visit, status))))
        @if let Some(error) = &status.error { (parts::note("bad", &html! { "The last tick could not be published: " (words::line(error, 400)) })) }
        div class="cols" {
            div class="stack" { (next_card(status)) (past_card(visit, status, &stands)) }
            div class="stack" { (entry_card(visit, status)) }
        }
    };
    Ok(PageBody::new(words::line(name, 80), at, &EntryLine::of(status, NEXT), main))
}

/// The next times of an entry, across changes of the clocks.
fn next_card(status: &EntryStatus) -> Markup {
    let times = upcoming(status, NEXT);
    let zone = match &status.entry.schedule {
        Schedule::Crontab { zone, .. } => Some(*zone),
        Schedule::Every(_) => None,
    };
    let scope = html! { "the next " (times.len()) @if let Some(zone) = zone { ", by the clocks of " (zone.name()) " and by yours" } };
    parts::card(
        "next",
        "Next times",
        &scope,
        &html! {
            @if times.is_empty() {
                div class="pad" {
                    p class="faint" {
                        @if status.paused { "None: it is paused." }
                        @else if let Some(next) = status.next { "It fires for each tenant at that one's time, next at " (parts::time(next)) "." }
                        @else { "None: no time matches any more." }
                    }
                }
            } @else {
                ol class="needs" {
                    @for at in &times {
                        li { span {} p { @if let Some(zone) = zone { (zone.display(*at)) } @else { (words::clock(*at)) " UTC" } } span class="faint small" { (parts::time(*at)) } }
                    }
                }
            }
        },
    )
}

/// The last ticks of an entry, and how their tasks stand.
fn past_card(visit: &ConsoleVisit, status: &EntryStatus, stands: &SeenTicks) -> Markup {
    let scope = html! { "the last " (status.past.len()) " that this process has decided since it began to lead; states now" };
    parts::card(
        "past",
        "Past ticks",
        &scope,
        &html! {
            @if status.past.is_empty() {
                div class="pad" {
                    p class="faint" {
                        @if status.tenants.is_some() { "It fires for each tenant; the tasks of a tenant are on the page of the tenant." }
                        @else { "None yet." }
                    }
                }
            } @else {
                ol class="needs" {
                    @for tick in &status.past {
                        li {
                            @match &tick.id {
                                Some(id) => {
                                    @let stand = stands.get(&TaskId::from(id.as_str()));
                                    @match stand {
                                        Some(stand) => (parts::mark(mark_of(stand.state), stand.state.as_str())),
                                        None => (parts::mark(StatusMark::Idle, "published")),
                                    }
                                    p {
                                        a href=(visit.task(id)) { (parts::time(tick.at)) } " "
                                        span class="faint" { @match stand { Some(stand) => (stand.state.as_str()), None => "published; nothing more is known of its task" } }
                                    }
                                }
                                None => {
                                    (parts::mark(StatusMark::Held, "dropped"))
                                    p { (parts::time(tick.at)) " " span class="faint" { "dropped: the tick before was not over" } }
                                }
                            }
                        }
                    }
                }
            }
        },
    )
}

fn entry_card(visit: &ConsoleVisit, status: &EntryStatus) -> Markup {
    let entry: &Periodic = &status.entry;
    let text = |text: Option<String>| html! { @match text { Some(text) => (text), None => span class="faint" { "not stated" } } };
    let misfire = match entry.misfire {
        Misfire::Once => "one task for all of them".to_owned(),
        Misfire::Skip => "they are skipped".to_owned(),
        Misfire::All { within } => format!("one task for each, not older than {}", words::span(within)),
    };
    let overlap = match entry.overlap {
        Overlap::BufferOne => "at most one tick waits",
        Overlap::Skip => "the tick is dropped",
        Overlap::Allow => "every tick is a task of its own",
    };
    let origin = match status.origin {
        EntryOrigin::Program => "the program",
        EntryOrigin::Catalogue => "the catalogue",
        EntryOrigin::RunTime => "added or changed at run time",
    };
    let arguments = [entry.arguments.args.as_str(), entry.arguments.kwargs.as_str()].join(" ");
    let facts = [
        ("Task", html! { code { (words::line(&status.task, 120)) } }),
        ("Schedule", html! { code { (status.schedule) } }),
        ("Arguments", html! { code { (words::line(arguments.trim(), 200)) } }),
        ("Queue", text(entry.queue.clone())),
        ("Comes from", html! { (origin) }),
        ("Missed ticks", html! { (misfire) }),
        ("While one runs", html! { (overlap) }),
        ("Expires", text(entry.expires.map(words::span))),
        ("Environments", text((!entry.environments.is_empty()).then(|| entry.environments.join(", ")))),
        ("Decided up to", last(status, now())),
        (
            "Last task",
            html! { @match &status.last_id { Some(id) => a href=(visit.task(id)) { code { (words::line(id, 60)) } }, None => span class="faint" { "none is remembered" } } },
        ),
        (
            "Published",
            html! { (words::count(status.published)) " · coalesced " (words::count(status.coalesced)) },
        ),
    ];
    parts::card(
        "entry",
        "The entry",
        &html! { "counts since this process began to lead" },
        &html! { div class="pad" { (parts::facts(&facts)) } },
    )
}
