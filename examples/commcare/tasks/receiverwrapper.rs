//! Forms: repeaters forward them to other systems, and those whose processing broke off are processed again.

use celeriac::{TaskError, task};
use rusqlite::OptionalExtension;
use serde::Deserialize;

use super::outgoing::{Undelivered, deliver, is_transient};
use crate::hq::{hq, now_ms};

/// Forwards one record to the address of its repeater, a path under the program's endpoint.
#[task(queue = "repeat_record_queue", max_retries = 5, default_retry_delay = "500ms", retry_if = is_transient)]
pub async fn process_repeat_record(record: String, path: String) -> Result<(), Undelivered> {
    deliver("repeater", &path, &record).await
}

/// A form as a phone submitted it.
#[derive(Deserialize)]
struct Form {
    case_id: String,
    village: String,
}

/// Processes a form whose first processing broke off. The change and the note that it was made are one transaction.
#[task(queue = "submission_reprocessing_queue")]
pub fn reprocess_submission(stub: String) -> Result<(), TaskError> {
    hq().db.write(|tx| {
        let sql = "SELECT domain, form, done_at FROM stub WHERE id = ?";
        let found: Option<(String, String, Option<i64>)> =
            tx.query_row(sql, [&stub], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional()?;
        let (domain, text, done) = found
            .ok_or_else(|| TaskError::permanent(format!("there is no unfinished submission `{stub}`")))?;
        if done.is_some() {
            return Ok(());
        }
        // Another attempt would find the same text, so somebody has to look at it: to the dead letters.
        let form: Form = serde_json::from_str(&text)
            .map_err(|error| TaskError::reject(format!("the form of `{stub}` cannot be read: {error}")))?;
        let sql = "UPDATE cases SET village = ? WHERE domain = ? AND case_id = ?";
        if tx.execute(sql, [&form.village, &domain, &form.case_id])? == 0 {
            return Err(TaskError::permanent(format!(
                "`{stub}` is about case `{}`, which does not exist",
                form.case_id
            )));
        }
        tx.execute("UPDATE stub SET done_at = ? WHERE id = ?", (now_ms(), &stub))?;
        Ok(())
    })
}
