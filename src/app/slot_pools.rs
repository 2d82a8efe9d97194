//! The levers on the slots that queues share, and on the shares of tenants.

use std::collections::BTreeMap;

use super::handle::{Celeriac, ControlError};
use crate::actors::PoolStatus;
use crate::catalogue::Pool;
use crate::core::slots::{TenantShare, TenantWeight};

impl Celeriac {
    /// The pools whose queues share slots, as the catalogue has them (`[pool.io]` and the like), with their tenants.
    pub fn pools(&self) -> Vec<PoolStatus> {
        self.inner.slot_pools.statuses()
    }

    /// Sets the number of slots that the queues of a pool share. With fewer than before, the runs go on, and nothing starts until
    /// they fit. It lasts until a restart of the program.
    ///
    /// # Errors
    /// The queues of this pool share no slots, or `slots` is 0.
    pub fn resize_pool(&self, pool: Pool, slots: usize) -> Result<(), ControlError> {
        if slots == 0 {
            return Err(ControlError::NoSlots);
        }
        match self.inner.slot_pools.resize(pool, slots) {
            true => Ok(()),
            false => Err(ControlError::NothingShared(pool)),
        }
    }

    /// The tenants that have work in the queues of this program, or have had more than their share, by their names: what waits in
    /// this process, what runs, and whether they are owed in each pool in which they are. It has those of all queues, also of
    /// queues that share no pool. Tasks without a tenant are those of the tenant without a name.
    pub fn tenant_shares(&self) -> BTreeMap<String, TenantShare> {
        self.inner.slot_pools.tenants()
    }

    /// The weights of tenants that the catalogue states, or that were [set](Self::set_tenant_weight) since. Others have 1.
    pub fn tenant_weights(&self) -> BTreeMap<String, f64> {
        self.inner.slot_pools.weights()
    }

    /// Sets how much of the slots a tenant gets beside others, from 0.001 to 1,000,000: with 2, twice as much as one with 1. It
    /// counts for what its runs are charged from now on, in all queues of this program, and lasts until a restart;
    /// `[tenants.weights]` of the catalogue lasts longer.
    ///
    /// # Errors
    /// `weight` is not such a number.
    pub fn set_tenant_weight(&self, tenant: &str, weight: f64) -> Result<(), ControlError> {
        let Some(known) = TenantWeight::new(weight) else {
            return Err(ControlError::BadWeight { tenant: tenant.to_owned(), weight: weight.to_string() });
        };
        self.inner.slot_pools.weigh(tenant, known);
        Ok(())
    }
}
