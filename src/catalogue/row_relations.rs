//! The rules between the rows of queues: what the partitions of one are called, and where one demotes calls to.

use super::check::LONGEST_NAME;
use super::error::{Problem, quote};
use super::{Catalogue, QueueRow};
use crate::core::partition::{self, MOST_PARTITIONS};

/// What is wrong between two rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RelationFault {
    /// A row contradicts another one, or itself.
    Problem(Problem),
    /// A row leads to a queue that does not exist.
    UnknownQueue {
        /// The row and what it does there, as in `queue "celery" demotes to`.
        subject: String,
        /// The name that no queue has.
        queue: String,
    },
}

/// What is wrong between the rows of a catalogue, each with the index of the row at fault. `within` names the environment in
/// errors.
pub(super) fn faults(catalogue: &Catalogue, within: &str) -> Vec<(usize, RelationFault)> {
    let mut faults = Vec::new();
    for (index, row) in catalogue.queues.iter().enumerate() {
        let found =
            partition_fault(catalogue, row, within).into_iter().chain(demotion_fault(catalogue, row, within));
        faults.extend(found.map(|fault| (index, fault)));
    }
    faults
}

/// Whether the partitions of a row can have their names.
fn partition_fault(catalogue: &Catalogue, row: &QueueRow, within: &str) -> Option<RelationFault> {
    let partitions = row.setup.partitions.filter(|partitions| *partitions <= MOST_PARTITIONS)?;
    let is_one = |other: &&QueueRow| {
        partition::split(&other.name).is_some_and(|(of, index)| of == row.name && index < partitions)
    };
    let advice = if partition::name(&row.name, partitions.saturating_sub(1)).len() > LONGEST_NAME {
        format!(
            "the names of its partitions would have more than {LONGEST_NAME} bytes: give the queue a shorter name"
        )
    } else {
        let other = catalogue.queues.iter().find(is_one)?;
        format!(
            "one of its partitions is called {}, which is another row: rename that queue",
            quote(&other.name)
        )
    };
    Some(bad_value("partitions", partitions.to_string(), advice, row, within))
}

/// Whether a row can demote calls to where it says.
fn demotion_fault(catalogue: &Catalogue, row: &QueueRow, within: &str) -> Option<RelationFault> {
    let missing = |key, example| {
        let place = format!("{within}queue {}", quote(&row.name));
        Some(RelationFault::Problem(Problem::MissingKey { place, key, example }))
    };
    let (above, to) = match (&row.demote_above, &row.demote_to) {
        (None, None) => return None,
        (Some(_), None) => return missing("demote_to", "\"slow_queue\""),
        (None, Some(_)) => return missing("demote_above", "\"30/m\""),
        (Some(above), Some(to)) => (above, to),
    };
    if row.setup.broadcast {
        let advice = "every process runs each task of a broadcast: remove it, or remove broadcast".to_owned();
        return Some(bad_value("demote_above", quote(above.text()), advice, row, within));
    }
    let Some(target) = catalogue.queue(to) else {
        let subject = format!("{within}queue {} demotes to", quote(&row.name));
        return Some(RelationFault::UnknownQueue { subject, queue: to.clone() });
    };
    let advice = if target.name == row.name {
        "it is this queue itself: name another queue"
    } else if target.demote_to.is_some() {
        "that queue demotes calls too, and a call is demoted once: name a queue that does not"
    } else if target.setup.broadcast {
        "every process runs each of its tasks: name another queue"
    } else {
        return None;
    };
    Some(bad_value("demote_to", quote(to), advice.to_owned(), row, within))
}

fn bad_value(key: &str, value: String, advice: String, row: &QueueRow, within: &str) -> RelationFault {
    let place = format!("in {within}queue {}", quote(&row.name));
    RelationFault::Problem(Problem::BadValue { key: key.to_owned(), place, value, advice })
}
