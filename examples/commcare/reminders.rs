//! Reminders and rules: what follows from cases and their changes.

use celeriac::task;
use celeriac::task::{Context, EnqueueError, TaskError};
use rusqlite::params;

use crate::database;
use crate::sink::send_sms;

/// Sends a reminder that is due: an SMS of its own id, so that it goes out once however often this runs.
#[task(queue = "reminder_queue")]
pub async fn send_reminder(reminder_id: String) -> Result<(), TaskError> {
    let sms_id = format!("reminder-{reminder_id}");
    match send_sms::s(sms_id.clone()).id(sms_id).delay().await {
        Ok(_) | Err(EnqueueError::DuplicateId { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A case changed: its reminders are looked at.
#[task(queue = "reminder_case_update_queue")]
pub fn case_changed(case_id: String) -> Result<(), TaskError> {
    Ok(database::note_effect("case-changed", &case_id)?)
}

/// A rule changed: all cases of its domain are looked at, a thousand at a time. Returns how many.
#[task(queue = "reminder_rule_queue")]
pub fn run_messaging_rule(
    ctx: &Context,
    rule_id: String,
    domain: String,
    after: String,
    seen: u64,
) -> Result<u64, TaskError> {
    ctx.check()?;
    let cases = database::cases_after(&domain, &after, 1000)?;
    let seen = seen + cases.len() as u64;
    match cases.last() {
        Some((last, _)) if cases.len() == 1000 => {
            Err(TaskError::continue_with(run_messaging_rule::s(rule_id, domain, last.clone(), seen)))
        }
        _ => {
            database::note_effect("rule", &rule_id)?;
            Ok(seen)
        }
    }
}

/// Closes the cases of a domain that were opened before `before`. Returns how many are closed then.
#[task(queue = "case_rule_queue")]
pub fn close_stale_cases(domain: String, before: String) -> Result<u64, TaskError> {
    let connection = database::open()?;
    connection.execute(
        "UPDATE cases SET status = 'closed' WHERE domain = ?1 AND opened_on < ?2 AND status <> 'closed'",
        params![domain, before],
    )?;
    let closed = "SELECT count(*) FROM cases WHERE domain = ?1 AND status = 'closed'";
    Ok(connection.query_row(closed, [&domain], |row| row.get(0))?)
}
