//! The queues of one program, by name. Everybody outside of the tree reaches a queue's actor through [`Queues`],
//! which always has the address of the living one: the root inserts it each time that it builds the actor.
//!
//! A question about how things are has a [deadline](PATIENCE): somebody's task may block a queue's event loop, and a
//! dead actor may not be built anew yet, and neither may hold up who asks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Handler, Message};
use dashmap::DashMap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::held::{HeldTasks, QueueHold};
use super::patience::{PATIENCE, answered};
use super::queue::{
    BrokerBacklog, Close, Explain, GetAccounts, GetHeld, GetHolds, GetRunning, GetStatus, HandInMinutes,
    Hurry, LanesLost, Locate, LocateTask, Queue, Revoke, Revoked, Sighting, Steer, StopQueue, Surrender,
    Surrendered, TerminateStamped,
};
use super::running::RunningTask;
use super::status::{QueueAccounts, QueueStatus};
use crate::runtime::revoked_stamps::Stamps;
use crate::runtime::task_location::TaskLocation;
use crate::task::{State, TaskId};

/// The addresses of the living queue actors. All clones share one map.
#[derive(Clone, Default)]
pub(crate) struct Queues(Arc<DashMap<String, Addr<Queue>>>);

impl Queues {
    /// Makes this the queue of that name from now on.
    pub(super) fn insert(&self, name: String, queue: Addr<Queue>) {
        self.0.insert(name, queue);
    }

    /// Forgets all queues, when the tree ends.
    pub(super) fn clear(&self) {
        self.0.clear();
    }

    /// The address of a queue's actor that was built last. It may have died since; then it does not answer.
    pub(super) fn get(&self, name: &str) -> Option<Addr<Queue>> {
        self.0.get(name).map(|queue| queue.clone())
    }

    /// The addresses of all queues, in no order.
    pub(super) fn all(&self) -> Vec<Addr<Queue>> {
        self.0.iter().map(|queue| queue.value().clone()).collect()
    }

    /// The queue of this name; without a name, all of them.
    fn named(&self, name: Option<&str>) -> Vec<Addr<Queue>> {
        match name {
            Some(name) => self.get(name).into_iter().collect(),
            None => self.all(),
        }
    }

    /// Whether the queue of this name is in this program. It is not before it is first built, nor after the shutdown.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The status of a queue. `None`: there is no queue of this name, or it did not answer within the deadline.
    pub(crate) async fn status(&self, name: &str, waiting: BrokerBacklog) -> Option<QueueStatus> {
        let queue = self.get(name)?;
        let status = answered(PATIENCE, queue.send(GetStatus(waiting))).await.ok()?;
        status.ok().map(|status| *status)
    }

    /// The status of a queue with its accounts. `None`: there is no queue of this name, or it did not answer within the
    /// deadline.
    pub(crate) async fn accounts(&self, name: &str, waiting: BrokerBacklog) -> Option<QueueAccounts> {
        let queue = self.get(name)?;
        let accounts = answered(PATIENCE, queue.send(GetAccounts(waiting))).await.ok()?;
        accounts.ok().map(|accounts| *accounts)
    }

    /// What runs in a queue, ordered by start. `None`: there is no queue of this name, or it did not answer within
    /// the deadline.
    pub(crate) async fn running(&self, name: &str) -> Option<Vec<RunningTask>> {
        let queue = self.get(name)?;
        answered(PATIENCE, queue.send(GetRunning)).await.ok()?.ok()
    }

    /// What all queues have, of each kind at most `limit` from each: those of these ids, or all. All are asked at once,
    /// and who does not answer within `patience` is left out.
    pub(crate) async fn held(
        &self,
        ids: Option<HashSet<TaskId>>,
        limit: usize,
        patience: Duration,
    ) -> Vec<HeldTasks> {
        let get = GetHeld { ids, limit };
        let asked = self.all().into_iter().map(|queue| answered(patience, queue.send(get.clone())));
        let answers = futures_util::future::join_all(asked).await;
        let mut held: Vec<HeldTasks> = answers.into_iter().flatten().flatten().collect();
        held.sort_by(|one, other| one.queue.cmp(&other.queue));
        held
    }

    /// What the gates hold back in a queue. `None`: it does not answer.
    pub(crate) async fn holds(&self, name: &str) -> Option<Vec<QueueHold>> {
        let queue = self.get(name)?;
        answered(PATIENCE, queue.send(GetHolds)).await.ok()?.ok()
    }

    /// Takes over the deliveries of these tasks that have not started, from all queues that answer within the deadline. What a
    /// later one answers goes back to the broker.
    pub(crate) async fn surrender(&self, ids: HashSet<TaskId>) -> Surrendered {
        let surrender = Surrender(Arc::new(ids));
        let asked = self.all().into_iter().map(|queue| answered(PATIENCE, queue.send(surrender.clone())));
        let answers = futures_util::future::join_all(asked).await;
        let mut all = Surrendered::default();
        for surrendered in answers.into_iter().flatten().flatten() {
            all.deliveries.extend(surrendered.deliveries);
            all.running.extend(surrendered.running);
        }
        all
    }

    /// Tells the runs that bear one of these stamps to end. Answers with the stamps that were found, of each run, in the
    /// queues that answer within `patience`.
    pub(crate) async fn terminate_stamped(&self, stamps: Arc<Stamps>, patience: Duration) -> Vec<Stamps> {
        let terminate = TerminateStamped(stamps);
        let asked = self.all().into_iter().map(|queue| answered(patience, queue.send(terminate.clone())));
        let answers = futures_util::future::join_all(asked).await;
        answers.into_iter().flatten().flatten().flatten().collect()
    }

    /// The names of all queues, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.iter().map(|queue| queue.key().clone()).collect();
        names.sort();
        names
    }

    /// Has all queues hand in what they have counted for the history, and waits for as long as `patience`. A queue that takes
    /// longer hands in when it comes to it.
    pub(crate) async fn hand_in_minutes(&self, patience: Duration) {
        let (handing_in, mut all) = mpsc::channel(1);
        for queue in self.all() {
            queue.do_send(HandInMinutes(handing_in.clone()));
        }
        drop(handing_in);
        // Nobody sends anything. The channel closes when the last queue has dropped its message.
        let _ = answered(patience, all.recv()).await;
    }

    /// Moves a lever of all queues, and waits for none.
    pub(crate) fn tell_all(&self, steer: impl Fn() -> Steer) {
        self.all().into_iter().for_each(|queue| queue.do_send(steer()));
    }

    /// Where a task is, for its user. It asks the named queue, or all of them at once, until one has the task or the
    /// deadline is over.
    pub(crate) async fn locate(&self, id: &TaskId, name: Option<&str>) -> Option<TaskLocation> {
        answered(PATIENCE, self.first_answer(name, || Locate(id.clone()))).await.ok().flatten()
    }

    /// What a queue knows of a task, for an explanation. `Ok(None)`: it does not have the task.
    ///
    /// # Errors
    /// There is no queue of this name now, or it did not answer within `patience`.
    pub(crate) async fn sighting(
        &self,
        name: &str,
        explain: Explain,
        patience: Duration,
    ) -> Result<Option<Box<Sighting>>, NoAnswer> {
        let queue = self.get(name).ok_or(NoAnswer)?;
        answered(patience, queue.send(explain)).await.map_err(|_| NoAnswer)?.map_err(|_| NoAnswer)
    }

    /// As [`sighting`](Self::sighting), of a task of which nobody knows in which queue it is. All are asked at once, until one
    /// has it. Answers with the names of the queues that did not answer, too.
    pub(crate) async fn sighting_anywhere(
        &self,
        id: &TaskId,
        patience: Duration,
    ) -> (Option<Box<Sighting>>, Vec<String>) {
        let explain = |name: String| {
            let explain = Explain { id: id.clone(), waiting: None };
            async move { (self.sighting(&name, explain, patience).await, name) }
        };
        let mut answers: FuturesUnordered<_> = self.names().into_iter().map(explain).collect();
        let mut silent = Vec::new();
        while let Some((answer, name)) = answers.next().await {
            match answer {
                Ok(Some(sighting)) => return (Some(sighting), silent),
                Ok(None) => {}
                Err(NoAnswer) => silent.push(name),
            }
        }
        (None, silent)
    }

    /// The state of a task that a queue has, and whether its result will be kept. This has no deadline: a caller
    /// that waits for the result must not be told that nobody has the task only because an event loop is busy.
    pub(crate) async fn look(&self, id: &TaskId, name: Option<&str>) -> Option<(State, bool)> {
        let found = self.first_answer(name, || LocateTask(id.clone()));
        match name {
            Some(_) => answered(PATIENCE, found).await.ok().flatten(),
            None => found.await,
        }
    }

    /// Asks one queue, or all of them at once. The first that knows the answer gives it; `None`: none does.
    async fn first_answer<M, T>(&self, name: Option<&str>, question: impl Fn() -> M) -> Option<T>
    where
        M: Message<Result = Option<T>> + Send + 'static,
        T: Send + 'static,
        Queue: Handler<M>,
    {
        let asked = self.named(name).into_iter().map(|queue| queue.send(question()));
        let mut answers: FuturesUnordered<_> = asked.collect();
        while let Some(answer) = answers.next().await {
            if let Ok(Some(found)) = answer {
                return Some(found);
            }
        }
        None
    }

    /// Revokes a task in the queue that has it, of one or of all, which are asked at once; `None`: none has.
    ///
    /// # Errors
    /// No queue that has answered within the deadline has the task, and these have not answered. They still obey when they
    /// come to it.
    pub(crate) async fn revoke(
        &self,
        id: &TaskId,
        terminate: bool,
        name: Option<&str>,
    ) -> Result<Option<Revoked>, Vec<String>> {
        let mut found = None;
        let missing = self
            .tell_of_revocation(id, terminate, name, |revoked| {
                found = Some(revoked);
                true
            })
            .await;
        if found.is_none() && !missing.is_empty() { Err(missing) } else { Ok(found) }
    }

    /// Revokes all copies of a task. All queues are told, and `patience` is how long each may take to answer.
    pub(crate) async fn revoke_copies(
        &self,
        id: &TaskId,
        terminate: bool,
        patience: Duration,
    ) -> RevokedCopies {
        let revoke =
            |queue: Addr<Queue>| answered(patience, queue.send(Revoke { id: id.clone(), terminate }));
        let answers = futures_util::future::join_all(self.all().into_iter().map(revoke)).await;
        let mut copies = RevokedCopies::default();
        for answer in answers {
            match answer {
                Ok(Ok(Revoked::Ended(_))) => copies.here = true,
                Ok(Ok(Revoked::Done | Revoked::Moving)) => (copies.here, copies.may_run) = (true, true),
                Ok(Ok(Revoked::Unknown)) => {}
                // A queue that does not answer may be the one that runs it.
                Ok(Err(_)) | Err(_) => copies.may_run = true,
            }
        }
        copies
    }

    /// Tells one queue or all of a revocation. Each queue that has the task is reported to `found`, which says whether that
    /// is enough. Answers with the names of the queues that did not answer within the deadline.
    async fn tell_of_revocation(
        &self,
        id: &TaskId,
        terminate: bool,
        name: Option<&str>,
        mut found: impl FnMut(Revoked) -> bool,
    ) -> Vec<String> {
        let told: Vec<(String, Addr<Queue>)> = match name {
            Some(name) => self.get(name).map(|queue| (name.to_owned(), queue)).into_iter().collect(),
            None => self.0.iter().map(|queue| (queue.key().clone(), queue.value().clone())).collect(),
        };
        let mut missing: HashSet<String> = told.iter().map(|(name, _)| name.clone()).collect();
        let mut answers: FuturesUnordered<_> = told
            .into_iter()
            .map(async |(name, queue)| (name, queue.send(Revoke { id: id.clone(), terminate }).await))
            .collect();
        let all = async {
            while let Some((name, answer)) = answers.next().await {
                missing.remove(&name);
                let is_enough = match answer {
                    Ok(Revoked::Unknown) | Err(_) => false,
                    Ok(revoked) => found(revoked),
                };
                if is_enough {
                    return;
                }
            }
        };
        // Whoever has not answered by then is told all the same: the message waits in the mailbox.
        let _ = answered(PATIENCE, all).await;
        missing.into_iter().collect()
    }

    /// The lanes of these runs, by tag, are not sure to be theirs any more.
    pub(crate) fn lost(&self, tags: &[u64]) {
        for queue in self.all() {
            queue.do_send(LanesLost(tags.to_vec()));
        }
    }

    /// Moves a lever of a queue, which does so as soon as its event loop gets to it. `false`: there is none of this
    /// name now.
    pub(crate) fn tell(&self, name: &str, steer: Steer) -> bool {
        self.get(name).map(|queue| queue.do_send(steer)).is_some()
    }

    /// Pauses, resumes or resizes a queue. `false`: it does not answer.
    pub(crate) async fn steer(&self, name: &str, steer: Steer) -> bool {
        match self.get(name) {
            Some(queue) => matches!(answered(PATIENCE, queue.send(steer)).await, Ok(Ok(_))),
            None => false,
        }
    }

    /// The queues as they are now, for a shutdown.
    pub(crate) fn ending(&self) -> EndingQueues {
        EndingQueues(self.all())
    }

    /// Makes the actor of a queue panic, for tests of its supervision.
    #[cfg(test)]
    pub(crate) fn kill(&self, name: &str) {
        if let Some(queue) = self.get(name) {
            queue.do_send(super::queue::Crash);
        }
    }
}

/// A queue did not answer within the deadline, or there is none of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer;

/// What a revocation of all copies of a task came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RevokedCopies {
    /// There was one.
    pub(crate) here: bool,
    /// One runs, or may do so.
    pub(crate) may_run: bool,
}

/// The queues of a program that shuts down, in the order in which the shutdown calls its methods.
pub(crate) struct EndingQueues(Vec<Addr<Queue>>);

impl EndingQueues {
    /// Has no queue start anything more. Each receiver gets, as soon as nothing runs in its queue, the number of
    /// runs that were handed back since this call.
    pub(crate) fn close(&self) -> Vec<oneshot::Receiver<usize>> {
        let close = |queue: &Addr<Queue>| {
            let (done, end) = oneshot::channel();
            queue.do_send(Close(done));
            end
        };
        self.0.iter().map(close).collect()
    }

    /// Tells the queues that the grace of the shutdown is running out.
    pub(crate) fn hurry(&self, hurry: Hurry) {
        self.tell(|| hurry);
    }

    /// Ends the actors of the queues.
    pub(crate) fn stop(&self) {
        self.tell(|| StopQueue);
    }

    fn tell<M>(&self, message: impl Fn() -> M)
    where
        M: Message<Result = ()> + Send + 'static,
        Queue: Handler<M>,
    {
        self.0.iter().for_each(|queue| queue.do_send(message()));
    }
}
