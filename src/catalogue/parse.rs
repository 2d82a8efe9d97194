//! Reads the text of `celeriac.toml` into a [`Catalogue`].
//!
//! The parser reads the text once from top to bottom; it notes each mistake and goes on. Mistakes that only show when
//! all names are known (a route that leads nowhere) are for [`check`](super::check).

use std::collections::BTreeMap;

use toml_edit::{Document, Item, TableLike};

use super::check::{self, MistakeSubject, SubjectPositions};
use super::columns::{COLUMNS, Columns};
use super::error::{CatalogueErrors, Problem, quote};
use super::queue_row::QueueRow;
use super::route_row::{Argument, ArgumentPattern, RouteRow, TaskPattern};
use super::section::{Section, SourceText};
use super::{Catalogue, Environment, periodic};

/// Reads the text of a catalogue; `file` is its name in errors.
pub(super) fn parse(text: &str, file: &str) -> Result<Catalogue, CatalogueErrors> {
    let mut source = SourceText::new(text);
    let document = Document::parse(text).map_err(|error| {
        let position = error.span().map(|span| source.position(span.start));
        let reason = error.message().lines().collect::<Vec<_>>().join("; ");
        CatalogueErrors::one(file, position, Problem::Syntax { reason })
    })?;
    let mut places = SubjectPositions::default();
    let catalogue = read(document.as_table(), file, &mut places, &mut source);
    let mut errors = source.errors;
    errors.extend(check::check(&catalogue, &places));
    if errors.is_empty() { Ok(catalogue) } else { Err(CatalogueErrors::new(file, errors)) }
}

fn read(
    root: &dyn TableLike,
    file: &str,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> Catalogue {
    let mut catalogue = Catalogue { file: file.to_owned(), ..Catalogue::new() };
    let root = Section::new(root, 0, "at the top level");
    root.refuse_unknown_keys(
        &["default_queue", "beat", "queue", "periodic", "aliases", "routes", "route", "environment"],
        source,
    );
    if let Some((queue, at)) = root.string("default_queue", source) {
        catalogue.default_queue = queue;
        places.insert(MistakeSubject::DefaultQueue, source.position(at));
    }
    read_queues(&root, &mut catalogue, places, source);
    catalogue.beat = root.boolean("beat", source);
    catalogue.periodic = periodic::read(&root, places, source);
    if let Some(section) = root.table("aliases", "in [aliases]".to_owned(), source) {
        catalogue.aliases = read_names(&section, source, |name, position| {
            places.insert(MistakeSubject::Alias(None, name), position);
        });
    }
    if let Some(section) = root.table("routes", "in [routes]".to_owned(), source) {
        catalogue.routes = read_names(&section, source, |name, position| {
            places.insert(MistakeSubject::Route(name), position);
        });
    }
    read_route_rows(&root, &mut catalogue, places, source);
    if let Some(section) = root.table("environment", "in [environment]".to_owned(), source) {
        for (name, section) in section.tables(|name| format!("in environment {}", quote(name)), source) {
            let environment = read_environment(name, &section, places, source);
            catalogue.environments.insert(name.to_owned(), environment);
        }
    }
    catalogue
}

fn read_queues(
    root: &Section<'_>,
    catalogue: &mut Catalogue,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) {
    let expected = "an array of tables: begin each queue with [[queue]] and name = \"...\"";
    let tables = root.array("queue", expected, source);
    let keys: Vec<&str> = std::iter::once("name").chain(COLUMNS).collect();
    for (index, (table, at)) in tables.into_iter().enumerate() {
        let number = format!("queue number {}", index + 1);
        let known_as = match table.get("name").and_then(Item::as_str) {
            Some(name) if !name.is_empty() => format!("in queue {}", quote(name)),
            _ => format!("in {number}"),
        };
        let section = Section::new(table, at, known_as);
        section.refuse_unknown_keys(&keys, source);
        if section.get("name").is_none() {
            source.report(at, Problem::MissingName { place: number });
        }
        let name = section.string("name", source);
        let columns = Columns::read(&section, source);
        if let Some((name, at)) = name {
            let position = source.position(at);
            places.insert(MistakeSubject::Queue(catalogue.queues.len()), position);
            catalogue.positions.entry(name.clone()).or_insert(position);
            catalogue.queues.push(columns.apply(QueueRow::new(name)));
        }
    }
}

/// Reads the `[[route]]` tables, which are routes by patterns.
fn read_route_rows(
    root: &Section<'_>,
    catalogue: &mut Catalogue,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) {
    let expected = "an array of tables: begin each route with [[route]] and task = \"...\"";
    for (index, (table, at)) in root.array("route", expected, source).into_iter().enumerate() {
        let place = format!("route number {}", index + 1);
        let section = Section::new(table, at, format!("in {place}"));
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
                    source.report(at, missing(&place, "task", "\"...\""));
                }
                None
            }
        };
        let argument = read_argument(&section, source);
        let matches = section.texts("matches", "an array of patterns such as [\"big-\"]", source);
        let argument = match (section.get("argument"), section.get("matches")) {
            (Some(_), None) => {
                source.report(at, missing(&place, "matches", "[\"...\"]"));
                None
            }
            (None, Some(_)) => {
                source.report(at, missing(&place, "argument", "\"...\""));
                None
            }
            _ => argument.zip(matches).map(|(argument, matches)| ArgumentPattern { argument, matches }),
        };
        if section.get("queue").is_none() {
            source.report(at, missing(&place, "queue", "\"...\""));
        }
        let queue = section.text("queue", source);
        if let (Some(task), Some(queue)) = (task, queue) {
            places.insert(MistakeSubject::RouteRow(catalogue.route_rows.len()), source.position(at));
            catalogue.route_rows.push(RouteRow { task, argument, queue });
        }
    }
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

fn read_environment(
    name: &str,
    section: &Section<'_>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> Environment {
    let mut environment = Environment::default();
    section.refuse_unknown_keys(&["queue", "aliases", "beat"], source);
    environment.beat = section.boolean("beat", source);
    if let Some(queues) = section.table("queue", format!("{} under queue", section.place), source) {
        let place = |queue: &str| format!("{}, queue {}", section.place, quote(queue));
        for (queue, section) in queues.tables(place, source) {
            section.refuse_unknown_keys(&COLUMNS, source);
            let place = MistakeSubject::EnvironmentQueue(name.to_owned(), queue.to_owned());
            places.insert(place, source.position(section.at));
            environment.rows.insert(queue.to_owned(), Columns::read(&section, source));
        }
    }
    if let Some(aliases) = section.table("aliases", format!("{} under aliases", section.place), source) {
        environment.aliases = read_names(&aliases, source, |alias, position| {
            places.insert(MistakeSubject::Alias(Some(name.to_owned()), alias), position);
        });
    }
    environment
}

/// Reads a table that maps names to names, and calls `place` with the position of each.
fn read_names(
    section: &Section<'_>,
    source: &mut SourceText<'_>,
    mut place: impl FnMut(String, super::Position),
) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (key, _) in section.iter() {
        if let Some(target) = section.text(key, source) {
            place(key.to_owned(), source.position(section.key_at(key)));
            names.insert(key.to_owned(), target);
        }
    }
    names
}
