//! The logistics projects' own two queues.

use celeriac::task;
use celeriac::task::TaskError;
use rusqlite::params;

use crate::database;
use crate::sink::{PostError, post_to};

/// Takes over a facility's stock level.
#[task(queue = "logistics_background_queue")]
pub fn sync_stock(facility: String, level: u32) -> Result<(), TaskError> {
    database::open()?.execute(
        "INSERT OR REPLACE INTO stock (facility, level) VALUES (?1, ?2)",
        params![facility, level],
    )?;
    Ok(())
}

/// Reminds a facility to report its stock.
#[task(queue = "logistics_reminder_queue", default_retry_delay = "200ms")]
pub async fn remind_facility(reminder_id: String) -> Result<(), PostError> {
    post_to("stock-reminders", &reminder_id).await
}
