//! Reads the routes of a catalogue: `[routes]` by the exact names of tasks, and `[[route]]` by patterns.

use std::collections::BTreeMap;

use super::check::{MistakeSubject, SubjectPositions};
use super::error::Problem;
use super::names;
use super::route_row::{Argument, ArgumentPattern, RouteRow, TaskPattern};
use super::row_array::RowArray;
use super::section::{Section, SourceText};
use crate::core::durations::{RunTimeBy, RunTimeCondition};

const KEYS: [&str; 8] =
    ["task", "task_pattern", "argument", "matches", "longer_than", "shorter_than", "by", "queue"];

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
    let rows = RowArray { key: "route", first: "task", subject: MistakeSubject::RouteRow };
    rows.read(section, environment, places, source, read_row)
}

/// Reads one row, whose name in errors is `place`; `None` if it lacks what a route needs.
fn read_row(section: &Section<'_>, place: &str, source: &mut SourceText<'_>) -> Option<RouteRow> {
    let at = section.at;
    section.refuse_unknown_keys(&KEYS, source);
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
    let has_limit = ["longer_than", "shorter_than"].iter().any(|key| section.get(key).is_some());
    let run_time = read_run_time(section, has_limit, source);
    let argument = read_argument(section, source);
    let matches = section.texts("matches", "an array of patterns such as [\"big-\"]", source);
    if let Some(item) = section.get("matches").filter(|_| has_limit)
        && matches.as_ref().is_some_and(Vec::is_empty)
    {
        let advice = "write at least one pattern, or leave it out: then every value of the argument matches";
        section.report_bad_value("matches", item, advice.to_owned(), source);
    }
    let argument = match (section.get("argument"), section.get("matches")) {
        // The argument says of which runs the time counts.
        (Some(_), None) if has_limit => {
            argument.map(|argument| ArgumentPattern { argument, matches: Vec::new() })
        }
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
    // A limit that cannot be read must not make the row one about all run times.
    let is_read = run_time.is_some() || !has_limit;
    Some(RouteRow { task: task?, argument, run_time, queue: queue? }).filter(|_| is_read)
}

/// Reads the keys `longer_than`, `shorter_than` and `by`, which belong together. `has_limit`: one of the first two is there.
fn read_run_time(
    section: &Section<'_>,
    has_limit: bool,
    source: &mut SourceText<'_>,
) -> Option<RunTimeCondition> {
    let longer_than = section.span_of_time("longer_than", source);
    let shorter_than = section.span_of_time("shorter_than", source);
    let figures = [RunTimeBy::Last, RunTimeBy::Mean, RunTimeBy::P95].map(|by| (by.as_str(), by));
    let by = section.choice("by", &figures, source);
    if let Some(item) = section.get("by").filter(|_| !has_limit) {
        let advice =
            "it says which run time longer_than and shorter_than are about: add one of them, or leave it out";
        section.report_bad_value("by", item, advice.to_owned(), source);
    }
    let is_read = |key: &str, read: bool| read || section.get(key).is_none();
    let all_read = is_read("longer_than", longer_than.is_some())
        && is_read("shorter_than", shorter_than.is_some())
        && is_read("by", by.is_some());
    (has_limit && all_read).then(|| RunTimeCondition {
        longer_than,
        shorter_than,
        by: by.unwrap_or_default(),
    })
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
