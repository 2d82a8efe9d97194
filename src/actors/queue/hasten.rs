//! What gates held, and was put back into the broker because the queue held too much, becomes due as soon as the queue has room
//! for it again: a gate has opened, or somebody has taken a limit or a brake away. Otherwise it would start up to minutes later.
//!
//! Invariants:
//! - The queue never asks for more than it has room for, so what a gate still holds is not put back once more for it.
//! - One question to the broker is under way at a time, and it looks at a bounded number of tasks. While there is nothing to
//!   hasten there is none.

use actix::{Handler, Message};

use super::release::MOST_HELD;
use super::{Pump, Queue};
use crate::broker::{AgendaPlace, BrokerError, Hastened};
use crate::core::Timestamp;
use crate::task::clock::now;

/// How far a queue is with what it has put back.
#[derive(Default)]
pub(super) struct Hastening {
    /// A question to the broker is under way.
    is_asking: bool,
    /// Where the next question goes on.
    next: Option<AgendaPlace>,
    /// Something was put back since the question that is under way.
    is_outdated: bool,
}

impl Hastening {
    /// Something was put back: the next question looks from the beginning.
    pub(super) fn begin_anew(&mut self) {
        (self.next, self.is_outdated) = (None, true);
    }
}

impl Queue {
    /// Has the broker make due what was put back, if there is room for it.
    pub(super) fn hasten(&mut self, now: Timestamp) {
        let held = self.backlog.held();
        // Half of the room at least, so that a gate that lets one through after the other costs few questions.
        if self.held_back.away(now) == 0 || held > MOST_HELD / 2 || self.held_back.hastening.is_asking {
            return;
        }
        let is_served = self.consumer.is_some() && self.closing.is_none() && self.halted.is_none();
        let (true, Some(queue)) = (is_served && !self.backlog.is_paused(), self.own_address.clone()) else {
            return;
        };
        let runtime = self.runtime.clone();
        if runtime.broker.backlog().is_none() || runtime.broker.condition().is_silent {
            return;
        }
        let hastening = &mut self.held_back.hastening;
        (hastening.is_asking, hastening.is_outdated) = (true, false);
        let from = hastening.next.unwrap_or((Timestamp::ZERO, 0));
        let (name, limit) = (self.row.name.clone(), MOST_HELD - held);
        actix_rt::spawn(async move {
            let hastened = match runtime.broker.backlog() {
                Some(backlog) => backlog.hasten(&name, from, limit).await,
                None => Ok(Hastened::default()),
            };
            queue.do_send(WereHastened(hastened));
        });
    }
}

/// What came of a question to the broker.
#[derive(Message)]
#[rtype(result = "()")]
struct WereHastened(Result<Hastened, BrokerError>);

impl Handler<WereHastened> for Queue {
    type Result = ();

    fn handle(&mut self, WereHastened(hastened): WereHastened, ctx: &mut Self::Context) {
        let now = now();
        let last = self.held_back.returns.last(now);
        let hastening = &mut self.held_back.hastening;
        hastening.is_asking = false;
        match hastened {
            Ok(Hastened { made_due, next }) => {
                let next = next.filter(|(due, _)| last.is_some_and(|last| *due <= last));
                let is_over = next.is_none() && !hastening.is_outdated;
                if !hastening.is_outdated {
                    hastening.next = next;
                }
                match is_over {
                    true => self.held_back.returns.all_came(),
                    false => self.held_back.returns.came_early(made_due as u64, now),
                }
            }
            // They come at their times.
            Err(error) => {
                tracing::warn!(queue = %self.row.name, %error, "tasks that a limit or a brake held start later than they might");
                hastening.next = None;
                self.held_back.returns.all_came();
            }
        }
        <Self as Handler<Pump>>::handle(self, Pump, ctx);
    }
}
