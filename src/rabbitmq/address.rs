//! The addresses of RabbitMQ: one URL or several, as Celery and kombu read them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};

use super::frame_guard::{self, Aside};
use crate::core::address::{said_of, shown};
use crate::core::debug_as_display;
use crate::tls;

/// A URL, which is shown without its password.
#[derive(Clone)]
pub(crate) struct AmqpUrl {
    uri: AMQPUri,
}

/// The parts of an address that may be shown to anybody.
pub(crate) struct AddressParts<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) user: &'a str,
    pub(crate) vhost: &'a str,
    pub(crate) tls: bool,
    pub(crate) heartbeat: Duration,
}

/// The addresses of the nodes of one cluster, at least one. A connection to any of them will do.
#[derive(Clone)]
pub(crate) struct Addresses {
    nodes: Vec<AmqpUrl>,
    tls: OwnedTLSConfig,
}

/// Why an address of RabbitMQ is of no use; the text says what to do.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct AddressError(String);

debug_as_display!(AmqpUrl, Addresses, AddressError);

impl Addresses {
    /// Reads URLs that are separated by `;`, as in Celery's `broker_url`.
    pub(crate) fn parse(urls: &str) -> Result<Self, AddressError> {
        let several = urls.contains(';');
        let urls = urls.split(';').map(str::trim).filter(|url| !several || !url.is_empty());
        let nodes = urls.map(AmqpUrl::parse).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(AddressError("there is no address of RabbitMQ between the `;`".to_owned()));
        }
        Ok(Self { nodes, tls: OwnedTLSConfig::default() })
    }

    /// Checks nodes that are reached by TLS against the certificate authorities in this file, instead of those of
    /// the system.
    pub(crate) fn trusting(mut self, ca_certs: Option<&Path>) -> Result<Self, AddressError> {
        if let Some(file) = ca_certs {
            self.tls.cert_chain = Some(tls::read_authorities(file).map_err(AddressError)?);
        }
        Ok(self)
    }

    /// Gives this heartbeat to those addresses that state none.
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

    /// The address whose turn it is after `n` others.
    pub(crate) fn turn(&self, n: usize) -> &AmqpUrl {
        &self.nodes[n % self.nodes.len()]
    }

    /// The parts of each address, that whose turn it is after `n` others first.
    pub(crate) fn parts(&self, n: usize) -> impl Iterator<Item = AddressParts<'_>> {
        (0..self.len()).map(move |more| self.turn(n + more).parts())
    }

    /// Checks that these addresses and `others` lead to one virtual host.
    ///
    /// # Errors
    /// They do not; the text names both.
    pub(crate) fn check_one_vhost(&self, others: &Self) -> Result<(), AddressError> {
        let mut vhosts = self.nodes.iter().chain(&others.nodes).map(|node| node.uri.vhost.as_str());
        let Some(first) = vhosts.next() else { return Ok(()) };
        match vhosts.find(|vhost| *vhost != first) {
            None => Ok(()),
            Some(other) => Err(AddressError(format!(
                "the addresses to consume from and to publish to lead to the virtual hosts `{}` and `{}`: name one, because queues are declared in the one that is consumed from",
                shown(first),
                shown(other)
            ))),
        }
    }

    /// Connects to the address whose turn it is after `n` others.
    pub(crate) async fn connect(&self, n: usize, name: String) -> lapin::Result<Connection> {
        self.connect_beside(n, name, Arc::default()).await
    }

    /// As [`connect`](Self::connect); properties that come and cannot be read are put into `aside`.
    pub(crate) async fn connect_beside(
        &self,
        n: usize,
        name: String,
        aside: Arc<Aside>,
    ) -> lapin::Result<Connection> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        frame_guard::connect(self.turn(n).uri.clone(), properties, self.tls.clone(), aside).await
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

impl AmqpUrl {
    /// Reads a URL as kombu does: `pyamqp` means `amqp`, `amqps` means TLS, and a missing or empty virtual host
    /// means `/`.
    fn parse(url: &str) -> Result<Self, AddressError> {
        let plain = url.strip_prefix("py").filter(|rest| rest.starts_with("amqp")).unwrap_or(url);
        let mut uri: AMQPUri = plain.parse().map_err(|error| {
            AddressError(format!(
                "the address of RabbitMQ, `{}`, cannot be read: {}; it should be `amqp://user:password@host:5672/vhost`",
                shown(url), said_of(url, &error)
            ))
        })?;
        if uri.scheme == AMQPScheme::AMQPS {
            #[cfg(feature = "tls")]
            tls::prepare();
            #[cfg(not(feature = "tls"))]
            return Err(AddressError(tls::MISSING.to_owned()));
        }
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        Ok(Self { uri })
    }

    fn parts(&self) -> AddressParts<'_> {
        let AMQPUri { scheme, authority, vhost, query } = &self.uri;
        AddressParts {
            host: &authority.host,
            port: authority.port,
            user: &authority.userinfo.username,
            vhost,
            tls: *scheme == AMQPScheme::AMQPS,
            heartbeat: Duration::from_secs(query.heartbeat.unwrap_or_default().into()),
        }
    }
}

impl fmt::Display for AmqpUrl {
    /// Shows the address without the user and the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        write!(f, "{}:{}", authority.host, authority.port)?;
        if *scheme == AMQPScheme::AMQPS {
            f.write_str(" by TLS")?;
        }
        // A part of a password that has a slash in it may end up in the virtual host.
        if vhost == "/" { Ok(()) } else { write!(f, " (virtual host `{}`)", shown(vhost)) }
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
            assert_eq!(AmqpUrl::parse(url).unwrap().to_string(), shown, "{url}");
        }
        assert!(AmqpUrl::parse("redis://x").unwrap_err().to_string().contains("amqp://user:password@host"));
    }

    #[test]
    fn two_addresses_of_one_broker_have_one_virtual_host() {
        let addresses = |urls: &str| Addresses::parse(urls).unwrap();
        let reading = addresses("amqp://u:p@one/hq;amqp://two/hq");
        assert!(reading.check_one_vhost(&addresses("amqp://other:geheim@balancer/hq")).is_ok());
        let error = reading.check_one_vhost(&addresses("amqp://u:geheim@balancer")).unwrap_err().to_string();
        assert!(error.contains("`hq` and `/`") && !error.contains("geheim"), "{error}");
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
