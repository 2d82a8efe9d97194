//! The funnel that all events of a runtime go through, to whoever listens.
//!
//! While nobody listens to a group of events, an event of it costs one load of an atomic and is not even built. Each listener has
//! a mailbox of its own, so an event costs nothing to those who do not listen to its group. A listener that is slow holds up
//! nobody: it loses the oldest events, and learns how many.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::RwLock;

use super::TaskEvent;
use super::event_stream::{EventStream, Mailbox};
use super::sender_counts::SenderCounts;

/// The groups of events, which are listened to apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventGroup {
    /// Calls that this program sends.
    Sent,
    /// What happens to tasks in this program's queues.
    Run,
    /// What bodies send themselves.
    Custom,
}

impl EventGroup {
    /// All groups that there are.
    pub const ALL: [Self; 3] = [Self::Sent, Self::Run, Self::Custom];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of groups.
#[derive(Clone, Copy)]
pub(super) struct EventGroups(pub(super) u8);

impl EventGroups {
    pub(super) fn of(groups: &[EventGroup]) -> Self {
        Self(groups.iter().fold(0, |bits, group| bits | group.bit()))
    }

    fn has(self, group: EventGroup) -> bool {
        self.0 & group.bit() != 0
    }
}

/// The funnel of a runtime's events.
#[derive(Default)]
pub struct EventFunnel {
    listeners: Arc<Listeners>,
    counts: SenderCounts,
}

/// Who listens to a funnel. Streams share it, and leave it when they are dropped.
#[derive(Default)]
pub(super) struct Listeners {
    /// The number of listeners of each group.
    counts: [AtomicUsize; 3],
    mailboxes: RwLock<Mailboxes>,
}

#[derive(Default)]
struct Mailboxes {
    open: Vec<Arc<Mailbox>>,
    is_closed: bool,
}

impl EventFunnel {
    /// Whether anybody listens to this group.
    pub fn is_heard(&self, group: EventGroup) -> bool {
        self.listeners.counts[group as usize].load(Ordering::Relaxed) > 0
    }

    /// Builds an event of this group and tells it, if anybody listens. `build` may find that there is nothing to tell.
    pub fn emit(&self, group: EventGroup, build: impl FnOnce() -> Option<TaskEvent>) {
        if self.is_heard(group)
            && let Some(event) = build()
        {
            self.listeners.tell(group, event);
        }
    }

    /// Listens to these groups from now on.
    pub fn listen(&self, groups: &[EventGroup]) -> EventStream {
        let mailbox = Arc::new(Mailbox::new(EventGroups::of(groups)));
        self.listeners.join(&mailbox);
        EventStream::new(mailbox, Arc::clone(&self.listeners))
    }

    /// What is counted of the events that happen outside of a queue, whether anybody listens or not.
    pub(crate) fn counts(&self) -> &SenderCounts {
        &self.counts
    }

    /// Ends all streams once they have told what was emitted before.
    pub(crate) fn close(&self) {
        self.listeners.close();
    }
}

impl Drop for EventFunnel {
    /// Nothing comes any more, so that the streams end.
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for EventFunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventFunnel").finish_non_exhaustive()
    }
}

impl Listeners {
    /// Tells an event to those who listen to its group.
    fn tell(&self, group: EventGroup, event: TaskEvent) {
        let mut woken = Vec::new();
        let mailboxes = self.mailboxes.read();
        let mut listeners = mailboxes.open.iter().filter(|mailbox| mailbox.groups().has(group)).peekable();
        while let Some(mailbox) = listeners.next() {
            if listeners.peek().is_none() {
                woken.extend(mailbox.put(event)); // most events have one listener, and none is cloned for the last one
                break;
            }
            woken.extend(mailbox.put(event.clone()));
        }
        drop(mailboxes);
        // Whoever is woken may leave at once.
        woken.into_iter().for_each(Waker::wake);
    }

    fn join(&self, mailbox: &Arc<Mailbox>) {
        let mut mailboxes = self.mailboxes.write();
        if mailboxes.is_closed {
            mailbox.end();
        } else {
            mailboxes.open.push(Arc::clone(mailbox));
        }
        drop(mailboxes);
        self.count(mailbox.groups(), |count| {
            count.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// Takes the mailbox of a listener out who does not listen any more.
    pub(super) fn leave(&self, mailbox: &Arc<Mailbox>) {
        self.count(mailbox.groups(), |count| {
            count.fetch_sub(1, Ordering::Relaxed);
        });
        self.mailboxes.write().open.retain(|other| !Arc::ptr_eq(other, mailbox));
    }

    /// A listener listens to these groups from now on, and to no others.
    #[cfg(feature = "amqp")]
    pub(super) fn regroup(&self, mailbox: &Mailbox, groups: EventGroups) {
        // Whoever tells an event holds the lock, so each event is told by the groups of before or by these.
        let telling = self.mailboxes.write();
        let before = mailbox.regroup(groups);
        drop(telling);
        // In this order, so that a group that stays is heard all the time.
        self.count(groups, |count| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        self.count(before, |count| {
            count.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn count(&self, groups: EventGroups, change: impl Fn(&AtomicUsize)) {
        let heard = EventGroup::ALL.iter().filter(|group| groups.has(**group));
        heard.for_each(|group| change(&self.counts[*group as usize]));
    }

    fn close(&self) {
        let mut mailboxes = self.mailboxes.write();
        mailboxes.is_closed = true;
        let open = std::mem::take(&mut mailboxes.open);
        drop(mailboxes);
        open.iter().for_each(|mailbox| mailbox.end());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::task::{Context, EventKind};

    fn event(kind: EventKind) -> TaskEvent {
        TaskEvent::now(Arc::clone(Context::detached().message_arc()), kind)
    }

    fn next(stream: &mut EventStream) -> Option<EventKind> {
        stream.next().now_or_never().flatten().map(|event| event.kind)
    }

    #[test]
    fn nothing_is_built_while_nobody_listens_to_its_group() {
        let funnel = EventFunnel::default();
        funnel.emit(EventGroup::Run, || panic!("nobody listens"));
        let mut custom = funnel.listen(&[EventGroup::Custom]);
        funnel.emit(EventGroup::Run, || panic!("nobody listens to this"));
        let mut all = funnel.listen(&EventGroup::ALL);
        funnel.emit(EventGroup::Run, || Some(event(EventKind::Received)));
        funnel.emit(EventGroup::Run, || None);
        let named = EventKind::Custom { name: "task-x".into(), fields: Arc::default() };
        funnel.emit(EventGroup::Custom, || Some(event(named.clone())));
        assert_eq!(next(&mut custom), Some(named.clone()), "of its group");
        assert_eq!((next(&mut all), next(&mut all)), (Some(EventKind::Received), Some(named)));
        assert_eq!(next(&mut all), None);
        drop((all, custom));
        funnel.emit(EventGroup::Custom, || panic!("nobody listens any more"));
    }

    #[test]
    fn a_closed_funnel_ends_its_streams_after_what_it_has_told() {
        let funnel = EventFunnel::default();
        let before = funnel.listen(&EventGroup::ALL);
        funnel.emit(EventGroup::Run, || Some(event(EventKind::Received)));
        funnel.close();
        funnel.emit(EventGroup::Run, || Some(event(EventKind::Cancelled)));
        let told: Vec<_> = before.collect::<Vec<_>>().now_or_never().expect("it has ended");
        assert_eq!(told.len(), 1);
        let mut after = funnel.listen(&EventGroup::ALL);
        assert!(after.next().now_or_never().is_some_and(|event| event.is_none()));
    }

    #[test]
    fn a_stream_ends_with_its_funnel() {
        let mut stream = EventFunnel::default().listen(&EventGroup::ALL);
        assert!(stream.next().now_or_never().is_some_and(|event| event.is_none()));
    }
}
