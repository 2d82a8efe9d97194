//! Invoices, once a month.

use celeriac::{Context, TaskError, periodic_task, task};

use super::email;
use crate::hq::{follow, hq};

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

/// On the first of each month, those of the month before. A beat's task is small: it says which month it is, and the
/// work is a task of its own, known by that month, so that it is done once however often it is asked for.
#[periodic_task(crontab(minute = 0, hour = 5, day_of_month = 1), queue = "periodic_queue", overlap = "skip")]
pub fn invoice_last_month() -> Result<(), TaskError> {
    let month = month_before(chrono::Utc::now().date_naive());
    follow(generate_invoices::s(month.clone(), None), format!("invoices.{month}"))
}

fn month_before(day: chrono::NaiveDate) -> String {
    (day - chrono::Months::new(1)).format("%Y-%m").to_string()
}
