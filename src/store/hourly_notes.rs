//! Notes of which each belongs to an hour, and which are deleted when that hour is too long ago.
//!
//! | note | says |
//! |---|---|
//! | `PREFIX/HOUR/…` | something of this hour (counted from 1970) |
//! | `PREFIX/first` | the first hour of which there may be notes |

use super::{CompareAndSet, Notes, StoreError};

/// How many hours are deleted in one step.
const AT_ONCE: u64 = 48;

/// One kind of such notes.
pub(super) struct HourlyNotes {
    /// What their names begin with.
    pub(super) prefix: &'static str,
    /// The number of hours that are kept, beside the present one.
    pub(super) kept_hours: u64,
}

impl HourlyNotes {
    /// What the names of the notes of an hour begin with.
    pub(super) fn of_hour(&self, hour: u64) -> String {
        format!("{}/{hour:08}/", self.prefix)
    }

    /// Deletes what is too old by now, at most two days of it. `now` is the number of this hour. Says whether that was all.
    ///
    /// # Errors
    /// The notes cannot be read or written. Some may be deleted by then.
    pub(super) async fn forget_old(&self, notes: &dyn Notes, now: u64) -> Result<bool, StoreError> {
        let key = format!("{}/first", self.prefix);
        let text = notes.note(&key).await?;
        let oldest = now.saturating_sub(self.kept_hours);
        // Without the note there are none yet. What somebody else wrote there, or a clock that was ahead, is not believed.
        let stated = text.as_deref().and_then(|text| text.parse::<u64>().ok()).filter(|first| *first <= now);
        let first = stated.unwrap_or(if text.is_some() { oldest } else { now });
        let until = oldest.min(first.saturating_add(AT_ONCE)).max(first);
        for hour in first..until {
            for (key, text) in notes.notes(&self.of_hour(hour)).await? {
                notes.compare_and_set(CompareAndSet { key, expected: Some(text), value: None }).await?;
            }
        }
        let value = Some(until.to_string());
        if text != value {
            // Another process may have done the same.
            notes.compare_and_set(CompareAndSet { key, expected: text, value }).await?;
        }
        Ok(until >= oldest)
    }
}
