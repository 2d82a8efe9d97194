//! Plots in plain SVG: panels with lines over the minutes of a run, one column of them for each case.

use std::fmt::Write as _;

/// The lines of one quantity.
pub struct Panel {
    pub title: &'static str,
    pub unit: &'static str,
    /// Each tenfold takes as much room. Else the scale begins at 0.
    pub is_logarithmic: bool,
    pub lines: Vec<Line>,
}

/// A line by its points: minutes, and the figure then.
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

/// The panels of one case, from the top down.
pub struct Column {
    pub title: String,
    pub panels: Vec<Panel>,
}

/// The size of a panel's field, and the room around it.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 130.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const ABOVE: f64 = 40.0;
const BELOW: f64 = 20.0;
/// The room above all panels.
const HEAD: f64 = 56.0;
/// So many lines of the grid at most.
const GRID: f64 = 5.0;
/// Colours that the colour-blind can tell apart (Okabe and Ito).
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#009e73"];

/// The plot as the text of a file.
pub fn svg(title: &str, columns: &[Column]) -> String {
    let (wide, high) = (LEFT + WIDTH + RIGHT, ABOVE + HEIGHT + BELOW);
    let rows = columns.iter().map(|column| column.panels.len()).max().unwrap_or(0);
    let (width, height) = (wide * columns.len() as f64, HEAD + high * rows as f64);
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="11">"#
    );
    svg.push('\n');
    let _ = writeln!(svg, "<title>{title}</title>");
    let _ = writeln!(svg, r#"<rect width="{width}" height="{height}" fill="white"/>"#);
    let _ = writeln!(svg, r#"<text x="{RIGHT}" y="20" font-size="15">{title}</text>"#);
    for (nth, column) in columns.iter().enumerate() {
        let left = wide * nth as f64 + LEFT;
        let _ = writeln!(svg, r#"<text x="{left}" y="44" font-size="13">{}</text>"#, column.title);
        let end = last_minute(&column.panels);
        for (row, panel) in column.panels.iter().enumerate() {
            let top = HEAD + high * row as f64 + ABOVE;
            panel.draw(&mut svg, (left, top), end);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// The end of the time scale.
fn last_minute(panels: &[Panel]) -> f64 {
    let points = panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
    points.map(|(minute, _)| *minute).fold(0.0, f64::max)
}

impl Panel {
    /// Draws the panel with its field's corner at `left` and `top`.
    fn draw(&self, svg: &mut String, (left, top): (f64, f64), end: f64) {
        let (right, bottom) = (left + WIDTH, top + HEIGHT);
        let above = top - 20.0;
        let _ = writeln!(svg, r#"<text x="{left}" y="{above}" font-weight="bold">{}</text>"#, self.title);
        let scale = Scale::of(self);
        for mark in &scale.marks {
            let y = bottom - HEIGHT * scale.place(*mark);
            let (beside, middle) = (left - 6.0, y + 4.0);
            let _ = writeln!(svg, r##"<path d="M{left:.1} {y:.1}H{right:.1}" stroke="#ddd" fill="none"/>"##);
            let text = format!("{} {}", number(*mark), self.unit);
            let _ = writeln!(
                svg,
                r#"<text x="{beside:.1}" y="{middle:.1}" text-anchor="end">{}</text>"#,
                text.trim_end()
            );
        }
        for minute in marks(end) {
            let (x, y) = (left + WIDTH * part(minute, end), bottom + 14.0);
            let text = number(minute);
            let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="middle">{text} min</text>"#);
        }
        let mut at = left;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let y = top - 6.0;
            let _ = writeln!(svg, r#"<text x="{at:.1}" y="{y:.1}" fill="{colour}">{}</text>"#, line.name);
            at += 7.0 * line.name.chars().count() as f64 + 12.0;
            let _ = write!(svg, r#"<polyline fill="none" stroke="{colour}" stroke-width="1.3" points=""#);
            for (minute, figure) in &line.points {
                let x = left + WIDTH * part(*minute, end);
                let y = bottom - HEIGHT * scale.place(*figure);
                let _ = write!(svg, "{x:.1},{y:.1} ");
            }
            svg.push_str("\"/>\n");
        }
        let _ = writeln!(
            svg,
            r##"<rect x="{left:.1}" y="{top:.1}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>"##
        );
    }
}

/// Where figures are in the field of a panel.
struct Scale {
    /// The figures at which the grid has a line; the last one is the top.
    marks: Vec<f64>,
    is_logarithmic: bool,
}

impl Scale {
    fn of(panel: &Panel) -> Self {
        let figures = panel.lines.iter().flat_map(|line| &line.points).map(|(_, figure)| *figure);
        let most = figures.clone().fold(0.0, f64::max);
        if !panel.is_logarithmic {
            let mut marks = marks(most);
            // The top is a line of the grid, too.
            if marks.last().is_some_and(|last| *last < most) {
                let step = marks.get(1).copied().unwrap_or(most);
                marks.push(marks.len() as f64 * step);
            }
            return Self { marks, is_logarithmic: false };
        }
        let least = figures.filter(|figure| *figure > 0.0).fold(f64::INFINITY, f64::min);
        let (first, last) = if most > 0.0 {
            let first = least.log10().floor();
            (first, most.log10().ceil().max(first + 1.0))
        } else {
            (0.0, 1.0)
        };
        let tenfolds = (first as i32..=last as i32).map(|exponent| 10_f64.powi(exponent));
        Self { marks: tenfolds.collect(), is_logarithmic: true }
    }

    /// How high in the field a figure is, from 0 to 1.
    fn place(&self, figure: f64) -> f64 {
        let (Some(bottom), Some(top)) = (self.marks.first(), self.marks.last()) else { return 0.0 };
        if self.is_logarithmic {
            let figure = figure.max(*bottom);
            return part(figure.log10() - bottom.log10(), top.log10() - bottom.log10());
        }
        part(figure, *top)
    }
}

/// The share of a whole, at most all of it.
fn part(figure: f64, whole: f64) -> f64 {
    if whole > 0.0 { (figure / whole).clamp(0.0, 1.0) } else { 0.0 }
}

/// Round numbers from 0 to `most`, at equal steps.
fn marks(most: f64) -> Vec<f64> {
    if most <= 0.0 {
        return vec![0.0];
    }
    let rough = most / GRID;
    let tenfold = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * tenfold);
    let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(10.0 * tenfold);
    (0..=(most / step + 1e-9) as usize).map(|nth| nth as f64 * step).collect()
}

/// A number as a scale has it.
fn number(figure: f64) -> String {
    let (figure, unit) = match figure {
        f if f >= 1e6 => (f / 1e6, "M"),
        f if f >= 1e3 => (f / 1e3, "k"),
        f => (f, ""),
    };
    format!("{}{unit}", (figure * 1e4).round() / 1e4)
}
