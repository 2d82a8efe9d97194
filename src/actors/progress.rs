//! The progress actor: the bars of what runs here, collected, shown and watched.
//!
//! A body writes into its cell and waits for nobody. The actor looks at the cells of all runs that have a bar each 200 ms,
//! as long as there are any, and tells what is new; a whole percent is told at once by the run itself. What is told goes
//! to the store behind everybody's back, and is shown when it is there: a bar that was seen is also what is seen after a
//! restart.
//!
//! The cells outlive the actor, as queues outlive theirs: should it die, it is built anew and misses nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::sync::Notify;

use crate::core::progress::QUIET;
use crate::store::Store;
use crate::task::{ProgressCell, ProgressSink, TaskId, TrackedState, read_progress};

/// What all runs of a program have told, and who watches them.
pub(crate) struct Board {
    store: Arc<dyn Store>,
    cells: DashMap<TaskId, Arc<ProgressCell>>,
    /// What the store has of tasks that run here.
    shown: DashMap<TaskId, TrackedState>,
    /// What earlier runs elsewhere have shown, read before the body starts.
    before: DashMap<TaskId, TrackedState>,
    actor: Mutex<Option<Addr<Progress>>>,
    watchers: Mutex<HashMap<TaskId, (Arc<Notify>, usize)>>,
    /// How many tasks are watched, so that a change of one that is not costs one load.
    watched: AtomicUsize,
}

/// Hears of each change of one task, as long as it lives.
pub(crate) struct Watcher {
    board: Arc<Board>,
    id: TaskId,
    changed: Arc<Notify>,
}

impl Watcher {
    /// Completes at the next change after it was asked for.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watchers = self.board.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = watchers.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                watchers.remove(&self.id);
            }
        }
        self.board.watched.store(watchers.len(), Ordering::SeqCst);
    }
}

impl Board {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            cells: DashMap::new(),
            shown: DashMap::new(),
            before: DashMap::new(),
            actor: Mutex::new(None),
            watchers: Mutex::default(),
            watched: AtomicUsize::new(0),
        }
    }

    fn address(&self) -> Option<Addr<Progress>> {
        self.actor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was last shown of a task that runs here. Asks the actor.
    pub(crate) async fn progress(&self, id: &TaskId) -> Option<TrackedState> {
        // Most tasks have no bar here.
        if !self.shown.contains_key(id) {
            return None;
        }
        self.address()?.send(GetProgress(id.clone())).await.ok().flatten()
    }

    /// A run begins of a task that may have been shown elsewhere. Says whether it was.
    pub(crate) async fn recall(&self, id: &TaskId) -> bool {
        match self.store.tracked(id).await {
            Ok(Some(state)) if read_progress(&state.meta).0.is_some() => {
                self.before.insert(id.clone(), state);
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(%id, %error, "what was shown of a task is not known; its bar starts over");
                false
            }
        }
    }

    /// The store has this state now.
    pub(crate) fn stored(&self, state: &TrackedState) {
        if self.cells.contains_key(&state.id) {
            self.shown.insert(state.id.clone(), state.clone());
        }
        self.changed(&state.id);
    }

    /// Something about a task has changed: wakes those who watch it.
    pub(crate) fn changed(&self, id: &TaskId) {
        if self.watched.load(Ordering::SeqCst) == 0 {
            return;
        }
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((changed, _)) = watchers.get(id) {
            changed.notify_waiters();
        }
    }

    /// Hears of each change of this task from now on.
    pub(crate) fn watch(self: &Arc<Self>, id: &TaskId) -> Watcher {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        let (changed, count) = watchers.entry(id.clone()).or_default();
        *count += 1;
        let changed = Arc::clone(changed);
        self.watched.store(watchers.len(), Ordering::SeqCst);
        drop(watchers);
        Watcher { board: Arc::clone(self), id: id.clone(), changed }
    }

    /// The runtime ends: what watches sees how things are, for the last time.
    pub(crate) fn close(&self) {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.values().for_each(|(changed, _)| changed.notify_waiters());
        drop(watchers);
        *self.actor.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ProgressSink for Board {
    fn shown_before(&self, id: &TaskId) -> Option<TrackedState> {
        if let Some((_, before)) = self.before.remove(id) {
            return Some(before);
        }
        // A store of this process answers at once; what others keep was read before the body started.
        if self.store.is_shared() {
            return None;
        }
        self.store.tracked(id).now_or_never()?.ok().flatten()
    }

    fn opened(&self, cell: &Arc<ProgressCell>) {
        self.cells.insert(cell.id().clone(), Arc::clone(cell));
        if let Some(actor) = self.address() {
            actor.do_send(Opened);
        }
    }

    fn closed(&self, id: &TaskId) {
        self.cells.remove(id);
        self.shown.remove(id);
        self.before.remove(id);
    }
}

/// The actor.
pub(crate) struct Progress {
    board: Arc<Board>,
    ticking: bool,
}

impl Progress {
    pub(crate) fn new(board: Arc<Board>, address: Addr<Self>) -> Self {
        *board.actor.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        Self { board, ticking: false }
    }

    fn tick_later(&mut self, ctx: &mut Context<Self>) {
        if self.ticking || self.board.cells.is_empty() {
            return;
        }
        self.ticking = true;
        ctx.run_later(QUIET, |progress, ctx| {
            progress.ticking = false;
            // Not while the map is held: a cell that tells something goes through the store's queue.
            let cells: Vec<_> = progress.board.cells.iter().map(|cell| Arc::clone(&cell)).collect();
            cells.iter().for_each(|cell| cell.tick());
            progress.tick_later(ctx);
        });
    }
}

impl Actor for Progress {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tick_later(ctx);
    }
}

/// A run has a bar.
#[derive(Message)]
#[rtype(result = "()")]
struct Opened;

impl Handler<Opened> for Progress {
    type Result = ();

    fn handle(&mut self, _: Opened, ctx: &mut Self::Context) {
        self.tick_later(ctx);
    }
}

/// What is shown of a task that runs here.
#[derive(Message)]
#[rtype(result = "Option<TrackedState>")]
struct GetProgress(TaskId);

impl Handler<GetProgress> for Progress {
    type Result = Option<TrackedState>;

    fn handle(&mut self, GetProgress(id): GetProgress, _: &mut Self::Context) -> Self::Result {
        self.board.shown.get(&id).map(|state| state.clone())
    }
}
