//! Acts on all tasks that match a rule, as forms state them, and who may do them.
//!
//! A rule of the console has no condition on arguments: the number of tasks that match one would tell what is in arguments that
//! are hidden.

use super::Console;
use super::acts::{Fields, OperatorAct};
use super::problem::ConsoleProblem;
use super::rights::{NotAllowed, Permission, Viewer};
use super::words;
use crate::app::{BulkAct, BulkAction};
use crate::core::Timestamp;
use crate::core::brake::BrakeRule;
use crate::task::clock::now;

impl Fields {
    /// The value of a field that may be left out.
    fn optional(&self, name: &str) -> Result<Option<String>, ConsoleProblem> {
        match self.get(name).map(str::trim) {
            None | Some("") => Ok(None),
            Some(_) => self.required(name).map(Some),
        }
    }

    /// What a bulk act does, by its word.
    pub(super) fn action(&self) -> Result<BulkAction, ConsoleProblem> {
        let word = self.required("action")?;
        let all = [BulkAction::Revoke, BulkAction::Retry, BulkAction::Move, BulkAction::Purge];
        all.into_iter().find(|action| action.as_str() == word).ok_or_else(|| {
            ConsoleProblem::malformed(format!(
                "`{}` is nothing that a bulk act does.",
                words::line(&word, 40)
            ))
        })
    }

    /// An act on all tasks that match.
    pub(super) fn bulk(&self, action: BulkAction) -> Result<OperatorAct, ConsoleProblem> {
        let mut rule = if self.get("all").is_some() { BrakeRule::all() } else { BrakeRule::new() };
        rule.task = self.optional("task")?;
        rule.queue = self.optional("queue")?;
        rule.tenant = self.optional("tenant")?;
        rule.compile().map_err(|error| ConsoleProblem::malformed(error.to_string()))?;
        let to = if action == BulkAction::Move { Some(self.required("to")?) } else { None };
        let then = match self.optional("until")? {
            Some(_) => Timestamp::from_micros(self.number("until")?),
            None => now(),
        };
        Ok(OperatorAct::Bulk { action, rule, to, then })
    }
}

/// What somebody has to be allowed to do such an act.
pub(super) fn permission_of(action: BulkAction) -> Permission {
    match action {
        BulkAction::Revoke => Permission::Revoke,
        BulkAction::Retry => Permission::Retry,
        BulkAction::Move => Permission::Move,
        BulkAction::Purge => Permission::Purge,
    }
}

/// Makes sure that a bulk act on the tasks of this queue, or of every queue, is allowed, and that they may go where they are
/// moved to.
pub(super) fn check_queues(
    console: &Console,
    viewer: &Viewer,
    permission: Permission,
    queue: Option<&str>,
    to: Option<&str>,
) -> Result<(), ConsoleProblem> {
    let queue = queue.map(|queue| console.physical(queue));
    let to = to.map(|to| console.physical(to));
    if !viewer.may_in(permission, queue.as_deref()) {
        if queue.is_none() && viewer.may(permission, None) {
            let text = "Tasks of every queue are meant, and there are queues for which you may not do that: choose a queue.";
            return Err(ConsoleProblem::denied(text));
        }
        return Err(NotAllowed::Denied(permission, queue).into());
    }
    match to.filter(|to| !viewer.may(permission, Some(to.as_str()))) {
        Some(to) => Err(NotAllowed::Denied(permission, Some(to)).into()),
        None => Ok(()),
    }
}

/// A bulk act that has done this.
pub(super) async fn bulk_act(
    console: &Console,
    id: &str,
    action: BulkAction,
) -> Result<BulkAct, ConsoleProblem> {
    let act = console.celeriac.bulk().act(id).await?;
    act.filter(|act| act.action == action).ok_or_else(|| {
        let shown = words::line(id, 40);
        ConsoleProblem::unknown(format!("There is no bulk {} of the id `{shown}`.", action.as_str()))
    })
}
