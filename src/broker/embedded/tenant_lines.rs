//! The lines of a queue's tenants: the number that each has in the keys of its rows, and how many rows it has.
//!
//! A tenant gets a line with its first ready row, and the line goes when it has no row any more. The table `meta` has a row
//! for each line, with the tenant's name and the number of its rows. It is written in the commit that changes that number,
//! so what is there is exact, and who asks for the tenants of a queue reads no backlog.
//!
//! Invariants:
//! - No two tenants have the same line at a time, but for the [`SHARED`] lines. While [`MOST_LINES`] tenants have lines, the
//!   others share these by a hash of their names, so memory is bounded.
//! - The number of a line is free again only when the commit that took its last row is safe. So whatever a failed commit has
//!   left in memory, no row of it has the number of somebody else.
//! - What is delivered does not depend on the counts: when a store opens, it finds its lines by their rows as well.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::engine::Engine;
use super::line_cursor::LineCursor;
use super::ready_key::{ReadyKey, line_bounds, tenants_bounds};
use super::rows::{decode, encode};
use super::tables::{TableName, Tables, Writes};
use crate::broker::BrokerError;
use crate::core::Timestamp;
use crate::task::Message;

/// How many lines the tenants share that have none of their own. Their numbers come before all others.
const SHARED: u32 = 1024;
/// The most tenants of a queue that have lines of their own.
const MOST_LINES: usize = 100_000;

/// The beginning of the keys in the table `meta` of the rows of lines. Behind it come the numbers of queue and line.
pub(super) const LINES: &[u8] = b"tenant/";
/// The end of these keys.
pub(super) const LINES_END: &[u8] = b"tenant0";

/// What the table `meta` keeps of a line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct StoredLine {
    /// The name of the tenant; empty for a line that tenants share.
    pub(super) tenant: String,
    /// The number of its ready rows.
    pub(super) ready: u64,
}

impl StoredLine {
    /// The row of the line that a message stands in.
    pub(super) fn of(number: u32, message: &Message) -> Self {
        let tenant = message.tenant().filter(|_| number >= SHARED).unwrap_or_default();
        Self { tenant: tenant.to_owned(), ready: 0 }
    }
}

/// The key of the row of a line.
pub(super) fn line_key(queue: u16, number: u32) -> Vec<u8> {
    [LINES, &queue.to_be_bytes(), &number.to_be_bytes()].concat()
}

/// The queue and the number in the key of the row of a line; `None`: it is the key of something else.
pub(super) fn parts_of(key: &[u8]) -> Option<(u16, u32)> {
    let (queue, number) = key.strip_prefix(LINES)?.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*queue), u32::from_be_bytes(number.try_into().ok()?)))
}

/// The line of one tenant.
pub(super) struct TenantLine {
    /// The name of the tenant; empty for a line that tenants share.
    pub(super) name: Arc<str>,
    /// The number of its ready rows, held ones included.
    pub(super) ready: u64,
    pub(super) cursor: LineCursor,
    /// Since when its oldest row that is not held is ready, and whether there is such a row. `None`: that is not known.
    pub(super) oldest: Option<Option<Timestamp>>,
}

/// The lines of a queue's tenants.
#[derive(Default)]
pub(super) struct TenantLines {
    lines: BTreeMap<u32, TenantLine>,
    numbers: HashMap<Arc<str>, u32>,
    /// The number of ready rows in all lines.
    pub(super) rows: u64,
    /// The number from which the next free one is looked for.
    next: u32,
    /// The lines whose counts differ from those on disk, which [`stage`](Self::stage) writes.
    pub(super) touched: BTreeSet<u32>,
    /// The line from which those are looked for whose oldest row is not known.
    unknown_from: u32,
}

impl TenantLines {
    /// The number of a tenant's line. A tenant without one gets one, in which there are no rows so far.
    pub(super) fn number_of(&mut self, queue: u16, tenant: &str) -> u32 {
        if let Some(number) = self.numbers.get(tenant) {
            return *number;
        }
        let (number, name) = if self.numbers.len() < MOST_LINES {
            (self.free_number(), tenant)
        } else {
            let hash = xxh3_64(tenant.as_bytes()) % u64::from(SHARED);
            (u32::try_from(hash).unwrap_or_default(), "")
        };
        if !self.lines.contains_key(&number) {
            self.add(number, name, 0, LineCursor::empty(queue, Some(number)));
        }
        number
    }

    /// Finds a number that no line has. Numbers that went before are taken last, because the deleted rows of their lines
    /// may still be on disk, and a scan steps over each of them.
    fn free_number(&mut self) -> u32 {
        loop {
            let number = self.next.max(SHARED);
            self.next = number.checked_add(1).unwrap_or(SHARED);
            if !self.lines.contains_key(&number) {
                return number;
            }
        }
    }

    fn add(&mut self, number: u32, name: &str, ready: u64, cursor: LineCursor) {
        let name: Arc<str> = Arc::from(name);
        if number >= SHARED && !name.is_empty() {
            self.numbers.entry(Arc::clone(&name)).or_insert(number);
        }
        self.rows = self.rows.saturating_add(ready);
        self.lines.insert(number, TenantLine { name, ready, cursor, oldest: None });
    }

    /// Adds a line that has rows on disk.
    pub(super) fn load(&mut self, queue: u16, number: u32, stored: &StoredLine) {
        self.add(number, &stored.tenant, stored.ready, LineCursor::unread(queue, Some(number)));
        self.next = self.next.max(number.saturating_add(1));
    }

    /// Adds a line of which nothing is known but that a row of it may be on disk.
    fn meet(&mut self, queue: u16, number: u32, tenant: Option<&str>) {
        if !self.lines.contains_key(&number) {
            let name = tenant.filter(|_| number >= SHARED).unwrap_or_default();
            self.add(number, name, 0, LineCursor::unread(queue, Some(number)));
        }
    }

    /// Counts a row that came into a line. `tenant`: the name of the row's tenant.
    pub(super) fn came(&mut self, queue: u16, number: u32, tenant: Option<&str>) {
        self.meet(queue, number, tenant);
        if let Some(line) = self.lines.get_mut(&number) {
            line.ready += 1;
            self.rows += 1;
            self.touched.insert(number);
        }
    }

    /// Counts a row that left a line.
    pub(super) fn left(&mut self, number: u32) {
        if let Some(line) = self.lines.get_mut(&number) {
            line.oldest = None;
            if line.ready > 0 {
                line.ready -= 1;
                self.rows = self.rows.saturating_sub(1);
            }
            self.touched.insert(number);
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&TenantLine> {
        self.lines.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut TenantLine> {
        self.lines.get_mut(&number)
    }

    /// Notes that there is a ready row in a line that is not held.
    pub(super) fn waits(&mut self, queue: u16, number: u32, key: &ReadyKey) {
        self.meet(queue, number, None);
        if let Some(line) = self.lines.get_mut(&number) {
            line.oldest = None;
            line.cursor.waits(key);
        }
    }

    /// Some lines of which it is not known since when their oldest row is ready, at most `most`. Each call goes on behind the one
    /// before, so that lines which change all the time hide no others.
    pub(super) fn next_unknown(&mut self, most: usize) -> Vec<u32> {
        let in_turn = self.lines.range(self.unknown_from..).chain(self.lines.range(..self.unknown_from));
        let unknown = in_turn.filter(|(_, line)| line.oldest.is_none()).map(|(number, _)| *number);
        let unknown: Vec<u32> = unknown.take(most).collect();
        if let Some(last) = unknown.last() {
            self.unknown_from = last.saturating_add(1);
        }
        unknown
    }

    /// The lines with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &TenantLine)> {
        self.lines.iter().map(|(number, line)| (*number, line))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut TenantLine)> {
        self.lines.iter_mut().map(|(number, line)| (*number, line))
    }

    /// Stages the rows of the lines whose counts have changed. Answers with the lines that have no row any more.
    pub(super) fn stage(&mut self, queue: u16, writes: &mut Writes) -> Vec<u32> {
        let mut emptied = Vec::new();
        for number in std::mem::take(&mut self.touched) {
            let key = line_key(queue, number);
            match self.lines.get(&number).filter(|line| line.ready > 0) {
                Some(line) => {
                    let row = StoredLine { tenant: line.name.to_string(), ready: line.ready };
                    if let Ok(row) = encode(&row) {
                        writes.put(TableName::Meta, &key, &row);
                    }
                }
                None => {
                    writes.delete(TableName::Meta, &key);
                    emptied.push(number);
                }
            }
        }
        emptied
    }

    /// Forgets a line that has no rows. A line that was not read to its end is kept until it was. The commit that took the
    /// last row must be safe, and no row of the line may be held.
    pub(super) fn forget_if_empty(&mut self, number: u32) {
        if let Some(line) = self.lines.get(&number).filter(|line| line.ready == 0 && line.cursor.is_drained())
        {
            if self.numbers.get(&line.name) == Some(&number) {
                self.numbers.remove(&line.name);
            }
            self.lines.remove(&number);
        }
    }

    /// Forgets all lines. What is on disk is read anew.
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Engine {
    /// Reads the lines of all tenants from a store that was just opened.
    pub(super) fn load_lines(&mut self, tables: &Tables) -> Result<(), BrokerError> {
        for cursor in self.cursors.iter_mut() {
            cursor.tenants.clear();
        }
        for row in tables.range(TableName::Meta, LINES, Bound::Excluded(LINES_END))? {
            let (key, value) = row?;
            let Some((queue, number)) = parts_of(&key) else { continue };
            let Some(cursor) = self.cursors.get_mut(usize::from(queue)) else { continue };
            match decode::<StoredLine>(&value) {
                Ok(stored) => cursor.tenants.load(queue, number, &stored),
                // The rows of the line say the same, and are counted below.
                Err(error) => {
                    tracing::error!(queue = %cursor.name, number, %error, "what is kept of a tenant does not decode");
                }
            }
        }
        for index in 0..self.cursors.len() {
            self.find_lines(tables, index);
        }
        Ok(())
    }

    /// Finds the lines of a queue that have rows, and of which the table `meta` has none. There should be no such line.
    fn find_lines(&mut self, tables: &Tables, index: usize) {
        let cursor = &mut self.cursors[index];
        let (first, end) = tenants_bounds(cursor.number);
        let mut from = first.to_vec();
        // One step for each line: behind its first row, the search goes on at the next line.
        while let Some((key, value)) =
            tables.readable(TableName::Messages, &from, Bound::Excluded(&end)).next()
        {
            let Some(number) = ReadyKey::of(&key).and_then(|key| key.line()) else {
                from = [&key[..], &[0]].concat();
                continue;
            };
            let (begin, behind) = line_bounds(cursor.number, Some(number));
            if cursor.tenants.get(number).is_none() {
                let line = decode::<Message>(&value).map(|message| StoredLine::of(number, &message));
                let rows = tables.readable(TableName::Messages, &begin, Bound::Excluded(&behind)).count();
                let line = StoredLine { ready: rows as u64, ..line.unwrap_or_default() };
                tracing::warn!(queue = %cursor.name, tenant = line.tenant, rows, "the store did not know of this tenant, and has counted its tasks anew");
                cursor.tenants.load(cursor.number, number, &line);
                cursor.tenants.touched.insert(number);
            }
            from = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;
    use tokio::sync::mpsc;

    use super::*;
    use crate::broker::embedded::EmbeddedOptions;
    use crate::broker::{Broker, Delivery, EmbeddedBroker, Settle, TenantBacklog};
    use crate::task::clock::now;
    use crate::task::{Arguments, TENANT, TaskOptions};

    fn open(dir: &Path) -> EmbeddedBroker {
        EmbeddedBroker::open(dir, EmbeddedOptions::default()).unwrap()
    }

    /// A closed store with two tasks of `a`, one of `b` and one of nobody's.
    async fn store() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(dir.path());
        for (id, tenant) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "")] {
            let (arguments, options) = (Arguments::default(), TaskOptions::default());
            let mut message = Message::new(id.into(), "task", arguments, "q", options, now());
            message.headers.0.insert(TENANT.to_owned(), tenant.into());
            broker.publish(message, false).await.unwrap();
        }
        broker.close().await.unwrap();
        dir
    }

    async fn known(broker: &EmbeddedBroker) -> Vec<(String, u64)> {
        let found = broker.tenants("q", 10).await.unwrap();
        found.tenants.into_iter().map(|counts| (counts.tenant, counts.ready)).collect()
    }

    /// Ends all four tasks of [`store`], and answers with their ids, in order.
    async fn end_all(broker: &EmbeddedBroker) -> Vec<String> {
        let (sender, mut deliveries) = mpsc::unbounded_channel();
        let sink = Arc::new(move |batch: Vec<Delivery>| {
            batch.into_iter().for_each(|delivery| drop(sender.send(delivery)));
        });
        let _consumer = broker.consume("q", 1, sink).unwrap();
        let mut ids = Vec::new();
        for _ in 0..4 {
            let delivery = deliveries.recv().await.unwrap();
            ids.push(delivery.message().id.to_string());
            delivery.settle_and_wait(Settle::Ack { result: None, follow_ups: None }).await.unwrap();
        }
        ids.sort();
        ids
    }

    /// The version of the row of the queue `q`, and the rows of its lines, in a closed store.
    fn rows(dir: &Path) -> (u8, Vec<(String, u64)>) {
        let tables = Tables::open(dir, None).unwrap();
        let queue = tables.get(TableName::Meta, b"queue/q").unwrap().unwrap();
        let lines = tables.range(TableName::Meta, LINES, Bound::Excluded(LINES_END)).unwrap();
        let lines = lines.map(|row| {
            let StoredLine { tenant, ready } = decode(&row.unwrap().1).unwrap();
            (tenant, ready)
        });
        (queue[0], lines.collect())
    }

    /// The keys of the rows of its lines.
    fn keys(tables: &Tables) -> Vec<Vec<u8>> {
        let rows = tables.range(TableName::Meta, LINES, Bound::Excluded(LINES_END)).unwrap();
        rows.map(|row| row.unwrap().0.to_vec()).collect()
    }

    #[tokio::test]
    async fn a_store_is_of_another_version_while_it_has_tenants() {
        let dir = store().await;
        assert_eq!(rows(dir.path()), (7, vec![("a".to_owned(), 2), ("b".to_owned(), 1)]));
        let broker = open(dir.path());
        assert_eq!(end_all(&broker).await, ["1", "2", "3", "4"]);
        broker.close().await.unwrap();
        assert_eq!(rows(dir.path()), (6, Vec::new()), "an earlier program may have it again");
    }

    #[tokio::test]
    async fn a_line_of_which_nothing_is_kept_is_found_by_its_rows() {
        let dir = store().await;
        let tables = Tables::open(dir.path(), None).unwrap();
        let (mut writes, keys) = (Writes::default(), keys(&tables));
        writes.delete(TableName::Meta, &keys[0]);
        writes.put(TableName::Meta, &keys[1], &[255]);
        tables.write(&[&writes]).unwrap();
        tables.close();
        let broker = open(dir.path());
        assert_eq!(known(&broker).await, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        broker.close().await.unwrap();
        let broker = open(dir.path());
        assert_eq!(end_all(&broker).await, ["1", "2", "3", "4"]);
        assert!(known(&broker).await.is_empty());
        broker.close().await.unwrap();
        assert_eq!(rows(dir.path()), (6, Vec::new()));
    }

    #[tokio::test]
    async fn a_line_that_has_lost_its_rows_holds_nobody_up() {
        let dir = store().await;
        let tables = Tables::open(dir.path(), None).unwrap();
        let (mut writes, gone) = (Writes::default(), StoredLine { tenant: "gone".to_owned(), ready: 3 });
        let (queue, _) = parts_of(&keys(&tables)[0]).unwrap();
        writes.put(TableName::Meta, &line_key(queue, 4000), &encode(&gone).unwrap());
        tables.write(&[&writes]).unwrap();
        tables.close();
        let broker = open(dir.path());
        assert_eq!(end_all(&broker).await, ["1", "2", "3", "4"]);
        broker.close().await.unwrap();
    }

    #[test]
    fn a_tenant_has_its_line_as_long_as_it_has_rows() {
        let mut lines = TenantLines::default();
        let (a, b) = (lines.number_of(1, "a"), lines.number_of(1, "b"));
        assert_eq!((a, b), (SHARED, SHARED + 1));
        assert_eq!(lines.number_of(1, "a"), a);
        lines.came(1, a, Some("a"));
        lines.came(1, b, Some("b"));
        lines.came(1, b, Some("b"));
        let mut writes = Writes::default();
        assert_eq!(lines.stage(1, &mut writes), [] as [u32; 0]);
        assert_eq!((writes.len(), lines.rows > 0), (2, true));
        assert_eq!(lines.stage(1, &mut writes), [] as [u32; 0]);
        assert_eq!(writes.len(), 2, "nothing has changed since");
        lines.left(a);
        lines.left(b);
        assert_eq!(lines.stage(1, &mut writes), [a]);
        lines.forget_if_empty(a);
        lines.forget_if_empty(b);
        assert!(lines.get(a).is_none() && lines.get(b).is_some_and(|line| line.ready == 1));
        assert_eq!(lines.number_of(1, "a"), SHARED + 2, "the number that went is not taken again so soon");
        lines.left(b);
        lines.left(b);
        assert!(lines.rows == 0, "what was never there does not count");
    }

    #[test]
    fn a_line_that_was_not_read_to_its_end_stays() {
        let mut lines = TenantLines::default();
        lines.load(1, 5000, &StoredLine { tenant: "a".into(), ready: 1 });
        assert_eq!((lines.number_of(1, "a"), lines.number_of(1, "b")), (5000, 5001));
        lines.left(5000);
        lines.forget_if_empty(5000);
        assert!(lines.get(5000).is_some());
        lines.get_mut(5000).unwrap().cursor.scanned(None, true);
        lines.forget_if_empty(5000);
        assert!(lines.get(5000).is_none());
        assert_eq!(lines.number_of(1, "a"), 5002);
    }

    #[test]
    fn lines_that_change_all_the_time_hide_no_others() {
        let mut lines = TenantLines::default();
        let numbers: Vec<u32> = (0..5).map(|n| lines.number_of(1, &format!("tenant {n}"))).collect();
        let mut asked: Vec<u32> = (0..5).flat_map(|_| lines.next_unknown(2)).collect();
        assert_eq!(asked[..5], numbers, "one after the other, although none of them gets known");
        asked.sort_unstable();
        assert!(asked.chunks(2).all(|same| same[0] == same[1]), "and each as often as the others: {asked:?}");
        lines.get_mut(numbers[0]).unwrap().oldest = Some(None);
        assert_eq!(lines.next_unknown(10).len(), 4);
    }

    #[test]
    fn too_many_tenants_share_lines() {
        let mut lines = TenantLines::default();
        for n in 0..MOST_LINES {
            let number = lines.number_of(1, &format!("tenant {n}"));
            assert!(number >= SHARED);
            lines.came(1, number, Some("x"));
        }
        let shared: Vec<u32> = (0..5000).map(|n| lines.number_of(1, &format!("late {n}"))).collect();
        assert!(shared.iter().all(|number| *number < SHARED));
        assert_eq!(lines.number_of(1, "late 7"), shared[7], "the same line each time");
        assert_eq!(
            lines.iter().filter(|(number, _)| *number < SHARED).count(),
            lines.lines.len() - MOST_LINES
        );
        assert!(lines.lines.len() > MOST_LINES + 900);
        // When one of them goes, the next newcomer has a line of its own.
        let first = lines.number_of(1, "tenant 0");
        lines.left(first);
        lines.forget_if_empty(first);
        assert!(lines.number_of(1, "late 7") >= SHARED);
    }

    #[test]
    fn the_keys_of_lines_are_read_back() {
        for (queue, number) in [(0, 0), (7, SHARED), (u16::MAX, u32::MAX)] {
            let key = line_key(queue, number);
            assert_eq!(parts_of(&key), Some((queue, number)));
            assert!(LINES <= key.as_slice() && key.as_slice() < LINES_END);
        }
        assert_eq!((parts_of(b"queue/x"), parts_of(b"tenant/1")), (None, None));
    }
}
