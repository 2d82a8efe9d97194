//! A part of a long list of tasks: what a screen shows at a time, and from where it goes on.
//!
//! Where a list may be long, as in the embedded store, making a page costs no more the longer the list is. A broker that would
//! have to look at too many tasks for a page ends it early: then the page may have fewer tasks than were asked for, or none, and
//! says from where to go on. Other brokers cut pages out of their whole list, which is in memory anyway.

use super::BrokerError;

/// A part of a list of tasks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskPage<T> {
    /// The tasks, in the order of the list.
    pub tasks: Vec<T>,
    /// From where the list goes on: what to pass as `after` for the next page. `None`: this page is the last one. The text
    /// is the broker's own, and holds for the same filter only.
    pub next: Option<String>,
    /// How many tasks were looked at for this page, whether the filter has chosen them or not. `None`: the broker did not
    /// count them.
    pub looked_at: Option<u64>,
    /// Whether the list begins with the newest task. If not, it begins with the oldest one, or has no certain order.
    pub is_newest_first: bool,
    /// The name of the argument by whose index the tasks were found. Such a list has tasks only that were enqueued since they
    /// declare to be [searched for](crate::task::Message::searched) by it; [`TaskFilter::scanning`](super::TaskFilter::scanning)
    /// finds the others, too. `None`: the tasks were looked through.
    pub by_index: Option<String>,
}

impl<T> TaskPage<T> {
    /// A page without tasks, which is the last one.
    pub fn empty() -> Self {
        Self { tasks: Vec::new(), next: None, looked_at: None, is_newest_first: false, by_index: None }
    }

    /// The page that begins at `offset` of a whole list, whose earlier tasks the caller has skipped.
    pub(crate) fn of_list(rest: impl IntoIterator<Item = T>, offset: usize, limit: usize) -> Self {
        let mut rest = rest.into_iter();
        let tasks: Vec<T> = rest.by_ref().take(limit).collect();
        let goes_on = rest.next().is_some() && limit > 0;
        let next = goes_on.then(|| offset.saturating_add(tasks.len()).to_string());
        Self { tasks, next, ..Self::empty() }
    }
}

/// How many tasks of a list come before the page that begins there.
///
/// # Errors
/// It is no place in such a list.
pub(crate) fn offset(after: Option<&str>) -> Result<usize, BrokerError> {
    match after {
        None => Ok(0),
        Some(after) => after.parse().map_err(|_| unknown_place(after)),
    }
}

/// The error for a place in a list that this broker has not made.
pub(crate) fn unknown_place(after: &str) -> BrokerError {
    let shown: String = after.chars().take(40).collect();
    BrokerError::Invalid(format!("`{shown}` is no place in this list; begin with its first page"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_in_pages_and_none_is_left_out() {
        let list: Vec<u32> = (0..7).collect();
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let offset = offset(after.as_deref()).unwrap();
            let page = TaskPage::of_list(list.iter().copied().skip(offset), offset, 3);
            assert!(page.tasks.len() <= 3);
            seen.extend(page.tasks);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, list);
        assert_eq!(TaskPage::<u32>::of_list([], 0, 3), TaskPage::empty());
        assert_eq!(TaskPage::of_list(0..3, 0, 3).next, None, "it ends with the list");
    }

    #[test]
    fn what_is_no_place_is_an_error_that_says_what_to_do() {
        for text in ["", "x", "-1", "99999999999999999999999", &"9".repeat(1_000)] {
            let error = offset(Some(text)).unwrap_err().to_string();
            assert!(error.contains("begin with its first page") && error.len() < 200, "{error}");
        }
    }
}
