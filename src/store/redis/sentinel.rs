//! A Redis that is found through its sentinels, as Celery's `sentinel://` finds it.
//!
//! The sentinels are asked for the master before each connection, so the connection after a failover goes to the new
//! master. Nobody has to subscribe to their news: a master that died, or that the sentinels demote, loses its clients.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, Role, ServerErrorKind,
};

use super::link::{authorities, open};
use crate::core::address::said_of;

/// How long a sentinel may take to accept a connection, and as long again to answer, before the next one is asked.
const ANSWER: Duration = Duration::from_secs(1);
/// The port of a sentinel whose address names none.
const PORT: u16 = 26379;

/// The sentinels of one master.
pub(super) struct Sentinels {
    clients: Vec<Client>,
    /// The one that is asked first, because it was the last to answer.
    first: AtomicUsize,
    master_name: String,
    /// How the master is spoken to. The address in it is that of a sentinel.
    master: ConnectionInfo,
    is_tls: bool,
    ca_certs: Option<String>,
}

/// What the query of an address says.
#[derive(Default)]
struct Query {
    master_name: Option<String>,
    is_tls: bool,
    sentinel_is_tls: bool,
    sentinel: RedisConnectionInfo,
}

impl Query {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "master_name" => self.master_name = Some(value.to_owned()),
            "ssl" => self.is_tls = is_on(name, value)?,
            "sentinel_ssl" => self.sentinel_is_tls = is_on(name, value)?,
            "sentinel_username" => self.sentinel = std::mem::take(&mut self.sentinel).set_username(value),
            "sentinel_password" => self.sentinel = std::mem::take(&mut self.sentinel).set_password(value),
            _ => {}
        }
        Ok(())
    }
}

impl Sentinels {
    /// Whether an address names sentinels.
    pub(super) fn are_at(url: &str) -> bool {
        url.split_once("://").is_some_and(|(scheme, _)| is_sentinel(scheme))
    }

    /// Reads the address, which names one or more sentinels with `;` between them, and does not connect yet. An error
    /// is why it cannot be read.
    pub(super) fn new(url: &str, master_name: Option<&str>, ca_certs: Option<&Path>) -> Result<Self, String> {
        let foreign = |error: RedisError| said_of(url, &error);
        let (mut query, mut places) = (Query::default(), Vec::new());
        let mut infos: Vec<ConnectionInfo> = Vec::new();
        for part in url.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let place = match part.split_once("://") {
                None => part,
                Some((scheme, place)) if is_sentinel(scheme) => place,
                Some(_) => return Err("one of its parts is the address of something else".to_owned()),
            };
            // But for the scheme, the address of a sentinel is that of a Redis.
            let parsed = redis::parse_redis_url(&format!("redis://{place}"));
            let parsed = parsed.ok_or("one of its parts cannot be read")?;
            for (name, value) in parsed.query_pairs() {
                query.set(&name, &value)?;
            }
            let port = parsed.port().unwrap_or(PORT);
            let info = parsed.into_connection_info().map_err(foreign)?;
            let ConnectionAddr::Tcp(host, _) = info.addr() else {
                return Err("one of its parts names no host".to_owned());
            };
            let address = ConnectionAddr::Tcp(host.clone(), port);
            infos.push(info.set_addr(address));
            places.push(place);
        }
        let master = infos.first().cloned().ok_or("it names no sentinel")?;
        if infos.iter().any(|info| differs(info.redis_settings(), master.redis_settings())) {
            return Err("its parts name different databases, users or passwords; the first part says those of the master, and the others need none".to_owned());
        }
        let master_name = master_name.map(str::to_owned).or(query.master_name).ok_or(
            "it does not say which master the sentinels are to be asked for; set `RedisOptions::master_name`, or write ?master_name=mymaster behind it",
        )?;
        let mut pem = None;
        if query.is_tls || query.sentinel_is_tls {
            for place in places {
                pem = pem.or(authorities(&format!("rediss://{place}"), ca_certs)?);
            }
        }
        let client = |info: ConnectionInfo| {
            let address = with_tls(info.addr(), query.sentinel_is_tls);
            let info = info.set_addr(address).set_redis_settings(query.sentinel.clone());
            open(info, pem.clone().filter(|_| query.sentinel_is_tls)).map_err(foreign)
        };
        Ok(Self {
            clients: infos.into_iter().map(client).collect::<Result<_, _>>()?,
            first: AtomicUsize::new(0),
            master_name,
            master,
            is_tls: query.is_tls,
            ca_certs: pem.filter(|_| query.is_tls),
        })
    }

    /// What is shown as the address: the master's name and the sentinels.
    pub(super) fn address(&self) -> String {
        let places: Vec<String> =
            self.clients.iter().map(|client| client.get_connection_info().addr().to_string()).collect();
        format!("{} (by sentinel {})", self.master_name, places.join(", "))
    }

    /// The database of the master.
    pub(super) fn database(&self) -> i64 {
        self.master.redis_settings().db()
    }

    /// The master, as the first sentinel that answers knows it.
    pub(super) async fn master(&self) -> RedisResult<Client> {
        let (count, first) = (self.clients.len(), self.first.load(Ordering::Relaxed));
        let mut failed = None;
        for at in (0..count).map(|next| (first + next) % count) {
            match self.ask(&self.clients[at]).await {
                Ok(Some((host, port))) => {
                    self.first.store(at, Ordering::Relaxed);
                    let address = with_tls(&ConnectionAddr::Tcp(host, port), self.is_tls);
                    return open(self.master.clone().set_addr(address), self.ca_certs.clone());
                }
                // A sentinel that has lost its memory knows no master, and another one may.
                Ok(None) => {}
                Err(error) => {
                    let sentinel = self.clients[at].get_connection_info().addr();
                    tracing::debug!(%sentinel, %error, "a sentinel does not say where the master is");
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| {
            let text = "the sentinels know no master of this name";
            (ErrorKind::MasterNameNotFoundBySentinel, text, self.master_name.clone()).into()
        }))
    }

    /// Asks one sentinel where the master is.
    async fn ask(&self, sentinel: &Client) -> RedisResult<Option<(String, u16)>> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        let mut command = redis::cmd("SENTINEL");
        command.arg("get-master-addr-by-name").arg(&self.master_name);
        let asked = async {
            let mut connection = sentinel.get_multiplexed_async_connection_with_config(&config).await?;
            command.query_async::<Option<(String, u16)>>(&mut connection).await
        };
        asked.await.map_err(|error| {
            // Otherwise one would look for the mistake in the password of the master.
            if error.kind() == ErrorKind::AuthenticationFailed || error.code() == Some("NOAUTH") {
                let text = "a sentinel has a password of its own, which ?sentinel_password=… states";
                return RedisError::from((ErrorKind::AuthenticationFailed, text, error.to_string()));
            }
            error
        })
    }
}

/// Makes sure that a server which the sentinels named is a master: shortly after a failover they may name one that was
/// demoted, which answers what it was asked from its old data.
pub(super) async fn check_master(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    match redis::cmd("ROLE").query_async::<Role>(connection).await {
        Ok(Role::Replica { .. }) => {
            let text = "the server that the sentinels name is no master, or not yet";
            Err(RedisError::from((ErrorKind::Server(ServerErrorKind::ReadOnly), text)))
        }
        Err(error) if error.is_io_error() => Err(error),
        // Whose user may not ask learns it from the first write.
        _ => Ok(()),
    }
}

fn is_sentinel(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("sentinel")
}

/// Whether a part of the address says something else about the master than the first part.
fn differs(other: &RedisConnectionInfo, first: &RedisConnectionInfo) -> bool {
    other.username().is_some_and(|name| Some(name) != first.username())
        || other.password().is_some_and(|password| Some(password) != first.password())
        || (other.db() != 0 && other.db() != first.db())
}

fn with_tls(address: &ConnectionAddr, is_tls: bool) -> ConnectionAddr {
    match address {
        ConnectionAddr::Tcp(host, port) if is_tls => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
        other => other.clone(),
    }
}

fn is_on(name: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("its parameter {name} is true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Sentinels, String> {
        Sentinels::new(url, None, None)
    }

    #[test]
    fn celerys_addresses_of_sentinels_are_understood() {
        let url =
            "sentinel://:secret@one/3;sentinel://two:26380?master_name=mymaster&sentinel_password=theirs";
        let sentinels = read(url).unwrap();
        assert_eq!(sentinels.address(), "mymaster (by sentinel one:26379, two:26380)");
        assert_eq!(sentinels.database(), 3);
        assert_eq!(sentinels.master.redis_settings().password(), Some("secret"));
        for client in &sentinels.clients {
            let settings = client.get_connection_info().redis_settings();
            assert_eq!((settings.password(), settings.db()), (Some("theirs"), 0));
        }
        let named = Sentinels::new("SENTINEL://h; other:1 ;", Some("m"), None).unwrap();
        assert_eq!(named.address(), "m (by sentinel h:26379, other:1)");
        assert!(Sentinels::are_at("Sentinel://h") && !Sentinels::are_at("redis://h"));
    }

    #[test]
    fn what_is_wrong_with_an_address_is_told() {
        for (url, part) in [
            ("sentinel://h", "?master_name=mymaster"),
            ("sentinel://h?master_name=m&ssl=perhaps", "ssl is true or false"),
            ("sentinel://h;redis://other?master_name=m", "something else"),
            ("sentinel://:a@h/1;sentinel://other/2?master_name=m", "different databases"),
            ("sentinel://:a@h;sentinel://:b@other?master_name=m", "different databases, users or passwords"),
            ("sentinel://h:x?master_name=m", "cannot be read"),
            ("sentinel://h/x?master_name=z", "Invalid database number"),
        ] {
            let error = read(url).err().expect("an error");
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
