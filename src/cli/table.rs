//! A table of text for a terminal: columns as wide as they need to be, long texts wrapped at words.
//!
//! No line is wider than the caller wants, unless the last column would get fewer than [`NARROWEST`] characters.

use crate::catalogue::one_line;

/// The least width of the last column, in characters.
const NARROWEST: usize = 20;

/// The text between two columns.
const GAP: &str = "  ";

/// A column: its heading, the side to which its cells are aligned, and its greatest width in characters.
pub(super) struct Column {
    heading: &'static str,
    right: bool,
    most: usize,
}

impl Column {
    pub(super) const fn left(heading: &'static str, most: usize) -> Self {
        Self { heading, right: false, most }
    }

    pub(super) const fn right(heading: &'static str, most: usize) -> Self {
        Self { heading, right: true, most }
    }
}

/// A table with `N` columns, and its rows.
pub(super) struct TextTable<const N: usize> {
    columns: [Column; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> TextTable<N> {
    pub(super) fn new(columns: [Column; N]) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(super) fn add(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| one_line(&cell)));
    }

    /// The table as lines of at most `width` characters. The last column gets the room that the others leave.
    pub(super) fn render(&self, width: usize) -> String {
        let mut widths = self.widths();
        if let Some((last, others)) = widths.split_last_mut() {
            let taken: usize = others.iter().map(|width| width + GAP.len()).sum();
            *last = (*last).min(width.saturating_sub(taken).max(NARROWEST));
        }
        let mut text = String::new();
        self.push_row(&mut text, &widths, self.columns.each_ref().map(|column| column.heading));
        let rules = widths.map(|width| "-".repeat(width));
        self.push_row(&mut text, &widths, rules.each_ref().map(String::as_str));
        for row in &self.rows {
            self.push_row(&mut text, &widths, row.each_ref().map(String::as_str));
        }
        text
    }

    fn widths(&self) -> [usize; N] {
        std::array::from_fn(|index| {
            let column = &self.columns[index];
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells
                .chain([column.heading.len()])
                .max()
                .unwrap_or_default()
                .min(column.most.max(column.heading.len()))
        })
    }

    /// Writes one row of the table, in as many lines as its longest cell needs.
    fn push_row(&self, text: &mut String, widths: &[usize; N], cells: [&str; N]) {
        let wrapped: [Vec<String>; N] = std::array::from_fn(|index| wrap(cells[index], widths[index]));
        let height = wrapped.iter().map(Vec::len).max().unwrap_or_default();
        for line in 0..height {
            let mut out = String::new();
            for (index, cell) in wrapped.iter().enumerate() {
                let part = cell.get(line).map_or("", String::as_str);
                let padding = " ".repeat(widths[index].saturating_sub(part.chars().count()));
                let (before, after) =
                    if self.columns[index].right { (padding.as_str(), "") } else { ("", padding.as_str()) };
                if index > 0 {
                    out.push_str(GAP);
                }
                out.push_str(before);
                out.push_str(part);
                out.push_str(after);
            }
            text.push_str(out.trim_end());
            text.push('\n');
        }
    }
}

/// Splits a text into lines of at most `width` characters, between words, and within a word that is longer than a
/// line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        for (index, piece) in letters.chunks(width).enumerate() {
            if used > 0 && (index > 0 || used + 1 + piece.len() > width) {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                if used > 0 {
                    line.push(' ');
                    used += 1;
                }
                line.extend(piece);
                used += piece.len();
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_cells_wrap_and_no_line_is_too_wide() {
        let mut table =
            TextTable::new([Column::left("NAME", 6), Column::right("N", 3), Column::left("WHAT", 99)]);
        table.add(["abcdefgh".into(), "7".into(), "one two\nthree\tfour five six seven".into()]);
        let expected = "NAME    N  WHAT\n------  -  --------------------\nabcdef  7  one two three four\n\
                        gh         five six seven\n";
        assert_eq!(table.render(31), expected);
        assert!(table.render(31).lines().all(|line| line.chars().count() <= 31));
    }
}
