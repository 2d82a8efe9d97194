//! Figures as a reader wants them: a median with its range, a latency with its tail, a table that lines up.

use std::time::Duration;

use hdrhistogram::Histogram;

/// One case's figures, a round each.
#[derive(Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Each round's figure by the same round's figure of a limit: what drifts for both cancels out.
    pub fn over(&self, limit: &Self) -> Self {
        Self(self.0.iter().zip(&limit.0).map(|(figure, limit)| figure / limit).collect())
    }

    /// Median and range, each written by `show`.
    pub fn show(&self, show: impl Fn(f64) -> String) -> String {
        let sorted = self.sorted();
        match (sorted.first(), sorted.last()) {
            (Some(least), Some(most)) if sorted.len() > 1 => {
                format!("{} [{}-{}]", show(self.median()), show(*least), show(*most))
            }
            (Some(only), _) => show(*only),
            _ => "-".to_owned(),
        }
    }
}

/// A number of things per second.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 1e6 => format!("{:.2}M/s", r / 1e6),
        r if r >= 1e4 => format!("{:.0}k/s", r / 1e3),
        r if r >= 1e3 => format!("{:.1}k/s", r / 1e3),
        r => format!("{r:.0}/s"),
    }
}

/// Microseconds.
pub fn micros(micros: f64) -> String {
    format!("{micros:.1} us")
}

/// A share as per cent.
pub fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// A time in the unit that suits it.
pub fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.0} us", s * 1e6),
    }
}

/// Whether a goal is met; nobody fails by it.
pub fn goal(met: bool, text: &str) -> String {
    format!("{} goal: {text}", if met { "PASS " } else { "SHORT of" })
}

/// Whether a tenant waits beside a flood as the fairness of the slots has it: no more than a tenth longer than alone and one task
/// of the flood, which may have to end before a slot is free.
pub fn flood_goal(tail: Duration, alone: Duration, task: Duration) -> String {
    let most = (alone + task).mul_f64(1.1);
    let text = format!(
        "within 10 % of {} alone and a task's length of {}, which is {}",
        time(alone),
        time(task),
        time(most)
    );
    goal(tail <= most, &text)
}

/// Latencies of one case, in nanoseconds, up to a minute.
pub struct Latency(Histogram<u64>);

impl Latency {
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds are valid"))
    }

    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.max(1));
    }

    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share))
    }

    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// Takes in what another one has recorded.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// p50, p99, p99.9, max.
    pub fn tail(&self) -> [Duration; 4] {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.quantile(share));
        [p50, p99, p999, self.max()]
    }

    /// p50, p95, p99, max.
    pub fn cells(&self) -> [String; 4] {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| time(self.quantile(share)));
        [p50, p95, p99, time(self.max())]
    }
}

/// A table in plain text that is Markdown as well.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub fn print(&self, title: &str) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            self.rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        println!("\n{title}\n");
        for (n, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = widths
                .iter()
                .enumerate()
                .map(|(c, width)| format!("{:<width$}", row.get(c).map_or("", String::as_str)))
                .collect();
            println!("| {} |", cells.join(" | "));
            if n == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                println!("|-{}-|", rule.join("-|-"));
            }
        }
    }
}
