//! Reports: for the dashboard, and the scheduled ones of domains that have too many of them.

use celeriac::task;
use celeriac::task::TaskError;
use rusqlite::params;

use crate::database;
use crate::email::send_email;
use crate::settings::{path, write_whole};

/// Writes the numbers of a dashboard to `reports/{report_id}.json` and returns the file's name.
#[task(queue = "icds_dashboard_reports_queue")]
pub fn build_dashboard(report_id: String, domain: String) -> Result<String, TaskError> {
    let connection = database::open()?;
    let mut query =
        connection.prepare("SELECT status, count(*) FROM cases WHERE domain = ?1 GROUP BY status")?;
    let counts = query.query_map([&domain], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let counts: std::collections::BTreeMap<String, u64> = counts.collect::<Result<_, _>>()?;
    let name = format!("{report_id}.json");
    write_whole(&path("reports").join(&name), &serde_json::to_vec_pretty(&counts)?)?;
    Ok(name)
}

/// Sends a scheduled report of a domain that abuses them: its own slow queue, so that nobody else waits for it.
#[task(queue = "send_report_throttled", default_retry_delay = "1s")]
pub fn send_report(report_id: String, domain: String) -> Result<(), TaskError> {
    let cases = database::count_cases(&domain)?;
    let mail_id = format!("report-{report_id}");
    // The body of another task, here and now: a task is a plain function as well.
    send_email(mail_id, format!("reports@{domain}.example"), format!("{domain}: {cases} cases"))
}

/// Deletes what an earlier run left unfinished. Returns how many files.
#[task(queue = "background_queue")]
pub fn clean_up_files(folder: String) -> Result<u64, TaskError> {
    let mut deleted = 0;
    for entry in std::fs::read_dir(path(&folder))? {
        let entry = entry?;
        let unfinished = entry.path().extension().is_some_and(|extension| extension == "unfinished");
        let old = entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age.as_secs() > 3600);
        if unfinished && old {
            std::fs::remove_file(entry.path())?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// Adds up what a domain has for the aggregate tables. Returns the number of its cases.
#[task(queue = "icds_aggregation_queue")]
pub fn aggregate(domain: String) -> Result<u64, TaskError> {
    let cases = database::count_cases(&domain)?;
    database::open()?.execute(
        "INSERT OR REPLACE INTO report_rows (report, case_id, status, score) VALUES ('aggregate', ?1, 'all', ?2)",
        params![domain, cases],
    )?;
    Ok(cases)
}
