//! Where RabbitMQ is: one URL or several, as Celery and kombu read them.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, DefaultConnectionBuilder};

use crate::broker::{BrokerError, tls};

/// A URL, and what of it may be shown.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    uri: AMQPUri,
}

/// The nodes of one cluster; at least one. Any of them will do.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    nodes: Vec<Address>,
    tls: OwnedTLSConfig,
}

impl Addresses {
    /// Reads URLs that are separated by `;`, as in Celery's `broker_url`.
    pub(crate) fn parse(urls: &str) -> Result<Self, BrokerError> {
        let several = urls.contains(';');
        let urls = urls.split(';').map(str::trim).filter(|url| !several || !url.is_empty());
        let nodes = urls.map(Address::parse).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(BrokerError::Io("there is no address of RabbitMQ between the `;`".to_owned()));
        }
        Ok(Self { nodes, tls: OwnedTLSConfig::default() })
    }

    /// Nodes that are reached by TLS are checked against the authorities in this file, instead of those of the system.
    pub(crate) fn trusting(mut self, ca_certs: Option<&Path>) -> Result<Self, BrokerError> {
        if let Some(file) = ca_certs {
            self.tls.cert_chain = Some(tls::read_authorities(file).map_err(BrokerError::Io)?);
        }
        Ok(self)
    }

    /// Those whose address does not say otherwise have this heartbeat.
    pub(crate) fn beating(mut self, every: Duration) -> Self {
        let seconds = u16::try_from(every.as_secs().max(1)).unwrap_or(u16::MAX);
        for node in &mut self.nodes {
            node.uri.query.heartbeat.get_or_insert(seconds);
        }
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The one whose turn it is after so many others.
    pub(crate) fn turn(&self, n: usize) -> &Address {
        &self.nodes[n % self.nodes.len()]
    }

    /// Connects to the one whose turn it is.
    pub(crate) async fn connect(&self, n: usize, name: String) -> lapin::Result<Connection> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let builder = DefaultConnectionBuilder::new()?.with_uri(self.turn(n).uri.clone());
        builder.with_properties(properties).with_tls_config(self.tls.clone()).connect().await
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, address) in self.nodes.iter().enumerate() {
            write!(f, "{}{address}", if n == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

impl Address {
    /// Reads a URL. `pyamqp` is `amqp`, `amqps` is over TLS, and no virtual host, or an empty one, is `/`, as for kombu.
    fn parse(url: &str) -> Result<Self, BrokerError> {
        let plain = url.strip_prefix("py").filter(|rest| rest.starts_with("amqp")).unwrap_or(url);
        let mut uri: AMQPUri = plain.parse().map_err(|error| {
            BrokerError::Io(format!(
                "the address of RabbitMQ cannot be read: {error}; it should be `amqp://user:password@host:5672/vhost`"
            ))
        })?;
        if uri.scheme == AMQPScheme::AMQPS {
            #[cfg(feature = "tls")]
            tls::prepare();
            #[cfg(not(feature = "tls"))]
            return Err(BrokerError::Io(tls::MISSING.to_owned()));
        }
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        Ok(Self { uri })
    }
}

impl fmt::Display for Address {
    /// Without the user and the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        write!(f, "{}:{}", authority.host, authority.port)?;
        if *scheme == AMQPScheme::AMQPS {
            f.write_str(" by TLS")?;
        }
        if vhost == "/" { Ok(()) } else { write!(f, " (virtual host `{vhost}`)") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_kombu_does_and_shown_without_the_password() {
        for (url, shown) in [
            ("amqp://guest:geheim@rabbit:5673//", "rabbit:5673"),
            ("amqp://guest:geheim@rabbit/", "rabbit:5672"),
            ("pyamqp://rabbit", "rabbit:5672"),
            ("amqp://u:geheim@rabbit/hq", "rabbit:5672 (virtual host `hq`)"),
            #[cfg(feature = "tls")]
            ("amqps://u:geheim@rabbit/hq", "rabbit:5671 by TLS (virtual host `hq`)"),
        ] {
            assert_eq!(Address::parse(url).unwrap().to_string(), shown, "{url}");
        }
        assert!(Address::parse("redis://x").unwrap_err().to_string().contains("amqp://user:password@host"));
    }

    #[test]
    fn the_heartbeat_is_the_one_in_the_address() {
        let addresses = Addresses::parse("amqp://one?heartbeat=20;amqp://two").unwrap();
        let addresses = addresses.beating(Duration::from_millis(500));
        assert_eq!([0, 1].map(|n| addresses.turn(n).uri.query.heartbeat), [Some(20), Some(1)]);
    }

    #[test]
    fn several_addresses_take_turns() {
        let addresses = Addresses::parse("amqp://a:geheim@one//; pyamqp://two:5673/hq ;").unwrap();
        assert_eq!(addresses.to_string(), "one:5672 or two:5673 (virtual host `hq`)");
        let hosts: Vec<_> = (0..3).map(|n| addresses.turn(n).uri.authority.host.clone()).collect();
        assert_eq!(hosts, ["one", "two", "one"]);
        for (urls, error) in
            [(" ; ", "between the `;`"), ("amqp://one;redis://two", "amqp://user:password@host")]
        {
            assert!(Addresses::parse(urls).unwrap_err().to_string().contains(error), "{urls}");
        }
    }
}
