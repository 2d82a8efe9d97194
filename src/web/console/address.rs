//! The address of a page: which page it is, and the whole state of the screen in its query.
//!
//! Invariant: an address is read back as it was written, so that a link that somebody passes on shows the same screen. What
//! is too long, or no text, is refused before anybody is asked for it.

use actix_web::web;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The most bytes of one value, such as an id, a name or a text to find.
pub(super) const LONGEST: usize = 1_024;
/// The most fields of a query.
const MOST: usize = 32;
/// What is written as it is in a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PageName {
    Queues,
    Queue,
    Tasks,
    Task,
    Failed,
    Lanes,
    Lane,
    Periodic,
    Entry,
    Brakes,
    Tenants,
    Tenant,
    Limits,
    History,
    Enqueue,
    Processes,
    Downloads,
    Live,
    Acts,
    Bulk,
    Confirm,
}

impl PageName {
    pub(super) const ALL: [Self; 21] = [
        Self::Queues,
        Self::Queue,
        Self::Tasks,
        Self::Task,
        Self::Failed,
        Self::Lanes,
        Self::Lane,
        Self::Periodic,
        Self::Entry,
        Self::Brakes,
        Self::Tenants,
        Self::Tenant,
        Self::Limits,
        Self::History,
        Self::Enqueue,
        Self::Processes,
        Self::Downloads,
        Self::Live,
        Self::Acts,
        Self::Bulk,
        Self::Confirm,
    ];

    /// The last part of the page's path; the first page has none.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queues => "",
            Self::Queue => "queue",
            Self::Tasks => "tasks",
            Self::Task => "task",
            Self::Failed => "failed",
            Self::Lanes => "lanes",
            Self::Lane => "lane",
            Self::Periodic => "periodic",
            Self::Entry => "entry",
            Self::Brakes => "brakes",
            Self::Tenants => "tenants",
            Self::Tenant => "tenant",
            Self::Limits => "limits",
            Self::History => "history",
            Self::Enqueue => "enqueue",
            Self::Processes => "processes",
            Self::Downloads => "downloads",
            Self::Live => "live",
            Self::Acts => "acts",
            Self::Bulk => "bulk",
            Self::Confirm => "confirm",
        }
    }

    /// Whether the page changes while somebody looks at it. What was searched for, what is being written, and what is to be
    /// confirmed stays as it was found.
    pub(super) fn is_live(self) -> bool {
        let is_found =
            matches!(self, Self::Tasks | Self::Failed | Self::Tenants | Self::Tenant | Self::History);
        !is_found && !matches!(self, Self::Brakes | Self::Enqueue | Self::Acts | Self::Confirm)
    }

    /// The page of the navigation under which this one stands.
    pub(super) fn section(self) -> Self {
        match self {
            Self::Queue => Self::Queues,
            Self::Task => Self::Tasks,
            Self::Lane => Self::Lanes,
            Self::Entry => Self::Periodic,
            Self::Tenant => Self::Tenants,
            Self::Confirm => Self::Acts,
            page => page,
        }
    }
}

/// A page, and the state of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScreenAddress {
    pub(super) page: PageName,
    fields: Vec<(String, String)>,
}

impl ScreenAddress {
    /// The page with an empty query.
    pub(super) fn of(page: PageName) -> Self {
        Self { page, fields: Vec::new() }
    }

    /// Reads the query of a request for a page. The error says what is wrong with it.
    pub(super) fn read(page: PageName, query: &str) -> Result<Self, String> {
        let fields = web::Query::<Vec<(String, String)>>::from_query(query);
        let fields = fields.map_err(|_| "The address cannot be read: a part of it is no text.".to_owned())?;
        Self::checked(page, fields.into_inner())
    }

    /// Checks the fields of a query or of a form.
    pub(super) fn checked(page: PageName, fields: Vec<(String, String)>) -> Result<Self, String> {
        if fields.len() > MOST {
            return Err(format!(
                "The address has {} fields, and none of the pages has so many.",
                fields.len()
            ));
        }
        if let Some((name, value)) = fields.iter().find(|(name, value)| name.len().max(value.len()) > LONGEST)
        {
            let name: String = name.chars().take(40).collect();
            return Err(format!(
                "`{name}` has {} bytes; a name, an id or a text has at most {LONGEST}.",
                value.len()
            ));
        }
        let mut kept: Vec<(String, String)> = Vec::new();
        for (name, value) in fields {
            // An empty field of a form says nothing, and of two of one name everybody has to read the same one.
            if !value.is_empty() && kept.iter().all(|(known, _)| *known != name) {
                kept.push((name, value));
            }
        }
        Ok(Self { page, fields: kept })
    }

    /// Reads what [`relative`](Self::relative) wrote. `None`: it is no address of these pages.
    pub(super) fn read_relative(text: &str) -> Option<Self> {
        let (page, query) = text.split_once('?').unwrap_or((text, ""));
        let page = PageName::ALL.into_iter().find(|known| known.as_str() == page)?;
        Self::read(page, query).ok()
    }

    /// The value of a field.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The same address with a field set; an empty value takes it away.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.fields.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.fields.push((name.to_owned(), value));
        }
        self
    }

    /// The same address without a field.
    #[must_use]
    pub(super) fn without(self, name: &str) -> Self {
        self.with(name, "")
    }

    /// The fields, in their order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The last part of the path and the query.
    pub(super) fn relative(&self) -> String {
        let mut text = self.page.as_str().to_owned();
        for (at, (name, value)) in self.fields.iter().enumerate() {
            text.push(if at == 0 { '?' } else { '&' });
            text.extend(utf8_percent_encode(name, PLAIN));
            text.push('=');
            text.extend(utf8_percent_encode(value, PLAIN));
        }
        text
    }

    /// The address below the path of the console.
    pub(super) fn below(&self, base: &str) -> String {
        let relative = self.relative();
        if relative.is_empty() && base.is_empty() {
            "/".to_owned()
        } else if relative.is_empty() || relative.starts_with('?') {
            format!("{base}{relative}")
        } else {
            format!("{base}/{relative}")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_link_has_the_whole_state_of_the_screen() {
        let address = ScreenAddress::of(PageName::Queue).with("name", "a b&c=d/é").with("standing", "ready");
        assert_eq!(address.below("/console"), "/console/queue?name=a%20b%26c%3Dd%2F%C3%A9&standing=ready");
        assert_eq!(ScreenAddress::read_relative(&address.relative()), Some(address.clone()));
        assert_eq!(address.get("name"), Some("a b&c=d/é"));
        assert_eq!(address.clone().without("name").relative(), "queue?standing=ready");
        assert_eq!(address.with("name", "x").relative(), "queue?standing=ready&name=x");
        assert_eq!(ScreenAddress::of(PageName::Queues).below("/console"), "/console");
        assert_eq!(ScreenAddress::of(PageName::Queues).below(""), "/", "a console at the root");
        assert_eq!(ScreenAddress::of(PageName::Queues).with("a", "b").below("/c"), "/c?a=b");
    }

    #[test]
    fn what_is_no_address_of_ours_leads_nowhere() {
        for text in
            ["//evil.example", "https://evil.example/", "nowhere", "queue/../x", "/queue", "queue\n?a=b"]
        {
            assert_eq!(ScreenAddress::read_relative(text), None, "{text}");
        }
        let odd = ScreenAddress::read(PageName::Task, "id=%ff%00").expect("a text, whatever it says");
        assert_eq!(odd.get("id"), Some("\u{fffd}\u{0}"));
        let long = format!("id={}", "x".repeat(LONGEST + 1));
        assert!(ScreenAddress::read(PageName::Task, &long).unwrap_err().contains("at most 1024"));
        let many = "a=b&".repeat(MOST + 1);
        assert!(ScreenAddress::read(PageName::Task, many.trim_end_matches('&')).is_err());
        let twice = ScreenAddress::read(PageName::Failed, "queue=&queue=a&queue=b").expect("an address");
        assert_eq!(twice.fields().collect::<Vec<_>>(), [("queue", "a")]);
        assert_eq!(
            ScreenAddress::read(PageName::Task, "id=&x=1").map(|address| address.relative()),
            Ok("task?x=1".to_owned())
        );
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_it_was_written(value in "\\PC{1,60}") {
            let address = ScreenAddress::of(PageName::Failed).with("error", value);
            prop_assert!(address.relative().is_ascii());
            prop_assert_eq!(ScreenAddress::read_relative(&address.relative()), Some(address));
        }
    }
}
