//! The pages. Each finds out what it shows, shows it, and tells the same as data.
//!
//! A page is a list of cards. What comes to be known of a queue or of a task (why it waits, whom it belongs to, which rule
//! holds it) is a card more on its page, and a field more in its data.

mod acts;
mod brakes;
mod bulk;
mod confirm;
mod downloads;
mod enqueue;
mod failed;
mod family;
mod fleet;
mod history;
mod history_range;
mod history_slider;
mod lanes;
mod limits;
mod live;
mod periodic;
mod processes;
mod queue;
mod queues;
mod task;
mod tasks;
mod tenants;

use std::time::Duration;

use maud::Markup;
use serde::Serialize;
use serde_json::Value;

use super::address::PageName;
use super::problem::ConsoleProblem;
use super::visit::ConsoleVisit;
use crate::core::Timestamp;

pub(super) use confirm::acted_filter;
pub(super) use task::find as find_task;

/// The rows of one page of a list.
pub(super) const ROWS: usize = 40;
/// How long a look at a list is shared.
pub(super) const LIST_FRESH: Duration = Duration::from_secs(2);

/// A page, as people see it and as data.
pub(super) struct PageBody {
    /// The name of the page in the browser's tab.
    pub(super) title: String,
    pub(super) main: Markup,
    /// The same as data.
    pub(super) data: Value,
    /// What the numbers are as old as.
    pub(super) at: Timestamp,
    /// The address that shows more in a second, if what the page shows is not whole yet.
    pub(super) again: Option<String>,
}

impl PageBody {
    fn new(title: impl Into<String>, at: Timestamp, data: &impl Serialize, main: Markup) -> Self {
        // What the pages tell has only text, numbers and lists, all of which can be written as JSON.
        Self {
            title: title.into(),
            main,
            data: serde_json::to_value(data).unwrap_or_default(),
            at,
            again: None,
        }
    }

    /// The same page, which shows more by this address in a second.
    fn with_again(self, again: Option<String>) -> Self {
        Self { again, ..self }
    }
}

/// Makes the page that the visit is for.
///
/// # Errors
/// What the page is about does not exist, may not be seen, or cannot be asked for.
pub(super) async fn look(visit: &ConsoleVisit) -> Result<PageBody, ConsoleProblem> {
    match visit.address.page {
        PageName::Queues => queues::look(visit).await,
        PageName::Queue => queue::look(visit).await,
        PageName::Tasks => tasks::look(visit).await,
        PageName::Task => task::look(visit).await,
        PageName::Failed => failed::look(visit).await,
        PageName::Lanes => lanes::look(visit).await,
        PageName::Lane => lanes::look_at_one(visit).await,
        PageName::Periodic => periodic::look(visit).await,
        PageName::Entry => periodic::look_at_one(visit).await,
        PageName::Brakes => brakes::look(visit).await,
        PageName::Tenants => tenants::look(visit).await,
        PageName::Tenant => tenants::look_at_one(visit).await,
        PageName::Limits => limits::look(visit).await,
        PageName::History => history::look(visit).await,
        PageName::Enqueue => enqueue::look(visit).await,
        PageName::Processes => processes::look(visit).await,
        PageName::Downloads => downloads::look(visit).await,
        PageName::Live => live::look(visit).await,
        PageName::Acts => Ok(acts::look(visit)),
        PageName::Bulk => bulk::look(visit).await,
        PageName::Confirm => confirm::look(visit).await,
    }
}
