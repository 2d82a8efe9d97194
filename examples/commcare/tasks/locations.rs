//! Locations: cases move with the workers who look after them.

use celeriac::{TaskError, task};

use crate::hq::hq;

/// Gives all cases of one owner to another. Its queue is a logical one, which the catalogue lets stand for `celery`.
#[task(queue = "location_reassignment_queue")]
pub fn reassign_cases(domain: String, from: String, to: String) -> Result<usize, TaskError> {
    hq().db.write(|tx| {
        Ok(tx.execute("UPDATE cases SET owner = ? WHERE domain = ? AND owner = ?", [to, domain, from])?)
    })
}
