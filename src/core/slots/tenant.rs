//! The tenants of a pool: what each has had of the slots, and whether others are about.
//!
//! What a tenant has had is slot time divided by the tenant's weight, as in weighted fair queueing. It has two parts: what
//! the runs that are over have cost, and what the runs that go on are charged. Invariants:
//! - A tenant that comes back after a time without work begins where all tenants together have come to by then (the floor),
//!   or at what it has had, whichever is more: debt is kept, credit is not.
//! - The floor rises as what tenants have had rises that always have work. So tenants in debt count as if they had work until
//!   they have paid, and where nobody waits who has had less than the floor, it rises to the one who has had least. Where
//!   nobody waits at all, nobody is in debt.
//! - Only tenants with work, or with a debt, are remembered, and of those without work a bounded number.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::contenders::Contenders;
use super::cost::{OwnCosts, micros};
use super::lazy_heap::LazyHeap;
use crate::core::Timestamp;

/// How long a tenant counts as being about after its last task.
pub(super) const ABOUT: Duration = Duration::from_secs(60);
/// The most tenants without work that are remembered for their debts.
const MOST_IDLE: usize = 100_000;
/// The most characters of a name that tell one from another: what a message may have. Names of tasks come from outside.
const MOST_NAME: usize = 256;
/// Weight 1, in the units in which weights are kept.
const ONE: u64 = 1_000;

/// What somebody has had: slot time divided by weight.
pub(super) type Spent = u128;

/// The slot time of a run divided by a weight. It is never nothing, so that no weight makes runs free.
pub(super) fn spent(took: u64, weight: u64) -> Spent {
    let weight = weight.max(1);
    // A division of 64 bits is the quicker one, and half a year of microseconds fits.
    let spent = if took.leading_zeros() >= 20 {
        u128::from((took << 20) / weight)
    } else {
        (u128::from(took) << 20) / u128::from(weight)
    };
    spent.max(1)
}

/// `from`, moved by a fifth of the way to `to`.
pub(super) fn moved(from: Spent, to: Spent) -> Spent {
    if to >= from { from + (to - from) / 5 } else { from - (from - to) / 5 }
}

/// The share of the slots that a tenant gets beside others: with twice the weight, twice as much. 1 unless stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantWeight(u64);

impl TenantWeight {
    /// The least weight that there is.
    pub const LEAST: f64 = 0.001;
    /// The largest weight that there is.
    pub const MOST: f64 = 1_000_000.0;

    /// The weight of this number, to a thousandth. `None`: it is not a number, or not from [`LEAST`](Self::LEAST) to
    /// [`MOST`](Self::MOST).
    pub fn new(weight: f64) -> Option<Self> {
        (Self::LEAST..=Self::MOST).contains(&weight).then(|| Self((weight * ONE as f64).round() as u64))
    }

    /// The weight as a number.
    #[allow(clippy::cast_precision_loss)] // a weight has three digits behind the point, and ten in all
    pub fn value(self) -> f64 {
        self.0 as f64 / ONE as f64
    }
}

impl Default for TenantWeight {
    fn default() -> Self {
        Self(ONE)
    }
}

/// Whether a tenant has had more than its share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Owed {
    /// It has not, as far as anybody has looked.
    #[default]
    Yes,
    /// It has had more than the mean of all that may start.
    No,
    /// It is too far ahead of the one that has had least.
    Ahead,
}

/// Where a tenant is found by a key, and the key that is in force there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Shelf {
    #[default]
    None,
    /// By what it has had.
    Unowed(Spent),
    /// By what the least must have had before it is not too far ahead any more.
    Ahead(Spent),
    /// By what it has had. It has no work.
    Idle(Spent),
}

/// What is known of a tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct TenantAccount {
    pub(super) name: Arc<str>,
    pub(super) weight: u64,
    /// What its runs have cost that are over.
    pub(super) done: Spent,
    /// What its runs are charged that go on.
    pub(super) held: Spent,
    /// The number of its tasks that wait, those that gates hold included.
    pub(super) waiting: usize,
    pub(super) running: usize,
    /// Whether it is counted among those with work.
    pub(super) is_busy: bool,
    /// The queues in which a task of it may start as far as the queue and the tenant are concerned.
    pub(super) lines: Vec<usize>,
    /// The queues in which it may have tasks that the rule of room alone keeps from starting, in order.
    pub(super) parked: Vec<usize>,
    /// By what it is counted among the [contenders](Contenders), and its key in their heap.
    pub(super) counted: Spent,
    pub(super) key: Option<Spent>,
    /// By what it is counted in the sums of its queues.
    pub(super) summed: Spent,
    /// Whether it is among those that contests are to be told of.
    pub(super) is_untold: bool,
    pub(super) owed: Owed,
    /// Since when its next run is due by its share, which may be soon. What it waited before counts for nobody.
    pub(super) owed_since: Timestamp,
    /// It has come without a debt and without a run, and has not started anything. So it is owed, whatever others have had.
    pub(super) is_new: bool,
    pub(super) shelf: Shelf,
    /// What a run of it mostly costs.
    pub(super) pace: Spent,
    pub(super) costs: OwnCosts,
    /// Whether it has as many slots as one tenant may have beside others.
    pub(super) is_large: bool,
    /// Whether the rule of room keeps it from starting more.
    pub(super) is_crowding: bool,
}

impl TenantAccount {
    /// What it has had, what goes on included.
    pub(super) fn spent(&self) -> Spent {
        self.done.saturating_add(self.held)
    }

    /// What a run of this length costs it.
    pub(super) fn cost(&self, took: Duration) -> Spent {
        spent(micros(took), self.weight)
    }

    /// Notes that the rule of room keeps its tasks in this queue from starting.
    pub(super) fn park(&mut self, queue: usize) {
        if let Err(at) = self.parked.binary_search(&queue) {
            self.parked.insert(at, queue);
        }
    }

    fn has_work(&self) -> bool {
        self.waiting > 0 || self.running > 0
    }
}

/// All tenants of a pool that are remembered, by their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct TenantAccounts {
    pub(super) accounts: Vec<TenantAccount>,
    numbers: HashMap<Arc<str>, usize>,
    /// The number that was looked up last. Tasks that come together are mostly of one tenant, and to compare names costs less
    /// than to hash one.
    latest: usize,
    /// Numbers that nobody has.
    spare: Vec<usize>,
    weights: BTreeMap<Box<str>, u64>,
    pub(super) floor: Spent,
    pub(super) contenders: Contenders,
    /// The tenants that are not owed. In force is what their shelves say.
    unowed: LazyHeap<(Spent, usize)>,
    unowed_count: usize,
    /// The tenants that are too far ahead, in the same way.
    ahead: LazyHeap<(Spent, usize)>,
    ahead_count: usize,
    idle: BTreeSet<(Spent, usize)>,
    busy: usize,
    /// The weights of all tenants with work.
    busy_weight: u64,
    /// The weights of all tenants without work that are remembered: of those in debt.
    idle_weight: u64,
    /// The last two tenants that have run out of work, the last one first.
    rested: [Option<(Arc<str>, Timestamp)>; 2],
}

impl TenantAccounts {
    /// The number of a tenant, which begins an account if it has none. Tasks without a tenant are those of one tenant without
    /// a name.
    pub(super) fn number(&mut self, name: &str) -> usize {
        let name = bounded(name);
        // A number that nobody has has no weight.
        let latest = self.accounts.get(self.latest);
        if latest.is_some_and(|account| account.weight > 0 && *account.name == *name) {
            return self.latest;
        }
        if let Some(number) = self.numbers.get(name) {
            self.latest = *number;
            return *number;
        }
        let account = TenantAccount {
            name: name.into(),
            weight: self.weights.get(name).copied().unwrap_or(ONE),
            done: self.floor,
            ..TenantAccount::default()
        };
        let known_as = Arc::clone(&account.name);
        let number = match self.spare.pop() {
            Some(number) => {
                self.accounts[number] = account;
                number
            }
            None => {
                self.accounts.push(account);
                self.accounts.len() - 1
            }
        };
        self.numbers.insert(known_as, number);
        self.latest = number;
        number
    }

    /// The number of a tenant that has an account.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.numbers.get(bounded(name)).copied()
    }

    /// The tenants that have accounts, in the order of their names.
    pub(super) fn all(&self) -> impl Iterator<Item = &TenantAccount> {
        let mut all: Vec<&TenantAccount> =
            self.numbers.values().map(|number| &self.accounts[*number]).collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        all.into_iter()
    }

    /// Of the tenants that are not owed, the one that has had least, with that.
    pub(super) fn first_unowed(&mut self) -> Option<(Spent, usize)> {
        let accounts = &self.accounts;
        self.unowed.first(|entry| is_unowed(accounts, entry))
    }

    /// Of the tenants that are too far ahead, the one that will be so for the shortest, with what the least must have had by then.
    pub(super) fn first_ahead(&mut self) -> Option<(Spent, usize)> {
        let accounts = &self.accounts;
        self.ahead.first(|entry| is_ahead(accounts, entry))
    }

    /// Sets the weight of a tenant for its charges from now on. None of its lines contends.
    pub(super) fn weigh(&mut self, name: &str, weight: TenantWeight) {
        self.weights.insert(bounded(name).into(), weight.0);
        let Some(number) = self.find(name) else { return };
        let account = &mut self.accounts[number];
        let counted_in = match account.shelf {
            Shelf::Idle(_) => Some(&mut self.idle_weight),
            _ if account.is_busy => Some(&mut self.busy_weight),
            _ => None,
        };
        if let Some(counted_in) = counted_in {
            *counted_in = counted_in.saturating_sub(account.weight).saturating_add(weight.0);
        }
        account.weight = weight.0;
    }

    /// A tenant has a debt at most: what it did not use while it could not is gone.
    pub(super) fn lift(&mut self, number: usize) {
        let account = &mut self.accounts[number];
        account.done = account.done.max(self.floor);
    }

    /// A tenant comes back of which nothing waited. Without a debt it is owed, and has been all the time. It begins at
    /// `level`, which is the floor or less.
    pub(super) fn welcome(&mut self, number: usize, level: Spent) {
        let account = &mut self.accounts[number];
        if account.done <= self.floor {
            account.is_new = account.running == 0;
            account.done = if account.is_new { level } else { account.done.max(level) };
            (account.owed, account.owed_since) = (Owed::Yes, Timestamp::ZERO);
        }
    }

    /// Counts slot time that was used. The floor rises as what a tenant has had rises that has its share of it. Who is in
    /// debt has had the share of some time to come, and takes part until that time is over.
    pub(super) fn raise_floor(&mut self, took: Duration) {
        self.floor = self.floor.saturating_add(spent(micros(took), self.sharing()));
    }

    /// The weights of all tenants that are remembered: of those with work, and of those in debt.
    pub(super) fn sharing(&self) -> u64 {
        self.busy_weight.saturating_add(self.idle_weight)
    }

    /// All that waits may start, and this tenant has had least of it: the floor is no lower than what its runs have cost.
    pub(super) fn lift_floor(&mut self, least: usize) {
        self.floor = self.floor.max(self.accounts[least].done);
    }

    /// Nobody is in debt any more: the floor rises to the largest debt.
    pub(super) fn forgive(&mut self) {
        if let Some(&(most, _)) = self.idle.last() {
            self.floor = self.floor.max(most);
            self.forget();
        }
    }

    /// Puts a tenant on the shelf where its state belongs, and counts it where it is to be counted.
    pub(super) fn place(&mut self, number: usize, slots: usize, now: Timestamp) {
        self.note_busy(number, now);
        let account = &self.accounts[number];
        let shelf = match account.owed {
            _ if !account.has_work() => Shelf::Idle(account.done),
            _ if account.lines.is_empty() => Shelf::None,
            Owed::Yes => Shelf::None,
            Owed::No => Shelf::Unowed(account.spent()),
            Owed::Ahead => Shelf::Ahead(account.spent().saturating_sub(allowance(slots, account.pace))),
        };
        let before = account.shelf;
        if shelf == before {
            return;
        }
        let weight = account.weight;
        self.accounts[number].shelf = shelf;
        match before {
            Shelf::None => {}
            Shelf::Unowed(_) => self.unowed_count -= 1,
            Shelf::Ahead(_) => self.ahead_count -= 1,
            Shelf::Idle(key) => {
                self.idle.remove(&(key, number));
                self.idle_weight = self.idle_weight.saturating_sub(weight);
            }
        }
        match shelf {
            Shelf::None => {}
            Shelf::Unowed(key) => {
                self.unowed.push((key, number));
                self.unowed_count += 1;
                self.unowed.tidy(self.unowed_count, |entry| is_unowed(&self.accounts, entry));
            }
            Shelf::Ahead(key) => {
                self.ahead.push((key, number));
                self.ahead_count += 1;
                self.ahead.tidy(self.ahead_count, |entry| is_ahead(&self.accounts, entry));
            }
            Shelf::Idle(key) => {
                self.idle.insert((key, number));
                self.idle_weight = self.idle_weight.saturating_add(weight);
            }
        }
    }

    fn note_busy(&mut self, number: usize, now: Timestamp) {
        let account = &mut self.accounts[number];
        let is_busy = account.has_work();
        if is_busy == account.is_busy {
            return;
        }
        account.is_busy = is_busy;
        let (name, weight) = (Arc::clone(&account.name), account.weight);
        if is_busy {
            self.busy += 1;
            self.busy_weight = self.busy_weight.saturating_add(weight);
            return;
        }
        self.busy = self.busy.saturating_sub(1);
        self.busy_weight = self.busy_weight.saturating_sub(weight);
        if self.rested[0].as_ref().is_some_and(|(last, _)| *last != name) {
            self.rested.swap(0, 1);
        }
        self.rested[0] = Some((name, now));
    }

    /// The book for a forward run: of tenants without work it has what they would begin with, and no names are looked up in it.
    pub(super) fn at_work(&self) -> Self {
        let accounts = self.accounts.iter().map(|account| match account.has_work() {
            true => account.clone(),
            false => TenantAccount {
                name: Arc::clone(&account.name),
                weight: account.weight,
                done: account.done,
                owed: account.owed,
                ..TenantAccount::default()
            },
        });
        Self {
            accounts: accounts.collect(),
            floor: self.floor,
            contenders: self.contenders.clone(),
            unowed: self.unowed.clone(),
            unowed_count: self.unowed_count,
            ahead: self.ahead.clone(),
            ahead_count: self.ahead_count,
            busy: self.busy,
            busy_weight: self.busy_weight,
            rested: self.rested.clone(),
            ..Self::default()
        }
    }

    /// A tenant that was forgotten begins anew.
    pub(super) fn revive(&mut self, number: usize) {
        let account = &mut self.accounts[number];
        if account.weight == 0 {
            (account.weight, account.done) = (ONE, self.floor);
        }
    }

    /// Forgets the tenants without work that have no debt, and those with the smallest debts beyond the bound.
    pub(super) fn forget(&mut self) {
        while let Some(&(done, number)) = self.idle.first()
            && (done <= self.floor || self.idle.len() > MOST_IDLE)
        {
            self.idle.pop_first();
            let account = std::mem::take(&mut self.accounts[number]);
            self.idle_weight = self.idle_weight.saturating_sub(account.weight);
            self.numbers.remove(&account.name);
            self.spare.push(number);
        }
    }

    /// Until when another tenant than this one counts as being about; `None`: no other one does now. One with work is about
    /// for ever.
    pub(super) fn others_until(&self, number: usize, now: Timestamp) -> Option<Timestamp> {
        let account = &self.accounts[number];
        if self.busy > usize::from(account.is_busy) {
            return Some(Timestamp::from_micros(u64::MAX));
        }
        let mut rested = self.rested.iter().flatten();
        let (_, at) = rested.find(|(name, _)| *name != account.name)?;
        Some(*at + ABOUT).filter(|until| *until > now)
    }
}

fn is_unowed(accounts: &[TenantAccount], (key, number): &(Spent, usize)) -> bool {
    accounts.get(*number).is_some_and(|account| account.shelf == Shelf::Unowed(*key))
}

fn is_ahead(accounts: &[TenantAccount], (key, number): &(Spent, usize)) -> bool {
    accounts.get(*number).is_some_and(|account| account.shelf == Shelf::Ahead(*key))
}

/// The beginning of a name.
pub(super) fn bounded(name: &str) -> &str {
    if name.len() <= MOST_NAME {
        return name;
    }
    let end = name.char_indices().nth(MOST_NAME).map_or(name.len(), |(at, _)| at);
    name.get(..end).unwrap_or(name)
}

/// How much more than the one that has had least a tenant may have had when it starts a run: as much as its runs on all slots
/// cost. It bounds how far the promises of queues can bend the shares of tenants.
pub(super) fn allowance(slots: usize, pace: Spent) -> Spent {
    pace.saturating_mul(slots as u128)
}

/// In what time the share of a tenant comes to a run of this cost, where all that share, itself included, have this weight.
pub(super) fn turn(pace: Spent, weight: u128, slots: usize) -> Duration {
    let micros = u64::try_from(pace.saturating_mul(weight) >> 20).unwrap_or(u64::MAX);
    Duration::from_micros(micros / slots.max(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_above_zero() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.000_1, 1e7] {
            assert_eq!(TenantWeight::new(bad), None, "{bad}");
        }
        assert_eq!(TenantWeight::new(1.0), Some(TenantWeight::default()));
        assert_eq!(TenantWeight::new(0.001), Some(TenantWeight(1)));
        assert_eq!(TenantWeight::new(2.5), Some(TenantWeight(2_500)));
        assert_eq!(TenantWeight::new(2.5).map(TenantWeight::value), Some(2.5));
    }

    #[test]
    fn a_name_is_as_long_as_it_may_be() {
        assert_eq!((bounded(""), bounded("malawi")), ("", "malawi"));
        assert_eq!(bounded(&"é".repeat(70_000)), "é".repeat(MOST_NAME));
        let mut book = TenantAccounts::default();
        let number = book.number(&"x".repeat(70_000));
        assert_eq!(book.find(&"x".repeat(60_000)), Some(number));
    }

    #[test]
    fn no_weight_makes_a_run_free() {
        assert_eq!(spent(0, ONE), 1);
        assert_eq!(spent(1, u64::MAX), 1);
        assert_eq!(spent(2_000, 2 * ONE), spent(1_000, ONE));
        assert!(spent(5, 0) > 0, "nobody is busy");
        for took in [(1 << 44) - 1, 1 << 44, u64::MAX] {
            assert_eq!(spent(took, 3 * ONE), (u128::from(took) << 20) / 3_000, "however long it takes");
        }
    }

    /// Four tenants always have work. A fifth one has had a run, which it has paid when each of the four has had as much.
    #[test]
    fn who_is_in_debt_takes_part_until_it_has_paid() {
        let (mut book, run) = (TenantAccounts::default(), Duration::from_secs(10));
        for name in 0..5 {
            let number = book.number(&name.to_string());
            book.accounts[number].waiting = usize::from(name < 4);
            book.accounts[number].done = if name < 4 { 0 } else { spent(30_000_000, ONE) };
            book.place(number, 4, Timestamp::ZERO);
        }
        for runs in 1..=15_u128 {
            book.forget();
            assert!(book.find("4").is_some(), "it is not forgotten after {runs} runs");
            book.raise_floor(run);
            assert_eq!(book.floor, runs * spent(10_000_000, 5 * ONE));
        }
        book.forget();
        assert_eq!((book.find("4"), book.floor), (None, spent(30_000_000, ONE)));
        book.raise_floor(run);
        assert_eq!(book.floor, spent(30_000_000, ONE) + spent(10_000_000, 4 * ONE), "the four share alone");
    }

    #[test]
    fn nobody_is_in_debt_when_it_is_forgiven() {
        let mut book = TenantAccounts::default();
        for name in 1..=50_u128 {
            let number = book.number(&name.to_string());
            book.accounts[number].done = 1_000 * name;
            book.place(number, 4, Timestamp::ZERO);
        }
        book.forgive();
        assert_eq!((book.all().count(), book.floor), (0, 50_000));
        book.raise_floor(Duration::from_secs(10));
        assert_eq!(book.floor, 50_000 + spent(10_000_000, 0), "nobody has a share of it");
        book.forgive();
        assert_eq!(book.all().count(), 0);
    }

    #[test]
    fn a_debt_counts_with_the_weight_of_its_tenant() {
        let mut book = TenantAccounts::default();
        let number = book.number("a");
        book.accounts[number].done = spent(30_000_000, ONE);
        book.place(number, 4, Timestamp::ZERO);
        book.weigh("a", TenantWeight(3 * ONE));
        assert_eq!((book.find("a"), book.accounts[number].weight), (Some(number), 3 * ONE));
        book.raise_floor(Duration::from_secs(10));
        assert_eq!(book.floor, spent(10_000_000, 3 * ONE));
    }

    /// A hundred thousand tenants that came once leave nothing behind, and those with debts a bounded number of accounts.
    #[test]
    fn tenants_without_work_and_debt_are_forgotten() {
        let mut book = TenantAccounts::default();
        for name in 0..100_000 {
            let number = book.number(&name.to_string());
            book.place(number, 4, Timestamp::ZERO);
            book.forget();
        }
        assert_eq!((book.accounts.len(), book.all().count()), (1, 0));
        for name in 0..MOST_IDLE + 50 {
            let number = book.number(&name.to_string());
            book.accounts[number].done = 1_000_000 + name as u128;
            book.place(number, 4, Timestamp::ZERO);
            book.forget();
        }
        assert_eq!(book.all().count(), MOST_IDLE);
        assert_eq!((book.find("49"), book.find("50").is_some()), (None, true), "the smallest debts go first");
        book.floor = u128::MAX;
        book.forget();
        assert_eq!(book.all().count(), 0);
        // The last one that was asked for is no exception, nor is that without a name.
        for name in ["last", ""] {
            let number = book.number(name);
            assert_eq!((book.number(name), book.find(name)), (number, Some(number)));
            book.place(number, 4, Timestamp::ZERO);
            book.forget();
            assert_eq!(book.find(name), None);
            let again = book.number(name);
            assert_eq!((book.find(name), book.accounts[again].weight), (Some(again), ONE));
            book.place(again, 4, Timestamp::ZERO);
            book.forget();
        }
    }
}
