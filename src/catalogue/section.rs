//! Reads a table of the TOML document key by key. It reports and skips a wrong value, so that one pass finds every
//! mistake.

use std::ops::Range;
use std::time::Duration;

use serde_json::Map;
use toml_edit::{Item, TableLike, Value};

use super::error::{CatalogueError, Position, Problem, quote, shorten};
use super::size::parse_size;
use super::span_of_time::parse_span;
use super::spelling;

/// The largest number of workers, deliveries or restarts of a queue. It catches typing errors.
const LARGEST_NUMBER: i64 = 1_000_000;

/// The text of the document, and the mistakes found in it so far.
pub(super) struct SourceText<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
    pub(super) errors: Vec<CatalogueError>,
}

impl<'t> SourceText<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, line_starts, errors: Vec::new() }
    }

    /// The line and the column of a byte of the text.
    pub(super) fn position(&self, at: usize) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= at).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or_default();
        let column =
            self.text.get(start..at.min(self.text.len())).map_or(1, |before| before.chars().count() + 1);
        Position { line, column }
    }

    /// Records a mistake at a byte of the text.
    pub(super) fn report(&mut self, at: usize, problem: Problem) {
        let position = Some(self.position(at));
        self.errors.push(CatalogueError { position, problem });
    }

    /// The first line of a value as it was written, shortened.
    fn written(&self, span: Option<Range<usize>>) -> String {
        let text = span.and_then(|span| self.text.get(span)).unwrap_or_default();
        shorten(text.lines().next().unwrap_or_default())
    }

    /// A description of an item for a person: `the string "ten"`, `a table`.
    fn describe(&self, item: &Item) -> String {
        match item {
            Item::Value(Value::Array(_)) => "an array".to_owned(),
            Item::ArrayOfTables(_) => "an array of tables".to_owned(),
            Item::Value(Value::InlineTable(_)) | Item::Table(_) | Item::None => "a table".to_owned(),
            Item::Value(value) => format!("the {} {}", value.type_name(), self.written(value.span())),
        }
    }
}

/// One table of the document, with its name in errors.
pub(super) struct Section<'t> {
    table: &'t dyn TableLike,
    /// The byte at which the table starts, for mistakes that have no better position.
    pub(super) at: usize,
    /// The name of the table in errors, as in `in queue "email_queue"`.
    pub(super) place: String,
}

impl<'t> Section<'t> {
    pub(super) fn new(table: &'t dyn TableLike, at: usize, place: impl Into<String>) -> Self {
        Self { table, at, place: place.into() }
    }

    /// The keys of the table with their values, in the order of the text.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'t str, &'t Item)> + use<'t> {
        self.table.iter()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'t Item> {
        self.table.get(key)
    }

    /// The byte at which a key stands.
    pub(super) fn key_at(&self, key: &str) -> usize {
        self.table.key(key).and_then(|key| key.span()).map_or(self.at, |span| span.start)
    }

    /// The byte at which the value of a key stands; the byte of the key if the value is a table.
    fn value_at(&self, key: &str) -> usize {
        let value = self.get(key).and_then(Item::as_value).and_then(Value::span);
        value.map_or_else(|| self.key_at(key), |span| span.start)
    }

    /// Reports every key that is not in `known`.
    pub(super) fn refuse_unknown_keys(&self, known: &[&str], source: &mut SourceText<'_>) {
        for (key, _) in self.iter() {
            if !known.contains(&key) {
                let advice = spelling::advice(key, known.iter().copied(), || {
                    format!("the keys {} are {}", self.place, known.join(", "))
                });
                let problem = Problem::UnknownKey { key: key.to_owned(), place: self.place.clone(), advice };
                source.report(self.key_at(key), problem);
            }
        }
    }

    pub(super) fn report_wrong_type(
        &self,
        key: &str,
        item: &Item,
        expected: &str,
        source: &mut SourceText<'_>,
    ) {
        let problem = Problem::WrongType {
            key: key.to_owned(),
            place: self.place.clone(),
            expected: expected.to_owned(),
            found: source.describe(item),
        };
        source.report(self.value_at(key), problem);
    }

    pub(super) fn report_bad_value(
        &self,
        key: &str,
        item: &Item,
        advice: String,
        source: &mut SourceText<'_>,
    ) {
        let problem = Problem::BadValue {
            key: key.to_owned(),
            place: self.place.clone(),
            value: source.written(item.span()),
            advice,
        };
        source.report(self.value_at(key), problem);
    }

    /// Reads a string. Returns it with the byte at which it stands.
    pub(super) fn string(&self, key: &str, source: &mut SourceText<'_>) -> Option<(String, usize)> {
        let item = self.get(key)?;
        match item.as_str() {
            Some(text) => Some((text.to_owned(), self.value_at(key))),
            None => {
                self.report_wrong_type(key, item, "a string in quotes", source);
                None
            }
        }
    }

    /// Reads an array of tables. Returns each table with the byte at which it stands.
    pub(super) fn array(
        &self,
        key: &str,
        expected: &str,
        source: &mut SourceText<'_>,
    ) -> Vec<(&'t dyn TableLike, usize)> {
        let Some(item) = self.get(key) else { return Vec::new() };
        let at = |span: Option<Range<usize>>| span.map_or(self.at, |span| span.start);
        match item {
            Item::ArrayOfTables(tables) => {
                tables.iter().map(|table| (table as &dyn TableLike, at(table.span()))).collect()
            }
            _ => match item.as_array() {
                Some(array) if array.iter().all(Value::is_inline_table) => array
                    .iter()
                    .filter_map(Value::as_inline_table)
                    .map(|table| (table as &dyn TableLike, at(table.span())))
                    .collect(),
                _ => {
                    self.report_wrong_type(key, item, expected, source);
                    Vec::new()
                }
            },
        }
    }

    pub(super) fn text(&self, key: &str, source: &mut SourceText<'_>) -> Option<String> {
        self.string(key, source).map(|(text, _)| text)
    }

    /// Reads an array of strings. `expected` describes the array in an error.
    pub(super) fn texts(
        &self,
        key: &str,
        expected: &str,
        source: &mut SourceText<'_>,
    ) -> Option<Vec<String>> {
        let item = self.get(key)?;
        let texts = item.as_array().and_then(|array| {
            array.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        if texts.is_none() {
            self.report_wrong_type(key, item, expected, source);
        }
        texts
    }

    pub(super) fn boolean(&self, key: &str, source: &mut SourceText<'_>) -> Option<bool> {
        let item = self.get(key)?;
        let value = item.as_bool();
        if value.is_none() {
            self.report_wrong_type(key, item, "true or false", source);
        }
        value
    }

    /// Reads a whole number that is not below `least`.
    pub(super) fn number(&self, key: &str, least: u32, source: &mut SourceText<'_>) -> Option<u32> {
        let item = self.get(key)?;
        let Some(number) = item.as_integer() else {
            self.report_wrong_type(key, item, "a whole number such as 4", source);
            return None;
        };
        let advice = if number < i64::from(least) {
            format!("write at least {least}")
        } else if number > LARGEST_NUMBER {
            format!("write at most {LARGEST_NUMBER}")
        } else {
            return u32::try_from(number).ok();
        };
        self.report_bad_value(key, item, advice, source);
        None
    }

    /// Reads a whole number from `least` to 255.
    pub(super) fn small_number(&self, key: &str, least: u32, source: &mut SourceText<'_>) -> Option<u8> {
        let number = self.number(key, least, source)?;
        let small = u8::try_from(number).ok();
        if let (None, Some(item)) = (small, self.get(key)) {
            self.report_bad_value(key, item, "write at most 255".to_owned(), source);
        }
        small
    }

    /// Reads a table whose values can be written as JSON. `example` is a table for an error.
    pub(super) fn json(
        &self,
        key: &str,
        example: &str,
        source: &mut SourceText<'_>,
    ) -> Option<Map<String, serde_json::Value>> {
        let item = self.get(key)?;
        let Some(table) = item.as_table_like() else {
            self.report_wrong_type(key, item, &format!("a table such as {example}"), source);
            return None;
        };
        let mut map = Map::new();
        for (name, value) in table.iter() {
            match json_of(value) {
                Some(json) => drop(map.insert(name.to_owned(), json)),
                None => {
                    let inner = Section::new(table, self.key_at(key), format!("in {key} {}", self.place));
                    let expected = "text, a number, true, false, or an array or table of these";
                    inner.report_wrong_type(name, value, expected, source);
                }
            }
        }
        Some(map)
    }

    /// Reads a span of time above zero.
    pub(super) fn span_of_time(&self, key: &str, source: &mut SourceText<'_>) -> Option<Duration> {
        let span = self.span_or_zero(key, source)?;
        if !span.is_zero() {
            return Some(span);
        }
        self.report_bad_value(key, self.get(key)?, "write a duration above zero".to_owned(), source);
        None
    }

    /// Reads a span of time, which may be zero.
    pub(super) fn span_or_zero(&self, key: &str, source: &mut SourceText<'_>) -> Option<Duration> {
        let item = self.get(key)?;
        let Some(text) = item.as_str() else {
            self.report_wrong_type(key, item, "a duration in quotes such as \"30s\"", source);
            return None;
        };
        let span = parse_span(text);
        if span.is_none() {
            let advice = "write a duration such as \"500ms\", \"30s\", \"15m\", \"6h\" or \"1h30m\"";
            self.report_bad_value(key, item, advice.to_owned(), source);
        }
        span
    }

    /// Reads a size of memory above zero, in bytes. A number without a unit is in kilobytes of 1024 bytes, as for Celery.
    pub(super) fn size(&self, key: &str, source: &mut SourceText<'_>) -> Option<u64> {
        let item = self.get(key)?;
        let size = match (item.as_integer(), item.as_str()) {
            (Some(kilobytes), _) => u64::try_from(kilobytes).ok().and_then(|number| number.checked_mul(1024)),
            (None, Some(text)) => parse_size(text),
            (None, None) => {
                let expected = "a size in quotes such as \"400MB\", or a number of kilobytes";
                self.report_wrong_type(key, item, expected, source);
                return None;
            }
        };
        let size = size.filter(|size| *size > 0);
        if size.is_none() {
            let advice = "write a size above zero such as \"400MB\" or \"2GiB\", or a number of kilobytes";
            self.report_bad_value(key, item, advice.to_owned(), source);
        }
        size
    }

    /// Reads one of a few words. Returns the choice that belongs to the word.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
        source: &mut SourceText<'_>,
    ) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| quote(word)).collect::<Vec<_>>().join(" or ");
        let item = self.get(key)?;
        let Some(text) = item.as_str() else {
            self.report_wrong_type(key, item, &words(), source);
            return None;
        };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*choice);
        }
        let advice =
            spelling::advice(text, choices.iter().map(|(word, _)| *word), || format!("write {}", words()));
        self.report_bad_value(key, item, advice, source);
        None
    }

    /// Reads all keys of this table as tables, and reports those that are not.
    pub(super) fn tables(
        &self,
        place: impl Fn(&str) -> String,
        source: &mut SourceText<'_>,
    ) -> Vec<(&'t str, Section<'t>)> {
        let keys: Vec<_> = self.iter().collect();
        keys.into_iter().filter_map(|(key, _)| Some((key, self.table(key, place(key), source)?))).collect()
    }

    /// Reads the table under `key`. `place` is its name in errors.
    pub(super) fn table(&self, key: &str, place: String, source: &mut SourceText<'_>) -> Option<Section<'t>> {
        let item = self.get(key)?;
        match item.as_table_like() {
            Some(table) => Some(Section::new(table, self.key_at(key), place)),
            None => {
                self.report_wrong_type(key, item, "a table", source);
                None
            }
        }
    }
}

/// A value of the document as JSON; `None` for a date, and for a number that JSON does not have.
fn json_of(item: &Item) -> Option<serde_json::Value> {
    if let Some(table) = item.as_table_like() {
        let members = table.iter().map(|(name, value)| Some((name.to_owned(), json_of(value)?)));
        return members.collect::<Option<Map<_, _>>>().map(Into::into);
    }
    Some(match item.as_value()? {
        Value::String(text) => text.value().as_str().into(),
        Value::Integer(number) => (*number.value()).into(),
        Value::Float(number) => serde_json::Number::from_f64(*number.value())?.into(),
        Value::Boolean(boolean) => (*boolean.value()).into(),
        Value::Array(array) => {
            let members = array.iter().map(|value| json_of(&Item::Value(value.clone())));
            members.collect::<Option<Vec<_>>>()?.into()
        }
        Value::Datetime(_) | Value::InlineTable(_) => return None,
    })
}
