//! Reads a written load: the file that says to `celeriac simulate` which tasks come, how often, and how long their runs take.
//!
//! ```toml
//! [[arrival]]
//! queue = "celery"
//! task = "export"
//! tenant = "malawi"                    # none when left out
//! priority = 3                         # 0 when left out
//! rate = "5/s"                         # by chance, five a second on average
//! from = "0s"                          # counted from the beginning of the load; 0s when left out
//! until = "10m"
//! takes = "2s"                         # half of the runs take no longer
//! p95 = "10s"                          # 95 of 100 take no longer; when left out, all take the same time
//!
//! [[arrival]]
//! queue = "celery"
//! task = "nightly"
//! count = 5000                         # all at once
//! from = "5m"
//! takes = "400ms"
//! ```

use std::path::Path;
use std::time::Duration;

use super::error::{CatalogueErrors, Problem, quote};
use super::parse::document;
use super::rate_limits::read_limit;
use super::read_text;
use super::section::{Section, SourceText};
use crate::core::simulation::{Coming, LONGEST_RUN, LoadRow, RunLength};

/// The keys of an `[[arrival]]`.
const KEYS: [&str; 10] =
    ["queue", "task", "tenant", "priority", "rate", "count", "from", "until", "takes", "p95"];

/// Reads the rows of a written load from the file at `path`.
///
/// # Errors
/// The file cannot be read, is not UTF-8, or has a mistake: all of them at once, as those of a [catalogue](super::Catalogue::load).
pub fn load_written(path: impl AsRef<Path>) -> Result<Vec<LoadRow>, CatalogueErrors> {
    let (name, text) = read_text(path.as_ref())?;
    parse_written(&text, &name)
}

/// Reads the rows of a written load. `file` is its name in errors.
///
/// # Errors
/// All mistakes of the text at once.
pub fn parse_written(text: &str, file: &str) -> Result<Vec<LoadRow>, CatalogueErrors> {
    let mut source = SourceText::new(text);
    let document = document(text, file, &source)?;
    let root = Section::new(document.as_table(), 0, "at the top level");
    root.refuse_unknown_keys(&["arrival"], &mut source);
    let expected = "an array of tables: begin each arrival with [[arrival]] and queue = \"...\"";
    let mut rows = Vec::new();
    for (index, (table, at)) in root.array("arrival", expected, &mut source).into_iter().enumerate() {
        let place = format!("arrival number {}", index + 1);
        let section = Section::new(table, at, format!("in {place}"));
        section.refuse_unknown_keys(&KEYS, &mut source);
        rows.extend(read_row(&section, &place, &mut source));
    }
    if rows.is_empty() && source.errors.is_empty() {
        let fault =
            "the load has no rows: add [[arrival]] with queue, task, takes, and rate and until or count";
        source.report(0, Problem::Arrival { place: "this file".to_owned(), fault: fault.to_owned() });
    }
    if source.errors.is_empty() { Ok(rows) } else { Err(CatalogueErrors::new(file, source.errors)) }
}

/// Reads one row. `None`: it has mistakes, which are told.
fn read_row(section: &Section<'_>, place: &str, source: &mut SourceText<'_>) -> Option<LoadRow> {
    for (key, example) in [("queue", "\"celery\""), ("task", "\"shop.export\""), ("takes", "\"2s\"")] {
        if section.get(key).is_none() {
            source.report(section.at, Problem::MissingKey { place: place.to_owned(), key, example });
        }
    }
    let (queue, task) = (section.text("queue", source), section.text("task", source));
    let tenant = section.text("tenant", source).unwrap_or_default();
    let priority = section.small_number("priority", 0, source).unwrap_or_default();
    let from = section.span_or_zero("from", source).unwrap_or_default();
    let coming = read_coming(section, place, from, source);
    let takes = read_takes(section, source);
    Some(LoadRow { queue: queue?, task: task?, tenant, priority, from, coming: coming?, takes: takes? })
}

fn read_coming(
    section: &Section<'_>,
    place: &str,
    from: Duration,
    source: &mut SourceText<'_>,
) -> Option<Coming> {
    let count = section.number("count", 1, source);
    let rate = read_limit(section, "rate", source);
    let until = section.span_of_time("until", source);
    let mut fault = |fault: &str| {
        let problem = Problem::Arrival { place: place.to_owned(), fault: fault.to_owned() };
        source.report(section.at, problem);
    };
    match (section.get("rate").is_some(), section.get("count").is_some()) {
        (true, true) => fault("it has a rate and a count: keep one of the two"),
        (false, false) => {
            fault(
                "it does not say how many tasks come: add rate = \"5/s\" and until = \"10m\", or count = 100",
            );
        }
        (false, true) if section.get("until").is_some() => {
            fault(
                "all tasks of a count come at once, so it has no until: remove it, or state a rate instead",
            );
        }
        (false, true) => return Some(Coming::AtOnce { count: count? }),
        (true, false) if section.get("until").is_none() => {
            fault("it does not say until when tasks come: add until = \"10m\"");
        }
        (true, false) => {
            let (rate, until) = (rate?, until?);
            match rate {
                None => fault("its rate lets no task come: write a rate such as \"5/s\""),
                Some(_) if until <= from => fault("its until is not after its from: make it later"),
                Some(rate) => return Some(Coming::Rate { per_second: rate.per_second(), until }),
            }
        }
    }
    None
}

fn read_takes(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<RunLength> {
    let (takes, p95) = (section.span_or_zero("takes", source), section.span_of_time("p95", source));
    let takes = takes?;
    for (key, span) in [("takes", Some(takes)), ("p95", p95)] {
        if span.is_some_and(|span| span > LONGEST_RUN)
            && let Some(item) = section.get(key)
        {
            section.report_bad_value(key, item, "write at most \"30d\"".to_owned(), source);
            return None;
        }
    }
    let Some(item) = section.get("p95") else { return Some(RunLength::Fixed(takes)) };
    let p95 = p95?;
    if takes.is_zero() || p95 < takes {
        let advice = format!(
            "95 of 100 runs take no longer, and half of them no longer than takes, which is {}: write more than that, and takes above zero",
            quote(&super::format_span(takes))
        );
        section.report_bad_value("p95", item, advice, source);
        return None;
    }
    Some(RunLength::Spread { median: takes, p95 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn faults(text: &str) -> String {
        parse_written(text, "load.toml").err().map(|errors| errors.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_example_is_read() {
        let example = include_str!("load_file.rs").lines();
        let lines = example.skip_while(|line| !line.ends_with("```toml")).skip(1);
        let lines = lines.take_while(|line| !line.ends_with("```"));
        let text: String = lines.map(|line| format!("{}\n", line.trim_start_matches("//!"))).collect();
        let rows = parse_written(&text, "load.toml").expect("rows");
        let row =
            |queue: &str, task: &str, tenant: &str| (queue.to_owned(), task.to_owned(), tenant.to_owned());
        let names: Vec<_> =
            rows.iter().map(|it| (it.queue.clone(), it.task.clone(), it.tenant.clone())).collect();
        assert_eq!(names, [row("celery", "export", "malawi"), row("celery", "nightly", "")]);
        assert_eq!((rows[0].priority, rows[0].from), (3, Duration::ZERO));
        assert_eq!(rows[0].coming, Coming::Rate { per_second: 5.0, until: 600 * SECOND });
        assert_eq!(rows[0].takes, RunLength::Spread { median: 2 * SECOND, p95: 10 * SECOND });
        assert_eq!((rows[1].coming, rows[1].from), (Coming::AtOnce { count: 5_000 }, 300 * SECOND));
        assert_eq!(rows[1].takes, RunLength::Fixed(Duration::from_millis(400)));
    }

    #[test]
    fn each_mistake_is_told_with_what_to_do() {
        let row = |more: &str| format!("[[arrival]]\nqueue = \"q\"\ntask = \"t\"\n{more}\n");
        for (more, told) in [
            (
                "takes = \"2s\"\ncount = 1\ntenat = \"x\"",
                "load.toml:6:1: unknown key \"tenat\" in arrival number 1; did you mean \"tenant\"?",
            ),
            ("count = 1", "load.toml:1:1: arrival number 1 has no takes; add takes = \"2s\""),
            (
                "takes = \"2s\"",
                "load.toml:1:1: arrival number 1: it does not say how many tasks come: add rate = \"5/s\" and until = \"10m\", or count = 100",
            ),
            (
                "takes = \"2s\"\ncount = 1\nrate = \"1/s\"",
                "load.toml:1:1: arrival number 1: it has a rate and a count: keep one of the two",
            ),
            (
                "takes = \"2s\"\nrate = \"1/s\"",
                "load.toml:1:1: arrival number 1: it does not say until when tasks come: add until = \"10m\"",
            ),
            (
                "takes = \"2s\"\nrate = \"0/s\"\nuntil = \"1m\"",
                "load.toml:1:1: arrival number 1: its rate lets no task come: write a rate such as \"5/s\"",
            ),
            (
                "takes = \"2s\"\nrate = \"1/s\"\nfrom = \"1m\"\nuntil = \"1m\"",
                "load.toml:1:1: arrival number 1: its until is not after its from: make it later",
            ),
            (
                "takes = \"2s\"\ncount = 1\nuntil = \"1m\"",
                "load.toml:1:1: arrival number 1: all tasks of a count come at once, so it has no until: remove it, or state a rate instead",
            ),
            (
                "takes = \"31d\"\ncount = 1",
                "load.toml:4:9: \"takes\" in arrival number 1 is \"31d\"; write at most \"30d\"",
            ),
            (
                "takes = \"2s\"\ncount = 0",
                "load.toml:5:9: \"count\" in arrival number 1 is 0; write at least 1",
            ),
            (
                "takes = \"soon\"\ncount = 1",
                "load.toml:4:9: \"takes\" in arrival number 1 is \"soon\"; write a duration such as \"500ms\", \"30s\", \"15m\", \"6h\" or \"1h30m\"",
            ),
        ] {
            assert_eq!(faults(&row(more)), told, "{more}");
        }
        let short = faults(&row("takes = \"2s\"\np95 = \"1s\"\ncount = 1"));
        assert!(short.starts_with("load.toml:5:7: \"p95\" in arrival number 1 is \"1s\"; "), "{short}");
        assert!(faults("").starts_with("load.toml:1:1: this file: the load has no rows"));
        assert!(faults("[[arival]]\n").contains("did you mean \"arrival\"?"));
        assert!(faults("arrival = 3").contains("begin each arrival with [[arrival]]"));
        assert!(faults("[[arrival").contains("not valid TOML"));
    }
}
