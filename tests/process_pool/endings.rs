//! The endings that a body may ask for, from another process.

use celeriac::{Celeriac, State};

use crate::kit::{record, row, until_status, with_queue};
use crate::tasks::ends;

/// How a task is to end: its state, its value, and the first of its errors.
const ENDINGS: [(&str, State, Option<&str>, Option<&str>); 9] = [
    ("value", State::Success, Some("1"), None),
    ("continue", State::Success, Some("31"), None),
    ("replace", State::Success, Some("1"), None),
    ("retry", State::Success, Some("12"), None),
    ("postpone", State::Success, Some("1"), None),
    ("fail", State::Failure, None, Some("row 3")),
    ("reject", State::Rejected, None, Some("foreign")),
    ("ignore", State::Ignored, None, None),
    ("error", State::Failure, None, Some("the disk is tired")),
];

async fn each(celeriac: &Celeriac) {
    for (how, state, value, error) in ENDINGS {
        let task = ends::s(how.to_owned(), 0).send(celeriac.client()).await.unwrap();
        let record = record(&task).await;
        let told = (record.state, record.result.as_deref(), record.errors.first().map(String::as_str));
        assert_eq!(told, (state, value, error), "{how}: {record:?}");
    }
}

pub fn are_those_of_the_other_pools() {
    with_queue(row(1), |celeriac| async move {
        each(&celeriac).await;
        // The one that has failed itself has then died.
        let status = until_status(&celeriac, |s| s.rejected == 1 && s.failed == 2).await;
        assert_eq!((status.lost, status.replaced), (1, 1));
    });
}
