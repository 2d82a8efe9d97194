//! Acts on all tasks that match a rule, as forms state them, and who may do them. A brake of no queue is one of these, too.
//!
//! Invariants:
//! - A rule of the console has no condition on arguments: the number of tasks that match one would tell what is in arguments
//!   that are hidden.
//! - Whoever may not see all tasks that a rule can choose, or may not do with all of them what the act does, is told nothing of
//!   them: neither how many there are, nor which, nor that an act was about them. A rule that names one tenant chooses the
//!   tasks of that one alone, and so may be allowed to who may touch no others.

use actix_web::HttpRequest;

use super::Console;
use super::address::PageName;
use super::brake_form::tenant_of;
use super::counts::Counted;
use super::fields::FormFields;
use super::problem::ConsoleProblem;
use super::rights::{NotAllowed, Permission, Viewer};
use super::visit::ConsoleVisit;
use super::words;
use crate::Celeriac;
use crate::app::{BulkAct, BulkAction, BulkForecast, ControlError};
use crate::core::Timestamp;
use crate::core::brake::{Brake, BrakeRule};
use crate::task::clock::now;

/// In the place of a queue: a name that no queue has. What holds for it holds for what is of no single queue.
const OF_NO_QUEUE: &str = "";

/// What a form says of an act on all tasks that match.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BulkForm {
    pub(super) action: BulkAction,
    pub(super) rule: BrakeRule,
    /// The queue to which tasks are moved.
    pub(super) to: Option<String>,
    /// The act is about tasks that were there by this time.
    pub(super) then: Timestamp,
}

impl BulkForm {
    /// Reads the fields of a form.
    pub(super) fn read(action: BulkAction, fields: &FormFields) -> Result<Self, ConsoleProblem> {
        let mut rule = if fields.get("all").is_some() { BrakeRule::all() } else { BrakeRule::new() };
        rule.task = fields.optional("task")?;
        rule.queue = fields.optional("queue")?;
        rule.tenant = fields.optional("tenant")?;
        rule.compile().map_err(|error| ConsoleProblem::malformed(error.to_string()))?;
        let to = if action == BulkAction::Move { Some(fields.required("to")?) } else { None };
        let then = match fields.optional("until")? {
            Some(_) => Timestamp::from_micros(fields.number("until")?),
            None => now(),
        };
        // Nobody has counted what is still to come, and an act on it would have no end.
        let then = then.min(now());
        Ok(Self { action, rule, to, then })
    }

    /// The act in words.
    pub(super) fn what(&self) -> String {
        let tasks = match self.action {
            BulkAction::Retry => "failed tasks that match",
            _ => "tasks that wait and match",
        };
        let to = self.to.as_ref().map_or_else(String::new, |to| format!(" to the queue {to}"));
        let rule = words::line(&self.rule.to_string(), 200);
        format!("{} all {tasks} {rule}{to}", self.action.as_str())
    }

    /// What a count of its tasks depends on.
    pub(super) fn count_key(&self) -> String {
        let Self { action, rule, to, then } = self;
        let rule = serde_json::to_string(rule).unwrap_or_default(); // it has texts only, so it has a form in JSON
        format!("{} {} {rule} {}", action.as_str(), then.as_micros(), to.as_deref().unwrap_or_default())
    }

    /// What the act would be about, exactly, or how far the count is.
    pub(super) async fn forecast(&self, console: &Console) -> Counted<Result<BulkForecast, ControlError>> {
        let (form, celeriac) = (self.clone(), console.celeriac.clone());
        let count = |progress| async move {
            let Self { action, rule, to, then } = form;
            celeriac.bulk().forecast(action, &rule, to.as_deref(), then, &progress).await
        };
        console.shared.counts.count(&self.count_key(), count).await
    }

    /// Whose tasks it is about.
    pub(super) fn reach(&self, console: &Console) -> BulkReach {
        BulkReach::of(console, &self.rule, self.to.as_deref())
    }

    /// Begins the act. Its tasks are counted before, unless the page that has led here has counted them. The answer says what
    /// came of it.
    pub(super) async fn begin(
        &self,
        console: &Console,
        celeriac: &Celeriac,
    ) -> Result<String, ConsoleProblem> {
        let Self { action, rule, to, then } = self;
        let known = console.shared.counts.known::<Result<BulkForecast, ControlError>>(&self.count_key());
        let counted = known.and_then(|known| (*known).as_ref().ok().map(|forecast| forecast.found));
        let act = celeriac.bulk().begin(*action, rule, to.as_deref(), *then, counted).await?;
        let tasks = words::counted(act.found, "task", "tasks");
        Ok(format!("{tasks} in the background, as act {}", act.id))
    }
}

/// What a bulk act does, by its word in the field `action`.
pub(super) fn action_of(fields: &FormFields) -> Result<BulkAction, ConsoleProblem> {
    let word = fields.required("action")?;
    let all = [BulkAction::Revoke, BulkAction::Retry, BulkAction::Move, BulkAction::Purge];
    all.into_iter().find(|action| action.as_str() == word).ok_or_else(|| {
        let shown = words::line(&word, 40);
        ConsoleProblem::malformed(format!("`{shown}` is nothing that a bulk act does."))
    })
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

/// Whose tasks a bulk act is about. The queues have their physical names.
pub(super) struct BulkReach {
    /// The queue of the tasks. `None`: they may be in any.
    queue: Option<String>,
    /// The tenant, if the act is about the tasks of one alone.
    tenant: Option<String>,
    /// The queue to which they are moved.
    to: Option<String>,
}

impl BulkReach {
    pub(super) fn of(console: &Console, rule: &BrakeRule, to: Option<&str>) -> Self {
        let physical = |queue: &str| console.physical(queue);
        Self {
            queue: rule.queue.as_deref().map(physical),
            tenant: tenant_of(rule).map(str::to_owned),
            to: to.map(physical),
        }
    }

    /// The tasks of this tenant in every queue, or all tasks.
    pub(super) fn everywhere(tenant: Option<&str>) -> Self {
        Self { queue: None, tenant: tenant.map(str::to_owned), to: None }
    }

    /// Whether whoever looks may see all tasks that the act can be about.
    pub(super) async fn is_seen(&self, visit: &ConsoleVisit) -> bool {
        let owners = self.owners(&visit.viewer);
        visit.ask_of_tenants(&[Permission::See], owners.iter().copied()).await;
        owners.into_iter().all(|(queue, tenant)| visit.viewer.sees_task(queue, tenant))
    }

    /// Makes sure that whoever looks may see all tasks that the act can be about, and may do that with them.
    pub(super) async fn check(
        &self,
        visit: &ConsoleVisit,
        permission: Permission,
    ) -> Result<(), ConsoleProblem> {
        let viewer = &visit.viewer;
        visit.ask_of_tenants(&[Permission::See, permission], self.owners(viewer)).await;
        let lacks = |queue: &str| {
            [Permission::See, permission]
                .into_iter()
                .find(|needed| !viewer.may_with(*needed, queue, self.tenant.as_deref()))
        };
        let from = self.queue.as_deref().unwrap_or(OF_NO_QUEUE);
        if let Some(lacking) = lacks(from) {
            return Err(NotAllowed::Denied(lacking, self.queue.clone()).into());
        }
        if self.queue.is_none() && viewer.queues().any(|queue| lacks(queue).is_some()) {
            let text = "Tasks of every queue are meant, and there are queues for which you may not do that: choose a queue.";
            return Err(ConsoleProblem::denied(text));
        }
        match &self.to {
            Some(to) if !viewer.may_with(permission, to, self.tenant.as_deref()) => {
                Err(NotAllowed::Denied(permission, Some(to.clone())).into())
            }
            _ => Ok(()),
        }
    }

    /// The queues, each with the tenant whose tasks are meant there.
    fn owners<'a>(&'a self, viewer: &'a Viewer) -> Vec<(&'a str, Option<&'a str>)> {
        let mut queues: Vec<&str> = match &self.queue {
            Some(queue) => vec![queue.as_str()],
            // Tasks may be in a queue that the catalogue does not have.
            None => viewer.queues().chain([OF_NO_QUEUE]).collect(),
        };
        queues.extend(self.to.as_deref());
        queues.into_iter().map(|queue| (queue, self.tenant.as_deref())).collect()
    }
}

/// Makes sure that whoever sends the form of an act, or of its undo, may do that with all tasks that the act can be about.
pub(super) async fn check_sender(
    console: &Console,
    request: &HttpRequest,
    reach: &BulkReach,
    permission: Permission,
) -> Result<(), ConsoleProblem> {
    // The page that offers it knows who may do it.
    let page = if permission == Permission::Brake { PageName::Brakes } else { PageName::Bulk };
    let visit = ConsoleVisit::of(console, request, page).await?;
    reach.check(&visit, permission).await
}

/// Makes sure that whoever cancels or undoes a bulk act may do what it does with all tasks that it can be about.
pub(super) async fn check_touch(
    console: &Console,
    request: &HttpRequest,
    id: &str,
    action: BulkAction,
) -> Result<(), ConsoleProblem> {
    let act = bulk_act(console, id, action).await?;
    let reach = BulkReach::of(console, &act.rule, act.to.as_deref());
    check_sender(console, request, &reach, permission_of(action)).await
}

/// Makes sure that whoever sets or releases a brake of no queue may brake the tasks of every queue that it can be about.
pub(super) async fn check_brake(
    console: &Console,
    request: &HttpRequest,
    rule: &BrakeRule,
) -> Result<(), ConsoleProblem> {
    if rule.queue.is_some() {
        return Ok(());
    }
    let reach = BulkReach::everywhere(tenant_of(rule));
    check_sender(console, request, &reach, Permission::Brake).await
}

/// Makes sure that whoever pauses a tenant, or lets it go on, may brake its tasks in every queue.
pub(super) async fn check_tenant(
    console: &Console,
    request: &HttpRequest,
    tenant: &str,
) -> Result<(), ConsoleProblem> {
    check_sender(console, request, &BulkReach::everywhere(Some(tenant)), Permission::Brake).await
}

/// The brake of this id that is in force.
pub(super) async fn brake(console: &Console, id: &str) -> Result<Brake, ConsoleProblem> {
    let brakes = console.celeriac.brakes().list().await?;
    brakes.into_iter().find(|brake| brake.id == id).ok_or_else(|| {
        let shown = words::line(id, 80);
        ConsoleProblem::unknown(format!("There is no brake `{shown}`: it is over, or was taken away."))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_about_nothing_that_comes_later() {
        let read = |until: &str| {
            let fields = [("task", "shop.*"), ("until", until)];
            let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
            BulkForm::read(BulkAction::Purge, &FormFields::of(fields)).expect("a form").then
        };
        assert_eq!(read("5"), Timestamp::from_micros(5));
        assert!(read(&u64::MAX.to_string()) <= now());
    }
}
