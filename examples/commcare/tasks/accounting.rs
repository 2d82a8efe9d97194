//! Invoices, once a month.

use celeriac::{Context, TaskError, task};

use super::email;
use crate::hq::hq;

/// What a case costs a month.
const CENTS_PER_CASE: u64 = 2;

/// Writes the invoices of a month, for one domain or all, and has them mailed. A domain gets one a month, whatever
/// happens; a run that is repeated writes those that are missing and enqueues the mails again, which are known by id.
#[task(queue = "periodic_queue")]
pub fn generate_invoices(ctx: &Context, month: String, only: Option<String>) -> Result<usize, TaskError> {
    let db = hq().db.read()?;
    let mut domains = db
        .prepare("SELECT name, coalesce(cases, 0) FROM domain WHERE ?1 IS NULL OR name = ?1 ORDER BY name")?;
    let domains: Vec<(String, u64)> =
        domains.query_map([only], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?;
    for (domain, cases) in &domains {
        ctx.check()?;
        let id = format!("{domain}.invoice.{month}");
        let cents = cases * CENTS_PER_CASE;
        hq().db.write(|tx| {
            let sql = "INSERT INTO invoice VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
            tx.execute(sql, (&id, domain, &month, cents))?;
            let text = format!("{cases} cases: {}.{:02} USD\n", cents / 100, cents % 100);
            email::queue(
                tx,
                &id,
                &format!("billing@{domain}.example"),
                &format!("Invoice for {month}"),
                &text,
            )
        })?;
        email::follow_up(&id)?;
    }
    Ok(domains.len())
}
