//! Reads `[defaults]`: the options of all tasks that do not state them, and the zone of periodic entries that state none.

use super::check::{MistakeSubject, SubjectPositions};
use super::rate_limits::read_limit;
use super::section::{Section, SourceText};
use super::tenants::read_argument;
use crate::core::calendar::Zone;
use crate::task::TaskDefaults;

const KEYS: [&str; 15] = [
    "time_limit",
    "soft_time_limit",
    "expires",
    "expires_except",
    "max_retries",
    "default_retry_delay",
    "retry_backoff",
    "retry_backoff_max",
    "retry_jitter",
    "autoretry",
    "acks_late",
    "result_expires",
    "rate_limit",
    "tenant",
    "zone",
];

/// Reads the table `defaults` of the file or of an environment.
pub(super) fn read(
    section: &Section<'_>,
    environment: Option<&str>,
    places: &mut SubjectPositions,
    source: &mut SourceText<'_>,
) -> (TaskDefaults, Option<Zone>) {
    let mut defaults = TaskDefaults::default();
    let place = match environment {
        Some(_) => format!("{} under defaults", section.place),
        None => "in [defaults]".to_owned(),
    };
    let Some(section) = section.table("defaults", place, source) else { return (defaults, None) };
    section.refuse_unknown_keys(&KEYS, source);
    let at = ["soft_time_limit", "time_limit"].into_iter().find(|key| section.get(key).is_some());
    let position = source.position(at.map_or(section.at, |key| section.key_at(key)));
    places.insert(MistakeSubject::Defaults(environment.map(str::to_owned)), position);
    defaults.time_limit = section.span_of_time("time_limit", source);
    defaults.soft_time_limit = section.span_of_time("soft_time_limit", source);
    defaults.expires = section.span_of_time("expires", source);
    let expected = "an array of names of tasks such as [\"billing.*\"]";
    defaults.expires_except = section.texts("expires_except", expected, source).unwrap_or_default();
    defaults.max_retries = section.number("max_retries", 0, source);
    defaults.default_retry_delay = section.span_of_time("default_retry_delay", source);
    defaults.retry_backoff = section.boolean("retry_backoff", source);
    defaults.retry_backoff_max = section.span_of_time("retry_backoff_max", source);
    defaults.retry_jitter = section.boolean("retry_jitter", source);
    defaults.autoretry = section.boolean("autoretry", source);
    defaults.acks_late = section.boolean("acks_late", source);
    defaults.result_expires = section.span_of_time("result_expires", source);
    match (read_limit(&section, "rate_limit", source), section.get("rate_limit")) {
        (Some(None), Some(item)) => {
            let advice = "remove it: without it there is no limit".to_owned();
            section.report_bad_value("rate_limit", item, advice, source);
        }
        (limit, _) => defaults.rate_limit = limit.flatten(),
    }
    defaults.tenant = read_argument(&section, source);
    (defaults, read_zone(&section, source))
}

/// Reads the key `zone`, if it is there.
pub(super) fn read_zone(section: &Section<'_>, source: &mut SourceText<'_>) -> Option<Zone> {
    let item = section.get("zone")?;
    match section.text("zone", source)?.parse::<Zone>() {
        Ok(zone) => Some(zone),
        Err(error) => {
            section.report_bad_value("zone", item, error.to_string(), source);
            None
        }
    }
}
