//! The parts that pages are put together from: marks, times, bars, tables, buttons. Their look is in `console.css`.
//!
//! Every text that comes from elsewhere passes through the templates of `maud`, which escape it.

use maud::{Markup, html};

use super::address::{LONGEST, ScreenAddress};
use super::counts::CountingShare;
use super::visit::ConsoleVisit;
use super::{token, words};
use crate::core::Timestamp;

/// What a mark stands for. Each has a shape of its own, and stands beside a word, so that no colour has to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusMark {
    Fine,
    Strained,
    Risk,
    Late,
    Failed,
    Idle,
    Held,
    Run,
    Retry,
    Done,
}

impl StatusMark {
    fn class(self) -> &'static str {
        match self {
            Self::Fine => "mark fine",
            Self::Strained => "mark strained",
            Self::Risk => "mark risk",
            Self::Late => "mark late",
            Self::Failed => "mark failed",
            Self::Idle => "mark idle",
            Self::Held => "mark held",
            Self::Run => "mark run",
            Self::Retry => "mark retry",
            Self::Done => "mark done",
        }
    }
}

/// A mark that says its word itself.
pub(super) fn mark(mark: StatusMark, word: &str) -> Markup {
    html! { i class=(mark.class()) role="img" aria-label=(word) {} }
}

/// A mark beside its word.
pub(super) fn state(mark: StatusMark, word: &str) -> Markup {
    html! { span class="state" { i class=(mark.class()) aria-hidden="true" {} (word) } }
}

/// A time in UTC, which the script shows in the reader's zone.
pub(super) fn time(time: Timestamp) -> Markup {
    html! { time datetime=(time.to_string()) { (words::clock(time)) } }
}

/// The patterns that bars are filled with.
pub(super) fn hatches() -> Markup {
    html! {
        svg class="hidden" aria-hidden="true" {
            defs {
                pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" { path d="M-1 7 7-1M-1 1 1-1M5 7 7 5" {} }
            }
        }
    }
}

/// The headline of a page: one sentence, its scope, and the page's acts.
pub(super) fn headline(sentence: &Markup, scope: &Markup, acts: Option<Markup>) -> Markup {
    html! {
        div class="head" {
            div { h1 { (sentence) } p class="scope" { (scope) } }
            @if let Some(acts) = acts { div class="acts" { (acts) } }
        }
    }
}

/// A card with its title, its scope and its content.
pub(super) fn card(id: &str, title: &str, scope: &Markup, content: &Markup) -> Markup {
    html! {
        section class="card" aria-labelledby=(id) {
            header { h2 id=(id) { (title) } p class="scope" { (scope) } }
            (content)
        }
    }
}

/// A state in which there is nothing to show, and what to do then.
pub(super) fn empty(title: &str, text: &Markup) -> Markup {
    html! {
        section class="card empty" aria-label=(title) {
            svg viewBox="0 0 44 44" aria-hidden="true" {
                rect x="7" y="12" width="30" height="6" rx="1" {}
                rect x="7" y="22" width="30" height="6" rx="1" {}
                rect x="7" y="32" width="16" height="4" rx="1" {}
            }
            h2 { (title) }
            p { (text) }
        }
    }
}

/// A remark that needs to be seen. `kind`: `warn`, `bad`, `good`, or nothing.
pub(super) fn note(kind: &str, text: &Markup) -> Markup {
    html! { p class=(format!("note {kind}")) { (text) } }
}

/// The head of a column, and whether its cells are numbers.
pub(super) type ColumnHead<'a> = (&'a str, bool);

/// A table. `rows` has its `tr` elements; each cell names its column in `data-l` for narrow screens.
pub(super) fn table(labelled_by: &str, columns: &[ColumnHead<'_>], rows: &Markup, caption: &str) -> Markup {
    html! {
        div class="wide" tabindex="0" role="group" aria-labelledby=(labelled_by) {
            table class="rows" {
                thead {
                    tr {
                        @for (name, is_number) in columns {
                            th scope="col" class=[is_number.then_some("n")] {
                                @if name.is_empty() { span class="hidden" { "Act" } } @else { (name) }
                            }
                        }
                    }
                }
                tbody { (rows) }
                caption { (caption) }
            }
        }
    }
}

/// A number in a cell; zero is grey.
pub(super) fn number(label: &str, value: u64) -> Markup {
    html! { td class=(if value == 0 { "n zero" } else { "n" }) data-l=(label) { (words::count(value)) } }
}

/// The share of a promise that is used: a bar from 0 to 150 %, with a line at 100.
pub(super) fn used(share: f64) -> Markup {
    let percent = (share * 100.0).round();
    let (class, word) = match share {
        late if late >= 1.0 => ("f-bad", "bad"),
        near if near >= 0.8 => ("f-warn", "warn"),
        _ => ("calm", ""),
    };
    let width = format!("{:.1}%", (share / 1.5 * 100.0).clamp(0.0, 100.0));
    let shown = if percent >= 1000.0 { "over 999 %".to_owned() } else { format!("{percent:.0} %") };
    html! {
        svg class="bar" role="img" aria-label=(format!("{shown} of the promise used")) {
            rect class="track" y="2" width="100%" height="10" rx="2" {}
            rect class=(class) y="2" width=(width) height="10" rx="1" {}
            line class="halo" x1="66.7%" x2="66.7%" y1="2" y2="12" {}
            line class="goal" x1="66.7%" x2="66.7%" y1="0" y2="14" {}
        }
        b class=[(!word.is_empty()).then_some(word)] { (shown) }
    }
}

/// A bar for a part of a whole, beside the words that say the same.
pub(super) fn thin_bar(part: u64, whole: u64) -> Markup {
    let percent = part.saturating_mul(100).checked_div(whole).unwrap_or(0).min(100);
    html! {
        svg class="bar slots" aria-hidden="true" {
            rect class="track" width="100%" height="6" {}
            rect class="calm" width=(format!("{percent}%")) height="6" {}
        }
    }
}

/// A line through these values, from left to right; the highest value, and at least `least`, is at the top.
pub(super) fn line(values: &[f64], least: f64) -> Markup {
    line_of("line", values, least)
}

/// The same, with a look of its own.
pub(super) fn line_of(class: &str, values: &[f64], least: f64) -> Markup {
    let most = values.iter().copied().fold(least, f64::max);
    let steps = values.len().saturating_sub(1).max(1);
    let mut points = String::new();
    for (at, value) in values.iter().enumerate() {
        let x = at * 1000 / steps;
        let y = 100.0 - (value / most * 96.0).clamp(0.0, 96.0);
        points.push_str(&format!("{}.{},{y:.1} ", x / 10, x % 10));
    }
    html! {
        svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%" {
            polyline class=(class) points=(points.trim_end()) {}
        }
    }
}

/// The hidden fields that every form of an act has.
pub(super) fn act_fields(visit: &ConsoleVisit, act: &str) -> Markup {
    html! {
        input type="hidden" name=(token::FIELD) value=(visit.token.text);
        input type="hidden" name="act" value=(act);
        input type="hidden" name="back" value=(visit.address.relative());
    }
}

/// The address to which acts are sent.
pub(super) fn act_address(visit: &ConsoleVisit) -> String {
    format!("{}/act", visit.console.public)
}

/// How far a count is that goes on, and the link that looks again. A browser looks again by itself.
pub(super) fn counting(share: CountingShare, again: &str) -> Markup {
    let CountingShare { looked_at, of } = share;
    html! {
        div class="pad stack" {
            p role="status" { strong { "Counted " (words::count(looked_at)) @if of > 0 { " of " (words::count(of)) } " so far." } " The count is exact and goes on in the background." }
            @if of > 0 { (thin_bar(looked_at, of)) }
            div class="acts" { a class="button main" href=(again) { "Look again" } }
        }
    }
}

/// A button that does something at once. `what` completes its name for readers of screens.
pub(super) fn act_button(
    visit: &ConsoleVisit,
    act: &str,
    fields: &[(&str, &str)],
    name: &str,
    what: &str,
) -> Markup {
    html! {
        form method="post" action=(act_address(visit)) {
            (act_fields(visit, act))
            @for (field, value) in fields { input type="hidden" name=(field) value=(value); }
            button { (name) span class="hidden" { " " (what) } }
        }
    }
}

/// A link to the page that says what an act will do before it does it.
pub(super) fn ask_first(visit: &ConsoleVisit, question: &ScreenAddress, name: &str, what: &str) -> Markup {
    // An address that is too long for a field is not gone back to: the act is offered all the same.
    let back = Some(visit.address.relative()).filter(|back| back.len() <= LONGEST);
    let question = question.clone().with("back", back.unwrap_or_default());
    html! {
        a class="button" href=(visit.href(&question)) { (name) "…" span class="hidden" { " " (what) } }
    }
}

/// The links to the first page of a list and to the next one.
pub(super) fn pager(visit: &ConsoleVisit, next: Option<&str>, shown: &str) -> Markup {
    let (first, next) = (
        visit.address.get("after").map(|_| visit.address.clone().without("after")),
        next.map(|next| visit.address.clone().with("after", next)),
    );
    html! {
        nav class="pages" aria-label="Pages of the list" {
            @if let Some(first) = first { a rel="first" href=(visit.href(&first)) { "First page" } }
            span class="faint" { (shown) }
            @if let Some(next) = next { a rel="next" href=(visit.href(&next)) { "Next page" } }
        }
    }
}

/// A field of a form with its label.
pub(super) fn field(id: &str, label: &str, hint: &str, input: &Markup) -> Markup {
    html! {
        div class="field" {
            label for=(id) { (label) @if !hint.is_empty() { " " span class="faint" { (hint) } } }
            (input)
        }
    }
}

/// An input for a text.
pub(super) fn text_input(id: &str, name: &str, value: Option<&str>) -> Markup {
    html! { input id=(id) name=(name) value=(value.unwrap_or_default()) autocomplete="off"; }
}

/// A choice of one of several values.
pub(super) fn select(id: &str, name: &str, chosen: Option<&str>, choices: &[(&str, &str)]) -> Markup {
    html! {
        select id=(id) name=(name) {
            @for (value, label) in choices {
                option value=(value) selected[chosen.unwrap_or_default() == *value] { (label) }
            }
        }
    }
}

/// A list of facts.
pub(super) fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! { dl class="facts" { @for (name, value) in facts { dt { (name) } dd { (value) } } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_that_is_used_up_says_so_in_words_and_numbers() {
        let used = |share: f64| used(share).into_string();
        assert!(
            used(0.38).contains("aria-label=\"38 % of the promise used\"") && used(0.38).contains("25.3%")
        );
        assert!(used(1.2).contains("class=\"f-bad\"") && used(1.2).contains("<b class=\"bad\">120 %</b>"));
        assert!(used(1e9).contains("over 999 %") && used(1e9).contains("width=\"100.0%\""));
        assert!(used(0.0).contains("<b>0 %</b>"));
    }

    #[test]
    fn what_others_wrote_is_text_and_nothing_else() {
        let evil = "<script>alert(1)</script>\" onload=\"x";
        for markup in [
            mark(StatusMark::Fine, evil),
            state(StatusMark::Late, evil),
            card(evil, evil, &html! { (evil) }, &html! { (evil) }),
            empty(evil, &html! { (evil) }),
            table(evil, &[(evil, true)], &html! {}, evil),
            field(evil, evil, evil, &text_input(evil, evil, Some(evil))),
            select(evil, evil, Some(evil), &[(evil, evil)]),
            facts(&[(evil, html! { (evil) })]),
        ] {
            let text = markup.into_string();
            assert!(text.contains("&lt;script&gt;"), "{text}");
            assert!(!text.contains("<script") && !text.contains("\" onload=\"x"), "{text}");
        }
    }

    #[test]
    fn a_line_stays_in_its_box() {
        let text = line(&[0.0, 5.0, 10.0], 1.0).into_string();
        assert!(text.contains("points=\"0.0,100.0 50.0,52.0 100.0,4.0\""), "{text}");
        assert!(line(&[], 1.0).into_string().contains("points=\"\""));
        assert!(line(&[f64::MAX], 0.0).into_string().contains("0.0,4.0"));
    }
}
