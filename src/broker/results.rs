//! An ability of brokers: they keep the records of tasks, and write what follows from an end in the same step with
//! it.

use async_trait::async_trait;

use super::BrokerError;
use crate::task::{Message, TaskId};

/// Keeps records: [`Settle::Ack`](super::Settle::Ack) and [`Settle::DeadLetter`](super::Settle::DeadLetter) leave
/// the result that they carry in a store, and [what follows](super::FollowUps) from it is sent, kept and counted.
#[async_trait]
pub trait Results: Send + Sync {
    /// Takes the first messages of a canvas, and the sizes of the chords whose members are among them.
    ///
    /// # Errors
    /// The error of the first message that was not taken; a broker that takes all in one step has taken none then.
    async fn publish_canvas(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        unique: bool,
    ) -> Result<(), BrokerError>;

    /// Takes messages, as long as none of their ids is taken, and counts one more member, of the id `member`, into
    /// an open chord.
    ///
    /// # Errors
    /// Nothing was taken, with the reason: an id is taken, or there is no such chord.
    async fn publish_chord_member(
        &self,
        messages: Vec<Message>,
        sizes: Vec<(String, u64)>,
        group: &str,
        member: &TaskId,
    ) -> Result<(), BrokerError>;
}
