//! What can be done in the console. An act comes as a form, from a page of the console or from a script.
//!
//! Invariants:
//! - An act is done only if it comes from a page of this console ([`token`](super::token)) and if the program allows it to
//!   whoever asks, for the queue that it is about.
//! - A form that is sent twice is acted on once, if the page has marked it ([`ONCE`](token::ONCE)).
//! - Every act is noted with who, what and what came of it, also one that was refused.
//! - What was counted is what is meant: an act on all that match leaves out what has come since they were counted.
//! - An act on all that match is about the tasks of those queues only for which whoever asks has the permission.

use std::collections::HashMap;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::act_log::ActRecord;
use super::address::{LONGEST, PageName, ScreenAddress};
use super::bulk_acts::{bulk_act, check_queues, permission_of};
use super::pages::acted_filter;
use super::problem::{ConsoleProblem, wants_json};
use super::rights::Permission;
use super::{Console, task_facts, token, words};
use crate::actors::BeatError;
use crate::app::BulkAction;
use crate::broker::{Retried, TaskEdit, TaskFilter};
use crate::core::Timestamp;
use crate::core::brake::BrakeRule;
use crate::task::clock::now;
use crate::task::{Arguments, TaskId};

/// The most workers that the page gives a queue: a slip of the finger is not to cost all memory.
const MOST_WORKERS: usize = 100_000;
/// The most bytes of edited arguments.
const MOST_ARGUMENTS: usize = 256 << 10;

/// An act.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum OperatorAct {
    Pause {
        queue: String,
    },
    Resume {
        queue: String,
    },
    Resize {
        queue: String,
        workers: usize,
        is_kept: bool,
    },
    Revoke {
        id: TaskId,
        terminate: bool,
    },
    Retry {
        id: TaskId,
    },
    Edit {
        id: TaskId,
        arguments: Arguments,
    },
    Delete {
        id: TaskId,
    },
    RetryAll {
        chosen: ScreenAddress,
    },
    DeleteAll {
        chosen: ScreenAddress,
    },
    Unblock {
        scope: String,
        key: String,
    },
    SetConcurrency {
        scope: String,
        key: String,
        concurrency: Option<u32>,
    },
    RunNow {
        entry: String,
    },
    PauseEntry {
        entry: String,
    },
    ResumeEntry {
        entry: String,
    },
    /// An act on all tasks that match a rule and were there by `then`.
    Bulk {
        action: BulkAction,
        rule: BrakeRule,
        to: Option<String>,
        then: Timestamp,
    },
    /// The undo of such an act. What the act has done says who may undo it.
    UndoBulk {
        id: String,
        action: BulkAction,
    },
}

/// The fields of a form.
pub(super) struct Fields(HashMap<String, String>);

impl Fields {
    pub(super) fn of(fields: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(fields.into_iter().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a field that must be there and is short.
    pub(super) fn required(&self, name: &str) -> Result<String, ConsoleProblem> {
        match self.get(name).map(str::trim) {
            None | Some("") => Err(ConsoleProblem::malformed(format!("The act lacks `{name}`."))),
            Some(text) if text.len() > LONGEST => Err(ConsoleProblem::malformed(format!(
                "`{name}` has {} bytes; it has at most {LONGEST}.",
                text.len()
            ))),
            Some(text) => Ok(text.to_owned()),
        }
    }

    fn id(&self) -> Result<TaskId, ConsoleProblem> {
        let id = TaskId::from(self.required("id")?);
        if id.is_usable() { Ok(id) } else { Err(ConsoleProblem::malformed("An id has 1 to 255 bytes.")) }
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, ConsoleProblem> {
        let text = self.required(name)?;
        let shown = words::line(&text, 40);
        text.parse().map_err(|_| ConsoleProblem::malformed(format!("`{shown}` is no number for `{name}`.")))
    }

    /// What chooses failed tasks, and up to when they were counted.
    fn chosen(&self) -> Result<ScreenAddress, ConsoleProblem> {
        let names = ["task", "queue", "argument", "error", "kind", "until"];
        let fields = names.into_iter().filter_map(|name| Some((name.to_owned(), self.get(name)?.to_owned())));
        ScreenAddress::checked(PageName::Failed, fields.collect()).map_err(ConsoleProblem::malformed)
    }
}

impl OperatorAct {
    /// Reads the fields of a form.
    pub(super) fn read(fields: &Fields) -> Result<Self, ConsoleProblem> {
        let lane = || Ok::<_, ConsoleProblem>((fields.required("scope")?, fields.required("key")?));
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
            "edit" => Self::Edit { id: fields.id()?, arguments: edited(fields)? },
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
            "bulk_revoke" => fields.bulk(BulkAction::Revoke)?,
            "bulk_retry" => fields.bulk(BulkAction::Retry)?,
            "bulk_move" => fields.bulk(BulkAction::Move)?,
            "bulk_purge" => fields.bulk(BulkAction::Purge)?,
            "undo_bulk" => Self::UndoBulk { id: fields.required("id")?, action: fields.action()? },
            "run_now" => Self::RunNow { entry: fields.required("entry")? },
            "pause_entry" => Self::PauseEntry { entry: fields.required("entry")? },
            "resume_entry" => Self::ResumeEntry { entry: fields.required("entry")? },
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
            Self::Bulk { action, .. } | Self::UndoBulk { action, .. } => permission_of(*action),
            Self::RunNow { .. } => Permission::RunNow,
            Self::PauseEntry { .. } | Self::ResumeEntry { .. } => Permission::PauseEntry,
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
            Self::Bulk { action, rule, to, .. } => {
                let tasks = match action {
                    BulkAction::Retry => "failed tasks that match",
                    _ => "tasks that wait and match",
                };
                let to = to.as_ref().map_or_else(String::new, |to| format!(" to the queue {to}"));
                let rule = words::line(&rule.to_string(), 200);
                format!("{} all {tasks} {rule}{to}", action.as_str())
            }
            Self::UndoBulk { id, action } => format!("undo the bulk {} {id}", action.as_str()),
            Self::RunNow { entry } => format!("run the periodic entry {entry} now"),
            Self::PauseEntry { entry } => format!("pause the periodic entry {entry}"),
            Self::ResumeEntry { entry } => format!("resume the periodic entry {entry}"),
        }
    }

    /// The queue that the act is about; `None`: it is about none, or about all.
    async fn queue(&self, console: &Console) -> Result<Option<String>, ConsoleProblem> {
        Ok(match self {
            Self::Pause { queue } | Self::Resume { queue } | Self::Resize { queue, .. } => {
                Some(queue.clone())
            }
            Self::Revoke { id, .. } | Self::Retry { id } | Self::Edit { id, .. } | Self::Delete { id } => {
                let known = task_facts::queue_of(console, id).await?;
                let unknown = || {
                    let shown = words::line(id.as_str(), 80);
                    ConsoleProblem::unknown(format!("No task of the id `{shown}` is known here."))
                };
                Some(known.ok_or_else(unknown)?)
            }
            Self::RetryAll { chosen } | Self::DeleteAll { chosen } => chosen.get("queue").map(str::to_owned),
            Self::Bulk { rule, .. } => rule.queue.clone(),
            Self::UndoBulk { id, action } => bulk_act(console, id, *action).await?.rule.queue,
            _ => None,
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

    /// Makes sure that whoever asks has the permission for all queues that a bulk act is about.
    async fn check_bulk(&self, console: &Console, request: &HttpRequest) -> Result<(), ConsoleProblem> {
        let (queue, to) = match self {
            Self::Bulk { rule, to, .. } => (rule.queue.clone(), to.clone()),
            Self::UndoBulk { id, action } => {
                let act = bulk_act(console, id, *action).await?;
                (act.rule.queue, act.to)
            }
            _ => return Ok(()),
        };
        let viewer = console.viewer(request, &[self.permission()]).await?;
        check_queues(console, &viewer, self.permission(), queue.as_deref(), to.as_deref())
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
        self.check_bulk(console, request).await?;
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
                let was_there = celeriac.client().revoke(id, *terminate).await?;
                let outcome =
                    if was_there { "it is revoked" } else { "there was nothing to revoke: it was over" };
                Ok(outcome.to_owned())
            }
            Self::Retry { id } => retried(&celeriac.retry_failed(&one(id)).await?),
            Self::Edit { id, arguments } => {
                let kept = celeriac.failed_tasks(&one(id), 1).await?;
                if kept.iter().any(|task| console.hides(&task.message)) {
                    return Err(ConsoleProblem::denied(
                        "The arguments of this task are hidden, by its caller or by this program, so it goes back as it was or not at all.",
                    ));
                }
                let edit = TaskEdit::arguments(arguments.clone());
                retried(&celeriac.edit_and_retry_failed(&one(id), edit).await?)
            }
            Self::Delete { id } => Ok(deleted(celeriac.delete_failed(&one(id)).await?.len())),
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
            Self::Bulk { action, rule, to, then } => {
                let act = celeriac.bulk().begin(*action, rule, to.as_deref(), *then).await?;
                let tasks = words::counted(act.found, "task", "tasks");
                Ok(format!("{tasks} in the background, as act {}", act.id))
            }
            Self::UndoBulk { id, .. } => {
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
        }
    }
}

/// The arguments of an edit, checked as far as they are JSON.
fn edited(fields: &Fields) -> Result<Arguments, ConsoleProblem> {
    let text = |name: &str| fields.get(name).unwrap_or_default().trim().to_owned();
    let (args, kwargs) = (text("args"), text("kwargs"));
    if args.len() + kwargs.len() > MOST_ARGUMENTS {
        return Err(ConsoleProblem::malformed(
            "These arguments are too large for a form; use `celeriac failed retry`.",
        ));
    }
    let is_list = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(&args);
    if let Err(error) = is_list {
        return Err(ConsoleProblem::malformed(format!(
            "The arguments by position are no JSON array: {error}."
        )));
    }
    if !kwargs.is_empty() {
        let is_map = serde_json::from_str::<HashMap<String, serde::de::IgnoredAny>>(&kwargs);
        is_map.map_err(|error| {
            ConsoleProblem::malformed(format!("The arguments by name are no JSON object: {error}."))
        })?;
    }
    Ok(Arguments { args, kwargs: if kwargs == "{}" { String::new() } else { kwargs } })
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

fn deleted(count: usize) -> String {
    match count {
        0 => "none was there any more".to_owned(),
        count => format!("{} deleted", words::counted(count as u64, "task is", "tasks are")),
    }
}

/// What came of trying tasks again. That none could be is an error.
fn retried(retried: &Retried) -> Result<String, ConsoleProblem> {
    let Retried { ids, refused } = retried;
    let back = words::counted(ids.len() as u64, "task waits", "tasks wait");
    match refused.first() {
        None if ids.is_empty() => Ok("none was there any more, or it waits already".to_owned()),
        None => Ok(format!("{back} in the queue again")),
        Some((id, why)) if ids.is_empty() => Err(ConsoleProblem::malformed(format!(
            "{} not go back. The first is {id}: {}",
            words::counted(refused.len() as u64, "task could", "tasks could"),
            words::line(why, 300)
        ))),
        Some((id, why)) => Ok(format!(
            "{back} in the queue again; {} not. The first is {id}: {}",
            words::counted(refused.len() as u64, "could", "could"),
            words::line(why, 300)
        )),
    }
}

/// Answers a form: does what it says, notes it, and leads back to the page.
pub(super) async fn answer(
    console: &Console,
    request: &HttpRequest,
    fields: &Fields,
) -> Result<HttpResponse, ConsoleProblem> {
    // Whoever may not see the console learns nothing about acts.
    console.permit(request, Permission::See, None).await?;
    token::check(request, console, fields.get(token::FIELD)).map_err(ConsoleProblem::denied)?;
    let act = OperatorAct::read(fields)?;
    let queue = act.queue(console).await?;
    let allowed = console.permit(request, act.permission(), queue.as_deref()).await;
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
    let back = fields.get("back").and_then(ScreenAddress::read_relative);
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
        OperatorAct::read(&Fields::of(fields)).map_err(|problem| problem.text().to_owned())
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
