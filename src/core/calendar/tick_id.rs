//! The id of a tick's task, which follows from the entry and the tick alone.
//!
//! Whoever publishes a tick, and however often, it is one task: a second one of the same id is refused by the broker, and
//! where a broker cannot refuse, it can be told by its id.

use uuid::Uuid;

use super::LocalDay;
use crate::core::Timestamp;

/// The namespace of the ids: what RFC 9562 makes of the URL of this project's namespace of ticks.
fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, b"urn:celeriac:tick")
}

/// The id of an entry's tick: a UUID of version 5, in the namespace that version 5 makes of `urn:celeriac:tick` among URLs,
/// of the text `ENTRY@MICROSECONDS`.
///
/// ```
/// use celeriac::core::{Timestamp, calendar::tick_id};
/// let tick = Timestamp::from_millis(1_800_000_000_000);
/// assert_eq!(tick_id("invoices", tick), tick_id("invoices", tick));
/// assert_ne!(tick_id("invoices", tick), tick_id("exports", tick));
/// ```
pub fn tick_id(entry: &str, tick: Timestamp) -> String {
    Uuid::new_v5(&namespace(), format!("{entry}@{}", tick.as_micros()).as_bytes()).to_string()
}

/// The id of a tenant's day: as [`tick_id`], of the text `ENTRY@DAY@TENANT`.
pub fn tenant_tick_id(entry: &str, tenant: &str, day: LocalDay) -> String {
    Uuid::new_v5(&namespace(), format!("{entry}@{day}@{tenant}").as_bytes()).to_string()
}
