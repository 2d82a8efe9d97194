//! Pools whose queues share slots, and the weights of tenants.

use std::time::Duration;

use celeriac::catalogue::{Catalogue, Pool, PoolRow, QueueRow, TargetClass, WarningKind};

use crate::{errors_of, parse};

#[test]
fn mistakes_in_pools_and_weights_are_told() {
    let text = r#"[[queue]]
name = "a"
io_bound = true
workers = 4
min_workers = 5
[[queue]]
name = "b"
io_bound = true
min_workers = 3
shared = "no"
[pool.io]
slots = 2
reserve = 2
rom = 1
[pool.cpu]
room = 1
[pool.proces]
slots = 3
[tenants]
weight = 1
[tenants.weights]
"malawi" = 2
"zambia" = 0.0
"kenya" = nan
"chad" = inf
"mali" = "two"
[environment.live.queue.a]
workers = 2
[environment.live.pool.cpu]
room = 3
[environment.live.pool.io]
slots = 0
"#;
    let expected = r#"celeriac.toml:2:8: "min_workers" in queue "a" is 5; it is guaranteed more than its workers, which are 4: write at most that
celeriac.toml:10:10: "shared" in queue "b" must be true or false, not the string "no"
celeriac.toml:11:7: "reserve" in pool "io" is 2; it leaves no slot of 2: write less than that
celeriac.toml:11:7: "slots" in pool "io" is 2; its queues are guaranteed 8 workers together: write at least 8, or lower their min_workers
celeriac.toml:14:1: unknown key "rom" in pool "io"; did you mean "room"?
celeriac.toml:15:7: pool "cpu" has no slots; add slots = 40
celeriac.toml:17:7: unknown key "proces" in pool; did you mean "process"?
celeriac.toml:20:1: unknown key "weight" in [tenants]; did you mean "weights"?
celeriac.toml:23:12: "zambia" in [tenants.weights] is 0.0; write a number from 0.001 to 1000000, where 1 is the share of a tenant that is not listed
celeriac.toml:24:11: "kenya" in [tenants.weights] is nan; write a number from 0.001 to 1000000, where 1 is the share of a tenant that is not listed
celeriac.toml:25:10: "chad" in [tenants.weights] is inf; write a number from 0.001 to 1000000, where 1 is the share of a tenant that is not listed
celeriac.toml:26:10: "mali" in [tenants.weights] must be a number such as 2.0, not the string "two"
celeriac.toml:29:24: environment "live", pool "cpu" has no slots; add slots = 40
celeriac.toml:32:9: "slots" in environment "live", pool "io" is 0; write at least 1"#;
    let found = errors_of(text);
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{found}");
}

const SHARED: &str = r#"[[queue]]
name = "celery"
io_bound = true
target = "1m"
workers = 30
min_workers = 2
[[queue]]
name = "apart"
io_bound = true
target_class = "minutes"
shared = false
[[queue]]
name = "compute"
target = "1h"
min_workers = 1
[pool.io]
slots = 40
reserve = 3
room = 8
[tenants.weights]
malawi = 2.5
zambia = 3
[environment.live.pool.io]
slots = 80
[environment.live.tenants.weights]
malawi = 4
"#;

#[test]
fn queues_share_the_slots_of_their_pool() {
    let base = parse(SHARED);
    let io = PoolRow::new(40).with_reserve(3).with_room(8);
    assert_eq!(base.pools.get(&Pool::Io), Some(&io));
    let of = |name: &str| base.pool_of(base.queue(name).expect("a row"));
    assert_eq!((of("celery"), of("apart"), of("compute")), (Some(&io), None, None));
    assert_eq!(base.tenant_weights.get("malawi"), Some(&2.5));
    assert_eq!(base.tenant_weights.get("zambia"), Some(&3.0));
    let live = base.for_environment("live").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(live.pools.get(&Pool::Io), Some(&PoolRow::new(80).with_reserve(3).with_room(8)));
    let weight = |name: &str| live.tenant_weights.get(name).copied();
    assert_eq!((weight("malawi"), weight("zambia")), (Some(4.0), Some(3.0)));
    let summary = base.summary();
    let expected = "\n  pool io: 2 queues with 80 workers, which share 40 slots, 3 kept for tighter promises, 8 left to other tenants\n";
    assert!(summary.contains(expected) && summary.contains(", 2 tenant weights"), "{summary}");
    let explained: Vec<String> = base.queues.iter().map(QueueRow::explain).collect();
    let celery =
        "on the event loop (I/O bound), 2 of them before other queues of the pool have any, up to 60";
    assert!(explained[0].contains(celery), "{explained:?}");
    assert!(explained[1].contains("(I/O bound), on slots of its own, up to"), "{explained:?}");
    let warnings: Vec<_> = base.warnings().into_iter().map(|warning| (warning.queue, warning.kind)).collect();
    assert!(warnings.contains(&("compute".to_owned(), WarningKind::NothingShared { pool: Pool::Cpu })));
}

#[test]
fn a_row_of_an_environment_has_to_fit_the_pool_too() {
    let text = format!("{SHARED}[environment.live.queue.celery]\nworkers = 90\nmin_workers = 81\n");
    let expected = "celeriac.toml:23:24: \"slots\" in environment \"live\", pool \"io\" is 80; its queues are guaranteed 81 \
                    workers together: write at least 81, or lower their min_workers";
    assert_eq!(errors_of(&text), expected);
    let text = format!("{SHARED}[environment.test.queue.celery]\nworkers = 90\nmin_workers = 41\n");
    assert!(
        errors_of(&text)
            .starts_with("celeriac.toml:16:7: \"slots\" in environment \"test\", pool \"io\" is 40")
    );
}

#[test]
fn pools_and_weights_built_in_code_are_held_to_the_same_rules() {
    let bad = Catalogue::new()
        .with_queue(QueueRow::new("celery").with_workers(1).with_min_workers(2))
        .with_pool(Pool::Cpu, PoolRow::new(0))
        .with_pool(Pool::Io, PoolRow::new(3).with_room(3))
        .with_tenant_weight("a", -1.0);
    let errors = bad.validate().err().map(|errors| errors.to_string());
    assert_eq!(
        errors.as_deref(),
        Some(
            "catalogue: \"min_workers\" in queue \"celery\" is 2; it is guaranteed more than its workers, which are 1: write at most that\n\
             catalogue: \"room\" in pool \"io\" is 3; it leaves no slot of 3: write less than that\n\
             catalogue: \"slots\" in pool \"cpu\" is 0; set at least 1\n\
             catalogue: \"a\" in [tenants.weights] is -1; write a number from 0.001 to 1000000, where 1 is the share of a tenant that is not listed"
        )
    );
}

#[test]
fn a_queue_without_a_number_has_the_target_of_its_class() {
    let row = || QueueRow::new("q");
    let seconds = |row: QueueRow| row.scheduling_target().as_secs();
    assert_eq!(seconds(row().with_target(Duration::from_secs(7)).with_target_class(TargetClass::Hours)), 7);
    let classes = TargetClass::ALL.map(|class| seconds(row().with_target_class(class)));
    assert_eq!((classes, seconds(row())), ([30, 15 * 60, 6 * 3600], 6 * 3600));
}
