//! All lines of a pool that contend, taken together: the mean of what their tenants have had, and the least that one of
//! them has had. So it is decided who is owed where whatever contends may start. Where something may not, the
//! [contests](super::line::Contest) in which a decision chooses are added up.
//!
//! Invariants:
//! - A tenant counts once for each of its lines, by what it had when it was last [counted](TenantAccounts::recount). That is
//!   done whenever it changes, and costs the same however many lines the tenant has.
//! - A tenant with lines has one key in the heap, which is no more than what it is counted by. What a tenant has had mostly
//!   rises, so its key mostly stays where it is, until it is the first one.
//! - A tenant that contests know an old figure of is among the untold, and is so once.
//! - The sums of each queue have each of their tenants by what it is [summed](TenantAccount::summed) by. That is what it is
//!   counted by, unless the tenant is one of the few that were counted lately. So one change costs the same however many
//!   lines the tenant has, and many of them cost one addition for each line.

use super::lazy_heap::LazyHeap;
use super::tenant::{Spent, TenantAccount, TenantAccounts};

/// The number of untold tenants below which it is no burden that some were forgotten.
const SLACK: usize = 32;
/// The most tenants of which the sums of queues have old figures.
const MOST_RECENT: usize = 16;

/// Lines that may start something, taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LineTotals {
    /// The number of the lines.
    pub(super) lines: usize,
    pub(super) weight: u128,
    /// What their tenants have had, each times its weight.
    pub(super) weighted: u128,
    /// What the tenant has had that has had least, and who it is. `None`: there are no lines.
    pub(super) least: Option<(Spent, usize)>,
}

impl LineTotals {
    /// The mean of what the tenants have had, by their weights.
    pub(super) fn mean(&self) -> Spent {
        self.weighted / self.weight.max(1)
    }

    /// So many of these lines, all of which are of one tenant.
    pub(super) fn of_one(self, lines: usize) -> Self {
        let part = |sum: u128| sum / self.lines.max(1) as u128 * lines as u128;
        let least = self.least.filter(|_| lines > 0);
        Self { lines, weight: part(self.weight), weighted: part(self.weighted), least }
    }
}

/// All lines that contend.
#[derive(Clone, Debug, Default)]
pub(super) struct Contenders {
    lines: usize,
    /// The number of tenants that have any.
    tenants: usize,
    weight: u128,
    /// What their tenants have had, each times its weight.
    weighted: u128,
    by_spent: LazyHeap<(Spent, usize)>,
    /// The tenants that contests are to be told of before somebody asks them what tenants have had.
    untold: Vec<usize>,
    /// The weights of the lines of each queue, and what their tenants have had, each times its weight.
    by_queue: Vec<(u128, u128)>,
    /// The tenants of which these have old figures. Some may be new.
    recent: Vec<usize>,
}

impl Contenders {
    /// The number of lines that contend.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// The number of tenants that have lines which contend.
    pub(super) fn tenants(&self) -> usize {
        self.tenants
    }
}

impl TenantAccount {
    /// Whether this is the tenant's key in the heap. A tenant without lines has none.
    fn owns(&mut self, key: Spent) -> bool {
        if self.key != Some(key) {
            return false;
        }
        if self.lines.is_empty() {
            self.key = None;
        }
        self.key.is_some()
    }
}

impl TenantAccounts {
    /// A line of a tenant, which is in this queue, contends from now on.
    pub(super) fn line_enters(&mut self, number: usize, queue: usize) {
        self.recount(number);
        let (all, account) = (&mut self.contenders, &mut self.accounts[number]);
        account.lines.push(queue);
        if account.lines.len() == 1 {
            all.tenants += 1;
            account.summed = account.counted; // no queue has it in its sums
        }
        let weight = u128::from(account.weight);
        all.lines += 1;
        all.weight += weight;
        all.weighted = all.weighted.saturating_add(account.counted.saturating_mul(weight));
        if all.by_queue.len() <= queue {
            all.by_queue.resize(queue + 1, (0, 0));
        }
        let of = &mut all.by_queue[queue];
        *of = (of.0 + weight, of.1.saturating_add(account.summed.saturating_mul(weight)));
        self.note_key(number);
        self.note_untold(number);
    }

    /// A line of a tenant contends no more.
    pub(super) fn line_leaves(&mut self, number: usize, queue: usize) {
        let (all, account) = (&mut self.contenders, &mut self.accounts[number]);
        let Some(at) = account.lines.iter().position(|line| *line == queue) else { return };
        account.lines.swap_remove(at);
        all.tenants -= usize::from(account.lines.is_empty());
        let weight = u128::from(account.weight);
        all.lines -= 1;
        all.weight -= weight;
        all.weighted = all.weighted.saturating_sub(account.counted.saturating_mul(weight));
        let of = &mut all.by_queue[queue];
        *of = (of.0 - weight, of.1.saturating_sub(account.summed.saturating_mul(weight)));
    }

    /// Counts a tenant by what it has had by now. Whoever changes that calls this.
    pub(super) fn recount(&mut self, number: usize) {
        let account = &mut self.accounts[number];
        let spent = account.spent();
        let before = std::mem::replace(&mut account.counted, spent);
        if spent == before || account.lines.is_empty() {
            return;
        }
        let weight = u128::from(account.weight) * account.lines.len() as u128;
        let weighted = &mut self.contenders.weighted;
        *weighted = changed(*weighted, before, spent, weight);
        if spent < before {
            self.note_key(number);
        }
        self.note_untold(number);
        self.note_recent(number);
    }

    /// All lines that contend, taken together.
    pub(super) fn all_contenders(&mut self) -> LineTotals {
        let (all, accounts) = (&mut self.contenders, &mut self.accounts);
        let least = all.by_spent.first_risen(|(key, number)| {
            let account = accounts.get_mut(*number)?;
            if !account.owns(*key) {
                return None;
            }
            account.key = Some(account.counted);
            Some((account.counted, *number))
        });
        LineTotals { lines: all.lines, weight: all.weight, weighted: all.weighted, least }
    }

    /// The weights of the lines of a queue, and what their tenants have had, each times its weight. So many lines of it
    /// contend, and `has_line` says whether that of a tenant does.
    pub(super) fn sums_of(
        &self,
        queue: usize,
        lines: usize,
        has_line: impl Fn(usize) -> bool,
    ) -> (u128, u128) {
        let all = &self.contenders;
        if lines == all.lines {
            return (all.weight, all.weighted);
        }
        let (weight, weighted) = all.by_queue.get(queue).copied().unwrap_or_default();
        let recent = all.recent.iter().filter(|number| has_line(**number));
        let weighted = recent.map(|number| &self.accounts[*number]).fold(weighted, |weighted, account| {
            changed(weighted, account.summed, account.counted, u128::from(account.weight))
        });
        (weight, weighted)
    }

    /// A tenant whose contests are to be told what it has had. Whoever asks tells them.
    pub(super) fn next_untold(&mut self) -> Option<usize> {
        loop {
            let number = self.contenders.untold.pop()?;
            if std::mem::take(&mut self.accounts[number].is_untold) {
                return Some(number);
            }
        }
    }

    /// Sees to it that a tenant with lines has a key that is no more than what it is counted by.
    fn note_key(&mut self, number: usize) {
        let (all, accounts) = (&mut self.contenders, &mut self.accounts);
        let account = &mut accounts[number];
        let counted = account.counted;
        if account.key.is_some_and(|key| key <= counted) {
            return;
        }
        account.key = Some(counted);
        all.by_spent.push((counted, number));
        all.by_spent.tidy(all.tenants, |(key, number)| {
            accounts.get_mut(*number).is_some_and(|account| account.owns(*key))
        });
    }

    /// Sees to it that the sums of queues count a tenant by what it is counted by, or that it is among the recent ones.
    fn note_recent(&mut self, number: usize) {
        if self.contenders.recent.contains(&number) {
            return;
        }
        if self.contenders.recent.len() == MOST_RECENT {
            self.sum_up();
        }
        self.contenders.recent.push(number);
    }

    /// Brings the sums of all queues up to date.
    fn sum_up(&mut self) {
        let (all, accounts) = (&mut self.contenders, &mut self.accounts);
        for number in all.recent.drain(..) {
            let account = &mut accounts[number];
            let before = std::mem::replace(&mut account.summed, account.counted);
            for queue in &account.lines {
                let (_, weighted) = &mut all.by_queue[*queue];
                *weighted = changed(*weighted, before, account.counted, u128::from(account.weight));
            }
        }
    }

    fn note_untold(&mut self, number: usize) {
        if std::mem::replace(&mut self.accounts[number].is_untold, true) {
            return;
        }
        let (untold, accounts) = (&mut self.contenders.untold, &self.accounts);
        untold.push(number);
        // Tenants that were forgotten since then are in it still, and so are those that have their numbers now.
        if untold.len() > accounts.len().saturating_mul(2).saturating_add(SLACK) {
            untold.sort_unstable();
            untold.dedup();
            untold.retain(|number| accounts.get(*number).is_some_and(|account| account.is_untold));
        }
    }
}

/// A sum in which something of this weight was `before` and is `after` now.
fn changed(sum: u128, before: Spent, after: Spent, weight: u128) -> u128 {
    let change = after.abs_diff(before).saturating_mul(weight);
    if after > before { sum.saturating_add(change) } else { sum.saturating_sub(change) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;

    /// A tenant that has had so much, with lines in so many queues.
    fn contend(book: &mut TenantAccounts, name: &str, spent: Spent, queues: usize) -> usize {
        let number = book.number(name);
        (book.accounts[number].done, book.accounts[number].waiting) = (spent, queues);
        (0..queues).for_each(|queue| book.line_enters(number, queue));
        number
    }

    #[test]
    fn a_tenant_counts_once_for_each_of_its_lines() {
        let mut book = TenantAccounts::default();
        assert_eq!((book.all_contenders(), book.all_contenders().mean()), (LineTotals::default(), 0));
        let many = contend(&mut book, "many", 100, 3);
        let one = contend(&mut book, "one", 20, 1);
        let sums = |weighted, least| LineTotals { lines: 4, weight: 4_000, weighted, least: Some(least) };
        assert_eq!((book.all_contenders(), book.contenders.tenants()), (sums(320_000, (20, one)), 2));
        assert_eq!(book.all_contenders().mean(), 80);
        book.accounts[one].held = 130;
        book.recount(one);
        assert_eq!(book.all_contenders(), sums(450_000, (100, many)), "its key has risen");
        book.accounts[one].held = 0;
        book.recount(one);
        assert_eq!(book.all_contenders(), sums(320_000, (20, one)), "and falls");
        book.line_leaves(one, 0);
        book.line_leaves(one, 0);
        assert_eq!((book.all_contenders().mean(), book.contenders.tenants()), (100, 1));
        book.line_leaves(many, 1);
        let left = LineTotals { lines: 2, weight: 2_000, weighted: 200_000, least: Some((100, many)) };
        assert_eq!((book.all_contenders(), book.contenders.lines()), (left, 2));
        assert_eq!(left.of_one(1), LineTotals { lines: 1, weight: 1_000, weighted: 100_000, ..left });
        assert_eq!(left.of_one(0), LineTotals::default(), "none of its lines may start anything");
        let mut untold: Vec<usize> = std::iter::from_fn(|| book.next_untold()).collect();
        untold.sort_unstable();
        assert_eq!((untold, book.next_untold()), (vec![many, one], None), "each of them once");
    }

    /// Many tenants have lines in three queues each. What they have had changes, and so do the sums of the queues.
    #[test]
    fn the_sums_of_a_queue_are_up_to_date() {
        let mut book = TenantAccounts::default();
        let tenants: Vec<usize> =
            (0..40).map(|name| contend(&mut book, &name.to_string(), 100 + name, 3)).collect();
        for change in 0..500_usize {
            let number = tenants[change * 7 % 40];
            book.accounts[number].held = if change % 5 == 0 { 0 } else { change as u128 };
            book.recount(number);
            if change % 11 == 0 {
                book.line_leaves(number, change % 3);
            }
            if change % 11 == 6 && !book.accounts[number].lines.contains(&(change % 3)) {
                book.line_enters(number, change % 3);
            }
            assert!(book.contenders.recent.len() <= MOST_RECENT);
            for queue in 0..3 {
                let has_line = |number: usize| book.accounts[number].lines.contains(&queue);
                let with_lines: Vec<usize> =
                    tenants.iter().copied().filter(|number| has_line(*number)).collect();
                let spent = with_lines.iter().map(|number| 1_000 * book.accounts[*number].spent());
                let found = (1_000 * with_lines.len() as u128, spent.sum::<u128>());
                assert_eq!(book.sums_of(queue, with_lines.len(), has_line), found, "after {change} changes");
            }
        }
        assert_eq!(book.sums_of(7, 0, |_| false), (0, 0), "there is no such queue");
    }

    /// Nobody asks the contests, and a hundred thousand tenants come and go.
    #[test]
    fn tenants_that_are_gone_leave_nothing_behind() {
        let mut book = TenantAccounts::default();
        let stays = contend(&mut book, "stays", 7, 1);
        for name in 0..100_000 {
            let number = contend(&mut book, &name.to_string(), 9, 1);
            book.place(number, 4, Timestamp::ZERO);
            book.line_leaves(number, 0);
            (book.accounts[number].done, book.accounts[number].waiting) = (0, 0);
            book.recount(number);
            book.place(number, 4, Timestamp::ZERO);
            book.forget();
            assert!(book.contenders.untold.len() <= 2 * book.accounts.len() + SLACK);
        }
        assert_eq!((book.accounts.len(), book.contenders.tenants()), (2, 1));
        let left = LineTotals { lines: 1, weight: 1_000, weighted: 7_000, least: Some((7, stays)) };
        assert_eq!((book.all_contenders(), book.contenders.recent.len()), (left, 0));
        assert_eq!((book.next_untold(), book.next_untold()), (Some(stays), None));
    }
}
