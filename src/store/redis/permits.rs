//! Named locks and limits in Redis, by Redis's clock, for all processes.
//!
//! Each name has a sorted set of its holders by the ends of their leases, and a hash of their tokens. This process
//! renews all of its permits after every third of a lease. If it finds that a permit is gone, the permit was lost, and
//! the process tells its holder.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};

use super::{RedisInner, RedisStore};
use crate::core::IoFailure;
use crate::core::Timestamp;
use crate::store::StoreError;
use crate::task::{PermitAnswer, PermitHolder, PermitKeeper, Want};

/// How long a holder that does not renew its lease is taken for alive.
const LEASE: Duration = Duration::from_secs(10);

/// The permits that this process holds, by holder.
#[derive(Default)]
pub(super) struct HeldHere {
    held: Mutex<Holders>,
    /// Whether the task that renews the leases runs.
    renews: AtomicBool,
}

#[derive(Default)]
struct Holders {
    mine: HashMap<String, Mine>,
    /// The holders that are asking Redis, and whether each of them was given up meanwhile. A holder that was given up
    /// must not hold anything when the answer comes.
    asking: HashMap<String, bool>,
}

impl Holders {
    /// Forgets the permits that a holder has, and those that it is about to get.
    fn give_up(&mut self, holder: &str) {
        self.mine.remove(holder);
        if let Some(is_given_up) = self.asking.get_mut(holder) {
            *is_given_up = true;
        }
    }
}

struct Mine {
    names: Vec<String>,
    lost: Arc<AtomicBool>,
    renewed_at: Instant,
}

impl HeldHere {
    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.held.lock()
    }
}

fn names(wants: &[Want]) -> Vec<String> {
    wants.iter().map(|want| want.name.clone()).collect()
}

#[async_trait]
impl PermitKeeper for RedisStore {
    async fn acquire(&self, wants: &[Want], holder: &str) -> Result<PermitAnswer, IoFailure> {
        let (wants, holder) = (wants.to_vec(), holder.to_owned());
        self.core.held_here.lock().asking.insert(holder.clone(), false);
        let asked = self.run(move |core| async move { core.acquire(&wants, &holder).await }).await;
        if let Ok(PermitAnswer::Granted { .. }) = asked {
            self.renew_permits();
        }
        asked.map_err(IoFailure::from)
    }

    fn release(&self, wants: &[Want], holder: &str) {
        self.core.held_here.lock().give_up(holder);
        let (core, names, holder) = (Arc::clone(&self.core), names(wants), holder.to_owned());
        self.runtime.spawn(async move {
            if let Err(error) = core.put_back(&names, &holder, None).await {
                tracing::warn!(holder, %error, "a permit is not given back; it is free when its lease is over");
            }
        });
    }

    fn park(&self, wants: &[Want], holder: &str, within: Duration) {
        self.core.held_here.lock().mine.remove(holder);
        let (core, names, holder) = (Arc::clone(&self.core), names(wants), holder.to_owned());
        self.runtime.spawn(async move {
            if let Err(error) = core.put_back(&names, &holder, Some(within)).await {
                tracing::warn!(holder, %error, "a permit that is handed over is free when its lease is over");
            }
        });
    }

    // Another process may free the permit, and this process does not hear of that.
    async fn freed(&self, at_most: Duration) {
        tokio::time::sleep(at_most.mul_f64(rand::random_range(0.5..1.0))).await;
    }

    async fn holders(&self, name: &str) -> Result<Vec<PermitHolder>, IoFailure> {
        let name = name.to_owned();
        let holders = self.run(move |core| async move { core.permit_holders(&name).await }).await;
        holders.map_err(IoFailure::from)
    }
}

impl RedisStore {
    fn renew_permits(&self) {
        if !self.core.held_here.renews.swap(true, Ordering::AcqRel) {
            let core = Arc::downgrade(&self.core);
            self.runtime.spawn(renew(core));
        }
    }
}

/// Renews the leases until the store is gone.
async fn renew(core: Weak<RedisInner>) {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        let Some(core) = core.upgrade() else { return };
        let held: Vec<(String, Vec<String>)> = core
            .held_here
            .lock()
            .mine
            .iter()
            .map(|(holder, mine)| (holder.clone(), mine.names.clone()))
            .collect();
        for (holder, names) in held {
            let asked_at = Instant::now();
            let renewed = core.renew(&names, &holder).await;
            let held = &mut core.held_here.lock().mine;
            let Some(mine) = held.get_mut(&holder) else { continue }; // it was given back meanwhile
            match renewed {
                Ok(true) => {
                    mine.renewed_at = asked_at;
                    continue;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(holder, %error, "a permit is not renewed");
                    if mine.renewed_at.elapsed() < LEASE {
                        continue;
                    }
                }
            }
            tracing::warn!(
                holder,
                ?names,
                "a permit was lost: this process or Redis was away for longer than its lease, or Redis forgot it"
            );
            mine.lost.store(true, Ordering::Release);
            held.remove(&holder);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 50)
}

impl RedisInner {
    /// The two keys of each name: the set and the tokens.
    fn permit_keys(&self, names: &[String]) -> Vec<String> {
        names.iter().flat_map(|name| [self.keys.permit(name), self.keys.permit_tokens(name)]).collect()
    }

    async fn acquire(&self, wants: &[Want], holder: &str) -> Result<PermitAnswer, StoreError> {
        let asked = self.ask_for(wants, holder).await;
        let is_given_up = {
            let mut here = self.held_here.lock();
            let is_given_up = here.asking.remove(holder) == Some(true);
            if let Ok((PermitAnswer::Granted { lost, .. }, renewed_at)) = &asked
                && !is_given_up
            {
                let mine = Mine { names: names(wants), lost: Arc::clone(lost), renewed_at: *renewed_at };
                here.mine.insert(holder.to_owned(), mine);
            }
            is_given_up
        };
        if is_given_up {
            // Redis may have received the release that was sent before ahead of the request for the permit.
            self.put_back(&names(wants), holder, None).await?;
        }
        Ok(asked?.0)
    }

    /// The answer of Redis, and the time at which it was asked.
    async fn ask_for(&self, wants: &[Want], holder: &str) -> Result<(PermitAnswer, Instant), StoreError> {
        let names = names(wants);
        let asked_at = Instant::now();
        let keys = &self.permit_keys(&names);
        let Some(first) = keys.first() else {
            return Ok((PermitAnswer::Granted { tokens: Vec::new(), lost: Arc::default() }, asked_at));
        };
        let answer: Vec<i64> = self
            .link
            .run(first, |mut connection, _| async move {
                let mut call = self.scripts.acquire.prepare_invoke();
                call.key(keys).arg(holder).arg(millis(LEASE));
                for want in wants {
                    call.arg(want.limit);
                }
                call.invoke_async(&mut connection).await
            })
            .await?;
        let numbers = |numbers: &[i64]| numbers.iter().map(|n| u64::try_from(*n).unwrap_or(0)).collect();
        match answer.split_first() {
            Some((0, tokens)) => {
                Ok((PermitAnswer::Granted { tokens: numbers(tokens), lost: Arc::default() }, asked_at))
            }
            Some((busy, _)) => Ok((PermitAnswer::Busy(usize::try_from(*busy - 1).unwrap_or(0)), asked_at)),
            None => Err(StoreError::io(format!("redis at {} gives no answer", self.link.address))),
        }
    }

    /// Renews the leases of a holder. Returns whether the holder had all of these permits.
    async fn renew(&self, names: &[String], holder: &str) -> Result<bool, StoreError> {
        self.extend(names, holder, LEASE).await
    }

    async fn extend(&self, names: &[String], holder: &str, lease: Duration) -> Result<bool, StoreError> {
        let keys = &self.permit_keys(names);
        let Some(first) = keys.first() else { return Ok(true) };
        self.link
            .run(first, |mut connection, _| async move {
                let mut call = self.scripts.extend.prepare_invoke();
                call.key(keys).arg(holder).arg(millis(lease));
                call.invoke_async(&mut connection).await
            })
            .await
    }

    /// Gives permits back, at once or after the time `within`.
    async fn put_back(
        &self,
        names: &[String],
        holder: &str,
        within: Option<Duration>,
    ) -> Result<(), StoreError> {
        if let Some(within) = within {
            return self.extend(names, holder, within).await.map(drop);
        }
        let keys = &self.permit_keys(names);
        let Some(first) = keys.first() else { return Ok(()) };
        self.link
            .run(first, |mut connection, _| async move {
                let mut pipe = redis::pipe();
                pipe.atomic();
                for pair in keys.chunks(2) {
                    pipe.cmd("ZREM").arg(&pair[0]).arg(holder).ignore();
                    pipe.cmd("HDEL").arg(&pair[1]).arg(holder).ignore();
                }
                pipe.query_async(&mut connection).await
            })
            .await
    }

    async fn permit_holders(&self, name: &str) -> Result<Vec<PermitHolder>, StoreError> {
        let keys = &self.permit_keys(&[name.to_owned()]);
        let first = &keys[0];
        let held: Vec<(String, u64, u64)> = self
            .link
            .run(first, |mut connection, _| async move {
                self.scripts.holders.prepare_invoke().key(keys).invoke_async(&mut connection).await
            })
            .await?;
        let mut holders: Vec<PermitHolder> = held
            .into_iter()
            .map(|(holder, token, until)| PermitHolder {
                holder,
                token,
                until: Some(Timestamp::from_millis(until)),
            })
            .collect();
        holders.sort_by_key(|holder| holder.token);
        Ok(holders)
    }
}
