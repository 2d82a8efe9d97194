//! The loops that HQ runs as commands beside its workers: each finds rows that are due, and has tasks made of them.
//!
//! The tables are the truth. A row stays due until its task has settled it, and is not enqueued again meanwhile. Where HQ counts
//! attempts in the row (submissions, repeat records), so does this: a row that was tried is due again later and later, and
//! at last not at all. Only what was enqueued was tried: a domain may be migrated for hours, and no row of it is lost by that.

use std::time::Duration;

use actix_web::rt::task::spawn_blocking;
use celeriac::task::Task;
use celeriac::{Due, Signature, Source, SourcePoller, TaskError, async_trait};
use rusqlite::{OptionalExtension, Params, Transaction};

use crate::hq::{hq, now_ms};
use crate::tasks::{receiverwrapper, reminders, sms};

/// An instance has a message of its own that waits for its time. One that is overdue for so long has lost it.
const OVERDUE_MS: i64 = 60_000;
/// So often a row is tried that counts its attempts.
const ATTEMPTS: i64 = 7;
/// When it is tried again after the first attempt; three times as long after each further one. HQ waits seven hours.
const NEXT_TRY_MS: i64 = 60_000;

/// The four loops; each looks at this interval.
pub fn all(interval: Duration) -> [SourcePoller; 4] {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    [
        SourcePoller::new("run_sms_queue", Rows { find: due_messages, counts: None })
            .queue("sms_queue")
            .unique_for(hours(3)),
        SourcePoller::new("queue_schedule_instances", Rows { find: due_instances, counts: None })
            .queue("reminder_queue"),
        SourcePoller::new("run_submission_reprocessing_queue", UNFINISHED_SUBMISSIONS)
            .queue("submission_reprocessing_queue"),
        SourcePoller::new("process_repeaters", DUE_RECORDS).queue("repeat_record_queue").batch(500),
    ]
    .map(|poller| poller.interval(interval).max_backlog(Some(5000)))
}

/// What is due by one of the queries below.
struct Rows {
    find: fn(&Transaction<'_>, usize) -> rusqlite::Result<Vec<Due>>,
    /// The table that counts how often its rows were tried.
    counts: Option<&'static str>,
}

const UNFINISHED_SUBMISSIONS: Rows = Rows { find: unfinished_submissions, counts: Some("queued_stub") };
const DUE_RECORDS: Rows = Rows { find: due_records, counts: Some("queued_record") };

#[async_trait]
impl Source for Rows {
    async fn due(&self, limit: usize) -> Result<Vec<Due>, TaskError> {
        let find = self.find;
        Ok(spawn_blocking(move || hq().db.write(|tx| find(tx, limit))).await??)
    }

    async fn enqueued(&self, keys: &[String]) -> Result<(), TaskError> {
        let Some(table) = self.counts else { return Ok(()) };
        let keys = keys.to_vec();
        let noted = move || {
            hq().db.write(|tx| {
                // A key is the row's id, and when it was due.
                let ids = keys.iter().filter_map(|key| key.rsplit_once('-')).map(|(id, _)| id);
                ids.into_iter().try_for_each(|id| tried(tx, table, id))
            })
        };
        Ok(spawn_blocking(noted).await??)
    }

    /// A domain that moves to another database is left alone.
    async fn skips(&self, domain: &str) -> bool {
        let domain = domain.to_owned();
        let asked = spawn_blocking(move || {
            let sql = "SELECT 1 FROM migrating WHERE domain = ?";
            hq().db.read()?.query_row(sql, [domain], |_| Ok(())).optional()
        });
        // What is not known is asked again at the next look.
        !matches!(asked.await, Ok(Ok(None)))
    }
}

/// The calls for what a query finds: rows of an id, a domain, and the time from which they are due.
fn due<T: Task>(
    tx: &Transaction<'_>,
    sql: &str,
    params: impl Params,
    call: impl Fn(String) -> rusqlite::Result<Signature<T>>,
) -> rusqlite::Result<Vec<Due>> {
    let mut query = tx.prepare(sql)?;
    let rows = query.query_map(params, |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    let rows: Vec<(String, String, i64)> = rows.collect::<Result<_, _>>()?;
    let due = |(id, domain, at): (String, String, i64)| {
        Ok(Due::new(format!("{id}-{at}"), call(id)?).tenant(domain))
    };
    rows.into_iter().map(due).collect()
}

/// Messages that wait for their time.
fn due_messages(tx: &Transaction<'_>, limit: usize) -> rusqlite::Result<Vec<Due>> {
    let sql =
        "SELECT id, domain, due FROM queued_sms WHERE processed_at IS NULL AND due <= ? ORDER BY due LIMIT ?";
    due(tx, sql, (now_ms(), limit), |id| Ok(sms::process_queued_sms::s(id)))
}

/// Reminders that nobody has handled.
fn due_instances(tx: &Transaction<'_>, limit: usize) -> rusqlite::Result<Vec<Due>> {
    let sql = "SELECT i.id, r.domain, i.due FROM instance i JOIN rule r ON r.id = i.rule
               WHERE i.sent_at IS NULL AND i.due <= ? ORDER BY i.due LIMIT ?";
    due(tx, sql, (now_ms() - OVERDUE_MS, limit), |id| Ok(reminders::handle_due_instance::s(id)))
}

/// Forms whose processing broke off.
fn unfinished_submissions(tx: &Transaction<'_>, limit: usize) -> rusqlite::Result<Vec<Due>> {
    let sql = "SELECT q.id, s.domain, q.next_try FROM queued_stub q JOIN stub s ON s.id = q.id
               WHERE s.done_at IS NULL AND q.next_try <= ? AND q.attempts < ? ORDER BY q.next_try LIMIT ?";
    due(tx, sql, (now_ms(), ATTEMPTS, limit), |id| Ok(receiverwrapper::reprocess_submission::s(id)))
}

/// Records that are to be forwarded to other systems.
fn due_records(tx: &Transaction<'_>, limit: usize) -> rusqlite::Result<Vec<Due>> {
    let sql = "SELECT q.id, q.domain, q.next_try FROM queued_record q JOIN outgoing o ON o.id = q.id
               WHERE o.delivered_at IS NULL AND q.next_try <= ? AND q.attempts < ? ORDER BY q.next_try LIMIT ?";
    due(tx, sql, (now_ms(), ATTEMPTS, limit), |id| {
        Ok(receiverwrapper::process_repeat_record::s(id, "repeater".to_owned()))
    })
}

/// Notes an attempt.
fn tried(tx: &Transaction<'_>, table: &str, id: &str) -> rusqlite::Result<()> {
    let sql = format!("SELECT attempts FROM {table} WHERE id = ?");
    let attempts: i64 = tx.query_row(&sql, [id], |r| r.get(0))?;
    let pause = NEXT_TRY_MS * 3_i64.pow(u32::try_from(attempts.clamp(0, ATTEMPTS)).unwrap_or(0));
    let sql = format!("UPDATE {table} SET attempts = attempts + 1, next_try = ? WHERE id = ?");
    tx.execute(&sql, (now_ms() + pause, id)).map(|_| ())
}
