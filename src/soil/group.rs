//! The status of several tasks seen as one, such as an export that runs in parts.

use std::time::Duration;

use serde::Serialize;

use super::handle::LookRound;
use super::{Progress, Soil, SoilError, SoilState, Status};
use crate::store::{GroupMember, GroupResult, groups};
use crate::task::TaskId;
use crate::task::clock::now;

/// The loop over the members yields to its event loop after this many looks, so that other tasks on that loop get their
/// turn.
pub(super) const TURN: usize = 32;

/// The policy that says what the failure of some members makes of the whole group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartialFailure {
    /// The group fails as soon as one member has failed.
    FailsAtOnce,
    /// The group goes on until all members are over. It has failed if one member has.
    #[default]
    Fails,
    /// The group succeeds if at least one member has, and the status names the errors of the others. HQ's groups always
    /// succeed.
    Tolerated,
}

/// The errors of one member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemberErrors {
    /// The task id of the member.
    pub id: TaskId,
    /// The reasons why the member failed, one text for each error.
    pub errors: Vec<String>,
}

/// The status of several tasks seen as one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The state of the whole group.
    pub state: SoilState,
    /// The progress of the whole group. Each member counts the same, however long it runs.
    pub progress: Progress,
    /// The number of members that succeeded.
    pub done: usize,
    /// The number of members that failed or that nobody knows any more.
    pub failed: usize,
    /// The number of all members.
    pub total: usize,
    /// The errors of the members that failed, in the order of the members.
    pub errors: Vec<MemberErrors>,
    /// The status of each member, in the order of the group.
    pub members: Vec<Status>,
    /// The time after which to ask again, in milliseconds. It is `None` when the status will not change any more.
    pub next_poll_ms: Option<u64>,
}

impl GroupStatus {
    fn of(members: Vec<Status>, policy: PartialFailure) -> Self {
        let Tally { state, progress, done, failed, total } =
            Tally::of(members.iter().map(|member| (member.state, percent_of(member))), policy);
        let missing_text = |status: &Status| match status.state {
            SoilState::Missing => vec!["nobody knows this task any more".to_owned()],
            _ => status.errors.clone(),
        };
        let errors = members
            .iter()
            .filter(|member| matches!(member.state, SoilState::Failed | SoilState::Missing))
            .map(|member| MemberErrors { id: member.id.clone(), errors: missing_text(member) });
        let errors = errors.collect();
        // A group that failed at once still changes, as long as members of it run.
        let next_poll_ms = members.iter().filter_map(|member| member.next_poll_ms).min();
        Self { state, progress, done, failed, total, errors, members, next_poll_ms }
    }
}

/// The sums over all members: the state of the whole and its counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tally {
    pub(crate) state: SoilState,
    pub(crate) progress: Progress,
    pub(crate) done: usize,
    pub(crate) failed: usize,
    pub(crate) total: usize,
}

impl Tally {
    /// Adds up members of which each is given as its state and its progress in percent.
    pub(super) fn of(members: impl Iterator<Item = (SoilState, u8)>, policy: PartialFailure) -> Self {
        let (mut total, mut done, mut missing, mut failed, mut started) = (0, 0, 0, 0, 0);
        let (mut sum, mut over) = (0, 0);
        for (state, percent) in members {
            total += 1;
            match state {
                SoilState::Success => done += 1,
                SoilState::Missing => missing += 1,
                SoilState::Failed => failed += 1,
                SoilState::Started => started += 1,
                SoilState::NotStarted => {}
            }
            sum += u64::from(percent);
            over += u64::from(percent == 100);
        }
        // Nobody will finish a task that is missing, so it counts as failed.
        let failed: usize = failed + missing;
        let is_over = done + failed == total;
        let state = match policy {
            _ if missing == total => SoilState::Missing,
            PartialFailure::FailsAtOnce if failed > 0 => SoilState::Failed,
            PartialFailure::Fails if is_over && failed > 0 => SoilState::Failed,
            PartialFailure::Tolerated if is_over && done == 0 => SoilState::Failed,
            _ if is_over => SoilState::Success,
            _ if done + failed > 0 || started > 0 => SoilState::Started,
            _ => SoilState::NotStarted,
        };
        // The percentage counts hundredths of a member, so that the bar of a group of two long members moves.
        let parts = total as u64;
        let progress = match state {
            SoilState::Success => Progress::done(parts),
            _ => Progress { percent: Progress::of(sum, parts * 100).percent, ..Progress::of(over, parts) },
        };
        Self { state, progress, done, failed, total }
    }
}

/// A member's progress in percent. A member that is over counts as 100, whether it succeeded or failed.
pub(super) fn percent_of(member: &Status) -> u8 {
    match member.state {
        SoilState::Success | SoilState::Failed | SoilState::Missing => 100,
        _ => member.progress.map_or(0, |progress| progress.percent),
    }
}

impl Soil {
    /// The status of a saved group as a whole, by the group's id. [`CanvasResult::save`] and
    /// [`make_group`](Self::make_group) save a group here; over Redis, Python's `GroupResult.save` does too. A group
    /// that nobody saved, or that has expired, is [`SoilState::Missing`] and has no members.
    ///
    /// [`CanvasResult::save`]: crate::task::canvas::CanvasResult::save
    ///
    /// # Errors
    /// The broker or the store could not be asked, or the store keeps no groups. With such a store, use
    /// [`members_status`](Self::members_status).
    pub async fn group_status(&self, id: &TaskId, policy: PartialFailure) -> Result<GroupStatus, SoilError> {
        self.members_status(self.members(id).await?.unwrap_or_default(), policy).await
    }

    /// The status of several tasks as a whole, by the tasks' own ids. It also works with stores that keep no groups.
    /// The places in line are counted for the first hundred members that wait.
    ///
    /// # Errors
    /// The broker or the store could not be asked.
    pub async fn members_status(
        &self,
        ids: impl IntoIterator<Item = impl Into<TaskId>>,
        policy: PartialFailure,
    ) -> Result<GroupStatus, SoilError> {
        let (mut members, mut round) = (Vec::new(), LookRound::default());
        for id in ids {
            members.push(self.status_in(&id.into(), &mut round).await?);
            if members.len() % TURN == 0 {
                // The other tasks of this event loop get their turn here.
                tokio::task::yield_now().await;
            }
        }
        Ok(GroupStatus::of(members, policy))
    }

    /// Makes several tasks a group with an id of its own, which nobody can guess. The store keeps the group for
    /// `lifetime`. It is meant for tasks that were enqueued one by one, such as tasks that may have joined others; a
    /// canvas has a group id already.
    ///
    /// # Errors
    /// The store could not keep the group, or it keeps no groups at all.
    pub async fn make_group(
        &self,
        members: impl IntoIterator<Item = impl Into<TaskId>>,
        lifetime: Duration,
    ) -> Result<TaskId, SoilError> {
        let id = TaskId::from(format!("gr-{:032x}", rand::random::<u128>()));
        let members = members.into_iter().map(|member| GroupMember::Task(member.into()));
        groups(&*self.runtime().store)?
            .save_group(&GroupResult::new(id.as_str(), members), Some(lifetime))
            .await?;
        Ok(id)
    }

    /// The tasks of a saved group in order, with the tasks of the groups inside it. It is `None` if nobody knows the
    /// group.
    ///
    /// # Errors
    /// The store could not be read, or keeps no groups.
    pub async fn members(&self, id: &TaskId) -> Result<Option<Vec<TaskId>>, SoilError> {
        let group = groups(&*self.runtime().store)?.group(id.as_str(), now()).await?;
        Ok(group.map(|group| group.tasks()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PartialFailure::{Fails, FailsAtOnce, Tolerated};
    use SoilState::{Failed, Missing, NotStarted, Started, Success};

    #[test]
    fn a_group_is_as_its_members_and_its_policy() {
        for (members, at_once, at_end, tolerated) in [
            (vec![NotStarted, NotStarted], NotStarted, NotStarted, NotStarted),
            (vec![Started, NotStarted], Started, Started, Started),
            (vec![Success, NotStarted], Started, Started, Started),
            (vec![Failed, Started], Failed, Started, Started),
            (vec![Failed, Success], Failed, Failed, Success),
            (vec![Failed, Failed], Failed, Failed, Failed),
            (vec![Success, Success], Success, Success, Success),
            (vec![Success, Missing], Failed, Failed, Success),
            (vec![Missing, Missing], Missing, Missing, Missing),
        ] {
            for (policy, state) in [(FailsAtOnce, at_once), (Fails, at_end), (Tolerated, tolerated)] {
                let all = members.iter().map(|state| Status::new("a".into(), *state)).collect();
                let group = GroupStatus::of(all, policy);
                assert_eq!(group.state, state, "{members:?} {policy:?}");
                assert_eq!(group.progress.percent == 100, state == Success, "{members:?} {policy:?}");
            }
        }
    }

    #[test]
    fn a_group_moves_with_its_members() {
        let member =
            |state, progress: Option<Progress>| Status { progress, ..Status::new("a".into(), state) };
        let members = vec![
            member(Success, None),
            member(Started, Some(Progress::of(1, 2))),
            member(NotStarted, None),
            member(NotStarted, None),
        ];
        let group = GroupStatus::of(members, Fails);
        assert_eq!((group.done, group.failed, group.total), (1, 0, 4));
        assert_eq!((group.progress.current, group.progress.total, group.progress.percent), (1, 4, 37));
    }
}
