//! `celeriac queues`: prints the catalogue as a table.

use std::io::Write;

use clap::Args;

use super::table::{Column, TextTable};
use super::{CatalogueArgs, Failure};
use crate::catalogue::{Catalogue, QueueRow, format_span};

/// The width of an operator's terminal. A pipe gets the same width, so that pasted text looks like the screen.
const WIDTH: usize = 160;

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct QueuesArgs {
    #[command(flatten)]
    catalogue: CatalogueArgs,
    /// Print the notes and the comments on the targets instead of the settings of the runtime.
    #[arg(long)]
    notes: bool,
}

pub(super) fn run(args: &QueuesArgs, out: &mut impl Write) -> Result<(), Failure> {
    let catalogue = args.catalogue.load()?;
    if args.notes {
        let mut table = TextTable::new([
            Column::left("QUEUE", 40),
            Column::right("TARGET", 12),
            Column::left("ABOUT THE TARGET", 50),
            Column::left("NOTES", WIDTH),
        ]);
        for row in &catalogue.queues {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let target = row.target.map(format_span).unwrap_or_default();
            table.add([row.name.clone(), target, text(&row.target_comment), text(&row.notes)]);
        }
        out.write_all(table.render(WIDTH).as_bytes())?;
        return Ok(());
    }
    let mut table = TextTable::new([
        Column::left("QUEUE", 40),
        Column::left("I/O", 3),
        Column::left("CLASS", 7),
        Column::right("TARGET", 12),
        Column::right("WORKERS", 7),
        Column::left("POOL", 12),
        Column::left("TYPICAL", 24),
        Column::left("DESCRIPTION", WIDTH),
    ]);
    for row in &catalogue.queues {
        table.add(cells(row, &catalogue));
    }
    out.write_all(table.render(WIDTH).as_bytes())?;
    Ok(())
}

/// The cells of a queue's row. As in HQ's own table, a cell is empty if the catalogue states nothing. The workers of
/// a queue that is served elsewhere are unknown. Where queues share the slots of their pool, the cells say of how many slots the
/// queue has at least and at most how many.
fn cells(row: &QueueRow, catalogue: &Catalogue) -> [String; 8] {
    let io = match row.io_bound {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    let most = row.most_workers();
    let (workers, pool) = match catalogue.pool_of(row) {
        _ if !row.served => ("other".to_owned(), String::new()),
        Some(shared) => (format!("{}-{most}", row.min_workers), format!("{} of {}", row.pool, shared.slots)),
        None if most > row.workers => (format!("{}-{most}", row.workers), row.pool.to_string()),
        None => (row.workers.to_string(), row.pool.to_string()),
    };
    [
        row.name.clone(),
        io.to_owned(),
        row.target_class.map(|class| class.to_string()).unwrap_or_default(),
        row.target.map(format_span).unwrap_or_default(),
        workers,
        pool,
        row.typical_duration.clone().unwrap_or_default(),
        row.description.clone().unwrap_or_default(),
    ]
}
