//! The screen of `celeriac top`, drawn from its state.
//!
//! Colour only repeats what a mark says. A screen that is too narrow loses columns, and one that is too low loses the panel
//! first, and then rows from below.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::state::{TopPage, TopState};
use crate::catalogue::{format_span, one_line};
use crate::core::explanation::Remedy;
use crate::core::report::{Diagnosis, Finding, QueueCondition, QueueFigures, promise_used};

/// How many cells a bar has, for 0 to 150 % of the promise.
const BAR: usize = 12;
/// The cell of a bar at 100 %.
const PROMISE: usize = 8;
/// The least and the most room for the name of a queue.
const NAME: (u16, u16) = (12, 40);
/// The lines above the rows: the head, the sentence, the figures, a blank and the headings.
const HEAD: u16 = 6;
/// The most lines of the panel.
const PANEL: u16 = 6;

/// The room for a word before a text.
const MARGIN: usize = 7;

/// A column behind the name.
struct ScreenColumn {
    heading: &'static str,
    width: u16,
    /// The least width of the screen on which it is shown.
    from: u16,
    cell: fn(&QueueFigures) -> String,
}

const COLUMNS: [ScreenColumn; 9] = [
    ScreenColumn {
        heading: "PROMISE",
        width: 8,
        from: 40,
        cell: |queue| queue.target.map_or("none".to_owned(), brief),
    },
    ScreenColumn { heading: "USED NOW", width: 18, from: 60, cell: used },
    ScreenColumn { heading: "p50", width: 7, from: 110, cell: |queue| waited(queue, queue.p50) },
    ScreenColumn { heading: "p95", width: 7, from: 80, cell: |queue| waited(queue, queue.p95) },
    ScreenColumn { heading: "READY", width: 8, from: 0, cell: |queue| queue.ready.to_string() },
    ScreenColumn {
        heading: "RUN",
        width: 8,
        from: 70,
        cell: |queue| format!("{}/{}", queue.running, queue.workers),
    },
    ScreenColumn { heading: "SCHED", width: 7, from: 110, cell: |queue| queue.scheduled.to_string() },
    ScreenColumn { heading: "FAILED", width: 7, from: 100, cell: |queue| queue.failed.to_string() },
    ScreenColumn { heading: "BLOCKED", width: 8, from: 90, cell: blocked },
];

/// Draws the screen.
pub(super) fn draw(state: &TopState, area: Rect, buffer: &mut Buffer) {
    let mut pen = Pen { buffer, area, line: 0 };
    let Some(diagnosis) = &state.diagnosis else {
        pen.write(state.error.as_deref().unwrap_or("Looking …"), Style::new());
        return;
    };
    match state.page {
        TopPage::Queues => queues(state, diagnosis, &mut pen),
        TopPage::Queue => queue(state, diagnosis, &mut pen),
        TopPage::Help => help(&mut pen),
    }
    foot(state, &mut pen);
}

/// The whole first page as lines, for whoever has no terminal.
pub(super) fn printed(state: &TopState, width: u16) -> Vec<String> {
    let rows = u16::try_from(state.queues().len()).unwrap_or(u16::MAX).min(10_000);
    let area = Rect::new(0, 0, width, rows + HEAD + PANEL + 5);
    let mut buffer = Buffer::empty(area);
    draw(state, area, &mut buffer);
    let mut lines = lines(&buffer);
    lines.pop(); // it names keys
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// The lines of a buffer, without the room behind the last letter.
fn lines(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let line = |y: u16| {
        let cells = (area.left()..area.right()).filter_map(|x| buffer.cell((x, y)));
        let line: String = cells.map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    };
    (area.top()..area.bottom()).map(line).collect()
}

/// Writes one line after the other.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    line: u16,
}

impl Pen<'_> {
    /// How many lines are left above the last one, which is the foot's.
    fn room(&self) -> u16 {
        self.area.height.saturating_sub(self.line).saturating_sub(1)
    }

    /// Writes a line, if there is room for it.
    fn write(&mut self, text: &str, style: Style) {
        if self.room() > 0 || self.line == 0 {
            self.write_at(self.line, text, style);
            self.line += 1;
        }
    }

    /// Writes a text in at most so many lines, broken at words.
    fn write_wrapped(&mut self, text: &str, most: usize, style: Style) {
        for line in wrapped(text, usize::from(self.area.width), most) {
            self.write(&line, style);
        }
    }

    fn write_at(&mut self, line: u16, text: &str, style: Style) {
        if line < self.area.height {
            let (x, y) = (self.area.x, self.area.y + line);
            // What could steer the terminal is left out there.
            self.buffer.set_stringn(x, y, text, usize::from(self.area.width), style);
        }
    }
}

fn queues(state: &TopState, diagnosis: &Diagnosis, pen: &mut Pen<'_>) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let processes = match diagnosis.processes.len() {
        0 => String::new(),
        1 => "   1 process".to_owned(),
        several => format!("   {several} processes"),
    };
    pen.write(&format!("celeriac top   {}   {}{processes}", state.place, diagnosis.as_of), Style::new());
    pen.write_wrapped(&diagnosis.sentence, 2, bold);
    let sum = |of: fn(&QueueFigures) -> u64| -> u64 {
        state.queues().iter().fold(0, |sum, queue| sum.saturating_add(of(queue)))
    };
    let figures = format!(
        "ready {}   running {} of {}   scheduled {}   in lanes {}   held {}   failed {}",
        sum(|queue| queue.ready),
        sum(|queue| queue.running as u64),
        sum(|queue| queue.workers as u64),
        sum(|queue| queue.scheduled),
        sum(|queue| queue.in_line),
        sum(|queue| queue.held),
        sum(|queue| queue.failed),
    );
    pen.write(&figures, Style::new());
    pen.write("", Style::new());
    let width = pen.area.width;
    pen.write(&row(width, "  ", "QUEUE", |column| column.heading.to_owned()), Style::new());
    let panel = panel(state, diagnosis, usize::from(width));
    let panel_lines = u16::try_from(panel.len()).unwrap_or(PANEL);
    let room = pen.room();
    // The panel goes first.
    let has_panel = room > panel_lines.saturating_add(3);
    let rows = usize::from(if has_panel { room - panel_lines } else { room });
    let chosen = state.place_of_chosen().unwrap_or_default();
    let first = (chosen + 1).saturating_sub(rows);
    for (place, queue) in state.queues().iter().enumerate().skip(first).take(rows) {
        let (mark, colour) = mark(QueueCondition::of(queue));
        let colour = colour.filter(|_| state.has_colours);
        let style = colour.map_or(Style::new(), |colour| Style::new().fg(colour));
        let style = if place == chosen { style.add_modifier(Modifier::REVERSED) } else { style };
        pen.write(&row(width, mark, &queue.name, |column| (column.cell)(queue)), style);
    }
    if has_panel {
        panel.iter().for_each(|line| pen.write(line, Style::new()));
    }
}

/// What is to be said of the queue that is chosen, or else of the first finding.
fn panel(state: &TopState, diagnosis: &Diagnosis, width: usize) -> Vec<String> {
    let of_chosen = state.chosen().and_then(|queue| diagnosis.of_queue(&queue.name));
    let Some(finding) = of_chosen.or(diagnosis.findings.first()) else { return Vec::new() };
    let mut lines = vec![format!("── {} ", finding.queue.as_deref().unwrap_or("not about one queue"))];
    let causes: Vec<&str> = finding.causes.iter().map(|cause| cause.says.as_str()).collect();
    lines.extend(said("why", &causes.join(" "), width, 2));
    let ruled_out: Vec<&str> = finding.ruled_out.iter().map(|cause| cause.says.as_str()).collect();
    if !ruled_out.is_empty() {
        lines.extend(said("not", &ruled_out.join(" "), width, 1));
    }
    let helps = finding.causes.iter().flat_map(|cause| &cause.remedies).take(2);
    lines.extend(helps.flat_map(|remedy| said("helps", &by_whom(remedy), width, 1)));
    lines.truncate(usize::from(PANEL));
    lines
}

fn queue(state: &TopState, diagnosis: &Diagnosis, pen: &mut Pen<'_>) {
    let Some(queue) = state.chosen() else {
        pen.write("This queue is gone.", Style::new());
        return;
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let condition = QueueCondition::of(queue);
    pen.write(
        &format!("{} {}   {}   {}", mark(condition).0, queue.name, condition.as_str(), diagnosis.as_of),
        bold,
    );
    pen.write("", Style::new());
    let promise = queue.target.map_or("none".to_owned(), brief);
    let figures = [
        ("promise", format!("{promise}   used now {}", used(queue).trim())),
        ("time-to-start", format!("p50 {}   p95 {}", waited(queue, queue.p50), waited(queue, queue.p95))),
        ("running", format!("{} of {} workers", queue.running, queue.workers)),
        (
            "waiting",
            format!(
                "ready {}   held {}   scheduled {}   in lanes {}",
                queue.ready, queue.held, queue.scheduled, queue.in_line
            ),
        ),
        ("over", format!("failed {}   dead letters {}", queue.failed, queue.dead)),
        ("blocked", blocked(queue)),
    ];
    for (name, figures) in figures {
        pen.write(&format!("{name:<14} {figures}"), Style::new());
    }
    pen.write("", Style::new());
    match diagnosis.of_queue(&queue.name) {
        Some(finding) => told(finding, pen),
        None => pen.write("Nothing in it needs a person.", Style::new()),
    }
}

fn told(finding: &Finding, pen: &mut Pen<'_>) {
    pen.write_wrapped(&finding.sentence, 2, Style::new().add_modifier(Modifier::BOLD));
    let width = usize::from(pen.area.width);
    let mut lines = Vec::new();
    for cause in &finding.causes {
        lines.extend(said("why", &cause.says, width, 3));
        lines.extend(cause.remedies.iter().flat_map(|remedy| said("helps", &by_whom(remedy), width, 2)));
    }
    lines.extend(finding.ruled_out.iter().flat_map(|cause| said("not", &cause.says, width, 1)));
    lines.iter().for_each(|line| pen.write(line, Style::new()));
}

fn by_whom(remedy: &Remedy) -> String {
    format!("{}: {}", remedy.by.as_str(), remedy.says)
}

/// A text behind a word of the margin, in at most so many lines.
fn said(word: &str, text: &str, width: usize, most: usize) -> Vec<String> {
    let lines = wrapped(text, width.saturating_sub(MARGIN), most).into_iter().enumerate();
    lines.map(|(at, line)| format!("{:<MARGIN$}{line}", if at == 0 { word } else { "" })).collect()
}

fn help(pen: &mut Pen<'_>) {
    for line in [
        "Keys",
        "",
        "up, down, k, j   the queue before, the queue after",
        "Enter            the page of the queue",
        "Esc              back to all queues",
        "p                pause the queue, or let it go on; y confirms",
        "?                these keys",
        "q                quit",
        "",
        "■ late, stuck, halted, or served by nobody   ▲ will be late soon   ◆ over half used   ‖ held   ● within   ○ idle",
        "The bar goes from 0 to 150 % of the promise; ┃ is 100 %.",
    ] {
        pen.write(line, Style::new());
    }
}

/// The last line: a question, what came of an act, an error, or the keys.
fn foot(state: &TopState, pen: &mut Pen<'_>) {
    let line = pen.area.height.saturating_sub(1);
    let text = match (&state.asks, &state.notice, &state.error) {
        (Some((queue, true)), ..) => {
            let ready = state.chosen().map_or(0, |queue| queue.ready);
            format!(
                "Pause {queue} in all programs, so that nothing more starts in it? {ready} tasks are ready. y/N"
            )
        }
        (Some((queue, false)), ..) => format!("Let {queue} go on in all programs? y/N"),
        (None, Some(notice), _) => one_line(notice),
        (None, None, Some(error)) => format!("These figures are old: {}", one_line(error)),
        (None, None, None) => "↑↓ queue   Enter open   Esc back   p pause   ? keys   q quit".to_owned(),
    };
    pen.write_at(line, &text, Style::new().add_modifier(Modifier::DIM));
}

/// A row: the mark, the name, and the columns for which the screen is wide enough.
fn row(width: u16, mark: &str, name: &str, cell: impl Fn(&ScreenColumn) -> String) -> String {
    let shown: Vec<&ScreenColumn> = COLUMNS.iter().filter(|column| width >= column.from).collect();
    let taken: u16 = shown.iter().map(|column| column.width + 1).sum::<u16>() + 2;
    let room = usize::from(width.saturating_sub(taken).clamp(NAME.0, NAME.1));
    let name: String = one_line(name).chars().take(room).collect();
    let mut text = format!("{mark:<2}{name:<room$}");
    for column in shown {
        text.push(' ');
        text.push_str(&format!("{:>1$}", cell(column), usize::from(column.width)));
    }
    text
}

/// The mark of a condition, and the colour that repeats it.
fn mark(condition: QueueCondition) -> (&'static str, Option<Color>) {
    match condition {
        QueueCondition::Halted | QueueCondition::Late | QueueCondition::Stuck | QueueCondition::Unserved => {
            ("■", Some(Color::Red))
        }
        QueueCondition::AtRisk => ("▲", Some(Color::Yellow)),
        QueueCondition::Strained => ("◆", Some(Color::Yellow)),
        QueueCondition::Silent | QueueCondition::Paused | QueueCondition::Away => ("‖", Some(Color::Yellow)),
        QueueCondition::Fine => ("●", None),
        QueueCondition::Idle => ("○", None),
    }
}

/// The bar and the share of the promise that is used.
fn used(queue: &QueueFigures) -> String {
    let Some(share) = promise_used(queue) else { return String::new() };
    let percent = (share * 100.0).min(9_999.0);
    // The share lies between 0 and 9,999 percent, so the casts lose nothing that the bar would show.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
    let filled = ((percent / 150.0 * BAR as f64).round() as usize).min(BAR);
    let cell = |at: usize| match (at < filled, at == PROMISE) {
        (true, true) => '╋',
        (true, false) => '█',
        (false, true) => '┃',
        (false, false) => '·',
    };
    let bar: String = (0..BAR).map(cell).collect();
    format!("{bar}{percent:>4.0}%")
}

/// A wait for the first start, if there was one.
fn waited(queue: &QueueFigures, wait: Duration) -> String {
    if queue.starts == 0 { "-".to_owned() } else { brief(wait) }
}

fn blocked(queue: &QueueFigures) -> String {
    if queue.blockage.is_zero() { "-".to_owned() } else { brief(queue.blockage) }
}

/// A span of time in few letters: `40ms`, `2.5s`, `31s`, `1m5s`, `3h`.
fn brief(span: Duration) -> String {
    const HOUR: u64 = 3_600;
    match span.as_secs() {
        0 => format!("{}ms", span.as_millis()),
        1..10 if span.subsec_millis() >= 50 => format!("{:.1}s", span.as_secs_f64()),
        secs @ ..HOUR => format_span(Duration::from_secs(secs)),
        secs @ HOUR..86_400 => format_span(Duration::from_secs(secs / 60 * 60)),
        secs => format!("{}d", secs / 86_400),
    }
}

/// A text in lines of so many letters, broken at words. What is behind the last line is cut.
fn wrapped(text: &str, width: usize, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in one_line(text).split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let is_full = line.chars().count() + 1 + word.chars().count() > width;
        if is_full && !line.is_empty() {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.truncate(most);
    lines
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::state::TopKey;
    use super::*;
    use crate::core::Timestamp;
    use crate::core::report::{ProcessFigures, ReportFacts, diagnose};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn state() -> TopState {
        let mut facts = ReportFacts::at(Timestamp::from_millis(1_795_348_800_000)); // 2026-11-22T12:00Z
        let late = QueueFigures {
            target: Some(seconds(30)),
            oldest_wait: seconds(36),
            blockage: seconds(5),
            workers: 4,
            running: 4,
            ready: 231,
            starts: 9,
            p50: Duration::from_millis(1_200),
            p95: seconds(24),
            failed: 3,
            ..QueueFigures::named("export")
        };
        let fine = QueueFigures { workers: 2, running: 1, scheduled: 7, ..QueueFigures::named("email") };
        facts.queues = vec![QueueFigures::named("sms"), fine, late];
        facts.processes = vec![ProcessFigures::default(); 2];
        let mut state = TopState::new("all programs on RabbitMQ", false);
        state.looked(Ok(diagnose(facts)));
        state
    }

    /// The lines of a screen of this size.
    fn screen(state: &TopState, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        let drawn = terminal.draw(|frame| {
            let area = frame.area();
            draw(state, area, frame.buffer_mut());
        });
        lines(drawn.expect("a frame").buffer)
    }

    #[test]
    fn the_first_page_has_the_sentence_the_queues_and_the_reasons() {
        let lines = screen(&state(), 120, 24);
        let all = lines.join("\n");
        assert_eq!(
            lines[0],
            "celeriac top   all programs on RabbitMQ   2026-11-22T12:00:00.000Z   2 processes"
        );
        assert!(
            lines[1].starts_with("Queue `export` is late: its oldest ready task has waited for 36 s"),
            "{all}"
        );
        let row = lines.iter().find(|line| line.starts_with("■ export")).expect("its row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(
            cells,
            ["■", "export", "30s", "████████╋█··", "120%", "1.2s", "24s", "231", "4/4", "0", "3", "5s"]
        );
        let place = |start: &str| lines.iter().position(|line| line.starts_with(start)).expect(start);
        assert!(place("■ export") < place("● email") && place("● email") < place("○ sms"), "{all}");
        assert!(all.contains("why    All 4 workers of queue `export` have a task."), "{all}");
        assert!(all.contains("helps  operator: Give the queue more workers"), "{all}");
        assert_eq!(lines[23], "↑↓ queue   Enter open   Esc back   p pause   ? keys   q quit");
    }

    #[test]
    fn any_size_is_drawn_and_the_panel_goes_before_the_rows() {
        for (width, height) in [(0, 0), (1, 1), (5, 3), (20, 5), (40, 8), (80, 24), (300, 100)] {
            let lines = screen(&state(), width.max(1), height.max(1));
            assert_eq!(lines.len(), usize::from(height.max(1)));
            let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
            draw(&state(), buffer.area, &mut buffer);
        }
        let low = screen(&state(), 80, 11).join("\n");
        assert!(low.contains("■ export") && low.contains("○ sms") && !low.contains("why    "), "{low}");
        let narrow = screen(&state(), 40, 24).join("\n");
        assert!(
            narrow.contains("READY") && narrow.contains("PROMISE") && !narrow.contains("p95"),
            "{narrow}"
        );
    }

    #[test]
    fn the_page_of_a_queue_the_question_and_the_help_are_drawn() {
        let mut state = state();
        state.press(TopKey::Open);
        let page = screen(&state, 100, 30).join("\n");
        for text in [
            "■ export   late",
            "p50 1.2s   p95 24s",
            "4 of 4 workers",
            "not    Queue `export` is not paused.",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        state.press(TopKey::Pause);
        let asked = screen(&state, 120, 30);
        let question =
            "Pause export in all programs, so that nothing more starts in it? 231 tasks are ready. y/N";
        assert_eq!(asked[29], question);
        state.press(TopKey::Other);
        assert_eq!(screen(&state, 100, 30)[29], "Nothing was done.");
        state.press(TopKey::Help);
        assert!(screen(&state, 100, 30).join("\n").contains("Enter            the page of the queue"));
        state.looked(Err("Error: No nodes replied".to_owned()));
        assert_eq!(screen(&state, 100, 30)[29], "These figures are old: Error: No nodes replied");
    }

    #[test]
    fn a_printed_frame_has_all_queues_and_no_keys() {
        let lines = printed(&state(), 120);
        assert!(lines.iter().any(|line| line.starts_with("○ sms")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("q quit")), "{lines:?}");
        assert!(lines.last().is_some_and(|line| line.starts_with("helps  operator")), "{lines:?}");
        assert_eq!(printed(&TopState::new("here", false), 80), ["Looking …"]);
    }

    #[test]
    fn spans_are_brief() {
        for (span, expected) in [
            (Duration::from_millis(40), "40ms"),
            (Duration::from_millis(2_500), "2.5s"),
            (seconds(9), "9s"),
            (seconds(65), "1m5s"),
            (seconds(3_605), "1h"),
            (seconds(90_000), "1d"),
        ] {
            assert_eq!(brief(span), expected);
        }
    }
}
