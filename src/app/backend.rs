//! Which store a result backend's address means.

use std::path::PathBuf;
use std::sync::Arc;

use crate::store::{MemoryStore, Store, StoreError};

/// A result backend that is open.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// The same, if it is Redis, which keeps lanes as well.
    #[cfg(feature = "redis")]
    pub(crate) redis: Option<crate::store::RedisStore>,
}

impl Opened {
    /// One that keeps no lanes.
    pub(crate) fn plain(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            #[cfg(feature = "redis")]
            redis: None,
        }
    }
}

/// A result backend, not opened yet.
pub(crate) enum Backend {
    Memory,
    #[cfg(feature = "redis")]
    Redis(String, crate::store::RedisOptions),
    #[cfg(feature = "amqp")]
    Rpc(String),
    /// An address that means nothing here, or not in this build.
    Unknown(String),
}

impl Backend {
    /// What an address means. Mistakes in it are told when it is opened.
    pub(crate) fn at(url: String) -> Self {
        let scheme = url.split_once(':').map_or(url.as_str(), |(scheme, _)| scheme);
        match scheme {
            "memory" => Self::Memory,
            #[cfg(feature = "redis")]
            "redis" | "rediss" | "redis+unix" | "unix" => {
                Self::Redis(url, crate::store::RedisOptions::default())
            }
            #[cfg(feature = "amqp")]
            "rpc" | "rpcs" => Self::Rpc(url),
            _ => Self::Unknown(url),
        }
    }

    /// Opens it. `rabbitmq` is the broker's address, if the broker is one.
    #[cfg_attr(not(all(feature = "amqp", feature = "redis")), allow(unused_variables))]
    pub(crate) async fn open(
        self,
        rabbitmq: Option<&str>,
        ca_certs: Option<PathBuf>,
    ) -> Result<Opened, StoreError> {
        match self {
            Self::Memory => Ok(Opened::plain(Arc::new(MemoryStore::default()))),
            #[cfg(feature = "redis")]
            Self::Redis(url, mut options) => {
                options.ca_certs = options.ca_certs.or(ca_certs);
                let redis = crate::store::RedisStore::connect(&url, options).await?;
                Ok(Opened { store: Arc::new(redis.clone()), redis: Some(redis) })
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
                Ok(Opened::plain(Arc::new(crate::store::RpcStore::connect(&url, options).await?)))
            }
            Self::Unknown(url) => Err(StoreError::Unsupported(unknown(&url))),
        }
    }
}

fn unknown(url: &str) -> String {
    let scheme = url.split_once(':').map_or(url, |(scheme, _)| scheme);
    match scheme {
        "redis" | "rediss" => "this build of Celeriac has no Redis: build it with the feature `redis`".to_owned(),
        "rpc" | "rpcs" => "this build of Celeriac has no RabbitMQ: build it with the feature `amqp`".to_owned(),
        "amqp" => "results over RabbitMQ are `rpc://…`; Celery's old `amqp://` result backend does not exist any more".to_owned(),
        _ => format!("`{scheme}` is no result backend of Celeriac; there are redis://, rpc:// and memory://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_means_nothing_is_told_so() {
        for (url, part) in [
            ("mongodb://h", "`mongodb` is no result backend"),
            ("amqp://h", "are `rpc://…`"),
            ("", "`` is no result backend"),
        ] {
            let error =
                Backend::at(url.to_owned()).open(None, None).await.err().expect("an error").to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(Backend::at("memory://".to_owned()).open(None, None).await.is_ok());
    }
}
