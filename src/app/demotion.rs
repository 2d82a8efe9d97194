//! Calls that go to another queue than theirs, because their tenant sends more than the row of the queue takes from one.
//!
//! Who publishes decides, by what it has sent itself ([`core::sending_rates`](crate::core::sending_rates)): on RabbitMQ
//! nothing can be moved any more once it waits. A tenant that sends less again is back in the queue with its next call.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::handle::Celeriac;
use crate::catalogue::Catalogue;
use crate::core::sending_rates::SendingRates;
use crate::task::clock::steady;

/// The queues that demote calls, by their physical names.
pub(super) struct Demotions(HashMap<String, Demotion>);

/// Where one queue demotes calls to, and how many it has.
struct Demotion {
    /// The physical name of the other queue.
    to: String,
    rates: Mutex<SendingRates>,
    demoted: AtomicU64,
}

impl Demotions {
    /// What the rows of a catalogue say. Rows that lead nowhere are left out; [`Catalogue::validate`] refuses them.
    pub(super) fn of(catalogue: &Catalogue) -> Self {
        let rows = catalogue.queues.iter().filter_map(|row| {
            let (above, to) = (row.demote_above.as_ref()?, catalogue.resolve(row.demote_to.as_ref()?)?);
            let rates = Mutex::new(SendingRates::new(above));
            Some((row.name.clone(), Demotion { to: to.to_owned(), rates, demoted: AtomicU64::new(0) }))
        });
        Self(rows.collect())
    }

    /// The queue that a call to `queue` on behalf of this tenant goes to instead, if the tenant is above its rate. If it is
    /// not, the call counts.
    pub(super) fn instead_of(&self, queue: &str, tenant: Option<&str>) -> Option<&str> {
        let (demotion, tenant) = (self.0.get(queue)?, tenant?);
        if !demotion.rates.lock().is_above(tenant, steady()) {
            return None;
        }
        demotion.demoted.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(
            queue,
            tenant,
            to = demotion.to,
            "a call of a tenant above its rate goes to another queue"
        );
        Some(&demotion.to)
    }

    /// How many calls went elsewhere, by the queues that they were for.
    fn counts(&self) -> BTreeMap<String, u64> {
        let count = |demotion: &Demotion| demotion.demoted.load(Ordering::Relaxed);
        self.0.iter().map(|(queue, demotion)| (queue.clone(), count(demotion))).collect()
    }
}

impl Celeriac {
    /// How many calls this program has sent to another queue than theirs since its start, because their tenant was above the
    /// `demote_above` of the row, by the queues that they were for. Queues without such a row are not in it.
    pub fn demoted_calls(&self) -> BTreeMap<String, u64> {
        self.inner.routing.demotions().counts()
    }
}
