//! The operator's levers on source pollers. A pause is a note, so it holds in all processes and after restarts; the
//! other calls go to the loop of this process.

use std::sync::Arc;

use super::handle::{Celeriac, ControlError};
use super::replies::Replies;
use crate::actors::PollerStatus;
use crate::actors::source_poller::PollerParts;
use crate::store::set_note;

impl Celeriac {
    /// The statuses of this program's source pollers, in the order in which they were given to the builder. All are
    /// asked at once; one that does not answer within a second is left out and named in [`Replies::missing`].
    ///
    /// # Errors
    /// It returns no error at present.
    pub async fn pollers(&self) -> Result<Replies<PollerStatus>, ControlError> {
        let asked = self.poller_parts().iter().map(async |parts| {
            #[cfg(feature = "testing")]
            if self.is_in_test() {
                return (parts.poller.name.clone(), Some(parts.status()));
            }
            (parts.poller.name.clone(), parts.ask().await)
        });
        Ok(Replies::of(futures_util::future::join_all(asked).await))
    }

    /// Pauses a source poller in all processes, until [`resume_poller`](Self::resume_poller) and after restarts
    /// too: it asks its source for nothing more. Tasks that it has enqueued run.
    ///
    /// # Errors
    /// There is no source poller of this name, or the notes cannot be written.
    pub async fn pause_poller(&self, name: &str) -> Result<(), ControlError> {
        self.set_paused(name, Some("1")).await
    }

    /// Ends the pause of a source poller.
    ///
    /// # Errors
    /// There is no source poller of this name, or the notes cannot be written.
    pub async fn resume_poller(&self, name: &str) -> Result<(), ControlError> {
        self.set_paused(name, None).await
    }

    /// Has a source poller look now, without waiting for its interval, if it runs in this process. Call it when
    /// there is something to find; it may be called often, because looks do not pile up.
    ///
    /// # Errors
    /// There is no source poller of this name, or it does not answer.
    pub async fn run_poller(&self, name: &str) -> Result<(), ControlError> {
        let parts = self.find_poller(name)?;
        #[cfg(feature = "testing")]
        if self.is_in_test() {
            parts.look_once().await;
            return Ok(());
        }
        match parts.look_now().await {
            true => Ok(()),
            false => Err(ControlError::NoAnswer(name.to_owned())),
        }
    }

    async fn set_paused(&self, name: &str, value: Option<&str>) -> Result<(), ControlError> {
        let parts = self.find_poller(name)?;
        let (key, notes) = (parts.pause_key(), self.runtime().notes());
        set_note(notes, key, value.map(str::to_owned)).await?;
        parts.stir();
        Ok(())
    }

    fn find_poller(&self, name: &str) -> Result<Arc<PollerParts>, ControlError> {
        let all = self.poller_parts();
        all.iter().find(|parts| parts.poller.name == name).cloned().ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|parts| parts.poller.name.as_str()).collect();
            ControlError::UnknownPoller { name: name.to_owned(), known: known.join(", ") }
        })
    }
}
