//! What an operator sees of limits and of the gates: how much of each limit is used, and what is held back.

use super::handle::Celeriac;
use super::replies::Replies;
use crate::actors::QueueHold;
use crate::core::start_limit::{
    KeyFigures, LimitFigures, LimitKey, LimitedBy, RateScope, Refused, StartLimit,
};
use crate::core::token_bucket::RateLimit;

impl Celeriac {
    /// The limits on starts that hold in this program, with what each key has used here: those of the catalogue, those that the
    /// tasks state, and the rate limits of single tasks as they hold now. To look counts nothing. The cost grows with the number
    /// of keys, of which a limit tells 10,000 apart.
    ///
    /// ```no_run
    /// # fn demo(celeriac: celeriac::Celeriac) {
    /// for limit in celeriac.limits() {
    ///     for key in &limit.keys {
    ///         println!("{} `{}`: {} run, {:?}", limit.name, key.key, key.running, key.breaker);
    ///     }
    /// }
    /// # }
    /// ```
    pub fn limits(&self) -> Vec<LimitFigures> {
        let runtime = self.runtime();
        let mut all = runtime.limits.figures();
        for (task, text, wait) in runtime.levers.rates() {
            let rate = RateLimit::parse(&text).ok().flatten();
            let limit = StartLimit { rate, scope: RateScope::Process, ..StartLimit::default() };
            let refused = wait.map(|wait| {
                let by = LimitedBy::Rate(text);
                Refused { by, wait: Some(wait), question: None }
            });
            // It has one count, and nothing of it but the rate is counted.
            let key = LimitKey::Own("".into());
            let key = KeyFigures { key, running: 0, started_today: None, breaker: None, refused };
            all.push(LimitFigures { name: format!("rate of {task}"), key: None, limit, keys: vec![key] });
        }
        all
    }

    /// What brakes and limits hold back in the queues of this program, by what holds it. It is what the queues have in memory: of
    /// very many tasks, those that a queue has put back into the broker are not among them. A queue that does not answer within
    /// a second is named in [`Replies::missing`].
    pub async fn holds(&self) -> Replies<QueueHold> {
        let rows = self.catalogue().queues.iter().filter(|row| row.served);
        let asked = rows.map(async |row| (row.name.clone(), self.inner.queues.holds(&row.name).await));
        Replies::of_lists(futures_util::future::join_all(asked).await)
    }
}
