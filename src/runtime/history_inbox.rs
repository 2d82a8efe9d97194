//! What the history of this process has not taken yet: the minutes that queues have handed in, and the marks of operators and
//! programs. The historian (an actor) takes both once a minute.
//!
//! Invariant: it is bounded. Queues hand in only when they are asked, and of too many marks the last ones stay.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::core::history::{Mark, MinuteRows};

/// How many marks wait to be taken.
const MOST_MARKS: usize = 1_000;

/// The inbox of the history.
#[derive(Default)]
pub(crate) struct HistoryInbox(Mutex<HistoryNews>);

/// What is new for the history.
#[derive(Default)]
pub(crate) struct HistoryNews {
    /// By queue.
    pub(crate) minutes: Vec<(String, Vec<MinuteRows>)>,
    pub(crate) marks: VecDeque<Mark>,
}

impl HistoryInbox {
    /// Takes in the minutes of a queue.
    pub(crate) fn hand_in(&self, queue: &str, minutes: Vec<MinuteRows>) {
        if !minutes.is_empty() {
            self.0.lock().minutes.push((queue.to_owned(), minutes));
        }
    }

    /// Takes in a mark.
    pub(crate) fn mark(&self, mark: Mark) {
        let marks = &mut self.0.lock().marks;
        if marks.len() >= MOST_MARKS {
            marks.pop_front();
        }
        marks.push_back(mark);
    }

    /// Takes everything out.
    pub(crate) fn take(&self) -> HistoryNews {
        std::mem::take(&mut self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;

    #[test]
    fn of_too_many_marks_the_last_ones_stay() {
        let inbox = HistoryInbox::default();
        for n in 0..2 * MOST_MARKS as u64 {
            inbox.mark(Mark::new(Timestamp::from_millis(n), "pause"));
        }
        inbox.hand_in("q", Vec::new());
        inbox.hand_in("q", vec![MinuteRows::default()]);
        let news = inbox.take();
        assert_eq!((news.marks.len(), news.minutes.len()), (MOST_MARKS, 1));
        assert_eq!(news.marks[0].at, Timestamp::from_millis(MOST_MARKS as u64));
        assert!(inbox.take().minutes.is_empty(), "each is taken once");
    }
}
