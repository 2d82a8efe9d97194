//! Runs the tasks of a test, one after the other, by the code that runs them in production, without actors.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::recorder::{Ran, Recorder};
use crate::actors::beat::stepped::SteppedBeat;
use crate::broker::{Delivery, MemoryBroker};
use crate::catalogue::Pool;
use crate::core::Timestamp;
use crate::runtime::Runtime;
use crate::runtime::admission::admit;
use crate::runtime::conclusion::conclude;
use crate::runtime::run::Run;
use crate::task::clock::now;
use crate::task::scope::VirtualClock;
use crate::task::{
    Context, Judge, Message, Next, RunSetup, Sinks, State, StateSink, TaskId, TaskResult, Verdict,
};

/// After this many runs without a pause, the stage assumes that some task goes on for ever.
const RUNS: usize = 10_000;

/// The point of a run at which the test makes its worker die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CrashPoint {
    /// The run has begun, and nothing of the body has run.
    AtStart,
    /// The body has run to its end, and the broker was not told.
    BeforeSettle,
}

/// The broker, clock and runtime of a test, and the tasks that run on them.
pub(super) struct Stage {
    pub(super) runtime: Arc<Runtime>,
    pub(super) broker: Arc<MemoryBroker>,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) beat: Arc<tokio::sync::Mutex<Option<SteppedBeat>>>,
    running: Mutex<HashMap<TaskId, Context>>,
    crashes: Mutex<Vec<(&'static str, CrashPoint)>>,
}

/// The error that runs follow each other without end.
#[derive(Debug)]
pub(super) struct Endless {
    pub(super) last: Ran,
    pub(super) runs: usize,
}

impl Stage {
    pub(super) fn new(
        runtime: Arc<Runtime>,
        broker: Arc<MemoryBroker>,
        clock: Arc<VirtualClock>,
        recorder: Arc<Recorder>,
    ) -> Self {
        Self {
            runtime,
            broker,
            clock,
            recorder,
            beat: Arc::default(),
            running: Mutex::default(),
            crashes: Mutex::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<TaskId, Context>> {
        self.running.lock()
    }

    /// The context of a task's run, if the task runs now.
    pub(super) fn run_of(&self, id: &TaskId) -> Option<Context> {
        self.running().get(id).cloned()
    }

    /// Makes the worker of a task's next run die.
    pub(super) fn crash(&self, task: &'static str, point: CrashPoint) {
        self.crashes.lock().push((task, point));
    }

    fn crash_point(&self, task: &str) -> Option<CrashPoint> {
        let mut crashes = self.crashes.lock();
        let at = crashes.iter().position(|(name, _)| *name == task)?;
        Some(crashes.remove(at).1)
    }

    /// Runs the task that has been ready for longest. Returns `None` if no task is ready.
    pub(super) async fn step(&self) -> Option<Ran> {
        let delivery = self.broker.take_next()?;
        let ran = self.run(delivery).await;
        self.recorder.ran(ran.clone());
        Some(ran)
    }

    /// Runs the due tasks and those that follow from them and are due as well. Returns the number of runs.
    pub(super) async fn run_until_idle(&self) -> Result<usize, Endless> {
        let mut runs = 0;
        loop {
            if let Some(beat) = &mut *self.beat.lock().await {
                beat.fire().await;
            }
            let Some(ran) = self.step().await else { return Ok(runs) };
            runs += 1;
            if runs >= RUNS {
                return Err(Endless { last: ran, runs });
            }
        }
    }

    /// Runs all tasks, those that wait for a later time too: the clock moves to the time of each in turn.
    pub(super) async fn run_out(&self) -> Result<(), Endless> {
        let mut runs = 0;
        loop {
            while let Some(ran) = self.step().await {
                runs += 1;
                if runs >= RUNS {
                    return Err(Endless { last: ran, runs });
                }
            }
            let Some(due) = self.broker.next_due() else { return Ok(()) };
            self.clock.move_to(due);
        }
    }

    /// Moves the clock to `end`, and runs the tasks that come due on the way, each at its time.
    pub(super) async fn advance(&self, end: Timestamp) -> Result<usize, Endless> {
        let mut runs = self.run_until_idle().await?;
        loop {
            let tick = self.beat.lock().await.as_ref().and_then(SteppedBeat::next);
            let next = [self.broker.next_due(), self.broker.next_deadline(), tick];
            let Some(next) = next.into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.clock.move_to(next);
            runs += self.run_until_idle().await?;
        }
        self.clock.move_to(end);
        Ok(runs)
    }

    async fn run(&self, delivery: Delivery) -> Ran {
        let now = now();
        let message = predictable(delivery.message());
        let judge = Judge::unstarted(&message, now);
        let worker: Arc<str> = format!("{}#1", message.queue).into();
        self.runtime.tell_received(&delivery);
        let definition = match admit(&self.runtime, &judge) {
            Ok(definition) => definition,
            Err(verdict) => {
                let ran = ran(&message, &verdict);
                let context = Context::new(Arc::clone(&message), worker, Sinks::default());
                let hooks = self.runtime.hooks_without_run();
                conclude(*verdict, Some(delivery), &context, hooks.as_ref(), &self.runtime, None).await;
                return ran;
            }
        };
        let states = Arc::clone(&self.recorder) as Arc<dyn StateSink>;
        let sinks = Sinks { states: Some(states), client: None, ..Sinks::clone(&self.runtime.sinks()) };
        let context = Context::of_run(RunSetup {
            message: Arc::clone(&message),
            worker,
            sinks: Arc::new(sinks),
            fence: delivery.fence(),
            again: delivery.is_again(),
            keeper: self.runtime.permits.clone(),
        });
        self.running().insert(message.id.clone(), context.clone());
        let run = Run {
            definition,
            context,
            // In a test a body runs where the test does, whatever the pool of its queue.
            pool: Pool::Io,
            child: None,
            force: Arc::new(CancellationToken::new()),
            stuck: Arc::default(),
            runtime: Arc::clone(&self.runtime),
            started_at: now,
            time_limits: self.runtime.time_limits(&message),
            place: None,
        };
        let ran = self.perform(&run, delivery).await;
        self.running().remove(&message.id);
        ran
    }

    async fn perform(&self, run: &Run, delivery: Delivery) -> Ran {
        let message = run.context.message();
        let crash = self.crash_point(&message.task);
        let died = || Ran { crashed: true, ..ran(message, &Verdict::HandBack) };
        let hooks = run.hooks();
        // A delivery that is dropped goes back and counts a crash, as when its worker dies.
        let Ok(delivery) = run.begin(delivery).await else { return ran(message, &Verdict::HandBack) };
        if crash == Some(CrashPoint::AtStart) {
            return died();
        }
        let outcome = run.body(hooks.as_ref()).await;
        if crash == Some(CrashPoint::BeforeSettle) {
            return died();
        }
        let verdict = run.verdict(outcome, 0);
        let ran = ran(message, &verdict);
        let report = conclude(verdict, delivery, &run.context, hooks.as_ref(), &self.runtime, None).await;
        run.after_return(hooks.as_ref(), &report);
        ran
    }
}

/// The same message without jitter, so that its retries are due at times that a test can predict.
fn predictable(message: &Arc<Message>) -> Arc<Message> {
    if !message.retry.jitter {
        return Arc::clone(message);
    }
    let mut message = Message::clone(message);
    message.retry.jitter = false;
    Arc::new(message)
}

fn ran(message: &Message, verdict: &Verdict) -> Ran {
    let of_record = |record: &TaskResult| {
        let chosen = record.error_type.as_deref() == Some("Fail");
        (record.state, record.errors.clone(), chosen)
    };
    let (state, errors, chosen) = match verdict {
        Verdict::Over(record) | Verdict::Dead { record, .. } => of_record(record),
        Verdict::Again { message, next: Next::Retry, .. } => {
            (State::Retry, message.last_errors.clone(), false)
        }
        _ => (State::Pending, Vec::new(), false),
    };
    Ran {
        id: message.id.clone(),
        task: message.task.clone(),
        queue: message.queue.clone(),
        attempt: message.tries().saturating_add(1),
        state,
        errors,
        crashed: false,
        chosen,
    }
}
