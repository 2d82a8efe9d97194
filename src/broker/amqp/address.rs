//! Where RabbitMQ is: one URL or several, as Celery and kombu read them.

use std::fmt;

use lapin::uri::AMQPUri;

use crate::broker::BrokerError;

/// A URL, and what of it may be shown.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) uri: AMQPUri,
}

/// The nodes of one cluster; at least one. Any of them will do.
#[derive(Clone, Debug)]
pub(super) struct Addresses(Vec<Address>);

impl Addresses {
    /// Reads URLs that are separated by `;`, as in Celery's `broker_url`.
    pub(super) fn parse(urls: &str) -> Result<Self, BrokerError> {
        let several = urls.contains(';');
        let urls = urls.split(';').map(str::trim).filter(|url| !several || !url.is_empty());
        let addresses = urls.map(Address::parse).collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(BrokerError::Io("there is no address of RabbitMQ between the `;`".to_owned()));
        }
        Ok(Self(addresses))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one whose turn it is after so many others.
    pub(super) fn turn(&self, n: usize) -> &Address {
        &self.0[n % self.0.len()]
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if n == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

impl Address {
    /// Reads a URL. `pyamqp` is `amqp`, and no virtual host, or an empty one, is `/`, as for kombu.
    fn parse(url: &str) -> Result<Self, BrokerError> {
        let plain = url.strip_prefix("py").filter(|rest| rest.starts_with("amqp")).unwrap_or(url);
        let mut uri: AMQPUri = plain.parse().map_err(|error| {
            BrokerError::Io(format!(
                "the address of RabbitMQ cannot be read: {error}; it should be `amqp://user:password@host:5672/vhost`"
            ))
        })?;
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        Ok(Self { uri })
    }
}

impl fmt::Display for Address {
    /// Without the user and the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { authority, vhost, .. } = &self.uri;
        write!(f, "{}:{}", authority.host, authority.port)?;
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
        ] {
            assert_eq!(Address::parse(url).unwrap().to_string(), shown, "{url}");
        }
        assert!(Address::parse("redis://x").unwrap_err().to_string().contains("amqp://user:password@host"));
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
