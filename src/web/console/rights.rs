//! Who may do what in the console.
//!
//! Invariants:
//! - A console is closed until the program says who may do what: without a hook, every page and every act is refused.
//! - The hook is asked anew for each request, and for each queue. What it did not allow is neither shown nor done.

use std::collections::{HashMap, HashSet};
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use actix_web::HttpRequest;
use futures_util::future::join_all;
use parking_lot::Mutex;

use super::Console;

/// What somebody may do in the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Permission {
    /// Looking at the pages, and at the tasks of a queue with their arguments and errors.
    See,
    /// Pausing a queue, and ending its pause.
    Pause,
    /// Changing the number of workers of a queue.
    Resize,
    /// Revoking a task.
    Revoke,
    /// Putting failed tasks and dead letters back into their queue as they are.
    Retry,
    /// Putting a failed task back with other arguments.
    Edit,
    /// Deleting failed tasks and dead letters for good.
    Delete,
    /// Moving all tasks that wait and match to another queue. It is asked about both queues.
    Move,
    /// Deleting all tasks that wait and match.
    Purge,
    /// Letting a blocked lane go on, and stopping or limiting the starts of a lane.
    SteerLane,
    /// Calling the task of a periodic entry now.
    RunNow,
    /// Pausing a periodic entry, and ending its pause.
    PauseEntry,
    /// Counting what a brake would be about, setting brakes and taking them away. A brake that diverts needs it for both queues,
    /// and one of no queue for every queue, with [`See`](Self::See), and for none.
    Brake,
    /// Changing the weight of a tenant, and so its share of the slots.
    SetWeight,
    /// Calling a task by hand. It is asked for the queue to which the call goes by its arguments.
    Enqueue,
}

impl Permission {
    /// All permissions that there are.
    pub const ALL: [Self; 15] = [
        Self::See,
        Self::Pause,
        Self::Resize,
        Self::Revoke,
        Self::Retry,
        Self::Edit,
        Self::Delete,
        Self::Move,
        Self::Purge,
        Self::SteerLane,
        Self::RunNow,
        Self::PauseEntry,
        Self::Brake,
        Self::SetWeight,
        Self::Enqueue,
    ];

    /// The word for it: `see`, `pause`, `resize`, `revoke`, `retry`, `edit`, `delete`, `move`, `purge`, `steer_lane`,
    /// `run_now`, `pause_entry`, `brake`, `set_weight`, `enqueue`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::See => "see",
            Self::Pause => "pause",
            Self::Resize => "resize",
            Self::Revoke => "revoke",
            Self::Retry => "retry",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Move => "move",
            Self::Purge => "purge",
            Self::SteerLane => "steer_lane",
            Self::RunNow => "run_now",
            Self::PauseEntry => "pause_entry",
            Self::Brake => "brake",
            Self::SetWeight => "set_weight",
            Self::Enqueue => "enqueue",
        }
    }
}

/// The question to the program: may this request do that?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PermissionCheck {
    /// What the request wants to do, or shows a button for.
    pub permission: Permission,
    /// The physical name of the queue that it is about. `None`: it is about no single queue, such as the console itself, a
    /// lane, a periodic entry, or the tasks of all queues at once. An act on these is asked about for each queue as well, and
    /// leaves alone the queues for which it is denied.
    pub queue: Option<String>,
    /// The tenant whose tasks it is about. `None`: it is about the tasks of all tenants, and those without one. The program is
    /// asked about a tenant only after it has denied the same for all of them, so a function that does not look at this field
    /// has nothing to change. One that allows it for a tenant alone lets somebody see, or touch, the tasks of that tenant and
    /// no others.
    pub tenant: Option<String>,
}

/// The answer of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Authorization {
    /// The person of this name may do that. The name is logged with each act, and shown beside it.
    As(String),
    /// The request may not do that.
    Denied,
    /// Whoever asks has to log in first. A request for a page is redirected to this address.
    LogIn(String),
}

impl From<bool> for Authorization {
    /// `true` allows it to somebody whose name is not known.
    fn from(is_allowed: bool) -> Self {
        if is_allowed { Self::As("somebody".to_owned()) } else { Self::Denied }
    }
}

impl From<Option<String>> for Authorization {
    /// The name of somebody allows it, and `None` denies it.
    fn from(who: Option<String>) -> Self {
        who.map_or(Self::Denied, Self::As)
    }
}

impl From<Option<&str>> for Authorization {
    /// The name of somebody allows it, and `None` denies it.
    fn from(who: Option<&str>) -> Self {
        who.map(str::to_owned).into()
    }
}

pub(super) type AuthorizationFuture = Pin<Box<dyn Future<Output = Authorization>>>;
pub(super) type AuthorizationHook =
    Arc<dyn Fn(HttpRequest, PermissionCheck) -> AuthorizationFuture + Send + Sync>;

/// The hook that answers at once.
pub(super) fn at_once<F, A>(hook: F) -> AuthorizationHook
where
    F: Fn(&HttpRequest, &PermissionCheck) -> A + Send + Sync + 'static,
    A: Into<Authorization>,
{
    Arc::new(move |request: HttpRequest, check: PermissionCheck| {
        let answer: Authorization = hook(&request, &check).into();
        Box::pin(ready(answer)) as AuthorizationFuture
    })
}

/// The hook that has to ask somebody first.
pub(super) fn later<F, Fut, A>(hook: F) -> AuthorizationHook
where
    F: Fn(HttpRequest, PermissionCheck) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = A> + 'static,
    A: Into<Authorization>,
{
    Arc::new(move |request: HttpRequest, check: PermissionCheck| {
        let answer = hook(request, check);
        Box::pin(async move { Into::<Authorization>::into(answer.await) }) as AuthorizationFuture
    })
}

/// Why a request may not do what it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotAllowed {
    /// The program has not said who may do what.
    Closed,
    /// The program has denied it.
    Denied(Permission, Option<String>),
    /// Whoever asks has to log in at this address.
    LogIn(String),
}

/// What the program is asked about the tasks of one tenant: what to do, in which queue of the catalogue, and whose.
pub(super) type TenantQuestion = (Permission, Option<String>, String);

/// Who looks at a page, and what may be shown and offered there.
#[derive(Clone, Debug, Default)]
pub(super) struct Viewer {
    pub(super) who: String,
    allowed: HashMap<Permission, HashSet<Option<String>>>,
    queues: HashSet<String>,
    /// The answers about single tenants, whose tasks are come across while a page is made. Clones share them.
    tenants: Arc<Mutex<HashMap<TenantQuestion, bool>>>,
}

impl Viewer {
    /// Whether the viewer may do that with a queue; `None`: with what is of no single queue. For a queue that the catalogue
    /// does not have, the answer is that for what is of no single queue.
    pub(super) fn may(&self, permission: Permission, queue: Option<&str>) -> bool {
        let queue = queue.filter(|queue| self.queues.contains(*queue)).map(str::to_owned);
        self.allowed.get(&permission).is_some_and(|queues| queues.contains(&queue))
    }

    /// With which queues the viewer may do that, in order; `None`: with what is of no single queue. Viewers with the same ones are
    /// told the same numbers.
    pub(super) fn allowed(&self, permission: Permission) -> Vec<Option<&str>> {
        let allowed = self.allowed.get(&permission).into_iter().flatten();
        let mut allowed: Vec<Option<&str>> = allowed.map(Option::as_deref).collect();
        allowed.sort_unstable();
        allowed
    }

    /// Whether the viewer may do that with the tasks of every queue, and with what is of no single queue.
    pub(super) fn may_everywhere(&self, permission: Permission) -> bool {
        self.may(permission, None) && self.queues.iter().all(|queue| self.may(permission, Some(queue)))
    }

    /// Whether the viewer may see a queue, and so all of its tasks. A queue that the catalogue does not have is seen by who may
    /// see any.
    pub(super) fn sees(&self, queue: &str) -> bool {
        self.may(Permission::See, Some(queue)) && (self.queues.contains(queue) || self.sees_any())
    }

    /// Whether the viewer may see any queue. Who may not can see the tasks of a tenant at most.
    pub(super) fn sees_any(&self) -> bool {
        self.queues.is_empty() || self.queues.iter().any(|queue| self.may(Permission::See, Some(queue)))
    }

    /// Whether the viewer may do that with a task of this tenant in a queue: with all tasks of the queue, or with those of the
    /// tenant, as far as the program [was asked](super::visit::ConsoleVisit::ask_of_tenants).
    pub(super) fn may_with(&self, permission: Permission, queue: &str, tenant: Option<&str>) -> bool {
        self.may_with_all(permission, queue)
            || tenant.is_some_and(|tenant| {
                let question = self.question(permission, queue, tenant);
                self.tenants.lock().get(&question).copied().unwrap_or_default()
            })
    }

    /// Whether the viewer may do that with the tasks of all tenants in a queue.
    fn may_with_all(&self, permission: Permission, queue: &str) -> bool {
        match permission {
            Permission::See => self.sees(queue),
            permission => self.may(permission, Some(queue)),
        }
    }

    /// Whether the viewer may see a task of this tenant in a queue.
    pub(super) fn sees_task(&self, queue: &str, tenant: Option<&str>) -> bool {
        self.may_with(Permission::See, queue, tenant)
    }

    /// What is still to be asked before it is known what the viewer may do with these tasks.
    pub(super) fn open_questions<'a>(
        &self,
        permissions: &[Permission],
        tasks: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> HashSet<TenantQuestion> {
        let known = self.tenants.lock();
        let mut open = HashSet::new();
        for (queue, tenant) in tasks {
            let Some(tenant) = tenant else { continue };
            for permission in permissions {
                let question = self.question(*permission, queue, tenant);
                if !self.may_with_all(*permission, queue) && !known.contains_key(&question) {
                    open.insert(question);
                }
            }
        }
        open
    }

    /// Notes the answers of the program.
    pub(super) fn note(&self, answers: impl IntoIterator<Item = (TenantQuestion, bool)>) {
        self.tenants.lock().extend(answers);
    }

    fn question(&self, permission: Permission, queue: &str, tenant: &str) -> TenantQuestion {
        let queue = Some(queue).filter(|queue| self.queues.contains(*queue)).map(str::to_owned);
        (permission, queue, tenant.to_owned())
    }

    /// The names of the queues of the catalogue.
    pub(super) fn queues(&self) -> impl Iterator<Item = &str> {
        self.queues.iter().map(String::as_str)
    }

    /// Whether the viewer may see the tasks of every queue, and so what may have tasks of any: a lane, a limit, a brake.
    pub(super) fn sees_all(&self) -> bool {
        self.queues.iter().all(|queue| self.sees(queue))
    }

    /// The names of what the viewer may do with anything, in the order of [`Permission::ALL`], of what the page asked for.
    pub(super) fn permissions(&self) -> Vec<&'static str> {
        let is_allowed =
            |permission: &Permission| self.allowed.get(permission).is_some_and(|all| !all.is_empty());
        Permission::ALL.into_iter().filter(is_allowed).map(Permission::as_str).collect()
    }
}

impl Console {
    /// The physical name of a queue that may be named by an alias; of a queue that the catalogue does not have, the name itself.
    pub(super) fn physical(&self, queue: &str) -> String {
        self.celeriac.catalogue().resolve(queue).unwrap_or(queue).to_owned()
    }

    /// Asks the program for one permission on the tasks of all tenants; the answer is the name of who asks.
    pub(super) async fn permit(
        &self,
        request: &HttpRequest,
        permission: Permission,
        queue: Option<&str>,
    ) -> Result<String, NotAllowed> {
        self.permit_of(request, permission, queue, None).await
    }

    /// Asks the program for one permission on the tasks of a tenant in a queue: on all tasks of the queue first, and on those of
    /// the tenant if that is denied.
    pub(super) async fn permit_with(
        &self,
        request: &HttpRequest,
        permission: Permission,
        queue: Option<&str>,
        tenant: Option<&str>,
    ) -> Result<String, NotAllowed> {
        match (self.permit(request, permission, queue).await, tenant) {
            (Err(NotAllowed::Denied(..)), Some(_)) => {
                self.permit_of(request, permission, queue, tenant).await
            }
            (answer, _) => answer,
        }
    }

    /// Asks the program for one permission on the tasks of this tenant, or of all.
    pub(super) async fn permit_of(
        &self,
        request: &HttpRequest,
        permission: Permission,
        queue: Option<&str>,
        tenant: Option<&str>,
    ) -> Result<String, NotAllowed> {
        let Some(hook) = &self.hook else { return Err(NotAllowed::Closed) };
        // A queue that the catalogue does not have is no queue that the program could have an opinion about.
        let queue = queue.and_then(|queue| self.celeriac.catalogue().resolve(queue)).map(str::to_owned);
        let check = PermissionCheck { permission, queue: queue.clone(), tenant: tenant.map(str::to_owned) };
        match hook(request.clone(), check).await {
            Authorization::As(who) => Ok(who),
            Authorization::Denied => Err(NotAllowed::Denied(permission, queue)),
            Authorization::LogIn(address) => Err(NotAllowed::LogIn(address)),
        }
    }

    /// Finds out what the request may see, and which of these other things it may do. All questions are asked at once.
    ///
    /// # Errors
    /// The request may not see the console at all.
    pub(super) async fn viewer(
        &self,
        request: &HttpRequest,
        permissions: &[Permission],
    ) -> Result<Viewer, NotAllowed> {
        let who = self.permit(request, Permission::See, None).await?;
        let queues: HashSet<String> =
            self.celeriac.catalogue().queues.iter().map(|row| row.name.clone()).collect();
        let mut viewer = Viewer { who, queues, ..Viewer::default() };
        viewer.allowed.entry(Permission::See).or_default().insert(None);
        let mut checks: Vec<(Permission, Option<String>)> =
            viewer.queues.iter().map(|queue| (Permission::See, Some(queue.clone()))).collect();
        for permission in permissions.iter().filter(|permission| **permission != Permission::See) {
            checks.push((*permission, None));
            checks.extend(viewer.queues.iter().map(|queue| (*permission, Some(queue.clone()))));
        }
        let asked =
            checks.iter().map(|(permission, queue)| self.permit(request, *permission, queue.as_deref()));
        let answers = join_all(asked).await;
        for ((permission, queue), answer) in checks.into_iter().zip(answers) {
            if answer.is_ok() {
                viewer.allowed.entry(permission).or_default().insert(queue);
            }
        }
        Ok(viewer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hook_may_answer() {
        assert_eq!(Authorization::from(true), Authorization::As("somebody".to_owned()));
        assert_eq!(Authorization::from(false), Authorization::Denied);
        assert_eq!(Authorization::from(Some("amina")), Authorization::As("amina".to_owned()));
        assert_eq!(Authorization::from(None::<String>), Authorization::Denied);
    }

    #[test]
    fn a_viewer_has_what_was_allowed_and_no_more() {
        let all = |queues: &[Option<&str>]| queues.iter().map(|queue| queue.map(str::to_owned)).collect();
        let viewer = Viewer {
            who: "amina".to_owned(),
            allowed: HashMap::from([
                (Permission::See, all(&[None, Some("mail")])),
                (Permission::Pause, all(&[Some("mail")])),
            ]),
            queues: ["mail", "sms"].map(str::to_owned).into(),
            ..Viewer::default()
        };
        assert!(viewer.sees("mail") && !viewer.sees("sms") && !viewer.sees_all());
        assert!(viewer.may(Permission::Pause, Some("mail")) && !viewer.may(Permission::Pause, None));
        assert!(viewer.sees("gone"), "a queue that the catalogue does not have is as no queue");
        assert!(
            !viewer.may(Permission::Pause, Some("gone")) && !viewer.may(Permission::Delete, Some("mail"))
        );
        assert_eq!(viewer.permissions(), ["see", "pause"]);
        assert_eq!(viewer.allowed(Permission::See), [None, Some("mail")]);
        assert!(viewer.allowed(Permission::Delete).is_empty());
    }

    #[test]
    fn who_sees_no_queue_sees_the_tasks_of_a_tenant_and_no_others() {
        let viewer = Viewer {
            who: "acme".to_owned(),
            allowed: HashMap::from([(Permission::See, HashSet::from([None]))]),
            queues: ["mail", "sms"].map(str::to_owned).into(),
            ..Viewer::default()
        };
        let tasks = [("mail", Some("acme")), ("mail", None), ("gone", Some("zoo")), ("mail", Some("acme"))];
        let open = viewer.open_questions(&[Permission::See], tasks);
        let question = |queue: Option<&str>, tenant: &str| {
            (Permission::See, queue.map(str::to_owned), tenant.to_owned())
        };
        assert_eq!(open, HashSet::from([question(Some("mail"), "acme"), question(None, "zoo")]));
        assert!(!viewer.sees_task("mail", Some("acme")), "nobody has answered yet");
        viewer.note(open.into_iter().map(|question| (question.clone(), question.2 == "acme")));
        assert!(viewer.sees_task("mail", Some("acme")));
        assert!(viewer.open_questions(&[Permission::See], tasks).is_empty(), "each is asked once");
        assert!(!viewer.may_with(Permission::Delete, "mail", Some("acme")));
        for (queue, tenant) in
            [("mail", None), ("sms", Some("acme")), ("gone", Some("zoo")), ("gone", None), ("", None)]
        {
            assert!(!viewer.sees_task(queue, tenant), "{queue} {tenant:?}");
        }
        assert!(!viewer.sees_any() && !viewer.sees_all() && !viewer.sees("gone"));
    }
}
