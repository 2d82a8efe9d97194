//! What all pages have in common: the head, the navigation, the foot. The pages load nothing from elsewhere and have nothing
//! inline, so that the strictest policy holds.

use maud::{DOCTYPE, Markup, html};

use super::address::{PageName, ScreenAddress};
use super::pages::PageBody;
use super::visit::ConsoleVisit;
use super::{Console, parts};

/// The content security policy of every answer.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                                 form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The pages of the navigation, with the letter that leads there behind `g`.
const PAGES: [(PageName, &str, &str); 15] = [
    (PageName::Queues, "Queues", "q"),
    (PageName::Tasks, "Tasks", "t"),
    (PageName::Failed, "Failed", "f"),
    (PageName::Tenants, "Tenants", "n"),
    (PageName::Lanes, "Lanes", "l"),
    (PageName::Periodic, "Periodic", "p"),
    (PageName::Brakes, "Brakes", "b"),
    (PageName::Limits, "Limits", "m"),
    (PageName::Enqueue, "Enqueue", "e"),
    (PageName::History, "History", "h"),
    (PageName::Bulk, "Bulk acts", "u"),
    (PageName::Processes, "Processes", "r"),
    (PageName::Downloads, "Downloads", "d"),
    (PageName::Live, "Live", "v"),
    (PageName::Acts, "Acts", "a"),
];

/// A whole page.
pub(super) fn document(visit: &ConsoleVisit, body: &PageBody) -> Markup {
    let console = &visit.console;
    let top = html! {
        (brand(console))
        form class="find" role="search" action=(visit.href(&ScreenAddress::of(PageName::Tasks))) {
            label class="hidden" for="find" { "Find tasks by id, argument or error text" }
            input id="find" name="find" type="search" placeholder="Find: id, argument, error text"
                value=(visit.address.get("find").unwrap_or_default());
            kbd aria-hidden="true" { "/" }
        }
        div class="live" {
            span class="zone" { "Times in " span id="zone" { "UTC" } }
            span class="state" id="age" data-at=(body.at.to_string()) {
                i class=(if visit.address.page.is_live() { "mark idle" } else { "mark held" }) {}
                span { "as of " (parts::time(body.at)) }
            }
        }
    };
    let nav = html! {
        nav class="nav" aria-label="Console" {
            ul {
                @for (page, name, key) in PAGES {
                    @let current = visit.address.page.section() == page;
                    li {
                        a href=(visit.href(&ScreenAddress::of(page))) data-key=(key)
                            aria-current=[current.then_some("page")] { (name) }
                    }
                }
            }
        }
    };
    let foot = html! {
        footer class="foot" {
            span { "Celeriac " (env!("CARGO_PKG_VERSION")) }
            span { "you are " (visit.viewer.who) ", and may here: " (visit.viewer.permissions().join(", ")) }
            span { a id="json" href=(visit.href(&visit.address.clone().with("format", "json"))) { "This page as JSON" } }
            details class="keys" {
                summary { "Keys" }
                dl {
                    dt { kbd { "/" } } dd { "find" }
                    dt { kbd { "g" } " then a letter" }
                    dd { @for (_, name, key) in PAGES { (name) " " kbd { (key) } " " } }
                    dt { kbd { "j" } " " kbd { "k" } } dd { "next and previous row" }
                    dt { kbd { "." } } dd { "hold the numbers, and let them go on" }
                }
                label class="check" { input type="checkbox" id="keys"; "single letters are keys" }
            }
        }
    };
    let events = visit.address.clone().with("events", "1");
    let part = visit.address.clone().with("part", "1");
    let is_live = visit.address.page.is_live();
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(console, &body.title))
            body {
                a class="skip" href="#main" { "Skip to the content" }
                (parts::hatches())
                header class="top" { div class="bar-1" { (top) } (nav) }
                main id="main" tabindex="-1" data-events=[is_live.then(|| visit.href(&events))]
                    data-part=[is_live.then(|| visit.href(&part))]
                {
                    (notice(visit))
                    div id="page" class="stack" { (body.main) }
                }
                p id="spoken" class="hidden" role="status" aria-live="polite" {}
                (foot)
                script src=(format!("{}/assets/console.js", console.public)) defer {}
            }
        }
    }
}

/// The part of a page that changes, for the script.
pub(super) fn part(visit: &ConsoleVisit, body: &PageBody) -> Markup {
    html! { div data-at=(body.at.to_string()) data-title=(title(&visit.console, &body.title)) { (body.main) } }
}

/// A page for somebody who may see none of the others.
pub(super) fn bare(console: &Console, name: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            (head(console, name))
            body {
                header class="top" { div class="bar-1" { (brand(console)) } }
                main id="main" { (content) }
            }
        }
    }
}

fn head(console: &Console, name: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="robots" content="noindex";
            title { (title(console, name)) }
            link rel="stylesheet" href=(format!("{}/assets/console.css", console.public));
            link rel="icon" href="data:,";
        }
    }
}

fn title(console: &Console, name: &str) -> String {
    format!("{name} · {}", console.title.as_deref().unwrap_or("Celeriac"))
}

fn brand(console: &Console) -> Markup {
    html! {
        a class="brand" href=(ScreenAddress::of(PageName::Queues).below(&console.public)) {
            svg viewBox="0 0 20 20" aria-hidden="true" {
                path class="f-good" d="M9.4 6.6C8.8 4 7.3 2.2 4.6 1.4c-.2 2.6 1 4.6 3.6 5.6zM10.6 6.6c.6-2.6 2.1-4.4 4.8-5.2.2 2.6-1 4.6-3.6 5.6z" {}
                path class="calm" d="M3.6 11.2C3.6 8.4 6.4 7 10 7s6.4 1.4 6.4 4.2c0 3.4-2.9 5-4.3 5.9-.9.6-1.2 1.2-2.1 1.2s-1.2-.6-2.1-1.2c-1.4-.9-4.3-2.5-4.3-5.9z" {}
            }
            " " (console.title.as_deref().unwrap_or("Celeriac"))
        }
        @if let Some(environment) = &console.environment {
            span class=(if environment.to_lowercase().contains("prod") { "env" } else { "env quiet" }) { (environment) }
        }
    }
}

/// What came of the act after which this page is shown.
fn notice(visit: &ConsoleVisit) -> Markup {
    html! {
        @if let Some(act) = &visit.notice {
            p class=(if act.is_done { "note good" } else { "note bad" }) role="status" {
                strong { (act.what) } ": " (act.outcome)
            }
        }
    }
}
