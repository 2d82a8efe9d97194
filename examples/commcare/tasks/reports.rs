//! Scheduled reports, sent as mails.

use std::fmt::Write;

use celeriac::{TaskError, task};
use rusqlite::OptionalExtension;

use super::email;
use crate::hq::hq;

/// Makes a report and has it mailed. The mail's id comes from the report's, so that two runs send one mail.
///
/// Reports of some domains go to a queue of their own, where they hold up nobody but each other: a `[[route]]` of the
/// catalogue says which, by the argument `domain`.
#[task(queue = "background_queue")]
pub fn send_report(report: String, domain: String) -> Result<(), TaskError> {
    let db = hq().db.read()?;
    let sql = "SELECT recipient FROM report WHERE id = ? AND domain = ?";
    let found: Option<String> = db.query_row(sql, [&report, &domain], |r| r.get(0)).optional()?;
    let recipient = found.ok_or_else(|| TaskError::permanent(format!("there is no report `{report}`")))?;
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
