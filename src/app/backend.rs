//! Which store an address of a result backend means, as Celery's `result_backend` does. The builder and the command
//! line open stores by it. A mistake in an address is an error when it is opened, with a text that says what to do.

use std::path::PathBuf;
use std::sync::Arc;

use crate::core::address::shown;
use crate::store::{MemoryStore, Store, StoreError};

/// A result backend that is open.
pub(crate) struct OpenBackend {
    pub(crate) store: Arc<dyn Store>,
    /// The same store, if it is Redis: it keeps lanes for RabbitMQ as well.
    #[cfg(all(feature = "amqp", feature = "redis"))]
    pub(crate) redis: Option<crate::store::RedisStore>,
}

impl OpenBackend {
    /// A backend whose store keeps no lanes.
    pub(crate) fn plain(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            #[cfg(all(feature = "amqp", feature = "redis"))]
            redis: None,
        }
    }
}

/// A result backend that is not opened yet.
pub(crate) enum Backend {
    Memory,
    #[cfg(feature = "redis")]
    Redis(String, crate::store::RedisOptions),
    #[cfg(feature = "amqp")]
    Rpc(String),
    /// An address whose scheme means nothing to Celeriac, or to this build of it.
    Unknown(String),
}

impl Backend {
    /// The backend that an address means. It does not fail: mistakes in the address are errors of
    /// [`open`](Self::open).
    pub(crate) fn at(url: String) -> Self {
        match scheme(&url).as_str() {
            "memory" => Self::Memory,
            #[cfg(feature = "redis")]
            "redis" | "rediss" | "redis+unix" | "unix" | "sentinel" => {
                Self::Redis(url, crate::store::RedisOptions::default())
            }
            #[cfg(feature = "redis")]
            "redis+socket" | "socket" => Self::Redis(at_socket(&url), crate::store::RedisOptions::default()),
            #[cfg(feature = "amqp")]
            "rpc" | "rpcs" => Self::Rpc(url),
            _ => Self::Unknown(url),
        }
    }

    /// Its address, with whatever secrets it has.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Memory => "memory://".to_owned(),
            #[cfg(feature = "redis")]
            Self::Redis(url, _) => url.clone(),
            #[cfg(feature = "amqp")]
            Self::Rpc(url) => url.clone(),
            Self::Unknown(url) => url.clone(),
        }
    }

    /// Opens the backend. `rabbitmq` is the broker's address if the broker is RabbitMQ; `rpc://` without an address
    /// of its own uses it. `max_chord_size` is the most bytes that the results of a chord may take together.
    ///
    /// # Errors
    /// The address is wrong, this build has no such backend, or the server cannot be reached.
    #[cfg_attr(not(all(feature = "amqp", feature = "redis")), allow(unused_variables))]
    pub(crate) async fn open(
        self,
        rabbitmq: Option<&str>,
        ca_certs: Option<PathBuf>,
        max_chord_size: usize,
    ) -> Result<OpenBackend, StoreError> {
        match self {
            Self::Memory => Ok(OpenBackend::plain(Arc::new(MemoryStore::default()))),
            #[cfg(feature = "redis")]
            Self::Redis(url, mut options) => {
                options.ca_certs = options.ca_certs.or(ca_certs);
                options.max_chord_size = max_chord_size;
                let redis = crate::store::RedisStore::connect(&url, options).await?;
                Ok(OpenBackend {
                    #[cfg(feature = "amqp")]
                    redis: Some(redis.clone()),
                    store: Arc::new(redis),
                })
            }
            #[cfg(feature = "amqp")]
            Self::Rpc(url) => {
                let its_own = !matches!(url.as_str(), "rpc" | "rpc:" | "rpc://" | "rpc:///");
                let url = match rabbitmq {
                    _ if its_own => url,
                    Some(rabbitmq) => rabbitmq.to_owned(),
                    None => "rpc://".to_owned(),
                };
                let options = crate::store::RpcOptions { ca_certs, ..Default::default() };
                Ok(OpenBackend::plain(Arc::new(crate::store::RpcStore::connect(&url, options).await?)))
            }
            Self::Unknown(url) => Err(StoreError::Unsupported(unknown(&url))),
        }
    }
}

/// Celery's address of a Redis at a Unix socket, `redis+socket://:password@/path?virtual_host=1`, in the spelling of
/// Redis.
#[cfg(feature = "redis")]
fn at_socket(url: &str) -> String {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let database = query.split('&').find_map(|pair| pair.strip_prefix("virtual_host="));
    let parts = [("db", database.unwrap_or_default()), ("user", user), ("pass", password)];
    let parts = parts.iter().filter(|(_, value)| !value.is_empty());
    let parts: Vec<String> = parts.map(|(name, value)| format!("{name}={value}")).collect();
    let mark = if parts.is_empty() { "" } else { "?" };
    format!("redis+unix://{path}{mark}{}", parts.join("&"))
}

/// The text before the first colon, in lower case: an address may write its scheme in either case.
fn scheme(url: &str) -> String {
    url.split_once(':').map_or(url, |(scheme, _)| scheme).to_ascii_lowercase()
}

/// What is to be said of an address that means nothing to this build.
pub(super) fn unknown(url: &str) -> String {
    match scheme(url).as_str() {
        "redis" | "rediss" | "sentinel" => "this build of Celeriac has no Redis: build it with the feature `redis`".to_owned(),
        "rpc" | "rpcs" => "this build of Celeriac has no RabbitMQ: build it with the feature `amqp`".to_owned(),
        "amqp" => "results over RabbitMQ are `rpc://…`; Celery's old `amqp://` result backend does not exist any more".to_owned(),
        _ => format!("`{}` is no result backend of Celeriac; there are redis://, sentinel://, rpc:// and memory://", shown(url)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "redis")]
    #[test]
    fn celerys_address_of_a_socket_is_understood() {
        for (celerys, ours) in [
            ("redis+socket:///run/redis.sock", "redis+unix:///run/redis.sock"),
            ("socket:///run/redis.sock?virtual_host=3", "redis+unix:///run/redis.sock?db=3"),
            (
                "redis+socket://hq:geheim@/run/redis.sock?virtual_host=3&x=y",
                "redis+unix:///run/redis.sock?db=3&user=hq&pass=geheim",
            ),
        ] {
            let Backend::Redis(address, _) = Backend::at(celerys.to_owned()) else { panic!("{celerys}") };
            assert_eq!(address, ours);
        }
    }

    #[tokio::test]
    async fn an_address_that_means_nothing_is_told_so() {
        for (url, part) in [
            ("mongodb://h", "`mongodb://h` is no result backend"),
            ("redis//:geheim@h", "`redis//***@h` is no result backend"),
            ("geheim@h", "`***@h` is no result backend"),
            ("amqp://h", "are `rpc://…`"),
            ("", "`` is no result backend"),
        ] {
            let error =
                Backend::at(url.to_owned()).open(None, None, 0).await.err().expect("an error").to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(Backend::at("Memory://".to_owned()).open(None, None, 0).await.is_ok());
    }
}
