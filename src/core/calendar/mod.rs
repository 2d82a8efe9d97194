//! The calendar: when a periodic entry is due, what happens to ticks that were missed, and whose midnight counts.
//!
//! [`Schedule`] says when an entry is due (a [`Crontab`] in a [`Zone`], or an interval) and states the rule for
//! clocks that are put forward and back. [`Agenda`] holds all entries and says which are due. [`Tenants`] does the
//! same for an entry that fires once for each tenant and local day. The caller passes the time to both, as everywhere
//! in the core.

mod agenda;
mod crontab;
mod field;
mod grammar;
mod hours;
mod policy;
mod schedule;
mod tenants;
mod tick_id;
mod words;
mod zone;

pub use agenda::{Agenda, Fire};
pub use crontab::{Crontab, CrontabError, Fields, Lint};
pub use hours::{AllowedHours, HoursError};
pub use policy::{Misfire, Overlap};
pub use schedule::Schedule;
pub use tenants::{LocalDay, Tenant, TenantTick, Tenants};
pub use tick_id::{tenant_tick_id, tick_id};
pub use zone::{UnknownZone, Zone};
