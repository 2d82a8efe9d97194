//! What waits in the broker for a queue: how much, and since when. The queue needs this for its status and its
//! blockage.
//!
//! A queue that looked only at its deliveries would not know that it is blocked: with a prefetch equal to its
//! number of workers, what waits is never delivered. So whoever asks for a queue's status asks the broker first
//! ([`BrokerBacklog`]). Some brokers (RabbitMQ) do not say since when a message is ready; there the queue asks
//! every few seconds how many are ready, and goes by what it has seen.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::super::slot_pool::PoolMember;
use super::Queue;
use crate::broker::{Broker, BrokerError, QueueCounts};
use crate::core::Timestamp;
use crate::core::slots::CountedWaits;
use crate::core::time_to_start::ReadySeen;
use crate::task::clock::now;

/// How often the queue asks such a broker how many messages are ready.
const LOOK: Duration = Duration::from_secs(5);

/// What a broker says about one queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BrokerBacklog {
    pub(crate) counts: QueueCounts,
    /// Since when the oldest undelivered message is ready, if the broker knows.
    pub(crate) oldest: Option<Timestamp>,
    /// The broker cannot say since when messages are ready.
    pub(crate) untold: bool,
    /// The broker could not be asked, so `counts` has only what this process knows.
    pub(crate) away: bool,
}

impl BrokerBacklog {
    /// Asks the broker about a queue, by its physical name.
    pub(crate) async fn in_broker(broker: &dyn Broker, queue: &str) -> Result<Self, BrokerError> {
        let counts = broker.counts(queue).await?;
        let away = broker.condition().is_silent;
        match broker.backlog() {
            Some(backlog) if counts.ready > 0 => {
                Ok(Self { counts, oldest: backlog.oldest_ready(queue).await?, untold: false, away })
            }
            backlog => Ok(Self { counts, oldest: None, untold: backlog.is_none(), away }),
        }
    }

    /// The number of ready messages, for whoever has to see for himself since when there are any. `None`: the broker
    /// tells that, or it could not be asked, and then nothing is known that was not known before.
    pub(crate) fn watched(&self) -> Option<u64> {
        (self.untold && !self.away).then_some(self.counts.ready)
    }
}

/// What the queue has seen of a broker that does not say since when messages are ready.
#[derive(Default)]
pub(super) struct SeenBacklog {
    ready: ReadySeen,
    /// A question to the broker is under way.
    asking: bool,
}

impl Queue {
    /// Starts the regular looks, if the broker does not say since when messages are ready.
    pub(super) fn watch_backlog(&mut self, ctx: &mut Context<Self>) {
        if self.runtime.broker.backlog().is_none() {
            ctx.run_interval(LOOK, |queue, ctx| queue.look(ctx));
        }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.closing.is_some()
            || self.runtime.broker.condition().is_unavailable
            || std::mem::replace(&mut self.seen.asking, true)
        {
            return;
        }
        let (runtime, name, queue) = (self.runtime.clone(), self.row.name.clone(), ctx.address());
        actix_rt::spawn(async move {
            let waiting = BrokerBacklog::in_broker(&*runtime.broker, &name).await;
            queue.do_send(ReadyCount(waiting.ok().and_then(|waiting| waiting.watched())));
        });
    }

    /// From when the waiting counts of the ready task, here or in the broker, that has waited longest; `None`: there is none.
    pub(super) fn oldest_ready(&mut self, waiting: BrokerBacklog, now: Timestamp) -> Option<Timestamp> {
        if let Some(ready) = waiting.watched() {
            self.seen.ready.look(ready, now);
        }
        let outside = if waiting.untold { self.seen.ready.since() } else { waiting.oldest };
        let (here, outside) = match self.pool.as_ref().map(PoolMember::counted_waits) {
            // Each tenant has its first tasks here, so what is older in the broker is of one whose waiting does not count.
            Some(CountedWaits { oldest, is_any_over_share }) => {
                (oldest, outside.filter(|_| !is_any_over_share))
            }
            None => (self.backlog.oldest_ready_since(), outside),
        };
        let here = [here, self.unchecked.oldest_due()];
        here.into_iter().chain([outside]).flatten().min()
    }
}

/// The number of messages that are ready in the broker; `None`: it could not be asked.
#[derive(Message)]
#[rtype(result = "()")]
struct ReadyCount(Option<u64>);

impl Handler<ReadyCount> for Queue {
    type Result = ();

    fn handle(&mut self, ReadyCount(ready): ReadyCount, _: &mut Self::Context) {
        self.seen.asking = false;
        if let Some(ready) = ready {
            self.seen.ready.look(ready, now());
        }
    }
}
