//! The parameters of a task that take what the others leave over: Python's `*args` and `**kwargs`.

use std::collections::{BTreeMap, btree_map};
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// The positional arguments of a call that the other parameters leave over: Python's `*args`. It is the last parameter of a
/// task, or the last but a [`RestByName`].
///
/// ```
/// use celeriac::task;
/// use celeriac::task::{Rest, RestByName};
///
/// /// In Python: `def label(order, *lines, **options)`.
/// #[task]
/// async fn label(order: u64, lines: Rest<String>, options: RestByName<String>) -> String {
///     let color = options.get("color").map_or("black", String::as_str);
///     format!("{order} in {color}: {}", lines.join(", "))
/// }
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// label::delay(7, Rest(vec!["for Ada".to_owned()]), RestByName::default()).await?;
/// # Ok(()) }
/// # fn main() {}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rest<T>(pub Vec<T>);

impl<T> Default for Rest<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Rest<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> IntoIterator for Rest<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The keyword arguments of a call for which no other parameter has the name: Python's `**kwargs`. It is the last
/// parameter of a task; see [`Rest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RestByName<T>(pub BTreeMap<String, T>);

impl<T> Default for RestByName<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Deref for RestByName<T> {
    type Target = BTreeMap<String, T>;

    fn deref(&self) -> &BTreeMap<String, T> {
        &self.0
    }
}

impl<T> IntoIterator for RestByName<T> {
    type Item = (String, T);
    type IntoIter = btree_map::IntoIter<String, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
