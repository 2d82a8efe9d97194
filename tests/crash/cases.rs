//! Cases of a program that is parent and child: it runs those that are asked for and tells of them as `cargo test` does, or
//! plays the role that it was started for.

use std::process::ExitCode;
use std::time::Instant;

/// A case by its name.
pub type Case = (&'static str, fn());

/// `child` plays the role that the environment names. Of two programs that run side by side, one is told `--part=1/2`
/// and runs every other case from the first one on, and one is told `--part=2/2` and runs the rest.
pub fn run(cases: &[Case], child: fn(&str) -> ExitCode) -> ExitCode {
    if let Ok(role) = std::env::var("CRASH_ROLE") {
        return child(&role);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let (part, parts) =
        arguments.iter().find_map(|argument| argument.strip_prefix("--part=")).map_or((1, 1), read);
    let chosen = cases.iter().skip(part - 1).step_by(parts).filter(|(name, _)| {
        wanted.is_empty() || wanted.iter().any(|w| if exact { name == w } else { name.contains(w.as_str()) })
    });
    let (mut passed, mut failed) = (0, 0);
    let begin = Instant::now();
    for (name, case) in chosen {
        println!("case {name} ...");
        let start = Instant::now();
        let ok = std::panic::catch_unwind(case).is_ok();
        let verdict = if ok { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1} s)", start.elapsed().as_secs_f64());
        *if ok { &mut passed } else { &mut failed } += 1;
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let left_out = cases.len() - passed - failed;
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left_out} filtered out; finished in {:.2}s",
        begin.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `1/2`: the first of two parts.
fn read(part: &str) -> (usize, usize) {
    let numbers =
        part.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    let is_one = |(part, parts): &(usize, usize)| (1..=*parts).contains(part);
    numbers
        .filter(is_one)
        .unwrap_or_else(|| panic!("`--part={part}` is none; `--part=1/2` is the first of two"))
}
