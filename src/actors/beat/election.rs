//! Who of several processes beats: an election by lease in the notes.
//!
//! The leader asks to go on long before its lease ends, and fires nothing once it has ended, until it is told that it leads
//! still. Followers ask as soon as the leader's lease is over, and often enough in between to see that it has resigned. A leader
//! whose broker is away resigns: others may reach it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};

use super::{Beat, BeatParts};
use crate::core::calendar::Agenda;
use crate::store::{Leadership, StoreError, Term};
use crate::task::clock::now;

const ELECTION: &str = "beat";
/// A follower is told to the millisecond when the lease ends.
const MARGIN: Duration = Duration::from_millis(2);

/// What came of asking.
enum Answer {
    Leads(u64),
    Follows(Duration),
    /// It did not ask, for it could not publish.
    Away,
}

impl BeatParts {
    /// The term that this process leads in, as far as it knows; `None`: there is no election.
    pub(super) fn term(&self) -> Option<Term> {
        let term = self.term.load(Ordering::Acquire);
        (term > 0).then(|| Term { election: ELECTION.to_owned(), candidate: self.candidate.clone(), term })
    }

    pub(super) async fn resign(&self) -> Result<(), StoreError> {
        self.runtime.notes().resign(ELECTION, &self.candidate).await
    }

    async fn ask(&self) -> Result<Answer, StoreError> {
        if self.runtime.broker.is_away() {
            return Ok(Answer::Away);
        }
        let now = now();
        Ok(match self.runtime.notes().lead(ELECTION, &self.candidate, self.lease, now).await? {
            Leadership::Leader { term } => Answer::Leads(term),
            Leadership::Follower { until } => Answer::Follows(until.since(now)),
        })
    }
}

impl Beat {
    /// Asks to lead, or to go on leading, now and again.
    pub(super) fn campaign(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.campaign.take() {
            ctx.cancel_future(timer);
        }
        if std::mem::replace(&mut self.asking, true) {
            return; // it is about to hear
        }
        let (parts, asked_at) = (Arc::clone(&self.parts), Instant::now());
        let asked = async move { parts.ask().await };
        let asked = asked.into_actor(self).map(move |answer, beat, ctx: &mut Context<Self>| {
            beat.asking = false;
            let pause = beat.hear(answer, asked_at, ctx);
            beat.campaign = Some(ctx.run_later(pause, Self::campaign));
        });
        // Whoever asks something of a new one waits until it knows.
        if self.generation == 0 {
            self.generation = 1;
            ctx.wait(asked);
        } else {
            ctx.spawn(asked);
        }
    }

    /// Takes an answer in; says when to ask again.
    fn hear(
        &mut self,
        answer: Result<Answer, StoreError>,
        asked_at: Instant,
        ctx: &mut Context<Self>,
    ) -> Duration {
        let lease = self.parts.lease;
        let often = lease / 10;
        match answer {
            Ok(Answer::Leads(term)) => {
                self.parts.term.store(term, Ordering::Release);
                self.leads_until = Some(asked_at + lease);
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
            Ok(Answer::Follows(lasts)) => {
                self.be_deposed("somebody else leads", ctx);
                return often.min(lasts + MARGIN);
            }
            Ok(Answer::Away) => {
                if self.leads {
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

    /// Whether the lease of a leader lasts still. One whose process stood still may not know yet that somebody else leads.
    pub(super) fn is_in_office(&self) -> bool {
        self.leads_until.is_none_or(|until| Instant::now() < until)
    }

    fn be_deposed(&mut self, why: &str, ctx: &mut Context<Self>) {
        if self.leads {
            tracing::warn!(why, "beat does not lead any more");
            self.step_down(ctx);
        }
    }

    /// Somebody else may lead: what the notes say is what is, and only a leader goes by them.
    pub(super) fn doubt(&mut self, ctx: &mut Context<Self>) {
        if self.parts.runtime.broker.is_shared() {
            self.step_down(ctx);
            self.campaign(ctx);
        } else {
            self.load(ctx);
        }
    }

    pub(super) fn step_down(&mut self, ctx: &mut Context<Self>) {
        self.leads = false;
        self.generation += 1;
        self.entries.clear();
        self.agenda = Agenda::default();
        self.set_timer(ctx);
    }
}
