//! Brakes: those that are in force, what they hold, and a form for another one with a dry run before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use maud::{Markup, html};
use serde::Serialize;

use super::PageBody;
use crate::actors::QueueHold;
use crate::app::{BrakeScope, ControlError, DryRun, Replies};
use crate::core::Timestamp;
use crate::core::brake::{Brake, BrakeAction, BrakeRule};
use crate::core::hold::HoldReason;
use crate::task::Message;
use crate::task::clock::now;
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::board::FRESH;
use crate::web::console::brake_form::{ACTIONS, BrakeForm, FIELDS, SURE, tenant_of};
use crate::web::console::bulk_acts::BulkReach;
use crate::web::console::counts::{Counted, CountingShare, moment_of};
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::{NotAllowed, Permission};
use crate::web::console::shared_looks::Looked;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{Console, parts, token, words};

/// The field by which a page says that its brake is to be tried dry.
const TRY: &str = "try";
/// The field that names the brake whose tasks are to be counted exactly.
const COUNT: &str = "count";
/// The field that says at which moment it was counted, so that the same count goes on.
const MOMENT: &str = "counted";
/// The field that says that the tasks of the brake that is tried are not to be counted.
const UNCOUNTED: &str = "uncounted";
/// The brakes of one page.
const BRAKES: usize = 40;
/// The names of tasks that a dry run shows.
const MOST_NAMES: usize = 10;

/// The page as data.
#[derive(Serialize)]
struct BrakesData<'a> {
    scope: BrakeScope,
    brakes: Vec<BrakeLine<'a>>,
    /// What the brake of the address would be about, or the brake that was to be counted is.
    dry_run: Option<&'a DryRun>,
    /// How far that count is, if it goes on. Whoever asks again with `counted` gets the rest.
    counting: Option<CountingShare>,
    /// What to pass as `counted`.
    counted: Option<String>,
}

/// A brake with what it holds in the memory of this process.
#[derive(Serialize)]
struct BrakeLine<'a> {
    id: &'a str,
    rule: &'a BrakeRule,
    #[serde(flatten)]
    action: &'a BrakeAction,
    owner: Option<&'a str>,
    reason: Option<&'a str>,
    #[serde(serialize_with = "crate::core::json_time::iso")]
    since: Timestamp,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    until: Option<Timestamp>,
    is_standing: bool,
    /// How many tasks the queues of this process have in memory that it holds.
    holds: usize,
}

impl<'a> BrakeLine<'a> {
    fn of(brake: &'a Brake, held: &BTreeMap<String, usize>) -> Self {
        let Brake { id, rule, action, owner, reason, since, until } = brake;
        let (owner, reason) = (owner.as_deref(), reason.as_deref());
        let holds = held.get(id).copied().unwrap_or_default();
        let is_standing = brake.is_standing();
        Self { id, rule, action, owner, reason, since: *since, until: *until, is_standing, holds }
    }
}

type SeenBrakeHolds = Replies<QueueHold>;
type SeenBrakes = Result<Vec<Brake>, ControlError>;

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let console = &visit.console;
    let from: usize = match visit.address.get("after").map(str::parse) {
        None => 0,
        Some(Ok(from)) => from,
        Some(Err(_)) => return Err(ConsoleProblem::malformed("`after` is no place in the list of brakes.")),
    };
    let list = async { console.celeriac.brakes().list().await };
    let Looked { at, seen } = console.shared.looks.look::<SeenBrakes>("brakes", FRESH, list).await;
    let all = (*seen).as_ref().map_err(ConsoleProblem::from)?;
    let mut brakes: Vec<&Brake> = Vec::new();
    for brake in all {
        if is_seen(visit, brake).await {
            brakes.push(brake);
        }
    }
    let held = held(visit).await;
    let lines: Vec<BrakeLine<'_>> = brakes.iter().map(|brake| BrakeLine::of(brake, &held)).collect();
    let moment = moment_of(&visit.address, MOMENT);
    let counted = counted(visit, &brakes, moment).await?;
    let tried = tried(visit, moment).await?;
    let dry = tried.as_ref().and_then(|(_, found)| found.as_ref());
    let found = dry.or(counted.as_ref().map(|(_, found)| found));
    let (dry_run, counting) = match found {
        Some(Counted::Exact(found)) => (Some(&**found), None),
        Some(Counted::GoesOn(share)) => (None, Some(*share)),
        None => (None, None),
    };
    let address = visit.address.clone().with(MOMENT, moment.as_micros().to_string());
    let link = visit.href(&address);
    let scope = console.celeriac.brakes().scope();
    let where_it_holds = match scope {
        BrakeScope::Fleet => {
            "they hold in all programs that keep their notes in the same place, within a second"
        }
        BrakeScope::Process => "they hold in this program, until it ends",
    };
    let sentence = match lines.len() {
        0 => "No brake is in force.".to_owned(),
        count => format!("{} in force.", words::counted(count as u64, "brake is", "brakes are")),
    };
    let may_set = may_set(visit);
    let shown = lines.get(from..).unwrap_or_default();
    let shown = &shown[..shown.len().min(BRAKES)];
    let next = (from + shown.len() < lines.len()).then(|| (from + shown.len()).to_string());
    let main = html! {
        (parts::headline(&html! { (sentence) }, &html! { (where_it_holds) " · what runs is left alone" }, None))
        @if let Some((brake, found)) = &counted { (count_card(visit, brake, found, moment, &link)) (hidden_note(&brake.rule)) }
        @if let Some((form, found)) = &tried { (dry_card(visit, form, found.as_ref(), moment, &link)) (hidden_note(form.rule())) }
        @if lines.is_empty() {
            (parts::empty("Nothing is held back", &html! {
                "A brake is a rule that pauses, slows, diverts or ends the tasks that match before they start, without a deploy. "
                @if may_set { "Write one below; you see what it would do before it does it." } @else { "Who has the permission " code { "brake" } " sets one here." }
            }))
        } @else {
            (parts::card("brakes", "Brakes", &html! { "the oldest first" }, &html! {
                // One form for all rows: the button says which brake is meant. One that is gone is not taken away again.
                form method="post" action=(parts::act_address(visit)) { (parts::act_fields(visit, "release_brake")) (table(visit, shown)) }
            }))
            @if next.is_some() || from > 0 { (parts::pager(visit, next.as_deref(), &format!("{} of {}", shown.len(), lines.len()))) }
        }
        @if may_set && counting.is_none() { (form(visit)) }
        @else if may_set {
            // A page that loads itself again would take away what somebody writes into a form.
            p class="small" {
                "While it counts, this page loads itself again each second. "
                a href=(visit.href(&without_count(&visit.address))) { "Go on without the count" }
                ", to write a brake or to set this one at once."
            }
        }
    };
    let counted = found.map(|_| moment.as_micros().to_string());
    let data = BrakesData { scope, brakes: lines, dry_run, counting, counted };
    Ok(PageBody::new("Brakes", at, &data, main).with_again(counting.map(|_| link)))
}

/// Whether the viewer may set any brake.
fn may_set(visit: &ConsoleVisit) -> bool {
    let may = |queue: Option<&str>| visit.viewer.may(Permission::Brake, queue);
    may(None) || visit.viewer.queues().any(|queue| may(Some(queue)))
}

/// Whether the viewer may brake a queue; `None`: every queue.
fn may_brake(visit: &ConsoleVisit, queue: Option<&str>) -> bool {
    match queue {
        Some(_) => visit.viewer.may(Permission::Brake, queue),
        None => visit.viewer.may_everywhere(Permission::Brake),
    }
}

/// Whether a brake is shown: one of a queue to those who see it, or the tenant that it is about; any other to those who see all.
async fn is_seen(visit: &ConsoleVisit, brake: &Brake) -> bool {
    let tenant = tenant_of(&brake.rule);
    match (&brake.rule.queue, tenant) {
        (Some(queue), tenant) => {
            visit.ask_of_tenants(&[Permission::See], [(queue.as_str(), tenant)]).await;
            visit.viewer.sees_task(queue, tenant)
        }
        (None, Some(tenant)) => visit.sees_tenant(tenant).await,
        (None, None) => visit.viewer.sees_all(),
    }
}

/// How many tasks each brake holds in the memory of the queues, by its id.
async fn held(visit: &ConsoleVisit) -> BTreeMap<String, usize> {
    let console = &visit.console;
    let Looked { seen, .. } =
        console.shared.looks.look::<SeenBrakeHolds>("holds", FRESH, console.celeriac.holds()).await;
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    for hold in seen.iter() {
        if let HoldReason::Brake { id, .. } = &hold.reason {
            *held.entry(id.to_string()).or_default() += hold.tasks;
        }
    }
    held
}

/// The brake that the address wants counted exactly, and what it is about. It looks at all that waits, so it is asked for.
async fn counted<'a>(
    visit: &ConsoleVisit,
    brakes: &[&'a Brake],
    moment: Timestamp,
) -> Result<Option<(&'a Brake, Counted<DryRun>)>, ConsoleProblem> {
    let Some(id) = visit.address.get(COUNT) else { return Ok(None) };
    let brake = brakes.iter().copied().find(|brake| brake.id == id).ok_or_else(|| {
        let shown = words::line(id, 80);
        ConsoleProblem::unknown(format!("There is no brake `{shown}`: it is over, or was taken away."))
    })?;
    require(visit, brake.rule.queue.as_deref(), tenant_of(&brake.rule)).await?;
    let found = dry_run(&visit.console, &brake.rule, moment).await?;
    Ok(Some((brake, found)))
}

/// The same page without a count: with the form, and what it has of a brake that is tried.
fn without_count(address: &ScreenAddress) -> ScreenAddress {
    match address.get(TRY) {
        Some(_) => address.clone().without(MOMENT).without(COUNT).with(UNCOUNTED, "1"),
        None => ScreenAddress::of(PageName::Brakes),
    }
}

/// The brake of the address, and what it would be about, unless that is not to be counted.
async fn tried(
    visit: &ConsoleVisit,
    moment: Timestamp,
) -> Result<Option<(BrakeForm, Option<Counted<DryRun>>)>, ConsoleProblem> {
    if visit.address.get(TRY).is_none() {
        return Ok(None);
    }
    let form = BrakeForm::read(|name| visit.address.get(name))?;
    require(visit, form.rule().queue.as_deref(), form.tenant()).await?;
    if visit.address.get(UNCOUNTED).is_some() {
        return Ok(Some((form, None)));
    }
    let found = dry_run(&visit.console, form.rule(), moment).await?;
    Ok(Some((form, Some(found))))
}

/// What a rule is about. By an argument only tasks are counted whose arguments this console shows: the number of others would tell
/// what is hidden, letter by letter.
async fn dry_run(
    console: &Console,
    rule: &BrakeRule,
    moment: Timestamp,
) -> Result<Counted<DryRun>, ControlError> {
    let text = serde_json::to_string(rule).unwrap_or_default(); // it has texts only, so it has a form in JSON
    let key = format!("brake {} {text}", moment.as_micros());
    let (celeriac, rule, shows) = (console.celeriac.clone(), rule.clone(), console.shows_arguments());
    let count = |progress| async move {
        match rule.argument {
            Some(_) => celeriac.brakes().dry_run_of(&rule, shows, &progress).await,
            None => celeriac.brakes().dry_run_of(&rule, |_: &Message| true, &progress).await,
        }
    };
    Ok(match console.shared.counts.count(&key, count).await {
        Counted::Exact(found) => Counted::Exact(Arc::new((*found).clone()?)),
        Counted::GoesOn(share) => Counted::GoesOn(share),
    })
}

/// Whether the viewer may brake these tasks, and so learn how many there are.
async fn require(
    visit: &ConsoleVisit,
    queue: Option<&str>,
    tenant: Option<&str>,
) -> Result<(), ConsoleProblem> {
    let queue = queue.map(|queue| visit.console.physical(queue));
    let may = match (&queue, tenant) {
        (Some(queue), tenant) => {
            visit.ask_of_tenants(&[Permission::Brake], [(queue.as_str(), tenant)]).await;
            visit.viewer.may_with(Permission::Brake, queue, tenant)
        }
        (None, tenant) if visit.viewer.may(Permission::Brake, None) => {
            return BulkReach::everywhere(tenant).check(visit, Permission::Brake).await;
        }
        (None, _) => false,
    };
    if may { Ok(()) } else { Err(NotAllowed::Denied(Permission::Brake, queue).into()) }
}

fn table(visit: &ConsoleVisit, lines: &[BrakeLine<'_>]) -> Markup {
    let columns = [
        ("Rule", false),
        ("Does", false),
        ("Owner and reason", false),
        ("Since", true),
        ("Ends", true),
        ("Holds here", true),
        ("", true),
    ];
    let now = now();
    let count = |id: &str| ScreenAddress::of(PageName::Brakes).with(COUNT, id);
    let rows = html! {
        @for line in lines {
            @let may = may_brake(visit, line.rule.queue.as_deref());
            tr data-key=(line.id) {
                th scope="row" {
                    span class="name" { (parts::mark(StatusMark::Held, "in force")) (words::line(&line.rule.to_string(), 160)) }
                    span class="why" { (line.id) @if line.is_standing { " · stands in the catalogue" } }
                }
                td data-l="does" { (words::line(&line.action.to_string(), 100)) }
                td class="full" data-l="owner" {
                    @match line.owner { Some(owner) => (words::line(owner, 60)), None => span class="faint" { "nobody has said" } }
                    @if let Some(reason) = line.reason { span class="why" { (words::line(reason, 200)) } }
                }
                td class="n" data-l="since" { @if line.is_standing { "the start" } @else { (words::ago(line.since, now)) } }
                td class="n" data-l="ends" { @match line.until { Some(until) => { (parts::time(until)) span class="why" { (words::ago(until, now)) } } None => span class="faint" { "by hand" } } }
                td class=(if line.holds == 0 { "n zero" } else { "n" }) data-l="holds here" {
                    (words::count(line.holds as u64))
                    @if may { " " a href=(visit.href(&count(line.id))) { "count all" span class="hidden" { " that " (line.id) " is about" } } }
                }
                td class="act" {
                    @if may && !line.is_standing {
                        div class="row-acts" { button name="id" value=(line.id) { "Release" span class="hidden" { " " (line.id) } } }
                    }
                }
            }
        }
    };
    let caption = "Holds here: what the queues of this program have in memory; of very many tasks, others wait in the broker. A brake of the catalogue is taken away in its file.";
    parts::table("brakes", &columns, &rows, caption)
}

/// What a brake that is in force is about, exactly.
fn count_card(
    visit: &ConsoleVisit,
    brake: &Brake,
    found: &Counted<DryRun>,
    moment: Timestamp,
    again: &str,
) -> Markup {
    let scope = html! { "exact, " (parts::time(moment)) " · brake " (brake.id) };
    let content = html! {
        @match found {
            Counted::Exact(found) => div class="pad stack" { (figures(visit, found)) },
            Counted::GoesOn(share) => (parts::counting(*share, again)),
        }
    };
    parts::card("counted", "What it is about", &scope, &content)
}

/// What a brake would do, and the form that sets it.
fn dry_card(
    visit: &ConsoleVisit,
    form: &BrakeForm,
    found: Option<&Counted<DryRun>>,
    moment: Timestamp,
    again: &str,
) -> Markup {
    let is_all = form.is_about_everything();
    // Where somebody has to say that it is meant, the page must not load itself again meanwhile.
    let can_be_set = !(is_all && matches!(found, Some(Counted::GoesOn(_))));
    let with_count = visit.href(&visit.address.clone().without(UNCOUNTED));
    let back = ScreenAddress::of(PageName::Brakes);
    html! {
        section class="card" aria-labelledby="dry" {
            header { h2 id="dry" { "What it would do" } p class="scope" { "step 2 of 2 · " @if found.is_some() { "exact, " (parts::time(moment)) } @else { "not counted" } " · nothing has been done yet" } }
            div class="pad stack" {
                p { strong { (words::line(&form.action().to_string(), 100)) " for " (words::line(&form.rule().to_string(), 300)) } ", " (form.ends()) "." }
                @match found {
                    Some(Counted::Exact(found)) => (figures(visit, found)),
                    Some(Counted::GoesOn(share)) => (parts::counting(*share, again)),
                    None => p { a href=(with_count) { "Count what it would be about" } },
                }
                @if can_be_set {
                    form class="stack" method="post" action=(parts::act_address(visit)) {
                        input type="hidden" name=(token::FIELD) value=(visit.token.text);
                        input type="hidden" name=(token::ONCE) value=(token::random());
                        input type="hidden" name="act" value="set_brake";
                        input type="hidden" name="back" value=(back.relative());
                        @for name in FIELDS { @if let Some(value) = visit.address.get(name) { input type="hidden" name=(name) value=(value); } }
                        @if is_all {
                            (parts::note("bad", &html! { "This brake is about every task of the program, those that come later too." }))
                            p { label class="check" { input type="checkbox" name=(SURE) value="1" required; "yes, every task is meant" } }
                        }
                        div class="acts" {
                            button class=(if is_all { "danger" } else { "main" }) { "Set this brake" }
                            a class="button" href=(visit.href(&back)) { "Do nothing" }
                        }
                    }
                }
            }
        }
    }
}

/// Says which tasks are not among the numbers of a dry run.
fn hidden_note(rule: &BrakeRule) -> Markup {
    html! {
        @if rule.argument.is_some() {
            (parts::note("", &html! { "Tasks whose arguments are hidden are not counted, and the brake holds those of them that match." }))
        }
    }
}

/// The numbers of a dry run.
fn figures(visit: &ConsoleVisit, found: &DryRun) -> Markup {
    let named = |counts: &BTreeMap<String, u64>| {
        let mut counts: Vec<(&String, &u64)> = counts.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let all = counts.len();
        let first = counts.into_iter().take(MOST_NAMES);
        let mut text: Vec<String> = first
            .map(|(name, count)| format!("{} {}", words::count(*count), words::line(name, 80)))
            .collect();
        if all > MOST_NAMES {
            text.push(format!("{} more names", all - MOST_NAMES));
        }
        if text.is_empty() { "none".to_owned() } else { text.join(", ") }
    };
    let started = if found.started_is_exact { "" } else { ", whatever their arguments were" };
    let unseen: u64 = found.unseen.values().sum();
    let facts = [
        (
            "Wait now",
            html! { strong { (words::counted(found.waiting.tasks, "task", "tasks")) } " that match" },
        ),
        ("By queue", html! { (named(&found.waiting.by_queue)) }),
        ("By task", html! { (named(&found.waiting.by_task)) }),
        (
            "Run now",
            html! { (words::count(found.running)) " that match, in this program; they are left alone" },
        ),
        (
            "Last hour",
            html! { (words::counted(found.started, "start", "starts")) " in this program would have matched" (started) },
        ),
    ];
    html! {
        (parts::facts(&facts))
        @if unseen > 0 { (parts::note("warn", &html! { (words::counted(unseen, "message", "messages")) " in the broker cannot be looked at, so they are not among these." })) }
        @if !found.missing.is_empty() { (parts::note("warn", &html! { "These queues do not say what runs in them, so what runs there is among what waits: " (words::line(&found.missing.join(", "), 300)) })) }
        @if !found.waiting.sample.is_empty() {
            details {
                summary { "Some of them" }
                ul class="why-list" {
                    @for id in found.waiting.sample.iter().take(MOST_NAMES) { li { a href=(visit.task(id.as_str())) { code { (words::line(id.as_str(), 60)) } } } }
                }
            }
        }
    }
}

/// The form of a brake, with what the address has of it.
fn form(visit: &ConsoleVisit) -> Markup {
    let get = |name: &str| visit.address.get(name);
    let text = |name: &str| parts::text_input(&format!("b-{name}"), name, get(name));
    let catalogue = visit.console.celeriac.catalogue();
    let may = |name: &str| visit.viewer.may(Permission::Brake, Some(name));
    let named = catalogue.queues.iter().map(|row| row.name.as_str()).filter(|name| may(name));
    let named: Vec<(&str, &str)> = named.map(|name| (name, name)).collect();
    let any = may_brake(visit, None).then_some(("", "any queue"));
    let queues: Vec<(&str, &str)> = any.into_iter().chain(named.iter().copied()).collect();
    let targets: Vec<(&str, &str)> = [("", "–")].into_iter().chain(named).collect();
    html! {
        section class="card" aria-labelledby="new" {
            header { h2 id="new" { "A new brake" } p class="scope" { "step 1 of 2: say it, then see what it would do" } }
            form class="pad stack" action=(visit.href(&ScreenAddress::of(PageName::Brakes))) {
                input type="hidden" name=(TRY) value="1";
                fieldset class="stack" {
                    legend { strong { "Which tasks: all conditions must hold" } }
                    div class="fields" {
                        (parts::field("b-task", "Task", "* is any text", &text("task")))
                        (parts::field("b-queue", "Queue", "", &parts::select("b-queue", "queue", get("queue"), &queues)))
                        (parts::field("b-tenant", "Tenant", "* is any text", &text("tenant")))
                        (parts::field("b-argument", "Argument", "its name, or its position from 0", &text("argument")))
                        (parts::field("b-matches", "matches", "a regular expression, from the beginning", &text("matches")))
                    }
                    @if may_brake(visit, None) {
                        p { label class="check" { input type="checkbox" name="all" value="1" checked[get("all").is_some()]; "every task: then leave the conditions empty" } }
                    }
                }
                fieldset class="stack" {
                    legend { strong { "What happens to them" } }
                    div class="fields" {
                        (parts::field("b-action", "Does", "", &parts::select("b-action", "action", get("action"), &ACTIONS)))
                        (parts::field("b-rate", "Rate", "of slow, such as 10/m in each process", &text("rate")))
                        (parts::field("b-divert_to", "To", "of divert", &parts::select("b-divert_to", "divert_to", get("divert_to"), &targets)))
                    }
                }
                div class="fields" {
                    (parts::field("b-for", "Ends after", "such as 30m, 1h or 2d; empty: by hand", &parts::text_input("b-for", "for", get("for").or(get(TRY).is_none().then_some("1h")))))
                    (parts::field("b-reason", "Reason", "for those who come after you", &text("reason")))
                }
                div class="acts" { button class="main" { "Try it dry" } span class="small faint" { "It looks at all that waits, and changes nothing." } }
            }
        }
    }
}
