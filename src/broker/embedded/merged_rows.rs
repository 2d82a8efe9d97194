//! The rows of a table between two keys, merged from the layers of the log and the database.
//!
//! Of several rows of one key the one of the newest layer counts, and none if that layer says that it is deleted. Rows can be
//! taken from both ends, and each comes once. A layer is read in chunks that grow, so that a look at the first row is cheap
//! and the lock of the layer is held for short.

use std::collections::VecDeque;
use std::ops::Bound;

use super::cold::ColdRows;
use super::hot_log::{LayerRow, SharedLayer};
use super::tables::{Slice, TableName};
use crate::broker::BrokerError;

/// The rows that are read from a layer at first, and at most, at a time.
const FIRST_CHUNK: usize = 8;
const LARGEST_CHUNK: usize = 512;

/// Rows in order; the first error is the last item.
pub(super) struct Rows(Option<Merged>);

struct Merged {
    /// The layers, newest first.
    layers: Vec<LayerRows>,
    cold: PeekedRows,
}

impl Rows {
    /// No rows.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The rows of these layers, newest first, between these bounds, over `cold`: those of the database, if they are wanted.
    pub(super) fn merged(
        layers: Vec<SharedLayer>,
        cold: Option<ColdRows>,
        table: TableName,
        (start, end): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Self {
        let (start, end) = (start.map(Slice::from), end.map(Slice::from));
        let layers = layers.into_iter().map(|layer| LayerRows::new(layer, table, start.clone(), end.clone()));
        let cold = PeekedRows { rows: cold, front: None, back: None };
        Self(Some(Merged { layers: layers.collect(), cold }))
    }

    fn next_of(
        &mut self,
        take: impl Fn(&mut Merged) -> Result<Option<LayerRow>, BrokerError>,
    ) -> Option<Result<(Slice, Slice), BrokerError>> {
        loop {
            match take(self.0.as_mut()?) {
                Ok(Some((key, Some(value)))) => return Some(Ok((key, value))),
                Ok(Some((_, None))) => {} // it is deleted
                Ok(None) => {
                    self.0 = None;
                    return None;
                }
                Err(error) => {
                    self.0 = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Iterator for Rows {
    type Item = Result<(Slice, Slice), BrokerError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_of(Merged::first)
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.next_of(Merged::last)
    }
}

impl Merged {
    /// Takes the row of the lowest key, without a value if it is deleted.
    fn first(&mut self) -> Result<Option<LayerRow>, BrokerError> {
        let mut lowest = self.cold.peek_front()?.cloned();
        for layer in &mut self.layers {
            if let Some(key) = layer.peek_front()
                && lowest.as_ref().is_none_or(|lowest| key < lowest)
            {
                lowest = Some(key.clone());
            }
        }
        let Some(lowest) = lowest else { return Ok(None) };
        let mut found = None;
        for layer in &mut self.layers {
            if layer.peek_front() == Some(&lowest) {
                let row = layer.pop_front();
                found = found.or(row); // the newest layer comes first
            }
        }
        if self.cold.peek_front()? == Some(&lowest) {
            let row = self.cold.front.take().map(|(key, value)| (key, Some(value)));
            found = found.or(row);
        }
        Ok(found)
    }

    /// Takes the row of the highest key, without a value if it is deleted.
    fn last(&mut self) -> Result<Option<LayerRow>, BrokerError> {
        let mut highest = self.cold.peek_back()?.cloned();
        for layer in &mut self.layers {
            if let Some(key) = layer.peek_back()
                && highest.as_ref().is_none_or(|highest| key > highest)
            {
                highest = Some(key.clone());
            }
        }
        let Some(highest) = highest else { return Ok(None) };
        let mut found = None;
        for layer in &mut self.layers {
            if layer.peek_back() == Some(&highest) {
                let row = layer.pop_back();
                found = found.or(row);
            }
        }
        if self.cold.peek_back()? == Some(&highest) {
            let row = self.cold.back.take().map(|(key, value)| (key, Some(value)));
            found = found.or(row);
        }
        Ok(found)
    }
}

/// The rows of a layer that are left: those in `front`, then those between `start` and `end`, then those in `back`.
struct LayerRows {
    layer: SharedLayer,
    table: TableName,
    start: Bound<Slice>,
    end: Bound<Slice>,
    front: VecDeque<LayerRow>,
    back: VecDeque<LayerRow>,
    /// Whether nothing is left between `start` and `end`.
    has_ended: bool,
    chunk: usize,
}

impl LayerRows {
    fn new(layer: SharedLayer, table: TableName, start: Bound<Slice>, end: Bound<Slice>) -> Self {
        let (front, back) = (VecDeque::new(), VecDeque::new());
        Self { layer, table, start, end, front, back, has_ended: false, chunk: FIRST_CHUNK }
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.start.as_ref().map(|key| &key[..]), self.end.as_ref().map(|key| &key[..]))
    }

    /// Reads the next rows from one end.
    fn read(&mut self, is_front: bool) -> VecDeque<LayerRow> {
        if self.has_ended {
            return VecDeque::new();
        }
        let layer = self.layer.read();
        let rows = match is_front {
            true => layer.first(self.table, self.bounds(), self.chunk),
            false => layer.last(self.table, self.bounds(), self.chunk),
        };
        drop(layer);
        self.has_ended = rows.len() < self.chunk;
        self.chunk = (2 * self.chunk).min(LARGEST_CHUNK);
        rows
    }

    fn peek_front(&mut self) -> Option<&Slice> {
        if self.front.is_empty() {
            self.front = self.read(true);
            match self.front.back() {
                Some((key, _)) => self.start = Bound::Excluded(key.clone()),
                None => std::mem::swap(&mut self.front, &mut self.back), // nothing is left between the two
            }
        }
        self.front.front().map(|(key, _)| key)
    }

    fn pop_front(&mut self) -> Option<LayerRow> {
        self.front.pop_front()
    }

    fn peek_back(&mut self) -> Option<&Slice> {
        if self.back.is_empty() {
            self.back = self.read(false);
            match self.back.front() {
                Some((key, _)) => self.end = Bound::Excluded(key.clone()),
                None => std::mem::swap(&mut self.front, &mut self.back),
            }
        }
        self.back.back().map(|(key, _)| key)
    }

    fn pop_back(&mut self) -> Option<LayerRow> {
        self.back.pop_back()
    }
}

/// The rows of the database, of which the next one at each end can be looked at.
struct PeekedRows {
    rows: Option<ColdRows>,
    front: Option<(Slice, Slice)>,
    back: Option<(Slice, Slice)>,
}

impl PeekedRows {
    fn peek_front(&mut self) -> Result<Option<&Slice>, BrokerError> {
        if self.front.is_none() {
            let next = self.rows.as_mut().and_then(ColdRows::next).transpose()?;
            self.front = next.or_else(|| self.back.take());
        }
        Ok(self.front.as_ref().map(|(key, _)| key))
    }

    fn peek_back(&mut self) -> Result<Option<&Slice>, BrokerError> {
        if self.back.is_none() {
            let next = self.rows.as_mut().and_then(ColdRows::next_back).transpose()?;
            self.back = next.or_else(|| self.front.take());
        }
        Ok(self.back.as_ref().map(|(key, _)| key))
    }
}
