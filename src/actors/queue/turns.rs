//! When the turn of a task comes in a queue that gets its slots from a pool: the pool's rule decides, over all its queues and
//! tenants, and not arrival.
//!
//! Invariant: the pool is run forward on a thread where nothing waits for it, and the broker has a moment to say what waits in
//! it. So neither the queue nor any start is held up.

use std::sync::Arc;
use std::time::Duration;

use actix::{Context, Handler, Message};

use super::super::slot_pool::PoolView;
use super::Queue;
use crate::broker::QueueTenants;
use crate::core::Timestamp;
use crate::core::explanation::BoundedCount;
use crate::core::forecast::{ForecastJudge, PoolTurn, StartForecast};
use crate::runtime::Runtime;
use crate::task;

/// How many tenants of a queue the broker is asked about.
const MOST_TENANTS: usize = 1_000;
/// How long the broker may take for that. Without its answer the last one counts.
const PATIENCE: Duration = Duration::from_millis(200);

/// The question when the turn of a task comes.
pub(super) struct TurnQuestion {
    view: PoolView,
    runtime: Arc<Runtime>,
    queue: String,
    tenant: String,
    place: AskedPlace,
    judge: ForecastJudge,
}

/// Where the task stands.
#[derive(Clone, Copy)]
pub(super) enum AskedPlace {
    /// It waits here, under this tag.
    Here(u64),
    /// It waits in the broker, and has so many of its tenant before it that wait.
    InBroker(usize),
}

/// When the turn of a task comes.
pub(super) struct Turn {
    /// How many tasks start before it, by the rule of the pool.
    pub(super) ahead: BoundedCount,
    /// How many tasks of its own line are before it.
    pub(super) own: u64,
    pub(super) starts: StartForecast,
    told: PoolTurn,
}

impl Queue {
    /// The question when the turn of a task comes. `None`: the queue has no pool, or starts nothing now.
    pub(super) fn turn_question(&self, message: &task::Message, place: AskedPlace) -> Option<TurnQuestion> {
        let pool = self.pool.as_ref().filter(|_| self.may_start())?;
        Some(TurnQuestion {
            view: pool.view(),
            runtime: Arc::clone(&self.runtime),
            queue: self.row.name.clone(),
            tenant: message.tenant().unwrap_or_default().to_owned(),
            place,
            judge: self.stats.forecasts.judge(),
        })
    }

    /// Finds out when the turn of a task comes that has just come, to see later whether that was right.
    pub(super) fn sample_turn(&mut self, tag: u64, message: &task::Message, now: Timestamp) {
        let question = self.turn_question(message, AskedPlace::Here(tag));
        let (Some(question), Some(queue)) = (question, self.own_address.clone()) else { return };
        self.stats.forecasts.sampling(now);
        actix_rt::spawn(async move {
            if let Some(Turn { told, .. }) = question.answer().await {
                queue.do_send(TurnSampled { tag, told });
            }
        });
    }
}

impl TurnQuestion {
    /// The answer. `None`: the task does not wait for a slot any more, a gate holds it, or the pool cannot tell.
    pub(super) async fn answer(self) -> Option<Turn> {
        let Self { view, runtime, queue, tenant, place, judge } = self;
        if let Ok(Some((tenants, without))) = tokio::time::timeout(PATIENCE, waiting(&runtime, &queue)).await
        {
            view.note_outside(&tenants, without);
        }
        let asked = tokio::task::spawn_blocking(move || {
            let place = match place {
                AskedPlace::Here(tag) => view.place_of(tag)?,
                AskedPlace::InBroker(place) => place,
            };
            Some((view.turn_of(&tenant, place), place))
        });
        let (told, place) = asked.await.ok().flatten()?;
        // Nothing starts as far as the pool knows, as when its queue runs what began before there was a pool.
        if told.or_more && told.before == 0 {
            return None;
        }
        let ahead = BoundedCount { count: told.before, or_more: told.or_more };
        Some(Turn { ahead, own: place as u64, starts: judge.of_turn(&told), told })
    }
}

/// What waits in the broker for a queue, by tenant, and how many tasks without one, if that is known. `None`: the broker does
/// not tell.
async fn waiting(runtime: &Runtime, queue: &str) -> Option<(QueueTenants, Option<u64>)> {
    let tenants = runtime.broker.tenant_backlog()?.tenants(queue, MOST_TENANTS).await.ok()?;
    let is_whole = tenants.total <= tenants.tenants.len() as u64;
    let of_tenants = tenants.tenants.iter().map(|counts| counts.ready).sum::<u64>() + tenants.uncounted;
    let counts = runtime.broker.counts(queue).await.ok()?;
    Some((tenants, is_whole.then(|| counts.ready.saturating_sub(of_tenants))))
}

/// When the turn of a task comes, as the queue has asked to learn how good such answers are.
#[derive(Message)]
#[rtype(result = "()")]
struct TurnSampled {
    tag: u64,
    told: PoolTurn,
}

impl Handler<TurnSampled> for Queue {
    type Result = ();

    fn handle(&mut self, TurnSampled { tag, told }: TurnSampled, _: &mut Context<Self>) {
        // One that has started or is held since then says nothing.
        if self.backlog.ready_since(tag).is_some() {
            self.stats.forecasts.sampled(tag, &told);
        }
    }
}
