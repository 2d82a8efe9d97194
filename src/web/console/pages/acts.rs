//! Who did what in the console.

use maud::html;
use serde::Serialize;

use super::{PageBody, ROWS};
use crate::task::clock::now;
use crate::web::console::act_log::ActRecord;
use crate::web::console::parts::StatusMark;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// The page as data.
#[derive(Serialize)]
struct ActsData {
    acts: Vec<ActRecord>,
    next: Option<String>,
}

pub(super) fn look(visit: &ConsoleVisit) -> PageBody {
    let at = now();
    let before = visit.address.get("after").and_then(|number| number.parse().ok()).unwrap_or(u64::MAX);
    let viewer = &visit.viewer;
    let is_seen = |act: &ActRecord| {
        let is_of_seen = act.queue.as_deref().map_or(viewer.sees_any(), |queue| viewer.sees(queue));
        is_of_seen || act.who == viewer.who
    };
    let (acts, goes_on) = visit.console.shared.acts.before(before, ROWS, is_seen);
    let next = acts.last().filter(|_| goes_on).map(|act| act.number.to_string());
    let sentence = match acts.len() {
        0 => "Nobody has done anything here.".to_owned(),
        count => format!("{}, the newest first.", words::counted(count as u64, "act", "acts")),
    };
    let scope = html! { "in this program since it started, at most the last 500, without those on queues that you may not see · the log has all of them (" code { "celeriac::console" } ")" };
    let columns =
        [("What", false), ("Who", false), ("Outcome", false), ("Permission", false), ("When", true)];
    let rows = html! {
        @for act in &acts {
            tr data-key=(act.number) {
                th scope="row" {
                    span class="name" { @if act.is_done { (parts::mark(StatusMark::Done, "done")) } @else { (parts::mark(StatusMark::Failed, "not done")) } (act.what) }
                }
                td data-l="who" { (act.who) }
                td class="full" data-l="outcome" { (act.outcome) }
                td data-l="permission" { (act.permission) }
                td class="n" data-l="when" { (parts::time(act.at)) span class="why" { (words::ago(act.at, at)) } }
            }
        }
    };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        @if acts.is_empty() {
            (parts::empty("No act yet", &html! { "A pause, a resize, a revocation and every other act is noted here with who did it, when, and what came of it." }))
        } @else {
            (parts::card("acts", "Acts", &html! { "of everybody" }, &parts::table("acts", &columns, &rows, "")))
        }
        (parts::pager(visit, next.as_deref(), ""))
    };
    PageBody::new("Acts", at, &ActsData { acts, next }, main)
}
