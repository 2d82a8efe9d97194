//! Acknowledges elections among Celery's workers.
//!
//! Workers that gossip may elect one among them to do something. Each of them acknowledges each candidate, and the
//! candidates wait until all workers have done so that they know to be alive. A worker with heartbeats is one of these,
//! so without its acknowledgements no election in its fleet would ever end. A worker that only acknowledges never wins.
//!
//! An acknowledgement waits a moment. The worker that gets the last one counts the candidates, and Celery 5.7's dies of an
//! `IndexError` if it has heard of one only. So the others need time to stand.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::fleet_events::receiver_queue;
use super::link::{LinkState, LiveConnection, ReconnectPause};
use super::topology::broken;
use super::{AmqpInner, clock};
use crate::broker::BrokerError;

/// The routing key of the events by which workers stand for election.
const KEY: &str = "worker.elect";
/// A larger event is no candidacy.
const MOST: usize = 64 << 10;
/// How long a candidacy waits for its acknowledgement, so that the other candidates stand meanwhile.
const PAUSE: Duration = Duration::from_millis(200);
/// The most candidacies that wait; of more, each is acknowledged at once.
const AT_A_TIME: usize = 64;

/// Acknowledges elections, for as long as the broker is open.
pub(super) async fn attend(shared: Arc<AmqpInner>) {
    let mut link = shared.link.watch();
    let mut pause = ReconnectPause::default();
    loop {
        let up = match link.wait_for(|state| matches!(state, LinkState::Up(_))).await.as_deref() {
            Ok(LinkState::Up(up)) => up.clone(),
            _ => return,
        };
        match shared.link.during(follow(&shared, &up)).await {
            Ok(()) => pause = ReconnectPause::default(),
            Err(error) => tracing::debug!(%error, "no elections are heard of for now; trying again"),
        }
        pause.rest().await;
    }
}

/// Acknowledges on one connection, until that is gone.
async fn follow(shared: &Arc<AmqpInner>, up: &LiveConnection) -> Result<(), BrokerError> {
    let (channel, queue) = receiver_queue(shared, up, KEY).await?;
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut candidacies = channel
        .basic_consume(queue, "".into(), no_ack, FieldTable::default())
        .await
        .map_err(|e| broken(&e))?;
    let seats = Arc::new(Semaphore::new(AT_A_TIME));
    while let Some(delivery) = candidacies.next().await {
        let delivery = delivery.map_err(|e| broken(&e))?;
        if delivery.data.len() <= MOST
            && let Ok(event) = serde_json::from_slice::<Value>(&delivery.data)
            && let Some(id) = event.get("id").filter(|id| id.is_string())
        {
            clock::hear(event.get("clock"));
            let (shared, id) = (Arc::clone(shared), id.clone());
            match Arc::clone(&seats).try_acquire_owned() {
                Ok(seat) => drop(shared.runtime.clone().spawn(async move {
                    tokio::time::sleep(PAUSE).await;
                    shared.events.acknowledge_election(id);
                    drop(seat);
                })),
                Err(_) => shared.events.acknowledge_election(id),
            }
        }
    }
    Ok(())
}
