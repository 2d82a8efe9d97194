//! Who holds which named permits: several are had together or not at all, so that nobody waits for one while he holds another.
//!
//! A holder has its permits until it gives them back, or until its time is over if it has one. Each grant has a token that is
//! higher than all before it, also than those of an earlier life of the program, as long as its clock does not go back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A permit that is wanted: one of so many of this name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Want {
    /// What it is a permit for.
    pub name: String,
    /// How many may be held at a time; whoever asks says it.
    pub limit: u32,
}

/// One who holds a permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitHolder {
    /// Who, as it calls itself.
    pub holder: String,
    /// Its token.
    pub token: u64,
    /// How long at most, unless it is renewed; `None`: until it gives it back.
    pub until: Option<Timestamp>,
}

/// All permits that are held.
#[derive(Debug, Default)]
pub struct Permits {
    names: BTreeMap<String, Vec<PermitHolder>>,
    last_token: u64,
}

impl Permits {
    /// All of these for `holder`, with their tokens, or none, because that one is held by too many. What it holds already stays
    /// its own, without a limit of time.
    ///
    /// # Errors
    /// The place in `wants` of the first that cannot be had.
    pub fn acquire(&mut self, wants: &[Want], holder: &str, now: Timestamp) -> Result<Vec<u64>, usize> {
        for want in wants {
            self.forget_over(&want.name, now);
        }
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
                    self.last_token = self.last_token.saturating_add(1).max(now.as_micros());
                    let token = self.last_token;
                    held.push(PermitHolder { holder: holder.to_owned(), token, until: None });
                    tokens.push(token);
                }
            }
        }
        Ok(tokens)
    }

    /// Gives back what `holder` has of these; says whether it was anything.
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

    /// From now on `holder` has these until then only.
    pub fn limit<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, holder: &str, until: Timestamp) {
        for name in names {
            let held = self.names.get_mut(name).into_iter().flatten();
            held.filter(|h| h.holder == holder).for_each(|h| h.until = Some(until));
        }
    }

    /// What was held in an earlier life of the program.
    pub fn restore(&mut self, name: &str, holder: PermitHolder) {
        self.last_token = self.last_token.max(holder.token);
        self.names.entry(name.to_owned()).or_default().push(holder);
    }

    /// Who holds permits of this name, in the order in which they got them.
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
    enum Step {
        Acquire(u8, Vec<u8>),
        Release(u8),
        Limit(u8, u64),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u8, prop::collection::vec(0..3_u8, 1..3)).prop_map(|(h, n)| Step::Acquire(h, n)),
            3 => (0..6_u8).prop_map(Step::Release),
            1 => (0..6_u8, 1..20_u64).prop_map(|(h, t)| Step::Limit(h, t)),
            2 => (1..20_u64).prop_map(Step::Wait),
        ]
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];

    proptest! {
        /// Never more holders than the limit, tokens only grow, all or nothing, and what is free is had.
        #[test]
        fn permits_are_within_their_limits(steps in prop::collection::vec(step(), 1..80)) {
            let mut permits = Permits::default();
            let mut now = Timestamp::from_millis(1_000);
            let mut highest = 0;
            let limit = |n: u8| u32::from(n) + 1;
            for step in steps {
                match step {
                    Step::Acquire(holder, wanted) => {
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
                    Step::Release(holder) => {
                        permits.release(NAMES, &holder.to_string());
                        let left = NAMES.iter().any(|n| permits.holders(n, now).iter().any(|h| h.holder == holder.to_string()));
                        prop_assert!(!left);
                    }
                    Step::Limit(holder, millis) => {
                        permits.limit(NAMES, &holder.to_string(), now + std::time::Duration::from_millis(millis));
                    }
                    Step::Wait(millis) => now = now + std::time::Duration::from_millis(millis),
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
