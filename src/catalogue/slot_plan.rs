//! The pools and queues of a catalogue as the machine that gives slots away takes them, in a program and in a simulation.

use super::{Catalogue, PoolRow, QueueRow, parse_span};
use crate::core::simulation::{PlannedPool, PlannedQueue, SlotPlan};
use crate::core::slots::{QueueTerms, SlotRules, TenantWeight};

impl QueueRow {
    /// What the queue promises and is guaranteed in its pool.
    pub fn slot_terms(&self) -> QueueTerms {
        QueueTerms {
            target: self.scheduling_target(),
            min_workers: self.min_workers,
            typical: self.typical_duration.as_deref().and_then(parse_span),
        }
    }
}

impl PoolRow {
    /// How many slots the pool has, and what it keeps free.
    pub fn slot_rules(&self) -> SlotRules {
        SlotRules { slots: self.slots, reserve: self.reserve, room: self.room }
    }
}

impl Catalogue {
    /// The pools and queues for a simulation. Queues that the program does not serve are not in it. A queue that shares no slots has
    /// its workers for itself, of which tenants have their shares.
    pub fn slot_plan(&self) -> SlotPlan {
        let mut plan = SlotPlan::default();
        for (pool, row) in &self.pools {
            let (name, rules) = (pool.as_str().to_owned(), row.slot_rules());
            plan.pools.push(PlannedPool { name, is_shared: true, rules });
        }
        for row in self.queues.iter().filter(|row| row.served) {
            let workers = row.most_workers();
            let shared = self.pools.keys().position(|pool| *pool == row.pool).filter(|_| row.shared);
            let pool = shared.unwrap_or_else(|| {
                let rules = SlotRules { slots: workers, reserve: Some(0), room: Some(0) };
                plan.pools.push(PlannedPool { name: row.name.clone(), is_shared: false, rules });
                plan.pools.len() - 1
            });
            plan.queues.push(PlannedQueue { name: row.name.clone(), pool, workers, terms: row.slot_terms() });
        }
        let aliases = self.aliases.keys();
        plan.aliases =
            aliases.filter_map(|name| Some((name.clone(), self.resolve(name)?.to_owned()))).collect();
        let weights = self.tenant_weights.iter();
        plan.weights = weights
            .filter_map(|(tenant, weight)| Some((tenant.clone(), TenantWeight::new(*weight)?)))
            .collect();
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_the_pools_the_queues_and_the_names_of_a_catalogue() {
        let text = r#"
            [pool.io]
            slots = 9
            room = 2
            [[queue]]
            name = "mail"
            io_bound = true
            target = "30s"
            workers = 5
            min_workers = 1
            typical_duration = "2s"
            [[queue]]
            name = "own"
            io_bound = true
            shared = false
            workers = 3
            max_workers = 4
            [[queue]]
            name = "elsewhere"
            served = false
            [aliases]
            sms = "mail"
            [tenants.weights]
            "malawi" = 2.0
        "#;
        let plan = Catalogue::parse(text, "celeriac.toml").expect("a catalogue").slot_plan();
        let rules = [
            SlotRules { slots: 9, reserve: None, room: Some(2) },
            SlotRules { slots: 4, reserve: Some(0), room: Some(0) },
        ];
        let pools: Vec<_> =
            plan.pools.iter().map(|pool| (pool.name.as_str(), pool.is_shared, pool.rules)).collect();
        assert_eq!(pools, [("io", true, rules[0]), ("own", false, rules[1])]);
        let queues: Vec<_> =
            plan.queues.iter().map(|queue| (queue.name.as_str(), queue.pool, queue.workers)).collect();
        assert_eq!(queues, [("mail", 0, 5), ("own", 1, 4)]);
        let seconds = std::time::Duration::from_secs;
        let terms = QueueTerms { target: seconds(30), min_workers: 1, typical: Some(seconds(2)) };
        assert_eq!(plan.queues[0].terms, terms);
        assert_eq!((plan.find("sms"), plan.find("own"), plan.find("elsewhere")), (Some(0), Some(1), None));
        assert_eq!(plan.weights, [("malawi".to_owned(), TenantWeight::new(2.0).expect("a weight"))]);
    }
}
