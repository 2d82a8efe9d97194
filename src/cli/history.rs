//! `celeriac history`: prints what happened in the last seven days, from the notes that programs have written.

use std::io::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Failure;
use super::place::NotesSource;
use super::requeue::span;
use super::table::{Column, TextTable};
use crate::app::{History, HistoryBy, HistoryMark};
use crate::core::history::{DurationTotals, HistoryFilter, HistoryRow};
use crate::store::Notes;
use crate::store::history::read_history;
use crate::task::clock::now;

/// The width of an operator's terminal.
const WIDTH: usize = 160;

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    source: NotesSource,
    /// Begin so long ago, such as `90m` or `2d`.
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "1d")]
    since: Duration,
    /// The length of a step in whole minutes.
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "1h")]
    step: Duration,
    /// What the rows tell apart.
    #[arg(long, value_enum, default_value_t = By::Queue)]
    by: By,
    /// Count only what happened in this queue.
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Print only the rows of the queue, the task or the tenant of this name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print it as JSON.
    #[arg(short, long)]
    json: bool,
}

/// What the rows of a history tell apart.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// Nothing
    All,
    /// The queues
    Queue,
    /// The tasks
    Task,
    /// The tenants
    Tenant,
}

impl From<By> for HistoryBy {
    fn from(by: By) -> Self {
        match by {
            By::All => Self::All,
            By::Queue => Self::Queue,
            By::Task => Self::Task,
            By::Tenant => Self::Tenant,
        }
    }
}

pub(super) fn run(args: &HistoryArgs, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let history = runtime.block_on(args.source.read("history", async |notes| of(notes, args).await))?;
    if args.json {
        let text = serde_json::to_string(&history).map_err(std::io::Error::other)?;
        writeln!(out, "{text}")?;
        return Ok(());
    }
    print(&history, out)
}

async fn of(notes: &dyn Notes, args: &HistoryArgs) -> Result<History, Failure> {
    let now = now();
    let filter = HistoryFilter {
        step: args.step,
        by: args.by.into(),
        queue: args.queue.clone(),
        name: args.name.clone(),
        ..HistoryFilter::between(now - args.since, now + Duration::from_secs(60))
    };
    Ok(read_history(notes, filter, now, None).await?)
}

fn print(history: &History, out: &mut impl Write) -> Result<(), Failure> {
    let mut table = TextTable::new([
        Column::left("SINCE", 24),
        Column::right("RECEIVED", 9),
        Column::right("STARTED", 9),
        Column::right("SUCCEEDED", 9),
        Column::right("FAILED", 8),
        Column::right("RETRIED", 8),
        Column::right("REVOKED", 8),
        Column::left("WAITED", 20),
        Column::right("P95", 9),
        Column::left("RAN", 20),
        Column::left("NAME", WIDTH),
    ]);
    for HistoryRow { at, name, counts, waits } in &history.rows {
        table.add([
            at.to_string(),
            counts.received.to_string(),
            counts.started.to_string(),
            counts.succeeded.to_string(),
            counts.failed.to_string(),
            counts.retried.to_string(),
            counts.revoked.to_string(),
            mean_and_max(&counts.waits),
            waits.percentile(0.95).map(|wait| format!("{wait:.1?}")).unwrap_or_default(),
            mean_and_max(&counts.runs),
            name.clone(),
        ]);
    }
    if !history.rows.is_empty() {
        out.write_all(table.render(WIDTH).as_bytes())?;
        writeln!(
            out,
            "WAITED is the time-to-start, RAN the run time: the average, and the longest. P95 is that of the time-to-start."
        )?;
    }
    for HistoryMark { node, mark } in &history.marks {
        let part = |before: &str, text: &Option<String>| {
            text.as_ref().map(|text| format!("{before}{text}")).unwrap_or_default()
        };
        let (subject, detail) = (part(" ", &mark.subject), part(" ", &mark.detail));
        writeln!(out, "{} {}{subject}{detail} at {node}{}", mark.at, mark.what, part(" by ", &mark.who))?;
    }
    let History { rows, marks, nodes, bytes, unreadable } = history;
    let counts = (rows.len(), marks.len(), nodes.len());
    writeln!(out, "{} rows and {} marks of {} processes, in {bytes} bytes.", counts.0, counts.1, counts.2)?;
    if *unreadable > 0 {
        writeln!(
            out,
            "{unreadable} notes cannot be read: a later version has written them, or they are damaged."
        )?;
    }
    Ok(())
}

/// Durations for a reader.
fn mean_and_max(totals: &DurationTotals) -> String {
    match totals.count() {
        0 => String::new(),
        _ => format!("{:.1?} {:.1?}", totals.mean(), totals.max()),
    }
}
