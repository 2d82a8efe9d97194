//! `celeriac queues`: the catalogue as a table.

use std::io::Write;

use super::table::{Column, Table};
use super::{CatalogueArgs, Failure};
use crate::app::catalogue::{QueueRow, format_span};

/// What a terminal of an operator holds. A pipe gets the same, so that what is pasted looks like what was seen.
const WIDTH: usize = 160;

pub(super) fn run(args: &CatalogueArgs, out: &mut impl Write) -> Result<(), Failure> {
    let catalogue = args.load()?;
    let mut table = Table::new([
        Column::left("QUEUE", 40),
        Column::left("I/O", 3),
        Column::left("CLASS", 7),
        Column::right("TARGET", 12),
        Column::right("WORKERS", 7),
        Column::left("POOL", 4),
        Column::left("TYPICAL", 24),
        Column::left("DESCRIPTION", WIDTH),
    ]);
    for row in &catalogue.queues {
        table.add(cells(row));
    }
    out.write_all(table.render(WIDTH).as_bytes())?;
    Ok(())
}

/// What is not stated stays empty, as in HQ's own table. The workers of a queue that is served elsewhere are others'.
fn cells(row: &QueueRow) -> [String; 8] {
    let io = match row.io_bound {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    [
        row.name.clone(),
        io.to_owned(),
        row.target_class.map(|class| class.to_string()).unwrap_or_default(),
        row.target.map(format_span).unwrap_or_default(),
        if row.served { row.workers.to_string() } else { "other".to_owned() },
        if row.served { row.pool.to_string() } else { String::new() },
        row.typical_duration.clone().unwrap_or_default(),
        row.description.clone().unwrap_or_default(),
    ]
}
