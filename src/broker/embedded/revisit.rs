//! Ready rows that lie before the position of their line's scan: urgent rows, and rows that were handed back.
//!
//! The scan must not go back for them. Between such a row and the scan's position lie the deleted rows of
//! everything that has run since, and the database steps over each of those: behind half a million of them an
//! urgent task started half a second late, and the whole store stood still meanwhile. So [`RevisitSet`] remembers the
//! keys of these rows. Memory is bounded, so beyond a number of keys it remembers only the range in which the
//! other rows lie.

use std::collections::BTreeSet;

use super::ready_key::ReadyKey;

/// How many keys are kept one by one.
const KEYS: usize = 4096;

/// The rows before the scan's position. Every key in `keys` sorts before every row in `rest`.
#[derive(Default)]
pub(super) struct RevisitSet {
    keys: BTreeSet<ReadyKey>,
    /// The range in which further rows lie, both ends included.
    rest: Option<(Vec<u8>, ReadyKey)>,
}

impl RevisitSet {
    pub(super) fn insert(&mut self, key: ReadyKey) {
        if let Some((first, last)) = &mut self.rest
            && key[..] >= first[..]
        {
            *last = key.max(*last);
            return;
        }
        self.keys.insert(key);
        if self.keys.len() > KEYS
            && let Some(most) = self.keys.pop_last()
        {
            let last = self.rest.take().map_or(most, |(_, last)| last);
            self.rest = Some((most.to_vec(), last));
        }
    }

    /// Adds the rows of another set that are known by their keys.
    pub(super) fn add(&mut self, other: Self) {
        other.keys.into_iter().for_each(|key| self.insert(key));
    }

    /// Takes out the first row that is known by its key.
    pub(super) fn next(&mut self) -> Option<ReadyKey> {
        self.keys.pop_first()
    }

    /// The range to read next. `None` as long as rows are known by their keys, since those sort before it.
    pub(super) fn rest(&self) -> Option<(Vec<u8>, ReadyKey)> {
        self.rest.clone().filter(|_| self.keys.is_empty())
    }

    /// The rows that are known by their keys, from `from` on.
    pub(super) fn known_from(&self, from: &[u8]) -> impl Iterator<Item = ReadyKey> + '_ {
        self.keys.range(ReadyKey::beginning_with(from)..).copied()
    }

    /// The range of the other rows, both ends included, whether or not some rows are known by their keys.
    pub(super) fn beyond(&self) -> Option<(&[u8], &[u8])> {
        self.rest.as_ref().map(|(first, last)| (first.as_slice(), &last[..]))
    }

    /// Notes that a scan has read the range up to and including `read`. `ended` says that it reached the end of
    /// the range.
    pub(super) fn was_read(&mut self, read: Option<&[u8]>, ended: bool) {
        if ended {
            self.rest = None;
        } else if let (Some((first, _)), Some(read)) = (&mut self.rest, read) {
            *first = [read, &[0]].concat(); // the next possible key after `read`
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.rest.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready_key(queue: u16, priority: u8, seq: u64) -> ReadyKey {
        ReadyKey::new(queue, Some(7), priority, seq)
    }

    /// Takes all rows out as a scan does, a few at a time; `rows` stand for those on disk.
    fn drain(revisit: &mut RevisitSet, rows: &BTreeSet<ReadyKey>) -> Vec<ReadyKey> {
        let mut out = Vec::new();
        while !revisit.is_empty() {
            out.extend(std::iter::from_fn(|| revisit.next()));
            if let Some((first, last)) = revisit.rest() {
                let mut within = rows.iter().filter(|k| k[..] >= first[..] && **k <= last).peekable();
                let read: Vec<_> = within.by_ref().take(7).copied().collect();
                revisit.was_read(read.last().map(|k| &k[..]), within.peek().is_none());
                out.extend(read);
            }
        }
        out
    }

    #[test]
    fn all_come_out_once_and_in_order_however_many() {
        for count in [1, KEYS, KEYS + 1, 3 * KEYS] {
            let rows: BTreeSet<_> = (0..count as u64).map(|n| ready_key(1, (n % 3) as u8, n)).collect();
            let mut arriving: Vec<_> = rows.iter().copied().collect();
            for backwards in [false, true] {
                if backwards {
                    arriving.reverse();
                }
                let mut revisit = RevisitSet::default();
                arriving.iter().for_each(|key| revisit.insert(*key));
                assert!(revisit.keys.len() <= KEYS);
                assert!(
                    drain(&mut revisit, &rows).into_iter().eq(rows.iter().copied()),
                    "{count}, {backwards}"
                );
            }
        }
    }

    #[test]
    fn those_that_come_while_the_rest_is_read_are_not_lost() {
        let mut rows: BTreeSet<_> = (0..2 * KEYS as u64).map(|n| ready_key(1, 5, n)).collect();
        let mut revisit = RevisitSet::default();
        rows.iter().for_each(|key| revisit.insert(*key));
        for urgent in [ready_key(1, 9, 10_000), ready_key(1, 5, 20_000)] {
            rows.insert(urgent);
            revisit.insert(urgent);
        }
        assert!(drain(&mut revisit, &rows).into_iter().eq(rows));
    }
}
