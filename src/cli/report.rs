//! `celeriac report`: says which queue misses its promise, what presses it, what was ruled out, and who can do what about it.

use std::io::Write;

use clap::Args;

use super::Failure;
use super::figures::FiguresArgs;
use crate::catalogue::one_line;
use crate::core::report::{Diagnosis, Finding, diagnose};

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    figures: FiguresArgs,
    /// Print the report as JSON.
    #[arg(short, long)]
    json: bool,
}

pub(super) fn run(args: &ReportArgs, out: &mut impl Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let diagnosis = runtime.block_on(async {
        let source = args.figures.open().await?;
        let facts = source.look().await;
        let closed = source.close().await;
        let facts = facts?;
        closed?;
        Ok::<_, Failure>(diagnose(facts))
    })?;
    match args.json {
        true => {
            let text = serde_json::to_string(&diagnosis).map_err(std::io::Error::other)?;
            writeln!(out, "{text}")?;
        }
        false => write!(out, "{}", text(&diagnosis))?,
    }
    out.flush()?; // before the last word, which goes to standard error
    match diagnosis.findings.len() {
        0 => Ok(()),
        1 => Err(Failure::Found("1 finding needs a person.".to_owned())),
        found => Err(Failure::Found(format!("{found} findings need a person."))),
    }
}

/// The report as text.
fn text(diagnosis: &Diagnosis) -> String {
    let mut lines = vec![one_line(&diagnosis.sentence)];
    for finding in &diagnosis.findings {
        lines.push(String::new());
        lines.extend(of_finding(finding, diagnosis));
    }
    if !diagnosis.findings.is_empty() {
        lines.push(String::new());
    }
    let scope = &diagnosis.scope;
    lines.extend(scope.cannot_know.iter().map(|text| format!("not known: {}", one_line(text))));
    if !scope.silent.is_empty() {
        lines.push(format!("did not answer: {}", one_line(&scope.silent.join(", "))));
    }
    let asked = if scope.asked.is_empty() { "nobody".to_owned() } else { scope.asked.join(", ") };
    lines.push(format!("asked: {}, at {}", one_line(&asked), diagnosis.as_of));
    lines.join("\n") + "\n"
}

fn of_finding(finding: &Finding, diagnosis: &Diagnosis) -> Vec<String> {
    let mut lines = vec![one_line(&finding.sentence)];
    if let (Some(since), Some(lasts)) = (finding.since, finding.lasts(diagnosis.as_of)) {
        lines.push(format!("  since: {since}, for {lasts}"));
    }
    for (index, cause) in finding.causes.iter().enumerate() {
        let word = if index == 0 { "cause" } else { "also" };
        lines.push(format!("  {word}: {}", one_line(&cause.says)));
        for remedy in &cause.remedies {
            lines.push(format!("    {}: {}", remedy.by.as_str(), one_line(&remedy.says)));
        }
    }
    if !finding.ruled_out.is_empty() {
        let all: Vec<String> = finding.ruled_out.iter().map(|cause| one_line(&cause.says)).collect();
        lines.push(format!("  ruled out: {}", all.join(" ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::Timestamp;
    use crate::core::report::{QueueFigures, ReportFacts};

    #[test]
    fn the_text_says_all_that_the_json_does() {
        let at = Timestamp::from_millis(1_795_348_800_000); // 2026-11-22T12:00Z
        let mut facts = ReportFacts::at(at);
        facts.queues = vec![QueueFigures {
            target: Some(Duration::from_secs(30)),
            oldest_wait: Duration::from_secs(90),
            workers: 1,
            running: 1,
            ready: 3,
            ..QueueFigures::named("email")
        }];
        facts.scope.asked = vec!["node a".to_owned()];
        facts.scope.silent = vec!["lanes".to_owned()];
        facts.scope.cannot_know = vec!["Nobody knows.".to_owned()];
        let expected = "Queue `email` is late: its oldest ready task has waited for 1 min 30 s, and it promises 30 s. \
                        The one worker of queue `email` has a task.\n\n\
                        Queue `email` is late: its oldest ready task has waited for 1 min 30 s, and it promises 30 s.\n  \
                        since: 2026-11-22T11:59:00.000Z, for 1 min\n  \
                        cause: The one worker of queue `email` has a task.\n    \
                        operator: Give the queue more workers: `Celeriac::resize`, or `celeriac control resize email N`.\n  \
                        ruled out: Queue `email` is not paused. No failure has blocked a lane of it. \
                        Queue `email` is served here, and answers. The broker says what waits in it. \
                        Queue `email` has not stopped itself. No rate limit, brake or limit holds it. \
                        No body in it is one that nobody could stop.\n\n\
                        not known: Nobody knows.\n\
                        did not answer: lanes\n\
                        asked: node a, at 2026-11-22T12:00:00.000Z\n";
        assert_eq!(text(&diagnose(facts)), expected);
        assert_eq!(
            text(&diagnose(ReportFacts::at(at))),
            "There is no queue.\nasked: nobody, at 2026-11-22T12:00:00.000Z\n"
        );
    }
}
