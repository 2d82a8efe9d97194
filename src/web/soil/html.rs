//! The page and its parts. The templates escape every value. The page loads nothing from elsewhere and has nothing
//! inline, so that the strictest policy holds.
//!
//! The part that changes has HQ's ids: `display_ID` around it, `ready_ID` when the file is ready, `error_ID` when the
//! task failed. A script of HQ's that polls until it sees `ready_ID` works with it.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponseBuilder};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::branding::{PageContent, Wording};
use super::texts::Sentence;
use super::view::{File, Look, Member, View};
use super::{SoilPages, way_back};

/// The content security policy of the pages.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'self'";
/// What it allows besides if the program adds parts of its own.
const MORE: &str = "; img-src 'self'; font-src 'self'";

/// How often a page without a script loads itself again, in seconds.
const REFRESH: &str = "2";

/// What is around the content of every page.
pub(super) struct PageFrame<'a> {
    pub(super) request: &'a HttpRequest,
    pub(super) pages: &'a SoilPages,
    pub(super) wording: &'a Wording,
}

/// Sets the headers of every page.
pub(super) fn headers<'a>(
    response: &'a mut HttpResponseBuilder,
    pages: &SoilPages,
    wording: &Wording,
) -> &'a mut HttpResponseBuilder {
    let policy = format!("{POLICY}{}", if pages.branding.loads_more() { MORE } else { "" });
    response
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::CONTENT_LANGUAGE, wording.language.tag()))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // The address contains the key, which other sites must not learn.
        .insert_header((header::REFERRER_POLICY, "same-origin"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
}

/// The whole page of a view.
pub(super) fn page(view: &View, frame: &PageFrame<'_>) -> Markup {
    let wording = frame.wording;
    let more = html! {
        @if !view.is_over() {
            noscript { meta http-equiv="refresh" content=(REFRESH); }
        }
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
                p class="soil-faint" { (wording.say(Sentence::LoadsAgain)) }
            }
        }
    };
    let back = match view.state {
        Look::Missing => way_back::way_back(frame.request, frame.pages),
        _ => way_back::home(frame.pages),
    };
    document(frame, &title(view), &more, &content, back)
}

/// A page about a request that was refused.
pub(super) fn problem(title: &str, text: &str, frame: &PageFrame<'_>) -> Markup {
    let content = html! {
        section class="soil-card" data-state="refused" { h1 { (title) } p { (text) } }
    };
    let back = way_back::way_back(frame.request, frame.pages);
    document(frame, &frame.wording.title(title), &html! {}, &content, back)
}

/// The frame that all pages have in common.
fn document(
    frame: &PageFrame<'_>,
    title: &str,
    more: &Markup,
    content: &Markup,
    back: Option<String>,
) -> Markup {
    let (language, branding) = (&frame.wording.language, &frame.pages.branding);
    let main = html! {
        main {
            (content)
            @if let Some(back) = back {
                nav class="soil-back" { a href=(back) { (frame.wording.say(Sentence::Back)) } }
            }
        }
    };
    let body = match &branding.layout {
        Some(layout) => {
            let html = main.into_string();
            PreEscaped(layout(frame.request, PageContent { title, language, html: &html }))
        }
        None => html! {
            @if let Some(title) = &branding.title { header class="soil-brand" { (title) } }
            (main)
        },
    };
    html! {
        (DOCTYPE)
        html lang=(language.tag()) dir=[language.dir()] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) }
                link rel="stylesheet" href=(format!("{}/assets/soil.css", frame.pages.public));
                @for sheet in &branding.style_sheets { link rel="stylesheet" href=(sheet); }
                (more)
            }
            body { (body) }
        }
    }
}

/// The part of the page that changes. It states its language, because a page in another one may show it.
pub(super) fn partial(view: &View) -> Markup {
    let (language, wording) = (&view.wording.language, &view.wording);
    html! {
        section class="soil-card" data-state=(word(view.state)) lang=(language.tag()) dir=[language.dir()] {
            @match view.state {
                Look::Missing => (missing(view)),
                Look::Waiting | Look::Running => (under_way(view)),
                Look::Ready => (ready(view)),
                Look::Failed => (failed(view)),
                Look::Cancelled => {
                    div id=(format!("error_{}", view.id)) {
                        h1 { (wording.say(Sentence::CancelledTitle)) }
                        p { (wording.say(Sentence::CancelledText)) }
                    }
                },
            }
            // When a task is ready, its files say enough.
            @if view.state != Look::Ready && !view.members.is_empty() { (members(&view.members, wording)) }
            @if view.pages > 1 { (pages(view)) }
        }
    }
}

/// The title of the page, with that of the program.
pub(super) fn title(view: &View) -> String {
    view.wording.title(&state(view))
}

/// What readers of screens are told of this view.
pub(super) fn spoken(view: &View) -> Option<String> {
    if view.is_over() {
        return Some(state(view));
    }
    view.percent.map(|percent| view.wording.say(Sentence::PercentDone(percent)))
}

fn state(view: &View) -> String {
    view.wording.say(match (view.state, view.percent) {
        (Look::Ready, _) => Sentence::TabReady,
        (Look::Failed, _) => Sentence::TabFailed,
        (Look::Cancelled, _) => Sentence::TabCancelled,
        (Look::Missing, _) => Sentence::TabMissing,
        (_, Some(percent)) => Sentence::TabPercent(percent),
        (Look::Waiting, None) => Sentence::TabWaiting,
        (_, None) => Sentence::TabRunning,
    })
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
    let (title, text) = if view.gone {
        (Sentence::GoneTitle, Sentence::GoneText)
    } else {
        (Sentence::UnknownTitle, Sentence::UnknownText)
    };
    html! {
        div id=(format!("error_{}", view.id)) {
            h1 { (view.wording.say(title)) }
            p { (view.wording.say(text)) }
        }
    }
}

fn under_way(view: &View) -> Markup {
    let wording = &view.wording;
    let heading = if view.state == Look::Waiting { Sentence::WaitingToStart } else { Sentence::Working };
    html! {
        h1 { (wording.say(heading)) }
        (bar(view.percent, &wording.say(Sentence::Progress), wording))
        p class="soil-numbers" {
            @if let Some(percent) = view.percent {
                span data-role="percent" { (wording.say(Sentence::Processed(percent))) }
                @if let Some(count) = count(view) {
                    " " span data-role="count" class="soil-faint" { (wording.say(count)) }
                }
            } @else if view.state == Look::Running {
                (wording.say(Sentence::NoProgressYet))
            }
        }
        @if let Some(note) = &view.note { p data-role="note" { (note) } }
        @if let Some(place) = &view.place { p data-role="place" { (place) } }
        @if let Some(why) = &view.why { p data-role="why" { (why) } }
        @if let Some(starts) = &view.starts_between { p data-role="starts" class="soil-faint" { (starts) } }
        @if let Some(not_alive) = &view.not_alive {
            p class="soil-warning" role="alert" { (not_alive) }
        }
        form method="post" action=(view.urls.cancel) class="soil-actions" {
            button type="submit" class="soil-quiet" { (wording.say(Sentence::Cancel)) }
        }
    }
}

/// The count behind the percentage, if there is one.
fn count(view: &View) -> Option<Sentence<'static>> {
    let (done, total) = (view.current, view.total);
    if !view.members.is_empty() {
        Some(Sentence::PartsDone { done, total })
    } else if total > 0 {
        Some(Sentence::StepsDone { done, total })
    } else {
        (done > 0).then_some(Sentence::DoneSoFar(done))
    }
}

fn ready(view: &View) -> Markup {
    let wording = &view.wording;
    let own = if view.files.is_empty() {
        Sentence::Complete
    } else {
        Sentence::FilesReady(view.files.len() as u64)
    };
    html! {
        div id=(format!("ready_{}", view.id)) {
            h1 { (view.message.clone().unwrap_or_else(|| wording.say(own))) }
            @if !view.files.is_empty() {
                ul class="soil-files" { @for file in &view.files { li { (link(file, wording)) } } }
            }
            @if !view.results.is_empty() {
                h2 { (wording.say(Sentence::Results)) }
                ul { @for result in &view.results { li { (result) } } }
            }
            // If the group tolerates failures, this lists what is missing.
            @if !view.errors.is_empty() {
                h2 { (wording.say(Sentence::WhatIsMissing)) }
                ul { @for error in &view.errors { li { (error) } } }
            }
        }
    }
}

fn failed(view: &View) -> Markup {
    let wording = &view.wording;
    html! {
        div id=(format!("error_{}", view.id)) role="alert" {
            h1 { (wording.say(Sentence::SomethingWrong)) }
            ul class="soil-errors" { @for error in &view.errors { li { (error) } } }
        }
        @if !view.files.is_empty() {
            h2 { (wording.say(Sentence::WhatThereIs)) }
            ul class="soil-files" { @for file in &view.files { li { (link(file, wording)) } } }
        }
    }
}

fn link(file: &File, wording: &Wording) -> Markup {
    html! {
        a class="soil-button" href=(file.url) download=(file.name) {
            (wording.say(Sentence::Download(&file.name)))
        }
        " " span class="soil-faint" { (wording.say(Sentence::Size(file.size))) }
    }
}

/// Links to the other pages of members.
fn pages(view: &View) -> Markup {
    let wording = &view.wording;
    let (first, last) = (view.members.first(), view.members.last());
    html! {
        nav class="soil-pages" aria-label=(wording.say(Sentence::PagesOfParts)) {
            @if view.page > 1 {
                a rel="prev" href=(view.urls.page(view.page - 1)) { (wording.say(Sentence::EarlierParts)) }
            }
            @if let (Some(first), Some(last)) = (first, last) {
                span {
                    (wording.say(Sentence::PartsShown {
                        first: first.part as u64,
                        last: last.part as u64,
                        total: view.total_members as u64,
                    }))
                }
            }
            @if view.page < view.pages {
                a rel="next" href=(view.urls.page(view.page + 1)) { (wording.say(Sentence::LaterParts)) }
            }
        }
    }
}

fn members(members: &[Member], wording: &Wording) -> Markup {
    html! {
        h2 { (wording.say(Sentence::Parts)) }
        ol class="soil-members" {
            @for member in members {
                li data-state=(word(member.state)) {
                    span class="soil-part" {
                        (wording.say(Sentence::Part {
                            part: member.part as u64,
                            state: &says(member, wording),
                        }))
                    }
                    @if matches!(member.state, Look::Waiting | Look::Running) {
                        (bar(
                            member.percent,
                            &wording.say(Sentence::ProgressOfPart(member.part as u64)),
                            wording,
                        ))
                    }
                }
            }
        }
    }
}

fn says(member: &Member, wording: &Wording) -> String {
    let errors = member.errors.join("; ");
    wording.say(match (member.state, member.percent) {
        (Look::Ready, _) => Sentence::PartDone,
        (Look::Failed, _) => Sentence::PartFailed(&errors),
        (Look::Cancelled, _) => Sentence::PartCancelled,
        (Look::Missing, _) => Sentence::PartMissing,
        (_, Some(percent)) => Sentence::PartPercent(percent),
        (Look::Waiting, None) => Sentence::PartWaiting,
        (Look::Running, None) => Sentence::PartRunning,
    })
}

/// A progress bar. Without a percentage it has no value, which browsers show as a moving bar.
fn bar(percent: Option<u8>, label: &str, wording: &Wording) -> Markup {
    html! {
        @match percent {
            Some(percent) => {
                progress role="progressbar" aria-label=(label) aria-valuemin="0" aria-valuemax="100"
                    aria-valuenow=(percent) max="100" value=(percent)
                {
                    (wording.say(Sentence::PartPercent(percent)))
                }
            }
            None => progress role="progressbar" aria-label=(label) max="100" { "…" }
        }
    }
}
