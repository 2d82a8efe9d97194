//! Celery's crontab, row by row of a table that Celery itself made (`conformance/make_table.py`).
//!
//! A row that says `ours` is one where a change of the clocks lies in between and Celery, which has no rule for it, comes
//! to other times than our rule.

use celeriac::core::Timestamp;
use celeriac::core::calendar::{Crontab, Schedule, Zone};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    crontab: String,
    zone: String,
    from: String,
    celery: Vec<String>,
    ours: Option<Vec<String>>,
}

fn rows() -> Vec<Row> {
    let table = include_str!("conformance/table.jsonl");
    table.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn timestamp(text: &str) -> Timestamp {
    let time = chrono::DateTime::parse_from_rfc3339(text).unwrap();
    Timestamp::from_millis(time.timestamp_millis().try_into().unwrap())
}

#[test]
fn the_next_five_are_celerys() {
    let mut wrong = Vec::new();
    let mut agree = 0;
    for row in rows() {
        let zone: Zone = row.zone.parse().unwrap();
        let crontab: Crontab = row.crontab.parse().unwrap();
        let next = Schedule::crontab(crontab, zone).preview(timestamp(&row.from), 5);
        agree += usize::from(row.ours.is_none());
        let expected: Vec<_> = row.ours.unwrap_or(row.celery).iter().map(|time| timestamp(time)).collect();
        if next != expected {
            wrong.push(format!("{} in {zone} from {}: {next:?}, not {expected:?}", row.crontab, row.from));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(agree >= 200, "{agree} rows on which both agree");
}

/// We differ where the clocks change and nowhere else.
#[test]
fn the_differences_are_at_changes_of_the_clocks() {
    let offset = |zone: Zone, time: Timestamp| {
        let shown = zone.display(time);
        shown.split(' ').nth(2).unwrap().to_owned()
    };
    let different: Vec<_> = rows().into_iter().filter(|row| row.ours.is_some()).collect();
    assert!(different.len() > 10, "both edges are in the table");
    for row in different {
        let zone: Zone = row.zone.parse().unwrap();
        let last = row.celery.iter().chain(row.ours.iter().flatten()).max().unwrap();
        assert_ne!(
            offset(zone, timestamp(&row.from)),
            offset(zone, timestamp(last)),
            "{} in {} from {}: no change of the clocks in between",
            row.crontab,
            row.zone,
            row.from
        );
    }
}
