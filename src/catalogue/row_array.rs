//! The arrays of tables in a catalogue whose rows have no names: `[[route]]`, `[[limit]]` and `[[brake]]`, of the file and
//! of each environment. Mistakes in them are told by the number of the row.

use super::check::{MistakeSubject, SubjectPositions};
use super::error::quote;
use super::section::{Section, SourceText};

/// One kind of such an array.
pub(super) struct RowArray {
    /// The key of the array, which is also what a row is called: `route`.
    pub(super) key: &'static str,
    /// The key that each row has: `task`.
    pub(super) first: &'static str,
    /// The subject of a mistake in the row of this number, of the file or of an environment.
    pub(super) subject: fn(Option<String>, usize) -> MistakeSubject,
}

impl RowArray {
    /// Reads the array of the file or of an environment. `read_row` reads one row, whose name in errors it is given; it
    /// answers `None` if the row lacks what it needs, and has told so.
    pub(super) fn read<R>(
        &self,
        section: &Section<'_>,
        environment: Option<&str>,
        places: &mut SubjectPositions,
        source: &mut SourceText<'_>,
        mut read_row: impl FnMut(&Section<'_>, &str, &mut SourceText<'_>) -> Option<R>,
    ) -> Vec<R> {
        let Self { key, first, subject } = self;
        let array = environment.map_or_else(|| (*key).to_owned(), |name| format!("environment.{name}.{key}"));
        let expected = format!("an array of tables: begin each {key} with [[{array}]] and {first} = \"...\"");
        let within = environment.map_or_else(String::new, |name| format!("environment {}, ", quote(name)));
        let mut rows = Vec::new();
        for (index, (table, at)) in section.array(key, &expected, source).into_iter().enumerate() {
            let place = format!("{within}{key} number {}", index + 1);
            let section = Section::new(table, at, format!("in {place}"));
            if let Some(row) = read_row(&section, &place, source) {
                places.insert(subject(environment.map(str::to_owned), rows.len()), source.position(at));
                rows.push(row);
            }
        }
        rows
    }
}
