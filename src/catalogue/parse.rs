//! Reads the text of `celeriac.toml` into a [`Catalogue`].
//!
//! The parser reads the text once from top to bottom; it notes each mistake and goes on. Mistakes that only show when
//! all names are known (a route that leads nowhere) are for [`check`](super::check).

use toml_edit::{Document, Item, TableLike};

use super::check::{self, MistakeSubject, SubjectPositions};
use super::columns::{COLUMNS, Columns};
use super::environment::Environment;
use super::error::{CatalogueErrors, Problem, quote};
use super::queue_row::QueueRow;
use super::section::{Section, SourceText};
use super::{
    Catalogue, brake_row, defaults, limits, names, periodic, pool_row, rate_limits, routes, tenant_weights,
    tenants,
};

/// The keys at the top level.
const KEYS: [&str; 15] = [
    "default_queue",
    "beat",
    "defaults",
    "queue",
    "periodic",
    "aliases",
    "routes",
    "route",
    "rate_limits",
    "limit",
    "tenant",
    "tenants",
    "brake",
    "environment",
    "pool",
];

/// Reads the text of a catalogue; `file` is its name in errors.
pub(super) fn parse(text: &str, file: &str) -> Result<Catalogue, CatalogueErrors> {
    let mut source = SourceText::new(text);
    let document = document(text, file, &source)?;
    let mut places = SubjectPositions::default();
    let catalogue = read(document.as_table(), file, &mut places, &mut source);
    let mut errors = source.errors;
    errors.extend(check::check(&catalogue, &places));
    if errors.is_empty() { Ok(catalogue) } else { Err(CatalogueErrors::new(file, errors)) }
}

/// The document of a text that is TOML.
pub(super) fn document<'t>(
    text: &'t str,
    file: &str,
    source: &SourceText<'_>,
) -> Result<Document<&'t str>, CatalogueErrors> {
    Document::parse(text).map_err(|error| {
        let position = error.span().map(|span| source.position(span.start));
        let reason = error.message().lines().collect::<Vec<_>>().join("; ");
        CatalogueErrors::one(file, position, Problem::Syntax { reason })
    })
}

fn read(
    root: &dyn TableLike,
    file: &str,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> Catalogue {
    let mut catalogue = Catalogue { file: file.to_owned(), ..Catalogue::new() };
    let root = Section::new(root, 0, "at the top level");
    root.refuse_unknown_keys(&KEYS, source);
    if let Some((queue, at)) = root.string("default_queue", source) {
        catalogue.default_queue = queue;
        places.insert(MistakeSubject::DefaultQueue, source.position(at));
    }
    (catalogue.defaults, catalogue.zone) = defaults::read(&root, None, places, source);
    if let (Some(argument), Some(item)) = (tenants::read_argument(&root, source), root.get("tenant")) {
        if catalogue.defaults.tenant.is_some() {
            let advice = "[defaults] says it too: keep one of the two".to_owned();
            root.report_bad_value("tenant", item, advice, source);
        }
        catalogue.defaults.tenant = Some(argument);
    }
    read_queues(&root, &mut catalogue, places, source);
    catalogue.beat = root.boolean("beat", source);
    catalogue.periodic = periodic::read(&root, places, source);
    if let Some(section) = root.table("aliases", "in [aliases]".to_owned(), source) {
        catalogue.aliases = names::read(&section, source, |name, position| {
            places.insert(MistakeSubject::Alias(None, name), position);
        });
    }
    catalogue.routes = routes::read_exact(&root, None, places, source);
    catalogue.route_rows = routes::read_rows(&root, None, places, source);
    catalogue.rate_limits = rate_limits::read(&root, None, places, source);
    catalogue.limits = limits::read_rows(&root, None, places, source);
    let pools = pool_row::read(&root, None, places, source);
    catalogue.pools = pools.into_iter().filter_map(|(pool, row)| Some((pool, row.apply(None)?))).collect();
    catalogue.brakes = brake_row::read_rows(&root, None, places, source);
    catalogue.tenants = tenants::read(&root, None, places, source);
    catalogue.tenant_weights = tenant_weights::read(&root, None, source);
    if let Some(section) = root.table("environment", "in [environment]".to_owned(), source) {
        for (name, section) in section.tables(|name| format!("in environment {}", quote(name)), source) {
            let environment = Environment::read(name, &section, places, source);
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
