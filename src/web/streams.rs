//! Counts the open event streams. Each holds a connection, and so one of the process's descriptors. A program may have
//! several pages, which share the descriptors: the default limit holds for the streams of all pages together. A limit
//! that the program states holds for the pages for which it is stated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// The most streams of a link by default. A link is seldom open in more tabs, and a page without a stream polls
/// instead.
const A_LINK: usize = 16;
/// The most streams by default, however many descriptors there are.
const MOST: usize = 10_000;

/// The number of open streams of all pages in this process.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The open streams of these pages in this process.
#[derive(Clone)]
pub(super) struct Streams {
    a_link: usize,
    in_all: usize,
    /// Whether `in_all` is the limit of all pages together.
    together: bool,
    open: Arc<Mutex<StreamCounts>>,
    process: &'static AtomicUsize,
}

#[derive(Default)]
struct StreamCounts {
    all: usize,
    by_link: HashMap<String, usize>,
}

/// An open stream, which counts until this value is dropped.
pub(super) struct OpenStream {
    open: Arc<Mutex<StreamCounts>>,
    process: &'static AtomicUsize,
    link: String,
}

impl Streams {
    pub(super) fn new(a_link: usize, in_all: usize) -> Self {
        Self { a_link, in_all, together: false, open: Arc::default(), process: &OPEN }
    }

    /// Counts one more stream for this link; `None` if there are too many already.
    pub(super) fn open(&self, link: &str) -> Option<OpenStream> {
        let mut open = lock(&self.open);
        let of_link = open.by_link.get(link).copied().unwrap_or(0);
        if open.all >= self.in_all || of_link >= self.a_link {
            return None;
        }
        // Other pages count there at the same time.
        let one_more = |all: usize| (!self.together || all < self.in_all).then_some(all + 1);
        self.process.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        open.all += 1;
        open.by_link.insert(link.to_owned(), of_link + 1);
        Some(OpenStream { open: Arc::clone(&self.open), process: self.process, link: link.to_owned() })
    }
}

impl Default for Streams {
    /// The default limits. They leave half of the descriptors of the process for everything else, however many pages
    /// there are.
    fn default() -> Self {
        let in_all = descriptors().map_or(MOST, |all| all / 2).clamp(1, MOST);
        Self { together: true, ..Self::new(A_LINK, in_all) }
    }
}

fn lock(open: &Mutex<StreamCounts>) -> MutexGuard<'_, StreamCounts> {
    open.lock()
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.all = open.all.saturating_sub(1);
        self.process.fetch_sub(1, Ordering::AcqRel);
        let left = open.by_link.get(&self.link).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            open.by_link.remove(&self.link);
        } else {
            open.by_link.insert(self.link.clone(), left);
        }
    }
}

/// How many descriptors this process may have; `None` if that is unknown.
#[cfg(unix)]
fn descriptors() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    usize::try_from(limit).ok()
}

#[cfg(not(unix))]
fn descriptors() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_counted_a_link_and_in_all() {
        let streams = Streams::new(2, 3);
        let first = streams.open("a").expect("room");
        let second = streams.clone().open("a").expect("room");
        assert!(streams.open("a").is_none(), "two of this link");
        let third = streams.open("b").expect("room");
        assert!(streams.open("c").is_none(), "three in all");
        drop(first);
        assert!(streams.open("c").is_some());
        drop((second, third));
        assert!(lock(&streams.open).by_link.is_empty() && lock(&streams.open).all == 0);
        let own = Streams::default();
        assert!(own.in_all >= 1 && descriptors().is_none_or(|all| own.in_all <= all.div_ceil(2)));
    }

    #[test]
    fn the_default_limit_holds_for_all_pages_together() {
        static PROCESS: AtomicUsize = AtomicUsize::new(0);
        let pages = || Streams { in_all: 3, process: &PROCESS, ..Streams::default() };
        let (one, other) = (pages(), pages());
        let held = [one.open("a"), one.open("b"), other.open("a")];
        assert!(held.iter().all(Option::is_some));
        assert!(one.open("c").is_none() && other.open("c").is_none(), "three in all");
        // Pages with a limit of their own have what they state, and count with the others.
        let own = Streams { process: &PROCESS, ..Streams::new(1, 1) };
        let stated = own.open("a").expect("room");
        assert!(own.open("b").is_none());
        drop(held);
        assert!(one.open("c").is_some());
        let held = [other.open("c"), other.open("d")];
        assert!(held.iter().all(Option::is_some) && one.open("c").is_none(), "two and one");
        drop((held, stated));
        assert_eq!(PROCESS.load(Ordering::Acquire), 0);
    }
}
