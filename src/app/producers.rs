//! The levers of producer loops.

use std::sync::Arc;

use super::handle::{Celeriac, ControlError};
use crate::actors::ProducerStatus;
use crate::actors::producer::{GetProducer, LookNow, ProducerParts};
use crate::store::NoteChange;

impl Celeriac {
    /// The producer loops of this program, in the order in which they were given.
    ///
    /// # Errors
    /// A loop does not answer.
    pub async fn producers(&self) -> Result<Vec<ProducerStatus>, ControlError> {
        let mut all = Vec::new();
        for parts in self.producer_parts() {
            let name = &parts.producer.name;
            let address = parts.living().ok_or_else(|| ControlError::NoAnswer(name.clone()))?;
            let status = address.send(GetProducer).await;
            all.push(*status.map_err(|_| ControlError::NoAnswer(name.clone()))?);
        }
        Ok(all)
    }

    /// Lets a producer loop ask its source for nothing more, in all processes and through restarts, until
    /// [`resume_producer`](Self::resume_producer). What it has enqueued runs.
    ///
    /// # Errors
    /// There is no such loop, or the notes cannot be written.
    pub async fn pause_producer(&self, name: &str) -> Result<(), ControlError> {
        self.set_paused(name, Some("1")).await
    }

    /// Lets a paused producer loop go on.
    ///
    /// # Errors
    /// There is no such loop, or the notes cannot be written.
    pub async fn resume_producer(&self, name: &str) -> Result<(), ControlError> {
        self.set_paused(name, None).await
    }

    /// Has a producer loop look now, without waiting for its interval, if it runs in this process: what it is to find is
    /// there. It may be called often; looks do not pile up.
    ///
    /// # Errors
    /// There is no such loop, or it does not answer.
    pub async fn run_producer(&self, name: &str) -> Result<(), ControlError> {
        let parts = self.find_producer(name)?;
        let address = parts.living().ok_or_else(|| ControlError::NoAnswer(name.to_owned()))?;
        let told = address.send(LookNow { hurry: true }).await;
        told.map_err(|_| ControlError::NoAnswer(name.to_owned()))
    }

    async fn set_paused(&self, name: &str, value: Option<&str>) -> Result<(), ControlError> {
        let parts = self.find_producer(name)?;
        let (key, notes) = (parts.pause_key(), self.runtime().notes());
        let value = value.map(str::to_owned);
        loop {
            let expected = notes.note(&key).await?;
            if expected == value {
                break;
            }
            let change = NoteChange { key: key.clone(), expected, value: value.clone() };
            if notes.change_note(change).await? {
                break;
            }
        }
        if let Some(address) = parts.living() {
            address.do_send(LookNow { hurry: false });
        }
        Ok(())
    }

    fn find_producer(&self, name: &str) -> Result<Arc<ProducerParts>, ControlError> {
        let all = self.producer_parts();
        all.iter().find(|parts| parts.producer.name == name).cloned().ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|parts| parts.producer.name.as_str()).collect();
            ControlError::UnknownProducer { name: name.to_owned(), known: known.join(", ") }
        })
    }
}
