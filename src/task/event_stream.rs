//! A listener's end of the funnel of events: its mailbox, and the stream that takes events out of it.
//!
//! Whoever puts an event into a mailbox wakes the listener only if it waits, and only when there are as many events as it waits
//! for. So a listener that takes many at a time is woken once for all of them.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context as Poller, Poll, Waker, ready};

use futures_util::Stream;
use futures_util::future::poll_fn;
use parking_lot::Mutex;
use tokio::task::coop::poll_proceed;

use super::TaskEvent;
#[cfg(feature = "amqp")]
use super::event_funnel::EventGroup;
use super::event_funnel::{EventGroups, Listeners};

/// How many events wait for a slow listener.
const CAPACITY: usize = 4096;

/// The events that wait for one listener.
pub(super) struct Mailbox {
    /// The bits of the groups that the owner listens to.
    groups: AtomicU8,
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    events: VecDeque<TaskEvent>,
    /// How many events were dropped because there was no room.
    missed: u64,
    /// Nothing comes any more.
    has_ended: bool,
    waiter: Option<StreamWaiter>,
}

/// The listener, who waits until there are enough events.
struct StreamWaiter {
    waker: Waker,
    enough: usize,
}

impl Mailbox {
    pub(super) fn new(groups: EventGroups) -> Self {
        Self { groups: AtomicU8::new(groups.0), content: Mutex::default() }
    }

    /// The groups that the owner listens to.
    pub(super) fn groups(&self) -> EventGroups {
        EventGroups(self.groups.load(Ordering::Relaxed))
    }

    /// The owner listens to these groups from now on. Returns those before.
    #[cfg(feature = "amqp")]
    pub(super) fn regroup(&self, groups: EventGroups) -> EventGroups {
        EventGroups(self.groups.swap(groups.0, Ordering::Relaxed))
    }

    /// Puts an event in. If there is no room, the oldest one goes. Returns whom to wake: the listener, if it waits for no more
    /// than that.
    pub(super) fn put(&self, event: TaskEvent) -> Option<Waker> {
        let mut content = self.content.lock();
        let oldest = if content.events.len() >= CAPACITY { content.events.pop_front() } else { None };
        content.missed = content.missed.saturating_add(u64::from(oldest.is_some()));
        content.events.push_back(event);
        let waiting = content.events.len();
        let waiter = content.waiter.take_if(|waiter| waiting >= waiter.enough);
        drop(content);
        drop(oldest); // here, so that the end of its message holds up nobody
        waiter.map(|waiter| waiter.waker)
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        let mut content = self.content.lock();
        content.has_ended = true;
        let waiter = content.waiter.take();
        drop(content);
        if let Some(waiter) = waiter {
            waiter.waker.wake();
        }
    }

    /// The oldest event; `None` when there is none and none comes any more.
    fn poll_event(&self, cx: &Poller<'_>) -> Poll<Option<TaskEvent>> {
        let mut content = self.content.lock();
        if content.events.is_empty() && !content.has_ended {
            content.wait(cx, 1);
            return Poll::Pending;
        }
        Poll::Ready(content.events.pop_front())
    }
}

impl Content {
    /// Has the listener woken when there are so many events.
    fn wait(&mut self, cx: &Poller<'_>, enough: usize) {
        match &mut self.waiter {
            Some(waiter) if waiter.waker.will_wake(cx.waker()) => waiter.enough = enough,
            waiter => *waiter = Some(StreamWaiter { waker: cx.waker().clone(), enough }),
        }
    }
}

/// A stream of events. It ends when the runtime has shut down. Drop it to stop listening.
///
/// Up to 4096 events wait for a listener that is slow. Of more than that, the oldest are lost to it, and
/// [`missed`](Self::missed) says how many.
pub struct EventStream {
    mailbox: Arc<Mailbox>,
    listeners: Arc<Listeners>,
}

impl EventStream {
    /// A stream of what comes into a mailbox that is among the listeners'.
    pub(super) fn new(mailbox: Arc<Mailbox>, listeners: Arc<Listeners>) -> Self {
        Self { mailbox, listeners }
    }

    /// The next event; `None` when the runtime has shut down.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The number of events that this stream has lost so far because it was too slow.
    pub fn missed(&self) -> u64 {
        self.mailbox.content.lock().missed
    }

    fn poll_event(&mut self, cx: &mut Poller<'_>) -> Poll<Option<TaskEvent>> {
        // A listener to a flood of events lets other work on its thread go on.
        let budget = ready!(poll_proceed(cx));
        let event = ready!(self.mailbox.poll_event(cx));
        budget.made_progress();
        Poll::Ready(event)
    }
}

/// What the publisher of events needs, who takes many at a time.
#[cfg(feature = "amqp")]
impl EventStream {
    /// Listens to these groups from now on, and to no others. What has come before stays, and of a group that stays nothing is lost.
    pub(crate) fn listen_to(&self, groups: &[EventGroup]) {
        self.listeners.regroup(&self.mailbox, EventGroups::of(groups));
    }

    /// Waits until at least so many events are there, or none comes any more. Nothing is lost if the future is dropped.
    pub(crate) async fn filled(&mut self, enough: usize) {
        poll_fn(|cx| {
            let mut content = self.mailbox.content.lock();
            if content.has_ended || content.events.len() >= enough {
                return Poll::Ready(());
            }
            content.wait(cx, enough);
            Poll::Pending
        })
        .await;
    }

    /// Moves all events that are there into `empty`, the oldest first.
    pub(crate) fn take_all(&mut self, empty: &mut VecDeque<TaskEvent>) {
        debug_assert!(empty.is_empty(), "what is in it would come once more");
        std::mem::swap(&mut self.mailbox.content.lock().events, empty);
    }

    /// Whether none comes any more, beside those that are there.
    pub(crate) fn has_ended(&self) -> bool {
        self.mailbox.content.lock().has_ended
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.listeners.leave(&self.mailbox);
    }
}

impl Stream for EventStream {
    type Item = TaskEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Option<TaskEvent>> {
        self.poll_event(cx)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("missed", &self.missed()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use futures_util::FutureExt;

    use super::*;
    use crate::task::{Context, EventFunnel, EventGroup, EventKind};

    fn emit(funnel: &EventFunnel, count: usize) {
        for _ in 0..count {
            funnel.emit(EventGroup::Run, || {
                Some(TaskEvent::now(Arc::clone(Context::detached().message_arc()), EventKind::Cancelled))
            });
        }
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Bell {
        fn rung(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_slow_listener_loses_the_oldest_and_learns_how_many() {
        let funnel = EventFunnel::default();
        let (mut slow, mut quick) = (funnel.listen(&[EventGroup::Run]), funnel.listen(&[EventGroup::Run]));
        let other = funnel.listen(&[EventGroup::Custom]);
        for _ in 0..CAPACITY + 7 {
            emit(&funnel, 1);
            assert!(quick.next().now_or_never().flatten().is_some());
        }
        assert_eq!((slow.missed(), quick.missed(), other.missed()), (7, 0, 0));
        let mut told = 0;
        while slow.next().now_or_never().flatten().is_some() {
            told += 1;
        }
        assert_eq!((told, slow.missed()), (CAPACITY, 7));
    }

    #[test]
    fn a_listener_that_waits_is_woken_once_and_one_that_does_not_is_not() {
        let funnel = EventFunnel::default();
        let mut stream = funnel.listen(&[EventGroup::Run]);
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Poller::from_waker(&waker);
        assert!(stream.poll_event(&mut cx).is_pending());
        emit(&funnel, 3);
        assert_eq!(bell.rung(), 1);
        assert!(stream.poll_event(&mut cx).is_ready());
        emit(&funnel, 3);
        assert_eq!(bell.rung(), 1, "it reads");
        while stream.poll_event(&mut cx).is_ready() {}
        funnel.close();
        assert_eq!(bell.rung(), 2, "the end is told");
        assert_eq!(stream.poll_event(&mut cx).map(|event| event.is_none()), Poll::Ready(true));
    }

    #[cfg(feature = "amqp")]
    #[test]
    fn a_listener_keeps_what_has_come_when_it_listens_to_other_groups() {
        let funnel = EventFunnel::default();
        let mut stream = funnel.listen(&[EventGroup::Run, EventGroup::Custom]);
        let heard = || EventGroup::ALL.map(|group| funnel.is_heard(group));
        assert_eq!(heard(), [false, true, true]);
        emit(&funnel, 2);
        stream.listen_to(&[EventGroup::Custom, EventGroup::Sent]);
        assert_eq!(heard(), [true, false, true]);
        emit(&funnel, 3);
        stream.listen_to(&EventGroup::ALL);
        emit(&funnel, 4);
        let mut taken = VecDeque::new();
        stream.take_all(&mut taken);
        assert_eq!((taken.len(), stream.missed()), (6, 0));
        drop(stream);
        assert_eq!(heard(), [false; 3]);
    }

    #[cfg(feature = "amqp")]
    #[test]
    fn who_takes_many_is_woken_when_there_are_enough() {
        let funnel = EventFunnel::default();
        let mut stream = funnel.listen(&[EventGroup::Run]);
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Poller::from_waker(&waker);
        {
            let mut filled = std::pin::pin!(stream.filled(10));
            assert!(filled.as_mut().poll(&mut cx).is_pending());
            emit(&funnel, 9);
            assert!((bell.rung(), filled.as_mut().poll(&mut cx).is_pending()) == (0, true));
            emit(&funnel, 5);
            assert!((bell.rung(), filled.as_mut().poll(&mut cx).is_ready()) == (1, true));
        }
        let mut taken = VecDeque::new();
        stream.take_all(&mut taken);
        assert_eq!((taken.len(), stream.has_ended()), (14, false));
        taken.clear();
        assert!(stream.filled(1).now_or_never().is_none());
        emit(&funnel, CAPACITY + 2);
        funnel.close();
        assert!(stream.filled(usize::MAX).now_or_never().is_some(), "none comes any more");
        stream.take_all(&mut taken);
        assert_eq!((taken.len(), stream.missed(), stream.has_ended()), (CAPACITY, 2, true));
    }
}
