//! ICDS: aggregates of a domain level by level, each from the one below, and the dashboard on top of them.

use celeriac::{Context, TaskError, task};
use serde_json::json;

use crate::hq::hq;

/// The levels from the ground up; each is aggregated from the one before it.
const LEVELS: [&str; 3] = ["village", "block", "state"];

/// Aggregates one level, then goes on with the next: "follow up tasks are constrained by the performance of previous
/// tasks". A level is replaced as a whole, so that a repeated run leaves what the first one left.
#[task(queue = "icds_aggregation_queue")]
pub fn aggregate(ctx: &Context, domain: String, level: usize) -> Result<usize, TaskError> {
    ctx.check()?;
    let Some(name) = LEVELS.get(level) else {
        return Err(TaskError::permanent(format!(
            "there are {} levels, and this is the {level}th",
            LEVELS.len()
        )));
    };
    let places = hq().db.write(|tx| {
        tx.execute("DELETE FROM aggregate WHERE domain = ? AND level = ?", [domain.as_str(), name])?;
        let sql = match level {
            0 => {
                "INSERT INTO aggregate SELECT domain, ?2, village, count(*), sum(visits) FROM cases
                 WHERE domain = ?1 GROUP BY village"
            }
            // Villages of one last digit form a block.
            1 => {
                "INSERT INTO aggregate SELECT domain, ?2, 'block-' || substr(place, -1), sum(cases), sum(visits)
                 FROM aggregate WHERE domain = ?1 AND level = 'village' GROUP BY 3"
            }
            _ => {
                "INSERT INTO aggregate SELECT domain, ?2, 'state', sum(cases), sum(visits)
                 FROM aggregate WHERE domain = ?1 AND level = 'block' GROUP BY domain"
            }
        };
        tx.execute(sql, [domain.as_str(), name])
    })?;
    if level + 1 < LEVELS.len() {
        return Err(TaskError::continue_with(aggregate::s(domain, level + 1)));
    }
    Ok(places)
}

/// Renders the dashboard of a domain from its aggregates.
#[task(queue = "icds_dashboard_reports_queue")]
pub fn dashboard(domain: String) -> Result<u64, TaskError> {
    hq().db.write(|tx| {
        let sql = "SELECT coalesce(sum(cases), 0), coalesce(sum(visits), 0) FROM aggregate WHERE domain = ? AND level = 'state'";
        let (cases, visits): (u64, i64) = tx.query_row(sql, [&domain], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let mut worst = tx.prepare(
            "SELECT place FROM aggregate WHERE domain = ? AND level = 'village' ORDER BY visits * 1.0 / cases, place LIMIT 3",
        )?;
        let worst: Vec<String> = worst.query_map([&domain], |r| r.get(0))?.collect::<Result<_, _>>()?;
        let json = json!({ "cases": cases, "visits": visits, "least_visited": worst }).to_string();
        tx.execute("INSERT OR REPLACE INTO dashboard VALUES (?, ?)", [domain, json])?;
        Ok(cases)
    })
}
