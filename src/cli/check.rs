//! `celeriac check`: checks a catalogue and says what each queue promises.

use std::io::Write;

use super::{CatalogueArgs, Failure};

pub(super) fn run(args: &CatalogueArgs, out: &mut impl Write) -> Result<(), Failure> {
    let catalogue = args.load()?;
    let file = args.file.display();
    match &args.environment {
        Some(environment) => writeln!(out, "{file} is valid for {environment}.")?,
        None => writeln!(out, "{file} is valid.")?,
    }
    writeln!(out, "{}", catalogue.summary())?;
    let warnings = catalogue.warnings();
    if !warnings.is_empty() {
        writeln!(out)?;
    }
    for warning in warnings {
        writeln!(out, "{warning}")?;
    }
    if !catalogue.queues.is_empty() {
        writeln!(out)?;
    }
    for row in &catalogue.queues {
        writeln!(out, "{}", row.explain())?;
    }
    if !catalogue.route_rows.is_empty() {
        writeln!(out)?;
    }
    for row in &catalogue.route_rows {
        writeln!(out, "route: {row}")?;
    }
    Ok(())
}
