//! Rows that are written with `sqlx`, in its transactions and on its connections.

use super::{CommitRow, CommitTableError, CommitTransaction, WriteRow};

/// The error of a call of `sqlx`.
pub(super) fn failed(error: sqlx::Error) -> CommitTableError {
    let missing = error.as_database_error().is_some_and(|error| {
        let undefined_table = error.code().is_some_and(|code| code == "42P01" || code == "42S02");
        undefined_table || error.message().contains("no such table: celeriac_on_commit")
    });
    CommitTableError::of(error, missing)
}

#[cfg(feature = "sqlx-postgres")]
impl CommitTransaction for sqlx::PgConnection {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        Box::pin(async move {
            let CommitRow { id, task, call } = row;
            let written = sqlx::query(super::INTO_POSTGRES).bind(id.to_string()).bind(task).bind(call);
            Ok(written.fetch_optional(self).await.map_err(failed)?.is_some())
        })
    }
}

#[cfg(feature = "sqlx-postgres")]
impl CommitTransaction for sqlx::Transaction<'_, sqlx::Postgres> {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        CommitTransaction::write(&mut **self, row)
    }
}

#[cfg(feature = "sqlx-mysql")]
impl CommitTransaction for sqlx::MySqlConnection {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        Box::pin(async move {
            let CommitRow { id, task, call } = row;
            let written = sqlx::query(super::INTO_MYSQL).bind(id.to_string()).bind(task).bind(call);
            match written.execute(self).await {
                Ok(_) => Ok(true),
                // The server has undone this statement alone, so the transaction can go on.
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
                Err(error) => Err(failed(error)),
            }
        })
    }
}

#[cfg(feature = "sqlx-mysql")]
impl CommitTransaction for sqlx::Transaction<'_, sqlx::MySql> {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        CommitTransaction::write(&mut **self, row)
    }
}

#[cfg(feature = "sqlx-sqlite")]
impl CommitTransaction for sqlx::SqliteConnection {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        Box::pin(async move {
            let CommitRow { id, task, call } = row;
            let written = sqlx::query(super::INTO_SQLITE).bind(id.to_string()).bind(task).bind(call);
            Ok(written.execute(self).await.map_err(failed)?.rows_affected() > 0)
        })
    }
}

#[cfg(feature = "sqlx-sqlite")]
impl CommitTransaction for sqlx::Transaction<'_, sqlx::Sqlite> {
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        CommitTransaction::write(&mut **self, row)
    }
}
