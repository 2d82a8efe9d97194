//! The last minutes as charts: how many tasks started in a second, how many were ready, how many failed.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde::Serialize;

use super::PageBody;
use crate::web::console::board::QueueBoard;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::samples::Series;
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{charts, parts, words};

/// The most queues that have charts of their own.
const MOST: usize = 40;
/// In the place of a line of which there is only one point, or none.
const TOO_FEW: &str = "A chart needs three samples. They are taken while somebody looks, so stay for six seconds, or load the page again.";

/// The page as data.
#[derive(Serialize)]
struct LiveData {
    /// The times of the numbers.
    at: Vec<String>,
    all: Numbers,
    queues: BTreeMap<String, Numbers>,
}

/// The numbers of a queue, or of several together, in the order of their times.
#[derive(Serialize)]
struct Numbers {
    first_starts_per_second: Vec<f64>,
    failures_per_second: Vec<f64>,
    ready: Vec<u64>,
}

impl From<&Series> for Numbers {
    fn from(series: &Series) -> Self {
        Self {
            first_starts_per_second: series.starts_per_second.clone(),
            failures_per_second: series.failures_per_second.clone(),
            ready: series.ready.clone(),
        }
    }
}

pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    // It takes the sample.
    let board = QueueBoard::of(visit).await?;
    let samples = &visit.console.shared.samples;
    let all = samples.series(|queue| visit.viewer.sees(queue));
    let named: Vec<(String, Series)> = board
        .queues
        .iter()
        .take(MOST)
        .map(|line| (line.status.name.clone(), samples.series_of(&line.status.name)))
        .collect();
    let sentence = match (all.starts_per_second.last(), all.ready.last()) {
        (Some(starts), Some(ready)) => format!(
            "{starts:.1} tasks start in a second, and {} ready.",
            words::counted(*ready, "task is", "tasks are")
        ),
        _ => "The charts begin now.".to_owned(),
    };
    let scope = html! { (over(&all)) " · a sample in about three seconds while a console is open · first starts, as counted by this program" };
    let main = html! {
        (parts::headline(&html! { (sentence) }, &scope, None))
        @if all.at.len() < 2 { (parts::note("", &html! { (TOO_FEW) })) }
        div class="grid2" {
            (chart("starts", "Starts", "a second, all queues", &all.starts_per_second))
            (chart("ready", "Ready", "tasks that could start, all queues", &floats(&all.ready)))
            (chart("failures", "Failures", "a second, for good, all queues", &all.failures_per_second))
        }
        (parts::card("each", "Each queue", &html! { "the same time; each line has a scale of its own" }, &table(visit, &named)))
    };
    let data = LiveData {
        at: all.at.iter().map(ToString::to_string).collect(),
        all: Numbers::from(&all),
        queues: named.iter().map(|(name, series)| (name.clone(), Numbers::from(series))).collect(),
    };
    Ok(PageBody::new("Live", board.at, &data, main))
}

#[allow(clippy::cast_precision_loss)] // of a number that is drawn
pub(super) fn floats(numbers: &[u64]) -> Vec<f64> {
    numbers.iter().map(|number| *number as f64).collect()
}

/// Over which time the numbers are.
pub(super) fn over(series: &Series) -> String {
    let ends = series.at.first().zip(series.at.last());
    let span = ends.map(|(first, last)| last.since(*first));
    span.map_or_else(|| "no sample yet".to_owned(), |span| format!("the last {}", words::span(span)))
}

/// A chart with the sentence that says the same.
fn chart(id: &str, title: &str, what: &str, values: &[f64]) -> Markup {
    let (top, spoken) = says(title, what, values);
    charts::card(id, title, what, &[("line", values)], (top.as_str(), spoken.as_str()), &[])
}

/// What stands at the top of a chart, and the sentence that says what it shows.
fn says(title: &str, what: &str, values: &[f64]) -> (String, String) {
    let now = values.last().copied().unwrap_or_default();
    let most = values.iter().copied().fold(0.0, f64::max);
    let spoken = format!("{title}, {what}: {now:.1} now, {most:.1} at most");
    (format!("{:.1}", charts::highest(&[("line", values)])), spoken)
}

/// The card of one queue, which changes while somebody looks at its page.
pub(super) fn card_of_queue(series: &Series) -> Markup {
    let scope = html! { (over(series)) " · a sample in about three seconds while a console is open" };
    let chart = |title: &str, what: &str, values: &[f64]| {
        let (top, spoken) = says(title, what, values);
        charts::chart(&[("line", values)], (top.as_str(), spoken.as_str()), &[])
    };
    let charts = html! {
        div class="pad stack" {
            @if series.at.len() < 2 {
                p class="faint small" { (TOO_FEW) }
            } @else {
                div { (chart("Ready", "tasks that could start", &floats(&series.ready))) }
                div { (chart("Starts", "a second", &series.starts_per_second)) }
            }
        }
    };
    parts::card("lately", "The last minutes", &scope, &charts)
}

fn table(visit: &ConsoleVisit, queues: &[(String, Series)]) -> Markup {
    let columns = [("Queue", false), ("Starts", false), ("a second", true), ("Ready", false), ("now", true)];
    let spark =
        |values: &[f64]| html! { svg class="spark" aria-hidden="true" { (parts::line(values, 1.0)) } };
    let rows = html! {
        @for (name, series) in queues {
            tr data-key=(name) {
                th scope="row" { span class="name" { a href=(visit.queue(name)) { (name) } } }
                td class="off" { (spark(&series.starts_per_second)) }
                td class="n" data-l="starts a second" { (format!("{:.1}", series.starts_per_second.last().copied().unwrap_or_default())) }
                td class="off" { (spark(&floats(&series.ready))) }
                (parts::number("ready now", series.ready.last().copied().unwrap_or_default()))
            }
        }
    };
    parts::table("each", &columns, &rows, "In the order of the first page.")
}
