//! Tenants: who uses most, who waits, and who is owed. And one tenant, with its tasks and its levers.

use maud::{Markup, html};
use serde::Serialize;

use super::{PageBody, ROWS};
use crate::core::Timestamp;
use crate::core::slots::TenantWeight;
use crate::task::LONGEST_TENANT;
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::rights::{NotAllowed, Permission};
use crate::web::console::shared_looks::Looked;
use crate::web::console::task_rows::{self, TaskQuery, TaskRows};
use crate::web::console::tenant_book::{TenantBook, TenantView};
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, token, words};

/// The id of the form that lets a tenant go on. Its buttons are in the rows.
const RELEASE: &str = "release-tenant";

/// The list as data.
#[derive(Serialize)]
struct TenantsData<'a> {
    tenants: &'a [TenantView],
    /// How many may be seen, and match.
    count: usize,
    next: Option<String>,
    /// Whether the broker tells the tenants of what waits in it apart.
    knows_backlog: bool,
    /// The tasks whose tenants are not counted one by one. `None`: it is the business of others.
    uncounted: Option<u64>,
}

/// A tenant as data.
#[derive(Serialize)]
struct TenantData<'a> {
    tenant: &'a TenantView,
    tasks: &'a TaskRows,
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let from: usize = match visit.address.get("after").map(str::parse) {
        None => 0,
        Some(Ok(from)) => from,
        Some(Err(_)) => return Err(ConsoleProblem::malformed("`after` is no place in the list of tenants.")),
    };
    let Looked { at, seen } = TenantBook::look(&visit.console).await;
    let book = (*seen).as_ref().map_err(ConsoleProblem::from)?;
    let wanted = visit.address.get("tenant").map(str::trim).unwrap_or_default();
    let mut lines = book.lines(visit, wanted).await;
    if lines.is_empty() && !wanted.is_empty() && !visit.viewer.sees_any() {
        // Who may see this tenant only finds it also while nothing is known of it.
        lines.extend(book.one(visit, wanted).await);
    }
    let count = lines.len();
    let shown = lines.get(from..).unwrap_or_default();
    let shown = &shown[..shown.len().min(ROWS)];
    let next = (from + shown.len() < count).then(|| (from + shown.len()).to_string());
    let uncounted = Some(book.uncounted).filter(|_| visit.viewer.sees_any());
    let scope = html! {
        "what waits and runs now · share, starts and waits of the last hour, all processes"
        @if !book.knows_backlog { " · this broker does not tell the tenants of what waits in it apart, so what this program has fetched is counted" }
        @if let Some(uncounted) = uncounted.filter(|uncounted| *uncounted > 0) { " · " (words::counted(uncounted, "task", "tasks")) " of tenants that are not counted one by one" }
        @if book.is_cut { " · of queues with more than 10,000 tenants, those with the most tasks" }
    };
    let main = html! {
        (parts::headline(&html! { (sentence(&lines)) }, &scope, None))
        (find_form(visit, wanted))
        @if shown.is_empty() {
            (nothing(visit, wanted))
        } @else {
            (list(visit, shown))
            (parts::pager(visit, next.as_deref(), &format!("{} of {}", shown.len(), words::count(count as u64))))
        }
    };
    let data = TenantsData {
        tenants: shown,
        count,
        next: next.clone(),
        knows_backlog: book.knows_backlog,
        uncounted,
    };
    Ok(PageBody::new("Tenants", at, &data, main))
}

fn sentence(lines: &[TenantView]) -> String {
    let known = words::counted(lines.len() as u64, "tenant", "tenants");
    match lines.first() {
        None => "No tenant has work, or has had any within the last hour.".to_owned(),
        Some(first) => match first.whole.filter(|whole| whole.share > 0.0) {
            Some(whole) => format!(
                "{known}; {} has had {:.0} % of the time of the last hour.",
                words::line(&first.name, 60),
                whole.share * 100.0
            ),
            None => format!("{known}."),
        },
    }
}

fn find_form(visit: &ConsoleVisit, wanted: &str) -> Markup {
    html! {
        section class="card" aria-labelledby="find-tenant" {
            header { h2 id="find-tenant" { "Find a tenant" } p class="scope" { "by a part of its name" } }
            form class="filters" action=(visit.href(&ScreenAddress::of(PageName::Tenants))) {
                div class="fields" { (parts::field("tenant", "Name", "contains", &parts::text_input("tenant", "tenant", Some(wanted)))) }
                div class="acts" {
                    button class="main" { "Find" }
                    a class="button" href=(visit.href(&ScreenAddress::of(PageName::Tenants))) { "All tenants" }
                }
            }
        }
    }
}

fn nothing(visit: &ConsoleVisit, wanted: &str) -> Markup {
    html! {
        @if !wanted.is_empty() {
            (parts::empty("No such tenant", &html! { "No tenant whose name contains this text has work now or has had any within the last hour. Take a part of the text away." }))
        } @else if !visit.viewer.sees_any() {
            (parts::empty("Which tenant?", &html! { "Write the whole name of the tenant whose tasks you may see." }))
        } @else {
            (parts::empty("No tenant", &html! {
                "A tenant is who pays for a task, such as a customer. One is here as soon as a task names it: "
                code { "#[task(tenant = \"{domain}\")]" } ", or " code { "tenant = \"domain\"" } " in the catalogue."
            }))
        }
    }
}

fn list(visit: &ConsoleVisit, lines: &[TenantView]) -> Markup {
    let columns = [
        ("Tenant", false),
        ("Ready", true),
        ("Begun or held", true),
        ("Runs", true),
        ("Share", false),
        ("Is owed", false),
        ("Waited, mean", true),
        ("longest", true),
        ("Weight", true),
        ("", true),
    ];
    let may_brake = visit.viewer.may_everywhere(Permission::Brake);
    let rows = html! { @for line in lines { (row(visit, line, may_brake)) } };
    let caption = "Those with the most runs first, then those that ran longest within the last hour. A pause is a brake; it leaves alone what runs.";
    let table = parts::table("tenants", &columns, &rows, caption);
    parts::card(
        "tenants",
        "Tenants",
        &html! { "sorted as it was found" },
        &html! {
            // One form for all rows: the button says which tenant is meant. To pause it twice is to pause it once.
            form method="post" action=(parts::act_address(visit)) { (parts::act_fields(visit, "pause_tenant")) (table) }
            @if may_brake { form method="post" id=(RELEASE) action=(parts::act_address(visit)) { (parts::act_fields(visit, "release_tenant")) } }
        },
    )
}

fn row(visit: &ConsoleVisit, line: &TenantView, may_brake: bool) -> Markup {
    let name = words::line(&line.name, 80);
    let (mark, word) = condition(line);
    html! {
        tr data-key=(line.name) {
            th scope="row" {
                span class="name" { (parts::mark(mark, word)) a href=(visit.tenant(&line.name)) { (name) } }
                @if let Some(until) = line.paused_until { span class="why" { "paused until " (parts::time(until)) } }
            }
            (parts::number("ready", line.ready))
            (parts::number("begun or held", line.delivered))
            @match &line.whole {
                Some(whole) => {
                    (parts::number("runs", whole.running as u64))
                    td data-l="share" { (percent(whole.share)) }
                    td data-l="is owed" { (owed(line)) }
                    td class="n" data-l="waited, mean" { (waited(whole.first_starts, whole.waited_mean)) }
                    td class="n" data-l="longest" { (waited(whole.first_starts, whole.waited_longest)) }
                }
                None => { td colspan="5" class="faint" { "of some queues only" } }
            }
            td class="n" data-l="weight" { (line.weight) }
            td class="act" {
                @if may_brake {
                    div class="row-acts" {
                        @if line.paused_until.is_some() { button form=(RELEASE) name="tenant" value=(line.name) { "Undo" span class="hidden" { " the pause of " (name) } } }
                        @else { button name="tenant" value=(line.name) { "Pause for 1 h" span class="hidden" { " " (name) } } }
                    }
                }
            }
        }
    }
}

/// The mark and the word for a tenant.
fn condition(line: &TenantView) -> (StatusMark, &'static str) {
    let whole = line.whole.unwrap_or_default();
    if line.paused_until.is_some() {
        (StatusMark::Held, "paused")
    } else if whole.running > 0 {
        (StatusMark::Run, "runs")
    } else if line.waiting() > 0 {
        (StatusMark::Idle, "waits")
    } else {
        (StatusMark::Done, "has no work")
    }
}

fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.01 { "under 1 %".to_owned() } else { format!("{:.0} %", share * 100.0) }
}

/// Whether a tenant comes before others; it says something only while it has work here.
fn owed(line: &TenantView) -> &'static str {
    match &line.whole {
        Some(whole) if whole.running + whole.waiting_here > 0 => {
            if whole.is_owed {
                "yes"
            } else {
                "no, it had more"
            }
        }
        _ => "–",
    }
}

fn waited(first_starts: u64, wait: std::time::Duration) -> String {
    if first_starts == 0 { "–".to_owned() } else { words::span(wait) }
}

pub(super) async fn look_at_one(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let name = visit.required("name")?;
    if name.len() > LONGEST_TENANT {
        let text = format!("The name of a tenant has at most {LONGEST_TENANT} bytes.");
        return Err(ConsoleProblem::malformed(text));
    }
    let Looked { seen, at } = TenantBook::look(&visit.console).await;
    let book = (*seen).as_ref().map_err(ConsoleProblem::from)?;
    let Some(line) = book.one(visit, name).await else {
        // Who may see a queue may see its tasks of any tenant, and learns nothing of the others.
        if !visit.viewer.sees_any() {
            return Err(NotAllowed::Denied(Permission::See, None).into());
        }
        return Ok(hidden(visit, name, at));
    };
    let query = TaskQuery { tenant: Some(name.to_owned()), ..TaskQuery::of(&visit.address) };
    let (_, tasks) = task_rows::find(visit, &query, visit.address.get("after")).await?;
    let main = html! {
        (head(visit, &line))
        div class="cols" {
            div class="stack" { (listing(visit, &line, &tasks, &query)) }
            div class="stack" { (figures(&line)) (levers(visit, &line)) }
        }
    };
    let data = TenantData { tenant: &line, tasks: &tasks };
    Ok(PageBody::new(format!("Tenant {}", words::line(name, 60)), at, &data, main))
}

/// The page of a tenant that has nothing in the queues that may be seen.
fn hidden(visit: &ConsoleVisit, name: &str, at: Timestamp) -> PageBody {
    let main = html! {
        (parts::headline(&html! { "The tenant " (words::line(name, 80)) " has nothing in the queues that you may see." }, &crumbs(visit, name), None))
        (parts::empty("No task that you may see", &html! { "It may have tasks in other queues, and its name may be written in another way." }))
    };
    PageBody::new(format!("Tenant {}", words::line(name, 60)), at, &serde_json::Value::Null, main)
}

fn crumbs(visit: &ConsoleVisit, name: &str) -> Markup {
    html! { a href=(visit.href(&ScreenAddress::of(PageName::Tenants))) { "Tenants" } " / " (words::line(name, 80)) }
}

fn head(visit: &ConsoleVisit, line: &TenantView) -> Markup {
    let (mark, word) = condition(line);
    let name = words::line(&line.name, 80);
    let sentence = html! {
        span class="state" { (parts::mark(mark, word)) } " " (name) " " (word)
        @if let Some(until) = line.paused_until { " until " (parts::time(until)) }
        @if line.ready > 0 { "; " (words::counted(line.ready, "task of it is", "tasks of it are")) " ready" } "."
    };
    let acts = visit.viewer.may_everywhere(Permission::Brake).then(|| {
        let once = token::random();
        let fields = [("tenant", line.name.as_str()), (token::ONCE, once.as_str())];
        html! {
            @if line.paused_until.is_some() { (parts::act_button(visit, "release_tenant", &fields, "Undo the pause", &name)) }
            @else { (parts::act_button(visit, "pause_tenant", &fields, "Pause for an hour", &name)) }
        }
    });
    parts::headline(&sentence, &crumbs(visit, &line.name), acts)
}

fn figures(line: &TenantView) -> Markup {
    let mut facts = vec![
        ("Ready", html! { (words::count(line.ready)) " could start, in queues that you may see" }),
        ("Begun or held", html! { (words::count(line.delivered)) " run, or a limit holds them" }),
        ("Weight", html! { (line.weight) }),
    ];
    if let Some(whole) = &line.whole {
        facts.extend([
            ("Runs", html! { (words::count(whole.running as u64)) " here, now" }),
            ("Is owed", html! { (owed(line)) }),
            ("Share", html! { (percent(whole.share)) " of the time that tasks of tenants ran within the last hour" }),
            ("Last hour", html! { (words::counted(whole.started, "run", "runs")) " began, and took " (words::span(whole.ran)) " in all" }),
            (
                "Time to start",
                html! { "mean " (waited(whole.first_starts, whole.waited_mean)) " · longest " (waited(whole.first_starts, whole.waited_longest)) ", within the last hour" },
            ),
        ]);
    }
    let scope = html! { "now, and the last hour of all processes" };
    parts::card("figures", "What it uses", &scope, &html! { div class="pad" { (parts::facts(&facts)) } })
}

/// What can be changed for the tenant.
fn levers(visit: &ConsoleVisit, line: &TenantView) -> Markup {
    let brake = ScreenAddress::of(PageName::Brakes).with("tenant", &line.name);
    html! {
        @if visit.viewer.may(Permission::SetWeight, None) {
            (parts::card("weight", "Weight", &html! { "in this program, until it restarts" }, &html! {
                form class="pad stack" method="post" action=(parts::act_address(visit)) {
                    (parts::act_fields(visit, "set_weight"))
                    input type="hidden" name=(token::ONCE) value=(token::random());
                    input type="hidden" name="tenant" value=(line.name);
                    (parts::field("new-weight", "Weight", "1 unless stated; with 2, twice the share", &html! {
                        input id="new-weight" name="weight" type="number" required step="any" min=(TenantWeight::LEAST) max=(TenantWeight::MOST) value=(line.weight);
                    }))
                    p class="small faint" { code { "[tenants.weights]" } " of the catalogue lasts longer." }
                    div class="acts" { button { "Set the weight" } }
                }
            }))
        }
        @if visit.viewer.may_everywhere(Permission::Brake) {
            p class="small" { a href=(visit.href(&brake)) { "Hold back some of its tasks only, by a brake" } }
        }
    }
}

/// The tasks of the tenant.
fn listing(visit: &ConsoleVisit, line: &TenantView, tasks: &TaskRows, query: &TaskQuery) -> Markup {
    let failed = ScreenAddress::of(PageName::Failed).with("tenant", &line.name);
    let history = ScreenAddress::of(PageName::History).with("by", "tenant").with("name", &line.name);
    html! {
        section class="card" aria-labelledby="tasks" {
            header { h2 id="tasks" { "Its tasks" } p class="scope" { (task_rows::scope(tasks, query)) } }
            nav class="chips filters" aria-label="More of this tenant" {
                a class="chip add" href=(visit.href(&failed)) { "failed" }
                a class="chip add" href=(visit.href(&history)) { "history" }
            }
            @if tasks.tasks.is_empty() {
                div class="pad" {
                    p class="faint" {
                        @if tasks.next.is_some() { "None so far; look further." } @else { "None waits and none runs in the queues that you may see." }
                    }
                }
            } @else {
                (task_rows::table(visit, "tasks", tasks, "The list stays as it was found; load the page again for a new one."))
            }
            (parts::pager(visit, tasks.next.as_deref(), ""))
        }
    }
}
