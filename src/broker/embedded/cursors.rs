//! The queues of the store, and which of them its thread has to look at.
//!
//! A store may have thousands of queues, so a round of its thread looks only at those in which there may be something
//! to do. A look at a queue moves the rows whose time has come, and delivers what there is room for. After that only two
//! things give the queue something to do: a change of its cursor, and time.
//!
//! Invariant: a queue is touched, or nothing can be delivered in it now and the timetable has the times of its
//! [`NextLook`]. So no queue is forgotten:
//! - Whoever changes a cursor touches it, because [`IndexMut`], [`get_mut`](Cursors::get_mut) and
//!   [`iter_mut`](Cursors::iter_mut) are the only ways to change one.
//! - Only [`looked_at`](Cursors::looked_at) takes the mark off, after the look, and it puts the times into the
//!   timetable.
//!
//! The timetable goes by two clocks: rows are due by the wall clock, which may be set, and pauses are measured by an
//! even one.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};
use std::time::Instant;

use super::queue_cursor::{NextLook, QueueCursor};
use crate::core::Timestamp;

/// The cursors of all queues, by their indices.
#[derive(Default)]
pub(super) struct Cursors {
    seats: Vec<CursorSeat>,
    /// The queues that were touched since the last look at them, in no order. One may be there twice.
    touched: Vec<usize>,
    /// The timetable: when scheduled rows may be due, by the wall clock.
    due: BTreeSet<(Timestamp, usize)>,
    /// The timetable: when rows that could not be read are tried again.
    again: BTreeSet<(Instant, usize)>,
    /// The memory for the next list of touched queues.
    spare: Vec<usize>,
}

/// A cursor, and what is known of its next look.
struct CursorSeat {
    cursor: QueueCursor,
    is_touched: bool,
    /// What the timetable has of it.
    noted: NextLook,
}

impl Cursors {
    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// Adds the cursor of one more queue.
    pub(super) fn push(&mut self, cursor: QueueCursor) {
        self.touched.push(self.seats.len());
        self.seats.push(CursorSeat { cursor, is_touched: true, noted: NextLook::default() });
    }

    pub(super) fn get(&self, queue: usize) -> Option<&QueueCursor> {
        self.seats.get(queue).map(|seat| &seat.cursor)
    }

    /// As [`get`](Self::get), of a cursor that can be changed. It counts as changed.
    pub(super) fn get_mut(&mut self, queue: usize) -> Option<&mut QueueCursor> {
        let seat = self.seats.get_mut(queue)?;
        Some(seat.change(queue, &mut self.touched))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &QueueCursor> {
        self.seats.iter().map(|seat| &seat.cursor)
    }

    /// As [`iter`](Self::iter), of cursors that can be changed. They count as changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut QueueCursor> {
        let touched = &mut self.touched;
        self.seats.iter_mut().enumerate().map(move |(queue, seat)| seat.change(queue, touched))
    }

    /// Whether a queue is touched, so that it is time for a look.
    pub(super) fn any_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The time of the wall clock at which scheduled rows may be due next.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// When rows that could not be read are tried again next.
    pub(super) fn next_again(&self) -> Option<Instant> {
        self.again.first().map(|(at, _)| *at)
    }

    /// Touches the queues whose times have come. The clocks are read only if any queue waits for its time.
    pub(super) fn touch_timely(
        &mut self,
        wall: impl FnOnce() -> Timestamp,
        instant: impl FnOnce() -> Instant,
    ) {
        let Self { seats, touched, due, again, .. } = self;
        if !due.is_empty() {
            for (_, queue) in due.range(..=(wall(), usize::MAX)) {
                seats[*queue].touch(*queue, touched);
            }
        }
        if !again.is_empty() {
            for (_, queue) in again.range(..=(instant(), usize::MAX)) {
                seats[*queue].touch(*queue, touched);
            }
        }
    }

    /// The touched queues in order, each once; `None`: there is none. They stay touched until they were [looked
    /// at](Self::looked_at). The list comes back by [`end_looks`](Self::end_looks).
    pub(super) fn begin_looks(&mut self) -> Option<Vec<usize>> {
        if self.touched.is_empty() {
            return None;
        }
        let mut queues = std::mem::replace(&mut self.touched, std::mem::take(&mut self.spare));
        queues.sort_unstable();
        queues.dedup();
        Some(queues)
    }

    /// Notes that a queue was looked at, so that nothing can be delivered in it now.
    pub(super) fn looked_at(&mut self, queue: usize) {
        let Some(seat) = self.seats.get_mut(queue) else { return };
        seat.is_touched = false;
        let next = seat.cursor.next_look();
        if seat.noted == next {
            return;
        }
        let before = std::mem::replace(&mut seat.noted, next);
        if let Some(at) = before.due {
            self.due.remove(&(at, queue));
        }
        if let Some(at) = before.again {
            self.again.remove(&(at, queue));
        }
        self.due.extend(next.due.map(|at| (at, queue)));
        self.again.extend(next.again.map(|at| (at, queue)));
    }

    /// Takes the list of [`begin_looks`](Self::begin_looks) back. What was not looked at is still to be looked at.
    pub(super) fn end_looks(&mut self, mut queues: Vec<usize>) {
        queues.retain(|queue| self.seats.get(*queue).is_some_and(|seat| seat.is_touched));
        self.touched.append(&mut queues);
        self.spare = queues;
    }

    /// The name of a queue that breaks the invariant, if one does. It looks at all queues.
    pub(super) fn forgotten(&self) -> Option<&str> {
        let is_forgotten = |(queue, seat): &(usize, &CursorSeat)| {
            let NextLook { due, again } = seat.cursor.next_look();
            let is_noted = due.is_none_or(|at| self.due.contains(&(at, *queue)))
                && again.is_none_or(|at| self.again.contains(&(at, *queue)));
            !seat.is_touched && (seat.cursor.may_deliver() || !is_noted)
        };
        let mut seats = self.seats.iter().enumerate();
        seats.find(is_forgotten).map(|(_, seat)| seat.cursor.name.as_str())
    }
}

impl CursorSeat {
    /// Adds the queue to those that were touched, unless it is among them.
    fn touch(&mut self, queue: usize, touched: &mut Vec<usize>) {
        if !self.is_touched {
            self.is_touched = true;
            touched.push(queue);
        }
    }

    /// The cursor, which counts as changed.
    fn change(&mut self, queue: usize, touched: &mut Vec<usize>) -> &mut QueueCursor {
        self.touch(queue, touched);
        &mut self.cursor
    }
}

impl Index<usize> for Cursors {
    type Output = QueueCursor;

    fn index(&self, queue: usize) -> &QueueCursor {
        &self.seats[queue].cursor
    }
}

impl IndexMut<usize> for Cursors {
    fn index_mut(&mut self, queue: usize) -> &mut QueueCursor {
        self.seats[queue].change(queue, &mut self.touched)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::queue_cursor::AttachedConsumer;
    use super::super::ready_key::ReadyKey;
    use super::*;
    use crate::task::{Context, Message};

    const QUEUES: usize = 4;
    /// The most rows of one scan.
    const STEP: usize = 3;
    /// How long a queue is left alone that could not be read.
    const LEFT_ALONE: Duration = Duration::from_secs(1);
    /// A time that is longer than any pause of a queue.
    const LONG: Duration = Duration::from_secs(700);

    /// What happens to a store.
    #[derive(Clone, Debug)]
    enum CursorEvent {
        Attach {
            queue: usize,
            prefetch: usize,
        },
        Leave(usize),
        SetPrefetch {
            queue: usize,
            prefetch: usize,
        },
        Come(usize),
        Schedule {
            queue: usize,
            after: u64,
        },
        /// The first row that is delivered is over.
        End(usize),
        /// The first row that is delivered goes back to its queue.
        GoBack(usize),
        /// Nothing of the queue can be read from now on, or it can be again.
        Break {
            queue: usize,
            is_broken: bool,
        },
        /// The ready rows cannot be read now, and are passed over.
        Hide(usize),
        /// The even clock goes on by so many milliseconds.
        Pass(u64),
        /// Somebody puts the wall clock forward.
        SetClock(u64),
    }

    fn event() -> impl Strategy<Value = CursorEvent> {
        let queue = || 0..QUEUES;
        prop_oneof![
            3 => (queue(), 0_usize..4).prop_map(|(queue, prefetch)| CursorEvent::Attach { queue, prefetch }),
            1 => queue().prop_map(CursorEvent::Leave),
            1 => (queue(), 0_usize..4).prop_map(|(queue, prefetch)| CursorEvent::SetPrefetch { queue, prefetch }),
            6 => queue().prop_map(CursorEvent::Come),
            6 => (queue(), 0_u64..3_000).prop_map(|(queue, after)| CursorEvent::Schedule { queue, after }),
            4 => queue().prop_map(CursorEvent::End),
            1 => queue().prop_map(CursorEvent::GoBack),
            2 => (queue(), any::<bool>()).prop_map(|(queue, is_broken)| CursorEvent::Break { queue, is_broken }),
            1 => queue().prop_map(CursorEvent::Hide),
            5 => (0_u64..4_000).prop_map(CursorEvent::Pass),
            1 => (0_u64..4_000).prop_map(CursorEvent::SetClock),
        ]
    }

    /// The rows of a queue as they are on disk.
    #[derive(Default)]
    struct ModelQueue {
        ready: BTreeSet<ReadyKey>,
        /// The ready rows that a scan has passed over.
        hidden: BTreeSet<ReadyKey>,
        scheduled: BTreeSet<(Timestamp, u64)>,
        held: VecDeque<(u64, ReadyKey)>,
        is_broken: bool,
        /// Until when the queue is left alone.
        left_alone: Duration,
    }

    /// Cursors in virtual time, with a thread that looks at them as that of the store does.
    struct World {
        cursors: Cursors,
        queues: Vec<ModelQueue>,
        began: Instant,
        /// The time that has passed since `began`.
        at: Duration,
        /// How far the wall clock was put forward.
        jumps: Duration,
        message: Arc<Message>,
        seq: u64,
    }

    impl World {
        fn new() -> Self {
            let mut cursors = Cursors::default();
            for number in 0..QUEUES as u16 {
                cursors.push(QueueCursor::new(number.to_string(), number));
            }
            let queues = (0..QUEUES).map(|_| ModelQueue::default()).collect();
            let message = Arc::new(Context::detached().message().clone());
            let (began, at, jumps) = (Instant::now(), Duration::ZERO, Duration::ZERO);
            Self { cursors, queues, began, at, jumps, message, seq: 0 }
        }

        fn instant(&self) -> Instant {
            self.began + self.at
        }

        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(1_000_000) + self.at + self.jumps
        }

        fn next_number(&mut self) -> u64 {
            self.seq += 1;
            self.seq
        }

        fn apply(&mut self, event: &CursorEvent) {
            let (wall, instant) = (self.wall(), self.instant());
            match *event {
                CursorEvent::Attach { queue, prefetch } => self.attach(queue, prefetch),
                CursorEvent::Leave(queue) => self.cursors[queue].consumer = None,
                CursorEvent::SetPrefetch { queue, prefetch } => {
                    if let Some(consumer) = &mut self.cursors[queue].consumer {
                        consumer.prefetch = prefetch;
                    }
                }
                CursorEvent::Come(queue) => {
                    let seq = self.next_number();
                    self.come(queue, seq);
                }
                CursorEvent::Schedule { queue, after } => {
                    let due = wall + Duration::from_millis(after);
                    let seq = self.next_number();
                    self.queues[queue].scheduled.insert((due, seq));
                    self.cursors[queue].scheduled_for(due);
                }
                CursorEvent::End(queue) => {
                    if let Some((tag, _)) = self.queues[queue].held.pop_front() {
                        assert!(self.cursors[queue].release(tag).is_some(), "it is held");
                    }
                }
                CursorEvent::GoBack(queue) => {
                    if let Some((tag, key)) = self.queues[queue].held.pop_front() {
                        assert!(self.cursors[queue].release(tag).is_some(), "it is held");
                        self.come(queue, key.seq());
                    }
                }
                CursorEvent::Break { queue, is_broken } => self.queues[queue].is_broken = is_broken,
                CursorEvent::Hide(queue) => {
                    let of = &mut self.queues[queue];
                    of.hidden.append(&mut of.ready);
                    self.cursors[queue].passed_over(instant);
                }
                CursorEvent::Pass(millis) => self.pass(Duration::from_millis(millis)),
                CursorEvent::SetClock(millis) => self.jumps += Duration::from_millis(millis),
            }
            self.round();
        }

        fn attach(&mut self, queue: usize, prefetch: usize) {
            let consumer = AttachedConsumer { epoch: 0, prefetch, sink: Arc::new(|_| {}) };
            self.cursors[queue].consumer = Some(consumer);
            self.cursors[queue].look_again();
        }

        fn come(&mut self, queue: usize, seq: u64) {
            let key = ReadyKey::new(queue as u16, None, 0, seq);
            self.queues[queue].ready.insert(key);
            self.cursors[queue].waits(&key);
        }

        /// Time passes, and the thread wakes when it is to wake.
        fn pass(&mut self, time: Duration) {
            let until = self.at + time;
            let mut rounds = 0;
            while let Some(at) = self.wake_at().filter(|at| *at <= until) {
                self.at = self.at.max(at);
                self.round();
                rounds += 1;
                assert!(rounds < 10_000, "the thread does not come to rest");
            }
            self.at = until;
        }

        fn wake_at(&self) -> Option<Duration> {
            if self.cursors.any_touched() {
                return Some(self.at);
            }
            let due = self.cursors.next_due().map(|due| self.at + due.since(self.wall()));
            let again = self.cursors.next_again().map(|at| at.saturating_duration_since(self.began));
            due.into_iter().chain(again).min()
        }

        fn round(&mut self) {
            let (wall, instant) = (self.wall(), self.instant());
            self.cursors.touch_timely(|| wall, || instant);
            while let Some(queues) = self.cursors.begin_looks() {
                queues.iter().for_each(|queue| self.promote(*queue));
                for queue in &queues {
                    self.deliver(*queue);
                    self.cursors.looked_at(*queue);
                }
                self.cursors.end_looks(queues);
            }
        }

        fn promote(&mut self, queue: usize) {
            let (wall, instant) = (self.wall(), self.instant());
            while self.cursors[queue].is_due(|| wall) && self.cursors[queue].may_read(|| instant) {
                if self.queues[queue].is_broken {
                    self.read_failed(queue);
                    continue;
                }
                let first = |of: &ModelQueue| of.scheduled.first().copied();
                while let Some((due, seq)) = first(&self.queues[queue]).filter(|(due, _)| *due <= wall) {
                    self.queues[queue].scheduled.remove(&(due, seq));
                    // As by their lanes, some rows let others in, which are in another queue.
                    self.come((queue + usize::from(seq.is_power_of_two())) % QUEUES, seq);
                }
                let next = self.queues[queue].scheduled.first().map(|(due, _)| *due);
                self.cursors[queue].next_due = next;
            }
        }

        fn deliver(&mut self, queue: usize) {
            let instant = self.instant();
            self.cursors[queue].try_again(|| instant);
            while self.cursors[queue].may_read(|| instant) && self.cursors[queue].wants_scan() {
                if self.queues[queue].is_broken {
                    self.read_failed(queue);
                    continue;
                }
                let count = self.cursors[queue].turns(STEP).len();
                let of = &mut self.queues[queue];
                of.ready.append(&mut of.hidden);
                let rows: Vec<ReadyKey> = of.ready.iter().take(count).copied().collect();
                for key in &rows {
                    let tag = self.next_number();
                    self.queues[queue].ready.remove(key);
                    self.queues[queue].held.push_back((tag, *key));
                    self.cursors[queue].hold(tag, *key, Arc::clone(&self.message));
                }
                let last = rows.last().map(|key| &key[..]);
                self.cursors[queue].scanned(None, last, rows.len() < count);
            }
        }

        fn read_failed(&mut self, queue: usize) {
            let instant = self.instant();
            self.cursors[queue].read_failed(instant);
            self.queues[queue].left_alone = self.at + LEFT_ALONE;
        }

        /// Goes over all queues: none has anything to do that the thread has left or would not wake for.
        fn check(&self) {
            assert_eq!(self.cursors.forgotten(), None);
            assert!(!self.cursors.any_touched());
            let looks = || self.cursors.iter().map(QueueCursor::next_look);
            assert_eq!(self.cursors.next_due(), looks().filter_map(|look| look.due).min());
            assert_eq!(self.cursors.next_again(), looks().filter_map(|look| look.again).min());
            assert_eq!(self.cursors.due.len(), looks().filter_map(|look| look.due).count());
            assert_eq!(self.cursors.again.len(), looks().filter_map(|look| look.again).count());
            for (queue, (of, cursor)) in self.queues.iter().zip(self.cursors.iter()).enumerate() {
                let Some(consumer) = cursor.consumer.as_ref().filter(|_| of.left_alone <= self.at) else {
                    continue;
                };
                let has_room = of.held.len() < consumer.prefetch;
                assert!(!has_room || of.ready.is_empty(), "a row of queue {queue} is not delivered");
                let is_due = of.scheduled.first().is_some_and(|(due, _)| *due <= self.wall());
                assert!(!is_due, "a row of queue {queue} is due and not ready");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_looked_at_is_all_that_a_look_at_all_would_find(
            events in prop::collection::vec(event(), 1..120),
        ) {
            let mut world = World::new();
            world.round();
            for event in &events {
                world.apply(event);
                world.check();
            }
            // When all can be read and there is room, all rows come, and nobody but the thread does anything for it.
            for queue in 0..QUEUES {
                world.queues[queue].is_broken = false;
                world.attach(queue, 1_000);
            }
            world.pass(LONG);
            world.check();
            for (queue, of) in world.queues.iter().enumerate() {
                let left = of.ready.len() + of.hidden.len() + of.scheduled.len();
                assert_eq!(left, 0, "rows of queue {queue}");
            }
        }
    }

    #[test]
    fn a_round_looks_at_what_was_touched_and_no_more() {
        let mut world = World::new();
        world.round();
        assert!(world.cursors.begin_looks().is_none(), "all were looked at");
        assert_eq!(world.cursors[3].name, "3");
        assert!(!world.cursors.any_touched(), "who reads touches nothing");
        world.come(2, 1);
        world.come(0, 2);
        world.come(2, 3);
        let queues = world.cursors.begin_looks().expect("two were touched");
        assert_eq!(queues, [0, 2]);
        // One is not looked at, as when the disk has failed meanwhile, and another one is touched after the look at it.
        world.cursors.looked_at(0);
        world.come(0, 4);
        world.cursors.end_looks(queues);
        assert_eq!(world.cursors.begin_looks(), Some(vec![0, 2]));
    }

    #[test]
    fn a_queue_that_nobody_consumes_wakes_nobody() {
        let mut world = World::new();
        world.apply(&CursorEvent::Schedule { queue: 1, after: 500 });
        assert_eq!(world.wake_at(), None);
        world.attach(1, 1);
        world.round();
        assert_eq!(world.wake_at(), Some(Duration::from_millis(500)));
        world.apply(&CursorEvent::Leave(1));
        assert_eq!(world.wake_at(), None);
    }
}
