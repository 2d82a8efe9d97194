//! The ticks of one entry that are due together: in order, each with what the one before it left.

use super::BeatParts;
use super::memory::{Fired, fired_key};
use super::tick::{Tick, Told};
use crate::core::calendar::{Fire, tick_id};
use crate::task::{Periodic, TaskId};

/// How far the ticks of one entry got.
pub(super) struct Outcome {
    pub(super) note: Option<String>,
    pub(super) fired: Fired,
    pub(super) published: u64,
    pub(super) coalesced: u64,
    pub(super) stop: Option<Stop>,
}

/// Why they got no further.
pub(super) enum Stop {
    Held(TaskId),
    Outdated,
    Failed(String),
}

pub(super) async fn publish_all(
    parts: &BeatParts,
    entry: &Periodic,
    fire: &Fire,
    note: Option<String>,
    fired: Fired,
) -> Outcome {
    let mut outcome = Outcome { note, fired, published: 0, coalesced: 0, stop: None };
    for at in &fire.ticks {
        let id = TaskId::from(tick_id(&entry.name, *at));
        let before = outcome.fired.id.clone().map(|id| (id, outcome.fired.expires));
        let dropped = Fired { last: *at, ..outcome.fired.clone() };
        let mut tick = Tick {
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
        let published = Fired { id: Some(id), expires: tick.expires_at(parts), ..dropped.clone() };
        tick.published = published.text();
        match tick.publish(parts).await {
            Ok(Told::Published) => {
                outcome.note = Some(published.text());
                outcome.fired = published;
                outcome.published += 1;
            }
            Ok(Told::Coalesced) => {
                outcome.note = Some(dropped.text());
                outcome.fired = dropped;
                outcome.coalesced += 1;
            }
            Ok(Told::Held(id)) => outcome.stop = Some(Stop::Held(id)),
            Ok(Told::Outdated) => outcome.stop = Some(Stop::Outdated),
            Err(error) => outcome.stop = Some(Stop::Failed(error)),
        }
        if outcome.stop.is_some() {
            break;
        }
    }
    outcome
}
