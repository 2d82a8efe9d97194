//! What the run says: which tests are not as the lists have it.

use std::process::ExitCode;
use std::time::Duration;

use crate::lists::Lists;
use crate::suite::Outcome;

/// Tells what is not as the lists have it, and fails if a test fails that has passed, or that no list has a reason for,
/// or if a test passes that stands among the failing ones: that list may only shrink.
pub fn tell(lists: &Lists, chosen: &[&str], outcomes: &[Outcome], took: Duration) -> ExitCode {
    let (mut passed, mut known) = (0, 0);
    let mut wrong = Vec::new();
    for test in chosen {
        let outcome = outcomes.iter().find(|outcome| outcome.test == *test);
        if outcome.is_some_and(Outcome::passed) {
            if lists.fails(test) {
                wrong.push((test, "it passes: move its line from fails-5.7.0.txt to passes-5.7.0.txt"));
                continue;
            }
            passed += 1;
            if !lists.passes(test) {
                println!("add it to passes-5.7.0.txt, it passes: {test}");
            }
        } else if lists.fails(test) {
            known += 1;
        } else {
            wrong.push((test, outcome.map_or("it did not run", |outcome| outcome.why.as_str())));
        }
    }
    for (test, why) in &wrong {
        println!("\n---- {test}\n{why}");
    }
    let result = if wrong.is_empty() { "ok" } else { "FAILED" };
    let (failed, seconds) = (wrong.len(), took.as_secs_f64());
    let counts = format!("{passed} passed; {failed} failed; {known} ignored; 0 measured; 0 filtered out");
    println!("\ntest result: {result}. {counts}; finished in {seconds:.2}s");
    if known > 0 {
        println!("(ignored: known to fail, each with its reason in fails-5.7.0.txt)");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
