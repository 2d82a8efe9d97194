//! Which deliveries of one channel are acknowledged, and in how few frames.
//!
//! Acknowledging one by one costs most of what RabbitMQ can deliver. So what has been settled is acknowledged in runs: up to
//! the oldest delivery that is still out by one cumulative frame, what lies beyond it singly. A delivery that is still out
//! is never covered.

use std::collections::BTreeSet;

/// The deliveries of one channel by their delivery tags.
#[derive(Debug, Default)]
pub(super) struct AckWindow {
    out: BTreeSet<u64>,
    settled: BTreeSet<u64>,
}

/// What is to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acks {
    /// All up to this one.
    pub(super) cumulative: Option<u64>,
    /// Just these.
    pub(super) single: Vec<u64>,
}

impl AckWindow {
    /// A delivery has come.
    pub(super) fn deliver(&mut self, tag: u64) {
        self.out.insert(tag);
    }

    /// It may be acknowledged.
    pub(super) fn settle(&mut self, tag: u64) {
        if self.out.remove(&tag) {
            self.settled.insert(tag);
        }
    }

    /// It was returned, or is not ours any more.
    pub(super) fn forget(&mut self, tag: u64) {
        self.out.remove(&tag);
    }

    /// What is to be acknowledged now.
    pub(super) fn flush(&mut self) -> Acks {
        let beyond = match self.out.first() {
            Some(oldest) => self.settled.split_off(oldest),
            None => BTreeSet::new(),
        };
        let run = std::mem::take(&mut self.settled);
        Acks { cumulative: run.last().copied(), single: beyond.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_takes_one_frame_and_what_is_out_is_spared() {
        let mut window = AckWindow::default();
        (1..=10).for_each(|tag| window.deliver(tag));
        [3, 1, 2, 6, 9].into_iter().for_each(|tag| window.settle(tag));
        assert_eq!(window.flush(), Acks { cumulative: Some(3), single: vec![6, 9] });
        assert_eq!(window.flush(), Acks::default());
        window.settle(2); // once is enough
        window.forget(4);
        [5, 7, 8, 10].into_iter().for_each(|tag| window.settle(tag));
        assert_eq!(window.flush(), Acks { cumulative: Some(10), single: vec![] });
    }

    proptest! {
        #[test]
        fn each_settled_one_is_acknowledged_once_and_no_other(order in Just((1..40_u64).collect::<Vec<_>>()).prop_shuffle(),
                                                              flushes in prop::collection::vec(any::<bool>(), 39),
                                                              settled in 0..39_usize) {
            let mut window = AckWindow::default();
            (1..40).for_each(|tag| window.deliver(tag));
            let mut unacknowledged: BTreeSet<u64> = (1..40).collect();
            for (tag, flush) in order[..settled].iter().zip(flushes.into_iter().chain([true])) {
                window.settle(*tag);
                if flush {
                    let Acks { cumulative, single } = window.flush();
                    for tag in single.into_iter().chain(unacknowledged.iter().copied().filter(|t| Some(*t) <= cumulative).collect::<Vec<_>>()) {
                        prop_assert!(unacknowledged.remove(&tag));
                        prop_assert!(order[..settled].contains(&tag));
                    }
                }
            }
            let Acks { cumulative, single } = window.flush();
            unacknowledged.retain(|tag| Some(*tag) > cumulative && !single.contains(tag));
            prop_assert_eq!(unacknowledged, order[settled..].iter().copied().collect::<BTreeSet<_>>());
        }
    }
}
