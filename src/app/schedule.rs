//! Collects the periodic entries of a program from its code and its catalogue, and checks them all when the program
//! starts, so that one start shows all mistakes.

use std::collections::BTreeMap;
use std::fmt;

use crate::actors::EntryOrigin;
use crate::core::calendar::{Schedule, Zone};
use crate::core::did_you_mean;
use crate::task::registry::Registry;
use crate::task::{Periodic, PeriodicDefinition};

/// All mistakes that were found in the schedule; there is at least one. It prints one line for each.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleErrors {
    /// The mistakes, ordered by their text.
    pub errors: Vec<ScheduleError>,
}

/// A mistake in the schedule.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// A `#[periodic_task]` or an entry that is not valid.
    #[error("{location}: the periodic entry `{name}`: {fault}")]
    Fault {
        /// The name of the entry.
        name: String,
        /// Where the entry is written.
        location: String,
        /// What is wrong and what to do.
        fault: String,
    },
    /// Two entries have the same name.
    #[error(
        "two periodic entries are named `{name}`: one at {first}, one at {second}; give one of them another name (`entry = \"...\"` in the attribute)"
    )]
    Duplicate {
        /// Their name.
        name: String,
        /// Where one of them is written.
        first: String,
        /// Where the other one is written.
        second: String,
    },
}

crate::core::debug_as_display!(ScheduleErrors, ScheduleError);

impl fmt::Display for ScheduleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ScheduleErrors {}

/// The entries that fire in this environment. All entries are checked, whatever their environments. With `runs_all`
/// no other program can run a task, so an entry of a task that is not in this program is a mistake. `zone` is that of
/// entries which state none.
pub(super) fn collect(
    catalogue: &[Periodic],
    environment: Option<&str>,
    zone: Option<Zone>,
    registry: &Registry,
    runs_all: bool,
) -> Result<Vec<(Periodic, EntryOrigin)>, ScheduleErrors> {
    let unknown = |entry: &Periodic| {
        let is_unknown = registry.get(&entry.task).is_none();
        is_unknown.then(|| {
            let hint = did_you_mean::hint(&entry.task, registry.names());
            format!("it calls `{}`, and this program has no task of that name{hint}", entry.task)
        })
    };
    let mut entries = collect_from(PeriodicDefinition::all(), catalogue, environment, |entry| {
        if runs_all { unknown(entry) } else { None }
    })?;
    entries.iter_mut().for_each(|(entry, _)| entry.settle_zone(zone));
    for (entry, _) in &entries {
        if let Schedule::Crontab { crontab, .. } = &entry.schedule {
            for lint in crontab.lints() {
                tracing::warn!(entry = entry.name, %lint, "a periodic entry is probably not what was meant");
            }
        }
        if let Some(fault) = unknown(entry) {
            tracing::info!(entry = entry.name, fault, "another program must run its task");
        }
    }
    Ok(entries)
}

/// Whether a `#[periodic_task]` of this program names this environment.
pub(super) fn names_environment(name: &str) -> bool {
    let named = |definition: &PeriodicDefinition| {
        (definition.entry)()
            .is_ok_and(|entry| entry.environments.iter().any(|environment| environment == name))
    };
    PeriodicDefinition::all().any(named)
}

fn collect_from<'a>(
    definitions: impl Iterator<Item = &'a PeriodicDefinition>,
    catalogue: &[Periodic],
    environment: Option<&str>,
    unknown: impl Fn(&Periodic) -> Option<String>,
) -> Result<Vec<(Periodic, EntryOrigin)>, ScheduleErrors> {
    let mut errors = Vec::new();
    let mut found: BTreeMap<String, (Periodic, EntryOrigin, String)> = BTreeMap::new();
    let in_program = definitions.map(|definition| {
        let entry = (definition.entry)().map_err(|fault| (definition.name.to_owned(), fault.to_string()));
        (entry, EntryOrigin::Program, definition.location.to_owned())
    });
    let in_catalogue =
        catalogue.iter().map(|entry| (Ok(entry.clone()), EntryOrigin::Catalogue, "the catalogue".to_owned()));
    for (entry, origin, location) in in_program.chain(in_catalogue) {
        let entry = entry.and_then(|entry| match entry.fault().or_else(|| unknown(&entry)) {
            Some(fault) => Err((entry.name.clone(), fault)),
            None => Ok(entry),
        });
        match entry {
            Err((name, fault)) => errors.push(ScheduleError::Fault { name, location, fault }),
            Ok(entry) => {
                if let Some((_, _, other)) = found.get(&entry.name) {
                    let (first, second) = if *other <= location {
                        (other.clone(), location)
                    } else {
                        (location, other.clone())
                    };
                    errors.push(ScheduleError::Duplicate { name: entry.name, first, second });
                } else {
                    found.insert(entry.name.clone(), (entry, origin, location));
                }
            }
        }
    }
    if !errors.is_empty() {
        errors.sort_by_key(ToString::to_string);
        return Err(ScheduleErrors { errors });
    }
    let all = found.into_values().map(|(entry, origin, _)| (entry, origin));
    Ok(all.filter(|(entry, _)| entry.is_on(environment)).collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::calendar::{Fields, Schedule};
    use crate::task::PeriodicFault;
    use crate::task::periodic::crontab;

    fn every(seconds: u64) -> Result<Periodic, PeriodicFault> {
        Ok(Periodic::new("heartbeat", "app.beat", Schedule::Every(Duration::from_secs(seconds))))
    }

    fn definition(
        location: &'static str,
        entry: fn() -> Result<Periodic, PeriodicFault>,
    ) -> PeriodicDefinition {
        PeriodicDefinition { name: "heartbeat", location, entry }
    }

    #[test]
    fn all_mistakes_at_once_and_each_with_its_place() {
        let definitions = [
            definition("src/b.rs:2", || every(10)),
            definition("src/a.rs:1", || every(20)),
            definition("src/c.rs:3", || {
                Ok(Periodic::new("c", "c", crontab(Ok(Fields::default()), Some("Asia/Calcuta"))?))
            }),
            definition("src/d.rs:4", || Ok(Periodic::new("d", "d", crontab(Err("0 0 30 2 *"), None)?))),
        ];
        let catalogue = [every(30).unwrap(), every(0).unwrap()];
        let errors = collect_from(definitions.iter(), &catalogue, None, |_| None).unwrap_err().to_string();
        let expected = "src/c.rs:3: the periodic entry `heartbeat`: there is no time zone `Asia/Calcuta`; did you mean `Asia/Calcutta`?
src/d.rs:4: the periodic entry `heartbeat`: day_of_month = \"30\" with month_of_year = \"2\" is no date of any year; change one of them
the catalogue: the periodic entry `heartbeat`: every 0ns is too often; write at least 1ms
two periodic entries are named `heartbeat`: one at src/a.rs:1, one at src/b.rs:2; give one of them another name (`entry = \"...\"` in the attribute)
two periodic entries are named `heartbeat`: one at src/b.rs:2, one at the catalogue; give one of them another name (`entry = \"...\"` in the attribute)";
        assert_eq!(errors, expected);
    }

    #[test]
    fn only_on_its_environments() {
        let names = |environment| {
            let definitions = [definition("src/a.rs:1", || every(10))];
            let catalogue =
                [Periodic::new("p", "p", Schedule::Every(Duration::from_secs(1))).on("production")];
            let all = collect_from(definitions.iter(), &catalogue, environment, |_| None).unwrap();
            all.into_iter().map(|(entry, _)| entry.name).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["heartbeat"]);
        assert_eq!(names(Some("production")), ["heartbeat", "p"]);
        assert_eq!(names(Some("staging")), ["heartbeat"]);
    }
}
