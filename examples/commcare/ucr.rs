//! User configurable reports: tables computed from cases. All of it is computing, so all of it is plain `fn`.

use celeriac::task;
use celeriac::task::{Context, TaskError};
use rusqlite::params;

use crate::database;

/// Cases in one step of a rebuild.
const CHUNK: usize = 1000;

/// Rebuilds a report table for a domain, a thousand cases at a time, so that a long rebuild blocks nobody.
/// Returns how many cases it holds.
#[task(queue = "ucr_queue")]
pub fn rebuild_table(
    ctx: &Context,
    report: String,
    domain: String,
    after: String,
    done: u64,
) -> Result<u64, TaskError> {
    let cases = database::cases_after(&domain, &after, CHUNK)?;
    let mut rows = Vec::with_capacity(cases.len());
    for (case_id, status) in &cases {
        ctx.check()?;
        rows.push((case_id, status, score(case_id)));
    }
    let mut connection = database::open()?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for (case_id, status, score) in rows {
        transaction.execute(
            "INSERT OR REPLACE INTO report_rows (report, case_id, status, score) VALUES (?1, ?2, ?3, ?4)",
            params![report, case_id, status, score],
        )?;
    }
    transaction.commit()?;
    let done = done + cases.len() as u64;
    match cases.last() {
        Some((last, _)) if cases.len() == CHUNK => {
            Err(TaskError::continue_with(rebuild_table::s(report, domain, last.clone(), done)))
        }
        _ => Ok(done),
    }
}

/// Evaluates the expensive indicator of one case.
#[task(queue = "ucr_indicator_queue")]
pub fn evaluate_indicator(case_id: String) -> u32 {
    score(&case_id)
}

/// Some honest computing: an iterated hash.
fn score(case_id: &str) -> u32 {
    let seed = case_id
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..20_000_u32).fold(seed, |hash, round| (hash ^ round).wrapping_mul(0x0100_0193).rotate_left(5)) % 100
}
