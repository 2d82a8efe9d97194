//! The connection for commands, and the treatment of errors. All callers share the one connection, and the link makes
//! it anew when it is lost.
//!
//! The client's own reconnecting connection stays with a server that was demoted to a replica, and its pauses would add
//! to the link's. So the link keeps the client's plain multiplexed connection, and replaces it. For the same
//! reason the link asks the sentinels itself (`sentinel.rs`), with the same pauses and the same patience.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, RedisResult, ServerErrorKind,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::RedisOptions;
use super::sentinel::{Sentinels, check_master};
use crate::core::Backoff;
use crate::core::address::{said_of, shown};
use crate::core::time::deadline;
use crate::store::StoreError;
use crate::tls;

/// A command without an answer after this time counts as lost, and so does its connection.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pauses between attempts.
pub(super) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

/// Where the server is.
enum RedisServer {
    /// At an address that does not change.
    Fixed(Box<Client>),
    /// Where the sentinels say.
    Found(Box<Sentinels>),
}

/// The way to one database of one server.
pub(super) struct RedisLink {
    place: RedisServer,
    /// The address without the password.
    pub(super) address: String,
    /// The number of the database.
    pub(super) database: i64,
    patience: Duration,
    live: Mutex<Option<Arc<MultiplexedConnection>>>,
}

/// What the link does after an error.
enum Cure {
    /// The link tries the command later, on the same connection.
    Later,
    /// The link tries the command later, on a new connection.
    Reconnect,
    /// No further attempt helps.
    None,
}

impl RedisLink {
    /// Reads the address, and does not connect yet.
    pub(super) fn new(url: &str, options: &RedisOptions) -> Result<Self, StoreError> {
        let is_found = Sentinels::are_at(url);
        let example = if is_found {
            "sentinel://:password@one:26379/0;sentinel://two:26379?master_name=mymaster"
        } else {
            "redis://:password@host:6379/0"
        };
        let wrong = |why: &str| {
            StoreError::io(format!(
                "`{}` is no address of a Redis: {why}; it looks like {example}",
                shown(url)
            ))
        };
        let ca_certs = options.ca_certs.as_deref();
        let (place, address, database) = if is_found {
            let sentinels =
                Sentinels::new(url, options.master_name.as_deref(), ca_certs).map_err(|why| wrong(&why))?;
            let (address, database) = (sentinels.address(), sentinels.database());
            (RedisServer::Found(Box::new(sentinels)), address, database)
        } else {
            let ca_certs = authorities(url, ca_certs).map_err(|why| wrong(&why))?;
            let info = url.into_connection_info().map_err(|error| wrong(&said_of(url, &error)))?;
            let (address, database) = (info.addr().to_string(), info.redis_settings().db());
            let client = open(info, ca_certs).map_err(|error| wrong(&said_of(url, &error)))?;
            (RedisServer::Fixed(Box::new(client)), address, database)
        };
        let address = match database {
            0 => address,
            db => format!("{address}, database {db}"),
        };
        Ok(Self { place, address, database, patience: options.patience, live: Mutex::new(None) })
    }

    /// The client of the server where it is now.
    async fn client(&self) -> RedisResult<Client> {
        match &self.place {
            RedisServer::Fixed(client) => Ok(Client::clone(client)),
            RedisServer::Found(sentinels) => sentinels.master().await,
        }
    }

    async fn connection(&self) -> RedisResult<Arc<MultiplexedConnection>> {
        let mut live = self.live.lock().await;
        if let Some(connection) = &*live {
            return Ok(Arc::clone(connection));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let client = self.client().await?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        if matches!(self.place, RedisServer::Found(_)) {
            check_master(&mut connection).await?;
        }
        let connection = Arc::new(connection);
        *live = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Drops a lost connection, so that the next caller makes a new one. Does nothing if another caller dropped it
    /// already.
    async fn drop_connection(&self, lost: &Arc<MultiplexedConnection>) {
        self.live.lock().await.take_if(|live| Arc::ptr_eq(live, lost));
    }

    /// Opens a connection of its own for subscriptions.
    pub(super) async fn subscriber(&self) -> RedisResult<redis::aio::PubSub> {
        let timed_out = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let client = self.client().await?;
        tokio::time::timeout(CONNECT_TIMEOUT, client.get_async_pubsub())
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }

    /// Runs `work`, which may be done twice, until it succeeds, fails for good, or takes longer than the patience. The
    /// argument of `work` says whether it was tried before, in which case its writes may be there already. Errors name the
    /// `key`, unless it is empty.
    pub(super) async fn run<T, W, F>(&self, key: &str, work: W) -> Result<T, StoreError>
    where
        W: Fn(MultiplexedConnection, bool) -> F,
        F: Future<Output = RedisResult<T>>,
    {
        let deadline = deadline(Instant::now(), self.patience);
        let mut backoff = BACKOFF;
        let mut again = false;
        loop {
            let error = match self.connection().await {
                Err(error) => error,
                Ok(connection) => match work(MultiplexedConnection::clone(&connection), again).await {
                    Ok(value) => return Ok(value),
                    Err(error) => {
                        again = true;
                        if matches!(cure(&error), Cure::Reconnect) {
                            self.drop_connection(&connection).await;
                        }
                        error
                    }
                },
            };
            if matches!(cure(&error), Cure::None) || Instant::now() >= deadline {
                return Err(self.explain(key, &error));
            }
            tracing::debug!(address = self.address, %error, "redis does not answer; tried again");
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Makes the error for the caller, with what to do about it.
    pub(super) fn explain(&self, key: &str, error: &RedisError) -> StoreError {
        let address = &self.address;
        let code = error.code().unwrap_or_default();
        let text = error.to_string();
        // The command is too large, however often it is sent.
        if text.contains("exceeds maximum allowed size") || text.contains("invalid bulk length") {
            return StoreError::Refused(format!(
                "redis at {address}: {error}; keep less in results, or raise `proto-max-bulk-len` there (key `{key}`)"
            ));
        }
        // A script wraps the error of the command that the script called.
        if code == "WRONGTYPE" || text.contains("WRONGTYPE ") {
            return StoreError::Refused(format!(
                "redis at {address} holds something else than a result document under `{key}`: look at it (TYPE {key}), delete it, or give Celeriac a key prefix or a database of its own"
            ));
        }
        let advice = match code {
            "READONLY" => "it is a replica: give the address of the primary",
            "LOADING" => "it is still loading its data: wait, or raise `RedisOptions::patience`",
            "MASTERDOWN" => {
                "it is a replica without a primary: repair the replication, or give the address of the primary"
            }
            "OOM" => {
                "its memory is full: raise `maxmemory`, or keep results for a shorter time (`result_expires`)"
            }
            "MISCONF" => "it cannot save to its disk and refuses writes: free its disk, or see its log",
            "NOPERM" => {
                "its user may not do this: Celeriac needs GET, SETEX, DEL, EVAL, PUBLISH, SUBSCRIBE and the commands of sorted sets"
            }
            "NOAUTH" | "WRONGPASS" => "name and password go into the address: redis://user:password@host",
            _ if error.is_connection_refusal() => {
                "nothing listens there: is Redis running, is the port right?"
            }
            _ if error.kind() == ErrorKind::AuthenticationFailed => {
                "name and password go into the address: redis://user:password@host"
            }
            _ if error.kind() == ErrorKind::MasterNameNotFoundBySentinel => {
                "`RedisOptions::master_name` is the name in their setting `sentinel monitor`"
            }
            _ => "see its log, and whether it can be reached from here",
        };
        let of_key = if key.is_empty() { String::new() } else { format!(" (key `{key}`)") };
        StoreError::io_because(format!("redis at {address}: {error}; {advice}{of_key}"), error.clone())
    }
}

fn cure(error: &RedisError) -> Cure {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => Cure::Reconnect,
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::TryAgain | ServerErrorKind::ClusterDown,
        ) => Cure::Later,
        // A script wraps the error of the command that the script called, on a replica or without memory.
        _ if matches!(error.code(), Some("READONLY")) => Cure::Reconnect,
        _ if matches!(error.code(), Some("OOM" | "MISCONF" | "BUSY" | "NOREPLICAS" | "UNBLOCKED")) => {
            Cure::Later
        }
        ErrorKind::Io | ErrorKind::Parse => Cure::Reconnect,
        ErrorKind::AuthenticationFailed => Cure::None,
        _ if error.is_unrecoverable_error() => Cure::Reconnect,
        _ => Cure::None,
    }
}

/// The certificate authorities against which a server behind `rediss://` is checked, if they are not the system's. They
/// come from the options, or from redis-py's parameter in the address.
pub(super) fn authorities(url: &str, ca_certs: Option<&Path>) -> Result<Option<String>, String> {
    // The case of a scheme does not matter, so a scheme in capitals must not slip through.
    if !url.get(..9).is_some_and(|scheme| scheme.eq_ignore_ascii_case("rediss://")) {
        return Ok(None);
    }
    #[cfg(not(feature = "tls"))]
    {
        let _ = ca_certs;
        Err(tls::MISSING.to_owned())
    }
    #[cfg(feature = "tls")]
    {
        tls::prepare();
        let mut file = ca_certs.map(Path::to_owned);
        let parsed = redis::parse_redis_url(url);
        for (name, value) in parsed.iter().flat_map(|url| url.query_pairs()) {
            match &*name {
                "ssl_ca_certs" => file = file.or_else(|| Some(value.into_owned().into())),
                "ssl_cert_reqs" if !matches!(&*value, "required" | "CERT_REQUIRED") => {
                    return Err("its ssl_cert_reqs would not check who the server is; name its authority with ssl_ca_certs=/path/to/ca.pem instead".to_owned());
                }
                _ => {}
            }
        }
        file.map(|file| tls::read_authorities(&file)).transpose()
    }
}

#[cfg(feature = "tls")]
pub(super) fn open(info: redis::ConnectionInfo, ca_certs: Option<String>) -> RedisResult<Client> {
    match ca_certs {
        None => Client::open(info),
        Some(pem) => {
            let root_cert = Some(pem.into_bytes());
            Client::build_with_tls(info, redis::TlsCertificates { client_tls: None, root_cert })
        }
    }
}

#[cfg(not(feature = "tls"))]
pub(super) fn open(info: redis::ConnectionInfo, _: Option<String>) -> RedisResult<Client> {
    Client::open(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link without patience.
    fn link(url: &str) -> Result<RedisLink, StoreError> {
        RedisLink::new(url, &RedisOptions { patience: Duration::ZERO, ..RedisOptions::default() })
    }

    #[test]
    fn addresses_are_checked_and_shown_without_the_password() {
        let error = |url| link(url).err().expect("an error").to_string();
        let unchecked = error("rediss://:secret@h/0?ssl_cert_reqs=none");
        let part = if cfg!(feature = "tls") { "ssl_ca_certs" } else { "feature `tls`" };
        assert!(unchecked.contains("rediss://***@h/0") && unchecked.contains(part), "{unchecked}");
        let wrong = error("redis://:secret@h/x");
        assert!(wrong.starts_with("`redis://***@h/x` is no address"), "{wrong}");
        let found = link("redis://:secret@h:7000/3").expect("an address");
        assert_eq!(found.address, "h:7000, database 3");
        let wrong = error("sentinel://:secret@h/x?master_name=m");
        assert!(wrong.starts_with("`sentinel://***@h/x?***` is no address"), "{wrong}");
        let found = link("sentinel://:secret@h/3?master_name=m").expect("an address");
        assert_eq!(found.address, "m (by sentinel h:26379), database 3");
    }

    #[test]
    fn errors_say_what_to_do() {
        let link = link("redis://h/0").expect("an address");
        let server = |code: &str| redis::make_extension_error(code.to_owned(), Some("text".to_owned()));
        for (code, part) in [
            ("OOM", "raise `maxmemory`"),
            ("MISCONF", "free its disk"),
            ("NOAUTH", "redis://user:password@host"),
        ] {
            let text = link.explain("k", &server(code)).to_string();
            assert!(text.starts_with("redis at h:6379") && text.contains(part), "{text}");
        }
        let wrong = link.explain("k", &server("WRONGTYPE"));
        assert!(matches!(&wrong, StoreError::Refused(text) if text.contains("TYPE k")), "{wrong}");
        for text in [
            "string exceeds maximum allowed size (proto-max-bulk-len)",
            "Error running script: WRONGTYPE Operation",
        ] {
            let error = redis::make_extension_error("ERR".to_owned(), Some(text.to_owned()));
            assert!(link.explain("k", &error).is_permanent(), "{text}");
        }
    }

    /// Nobody listens on that port, and a link with patience for ever goes on trying.
    #[tokio::test]
    async fn patience_for_ever_goes_on_trying() {
        let options = RedisOptions { patience: Duration::MAX, ..RedisOptions::default() };
        let link = RedisLink::new("redis://127.0.0.1:1", &options).unwrap();
        let work = |mut connection: MultiplexedConnection, _| async move {
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        let tried = tokio::time::timeout(Duration::from_millis(60), link.run("a", work)).await;
        assert!(tried.is_err(), "it has given up: {tried:?}");
    }
}
