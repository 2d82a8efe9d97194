//! Reads the rate limits of tasks: `[rate_limits]` for each task by its name, and the one in `[defaults]`.

use std::collections::BTreeMap;

use super::check::{MistakeSubject, SubjectPositions};
use super::section::{Section, SourceText};
use crate::core::token_bucket::RateLimit;

/// Reads the table `rate_limits` of the file or of an environment. A value of `None` takes a task's own limit away.
pub(super) fn read(
    section: &Section<'_>,
    environment: Option<&str>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> BTreeMap<String, Option<RateLimit>> {
    let mut limits = BTreeMap::new();
    let place = match environment {
        Some(_) => format!("{} under rate_limits", section.place),
        None => "in [rate_limits]".to_owned(),
    };
    let Some(section) = section.table("rate_limits", place, source) else { return limits };
    for (task, _) in section.iter() {
        if let Some(limit) = read_limit(&section, task, source) {
            let subject = MistakeSubject::RateLimit(environment.map(str::to_owned), task.to_owned());
            places.insert(subject, source.position(section.key_at(task)));
            limits.insert(task.to_owned(), limit);
        }
    }
    limits
}

/// Reads one rate limit: `Some(None)` is the statement that there is none.
pub(super) fn read_limit(
    section: &Section<'_>,
    key: &str,
    source: &mut SourceText<'_>,
) -> Option<Option<RateLimit>> {
    let item = section.get(key)?;
    let Some(text) = item.as_str() else {
        section.report_wrong_type(key, item, "a rate in quotes such as \"10/m\"", source);
        return None;
    };
    match RateLimit::parse(text) {
        Ok(limit) => Some(limit),
        Err(_) => {
            let advice = "write a rate such as \"10/s\", \"10/m\" or \"10/h\", or \"0\" for no limit";
            section.report_bad_value(key, item, advice.to_owned(), source);
            None
        }
    }
}
