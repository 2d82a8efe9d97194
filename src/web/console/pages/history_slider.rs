//! The slider that moves the range of the history over the seven days that are kept. It is a form: without the script its button
//! shows the range, and with it the range is shown where the slider rests, and the address follows.

use maud::{Markup, html};

use super::history_range::HistoryRange;
use crate::core::Timestamp;
use crate::core::history::{KEPT_HOURS, minute_begins, minute_of};
use crate::web::console::address::{PageName, ScreenAddress};
use crate::web::console::visit::ConsoleVisit;
use crate::web::console::{parts, words};

/// The lengths of a step of the slider, in minutes. Each divides a day, so that midnight is a step.
const STEPS: [u64; 6] = [5, 15, 30, 60, 120, 240];
const LONGEST_STEP: u64 = 720;

/// Where the range may end, in minutes since 1970. The last place is after now, and stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SliderScale {
    first: u64,
    last: u64,
    step: u64,
    /// The place where the range ends, or the one before that.
    at: u64,
}

impl SliderScale {
    /// The scale for a range of this length. `None`: the range has all that is kept, so it cannot be moved.
    fn of(range: &HistoryRange, now: Timestamp) -> Option<Self> {
        let twelfth = range.hours * 60 / 12;
        let step = STEPS.into_iter().find(|step| *step >= twelfth).unwrap_or(LONGEST_STEP);
        let last = (minute_of(now) / step + 1) * step;
        let room = KEPT_HOURS.saturating_sub(range.hours) * 60;
        let first = last.saturating_sub(room / step * step);
        let at = if range.is_now { last } else { minute_of(range.until) / step * step };
        (first < last).then(|| Self { first, last, step, at: at.clamp(first, last) })
    }
}

/// The slider. A range that has all that is kept has none.
pub(super) fn markup(visit: &ConsoleVisit, range: &HistoryRange, now: Timestamp) -> Markup {
    let Some(SliderScale { first, last, step, at }) = SliderScale::of(range, now) else { return html! {} };
    let spoken = if range.is_now { "now".to_owned() } else { format!("{} UTC", words::clock(range.until)) };
    let others = visit.address.fields().filter(|(name, _)| *name != "until");
    html! {
        form class="slide filters" action=(visit.href(&ScreenAddress::of(PageName::History))) {
            @for (name, value) in others { input type="hidden" name=(name) value=(value); }
            label for="slider" { "The " (range.hours) " h until" }
            span class="small faint" { (parts::time(minute_begins(first))) }
            input id="slider" name="until" type="range" min=(first) max=(last) step=(step) value=(at) aria-valuetext=(spoken);
            span class="small faint" { "now" }
            output for="slider" { @if range.is_now { "now" } @else { (parts::time(range.until)) } }
            button { "Go there" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_348_859_000); // 2026-11-22T12:00:59Z
    const NOON: u64 = 1_795_348_800 / 60;

    fn scale(query: &str) -> Option<SliderScale> {
        let address = ScreenAddress::read(PageName::History, query).expect("an address");
        let range = HistoryRange::of(&address, NOW).unwrap_or_else(|problem| panic!("{}", problem.text()));
        SliderScale::of(&range, NOW)
    }

    #[test]
    fn the_slider_reaches_from_now_to_the_first_range_that_is_kept_whole() {
        for (hours, step) in [(1, 5), (6, 30), (24, 120), (100, 720), (167, 720)] {
            let Some(SliderScale { first, last, step: found, at }) = scale(&format!("hours={hours}")) else {
                assert_eq!(hours, 167, "there is less room than a step");
                continue;
            };
            assert_eq!((found, at), (step, last), "{hours}");
            assert!(last > NOON && last - NOON <= step, "{hours}: the last place is after now");
            let room = (KEPT_HOURS - hours) * 60;
            assert!(last - first <= room && room - (last - first) < step, "{hours}");
            assert_eq!((first % step, last % step, 1_440 % step), (0, 0, 0), "{hours}");
        }
        assert_eq!(scale("hours=168"), None, "it has all that is kept");
    }

    #[test]
    fn the_slider_stands_where_the_range_ends() {
        let at = |query: &str| scale(query).expect("a slider").at;
        assert_eq!(at("hours=6&until=2026-11-22T06:00"), NOON - 360);
        assert_eq!(at("hours=6&until=2026-11-22T06:29"), NOON - 360, "the step before");
        let SliderScale { first, last, .. } = scale("until=2020-01-01T00:00").expect("a slider");
        assert_eq!(at("until=2020-01-01T00:00"), first, "long ago");
        assert_eq!(at(&format!("until={last}")), last, "the last place is now");
        let slid =
            HistoryRange::of(&ScreenAddress::of(PageName::History).with("until", first.to_string()), NOW);
        assert_eq!(slid.unwrap_or_else(|_| panic!("a range")).until, minute_begins(first));
    }
}
