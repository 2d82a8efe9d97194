//! Rates that all processes share, in Redis and by its clock: each rate is a key with the time before which no further start
//! lies. So the starts are evenly spread over all processes, and a rate that nobody uses leaves nothing behind.

use std::time::Duration;

use async_trait::async_trait;

use super::{RedisInner, RedisStore};
use crate::store::{SharedRates, StartsGranted, StartsWanted, StoreError};

/// Redis counts in floats, which are exact up to here: 142 years in microseconds.
const LONGEST: u64 = 1 << 52;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(LONGEST).min(LONGEST)
}

impl RedisInner {
    async fn take_starts(&self, name: &str, wanted: StartsWanted) -> Result<StartsGranted, StoreError> {
        let key = &self.keys.rate(name);
        let (starts, after): (u32, u64) = self
            .link
            .run(key, |mut connection, _| async move {
                let mut call = self.scripts.take_starts.prepare_invoke();
                call.key(key).arg(micros(wanted.interval).max(1)).arg(wanted.starts.max(1));
                call.arg(micros(wanted.ahead));
                call.invoke_async(&mut connection).await
            })
            .await?;
        Ok(StartsGranted { starts, after: Duration::from_micros(after) })
    }
}

#[async_trait]
impl SharedRates for RedisStore {
    async fn take_starts(&self, name: &str, wanted: StartsWanted) -> Result<StartsGranted, StoreError> {
        let name = name.to_owned();
        self.run(move |core| async move { core.take_starts(&name, wanted).await }).await
    }
}
