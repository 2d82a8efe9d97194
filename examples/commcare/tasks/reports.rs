//! Scheduled reports, sent as mails.

use std::fmt::Write;

use celeriac::task::Signature;
use celeriac::{TaskError, task};
use rusqlite::OptionalExtension;

use super::email;
use crate::hq::hq;

/// Domains whose reports go to a queue of their own, where they hold up nobody but each other. HQ's
/// `THROTTLE_SCHED_REPORTS_PATTERNS`; a pattern that ends in `*` is a beginning.
const THROTTLED: [&str; 2] = ["mvp-*", "ews-ghana"];

/// Makes a report and has it mailed. The mail's id comes from the report's, so that two runs send one mail.
#[task(queue = "background_queue")]
pub fn send_report(report: String) -> Result<(), TaskError> {
    let db = hq().db.read()?;
    let sql = "SELECT domain, recipient FROM report WHERE id = ?";
    let found: Option<(String, String)> =
        db.query_row(sql, [&report], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
    let (domain, recipient) =
        found.ok_or_else(|| TaskError::permanent(format!("there is no report `{report}`")))?;
    let mut villages = db.prepare(
        "SELECT village, count(*), sum(closed), sum(visits) FROM cases WHERE domain = ? GROUP BY 1 ORDER BY 1",
    )?;
    let mut villages = villages.query([&domain])?;
    let mut text = format!("{:30} {:>8} {:>8} {:>8}\n", "village", "cases", "closed", "visits");
    while let Some(v) = villages.next()? {
        let (village, cases, closed, visits): (String, u64, u64, i64) =
            (v.get(0)?, v.get(1)?, v.get(2)?, v.get(3)?);
        let _ = writeln!(text, "{village:30} {cases:>8} {closed:>8} {visits:>8}");
    }
    let subject = format!("Cases of {domain}");
    hq().db.write(|tx| email::queue(tx, &report, &recipient, &subject, &text))?;
    email::follow_up(&report)
}

/// The call for a report of this domain, in the queue that its domain deserves.
pub fn scheduled(report: &str, domain: &str) -> Signature<send_report::Task> {
    let call = send_report::s(report.to_owned());
    let throttled = THROTTLED.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => domain.starts_with(beginning),
        None => *pattern == domain,
    });
    if throttled { call.queue("send_report_throttled") } else { call }
}
