//! Rows that are written with `diesel`.
//!
//! diesel knows no type for a transaction: inside of `connection.transaction(..)` it is the connection itself. And one
//! implementation for all connections would stand in the way of those for other drivers. So the connection is wrapped.

use std::future::ready;

use diesel::connection::Connection;
use diesel::sql_types::Text;
use diesel::{QueryResult, RunQueryDsl, sql_query};

use super::{CommitRow, CommitTableError, CommitTransaction, WriteRow};

/// A connection of `diesel` in a transaction, as the place where a row of the commit table is written.
///
/// ```no_run
/// # #[cfg(feature = "diesel-sqlite")]
/// # mod demo {
/// use celeriac::commit_table::DieselTransaction;
/// use celeriac::task;
/// use diesel::{Connection, SqliteConnection};
///
/// #[task]
/// async fn send_email(user: u64) {}
///
/// fn register(connection: &mut SqliteConnection, user: u64) -> Result<(), Box<dyn std::error::Error>> {
///     connection.transaction(|connection| {
///         // the program's own rows
///         send_email::delay_on_commit(&mut DieselTransaction(connection), user).wait()?;
///         Ok(())
///     })
/// }
/// # }
/// # fn main() {}
/// ```
pub struct DieselTransaction<'c, C>(
    /// The connection, inside of a transaction.
    pub &'c mut C,
);

impl<C> CommitTransaction for DieselTransaction<'_, C>
where
    C: Connection,
    C::Backend: Dialect<C>,
{
    fn write(&mut self, row: CommitRow) -> WriteRow<'_> {
        let written = <C::Backend as Dialect<C>>::write(self.0, &row);
        Box::pin(ready(written.map(|rows| rows > 0).map_err(failed)))
    }
}

fn failed(error: diesel::result::Error) -> CommitTableError {
    let text = error.to_string();
    let is_missing = text.contains("no such table") || text.contains("does not exist");
    CommitTableError::of(error, is_missing && text.contains("celeriac_on_commit"))
}

/// A database that rows can be written into, as diesel speaks to it.
pub trait Dialect<C> {
    /// Writes a row, and answers with 1, or with 0 if its id is taken.
    fn write(connection: &mut C, row: &CommitRow) -> QueryResult<usize>;
}

#[cfg(feature = "diesel-postgres")]
impl<C: Connection<Backend = diesel::pg::Pg>> Dialect<C> for diesel::pg::Pg {
    fn write(connection: &mut C, row: &CommitRow) -> QueryResult<usize> {
        sql_query(super::INTO_POSTGRES)
            .bind::<Text, _>(row.id.as_str())
            .bind::<Text, _>(row.task.as_str())
            .bind::<Text, _>(row.call.as_str())
            .execute(connection)
    }
}

#[cfg(feature = "diesel-sqlite")]
impl<C: Connection<Backend = diesel::sqlite::Sqlite>> Dialect<C> for diesel::sqlite::Sqlite {
    fn write(connection: &mut C, row: &CommitRow) -> QueryResult<usize> {
        sql_query(super::INTO_SQLITE)
            .bind::<Text, _>(row.id.as_str())
            .bind::<Text, _>(row.task.as_str())
            .bind::<Text, _>(row.call.as_str())
            .execute(connection)
    }
}
