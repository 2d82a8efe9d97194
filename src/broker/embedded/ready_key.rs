//! The keys of ready rows, which sort in the order in which tasks run.
//!
//! The rows of a queue that have no tenant are one line, and those of each tenant are a line of its own. Within a line
//! rows sort by priority, high first, and then by arrival. So a short scan finds the next row of any line, however many
//! rows the others have.
//!
//! Stores of earlier versions have only rows without a tenant, and the keys of such rows are what they were.

use std::fmt;
use std::ops::Deref;

/// The class of rows without a tenant in the key.
const READY: u8 = 0;
/// The class of rows with a tenant. The class between the two is that of scheduled rows.
const READY_OF_TENANT: u8 = 2;

/// The bytes of the key of a row without a tenant: queue, class, inverted priority, sequence.
pub(super) const PLAIN_KEY: usize = 2 + 1 + 1 + 8;
/// The bytes of the key of a row with a tenant: queue, class, tenant, inverted priority, sequence.
const TENANT_KEY: usize = 2 + 1 + 4 + 1 + 8;

/// A line of ready rows of a queue: that of the tenant with this number, or with `None` that of the rows without a
/// tenant.
pub(super) type LineNumber = Option<u32>;

/// The key of a ready row. Keys of one queue sort by line, then by priority, then by arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ReadyKey {
    /// The bytes of the key, and zeros behind them.
    bytes: [u8; TENANT_KEY],
    len: u8,
}

impl ReadyKey {
    pub(super) fn new(queue: u16, line: LineNumber, priority: u8, seq: u64) -> Self {
        let (bytes, len) = match line {
            None => joined(&[&queue.to_be_bytes(), &[READY, !priority], &seq.to_be_bytes()]),
            Some(tenant) => joined(&[
                &queue.to_be_bytes(),
                &[READY_OF_TENANT],
                &tenant.to_be_bytes(),
                &[!priority],
                &seq.to_be_bytes(),
            ]),
        };
        Self { bytes, len }
    }

    /// Reads a key of the table `messages`. `None`: it is not that of a ready row.
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        match (key.get(2), key.len()) {
            (Some(&READY), PLAIN_KEY) | (Some(&READY_OF_TENANT), TENANT_KEY) => {
                Some(Self::beginning_with(key))
            }
            _ => None,
        }
    }

    /// A bound that sorts before all keys which begin with this prefix, and behind all that sort before the prefix.
    pub(super) fn beginning_with(prefix: &[u8]) -> Self {
        let (bytes, len) = joined(&[prefix]);
        Self { bytes, len }
    }

    /// The line in which the row waits.
    pub(super) fn line(&self) -> LineNumber {
        let (head, rest) = self.bytes.split_first_chunk::<3>()?;
        let tenant = rest.first_chunk().copied().filter(|_| head[2] == READY_OF_TENANT)?;
        Some(u32::from_be_bytes(tenant))
    }

    /// The sequence of the row.
    pub(super) fn seq(&self) -> u64 {
        self.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// The key without its tenant, for records of one length. [`with_line`](Self::with_line) makes a key of it again.
    pub(super) fn without_line(&self) -> [u8; PLAIN_KEY] {
        let mut plain = [0; PLAIN_KEY];
        plain[..3].copy_from_slice(&self.bytes[..3]);
        let behind = self.last_chunk::<{ PLAIN_KEY - 3 }>().copied().unwrap_or_default();
        plain[3..].copy_from_slice(&behind);
        plain
    }

    /// Makes a key of what [`without_line`](Self::without_line) has left of it. `None`: it is no such key.
    pub(super) fn with_line(plain: &[u8; PLAIN_KEY], line: LineNumber) -> Option<Self> {
        let (head, rest) = plain.split_first_chunk::<3>()?;
        match (head[2], line) {
            (READY, _) => Self::of(plain),
            (READY_OF_TENANT, Some(tenant)) => Self::of(&[&head[..], &tenant.to_be_bytes(), rest].concat()),
            _ => None,
        }
    }
}

impl Deref for ReadyKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for ReadyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Joins parts to a key; what is too long for one is cut.
fn joined(parts: &[&[u8]]) -> ([u8; TENANT_KEY], u8) {
    let (mut bytes, mut len) = ([0; TENANT_KEY], 0);
    for (place, byte) in bytes.iter_mut().zip(parts.iter().copied().flatten()) {
        *place = *byte;
        len += 1;
    }
    (bytes, len)
}

/// Whether a key of the table `messages` belongs to a ready row.
pub(super) fn is_ready(key: &[u8]) -> bool {
    matches!(key.get(2), Some(&READY | &READY_OF_TENANT))
}

/// The bounds of the keys of a line: the first is included, the second is not.
pub(super) fn line_bounds(queue: u16, line: LineNumber) -> (Vec<u8>, Vec<u8>) {
    let [a, b] = queue.to_be_bytes();
    let of_tenant = |tenant: u32| [&[a, b, READY_OF_TENANT][..], &tenant.to_be_bytes()].concat();
    match line {
        None => (vec![a, b, READY], vec![a, b, READY + 1]),
        Some(tenant) => (
            of_tenant(tenant),
            tenant.checked_add(1).map_or_else(|| vec![a, b, READY_OF_TENANT + 1], of_tenant),
        ),
    }
}

/// The bounds of the keys of all rows of a queue that have a tenant: the first is included, the second is not.
pub(super) fn tenants_bounds(queue: u16) -> ([u8; 3], [u8; 3]) {
    let [a, b] = queue.to_be_bytes();
    ([a, b, READY_OF_TENANT], [a, b, READY_OF_TENANT + 1])
}

/// What keys of ready rows begin with that are in the line of `from` and not before it, and not behind `to` if that is in the
/// line, too: for each priority the bytes before the sequence, and the lowest sequence. `None`: `from` is in no line.
pub(super) fn rest_of_line(from: &[u8], to: Option<&[u8]>) -> Option<Vec<(Vec<u8>, u64)>> {
    let len = match *from.get(2)? {
        READY => PLAIN_KEY - 9,
        READY_OF_TENANT => TENANT_KEY - 9,
        _ => return None,
    };
    let line = from.get(..len)?;
    let first = from.get(len).copied().unwrap_or_default();
    let last = to.and_then(|to| to.strip_prefix(line)?.first().copied()).unwrap_or(u8::MAX);
    let seq = from.get(len + 1..len + 9).and_then(|seq| seq.try_into().ok()).map_or(0, u64::from_be_bytes);
    let prefix = |priority: u8| ([line, &[priority]].concat(), if priority == first { seq } else { 0 });
    Some((first..=last).map(prefix).collect())
}

/// The bound from which the rows of a line follow that are less urgent than this one. `None`: there are none, because the
/// row has the lowest priority.
pub(super) fn behind_priority(key: &[u8]) -> Option<Vec<u8>> {
    let at = ReadyKey::of(key).map(|key| key.len().saturating_sub(9))?;
    let next = key.get(at)?.checked_add(1)?;
    Some([key.get(..at)?, &[next]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_tasks_run() {
        let plain = |queue, priority, seq| ReadyKey::new(queue, None, priority, seq);
        let of = |tenant, priority, seq| ReadyKey::new(1, Some(tenant), priority, seq);
        let sorted = [
            plain(1, 255, 9),
            plain(1, 9, 5),
            plain(1, 0, 1),
            plain(1, 0, 256),
            plain(1, 0, u64::MAX),
            of(0, 255, 3),
            of(0, 0, 1),
            of(1024, 9, 256),
            of(1024, 9, 257),
            of(1024, 0, 2),
            of(u32::MAX, 0, u64::MAX),
            plain(2, 255, 0),
        ];
        assert!(sorted.is_sorted() && sorted.iter().map(|key| &key[..]).is_sorted());
        for key in sorted {
            assert_eq!(ReadyKey::of(&key), Some(key));
            assert!(is_ready(&key));
            let (first, end) = line_bounds(u16::from(key[1]), key.line());
            assert!(first.as_slice() <= &key[..] && &key[..] < end.as_slice(), "{key:?}");
            assert_eq!(ReadyKey::with_line(&key.without_line(), key.line()), Some(key));
        }
        assert_eq!((of(7, 3, 99).line(), of(7, 3, 99).seq()), (Some(7), 99));
        assert_eq!((plain(1, 3, 99).line(), plain(1, 3, 99).seq()), (None, 99));
    }

    #[test]
    fn the_keys_of_rows_without_a_tenant_are_what_they_were() {
        let key = ReadyKey::new(0x0102, None, 5, 0x0304);
        assert_eq!(&key[..], [1, 2, 0, !5, 0, 0, 0, 0, 0, 0, 3, 4]);
        assert_eq!(key.without_line(), key[..]);
    }

    #[test]
    fn lines_lie_apart_and_what_is_no_key_is_told() {
        for line in [None, Some(0), Some(1023), Some(u32::MAX)] {
            let (first, end) = line_bounds(7, line);
            for other in [None, Some(0), Some(1), Some(1022), Some(1024), Some(u32::MAX - 1), Some(u32::MAX)]
            {
                let within = |key: ReadyKey| first.as_slice() <= &key[..] && &key[..] < end.as_slice();
                for (priority, seq) in [(255, 0), (0, u64::MAX)] {
                    assert_eq!(within(ReadyKey::new(7, other, priority, seq)), line == other);
                    assert!(!within(ReadyKey::new(8, other, priority, seq)));
                }
            }
        }
        let (first, end) = tenants_bounds(7);
        for key in [ReadyKey::new(7, Some(0), 255, 0), ReadyKey::new(7, Some(u32::MAX), 0, u64::MAX)] {
            assert!(first.as_slice() <= &key[..] && &key[..] < end.as_slice());
        }
        let key = ReadyKey::new(1, Some(2), 3, 4);
        let cut = &key[..PLAIN_KEY];
        let long = [&key[..], &[0]].concat();
        let wrong: [&[u8]; 5] = [cut, &long, &[], &[0, 1, 0], &[0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9]];
        for wrong in wrong {
            assert_eq!(ReadyKey::of(wrong), None, "{wrong:?}");
        }
        assert_eq!(ReadyKey::with_line(&key.without_line(), None), None);
    }

    #[test]
    fn what_is_left_of_a_line_is_its_priorities_from_a_key_on() {
        let key = ReadyKey::new(1, Some(7), 255 - 253, 40);
        let line = key[..7].to_vec();
        let begins = |priority: u8| [&line[..], &[priority]].concat();
        let rest = rest_of_line(&key, None).unwrap();
        assert_eq!(rest, [(begins(253), 40), (begins(254), 0), (begins(255), 0)]);
        let within = rest_of_line(&key, Some(&ReadyKey::new(1, Some(7), 1, 9))).unwrap();
        assert_eq!(within, [(begins(253), 40), (begins(254), 0)]);
        let beyond = rest_of_line(&key, Some(&ReadyKey::new(1, Some(8), 9, 9))).unwrap();
        assert_eq!(beyond, rest, "another line ends this one");
        assert_eq!(rest_of_line(&line, None).unwrap().len(), 256, "a bound of a line has all of it");
        assert_eq!(rest_of_line(&[0, 1], None), None);
        assert_eq!(rest_of_line(&[0, 1, 1, 0, 0], None), None, "scheduled rows are in no line");
    }

    #[test]
    fn bounds_sort_where_their_prefix_does() {
        let keys =
            [ReadyKey::new(1, None, 9, 5), ReadyKey::new(1, None, 8, 1), ReadyKey::new(1, Some(3), 9, 5)];
        for key in keys {
            let bound = ReadyKey::beginning_with(&key[..key.len() - 8]);
            assert!(ReadyKey::new(1, key.line(), 10, u64::MAX) < bound && bound < key);
            let behind = behind_priority(&key).unwrap();
            assert!(ReadyKey::beginning_with(&behind) > key);
            assert!(
                ReadyKey::beginning_with(&behind) < ReadyKey::new(1, key.line(), key_priority(&key) - 1, 0)
            );
        }
        assert_eq!(behind_priority(&ReadyKey::new(1, None, 0, 5)), None);
        assert_eq!(behind_priority(&ReadyKey::new(1, Some(4), 0, 5)), None);
    }

    fn key_priority(key: &ReadyKey) -> u8 {
        !key[key.len() - 9]
    }
}
