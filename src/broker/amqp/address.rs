//! Where RabbitMQ is: a URL as Celery and kombu read it.

use std::fmt;

use lapin::uri::AMQPUri;

use crate::broker::BrokerError;

/// A URL, and what of it may be shown.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) uri: AMQPUri,
}

impl Address {
    /// Reads a URL. `pyamqp` is `amqp`, and no virtual host, or an empty one, is `/`, as for kombu.
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
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
}
