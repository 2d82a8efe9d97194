//! Ready rows that lie ahead of the place where their queue's scan is: urgent ones, and ones that were handed back.
//!
//! The scan must not go back for them. Between them and its place lie the deleted rows of all that has run since, and
//! the database steps over each of those: behind half a million of them an urgent task started half a second late, and
//! the whole store stood still meanwhile. So their keys are known; and, as memory is bounded, of those beyond a number
//! only from where to where they lie.

use std::collections::BTreeSet;

use super::rows::ReadyKey;

/// How many keys are known one by one.
const KEYS: usize = 4096;

/// What lies ahead. All of `keys` come before `rest`.
#[derive(Default)]
pub(super) struct Ahead {
    keys: BTreeSet<ReadyKey>,
    /// Where more of them lie: from here to there, both included.
    rest: Option<(Vec<u8>, ReadyKey)>,
}

impl Ahead {
    pub(super) fn insert(&mut self, key: ReadyKey) {
        if let Some((first, last)) = &mut self.rest
            && key.as_slice() >= first.as_slice()
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

    /// The next that is known by its key.
    pub(super) fn next(&mut self) -> Option<ReadyKey> {
        self.keys.pop_first()
    }

    /// Where to look when no more are known by their keys.
    pub(super) fn rest(&self) -> Option<(Vec<u8>, ReadyKey)> {
        self.rest.clone().filter(|_| self.keys.is_empty())
    }

    /// The rest was read up to and including `read`; `ended`: to its end.
    pub(super) fn was_read(&mut self, read: Option<&[u8]>, ended: bool) {
        if ended {
            self.rest = None;
        } else if let (Some((first, _)), Some(read)) = (&mut self.rest, read) {
            *first = [read, &[0]].concat(); // the next key behind it
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.rest.is_none()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::ready_key;
    use super::*;

    /// Takes all out as a scan does, from `rows` on disk, a few at a time.
    fn drain(ahead: &mut Ahead, rows: &BTreeSet<ReadyKey>) -> Vec<ReadyKey> {
        let mut out = Vec::new();
        while !ahead.is_empty() {
            out.extend(std::iter::from_fn(|| ahead.next()));
            if let Some((first, last)) = ahead.rest() {
                let mut within =
                    rows.iter().filter(|k| k.as_slice() >= first.as_slice() && **k <= last).peekable();
                let read: Vec<_> = within.by_ref().take(7).copied().collect();
                ahead.was_read(read.last().map(|k| &k[..]), within.peek().is_none());
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
                let mut ahead = Ahead::default();
                arriving.iter().for_each(|key| ahead.insert(*key));
                assert!(ahead.keys.len() <= KEYS);
                assert!(
                    drain(&mut ahead, &rows).into_iter().eq(rows.iter().copied()),
                    "{count}, {backwards}"
                );
            }
        }
    }

    #[test]
    fn those_that_come_while_the_rest_is_read_are_not_lost() {
        let mut rows: BTreeSet<_> = (0..2 * KEYS as u64).map(|n| ready_key(1, 5, n)).collect();
        let mut ahead = Ahead::default();
        rows.iter().for_each(|key| ahead.insert(*key));
        for urgent in [ready_key(1, 9, 10_000), ready_key(1, 5, 20_000)] {
            rows.insert(urgent);
            ahead.insert(urgent);
        }
        assert!(drain(&mut ahead, &rows).into_iter().eq(rows));
    }
}
