//! The ready messages of a queue in memory: a line for each tenant, and one for the messages without a tenant.
//!
//! Within a line messages go by priority and then by arrival. [`FairLines`] says which line gives the next message.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Rank;
use crate::broker::{QueueTenants, TenantCounts};
use crate::core::Timestamp;
use crate::core::fair_lines::FairLines;
use crate::task::Message;

/// The messages that are ready, and how many of each line are delivered. The line without a tenant has the empty name.
#[derive(Default)]
pub(super) struct ReadyLines {
    lines: BTreeMap<String, BTreeMap<Rank, Arc<Message>>>,
    fair: FairLines<String>,
    len: usize,
}

/// The name of the line in which a message stands.
fn line_of(message: &Message) -> &str {
    message.tenant().unwrap_or_default()
}

impl ReadyLines {
    /// The number of ready messages.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, rank: Rank, message: Arc<Message>) {
        let name = line_of(&message).to_owned();
        self.fair.set_giving(&name, true);
        if self.lines.entry(name).or_default().insert(rank, message).is_none() {
            self.len += 1;
        }
    }

    /// Takes a message out.
    pub(super) fn remove(&mut self, rank: &Rank, message: &Message) -> Option<Arc<Message>> {
        let name = line_of(message);
        let line = self.lines.get_mut(name)?;
        let removed = line.remove(rank)?;
        self.len -= 1;
        if line.is_empty() {
            self.fair.set_giving(&name.to_owned(), false);
            // The line without a tenant stays: a queue without tenants uses it again and again.
            if !name.is_empty() {
                self.lines.remove(name);
            }
        }
        Some(removed)
    }

    /// The place of the message that is delivered next, if at most `room` may be out.
    pub(super) fn next(&self, room: usize) -> Option<(Rank, &Arc<Message>)> {
        let line = self.lines.get(self.fair.next(room)?)?;
        line.first_key_value().map(|(rank, message)| (*rank, message))
    }

    /// Takes out the message that is delivered next, if at most `room` may be out. It counts as delivered until
    /// [`ended`](Self::ended).
    pub(super) fn deliver(&mut self, room: usize) -> Option<(Rank, Arc<Message>)> {
        let (rank, message) = self.next(room)?;
        let message = Arc::clone(message);
        self.take(rank, message)
    }

    /// The first message of all lines, whosever turn it is, for tests that take one message after the other.
    #[cfg(feature = "testing")]
    pub(super) fn first(&self) -> Option<(Rank, &Arc<Message>)> {
        let heads = self.lines.values().filter_map(BTreeMap::first_key_value);
        heads.map(|(rank, message)| (*rank, message)).min_by_key(|(rank, _)| *rank)
    }

    /// As [`deliver`](Self::deliver), of the [first](Self::first) message.
    #[cfg(feature = "testing")]
    pub(super) fn deliver_first(&mut self) -> Option<(Rank, Arc<Message>)> {
        let (rank, message) = self.first()?;
        let message = Arc::clone(message);
        self.take(rank, message)
    }

    fn take(&mut self, rank: Rank, message: Arc<Message>) -> Option<(Rank, Arc<Message>)> {
        self.remove(&rank, &message)?;
        self.fair.gave(&line_of(&message).to_owned());
        Some((rank, message))
    }

    /// Notes that a message is not delivered any more: it is over, or has come back.
    pub(super) fn ended(&mut self, message: &Message) {
        self.fair.took_back(&line_of(message).to_owned());
    }

    /// The number of ready messages that are delivered before this one, up to `limit`. Lines take turns, so of each other
    /// line as many messages count as this one has turns to wait for.
    pub(super) fn before(&self, rank: &Rank, message: &Message, limit: usize) -> usize {
        let name = line_of(message);
        let own = self.lines.get(name).map_or(0, |line| line.range(..*rank).take(limit).count());
        let turns = own.saturating_add(1);
        let others = self.lines.iter().filter(|(other, _)| *other != name);
        let before = others.fold(own, |before, (_, line)| before.saturating_add(line.len().min(turns)));
        before.min(limit)
    }

    /// The number of messages of its own line that are before this ready one, delivered ones included, up to `limit`.
    pub(super) fn line_before(&self, rank: &Rank, message: &Message, limit: usize) -> usize {
        let name = line_of(message);
        let own = self.lines.get(name).map_or(0, |line| line.range(..*rank).take(limit).count());
        own.saturating_add(self.fair.out_of(name)).min(limit)
    }

    /// Since when the oldest ready message has been ready. The first message of each priority is the oldest of its line.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.lines.values().filter_map(oldest_in).min()
    }

    /// The tenants that have messages which are ready or delivered.
    pub(super) fn tenants(&self) -> QueueTenants {
        let mut tenants = QueueTenants::default();
        for (name, unsettled) in self.fair.lines().filter(|(name, _)| !name.is_empty()) {
            let ready = self.lines.get(name).map_or(0, BTreeMap::len) as u64;
            tenants.add(TenantCounts { tenant: name.clone(), ready, unsettled: unsettled as u64 });
        }
        tenants
    }
}

fn oldest_in(line: &BTreeMap<Rank, Arc<Message>>) -> Option<Timestamp> {
    let mut oldest = None;
    let mut below = Some(u8::MAX);
    while let Some(priority) = below
        && let Some(((Reverse(found), _), message)) = line.range((Reverse(priority), 0)..).next()
    {
        oldest = Some(oldest.map_or(message.due(), |oldest: Timestamp| oldest.min(message.due())));
        below = found.checked_sub(1);
    }
    oldest
}
