//! What can be done in the console. An act comes as a form, from a page of the console or from a script.
//!
//! Invariants:
//! - An act is done only if it comes from a page of this console ([`token`](super::token)) and if the program allows it to
//!   whoever asks, for the queue that it is about.
//! - A form that is sent twice is acted on once, if the page has marked it ([`ONCE`](token::ONCE)).
//! - Every act is noted with who, what and what came of it, also one that was refused.
//! - What was counted is what is meant: an act on all that match leaves out what has come since they were counted.
//! - An act on all that match is about the tasks of those queues only for which whoever asks has the permission.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::act_log::ActRecord;
use super::address::{PageName, ScreenAddress};
use super::brake_form::{self, BrakeForm, SURE};
use super::bulk_acts::{self, BulkForm};
use super::call_form::{self, CallForm};
use super::fields::FormFields;
use super::outcomes::{deleted, reach, retried};
use super::pages::acted_filter;
use super::problem::{ConsoleProblem, wants_json};
use super::rights::Permission;
use super::{Console, task_facts, token, words};
use crate::actors::{BeatError, PATIENCE, answered};
use crate::app::BulkAction;
use crate::broker::{TaskEdit, TaskFilter};
use crate::core::brake::BrakeAction;
use crate::task::clock::now;
use crate::task::{Arguments, State, TaskId};

/// The most workers that the page gives a queue: a slip of the finger is not to cost all memory.
const MOST_WORKERS: usize = 100_000;
/// For how long a tenant is paused, unless the form says otherwise.
const TENANT_PAUSE: Duration = Duration::from_secs(60 * 60);

/// An act.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum OperatorAct {
    Pause { queue: String },
    Resume { queue: String },
    Resize { queue: String, workers: usize, is_kept: bool },
    Revoke { id: TaskId, terminate: bool },
    Retry { id: TaskId },
    Edit { id: TaskId, arguments: Arguments },
    Delete { id: TaskId },
    RetryAll { chosen: ScreenAddress },
    DeleteAll { chosen: ScreenAddress },
    Unblock { scope: String, key: String },
    SetConcurrency { scope: String, key: String, concurrency: Option<u32> },
    RunNow { entry: String },
    PauseEntry { entry: String },
    ResumeEntry { entry: String },
    SetBrake(Box<BrakeForm>),
    ReleaseBrake { id: String },
    PauseTenant { tenant: String, lasts: Duration },
    ReleaseTenant { tenant: String },
    SetWeight { tenant: String, weight: f64 },
    Enqueue(Box<CallForm>),
    Bulk(Box<BulkForm>),
    // What the act does says who may cancel or undo it.
    CancelBulk { id: String, action: BulkAction },
    UndoBulk { id: String, action: BulkAction },
}

/// What an act is about, for the question whether it is allowed.
#[derive(Default)]
struct ActSubject {
    /// The queue; `None`: it is about none, or about all.
    queue: Option<String>,
    /// The tenant, if it is about the tasks of one alone.
    tenant: Option<String>,
}

impl ActSubject {
    fn of(queue: Option<String>, tenant: Option<&str>) -> Self {
        Self { queue, tenant: tenant.map(str::to_owned) }
    }
}

impl OperatorAct {
    /// Reads the fields of a form.
    pub(super) fn read(fields: &FormFields) -> Result<Self, ConsoleProblem> {
        let lane = || Ok::<_, ConsoleProblem>((fields.required("scope")?, fields.required("key")?));
        let bulk = |action| BulkForm::read(action, fields).map(|form| Self::Bulk(Box::new(form)));
        Ok(match fields.required("act")?.as_str() {
            "pause" => Self::Pause { queue: fields.required("queue")? },
            "resume" => Self::Resume { queue: fields.required("queue")? },
            "resize" => {
                let (queue, workers) = (fields.required("queue")?, fields.number::<usize>("workers")?);
                if !(1..=MOST_WORKERS).contains(&workers) {
                    let text = format!("A queue has 1 to {MOST_WORKERS} workers; pausing it stops it.");
                    return Err(ConsoleProblem::malformed(text));
                }
                Self::Resize { queue, workers, is_kept: fields.get("keep").is_some() }
            }
            "revoke" => Self::Revoke { id: fields.id()?, terminate: fields.get("terminate").is_some() },
            "retry" => Self::Retry { id: fields.id()? },
            "edit" => Self::Edit { id: fields.id()?, arguments: fields.arguments()? },
            "delete" => Self::Delete { id: fields.id()? },
            "retry_all" => Self::RetryAll { chosen: fields.chosen()? },
            "delete_all" => Self::DeleteAll { chosen: fields.chosen()? },
            "unblock" => lane().map(|(scope, key)| Self::Unblock { scope, key })?,
            "set_concurrency" => {
                let (scope, key) = lane()?;
                let concurrency = match fields.get("concurrency").map(str::trim) {
                    None | Some("") => None,
                    Some(_) => Some(fields.number("concurrency")?),
                };
                Self::SetConcurrency { scope, key, concurrency }
            }
            "bulk_revoke" => bulk(BulkAction::Revoke)?,
            "bulk_retry" => bulk(BulkAction::Retry)?,
            "bulk_move" => bulk(BulkAction::Move)?,
            "bulk_purge" => bulk(BulkAction::Purge)?,
            "cancel_bulk" => {
                Self::CancelBulk { id: fields.required("id")?, action: bulk_acts::action_of(fields)? }
            }
            "undo_bulk" => {
                Self::UndoBulk { id: fields.required("id")?, action: bulk_acts::action_of(fields)? }
            }
            "run_now" => Self::RunNow { entry: fields.required("entry")? },
            "pause_entry" => Self::PauseEntry { entry: fields.required("entry")? },
            "resume_entry" => Self::ResumeEntry { entry: fields.required("entry")? },
            "set_brake" => Self::SetBrake(Box::new(sure(fields)?)),
            "release_brake" => Self::ReleaseBrake { id: fields.required("id")? },
            "pause_tenant" => Self::PauseTenant {
                tenant: fields.required("tenant")?,
                lasts: brake_form::lasts(fields.get("for"))?.unwrap_or(TENANT_PAUSE),
            },
            "release_tenant" => Self::ReleaseTenant { tenant: fields.required("tenant")? },
            "set_weight" => {
                Self::SetWeight { tenant: fields.required("tenant")?, weight: fields.number("weight")? }
            }
            "enqueue" => Self::Enqueue(Box::new(CallForm::read(fields)?)),
            other => {
                let text = format!("The console has no act `{}`.", words::line(other, 40));
                return Err(ConsoleProblem::malformed(text));
            }
        })
    }

    /// What somebody has to be allowed to do it.
    pub(super) fn permission(&self) -> Permission {
        match self {
            Self::Pause { .. } | Self::Resume { .. } => Permission::Pause,
            Self::Resize { .. } => Permission::Resize,
            Self::Revoke { .. } => Permission::Revoke,
            Self::Retry { .. } | Self::RetryAll { .. } => Permission::Retry,
            Self::Edit { .. } => Permission::Edit,
            Self::Delete { .. } | Self::DeleteAll { .. } => Permission::Delete,
            Self::Unblock { .. } | Self::SetConcurrency { .. } => Permission::SteerLane,
            Self::Bulk(form) => bulk_acts::permission_of(form.action),
            Self::CancelBulk { action, .. } | Self::UndoBulk { action, .. } => {
                bulk_acts::permission_of(*action)
            }
            Self::RunNow { .. } => Permission::RunNow,
            Self::PauseEntry { .. } | Self::ResumeEntry { .. } => Permission::PauseEntry,
            Self::SetBrake(_)
            | Self::ReleaseBrake { .. }
            | Self::PauseTenant { .. }
            | Self::ReleaseTenant { .. } => Permission::Brake,
            Self::SetWeight { .. } => Permission::SetWeight,
            Self::Enqueue(_) => Permission::Enqueue,
        }
    }

    /// The act in words, for the log and the page of acts.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Pause { queue } => format!("pause the queue {queue}"),
            Self::Resume { queue } => format!("resume the queue {queue}"),
            Self::Resize { queue, workers, .. } => format!("give the queue {queue} {workers} workers"),
            Self::Revoke { id, terminate: false } => format!("revoke the task {id}"),
            Self::Revoke { id, terminate: true } => format!("revoke the task {id} and end its run"),
            Self::Retry { id } => format!("run the failed task {id} again"),
            Self::Edit { id, .. } => format!("run the failed task {id} again with other arguments"),
            Self::Delete { id } => format!("delete the failed task {id}"),
            Self::RetryAll { chosen } => format!("run all failed tasks again that match {}", shown(chosen)),
            Self::DeleteAll { chosen } => format!("delete all failed tasks that match {}", shown(chosen)),
            Self::Unblock { scope, key } => format!("let the lane {scope}/{key} go on"),
            Self::SetConcurrency { scope, key, concurrency: None } => {
                format!("let the lane {scope}/{key} run as its tasks state")
            }
            Self::SetConcurrency { scope, key, concurrency: Some(most) } => {
                format!("let at most {most} runs of the lane {scope}/{key} go on at a time")
            }
            Self::Bulk(form) => form.what(),
            Self::CancelBulk { id, action } => format!("cancel the bulk {} {id}", action.as_str()),
            Self::UndoBulk { id, action } => format!("undo the bulk {} {id}", action.as_str()),
            Self::RunNow { entry } => format!("run the periodic entry {entry} now"),
            Self::PauseEntry { entry } => format!("pause the periodic entry {entry}"),
            Self::ResumeEntry { entry } => format!("resume the periodic entry {entry}"),
            Self::SetBrake(form) => {
                format!("set a brake: {} for {}, {}", form.action(), form.rule(), form.ends())
            }
            Self::ReleaseBrake { id } => format!("take the brake {id} away"),
            Self::PauseTenant { tenant, lasts } => {
                format!("pause the tenant {tenant} for {}", words::span(*lasts))
            }
            Self::ReleaseTenant { tenant } => format!("let the tenant {tenant} go on"),
            Self::SetWeight { tenant, weight } => format!("give the tenant {tenant} the weight {weight}"),
            Self::Enqueue(call) => format!("call the task {}", call.task),
        }
    }

    /// What the act is about.
    async fn subject(&self, console: &Console) -> Result<ActSubject, ConsoleProblem> {
        Ok(match self {
            Self::Pause { queue } | Self::Resume { queue } | Self::Resize { queue, .. } => {
                ActSubject::of(Some(queue.clone()), None)
            }
            Self::Revoke { id, .. } | Self::Retry { id } | Self::Edit { id, .. } | Self::Delete { id } => {
                let known = task_facts::owner_of(console, id).await?;
                let unknown = || {
                    let shown = words::line(id.as_str(), 80);
                    ConsoleProblem::unknown(format!("No task of the id `{shown}` is known here."))
                };
                let (queue, tenant) = known.ok_or_else(unknown)?;
                ActSubject { queue: Some(queue), tenant }
            }
            Self::RetryAll { chosen } | Self::DeleteAll { chosen } => {
                ActSubject::of(chosen.get("queue").map(str::to_owned), None)
            }
            Self::Bulk(form) => ActSubject::of(form.rule.queue.clone(), brake_form::tenant_of(&form.rule)),
            Self::CancelBulk { id, action } | Self::UndoBulk { id, action } => {
                let rule = bulk_acts::bulk_act(console, id, *action).await?.rule;
                ActSubject::of(rule.queue.clone(), brake_form::tenant_of(&rule))
            }
            Self::SetBrake(form) => ActSubject::of(form.rule().queue.clone(), form.tenant()),
            Self::ReleaseBrake { id } => {
                let rule = bulk_acts::brake(console, id).await?.rule;
                ActSubject::of(rule.queue.clone(), brake_form::tenant_of(&rule))
            }
            Self::PauseTenant { tenant, .. }
            | Self::ReleaseTenant { tenant }
            | Self::SetWeight { tenant, .. } => ActSubject::of(None, Some(tenant)),
            Self::Enqueue(call) => {
                let task = call.definition(console)?;
                let place = console.celeriac.place_of_call(task.name, &call.arguments());
                let (queue, tenant) = place.map_err(|error| call_form::refused(&error))?;
                ActSubject { queue: Some(queue), tenant }
            }
            Self::Unblock { .. }
            | Self::SetConcurrency { .. }
            | Self::RunNow { .. }
            | Self::PauseEntry { .. }
            | Self::ResumeEntry { .. } => ActSubject::default(),
        })
    }

    /// The failed tasks that an act on all of them is about: those that are chosen, of queues for which whoever asks has the
    /// permission.
    async fn meant(
        &self,
        console: &Console,
        request: &HttpRequest,
        chosen: &ScreenAddress,
    ) -> Result<TaskFilter, ConsoleProblem> {
        let viewer = console.viewer(request, &[self.permission()]).await?;
        acted_filter(console, chosen, &viewer, self.permission())
    }

    /// Does it in the name of whoever asks, so that the marks in the history have the name. The answer says what came of it.
    async fn perform(
        &self,
        console: &Console,
        request: &HttpRequest,
        who: &str,
    ) -> Result<String, ConsoleProblem> {
        let celeriac = console.celeriac.as_operator(who);
        let beat = |error: BeatError| ConsoleProblem::from(&error);
        match self {
            Self::Pause { queue } => {
                celeriac.pause(queue).await?;
                Ok("nothing more starts in this program, until it is resumed or the program restarts"
                    .to_owned())
            }
            Self::Resume { queue } => {
                celeriac.resume(queue).await?;
                Ok("it goes on".to_owned())
            }
            Self::Resize { queue, workers, is_kept: false } => {
                celeriac.resize(queue, *workers).await?;
                Ok("done in this program, until it restarts".to_owned())
            }
            Self::Resize { queue, workers, is_kept: true } => {
                celeriac.persistent().resize(queue, *workers).await?;
                Ok("done, also after a restart".to_owned())
            }
            Self::Revoke { id, terminate } => {
                let client = celeriac.client();
                if !client.revoke(id, *terminate).await? {
                    return Ok("there was nothing to revoke: it was over".to_owned());
                }
                // Whoever runs it may be the one that does not answer, and the revocation holds all the same.
                let outcome = match (answered(PATIENCE, client.state(id)).await, terminate) {
                    (Ok(Ok(State::Started)), true) => "its run is told to end, and it is not tried again",
                    (Ok(Ok(State::Started)), false) => "its run goes on, and it is not tried again",
                    _ => "it is revoked",
                };
                Ok(outcome.to_owned())
            }
            Self::Retry { id } => {
                task_facts::failed_of(console, request, self.permission(), id).await?;
                retried(&celeriac.retry_failed(&one(id)).await?)
            }
            Self::Edit { id, arguments } => {
                let kept = task_facts::failed_of(console, request, self.permission(), id).await?;
                for task in &kept {
                    if console.hides(&task.message) {
                        return Err(ConsoleProblem::denied(
                            "The arguments of this task are hidden, by its caller or by this program, so it goes back as it was or not at all.",
                        ));
                    }
                    // Other arguments may make it a task of another tenant.
                    let (queue, permission) = (Some(task.message.queue.as_str()), self.permission());
                    let tenant = celeriac.tenant_after_edit(&task.message, arguments);
                    console.permit_with(request, permission, queue, tenant.as_deref()).await?;
                }
                let edit = TaskEdit::arguments(arguments.clone());
                retried(&celeriac.edit_and_retry_failed(&one(id), edit).await?)
            }
            Self::Delete { id } => {
                task_facts::failed_of(console, request, self.permission(), id).await?;
                Ok(deleted(celeriac.delete_failed(&one(id)).await?.len()))
            }
            Self::RetryAll { chosen } => {
                let meant = self.meant(console, request, chosen).await?;
                retried(&celeriac.retry_failed(&meant).await?)
            }
            Self::DeleteAll { chosen } => {
                let meant = self.meant(console, request, chosen).await?;
                Ok(deleted(celeriac.delete_failed(&meant).await?.len()))
            }
            Self::Unblock { scope, key } => {
                let was_blocked = celeriac.unblock(scope, key).await?;
                let outcome = if was_blocked { "it goes on" } else { "it was not blocked" };
                Ok(outcome.to_owned())
            }
            Self::SetConcurrency { scope, key, concurrency } => {
                celeriac.set_concurrency(scope, key, *concurrency).await?;
                Ok("done; what runs goes on".to_owned())
            }
            Self::Bulk(form) => {
                let reach = form.reach(console);
                bulk_acts::check_sender(console, request, &reach, self.permission()).await?;
                form.begin(console, &celeriac).await
            }
            Self::CancelBulk { id, action } => {
                bulk_acts::check_touch(console, request, id, *action).await?;
                let act = celeriac.cancel_bulk(id).await?;
                let done = words::counted(act.done, "task is", "tasks are");
                Ok(match (act.ended_at, act.cancel) {
                    // It came to its end before anybody read that it is to.
                    (Some(_), None) => format!("it was over by then: {done} done, and nothing is left"),
                    (Some(_), Some(_)) => format!("it has ended; {done} done, which can be undone as always"),
                    (None, _) => {
                        format!("it ends at its next step; {done} done by now, which can be undone as always")
                    }
                })
            }
            Self::UndoBulk { id, action } => {
                bulk_acts::check_touch(console, request, id, *action).await?;
                celeriac.undo_bulk(id).await?;
                Ok("what has not run goes back, in the background".to_owned())
            }
            Self::RunNow { entry } => {
                let receipt = celeriac.beat().trigger(entry).await.map_err(beat)?;
                Ok(format!("its task was enqueued as {}", receipt.id))
            }
            Self::PauseEntry { entry } => {
                celeriac.beat().pause(entry).await.map_err(beat)?;
                Ok("it fires no more until it is resumed, also after a restart".to_owned())
            }
            Self::ResumeEntry { entry } => {
                celeriac.beat().resume(entry).await.map_err(beat)?;
                Ok("it fires at its next time; what it missed is not made up for".to_owned())
            }
            Self::SetBrake(form) => {
                bulk_acts::check_brake(console, request, form.rule()).await?;
                if let BrakeAction::Divert { divert_to } = form.action() {
                    console.permit(request, Permission::Brake, Some(divert_to)).await?;
                }
                let brake = celeriac.brakes().set(form.brake(now())).await?;
                Ok(format!("{brake} is set, {}; what runs goes on", reach(celeriac.brakes().scope())))
            }
            Self::ReleaseBrake { id } => {
                let rule = bulk_acts::brake(console, id).await?.rule;
                bulk_acts::check_brake(console, request, &rule).await?;
                let brake = celeriac.brakes().remove(id).await?;
                let outcome = if brake.is_some() { "what it has held starts" } else { "it was gone already" };
                Ok(outcome.to_owned())
            }
            Self::PauseTenant { tenant, lasts } => {
                bulk_acts::check_tenant(console, request, tenant).await?;
                let until = now() + *lasts;
                celeriac.brakes().set(brake_form::tenant_brake(tenant, until)).await?;
                let holds = reach(celeriac.brakes().scope());
                Ok(format!(
                    "none of its tasks starts before {}, {holds}; what runs goes on",
                    words::clock(until)
                ))
            }
            Self::ReleaseTenant { tenant } => {
                bulk_acts::check_tenant(console, request, tenant).await?;
                let brake = celeriac.brakes().remove(&brake_form::tenant_brake_id(tenant)).await?;
                let outcome =
                    if brake.is_some() { "its tasks start in their turn" } else { "it was not paused here" };
                Ok(outcome.to_owned())
            }
            Self::SetWeight { tenant, weight } => {
                celeriac.set_tenant_weight(tenant, *weight)?;
                celeriac.mark("weight", &format!("tenant {tenant}: {weight}"));
                Ok("it counts for what starts from now on, in this program, until it restarts".to_owned())
            }
            Self::Enqueue(call) => {
                let (task, arguments) = (call.definition(console)?, call.arguments());
                let receipt = celeriac.call_task(task, arguments, call.id.clone()).await;
                let receipt = receipt.map_err(|error| call_form::refused(&error))?;
                celeriac.mark("enqueue", &format!("{} as {}", task.name, receipt.id));
                let how = if receipt.joined { "an earlier call does the same" } else { "it is accepted" };
                Ok(format!("{how}: it is in the queue {} as {}", receipt.queue, receipt.id))
            }
        }
    }

    /// The page that shows what an act has made.
    async fn made(&self, console: &Console) -> Option<ScreenAddress> {
        let Self::Enqueue(call) = self else { return None };
        // A call that has joined an earlier one has made no task, and one whose result is not kept may be gone by now.
        let is_known = matches!(task_facts::owner_of(console, &call.id).await, Ok(Some(_)));
        Some(if is_known {
            ScreenAddress::of(PageName::Task).with("id", call.id.as_str())
        } else {
            ScreenAddress::of(PageName::Enqueue).with("task", &call.task)
        })
    }
}

/// The brake of a form. One that is about every task has to say that this is meant.
fn sure(fields: &FormFields) -> Result<BrakeForm, ConsoleProblem> {
    let form = BrakeForm::read(|name| fields.get(name))?;
    if form.is_about_everything() && fields.get(SURE).is_none() {
        let text = format!("The brake is about every task. If that is meant, send `{SURE}` with it.");
        return Err(ConsoleProblem::malformed(text));
    }
    Ok(form)
}

fn one(id: &TaskId) -> TaskFilter {
    TaskFilter::new().ids([id.clone()])
}

/// What chooses the tasks, in words.
fn shown(chosen: &ScreenAddress) -> String {
    let conditions: Vec<String> = chosen
        .fields()
        .filter(|(name, _)| *name != "until")
        .map(|(name, value)| format!("{name} {}", words::line(value, 80)))
        .collect();
    if conditions.is_empty() { "no condition".to_owned() } else { conditions.join(", ") }
}

/// Answers a form: does what it says, notes it, and leads back to the page.
pub(super) async fn answer(
    console: &Console,
    request: &HttpRequest,
    fields: &FormFields,
) -> Result<HttpResponse, ConsoleProblem> {
    // Whoever may not see the console learns nothing about acts.
    console.permit(request, Permission::See, None).await?;
    token::check(request, console, fields.get(token::FIELD)).map_err(ConsoleProblem::denied)?;
    let act = OperatorAct::read(fields)?;
    let ActSubject { queue, tenant } = act.subject(console).await?;
    let allowed = console.permit_with(request, act.permission(), queue.as_deref(), tenant.as_deref()).await;
    let who = match &allowed {
        Ok(who) => who.clone(),
        // The name under which the console may be seen.
        Err(_) => console.permit(request, Permission::See, None).await?,
    };
    let form = fields.get(token::ONCE).filter(|_| allowed.is_ok());
    if form.is_some_and(|form| !console.shared.acts.is_first(form)) {
        return sent_again(console, request);
    }
    let outcome = match allowed {
        Ok(_) => act.perform(console, request, &who).await,
        Err(refusal) => Err(refusal.into()),
    };
    if let Some(form) = form.filter(|_| outcome.is_err()) {
        console.shared.acts.forget_form(form);
    }
    console.shared.looks.forget();
    let record = ActRecord {
        number: 0,
        at: now(),
        who,
        queue: queue.map(|queue| console.physical(&queue)),
        permission: act.permission().as_str(),
        what: act.what(),
        outcome: match &outcome {
            Ok(outcome) => outcome.clone(),
            Err(problem) => problem.text().to_owned(),
        },
        is_done: outcome.is_ok(),
    };
    let number = console.shared.acts.note(record);
    let outcome = outcome?;
    if wants_json(request) {
        return Ok(HttpResponse::Ok().json(json!({ "act": number, "what": act.what(), "outcome": outcome })));
    }
    let back = match act.made(console).await {
        Some(made) => Some(made),
        None => fields.get("back").and_then(ScreenAddress::read_relative),
    };
    let back = back.unwrap_or_else(|| ScreenAddress::of(PageName::Acts)).with("done", number.to_string());
    Ok(HttpResponse::SeeOther().insert_header((header::LOCATION, back.below(&console.public))).finish())
}

/// Answers a form that was acted on before: what came of it is on the page of acts.
fn sent_again(console: &Console, request: &HttpRequest) -> Result<HttpResponse, ConsoleProblem> {
    if wants_json(request) {
        return Err(ConsoleProblem::sent_again());
    }
    let acts = ScreenAddress::of(PageName::Acts).below(&console.public);
    Ok(HttpResponse::SeeOther().insert_header((header::LOCATION, acts)).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<OperatorAct, String> {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        OperatorAct::read(&FormFields::of(fields)).map_err(|problem| problem.text().to_owned())
    }

    #[test]
    fn an_act_is_read_from_its_form() {
        let pause = read(&[("act", "pause"), ("queue", " mail ")]).expect("an act");
        assert_eq!(pause, OperatorAct::Pause { queue: "mail".to_owned() });
        assert_eq!((pause.permission(), pause.what().as_str()), (Permission::Pause, "pause the queue mail"));
        let edit = read(&[("act", "edit"), ("id", "a"), ("args", "[1]"), ("kwargs", "{}")]).expect("an act");
        let arguments = Arguments { args: "[1]".into(), kwargs: String::new() };
        assert_eq!(edit, OperatorAct::Edit { id: "a".into(), arguments });
        let all = read(&[("act", "delete_all"), ("error", "down"), ("until", "5"), ("token", "x")])
            .expect("an act");
        assert_eq!(all.what(), "delete all failed tasks that match error down");
        let lane = [("act", "set_concurrency"), ("scope", "s"), ("key", "k"), ("concurrency", "0")];
        assert_eq!(
            read(&lane),
            Ok(OperatorAct::SetConcurrency { scope: "s".into(), key: "k".into(), concurrency: Some(0) })
        );
        let tenant = read(&[("act", "pause_tenant"), ("tenant", "acme")]).expect("an act");
        assert_eq!(tenant.what(), "pause the tenant acme for 1 h");
        let weight = read(&[("act", "set_weight"), ("tenant", "acme"), ("weight", "2.5")]);
        assert_eq!(weight, Ok(OperatorAct::SetWeight { tenant: "acme".to_owned(), weight: 2.5 }));
        let brake = read(&[("act", "set_brake"), ("action", "pause"), ("task", "a.*"), ("for", "30m")]);
        let brake = brake.expect("an act");
        assert_eq!(brake.what(), "set a brake: pause for task a.*, for 30 min");
        let all = [("act", "set_brake"), ("action", "pause"), ("all", "1"), ("sure", "1")];
        assert!(read(&all).is_ok() && read(&all[..3]).expect_err("not sure").contains("`sure`"));
    }

    #[test]
    fn what_is_no_act_says_what_is_wrong() {
        let long = "x".repeat(300);
        for (fields, text) in [
            (&[][..], "lacks `act`"),
            (&[("act", "explode")], "no act `explode`"),
            (&[("act", "pause")], "lacks `queue`"),
            (&[("act", "resize"), ("queue", "q"), ("workers", "many")], "`many` is no number for `workers`"),
            (&[("act", "resize"), ("queue", "q"), ("workers", "0")], "1 to 100000 workers"),
            (&[("act", "resize"), ("queue", "q"), ("workers", "-1")], "no number"),
            (&[("act", "retry"), ("id", long.as_str())], "1 to 255 bytes"),
            (&[("act", "edit"), ("id", "a"), ("args", "{}")], "no JSON array"),
            (&[("act", "edit"), ("id", "a"), ("args", "[]"), ("kwargs", "[]")], "no JSON object"),
        ] {
            let error = read(fields).expect_err(text);
            assert!(error.contains(text), "{error}");
        }
    }
}
