//! The effects of a load, looked at from outside: in the database, in the files, at the other side.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::{
    BAD_EVENTS, BAD_ROWS, CASES, EVENTS, EXPORTS, FEW_CASES, LOGS, Load, MAILS, MESSAGES, QUEUED, RECORDS,
    RECORDS_TO_NOWHERE, REPORTS, RESTORES, THROTTLED_REPORTS, Tally, cases,
};
use crate::hq::hq;
use crate::tasks::email::message_id;
use crate::tasks::ucr::quantile;
use crate::web::sink::Sink;

type Checked = Result<(), Box<dyn std::error::Error>>;

impl Tally {
    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, is: T, should_be: T) {
        if is != should_be {
            self.faults.push(format!("{what}: {is:?} instead of {should_be:?}"));
        }
    }
}

impl Load {
    /// Right after the imports: the rows in SQLite are those of the files, and the bad ones are listed.
    pub(super) fn check_import(&self, tally: &mut Tally) -> Checked {
        let db = hq().db.read()?;
        for (domain, expected, bad) in
            [(&self.domain, &self.cases, 0), (&self.throttled, &self.few_cases, BAD_ROWS)]
        {
            tally.faults.extend(cases::difference(&cases::stored(&db, domain)?, expected));
            let sql = "SELECT created, updated, refused, done FROM import WHERE id = ?";
            let counts: (usize, usize, usize, bool) =
                db.query_row(sql, [domain], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
            tally.equal(&format!("import of {domain}"), counts, (expected.len(), 0, bad, true));
        }
        Ok(())
    }

    /// When all is over.
    pub(super) fn verify(&self, sink: &Sink, tally: &mut Tally) -> Checked {
        self.check_tables(tally)?;
        self.check_files(tally)?;
        self.check_sink(sink, tally)
    }

    fn check_tables(&self, tally: &mut Tally) -> Checked {
        let db = hq().db.read()?;
        let expected = self.expected_cases();
        tally.faults.extend(cases::difference(&cases::stored(&db, &self.domain)?, &expected));
        let visits: i64 = expected.values().map(|case| case.visits).sum();

        let sql =
            "SELECT count(*), sum(visits), sum(open), count(DISTINCT village) FROM ucr WHERE domain = ?";
        let table: (usize, i64, usize, usize) =
            db.query_row(sql, [&self.domain], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
        let mut villages: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for case in expected.values() {
            villages.entry(&case.village).or_default().push(case.visits);
        }
        let open = expected.values().filter(|case| !case.closed).count();
        tally.equal("report table", table, (CASES, visits, open, villages.len()));

        let mut rows = db.prepare(
            "SELECT village, cases, median_visits, p90_visits FROM indicator WHERE domain = ? ORDER BY village",
        )?;
        let indicators = rows
            .query_map([&self.domain], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?
            .collect::<Result<Vec<(String, usize, i64, i64)>, _>>()?;
        let wanted = villages.iter_mut().map(|(village, visits)| {
            visits.sort_unstable();
            ((*village).to_owned(), visits.len(), quantile(visits, 0.5), quantile(visits, 0.9))
        });
        tally.equal("indicators", indicators, wanted.collect());

        let json: String =
            db.query_row("SELECT json FROM dashboard WHERE domain = ?", [&self.domain], |r| r.get(0))?;
        let json: serde_json::Value = serde_json::from_str(&json)?;
        tally.equal(
            "dashboard",
            (json["cases"].as_u64(), json["visits"].as_i64()),
            (Some(CASES as u64), Some(visits)),
        );

        let sql = "SELECT cases, open_cases FROM domain WHERE name = ?";
        let counts: (usize, usize) = db.query_row(sql, [&self.domain], |r| Ok((r.get(0)?, r.get(1)?)))?;
        tally.equal("calculated properties", counts, (CASES, open));

        for (its, cases) in [(&self.domain, CASES), (&self.throttled, FEW_CASES)] {
            let sql = "SELECT count(*), sum(cents) FROM invoice WHERE domain = ?";
            let invoices: (usize, usize) = db.query_row(sql, [its], |r| Ok((r.get(0)?, r.get(1)?)))?;
            tally.equal(&format!("invoices of {its}"), invoices, (1, cases * 2));
        }
        let sql = "SELECT count(*), count(sent_at) FROM instance WHERE rule = ?";
        let instances: (usize, usize) = db.query_row(sql, [self.rule()], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let reminded = self.reminded().len();
        tally.equal("reminders, and those handled", instances, (reminded, reminded));
        let sql = "SELECT count(*) FROM stub WHERE domain = ? AND done_at IS NULL";
        let undone: usize = db.query_row(sql, [&self.domain], |r| r.get(0))?;
        tally.equal("submissions not processed", undone, 2);
        Ok(())
    }

    fn check_files(&self, tally: &mut Tally) -> Checked {
        let db = hq().db.read()?;
        for i in 0..EXPORTS * 2 {
            let sql = "SELECT file, rows, ready_at IS NOT NULL FROM export WHERE id = ?";
            let (file, rows, ready): (String, usize, bool) =
                db.query_row(sql, [self.id("export", i)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
            tally.equal(&file, (rows, ready), (CASES, true));
            let bytes = std::fs::read(hq().exports.join(&file)).unwrap_or_default();
            // A spreadsheet is a zip: it begins with PK, and ends with a directory that begins with PK\5\6.
            let whole = bytes.starts_with(b"PK") && bytes.windows(4).any(|w| w == b"PK\x05\x06");
            tally.equal(&format!("{file} is a whole spreadsheet"), whole, true);
        }
        let expected = self.expected_cases();
        for i in 0..RESTORES {
            let user = format!("worker-{i}");
            let file = format!("{}.{user}.xml", self.domain);
            let xml = std::fs::read_to_string(hq().restores.join(&file)).unwrap_or_default();
            let mine = expected.values().filter(|case| case.owner == user && !case.closed).count();
            tally.equal(&format!("{file}: cases"), xml.matches("<case case_id=").count(), mine);
            tally.equal(&format!("{file} is whole"), xml.ends_with("</OpenRosaResponse>\n"), true);
        }
        if hq().smtp.is_none() {
            let mut wanted: HashSet<String> = (1..MAILS).map(|i| message_id(&self.id("mail", i))).collect();
            wanted.extend((0..REPORTS + THROTTLED_REPORTS).map(|i| message_id(&self.id("report", i))));
            wanted.extend(
                [&self.domain, &self.throttled].map(|its| message_id(&format!("{its}.invoice.2026-02"))),
            );
            let found = message_ids(&hq().mail)?;
            tally.equal("mails not written", wanted.difference(&found).collect::<Vec<_>>(), Vec::new());
            tally.equal("a mail without an address", found.contains(&message_id(&self.id("mail", 0))), false);
        }
        Ok(())
    }

    /// The other side has each id that was sent, and no other. More posts than ids are possible only after a crash.
    fn check_sink(&self, sink: &Sink, tally: &mut Tally) -> Checked {
        let prefix = format!("{}.", self.domain);
        // Queued messages, and overdue reminders.
        let by_loops = 2 * QUEUED;
        let messages = MESSAGES + self.reminded().len() + Self::low_facilities().count() + by_loops;
        let kinds = [
            ("analytics", EVENTS - BAD_EVENTS, BAD_EVENTS),
            ("sms", messages, 0),
            ("sumologic", LOGS, 0),
            ("repeater", RECORDS - RECORDS_TO_NOWHERE + QUEUED, 0),
            ("down", 0, 0),
        ];
        for (kind, ids, bad) in kinds {
            let counted = sink.counted(kind, &prefix)?;
            tally.equal(&format!("{kind}: ids at the other side"), counted.ids, ids);
            tally.equal(&format!("{kind}: posts not below ids"), counted.hits >= ids, true);
            tally.equal(&format!("{kind}: ids answered 400"), counted.bad, bad);
            tally.equal(&format!("{kind}: some were answered 503"), counted.busy > 0, true);
        }
        let sql = "SELECT count(delivered_at) FROM outgoing WHERE substr(id, 1, length(?1)) = ?1";
        let delivered: usize = hq().db.read()?.query_row(sql, [&prefix], |r| r.get(0))?;
        tally.equal("rows noted as delivered", delivered, kinds.iter().map(|(_, ids, _)| ids).sum());
        Ok(())
    }
}

/// The `Message-ID`s of all mails in a directory.
fn message_ids(mail: &Path) -> Result<HashSet<String>, std::io::Error> {
    let mut ids = HashSet::new();
    for entry in std::fs::read_dir(mail)? {
        let text = std::fs::read(entry?.path())?;
        let text = String::from_utf8_lossy(&text);
        ids.extend(text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).map(str::to_owned));
    }
    Ok(ids)
}
