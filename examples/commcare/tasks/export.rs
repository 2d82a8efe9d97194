//! Exports: the cases of a domain as a spreadsheet.

use std::time::Instant;

use celeriac::task::Signature;
use celeriac::{Context, TaskError, periodic_task, serial_task};
use rusqlite::OptionalExtension;
use rust_xlsxwriter::{Format, Workbook};

use super::case_importer::COLUMNS;
use super::domain;
use crate::hq::{follow, hq, now_ms, write_whole};

/// What a sheet holds, its heading included.
const MOST_ROWS: u32 = 1_048_576;

/// Builds the file of an export, anew if it exists. The row says "ready" only when the file is whole and in its place.
///
/// One task, two queues: [`for_a_user`] waits for it, [`on_schedule`] nobody does. Of one domain two are built at a time, in
/// whichever queues, so that a domain with many exports leaves workers to the others.
#[serial_task(key = "{domain}", concurrency = 2, queue = "export_download_queue")]
pub fn rebuild_export(ctx: &Context, domain: String, export: String) -> Result<u64, TaskError> {
    let start = Instant::now();
    let db = hq().db.read()?;
    let sql = "SELECT file FROM export WHERE id = ? AND domain = ?";
    let found: Option<String> = db.query_row(sql, [&export, &domain], |r| r.get(0)).optional()?;
    let file = found.ok_or_else(|| TaskError::permanent(format!("`{domain}` has no export `{export}`")))?;

    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet().set_name("Cases")?;
    let bold = Format::new().set_bold();
    for (column, name) in (0..).zip(COLUMNS.into_iter().chain(["closed"])) {
        sheet.write_with_format(0, column, name, &bold)?;
    }
    let mut cases = db.prepare(
        "SELECT case_id, name, owner, village, visits, closed FROM cases WHERE domain = ? ORDER BY case_id",
    )?;
    let mut cases = cases.query([&domain])?;
    let mut row = 0;
    while let Some(case) = cases.next()? {
        ctx.check()?;
        row += 1;
        if row >= MOST_ROWS {
            return Err(TaskError::permanent(format!(
                "`{domain}` has more cases than a sheet takes ({MOST_ROWS})"
            )));
        }
        for column in 0..4_u16 {
            sheet.write(row, column, case.get::<_, String>(usize::from(column))?)?;
        }
        sheet.write(row, 4, case.get::<_, i64>(4)?)?;
        sheet.write(row, 5, case.get::<_, bool>(5)?)?;
    }
    write_whole(&hq().exports.join(file), |out| Ok(workbook.save_to_writer(out)?))?;
    let took = i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX);
    hq().db.write(|tx| {
        let sql = "UPDATE export SET rows = ?, ready_at = ?, last_build_duration = ? WHERE id = ?";
        tx.execute(sql, (row, now_ms(), took, &export))?;
        Ok(u64::from(row))
    })
}

/// Somebody clicked.
pub fn for_a_user(domain: &str, export: &str) -> Signature<rebuild_export::Task> {
    rebuild_export::s(domain.to_owned(), export.to_owned())
}

/// A saved export, rebuilt at midnight.
pub fn on_schedule(domain: &str, export: &str) -> Signature<rebuild_export::Task> {
    rebuild_export::s(domain.to_owned(), export.to_owned()).queue("saved_exports_queue")
}

/// Rebuilds the saved exports of a domain, at its own midnight: those of all at midnight UTC are a queue that lasts
/// until noon. Domains of one zone are spread over four hours.
#[periodic_task(
    crontab(minute = 0, hour = 0),
    tenants = domain::all,
    spread = "4h",
    queue = "saved_exports_queue"
)]
pub fn rebuild_saved_exports(ctx: &Context, domain: String) -> Result<usize, TaskError> {
    let db = hq().db.read()?;
    let mut exports = db.prepare("SELECT id FROM export WHERE domain = ? ORDER BY id")?;
    let exports: Vec<String> = exports.query_map([&domain], |r| r.get(0))?.collect::<Result<_, _>>()?;
    for export in &exports {
        ctx.check()?;
        // Known by this night's task, so that a second run of it builds nothing twice.
        follow(on_schedule(&domain, export), format!("{}.{export}", ctx.id()))?;
    }
    Ok(exports.len())
}

/// Notes an export that is to be built.
pub fn register(tx: &rusqlite::Connection, id: &str, domain: &str, file: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO export (id, domain, file) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
    tx.execute(sql, [id, domain, file]).map(|_| ())
}
