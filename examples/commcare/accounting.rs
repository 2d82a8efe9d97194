//! Accounting: the monthly invoices.

use celeriac::task;
use celeriac::task::{Context, TaskError};
use rusqlite::{TransactionBehavior, params};

use crate::database;

/// Writes a month's invoices, one for each domain with cases. Returns how many.
#[task(queue = "celery_periodic")]
pub fn generate_invoices(ctx: &Context, month: String) -> Result<u64, TaskError> {
    let mut connection = database::open()?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut invoices = 0;
    {
        let mut query = transaction.prepare("SELECT domain, count(*) FROM cases GROUP BY domain")?;
        let domains = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?)))?;
        for domain in domains {
            ctx.check()?;
            let (domain, cases) = domain?;
            transaction.execute(
                "INSERT OR REPLACE INTO invoices (month, domain, cents) VALUES (?1, ?2, ?3)",
                params![month, domain, 10_000 + cases],
            )?;
            invoices += 1;
        }
    }
    transaction.commit()?;
    Ok(invoices)
}
