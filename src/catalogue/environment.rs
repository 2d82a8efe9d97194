//! The environments of a catalogue: what each of them changes, as it is read from `[environment.NAME]` and laid over the
//! rest of the file.

use std::collections::BTreeMap;

use super::check::{MistakeSubject, SubjectPositions};
use super::columns::{COLUMNS, Columns};
use super::error::{CatalogueErrors, Problem, quote};
use super::pool_row::{self, PoolColumns};
use super::section::{Section, SourceText};
use super::{
    BrakeRow, Catalogue, LimitRow, Pool, PoolRow, QueueRow, RouteRow, brake_row, defaults, limits, names,
    one_line, rate_limits, routes, spelling, tenant_weights, tenants,
};
use crate::core::calendar::Zone;
use crate::core::token_bucket::RateLimit;
use crate::task::TaskDefaults;

const KEYS: [&str; 11] = [
    "queue",
    "aliases",
    "beat",
    "defaults",
    "routes",
    "route",
    "rate_limits",
    "limit",
    "tenants",
    "brake",
    "pool",
];

/// The changes of one environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Environment {
    pub(super) rows: BTreeMap<String, Columns>,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) routes: BTreeMap<String, String>,
    /// The routes by patterns that hold here only, before those of the base.
    pub(super) route_rows: Vec<RouteRow>,
    pub(super) rate_limits: BTreeMap<String, Option<RateLimit>>,
    /// The limits of this environment. One that has the name of a limit of the base takes its place.
    pub(super) limits: Vec<LimitRow>,
    /// The brakes that stand here only.
    pub(super) brakes: Vec<BrakeRow>,
    pub(super) tenants: BTreeMap<String, String>,
    tenant_weights: BTreeMap<String, f64>,
    pub(super) defaults: TaskDefaults,
    pub(super) pools: BTreeMap<Pool, PoolColumns>,
    zone: Option<Zone>,
    beat: Option<bool>,
}

impl Environment {
    /// Reads the environment `name` and reports what is wrong in it.
    pub(super) fn read(
        name: &str,
        section: &Section<'_>,
        places: &mut SubjectPositions,
        source: &mut SourceText<'_>,
    ) -> Self {
        section.refuse_unknown_keys(&KEYS, source);
        let mut environment = Self { beat: section.boolean("beat", source), ..Self::default() };
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
            environment.aliases = names::read(&aliases, source, |alias, position| {
                places.insert(MistakeSubject::Alias(Some(name.to_owned()), alias), position);
            });
        }
        environment.routes = routes::read_exact(section, Some(name), places, source);
        environment.route_rows = routes::read_rows(section, Some(name), places, source);
        environment.rate_limits = rate_limits::read(section, Some(name), places, source);
        environment.limits = limits::read_rows(section, Some(name), places, source);
        environment.brakes = brake_row::read_rows(section, Some(name), places, source);
        environment.tenants = tenants::read(section, Some(name), places, source);
        environment.tenant_weights = tenant_weights::read(section, Some(name), source);
        (environment.defaults, environment.zone) = defaults::read(section, Some(name), places, source);
        environment.pools = pool_row::read(section, Some(name), places, source);
        environment
    }

    /// The rows of the queues as they are in this environment.
    pub(super) fn rows_over(&self, rows: &[QueueRow]) -> Vec<QueueRow> {
        let over = |row: &QueueRow| match self.rows.get(&row.name) {
            Some(columns) => columns.apply(row.clone()),
            None => row.clone(),
        };
        rows.iter().map(over).collect()
    }

    /// The pools as they are in this environment. One of which nothing says how many slots it has is missing.
    pub(super) fn pools_over(&self, pools: &BTreeMap<Pool, PoolRow>) -> BTreeMap<Pool, PoolRow> {
        let mut over = pools.clone();
        over.extend(
            self.pools
                .iter()
                .filter_map(|(pool, columns)| Some((*pool, columns.apply(pools.get(pool).copied())?))),
        );
        over
    }
}

impl Catalogue {
    /// This catalogue with the changes of the environment `name` applied to it.
    ///
    /// # Errors
    /// The catalogue has no environment of this name, and no periodic entry names it.
    pub fn for_environment(&self, name: &str) -> Result<Self, CatalogueErrors> {
        if !self.environments.contains_key(name) && self.names_environment(name) {
            return Ok(self.clone());
        }
        let Some(environment) = self.environments.get(name) else {
            let advice = spelling::advice(name, self.environments(), || match self.environments.len() {
                0 => "the file has no [environment...] at all".to_owned(),
                _ => format!(
                    "the file has {}",
                    self.environments().map(one_line).collect::<Vec<_>>().join(", ")
                ),
            });
            let problem = Problem::UnknownEnvironment { name: name.to_owned(), advice };
            return Err(CatalogueErrors::one(&self.file, None, problem));
        };
        let mut catalogue = self.clone();
        catalogue.queues = environment.rows_over(&self.queues);
        catalogue.pools = environment.pools_over(&self.pools);
        catalogue.aliases.extend(environment.aliases.clone());
        catalogue.routes.extend(environment.routes.clone());
        drop(catalogue.route_rows.splice(0..0, environment.route_rows.clone()));
        catalogue.rate_limits.extend(environment.rate_limits.clone());
        let is_replaced = |row: &LimitRow| environment.limits.iter().any(|own| own.name == row.name);
        catalogue.limits.retain(|row| !is_replaced(row));
        catalogue.limits.extend(environment.limits.iter().cloned());
        catalogue.brakes.extend(environment.brakes.clone());
        catalogue.tenants.extend(environment.tenants.clone());
        catalogue.tenant_weights.extend(environment.tenant_weights.clone());
        catalogue.defaults = environment.defaults.clone().over(catalogue.defaults);
        catalogue.zone = environment.zone.or(catalogue.zone);
        catalogue.beat = environment.beat.or(catalogue.beat);
        Ok(catalogue)
    }

    /// Whether a periodic entry names this environment. Such an environment exists even if it changes nothing.
    fn names_environment(&self, name: &str) -> bool {
        self.periodic.iter().any(|entry| entry.environments.iter().any(|environment| environment == name))
    }

    /// The names of the environments that change something, in alphabetical order.
    pub fn environments(&self) -> impl Iterator<Item = &str> {
        self.environments.keys().map(String::as_str)
    }
}
