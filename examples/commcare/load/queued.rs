//! The rows that the source pollers are to find, and the wait until all of them are settled.

use std::time::Instant;

use serde_json::json;

use super::{Load, PATIENCE, QUEUED, cases};
use crate::hq::{hq, now_ms};
use crate::tasks::outgoing;

impl Load {
    /// Writes what is due, when the cases are there: nobody enqueues anything for it but the loops.
    pub(super) fn queued(&self, tx: &rusqlite::Connection) -> rusqlite::Result<()> {
        let domain = &self.domain;
        let rule = format!("{}.loop", self.rule());
        // A rule that no case matches.
        tx.execute("INSERT INTO rule VALUES (?, ?, 'nowhere', -1, 0, 'Overdue')", (&rule, domain))?;
        for i in 0..QUEUED {
            let id = self.id("queued-sms", i);
            outgoing::queue(tx, &id, "sms", &json!({ "to": format!("+92{i:08}"), "text": "Later" }))?;
            let sql = "INSERT INTO queued_sms (id, domain, due) VALUES (?, ?, ?)";
            tx.execute(sql, (id, domain, now_ms()))?;

            let sql = "INSERT INTO instance (id, rule, case_id, due) VALUES (?, ?, ?, ?)";
            let (id, case) = (self.id("queued-instance", i), cases::id(i));
            tx.execute(sql, (id, &rule, case, now_ms() - 120_000))?;

            let (id, case) = (self.id("queued-stub", i), i * 100 + 1);
            let form = json!({ "case_id": cases::id(case), "village": format!("village-{}", case % 37) });
            let sql = "INSERT INTO stub (id, domain, form) VALUES (?, ?, ?)";
            tx.execute(sql, (&id, domain, form.to_string()))?;
            tx.execute("INSERT INTO queued_stub (id, next_try) VALUES (?, ?)", (id, now_ms()))?;

            let id = self.id("queued-record", i);
            outgoing::queue(tx, &id, "repeater", &json!({ "form": i, "domain": domain }))?;
            let sql = "INSERT INTO queued_record (id, domain, next_try) VALUES (?, ?, ?)";
            tx.execute(sql, (id, domain, now_ms()))?;
        }
        Ok(())
    }

    /// Waits until no row is due any more, and says how many are when patience ends. The tables do not tell, so this asks.
    pub(super) async fn wait_for_loops(&self) -> Result<usize, rusqlite::Error> {
        let deadline = Instant::now() + PATIENCE;
        let prefix = format!("{}.queued-", self.domain);
        let sql = "SELECT (SELECT count(*) FROM outgoing WHERE delivered_at IS NULL AND substr(id, 1, length(?1)) = ?1)
             + (SELECT count(*) FROM instance WHERE sent_at IS NULL AND substr(id, 1, length(?1)) = ?1)
             + (SELECT count(*) FROM stub WHERE done_at IS NULL AND substr(id, 1, length(?1)) = ?1)";
        loop {
            let left = hq().db.read()?.query_row(sql, [&prefix], |r| r.get(0))?;
            if left == 0 || Instant::now() > deadline {
                return Ok(left);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
