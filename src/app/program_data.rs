//! The values that a program gives to its tasks.

use super::builder::Builder;
use crate::task::Data;

impl Builder {
    /// Gives the runtime a value that its tasks take as a parameter: see [`Data`](crate::task::Data). A second value of the
    /// same type replaces the first.
    pub fn data<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.data.insert(Data::new(value));
        self
    }

    /// As [`data`](Self::data), for a value that the program shares with its tasks.
    pub fn shared_data<T: Send + Sync + 'static>(mut self, value: impl Into<Data<T>>) -> Self {
        self.data.insert(value.into());
        self
    }
}
