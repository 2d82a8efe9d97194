//! Rows that are written with `rusqlite`, in its transactions and savepoints and on its connections.

use std::future::ready;

use rusqlite::{Connection, Savepoint, Transaction};

use super::{CommitRow, CommitTableError, CommitTransaction, INTO_SQLITE, WriteRow};

/// The error of a call of `rusqlite`.
pub(super) fn failed(error: rusqlite::Error) -> CommitTableError {
    let missing = error.to_string().contains("no such table: celeriac_on_commit");
    CommitTableError::of(error, missing)
}

fn write(connection: &Connection, row: &CommitRow) -> WriteRow<'static> {
    let values = (row.id.as_str(), &row.task, &row.call);
    let written = connection.execute(INTO_SQLITE, values);
    Box::pin(ready(written.map(|rows| rows > 0).map_err(failed)))
}

/// Outside of a transaction, the row is committed at once.
impl CommitTransaction for Connection {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        write(self, &row)
    }
}

impl CommitTransaction for Transaction<'_> {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        write(self, &row)
    }
}

impl CommitTransaction for Savepoint<'_> {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        write(self, &row)
    }
}
