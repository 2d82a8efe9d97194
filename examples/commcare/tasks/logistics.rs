//! Logistics: what facilities have in stock, and who is to be reminded that it runs out.

use celeriac::{TaskError, task};
use serde_json::json;

use super::{outgoing, sms};
use crate::hq::{follow, hq};

/// A facility with less is reminded.
const LOW: i64 = 10;

/// Computes all stock levels of a domain from its transactions, from scratch: it may run as often as it likes.
#[task(queue = "logistics_background_queue")]
pub fn sync_stock(domain: String) -> Result<usize, TaskError> {
    hq().db.write(|tx| {
        tx.execute("DELETE FROM stock WHERE domain = ?", [&domain])?;
        let sql = "INSERT INTO stock SELECT domain, facility, sum(quantity) FROM stock_transaction
                   WHERE domain = ? GROUP BY facility";
        Ok(tx.execute(sql, [&domain])?)
    })
}

/// Reminds facilities whose stock is low, each once a `day`.
#[task(queue = "logistics_reminder_queue")]
pub fn remind_low_stock(domain: String, day: String) -> Result<usize, TaskError> {
    let low: Vec<String> = hq().db.write(|tx| {
        let mut low = tx.prepare("SELECT facility FROM stock WHERE domain = ? AND level < ? ORDER BY 1")?;
        let low: Vec<String> = low.query_map((&domain, LOW), |r| r.get(0))?.collect::<Result<_, _>>()?;
        for facility in &low {
            let text = format!("{facility} runs low: order now");
            outgoing::queue(
                tx,
                &id(&domain, facility, &day),
                "sms",
                &json!({ "to": facility, "text": text }),
            )?;
        }
        Ok::<_, rusqlite::Error>(low)
    })?;
    for facility in &low {
        let id = id(&domain, facility, &day);
        follow(sms::process_sms::s(id.clone()), format!("sms:{id}"))?;
    }
    Ok(low.len())
}

fn id(domain: &str, facility: &str, day: &str) -> String {
    format!("{domain}.stock.{facility}.{day}")
}
