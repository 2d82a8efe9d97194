//! Case imports: an uploaded CSV goes into the database, a thousand rows at a time.

use std::fs::File;

use celeriac::task;
use celeriac::task::{Context, TaskError};
use csv::{Position, Reader, StringRecord};
use rusqlite::params;

use crate::database;
use crate::settings::path;

/// Rows in one step; then others get their turn ("process 1000, then requeue").
const CHUNK: usize = 1000;
const HEADER: [&str; 5] = ["case_id", "domain", "name", "opened_on", "status"];
/// How many faulty lines an import names before it gives up.
const ERRORS: usize = 10;

/// Imports an uploaded file from row `rows`, which begins at byte `byte`, and returns how many rows it had in all.
///
/// Rows are stored by their case's id, so a step that is repeated after a crash changes nothing.
#[task(queue = "case_import_queue")]
pub fn import_cases(ctx: &Context, import_id: String, rows: u64, byte: u64) -> Result<u64, TaskError> {
    let file = path("uploads").join(format!("{import_id}.csv"));
    let mut reader = Reader::from_reader(File::open(&file)?);
    let header = reader.headers().map_err(|e| TaskError::fail([format!("line 1: {e}")]))?;
    if header.iter().ne(HEADER) {
        let found = header.iter().collect::<Vec<_>>().join(",");
        return Err(TaskError::fail([format!(
            "line 1: the columns are {found:?}, but must be {:?}",
            HEADER.join(",")
        )]));
    }
    if byte > 0 {
        let mut position = Position::new();
        position.set_byte(byte).set_record(rows + 1).set_line(rows + 2);
        reader.seek(position)?;
    }
    let (chunk, errors) = read_chunk(&mut reader);
    if !errors.is_empty() {
        return Err(TaskError::fail(errors)); // each faulty line is told
    }
    let done = rows + chunk.len() as u64;
    store(&import_id, &chunk, done)?;
    ctx.check()?;
    if chunk.len() < CHUNK {
        return Ok(done);
    }
    Err(TaskError::continue_with(import_cases::s(import_id, done, reader.position().byte())))
}

fn read_chunk(reader: &mut Reader<File>) -> (Vec<StringRecord>, Vec<String>) {
    let (mut chunk, mut errors) = (Vec::with_capacity(CHUNK), Vec::new());
    for record in reader.records().take(CHUNK) {
        match record {
            Ok(record) if record.get(0).is_some_and(|id| !id.trim().is_empty()) => chunk.push(record),
            Ok(record) => {
                let line = record.position().map_or(0, Position::line);
                errors.push(format!("line {line}: the case_id is empty"));
            }
            Err(error) => errors.push(error.to_string()),
        }
        if errors.len() == ERRORS {
            errors.push("and perhaps more".to_owned());
            break;
        }
    }
    (chunk, errors)
}

/// The rows and the progress are one transaction.
fn store(import_id: &str, chunk: &[StringRecord], done: u64) -> rusqlite::Result<()> {
    let mut connection = database::open()?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    {
        let mut insert = transaction.prepare(
            "INSERT OR REPLACE INTO cases (case_id, domain, name, opened_on, status) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for row in chunk {
            insert.execute(params![&row[0], &row[1], &row[2], &row[3], &row[4]])?;
        }
        transaction.execute(
            "INSERT INTO imports (import_id, rows) VALUES (?1, ?2)
             ON CONFLICT (import_id) DO UPDATE SET rows = max(rows, excluded.rows)",
            params![import_id, done],
        )?;
    }
    transaction.commit()
}
