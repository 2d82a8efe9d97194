//! Reads the `[[limit]]` rows of a catalogue: how often, how many at a time and when tasks start, by a key.
//!
//! ```toml
//! [[limit]]
//! name = "sms gateway"                # the pattern of the tasks when left out
//! task = "sms.send_*"                 # or task_pattern = a regular expression
//! key = "gateway"                     # a parameter, or "tenant"; one count for all when left out
//! rate = "8/s"
//! scope = "cluster"                   # cluster | process
//! max_running = 3
//! daily = 1000
//! hours = "09:00-21:00"
//! days = "mon-fri"
//! zone = "Africa/Nairobi"             # that of [defaults] when left out, else UTC
//! breaker = { errors = 5, of = 10, pause = "1m", longest = "1h" }
//! ```

use super::check::{MistakeSubject, SubjectPositions};
use super::defaults::read_zone;
use super::error::Problem;
use super::limit_row::LimitRow;
use super::rate_limits::read_limit;
use super::route_row::TaskPattern;
use super::row_array::RowArray;
use super::section::{Section, SourceText};
use crate::core::calendar::{AllowedHours, HoursError};
use crate::core::start_limit::{Breaker, RateScope, StartLimit};

const KEYS: [&str; 12] = [
    "name",
    "task",
    "task_pattern",
    "key",
    "rate",
    "scope",
    "max_running",
    "daily",
    "hours",
    "days",
    "zone",
    "breaker",
];
const BREAKER: [&str; 4] = ["errors", "of", "pause", "longest"];
const WHOLE_DAY: &str = "00:00-24:00";

/// Reads the array of tables `limit` of the file or of an environment.
pub(super) fn read_rows(
    section: &Section<'_>,
    environment: Option<&str>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> Vec<LimitRow> {
    let rows = RowArray { key: "limit", first: "task", subject: MistakeSubject::Limit };
    rows.read(section, environment, places, source, read_row)
}

/// Reads one row, whose name in errors is `place`; `None` if it lacks what a limit needs.
fn read_row(section: &Section<'_>, place: &str, source: &mut SourceText<'_>) -> Option<LimitRow> {
    section.refuse_unknown_keys(&KEYS, source);
    let task = read_task(section, place, source);
    let name = section.text("name", source);
    let key = section.text("key", source);
    let zone = read_zone(section, source);
    let rate = match (read_limit(section, "rate", source), section.get("rate")) {
        (Some(None), Some(item)) => {
            let advice = "write a rate above zero such as \"8/s\", or remove it".to_owned();
            section.report_bad_value("rate", item, advice, source);
            None
        }
        (rate, _) => rate.flatten(),
    };
    let scopes = [("cluster", RateScope::Cluster), ("process", RateScope::Process)];
    let limit = StartLimit {
        rate,
        scope: section.choice("scope", &scopes, source).unwrap_or_default(),
        max_running: section.number("max_running", 1, source),
        daily: section.number("daily", 1, source),
        hours: read_hours(section, source),
        breaker: read_breaker(section, source),
        ..StartLimit::default()
    };
    if section.get("scope").is_some() && section.get("rate").is_none() {
        let fault =
            "scope says who counts a rate together, and it has none; add rate = \"8/s\" or take scope out";
        source.report(section.at, Problem::Limit { place: place.to_owned(), fault });
    }
    let limits = ["rate", "max_running", "daily", "hours", "days", "breaker"];
    if limits.iter().all(|key| section.get(key).is_none()) {
        let fault = "it limits nothing; add rate = \"8/s\", max_running = 3, daily = 1000, hours = \"09:00-21:00\" or breaker = true";
        source.report(section.at, Problem::Limit { place: place.to_owned(), fault });
        return None;
    }
    if limit.is_empty() {
        return None; // what it states is wrong, and was told
    }
    let row = LimitRow { key, zone, ..LimitRow::of(task?, limit) };
    Some(match name {
        Some(name) => row.with_name(name),
        None => row,
    })
}

/// Reads the pattern for the names of the tasks.
fn read_task(section: &Section<'_>, place: &str, source: &mut SourceText<'_>) -> Option<TaskPattern> {
    match (section.text("task", source), section.text("task_pattern", source)) {
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
                let (place, key, example) = (place.to_owned(), "task", "\"...\"");
                source.report(section.at, Problem::MissingKey { place, key, example });
            }
            None
        }
    }
}

/// Reads `hours` and `days`. Days without hours are whole days.
fn read_hours(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<AllowedHours> {
    let (hours, days) = (section.text("hours", source), section.text("days", source));
    let is_wrong = |key: &str, read: &Option<String>| section.get(key).is_some() && read.is_none();
    if (hours.is_none() && days.is_none()) || is_wrong("hours", &hours) || is_wrong("days", &days) {
        return None;
    }
    match AllowedHours::new(hours.as_deref().unwrap_or(WHOLE_DAY), days.as_deref()) {
        Ok(hours) => Some(hours),
        Err(error) => {
            let key = if matches!(error, HoursError::Days { .. }) { "days" } else { "hours" };
            if let Some(item) = section.get(key) {
                section.report_bad_value(key, item, error.to_string(), source);
            }
            None
        }
    }
}

/// Reads `breaker`: a table, or `true` for the defaults.
fn read_breaker(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<Breaker> {
    let item = section.get("breaker")?;
    if item.as_bool() == Some(true) {
        return Some(Breaker::default());
    }
    let Some(table) = item.as_table_like() else {
        let expected = "a table such as { errors = 5, of = 10, pause = \"1m\", longest = \"1h\" }, or true";
        section.report_wrong_type("breaker", item, expected, source);
        return None;
    };
    let inner = Section::new(table, section.key_at("breaker"), format!("{}, breaker", section.place));
    inner.refuse_unknown_keys(&BREAKER, source);
    let default = Breaker::default();
    let breaker = Breaker::new(
        inner.number("errors", 1, source).unwrap_or(default.errors),
        inner.number("of", 1, source).unwrap_or(default.of),
        inner.span_of_time("pause", source).unwrap_or(default.pause),
        inner.span_of_time("longest", source).unwrap_or(default.longest),
    );
    Some(breaker)
}
