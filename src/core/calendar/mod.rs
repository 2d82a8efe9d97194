//! The calendar: when a periodic entry is due, what becomes of ticks that were missed, and whose midnight it is.
//!
//! [`Schedule`] says when (a [`Crontab`] in a [`Zone`], or every so often) and states the rule for clocks that are put
//! forward and back. [`Agenda`] has all entries and says what is due; [`Tenants`] does the same for an entry that fires
//! once for each tenant and local day. Both are driven from outside, as everything in the core.

mod agenda;
mod crontab;
mod field;
mod policy;
mod schedule;
mod tenants;
mod tick_id;
mod zone;

pub use agenda::{Agenda, Fire};
pub use crontab::{Crontab, CrontabError, Fields, Lint};
pub use policy::{Misfire, Overlap};
pub use schedule::Schedule;
pub use tenants::{LocalDay, Tenant, TenantTick, Tenants};
pub use tick_id::{tenant_tick_id, tick_id};
pub use zone::{UnknownZone, Zone};
