//! What is asked for by many at once is looked up once: a status that was asked for a moment ago is shared.
//!
//! Pollers are told when to ask again, a second or more later, so they do not notice. Pages and events do not take part: who
//! has just pressed a button sees what came of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::soil::{Soil, SoilError, Status};
use crate::task::TaskId;

/// So long an answer is shared.
const FRESH: Duration = Duration::from_millis(200);
/// With so many, those that are not fresh any more go.
const MANY: usize = 1_000;

type Asked = Shared<BoxFuture<'static, Result<Status, SoilError>>>;

/// The last answers of one server thread.
#[derive(Clone, Default)]
pub(super) struct Recent(Arc<Mutex<HashMap<TaskId, (Instant, Asked)>>>);

impl Recent {
    /// The status of a task, as it was a moment ago at the earliest.
    pub(super) async fn status(&self, soil: &Soil, id: &TaskId) -> Result<Status, SoilError> {
        let asked = self.ask(soil, id);
        asked.await
    }

    fn ask(&self, soil: &Soil, id: &TaskId) -> Asked {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, asked)) = recent.get(id).filter(|(begun, _)| begun.elapsed() < FRESH) {
            return asked.clone();
        }
        if recent.len() >= MANY {
            recent.retain(|_, (begun, _)| begun.elapsed() < FRESH);
        }
        let (soil, own) = (soil.clone(), id.clone());
        let asked = async move { soil.status(&own).await }.boxed().shared();
        recent.insert(id.clone(), (Instant::now(), asked.clone()));
        asked
    }
}
