//! One look of one person at one page.

use actix_web::HttpRequest;

use super::Console;
use super::act_log::ActRecord;
use super::address::{PageName, ScreenAddress};
use super::problem::ConsoleProblem;
use super::rights::{Permission, Viewer};
use super::token::Token;

/// What a page is made from: the address, who looks, and what that one may do.
#[derive(Clone)]
pub(super) struct ConsoleVisit {
    pub(super) console: Console,
    /// The page and the state of the screen, without what belongs to one answer only.
    pub(super) address: ScreenAddress,
    pub(super) viewer: Viewer,
    /// What forms need, to come from here.
    pub(super) token: Token,
    /// What came of the act after which the page is shown.
    pub(super) notice: Option<ActRecord>,
}

impl ConsoleVisit {
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
        Ok(Self { console: console.clone(), address, viewer, token: Token::of(request), notice })
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

    /// The value of a field that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, ConsoleProblem> {
        let missing = || ConsoleProblem::malformed(format!("The address lacks `{name}`."));
        self.address.get(name).ok_or_else(missing)
    }
}

/// What a page offers besides looking.
fn permissions(page: PageName) -> &'static [Permission] {
    match page {
        PageName::Queues => &[Permission::Pause],
        PageName::Queue => &[Permission::Pause, Permission::Resize],
        PageName::Task => &[Permission::Revoke, Permission::Retry, Permission::Edit, Permission::Delete],
        PageName::Failed => &[Permission::Retry, Permission::Edit, Permission::Delete],
        PageName::Lanes | PageName::Lane => &[Permission::SteerLane],
        PageName::Periodic | PageName::Entry => &[Permission::RunNow, Permission::PauseEntry],
        PageName::Bulk => &[Permission::Revoke, Permission::Retry, Permission::Move, Permission::Purge],
        PageName::Confirm => &Permission::ALL,
        PageName::Tasks | PageName::Processes | PageName::Downloads | PageName::Live | PageName::Acts => &[],
    }
}
