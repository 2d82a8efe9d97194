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

use super::lazy_heap::LazyHeap;
use super::tenant::{Spent, TenantAccount, TenantAccounts};

/// The number of untold tenants below which it is no burden that some were forgotten.
const SLACK: usize = 32;

/// Lines that may start something, taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) weight: u128,
    /// What their tenants have had, each times its weight.
    pub(super) weighted: u128,
    /// What the tenant has had that has had least. `None`: there are no lines.
    pub(super) least: Option<Spent>,
}

impl Field {
    /// The mean of what the tenants have had, by their weights.
    pub(super) fn mean(&self) -> Spent {
        self.weighted / self.weight.max(1)
    }
}

/// All lines that contend.
#[derive(Clone, Debug, Default)]
pub(super) struct Contenders {
    /// The number of tenants that have any.
    tenants: usize,
    weight: u128,
    /// What their tenants have had, each times its weight.
    weighted: u128,
    by_spent: LazyHeap<(Spent, usize)>,
    /// The tenants that contests are to be told of before somebody asks them what tenants have had.
    untold: Vec<usize>,
}

impl Contenders {
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
        all.tenants += usize::from(account.lines.len() == 1);
        let weight = u128::from(account.weight);
        all.weight += weight;
        all.weighted = all.weighted.saturating_add(account.counted.saturating_mul(weight));
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
        all.weight -= weight;
        all.weighted = all.weighted.saturating_sub(account.counted.saturating_mul(weight));
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
        let change = spent.abs_diff(before).saturating_mul(weight);
        let weighted = &mut self.contenders.weighted;
        if spent > before {
            *weighted = weighted.saturating_add(change);
        } else {
            *weighted = weighted.saturating_sub(change);
            self.note_key(number);
        }
        self.note_untold(number);
    }

    /// All lines that contend, taken together.
    pub(super) fn all_contenders(&mut self) -> Field {
        let (all, accounts) = (&mut self.contenders, &mut self.accounts);
        let least = all.by_spent.first_risen(|(key, number)| {
            let account = accounts.get_mut(*number)?;
            if !account.owns(*key) {
                return None;
            }
            account.key = Some(account.counted);
            Some((account.counted, *number))
        });
        Field { weight: all.weight, weighted: all.weighted, least: least.map(|(spent, _)| spent) }
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
        assert_eq!((book.all_contenders(), book.all_contenders().mean()), (Field::default(), 0));
        let many = contend(&mut book, "many", 100, 3);
        let one = contend(&mut book, "one", 20, 1);
        let sums = |weighted, least| Field { weight: 4_000, weighted, least: Some(least) };
        assert_eq!((book.all_contenders(), book.contenders.tenants()), (sums(320_000, 20), 2));
        assert_eq!(book.all_contenders().mean(), 80);
        book.accounts[one].held = 130;
        book.recount(one);
        assert_eq!(book.all_contenders(), sums(450_000, 100), "its key has risen");
        book.accounts[one].held = 0;
        book.recount(one);
        assert_eq!(book.all_contenders(), sums(320_000, 20), "and falls");
        book.line_leaves(one, 0);
        book.line_leaves(one, 0);
        assert_eq!((book.all_contenders().mean(), book.contenders.tenants()), (100, 1));
        book.line_leaves(many, 1);
        assert_eq!(book.all_contenders(), Field { weight: 2_000, weighted: 200_000, least: Some(100) });
        let mut untold: Vec<usize> = std::iter::from_fn(|| book.next_untold()).collect();
        untold.sort_unstable();
        assert_eq!((untold, book.next_untold()), (vec![many, one], None), "each of them once");
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
        assert_eq!(book.all_contenders(), Field { weight: 1_000, weighted: 7_000, least: Some(7) });
        assert_eq!((book.next_untold(), book.next_untold()), (Some(stays), None));
    }
}
