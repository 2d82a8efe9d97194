//! What the tests break on purpose: each property has a fault that it must find. In a program there is none.

/// A fault of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The last free slot is left idle.
    IdlesLastSlot,
    /// What came last goes first, whatever is promised.
    ForgetsPromise,
    /// Runs cost their tenants nothing.
    ForgetsCost,
    /// A run costs what it was thought to cost, however long it took.
    KeepsEstimate,
    /// When a promise is at risk, what has used least of its promise goes first.
    StarvesOldest,
    /// The last of a line goes first.
    ReversesLine,
    /// A start that is called off keeps its slot.
    LeaksSlot,
    /// A tenant keeps the credit of the time in which it had no work.
    HoardsCredit,
    /// One run more goes on than there are slots.
    ExceedsSlots,
    /// No tenant leaves room for others.
    ForgetsRoom,
    /// Runs block no promise.
    ForgetsReserve,
    /// Two machines with one history differ.
    #[cfg(test)]
    Wavers,
    /// All that waits is said to wait for room.
    Lies,
    /// Nothing is said to start before a task that has others before it.
    ForgetsOthers,
    /// All tenants have the same weight.
    ForgetsWeight,
    /// Nobody finds out that a tenant has had its turn before its next task would start.
    ForgetsTurns,
}
