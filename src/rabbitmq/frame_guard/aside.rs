//! The properties that could not be handed to the client library as they came.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// The properties of messages that the guard has changed on their way in, by channel and delivery tag. Each
/// connection has one.
///
/// Only properties of [watched](Self::watch) channels are kept, because nobody would take those of other channels.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    channels: Mutex<HashMap<u16, Channel>>,
    /// The number of properties that are kept, so that the common case, none, takes no lock.
    count: AtomicUsize,
    watches: AtomicUsize,
}

/// The properties that are kept for one channel.
#[derive(Debug)]
struct Channel {
    /// The number of the watch on it: RabbitMQ and lapin use a channel's number again when the channel is closed.
    watch: usize,
    unread: HashMap<u64, Unread>,
}

/// The properties of one message, as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    /// The bytes of AMQP 0-9-1, from the property flags on.
    pub(crate) properties: Vec<u8>,
    /// What is wrong with the properties.
    pub(crate) why: String,
}

/// Takes the properties that are kept for one channel, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnreadWatch {
    aside: Arc<Aside>,
    channel: u16,
    watch: usize,
}

impl Aside {
    fn channels(&self) -> MutexGuard<'_, HashMap<u16, Channel>> {
        self.channels.lock()
    }

    /// Keeps the properties that come through this channel from now on. The caller calls this before it asks for
    /// anything there.
    pub(crate) fn watch(self: &Arc<Self>, channel: u16) -> UnreadWatch {
        let watch = self.watches.fetch_add(1, Ordering::Relaxed);
        let before = self.channels().insert(channel, Channel { watch, unread: HashMap::new() });
        self.count.fetch_sub(before.map_or(0, |before| before.unread.len()), Ordering::AcqRel);
        UnreadWatch { aside: Arc::clone(self), channel, watch }
    }

    pub(super) fn put(&self, channel: u16, delivery_tag: u64, unread: Unread) {
        if let Some(channel) = self.channels().get_mut(&channel)
            && channel.unread.insert(delivery_tag, unread).is_none()
        {
            self.count.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl UnreadWatch {
    /// Takes the properties of this delivery as they came, if the guard has changed them.
    pub(crate) fn take(&self, delivery_tag: u64) -> Option<Unread> {
        if self.aside.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut channels = self.aside.channels();
        let channel = channels.get_mut(&self.channel).filter(|channel| channel.watch == self.watch)?;
        let unread = channel.unread.remove(&delivery_tag)?;
        self.aside.count.fetch_sub(1, Ordering::AcqRel);
        Some(unread)
    }
}

impl Drop for UnreadWatch {
    fn drop(&mut self) {
        let mut channels = self.aside.channels();
        if channels.get(&self.channel).is_some_and(|channel| channel.watch == self.watch)
            && let Some(gone) = channels.remove(&self.channel)
        {
            self.aside.count.fetch_sub(gone.unread.len(), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_would_take_is_not_kept() {
        let aside = Arc::new(Aside::default());
        let unread = Unread { properties: vec![0, 0], why: "of a test".to_owned() };
        aside.put(1, 1, unread.clone());
        let first = aside.watch(1);
        assert_eq!(first.take(1), None, "its channel was not watched");
        aside.put(1, 1, unread.clone());
        aside.put(1, 2, unread.clone());
        assert_eq!(first.take(1), Some(unread.clone()));
        assert_eq!(first.take(1), None);
        // Another channel has this number by now.
        let second = aside.watch(1);
        aside.put(1, 2, unread.clone());
        assert_eq!(first.take(2), None);
        drop(first);
        assert_eq!(second.take(2), Some(unread.clone()));
        aside.put(1, 3, unread);
        drop(second);
        assert_eq!(aside.count.load(Ordering::Acquire), 0);
    }
}
