//! Reads the routes of a catalogue: `[routes]` by the exact names of tasks, and `[[route]]` by patterns.

use std::collections::BTreeMap;

use super::check::{MistakeSubject, SubjectPositions};
use super::error::{Problem, quote};
use super::names;
use super::route_row::{Argument, ArgumentPattern, RouteRow, TaskPattern};
use super::section::{Section, SourceText};

/// Reads the table `routes` of the file or of an environment.
pub(super) fn read_exact(
    section: &Section<'_>,
    environment: Option<&str>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> BTreeMap<String, String> {
    let place = match environment {
        Some(_) => format!("{} under routes", section.place),
        None => "in [routes]".to_owned(),
    };
    let Some(section) = section.table("routes", place, source) else { return BTreeMap::new() };
    names::read(&section, source, |task, position| {
        places.insert(MistakeSubject::Route(environment.map(str::to_owned), task), position);
    })
}

/// Reads the array of tables `route` of the file or of an environment.
pub(super) fn read_rows(
    section: &Section<'_>,
    environment: Option<&str>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> Vec<RouteRow> {
    let expected = match environment {
        None => "an array of tables: begin each route with [[route]] and task = \"...\"".to_owned(),
        Some(name) => format!(
            "an array of tables: begin each route with [[environment.{name}.route]] and task = \"...\""
        ),
    };
    let within = environment.map_or_else(String::new, |name| format!("environment {}, ", quote(name)));
    let mut rows = Vec::new();
    for (index, (table, at)) in section.array("route", &expected, source).into_iter().enumerate() {
        let place = format!("{within}route number {}", index + 1);
        let section = Section::new(table, at, format!("in {place}"));
        if let Some(row) = read_row(&section, &place, source) {
            let subject = MistakeSubject::RouteRow(environment.map(str::to_owned), rows.len());
            places.insert(subject, source.position(at));
            rows.push(row);
        }
    }
    rows
}

/// Reads one row, whose name in errors is `place`; `None` if it lacks what a route needs.
fn read_row(section: &Section<'_>, place: &str, source: &mut SourceText<'_>) -> Option<RouteRow> {
    let at = section.at;
    section.refuse_unknown_keys(&["task", "task_pattern", "argument", "matches", "queue"], source);
    let task = match (section.text("task", source), section.text("task_pattern", source)) {
        (Some(_), Some(_)) => {
            let advice = "keep one of `task` and `task_pattern`".to_owned();
            let (key, place) = ("task_pattern".to_owned(), section.place.clone());
            let problem = Problem::BadValue { key, place, value: "beside `task`".to_owned(), advice };
            source.report(section.key_at("task_pattern"), problem);
            None
        }
        (Some(task), None) => Some(TaskPattern::Glob(task)),
        (None, Some(pattern)) => Some(TaskPattern::Regex(pattern)),
        (None, None) => {
            if section.get("task").is_none() && section.get("task_pattern").is_none() {
                source.report(at, missing(place, "task", "\"...\""));
            }
            None
        }
    };
    let argument = read_argument(section, source);
    let matches = section.texts("matches", "an array of patterns such as [\"big-\"]", source);
    let argument = match (section.get("argument"), section.get("matches")) {
        (Some(_), None) => {
            source.report(at, missing(place, "matches", "[\"...\"]"));
            None
        }
        (None, Some(_)) => {
            source.report(at, missing(place, "argument", "\"...\""));
            None
        }
        _ => argument.zip(matches).map(|(argument, matches)| ArgumentPattern { argument, matches }),
    };
    if section.get("queue").is_none() {
        source.report(at, missing(place, "queue", "\"...\""));
    }
    let queue = section.text("queue", source);
    Some(RouteRow { task: task?, argument, queue: queue? })
}

/// Reads the key `argument`: a name, or a position from 0.
fn read_argument(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<Argument> {
    let item = section.get("argument")?;
    if let Some(position) = item.as_integer() {
        return usize::try_from(position).map(Argument::Position).ok().or_else(|| {
            section.report_wrong_type("argument", item, "a name, or a position from 0", source);
            None
        });
    }
    match item.as_str() {
        Some(name) => Some(Argument::Name(name.to_owned())),
        None => {
            section.report_wrong_type("argument", item, "a name, or a position from 0", source);
            None
        }
    }
}

fn missing(place: &str, key: &'static str, example: &'static str) -> Problem {
    Problem::MissingKey { place: place.to_owned(), key, example }
}
