//! An ability of brokers: they keep the ready tasks of each tenant in a line of its own, and deliver from these lines in
//! turn, so that a flood of one tenant hides nobody.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use serde::Serialize;

use super::BrokerError;
use crate::task::TaskId;

/// Knows how many tasks of each [tenant](crate::task::Message::tenant) a queue has, and lets the tenants take turns.
///
/// What it lets take turns is what it delivers: with room for P deliveries, k tenants that have enough ready tasks have P/k
/// each, and a tenant that has none delivered gets one beyond that room, up to
/// [`MOST_EXTRA`](crate::core::fair_lines::MOST_EXTRA) for all tenants together. The tasks of one tenant come by priority,
/// and then in order of arrival. The tasks without a tenant are one line among these.
#[async_trait]
pub trait TenantBacklog: Send + Sync {
    /// The tenants of a queue that have tasks which could start, those with the most tasks first, at most `limit` of them.
    /// The cost grows with the number of tenants, and not with that of tasks.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn tenants(&self, queue: &str, limit: usize) -> Result<QueueTenants, BrokerError>;

    /// How many tasks of its own tenant are before this waiting one in its queue, up to `limit`: those that could start, and
    /// those that are delivered and not settled. `None`: that is not known, or the task waits for its time or its lane.
    ///
    /// # Errors
    /// The broker is closed or cannot be reached.
    async fn line_before(&self, id: &TaskId, limit: usize) -> Result<Option<usize>, BrokerError>;
}

/// The tenants of a queue that have tasks which could start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueueTenants {
    /// The tenants, those with the most tasks first, and at most as many as were asked for.
    pub tenants: Vec<TenantCounts>,
    /// The number of all such tenants.
    pub total: u64,
    /// The number of tasks whose tenants are not counted one by one, because the queue has too many tenants.
    pub uncounted: u64,
}

/// How many tasks of one tenant a queue has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TenantCounts {
    /// The name of the tenant.
    pub tenant: String,
    /// The tasks that could start. A broker counts those that are not delivered, and
    /// [`Celeriac::tenants`](crate::Celeriac::tenants) also those that its program has fetched and not begun.
    pub ready: u64,
    /// The other tasks that are delivered and not settled: they run, or a limit holds them. For a broker all that are
    /// delivered are among them.
    pub unsettled: u64,
}

impl QueueTenants {
    /// Adds a tenant. Tasks under the empty name have tenants that are not counted one by one.
    pub(crate) fn add(&mut self, counts: TenantCounts) {
        if counts.tenant.is_empty() {
            self.uncounted += counts.ready + counts.unsettled;
        } else {
            self.total += 1;
            self.tenants.push(counts);
        }
    }

    /// The counts as a program has them: what it has fetched and not begun could start, as what the broker has not
    /// delivered.
    /// `fetched` was counted first, so what the broker does not count as delivered any more has ended since, and does
    /// not wait.
    #[must_use]
    pub(crate) fn with_fetched(mut self, fetched: &BTreeMap<String, u64>) -> Self {
        for counts in &mut self.tenants {
            let here = fetched.get(&counts.tenant).copied().unwrap_or_default().min(counts.unsettled);
            counts.ready += here;
            counts.unsettled -= here;
        }
        self
    }

    /// What a program has fetched and not begun, where the broker tells nothing of tenants.
    pub(crate) fn of_fetched(fetched: BTreeMap<String, u64>) -> Self {
        let mut all = Self::default();
        for (tenant, ready) in fetched.into_iter().filter(|(tenant, _)| !tenant.is_empty()) {
            all.add(TenantCounts { tenant, ready, unsettled: 0 });
        }
        all
    }

    /// Adds the counts of another part of the same queue. Neither may be cut.
    pub(crate) fn merge(&mut self, other: Self) {
        let places = self.tenants.iter().enumerate();
        let places: HashMap<String, usize> =
            places.map(|(place, counts)| (counts.tenant.clone(), place)).collect();
        for counts in other.tenants {
            match places.get(&counts.tenant) {
                Some(place) => {
                    let own = &mut self.tenants[*place];
                    own.ready += counts.ready;
                    own.unsettled += counts.unsettled;
                }
                None => self.add(counts),
            }
        }
        self.uncounted += other.uncounted;
    }

    /// Sorts the tenants and keeps those that have the most tasks.
    #[must_use]
    pub(crate) fn cut(mut self, limit: usize) -> Self {
        let rank = |counts: &TenantCounts| Reverse(counts.ready + counts.unsettled);
        self.tenants.sort_unstable_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.tenant.cmp(&b.tenant)));
        self.tenants.truncate(limit);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(tenant: &str, ready: u64, unsettled: u64) -> TenantCounts {
        TenantCounts { tenant: tenant.to_owned(), ready, unsettled }
    }

    #[test]
    fn parts_of_a_queue_are_added_up() {
        let mut disk = QueueTenants::default();
        [counts("a", 1, 1), counts("b", 5, 0), counts("", 2, 1)].into_iter().for_each(|c| disk.add(c));
        let mut memory = QueueTenants::default();
        [counts("c", 0, 3), counts("a", 3, 1)].into_iter().for_each(|c| memory.add(c));
        disk.merge(memory);
        let all = disk.cut(2);
        assert_eq!(all.tenants, [counts("a", 4, 2), counts("b", 5, 0)]);
        assert_eq!((all.total, all.uncounted), (3, 3));
    }

    #[test]
    fn what_a_program_has_fetched_waits_and_is_counted_once() {
        let fetched = [("a", 4), ("b", 9), ("", 5), ("gone", 2)];
        let fetched: BTreeMap<String, u64> =
            fetched.into_iter().map(|(tenant, tasks)| (tenant.to_owned(), tasks)).collect();
        let mut broker = QueueTenants::default();
        [counts("a", 10, 6), counts("b", 0, 3), counts("c", 1, 1)].into_iter().for_each(|c| broker.add(c));
        let told = broker.with_fetched(&fetched);
        assert_eq!(told.tenants, [counts("a", 14, 2), counts("b", 3, 0), counts("c", 1, 1)]);
        let alone = QueueTenants::of_fetched(fetched);
        assert_eq!(alone.tenants, [counts("a", 4, 0), counts("b", 9, 0), counts("gone", 2, 0)]);
        assert_eq!((alone.total, alone.uncounted), (3, 0), "a task without a tenant is nobody's");
    }
}
