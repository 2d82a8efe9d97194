//! The tenant of a message: the one that its call states, or else the one that the arguments name.

use super::Dispatcher;
use crate::task::tenant::check;
use crate::task::{EnqueueError, NewTask, TENANT};

impl Dispatcher {
    /// Puts the tenant of a call into its headers, unless they state one already.
    ///
    /// # Errors
    /// The name is too long.
    pub(super) fn put_tenant(&self, call: &mut NewTask) -> Result<(), EnqueueError> {
        if !call.headers.0.contains_key(TENANT)
            && let Some(tenant) = self.registry.tenant(&call.task, &call.arguments)
        {
            call.headers.0.insert(TENANT.to_owned(), tenant.into());
        }
        check(&call.headers).map_err(|what| EnqueueError::Tenant { task: call.task.clone(), what })
    }

    /// As [`put_tenant`](Self::put_tenant), for a call that cannot be refused any more: one whose tenant has too long a name
    /// goes without.
    pub(super) fn put_fit_tenant(&self, call: &mut NewTask) {
        if let Err(error) = self.put_tenant(call) {
            tracing::error!(%error, "the next step of a workflow goes without a tenant");
            call.headers.0.remove(TENANT);
        }
    }
}
