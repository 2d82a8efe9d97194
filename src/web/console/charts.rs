//! Charts as the server draws them. Each has a sentence that says the same.

use maud::{Markup, html};

use super::parts;

/// A line of a chart, with how it looks: `line`, or `line q` for one that is dotted.
pub(super) type ChartLine<'a> = (&'a str, &'a [f64]);

/// The highest of all values, and at least 1.
pub(super) fn highest(lines: &[ChartLine<'_>]) -> f64 {
    lines.iter().flat_map(|(_, values)| values.iter().copied()).fold(1.0, f64::max)
}

/// A card with a chart. All lines have one scale, whose top is written as `top`. `marks` are where something happened that may
/// explain a bend, from 0 at the left to 1 at the right.
pub(super) fn card(
    id: &str,
    title: &str,
    what: &str,
    lines: &[ChartLine<'_>],
    says: (&str, &str),
    marks: &[f64],
) -> Markup {
    parts::card(id, title, &html! { (what) }, &html! { div class="pad" { (chart(lines, says, marks)) } })
}

/// A chart as in a [`card`], with the sentence that says the same below it.
pub(super) fn chart(lines: &[ChartLine<'_>], (top, spoken): (&str, &str), marks: &[f64]) -> Markup {
    let highest = highest(lines);
    let at = |mark: &f64| format!("{:.1}%", mark.clamp(0.0, 1.0) * 100.0);
    html! {
        svg class="strip" role="img" aria-label=(spoken) {
            line class="grid" x1="0" x2="100%" y1="4%" y2="4%" {}
            line class="axis" x1="0" x2="100%" y1="100%" y2="100%" {}
            @for mark in marks { line class="deploy" x1=(at(mark)) x2=(at(mark)) y1="0" y2="100%" {} }
            @for (class, values) in lines { (parts::line_of(class, values, highest)) }
            text x="2" y="14" { (top) }
        }
        p class="small faint" { (spoken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_of_a_chart_have_one_scale_and_its_marks_stay_in_the_box() {
        let (low, high) = ([0.0, 5.0], [10.0, 0.0]);
        let lines: [ChartLine<'_>; 2] = [("line", &low), ("line q", &high)];
        let text = card("c", "C", "<b>", &lines, ("10", "<i>"), &[0.5, 7.0]).into_string();
        assert!(
            text.contains("points=\"0.0,100.0 100.0,52.0\"")
                && text.contains("points=\"0.0,4.0 100.0,100.0\""),
            "{text}"
        );
        assert!(text.contains("x1=\"50.0%\"") && text.contains("x1=\"100.0%\""), "{text}");
        assert!(text.contains("&lt;b&gt;") && text.contains("&lt;i&gt;"), "{text}");
        assert!((highest(&[]) - 1.0).abs() < f64::EPSILON);
    }
}
