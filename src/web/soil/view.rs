//! The content of a page about one task or a group, in the words of the page.

use std::ops::Range;

use serde::Serialize;

use super::branding::Wording;
use super::link::segment;
use super::texts::Sentence;
use crate::soil::{
    DownloadFacts, Overview, PartialFailure, QueuePosition, QueueSummary, SoilState, StartsBetween, Status,
    WhyWaiting,
};

/// How many members a page shows.
const PAGE: usize = 100;
/// How many failed members have their errors listed beside the members themselves.
const ERRORS: usize = 20;

/// The state of a task or a group as the page names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Look {
    Missing,
    Waiting,
    Running,
    Ready,
    Failed,
    Cancelled,
}

/// The content of a page, in the words of its reader.
#[derive(Clone, Debug, Serialize)]
pub(super) struct View {
    #[serde(skip)]
    pub(super) wording: Wording,
    pub(super) id: String,
    pub(super) state: Look,
    /// Whether there was a download of this id, which has expired or was forgotten.
    pub(super) gone: bool,
    /// The progress in whole percent; `None`: nothing is known about it.
    pub(super) percent: Option<u8>,
    pub(super) current: u64,
    pub(super) total: u64,
    pub(super) note: Option<String>,
    pub(super) errors: Vec<String>,
    /// The messages of the task when it has succeeded.
    pub(super) results: Vec<String>,
    pub(super) files: Vec<File>,
    /// The text that the page shows when the file is ready.
    pub(super) message: Option<String>,
    /// The place in line, in words.
    pub(super) place: Option<String>,
    /// Why nothing is likely to happen, in words.
    pub(super) not_alive: Option<String>,
    /// Why the task waits, in words, if neither its place nor its queue says so.
    pub(super) why: Option<String>,
    /// When it is likely to start, in words.
    pub(super) starts_between: Option<String>,
    /// The members that the page shows.
    pub(super) members: Vec<Member>,
    /// How many members the group has.
    pub(super) total_members: usize,
    /// The number of this page of members, from 1, and how many pages there are.
    pub(super) page: usize,
    pub(super) pages: usize,
    pub(super) next_poll_ms: Option<u64>,
    pub(super) urls: Urls,
}

/// A file that can be downloaded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) url: String,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Member {
    /// The number of the member, from 1.
    pub(super) part: usize,
    pub(super) state: Look,
    pub(super) percent: Option<u8>,
    pub(super) errors: Vec<String>,
    pub(super) note: Option<String>,
}

/// The addresses of the other routes, with the key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Urls {
    pub(super) page: String,
    pub(super) partial: String,
    pub(super) status: String,
    pub(super) events: String,
    pub(super) cancel: String,
    #[serde(skip)]
    pub(super) file: String,
    #[serde(skip)]
    key: Option<String>,
    #[serde(skip)]
    pub(super) assets: String,
}

impl Urls {
    pub(super) fn new(base: &str, id: &str, key: Option<&str>, page: usize) -> Self {
        let query = query(key, page);
        let id = segment(id);
        Self {
            page: format!("{base}/{id}{query}"),
            partial: format!("{base}/ajax/{id}{query}"),
            status: format!("{base}/{id}/status{query}"),
            events: format!("{base}/{id}/events{query}"),
            cancel: format!("{base}/{id}/cancel{query}"),
            file: format!("{base}/{id}/file"),
            assets: format!("{base}/assets"),
            key: key.map(str::to_owned),
        }
    }

    /// The address of another page of members.
    pub(super) fn page(&self, page: usize) -> String {
        let path = self.page.split('?').next().unwrap_or_default();
        format!("{path}{}", query(self.key.as_deref(), page))
    }

    fn file_of(&self, index: Option<usize>) -> String {
        let query = query(self.key.as_deref(), 1);
        match index {
            None => format!("{}{query}", self.file),
            Some(index) => format!("{}/{index}{query}", self.file),
        }
    }
}

/// The query of an address, or an empty text.
fn query(key: Option<&str>, page: usize) -> String {
    match (key, page) {
        (None, 0 | 1) => String::new(),
        (None, page) => format!("?page={page}"),
        (Some(key), 0 | 1) => format!("?key={key}"),
        (Some(key), page) => format!("?key={key}&page={page}"),
    }
}

/// The facts that were read about a group.
pub(super) struct SeenGroup<'a> {
    pub(super) group: &'a Overview,
    pub(super) policy: PartialFailure,
    /// Which members the page shows.
    pub(super) shown: Range<usize>,
    pub(super) members: Vec<Status>,
    /// Some failed members, with their indices in the group.
    pub(super) errors: Vec<(usize, Status)>,
}

/// The indices of the members on a page. A page behind the last one counts as the last.
pub(super) fn shown(members: usize, page: usize) -> Range<usize> {
    let page = page.clamp(1, pages(members));
    (page - 1) * PAGE..members.min(page * PAGE)
}

fn pages(members: usize) -> usize {
    members.div_ceil(PAGE).max(1)
}

/// The indices of the failed members whose errors the page lists.
pub(super) fn failed(group: &Overview) -> Vec<usize> {
    let failed = group.glances.iter().enumerate();
    failed.filter(|(_, glance)| glance.state == SoilState::Failed).map(|(at, _)| at).take(ERRORS).collect()
}

impl View {
    fn new(id: &str, state: Look, urls: Urls, wording: Wording) -> Self {
        Self {
            wording,
            id: id.to_owned(),
            state,
            gone: false,
            percent: None,
            current: 0,
            total: 0,
            note: None,
            errors: Vec::new(),
            results: Vec::new(),
            files: Vec::new(),
            message: None,
            place: None,
            not_alive: None,
            why: None,
            starts_between: None,
            members: Vec::new(),
            total_members: 0,
            page: 1,
            pages: 1,
            next_poll_ms: None,
            urls,
        }
    }

    /// The content of the page of one task.
    pub(super) fn of(status: Status, urls: Urls, wording: Wording) -> Self {
        let id = status.id.as_str();
        let files = status.download.as_ref().map(|facts| file(facts, urls.file_of(None)));
        let waits = matches!(status.state, SoilState::NotStarted | SoilState::Started);
        Self {
            gone: status.gone,
            percent: status.progress.map(|progress| progress.percent),
            current: status.progress.map_or(0, |progress| progress.current),
            total: status.progress.map_or(0, |progress| progress.total),
            results: if status.is_ready() { status.messages() } else { Vec::new() },
            files: files.into_iter().collect(),
            place: status.place.map(|place| say_place(place, status.state, &wording)),
            not_alive: (waits && !status.is_alive())
                .then(|| status.line.as_ref().map(|line| say_not_alive(line, &wording)))
                .flatten(),
            why: status.why.and_then(say_why).map(|why| wording.say(why)),
            starts_between: status.starts_between.and_then(say_starts).map(|starts| wording.say(starts)),
            next_poll_ms: status.next_poll_ms,
            ..Self::new(id, look(status.state, status.is_revoked), urls, wording)
        }
        .with_texts(status.note, status.errors)
    }

    fn with_texts(mut self, note: Option<String>, errors: Vec<String>) -> Self {
        self.note = note;
        self.errors = if self.state == Look::Cancelled { Vec::new() } else { errors };
        self
    }

    /// The content of the page of a group.
    pub(super) fn of_group(id: &str, seen: SeenGroup<'_>, urls: Urls, wording: Wording) -> Self {
        let SeenGroup { group, policy, shown, members, errors } = seen;
        let tally = group.tally(policy);
        let mut failed = group.glances.iter().filter(|glance| glance.state == SoilState::Failed);
        let all_failed = failed.clone().count();
        let all_failed_are_cancelled =
            tally.state == SoilState::Failed && all_failed > 0 && failed.all(|glance| glance.is_revoked);
        let waits = matches!(tally.state, SoilState::NotStarted | SoilState::Started);
        let moves = group.glances.iter().any(|glance| glance.moves);
        let errors_of = |member: &Status| {
            if member.is_revoked { vec![wording.say(Sentence::PartCancelled)] } else { member.errors.clone() }
        };
        let told = errors.len();
        let mut errors: Vec<String> = errors
            .iter()
            .flat_map(|(at, member)| {
                let error_of = |error: String| {
                    wording.say(Sentence::ErrorOfPart { part: *at as u64 + 1, error: &error })
                };
                errors_of(member).into_iter().map(error_of).collect::<Vec<_>>()
            })
            .collect();
        if all_failed > told {
            errors.push(wording.say(Sentence::MorePartsFailed((all_failed - told) as u64)));
        }
        let ready = tally.state == SoilState::Success;
        let numbered = || members.iter().enumerate().map(|(at, member)| (shown.start + at, member));
        let files = numbered().filter_map(|(at, member)| {
            member.download.as_ref().map(|facts| file(facts, urls.file_of(Some(at))))
        });
        let parts = numbered().map(|(at, member)| Member {
            part: at + 1,
            state: look(member.state, member.is_revoked),
            percent: member.progress.map(|progress| progress.percent),
            errors: errors_of(member),
            note: member.note.clone(),
        });
        let total = group.members.len();
        Self {
            // The link was signed for this group, so it existed once.
            gone: group.members.is_empty() || group.glances.iter().any(|glance| glance.gone),
            percent: Some(tally.progress.percent),
            current: tally.progress.current,
            total: tally.progress.total,
            errors,
            results: members.iter().filter(|_| ready).flat_map(Status::messages).collect(),
            files: files.collect(),
            place: group.place.map(|place| say_place(place, tally.state, &wording)),
            not_alive: (group.stuck.as_ref())
                .filter(|_| waits && !moves && tally.done + tally.failed == 0)
                .map(|queue| say_not_alive(queue, &wording)),
            members: parts.collect(),
            total_members: total,
            page: shown.start / PAGE + 1,
            pages: pages(total),
            next_poll_ms: group.next_poll_ms.filter(|_| waits),
            ..Self::new(id, look(tally.state, all_failed_are_cancelled), urls, wording)
        }
    }

    pub(super) fn with_message(mut self, message: Option<String>) -> Self {
        self.message = message;
        self
    }

    /// Whether the view will not change any more.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.state, Look::Waiting | Look::Running)
    }
}

fn look(state: SoilState, cancelled: bool) -> Look {
    match state {
        SoilState::Missing => Look::Missing,
        SoilState::NotStarted => Look::Waiting,
        SoilState::Started => Look::Running,
        SoilState::Success => Look::Ready,
        SoilState::Failed if cancelled => Look::Cancelled,
        SoilState::Failed => Look::Failed,
    }
}

fn file(facts: &DownloadFacts, url: String) -> File {
    File { name: facts.name.clone(), size: facts.size, url }
}

fn say_place(place: QueuePosition, state: SoilState, wording: &Wording) -> String {
    let again = state == SoilState::Started;
    wording.say(match place.ahead {
        0 => Sentence::NextInLine { again },
        ahead => Sentence::InLine { ahead, or_more: place.or_more, again },
    })
}

/// Says why the task's queue starts nothing.
fn say_not_alive(line: &QueueSummary, wording: &Wording) -> String {
    let queue = wording.name_of(line);
    wording.say(if line.paused {
        Sentence::QueuePaused(queue)
    } else if line.halted {
        Sentence::QueueHalted(queue)
    } else {
        Sentence::QueueStuck { queue, minutes: line.blocked_seconds / 60 }
    })
}

/// Says why a task waits. What its place in line or its queue says is not said twice.
fn say_why(why: WhyWaiting) -> Option<Sentence<'static>> {
    match why {
        WhyWaiting::NotDue => Some(Sentence::WaitsForTime),
        WhyWaiting::Retry => Some(Sentence::WaitsForAttempt),
        WhyWaiting::Lane => Some(Sentence::WaitsForOther),
        WhyWaiting::Held => Some(Sentence::HeldBack),
        WhyWaiting::Paused | WhyWaiting::Halted | WhyWaiting::Busy => None,
    }
}

/// Says when a task is likely to start, in minutes, or in hours beyond ninety minutes. A day and more helps nobody.
fn say_starts(StartsBetween { from_seconds, to_seconds, .. }: StartsBetween) -> Option<Sentence<'static>> {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    let hours = to_seconds > 90 * MINUTE;
    let unit = if hours { HOUR } else { MINUTE };
    let to = to_seconds.div_ceil(unit);
    let from = (from_seconds / unit).min(to.saturating_sub(1));
    (to_seconds < 24 * HOUR).then_some(Sentence::StartsIn { from, to, hours })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_told_in_minutes_or_hours() {
        for (from, to, expected) in [
            (0, 10, Some((0, 1, false))),
            (60, 240, Some((1, 4, false))),
            (60, 60, Some((0, 1, false))),
            (3_000, 5_400, Some((50, 90, false))),
            (3_600, 6_000, Some((1, 2, true))),
            (7_000, 90_000, None),
        ] {
            let starts = StartsBetween::of_seconds(from, to);
            let expected = expected.map(|(from, to, hours)| Sentence::StartsIn { from, to, hours });
            assert_eq!(say_starts(starts), expected, "{from} to {to}");
        }
    }
}
