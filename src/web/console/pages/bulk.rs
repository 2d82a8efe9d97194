//! Acts on all tasks that match a rule: what to choose, how far the acts are, and their undo.

use maud::{Markup, html};
use serde::Serialize;

use super::{LIST_FRESH, PageBody};
use crate::app::{BulkAct, BulkAction, ControlError};
use crate::core::Timestamp;
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::bulk_acts::{BulkReach, permission_of};
use crate::web::console::parts::StatusMark;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::shared_looks::Looked;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// The acts that the form offers, with the word of each for the address.
const ACTS: [(BulkAction, &str, &str); 4] = [
    (BulkAction::Move, "bulk_move", "move to another queue"),
    (BulkAction::Revoke, "bulk_revoke", "revoke"),
    (BulkAction::Purge, "bulk_purge", "purge: delete without a record"),
    (BulkAction::Retry, "bulk_retry", "run again what has failed"),
];
/// How many of the acts of the last week are shown.
const MOST: usize = 50;

/// An act in the list.
#[derive(Serialize)]
struct BulkRow {
    id: String,
    action: BulkAction,
    rule: String,
    /// The queue to which tasks are moved.
    to: Option<String>,
    by: Option<String>,
    #[serde(serialize_with = "crate::core::json_time::iso")]
    begun_at: Timestamp,
    found: u64,
    done: u64,
    failed: u64,
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    ended_at: Option<Timestamp>,
    error: Option<String>,
    cancel: Option<CancelRow>,
    /// Until when it can be undone.
    #[serde(serialize_with = "crate::core::json_time::optional_iso")]
    undoable_until: Option<Timestamp>,
    undo: Option<UndoRow>,
    /// Whether the act or its undo goes on.
    goes_on: bool,
    /// Whether whoever looks may undo it.
    #[serde(skip)]
    may_undo: bool,
    /// Whether whoever looks may cancel it.
    #[serde(skip)]
    may_cancel: bool,
}

/// That somebody has cancelled an act.
#[derive(Serialize)]
struct CancelRow {
    #[serde(serialize_with = "crate::core::json_time::iso")]
    at: Timestamp,
    by: Option<String>,
}

/// The undo of an act.
#[derive(Serialize)]
struct UndoRow {
    back: u64,
    left: u64,
    goes_on: bool,
    error: Option<String>,
}

/// The page as data.
#[derive(Serialize)]
struct BulkData {
    acts: Vec<BulkRow>,
}

impl BulkRow {
    /// The row of an act. `None`: it is about tasks that whoever looks may not see.
    async fn of(visit: &ConsoleVisit, act: &BulkAct, at: Timestamp) -> Option<Self> {
        let reach = BulkReach::of(&visit.console, &act.rule, act.to.as_deref());
        if !reach.is_seen(visit).await {
            return None;
        }
        let undoable_until = act.undoable_until().filter(|until| *until > at);
        let can_cancel = act.ended_at.is_none() && act.cancel.is_none();
        let may = (undoable_until.is_some() || can_cancel)
            && reach.check(visit, permission_of(act.action)).await.is_ok();
        let cancel = act.cancel.as_ref().map(|cancel| CancelRow {
            at: cancel.at,
            by: cancel.by.as_deref().map(|by| words::line(by, 80)),
        });
        let undo = act.undo.as_ref().map(|undo| UndoRow {
            back: undo.back,
            left: undo.left,
            goes_on: undo.ended_at.is_none(),
            error: undo.error.as_deref().map(|error| words::line(error, 300)),
        });
        Some(Self {
            id: act.id.clone(),
            action: act.action,
            rule: words::line(&act.rule.to_string(), 300),
            to: act.to.clone(),
            by: act.by.as_deref().map(|by| words::line(by, 80)),
            begun_at: act.begun_at,
            found: act.found,
            done: act.done,
            failed: act.failed,
            ended_at: act.ended_at,
            error: act.error.as_deref().map(|error| words::line(error, 300)),
            cancel,
            may_undo: may && undoable_until.is_some(),
            may_cancel: may && can_cancel,
            undoable_until,
            undo,
            goes_on: act.goes_on(),
        })
    }

    fn mark(&self) -> (StatusMark, &'static str) {
        match (&self.undo, self.goes_on, &self.error) {
            (Some(_), true, _) => (StatusMark::Retry, "is undone"),
            (Some(_), false, _) => (StatusMark::Retry, "undone"),
            (None, true, _) if self.cancel.is_some() => (StatusMark::Run, "is being cancelled"),
            (None, false, _) if self.cancel.is_some() => (StatusMark::Idle, "cancelled"),
            (None, true, _) => (StatusMark::Run, "goes on"),
            (None, false, Some(_)) => (StatusMark::Failed, "ended early"),
            (None, false, None) => (StatusMark::Done, "done"),
        }
    }

    /// How far it is, in words.
    fn state(&self) -> String {
        match (&self.undo, &self.error) {
            (Some(UndoRow { error: Some(error), .. }), _) | (None, Some(error)) => error.clone(),
            (Some(undo), _) => format!("{} back, {} left as they are", undo.back, undo.left),
            (None, None) if self.cancel.is_some() && !self.goes_on => {
                let by = self.cancel.as_ref().and_then(|cancel| cancel.by.as_deref());
                let by = by.map_or_else(String::new, |by| format!(" by {by}"));
                format!("cancelled{by}: {} of {} were done", self.done, self.found)
            }
            (None, None) if self.failed > 0 => format!("{} could not be done", self.failed),
            (None, None) => String::new(),
        }
    }
}

type SeenActs = Result<Vec<BulkAct>, ControlError>;

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    let console = &visit.console;
    let look = async { console.celeriac.bulk().acts().await };
    let Looked { at, seen } = console.shared.looks.look::<SeenActs>("bulk acts", LIST_FRESH, look).await;
    let mut acts: Vec<BulkRow> = Vec::new();
    for act in (*seen).as_ref().map_err(ConsoleProblem::from)?.iter().rev() {
        acts.extend(BulkRow::of(visit, act, at).await);
        if acts.len() == MOST {
            break;
        }
    }
    let going_on = acts.iter().filter(|act| act.goes_on).count() as u64;
    let undoable = acts.iter().filter(|act| act.undoable_until.is_some()).count() as u64;
    let sentence = match (going_on, undoable) {
        (0, 0) => "No bulk act goes on.".to_owned(),
        (0, undoable) => format!("{} can be undone.", words::counted(undoable, "bulk act", "bulk acts")),
        (going_on, _) => format!("{} on.", words::counted(going_on, "bulk act goes", "bulk acts go")),
    };
    let scope = html! { "acts on all tasks that match, of the last week · they go on after a restart" };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        (chooser(visit))
        @if acts.is_empty() {
            (parts::empty("No bulk act yet", &html! { "What is done to all tasks that match a rule is listed here: how far it is, and until when it can be undone." }))
        } @else {
            (parts::card("bulk", "Bulk acts", &html! { "the newest first" }, &list(visit, &acts)))
        }
    };
    Ok(PageBody::new("Bulk acts", at, &BulkData { acts }, main))
}

/// The form that chooses tasks and what is to be done to them. It leads to the page that counts them first.
fn chooser(visit: &ConsoleVisit) -> Markup {
    let viewer = &visit.viewer;
    let names: Vec<&str> =
        visit.console.celeriac.catalogue().queues.iter().map(|row| row.name.as_str()).collect();
    let may_any = |action| names.iter().any(|name| viewer.may(permission_of(action), Some(*name)));
    let acts: Vec<(&str, &str)> = ACTS
        .into_iter()
        .filter(|(action, ..)| may_any(*action))
        .map(|(_, word, label)| (word, label))
        .collect();
    let seen = names.iter().filter(|name| viewer.sees(name)).map(|name| (*name, *name));
    let from: Vec<(&str, &str)> = [("", "every queue")].into_iter().chain(seen.clone()).collect();
    let to: Vec<(&str, &str)> = [("", "")].into_iter().chain(seen).collect();
    let value = |name: &str| visit.address.get(name);
    html! {
        @if !acts.is_empty() {
            section class="card" aria-labelledby="choose" data-still {
                header { h2 id="choose" { "Choose" } p class="scope" { "all conditions must hold; the tasks are counted before anything is done" } }
                form class="filters" action=(visit.href(&ScreenAddress::of(PageName::Confirm))) {
                    input type="hidden" name="back" value="bulk";
                    div class="fields" {
                        (parts::field("act", "Do", "", &parts::select("act", "act", value("act"), &acts)))
                        (parts::field("task", "Task", "* is any text", &parts::text_input("task", "task", value("task"))))
                        (parts::field("queue", "Queue", "", &parts::select("queue", "queue", value("queue"), &from)))
                        (parts::field("tenant", "Tenant", "* is any text", &parts::text_input("tenant", "tenant", value("tenant"))))
                        (parts::field("to", "To queue", "for a move", &parts::select("to", "to", value("to"), &to)))
                    }
                    p { label class="check" { input type="checkbox" name="all" value="1"; "without a condition: all tasks are meant" } }
                    div class="acts" { button class="main" { "Count them…" } }
                }
            }
        }
    }
}

fn list(visit: &ConsoleVisit, acts: &[BulkRow]) -> Markup {
    let columns = [
        ("Act", false),
        ("Rule", false),
        ("By", false),
        ("Chosen", true),
        ("Done", true),
        ("State", false),
        ("", true),
    ];
    let rows = html! {
        @for act in acts {
            @let (mark, word) = act.mark();
            tr data-key=(act.id) {
                th scope="row" { span class="name" { (act.action.as_str()) " " code { (act.id) } } span class="why" { (parts::time(act.begun_at)) } }
                td class="full" data-l="rule" { code { (act.rule) } @if let Some(to) = &act.to { " to " a href=(visit.queue(to)) { (to) } } }
                td data-l="by" { (act.by.as_deref().unwrap_or("")) }
                (parts::number("chosen", act.found))
                (parts::number("done", act.done))
                td class="full" data-l="state" {
                    (parts::state(mark, word))
                    @if act.undo.is_none() && act.goes_on { (parts::thin_bar(act.done, act.found)) }
                    span class="why" { (act.state()) @if let Some(until) = act.undoable_until { " undo until " (parts::time(until)) } }
                }
                td class="act" {
                    @if act.may_undo { (button(visit, "undo_bulk", "Undo", act)) }
                    @if act.may_cancel { (button(visit, "cancel_bulk", "Cancel", act)) }
                }
            }
        }
    };
    parts::table(
        "bulk",
        &columns,
        &rows,
        "Cancel: what is done stays done, and the rest is left alone. Undo: what has been revoked, moved or purged is where it was, unless it has run since.",
    )
}

/// The button that cancels or undoes an act.
fn button(visit: &ConsoleVisit, what: &str, name: &str, act: &BulkRow) -> Markup {
    let fields = [("id", act.id.as_str()), ("action", act.action.as_str())];
    parts::act_button(visit, what, &fields, name, &act.rule)
}
