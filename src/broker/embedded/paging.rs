//! Pages of the tasks in the store: those that are not over, and those that have failed for good.
//!
//! Invariants:
//! - A page looks at no more than [`MOST_ROWS`] rows and reads no more than [`MOST_BYTES`], whatever the filter chooses and
//!   however much waits. A page that ends there says from where to go on.
//! - The tables are read on a thread of their own, so that no start waits for somebody who looks.
//!
//! Rows of `messages` lie by queue, and in a queue by class: ready without a tenant, then scheduled, then ready by tenant.
//! So the scheduled tasks of one queue are found without a look at the others. The rows of failed tasks lie by queue and
//! sequence; the sequence counts for all queues, so the newest of all queues are those with the highest sequences.

use std::collections::HashSet;
use std::ops::Bound;

use super::EmbeddedBroker;
use super::argument_index;
use super::command::EngineCommand;
use super::failed::{FAILED, failed_key, parts_of};
use super::failed_tasks::failed_in;
use super::lanes;
use super::page_marks::{BEHIND_ALL, FailedMark, UnfinishedMark};
use super::ready_key::{ReadyKey, is_ready, line_bounds, tenants_bounds};
use super::rows::{StoredQueue, decode, queue_of, scheduled_bounds};
use super::tables::{MergedRows, Slice, TableName, Tables};
use crate::broker::task_page::unknown_place;
use crate::broker::{
    BrokerError, FailedTask, FailedTasks, Inspect, Standing, TaskFilter, TaskPage, UnfinishedTask,
};
use crate::core::Timestamp;
use crate::task::clock::now;
use crate::task::{Message, TaskId};

/// The most rows that one page looks at.
const MOST_ROWS: u64 = 10_000;
/// The most bytes of rows that one page reads.
const MOST_BYTES: usize = 32 << 20;
/// The key behind all keys of waiting rows of the table `lanes`.
const BEHIND_LANES: [u8; 1] = [2];
/// What is left of what one page may cost.
struct Budget {
    rows: u64,
    bytes: usize,
}

impl Budget {
    fn new() -> Self {
        Self { rows: MOST_ROWS, bytes: MOST_BYTES }
    }

    /// Pays for a row. Nothing is left afterwards: this row is the last one.
    fn pay(&mut self, value: &[u8]) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(value.len());
    }

    fn is_spent(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }

    fn paid(&self) -> u64 {
        MOST_ROWS - self.rows
    }
}

impl EmbeddedBroker {
    pub(super) async fn page_of_unfinished(
        &self,
        filter: &TaskFilter,
        standings: &[Standing],
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<UnfinishedTask>, BrokerError> {
        let mark = UnfinishedMark::read(after)?;
        let (mut page, in_memory) = match mark {
            UnfinishedMark::Index(_) if filter.indexed().is_none() => {
                return Err(unknown_place(after.unwrap_or_default()));
            }
            UnfinishedMark::Memory(after) => (TaskPage::empty(), after),
            mark => (self.page_on_disk(filter.clone(), standings, mark, limit).await?, None),
        };
        if page.next.is_some() {
            return Ok(page);
        }
        let left = limit.saturating_sub(page.tasks.len());
        let rest = self.inner.volatile.page_unfinished(filter, standings, in_memory.as_deref(), left).await?;
        // A full page does not know whether more follow in memory, unless it looks.
        let more = if left > 0 {
            rest.next.map(Some)
        } else {
            self.memory_has_more(filter, standings).await?.then_some(None)
        };
        page.tasks.extend(rest.tasks);
        page.by_index = page.by_index.or(rest.by_index);
        page.next = more.map(|after| UnfinishedMark::Memory(after).written());
        Ok(page)
    }

    /// A page of ids in three parts: those in lanes on disk, the others on disk, and those in memory. The place in the list begins
    /// with the number of the part.
    pub(super) async fn page_of_ids(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<TaskId>, BrokerError> {
        let unknown = || unknown_place(after.unwrap_or_default());
        let (part, place) = match after {
            None => ("1", ""),
            Some(text) => text.split_at_checked(1).ok_or_else(unknown)?,
        };
        let place = Some(place).filter(|place| !place.is_empty());
        let standings: &[Standing] = match part {
            "1" => &[Standing::InLine],
            "2" => &[Standing::Ready, Standing::Scheduled, Standing::Delivered],
            "3" => {
                let page = self.inner.volatile.page_unfinished_ids(filter, place, limit).await?;
                return Ok(TaskPage { next: page.next.map(|next| format!("3{next}")), ..page });
            }
            _ => return Err(unknown()),
        };
        let mark = match UnfinishedMark::read(place)? {
            UnfinishedMark::Index(_) | UnfinishedMark::Memory(_) => return Err(unknown()),
            mark => mark,
        };
        let page = self.page_on_disk(filter.clone().scanning(), standings, mark, limit).await?;
        let next = match page.next {
            Some(next) => format!("{part}{next}"),
            None if part == "1" => "2".to_owned(),
            None => "3".to_owned(),
        };
        let tasks = page.tasks.into_iter().map(|task| task.message.id).collect();
        Ok(TaskPage { tasks, next: Some(next), looked_at: page.looked_at, ..TaskPage::empty() })
    }

    /// A page of the tasks on disk that are not over, behind this mark.
    async fn page_on_disk(
        &self,
        filter: TaskFilter,
        standings: &[Standing],
        mark: UnfinishedMark,
        limit: usize,
    ) -> Result<TaskPage<UnfinishedTask>, BrokerError> {
        let held = self.ask(|reply| EngineCommand::HeldKeys { reply }).await?;
        let look = UnfinishedLook { filter, standings: standings.to_vec(), held, now: now(), limit };
        self.on_disk(move |tables| look.page(tables, mark)).await
    }

    /// Whether there are tasks in memory only that are not over.
    async fn memory_has_more(
        &self,
        filter: &TaskFilter,
        standings: &[Standing],
    ) -> Result<bool, BrokerError> {
        let first = self.inner.volatile.page_unfinished(filter, standings, None, 1).await?;
        Ok(!first.tasks.is_empty())
    }

    pub(super) async fn page_of_failed(
        &self,
        filter: &TaskFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TaskPage<FailedTask>, BrokerError> {
        let is_indexed = filter.indexed().is_some();
        let (mut page, in_memory) = match FailedMark::read(after)? {
            FailedMark::Index(_) if !is_indexed => return Err(unknown_place(after.unwrap_or_default())),
            FailedMark::Memory(after) => (TaskPage::empty(), after),
            // The first page says by which way the list goes on.
            FailedMark::Index(before) | FailedMark::Disk(before @ BEHIND_ALL) if is_indexed => {
                let filter = filter.clone();
                let page = self.on_disk(move |tables| indexed_failed(tables, &filter, before, limit)).await?;
                (page?, None)
            }
            FailedMark::Index(before) | FailedMark::Disk(before) => {
                let filter = filter.clone();
                let page = self.on_disk(move |tables| newest_failed(tables, &filter, before, limit)).await?;
                (page?, None)
            }
        };
        page.is_newest_first = true;
        if page.next.is_some() {
            return Ok(page);
        }
        let left = limit.saturating_sub(page.tasks.len());
        let rest = self.inner.volatile.page_failed(filter, in_memory.as_deref(), left.max(1)).await?;
        let more = if left > 0 { rest.next.map(Some) } else { (!rest.tasks.is_empty()).then_some(None) };
        page.tasks.extend(rest.tasks.into_iter().take(left));
        page.next = more.map(|after| FailedMark::Memory(after).written());
        Ok(page)
    }
}

/// A look at the tasks on disk that are not over.
struct UnfinishedLook {
    filter: TaskFilter,
    /// Which tasks are meant by what they wait for; empty: all.
    standings: Vec<Standing>,
    /// The keys of the rows that are delivered.
    held: HashSet<ReadyKey>,
    now: Timestamp,
    limit: usize,
}

/// A range of rows: the first key is included, the second is not.
type KeyRange = (Vec<u8>, Vec<u8>);

fn key_range((start, end): ([u8; 3], [u8; 3])) -> KeyRange {
    (start.to_vec(), end.to_vec())
}

impl UnfinishedLook {
    /// The page behind this mark.
    fn page(&self, tables: &Tables, mark: UnfinishedMark) -> TaskPage<UnfinishedTask> {
        match (&mark, self.filter.indexed()) {
            (UnfinishedMark::Index(after), Some(argument)) => return self.by_index(tables, argument, after),
            // The first page says by which way the list goes on.
            (UnfinishedMark::Messages(after), Some(argument)) if after.is_empty() => {
                return self.by_index(tables, argument, &[]);
            }
            _ => {}
        }
        let (mut page, mut budget) = (TaskPage::empty(), Budget::new());
        let mut stopped = None;
        let in_lanes = match &mark {
            UnfinishedMark::Lanes(key) => Some(key.clone()),
            UnfinishedMark::Messages(after) => {
                stopped = self.messages(tables, after, &mut page, &mut budget).map(UnfinishedMark::Messages);
                stopped.is_none().then(Vec::new)
            }
            UnfinishedMark::Index(_) | UnfinishedMark::Memory(_) => None,
        };
        if let Some(after) = in_lanes
            && self.means(Standing::InLine)
        {
            let range = (vec![lanes::WAITING], BEHIND_LANES.to_vec());
            let stop = self.range(tables, TableName::Lanes, &range, &after, &mut page, &mut budget);
            stopped = stop.map(UnfinishedMark::Lanes);
        }
        page.next = stopped.map(|mark| mark.written());
        page.looked_at = Some(budget.paid());
        page
    }

    /// The page of those that the index of an argument has, behind the task of this key.
    fn by_index(&self, tables: &Tables, argument: (&str, &str), after: &[u8]) -> TaskPage<UnfinishedTask> {
        let (mut page, mut budget) = (TaskPage::empty(), Budget::new());
        let mut entries = argument_index::waiting(tables, argument, after).peekable();
        while let Some((task, found)) = entries.next() {
            let ends = match found {
                Some((table, key, value)) => self.look_at(table, &key, &value, &mut page, &mut budget),
                None => {
                    budget.pay(&[]);
                    budget.is_spent()
                }
            };
            if ends {
                page.next = entries.peek().map(|_| UnfinishedMark::Index(task).written());
                break;
            }
        }
        page.looked_at = Some(budget.paid());
        page.by_index = Some(argument.0.to_owned());
        page
    }

    /// Looks at the table `messages` behind this key. Answers with the key at which it stopped before the end.
    fn messages(
        &self,
        tables: &Tables,
        after: &[u8],
        page: &mut TaskPage<UnfinishedTask>,
        budget: &mut Budget,
    ) -> Option<Vec<u8>> {
        if self.standings == [Standing::Delivered] {
            return self.delivered(tables, after, page, budget);
        }
        self.ranges(tables)
            .into_iter()
            .filter(|(_, end)| end.as_slice() > after)
            .find_map(|range| self.range(tables, TableName::Messages, &range, after, page, budget))
    }

    fn means(&self, standing: Standing) -> bool {
        self.standings.is_empty() || self.standings.contains(&standing)
    }

    /// The ranges of the table `messages` in which the tasks that are meant may lie.
    fn ranges(&self, tables: &Tables) -> Vec<KeyRange> {
        let wanted = self.filter.named_queue();
        // The rows of delivered tasks lie among those of ready ones.
        let in_ready = self.means(Standing::Ready) || self.means(Standing::Delivered);
        let in_scheduled = self.means(Standing::Scheduled);
        if wanted.is_none() && in_ready && in_scheduled {
            return vec![(Vec::new(), vec![u8::MAX; 4])];
        }
        if !in_ready && !in_scheduled {
            return Vec::new();
        }
        let of_queue = |queue: u16| {
            let (plain, of_tenants) = (line_bounds(queue, None), key_range(tenants_bounds(queue)));
            match (in_ready, in_scheduled) {
                (true, true) => vec![(plain.0, of_tenants.1)],
                (true, false) => vec![plain, of_tenants],
                _ => vec![key_range(scheduled_bounds(queue))],
            }
        };
        queues(tables, wanted).into_iter().flat_map(of_queue).collect()
    }

    /// Those that are delivered: they are few, and their keys are known.
    fn delivered(
        &self,
        tables: &Tables,
        after: &[u8],
        page: &mut TaskPage<UnfinishedTask>,
        budget: &mut Budget,
    ) -> Option<Vec<u8>> {
        let mut keys: Vec<&ReadyKey> = self.held.iter().filter(|key| &key[..] > after).collect();
        keys.sort_unstable();
        for key in keys {
            let Ok(Some(value)) = tables.get(TableName::Messages, key) else { continue };
            if self.look_at(TableName::Messages, key, &value, page, budget) {
                return Some(key.to_vec());
            }
        }
        None
    }

    /// Looks at the rows of a range behind this key. Answers with the key at which it stopped before the end.
    fn range(
        &self,
        tables: &Tables,
        table: TableName,
        (start, end): &KeyRange,
        after: &[u8],
        page: &mut TaskPage<UnfinishedTask>,
        budget: &mut Budget,
    ) -> Option<Vec<u8>> {
        let start = start.as_slice().max(after);
        // Somebody else may have made the mark. The database is not asked for a range that ends before it begins.
        if start >= end.as_slice() {
            return None;
        }
        for (key, value) in tables.readable(table, start, Bound::Excluded(end.as_slice())) {
            if *key <= *after && !after.is_empty() {
                continue; // the page before has it
            }
            if self.look_at(table, &key, &value, page, budget) {
                return Some(key.to_vec());
            }
        }
        None
    }

    /// Looks at a row. Says whether the page ends with it.
    fn look_at(
        &self,
        table: TableName,
        key: &[u8],
        value: &[u8],
        page: &mut TaskPage<UnfinishedTask>,
        budget: &mut Budget,
    ) -> bool {
        budget.pay(value);
        let standing = match table {
            TableName::Lanes => Standing::InLine,
            _ if ReadyKey::of(key).is_some_and(|key| self.held.contains(&key)) => Standing::Delivered,
            _ if is_ready(key) => Standing::Ready,
            _ => Standing::Scheduled,
        };
        if self.means(standing)
            && let Ok(message) = decode::<Message>(value)
            && self.filter.takes_unfinished(&message, self.now)
        {
            page.tasks.push(UnfinishedTask { message, standing });
        }
        page.tasks.len() >= self.limit || budget.is_spent()
    }
}

/// The numbers of the queues that may have rows in the table `messages`: of all, or of the one of this name. The rows of the queues
/// in the table `meta` say it, so no deleted message is passed over on the way from one queue to the next.
pub(super) fn queues(tables: &Tables, wanted: Option<&str>) -> Vec<u16> {
    let number = |row: &[u8]| StoredQueue::decode(row).map(|queue| queue.number);
    let numbers = match wanted {
        Some(name) => {
            let row = tables.get(TableName::Meta, format!("queue/{name}").as_bytes());
            row.and_then(|row| row.map(|row| number(&row)).transpose().map(Vec::from_iter))
        }
        None => tables.range(TableName::Meta, b"queue/", Bound::Excluded(b"queue0")).and_then(|rows| {
            rows.map(|row| row.and_then(|(_, row)| number(&row))).collect::<Result<Vec<_>, _>>()
        }),
    };
    match numbers {
        Ok(mut numbers) => {
            numbers.sort_unstable();
            numbers
        }
        Err(_) => queues_by_rows(tables),
    }
}

/// As [`queues`], of a store whose table `meta` cannot be read: all queues that have rows. It reads one row of each.
fn queues_by_rows(tables: &Tables) -> Vec<u16> {
    let (mut found, mut from) = (Vec::new(), 0_u16);
    loop {
        let start = from.to_be_bytes();
        let row = tables.readable(TableName::Messages, &start, Bound::Unbounded).next();
        let Some(queue) = row.and_then(|(key, _)| queue_of(&key)) else { return found };
        found.push(queue);
        match queue.checked_add(1) {
            Some(next) if next > from => from = next,
            _ => return found,
        }
    }
}

/// The newest row of one line of failed tasks that was not looked at yet, and the rows before it.
struct FailedLine {
    seq: u64,
    row: (Slice, Slice),
    rest: MergedRows,
}

/// The failed tasks on disk before this sequence, the newest first.
fn newest_failed(
    tables: &Tables,
    filter: &TaskFilter,
    before: u64,
    limit: usize,
) -> Result<TaskPage<FailedTask>, BrokerError> {
    let (mut page, mut budget, now) = (TaskPage::empty(), Budget::new(), now());
    let mut lines = failed_lines(tables, before)?;
    while let Some(newest) = (0..lines.len()).max_by_key(|at| lines[*at].seq) {
        let line = lines.swap_remove(newest);
        let (seq, (key, value)) = (line.seq, line.row);
        if let Some(line) = next_of(line.rest) {
            lines.push(line);
        }
        budget.pay(&value);
        if let Some(task) = failed_in(&key, &value).filter(|task| filter.takes(task, now)) {
            page.tasks.push(task);
        }
        if page.tasks.len() >= limit || budget.is_spent() {
            page.next = (!lines.is_empty()).then(|| FailedMark::Disk(seq).written());
            break;
        }
    }
    page.looked_at = Some(budget.paid());
    Ok(page)
}

/// As [`newest_failed`], of those that the index of an argument has.
fn indexed_failed(
    tables: &Tables,
    filter: &TaskFilter,
    before: u64,
    limit: usize,
) -> Result<TaskPage<FailedTask>, BrokerError> {
    let (mut page, mut budget, now) = (TaskPage::empty(), Budget::new(), now());
    let Some(argument) = filter.indexed() else { return Ok(page) };
    let mut entries = argument_index::failed(tables, argument, before)?.peekable();
    while let Some((seq, row)) = entries.next() {
        budget.pay(row.as_ref().map_or(&[][..], |(_, value)| &value[..]));
        let task = row.and_then(|(key, value)| failed_in(&key, &value));
        page.tasks.extend(task.filter(|task| filter.takes(task, now)));
        if page.tasks.len() >= limit || budget.is_spent() {
            page.next = entries.peek().map(|_| FailedMark::Index(seq).written());
            break;
        }
    }
    page.looked_at = Some(budget.paid());
    page.by_index = Some(argument.0.to_owned());
    Ok(page)
}

/// The dead letters, and the failed tasks of each queue, from their newest row before this sequence on.
fn failed_lines(tables: &Tables, before: u64) -> Result<Vec<FailedLine>, BrokerError> {
    if before == 0 {
        return Ok(Vec::new());
    }
    // The key of a dead letter is a sequence, and lies before those of failed tasks.
    let letters = before.min(u64::from(FAILED) << 56).to_be_bytes();
    let letters = tables.range(TableName::Dead, &[], Bound::Excluded(&letters))?;
    let mut lines: Vec<FailedLine> = next_of(letters).into_iter().collect();
    // From the last queue to the first: the last row before those of a queue is of the queue before it.
    let mut end = vec![FAILED + 1];
    loop {
        let mut rows = tables.range(TableName::Dead, &[FAILED], Bound::Excluded(&end))?;
        let Some((queue, _)) = rows.next_back().transpose()?.and_then(|(key, _)| parts_of(&key)) else {
            return Ok(lines);
        };
        end = failed_key(queue, 0).to_vec();
        let until = failed_key(queue, before);
        let rows = tables.range(TableName::Dead, &end, Bound::Excluded(&until))?;
        lines.extend(next_of(rows));
    }
}

/// The newest of these rows. Rows behind one that cannot be read are not found here; whoever lists the whole finds them.
fn next_of(mut rows: MergedRows) -> Option<FailedLine> {
    let row = rows.next_back()?.ok()?;
    let seq = row.0.last_chunk().map_or(0, |seq| u64::from_be_bytes(*seq));
    Some(FailedLine { seq, row, rest: rows })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;
    use crate::broker::conformance::sample;
    use crate::broker::embedded::EmbeddedOptions;
    use crate::task::Durability;

    async fn broker(dir: &tempfile::TempDir) -> EmbeddedBroker {
        let broker = EmbeddedBroker::open(dir.path(), EmbeddedOptions::default()).unwrap();
        broker.declare("q").await.unwrap();
        broker
    }

    #[tokio::test]
    async fn a_page_ends_early_where_little_is_chosen_and_says_from_where_to_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker(&dir).await;
        let most = usize::try_from(MOST_ROWS).unwrap();
        let many = (0..most + 5).map(|n| sample("q", n, Durability::Disk)).collect();
        broker.publish_all(many, false).await.unwrap();
        let last = TaskFilter::new().ids([format!("q-{}", most + 4)]);
        let first = broker.page_unfinished(&last, &[], None, 10).await.unwrap();
        assert_eq!((first.tasks.len(), first.looked_at), (0, Some(MOST_ROWS)));
        let after = first.next.expect("it goes on");
        let second = broker.page_unfinished(&last, &[], Some(&after), 10).await.unwrap();
        assert_eq!((second.tasks.len(), second.looked_at, second.next), (1, Some(5), None));
        // Those that stand otherwise are not even looked at.
        let later = broker.page_unfinished(&last, &[Standing::Scheduled], None, 10).await.unwrap();
        assert_eq!((later.tasks.len(), later.looked_at, later.next), (0, Some(0), None));
    }

    #[tokio::test]
    async fn a_mark_that_the_store_has_not_made_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker(&dir).await;
        broker.publish(sample("q", 0, Durability::Disk), false).await.unwrap();
        let all = TaskFilter::new();
        let (lanes, messages) = (UnfinishedMark::Lanes, UnfinishedMark::Messages);
        for mark in [lanes(vec![]), lanes(vec![9]), lanes(vec![1; 70_000]), messages(vec![255; 40])] {
            let page = broker.page_unfinished(&all, &[], Some(&mark.written()), 5).await.unwrap();
            assert_eq!((page.tasks.len(), page.next), (0, None), "{mark:?}");
        }
        for seq in [0, 1, u64::MAX] {
            let mark = FailedMark::Disk(seq).written();
            let page = broker.page_failed(&all, Some(&mark), 5).await.unwrap();
            assert_eq!((page.tasks.len(), page.next), (0, None), "{seq}");
        }
    }

    #[test]
    fn a_page_may_cost_so_much_and_no_more() {
        let mut budget = Budget::new();
        budget.pay(&[0; 10]);
        assert!(!budget.is_spent() && budget.paid() == 1);
        budget.pay(&vec![0; MOST_BYTES]);
        assert!(budget.is_spent(), "a row that is larger than all that is left is the last one");
        let mut budget = Budget { rows: 1, ..Budget::new() };
        budget.pay(&[]);
        assert!(budget.is_spent());
    }
}
