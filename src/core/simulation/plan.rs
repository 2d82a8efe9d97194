//! What is there to start tasks in a simulation: pools of slots, the queues that share them, and the weights of tenants.
//!
//! A catalogue makes one of its rows.

use std::collections::BTreeMap;

use crate::core::slots::{QueueTerms, SlotRules, TenantWeight};

/// The pools and queues of a program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlotPlan {
    /// The pools. A queue that shares no slots has one for itself.
    pub pools: Vec<PlannedPool>,
    /// The queues that the program serves.
    pub queues: Vec<PlannedQueue>,
    /// Other names of queues, each with the name of the queue that it stands for.
    pub aliases: BTreeMap<String, String>,
    /// The weights of tenants that have another one than 1.
    pub weights: Vec<(String, TenantWeight)>,
}

/// A pool of slots in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPool {
    /// The name of the pool; that of the queue if one queue has it for itself.
    pub name: String,
    /// Whether several queues share the pool.
    pub is_shared: bool,
    /// How many slots it has, and what it keeps free.
    pub rules: SlotRules,
}

/// A queue, and where it has its slots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedQueue {
    /// The name of the queue.
    pub name: String,
    /// The place of its pool among the pools of the plan.
    pub pool: usize,
    /// How many of its tasks run at a time at most.
    pub workers: usize,
    /// What it promises, and what it is guaranteed.
    pub terms: QueueTerms,
}

impl SlotPlan {
    /// The place of a queue among those of the plan, by its name or one of its other names.
    pub fn find(&self, name: &str) -> Option<usize> {
        let place = |name: &str| self.queues.iter().position(|queue| queue.name == name);
        place(name).or_else(|| place(self.aliases.get(name)?))
    }
}
