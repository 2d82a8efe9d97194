//! What starts next, if the gates let it: rate limits and all else that `runtime/gates.rs` asks. What may not start yet
//! stays in the backlog, takes no slot, and holds up no other task.

use std::time::{Duration, Instant};

use super::slots::Released;
use super::{Pump, Queue};
use crate::runtime::gates::{Admission, Round};
use crate::task::clock::now;

/// So many deliveries more than its prefetch a queue takes at most while the gates hold back what it has, so that
/// the tasks behind them come too.
const MOST_MORE: usize = 1024;
/// The longest pause before it is looked again what may start.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What the gates hold back in a queue.
#[derive(Default)]
pub(super) struct HeldBack {
    /// When a pump comes because the next of them may start.
    wake_at: Option<Instant>,
    /// How many deliveries more than its prefetch the queue takes.
    more: usize,
}

impl Queue {
    /// Lets the first one run that may. The run keeps what the gates counted for it. `pooled` is the round of this pump in which
    /// the gates are asked, if the queue has a pool and there are gates.
    pub(super) fn release(&mut self, pooled: Option<&mut Round<'_>>) -> Option<Released> {
        if self.pool.is_some() {
            return self.release_by_pool(pooled);
        }
        if !self.runtime.has_gates() {
            self.take_more(0);
            let (tag, delivery) = self.backlog.release(now())?;
            return Some(Released { tag, delivery, admission: Admission::default(), permit: None });
        }
        let mut round = self.runtime.gates();
        let (mut count, mut wait) = (0_usize, Duration::MAX);
        let mut admission = None;
        let released = self.backlog.release_first(now(), |delivery| match round.admit(delivery.message()) {
            Ok(admitted) => {
                admission = Some(admitted);
                true
            }
            Err(hold) => {
                count += 1;
                wait = wait.min(hold.wait.unwrap_or(Duration::MAX));
                false
            }
        });
        if released.is_none() {
            self.note_held_back(count, wait);
        }
        let (tag, delivery) = released?;
        Some(Released { tag, delivery, admission: admission.unwrap_or_default(), permit: None })
    }

    /// Nothing may start, and so many are held back by gates, the first of them for so long.
    pub(super) fn note_held_back(&mut self, count: usize, wait: Duration) {
        // In steps, because each change costs the broker something.
        self.take_more(if count == 0 { 0 } else { count.next_power_of_two().min(MOST_MORE) });
        if count > 0 {
            self.wake_in(wait.min(LONGEST_WAIT));
        }
    }

    pub(super) fn wake_in(&mut self, wait: Duration) {
        let Some(queue) = self.own_address.clone() else { return };
        let at = Instant::now() + wait;
        if self.held_back.wake_at.is_none_or(|earlier| at < earlier) {
            self.held_back.wake_at = Some(at);
            actix_rt::spawn(async move {
                actix_rt::time::sleep(wait).await;
                queue.do_send(Wake);
            });
        }
    }

    fn take_more(&mut self, more: usize) {
        if std::mem::replace(&mut self.held_back.more, more) != more
            && let Some(consumer) = &self.consumer
        {
            consumer.set_prefetch(self.prefetch().saturating_add(more));
        }
    }
}

/// One that a gate has held back may start.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct Wake;

impl actix::Handler<Wake> for Queue {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        self.held_back.wake_at = None;
        <Self as actix::Handler<Pump>>::handle(self, Pump, ctx);
    }
}
