//! A group of any size at a glance, for pages that many people look at.
//!
//! Someone who looks at a group of thousands wants to know the progress of the whole, and sees only some members at a
//! time. One look at the whole serves everybody who asks, and the larger the group is, the less often that look is
//! made. So a group costs at most a twentieth of the time of one core, however many people look at it. Soil looks anew
//! each time at a group of up to [`SMALL`] members.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::group::{TURN, Tally, percent_of};
use super::handle::{LookRound, PLACES};
use super::{PartialFailure, QueuePosition, QueueSummary, Soil, SoilError, SoilState, Status};
use crate::task::TaskId;

/// A group of up to this many members costs little to look at.
const SMALL: usize = 64;
/// An overview is good for this many times as long as it took to make.
const SHARE: u32 = 20;
/// From this many groups on, those that nobody has looked at for [`IDLE`] are dropped.
const MANY: usize = 64;
const IDLE: Duration = Duration::from_secs(60);

/// The status of a whole group, as of one look.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) members: Vec<TaskId>,
    pub(crate) glances: Vec<Glance>,
    /// The place in line of the first member that waits.
    pub(crate) place: Option<QueuePosition>,
    /// A queue in which members wait and which starts nothing.
    pub(crate) stuck: Option<QueueSummary>,
    pub(crate) next_poll_ms: Option<u64>,
    looked: Instant,
    took: Duration,
}

/// The part of a member's status that an overview keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    pub(crate) state: SoilState,
    pub(crate) percent: u8,
    /// Whether the member has reported progress.
    pub(crate) moves: bool,
    pub(crate) is_revoked: bool,
    pub(crate) gone: bool,
}

impl Overview {
    pub(crate) fn tally(&self, policy: PartialFailure) -> Tally {
        Tally::of(self.glances.iter().map(|glance| (glance.state, glance.percent)), policy)
    }

    fn is_fresh(&self) -> bool {
        self.members.len() > SMALL && self.looked.elapsed() < self.took * SHARE
    }
}

type OverviewSlot = Arc<tokio::sync::Mutex<Option<Arc<Overview>>>>;

/// The overviews of the groups that were asked for.
#[derive(Default)]
pub(crate) struct Overviews(Mutex<HashMap<TaskId, (Instant, OverviewSlot)>>);

impl Overviews {
    fn slot(&self, id: &TaskId) -> OverviewSlot {
        let mut slots = self.0.lock();
        if slots.len() >= MANY {
            slots.retain(|_, (asked, _)| asked.elapsed() < IDLE);
        }
        let (asked, slot) =
            slots.entry(id.clone()).or_insert_with(|| (Instant::now(), OverviewSlot::default()));
        *asked = Instant::now();
        Arc::clone(slot)
    }
}

impl Soil {
    /// The overview of a saved group. It has no members if nobody knows the group any more.
    pub(crate) async fn overview(&self, id: &TaskId) -> Result<Arc<Overview>, SoilError> {
        let slot = self.status_cache.groups.slot(id);
        // A caller who comes while another one looks waits here, and gets what the other one saw.
        let mut last = slot.lock().await;
        if let Some(fresh) = last.as_ref().filter(|last| last.is_fresh()) {
            return Ok(Arc::clone(fresh));
        }
        let members = self.members(id).await?.unwrap_or_default();
        let overview = Arc::new(self.look_over(members).await?);
        *last = (overview.members.len() > SMALL).then(|| Arc::clone(&overview));
        Ok(overview)
    }

    async fn look_over(&self, members: Vec<TaskId>) -> Result<Overview, SoilError> {
        let looked = Instant::now();
        // An overview names the place of one member only, so the round counts one place.
        let mut round = LookRound { counted: PLACES - 1, ..LookRound::default() };
        let mut glances = Vec::with_capacity(members.len());
        let (mut place, mut stuck, mut next_poll_ms) = (None, None, None::<u64>);
        for (at, id) in members.iter().enumerate() {
            if at % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            let seen = self.status_in(id, &mut round).await?;
            place = place.or(seen.place);
            if stuck.is_none() && !seen.is_alive() {
                stuck.clone_from(&seen.line);
            }
            next_poll_ms = [next_poll_ms, seen.next_poll_ms].into_iter().flatten().min();
            glances.push(Glance {
                state: seen.state,
                percent: percent_of(&seen),
                moves: seen.progress.is_some(),
                is_revoked: seen.is_revoked,
                gone: seen.gone,
            });
        }
        let took = looked.elapsed();
        // The page need not ask again before this overview is made anew.
        let fresh = u64::try_from((took * SHARE).as_millis()).unwrap_or(u64::MAX);
        let next_poll_ms = next_poll_ms.map(|ms| if members.len() > SMALL { ms.max(fresh) } else { ms });
        Ok(Overview { members, glances, place, stuck, next_poll_ms, looked, took })
    }

    /// The statuses of these tasks, without their places in line.
    pub(crate) async fn statuses(&self, ids: &[TaskId]) -> Result<Vec<Status>, SoilError> {
        let (mut statuses, mut round) = (Vec::new(), LookRound { counted: PLACES, ..LookRound::default() });
        for id in ids {
            statuses.push(self.status_in(id, &mut round).await?);
        }
        Ok(statuses)
    }
}
