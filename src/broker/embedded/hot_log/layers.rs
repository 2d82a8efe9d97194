//! The layers over the database: the active one, which takes the commits, and the retired ones, which wait to be written
//! to the database.
//!
//! Any thread reads them. A reader takes the layers first and the database second: what leaves the layers has come to
//! the database before. A commit is added under the lock of its layer, so it is seen whole or not at all by whoever looks at
//! one row; a reader of many rows sees those of the active layer as they are when it comes to them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

use super::layer::Layer;
use crate::broker::embedded::tables::{Slice, TableName};
use crate::broker::embedded::writes::Writes;

/// A layer that several threads read, and one may write.
pub(in super::super) type SharedLayer = Arc<RwLock<Layer>>;

/// The layers, newest last. The handle is cheap to clone.
#[derive(Clone)]
pub(in super::super) struct Layers(Arc<RwLock<Stack>>);

struct Stack {
    active: SharedLayer,
    /// The retired layers, oldest first.
    retired: VecDeque<SharedLayer>,
}

impl Layers {
    /// Layers that were read from segments, oldest first. The last one becomes the active one.
    pub(in super::super) fn of(mut layers: Vec<Layer>) -> Self {
        let active = Arc::new(RwLock::new(layers.pop().unwrap_or_default()));
        let retired = layers.into_iter().map(|layer| Arc::new(RwLock::new(layer))).collect();
        Self(Arc::new(RwLock::new(Stack { active, retired })))
    }

    /// What the layers know of a key: `None` if nothing, `Some(None)` if the row is deleted.
    pub(in super::super) fn get(&self, table: TableName, key: &[u8]) -> Option<Option<Slice>> {
        let stack = self.0.read();
        let newest_first = std::iter::once(&stack.active).chain(stack.retired.iter().rev());
        for layer in newest_first {
            let found = layer.read().get(table, key);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// All layers as they are now, newest first.
    pub(in super::super) fn newest_first(&self) -> Vec<SharedLayer> {
        let stack = self.0.read();
        std::iter::once(&stack.active).chain(stack.retired.iter().rev()).cloned().collect()
    }

    /// The retired layers, oldest first.
    pub(super) fn retired(&self) -> Vec<SharedLayer> {
        self.0.read().retired.iter().cloned().collect()
    }

    /// The layers that are newer than this one.
    pub(super) fn newer_than(&self, layer: &SharedLayer) -> Vec<SharedLayer> {
        let mut newer = self.newest_first();
        if let Some(at) = newer.iter().position(|other| Arc::ptr_eq(other, layer)) {
            newer.truncate(at);
        }
        newer
    }

    /// Adds a commit to the active layer.
    pub(super) fn apply(&self, parts: &[&Writes]) {
        let stack = self.0.read();
        let mut active = stack.active.write();
        parts.iter().flat_map(|part| part.iter()).for_each(|write| active.apply(write));
    }

    /// The bytes and the rows of the active layer.
    pub(super) fn active_size(&self) -> (usize, usize) {
        let stack = self.0.read();
        let active = stack.active.read();
        (active.bytes(), active.rows())
    }

    /// Retires the active layer and begins an empty one. Answers with the retired one.
    pub(super) fn retire(&self) -> SharedLayer {
        let mut stack = self.0.write();
        let retired = std::mem::take(&mut stack.active);
        stack.retired.push_back(Arc::clone(&retired));
        retired
    }

    /// Forgets the oldest retired layer, which the database has now.
    pub(super) fn drop_oldest(&self) {
        self.0.write().retired.pop_front();
    }

    /// The bytes of all layers, about.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.newest_first().iter().map(|layer| layer.read().bytes() as u64).sum()
    }
}
