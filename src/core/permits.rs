//! Who holds which named permits. A holder gets several permits together or none of them, so that no holder waits for
//! one permit while it keeps another.
//!
//! A holder has its permits until it gives them back or, if they have a time limit, until that time. Each grant has a
//! token that is higher than all tokens before it, also those of an earlier life of the program, as long as the clock
//! does not go back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A permit that a task asks for, with its limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Want {
    /// The name of the permit, such as `sms-gateway`.
    pub name: String,
    /// How many holders may have the permit at a time. The asker states the limit.
    pub limit: u32,
}

/// A holder of a permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitHolder {
    /// The name of the holder, as it calls itself.
    pub holder: String,
    /// The fencing token of the grant.
    pub token: u64,
    /// When the permit ends unless it is renewed; `None`: when the holder gives it back.
    pub until: Option<Timestamp>,
}

/// All permits that are held, by name.
#[derive(Debug, Default)]
pub struct Permits {
    names: BTreeMap<String, Vec<PermitHolder>>,
    last_token: u64,
}

impl Permits {
    /// Gives `holder` all of these permits and returns their tokens, or gives none of them. Permits that `holder` has
    /// already stay with it under the same token, and lose their time limit.
    ///
    /// # Errors
    /// The index in `wants` of the first permit that has too many holders.
    pub fn acquire(&mut self, wants: &[Want], holder: &str, now: Timestamp) -> Result<Vec<u64>, usize> {
        // Permits whose time is over must not count against the limits.
        for want in wants {
            self.forget_over(&want.name, now);
        }
        // All permits are checked before any is given, so that a refusal leaves nothing behind.
        let is_free = |want: &Want| match self.names.get(&want.name) {
            Some(held) => {
                (held.len() as u64) < u64::from(want.limit) || held.iter().any(|h| h.holder == holder)
            }
            None => want.limit > 0,
        };
        if let Some(busy) = wants.iter().position(|want| !is_free(want)) {
            return Err(busy);
        }
        let mut tokens = Vec::with_capacity(wants.len());
        for want in wants {
            let held = self.names.entry(want.name.clone()).or_default();
            match held.iter_mut().find(|h| h.holder == holder) {
                Some(own) => {
                    own.until = None;
                    tokens.push(own.token);
                }
                None => {
                    // An earlier life of the program may have given tokens that nobody stored. The clock keeps new tokens
                    // above them.
                    self.last_token = self.last_token.saturating_add(1).max(now.as_micros());
                    let token = self.last_token;
                    held.push(PermitHolder { holder: holder.to_owned(), token, until: None });
                    tokens.push(token);
                }
            }
        }
        Ok(tokens)
    }

    /// Takes these permits from `holder`. Returns whether it had any of them.
    pub fn release<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, holder: &str) -> bool {
        let mut any = false;
        for name in names {
            if let Some(held) = self.names.get_mut(name) {
                let before = held.len();
                held.retain(|h| h.holder != holder);
                any |= held.len() < before;
                if held.is_empty() {
                    self.names.remove(name);
                }
            }
        }
        any
    }

    /// Limits the time of these permits of `holder`: they end at `until`.
    pub fn limit<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, holder: &str, until: Timestamp) {
        for name in names {
            let held = self.names.get_mut(name).into_iter().flatten();
            held.filter(|h| h.holder == holder).for_each(|h| h.until = Some(until));
        }
    }

    /// Adds a holder that an earlier life of the program has stored.
    pub fn restore(&mut self, name: &str, holder: PermitHolder) {
        self.last_token = self.last_token.max(holder.token);
        self.names.entry(name.to_owned()).or_default().push(holder);
    }

    /// The holders of this permit, in the order in which they got it.
    pub fn holders(&mut self, name: &str, now: Timestamp) -> Vec<PermitHolder> {
        self.forget_over(name, now);
        self.names.get(name).cloned().unwrap_or_default()
    }

    fn forget_over(&mut self, name: &str, now: Timestamp) {
        if let Some(held) = self.names.get_mut(name) {
            held.retain(|h| h.until.is_none_or(|until| until > now));
            if held.is_empty() {
                self.names.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum PermitStep {
        Acquire(u8, Vec<u8>),
        Release(u8),
        Limit(u8, u64),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = PermitStep> {
        prop_oneof![
            4 => (0..6_u8, prop::collection::vec(0..3_u8, 1..3)).prop_map(|(h, n)| PermitStep::Acquire(h, n)),
            3 => (0..6_u8).prop_map(PermitStep::Release),
            1 => (0..6_u8, 1..20_u64).prop_map(|(h, t)| PermitStep::Limit(h, t)),
            2 => (1..20_u64).prop_map(PermitStep::Wait),
        ]
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];

    proptest! {
        /// There are never more holders than the limit, tokens only grow, a grant is all or nothing, and a free
        /// permit is granted.
        #[test]
        fn permits_are_within_their_limits(steps in prop::collection::vec(step(), 1..80)) {
            let mut permits = Permits::default();
            let mut now = Timestamp::from_millis(1_000);
            let mut highest = 0;
            let limit = |n: u8| u32::from(n) + 1;
            for step in steps {
                match step {
                    PermitStep::Acquire(holder, wanted) => {
                        let wanted: Vec<u8> = wanted.into_iter().collect::<HashSet<_>>().into_iter().collect();
                        let holder = holder.to_string();
                        let wants: Vec<Want> = wanted
                            .iter()
                            .map(|n| Want { name: NAMES[usize::from(*n)].into(), limit: limit(*n) })
                            .collect();
                        let before: Vec<Vec<PermitHolder>> =
                            wants.iter().map(|want| permits.holders(&want.name, now)).collect();
                        let full = before.iter().zip(&wants).position(|(held, want)| {
                            held.len() as u32 >= want.limit && held.iter().all(|h| h.holder != holder)
                        });
                        let had = permits.acquire(&wants, &holder, now);
                        prop_assert_eq!(had.as_ref().err().copied(), full);
                        let after: Vec<Vec<PermitHolder>> =
                            wants.iter().map(|want| permits.holders(&want.name, now)).collect();
                        match had {
                            Err(_) => prop_assert_eq!(before, after),
                            Ok(tokens) => for ((held, before), token) in after.iter().zip(&before).zip(tokens) {
                                prop_assert!(held.iter().any(|h| h.holder == holder && h.token == token && h.until.is_none()));
                                if before.iter().all(|h| h.holder != holder) {
                                    prop_assert!(token > highest);
                                    highest = token;
                                }
                            },
                        }
                    }
                    PermitStep::Release(holder) => {
                        permits.release(NAMES, &holder.to_string());
                        let left = NAMES.iter().any(|n| permits.holders(n, now).iter().any(|h| h.holder == holder.to_string()));
                        prop_assert!(!left);
                    }
                    PermitStep::Limit(holder, millis) => {
                        permits.limit(NAMES, &holder.to_string(), now + std::time::Duration::from_millis(millis));
                    }
                    PermitStep::Wait(millis) => now = now + std::time::Duration::from_millis(millis),
                }
                for (n, name) in NAMES.iter().enumerate() {
                    prop_assert!(permits.holders(name, now).len() as u32 <= limit(n as u8));
                }
            }
        }
    }

    #[test]
    fn tokens_grow_over_a_restart() {
        let now = Timestamp::from_millis(5_000);
        let mut permits = Permits::default();
        let want = [Want { name: "a".into(), limit: 2 }];
        permits.restore("a", PermitHolder { holder: "x".into(), token: 9_000_000, until: None });
        assert_eq!(permits.acquire(&want, "x", now), Ok(vec![9_000_000]), "it has it already");
        assert_eq!(permits.acquire(&want, "y", now), Ok(vec![9_000_001]));
        assert_eq!(permits.acquire(&want, "z", now), Err(0));
        assert_eq!(permits.acquire(&[Want { name: "b".into(), limit: 0 }], "z", now), Err(0));
    }
}
