//! The pages in English.

use super::Sentence;
use super::numbers::scaled;

pub(super) fn say(sentence: Sentence<'_>) -> String {
    use Sentence as S;
    match sentence {
        S::TabReady => "Ready".into(),
        S::TabFailed => "Failed".into(),
        S::TabCancelled | S::CancelledTitle => "Cancelled".into(),
        S::TabMissing => "Not found".into(),
        S::TabPercent(percent) => format!("{percent}% - in progress"),
        S::TabWaiting => "Waiting".into(),
        S::TabRunning => "In progress".into(),

        S::WaitingToStart => "Waiting to start".into(),
        S::Working => "Working on it".into(),
        S::Progress => "Progress".into(),
        // The words of this text are HQ's.
        S::Processed(percent) => format!("Processed {percent}%"),
        S::PartsDone { done, total } => format!("({done} of {total} {} done)", parts(total)),
        S::StepsDone { done, total } => format!("({done} of {total})"),
        S::DoneSoFar(done) => format!("({done} so far)"),
        S::NoProgressYet => "It runs, and has not said yet how far it is.".into(),
        S::PercentDone(percent) => format!("{percent} percent done"),
        S::LoadsAgain => "This page loads itself again every two seconds.".into(),
        S::Cancel => "Cancel".into(),
        S::NextInLine { again } => format!("It is the next {}.", turn(again)),
        S::InLine { ahead: 1, or_more: false, again } => {
            format!("It waits {}: one other is before it in line.", turn(again))
        }
        S::InLine { ahead, or_more, again } => {
            let others = if or_more { "others or more" } else { "others" };
            format!("It waits {}: {ahead} {others} are before it in line.", turn(again))
        }
        S::WaitsForTime => "It starts at a later time, as was asked.".into(),
        S::WaitsForAttempt => "It is tried again by itself after a pause.".into(),
        S::WaitsForOther => "It waits until another one of the same kind is done.".into(),
        S::HeldBack => "It is held back for now, and starts by itself later.".into(),
        S::StartsIn { from, to, hours } => {
            let unit = match (hours, to) {
                (false, 1) => "minute",
                (false, _) => "minutes",
                (true, 1) => "hour",
                (true, _) => "hours",
            };
            match from {
                0 => format!("It is likely to start within {to} {unit}."),
                from => format!("It is likely to start in {from} to {to} {unit}."),
            }
        }
        S::QueuePaused(name) => {
            format!("{} is paused. It goes on when somebody lets the queue go on.", queue(name))
        }
        S::QueueHalted(name) => {
            format!("{} has stopped because of a fault. It goes on when that is mended.", queue(name))
        }
        S::QueueStuck { queue: name, minutes } => {
            let unit = if minutes == 1 { "minute" } else { "minutes" };
            format!(
                "{} has started nothing for {minutes} {unit}. There may be something wrong with the system.",
                queue(name)
            )
        }

        S::FilesReady(1) => "Your file is ready.".into(),
        S::FilesReady(_) => "Your files are ready.".into(),
        S::Complete => "Process complete.".into(),
        S::Download(name) => format!("Download {name}"),
        S::Size(bytes) => size(bytes),
        S::Results => "Results".into(),
        S::WhatIsMissing => "What is missing".into(),
        S::SomethingWrong => "Something went wrong".into(),
        S::WhatThereIs => "What there is".into(),
        S::CancelledText => "It was stopped before it was done.".into(),

        S::Parts => "Parts".into(),
        S::Part { part, state } => format!("Part {part}: {state}"),
        S::PartDone => "done".into(),
        S::PartFailed(errors) => format!("failed: {errors}"),
        S::PartCancelled => "cancelled".into(),
        S::PartMissing => "not known any more".into(),
        S::PartPercent(percent) => format!("{percent}%"),
        S::PartWaiting => "waiting".into(),
        S::PartRunning => "at work".into(),
        S::ProgressOfPart(part) => format!("Progress of part {part}"),
        S::ErrorOfPart { part, error } => format!("Part {part}: {error}"),
        S::MorePartsFailed(1) => "And 1 more part has failed.".into(),
        S::MorePartsFailed(more) => format!("And {more} more parts have failed."),
        S::PagesOfParts => "Pages of parts".into(),
        S::EarlierParts => "Earlier parts".into(),
        S::LaterParts => "Later parts".into(),
        S::PartsShown { first, last, total } => format!("Parts {first} to {last} of {total}"),

        S::Back => "Go back".into(),
        S::UnknownTitle => "There is nothing here".into(),
        S::UnknownText => {
            "Nobody knows this download. Perhaps it was never started; please start it again.".into()
        }
        S::GoneTitle => "This download has expired".into(),
        S::GoneText => "Files are kept for a limited time. Please start it again.".into(),
        S::NoFileTitle => "There is no file".into(),
        S::NoFileFailed => "What was to make it has failed.".into(),
        S::NoFileMade => "It is done, and made no file.".into(),
        S::NoFileYet => "It is not ready yet.".into(),
        S::LinkExpiredTitle => "This link has expired".into(),
        S::LinkExpiredText => "Please ask for a new one where you got it.".into(),
        S::LinkRevokedTitle => "This link was taken back".into(),
        S::LinkRevokedText => "It opens nothing any more. Please ask for a new one where you got it.".into(),
        S::DeniedTitle => "This is not yours to see".into(),
        S::DeniedText => "It belongs to somebody else, or the link is not complete.".into(),
        S::LogInTitle => "Please log in".into(),
        S::LogInText => "Who you are is not known any more.".into(),
        S::BrokenTitle => "This link is broken".into(),
        S::BrokenId => "The id in it is no text.".into(),
        S::BrokenIdLength => "An id has 1 to 255 bytes, and no control characters.".into(),
        S::BrokenQuery => "What follows the question mark cannot be read.".into(),
        S::BrokenPart => "A part has a number, from 0.".into(),
        S::NoPageTitle => "There is no such page".into(),
        S::NoPageText => "The address leads nowhere.".into(),
        S::WrongMethodTitle => "That cannot be done here".into(),
        S::WrongMethodText => "This address does not take such a request.".into(),
        S::CrowdedTitle => "Too many are looking at once".into(),
        S::CrowdedText => "It is not told as it changes, but on being asked: see `status`.".into(),
        S::UnavailableTitle => "It cannot be said right now".into(),
        S::UnavailableText => "What you started goes on. Please try again in a moment.".into(),
    }
}

fn parts(count: u64) -> &'static str {
    if count == 1 { "part" } else { "parts" }
}

fn turn(again: bool) -> &'static str {
    if again { "for its next turn" } else { "to start" }
}

fn queue(name: Option<&str>) -> String {
    name.map_or_else(|| "Its queue".to_owned(), |name| format!("Its queue, {name},"))
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    match scaled(bytes) {
        Some((number, unit)) => format!("{number} {}", UNITS[unit]),
        None if bytes == 1 => "1 byte".into(),
        None => format!("{bytes} bytes"),
    }
}
