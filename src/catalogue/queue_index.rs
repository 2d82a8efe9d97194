//! The places of the rows by the names of their queues, so that a call that names its queue searches no list of queues.
//!
//! Invariant: a catalogue has places only while its rows stay where they are and keep their names. The program that
//! goes by it [makes](Catalogue::indexed) them, and lends the catalogue from then on. Whoever wants to change the rows
//! has to make a copy, and a copy has no places.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{Catalogue, QueueRow};

/// The place of each row; `None`: nobody has asked for them.
#[derive(Debug, Default)]
pub(super) struct RowPlaces(Option<HashMap<String, usize, RandomState>>);

impl Clone for RowPlaces {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for RowPlaces {
    /// The places follow from the rows, so they make no difference.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl RowPlaces {
    /// Notes the place of one more row, which is behind all others.
    pub(super) fn add(&mut self, name: &str, place: usize) {
        if let Some(places) = &mut self.0 {
            places.entry(name.to_owned()).or_insert(place);
        }
    }
}

impl Catalogue {
    /// This catalogue, which finds its rows without a search from now on. Its rows must not change places or names any
    /// more; [`with_queue`](Self::with_queue) may add some.
    pub(crate) fn indexed(mut self) -> Self {
        let mut places = HashMap::default();
        for (place, row) in self.queues.iter().enumerate() {
            places.entry(row.name.clone()).or_insert(place);
        }
        self.index = RowPlaces(Some(places));
        self
    }

    /// The row of the queue of exactly this name.
    pub(super) fn row(&self, name: &str) -> Option<&QueueRow> {
        match &self.index.0 {
            Some(places) => places.get(name).and_then(|place| self.queues.get(*place)),
            None => self.queues.iter().find(|row| row.name == name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_find_what_a_search_finds() {
        let rows = ["b", "a", "b", "c"].map(QueueRow::new);
        let searched = rows.into_iter().fold(Catalogue::new(), Catalogue::with_queue).with_alias("x", "a");
        let indexed = searched.clone().indexed().with_queue(QueueRow::new("d").with_workers(7));
        let searched = searched.with_queue(QueueRow::new("d").with_workers(7));
        for name in ["a", "b", "c", "d", "x", "e", ""] {
            let (found, expected) = (indexed.queue(name), searched.queue(name));
            let is_same = found.map(|row| &row.name) == expected.map(|row| &row.name);
            assert!(is_same, "{name}: {found:?} instead of {expected:?}");
        }
        let place = |catalogue: &Catalogue, name| {
            let row = catalogue.row(name).expect("it is there");
            catalogue.queues.iter().position(|other| std::ptr::eq(other, row))
        };
        assert_eq!((place(&indexed, "b"), place(&searched, "b")), (Some(0), Some(0)), "of two, the first");
        assert_eq!(indexed, searched, "the places make no difference");
    }

    #[test]
    fn a_copy_can_be_changed() {
        let indexed = Catalogue::new().with_queue(QueueRow::new("a")).indexed();
        let mut copy = indexed.clone();
        copy.queues.insert(0, QueueRow::new("b"));
        copy.queues[1].name = "c".to_owned();
        let names = ["a", "b", "c"];
        let found = |catalogue: &Catalogue| names.map(|name| catalogue.queue(name).is_some());
        assert_eq!((found(&copy), found(&indexed)), ([false, true, true], [true, false, false]));
    }
}
