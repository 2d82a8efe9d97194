//! One look of one person at one page.

use actix_web::HttpRequest;
use futures_util::future::join_all;

use super::Console;
use super::act_log::ActRecord;
use super::address::{PageName, ScreenAddress};
use super::problem::ConsoleProblem;
use super::rights::{Permission, Viewer};
use super::token::CsrfToken;

/// What a page is made from: the address, who looks, and what that one may do.
#[derive(Clone)]
pub(super) struct ConsoleVisit {
    pub(super) console: Console,
    /// By this the program is asked once more, when the page comes across the tasks of a tenant.
    request: HttpRequest,
    /// The page and the state of the screen, without what belongs to one answer only.
    pub(super) address: ScreenAddress,
    pub(super) viewer: Viewer,
    /// What forms need, to come from here.
    pub(super) token: CsrfToken,
    /// What came of the act after which the page is shown.
    pub(super) notice: Option<ActRecord>,
}

impl ConsoleVisit {
    /// The same visit, as if it were of this address.
    pub(super) fn at(&self, address: ScreenAddress) -> Self {
        Self { address, ..self.clone() }
    }

    /// Finds out who looks, and reads the address.
    pub(super) async fn of(
        console: &Console,
        request: &HttpRequest,
        page: PageName,
    ) -> Result<Self, ConsoleProblem> {
        // Whoever may not see the console learns nothing about addresses.
        let viewer = console.viewer(request, permissions(page)).await?;
        let address = ScreenAddress::read(page, request.query_string()).map_err(ConsoleProblem::malformed)?;
        let number = address.get("done").and_then(|number| number.parse().ok());
        let notice = number.and_then(|number| console.shared.acts.get(number));
        let notice = notice.filter(|act| act.who == viewer.who);
        let address = ["done", "format", "part", "events"]
            .into_iter()
            .fold(address, |address, name| address.without(name));
        let (console, token) = (console.clone(), CsrfToken::of(request));
        Ok(Self { console, request: request.clone(), address, viewer, token, notice })
    }

    /// Asks the program what the viewer may do with tasks of tenants, where it has denied that for all tasks of their queues. The
    /// tasks are named by their queues and their tenants.
    pub(super) async fn ask_of_tenants<'a>(
        &self,
        permissions: &[Permission],
        tasks: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) {
        let open = self.viewer.open_questions(permissions, tasks);
        let asked = open.into_iter().map(async |(permission, queue, tenant)| {
            let answer =
                self.console.permit_of(&self.request, permission, queue.as_deref(), Some(&tenant)).await;
            ((permission, queue, tenant), answer.is_ok())
        });
        self.viewer.note(join_all(asked).await);
    }

    /// Whether the viewer may see the tasks of a tenant in every queue, and so what sums them up.
    pub(super) async fn sees_tenant(&self, tenant: &str) -> bool {
        let queues = || self.viewer.queues().map(move |queue| (queue, Some(tenant)));
        self.ask_of_tenants(&[Permission::See], queues()).await;
        queues().all(|(queue, tenant)| self.viewer.sees_task(queue, tenant))
    }

    /// The choices of a field for a queue, each with its value and its text: any queue, or one that the viewer may see.
    pub(super) fn queue_choices(&self) -> Vec<(&str, &str)> {
        let names = self.console.celeriac.catalogue().queues.iter().map(|row| row.name.as_str());
        let seen = names.filter(|name| self.viewer.sees(name)).map(|name| (name, name));
        std::iter::once(("", "any queue")).chain(seen).collect()
    }

    /// What leads to a place in a list of tasks: the place itself, if whoever looks may see all that it may tell of.
    pub(super) fn sealed(&self, place: String) -> String {
        if self.viewer.sees_all() { place } else { self.console.shared.places.seal(place) }
    }

    /// The place in a list of tasks to which this leads.
    pub(super) fn opened(&self, after: &str) -> Result<String, ConsoleProblem> {
        if self.viewer.sees_all() {
            return Ok(after.to_owned());
        }
        self.console.shared.places.open(after).ok_or_else(|| {
            ConsoleProblem::malformed(
                "`after` is no place in this list, or was one too long ago; begin with its first page.",
            )
        })
    }

    /// The address as a link.
    pub(super) fn href(&self, address: &ScreenAddress) -> String {
        address.below(&self.console.public)
    }

    /// A link to the page of a queue.
    pub(super) fn queue(&self, name: &str) -> String {
        self.href(&ScreenAddress::of(PageName::Queue).with("name", name))
    }

    /// A link to the page of a task.
    pub(super) fn task(&self, id: &str) -> String {
        self.href(&ScreenAddress::of(PageName::Task).with("id", id))
    }

    /// A link to the page of a tenant.
    pub(super) fn tenant(&self, name: &str) -> String {
        self.href(&ScreenAddress::of(PageName::Tenant).with("name", name))
    }

    /// The value of a field that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, ConsoleProblem> {
        let missing = || ConsoleProblem::malformed(format!("The address lacks `{name}`."));
        self.address.get(name).ok_or_else(missing)
    }
}

/// What the page of a task offers besides looking.
pub(super) const TASK_ACTS: [Permission; 4] =
    [Permission::Revoke, Permission::Retry, Permission::Edit, Permission::Delete];

/// What a page offers besides looking.
fn permissions(page: PageName) -> &'static [Permission] {
    match page {
        PageName::Queues => &[Permission::Pause],
        PageName::Queue => &[Permission::Pause, Permission::Resize],
        PageName::Task => &TASK_ACTS,
        PageName::Failed => &[Permission::Retry, Permission::Edit, Permission::Delete],
        PageName::Lanes | PageName::Lane => &[Permission::SteerLane],
        PageName::Periodic | PageName::Entry => &[Permission::RunNow, Permission::PauseEntry],
        PageName::Brakes => &[Permission::Brake],
        PageName::Tenants | PageName::Tenant => &[Permission::Brake, Permission::SetWeight],
        PageName::Enqueue => &[Permission::Enqueue],
        PageName::Bulk => &[Permission::Revoke, Permission::Retry, Permission::Move, Permission::Purge],
        PageName::Confirm => &Permission::ALL,
        PageName::Tasks
        | PageName::Limits
        | PageName::History
        | PageName::Processes
        | PageName::Downloads
        | PageName::Live
        | PageName::Acts => &[],
    }
}
