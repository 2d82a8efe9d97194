//! Why a lever of an operator did not move, or a question was not answered. The texts say what to do.

use crate::broker::BrokerError;
use crate::catalogue::Pool;
use crate::core::brake::BrakeError;
use crate::store::StoreError;

/// Why a lever of an operator did not move, or a question was not answered.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// There is no queue of this name.
    #[error("no queue `{queue}`; there are: {known}")]
    UnknownQueue {
        /// The name that was asked for.
        queue: String,
        /// The names of the queues that the catalogue has.
        known: String,
    },
    /// The catalogue says that other programs serve this queue, so nothing here runs its tasks, counts them or can
    /// be steered.
    #[error("queue `{0}` is served elsewhere, as its row says (served = false): ask there")]
    ServedElsewhere(String),
    /// The queue's actor does not answer: it is being built anew, or the runtime has shut down.
    #[error(
        "queue `{0}` does not answer within a second: a task blocks its event loop (a lever is moved when the loop is free), its actor is being restarted, or the runtime has shut down"
    )]
    NotAnswering(String),
    /// This is a queue of a test.
    #[error(
        "queue `{0}` has no workers here: the test itself runs its tasks, one at a time, so nothing can be paused or resized"
    )]
    InTest(String),
    /// There is no source poller of this name.
    #[error("no source poller `{name}`; there are: {known}")]
    UnknownPoller {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The source poller's actor does not answer: it is being built anew, or the runtime has shut down.
    #[error(
        "source poller `{0}` does not answer: it is being restarted, or the runtime has shut down; try again"
    )]
    NoAnswer(String),
    /// The broker is this program's alone, so there are no other programs to speak to.
    #[error(
        "the broker `{0}` has no remote control: only programs on RabbitMQ are a fleet; this program itself is asked by `queues`, `running`, `pause` and the like"
    )]
    NoFleet(&'static str),
    /// The arguments of a command of remote control are no object.
    #[error("a command of remote control takes an object with its arguments by name, or null, not `{0}`")]
    Arguments(String),
    /// Nobody keeps here what is to hold after a restart.
    #[error(
        "nothing here keeps what is to hold after a restart: RabbitMQ keeps no notes, so keep results in Redis (`.result_backend(\"redis://…\")`); the lever was moved for now"
    )]
    NothingKept,
    /// The broker lacks an ability.
    #[error("the broker `{broker}` cannot {what}")]
    NoAbility {
        /// The broker's name.
        broker: &'static str,
        /// What it cannot do.
        what: &'static str,
    },
    /// A brake is refused.
    #[error(transparent)]
    Brake(#[from] BrakeError),
    /// There is no act on many tasks of this id.
    #[error("there is no act `{0}`: it was over more than a week ago, or was never begun here")]
    UnknownAct(String),
    /// An act on many tasks cannot be undone: its id, and why.
    #[error("the act `{0}` cannot be undone: {1}")]
    CannotUndo(String, String),
    /// An act on many tasks cannot be cancelled: its id, and why.
    #[error("the act `{0}` cannot be cancelled: {1}")]
    CannotCancel(String, String),
    /// A queue needs at least one worker; `pause` stops it.
    #[error("a queue needs at least one worker; use `pause` to stop it")]
    NoWorkers,
    /// A range of workers from which none can be chosen.
    #[error(
        "a queue cannot have from {min} to {max} workers: state the fewest first, and at least one as the most"
    )]
    WorkerRange {
        /// The fewest that were asked for.
        min: usize,
        /// The most that were asked for.
        max: usize,
    },
    /// A pool needs at least one slot.
    #[error("a pool needs at least one slot; pause its queues to stop them")]
    NoSlots,
    /// The queues of this pool share no slots.
    #[error(
        "the queues of pool `{0}` share no slots: set slots = ... in [pool.{0}] of the catalogue, or resize a queue"
    )]
    NothingShared(Pool),
    /// This is no weight of a tenant.
    #[error(
        "{weight} is no weight of tenant `{tenant}`: it is a number from 0.001 to 1000000, and 1 unless stated"
    )]
    BadWeight {
        /// The tenant that was to have it.
        tenant: String,
        /// The number that was given.
        weight: String,
    },
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

crate::core::debug_as_display!(ControlError);
