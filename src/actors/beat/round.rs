//! Publishes the ticks of one entry that are due together, in their order. Each tick needs the note that the tick
//! before it has left, so they stop at the first one that is not decided.

use super::BeatParts;
use super::memory::{Fired, fired_key};
use super::status::PastTick;
use super::tick::{DueTick, PublishReport};
use crate::core::calendar::{Fire, tick_id};
use crate::task::{Periodic, TaskId};

/// How far the ticks of one entry got, and what the entry's note says now.
pub(super) struct RoundOutcome {
    pub(super) note: Option<String>,
    pub(super) fired: Fired,
    /// The ticks that are decided, in their order.
    pub(super) decided: Vec<PastTick>,
    /// `None`: all ticks are decided.
    pub(super) stop: Option<RoundStop>,
}

/// Why the ticks got no further.
pub(super) enum RoundStop {
    /// The tick waits until this task, the tick before it, is over.
    Held(TaskId),
    /// Another process has changed the entry's note.
    Outdated,
    /// The publish failed with this text.
    Failed(String),
}

/// Publishes the ticks of `fire` one after the other. `note` and `fired` are the entry's note as it is believed to
/// be, as text and as value.
pub(super) async fn publish_all(
    parts: &BeatParts,
    entry: &Periodic,
    fire: &Fire,
    note: Option<String>,
    fired: Fired,
) -> RoundOutcome {
    let mut outcome = RoundOutcome { note, fired, decided: Vec::new(), stop: None };
    for at in &fire.ticks {
        let id = TaskId::from(tick_id(&entry.name, *at));
        let before = outcome.fired.id.clone().map(|id| (id, outcome.fired.expires));
        let dropped = Fired { last: *at, ..outcome.fired.clone() };
        let mut tick = DueTick {
            entry,
            id: id.clone(),
            arguments: entry.arguments.clone(),
            next: fire.next,
            before,
            key: fired_key(&entry.name),
            note: outcome.note.clone(),
            published: String::new(),
            dropped: dropped.text(),
        };
        let told = PastTick { at: *at, id: Some(id.to_string()) };
        let published = Fired { id: Some(id), expires: tick.expires_at(parts), ..dropped.clone() };
        tick.published = published.text();
        match tick.publish(parts).await {
            Ok(PublishReport::Published) => {
                outcome.note = Some(published.text());
                outcome.fired = published;
                outcome.decided.push(told);
            }
            Ok(PublishReport::Coalesced) => {
                outcome.note = Some(dropped.text());
                outcome.fired = dropped;
                outcome.decided.push(PastTick { id: None, ..told });
            }
            Ok(PublishReport::Held(id)) => outcome.stop = Some(RoundStop::Held(id)),
            Ok(PublishReport::Outdated) => outcome.stop = Some(RoundStop::Outdated),
            Err(error) => outcome.stop = Some(RoundStop::Failed(error)),
        }
        if outcome.stop.is_some() {
            break;
        }
    }
    outcome
}
