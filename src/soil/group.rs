//! Several tasks as one: an export in parts.

use std::time::Duration;

use serde::Serialize;

use super::{Progress, Soil, SoilError, SoilState, Status};
use crate::store::{GroupMember, GroupResult};
use crate::task::TaskId;
use crate::task::clock::now;

/// What the failure of some members makes of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartialFailure {
    /// The group has failed as soon as one member has.
    FailsAtOnce,
    /// The group goes on to its end, and has failed if one member has.
    #[default]
    Fails,
    /// The group succeeds if one member has; the errors of the others are told. HQ's groups always succeed.
    Tolerated,
}

/// The errors of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemberErrors {
    /// Which.
    pub id: TaskId,
    /// Why it failed.
    pub errors: Vec<String>,
}

/// What is seen of several tasks as one.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The state of the whole.
    pub state: SoilState,
    /// How far the whole is: what its members have done, each counting the same.
    pub progress: Progress,
    /// Members that succeeded.
    pub done: usize,
    /// Members that failed, or are missing.
    pub failed: usize,
    /// All members.
    pub total: usize,
    /// Why members failed.
    pub errors: Vec<MemberErrors>,
    /// The members, in their order.
    pub members: Vec<Status>,
    /// When to ask again, in milliseconds; `None`: it will not change any more.
    pub next_poll_ms: Option<u64>,
}

impl GroupStatus {
    fn of(members: Vec<Status>, policy: PartialFailure) -> Self {
        let total = members.len();
        let count = |states: &[SoilState]| members.iter().filter(|m| states.contains(&m.state)).count();
        let done = count(&[SoilState::Success]);
        // One that is missing will not come any more.
        let missing = count(&[SoilState::Missing]);
        let failed = count(&[SoilState::Failed]) + missing;
        let is_over = done + failed == total;
        let state = match policy {
            _ if missing == total => SoilState::Missing,
            PartialFailure::FailsAtOnce if failed > 0 => SoilState::Failed,
            PartialFailure::Fails if is_over && failed > 0 => SoilState::Failed,
            PartialFailure::Tolerated if is_over && done == 0 => SoilState::Failed,
            _ if is_over => SoilState::Success,
            _ if done + failed > 0 || count(&[SoilState::Started]) > 0 => SoilState::Started,
            _ => SoilState::NotStarted,
        };
        let missing_text = |status: &Status| match status.state {
            SoilState::Missing => vec!["nobody knows this task any more".to_owned()],
            _ => status.errors.clone(),
        };
        let errors = members
            .iter()
            .filter(|member| matches!(member.state, SoilState::Failed | SoilState::Missing))
            .map(|member| MemberErrors { id: member.id.clone(), errors: missing_text(member) });
        let errors = errors.collect();
        let progress = progress_of(&members, state);
        let over = matches!(state, SoilState::Success | SoilState::Failed | SoilState::Missing);
        let next_poll_ms =
            if over { None } else { members.iter().filter_map(|member| member.next_poll_ms).min() };
        Self { state, progress, done, failed, total, errors, members, next_poll_ms }
    }
}

/// In hundredths of a member, so that a group of two long ones moves.
fn progress_of(members: &[Status], state: SoilState) -> Progress {
    let total = members.len() as u64;
    if state == SoilState::Success {
        return Progress::done(total);
    }
    let percent = |member: &Status| match member.state {
        SoilState::Success | SoilState::Failed | SoilState::Missing => 100,
        _ => member.progress.map_or(0, |progress| u64::from(progress.percent)),
    };
    let sum: u64 = members.iter().map(percent).sum();
    let over = members.iter().filter(|member| percent(member) == 100).count() as u64;
    Progress { percent: Progress::of(sum, total * 100).percent, ..Progress::of(over, total) }
}

impl Soil {
    /// What is seen of a group as one, by the id under which it was saved: by [`CanvasResult::save`] or
    /// [`make_group`](Self::make_group) here, or by Python's `GroupResult.save` over Redis. One that nobody saved, or that has
    /// expired, is [`SoilState::Missing`] and has no members.
    ///
    /// [`CanvasResult::save`]: crate::task::canvas::CanvasResult::save
    ///
    /// # Errors
    /// The broker or the store could not be asked; the store keeps no groups (then see [`members_status`](Self::members_status)).
    pub async fn group_status(&self, id: &TaskId, policy: PartialFailure) -> Result<GroupStatus, SoilError> {
        self.members_status(self.members(id).await?.unwrap_or_default(), policy).await
    }

    /// What is seen of several tasks as one, by their own ids: for stores that keep no groups.
    ///
    /// # Errors
    /// The broker or the store could not be asked.
    pub async fn members_status(
        &self,
        ids: impl IntoIterator<Item = impl Into<TaskId>>,
        policy: PartialFailure,
    ) -> Result<GroupStatus, SoilError> {
        let mut members = Vec::new();
        for id in ids {
            members.push(self.status(&id.into()).await?);
        }
        Ok(GroupStatus::of(members, policy))
    }

    /// Makes several tasks a group that has an id of its own, which nobody can guess, and is kept for so long. For tasks that were
    /// enqueued one by one, such as those that may have joined others; a canvas has its id already.
    ///
    /// # Errors
    /// It could not be kept, or the store keeps no groups.
    pub async fn make_group(
        &self,
        members: impl IntoIterator<Item = impl Into<TaskId>>,
        lifetime: Duration,
    ) -> Result<TaskId, SoilError> {
        let id = TaskId::from(format!("gr-{:032x}", rand::random::<u128>()));
        let members = members.into_iter().map(|member| GroupMember::Task(member.into()));
        self.runtime().store.save_group(&GroupResult::new(id.as_str(), members), Some(lifetime)).await?;
        Ok(id)
    }

    /// The tasks of a group that was saved, those of groups inside it too, in order; `None`: nobody knows it.
    ///
    /// # Errors
    /// The store could not be read, or keeps no groups.
    pub async fn members(&self, id: &TaskId) -> Result<Option<Vec<TaskId>>, SoilError> {
        let group = self.runtime().store.group(id.as_str(), now()).await?;
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
