//! `--once`: a fixed load through all 24 queues, checked from outside.
//!
//! Every task's outcome is awaited and compared, and then what the work left behind is counted without the runtime:
//! rows in the database, files on disk, mails, and what the sink took.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use celeriac::task::{Signature, State, Task, TaskId};
use celeriac::{Celeriac, GetError};
use futures_util::future::{LocalBoxFuture, join_all};
use rusqlite::params;

use crate::settings::path;
use crate::{AnyError, database, table};
use crate::{accounting, email, exports, imports, logistics, reminders, reports, sink, submissions, ucr};

/// How long the slowest task may take.
const PATIENCE: Duration = Duration::from_secs(180);
const CASES: usize = 5000;
/// Tasks of each kind in the mixed load.
const EACH: usize = 20;

/// A finding: what should have been, and was not.
type Check = LocalBoxFuture<'static, Result<(), String>>;

/// The load under way.
struct Load {
    /// Makes the names of this run's things unlike those of any other.
    run: String,
    checks: Vec<Check>,
}

impl Load {
    /// Sends a task that has to succeed, with a value that `right` accepts.
    async fn succeeds<T: Task>(
        &mut self,
        call: Signature<T>,
        right: impl Fn(&T::Output) -> bool + 'static,
    ) -> Result<(), AnyError> {
        let sent = call.delay().await?;
        self.checks.push(Box::pin(async move {
            match sent.get(PATIENCE).await {
                Ok(value) if right(&value) => Ok(()),
                Ok(_) => Err(format!("{} {} returned something else", T::NAME, sent.id())),
                Err(error) => Err(format!("{} {}: {error}", T::NAME, sent.id())),
            }
        }));
        Ok(())
    }

    /// Sends a task that has to end in another state.
    async fn ends_as<T: Task>(&mut self, state: State, call: Signature<T>) -> Result<(), AnyError> {
        let sent = call.delay().await?;
        self.checks.push(Box::pin(async move {
            match sent.get(PATIENCE).await {
                Err(GetError::Ended(record)) if record.state == state => Ok(()),
                other => {
                    Err(format!("{} {} should have ended as {state}: {:?}", T::NAME, sent.id(), other.err()))
                }
            }
        }));
        Ok(())
    }

    /// Waits for all that was sent since the last time; says what went wrong.
    async fn finish(&mut self) -> (usize, Vec<String>) {
        let checks = std::mem::take(&mut self.checks);
        let sent = checks.len();
        (sent, join_all(checks).await.into_iter().filter_map(Result::err).collect())
    }

    fn name(&self, what: &str, n: usize) -> String {
        format!("{what}-{}-{n}", self.run)
    }

    fn domain(&self) -> String {
        format!("domain-{}", self.run)
    }
}

pub async fn run(celeriac: &Celeriac) -> Result<ExitCode, AnyError> {
    let start = Instant::now();
    let earlier = left(celeriac).await?;
    if earlier > 0 {
        println!("{earlier} tasks of an earlier run come first");
    }
    let run = TaskId::new().to_string().replace('-', "");
    let mut load = Load { run, checks: Vec::new() };

    import(&mut load).await?;
    let (mut sent, mut lost) = load.finish().await;
    mix(&mut load).await?;
    let (more, others) = load.finish().await;
    sent += more;
    lost.extend(others);

    let left = settle(celeriac).await?;
    let (known, run) = (lost.len(), load.run.clone());
    lost.extend(actix_web::web::block(move || audit(&run)).await??);
    print!("{}", table::render(celeriac.catalogue(), &celeriac.queues().await?));
    for problem in &lost {
        println!("{problem}");
    }
    println!(
        "{sent} tasks sent in {:.1} s: lost {}, left {left}, other findings {}",
        start.elapsed().as_secs_f64(),
        known,
        lost.len() - known
    );
    Ok(if lost.is_empty() && left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Uploads of all kinds: a large one in chunks, one with a wrong header, one with faulty lines.
async fn import(load: &mut Load) -> Result<(), AnyError> {
    let mut csv = String::from("case_id,domain,name,opened_on,status\n");
    for n in 0..CASES {
        let (case, domain, day) = (load.name("case", n), load.domain(), 1 + n % 28);
        writeln!(csv, "{case},{domain},\"Name, {n}\",2026-{:02}-{day:02},open", 1 + n % 12)?;
    }
    let large = load.name("import", 0);
    std::fs::write(path("uploads").join(format!("{large}.csv")), csv)?;
    load.succeeds(imports::import_cases::s(large, 0, 0), |rows| *rows == CASES as u64).await?;
    for (n, text) in
        [(1, "id,name\n1,x\n"), (2, "case_id,domain,name,opened_on,status\n,d,x,2026-01-01,open\nshort\n")]
    {
        let faulty = load.name("import", n);
        std::fs::write(path("uploads").join(format!("{faulty}.csv")), text)?;
        load.ends_as(State::Failure, imports::import_cases::s(faulty, 0, 0)).await?;
    }
    Ok(())
}

/// Something for each of the 24 queues.
async fn mix(load: &mut Load) -> Result<(), AnyError> {
    let domain = load.domain();
    for n in 0..EACH {
        let form = load.name("form", n);
        database::open()?.execute("INSERT INTO forms (form_id, state) VALUES (?1, 'error')", [&form])?;
        load.succeeds(submissions::reprocess_submission::s(form), |()| true).await?;
        // Every fourth post is refused at first, and gets through when it is tried again.
        let flaky = if n % 4 == 0 { "-flaky" } else { "" };
        load.succeeds(sink::forward_device_log::s(load.name("log", n) + flaky), |()| true).await?;
        load.succeeds(sink::track_event::s(load.name("event", n) + flaky), |()| true).await?;
        load.succeeds(sink::send_sms::s(load.name("sms", n) + flaky).priority((n % 10) as u8), |()| true)
            .await?;
        load.succeeds(sink::process_repeat_record::s(load.name("repeat", n) + flaky), |()| true).await?;
        load.succeeds(logistics::remind_facility::s(load.name("facility", n)), |()| true).await?;
        load.succeeds(logistics::sync_stock::s(load.name("facility", n), 7), |()| true).await?;
        load.succeeds(reminders::send_reminder::s(load.name("reminder", n)), |()| true).await?;
        load.succeeds(reminders::case_changed::s(load.name("case", n)), |()| true).await?;
        let later = email::send_email::s(load.name("mail", n), "a@example.org".into(), "Hello".into());
        load.succeeds(later.countdown(Duration::from_millis(50 * n as u64)), |()| true).await?;
        load.succeeds(email::welcome_user::s(load.name("user", n)), |()| true).await?;
        load.succeeds(ucr::evaluate_indicator::s(load.name("case", n)), |score| *score < 100).await?;
        load.succeeds(exports::build_restore::s(load.name("phone", n), domain.clone()), |_| true).await?;
    }
    for n in 0..3 {
        let export = exports::export_cases::s(load.name("export", n), domain.clone());
        load.succeeds(export, |file| file.ends_with(".xlsx")).await?;
        // The same task for a schedule instead of a click: another queue, by the call.
        let saved =
            exports::export_cases::s(load.name("saved", n), domain.clone()).queue("saved_exports_queue");
        load.succeeds(saved, |file| file.ends_with(".xlsx")).await?;
        load.succeeds(reports::build_dashboard::s(load.name("dash", n), domain.clone()), |_| true).await?;
        load.succeeds(reports::send_report::s(load.name("report", n), domain.clone()), |()| true).await?;
        load.ends_as(State::Failure, sink::track_event::s(load.name("event", n) + "-bad")).await?;
    }
    let all = |count: &u64| *count == CASES as u64;
    let none = String::new;
    load.succeeds(reminders::run_messaging_rule::s(load.name("rule", 0), domain.clone(), none(), 0), all)
        .await?;
    load.succeeds(reminders::close_stale_cases::s(domain.clone(), "2026-02-01".into()), |closed| *closed > 0)
        .await?;
    load.succeeds(ucr::rebuild_table::s(load.name("ucr", 0), domain.clone(), none(), 0), all).await?;
    load.succeeds(reports::aggregate::s(domain), all).await?;
    load.succeeds(accounting::generate_invoices::s(load.name("month", 0)), |invoices| *invoices > 0).await?;
    load.succeeds(reports::clean_up_files::s("exports".into()), |_| true).await?;
    load.ends_as(State::Rejected, submissions::reprocess_submission::s(load.name("form", EACH))).await
}

/// Tasks that wait or run.
async fn left(celeriac: &Celeriac) -> Result<u64, AnyError> {
    let queues = celeriac.queues().await?;
    Ok(queues.iter().map(|q| q.ready + q.scheduled + q.running as u64).sum())
}

/// Waits until nothing waits or runs: tasks that tasks have sent come to their end as well.
async fn settle(celeriac: &Celeriac) -> Result<u64, AnyError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = left(celeriac).await?;
        if left == 0 || Instant::now() > deadline {
            return Ok(left);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the work left behind, counted without the runtime.
fn audit(run: &str) -> Result<Vec<String>, std::io::Error> {
    let mut findings = Vec::new();
    let mut expect = |what: &str, found: usize, right: usize| {
        if found != right {
            findings.push(format!("{what}: {found} instead of {right}"));
        }
    };
    let connection = database::open().map_err(std::io::Error::other)?;
    let count = |query: &str, like: String| -> Result<usize, std::io::Error> {
        connection.query_row(query, params![like], |row| row.get(0)).map_err(std::io::Error::other)
    };
    let domain = format!("domain-{run}");
    expect("imported cases", count("SELECT count(*) FROM cases WHERE domain = ?1", domain)?, CASES);
    expect(
        "rows of the import",
        count("SELECT rows FROM imports WHERE import_id = ?1", format!("import-{run}-0"))?,
        CASES,
    );
    expect(
        "rows of the report",
        count("SELECT count(*) FROM report_rows WHERE report = ?1", format!("ucr-{run}-0"))?,
        CASES,
    );
    let done = "SELECT count(*) FROM forms WHERE state = 'done' AND form_id LIKE ?1";
    expect("forms reprocessed", count(done, format!("form-{run}-%"))?, EACH);
    let taken = "SELECT count(*) FROM posts WHERE taken = 1 AND id LIKE ?1";
    for kind in ["log", "event", "sms", "repeat", "facility"] {
        expect(&format!("{kind} posts taken"), count(taken, format!("{kind}-{run}-%"))?, EACH);
    }
    expect("reminders sent as SMS", count(taken, format!("reminder-reminder-{run}-%"))?, EACH);
    for (folder, prefix, right) in [
        ("exports", "export", 3),
        ("exports", "saved", 3),
        ("reports", "dash", 3),
        ("restores", "phone", EACH),
    ] {
        let prefix = format!("{prefix}-{run}-");
        let mut whole = 0;
        for entry in std::fs::read_dir(path(folder))? {
            let entry = entry?;
            let ours = entry.file_name().to_string_lossy().starts_with(&prefix);
            whole += usize::from(ours && entry.metadata()?.len() > 0);
        }
        expect(&format!("files {prefix}*"), whole, right);
    }
    // A mail that went out twice has one Message-ID.
    let mut mails = BTreeSet::new();
    for entry in std::fs::read_dir(path("mail"))? {
        let text = std::fs::read_to_string(entry?.path())?;
        let ids = text.lines().filter_map(|line| line.strip_prefix("Message-ID: "));
        mails.extend(ids.filter(|id| id.contains(run)).map(str::to_owned));
    }
    expect("mails", mails.len(), 2 * EACH + 3);
    Ok(findings)
}
