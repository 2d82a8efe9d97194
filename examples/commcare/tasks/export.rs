//! Exports: the cases of a domain as a spreadsheet.

use std::io::{Seek, SeekFrom};
use std::time::Instant;

use celeriac::soil::Download;
use celeriac::task::Signature;
use celeriac::{Context, TaskError, periodic_task, serial_task, task};
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

/// The cases of a domain as CSV, or one part of several, for whoever asked: Soil shows how far it is, and then the file. Who
/// asks again while it is being made joins.
#[task(
    queue = "export_download_queue",
    max_retries = 1,
    unique_for = "1h",
    unique_key = "{domain}.{part}.{parts}.{owner}"
)]
pub fn download_cases(
    ctx: &Context,
    domain: String,
    part: u64,
    parts: u64,
    owner: String,
) -> Result<u64, TaskError> {
    let parts = parts.max(1);
    let db = hq().db.read()?;
    let of_part = "FROM (SELECT *, row_number() OVER (ORDER BY case_id) AS place FROM cases WHERE domain = ?)
         WHERE place % ? = ?";
    let count = format!("SELECT count(*) {of_part}");
    let total: u64 = db.query_row(&count, (&domain, parts, part % parts), |r| r.get(0))?;
    let mut cases =
        db.prepare(&format!("SELECT case_id, name, owner, village, visits {of_part} ORDER BY case_id"))?;
    let mut cases = cases.query((&domain, parts, part % parts))?;
    // Beside the other exports until it is handed over; it goes with this handle.
    let mut file = csv::Writer::from_writer(tempfile::tempfile_in(&hq().exports)?);
    file.write_record(COLUMNS)?;
    ctx.progress_note("reading cases");
    let mut row = 0;
    while let Some(case) = cases.next()? {
        ctx.check()?;
        let visits = case.get::<_, i64>(4)?.to_string();
        let texts = (0..4).map(|column| case.get::<_, String>(column)).collect::<Result<Vec<_>, _>>()?;
        file.write_record(texts.iter().chain([&visits]))?;
        row += 1;
        ctx.progress(row, total);
    }
    ctx.progress_note("storing the file");
    let mut file = file.into_inner().map_err(|error| error.into_error())?;
    file.seek(SeekFrom::Start(0))?;
    let name = if parts == 1 { format!("{domain}.csv") } else { format!("{domain}-{}.csv", part + 1) };
    ctx.expose_download_blocking(Download::from_reader(file).name(name).owner(owner))?;
    Ok(row)
}

/// The same in several files, each a task of its own, that may join one that is being made;
/// [`Soil::make_group`](celeriac::soil::Soil::make_group) makes them one.
pub fn download_in_parts(domain: &str, parts: u64, owner: &str) -> Vec<Signature<download_cases::Task>> {
    (0..parts).map(|part| download_cases::s(domain.to_owned(), part, parts, owner.to_owned())).collect()
}

/// Checks the cases of a domain and fails, in one of the two ways in which tasks of HQ's Soil do.
#[task(queue = "export_download_queue", max_retries = 0)]
pub fn failing_export(ctx: &Context, domain: String, option: u8) -> Result<u64, TaskError> {
    ctx.progress(1, 3);
    let errors = [format!("`{domain}` has no form to export"), "row 7: the owner is not a user".to_owned()];
    match option {
        1 => {
            ctx.fail(errors);
            Ok(0) // ignored, as all that follows
        }
        _ => Err(TaskError::failure(errors)),
    }
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
