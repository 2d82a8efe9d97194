//! Automatic case update rules.

use celeriac::{Context, TaskError, task};

use crate::hq::hq;

/// Cases of one run.
const CHUNK: usize = 1000;

/// Closes the cases that had so many visits, 1000 cases a run. `after` is the last case looked at; to look at one
/// twice changes nothing.
#[task(queue = "case_rule_queue")]
pub fn run_case_update_rules(
    ctx: &Context,
    domain: String,
    visits: i64,
    after: String,
    closed: usize,
) -> Result<usize, TaskError> {
    ctx.check()?;
    let (last, now_closed) = hq().db.write(|tx| {
        let mut chunk = tx.prepare_cached(
            "SELECT case_id FROM cases WHERE domain = ? AND case_id > ? ORDER BY case_id LIMIT 1 OFFSET ?",
        )?;
        let last: Option<String> =
            chunk.query_map((&domain, &after, CHUNK - 1), |r| r.get(0))?.next().transpose()?;
        let sql = "UPDATE cases SET closed = 1
                   WHERE domain = ?1 AND case_id > ?2 AND (?3 IS NULL OR case_id <= ?3) AND visits >= ?4 AND closed = 0";
        let changed = tx.execute(sql, (&domain, &after, &last, visits))?;
        Ok::<_, TaskError>((last, changed))
    })?;
    let closed = closed + now_closed;
    match last {
        Some(last) => Err(TaskError::continue_with(run_case_update_rules::s(domain, visits, last, closed))),
        None => Ok(closed),
    }
}
