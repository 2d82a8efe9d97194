//! One queue: what it promises and how it is, what can be done with it, and its tasks.

use std::time::Duration;

use maud::{Markup, html};
use serde::Serialize;

use super::queues::pause_button;
use super::{LIST_FRESH, PageBody, live};
use crate::actors::PoolStatus;
use crate::app::{HistoryBy, HistoryRow};
use crate::catalogue::QueueRow;
use crate::core::Timestamp;
use crate::core::history::KeptPromise;
use crate::core::report::{Diagnosis, Finding};
use crate::task::clock::now;
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::board::{QueueBoard, QueueLine};
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::{NotAllowed, Permission};
use crate::web::console::shared_looks::Looked;
use crate::web::console::task_rows::{self, TaskQuery, TaskRows};
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{charts, parts, words};

/// How far back the chart of waits goes, in which steps, and how long a look at it is shared.
const SHOWN: Duration = Duration::from_secs(3 * 60 * 60);
const STEP: Duration = Duration::from_secs(5 * 60);
const FRESH: Duration = Duration::from_secs(30);
/// How long the page waits for what presses the queue.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most bytes of a sentence.
const SENTENCE: usize = 400;
/// The causes that name lanes, or brakes of any queue.
const OF_ANY_QUEUE: [&str; 2] = ["lane_blocked", "held"];

/// The page as data.
#[derive(Serialize)]
struct QueueData<'a> {
    queue: Option<&'a QueueLine>,
    /// Whether the queue did not answer within a second.
    is_missing: bool,
    /// What presses the queue, if it needs a person.
    why: Option<&'a Finding>,
    /// The slots that it shares with other queues, for who sees all of them.
    slots: Option<&'a SharedSlots>,
    /// The last hours, in steps of five minutes.
    waits: Vec<WaitStep>,
    tasks: &'a TaskRows,
}

/// The slots of a pool that several queues share.
#[derive(Serialize)]
struct SharedSlots {
    pool: &'static str,
    slots: usize,
    /// How many of them are taken.
    running: usize,
    /// How many tasks of all its queues wait in this process for one.
    waiting: usize,
}

/// How long tasks waited for their first starts in a step.
#[derive(Clone, Serialize)]
struct WaitStep {
    #[serde(serialize_with = "crate::core::json_time::iso")]
    at: Timestamp,
    #[serde(serialize_with = "crate::core::json_time::optional_millis")]
    p50_ms: Option<Duration>,
    #[serde(serialize_with = "crate::core::json_time::optional_millis")]
    p95_ms: Option<Duration>,
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let asked = visit.required("name")?;
    let catalogue = visit.console.celeriac.catalogue();
    let unknown = || {
        let shown = words::line(asked, 80);
        ConsoleProblem::unknown(format!(
            "This program has no queue `{shown}`. The first page lists those that it has."
        ))
    };
    let row = catalogue.queue(asked).ok_or_else(unknown)?;
    if !visit.viewer.sees(&row.name) {
        return Err(NotAllowed::Denied(Permission::See, Some(row.name.clone())).into());
    }
    let query = TaskQuery { queue: Some(row.name.clone()), ..TaskQuery::of(&visit.address) };
    let board = QueueBoard::with_kept_promises(visit).await?;
    let (_, tasks) = task_rows::find(visit, &query, visit.address.get("after")).await?;
    let line = board.queues.iter().find(|line| line.status.name == row.name);
    let waits = waits(visit, row).await;
    let slots = shared_slots(visit, row).await;
    let lately = visit.console.shared.samples.series_of(&row.name);
    let why = match line {
        Some(line) if line.condition.needs_a_person() => pressed_by(visit, &row.name).await,
        _ => None,
    };
    let main = html! {
        (head(visit, row, line))
        @if line.is_none() && row.served {
            (parts::note("warn", &html! { "The queue does not answer within a second: a task blocks its event loop, or its actor is being built anew." }))
        } @else if !row.served {
            (parts::note("", &html! { "This program only sends to this queue (" code { "served = false" } "); others run its tasks." }))
        }
        div class="cols" {
            div class="stack" { (listing(visit, &tasks, &query)) }
            div class="stack" {
                @if let Some(why) = &why { (why_card(visit, why)) }
                @if let Some(line) = line { (now_card(line, slots.as_ref())) }
                @if line.is_some() { (live::card_of_queue(&lately)) }
                (waits_card(row, &waits))
                @if let Some(line) = line { (steering(visit, line)) }
                (row_card(row))
            }
        }
    };
    let is_missing = line.is_none() && row.served;
    let data =
        QueueData { queue: line, is_missing, why: why.as_ref(), slots: slots.as_ref(), waits, tasks: &tasks };
    Ok(PageBody::new(&row.name, board.at, &data, main))
}

fn head(visit: &ConsoleVisit, row: &QueueRow, line: Option<&QueueLine>) -> Markup {
    let sentence = html! {
        @match line {
            Some(line) => {
                @let (mark, word) = line.condition.shown();
                span class="state" { (parts::mark(mark, word)) } " " (row.name) " is " (word)
                @if let Some(share) = line.promise_used { ": " (format!("{:.0} %", share * 100.0)) " of its promise are used" } "."
            }
            None => { (row.name) }
        }
    };
    let scope = html! {
        a href=(visit.href(&ScreenAddress::of(PageName::Queues))) { "Queues" } " / " (row.name)
        @if let Some(description) = &row.description { " · " (description) }
    };
    let acts = line.filter(|line| visit.viewer.may(Permission::Pause, Some(&line.status.name)));
    parts::headline(&sentence, &scope, acts.map(|line| pause_button(visit, line)))
}

/// The slots that the queue shares with other queues. `None`: it shares none, or whoever looks does not see all queues.
async fn shared_slots(visit: &ConsoleVisit, row: &QueueRow) -> Option<SharedSlots> {
    if !row.shared || !visit.viewer.sees_all() {
        return None;
    }
    let (looks, celeriac) = (&visit.console.shared.looks, &visit.console.celeriac);
    let look = looks.look::<Vec<PoolStatus>>("pools", LIST_FRESH, async { celeriac.pools() });
    let Looked { seen, .. } = look.await;
    let pool = seen.iter().find(|pool| pool.pool == row.pool.as_str())?;
    let PoolStatus { pool, slots, running, waiting, .. } = *pool;
    Some(SharedSlots { pool, slots, running, waiting })
}

/// What the queue is like now.
fn now_card(line: &QueueLine, slots: Option<&SharedSlots>) -> Markup {
    let status = &line.status;
    let wait = &status.time_to_start;
    let waited = |wait| if status.time_to_start.count == 0 { "–".to_owned() } else { words::span(wait) };
    let kept = (wait.target.is_some() && wait.count > 0).then(|| {
        format!("{} of {} starts kept it", words::count(wait.within_target), words::count(wait.count))
    });
    let left =
        wait.target.filter(|_| status.ready > 0).map(|target| target.saturating_sub(status.oldest_wait));
    let mut facts = vec![
        (
            "Promise",
            html! {
                @if let Some(target) = &line.target { "a task starts at most " (target) " after it became due" } @else { "none" }
                @if let Some(kept) = kept { " · " (kept) }
            },
        ),
        (
            "Used now",
            html! {
                @match line.promise_used { Some(share) => span class="used" { (parts::used(share)) }, None => span class="faint" { "no target" } }
                @if let Some(left) = left.filter(|left| !left.is_zero()) { " · " (words::span(left)) " left for the oldest" }
            },
        ),
        (
            "Last 24 h",
            html! { @match &line.kept { Some(kept) => (kept_in_words(kept)), None => span class="faint" { "no target, or no start" } } },
        ),
        (
            "Time to start",
            html! { "p50 " (waited(wait.p50)) " · p95 " (waited(wait.p95)) " · longest " (waited(wait.max)) },
        ),
        (
            "Forecasts",
            html! {
                @match status.forecasts.coverage() {
                    Some(share) => { (format!("{:.0} %", share * 100.0)) " of the last " (words::count(status.forecasts.of)) " of when a task starts came true; it is to be 80 %" }
                    None => { span class="faint" { "none has come to an outcome yet" } }
                }
            },
        ),
        (
            "Workers",
            html! { (words::count(status.running as u64)) " run, of " (words::count(status.workers as u64)) " · pool " (status.pool) },
        ),
        (
            "Waits",
            html! {
                (words::count(status.ready)) " ready · " (words::count(status.held)) " held · " (words::count(status.scheduled)) " scheduled · " (words::count(status.in_line)) " in lanes"
            },
        ),
        (
            "Oldest ready",
            html! { @if status.ready == 0 { span class="faint" { "none" } } @else { (words::span(status.oldest_wait)) } },
        ),
        (
            "Blocked",
            html! { @if status.blockage.is_zero() { span class="faint" { "no" } } @else { (words::span(status.blockage)) } },
        ),
        (
            "Ended",
            html! {
                (words::count(status.done)) " succeeded · " (words::count(status.failed)) " failed · " (words::count(status.retried)) " attempts retried · "
                (words::count(status.revoked)) " revoked · " (words::count(status.rejected)) " rejected"
            },
        ),
        (
            "Accidents",
            html! {
                (words::count(status.panics)) " panics · " (words::count(status.timed_out)) " over their time · " (words::count(status.lost)) " processes lost · "
                (words::count(status.stuck as u64)) " stuck bodies · " (words::count(status.overlaps)) " overlaps refused"
            },
        ),
        ("Dead letters", html! { (words::count(status.dead)) }),
        (
            "Halted",
            html! { @match &status.halted { Some(why) => span class="bad" { (why) }, None => span class="faint" { "no" } } },
        ),
    ];
    if let Some(SharedSlots { pool, slots, running, waiting }) = slots {
        let taken = html! {
            (words::count(*running as u64)) " of " (words::count(*slots as u64)) " of the pool " (pool) " are taken · "
            (words::count(*waiting as u64)) " tasks of all its queues wait here for one"
        };
        facts.push(("Shared slots", taken));
    }
    let scope = html! { "now; counts since the program started; of 24 h those of all processes, a minute old at most" };
    parts::card("now", "Now", &scope, &html! { div class="pad" { (parts::facts(&facts)) } })
}

/// How the promise was kept, and what is left of the late starts that there may be.
fn kept_in_words(kept: &KeptPromise) -> String {
    let least = words::count(kept.kept_at_least);
    let kept_it =
        if kept.is_exact() { least } else { format!("{least} to {}", words::count(kept.kept_at_most)) };
    let percent = (kept.budget_left * 100.0).floor();
    let left = if percent > 0.0 { format!("{percent:.0} %") } else { "nothing".to_owned() };
    format!(
        "{kept_it} of {} starts kept it · of the 1 in 100 that may be late, {left} is left",
        words::count(kept.starts)
    )
}

/// What presses the queue, what was ruled out and what helps, as a report says it. `None`: nothing does, or that was not found
/// out in time. Lanes, and brakes of no queue, are for those only who see all queues.
async fn pressed_by(visit: &ConsoleVisit, queue: &str) -> Option<Finding> {
    let console = &visit.console;
    let look = console.shared.looks.look::<Diagnosis>("report", LIST_FRESH, console.celeriac.report());
    let Looked { seen, .. } = tokio::time::timeout(PATIENCE, look).await.ok()?;
    let mut why = seen.of_queue(queue)?.clone();
    if !visit.viewer.sees_all() {
        why.causes.retain(|cause| !OF_ANY_QUEUE.contains(&cause.code));
    }
    Some(why)
}

/// What presses the queue, and what helps.
fn why_card(visit: &ConsoleVisit, why: &Finding) -> Markup {
    let says = |text: &str| words::line(text, SENTENCE);
    let ruled_out: Vec<&str> = why.ruled_out.iter().map(|cause| cause.says.as_str()).collect();
    let tenants = visit.href(&ScreenAddress::of(PageName::Tenants));
    parts::card(
        "why",
        "Why",
        &html! { "what presses the queue now, the first cause first" },
        &html! {
            div class="pad stack" {
                p { (says(&why.sentence)) }
                @for cause in &why.causes {
                    p { strong { (says(&cause.says)) } }
                    @if !cause.remedies.is_empty() {
                        ul class="why-list" {
                            @for remedy in &cause.remedies { li { (says(&remedy.says)) " " span class="faint" { (remedy.by.as_str()) } } }
                        }
                    }
                    @if cause.code == "flood" { p class="small" { a href=(tenants) { "Tenants: who uses most, and a pause for one" } } }
                }
                @if !ruled_out.is_empty() { p class="small faint" { "Ruled out: " (words::line(&ruled_out.join(" "), 2 * SENTENCE)) } }
            }
        },
    )
}

/// How long tasks waited in the last hours; empty if the history cannot be read, or has no percentiles.
async fn waits(visit: &ConsoleVisit, row: &QueueRow) -> Vec<WaitStep> {
    let console = &visit.console;
    let look = async {
        let history = console.celeriac.history().from(now() - SHOWN).step(STEP).by(HistoryBy::Queue);
        let rows = history.name(row.name.as_str()).read().await.map(|history| history.rows);
        let rows = rows.unwrap_or_default().into_iter().filter(|row| !row.waits.is_empty());
        let step = |row: HistoryRow| WaitStep {
            at: row.at,
            p50_ms: row.waits.percentile(0.5),
            p95_ms: row.waits.percentile(0.95),
        };
        rows.map(step).collect::<Vec<_>>()
    };
    let Looked { seen, .. } = console.shared.looks.look(&format!("waits of {}", row.name), FRESH, look).await;
    seen.to_vec()
}

/// The 95th percentile of the waits, beside what the queue promises.
fn waits_card(row: &QueueRow, waits: &[WaitStep]) -> Markup {
    let seconds: Vec<f64> =
        waits.iter().filter_map(|step| step.p95_ms).map(|wait| wait.as_secs_f64()).collect();
    let target = row.target.map(|target| vec![target.as_secs_f64(); seconds.len()]).unwrap_or_default();
    let mut lines = vec![("line", seconds.as_slice())];
    lines.extend(row.target.is_some().then_some(("line q", target.as_slice())));
    let (Some(last), Some(longest)) = (seconds.last(), seconds.iter().copied().reduce(f64::max)) else {
        return html! {};
    };
    let shown = |seconds: f64| words::span(Duration::from_secs_f64(seconds));
    let promise = match row.target {
        Some(target) => format!("; the promise, dotted, is {}", words::span(target)),
        None => String::new(),
    };
    let spoken = format!(
        "time-to-start, 95th percentile of each five minutes: {} last, {} at most{promise}",
        shown(*last),
        shown(longest)
    );
    let top = shown(charts::highest(&lines));
    charts::card(
        "waits",
        "Time to start",
        "p95, the last three hours",
        &lines,
        (top.as_str(), spoken.as_str()),
        &[],
    )
}

/// The levers of the queue.
fn steering(visit: &ConsoleVisit, line: &QueueLine) -> Markup {
    let name = &line.status.name;
    html! {
        @if visit.viewer.may(Permission::Resize, Some(name)) {
            (parts::card("levers", "Workers", &html! { "in this program, until it restarts" }, &html! {
                form class="pad" method="post" action=(parts::act_address(visit)) data-still {
                    (parts::act_fields(visit, "resize"))
                    input type="hidden" name="queue" value=(name);
                    div class="fields" {
                        (parts::field("workers", "Number of workers", "1 or more; what runs goes on", &html! {
                            input id="workers" name="workers" type="number" min="1" max="100000" required inputmode="numeric" value=(line.status.workers);
                        }))
                    }
                    p { label class="check" { input type="checkbox" name="keep" value="1"; "also after a restart" } }
                    div class="acts" { button { "Resize" } }
                }
            }))
        }
    }
}

/// What the catalogue says of the queue.
fn row_card(row: &QueueRow) -> Markup {
    let text = |text: &Option<String>| html! { @match text { Some(text) => (text), None => span class="faint" { "not said" } } };
    let facts = [
        ("For", text(&row.description)),
        (
            "Class",
            html! { @match row.target_class { Some(class) => (class.as_str()), None => span class="faint" { "not said" } } },
        ),
        ("Why so", text(&row.target_comment)),
        ("Typical", text(&row.typical_duration)),
        ("Notes", text(&row.notes)),
    ];
    parts::card(
        "row",
        "In the catalogue",
        &html! { "as it was at the start" },
        &html! { div class="pad" { (parts::facts(&facts)) } },
    )
}

/// The tasks of the queue.
fn listing(visit: &ConsoleVisit, tasks: &TaskRows, query: &TaskQuery) -> Markup {
    let here = visit.address.clone().without("after");
    let chips = [
        ("", "all"),
        ("ready", "ready"),
        ("running", "running"),
        ("scheduled", "scheduled"),
        ("in_line", "in line"),
    ];
    let failed = ScreenAddress::of(PageName::Failed).with("queue", query.queue.clone().unwrap_or_default());
    html! {
        section class="card" aria-labelledby="tasks" data-still {
            header { h2 id="tasks" { "Its tasks" } p class="scope" { (task_rows::scope(tasks, query)) } }
            nav class="chips filters" aria-label="What the tasks wait for" {
                @for (value, label) in chips {
                    @let is_current = query.standing.as_deref().unwrap_or_default() == value;
                    a class="chip add" href=(visit.href(&here.clone().with("standing", value))) aria-current=[is_current.then_some("true")] {
                        @if is_current { strong { (label) } } @else { (label) }
                    }
                }
                a class="chip add" href=(visit.href(&failed)) { "failed" }
            }
            @if tasks.by_index.is_some() { div class="pad" { (task_rows::index_note(visit, tasks.by_index.as_deref())) } }
            @if tasks.tasks.is_empty() {
                div class="pad" {
                    p class="faint" {
                        @if tasks.next.is_some() { "None so far; look further." } @else { "None. A task appears here within a second of its " code { "delay" } "." }
                    }
                }
            } @else {
                (task_rows::table(visit, "tasks", tasks, "In the order in which they would run, as far as that is known. The list stays as it was found; load the page again for a new one."))
            }
            (parts::pager(visit, tasks.next.as_deref(), ""))
        }
    }
}
