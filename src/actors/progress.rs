//! The progress actor: it keeps the progress bars of the tasks that run in this process (Soil's state), and answers
//! questions about them.
//!
//! A task body writes into its [`ProgressCell`] and waits for nobody. While any run has a bar, the actor looks at
//! all cells every 200 ms and has each report what is new; a whole percent is reported at once by the run itself. A
//! report goes to the store in the background, and is shown only when the store has it. So a bar that a user has
//! seen is what they see after a restart too.
//!
//! One actor is enough: a run reports five times a second and at each percent, and the actor handles above a
//! million messages a second. The root builds it on its own thread, where no body can block it. If it dies, the
//! queues tell its successor which of their runs have bars, the watchers ask again, and the store has what was
//! shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use crate::core::progress::QUIET;
use crate::runtime::progress::{Bars, ProgressHub};
use crate::task::{ProgressCell, TaskId, TrackedState};

/// The progress actor as the rest of the runtime reaches it, across the actor's deaths. The hub sends the actor
/// only what some bar or watcher needs, so a run without a bar that nobody watches costs no message.
#[derive(Default)]
pub(crate) struct ActorProgressHub {
    actor: Mutex<Option<Addr<Progress>>>,
    bars: ProgressInterest,
    watchers: ProgressInterest,
}

/// A counting filter of task ids: whether an id may be one that somebody cares about. It may say yes of an id that
/// is not, but never no of one that is.
struct ProgressInterest {
    /// How many ids somebody cares about. Mostly there are none, and then no id is looked at.
    all: AtomicU32,
    of_ids: [AtomicU32; 256],
}

impl Default for ProgressInterest {
    fn default() -> Self {
        Self { all: AtomicU32::new(0), of_ids: [const { AtomicU32::new(0) }; 256] }
    }
}

impl ProgressInterest {
    fn of(&self, id: &TaskId) -> &AtomicU32 {
        let [last, ..] = xxh3_64(id.as_str().as_bytes()).to_le_bytes();
        &self.of_ids[usize::from(last)]
    }

    fn begin(&self, id: &TaskId) {
        self.all.fetch_add(1, Ordering::SeqCst);
        self.of(id).fetch_add(1, Ordering::SeqCst);
    }

    fn end(&self, id: &TaskId) {
        self.of(id).fetch_sub(1, Ordering::SeqCst);
        self.all.fetch_sub(1, Ordering::SeqCst);
    }

    fn may_have(&self, id: &TaskId) -> bool {
        self.all.load(Ordering::SeqCst) > 0 && self.of(id).load(Ordering::SeqCst) > 0
    }
}

impl ActorProgressHub {
    fn actor(&self) -> Option<Addr<Progress>> {
        self.actor.lock().clone()
    }

    fn tell<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Progress: Handler<M>,
    {
        if let Some(actor) = self.actor() {
            actor.do_send(message);
        }
    }

    /// Tells a new actor of runs whose bars the dead actor knew.
    pub(super) fn reopened(&self, cells: Vec<Arc<ProgressCell>>) {
        if !cells.is_empty() {
            self.tell(BarOpened(cells));
        }
    }

    /// Makes the actor panic, for tests of its supervision.
    #[cfg(test)]
    pub(super) fn kill(&self) -> Option<Addr<Progress>> {
        let actor = self.actor();
        self.tell(CrashProgress);
        actor
    }

    #[cfg(test)]
    pub(super) fn is(&self, actor: &Option<Addr<Progress>>) -> bool {
        self.actor() == *actor
    }
}

#[async_trait]
impl ProgressHub for ActorProgressHub {
    fn opened(&self, cell: &Arc<ProgressCell>) {
        self.bars.begin(cell.id());
        self.tell(BarOpened(vec![Arc::clone(cell)]));
    }

    fn closed(&self, id: &TaskId) {
        self.tell(Closed(id.clone()));
        self.bars.end(id);
    }

    fn stored(&self, state: &TrackedState) {
        if self.bars.may_have(&state.id) || self.watchers.may_have(&state.id) {
            self.tell(Stored(state.clone()));
        }
    }

    fn changed(&self, id: &TaskId) {
        if self.watchers.may_have(id) {
            self.tell(Changed(id.clone()));
        }
    }

    async fn shown(&self, id: &TaskId) -> Option<TrackedState> {
        // Most tasks have no bar here, and the question costs them no message.
        if !self.bars.may_have(id) {
            return None;
        }
        self.actor()?.send(GetProgress(id.clone())).await.ok().flatten()
    }

    async fn subscribe(&self, id: &TaskId) -> Option<watch::Receiver<()>> {
        let actor = self.actor()?;
        // The interest begins before the actor is asked, so that no change falls between the two.
        self.watchers.begin(id);
        let asking = Asking { progress_hub: self, id };
        let changes = actor.send(Watch(id.clone())).await.ok()?;
        std::mem::forget(asking); // the receiver's owner tells when it stops watching
        Some(changes)
    }

    fn stop_watching(&self, id: &TaskId) {
        self.tell(StopWatching(id.clone()));
        self.watchers.end(id);
    }
}

/// A caller that is about to watch. If it gives up, or the actor dies, before it has its receiver, its interest
/// ends with this.
struct Asking<'a> {
    progress_hub: &'a ActorProgressHub,
    id: &'a TaskId,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.progress_hub.stop_watching(self.id);
    }
}

/// The progress actor. It looks at the cells only while there are any.
pub(crate) struct Progress {
    bars: Bars,
    ticking: bool,
}

impl Progress {
    /// A new actor, which `progress_hub` sends its messages to from now on.
    pub(super) fn new(progress_hub: &ActorProgressHub, address: Addr<Self>) -> Self {
        *progress_hub.actor.lock() = Some(address);
        Self { bars: Bars::default(), ticking: false }
    }

    fn tick_later(&mut self, ctx: &mut Context<Self>) {
        if self.ticking || self.bars.cells().next().is_none() {
            return;
        }
        self.ticking = true;
        ctx.run_later(QUIET, |progress, ctx| {
            progress.ticking = false;
            progress.bars.cells().for_each(|cell| cell.tick());
            progress.tick_later(ctx);
        });
    }
}

impl Actor for Progress {
    type Context = Context<Self>;
}

/// These runs have bars from now on.
#[derive(Message)]
#[rtype(result = "()")]
struct BarOpened(Vec<Arc<ProgressCell>>);

impl Handler<BarOpened> for Progress {
    type Result = ();

    fn handle(&mut self, BarOpened(cells): BarOpened, ctx: &mut Self::Context) {
        cells.into_iter().for_each(|cell| self.bars.open(cell));
        self.tick_later(ctx);
    }
}

/// A run that has a bar has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Closed(TaskId);

impl Handler<Closed> for Progress {
    type Result = ();

    fn handle(&mut self, Closed(id): Closed, _: &mut Self::Context) {
        self.bars.close(&id);
    }
}

/// The store has this state of a task now.
#[derive(Message)]
#[rtype(result = "()")]
struct Stored(TrackedState);

impl Handler<Stored> for Progress {
    type Result = ();

    fn handle(&mut self, Stored(state): Stored, _: &mut Self::Context) {
        self.bars.stored(state);
    }
}

/// The run of a task has begun or has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Changed(TaskId);

impl Handler<Changed> for Progress {
    type Result = ();

    fn handle(&mut self, Changed(id): Changed, _: &mut Self::Context) {
        self.bars.changed(&id);
    }
}

/// Asks for the state that was last shown of a task that runs here.
#[derive(Message)]
#[rtype(result = "Option<TrackedState>")]
struct GetProgress(TaskId);

impl Handler<GetProgress> for Progress {
    type Result = Option<TrackedState>;

    fn handle(&mut self, GetProgress(id): GetProgress, _: &mut Self::Context) -> Self::Result {
        self.bars.get(&id)
    }
}

/// Asks for a receiver that is notified of each change of a task from now on.
#[derive(Message)]
#[rtype(result = "watch::Receiver<()>")]
struct Watch(TaskId);

impl Handler<Watch> for Progress {
    type Result = MessageResult<Watch>;

    fn handle(&mut self, Watch(id): Watch, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.bars.watch(id))
    }
}

/// A watcher of a task is gone.
#[derive(Message)]
#[rtype(result = "()")]
struct StopWatching(TaskId);

impl Handler<StopWatching> for Progress {
    type Result = ();

    fn handle(&mut self, StopWatching(id): StopWatching, _: &mut Self::Context) {
        self.bars.stop_watching(&id);
    }
}

/// Makes the actor panic, for tests of its supervision.
#[cfg(test)]
#[derive(Message)]
#[rtype(result = "()")]
struct CrashProgress;

#[cfg(test)]
impl Handler<CrashProgress> for Progress {
    type Result = ();

    fn handle(&mut self, _: CrashProgress, _: &mut Self::Context) {
        panic!("asked to die");
    }
}
