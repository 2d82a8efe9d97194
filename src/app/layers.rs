//! The code that a program puts around every run of its tasks.

use super::builder::Builder;
use crate::task::Layer;

impl Builder {
    /// Adds code around every run of a task here: see [`Layer`]. The layer that is added first is the
    /// outermost one: it is called first, and hears of the outcome last.
    pub fn layer(mut self, layer: impl Layer) -> Self {
        self.layers.push(Box::new(layer));
        self
    }
}
