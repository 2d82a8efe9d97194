//! The Python client of a fleet, which runs cases, and what a case says that fails: its name and direction, the
//! traceback, and what each worker has logged meanwhile. All of that fits the last lines of a long output.

use serde_json::{Value, json};

use crate::services::Dialogue;

/// The most lines that a failure shows of a traceback and of each log.
const TRACEBACK: usize = 30;
const LOG: usize = 14;
/// The most characters that it shows of a line.
const WIDTH: usize = 300;

/// Runs one case after the other.
pub struct PythonClient {
    dialogue: Dialogue,
    asked: u64,
}

impl PythonClient {
    pub fn new(dialogue: Dialogue) -> Self {
        Self { dialogue, asked: 0 }
    }

    /// Runs a case: what it returns, or why it failed.
    pub fn run(&mut self, case: &str, arguments: &Value) -> Result<Value, String> {
        self.asked += 1;
        let order = json!({ "number": self.asked, "case": case, "arguments": arguments });
        let mut said = self.dialogue.ask(&order.to_string())?;
        loop {
            let mut answer: Value =
                serde_json::from_str(&said).map_err(|error| format!("`{said}` is no answer: {error}"))?;
            if answer["number"] != self.asked {
                // The answer of an earlier case, which was given up.
                said = self.dialogue.next_answer()?;
                continue;
            }
            return match answer.get("error").and_then(Value::as_str) {
                Some(traceback) => Err(traceback.to_owned()),
                None => Ok(answer["value"].take()),
            };
        }
    }
}

/// What a case says that has failed. `logs` are the names of the workers, and what each has logged during the case.
pub fn failure(case: &str, arguments: &Value, why: &str, logs: &[(String, String)]) -> String {
    let given = arguments.as_object().into_iter().flatten();
    let given: Vec<String> = given.map(|(name, value)| format!("{name} = {value}")).collect();
    let mut text = format!("{case} failed with {}:\n{}", given.join(", "), excerpt(why, TRACEBACK));
    for (node, log) in logs {
        text += &format!("-- {node} has logged meanwhile:\n{}", excerpt(log, LOG));
    }
    text
}

/// So many lines of a text at most: a third from its beginning, the rest from its end.
fn excerpt(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let left_out = lines.len().saturating_sub(most);
    let first = if left_out == 0 { lines.len() } else { most / 3 };
    let mut shown: Vec<String> = lines[..first].iter().map(|line| shortened(line)).collect();
    if left_out > 0 {
        shown.push(format!("   ({left_out} more lines)"));
    }
    shown.extend(lines[first + left_out..].iter().map(|line| shortened(line)));
    shown.into_iter().map(|line| line + "\n").collect()
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

#[test]
fn a_failure_is_short_and_shows_both_ends_of_what_is_long() {
    let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
    let logs = [("a@localhost".to_owned(), "x".repeat(1000)), ("b@localhost".to_owned(), String::new())];
    let arguments = json!({ "here": "rust", "there": "python" });
    let text = failure("canvas.chained", &arguments, &lines.join("\n"), &logs);
    let shown: Vec<&str> = text.lines().collect();
    assert_eq!(shown[0], r#"canvas.chained failed with here = "rust", there = "python":"#);
    assert_eq!((shown[1], shown[10], shown[11]), ("line 0", "line 9", "   (70 more lines)"));
    assert_eq!((shown[12], shown[31]), ("line 80", "line 99"));
    assert_eq!((shown[32], shown[33].len()), ("-- a@localhost has logged meanwhile:", WIDTH + 3));
    assert_eq!(shown[34..], ["-- b@localhost has logged meanwhile:"]);
}
