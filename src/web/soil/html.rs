//! The page and its parts. The templates escape every value. The page loads nothing from elsewhere and has nothing
//! inline, so that the strictest policy holds.
//!
//! The part that changes has HQ's ids: `display_ID` around it, `ready_ID` when the file is ready, `error_ID` when the
//! task failed. A script of HQ's that polls until it sees `ready_ID` works with it.

use actix_web::HttpResponseBuilder;
use actix_web::http::header;
use maud::{DOCTYPE, Markup, html};

use super::view::{File, Look, Member, View};

/// The content security policy of the pages.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'self'";

/// How often a page without a script loads itself again, in seconds.
const REFRESH: &str = "2";

/// Sets the headers of every page.
pub(super) fn headers(response: &mut HttpResponseBuilder) -> &mut HttpResponseBuilder {
    response
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // The address contains the key, which other sites must not learn.
        .insert_header((header::REFERRER_POLICY, "same-origin"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
}

/// The whole page of a view.
pub(super) fn page(view: &View) -> Markup {
    let more = html! {
        @if !view.is_over() {
            noscript { meta http-equiv="refresh" content=(REFRESH); }
        }
        link rel="stylesheet" href=(format!("{}/soil.css", view.urls.assets));
        script src=(format!("{}/soil.js", view.urls.assets)) defer {}
    };
    let content = html! {
        div id=(format!("display_{}", view.id)) class="soil-display"
            data-download-id=(view.id)
            data-url=(view.urls.partial)
            data-status-url=(view.urls.status)
            data-events-url=(view.urls.events)
        {
            (partial(view))
        }
        p id="soil-live" class="soil-hidden" role="status" aria-live="polite" {}
        noscript {
            @if !view.is_over() {
                p class="soil-faint" { "This page loads itself again every two seconds." }
            }
        }
    };
    document(&title(view), &more, &content)
}

/// A page about a request that was refused. It has no style sheet, because the address may not belong to any page.
pub(super) fn problem(title: &str, text: &str) -> Markup {
    document(title, &html! {}, &html! { h1 { (title) } p { (text) } })
}

/// The frame that all pages have in common.
fn document(title: &str, more: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) }
                (more)
            }
            body { main { (content) } }
        }
    }
}

/// The part of the page that changes.
pub(super) fn partial(view: &View) -> Markup {
    html! {
        section class="soil-card" data-state=(word(view.state)) {
            @match view.state {
                Look::Missing => (missing(view)),
                Look::Waiting | Look::Running => (under_way(view)),
                Look::Ready => (ready(view)),
                Look::Failed => (failed(view)),
                Look::Cancelled => {
                    div id=(format!("error_{}", view.id)) {
                        h1 { "Cancelled" }
                        p { "It was stopped before it was done." }
                    }
                },
            }
            // When a task is ready, its files say enough.
            @if view.state != Look::Ready && !view.members.is_empty() { (members(&view.members)) }
            @if view.pages > 1 { (pages(view)) }
        }
    }
}

pub(super) fn title(view: &View) -> String {
    match (view.state, view.percent) {
        (Look::Ready, _) => "Ready".to_owned(),
        (Look::Failed, _) => "Failed".to_owned(),
        (Look::Cancelled, _) => "Cancelled".to_owned(),
        (Look::Missing, _) => "Not found".to_owned(),
        (_, Some(percent)) => format!("{percent}% - in progress"),
        (Look::Waiting, None) => "Waiting".to_owned(),
        (_, None) => "In progress".to_owned(),
    }
}

fn word(state: Look) -> &'static str {
    match state {
        Look::Missing => "missing",
        Look::Waiting => "waiting",
        Look::Running => "running",
        Look::Ready => "ready",
        Look::Failed => "failed",
        Look::Cancelled => "cancelled",
    }
}

fn missing(view: &View) -> Markup {
    html! {
        div id=(format!("error_{}", view.id)) {
            @if view.gone {
                h1 { "This download has expired" }
                p { "Files are kept for a limited time. Please start it again." }
            } @else {
                h1 { "There is nothing here" }
                p { "Nobody knows this download. Perhaps it was never started; please start it again." }
            }
        }
    }
}

fn under_way(view: &View) -> Markup {
    html! {
        h1 { @if view.state == Look::Waiting { "Waiting to start" } @else { "Working on it" } }
        (bar(view.percent, "Progress"))
        p class="soil-numbers" {
            @if let Some(percent) = view.percent {
                // The words of this text are HQ's.
                span data-role="percent" { "Processed " (percent) "%" }
                @if !view.members.is_empty() {
                    " " span data-role="count" class="soil-faint" {
                        "(" (view.current) " of " (view.total) " parts done)"
                    }
                } @else if view.total > 0 {
                    " " span data-role="count" class="soil-faint" { "(" (view.current) " of " (view.total) ")" }
                } @else if view.current > 0 {
                    " " span data-role="count" class="soil-faint" { "(" (view.current) " so far)" }
                }
            } @else if view.state == Look::Running {
                "It runs, and has not said yet how far it is."
            }
        }
        @if let Some(note) = &view.note { p data-role="note" { (note) } }
        @if let Some(place) = &view.place { p data-role="place" { (place) } }
        @if let Some(not_alive) = &view.not_alive {
            p class="soil-warning" role="alert" { (not_alive) }
        }
        form method="post" action=(view.urls.cancel) class="soil-actions" {
            button type="submit" class="soil-quiet" { "Cancel" }
        }
    }
}

fn ready(view: &View) -> Markup {
    html! {
        div id=(format!("ready_{}", view.id)) {
            @if view.files.is_empty() {
                h1 { (view.message.as_deref().unwrap_or("Process complete.")) }
            } @else {
                h1 { (view.message.as_deref().unwrap_or(one_or_many(view.files.len()))) }
                ul class="soil-files" { @for file in &view.files { li { (link(file)) } } }
            }
            @if !view.results.is_empty() {
                h2 { "Results" }
                ul { @for result in &view.results { li { (result) } } }
            }
            // If the group tolerates failures, this lists what is missing.
            @if !view.errors.is_empty() {
                h2 { "What is missing" }
                ul { @for error in &view.errors { li { (error) } } }
            }
        }
    }
}

fn failed(view: &View) -> Markup {
    html! {
        div id=(format!("error_{}", view.id)) role="alert" {
            h1 { "Something went wrong" }
            ul class="soil-errors" { @for error in &view.errors { li { (error) } } }
        }
        @if !view.files.is_empty() {
            h2 { "What there is" }
            ul class="soil-files" { @for file in &view.files { li { (link(file)) } } }
        }
    }
}

fn one_or_many(files: usize) -> &'static str {
    if files == 1 { "Your file is ready." } else { "Your files are ready." }
}

fn link(file: &File) -> Markup {
    html! {
        a class="soil-button" href=(file.url) download=(file.name) { "Download " (file.name) }
        " " span class="soil-faint" { (size(file.size)) }
    }
}

/// Links to the other pages of members.
fn pages(view: &View) -> Markup {
    let (first, last) = (view.members.first(), view.members.last());
    html! {
        nav class="soil-pages" aria-label="Pages of parts" {
            @if view.page > 1 { a rel="prev" href=(view.urls.page(view.page - 1)) { "Earlier parts" } }
            @if let (Some(first), Some(last)) = (first, last) {
                span { "Parts " (first.part) " to " (last.part) " of " (view.total_members) }
            }
            @if view.page < view.pages { a rel="next" href=(view.urls.page(view.page + 1)) { "Later parts" } }
        }
    }
}

fn members(members: &[Member]) -> Markup {
    html! {
        h2 { "Parts" }
        ol class="soil-members" {
            @for member in members {
                li data-state=(word(member.state)) {
                    span class="soil-part" { "Part " (member.part) ": " (says(member)) }
                    @if matches!(member.state, Look::Waiting | Look::Running) {
                        (bar(member.percent, &format!("Progress of part {}", member.part)))
                    }
                }
            }
        }
    }
}

fn says(member: &Member) -> String {
    match (member.state, member.percent) {
        (Look::Ready, _) => "done".to_owned(),
        (Look::Failed, _) => format!("failed: {}", member.errors.join("; ")),
        (Look::Cancelled, _) => "cancelled".to_owned(),
        (Look::Missing, _) => "not known any more".to_owned(),
        (_, Some(percent)) => format!("{percent}%"),
        (Look::Waiting, None) => "waiting".to_owned(),
        (Look::Running, None) => "at work".to_owned(),
    }
}

/// A progress bar. Without a percentage it has no value, which browsers show as a moving bar.
fn bar(percent: Option<u8>, label: &str) -> Markup {
    html! {
        @match percent {
            Some(percent) => {
                progress role="progressbar" aria-label=(label) aria-valuemin="0" aria-valuemax="100"
                    aria-valuenow=(percent) max="100" value=(percent) { (percent) "%" }
            }
            None => progress role="progressbar" aria-label=(label) max="100" { "…" }
        }
    }
}

/// A size in bytes in the form that people read.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1_000 {
        return if bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") };
    }
    let mut value = bytes as f64 / 1_000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_by_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1_000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_500_000_000, "1.5 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
