//! The brakes of a catalogue: `[[brake]]` rows, which hold in every process that starts with it, until the file says otherwise.
//!
//! ```toml
//! [[brake]]
//! task = "reports.*"              # a name, also with * and ?; and so tenant. queue is the name of one
//! argument = "domain"             # a name, or a position from 0
//! matches = ["mvp-"]              # regular expressions, from the beginning of the value
//! action = "slow"                 # pause, slow, divert or expire
//! rate = "6/m"                    # of slow; and divert_to of divert
//! reason = "their reports take an hour each"
//! ```

use std::fmt;

use super::check::{MistakeSubject, SubjectPositions};
use super::error::{Problem, quote};
use super::one_line;
use super::row_array::RowArray;
use super::section::{Section, SourceText};
use crate::core::brake::{Brake, BrakeAction, BrakeError, BrakeRule};

const KEYS: [&str; 10] =
    ["task", "queue", "tenant", "argument", "matches", "all", "action", "rate", "divert_to", "reason"];

/// A brake that stands in the catalogue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BrakeRow {
    /// Which tasks are meant. The queue may be an alias.
    pub rule: BrakeRule,
    /// What happens to them. The queue may be an alias.
    pub action: BrakeAction,
    /// The reason that the operator gives for the brake.
    pub reason: Option<String>,
}

impl BrakeRow {
    /// A brake with this rule, without a reason.
    pub fn new(rule: BrakeRule, action: BrakeAction) -> Self {
        Self { rule, action, reason: None }
    }

    /// Says why the brake is there.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

impl fmt::Display for BrakeRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", one_line(&self.action.to_string()), one_line(&self.rule.to_string()))?;
        match &self.reason {
            Some(reason) => write!(f, ": {}", one_line(reason)),
            None => Ok(()),
        }
    }
}

/// Reads the array of tables `brake` of the file or of an environment.
pub(super) fn read_rows(
    section: &Section<'_>,
    environment: Option<&str>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> Vec<BrakeRow> {
    let rows = RowArray { key: "brake", first: "action", subject: MistakeSubject::BrakeRow };
    rows.read(section, environment, places, source, read_row)
}

fn read_row(section: &Section<'_>, place: &str, source: &mut SourceText<'_>) -> Option<BrakeRow> {
    section.refuse_unknown_keys(&KEYS, source);
    let mut rule = BrakeRule::new();
    rule.task = section.text("task", source);
    rule.queue = section.text("queue", source);
    rule.tenant = section.text("tenant", source);
    let all = section.boolean("all", source);
    rule.all = all.unwrap_or_default();
    let argument = read_argument(section, source);
    let matches = section.texts("matches", "an array of patterns such as [\"big-\"]", source);
    let is_complete = match (section.get("argument"), section.get("matches")) {
        (Some(_), None) => missing(section, place, "matches", "[\"...\"]", source),
        (None, Some(_)) => missing(section, place, "argument", "\"...\"", source),
        _ => true,
    };
    // A condition that cannot be read must not make the rule one about more tasks.
    let stated = ["task", "queue", "tenant", "argument", "matches", "all"];
    let read = [&rule.task, &rule.queue, &rule.tenant, &argument].map(Option::is_some);
    let read = read.into_iter().chain([matches.is_some(), all.is_some()]);
    let is_read = stated.iter().zip(read).all(|(key, read)| section.get(key).is_none() || read);
    if let Some((argument, matches)) = argument.zip(matches) {
        rule = rule.argument(argument, matches);
    }
    let action = read_action(section, place, source);
    let reason = section.text("reason", source);
    Some(BrakeRow { rule, action: action?, reason }).filter(|_| is_complete && is_read)
}

/// Reads the keys `action`, `rate` and `divert_to`, which belong together.
fn read_action(section: &Section<'_>, place: &str, source: &mut SourceText<'_>) -> Option<BrakeAction> {
    let (rate, divert_to) = (section.text("rate", source), section.text("divert_to", source));
    if section.get("action").is_none() {
        missing(section, place, "action", "\"pause\"", source);
        return None;
    }
    let words = [("pause", 0), ("slow", 1), ("divert", 2), ("expire", 3)];
    let word = section.choice("action", &words, source)?;
    for (key, belongs_to, action) in [("rate", 1, "slow"), ("divert_to", 2, "divert")] {
        if let Some(item) = section.get(key).filter(|_| word != belongs_to) {
            let advice = format!("it belongs to action = {}: take it out", quote(action));
            section.report_bad_value(key, item, advice, source);
        }
    }
    match word {
        0 => Some(BrakeAction::Pause),
        1 => {
            if section.get("rate").is_none() {
                missing(section, place, "rate", "\"10/m\"", source);
            }
            rate.map(BrakeAction::slow)
        }
        2 => {
            if section.get("divert_to").is_none() {
                missing(section, place, "divert_to", "\"...\"", source);
            }
            divert_to.map(BrakeAction::divert)
        }
        _ => Some(BrakeAction::Expire),
    }
}

/// Reads the key `argument`: a name, or a position from 0.
fn read_argument(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<String> {
    let item = section.get("argument")?;
    let position = item.as_integer().filter(|position| *position >= 0).map(|position| position.to_string());
    let argument = position.or_else(|| item.as_str().map(str::to_owned));
    if argument.is_none() {
        section.report_wrong_type("argument", item, "a name, or a position from 0", source);
    }
    argument
}

/// Reports a key that is missing. Answers with false.
fn missing(
    section: &Section<'_>,
    place: &str,
    key: &'static str,
    example: &'static str,
    source: &mut SourceText<'_>,
) -> bool {
    source.report(section.at, Problem::MissingKey { place: place.to_owned(), key, example });
    false
}

/// What is wrong with a row, but for the names of its queues; `None`: nothing. `known_as` is its name in errors.
pub(super) fn fault(row: &BrakeRow, known_as: &str) -> Option<Problem> {
    let brake = Brake::new(row.rule.clone(), row.action.clone()).id("row");
    let brake = row.reason.iter().fold(brake, |brake, reason| brake.reason(reason.as_str()));
    let place = format!("in {known_as}");
    Some(match brake.check().err()? {
        BrakeError::Field { field, value, advice } => {
            Problem::BadValue { key: field.to_owned(), place, value: quote(&value), advice }
        }
        error => Problem::Brake { place, fault: error.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_well() {
        let rule = BrakeRule::new().task("a.*").queue("q").argument("domain", ["x"]);
        let row = BrakeRow::new(rule, BrakeAction::slow("6/m")).with_reason("too\nmany");
        assert_eq!(row.to_string(), "slow to 6/m for task a.*, queue q, argument domain like /x/: too many");
    }
}
