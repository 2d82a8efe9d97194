//! The connection to RabbitMQ, to one node of several after the other: results come out of this program's reply
//! queue, and go into those of other programs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{RpcInner, RpcOptions};
use crate::core::Backoff;
use crate::core::time::deadline;
use crate::rabbitmq::{Addresses, is_refusal};
use crate::store::StoreError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How often RabbitMQ may close the channel because of one of the results that are on their way, before a result
/// is taken for that one.
const REFUSALS: u32 = 3;

/// The addresses of RabbitMQ, and the channel to publish on while there is one.
pub(super) struct RpcChannel {
    addresses: Addresses,
    /// The number of addresses that were given up so far; it says whose turn it is.
    turn: AtomicUsize,
    /// The name of this program's reply queue.
    pub(super) queue: String,
    channel: watch::Sender<Result<Channel, String>>,
    /// Tells that the channel to publish on was closed while its connection was not.
    broken: Notify,
    /// Held by a result for which RabbitMQ may have closed the channel, while it is sent again.
    suspects: Mutex<()>,
}

impl RpcChannel {
    /// Reads an address, or several with `;` between them: `rpc://…` means `amqp://…`, `rpcs://…` means
    /// `amqps://…`, and as in kombu a missing virtual host is `/`.
    pub(super) fn new(urls: &str, ca_certs: Option<&Path>) -> Result<Self, StoreError> {
        let of_amqp = |url: &str| match url.trim().split_once("://") {
            Some(("rpc", "" | "/")) => "amqp://localhost".to_owned(),
            Some(("rpc", rest)) => format!("amqp://{rest}"),
            Some(("rpcs", rest)) => format!("amqps://{rest}"),
            _ => url.to_owned(),
        };
        let urls = urls.split(';').map(of_amqp).collect::<Vec<_>>().join(";");
        let addresses = Addresses::parse(&urls).map_err(|error| {
            StoreError::io_because(
                format!("{error}, or for results `rpc://user:password@host:5672/vhost`"),
                error,
            )
        })?;
        let addresses =
            addresses.trusting(ca_certs).map_err(|error| StoreError::io_because(error.to_string(), error))?;
        let (channel, _) = watch::channel(Err("not connected yet".to_owned()));
        let queue = uuid::Uuid::now_v7().to_string();
        Ok(Self {
            addresses,
            turn: AtomicUsize::new(0),
            queue,
            channel,
            broken: Notify::new(),
            suspects: Mutex::new(()),
        })
    }

    fn set(&self, state: Result<Channel, String>) {
        drop(self.channel.send_replace(state));
    }

    /// Waits until there is a connection.
    pub(super) async fn connected(&self, patience: Duration) -> Result<Channel, StoreError> {
        let mut channel = self.channel.subscribe();
        let up = timeout(patience, channel.wait_for(Result::is_ok)).await;
        match up {
            Ok(Ok(channel)) => channel.clone().map_err(|error| self.away(&error)),
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => {
                let why = self.channel.borrow().as_ref().err().cloned().unwrap_or_default();
                Err(self.away(&why))
            }
        }
    }

    fn away(&self, why: &str) -> StoreError {
        let addresses = &self.addresses;
        StoreError::io(format!(
            "rabbitmq at {addresses}, for results: {why}; is it running, are port, user, password and virtual host right?"
        ))
    }

    /// Sends a result to a reply queue, and waits until RabbitMQ has it. It is no error if the queue is not there
    /// any more, because then nobody waits for the result.
    pub(super) async fn send(
        &self,
        queue: &str,
        id: &str,
        document: &[u8],
        options: &RpcOptions,
    ) -> Result<(), StoreError> {
        let deadline = deadline(Instant::now(), options.patience);
        let mut backoff = Backoff::new(Duration::from_millis(20), LONGEST_PAUSE);
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_headers(FieldTable::default())
            .with_priority(0)
            .with_delivery_mode(if options.persistent { 2 } else { 1 })
            .with_correlation_id(id.into());
        let mut refusals = 0;
        loop {
            // Once RabbitMQ has closed the channel, perhaps for this result, it is sent without others that may be
            // meant.
            let _alone = match refusals {
                0 => None,
                _ => Some(self.suspects.lock().await),
            };
            let channel = self.connected(deadline.saturating_duration_since(Instant::now())).await?;
            let published = async {
                let options = BasicPublishOptions::default();
                channel
                    .basic_publish("".into(), queue.into(), options, document, properties.clone())
                    .await?
                    .await
            };
            let why = match timeout_at(deadline, published).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => {
                    if !channel.status().connected() {
                        self.broken.notify_waiters();
                    }
                    refusals += u32::from(is_refusal(&error));
                    if refusals > REFUSALS {
                        return Err(StoreError::Refused(format!(
                            "rabbitmq at {} refuses a result for good: {error}",
                            self.addresses
                        )));
                    }
                    error.to_string()
                }
                Err(_) => "it did not confirm a result in time".to_owned(),
            };
            let pause = backoff.pause();
            if Instant::now() + pause >= deadline {
                return Err(self.away(&why));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Keeps a connection, and takes in what comes, until the store is closed.
    pub(super) async fn serve(&self, core: Arc<RpcInner>, closed: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), LONGEST_PAUSE);
        loop {
            let why = tokio::select! {
                () = closed.cancelled() => return,
                opened = self.open(&core.options) => match opened {
                    Ok((connection, channel, consumer)) => {
                        self.set(Ok(channel));
                        backoff.reset();
                        let why = tokio::select! {
                            () = closed.cancelled() => None,
                            why = take_in(consumer, &core) => Some(why),
                            () = self.broken.notified() => Some("the channel for results was closed".to_owned()),
                        };
                        let why = why.unwrap_or_default();
                        self.set(Err(why.clone()));
                        let _ = timeout(Duration::from_secs(1), connection.close(200, "OK".into())).await;
                        why
                    }
                    Err(error) => error.to_string(),
                },
            };
            if closed.is_cancelled() {
                return;
            }
            tracing::warn!(
                address = %self.addresses,
                why,
                "results over rabbitmq are interrupted; connecting again"
            );
            self.set(Err(why));
            self.turn.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = closed.cancelled() => return,
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    async fn open(&self, options: &RpcOptions) -> Result<(Connection, Channel, Consumer), lapin::Error> {
        let connect =
            self.addresses.connect(self.turn.load(Ordering::Relaxed), "celeriac results".to_owned());
        let timed_out = |_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
        let connection = timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(timed_out)?;
        let incoming = connection.create_channel().await?;
        // As Celery's queue, it goes with its consumer, or by itself if there never was one.
        let declare =
            QueueDeclareOptions { durable: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        let expires = i64::try_from(options.result_expires.as_millis()).unwrap_or(i64::MAX);
        // RabbitMQ's timers take no more, and this is as good as for ever.
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(expires.clamp(1, i64::from(u32::MAX))));
        incoming.queue_declare(self.queue.as_str().into(), declare, arguments).await?;
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = incoming
            .basic_consume(self.queue.as_str().into(), "".into(), no_ack, FieldTable::default())
            .await?;
        let outgoing = connection.create_channel().await?;
        outgoing.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok((connection, outgoing, consumer))
    }
}

/// Takes in messages until none can come any more. Answers with the reason.
async fn take_in(mut consumer: Consumer, core: &RpcInner) -> String {
    while let Some(delivery) = consumer.next().await {
        match delivery {
            Ok(delivery) => {
                let id = delivery.properties.correlation_id().as_ref().map(|id| id.as_str());
                core.arrived(id, &delivery.data);
            }
            Err(error) => return error.to_string(),
        }
    }
    "the reply queue is consumed no longer".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_broker() {
        for (url, address) in [
            ("rpc://", "localhost:5672"),
            ("rpc://u:p@rabbit:5673/hq", "rabbit:5673 (virtual host `hq`)"),
            ("rpc://rabbit//", "rabbit:5672"),
            ("pyamqp://rabbit/", "rabbit:5672"),
            ("rpc://u:p@one/hq; amqp://two", "one:5672 (virtual host `hq`) or two:5672"),
        ] {
            assert_eq!(RpcChannel::new(url, None).unwrap().addresses.to_string(), address, "{url}");
        }
        assert!(
            RpcChannel::new("redis://x", None)
                .err()
                .unwrap()
                .to_string()
                .contains("rpc://user:password@host")
        );
    }
}
