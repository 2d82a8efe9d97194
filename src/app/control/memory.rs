//! How much memory this process occupies: Celery's `memsample` and `memdump`.

use std::fmt::Write as _;

use parking_lot::Mutex;
use serde_json::Value;

use super::{CommandResult, ControlCommand, process};

/// The most samples that are kept; the oldest go.
const MOST: usize = 1_000;

/// The samples since the last dump.
#[derive(Default)]
pub(super) struct MemorySamples(Mutex<Vec<String>>);

/// Takes a sample, and answers with it; null: the system does not say.
pub(super) fn sample(command: &ControlCommand<'_>) -> Value {
    let Some(now) = process::resident().map(human) else { return Value::Null };
    let mut samples = command.state().samples.0.lock();
    if samples.len() >= MOST {
        samples.remove(0);
    }
    samples.push(now.clone());
    now.into()
}

/// The samples, at most so many and evenly chosen, and the memory now.
pub(super) fn dump(command: &ControlCommand<'_>) -> CommandResult {
    let wanted = command.arguments.whole("samples", 10)?;
    let samples = std::mem::take(&mut *command.state().samples.0.lock());
    let end = process::resident().map(human);
    Ok(written(&samples, usize::try_from(wanted).unwrap_or(0), end.as_deref()).into())
}

fn written(samples: &[String], wanted: usize, end: Option<&str>) -> String {
    let Some(end) = end else { return "- rss: (not known on this system).\n".to_owned() };
    let mut text = String::new();
    let step = if samples.len() > wanted { samples.len() / wanted.max(1) } else { 1 };
    // Writing into a string never fails.
    for (n, sample) in samples.iter().step_by(step).take(wanted).enumerate() {
        if n == 0 {
            let _ = writeln!(text, "- rss (sample):");
        }
        let _ = writeln!(text, "-    > {sample},");
    }
    let _ = writeln!(text, "- rss (end): {end}.");
    text
}

/// A number of bytes as Celery shows it: `54.2MB`, with five digits at most.
fn human(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TB"), (1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let (size, unit) = UNITS.into_iter().find(|(size, _)| bytes >= *size).unwrap_or((1, "b"));
    let number = bytes as f64 / size as f64;
    let whole = number.trunc().to_string().len();
    let text = format!("{number:.*}", 5_usize.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_as_celery_shows_it() {
        for (bytes, text) in [
            (0, "0b"),
            (512, "512b"),
            (1536, "1.5KB"),
            (56_832_000, "54.199MB"),
            (1 << 20, "1MB"),
            (1_610_612_736, "1.5GB"),
            (1_099_511_627_776 * 3, "3TB"),
        ] {
            assert_eq!(human(bytes), text);
        }
        let samples: Vec<String> = (1..=25).map(|n| format!("{n}MB")).collect();
        assert_eq!(
            written(&samples[..1], 10, Some("2MB")),
            "- rss (sample):\n-    > 1MB,\n- rss (end): 2MB.\n"
        );
        assert_eq!(written(&samples, 10, Some("2MB")).lines().count(), 12);
        assert_eq!(written(&samples, 0, Some("2MB")), "- rss (end): 2MB.\n");
        assert_eq!(written(&[], 10, None), "- rss: (not known on this system).\n");
    }
}
