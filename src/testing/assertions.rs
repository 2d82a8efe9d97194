//! Assertions about the tasks that were enqueued.

use std::collections::BTreeMap;

use super::{Expectation, TestApp};
use crate::task::{DownloadFacts, State, TaskId, TaskResult};

/// Fails unless a task was enqueued, no matter by whom, and whether it has run by now or not. The failure shows the
/// near misses.
///
/// Write the call as the code makes it. Behind it may stand options of the call: `queue`, `priority`, `countdown`,
/// `eta`, `id`, `header = (name, value)`; and `times`, without which the call must occur at least once. See
/// [`Expectation`](crate::testing::Expectation). `send_email(..)` matches a call with any arguments.
///
/// ```
/// # use celeriac::{assert_enqueued, task, testing};
/// # #[task(queue = "email")] async fn send_email(user: u64) {}
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = testing::start().await?;
/// send_email::s(42).priority(5).delay().await?;
/// send_email::delay(43).await?;
/// assert_enqueued!(app, send_email(42), queue = "email", priority = 5);
/// assert_enqueued!(app, send_email(..), times = 2);
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! assert_enqueued {
    ($app:expr, $($task:ident)::+ (..) $(, $option:ident = $value:expr)* $(,)?) => {
        $crate::__assert_enqueued!($crate::testing::check_enqueued, $app,
            $crate::testing::Expectation::of_type($($task)::+::Task) $(.$option($value))*)
    };
    ($app:expr, $($task:ident)::+ ($($argument:expr),* $(,)?) $(, $option:ident = $value:expr)* $(,)?) => {
        $crate::__assert_enqueued!($crate::testing::check_enqueued, $app,
            $crate::testing::Expectation::call($($task)::+::s($($argument),*)) $(.$option($value))*)
    };
}

/// Fails if such a task was enqueued. It takes the same arguments as [`assert_enqueued!`](crate::assert_enqueued).
#[macro_export]
macro_rules! assert_not_enqueued {
    ($app:expr, $($task:ident)::+ (..) $(, $option:ident = $value:expr)* $(,)?) => {
        $crate::__assert_enqueued!($crate::testing::check_not_enqueued, $app,
            $crate::testing::Expectation::of_type($($task)::+::Task) $(.$option($value))*)
    };
    ($app:expr, $($task:ident)::+ ($($argument:expr),* $(,)?) $(, $option:ident = $value:expr)* $(,)?) => {
        $crate::__assert_enqueued!($crate::testing::check_not_enqueued, $app,
            $crate::testing::Expectation::call($($task)::+::s($($argument),*)) $(.$option($value))*)
    };
}

/// Fails unless a task's progress was seen at these points in this order, with any other points between them:
/// `assert_progress!(app, export.id(), [(1, 4), (4, 4)])`. The failure shows all points that were seen.
#[macro_export]
macro_rules! assert_progress {
    ($app:expr, $id:expr, [$(($current:expr, $total:expr)),+ $(,)?] $(,)?) => {
        if let ::core::result::Result::Err(text) =
            $crate::testing::check_progress(&$app, &$id, &[$(($current, $total)),+])
        {
            ::core::panic!("{text}");
        }
    };
}

/// Fails unless a task has succeeded with a file to download:
/// `assert_download!(app, export.id(), name = "cases.csv")`. Behind the id may stand
/// [fields of the file](crate::soil::DownloadFacts): `name`, `content_type`, `size`, `owners`, `headers`. The failure
/// shows the state of the task instead. Read the bytes of the file with
/// [`TestApp::downloaded`](crate::testing::TestApp::downloaded).
#[macro_export]
macro_rules! assert_download {
    ($app:expr, $id:expr $(, $field:ident = $value:expr)* $(,)?) => {{
        let facts = match $crate::testing::check_download(&$app, &$id) {
            ::core::result::Result::Ok(facts) => facts,
            ::core::result::Result::Err(text) => ::core::panic!("{text}"),
        };
        $(::core::assert_eq!(
            facts.$field, $value,
            "the {} of the download, which is {:?}", ::core::stringify!($field), facts
        );)*
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __assert_enqueued {
    ($check:path, $app:expr, $expectation:expr) => {
        if let ::core::result::Result::Err(text) = $check(&$app, &$expectation) {
            ::core::panic!("{text}");
        }
    };
}

/// Checks as [`assert_enqueued!`](crate::assert_enqueued) does, for assertions of your own.
///
/// # Errors
/// A text that names the calls that were enqueued instead.
pub fn check_enqueued(app: &TestApp, expected: &Expectation) -> Result<(), String> {
    let found = count(app, expected);
    let enough = expected.wanted_times().map_or(found > 0, |times| found == times);
    if enough {
        return Ok(());
    }
    let times = match expected.wanted_times() {
        None => "was not enqueued".to_owned(),
        Some(times) => format!("was to be enqueued {times} times, and was {found} times"),
    };
    Err(format!("{} {times}\n{}", expected.describe(), instead(app, expected)))
}

/// Checks as [`assert_not_enqueued!`](crate::assert_not_enqueued) does, for assertions of your own.
///
/// # Errors
/// A text that says how often the task was enqueued.
pub fn check_not_enqueued(app: &TestApp, expected: &Expectation) -> Result<(), String> {
    match count(app, expected) {
        0 => Ok(()),
        found => {
            let times = if found == 1 { "once".to_owned() } else { format!("{found} times") };
            Err(format!("{} was enqueued {times}\n{}", expected.describe(), instead(app, expected)))
        }
    }
}

/// Checks as [`assert_progress!`](crate::assert_progress) does, for assertions of your own.
///
/// # Errors
/// A text that names the points that were seen instead.
pub fn check_progress(app: &TestApp, id: &TaskId, expected: &[(u64, u64)]) -> Result<(), String> {
    let seen = app.progress(id);
    let mut left = seen.iter();
    match expected.iter().find(|point| !left.any(|seen| seen == *point)) {
        None => Ok(()),
        Some((current, total)) => Err(format!(
            "the task {id} was not seen at {current} of {total} in its turn; it was seen at {seen:?}"
        )),
    }
}

/// Checks as [`assert_download!`](crate::assert_download) does, for assertions of your own. Returns the facts about
/// the file.
///
/// # Errors
/// The task has no download; the text says how the task ended.
pub fn check_download(app: &TestApp, id: &TaskId) -> Result<DownloadFacts, String> {
    match app.record(id) {
        Some(TaskResult { download: Some(download), .. }) => Ok(download.facts),
        Some(TaskResult { state: State::Success, .. }) => {
            Err(format!("the task {id} succeeded, and exposed no download"))
        }
        Some(record) => Err(format!(
            "the task {id} has no download: it ended as {}: {}",
            record.state,
            record.errors.join("; ")
        )),
        None => Err(format!("the task {id} has no download: it is not over, or keeps no result")),
    }
}

fn count(app: &TestApp, expected: &Expectation) -> usize {
    let enqueued = app.enqueued();
    enqueued.iter().filter(|m| expected.is_of(m) && expected.differences(m).is_empty()).count()
}

/// Describes what was enqueued: the calls of this task with their differences, and the number of calls of other
/// tasks.
fn instead(app: &TestApp, expected: &Expectation) -> String {
    let enqueued = app.enqueued();
    let mut lines = Vec::new();
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for message in &enqueued {
        if !expected.is_of(message) {
            *others.entry(&message.task).or_default() += 1;
            continue;
        }
        let differences = expected.differences(message);
        let differences =
            if differences.is_empty() { "as expected".to_owned() } else { differences.join("; ") };
        lines.push(format!(
            "  {} in queue {}: {differences}",
            expected.describe_found(message),
            message.queue
        ));
    }
    if lines.is_empty() {
        lines.push(format!("  no call of {}", expected.task()));
    }
    lines.extend(others.iter().map(|(task, times)| format!("  {task}, {times} times")));
    format!("this was enqueued:\n{}", lines.join("\n"))
}
