//! The messages of the broker in memory, each in an entry of its own. Where a message stands, its place keeps the number of
//! its entry, so that a hand-over and a settlement come to it without a search.
//!
//! Invariants:
//! - The number of an entry stays the same until the entry is removed. Then another message may get it.
//! - The id of a task leads to the entry that came last with this id. An entry to which its id does not lead is not known,
//!   and is found by its number alone.
//! - The entries are kept in chunks, so that no growth moves them, and their memory is given back when the last one goes.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::MemorySpot;
use super::queue::QueueIndex;
use crate::task::{Message, TaskId};

/// How many entries are in a chunk.
const CHUNK: usize = 1024;

/// The number of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryIndex(usize);

impl EntryIndex {
    /// The number that no entry has.
    pub(super) const NONE: Self = Self(usize::MAX);

    fn some(self) -> Option<Self> {
        (self != Self::NONE).then_some(self)
    }
}

/// A message that waits or is delivered.
pub(super) struct Entry {
    pub(super) message: Arc<Message>,
    pub(super) spot: MemorySpot,
    /// The queue that the message names.
    pub(super) queue: QueueIndex,
    /// Whether the id of the task leads here.
    pub(super) is_known: bool,
    /// The next entry whose id has the same hash.
    next: EntryIndex,
}

enum EntrySlot {
    Used(Entry),
    /// No entry; the next slot that is free.
    Free(EntryIndex),
}

/// The entries, by number and by the id of their tasks.
pub(super) struct Entries<S = RandomState> {
    chunks: Vec<Vec<EntrySlot>>,
    /// The slot that is used next, of those that are free.
    free: EntryIndex,
    len: usize,
    /// The first entry of each hash of an id. A hash takes less room than an id, and growing reads no id.
    ids: HashMap<u64, EntryIndex, BuildHasherDefault<HashedId>>,
    /// Hashes ids with a seed of its own, because ids come from outside.
    hasher: S,
}

/// Passes on what is a hash already.
#[derive(Default)]
struct HashedId(u64);

impl Hasher for HashedId {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl<S: Default> Default for Entries<S> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: EntryIndex::NONE,
            len: 0,
            ids: HashMap::default(),
            hasher: S::default(),
        }
    }
}

impl<S: BuildHasher> Entries<S> {
    /// Takes a message in. Its id leads to the new entry from now on. Answers with the message to which it led before.
    pub(super) fn insert(
        &mut self,
        message: Arc<Message>,
        spot: MemorySpot,
        queue: QueueIndex,
    ) -> (EntryIndex, Option<Arc<Message>>) {
        let hash = self.hash(&message.id);
        let replaced = self.seek(hash, &message.id).and_then(|old| self.unknow(hash, old));
        let entry = Entry { message, spot, queue, is_known: true, next: EntryIndex::NONE };
        let at = self.store(entry);
        if let Some(next) = self.ids.insert(hash, at)
            && let Some(entry) = self.get_mut(at)
        {
            entry.next = next;
        }
        (at, replaced)
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, at: EntryIndex) -> Option<Entry> {
        let slot = self.chunks.get_mut(at.0 / CHUNK)?.get_mut(at.0 % CHUNK)?;
        if let EntrySlot::Free(_) = slot {
            return None;
        }
        let EntrySlot::Used(entry) = std::mem::replace(slot, EntrySlot::Free(self.free)) else { return None };
        self.free = at;
        self.len -= 1;
        if entry.is_known {
            let hash = self.hash(&entry.message.id);
            self.unlink(hash, at, entry.next);
        }
        if self.len == 0 && self.chunks.len() > 1 {
            (self.chunks, self.free) = (Vec::new(), EntryIndex::NONE);
            self.ids.shrink_to(CHUNK);
        }
        Some(entry)
    }

    pub(super) fn get(&self, at: EntryIndex) -> Option<&Entry> {
        match self.chunks.get(at.0 / CHUNK)?.get(at.0 % CHUNK)? {
            EntrySlot::Used(entry) => Some(entry),
            EntrySlot::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, at: EntryIndex) -> Option<&mut Entry> {
        match self.chunks.get_mut(at.0 / CHUNK)?.get_mut(at.0 % CHUNK)? {
            EntrySlot::Used(entry) => Some(entry),
            EntrySlot::Free(_) => None,
        }
    }

    /// The entry to which the id of a task leads, and its number.
    pub(super) fn find(&self, id: &TaskId) -> Option<(EntryIndex, &Entry)> {
        let at = self.seek(self.hash(id), id)?;
        self.get(at).map(|entry| (at, entry))
    }

    /// Whether the id of a task leads to an entry.
    pub(super) fn knows(&self, id: &TaskId) -> bool {
        self.seek(self.hash(id), id).is_some()
    }

    /// The entries to which their ids lead, in no order.
    pub(super) fn known(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flatten().filter_map(|slot| match slot {
            EntrySlot::Used(entry) => entry.is_known.then_some(entry),
            EntrySlot::Free(_) => None,
        })
    }

    fn hash(&self, id: &TaskId) -> u64 {
        self.hasher.hash_one(id.as_str())
    }

    fn seek(&self, hash: u64, id: &TaskId) -> Option<EntryIndex> {
        let mut next = self.ids.get(&hash).copied();
        while let Some(at) = next {
            let entry = self.get(at)?;
            if entry.message.id == *id {
                return Some(at);
            }
            next = entry.next.some();
        }
        None
    }

    /// Puts an entry into a free slot.
    fn store(&mut self, entry: Entry) -> EntryIndex {
        self.len += 1;
        let free = self.free;
        if let Some(slot) =
            self.chunks.get_mut(free.0 / CHUNK).and_then(|chunk| chunk.get_mut(free.0 % CHUNK))
        {
            if let EntrySlot::Free(next) = slot {
                self.free = *next;
            }
            *slot = EntrySlot::Used(entry);
            return free;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let Some(chunk) = self.chunks.last_mut() else { return EntryIndex::NONE }; // one was pushed if there was none
        chunk.push(EntrySlot::Used(entry));
        EntryIndex(before + chunk.len() - 1)
    }

    /// Has the id of an entry lead to it no more. Answers with its message.
    fn unknow(&mut self, hash: u64, at: EntryIndex) -> Option<Arc<Message>> {
        let entry = self.get_mut(at)?;
        entry.is_known = false;
        let next = std::mem::replace(&mut entry.next, EntryIndex::NONE);
        let message = Arc::clone(&entry.message);
        self.unlink(hash, at, next);
        Some(message)
    }

    /// Takes an entry, which `next` follows, out of the list of the entries of its hash.
    fn unlink(&mut self, hash: u64, at: EntryIndex, next: EntryIndex) {
        let Some(mut before) = self.ids.get(&hash).copied() else { return };
        if before == at {
            match next.some() {
                Some(next) => self.ids.insert(hash, next),
                None => self.ids.remove(&hash),
            };
            return;
        }
        while let Some(entry) = self.get_mut(before) {
            if entry.next == at {
                entry.next = next;
                return;
            }
            before = entry.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::task::Context;

    /// Gives all ids one of two hashes.
    #[derive(Default)]
    struct Weak(u64);

    impl Hasher for Weak {
        fn finish(&self) -> u64 {
            self.0 % 2
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0 += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Come(u8),
        /// The entry that came so many entries ago goes, if it is there.
        Go(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0..12_u8).prop_map(Event::Come),
            2 => (0..40_usize).prop_map(Event::Go),
        ]
    }

    fn insert<S: BuildHasher>(entries: &mut Entries<S>, id: &str) -> (EntryIndex, Option<Arc<Message>>) {
        let message = Message { id: id.into(), ..Context::detached().message().clone() };
        entries.insert(Arc::new(message), MemorySpot::Delivered, QueueIndex::default())
    }

    proptest! {
        /// Whatever comes and goes, and whichever ids have the same hash: each number leads to its message, and each id to
        /// the last one of this id, unless that is gone.
        #[test]
        fn ids_and_numbers_lead_to_their_messages(events in prop::collection::vec(event(), 1..120)) {
            let mut entries: Entries<BuildHasherDefault<Weak>> = Entries::default();
            let (mut all, mut by_id) = (Vec::new(), BTreeMap::new());
            for event in events {
                match event {
                    Event::Come(id) => {
                        let id = id.to_string();
                        let (at, replaced) = insert(&mut entries, &id);
                        let before = by_id.insert(id.clone(), at);
                        prop_assert_eq!(replaced.is_some(), before.is_some());
                        all.push((at, id));
                    }
                    Event::Go(ago) if ago < all.len() => {
                        let (at, id) = all.remove(all.len() - 1 - ago);
                        let entry = entries.remove(at).expect("it is there");
                        prop_assert_eq!(entry.message.id.as_str(), id.as_str());
                        prop_assert_eq!(entry.is_known, by_id.get(&id) == Some(&at));
                        if entry.is_known {
                            by_id.remove(&id);
                        }
                        prop_assert!(entries.remove(at).is_none(), "it goes once");
                    }
                    Event::Go(_) => {}
                }
                for (at, id) in &all {
                    prop_assert_eq!(entries.get(*at).map(|entry| entry.message.id.as_str()), Some(id.as_str()));
                }
                for id in (0..12_u8).map(|id| id.to_string()) {
                    let id = TaskId::from(id);
                    prop_assert_eq!(entries.find(&id).map(|(at, _)| at), by_id.get(id.as_str()).copied());
                    prop_assert_eq!(entries.knows(&id), by_id.contains_key(id.as_str()));
                }
                prop_assert_eq!(entries.known().count(), by_id.len());
                prop_assert_eq!(entries.len, all.len());
                prop_assert!(entries.ids.len() <= 2);
            }
        }
    }

    #[test]
    fn a_backlog_that_is_gone_leaves_no_memory_behind() {
        let mut entries: Entries = Entries::default();
        let all: Vec<EntryIndex> = (0..3 * CHUNK).map(|n| insert(&mut entries, &n.to_string()).0).collect();
        assert_eq!(entries.chunks.len(), 3);
        assert_eq!(insert(&mut entries, "more").0, EntryIndex(3 * CHUNK));
        for at in all {
            assert!(entries.remove(at).is_some());
        }
        assert_eq!((entries.len, entries.chunks.len()), (1, 4), "one is left");
        assert!(insert(&mut entries, "again").0 < EntryIndex(3 * CHUNK), "what is free is used first");
        for id in ["more", "again"] {
            let at = entries.find(&id.into()).map(|(at, _)| at).expect("it is there");
            assert!(entries.remove(at).is_some() && entries.get(at).is_none());
        }
        assert!(entries.chunks.is_empty() && entries.ids.is_empty() && entries.ids.capacity() < 2 * CHUNK);
        assert_eq!(insert(&mut entries, "first").0, EntryIndex(0));
    }
}
