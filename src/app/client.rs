//! The [`Client`] that a started runtime is: it enqueues calls and canvases, answers for the states and results
//! of tasks, and revokes. `delay`, signatures, results and beat call it.
//!
//! A task may be in the broker, in a queue of this process, in the hands of another program, or over. Each question
//! asks these places in an order in which a task that moves between two of them is not missed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::handle::CeleriacInner;
use super::listener::REVOKED_FOR;
use crate::actors::beat::TickPublisher;
use crate::actors::queue::Revoked;
use crate::actors::{PATIENCE, answered};
use crate::broker::{BrokerError, MessageLocation, Remains, Removal};
use crate::runtime::Runtime;
use crate::runtime::enqueue::Unsent;
use crate::store::sent_marks::{marks_of, write_marks};
use crate::store::{self, GroupResult, StoreError};
use crate::task::canvas::Promise;
use crate::task::clock::now;
use crate::task::{
    BadId, CanvasPlan, Client, Durability, EnqueueError, GetError, HandedOver, Judge, Message, NewTask,
    RawSignature, Receipt, State, TaskId, TaskResult, TrackedState, Verdict, check_id,
};

/// How often a task is looked for that neither the broker nor a queue has. A task that is acknowledged before its
/// run moves from the broker to a queue, and back for its next attempt, and may do so between two looks.
const LOOKS: u32 = 3;
/// The pause after which a revocation looks again that has met its task on the way from one place to another.
const MOVING: Duration = Duration::from_millis(1);

impl CeleriacInner {
    /// Whether a call is refused because of a shutdown. While a server beside the runtime answers its last requests, only
    /// such calls are that would be gone with the program.
    fn refuses(&self, durability: Durability) -> bool {
        let lasts = durability == Durability::Disk && !self.forgets;
        self.refusing.load(Ordering::Acquire) || (!lasts && self.closing.load(Ordering::Acquire))
    }

    /// The state of a task that is not over, and whether its result will be kept. `None`: nobody has the task.
    async fn unfinished(&self, id: &TaskId) -> Result<Option<(State, bool)>, GetError> {
        if !id.is_usable() {
            return Ok(None);
        }
        for _ in 0..LOOKS {
            match self.runtime.find(id).await.map_err(unreadable(id))? {
                Some(MessageLocation::Waiting(message)) => {
                    let state = if message.retries > 0 { State::Retry } else { State::Pending };
                    return Ok(Some((state, !message.ignore_result)));
                }
                Some(MessageLocation::Delivered { queue }) => {
                    return Ok(Some(
                        self.queues.look(id, Some(&queue)).await.unwrap_or((State::Received, true)),
                    ));
                }
                // Only a task that is acknowledged before its run can be in a queue without the broker knowing it.
                None => match self.queues.look(id, None).await {
                    // Another program may have the task. Celery says PENDING of every id that it does not know. Where the
                    // store is told of each task that is sent, it knows better.
                    None if !self.runtime.broker.facts().knows_all && !self.runtime.marks_sent => {
                        return Ok(Some((State::Pending, true)));
                    }
                    None => {}
                    found => return Ok(found),
                },
            }
        }
        Ok(None)
    }

    /// The state that the store was told of a task that is not over.
    async fn told(&self, id: &TaskId) -> Result<Option<State>, GetError> {
        let tracked = self.tracked(id).await?;
        Ok(tracked.map(|tracked| match tracked.state.as_str() {
            "PENDING" => State::Pending,
            "RECEIVED" => State::Received,
            "RETRY" => State::Retry,
            // The store has STARTED, or a state of the body's own; the body runs in either case.
            _ => State::Started,
        }))
    }

    /// The record of a task. No store is asked for an id that no task can have.
    async fn stored(&self, id: &TaskId) -> Result<Option<TaskResult>, GetError> {
        if !id.is_usable() {
            return Ok(None);
        }
        self.runtime.store.get(id, now()).await.map_err(unreadable(id))
    }

    /// Revokes a task, if it is where the broker says that it is.
    async fn try_revoke(&self, id: &TaskId, terminate: bool) -> Result<Revoked, GetError> {
        let knows_all = self.runtime.broker.facts().knows_all;
        if !knows_all {
            // The store is told first: a queue that does not hear of the revocation now sees it in the store before
            // the task starts.
            self.runtime.store.revoke(id, now() + REVOKED_FOR).await.map_err(unreadable(id))?;
            let ids = std::slice::from_ref(id);
            if let Some(events) = self.runtime.broker.events() {
                events.broadcast_revoke(ids, terminate).await.map_err(unreadable(id))?;
            }
        }
        // A permit that was handed over to the task is given back, because no run will come for it.
        let taken_out = Arc::new(Mutex::new(None));
        let (taken, teller) = (Arc::clone(&taken_out), Arc::clone(&self.runtime));
        let remains = move |message: &Message| {
            *taken.lock() = Some(message.clone());
            teller.tell_taken_out(message);
            remains_of_revoked(&teller, message)
        };
        let removal = match self.runtime.broker.inspect() {
            Some(inspect) => inspect.remove(id, Box::new(remains)).await.map_err(unreadable(id))?,
            None => Removal::Unknown,
        };
        let taken: Option<Message> = taken_out.lock().take();
        if let Some(message) = &taken {
            release_handed_over(&self.runtime, message);
        }
        let (queue, elsewhere) = match removal {
            Removal::Removed => {
                if let Some(message) = taken {
                    tell_hooks_of_revoked(&self.runtime, &message);
                }
                return Ok(Revoked::Done);
            }
            Removal::Delivered { queue } => (Some(queue), Revoked::Moving),
            // A task that is acknowledged before its run is nowhere but in its queue.
            Removal::Unknown => (None, Revoked::Unknown),
        };
        match self.queues.revoke(id, terminate, queue.as_deref()).await {
            Ok(Some(Revoked::Ended(kept))) => Ok(once_kept(kept, knows_all).await),
            Ok(Some(revoked)) => Ok(revoked),
            // Whoever gets it will not start it; that is all that can be done.
            _ if !knows_all => Ok(Revoked::Done),
            Ok(None) => Ok(elsewhere),
            Err(missing) => Err(GetError::NotAnswering { id: id.clone(), queues: missing.join("`, `") }),
        }
    }
}

/// What came of a revocation that a queue obeys, as for a task that the broker takes out itself: the answer comes when
/// the end is kept, so that whoever looks next sees it. A task whose end is not kept waits again somewhere.
async fn once_kept(kept: oneshot::Receiver<bool>, knows_all: bool) -> Revoked {
    if knows_all {
        // Whoever asks again is told why, if the broker cannot keep it.
        let kept = answered(PATIENCE, kept).await;
        return if matches!(kept, Ok(Ok(true))) { Revoked::Done } else { Revoked::Moving };
    }
    // The store has the revocation, so it holds even while a broker that is away cannot be told of the end.
    let _ = answered(PATIENCE, kept).await;
    Revoked::Done
}

/// What a task leaves behind that is revoked before it starts.
pub(super) fn remains_of_revoked(runtime: &Runtime, message: &Message) -> Remains {
    match Judge::unstarted(message, now()).revoked_waiting() {
        Verdict::Over(mut record) => {
            let follow_ups = runtime.follow_ups(message, &mut record);
            Remains { record: runtime.keeps(message, State::Revoked).then_some(*record), follow_ups }
        }
        _ => Remains::default(),
    }
}

/// Calls the hooks for a task that was revoked before it started.
pub(super) fn tell_hooks_of_revoked(runtime: &Runtime, message: &Message) {
    if let Verdict::Over(record) = Judge::unstarted(message, now()).revoked_waiting() {
        runtime.tell_hooks(runtime.end_for_hooks(message, &record));
    }
}

/// Gives back the permit that was handed over to a task, because no run will come for it.
pub(super) fn release_handed_over(runtime: &Runtime, message: &Message) {
    if let (Some(handed), Some(keeper)) = (HandedOver::of(message), &runtime.permits) {
        handed.release(&**keeper);
    }
}

fn unreadable<E: Into<StoreError>>(id: &TaskId) -> impl FnOnce(E) -> GetError {
    let id = id.clone();
    move |error| match error.into() {
        StoreError::Closed => GetError::ShutDown(id),
        other => GetError::Store(other.to_string()),
    }
}

#[async_trait]
impl Client for CeleriacInner {
    async fn enqueue(&self, call: Box<NewTask>) -> Result<Receipt, EnqueueError> {
        if self.refuses(call.options.durability) {
            return Err(EnqueueError::ShuttingDown);
        }
        let unique = call.id.is_some();
        let (message, unsent) = self.runtime.prepare(*call)?;
        self.runtime.send(message, unique, unsent).await
    }

    async fn enqueue_many(&self, calls: Vec<NewTask>) -> Result<Vec<Receipt>, EnqueueError> {
        if calls.iter().any(|call| self.refuses(call.options.durability)) {
            return Err(EnqueueError::ShuttingDown);
        }
        let mut receipts = self.runtime.enqueue_many(calls).await?;
        // A program that keeps its tasks in memory promises no more for many of them than for one.
        if self.forgets {
            receipts.iter_mut().for_each(|receipt| receipt.durability = Durability::Memory);
        }
        Ok(receipts)
    }

    fn check(&self, call: &NewTask) -> Result<(), EnqueueError> {
        self.runtime.dispatcher.message(call.clone()).map(drop)
    }

    async fn launch(&self, canvas: RawSignature) -> Result<Promise, EnqueueError> {
        if self.refuses(Durability::Disk) {
            return Err(EnqueueError::ShuttingDown);
        }
        let CanvasPlan { messages, sizes, promise, unique } = self.runtime.dispatcher.plan_canvas(canvas)?;
        if messages.iter().any(|message| self.refuses(message.durability)) {
            return Err(EnqueueError::ShuttingDown);
        }
        let unsent: Vec<_> = messages.iter().map(|message| self.runtime.unsent(&message.headers)).collect();
        let sent = self.runtime.to_tell(&messages);
        if self.runtime.marks_sent {
            write_marks(&*self.runtime.store, marks_of(&messages)).await;
        }
        self.runtime.results()?.publish_canvas(messages, sizes, unique).await?;
        self.runtime.tell_sent(sent);
        unsent.into_iter().for_each(Unsent::sent);
        Ok(promise)
    }

    async fn add_to_chord(
        &self,
        member: &Message,
        canvas: RawSignature,
        nth: u32,
    ) -> Result<Promise, EnqueueError> {
        // This does not check for a shutdown: the member's run may be one that the shutdown waits for, and it must
        // be able to finish.
        let (group, departure) = self.runtime.dispatcher.plan_chord_member(member, canvas, nth)?;
        let CanvasPlan { messages, sizes, promise, .. } = departure;
        let told = self.runtime.to_tell(&messages);
        if self.runtime.marks_sent {
            write_marks(&*self.runtime.store, marks_of(&messages)).await;
        }
        let sent = self.runtime.results()?.publish_chord_member(messages, sizes, &group, &promise.id).await;
        match sent {
            Ok(()) => {
                self.runtime.tell_sent(told);
                Ok(promise)
            }
            // An earlier run of the member has added it.
            Err(BrokerError::DuplicateId(_)) => Ok(promise),
            Err(error) => Err(error.into()),
        }
    }

    async fn state(&self, id: &TaskId) -> Result<State, GetError> {
        if let Some(result) = self.stored(id).await? {
            return Ok(result.state);
        }
        let found = self.unfinished(id).await?.map(|(state, _)| state);
        let known_here =
            found.filter(|state| self.runtime.broker.facts().knows_all || *state != State::Pending);
        if let Some(state) = known_here {
            return Ok(state);
        }
        // Another program may have the task, and have told the store.
        if let Some(state) = self.told(id).await?.or(found) {
            return Ok(state);
        }
        // The task may have ended between the first look and now.
        Ok(self.stored(id).await?.map_or(State::Unknown, |result| result.state))
    }

    async fn result(&self, id: &TaskId) -> Result<Option<TaskResult>, GetError> {
        self.stored(id).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, GetError> {
        if !id.is_usable() {
            return Ok(None);
        }
        self.runtime.store.tracked(id).await.map_err(unreadable(id))
    }

    async fn wait(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        if let Some(result) = self.stored(id).await? {
            return Ok(result);
        }
        match self.unfinished(id).await? {
            Some((_, true)) => tokio::select! {
                result = self.runtime.store.wait(id) => result.map_err(unreadable(id)),
                () = self.closed.cancelled() => Err(GetError::ShutDown(id.clone())),
            },
            Some((_, false)) => Err(GetError::NotKept(id.clone())),
            // Another program has the task.
            None if self.told(id).await?.is_some() => tokio::select! {
                result = self.runtime.store.wait(id) => result.map_err(unreadable(id)),
                () = self.closed.cancelled() => Err(GetError::ShutDown(id.clone())),
            },
            None => self.stored(id).await?.ok_or_else(|| GetError::Unknown(id.clone())),
        }
    }

    async fn expect(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        if !id.is_usable() {
            return Err(GetError::Unknown(id.clone()));
        }
        tokio::select! {
            result = self.runtime.store.wait(id) => result.map_err(unreadable(id)),
            () = self.closed.cancelled() => Err(GetError::ShutDown(id.clone())),
        }
    }

    async fn revoke(&self, id: &TaskId, terminate: bool) -> Result<bool, GetError> {
        if !id.is_usable() {
            return Ok(false);
        }
        loop {
            match self.try_revoke(id, terminate).await? {
                Revoked::Ended(_) | Revoked::Done => return Ok(true),
                Revoked::Unknown => return Ok(false),
                Revoked::Moving => tokio::time::sleep(MOVING).await,
            }
        }
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, GetError> {
        if !id.is_usable() {
            return Ok(false);
        }
        self.runtime.store.forget(id).await.map_err(unreadable(id))
    }

    async fn save_group(&self, group: &Promise, lifetime: Option<Duration>) -> Result<(), GetError> {
        let bad = |error: BadId| GetError::Store(error.to_string());
        check_id("the id of the group", group.id.as_str()).map_err(bad)?;
        let result = GroupResult::of(group).ok_or_else(|| {
            GetError::Store(format!("{} is no group: there are no members to keep", group.id))
        })?;
        let groups = store::groups(&*self.runtime.store).map_err(unreadable(&group.id))?;
        groups.save_group(&result, lifetime).await.map_err(unreadable(&group.id))
    }
}

impl TickPublisher for CeleriacInner {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
