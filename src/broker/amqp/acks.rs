//! Decides which deliveries of one channel are acknowledged, and packs them into few frames.
//!
//! Acknowledging one by one takes most of what RabbitMQ can deliver. So settled deliveries are acknowledged in
//! runs: one cumulative frame covers everything before the oldest delivery that is still out, and settled
//! deliveries behind it are acknowledged singly. A cumulative frame never covers a delivery that is still out. Nor
//! does it cover one that is still on its way here: RabbitMQ gives tags without a gap, so a missing tag stands for
//! such a delivery.

use std::collections::VecDeque;

/// The deliveries of one channel by their delivery tags.
#[derive(Debug)]
pub(super) struct AckWindow {
    /// The tag of the first of `places`; every delivery before it is done with.
    first: u64,
    places: VecDeque<AckState>,
    /// The tags that were settled since the last flush.
    settled: Vec<u64>,
}

/// The state of one delivery tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckState {
    /// The delivery is still on its way here.
    Awaited,
    Out,
    Settled,
    /// The delivery was acknowledged, or does not belong to this process any more.
    Done,
}

impl Default for AckWindow {
    fn default() -> Self {
        Self { first: 1, places: VecDeque::new(), settled: Vec::new() }
    }
}

/// The acknowledgements to be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acks {
    /// Every delivery up to this tag, in one frame.
    pub(super) cumulative: Option<u64>,
    /// The deliveries with these tags, one frame each.
    pub(super) single: Vec<u64>,
}

impl AckWindow {
    /// Notes that a delivery has come.
    pub(super) fn deliver(&mut self, tag: u64) {
        let Some(at) = self.at(tag) else { return };
        if at >= self.places.len() {
            self.places.resize(at + 1, AckState::Awaited);
        }
        self.places[at] = AckState::Out;
    }

    /// Notes that a delivery may be acknowledged.
    pub(super) fn settle(&mut self, tag: u64) {
        if self.leave(tag, AckState::Settled) {
            self.settled.push(tag);
        }
    }

    /// Notes that a delivery was returned, or does not belong to this process any more.
    pub(super) fn forget(&mut self, tag: u64) {
        self.leave(tag, AckState::Done);
    }

    /// Takes out the acknowledgements that may be sent now.
    pub(super) fn flush(&mut self) -> Acks {
        let mut acks = Acks::default();
        while let Some(place @ (AckState::Settled | AckState::Done)) = self.places.front() {
            if *place == AckState::Settled {
                acks.cumulative = Some(self.first);
            }
            self.places.pop_front();
            self.first += 1;
        }
        for tag in std::mem::take(&mut self.settled) {
            if let Some(at) = self.at(tag) {
                self.places[at] = AckState::Done;
                acks.single.push(tag);
            }
        }
        acks.single.sort_unstable();
        acks
    }

    fn at(&self, tag: u64) -> Option<usize> {
        usize::try_from(tag.checked_sub(self.first)?).ok()
    }

    fn leave(&mut self, tag: u64, new: AckState) -> bool {
        let place = self.at(tag).and_then(|at| self.places.get_mut(at));
        match place {
            Some(place) if *place == AckState::Out => {
                *place = new;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_takes_one_frame_and_what_is_out_is_spared() {
        let mut window = AckWindow::default();
        (1..=10).for_each(|tag| window.deliver(tag));
        [3, 1, 2, 6, 9].into_iter().for_each(|tag| window.settle(tag));
        assert_eq!(window.flush(), Acks { cumulative: Some(3), single: vec![6, 9] });
        assert_eq!(window.flush(), Acks::default());
        window.settle(2); // settling a delivery twice acknowledges it once
        window.forget(4);
        [5, 7, 8, 10].into_iter().for_each(|tag| window.settle(tag));
        assert_eq!(window.flush(), Acks { cumulative: Some(10), single: vec![] });
    }

    #[test]
    fn one_that_is_still_on_its_way_is_spared_too() {
        let mut window = AckWindow::default();
        [1, 3].into_iter().for_each(|tag| window.deliver(tag));
        [1, 3].into_iter().for_each(|tag| window.settle(tag));
        assert_eq!(window.flush(), Acks { cumulative: Some(1), single: vec![3] });
        window.deliver(2);
        assert_eq!(window.flush(), Acks::default());
        window.settle(2);
        assert_eq!(window.flush(), Acks { cumulative: Some(2), single: vec![] });
        window.deliver(4);
        window.forget(4);
        assert_eq!(window.flush(), Acks::default());
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
