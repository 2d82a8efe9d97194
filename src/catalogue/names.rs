//! Reads tables that map names to names: the aliases, and the exact routes.

use std::collections::BTreeMap;

use super::Position;
use super::section::{Section, SourceText};

/// Reads such a table, and calls `place` with the position of each name.
pub(super) fn read(
    section: &Section<'_>,
    source: &mut SourceText<'_>,
    mut place: impl FnMut(String, Position),
) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (key, _) in section.iter() {
        if let Some(target) = section.text(key, source) {
            place(key.to_owned(), source.position(section.key_at(key)));
            names.insert(key.to_owned(), target);
        }
    }
    names
}
