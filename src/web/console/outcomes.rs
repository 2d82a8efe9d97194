//! What came of an act, in words: for the page to which it leads back, the log and the page of acts.

use super::problem::ConsoleProblem;
use super::words;
use crate::app::BrakeScope;
use crate::broker::Retried;

/// Where a brake holds, in words.
pub(super) fn reach(scope: BrakeScope) -> &'static str {
    match scope {
        BrakeScope::Fleet => "in all programs that keep their notes in the same place, within a second",
        BrakeScope::Process => "in this program, until it ends",
    }
}

/// What came of deleting tasks.
pub(super) fn deleted(count: usize) -> String {
    match count {
        0 => "none was there any more".to_owned(),
        count => format!("{} deleted", words::counted(count as u64, "task is", "tasks are")),
    }
}

/// What came of trying tasks again. That none could be is an error.
pub(super) fn retried(retried: &Retried) -> Result<String, ConsoleProblem> {
    let Retried { ids, refused } = retried;
    let back = words::counted(ids.len() as u64, "task waits", "tasks wait");
    match refused.first() {
        None if ids.is_empty() => Ok("none was there any more, or it waits already".to_owned()),
        None => Ok(format!("{back} in the queue again")),
        Some((id, why)) if ids.is_empty() => Err(ConsoleProblem::malformed(format!(
            "{} not go back. The first is {id}: {}",
            words::counted(refused.len() as u64, "task could", "tasks could"),
            words::line(why, 300)
        ))),
        Some((id, why)) => Ok(format!(
            "{back} in the queue again; {} not. The first is {id}: {}",
            words::counted(refused.len() as u64, "could", "could"),
            words::line(why, 300)
        )),
    }
}
