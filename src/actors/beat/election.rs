//! The election of the process that runs beat, by a lease in the notes. Each process that shares the broker
//! campaigns.
//!
//! Invariants:
//! - The leader asks to go on long before its lease ends. Once the lease has ended, it publishes nothing until it
//!   is told that it still leads.
//! - A follower asks as soon as the leader's lease is over, and often enough in between to notice that the leader
//!   has resigned.
//! - A leader that cannot reach its broker resigns, because another process may reach it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::{Beat, BeatParts, LOOK};
use crate::core::calendar::Agenda;
use crate::core::time::deadline;
use crate::store::{Leadership, StoreError, Term};
use crate::task::clock::now;

const ELECTION: &str = "beat";
/// A follower asks this long after the end of the leader's lease, because it knows that end only to the millisecond.
const MARGIN: Duration = Duration::from_millis(2);

/// What came of asking to lead.
enum ElectionResult {
    Leads(u64),
    Follows(Duration),
    /// It did not ask, because it could not publish: the broker is away.
    Away,
}

impl BeatParts {
    /// The term that this process leads in, as far as it knows; `None`: there is no election.
    pub(super) fn term(&self) -> Option<Term> {
        let term = self.term.load(Ordering::Acquire);
        (term > 0).then(|| Term { election: ELECTION.to_owned(), candidate: self.candidate.clone(), term })
    }

    /// Gives the lead back, so that a follower need not wait for the end of the lease.
    pub(super) async fn resign(&self) -> Result<(), StoreError> {
        self.runtime.notes().resign(ELECTION, &self.candidate).await
    }

    async fn ask(&self) -> Result<ElectionResult, StoreError> {
        if self.runtime.broker.condition().is_unavailable {
            return Ok(ElectionResult::Away);
        }
        let now = now();
        Ok(match self.runtime.notes().lead(ELECTION, &self.candidate, self.lease, now).await? {
            Leadership::Leader { term } => ElectionResult::Leads(term),
            Leadership::Follower { until } => ElectionResult::Follows(until.since(now)),
        })
    }
}

impl Beat {
    /// Asks to lead, or to go on leading, and sets the time of the next question.
    pub(super) fn campaign(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.campaign.take() {
            ctx.cancel_future(timer);
        }
        if std::mem::replace(&mut self.asking, true) {
            return; // a question is under way
        }
        let (parts, asked_at) = (Arc::clone(&self.parts), Instant::now());
        let asked = async move { parts.ask().await };
        let asked = asked.into_actor(self).map(move |answer, beat, ctx: &mut Context<Self>| {
            beat.asking = false;
            let pause = beat.hear(answer, asked_at, ctx);
            beat.campaign = Some(ctx.run_later(pause, Self::campaign));
        });
        // The first question blocks the mailbox, so that an operator's message waits until beat knows whether it
        // leads.
        if self.generation == 0 {
            self.generation = 1;
            ctx.wait(asked);
        } else {
            ctx.spawn(asked);
        }
    }

    /// Takes an answer in. Returns when to ask again.
    fn hear(
        &mut self,
        answer: Result<ElectionResult, StoreError>,
        asked_at: Instant,
        ctx: &mut Context<Self>,
    ) -> Duration {
        let lease = self.parts.lease;
        // However long the lease is, a follower has to notice that the leader has resigned.
        let often = (lease / 10).min(LOOK);
        match answer {
            Ok(ElectionResult::Leads(term)) => {
                self.parts.term.store(term, Ordering::Release);
                // The lease counts from the question, not from the answer, so it never seems longer than it is.
                self.leads_until = Some(deadline(asked_at, lease));
                if !std::mem::replace(&mut self.leads, true) {
                    tracing::info!(term, "beat leads");
                    self.load(ctx);
                } else if self.parts.unfinished.load(Ordering::Acquire) {
                    self.load(ctx);
                } else {
                    self.pump(ctx);
                }
                return 3 * often;
            }
            Ok(ElectionResult::Follows(lasts)) => {
                self.be_deposed("somebody else leads", ctx);
                return often.min(lasts + MARGIN);
            }
            Ok(ElectionResult::Away) => {
                if self.leads {
                    // The lead is given back at once, so that a process that reaches the broker need not wait for
                    // the end of the lease.
                    let parts = Arc::clone(&self.parts);
                    actix_rt::spawn(async move { parts.resign().await });
                }
                self.be_deposed("the broker is away", ctx);
            }
            Err(error) => {
                tracing::warn!(%error, "beat cannot ask whether it leads");
                if !self.is_in_office() {
                    self.be_deposed("the lease is over", ctx);
                }
            }
        }
        often
    }

    /// Whether the leader's lease still lasts. A process that stood still may not know yet that another one leads.
    pub(super) fn is_in_office(&self) -> bool {
        self.leads_until.is_none_or(|until| Instant::now() < until)
    }

    fn be_deposed(&mut self, why: &str, ctx: &mut Context<Self>) {
        if self.leads {
            tracing::warn!(why, "beat does not lead any more");
            self.step_down(ctx);
        }
    }

    /// The notes differ from what beat believes, so another process may lead. Beat steps down and asks, or, where
    /// there is no election, reads the notes.
    pub(super) fn doubt(&mut self, ctx: &mut Context<Self>) {
        if self.parts.runtime.broker.facts().is_shared {
            self.step_down(ctx);
            self.campaign(ctx);
        } else {
            self.load(ctx);
        }
    }

    /// Stops firing and forgets the entries. What was begun before is not listened to any more.
    pub(super) fn step_down(&mut self, ctx: &mut Context<Self>) {
        self.leads = false;
        self.generation += 1;
        self.entries.clear();
        self.agenda = Agenda::default();
        self.set_timer(ctx);
    }
}
