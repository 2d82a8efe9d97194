//! `celeriac check`: checks a catalogue and says what each queue promises.

use std::io::Write;

use super::{CatalogueArgs, Failure};
use crate::app::too_many_blocking_workers;
use crate::catalogue::one_line;

pub(super) fn run(args: &CatalogueArgs, out: &mut impl Write) -> Result<(), Failure> {
    let catalogue = args.load()?;
    let file = args.file.display();
    match &args.environment {
        Some(environment) => writeln!(out, "{file} is valid for {environment}.")?,
        None => writeln!(out, "{file} is valid.")?,
    }
    writeln!(out, "{}", catalogue.summary())?;
    let warnings = catalogue.warnings();
    let of_threads = too_many_blocking_workers(&catalogue);
    if !warnings.is_empty() || of_threads.is_some() {
        writeln!(out)?;
    }
    for warning in warnings {
        writeln!(out, "{warning}")?;
    }
    if let Some(text) = of_threads {
        writeln!(out, "{file}: warning: {text}")?;
    }
    if !catalogue.queues.is_empty() {
        writeln!(out)?;
    }
    for row in &catalogue.queues {
        writeln!(out, "{}", row.explain())?;
    }
    let defaults = catalogue.explain_defaults();
    let has_rows = !(catalogue.route_rows.is_empty()
        && catalogue.rate_limits.is_empty()
        && catalogue.limits.is_empty()
        && catalogue.tenants.is_empty()
        && catalogue.brakes.is_empty());
    if has_rows || defaults.is_some() {
        writeln!(out)?;
    }
    for row in &catalogue.route_rows {
        writeln!(out, "route: {row}")?;
    }
    for (task, limit) in &catalogue.rate_limits {
        let limit = limit.as_ref().map_or("none", |limit| limit.text());
        writeln!(out, "rate limit: {} {}", one_line(task), one_line(limit))?;
    }
    for row in &catalogue.limits {
        writeln!(out, "limit: {row}")?;
    }
    for (task, argument) in &catalogue.tenants {
        let argument = if argument.is_empty() { "none" } else { argument };
        writeln!(out, "tenant: {} {}", one_line(task), one_line(argument))?;
    }
    for row in &catalogue.brakes {
        writeln!(out, "brake: {row}")?;
    }
    if let Some(defaults) = defaults {
        writeln!(out, "defaults: {defaults}")?;
    }
    Ok(())
}
