//! Imports uploaded CSV files of cases: "process 1000, then requeue", so that no file keeps the others waiting.

use std::fs::File;
use std::io::{Read, Seek};

use celeriac::{Context, TaskError, serial_task};
use csv::{ByteRecord, Position, Reader, ReaderBuilder};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::domain;
use crate::hq::{follow, hq};

/// Rows of one run.
const CHUNK: usize = 1000;
/// Refused rows whose reason is kept.
const ERRORS_KEPT: i64 = 100;
/// Ids become parts of task ids, which have a limit.
const LONGEST_ID: usize = 100;

/// The columns, in the order of [`Columns`]; the first two must be there.
pub const COLUMNS: [&str; 5] = ["case_id", "name", "owner", "village", "visits"];

/// What an import came to.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Imported {
    pub created: u64,
    pub updated: u64,
    pub refused: u64,
    pub errors: Vec<String>,
}

/// Where each of [`COLUMNS`] stands in a file.
pub type Columns = [Option<usize>; COLUMNS.len()];

/// Opens a CSV and reads its header; the text says what is wrong with it.
pub fn open<R: Read>(file: R) -> Result<(Reader<R>, Columns), String> {
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(file);
    let header = reader.headers().map_err(|e| format!("the header cannot be read: {e}"))?.clone();
    let mut columns = [None; COLUMNS.len()];
    for (at, name) in header.iter().enumerate() {
        let name = name.trim_start_matches('\u{feff}').trim(); // spreadsheets put a byte order mark first
        let Some(column) = COLUMNS.iter().position(|known| *known == name) else {
            return Err(format!("unknown column `{name}`; the columns are {}", COLUMNS.join(", ")));
        };
        if columns[column].replace(at).is_some() {
            return Err(format!("column `{name}` is there twice"));
        }
    }
    for needed in [0, 1] {
        if columns[needed].is_none() {
            return Err(format!(
                "there is no column `{}`: the first line names the columns",
                COLUMNS[needed]
            ));
        }
    }
    Ok((reader, columns))
}

struct Cursor {
    domain: String,
    file: String,
    rows: u64,
    byte: u64,
    line: u64,
    done: bool,
}

fn cursor(db: &Connection, import: &str) -> Result<Cursor, TaskError> {
    let sql = "SELECT domain, file, rows, byte, line, done FROM import WHERE id = ?";
    let found = db
        .query_row(sql, [import], |r| {
            Ok(Cursor {
                domain: r.get(0)?,
                file: r.get(1)?,
                rows: r.get(2)?,
                byte: r.get(3)?,
                line: r.get(4)?,
                done: r.get(5)?,
            })
        })
        .optional()?;
    found.ok_or_else(|| TaskError::permanent(format!("there is no import `{import}`")))
}

/// Imports the next 1000 rows of an upload and goes on with the rest at the end of the queue.
///
/// `row` only says in the message how far it is. The truth is the cursor, which is written in one transaction with
/// the rows: a run that died after its commit is repeated by its successor with the rows that come next.
///
/// One at a time for each domain, from its first row to its last: two imports of a domain would write the same cases.
#[serial_task(key = "{domain}", queue = "case_import_queue")]
pub fn import_cases(ctx: &Context, domain: String, import: String, row: u64) -> Result<Imported, TaskError> {
    let cursor = cursor(&hq().db.read()?, &import)?;
    if cursor.done {
        return finished(ctx, &import, &cursor.domain);
    }
    if cursor.rows != row {
        tracing::info!(import, row, at = cursor.rows, "an earlier run got further than it could say");
    }
    let path = hq().uploads.join(&cursor.file);
    let file = File::open(&path)
        .map_err(|e| TaskError::permanent(format!("the upload {} cannot be opened: {e}", path.display())))?;
    let (mut reader, columns) = open(file).map_err(TaskError::permanent)?;
    let rows = read_chunk(ctx, &mut reader, &columns, &cursor)?;
    let (rows_read, at) = (rows.len(), reader.position().clone());
    let done = rows_read < CHUNK;
    hq().db.write(|tx| save(tx, &import, &cursor, &rows, &at, done))?;
    let imported = cursor.rows + rows_read as u64;
    tracing::info!(import, rows = imported, done, "imported");
    if done {
        return finished(ctx, &import, &cursor.domain);
    }
    Err(TaskError::continue_with(import_cases::s(domain, import, imported)))
}

/// A row of the file: the case, or the line and what is wrong with it.
type Row = Result<Case, (u64, String)>;

struct Case {
    id: String,
    name: String,
    owner: String,
    village: String,
    visits: i64,
}

fn read_chunk<R: Read + Seek>(
    ctx: &Context,
    reader: &mut Reader<R>,
    columns: &Columns,
    cursor: &Cursor,
) -> Result<Vec<Row>, TaskError> {
    if cursor.rows > 0 {
        let mut at = Position::new();
        at.set_byte(cursor.byte).set_line(cursor.line).set_record(cursor.rows + 1);
        reader.seek(at)?;
    }
    let width = reader.byte_headers()?.len();
    let mut rows = Vec::with_capacity(CHUNK);
    let mut record = ByteRecord::new();
    while rows.len() < CHUNK && reader.read_byte_record(&mut record)? {
        ctx.check()?;
        let line = record.position().map_or(0, Position::line);
        rows.push(case(&record, columns, width).map_err(|error| (line, error)));
    }
    Ok(rows)
}

fn case(record: &ByteRecord, columns: &Columns, width: usize) -> Result<Case, String> {
    if record.len() != width {
        return Err(format!("{} fields where the header has {width}", record.len()));
    }
    let field = |column: usize| -> Result<&str, String> {
        let bytes = columns[column].and_then(|at| record.get(at)).unwrap_or_default();
        Ok(std::str::from_utf8(bytes).map_err(|_| format!("`{}` is not UTF-8", COLUMNS[column]))?.trim())
    };
    let id = field(0)?;
    if id.is_empty() || id.len() > LONGEST_ID {
        return Err(format!("`case_id` has {} bytes; it needs 1 to {LONGEST_ID}", id.len()));
    }
    let visits = match field(4)? {
        "" => 0,
        text => text.parse().map_err(|_| format!("`visits` is `{text}`, which is no whole number"))?,
    };
    Ok(Case {
        id: id.to_owned(),
        name: field(1)?.to_owned(),
        owner: field(2)?.to_owned(),
        village: field(3)?.to_owned(),
        visits,
    })
}

/// Rows and cursor, together.
fn save(
    tx: &Connection,
    import: &str,
    cursor: &Cursor,
    rows: &[Row],
    at: &Position,
    done: bool,
) -> Result<(), TaskError> {
    let mut exists = tx.prepare_cached("SELECT 1 FROM cases WHERE domain = ? AND case_id = ?")?;
    let mut upsert = tx.prepare_cached(
        "INSERT INTO cases (domain, case_id, name, owner, village, visits) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET name = ?3, owner = ?4, village = ?5, visits = ?6",
    )?;
    let mut complain = tx.prepare_cached("INSERT OR IGNORE INTO import_error VALUES (?, ?, ?)")?;
    let kept: i64 =
        tx.query_row("SELECT count(*) FROM import_error WHERE import = ?", [import], |r| r.get(0))?;
    let room = usize::try_from(ERRORS_KEPT - kept).unwrap_or(0);
    let (mut created, mut updated, mut refused) = (0, 0, 0);
    for row in rows {
        match row {
            Ok(case) => {
                let known = exists.exists((&cursor.domain, &case.id))?;
                *(if known { &mut updated } else { &mut created }) += 1;
                upsert.execute((
                    &cursor.domain,
                    &case.id,
                    &case.name,
                    &case.owner,
                    &case.village,
                    case.visits,
                ))?;
            }
            Err((line, error)) => {
                if refused < room {
                    complain.execute((import, line, error))?;
                }
                refused += 1;
            }
        }
    }
    let sql = "UPDATE import SET rows = rows + ?, created = created + ?, updated = updated + ?, refused = refused + ?,
               byte = ?, line = ?, done = ? WHERE id = ? AND rows = ?";
    let changed = tx.execute(
        sql,
        (rows.len(), created, updated, refused, at.byte(), at.line(), done, import, cursor.rows),
    )?;
    if changed == 0 {
        // Only possible if this very import runs twice at a time. The other run's rows stand; these roll back.
        return Err(TaskError::transient(format!("import `{import}` was moved on by another run")));
    }
    Ok(())
}

/// The outcome, and what follows from an import.
fn finished(ctx: &Context, import: &str, domain: &str) -> Result<Imported, TaskError> {
    let next = domain::update_calculated_properties::s(domain.to_owned());
    follow(next, format!("{}:calculated", ctx.id()))?;
    let db = hq().db.read()?;
    let sql = "SELECT created, updated, refused FROM import WHERE id = ?";
    let (created, updated, refused) =
        db.query_row(sql, [import], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    let mut errors = db.prepare("SELECT line, message FROM import_error WHERE import = ? ORDER BY line")?;
    let errors = errors
        .query_map([import], |r| Ok(format!("line {}: {}", r.get::<_, u64>(0)?, r.get::<_, String>(1)?)))?
        .collect::<Result<_, _>>()?;
    Ok(Imported { created, updated, refused, errors })
}

/// Notes an upload that is to be imported.
pub fn register(id: &str, domain: &str, file: &str) -> rusqlite::Result<()> {
    hq().db.write(|tx| {
        tx.execute("INSERT OR IGNORE INTO domain (name) VALUES (?)", [domain])?;
        let zone = super::domain::first_guess(domain);
        tx.execute("INSERT OR IGNORE INTO domain_zone VALUES (?, ?)", [domain, zone])?;
        tx.execute("INSERT OR IGNORE INTO import (id, domain, file) VALUES (?, ?, ?)", [id, domain, file])?;
        Ok(())
    })
}
