//! Shares a status that was asked for a moment ago, so that many requests at once cost one lookup.
//!
//! Pollers are told to ask again after a second or more, so they do not notice. Pages and event streams do not use
//! this: a user who has just pressed a button sees its effect.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;

use crate::soil::{Soil, SoilError, Status};
use crate::task::TaskId;

/// How long an answer is shared.
const FRESH: Duration = Duration::from_millis(200);
/// The number of answers from which on old ones are removed.
const MANY: usize = 1_000;

type SharedStatus = Shared<BoxFuture<'static, Result<Status, SoilError>>>;

/// The latest answers of one server thread.
#[derive(Clone, Default)]
pub(super) struct SingleFlight {
    asked: Arc<Mutex<HashMap<TaskId, (Instant, SharedStatus)>>>,
    generations: Arc<Mutex<HashMap<TaskId, (Instant, u64)>>>,
}

impl SingleFlight {
    /// The status of a task, at most [`FRESH`] old.
    pub(super) async fn status(&self, soil: &Soil, id: &TaskId) -> Result<Status, SoilError> {
        let asked = self.ask(soil, id);
        asked.await
    }

    /// The generation of the links of a task or group, at most [`FRESH`] old.
    pub(super) async fn generation(&self, soil: &Soil, id: &TaskId) -> Result<u64, SoilError> {
        let known = self.generations.lock().get(id).copied();
        if let Some((_, generation)) = known.filter(|(begun, _)| begun.elapsed() < FRESH) {
            return Ok(generation);
        }
        let begun = Instant::now();
        let generation = soil.link_generation(id).await?;
        let mut generations = self.generations.lock();
        if generations.len() >= MANY {
            generations.retain(|_, (begun, _)| begun.elapsed() < FRESH);
        }
        generations.insert(id.clone(), (begun, generation));
        Ok(generation)
    }

    fn ask(&self, soil: &Soil, id: &TaskId) -> SharedStatus {
        let mut single_flight = self.asked.lock();
        if let Some((_, asked)) = single_flight.get(id).filter(|(begun, _)| begun.elapsed() < FRESH) {
            return asked.clone();
        }
        if single_flight.len() >= MANY {
            single_flight.retain(|_, (begun, _)| begun.elapsed() < FRESH);
        }
        let (soil, own) = (soil.clone(), id.clone());
        let asked = async move { soil.status(&own).await }.boxed().shared();
        single_flight.insert(id.clone(), (Instant::now(), asked.clone()));
        asked
    }
}
