//! What comes from the broker: plain tasks pass, serial ones are asked about first, one question for each of a batch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{Semaphore, mpsc};

use super::claims::Claim;
use super::settlement::LaneSettler;
use super::{Shared, process};
use crate::broker::{BrokerError, Consumer, Delivery, Settle, Sink, call_sink, lane};
use crate::store::redis::lanes::{self, Started};
use crate::task::{Message, Refusal};

/// So many deliveries are asked about at a time.
const BATCH: usize = 256;
/// So many times in a lease it is looked whether a process is alive that has what was delivered here.
const LOOKS: u32 = 40;
/// How long it is waited before Redis is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The broker's consumer, until either end of it is gone.
type Inner = Arc<Mutex<Option<Box<dyn Consumer>>>>;

struct LaneConsumer {
    inner: Inner,
    closed: Arc<AtomicBool>,
}

/// Consumes a queue of the broker behind.
pub(super) fn consume(
    shared: &Arc<Shared>,
    queue: &str,
    prefetch: usize,
    sink: Sink,
) -> Result<Box<dyn Consumer>, BrokerError> {
    let (sender, serial) = mpsc::unbounded_channel(); // bounded by the prefetch
    let outer = Arc::clone(&sink);
    let front: Sink = Arc::new(move |deliveries: Vec<Delivery>| {
        let is_serial = |delivery: &Delivery| lane::lane_of(delivery.message()).is_some();
        let (serial, plain): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(is_serial);
        for delivery in serial {
            let _ = sender.send(delivery); // dropped with its reader, it goes back
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
        // The others find room.
        seats: Arc::new(Semaphore::new(prefetch.min(Semaphore::MAX_PERMITS).div_ceil(2))),
    };
    shared.runtime.spawn(Arc::new(reader).read(serial));
    Ok(Box::new(LaneConsumer { inner, closed }))
}

impl Consumer for LaneConsumer {
    fn set_prefetch(&self, prefetch: usize) {
        if let Some(inner) = &*self.inner.lock().unwrap_or_else(PoisonError::into_inner) {
            inner.set_prefetch(prefetch);
        }
    }
}

impl Drop for LaneConsumer {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        drop(self.inner.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Reads the serial deliveries of a consumer.
struct Reader {
    shared: Arc<Shared>,
    settler: Arc<LaneSettler>,
    sink: Sink,
    consumer: Weak<Mutex<Option<Box<dyn Consumer>>>>,
    closed: Arc<AtomicBool>,
    /// How many deliveries may wait for another process at a time.
    seats: Arc<Semaphore>,
}

/// What came of asking, if the delivery is still here.
enum Asked {
    Starts(Delivery),
    Held(Held),
}

/// A delivery of what another process has, which may be alive.
struct Held {
    delivery: Delivery,
    process: String,
    /// Until then it is sure to be, by Redis's clock.
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
                    Asked::Starts(delivery) => started.push(delivery),
                    Asked::Held(held) => drop(self.shared.runtime.spawn(Arc::clone(&self).outlast(held))),
                }
            }
            self.hand_over(started);
        }
    }

    fn hand_over(&self, started: Vec<Delivery>) {
        if started.is_empty() || self.closed.load(Ordering::Acquire) {
            return; // dropped, they go back
        }
        if !call_sink(&self.sink, started)
            && let Some(consumer) = self.consumer.upgrade()
        {
            drop(consumer.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }

    /// Waits until it is known whether the other process is alive. If it is, this is left to it: should it not end it after
    /// all, it is sent anew, and stands at the end of its queue then. If it is not, it starts here, and now.
    async fn outlast(self: Arc<Self>, mut held: Held) {
        let shared = &self.shared;
        let look = shared.lanes.lease() / LOOKS;
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let mut lives = seat.is_err();
        loop {
            if lives {
                let Held { delivery, process, .. } = &held;
                let pass = delivery.message().serial.as_deref().and_then(|serial| serial.pass);
                let id = &delivery.message().id;
                if shared.lanes.park(id, pass, process).await == Ok(true) {
                    tracing::info!(%id, "another process that is alive has this task; it is left to that one");
                    held.delivery.settle(Settle::Ack { result: None, sequel: None });
                    return;
                }
            }
            if shared.closing.run_until_cancelled(tokio::time::sleep(look)).await.is_none()
                || self.closed.load(Ordering::Acquire)
            {
                return; // dropped, it goes back
            }
            match self.ask(held.delivery).await {
                Some(Asked::Held(again)) => {
                    lives |= again.process != held.process || again.until > held.until;
                    held = again;
                }
                Some(Asked::Starts(delivery)) => return self.hand_over(vec![delivery]),
                None => return,
            }
        }
    }

    /// Asks whether a delivery may start. `None`: not here, or not now.
    async fn ask(&self, mut delivery: Delivery) -> Option<Asked> {
        let shared = &self.shared;
        let (mut dead, mut again) = (String::new(), delivery.is_again());
        loop {
            if delivery.has_lapsed() || shared.closing.is_cancelled() {
                return None; // others have it, or will
            }
            let message = Arc::clone(delivery.message());
            let serial = message.serial.as_deref()?;
            let (process, asked_at) = (shared.claims.process(), Instant::now());
            let claim = lanes::Claim { process: &process, tag: delivery.tag(), dead: &dead };
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
                    return begun.map(Asked::Starts);
                }
                Started::Held { process, .. }
                    if shared.lanes.knows_neighbours() && process::is_dead(&process) =>
                {
                    dead = process
                }
                Started::Held { process, until } => {
                    return Some(Asked::Held(Held { delivery, process, until }));
                }
                Started::Stale => {
                    tracing::debug!(id = %message.id, "a copy of a serial task is dropped");
                    break;
                }
                Started::Waits => {
                    shared.earlier.notify_one(); // maybe it does not wait for ever
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
                    return Some(Asked::Starts(delivery.showing(refused)));
                }
                Started::Lapsed => shared.look_for_lost(Some(&process)),
            }
        }
        delivery.settle(Settle::Ack { result: None, sequel: None });
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
        started = started.fenced(token).again(again);
        if let Some(lapsed) = delivery.lapsed() {
            started = started.until(lapsed);
        }
        let is_over = message.crashes >= shared.delivery_limit;
        let claim = Claim { token, delivery, message };
        if let Err(claim) = shared.claims.add(process, asked_at, claim, again) {
            shared.hand_back(claim).await;
            return None;
        }
        shared.holding.notify_one();
        if is_over {
            drop(started); // goes back, with nothing begun
            return None;
        }
        Some(started)
    }
}
