//! Counts the open event streams. Each holds a connection, and so one of the process's descriptors.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

/// The most streams of a link by default. A link is seldom open in more tabs, and a page without a stream polls
/// instead.
const A_LINK: usize = 16;
/// The most streams by default, however many descriptors there are.
const MOST: usize = 10_000;

/// The open streams of these pages in this process.
#[derive(Clone)]
pub(super) struct Streams {
    a_link: usize,
    in_all: usize,
    open: Arc<Mutex<StreamCounts>>,
}

#[derive(Default)]
struct StreamCounts {
    all: usize,
    by_link: HashMap<String, usize>,
}

/// An open stream, which counts until this value is dropped.
pub(super) struct OpenStream {
    open: Arc<Mutex<StreamCounts>>,
    link: String,
}

impl Streams {
    pub(super) fn new(a_link: usize, in_all: usize) -> Self {
        Self { a_link, in_all, open: Arc::default() }
    }

    /// Counts one more stream for this link; `None` if there are too many already.
    pub(super) fn open(&self, link: &str) -> Option<OpenStream> {
        let mut open = lock(&self.open);
        let of_link = open.by_link.get(link).copied().unwrap_or(0);
        if open.all >= self.in_all || of_link >= self.a_link {
            return None;
        }
        open.all += 1;
        open.by_link.insert(link.to_owned(), of_link + 1);
        Some(OpenStream { open: Arc::clone(&self.open), link: link.to_owned() })
    }
}

impl Default for Streams {
    /// The default limits. They leave half of the descriptors of the process for everything else.
    fn default() -> Self {
        Self::new(A_LINK, descriptors().map_or(MOST, |all| all / 2).clamp(1, MOST))
    }
}

fn lock(open: &Mutex<StreamCounts>) -> MutexGuard<'_, StreamCounts> {
    open.lock()
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.all = open.all.saturating_sub(1);
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
}
