//! Takes in the deliveries that come from the broker. A plain task passes. For each serial task of a batch, this module
//! asks Redis whether the task may start.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::lanes::{self, Started};
use super::leases::EndingStart;
use super::settlement::LaneSettler;
use super::{RedisLanesInner, process};
use crate::broker::{BrokerError, Consumer, Delivery, Settle, Sink, call_sink, lane};
use crate::task::{Message, Refusal};

/// The most deliveries of a batch about which this module asks Redis at a time.
const BATCH: usize = 256;
/// How often in a lease this process checks whether another process is alive, if that process has a task that was
/// delivered here.
const LOOKS: u32 = 40;
/// The pause before this module asks Redis again.
const PAUSE: Duration = Duration::from_millis(100);

/// The broker's consumer, until this end or the broker drops it.
type InnerConsumer = Arc<Mutex<Option<Box<dyn Consumer>>>>;

struct LaneConsumer {
    inner: InnerConsumer,
    closed: Arc<AtomicBool>,
}

/// Consumes a queue of the broker behind the lanes.
pub(super) fn consume(
    shared: &Arc<RedisLanesInner>,
    queue: &str,
    prefetch: usize,
    sink: Sink,
) -> Result<Box<dyn Consumer>, BrokerError> {
    let (sender, serial) = mpsc::unbounded_channel(); // bounded by the prefetch
    let outer = Arc::clone(&sink);
    let front: Sink = Arc::new(move |deliveries: Vec<Delivery>| {
        let is_serial = |delivery: &Delivery| delivery.message().lane().is_some();
        let (serial, plain): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(is_serial);
        for delivery in serial {
            let _ = sender.send(delivery); // if the reader is gone, the dropped delivery goes back
        }
        if !plain.is_empty() {
            outer(plain);
        }
    });
    let inner = Arc::new(Mutex::new(Some(shared.inner.consume(queue, prefetch, front)?)));
    let closed = Arc::new(AtomicBool::new(false));
    let reader = Reader {
        shared: Arc::clone(shared),
        settler: Arc::new(LaneSettler::new(shared)),
        sink,
        consumer: Arc::downgrade(&inner),
        closed: Arc::clone(&closed),
        // The other half of the prefetch stays free for deliveries that may start.
        seats: Arc::new(Semaphore::new(prefetch.min(Semaphore::MAX_PERMITS).div_ceil(2))),
    };
    shared.runtime.spawn(Arc::new(reader).read(serial));
    Ok(Box::new(LaneConsumer { inner, closed }))
}

impl Consumer for LaneConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        if let Some(inner) = &*self.inner.lock() {
            inner.set_prefetch(prefetch);
        }
    }
}

impl Drop for LaneConsumer {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        drop(self.inner.lock().take());
    }
}

/// Reads the serial deliveries of a consumer.
struct Reader {
    shared: Arc<RedisLanesInner>,
    settler: Arc<LaneSettler>,
    sink: Sink,
    consumer: Weak<Mutex<Option<Box<dyn Consumer>>>>,
    closed: Arc<AtomicBool>,
    /// The permits for deliveries that wait for another process.
    seats: Arc<Semaphore>,
}

/// The answer about a delivery that this process still holds.
enum StartAnswer {
    Starts(Delivery),
    Held(HeldElsewhere),
}

/// A delivery of a task that another process holds. That process may be alive.
struct HeldElsewhere {
    delivery: Delivery,
    process: String,
    /// The end of the other process's lease, by Redis's clock.
    until: u64,
}

impl Reader {
    async fn read(self: Arc<Self>, mut serial: mpsc::UnboundedReceiver<Delivery>) {
        let closing = self.shared.closing.clone();
        let mut batch = Vec::with_capacity(BATCH);
        while closing.run_until_cancelled(serial.recv_many(&mut batch, BATCH)).await.is_some_and(|n| n > 0) {
            let asked = join_all(batch.drain(..).map(|delivery| self.ask(delivery))).await;
            let mut started = Vec::with_capacity(asked.len());
            for asked in asked.into_iter().flatten() {
                match asked {
                    StartAnswer::Starts(delivery) => started.push(delivery),
                    StartAnswer::Held(held) => {
                        drop(self.shared.runtime.spawn(Arc::clone(&self).outlast(held)))
                    }
                }
            }
            self.hand_over(started);
        }
    }

    fn hand_over(&self, started: Vec<Delivery>) {
        if started.is_empty() || self.closed.load(Ordering::Acquire) {
            return; // dropped deliveries go back
        }
        if !call_sink(&self.sink, started)
            && let Some(consumer) = self.consumer.upgrade()
        {
            drop(consumer.lock().take());
        }
    }

    /// Waits until this process knows whether the other process is alive. If the other process is alive, the delivery
    /// is left to it. If the other process then does not end the task after all, the message is sent anew, and stands
    /// at the end of its queue. If the other process is dead, the task starts here and now.
    async fn outlast(self: Arc<Self>, mut held: HeldElsewhere) {
        let shared = &self.shared;
        let look = shared.lanes.lease() / LOOKS;
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let mut lives = seat.is_err();
        loop {
            if lives {
                let HeldElsewhere { delivery, process, .. } = &held;
                let pass = delivery.message().serial.as_deref().and_then(|serial| serial.pass);
                let id = &delivery.message().id;
                if shared.lanes.park(id, pass, process).await == Ok(true) {
                    tracing::info!(%id, "another process that is alive has this task; it is left to that one");
                    held.delivery.settle(Settle::Ack { result: None, follow_ups: None });
                    return;
                }
            }
            if shared.closing.run_until_cancelled(tokio::time::sleep(look)).await.is_none()
                || self.closed.load(Ordering::Acquire)
            {
                return; // the dropped delivery goes back
            }
            match self.ask(held.delivery).await {
                Some(StartAnswer::Held(again)) => {
                    lives |= again.process != held.process || again.until > held.until;
                    held = again;
                }
                Some(StartAnswer::Starts(delivery)) => return self.hand_over(vec![delivery]),
                None => return,
            }
        }
    }

    /// Asks Redis whether a delivery may start. The answer is `None` if it may not start here, or not now.
    async fn ask(&self, mut delivery: Delivery) -> Option<StartAnswer> {
        let shared = &self.shared;
        let (mut dead, mut again) = (String::new(), delivery.is_again());
        loop {
            if delivery.has_lapsed() || shared.closing.is_cancelled() {
                return None; // another process has the task, or will get it
            }
            let message = Arc::clone(delivery.message());
            let serial = message.serial.as_deref()?;
            let (process, asked_at) = (shared.leases.process(), Instant::now());
            let claim = lanes::StartRequest { process: &process, tag: delivery.tag(), dead: &dead };
            let started = match shared.lanes.start(&message, serial, &claim).await {
                Ok(started) => started,
                Err(error) => {
                    tracing::warn!(%error, "serial tasks do not start until Redis answers");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            match started {
                Started::Run { token, before } => {
                    again |= before.is_some();
                    let begun =
                        self.begin(delivery, token, before.unwrap_or(0), again, &process, asked_at).await;
                    return begun.map(StartAnswer::Starts);
                }
                Started::Held { process, .. }
                    if shared.lanes.knows_neighbours() && process::is_dead(&process) =>
                {
                    dead = process
                }
                Started::Held { process, until } => {
                    return Some(StartAnswer::Held(HeldElsewhere { delivery, process, until }));
                }
                Started::Stale => {
                    tracing::debug!(id = %message.id, "a copy of a serial task is dropped");
                    break;
                }
                Started::Waits => {
                    shared.earlier.notify_one(); // the time that it may wait may be limited
                    break;
                }
                Started::Gone => {
                    tracing::warn!(id = %message.id, "Redis has forgotten that this task was let into its lane; it comes there anew");
                    again = true;
                    let mut message = Message::clone(&message);
                    if let Some(serial) = &mut message.serial {
                        serial.pass = None;
                    }
                    delivery = delivery.showing(message);
                }
                Started::Refused => {
                    let refused = lane::refused(Message::clone(&message), Refusal::CouldNotAcquireLock);
                    return Some(StartAnswer::Starts(delivery.showing(refused)));
                }
                Started::Lapsed => shared.look_for_lost(Some(&process)),
            }
        }
        delivery.settle(Settle::Ack { result: None, follow_ups: None });
        None
    }

    async fn begin(
        &self,
        delivery: Delivery,
        token: u64,
        crashes: u32,
        again: bool,
        process: &str,
        asked_at: Instant,
    ) -> Option<Delivery> {
        let (shared, tag) = (&self.shared, delivery.tag());
        let mut message = Arc::clone(delivery.message());
        if message.crashes < crashes {
            message = Arc::new(Message { crashes, ..Message::clone(&message) });
        }
        let mut started = Delivery::new(tag, Arc::clone(&message), Arc::clone(&self.settler) as _);
        started = started.fenced(token).again(again).with_info(delivery.info().cloned());
        if let Some(lapsed) = delivery.lapsed() {
            started = started.until(lapsed);
        }
        let is_over = message.crashes >= shared.delivery_limit;
        let claim = EndingStart { token, delivery, message };
        if let Err(claim) = shared.leases.add(process, asked_at, claim, again) {
            shared.hand_back(claim).await;
            return None;
        }
        shared.holding.notify_one();
        if is_over {
            drop(started); // the start goes back, and no body has begun
            return None;
        }
        Some(started)
    }
}
