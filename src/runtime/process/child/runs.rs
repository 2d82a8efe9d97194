//! The runs of a child, one after the other: each is a body on a thread, as in the cpu pool, in a context whose ends are in
//! the program.

use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, interval_at};

use super::super::memory;
use super::super::protocol::{RunOrder, Up};
use super::ChildSetup;
use super::downloads::ChildDownloads;
use super::keeper::ChildKeeper;
use super::sinks::{ChildBar, ChildStates};
use super::uplink::Uplink;
use crate::core::progress::QUIET;
use crate::runtime::body::{CpuBody, Stuck};
use crate::runtime::run::too_large;
use crate::runtime::run_span::end_span_in_child;
use crate::task::clock::now;
use crate::task::{
    Client, Context, DownloadSink, Ending, EventFunnel, EventGroup, EventKind, EventStream, Interrupt,
    Message, PermitKeeper, ProgressSink, RunSetup, Sinks, StateSink, TaskDefinition, TaskEvent,
};

/// The run of a child as the program reaches it.
#[derive(Default)]
pub(super) struct RunSlot(Mutex<Reached>);

#[derive(Default)]
struct Reached {
    active: Option<BodyRun>,
    /// The run that was told to end before it began, and why.
    early: Option<(u64, Interrupt)>,
}

struct BodyRun {
    run: u64,
    context: Context,
    keeper: Arc<ChildKeeper>,
}

impl RunSlot {
    /// The body of this run is to end.
    pub(super) fn interrupt(&self, run: u64, interrupt: Interrupt) {
        let mut reached = self.0.lock();
        match &reached.active {
            Some(active) if active.run == run => active.context.interrupt_with(interrupt),
            _ => reached.early = Some((run, interrupt)),
        }
    }

    /// The body of this run is to end at its next checkpoint.
    pub(super) fn give_way(&self, run: u64) {
        if let Some(active) = self.0.lock().active.as_ref().filter(|active| active.run == run) {
            active.context.give_way();
        }
    }

    /// The permits that this run holds under this name are lost.
    pub(super) fn lost_permit(&self, run: u64, holder: &str) {
        if let Some(active) = self.0.lock().active.as_ref().filter(|active| active.run == run) {
            active.keeper.lost(holder);
        }
    }

    fn begin(&self, active: BodyRun) {
        let mut reached = self.0.lock();
        if let Some((_, interrupt)) = reached.early.take().filter(|(run, _)| *run == active.run) {
            active.context.interrupt_with(interrupt);
        }
        reached.active = Some(active);
    }

    fn end(&self) {
        self.0.lock().active = None;
    }
}

/// What the runs of a child share.
pub(super) struct ChildRuns {
    setup: ChildSetup,
    tells_memory: bool,
    uplink: Arc<Uplink>,
    slot: Arc<RunSlot>,
    client: Arc<dyn Client>,
    events: Arc<EventFunnel>,
    /// What bodies send into `events`.
    sent: EventStream,
    downloads: Arc<ChildDownloads>,
    stuck: Arc<Stuck>,
}

impl ChildRuns {
    /// It must be called on the event loop of the child.
    pub(super) fn new(
        setup: ChildSetup,
        tells_memory: bool,
        uplink: Arc<Uplink>,
        slot: Arc<RunSlot>,
        client: Arc<dyn Client>,
    ) -> Self {
        let events = Arc::<EventFunnel>::default();
        let sent = events.listen(&[EventGroup::Custom]);
        let downloads = ChildDownloads { uplink: Arc::clone(&uplink), handle: Handle::current() };
        Self {
            setup,
            tells_memory,
            uplink,
            slot,
            client,
            events,
            sent,
            downloads: Arc::new(downloads),
            stuck: Arc::default(),
        }
    }

    /// Runs a body to its end, and says how it ended.
    pub(super) async fn run(&mut self, order: RunOrder<Message>) {
        let run = order.run;
        self.uplink.begin(run);
        let outcome = match self.setup.registry.get(&order.message.task) {
            Some(definition) => self.body(definition, order).await,
            None => Err(unknown(&order.message.task)),
        };
        let most = self.setup.max_result_size;
        let outcome = outcome
            .and_then(|value| if value.len() > most { Err(too_large(&value, most)) } else { Ok(value) });
        let memory = if self.tells_memory { memory::resident() } else { None };
        self.uplink.push(Up::Done { run, outcome, memory });
        // The context goes after that: what it gives back then is the program's affair, which has the same run.
        self.slot.end();
    }

    async fn body(
        &mut self,
        definition: &'static TaskDefinition,
        order: RunOrder<Message>,
    ) -> Result<String, Ending> {
        let RunOrder { run, message, worker, fence, again, has_keeper, handed, shown } = order;
        let keeper = Arc::new(ChildKeeper::new(Arc::clone(&self.uplink), run));
        let bar = Arc::new(ChildBar::new(shown));
        let states = ChildStates { uplink: Arc::clone(&self.uplink), run };
        let sinks = Sinks {
            states: Some(Arc::new(states) as Arc<dyn StateSink>),
            progress: Some(Arc::clone(&bar) as Arc<dyn ProgressSink>),
            downloads: Some(Arc::clone(&self.downloads) as Arc<dyn DownloadSink>),
            events: Some(Arc::clone(&self.events)),
            client: Some(Arc::downgrade(&self.client)),
            data: Arc::clone(&self.setup.data),
        };
        let context = Context::of_run(RunSetup {
            message: Arc::new(message),
            worker: worker.into(),
            sinks: Arc::new(sinks),
            fence,
            again,
            keeper: has_keeper.then(|| Arc::clone(&keeper) as Arc<dyn PermitKeeper>),
        });
        if let Some(handed) = handed {
            let lost = keeper.holds(&handed.holder);
            context.receive_permit(handed, lost);
        }
        self.slot.begin(BodyRun { run, context: context.clone(), keeper });
        context.open_log(|| (definition.options)().keep_log);
        let (stuck, layers) = (Arc::clone(&self.stuck), Arc::clone(&self.setup.layers));
        let mut body = CpuBody::start(definition, context.clone(), now(), stuck, layers);
        let mut looks = interval_at(Instant::now() + QUIET, QUIET);
        let outcome = loop {
            let has_room = self.uplink.has_room();
            tokio::select! {
                outcome = &mut body => break outcome,
                Some(event) = self.sent.next(), if has_room => self.say(run, &context, event),
                _ = looks.tick() => {
                    bar.tick();
                    if has_room {
                        self.tell_log(run, &context);
                    }
                }
            }
        };
        // All of them: what stayed behind would be taken for events of the next run. Tokio's budget would end this early.
        while let Some(Some(event)) = unconstrained(self.sent.next()).now_or_never() {
            self.say(run, &context, event);
        }
        self.tell_log(run, &context);
        let span = end_span_in_child(&context, &outcome);
        if !span.0.is_empty() {
            self.uplink.push(Up::Traced { run, span });
        }
        // Whether the task is over is for the program to judge, and whether it shows this.
        context.close_bar(true);
        outcome
    }

    /// Says what the body has logged since this was said last. So somebody can read it while the run goes on, and it is not lost
    /// with the process.
    fn tell_log(&self, run: u64, context: &Context) {
        let lines = context.take_log();
        if !lines.lines.is_empty() {
            self.uplink.push(Up::Logged { run, lines });
        }
    }

    /// Says an event of this run. What an earlier body left behind may send one of its own task, which comes too late.
    fn say(&self, run: u64, context: &Context, event: TaskEvent) {
        if event.id() == context.id() {
            self.uplink.push(said(run, event));
        }
    }
}

/// An event of a body, as it is said to the program.
fn said(run: u64, event: TaskEvent) -> Up {
    let (name, fields) = match event.kind {
        EventKind::Custom { name, fields } => (name.to_string(), serde_json::to_string(&*fields)),
        // Bodies send no others.
        other => (other.name().to_owned(), Ok("{}".to_owned())),
    };
    Up::Event { run, name, fields: fields.unwrap_or_default() }
}

/// The ending of a task that this process does not have, although the program that has started it does.
fn unknown(task: &str) -> Ending {
    let error = format!(
        "the child process has no task `{task}`, although the program that has started it does: both have to be the same program"
    );
    Ending::Fail { errors: vec![error], name: "NotRegistered".into() }
}
