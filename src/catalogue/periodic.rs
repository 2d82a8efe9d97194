//! Reads the `[[periodic]]` entries of a catalogue: which tasks beat sends at which times.
//!
//! ```toml
//! [[periodic]]
//! name = "monthly invoices"
//! task = "accounting.generate_invoices"
//! crontab = { minute = 0, hour = 5, day_of_month = 1 }   # or "0 5 1 * *", or every = "30s"
//! zone = "America/New_York"                               # that of [defaults] when left out, else UTC
//! args = [2026]
//! overlap = "skip"                                        # buffer_one | skip | allow
//! misfire = "all"                                         # once | skip | all
//! misfire_within = "2h"
//! environments = ["production"]
//! ```

use toml_edit::{Item, TableLike, Value};

use super::check::{MistakeSubject, SubjectPositions};
use super::defaults::read_zone;
use super::error::{Problem, quote};
use super::section::{Section, SourceText};
use crate::core::calendar::{Crontab, Fields, Misfire, Overlap, Schedule, Zone};
use crate::task::{Arguments, Periodic};

const KEYS: [&str; 13] = [
    "name",
    "task",
    "crontab",
    "every",
    "zone",
    "args",
    "kwargs",
    "queue",
    "expires",
    "misfire",
    "misfire_within",
    "overlap",
    "environments",
];

const FIELDS: [&str; 5] = ["minute", "hour", "day_of_week", "day_of_month", "month_of_year"];

/// Reads all valid entries and reports the mistakes of the others.
pub(super) fn read(
    root: &Section<'_>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> Vec<Periodic> {
    let expected = "an array of tables: begin each entry with [[periodic]] and name = \"...\"";
    let mut entries = Vec::new();
    for (index, (table, at)) in root.array("periodic", expected, source).into_iter().enumerate() {
        let number = format!("periodic entry number {}", index + 1);
        let known_as = match table.get("name").and_then(Item::as_str) {
            Some(name) if !name.is_empty() => format!("in periodic entry {}", quote(name)),
            _ => format!("in {number}"),
        };
        let section = Section::new(table, at, known_as);
        section.refuse_unknown_keys(&KEYS, source);
        if section.get("name").is_none() {
            source.report(at, Problem::MissingName { place: number });
        }
        if section.get("task").is_none() {
            missing(&section, "it calls no task; add task = \"...\"", source);
        }
        let name = section.string("name", source);
        let task = section.text("task", source);
        let schedule = schedule(&section, source);
        // The settings are read before any entry is skipped, so that all mistakes are found.
        let settings = PeriodicSettings::read(&section, source);
        let (Some((name, name_at)), Some(task), Some(schedule)) = (name, task, schedule) else { continue };
        let mut entry = settings.apply(Periodic::new(name, task, schedule));
        if section.get("zone").is_none() {
            entry = entry.in_default_zone();
        }
        if let Some(fault) = entry.fault() {
            source.report(name_at, Problem::Periodic { place: section.place.clone(), fault });
            continue;
        }
        places.insert(MistakeSubject::Periodic(entries.len()), source.position(name_at));
        entries.push(entry);
    }
    entries
}

/// The settings of an entry besides its name, task and schedule.
struct PeriodicSettings {
    arguments: Arguments,
    queue: Option<String>,
    expires: Option<std::time::Duration>,
    misfire: Misfire,
    overlap: Overlap,
    environments: Vec<String>,
}

impl PeriodicSettings {
    fn read(section: &Section<'_>, source: &mut SourceText<'_>) -> Self {
        let within = section.span_of_time("misfire_within", source);
        let misfire = section.choice("misfire", &[("once", 0), ("skip", 1), ("all", 2)], source);
        let misfire = match (misfire, within) {
            (Some(2), Some(within)) => Misfire::All { within },
            (Some(2), None) => {
                if section.get("misfire_within").is_none() {
                    missing(section, "misfire = \"all\" needs a bound; add misfire_within = \"1h\"", source);
                }
                Misfire::Once
            }
            (other, Some(_)) => {
                missing(
                    section,
                    "misfire_within belongs to misfire = \"all\"; add that or take it out",
                    source,
                );
                if other == Some(1) { Misfire::Skip } else { Misfire::Once }
            }
            (Some(1), None) => Misfire::Skip,
            _ => Misfire::Once,
        };
        let overlaps =
            [("buffer_one", Overlap::BufferOne), ("skip", Overlap::Skip), ("allow", Overlap::Allow)];
        Self {
            arguments: arguments(section, source),
            queue: section.text("queue", source),
            expires: section.span_of_time("expires", source),
            misfire,
            overlap: section.choice("overlap", &overlaps, source).unwrap_or_default(),
            environments: section
                .texts("environments", "a list of strings such as [\"production\"]", source)
                .unwrap_or_default(),
        }
    }

    fn apply(self, mut entry: Periodic) -> Periodic {
        entry.arguments = self.arguments;
        entry.queue = self.queue;
        entry.expires = self.expires;
        entry.misfire = self.misfire;
        entry.overlap = self.overlap;
        entry.environments = self.environments;
        entry
    }
}

fn missing(section: &Section<'_>, fault: &str, source: &mut SourceText<'_>) {
    source.report(section.at, Problem::Periodic { place: section.place.clone(), fault: fault.to_owned() });
}

fn schedule(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<Schedule> {
    let zone = zone(section, source);
    match (section.get("crontab"), section.get("every")) {
        (None, None) => {
            missing(section, "it says not when; add crontab = \"0 0 * * *\" or every = \"30s\"", source);
            None
        }
        (Some(_), Some(_)) => {
            missing(section, "it has both crontab and every; keep one of the two", source);
            None
        }
        (None, Some(_)) => {
            if section.get("zone").is_some() {
                missing(section, "every = \"...\" knows no zone; take zone out or write a crontab", source);
            }
            section.span_of_time("every", source).map(Schedule::Every)
        }
        (Some(item), None) => Some(Schedule::crontab(crontab(section, item, source)?, zone?)),
    }
}

/// The zone of an entry; `None` if it is wrong, which is then reported.
fn zone(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<Zone> {
    if section.get("zone").is_none() { Some(Zone::UTC) } else { read_zone(section, source) }
}

fn crontab(section: &Section<'_>, item: &Item, source: &mut SourceText<'_>) -> Option<Crontab> {
    let parsed = if let Some(text) = item.as_str() {
        text.parse()
    } else if let Some(table) = item.as_table_like() {
        let fields = Section::new(table, section.key_at("crontab"), format!("{}, crontab", section.place));
        fields.refuse_unknown_keys(&FIELDS, source);
        let [minute, hour, day_of_week, day_of_month, month_of_year] =
            FIELDS.map(|name| field(&fields, table, name, source));
        Fields { minute, hour, day_of_week, day_of_month, month_of_year }.crontab()
    } else {
        let expected = "text such as \"0 0 * * *\" or a table such as { minute = 0, hour = 0 }";
        section.report_wrong_type("crontab", item, expected, source);
        return None;
    };
    parsed.map_err(|error| section.report_bad_value("crontab", item, error.to_string(), source)).ok()
}

/// A field of a crontab, which may be text, a number, or a list of numbers.
fn field(
    section: &Section<'_>,
    table: &dyn TableLike,
    name: &str,
    source: &mut SourceText<'_>,
) -> Option<String> {
    let item = table.get(name)?;
    // Celery refuses the float `7.0`, or fails with it when the time comes; as it can only mean 7, it counts as that.
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..100.0).contains(number);
    let number = |value: &Value| {
        let float = value.as_float().filter(whole).map(|number| number.to_string());
        value.as_integer().map(|number| number.to_string()).or(float)
    };
    let list = |item: &Item| item.as_array()?.iter().map(number).collect::<Option<Vec<_>>>();
    if let Some(text) = item.as_str() {
        return Some(text.to_owned());
    }
    let found = item.as_value().and_then(number).or_else(|| list(item).map(|numbers| numbers.join(",")));
    if found.is_none() {
        section.report_wrong_type(name, item, "text such as \"*/15\", a number or a list of numbers", source);
    }
    found
}

fn arguments(section: &Section<'_>, source: &mut SourceText<'_>) -> Arguments {
    let mut arguments = Arguments { args: "[]".to_owned(), kwargs: String::new() };
    for (key, expected) in [("args", "a list such as [1, \"a\"]"), ("kwargs", "a table such as { days = 7 }")]
    {
        let Some(item) = section.get(key) else { continue };
        let is_list = key == "args";
        let json = item.as_value().and_then(json).or_else(|| table_json(item.as_table_like()?));
        match json {
            Some(value @ serde_json::Value::Array(_)) if is_list => arguments.args = value.to_string(),
            Some(value @ serde_json::Value::Object(_)) if !is_list => arguments.kwargs = value.to_string(),
            _ => section.report_wrong_type(key, item, expected, source),
        }
    }
    arguments
}

/// A TOML value as JSON; `None` for a date, and for a number that is not finite.
fn json(value: &Value) -> Option<serde_json::Value> {
    match value {
        Value::String(text) => Some(text.value().as_str().into()),
        Value::Integer(number) => Some((*number.value()).into()),
        Value::Float(number) => serde_json::Number::from_f64(*number.value()).map(Into::into),
        Value::Boolean(yes) => Some((*yes.value()).into()),
        Value::Array(list) => list.iter().map(json).collect::<Option<Vec<_>>>().map(Into::into),
        Value::InlineTable(table) => table_json(table),
        Value::Datetime(_) => None,
    }
}

fn table_json(table: &dyn TableLike) -> Option<serde_json::Value> {
    let pairs = table.iter().map(|(key, item)| {
        let value = item.as_value().and_then(json).or_else(|| table_json(item.as_table_like()?));
        Some((key.to_owned(), value?))
    });
    pairs.collect::<Option<serde_json::Map<_, _>>>().map(Into::into)
}
