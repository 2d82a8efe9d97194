//! `celeriac simulate`: says how long tasks would wait for their starts under a changed catalogue.
//!
//! What comes is a recorded time, a written load, or both; written tasks then come on top of the recorded ones. What is told beside
//! the changed catalogue is what was measured, or another catalogue.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::place::NotesSource;
use super::requeue::span;
use super::table::{Column, TextTable};
use super::{CatalogueArgs, Failure};
use crate::app::variables::RESULT_BACKEND;
use crate::catalogue::{format_span, load_written};
use crate::core::Timestamp;
use crate::core::simulation::{
    SimulatedLoad, SimulatedQueue, SimulatedTenant, SimulationError, SimulationReport, StartTimes, measured,
    simulate,
};
use crate::store::recorded_runs::read_recorded;
use crate::task::clock::now;

/// The width of an operator's terminal.
const WIDTH: usize = 160;
/// What is recorded where nothing else is said.
const AN_HOUR: Duration = Duration::from_secs(60 * 60);

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// The changed catalogue.
    #[arg(long, value_name = "FILE")]
    catalogue: PathBuf,
    /// Simulate this catalogue, too, and print it before the changed one. Without it, a recorded time is printed as it was measured.
    #[arg(long, value_name = "FILE")]
    today: Option<PathBuf>,
    /// Apply the changes of this environment to the catalogues.
    #[arg(short, long, value_name = "NAME")]
    environment: Option<String>,
    /// The file of a written load.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    #[command(flatten)]
    source: NotesSource,
    /// Take the tasks that came so long ago or later, such as `30m`; an hour unless stated. Two hours are kept.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    last: Option<Duration>,
    /// Decides the times and run times that a written load draws. Another seed is another load of the same kind.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print so many tenants, those that do worst. JSON has all of them.
    #[arg(long, value_name = "N", default_value_t = 10)]
    tenants: usize,
    /// Print it as JSON.
    #[arg(short, long)]
    json: bool,
}

/// What the command tells as JSON.
#[derive(Serialize)]
struct SimulationOutput {
    /// How many tasks came, and in what time.
    arrivals: usize,
    #[serde(rename = "span_ms", serialize_with = "crate::core::json_time::millis")]
    span: Duration,
    /// What was recorded, if that was taken.
    recorded: Option<Recorded>,
    /// What `today` is: `measured`, `simulated`, or nothing.
    today_is: Option<&'static str>,
    today: Option<SimulationReport>,
    changed: SimulationReport,
}

/// What programs have recorded.
#[derive(Default, Serialize)]
struct Recorded {
    /// How many runs were taken.
    runs: usize,
    /// The processes that have had them.
    nodes: Vec<String>,
    /// How many notes cannot be read.
    unreadable: usize,
}

pub(super) fn run(args: &SimulateArgs, out: &mut impl Write) -> Result<(), Failure> {
    let told = tell(args)?;
    if args.json {
        let text = serde_json::to_string(&told).map_err(std::io::Error::other)?;
        writeln!(out, "{text}")?;
        return Ok(());
    }
    print(&told, args.tenants, out)
}

fn tell(args: &SimulateArgs) -> Result<SimulationOutput, Failure> {
    let catalogue = |file: &PathBuf| {
        let (file, environment) = (file.clone(), args.environment.clone());
        CatalogueArgs { file, environment }.load()
    };
    let changed = catalogue(&args.catalogue)?.slot_plan();
    let today = args.today.as_ref().map(catalogue).transpose()?.map(|today| today.slot_plan());
    let rows = args.load.as_ref().map(load_written).transpose()?;
    let mut load = SimulatedLoad::default();
    let (mut recorded, mut begin) = (None, Timestamp::ZERO);
    // The environment may name a result backend that a written load has nothing to do with.
    if rows.is_none() || args.last.is_some() || args.source.directory.is_some() {
        if !args.source.is_named() {
            return Err(Failure::CommandLine(format!(
                "say what comes: --load FILE for a written load, --directory DIR for what the program of an embedded store has recorded, or --result-backend URL (or {RESULT_BACKEND} in the environment) for what a fleet has recorded in Redis; RabbitMQ alone keeps no record"
            )));
        }
        let now = now();
        begin = now - args.last.unwrap_or(AN_HOUR);
        recorded = Some(add_recorded(args, begin, now, &mut load)?);
    }
    if let Some(rows) = &rows {
        load.add_written(rows, args.seed, begin).map_err(refused)?;
    }
    let (first, last) = load.span().ok_or(SimulationError::NoArrivals).map_err(refused)?;
    let (today_is, today) = match &today {
        Some(today) => (Some("simulated"), Some(simulate(today, &load).map_err(refused)?)),
        None => {
            let measured = measured(&changed, &load).map_err(refused)?;
            (measured.as_ref().map(|_| "measured"), measured)
        }
    };
    let changed = simulate(&changed, &load).map_err(refused)?;
    Ok(SimulationOutput { arrivals: load.len(), span: last.since(first), recorded, today_is, today, changed })
}

/// Adds the tasks that came at this time or later, as the programs have recorded them.
fn add_recorded(
    args: &SimulateArgs,
    from: Timestamp,
    now: Timestamp,
    load: &mut SimulatedLoad,
) -> Result<Recorded, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let read = args.source.read("record of runs", async |notes| Ok(read_recorded(notes, from, now).await?));
    let stored = runtime.block_on(read)?;
    let mut recorded = Recorded::default();
    for note in &stored {
        let Some(runs) = &note.runs else {
            recorded.unreadable += 1;
            continue;
        };
        let before = load.len();
        runs.add_to(load, from).map_err(refused)?;
        recorded.runs += load.len() - before;
        if load.len() > before && !recorded.nodes.contains(&note.node) {
            recorded.nodes.push(note.node.clone());
        }
    }
    if recorded.runs == 0 {
        let last = format_span(now.since(from));
        let unreadable = match recorded.unreadable {
            0 => String::new(),
            some => format!(
                " {some} notes cannot be read: a later version has written them, or they are damaged."
            ),
        };
        return Err(Failure::Found(format!(
            "no runs of tasks that came in the last {last} are recorded here.{unreadable} Programs record their runs once a minute and when they end, unless they keep no history; two hours are kept. Take a longer time with --last, or write a load: --load FILE"
        )));
    }
    recorded.nodes.sort_unstable();
    Ok(recorded)
}

fn refused(error: SimulationError) -> Failure {
    Failure::Found(error.to_string())
}

fn print(told: &SimulationOutput, most_tenants: usize, out: &mut impl Write) -> Result<(), Failure> {
    let SimulationOutput { arrivals, recorded, today_is, today, changed, .. } = told;
    writeln!(out, "{arrivals} tasks came within {}.", readable(told.span))?;
    if let Some(Recorded { runs, nodes, unreadable }) = recorded {
        writeln!(out, "{runs} of them were recorded by {}.", nodes.join(", "))?;
        if *unreadable > 0 {
            writeln!(
                out,
                "{unreadable} notes cannot be read: a later version has written them, or they are damaged."
            )?;
        }
    }
    match today_is {
        Some(today_is) => writeln!(out, "What stands before an arrow is today, as it was {today_is}.\n")?,
        None => writeln!(out)?,
    }
    print_queues(today.as_ref(), changed, out)?;
    print_tenants(today.as_ref(), changed, most_tenants, out)?;
    writeln!(out)?;
    let pair = |of: &dyn Fn(&SimulationReport) -> String| arrow(today.as_ref().map(of), of(changed));
    for pool in &changed.pools {
        let busy = |report: &SimulationReport| {
            let found = report.pools.iter().find(|other| other.pool == pool.pool);
            found.map_or_else(String::new, |pool| format!("{} of {} slots", percent(pool.busy), pool.slots))
        };
        writeln!(out, "Pool {}: {} were busy.", pool.pool, pair(&busy))?;
    }
    writeln!(
        out,
        "Most of a promise that the p95 of a queue has used: {}.",
        pair(&|it: &SimulationReport| ratio(it.worst_used))
    )?;
    writeln!(
        out,
        "The last task starts so long after the last one came: {}.",
        pair(&|it: &SimulationReport| readable(it.drained))
    )?;
    Ok(())
}

fn print_queues(
    today: Option<&SimulationReport>,
    changed: &SimulationReport,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut table = TextTable::new([
        Column::left("QUEUE", 40),
        Column::right("TARGET", 20),
        Column::right("STARTS", 9),
        Column::right("P50", 22),
        Column::right("P95", 22),
        Column::right("MAX", 22),
        Column::right("WITHIN", 18),
        Column::right("USED", 16),
        Column::right("BUSY", 18),
    ]);
    for queue in &changed.queues {
        let before = today.and_then(|today| today.queues.iter().find(|before| before.queue == queue.queue));
        let target = |queue: &SimulatedQueue| format_span(queue.target);
        let busy = |queue: &SimulatedQueue| percent(queue.busy);
        let [p50, p95, max, within, used] = waits(before.map(|before| &before.waits), &queue.waits);
        table.add([
            queue.queue.clone(),
            arrow(before.map(target), target(queue)),
            queue.waits.starts.to_string(),
            p50,
            p95,
            max,
            within,
            used,
            arrow(before.map(busy), busy(queue)),
        ]);
    }
    out.write_all(table.render(WIDTH).as_bytes())?;
    Ok(())
}

/// Prints the tenants that do worst under the changed catalogue.
fn print_tenants(
    today: Option<&SimulationReport>,
    changed: &SimulationReport,
    most: usize,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut tenants: Vec<&SimulatedTenant> =
        changed.tenants.iter().filter(|row| !row.tenant.is_empty()).collect();
    if tenants.is_empty() || most == 0 {
        return Ok(());
    }
    tenants.sort_by(|one, other| other.waits.used.total_cmp(&one.waits.used));
    let mut table = TextTable::new([
        Column::left("QUEUE", 40),
        Column::left("TENANT", 30),
        Column::right("STARTS", 9),
        Column::right("P50", 22),
        Column::right("P95", 22),
        Column::right("MAX", 22),
        Column::right("WITHIN", 18),
        Column::right("USED", 16),
    ]);
    for row in tenants.iter().take(most) {
        let is_same = |before: &&SimulatedTenant| before.queue == row.queue && before.tenant == row.tenant;
        let before = today.and_then(|today| today.tenants.iter().find(is_same));
        let [p50, p95, max, within, used] = waits(before.map(|before| &before.waits), &row.waits);
        let starts = row.waits.starts.to_string();
        table.add([row.queue.clone(), row.tenant.clone(), starts, p50, p95, max, within, used]);
    }
    writeln!(out)?;
    out.write_all(table.render(WIDTH).as_bytes())?;
    if tenants.len() > most {
        writeln!(out, "These {most} of {} tenants do worst; --tenants N prints more.", tenants.len())?;
    }
    Ok(())
}

/// The cells of the waits: the percentiles, the share within the promise, and how much of it the p95 has used.
fn waits(before: Option<&StartTimes>, after: &StartTimes) -> [String; 5] {
    let cells = |waits: &StartTimes| {
        let within = percent(Some(waits.within));
        [readable(waits.p50), readable(waits.p95), readable(waits.max), within, ratio(waits.used)]
    };
    let mut before = before.map(cells).into_iter().flatten();
    cells(after).map(|after| arrow(before.next(), after))
}

/// What was, and what is in its place; one of both if they are the same.
fn arrow(before: Option<String>, after: String) -> String {
    match before {
        Some(before) if before != after => format!("{before} -> {after}"),
        _ => after,
    }
}

/// A share of a whole for a reader.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(String::new, |share| format!("{:.1} %", 100.0 * share))
}

fn ratio(used: f64) -> String {
    format!("{used:.2}")
}

/// A duration for a reader: to three digits or so, and from a minute on to the second.
fn readable(duration: Duration) -> String {
    match duration.as_secs() {
        _ if duration.is_zero() => "0s".to_owned(),
        0..60 => format!("{duration:.1?}"),
        seconds => format_span(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_a_reader() {
        let written =
            [0, 350, 1_500, 59_900, 60_000, 3_725_400].map(|ms| readable(Duration::from_millis(ms)));
        assert_eq!(written, ["0s", "350.0ms", "1.5s", "59.9s", "1m", "1h2m5s"]);
        assert_eq!((percent(Some(0.9871)).as_str(), percent(None).as_str()), ("98.7 %", ""));
        assert_eq!(arrow(Some("1s".to_owned()), "2s".to_owned()), "1s -> 2s");
        assert_eq!(arrow(Some("2s".to_owned()), "2s".to_owned()), "2s");
        assert_eq!(arrow(None, "2s".to_owned()), "2s");
    }
}
