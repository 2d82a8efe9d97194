//! The pools of slots that queues share: a lock around [`core::slots`](crate::core::slots) for each, because the queues live on
//! several event loops.
//!
//! Invariants:
//! - A queue takes the lock for all together that has come and ended since it did so last, and for all that may start by
//!   then ([`SlotBatch`]).
//! - The lock is held for the decision alone: nobody waits, sends or settles meanwhile. A queue that gets a slot by the end of
//!   another queue's run is told after that.
//! - A slot is lent by a [`SlotPermit`], which goes with the run. Whatever becomes of the run, of its worker or of its queue, the
//!   slot is free when the permit is dropped, and not before the run is over.
//! - A queue without such a pool, whose tasks name no tenants, locks nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::Addr;
use parking_lot::Mutex;
use serde::Serialize;

use super::queue::{Granted, Queue};
use crate::broker::QueueTenants;
use crate::catalogue::{Catalogue, Pool, QueueRow};
use crate::core::Timestamp;
use crate::core::forecast::{PoolForecaster, PoolTurn};
use crate::core::slots::{
    CountedWaits, SlotGrant, SlotHold, SlotRules, Slots, TenantShare, TenantWeight, WaitingTask,
};
use crate::task::clock::now;
use crate::task::{LentSlot, Message, SlotOwner};

/// A queue that has not taken a grant for so long does not answer, and others get the slot.
const PATIENCE: Duration = Duration::from_secs(1);

/// A pool whose queues share slots, as it is now.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PoolStatus {
    /// The kind of the pool, which says what bodies run on: `io`, `cpu` or `process`.
    pub pool: &'static str,
    /// The number of slots that the pool has.
    pub slots: usize,
    /// The number of slots that are taken.
    pub running: usize,
    /// The number of tasks that wait for a slot in this process.
    pub waiting: usize,
    /// The tenants that have work here or have had more than their share, in the order of their names. Tasks without a tenant are
    /// those of the tenant without a name.
    pub tenants: Vec<TenantShare>,
}

/// One pool of slots.
pub(crate) struct SlotPool {
    state: Mutex<PoolState>,
    /// Whether a task waits that has found no slot. Bodies look at it at their checkpoints.
    is_wanted: AtomicBool,
    /// Whether all slots are taken. Queues look at it at each arrival.
    is_full: AtomicBool,
    /// Says when the turns of tasks come. Who has its lock may take the other one, and not the other way round.
    forecaster: Mutex<PoolForecaster>,
}

struct PoolState {
    slots: Slots,
    /// The numbers of the queues in `slots`, by their names.
    numbers: HashMap<String, usize>,
    /// The actors of the queues by their numbers; `None`: the actor is dead at the moment.
    actors: Vec<Option<Addr<Queue>>>,
}

impl SlotPool {
    fn new(rules: SlotRules) -> Arc<Self> {
        let state = PoolState { slots: Slots::new(rules), numbers: HashMap::new(), actors: Vec::new() };
        let forecaster = Mutex::new(PoolForecaster::new(rand::random()));
        let (is_wanted, is_full) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { state: Mutex::new(state), is_wanted, is_full, forecaster })
    }

    /// Makes this actor the one of its queue. It starts nothing before it reports free workers.
    pub(super) fn join(self: &Arc<Self>, row: &QueueRow, actor: Addr<Queue>) -> PoolMember {
        let mut state = self.state.lock();
        let known = state.numbers.get(&row.name).copied();
        let number = known.unwrap_or_else(|| {
            let number = state.slots.join(row.slot_terms());
            state.numbers.insert(row.name.clone(), number);
            state.actors.push(None);
            number
        });
        if let Some(seat) = state.actors.get_mut(number) {
            *seat = Some(actor);
        }
        PoolMember { pool: Arc::clone(self), number }
    }

    /// Changes the pool, gives away what is free by then, and tells the queues that got something, except this one, which
    /// looks itself.
    fn step<T>(&self, own: Option<usize>, change: impl FnOnce(&mut Slots, Timestamp) -> T) -> T {
        let now = now();
        self.step_at(now, own, |slots| change(slots, now), |_, answer| answer)
    }

    /// As [`step`](Self::step), at this time. `take` has a look at the pool when what is free is given away.
    fn step_at<C, T>(
        &self,
        now: Timestamp,
        own: Option<usize>,
        change: impl FnOnce(&mut Slots) -> C,
        take: impl FnOnce(&mut Slots, C) -> T,
    ) -> T {
        let (answer, told) = {
            let mut state = self.state.lock();
            let changed = change(&mut state.slots);
            state.slots.dispatch(now);
            let answer = take(&mut state.slots, changed);
            self.publish(&state.slots);
            (answer, state.told(own))
        };
        told.iter().for_each(|queue| queue.do_send(Granted));
        answer
    }

    /// Tells those who do not lock whether slots are wanted and taken. What has not changed is not written, so that other
    /// cores need not read it anew.
    fn publish(&self, slots: &Slots) {
        let is_full = slots.running() >= slots.slots();
        for (flag, is) in [(&self.is_wanted, slots.is_wanted()), (&self.is_full, is_full)] {
            if flag.load(Ordering::Relaxed) != is {
                flag.store(is, Ordering::Release);
            }
        }
    }

    /// The number of slots, if all of them are taken.
    pub(super) fn all_taken(&self) -> Option<usize> {
        self.is_full.load(Ordering::Acquire).then(|| self.state.lock().slots.slots())
    }

    /// Takes grants back from queues that do not answer, and sees whether anything may start by now.
    fn look(&self) {
        self.step(None, |slots, now| slots.expire(PATIENCE, now));
    }
}

impl PoolState {
    /// The actors of the queues that have grants of which they do not know, except this one.
    fn told(&mut self, own: Option<usize>) -> Vec<Addr<Queue>> {
        let actors = &self.actors;
        let told = self.slots.told().filter(|queue| Some(*queue) != own);
        told.filter_map(|queue| actors.get(queue)?.clone()).collect()
    }
}

impl SlotOwner for SlotPool {
    fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    fn wants_back(&self, run: u64) -> bool {
        self.state.lock().slots.gives_way(run, now())
    }
}

/// What a queue has for its pool, and has got from it: all of it changes hands at once.
#[derive(Default)]
pub(super) struct SlotBatch {
    /// The tasks that have come, by their tags.
    pub(super) arrived: Vec<(u64, Arc<Message>)>,
    /// The slots of the runs that are over, each with whether the body did run.
    pub(super) ended: Vec<(SlotPermit, bool)>,
    /// The tasks that have got slots and have not begun, by their tags.
    pub(super) granted: VecDeque<(u64, SlotPermit)>,
}

/// The place of a queue's actor in its pool. When this is dropped, what waits in the queue is forgotten there, and the slots that
/// were granted to it and not taken are free.
pub(super) struct PoolMember {
    pool: Arc<SlotPool>,
    number: usize,
}

impl PoolMember {
    /// Says what has come and ended, how many workers of the queue have no task, and whether it may start anything.
    pub(super) fn tell(&self, batch: &mut SlotBatch, free: usize, is_open: bool, now: Timestamp) {
        let hear = |slots: &mut Slots| self.hear(slots, batch, free, is_open, now);
        self.pool.step_at(now, Some(self.number), hear, |_, ()| ());
        batch.told();
    }

    /// [Tells](Self::tell) the same, and takes the tasks of the queue that get slots, one for each free worker at most: one
    /// lock for all. If none does, it says how long until it is worth asking again although nothing happens, if it ever is.
    pub(super) fn next_tasks(
        &self,
        batch: &mut SlotBatch,
        free: usize,
        is_open: bool,
        now: Timestamp,
    ) -> Option<Duration> {
        let mut grants = std::mem::take(&mut batch.granted);
        let hear = |slots: &mut Slots| self.hear(slots, batch, free, is_open, now);
        let look = self.pool.step_at(now, Some(self.number), hear, |slots, ()| {
            while let Some(SlotGrant { run, tag, counts_from }) = slots.take(self.number) {
                let pool = Arc::clone(&self.pool);
                let permit = SlotPermit { pool, run, counts_from, has_begun: false, is_over: false };
                grants.push_back((tag, permit));
            }
            grants.is_empty().then(|| slots.next_look(now)).flatten()
        });
        batch.granted = grants;
        batch.told();
        look.map(|at| at.since(now))
    }

    fn hear(&self, slots: &mut Slots, batch: &mut SlotBatch, free: usize, is_open: bool, now: Timestamp) {
        for (permit, ran) in &mut batch.ended {
            permit.is_over = true;
            slots.finish(permit.run, *ran, now);
        }
        for (tag, message) in &batch.arrived {
            slots.arrive(self.number, waiting(*tag, message, now), now);
        }
        slots.report(self.number, free, is_open, now);
    }

    /// A gate holds the task of a grant, until it is brought back.
    pub(super) fn hold(&self, mut permit: SlotPermit) {
        permit.is_over = true;
        self.pool.step(Some(self.number), |slots, now| slots.hold(permit.run, now));
    }

    /// The gate that holds a task is asked anew. It could not have started before `free_since`.
    pub(super) fn bring_back(&self, tag: u64, free_since: Timestamp) {
        self.pool.step(None, |slots, now| slots.bring_back(self.number, tag, free_since, now));
    }

    /// The same for all tasks of the queue that gates hold.
    pub(super) fn bring_all_back(&self, free_since: Timestamp) {
        self.pool.step(None, |slots, now| slots.bring_all_back(self.number, free_since, now));
    }

    /// A task that waited is gone.
    pub(super) fn remove(&self, tag: u64) {
        self.pool.step(None, |slots, now| slots.remove(self.number, tag, now));
    }

    /// All tasks that waited are gone.
    pub(super) fn clear(&self) {
        self.pool.step(None, |slots, now| slots.clear(self.number, now));
    }

    /// The number of slots of a pool that the queue has for itself follows its workers.
    pub(super) fn resize(&self, slots: usize) {
        self.pool.step(None, |pool, now| pool.resize(slots, now));
    }

    /// Why the pool keeps slots from a task of the queue that others may have, if it does.
    pub(super) fn kept_for_others(&self, tag: u64) -> Option<SlotHold> {
        let hold = self.pool.state.lock().slots.hold_of(self.number, tag, now());
        hold.filter(SlotHold::is_for_others)
    }

    /// What of the waiting in the queue counts.
    pub(super) fn counted_waits(&self) -> CountedWaits {
        self.pool.state.lock().slots.counted_waits(self.number)
    }
}

impl SlotBatch {
    /// The pool has heard of what has come and ended.
    fn told(&mut self) {
        self.arrived.clear();
        self.ended.clear();
    }
}

impl PoolMember {
    /// The pool as those see it who ask when a task of the queue starts.
    pub(super) fn view(&self) -> PoolView {
        PoolView { pool: Arc::clone(&self.pool), number: self.number }
    }
}

/// A queue of a pool, for who asks when its tasks start. Asking changes nothing, and holds up no start for longer than a copy
/// takes.
pub(super) struct PoolView {
    pool: Arc<SlotPool>,
    number: usize,
}

impl PoolView {
    /// Notes how many tasks wait in the broker for the queue, of each tenant and, if that is known, without a tenant.
    pub(super) fn note_outside(&self, tenants: &QueueTenants, without: Option<u64>) {
        let tenants = tenants.tenants.iter().map(|counts| (counts.tenant.as_str(), counts.ready));
        let waiting = tenants.chain(without.map(|without| ("", without)));
        self.pool.state.lock().slots.note_outside(self.number, waiting);
    }

    /// The place of a task in the line of its tenant. `None`: it does not wait here for a slot.
    pub(super) fn place_of(&self, tag: u64) -> Option<usize> {
        self.pool.state.lock().slots.place_of(self.number, tag)
    }

    /// When the turn of the task in this place of its tenant's line comes. It may run the pool forward, which takes some
    /// hundredths of a second: no event loop calls this.
    pub(super) fn turn_of(&self, tenant: &str, place: usize) -> PoolTurn {
        let mut forecaster = self.pool.forecaster.lock();
        let now = now();
        if let Some(turn) = forecaster.known(self.number, tenant, place, now) {
            return turn;
        }
        let copy = self.pool.state.lock().slots.forward(now);
        forecaster.run(&copy, self.number, tenant, place, now)
    }
}

impl Drop for PoolMember {
    fn drop(&mut self) {
        let number = self.number;
        let actor = self.pool.state.lock().actors.get_mut(number).and_then(Option::take);
        self.pool.step(None, |slots, now| slots.leave(number, now));
        drop(actor); // outside of the lock
    }
}

/// A waiting task as the pool sees it.
fn waiting(tag: u64, message: &Message, now: Timestamp) -> WaitingTask<'_> {
    let since = message.counts_from(now);
    WaitingTask { tag, tenant: message.tenant(), task: &message.task, priority: message.priority, since }
}

/// A slot that is lent to a task. When this is dropped, the slot is free.
pub(super) struct SlotPermit {
    pool: Arc<SlotPool>,
    run: u64,
    /// From when the waiting of the task counted.
    counts_from: Timestamp,
    /// Whether a worker has the task, so that its tenant pays for the time.
    has_begun: bool,
    is_over: bool,
}

impl SlotPermit {
    /// From when the waiting of the task counted for the promise of its queue.
    pub(super) fn counts_from(&self) -> Timestamp {
        self.counts_from
    }

    /// The task is given to a worker.
    pub(super) fn begin(&mut self) {
        self.has_begun = true;
    }

    /// The slot as the body sees it.
    pub(super) fn lent(&self) -> LentSlot {
        LentSlot { owner: Arc::clone(&self.pool) as Arc<dyn SlotOwner>, run: self.run }
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (run, has_begun) = (self.run, self.has_begun);
        self.pool.step(None, |slots, now| match has_begun {
            true => slots.finish(run, false, now),
            false => slots.cancel(run, now),
        });
    }
}

/// All pools of slots of a program.
#[derive(Default)]
pub(crate) struct SlotPools {
    shared: BTreeMap<Pool, Arc<SlotPool>>,
    /// The pools of single queues, whose workers are shared by tenants alone, by the names of the queues. A queue has
    /// several while runs of an actor go on that has ended.
    own: Mutex<HashMap<String, Vec<Weak<SlotPool>>>>,
    weights: Mutex<BTreeMap<String, TenantWeight>>,
}

impl SlotPools {
    /// The pools that a catalogue states, with the weights of its tenants.
    pub(crate) fn of(catalogue: &Catalogue) -> Self {
        let shared = catalogue.pools.iter().map(|(pool, row)| (*pool, SlotPool::new(row.slot_rules())));
        let pools = Self { shared: shared.collect(), ..Self::default() };
        for (tenant, weight) in &catalogue.tenant_weights {
            if let Some(weight) = TenantWeight::new(*weight) {
                pools.weigh(tenant, weight);
            }
        }
        pools
    }

    /// The pool whose slots this queue shares with others.
    pub(super) fn of_row(&self, row: &QueueRow) -> Option<&Arc<SlotPool>> {
        self.shared.get(&row.pool).filter(|_| row.shared)
    }

    /// A pool for the tenants of one queue.
    pub(super) fn own(&self, row: &QueueRow) -> Arc<SlotPool> {
        let pool = SlotPool::new(SlotRules { slots: row.workers, reserve: Some(0), room: Some(0) });
        let weights = self.weights.lock();
        let mut state = pool.state.lock();
        weights.iter().for_each(|(tenant, weight)| state.slots.set_weight(tenant, *weight));
        drop(state);
        let mut own = self.own.lock();
        let pools = own.entry(row.name.clone()).or_default();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(&pool));
        pool
    }

    /// Sets the weight of a tenant in all pools, for what starts from now on.
    pub(crate) fn weigh(&self, tenant: &str, weight: TenantWeight) {
        let mut weights = self.weights.lock();
        weights.insert(tenant.to_owned(), weight);
        let own: Vec<_> = self.own.lock().values().flatten().filter_map(Weak::upgrade).collect();
        for pool in self.shared.values().chain(&own) {
            pool.state.lock().slots.set_weight(tenant, weight);
        }
    }

    /// The weights that were stated or set, by tenant.
    pub(crate) fn weights(&self) -> BTreeMap<String, f64> {
        self.weights.lock().iter().map(|(tenant, weight)| (tenant.clone(), weight.value())).collect()
    }

    /// The tenants of all pools, those of single queues among them, with what they have in all of them.
    pub(crate) fn tenants(&self) -> BTreeMap<String, TenantShare> {
        let own: Vec<_> = self.own.lock().values().flatten().filter_map(Weak::upgrade).collect();
        let mut all: BTreeMap<String, TenantShare> = BTreeMap::new();
        for pool in self.shared.values().chain(&own) {
            let shares: Vec<TenantShare> = pool.state.lock().slots.tenants().collect();
            for share in shares {
                match all.get_mut(&share.name) {
                    Some(known) => {
                        known.waiting += share.waiting;
                        known.running += share.running;
                        known.is_owed &= share.is_owed;
                    }
                    None => drop(all.insert(share.name.clone(), share)),
                }
            }
        }
        all
    }

    /// How many tasks of each tenant this process has fetched of a queue and not begun, and could start. The name is
    /// empty for tasks without a tenant; a queue whose tasks name none, and which shares no pool, has nothing here.
    pub(crate) fn waiting_in(&self, queue: &str) -> BTreeMap<String, u64> {
        let own: Vec<_> =
            self.own.lock().get(queue).into_iter().flatten().filter_map(Weak::upgrade).collect();
        let mut all = BTreeMap::new();
        for pool in self.shared.values().chain(&own) {
            let state = pool.state.lock();
            let Some(number) = state.numbers.get(queue).copied() else { continue };
            for (tenant, tasks) in state.slots.waiting_of(number) {
                *all.entry(tenant.to_owned()).or_default() += tasks;
            }
        }
        all
    }

    /// Changes the number of slots of a pool. `false`: its queues share none.
    pub(crate) fn resize(&self, pool: Pool, slots: usize) -> bool {
        let pool = self.shared.get(&pool);
        pool.map(|pool| pool.step(None, |state, now| state.resize(slots, now))).is_some()
    }

    /// Looks after the pools, every second or so.
    pub(super) fn look(&self) {
        self.shared.values().for_each(|pool| pool.look());
    }

    /// The pools whose queues share slots, as they are now.
    pub(crate) fn statuses(&self) -> Vec<PoolStatus> {
        let status = |(pool, shared): (&Pool, &Arc<SlotPool>)| {
            let state = shared.state.lock();
            let slots = &state.slots;
            PoolStatus {
                pool: pool.as_str(),
                slots: slots.slots(),
                running: slots.running(),
                waiting: slots.waiting(),
                tenants: slots.tenants().collect(),
            }
        };
        self.shared.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Context;

    /// The only queue of a pool with so many slots. It has no actor.
    fn member(slots: usize) -> PoolMember {
        let pool = SlotPool::new(SlotRules { slots, reserve: Some(0), room: Some(0) });
        let number = pool.state.lock().slots.join(QueueRow::new("q").slot_terms());
        PoolMember { pool, number }
    }

    fn tags(batch: &SlotBatch) -> Vec<u64> {
        batch.granted.iter().map(|(tag, _)| *tag).collect()
    }

    #[test]
    fn what_comes_and_ends_and_what_starts_by_then_change_hands_at_once() {
        let member = member(2);
        let mut batch = SlotBatch::default();
        batch.arrived.extend((0..6).map(|tag| (tag, Arc::new(Context::detached().message().clone()))));
        assert_eq!(member.next_tasks(&mut batch, 4, true, now()), None);
        assert_eq!((tags(&batch), batch.arrived.len()), (vec![0, 1], 0), "as many as there are slots");
        assert_eq!(member.pool.all_taken(), Some(2));
        batch.ended.extend(batch.granted.drain(..).map(|(_, permit)| (permit, true)));
        member.next_tasks(&mut batch, 1, true, now());
        assert_eq!((tags(&batch), batch.ended.len()), (vec![2], 0), "as many as there are workers");
        assert_eq!(member.pool.all_taken(), None);
        batch.ended.extend(batch.granted.drain(..).map(|(_, permit)| (permit, true)));
        member.tell(&mut batch, 2, false, now());
        assert_eq!((tags(&batch), member.pool.state.lock().slots.running()), (vec![], 0), "it is paused");
        member.next_tasks(&mut batch, 2, true, now());
        assert_eq!(tags(&batch), [3, 4]);
        batch.granted.clear();
        assert_eq!(member.pool.state.lock().slots.waiting(), 0, "the slot of one that is gone is free");
        member.next_tasks(&mut batch, 2, true, now());
        assert_eq!(tags(&batch), [5]);
    }
}
