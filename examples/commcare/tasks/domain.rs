//! Domains: HQ's word for the project spaces of its users.

use celeriac::{TaskError, task};

use crate::hq::{hq, now_ms};

/// Counts what a domain has, for the pages that show it.
#[task(queue = "background_queue")]
pub fn update_calculated_properties(domain: String) -> Result<u64, TaskError> {
    hq().db.write(|tx| {
        let sql = "SELECT count(*), coalesce(sum(1 - closed), 0) FROM cases WHERE domain = ?";
        let (cases, open): (u64, u64) = tx.query_row(sql, [&domain], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let sql = "INSERT INTO domain VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT DO UPDATE SET cases = ?2, open_cases = ?3, calculated_at = ?4";
        tx.execute(sql, (&domain, cases, open, now_ms()))?;
        Ok(cases)
    })
}
