//! The answers of a database server: how long the forwarder waits for one.

use std::io::{Error, ErrorKind};
use std::time::Duration;

/// How long a server may take for an answer. A machine that has vanished says nothing for a quarter of an hour.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for an answer of this server, and not for ever.
pub(super) async fn in_time<T>(
    server: &str,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => {
            let text = format!("{server} has not answered for {PATIENCE:?}");
            Err(sqlx::Error::Io(Error::new(ErrorKind::TimedOut, text)))
        }
    }
}
