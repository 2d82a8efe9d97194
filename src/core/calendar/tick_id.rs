//! The id of a tick's task, which follows from the entry and the tick alone.
//!
//! Every publish of a tick has the same id, whoever publishes it and however often. So a broker can refuse the second
//! publish, and where a broker cannot refuse, a reader recognises the duplicate by its id.

use uuid::Uuid;

use super::LocalDay;
use crate::core::Timestamp;
use crate::core::key::joined;

/// The namespace of the ids: the UUID that RFC 9562 derives from the URL `urn:celeriac:tick`.
fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, b"urn:celeriac:tick")
}

/// The id of the task of an entry's tick: a UUID of version 5, in the namespace that version 5 derives from the URL
/// `urn:celeriac:tick`, of the text `ENTRY@MICROSECONDS`. If the name of the entry contains an `@`, its length stands
/// before it (`%LENGTH:ENTRY@MICROSECONDS`), so that no other entry's ticks have the same ids.
///
/// ```
/// use celeriac::core::{Timestamp, calendar::tick_id};
/// let tick = Timestamp::from_millis(1_800_000_000_000);
/// assert_eq!(tick_id("invoices", tick), tick_id("invoices", tick));
/// assert_ne!(tick_id("invoices", tick), tick_id("exports", tick));
/// ```
pub fn tick_id(entry: &str, tick: Timestamp) -> String {
    Uuid::new_v5(&namespace(), joined(&["", "@", ""], &[&entry, &tick.as_micros()]).as_bytes()).to_string()
}

/// The id of the task of a tenant's day: as [`tick_id`], of the text `ENTRY@DAY@TENANT`.
pub fn tenant_tick_id(entry: &str, tenant: &str, day: LocalDay) -> String {
    Uuid::new_v5(&namespace(), joined(&["", "@", "@", ""], &[&entry, &day, &tenant]).as_bytes()).to_string()
}
