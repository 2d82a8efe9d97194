//! Limits on starts: what each key has used, when it frees, and how its breaker stands.

use std::collections::HashMap;
use std::time::Duration;

use maud::{Markup, html};
use serde::Serialize;

use super::{PageBody, ROWS};
use crate::actors::QueueHold;
use crate::app::Replies;
use crate::core::hold::HoldReason;
use crate::core::start_limit::{BreakerPhase, KeyFigures, LimitFigures, LimitedBy};
use crate::web::console::board::FRESH;
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::shared_looks::Looked;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// How long a look at the limits is shared: it costs as much as there are keys.
const LIMITS_FRESH: Duration = Duration::from_secs(2);
/// The most limits that are described; their keys are all in the list.
const MOST_LIMITS: usize = 40;

/// The page as data.
#[derive(Serialize)]
struct LimitsData<'a> {
    limits: Vec<LimitData<'a>>,
    keys: &'a [KeyLine],
    /// How many keys have counts, in all limits.
    count: usize,
    next: Option<String>,
    /// The queues that did not say within a second what is held back in them.
    missing: &'a [String],
}

/// A limit as data.
#[derive(Serialize)]
struct LimitData<'a> {
    name: &'a str,
    /// By what it counts.
    key: Option<&'a str>,
    /// What it allows, in words.
    allows: String,
    keys: usize,
}

/// One key of a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct KeyLine {
    limit: String,
    /// The key; empty if the limit has none.
    key: String,
    running: u32,
    max_running: Option<u32>,
    started_today: Option<u32>,
    daily: Option<u32>,
    breaker: Option<BreakerPhase>,
    /// Why the next run may not start.
    refused: Option<String>,
    /// How long until it is worth looking again, in milliseconds; `null`: when a run has ended, or nobody knows.
    #[serde(rename = "frees_in_ms", serialize_with = "crate::core::json_time::optional_millis")]
    frees_in: Option<Duration>,
    /// How many tasks the queues of this process have in memory that it holds back.
    holds: usize,
}

type SeenLimits = Vec<LimitFigures>;
type SeenLimitHolds = Replies<QueueHold>;

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    if !visit.viewer.sees_all() {
        return Err(ConsoleProblem::denied(
            "A limit may be about tasks of any queue, so limits are shown to those who have the permission `see` for every queue.",
        ));
    }
    let from: usize = match visit.address.get("after").map(str::parse) {
        None => 0,
        Some(Ok(from)) => from,
        Some(Err(_)) => return Err(ConsoleProblem::malformed("`after` is no place in the list of keys.")),
    };
    let console = &visit.console;
    let looks = &console.shared.looks;
    let limits = async { console.celeriac.limits() };
    let Looked { at, seen: limits } = looks.look::<SeenLimits>("limits", LIMITS_FRESH, limits).await;
    let Looked { seen: holds, .. } =
        looks.look::<SeenLimitHolds>("holds", FRESH, console.celeriac.holds()).await;
    let held = held(&holds);
    let mut lines: Vec<KeyLine> =
        limits.iter().flat_map(|limit| limit.keys.iter().map(|key| KeyLine::of(limit, key, &held))).collect();
    lines.sort_by(|one, other| rank(other).cmp(&rank(one)).then_with(|| name(one).cmp(&name(other))));
    let shown = lines.get(from..).unwrap_or_default();
    let shown = &shown[..shown.len().min(ROWS)];
    let next = (from + shown.len() < lines.len()).then(|| (from + shown.len()).to_string());
    let scope = html! { "as this process counts them, now · " (words::counted(lines.len() as u64, "key has", "keys have")) " counts" };
    let main = html! {
        (parts::headline(&html! { (sentence(&limits, &lines)) }, &scope, None))
        @for name in &holds.missing { (parts::note("warn", &html! { "The queue " strong { (name) } " does not answer within a second, so what it holds back is not among these." })) }
        @if limits.is_empty() {
            (parts::empty("No limit", &html! {
                "A limit says how often, how many at a time, and when tasks start: state " code { "rate_limit" } " or " code { "max_running" }
                " at a task, or a " code { "[[limit]]" } " in the catalogue."
            }))
        } @else {
            @if !shown.is_empty() {
                (parts::card("keys", "Keys", &html! { "those that hold tasks back first" }, &table(shown)))
                @if next.is_some() || from > 0 { (parts::pager(visit, next.as_deref(), &format!("{} of {}", shown.len(), lines.len()))) }
            }
            (parts::card("limits", "What they allow", &html! { "for each key" }, &rules(&limits)))
        }
    };
    let described = limits.iter().map(|limit| LimitData {
        name: &limit.name,
        key: limit.key.as_deref(),
        allows: limit.limit.to_string(),
        keys: limit.keys.len(),
    });
    let data = LimitsData {
        limits: described.collect(),
        keys: shown,
        count: lines.len(),
        next: next.clone(),
        missing: &holds.missing,
    };
    Ok(PageBody::new("Limits", at, &data, main))
}

/// How many tasks limits hold back in the memory of the queues, by the name of the limit and the key. A rate that a task states
/// for itself has no such hold; its queue says how much it holds in all.
fn held(holds: &SeenLimitHolds) -> HashMap<(&str, &str), usize> {
    let mut held = HashMap::new();
    for hold in holds.iter() {
        if let HoldReason::Limit { name, key, .. } = &hold.reason {
            *held.entry((name.as_str(), key.as_str())).or_default() += hold.tasks;
        }
    }
    held
}

impl KeyLine {
    fn of(limit: &LimitFigures, figures: &KeyFigures, held: &HashMap<(&str, &str), usize>) -> Self {
        let key = figures.key.to_string();
        let refused = figures.refused.as_ref();
        Self {
            holds: held.get(&(limit.name.as_str(), key.as_str())).copied().unwrap_or_default(),
            limit: limit.name.clone(),
            key,
            running: figures.running,
            max_running: limit.limit.max_running,
            started_today: figures.started_today,
            daily: limit.limit.daily,
            breaker: figures.breaker,
            refused: refused.map(|refused| refused.by.to_string()),
            // Of what a store is asked, the pause says only when it is looked at again.
            frees_in: refused
                .filter(|refused| refused.by != LimitedBy::Unanswered)
                .and_then(|refused| refused.wait),
        }
    }
}

/// What has to be looked at first.
fn rank(line: &KeyLine) -> (usize, bool, bool, u32) {
    let is_open = !matches!(line.breaker, None | Some(BreakerPhase::Closed { .. }));
    (line.holds, is_open, line.refused.is_some(), line.running)
}

fn name(line: &KeyLine) -> (&str, &str) {
    (&line.limit, &line.key)
}

fn sentence(limits: &[LimitFigures], lines: &[KeyLine]) -> String {
    let held: usize = lines.iter().map(|line| line.holds).sum();
    let open = lines.iter().filter(|line| matches!(line.breaker, Some(BreakerPhase::Open { .. }))).count();
    let known = match limits.len() {
        0 => return "No limit is stated.".to_owned(),
        count => words::counted(count as u64, "limit", "limits"),
    };
    let open = match open {
        0 => String::new(),
        open => format!("; {} open", words::counted(open as u64, "breaker is", "breakers are")),
    };
    match held {
        0 => format!("{known}; none is known to hold a task back now{open}."),
        held => {
            format!("{known}; they hold {} back here{open}.", words::counted(held as u64, "task", "tasks"))
        }
    }
}

fn table(lines: &[KeyLine]) -> Markup {
    let columns = [
        ("Key", false),
        ("Used", false),
        ("Breaker", false),
        ("Next start", false),
        ("Frees in", true),
        ("Holds here", true),
    ];
    let rows = html! {
        @for line in lines {
            tr data-key=(format!("{} {}", line.limit, line.key)) {
                th scope="row" {
                    @let (mark, word) = condition(line);
                    span class="name" { (parts::mark(mark, word)) @if line.key.is_empty() { "all together" } @else { (words::line(&line.key, 80)) } }
                    span class="why" { (words::line(&line.limit, 100)) }
                }
                td data-l="used" { (used(line)) }
                td data-l="breaker" { (breaker(line.breaker)) }
                td class="full" data-l="next start" { @match &line.refused { Some(why) => (words::line(why, 120)), None => "it may start" } }
                td class="n" data-l="frees in" {
                    @match (&line.refused, line.frees_in) {
                        (Some(_), Some(wait)) => (words::span(wait)),
                        (Some(_), None) => span class="faint" { "when a run ends" },
                        (None, _) => span class="faint" { "–" },
                    }
                }
                (parts::number("holds here", line.holds as u64))
            }
        }
    };
    let caption = "Holds here: what the queues of this program have in memory. The rate of a single task is asked at each start; its queue says what it holds.";
    parts::table("keys", &columns, &rows, caption)
}

/// The mark and the word for a key.
fn condition(line: &KeyLine) -> (StatusMark, &'static str) {
    match (&line.breaker, line.refused.is_some()) {
        (Some(BreakerPhase::Open { .. }), _) => (StatusMark::Failed, "breaker open"),
        (Some(BreakerPhase::HalfOpen), _) => (StatusMark::Retry, "breaker half-open"),
        (_, true) => (StatusMark::Held, "used up"),
        (_, false) => (StatusMark::Fine, "free"),
    }
}

fn used(line: &KeyLine) -> String {
    let of = |used: u32, most: Option<u32>| match most {
        Some(most) => format!("{} of {}", words::count(used.into()), words::count(most.into())),
        None => words::count(used.into()),
    };
    let running = format!("{} run", of(line.running, line.max_running));
    match line.started_today {
        Some(started) => format!("{running}, {} started today", of(started, line.daily)),
        None => running,
    }
}

fn breaker(phase: Option<BreakerPhase>) -> Markup {
    html! {
        @match phase {
            None => span class="faint" { "none" },
            Some(BreakerPhase::Closed { errors: 0 }) => "closed",
            Some(BreakerPhase::Closed { errors }) => { "closed, " (words::counted(errors.into(), "error", "errors")) " lately" },
            Some(BreakerPhase::Open { wait }) => span class="bad" { "open, a run is tried in " (words::span(wait)) },
            Some(BreakerPhase::HalfOpen) => "half-open: one run finds out",
        }
    }
}

/// What the limits allow.
fn rules(limits: &[LimitFigures]) -> Markup {
    let columns = [("Limit", false), ("Counts by", false), ("Allows", false), ("Keys", true)];
    let rows = html! {
        @for limit in limits.iter().take(MOST_LIMITS) {
            tr data-key=(limit.name) {
                th scope="row" { span class="name" { (words::line(&limit.name, 100)) } }
                td data-l="counts by" { @match &limit.key { Some(key) => (words::line(key, 60)), None => span class="faint" { "one count for all" } } }
                td class="full" data-l="allows" { (words::line(&limit.limit.to_string(), 200)) }
                (parts::number("keys", limit.keys.len() as u64))
            }
        }
    };
    let more = limits.len().saturating_sub(MOST_LIMITS);
    let caption =
        if more > 0 { format!("And {more} more; the data of this page has all.") } else { String::new() };
    parts::table("limits", &columns, &rows, &caption)
}
