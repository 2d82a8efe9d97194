//! What happened in the last seven days, as charts: starts, failures and time-to-start, by queue, task or tenant, with what
//! programs and operators did meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};
use serde::Serialize;

use super::PageBody;
use super::history_range::{BYS, HistoryRange, written};
use super::history_slider;
use crate::app::{ControlError, History, HistoryBy, HistoryCounts, HistoryMark, HistoryRow};
use crate::core::Timestamp;
use crate::core::history::KEPT_HOURS;
use crate::task::clock::now;
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::{NotAllowed, Permission, Viewer};
use crate::web::console::shared_looks::Looked;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{charts, parts, words};

/// How long a look at the history is shared.
const FRESH: Duration = Duration::from_secs(10);
/// The names that have rows of their own; the others are summed up.
const MOST_NAMES: usize = 10;
/// The most marks in the list, and in a chart: the last ones.
const MOST_MARKS: usize = 25;
/// The ranges that have links, in hours.
const RANGES: [(u64, &str); 4] = [(1, "1 h"), (6, "6 h"), (24, "24 h"), (168, "7 days")];

/// What happened to a queue, a task or a tenant.
#[derive(Clone, Debug)]
struct NamedHistory {
    name: String,
    counts: HistoryCounts,
    /// The starts in each step.
    starts: Vec<f64>,
}

/// The page as data.
#[derive(Serialize)]
struct HistoryData<'a> {
    from: String,
    until: String,
    step_seconds: u64,
    by: &'a str,
    /// The rows, by time and then by name. A step without an event has no row.
    rows: Vec<&'a HistoryRow>,
    marks: Vec<&'a HistoryMark>,
    /// How many notes of the history could not be read.
    unreadable: usize,
}

type SeenHistory = Result<History, ControlError>;

/// Whether whoever looks may see what is asked for.
async fn check(visit: &ConsoleVisit, range: &HistoryRange) -> Result<(), ConsoleProblem> {
    let viewer = &visit.viewer;
    let tenant = range.name.as_deref().filter(|_| range.by == HistoryBy::Tenant);
    if let Some(queue) = range.queue.as_deref() {
        visit.ask_of_tenants(&[Permission::See], [(queue, tenant)]).await;
        return match viewer.sees_task(queue, tenant) {
            true => Ok(()),
            false => Err(NotAllowed::Denied(Permission::See, Some(queue.to_owned())).into()),
        };
    }
    let is_own = match tenant {
        Some(tenant) => visit.sees_tenant(tenant).await,
        None => false,
    };
    if range.by == HistoryBy::Queue || viewer.sees_all() || is_own {
        return Ok(());
    }
    Err(ConsoleProblem::denied(
        "By task and by tenant the history sums all queues up, so it is shown to those who may see every queue. Choose a queue that you may see.",
    ))
}

/// Whether a mark is shown: one of a queue to those who see it, and one of no queue to those who see all, because it may be
/// about any. Starts and ends of programs are shown to all who see a queue.
fn is_seen(viewer: &Viewer, mark: &HistoryMark) -> bool {
    match &mark.mark.subject {
        Some(queue) => viewer.sees(queue),
        None if is_of_program(mark) => viewer.sees_any(),
        None => viewer.sees_all(),
    }
}

/// Whether a mark is the start or the end of a program.
fn is_of_program(mark: &HistoryMark) -> bool {
    matches!(mark.mark.what.as_str(), "start" | "stop")
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let mut range = HistoryRange::of(&visit.address, now())?;
    range.queue = range.queue.map(|queue| visit.console.physical(&queue));
    check(visit, &range).await?;
    let Looked { at, seen } = read(visit, &range).await;
    let history = (*seen).as_ref().map_err(ConsoleProblem::from)?;
    let is_shown = |row: &&HistoryRow| range.by != HistoryBy::Queue || visit.viewer.sees(&row.name);
    let rows: Vec<&HistoryRow> = history.rows.iter().filter(is_shown).collect();
    let marks: Vec<&HistoryMark> = history.marks.iter().filter(|mark| is_seen(&visit.viewer, mark)).collect();
    let (word, noun) =
        BYS.into_iter().find(|(.., by)| *by == range.by).map_or(("queue", "Queue"), |by| (by.0, by.1));
    let named = named(&range, &rows);
    let mut all = HistoryCounts::default();
    rows.iter().for_each(|row| all.add(&row.counts));
    let scope = html! {
        (parts::time(range.begin())) " to " (parts::time(range.until)) " · all processes that keep their results in one place"
        @if range.by == HistoryBy::Tenant { " · tasks that name a tenant" }
        @if history.unreadable > 0 { " · " (words::counted(history.unreadable as u64, "note", "notes")) " could not be read" }
    };
    let main = html! {
        (parts::headline(&html! { (sentence(&range, &all)) }, &scope, None))
        (form(visit, &range, word))
        @if rows.is_empty() {
            (parts::empty("Nothing happened then", &html! {
                "No task came, started or ended in this range, as far as it is kept: for seven days, where results are kept, and unless the program says "
                code { "keep_history(false)" } "."
            }))
        } @else {
            (curves(&range, &rows, &marks))
            (parts::card("named", &format!("By {word}"), &html! { "the same range; each line has a scale of its own" }, &table(visit, noun, &named)))
        }
        (changes(visit, &marks))
    };
    let data = HistoryData {
        from: range.begin().to_string(),
        until: range.until.to_string(),
        step_seconds: range.step().as_secs(),
        by: word,
        rows,
        marks,
        unreadable: history.unreadable,
    };
    Ok(PageBody::new("History", at, &data, main))
}

async fn read(visit: &ConsoleVisit, range: &HistoryRange) -> Looked<SeenHistory> {
    let mut query = visit.console.celeriac.history().from(range.begin()).until(range.until);
    query = query.step(range.step()).by(range.by);
    if let Some(queue) = &range.queue {
        query = query.queue(queue);
    }
    if let Some(name) = &range.name {
        query = query.name(name);
    }
    let HistoryRange { by, queue, name, hours, .. } = range;
    let until = if range.is_now { "now".to_owned() } else { range.until.to_string() };
    let asked = format!("history {by:?} {queue:?} {name:?} {hours} {until}");
    visit.console.shared.looks.look::<SeenHistory>(&asked, FRESH, query.read()).await
}

fn sentence(range: &HistoryRange, all: &HistoryCounts) -> String {
    let when = match (range.is_now, RANGES.iter().find(|(hours, _)| *hours == range.hours)) {
        (true, Some((_, name))) => format!("In the last {name}"),
        (true, None) => format!("In the last {} h", range.hours),
        (false, _) => "In this range".to_owned(),
    };
    let waited = match all.waits.count() {
        0 => String::new(),
        _ => format!("; to its start a task waited {} on average", words::span(all.waits.mean())),
    };
    let failed = match all.failed {
        0 => "none failed for good".to_owned(),
        failed => format!("{} for good", words::counted(failed, "task failed", "tasks failed")),
    };
    format!("{when} {} and {failed}{waited}.", words::counted(all.started, "run began", "runs began"))
}

/// What happened by name, the names with the most starts first.
fn named(range: &HistoryRange, rows: &[&HistoryRow]) -> Vec<NamedHistory> {
    let mut names: BTreeMap<&str, NamedHistory> = BTreeMap::new();
    let nothing = |name: &str| NamedHistory {
        name: name.to_owned(),
        counts: HistoryCounts::default(),
        starts: vec![0.0; range.steps()],
    };
    for row in rows {
        let named = names.entry(row.name.as_str()).or_insert_with(|| nothing(&row.name));
        named.counts.add(&row.counts);
        if let Some(starts) = named.starts.get_mut(range.place(row.at)) {
            *starts += float(row.counts.started);
        }
    }
    let mut named: Vec<NamedHistory> = names.into_values().collect();
    named.sort_by(|one, other| (other.counts.started, &one.name).cmp(&(one.counts.started, &other.name)));
    let rest = named.split_off(named.len().min(MOST_NAMES));
    if !rest.is_empty() {
        let mut others = nothing(&format!("{} others", rest.len()));
        for one in &rest {
            others.counts.add(&one.counts);
            others.starts.iter_mut().zip(&one.starts).for_each(|(sum, starts)| *sum += starts);
        }
        named.push(others);
    }
    named
}

#[allow(clippy::cast_precision_loss)] // of a number that is drawn
fn float(number: u64) -> f64 {
    number as f64
}

/// The charts of all that is shown.
fn curves(range: &HistoryRange, rows: &[&HistoryRow], marks: &[&HistoryMark]) -> Markup {
    let mut steps = vec![HistoryCounts::default(); range.steps()];
    for row in rows {
        if let Some(step) = steps.get_mut(range.place(row.at)) {
            step.add(&row.counts);
        }
    }
    let values = |of: fn(&HistoryCounts) -> f64| steps.iter().map(of).collect::<Vec<f64>>();
    let started = values(|step| float(step.started));
    let failed = values(|step| float(step.failed));
    let mean = values(|step| step.waits.mean().as_secs_f64());
    let longest = values(|step| step.waits.max().as_secs_f64());
    let last = marks.iter().rev().take(MOST_MARKS);
    let marks: Vec<f64> = last.map(|mark| range.share(mark.mark.at)).collect();
    let step = words::span(range.step());
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let span = |seconds: f64| words::span(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let counted = |title: &str, values: &[f64]| format!("{title}: at most {:.0} in {step}", most(values));
    let waited = format!(
        "To their start tasks waited up to {} on average of a step, and {} at most",
        span(most(&mean)),
        span(most(&longest))
    );
    let chart = |id: &str, title: &str, values: &[f64], spoken: &str| {
        let lines = [("line", values)];
        let top = format!("{:.0}", charts::highest(&lines));
        let what = format!("in each {step}; dashed: starts of programs and acts");
        charts::card(id, title, &what, &lines, (top.as_str(), spoken), &marks)
    };
    let waits = [("line", mean.as_slice()), ("line q", longest.as_slice())];
    let top = span(charts::highest(&waits));
    html! {
        div class="grid2" {
            (chart("starts", "Starts", &started, &counted("Starts", &started)))
            (chart("failures", "Failures", &failed, &counted("Failures for good", &failed)))
            (charts::card("waits", "Time to start", "mean of each step; dotted: the longest; percentiles are on the page of a queue", &waits, (top.as_str(), waited.as_str()), &marks))
        }
    }
}

fn table(visit: &ConsoleVisit, noun: &str, named: &[NamedHistory]) -> Markup {
    let columns = [
        (noun, false),
        ("Starts", false),
        ("Started", true),
        ("Failed", true),
        ("Retried", true),
        ("Waited, mean", true),
        ("longest", true),
        ("Ran in all", true),
    ];
    let link = |name: &str| match noun {
        "Tenant" => visit.tenant(name),
        "Task" => visit.href(&ScreenAddress::of(PageName::Tasks).with("task", name)),
        _ => visit.queue(name),
    };
    let is_named = |at: usize, name: &str| at < MOST_NAMES && name != crate::core::accounts::OTHER;
    let waited = |counts: &HistoryCounts, span: Duration| {
        if counts.waits.count() == 0 { "–".to_owned() } else { words::span(span) }
    };
    let rows = html! {
        @for (at, one) in named.iter().enumerate() {
            tr data-key=(one.name) {
                th scope="row" {
                    span class="name" { @if is_named(at, &one.name) { a href=(link(&one.name)) { (words::line(&one.name, 80)) } } @else { (one.name) } }
                }
                td class="off" { svg class="spark" aria-hidden="true" { (parts::line(&one.starts, 1.0)) } }
                (parts::number("started", one.counts.started))
                (parts::number("failed", one.counts.failed))
                (parts::number("retried", one.counts.retried))
                td class="n" data-l="waited, mean" { (waited(&one.counts, one.counts.waits.mean())) }
                td class="n" data-l="longest" { (waited(&one.counts, one.counts.waits.max())) }
                td class="n" data-l="ran in all" { (words::span(one.counts.runs.sum())) }
            }
        }
    };
    parts::table(
        "named",
        &columns,
        &rows,
        "Those with the most starts first; of each queue and hour twenty tasks and twenty tenants are told apart.",
    )
}

/// Which range is shown, and the others.
fn form(visit: &ConsoleVisit, range: &HistoryRange, word: &str) -> Markup {
    let here = visit.address.clone();
    let moved = |until: Timestamp| here.clone().with("until", written(until));
    let half = range.length() / 2;
    let queues = visit.console.celeriac.catalogue().queues.iter().map(|row| row.name.as_str());
    let queues: Vec<(&str, &str)> = [("", "all queues")]
        .into_iter()
        .chain(queues.filter(|name| visit.viewer.sees(name)).map(|name| (name, name)))
        .collect();
    let bys = BYS.map(|(word, noun, _)| (word, noun));
    html! {
        section class="card" aria-labelledby="range" {
            header { h2 id="range" { "Range" } p class="scope" { "seven days are kept; times in this form are in UTC" } }
            nav class="chips filters" aria-label="Ranges" {
                @for (hours, name) in RANGES {
                    a class="chip add" href=(visit.href(&here.clone().with("hours", hours.to_string()))) aria-current=[(hours == range.hours).then_some("true")] {
                        @if hours == range.hours { strong { (name) } } @else { (name) }
                    }
                }
                a class="chip add" href=(visit.href(&moved(range.until - half))) { "earlier" }
                @if !range.is_now {
                    a class="chip add" href=(visit.href(&moved(range.until + half))) { "later" }
                    a class="chip add" href=(visit.href(&here.clone().without("until"))) { "now" }
                }
            }
            (history_slider::markup(visit, range, now()))
            form class="filters" action=(visit.href(&ScreenAddress::of(PageName::History))) {
                div class="fields" {
                    (parts::field("by", "By", "", &parts::select("by", "by", Some(word), &bys)))
                    (parts::field("queue", "Queue", "", &parts::select("queue", "queue", range.queue.as_deref(), &queues)))
                    (parts::field("name", "Name", "of a queue, task or tenant, exactly", &parts::text_input("name", "name", range.name.as_deref())))
                    (parts::field("until", "Until", "empty: now", &html! { input id="until" name="until" type="datetime-local" value=(if range.is_now { String::new() } else { written(range.until) }); }))
                    (parts::field("hours", "Hours", "1 to 168", &html! { input id="hours" name="hours" type="number" min="1" max=(KEPT_HOURS) value=(range.hours) inputmode="numeric"; }))
                }
                div class="acts" { button class="main" { "Show" } a class="button" href=(visit.href(&ScreenAddress::of(PageName::History))) { "The last day" } }
            }
        }
    }
}

/// What programs and operators did.
fn changes(visit: &ConsoleVisit, marks: &[&HistoryMark]) -> Markup {
    let columns = [("What", false), ("Who", false), ("Process", false), ("When", true)];
    let now = now();
    let rows = html! {
        @for mark in marks.iter().rev().take(MOST_MARKS) {
            @let HistoryMark { node, mark: what, .. } = mark;
            tr {
                th scope="row" {
                    span class="name" { (parts::mark(if is_of_program(mark) { parts::StatusMark::Run } else { parts::StatusMark::Held }, if is_of_program(mark) { "program" } else { "act" })) (words::line(&what.what, 40)) }
                    @if let Some(detail) = &what.detail { span class="why" { (words::line(detail, 200)) } }
                }
                td class="full" data-l="who" {
                    @match &what.who { Some(who) => (words::line(who, 60)), None => span class="faint" { "the program" } }
                    @if let Some(queue) = &what.subject { " · " a href=(visit.queue(queue)) { (words::line(queue, 60)) } }
                }
                td data-l="process" { (words::line(node, 60)) }
                td class="n" data-l="when" { (parts::time(what.at)) span class="why" { (words::ago(what.at, now)) } }
            }
        }
    };
    let scope =
        html! { (marks.len().min(MOST_MARKS)) " of " (marks.len()) " in this range, the newest first" };
    html! {
        @if marks.is_empty() {
            (parts::note("", &html! { "Nobody has paused, resized or braked anything in this range, and no program has started or ended." }))
        } @else {
            (parts::card("changes", "What changed", &scope, &parts::table("changes", &columns, &rows, "Deploys are starts of programs: `program_version` adds their version.")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_348_800_000); // 2026-11-22T12:00Z

    #[test]
    fn names_are_by_starts_and_the_rest_is_summed_up() {
        let address = ScreenAddress::of(PageName::History).with("hours", "1");
        let range = HistoryRange::of(&address, NOW).unwrap_or_else(|_| panic!("a range"));
        let row = |name: &str, started: u64| HistoryRow {
            at: NOW - Duration::from_secs(60),
            name: name.to_owned(),
            counts: HistoryCounts { started, ..HistoryCounts::default() },
            waits: crate::core::history::WaitSpread::default(),
        };
        let rows: Vec<HistoryRow> = (1..=25).map(|n| row(&format!("q{n}"), n)).collect();
        let named = named(&range, &rows.iter().collect::<Vec<_>>());
        assert_eq!(named.len(), MOST_NAMES + 1);
        assert_eq!((named[0].name.as_str(), named[0].counts.started), ("q25", 25));
        assert_eq!((named[10].name.as_str(), named[10].counts.started), ("15 others", 120));
        assert!((named[10].starts.iter().sum::<f64>() - 120.0).abs() < 1e-9);
    }
}
