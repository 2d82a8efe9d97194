//! `celeriac schedule`: prints the periodic entries of a catalogue, when they fire next, and warnings about them.

use std::io::Write;

use chrono::DateTime;

use super::{CatalogueArgs, Failure};
use crate::catalogue::format_span;
use crate::core::Timestamp;
use crate::core::calendar::{Misfire, Overlap, Schedule, Zone};
use crate::task::Periodic;
use crate::task::clock::now;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct ScheduleArgs {
    #[command(flatten)]
    catalogue: CatalogueArgs,
    /// How many fires of each entry to show
    #[arg(short = 'n', long, default_value_t = 5)]
    next: usize,
    /// Print the fires after this time, such as 2026-03-08T00:00:00Z; now when left out
    #[arg(long, value_parser = time)]
    from: Option<Timestamp>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|error| format!("{error}; write a time such as 2026-03-08T00:00:00Z"))?;
    u64::try_from(time.timestamp_millis())
        .map(Timestamp::from_millis)
        .map_err(|_| "write a time after 1970".to_owned())
}

pub(super) fn run(args: &ScheduleArgs, out: &mut impl Write) -> Result<(), Failure> {
    let catalogue = args.catalogue.load()?;
    let environment = args.catalogue.environment.as_deref();
    let from = args.from.unwrap_or_else(now);
    if catalogue.beat == Some(false) {
        writeln!(out, "beat = false: none of these fires here\n")?;
    }
    if catalogue.periodic.is_empty() {
        writeln!(
            out,
            "the catalogue has no [[periodic]] entries; those in the program's code are not seen from here"
        )?;
    }
    for (index, entry) in catalogue.periodic.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let mut entry = entry.clone();
        entry.settle_zone(catalogue.zone);
        show(&entry, environment, from, args.next, out)?;
    }
    Ok(())
}

fn show(
    entry: &Periodic,
    environment: Option<&str>,
    from: Timestamp,
    next: usize,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let zone = match &entry.schedule {
        Schedule::Crontab { zone, .. } => *zone,
        Schedule::Every(_) => Zone::UTC,
    };
    writeln!(out, "{}", entry.name)?;
    match &entry.schedule {
        Schedule::Crontab { crontab, zone } => writeln!(out, "  {crontab}  in {zone}")?,
        Schedule::Every(interval) => writeln!(out, "  every {}", format_span(*interval))?,
    }
    let queue = entry.queue.as_deref().map(|queue| format!(" in {queue}")).unwrap_or_default();
    writeln!(out, "  calls {}{queue}", entry.task)?;
    let misfire = match entry.misfire {
        Misfire::Skip => "skip".to_owned(),
        Misfire::All { within } => format!("all within {}", format_span(within)),
        Misfire::Once => "once".to_owned(),
    };
    let overlap = match entry.overlap {
        Overlap::Skip => "skip",
        Overlap::Allow => "allow",
        Overlap::BufferOne => "buffer_one",
    };
    writeln!(out, "  misfire {misfire}, overlap {overlap}")?;
    if !entry.environments.is_empty() {
        let here = if entry.is_on(environment) { "" } else { ": not here" };
        writeln!(out, "  only on {}{here}", entry.environments.join(", "))?;
    }
    if let Schedule::Crontab { crontab, .. } = &entry.schedule {
        for lint in crontab.lints() {
            writeln!(out, "  warning: {lint}")?;
        }
    }
    let times = entry.schedule.preview(from, next);
    if times.is_empty() {
        writeln!(out, "  never fires again")?;
    }
    for at in times {
        let utc = if zone == Zone::UTC { String::new() } else { format!("  = {}", Zone::UTC.display(at)) };
        writeln!(out, "  {}{utc}", zone.display(at))?;
    }
    Ok(())
}
