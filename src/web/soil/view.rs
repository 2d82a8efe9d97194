//! What is shown: of one task or of a group, in the words of the page.

use serde::Serialize;

use super::link::segment;
use crate::soil::{DownloadFacts, GroupStatus, Place, QueueFacts, SoilState, Status};

/// What the page says it is at.
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

/// What is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct View {
    pub(super) id: String,
    pub(super) state: Look,
    /// There was one.
    pub(super) gone: bool,
    /// Whole percents; `None`: nothing is known of it.
    pub(super) percent: Option<u8>,
    pub(super) current: u64,
    pub(super) total: u64,
    pub(super) note: Option<String>,
    pub(super) errors: Vec<String>,
    /// What the task has to say in the end.
    pub(super) results: Vec<String>,
    pub(super) files: Vec<File>,
    /// What to say when it is ready.
    pub(super) message: Option<String>,
    /// Its place in line, in words.
    pub(super) place: Option<String>,
    /// Why nothing may be expected to happen, in words.
    pub(super) not_alive: Option<String>,
    pub(super) members: Vec<Member>,
    pub(super) next_poll_ms: Option<u64>,
    pub(super) urls: Urls,
}

/// A file that is ready.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) url: String,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Member {
    pub(super) state: Look,
    pub(super) percent: Option<u8>,
    pub(super) errors: Vec<String>,
    pub(super) note: Option<String>,
}

/// Where the rest is, with the key.
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
    query: String,
    #[serde(skip)]
    pub(super) assets: String,
}

impl Urls {
    pub(super) fn new(base: &str, id: &str, key: Option<&str>) -> Self {
        let query = key.map_or_else(String::new, |key| format!("?key={key}"));
        let id = segment(id);
        Self {
            page: format!("{base}/{id}{query}"),
            partial: format!("{base}/ajax/{id}{query}"),
            status: format!("{base}/{id}/status{query}"),
            events: format!("{base}/{id}/events{query}"),
            cancel: format!("{base}/{id}/cancel{query}"),
            file: format!("{base}/{id}/file"),
            assets: format!("{base}/assets"),
            query,
        }
    }

    fn file_of(&self, index: Option<usize>) -> String {
        match index {
            None => format!("{}{}", self.file, self.query),
            Some(index) => format!("{}/{index}{}", self.file, self.query),
        }
    }
}

impl View {
    fn new(id: &str, state: Look, urls: Urls) -> Self {
        Self {
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
            members: Vec::new(),
            next_poll_ms: None,
            urls,
        }
    }

    /// Of one task. `cancelled`: somebody revoked it.
    pub(super) fn of(status: Status, cancelled: bool, urls: Urls) -> Self {
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
            place: status.place.map(|place| say_place(place, status.state)),
            not_alive: (waits && !status.is_alive())
                .then(|| status.line.as_ref().map(say_not_alive))
                .flatten(),
            next_poll_ms: status.next_poll_ms,
            ..Self::new(id, look(status.state, cancelled), urls)
        }
        .with_texts(status.note, status.errors)
    }

    fn with_texts(mut self, note: Option<String>, errors: Vec<String>) -> Self {
        self.note = note;
        self.errors = if self.state == Look::Cancelled { Vec::new() } else { errors };
        self
    }

    /// Of a group. `cancelled`: which of its members were revoked.
    pub(super) fn of_group(id: &str, group: GroupStatus, cancelled: &[bool], urls: Urls) -> Self {
        let is_cancelled = |at: usize| cancelled.get(at).copied().unwrap_or(false);
        let failed = group.state == SoilState::Failed;
        let all_failed_are_cancelled = failed
            && group
                .members
                .iter()
                .enumerate()
                .filter(|(_, member)| member.state == SoilState::Failed)
                .all(|(at, _)| is_cancelled(at));
        let not_alive = group.members.iter().find_map(|member| match (&member.line, member.is_alive()) {
            (Some(line), false) => Some(say_not_alive(line)),
            _ => None,
        });
        let waits = matches!(group.state, SoilState::NotStarted | SoilState::Started);
        let moves = group.members.iter().any(|member| member.progress.is_some());
        let errors_of = |member: &Status, at: usize| {
            if is_cancelled(at) { vec!["cancelled".to_owned()] } else { member.errors.clone() }
        };
        let name_errors = |(at, member): (usize, &Status)| {
            let numbered = |error: String| format!("Part {}: {error}", at + 1);
            errors_of(member, at).into_iter().map(numbered).collect::<Vec<_>>()
        };
        let ready = group.state == SoilState::Success;
        let files = group.members.iter().enumerate();
        let files = files.filter_map(|(at, member)| {
            member.download.as_ref().map(|facts| file(facts, urls.file_of(Some(at))))
        });
        let members = group.members.iter().enumerate().map(|(at, member)| Member {
            state: look(member.state, is_cancelled(at)),
            percent: member.progress.map(|progress| progress.percent),
            errors: errors_of(member, at),
            note: member.note.clone(),
        });
        Self {
            // The link was signed for it, so there was one.
            gone: group.members.is_empty() || group.members.iter().any(|member| member.gone),
            percent: Some(group.progress.percent),
            current: group.progress.current,
            total: group.progress.total,
            errors: group.members.iter().enumerate().flat_map(name_errors).collect(),
            results: group.members.iter().filter(|_| ready).flat_map(Status::messages).collect(),
            files: files.collect(),
            place: group
                .members
                .iter()
                .find_map(|member| member.place)
                .map(|place| say_place(place, group.state)),
            not_alive: not_alive.filter(|_| waits && !moves && group.done + group.failed == 0),
            members: members.collect(),
            next_poll_ms: group.next_poll_ms,
            ..Self::new(id, look(group.state, all_failed_are_cancelled), urls)
        }
    }

    pub(super) fn with_message(mut self, message: Option<String>) -> Self {
        self.message = message;
        self
    }

    /// Whether nothing will change any more.
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

fn say_place(place: Place, state: SoilState) -> String {
    let what = if state == SoilState::Started { "for its next turn" } else { "to start" };
    match (place.ahead, place.or_more) {
        (0, _) => format!("It is the next {what}."),
        (1, false) => format!("It waits {what}: one other is before it in line."),
        (ahead, false) => format!("It waits {what}: {ahead} others are before it in line."),
        (ahead, true) => format!("It waits {what}: {ahead} others or more are before it in line."),
    }
}

/// Of the task's own queue.
fn say_not_alive(queue: &QueueFacts) -> String {
    let name = &queue.name;
    if queue.paused {
        format!("Its queue, {name}, is paused. It goes on when somebody lets the queue go on.")
    } else if queue.halted {
        format!("Its queue, {name}, has stopped because of a fault. It goes on when that is mended.")
    } else {
        let minutes = queue.blocked_seconds / 60;
        format!(
            "Its queue, {name}, has started nothing for {minutes} minutes. There may be something wrong with the system."
        )
    }
}
