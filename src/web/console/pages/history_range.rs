//! Which part of the history is shown: what is told apart, how long the range is, and when it ends.

use std::time::Duration;

use crate::app::HistoryBy;
use crate::core::Timestamp;
use crate::core::history::{KEPT_HOURS, minute_begins};
use crate::web::console::address::ScreenAddress;
use crate::web::console::problem::ConsoleProblem;
use crate::web::console::words;

/// The steps that a chart has at most.
const MOST_STEPS: u64 = 100;
/// The lengths of a step, in minutes.
const STEPS: [u64; 6] = [1, 5, 15, 30, 60, 120];
const HOUR: Duration = Duration::from_secs(3_600);
/// What the rows tell apart: the word in the address, the noun, and the value.
pub(super) const BYS: [(&str, &str, HistoryBy); 3] = [
    ("queue", "Queue", HistoryBy::Queue),
    ("task", "Task", HistoryBy::Task),
    ("tenant", "Tenant", HistoryBy::Tenant),
];

/// What of the history is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HistoryRange {
    pub(super) by: HistoryBy,
    pub(super) queue: Option<String>,
    pub(super) name: Option<String>,
    pub(super) hours: u64,
    pub(super) until: Timestamp,
    /// Whether the range ends now, and moves on with the time.
    pub(super) is_now: bool,
}

impl HistoryRange {
    pub(super) fn of(address: &ScreenAddress, now: Timestamp) -> Result<Self, ConsoleProblem> {
        let text = |name: &str| address.get(name).map(str::trim).filter(|text| !text.is_empty());
        let by = text("by").unwrap_or("queue");
        let by = BYS.into_iter().find(|(word, ..)| *word == by).ok_or_else(|| {
            let shown = words::line(by, 40);
            ConsoleProblem::malformed(format!(
                "The history is not told by `{shown}`: write queue, task or tenant."
            ))
        })?;
        let hours: u64 = match text("hours").map(str::parse) {
            None => 24,
            Some(Ok(hours)) if (1..=KEPT_HOURS).contains(&hours) => hours,
            Some(_) => {
                let text = format!("`hours` is how long the range is: 1 to {KEPT_HOURS}.");
                return Err(ConsoleProblem::malformed(text));
            }
        };
        let until = text("until").map(read_time).transpose()?.filter(|until| *until < now);
        Ok(Self {
            by: by.2,
            queue: text("queue").map(str::to_owned),
            name: text("name").map(str::to_owned),
            hours,
            until: until.unwrap_or(now),
            is_now: until.is_none(),
        })
    }

    pub(super) fn length(&self) -> Duration {
        HOUR.saturating_mul(u32::try_from(self.hours).unwrap_or(u32::MAX))
    }

    /// The beginning of the range.
    pub(super) fn begin(&self) -> Timestamp {
        self.until - self.length()
    }

    /// The length of a step, so that there are not too many.
    pub(super) fn step(&self) -> Duration {
        let minutes = self.hours * 60;
        let step = STEPS.into_iter().find(|step| minutes.div_ceil(*step) <= MOST_STEPS).unwrap_or(120);
        Duration::from_secs(step * 60)
    }

    /// The beginning of the step that a time is in.
    fn step_of(&self, at: Timestamp) -> Timestamp {
        let step = u64::try_from(self.step().as_micros()).unwrap_or(u64::MAX).max(1);
        Timestamp::from_micros(at.as_micros() - at.as_micros() % step)
    }

    /// The number of steps into which the chart divides the range.
    pub(super) fn steps(&self) -> usize {
        self.place(self.until) + 1
    }

    /// The number of the step that a time is in, from 0.
    pub(super) fn place(&self, at: Timestamp) -> usize {
        let micros = at.since(self.step_of(self.begin())).as_micros() / self.step().as_micros().max(1);
        usize::try_from(micros).unwrap_or(usize::MAX)
    }

    /// Where a time is in a chart, from 0 to 1.
    pub(super) fn share(&self, at: Timestamp) -> f64 {
        at.since(self.begin()).as_secs_f64() / self.length().as_secs_f64()
    }
}

/// A time as a form writes it, in UTC, or as the slider does, in minutes since 1970.
fn read_time(text: &str) -> Result<Timestamp, ConsoleProblem> {
    if let Ok(minute) = text.parse() {
        return Ok(minute_begins(minute));
    }
    let time = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
        .into_iter()
        .find_map(|form| chrono::NaiveDateTime::parse_from_str(text, form).ok());
    time.map(|time| time.and_utc().into()).ok_or_else(|| {
        let shown = words::line(text, 40);
        ConsoleProblem::malformed(format!("`{shown}` is no time in UTC for `until`: write 2026-11-30T14:00."))
    })
}

/// A time as a form has it.
pub(super) fn written(time: Timestamp) -> String {
    time.to_string().chars().take("2026-11-30T14:00".len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::console::address::PageName;

    const NOW: Timestamp = Timestamp::from_millis(1_795_348_800_000); // 2026-11-22T12:00Z

    fn range(query: &str) -> Result<HistoryRange, String> {
        let address = ScreenAddress::read(PageName::History, query).expect("an address");
        HistoryRange::of(&address, NOW).map_err(|problem| problem.text().to_owned())
    }

    #[test]
    fn a_range_is_read_from_its_address_and_has_few_steps() {
        let day = range("").expect("a range");
        assert_eq!((day.by, day.hours, day.until, day.is_now), (HistoryBy::Queue, 24, NOW, true));
        assert_eq!((day.step(), day.steps()), (Duration::from_secs(15 * 60), 97));
        for (hours, step) in [(1, 1), (6, 5), (24, 15), (50, 30), (100, 60), (168, 120)] {
            let range = range(&format!("hours={hours}")).expect("a range");
            assert_eq!(range.step(), Duration::from_secs(step * 60), "{hours}");
            assert!(range.steps() <= 101 && range.place(range.begin()) == 0, "{hours}: {}", range.steps());
        }
        let past = range("hours=6&until=2026-11-21T18:30&by=tenant&name=acme").expect("a range");
        assert_eq!(
            (written(past.until).as_str(), written(past.begin()).as_str()),
            ("2026-11-21T18:30", "2026-11-21T12:30")
        );
        assert!(!past.is_now && past.name.as_deref() == Some("acme"));
        let slid = range("hours=6&until=29921430&by=tenant&name=acme").expect("a range");
        assert_eq!(slid, past, "as the slider writes the same time");
        for future in ["2030-01-01T00:00", "99999999", "18446744073709551615"] {
            let range = range(&format!("until={future}")).expect("a range");
            assert!(range.is_now, "{future}: nobody knows the future");
        }
        for (query, text) in [
            ("by=moon", "not told by `moon`"),
            ("hours=0", "1 to 168"),
            ("hours=999", "1 to 168"),
            ("hours=many", "1 to 168"),
            ("until=yesterday", "`yesterday` is no time"),
        ] {
            assert!(range(query).expect_err(query).contains(text), "{query}");
        }
    }
}
