//! An ability of stores: they keep a rate for all processes together.
//!
//! A process takes a few starts ahead and makes them at the times that it is given, so that no start waits for the store.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;

/// What a process asks of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartsWanted {
    /// The time between two starts: one divided by the rate.
    pub interval: Duration,
    /// How many starts are wanted at most.
    pub starts: u32,
    /// How far ahead they may lie.
    pub ahead: Duration,
}

/// The starts that a process is given: it makes them one interval apart. Nobody else is given the same times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartsGranted {
    /// How many starts there are; 0 if others have all that lie within the time ahead.
    pub starts: u32,
    /// How long until the first of them. If there are none: how long until it is worth asking again.
    pub after: Duration,
}

/// Keeps rates for all processes that use the store, by the clock of the store.
#[async_trait]
pub trait SharedRates: Send + Sync {
    /// Takes starts of the rate of this name. A rate that nobody has asked for in a while has a start at once, and never more
    /// than one.
    ///
    /// # Errors
    /// It is not known whether starts were taken. Those that were are lost.
    async fn take_starts(&self, name: &str, wanted: StartsWanted) -> Result<StartsGranted, StoreError>;
}
