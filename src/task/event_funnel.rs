//! The funnel that all events of a runtime go through, to whoever listens.
//!
//! While nobody listens to a group of events, an event of it costs one load of an atomic and is not even built. A
//! listener that is slow holds up nobody: it loses the oldest events, and learns how many.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as Poller, Poll, ready};

use futures_util::Stream;
use futures_util::future::poll_fn;
use parking_lot::RwLock;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::ReusableBoxFuture;

use super::TaskEvent;
use super::sender_counts::SenderCounts;

/// How many events wait for a slow listener.
const CAPACITY: usize = 4096;

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
    /// All groups.
    pub const ALL: [Self; 3] = [Self::Sent, Self::Run, Self::Custom];

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The funnel of a runtime's events.
#[derive(Default)]
pub struct EventFunnel {
    listeners: Arc<Listeners>,
    outlet: RwLock<Outlet>,
    counts: SenderCounts,
}

/// The number of listeners of each group.
#[derive(Default)]
struct Listeners([AtomicUsize; 3]);

/// The ring is made for the first listener, as most programs have none.
#[derive(Default)]
enum Outlet {
    #[default]
    Unused,
    Open(broadcast::Sender<TaskEvent>),
    Closed,
}

impl EventFunnel {
    /// Whether anybody listens to this group.
    pub fn is_heard(&self, group: EventGroup) -> bool {
        self.listeners.0[group as usize].load(Ordering::Relaxed) > 0
    }

    /// Builds an event of this group and tells it, if anybody listens. `build` may find that there is nothing to tell.
    pub fn emit(&self, group: EventGroup, build: impl FnOnce() -> Option<TaskEvent>) {
        if self.is_heard(group)
            && let Some(event) = build()
            && let Outlet::Open(sender) = &*self.outlet.read()
        {
            let _ = sender.send(event); // the last listener may just have gone
        }
    }

    /// Listens to these groups from now on.
    pub fn listen(&self, groups: &[EventGroup]) -> EventStream {
        let mut outlet = self.outlet.write();
        if matches!(*outlet, Outlet::Unused) {
            *outlet = Outlet::Open(broadcast::Sender::new(CAPACITY));
        }
        let receiver = match &*outlet {
            Outlet::Open(sender) => sender.subscribe(),
            _ => broadcast::Sender::new(1).subscribe(), // ends at once
        };
        drop(outlet);
        let groups = groups.iter().fold(0, |bits, group| bits | group.bit());
        let ear = Ear { groups, listeners: Arc::clone(&self.listeners) };
        ear.each(|count| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        EventStream { incoming: ReusableBoxFuture::new(receive(receiver)), missed: 0, ended: false, ear }
    }

    /// What is counted of the events that happen outside of a queue, whether anybody listens or not.
    pub(crate) fn counts(&self) -> &SenderCounts {
        &self.counts
    }

    /// Ends all streams once they have told what was emitted before.
    pub(crate) fn close(&self) {
        *self.outlet.write() = Outlet::Closed;
    }
}

impl fmt::Debug for EventFunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventFunnel").finish_non_exhaustive()
    }
}

/// Counts as a listener until it is dropped.
struct Ear {
    groups: u8,
    listeners: Arc<Listeners>,
}

impl Ear {
    fn each(&self, change: impl Fn(&AtomicUsize)) {
        let heard = EventGroup::ALL.iter().filter(|group| self.groups & group.bit() != 0);
        heard.for_each(|group| change(&self.listeners.0[*group as usize]));
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.each(|count| {
            count.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

type Receiver = broadcast::Receiver<TaskEvent>;
type Received = (Result<TaskEvent, RecvError>, Receiver);

async fn receive(mut receiver: Receiver) -> Received {
    let received = receiver.recv().await;
    (received, receiver)
}

/// A stream of events. It ends when the runtime has shut down. Drop it to stop listening.
///
/// Up to 4096 events wait for a listener that is slow. Of more than that, the oldest are lost to it, and
/// [`missed`](Self::missed) says how many.
pub struct EventStream {
    incoming: ReusableBoxFuture<'static, Received>,
    missed: u64,
    ended: bool,
    ear: Ear,
}

impl EventStream {
    /// The next event; `None` when the runtime has shut down.
    pub async fn next(&mut self) -> Option<TaskEvent> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The number of events that this stream has lost so far because it was too slow.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    fn poll_event(&mut self, cx: &mut Poller<'_>) -> Poll<Option<TaskEvent>> {
        while !self.ended {
            let (received, receiver) = ready!(self.incoming.poll(cx));
            self.incoming.set(receive(receiver));
            match received {
                Ok(event) if self.ear.groups & event.kind.group().bit() != 0 => {
                    return Poll::Ready(Some(event));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => self.missed = self.missed.saturating_add(lost),
                Err(RecvError::Closed) => self.ended = true,
            }
        }
        Poll::Ready(None)
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
        f.debug_struct("EventStream").field("missed", &self.missed).finish_non_exhaustive()
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
    fn a_slow_listener_loses_the_oldest_and_learns_how_many() {
        let funnel = EventFunnel::default();
        let mut slow = funnel.listen(&[EventGroup::Run]);
        for _ in 0..CAPACITY + 7 {
            funnel.emit(EventGroup::Run, || Some(event(EventKind::Cancelled)));
        }
        let mut told = 0;
        while next(&mut slow).is_some() {
            told += 1;
        }
        assert_eq!((told, slow.missed()), (CAPACITY, 7));
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
}
