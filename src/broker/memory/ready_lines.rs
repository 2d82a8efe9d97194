//! The ready messages of a queue in memory: a line for each tenant, and one for the messages without a tenant.
//!
//! Within a line messages go by priority and then by arrival. [`FairLines`] says which line gives the next message.

use std::collections::BTreeMap;

use super::entries::{Entries, EntryIndex};
use super::rank::Rank;
use super::ready_line::ReadyLine;
use crate::broker::{QueueTenants, TenantCounts};
use crate::core::Timestamp;
use crate::core::fair_lines::FairLines;
use crate::task::Message;

/// The messages that are ready, and how many of each line are delivered. The line without a tenant has the empty name.
#[derive(Default)]
pub(super) struct ReadyLines {
    /// The messages without a tenant. A queue without tenants has no other line, and finds this one without a search.
    plain: ReadyLine,
    /// The messages of each tenant that has any.
    tenants: BTreeMap<String, ReadyLine>,
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

    /// Takes a message in: this one, which is in this entry.
    pub(super) fn insert(&mut self, rank: Rank, at: EntryIndex, message: &Message) {
        let name = line_of(message);
        if !name.is_empty() && !self.tenants.contains_key(name) {
            self.tenants.insert(name.to_owned(), ReadyLine::default());
        }
        let Some(line) = self.line_mut(name) else { return };
        let is_first = line.is_empty();
        line.insert(rank, at);
        self.len += 1;
        if is_first {
            self.fair.set_giving(&name.to_owned(), true);
        }
    }

    /// Takes a message out that is not delivered.
    pub(super) fn remove(&mut self, rank: Rank, message: &Message) -> Option<EntryIndex> {
        let name = line_of(message);
        let line = self.line_mut(name)?;
        let at = line.remove(rank)?;
        let is_empty = line.is_empty();
        self.len -= 1;
        if is_empty {
            self.close(name);
        }
        Some(at)
    }

    /// Takes out the message that is delivered next, if at most `room` may be out. It counts as delivered until
    /// [`ended`](Self::ended).
    pub(super) fn deliver(&mut self, room: usize) -> Option<(Rank, EntryIndex)> {
        let name = self.fair.next(room)?.clone();
        self.take_from(name)
    }

    /// The first message of all lines, whosever turn it is, for tests that take one message after the other.
    #[cfg(feature = "testing")]
    pub(super) fn first(&self) -> Option<(Rank, &str)> {
        self.lines().filter_map(|(name, line)| Some((line.first()?.0, name))).min()
    }

    /// As [`deliver`](Self::deliver), of the [first](Self::first) message.
    #[cfg(feature = "testing")]
    pub(super) fn deliver_first(&mut self) -> Option<(Rank, EntryIndex)> {
        let name = self.first()?.1.to_owned();
        self.take_from(name)
    }

    fn take_from(&mut self, name: String) -> Option<(Rank, EntryIndex)> {
        let line = self.line_mut(&name)?;
        let taken = line.pop_first()?;
        let is_empty = line.is_empty();
        self.len -= 1;
        self.fair.gave(&name);
        if is_empty {
            self.close(&name);
        }
        Some(taken)
    }

    /// A line has run empty.
    fn close(&mut self, name: &str) {
        self.fair.set_giving(&name.to_owned(), false);
        self.tenants.remove(name);
    }

    /// Notes that a message is not delivered any more: it is over, or has come back.
    pub(super) fn ended(&mut self, message: &Message) {
        self.fair.took_back(&line_of(message).to_owned());
    }

    /// The number of ready messages that are delivered before this one, up to `limit`. Lines take turns, so of each other
    /// line as many messages count as this one has turns to wait for.
    pub(super) fn before(&self, rank: Rank, message: &Message, limit: usize) -> usize {
        let name = line_of(message);
        let own = self.line(name).map_or(0, |line| line.before(rank, limit));
        let turns = own.saturating_add(1);
        let others = self.lines().filter(|(other, _)| *other != name);
        let before = others.fold(own, |before, (_, line)| before.saturating_add(line.len().min(turns)));
        before.min(limit)
    }

    /// The number of messages of its own line that are before this ready one, delivered ones included, up to `limit`.
    pub(super) fn line_before(&self, rank: Rank, message: &Message, limit: usize) -> usize {
        let name = line_of(message);
        let own = self.line(name).map_or(0, |line| line.before(rank, limit));
        own.saturating_add(self.fair.out_of(name)).min(limit)
    }

    /// Since when the oldest ready message has been ready. The first message of each priority is the oldest of its line.
    pub(super) fn oldest(&self, entries: &Entries) -> Option<Timestamp> {
        let firsts = self.lines().flat_map(|(_, line)| line.firsts());
        firsts.filter_map(|at| Some(entries.get(at)?.message.due())).min()
    }

    /// The tenants that have messages which are ready or delivered.
    pub(super) fn tenants(&self) -> QueueTenants {
        let mut tenants = QueueTenants::default();
        for (name, unsettled) in self.fair.lines().filter(|(name, _)| !name.is_empty()) {
            let ready = self.tenants.get(name).map_or(0, ReadyLine::len) as u64;
            tenants.add(TenantCounts { tenant: name.clone(), ready, unsettled: unsettled as u64 });
        }
        tenants
    }

    fn line(&self, name: &str) -> Option<&ReadyLine> {
        if name.is_empty() { Some(&self.plain) } else { self.tenants.get(name) }
    }

    fn line_mut(&mut self, name: &str) -> Option<&mut ReadyLine> {
        if name.is_empty() { Some(&mut self.plain) } else { self.tenants.get_mut(name) }
    }

    /// All lines with their names.
    fn lines(&self) -> impl Iterator<Item = (&str, &ReadyLine)> {
        let tenants = self.tenants.iter().map(|(name, line)| (name.as_str(), line));
        std::iter::once(("", &self.plain)).chain(tenants)
    }
}
