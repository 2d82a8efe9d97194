//! What a running runtime does for its clients: it enqueues, looks for tasks and their results, and revokes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::attendant::REVOKED_FOR;
use super::handle::Inner;
use crate::actors::beat::Publisher;
use crate::actors::queue::{Look, Revoke, Revoked};
use crate::broker::{BrokerError, Place, Remains, Removal};
use crate::store::{GroupResult, StoreError};
use crate::task::canvas::Promise;
use crate::task::clock::now;
use crate::task::{
    Client, Departure, EnqueueError, GetError, Judge, Message, NewTask, RawSignature, Receipt, State, TaskId,
    TaskResult, TrackedState, Verdict,
};

/// A revocation that meets its task on the way from one place to another looks again after this long.
const MOVING: Duration = Duration::from_millis(1);

impl Inner {
    /// Asks the queues which of them has this task; only tasks acknowledged early are nowhere else.
    async fn look(&self, id: &TaskId, queue: Option<&str>) -> Option<(State, bool)> {
        let queues = match queue {
            Some(name) => self.queues.get(name).map(|q| q.value().clone()).into_iter().collect(),
            None => self.addresses(),
        };
        for queue in queues {
            if let Ok(Some(found)) = queue.send(Look(id.clone())).await {
                return Some(found);
            }
        }
        None
    }

    /// The state of a task that is not over, and whether its result will be kept; `None`: nobody has it.
    async fn unfinished(&self, id: &TaskId) -> Result<Option<(State, bool)>, GetError> {
        match self.runtime.broker.find(id).await.map_err(unreadable(id))? {
            Some(Place::Waiting(message)) => {
                let state = if message.retries > 0 { State::Retry } else { State::Pending };
                Ok(Some((state, !message.ignore_result)))
            }
            Some(Place::Delivered { queue }) => {
                Ok(Some(self.look(id, Some(&queue)).await.unwrap_or((State::Received, true))))
            }
            None => match self.look(id, None).await {
                // As Celery says of every id: it waits somewhere, for all that can be known.
                None if !self.runtime.broker.knows_all() => Ok(Some((State::Pending, true))),
                found => Ok(found),
            },
        }
    }

    /// What the store was told of a task that is not over.
    async fn told(&self, id: &TaskId) -> Result<Option<State>, GetError> {
        let tracked = self.runtime.store.tracked(id).await.map_err(unreadable(id))?;
        Ok(tracked.map(|tracked| match tracked.state.as_str() {
            "PENDING" => State::Pending,
            "RECEIVED" => State::Received,
            "RETRY" => State::Retry,
            // STARTED, or a body said what it is at.
            _ => State::Started,
        }))
    }

    async fn stored(&self, id: &TaskId) -> Result<Option<TaskResult>, GetError> {
        self.runtime.store.get(id, now()).await.map_err(unreadable(id))
    }

    /// Revokes a task if it is where the broker says it is.
    async fn try_revoke(&self, id: &TaskId, terminate: bool) -> Result<Revoked, GetError> {
        let runtime = Arc::clone(&self.runtime);
        let remains = move |message: &Message| match Judge::unstarted(message, now()).revoked_waiting() {
            Verdict::Over(mut record) => {
                let sequel = runtime.sequel(message, &mut record);
                Remains { record: (!message.ignore_result).then_some(*record), sequel }
            }
            _ => Remains::default(),
        };
        let knows_all = self.runtime.broker.knows_all();
        if !knows_all {
            // The store first: who does not hear of it now sees it there before the task starts.
            self.runtime.store.revoke(id, now() + REVOKED_FOR).await.map_err(unreadable(id))?;
            let ids = std::slice::from_ref(id);
            self.runtime.broker.tell_revoked(ids, terminate).await.map_err(unreadable(id))?;
            self.runtime.window_of_revoked(id).await;
        }
        // A store apart from the broker is written by us, when the task is gone.
        let apart = (!self.runtime.settles_results).then(|| Arc::new(Mutex::new(None)));
        let kept = apart.clone();
        let remains = move |message: &Message| {
            let remains = remains(message);
            let Some(kept) = kept else { return remains };
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(remains);
            Remains::default()
        };
        let removal = self.runtime.broker.remove(id, Box::new(remains)).await.map_err(unreadable(id))?;
        let remains = apart.and_then(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(Remains { record, sequel }) = remains {
            if let Some(record) = record {
                self.runtime.put_result(record).await;
            }
            self.runtime.carry_out(sequel).await;
        }
        let (queues, elsewhere) = match removal {
            Removal::Removed => return Ok(Revoked::Done),
            Removal::Delivered { queue } => {
                let queue = self.queues.get(&queue).map(|queue| queue.value().clone());
                (queue.into_iter().collect(), Revoked::Moving)
            }
            // Acknowledged early, it is nowhere but in the queue that runs it.
            Removal::Unknown => (self.addresses(), Revoked::Unknown),
        };
        for queue in queues {
            match queue.send(Revoke { id: id.clone(), terminate }).await {
                Ok(Revoked::Unknown) | Err(_) => {}
                Ok(answer) => return Ok(answer),
            }
        }
        // Whoever gets it will not start it; that is all that can be done.
        Ok(if knows_all { elsewhere } else { Revoked::Done })
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
impl Client for Inner {
    async fn enqueue(&self, call: NewTask) -> Result<Receipt, EnqueueError> {
        if self.closing.load(Ordering::Acquire) {
            return Err(EnqueueError::ShuttingDown);
        }
        let unique = call.id.is_some();
        let message = self.runtime.dispatcher.message(call)?;
        self.runtime.publish(message, unique).await
    }

    async fn launch(&self, canvas: RawSignature) -> Result<Promise, EnqueueError> {
        if self.closing.load(Ordering::Acquire) {
            return Err(EnqueueError::ShuttingDown);
        }
        let Departure { messages, sizes, promise, unique } = self.runtime.dispatcher.depart(canvas)?;
        if self.runtime.settles_results {
            self.runtime.broker.publish_all(messages, sizes, unique).await?;
            return Ok(promise);
        }
        for (group, size) in sizes {
            let opened = self.runtime.store.open_chord(&group, size).await;
            opened
                .map_err(|error| EnqueueError::Canvas(format!("its chord could not be opened: {error}")))?;
        }
        self.runtime.broker.publish_all(messages, Vec::new(), unique).await?;
        Ok(promise)
    }

    async fn add_to_chord(
        &self,
        member: &Message,
        canvas: RawSignature,
        nth: u32,
    ) -> Result<Promise, EnqueueError> {
        // A run that is under way may be one that the shutdown waits for; it still does all that it has to.
        let (group, departure) = self.runtime.dispatcher.depart_beside(member, canvas, nth)?;
        let Departure { messages, sizes, promise, unique } = departure;
        let sent = if self.runtime.settles_results {
            self.runtime.broker.publish_beside(messages, sizes, &group).await
        } else {
            let not_counted = |error| EnqueueError::Canvas(format!("its chord could not be told: {error}"));
            for (group, size) in sizes {
                self.runtime.store.open_chord(&group, size).await.map_err(not_counted)?;
            }
            self.runtime.store.extend_chord(&group, &promise.id).await.map_err(not_counted)?;
            self.runtime.broker.publish_all(messages, Vec::new(), unique).await
        };
        match sent {
            // It was added by an earlier run.
            Ok(()) | Err(BrokerError::DuplicateId(_)) => Ok(promise),
            Err(error) => Err(error.into()),
        }
    }

    async fn state(&self, id: &TaskId) -> Result<State, GetError> {
        if let Some(result) = self.stored(id).await? {
            return Ok(result.state);
        }
        let found = self.unfinished(id).await?.map(|(state, _)| state);
        let known_here = found.filter(|state| self.runtime.broker.knows_all() || *state != State::Pending);
        if let Some(state) = known_here {
            return Ok(state);
        }
        // It may be in the hands of another program.
        if let Some(state) = self.told(id).await?.or(found) {
            return Ok(state);
        }
        // It may have ended between the two looks.
        Ok(self.stored(id).await?.map_or(State::Unknown, |result| result.state))
    }

    async fn result(&self, id: &TaskId) -> Result<Option<TaskResult>, GetError> {
        self.stored(id).await
    }

    async fn tracked(&self, id: &TaskId) -> Result<Option<TrackedState>, GetError> {
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
            // Another program has it.
            None if self.told(id).await?.is_some() => tokio::select! {
                result = self.runtime.store.wait(id) => result.map_err(unreadable(id)),
                () = self.closed.cancelled() => Err(GetError::ShutDown(id.clone())),
            },
            None => self.stored(id).await?.ok_or_else(|| GetError::Unknown(id.clone())),
        }
    }

    async fn expect(&self, id: &TaskId) -> Result<TaskResult, GetError> {
        tokio::select! {
            result = self.runtime.store.wait(id) => result.map_err(unreadable(id)),
            () = self.closed.cancelled() => Err(GetError::ShutDown(id.clone())),
        }
    }

    async fn revoke(&self, id: &TaskId, terminate: bool) -> Result<bool, GetError> {
        loop {
            match self.try_revoke(id, terminate).await? {
                Revoked::Done => return Ok(true),
                Revoked::Unknown => return Ok(false),
                Revoked::Moving => tokio::time::sleep(MOVING).await,
            }
        }
    }

    async fn forget(&self, id: &TaskId) -> Result<bool, GetError> {
        self.runtime.store.forget(id).await.map_err(unreadable(id))
    }

    async fn save_group(&self, group: &Promise, lifetime: Option<Duration>) -> Result<(), GetError> {
        let result = GroupResult::of(group).ok_or_else(|| {
            GetError::Store(format!("{} is no group: there are no members to keep", group.id))
        })?;
        self.runtime.store.save_group(&result, lifetime).await.map_err(unreadable(&group.id))
    }
}

impl Publisher for Inner {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
