//! What a broker cannot promise, and why: one list, which the tests, the printed table and the manual share.
//!
//! A promise that some brokers keep only in part asserts, where it goes another way, that the list [says so](in_part). A promise
//! that a broker does not run at all has to stand in the list as well: the table of `tests/brokers` fails for one that does
//! not.

/// A promise, or a group of promises, that some brokers cannot keep.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The brokers, by the heads of their columns in the table.
    pub brokers: &'static [&'static str],
    /// The names of the promises.
    pub promises: &'static [&'static str],
    /// Whether a part of each promise is kept, and tested.
    pub in_part: bool,
    /// The reason: a whole sentence.
    pub because: &'static str,
}

const RABBITMQ: &[&str] = &["RabbitMQ classic", "RabbitMQ quorum", "RabbitMQ with lanes"];

/// The promises about lanes.
const LANES: &[&str] = &[
    "a_lane_lets_one_in_at_a_time",
    "a_run_keeps_its_lane_to_its_end",
    "dead_letters_leave_their_lane",
    "failed_tasks_leave_their_lane",
    "revoked_ones_leave_their_lane",
    "an_eta_comes_before_the_lane",
    "a_lanes_concurrency_can_change",
    "newcomers_get_what_they_state",
    "a_failure_may_block_its_lane",
    "lanes_keep_their_order_under_load",
    "lanes_survive",
];

/// The promises about what survives the process.
const SURVIVAL: &[&str] = &[
    "what_waits_survives",
    "what_is_settled_stays_settled",
    "crashes_are_counted",
    "dead_letters_survive",
    "order_goes_on_after_a_restart",
    "crash_limit_across_processes",
    "parts_survive",
    "failed_tasks_survive",
    "tenants_survive",
];

/// The promises about tenants.
const TENANTS: &[&str] =
    &["a_flood_of_one_tenant_hides_nobody", "tenants_share_what_is_delivered", "tenants_are_counted"];

/// The promises about changes of many waiting tasks.
const BULK: &[&str] = &[
    "many_are_moved_in_their_order",
    "many_are_ended",
    "bulk_changes_are_undone",
    "what_has_run_is_not_undone",
    "what_was_moved_twice_comes_back_once",
    "what_the_caller_has_is_changed",
    "bulk_changes_survive",
];

/// The promises about unique windows.
const WINDOWS: &[&str] = &[
    "a_duplicate_joins",
    "a_window_ends_with_its_task",
    "a_window_passes",
    "a_window_ends_when_it_is_said",
    "of_many_duplicates_one_is_taken",
    "windows_survive",
];

/// All limits. What is not here is kept.
pub const LIMITS: &[Limit] = &[
    Limit {
        brokers: RABBITMQ,
        promises: &["unique_ids_are_refused"],
        in_part: true,
        because: "A queue of RabbitMQ cannot be searched for an id, so a second message of the same id is accepted.",
    },
    Limit {
        brokers: RABBITMQ,
        promises: &["find_tells_the_place", "requeue_replaces", "unfinished_tasks_are_listed"],
        in_part: true,
        because: "Only a task that was delivered to this process is found; what waits in RabbitMQ cannot be looked at.",
    },
    Limit {
        brokers: RABBITMQ,
        promises: &["remove_takes_out_what_waits", "a_window_ends_with_its_task"],
        in_part: true,
        because: "A message that waits in RabbitMQ cannot be taken out; the store keeps its revocation, and no worker starts it.",
    },
    Limit {
        brokers: RABBITMQ,
        promises: &["the_age_of_what_waits", "what_was_put_back_is_hastened"],
        in_part: true,
        because: "RabbitMQ does not say since when its oldest message waits, and lets nobody change when a message is due.",
    },
    Limit {
        brokers: RABBITMQ,
        promises: &["counts_at_each_step", "what_waits_survives"],
        in_part: true,
        because: "RabbitMQ counts a moment later, and the messages in its delay queues are not counted.",
    },
    Limit {
        brokers: RABBITMQ,
        promises: &[
            "what_goes_back_keeps_its_place",
            "the_delivery_limit_makes_a_dead_letter",
            "what_is_settled_stays_settled",
        ],
        in_part: true,
        because: "A message whose run ended with its worker goes to the end of its queue.",
    },
    Limit {
        brokers: RABBITMQ,
        promises: &["crashes_are_counted", "crash_limit_across_processes"],
        in_part: true,
        because: "RabbitMQ says only that a message was delivered before, so the first run that ends with its process is not counted.",
    },
    Limit {
        brokers: RABBITMQ,
        promises: &[
            "what_was_sent_before_is_left_out",
            "a_group_is_taken_as_a_whole",
            "parts_survive",
            "a_chord_gets_one_more_member",
        ],
        in_part: true,
        because: "What follows from an end may be sent twice when the process dies in between; each copy is told by its id, and runs once.",
    },
    Limit {
        brokers: &["RabbitMQ quorum"],
        promises: &["high_priority_first", "urgent_overtakes_a_full_prefetch", "what_waits_survives"],
        in_part: true,
        because: "A quorum queue has no strict priorities, so messages come in the order of their arrival.",
    },
    Limit {
        brokers: &["RabbitMQ quorum"],
        promises: &[
            "a_replaced_consumer_keeps_what_it_has",
            "a_dropped_consumer_gets_nothing_more",
            "a_sink_that_panics_loses_nothing",
            "what_goes_back_keeps_its_place",
        ],
        in_part: true,
        because: "A message that goes back to a quorum queue may come behind others.",
    },
    Limit {
        brokers: &["memory"],
        promises: SURVIVAL,
        in_part: false,
        because: "Tasks in memory end with their process.",
    },
    Limit {
        brokers: &["memory"],
        promises: &["lanes_survive", "windows_survive"],
        in_part: false,
        because: "Lanes and unique windows in memory end with their process.",
    },
    Limit {
        brokers: &["RabbitMQ classic", "RabbitMQ quorum"],
        promises: LANES,
        in_part: false,
        because: "RabbitMQ knows no lanes: serial tasks need Redis beside it, as in the column with lanes.",
    },
    Limit {
        brokers: &["RabbitMQ with lanes"],
        promises: SURVIVAL,
        in_part: false,
        because: "Lanes change nothing here: what the queue type beneath promises holds.",
    },
    Limit {
        brokers: &["RabbitMQ with lanes"],
        promises: WINDOWS,
        in_part: false,
        because: "Lanes change nothing here: the unique windows are those of the store.",
    },
    Limit {
        brokers: &["outbox"],
        promises: LANES,
        in_part: false,
        because: "A task in the outbox enters its lane when the outbox has forwarded it.",
    },
    Limit {
        brokers: &["outbox"],
        promises: SURVIVAL,
        in_part: false,
        because: "What lies in the outbox survives (a test of its own); what it has forwarded is as safe as the broker behind it.",
    },
    Limit {
        brokers: &["outbox"],
        promises: WINDOWS,
        in_part: false,
        because: "The store opens a unique window before the task comes to the outbox.",
    },
    Limit {
        brokers: RABBITMQ,
        promises: TENANTS,
        in_part: false,
        because: "RabbitMQ cannot reorder what waits in a queue, so a tenant waits there behind whatever came before.",
    },
    Limit {
        brokers: &["RabbitMQ classic", "RabbitMQ quorum"],
        promises: &["tenants_survive"],
        in_part: false,
        because: "RabbitMQ does not know whose the messages are that wait in it.",
    },
    Limit {
        brokers: RABBITMQ,
        promises: BULK,
        in_part: false,
        because: "What waits in RabbitMQ cannot be looked at, so it cannot be changed there.",
    },
    Limit {
        brokers: &["outbox"],
        promises: BULK,
        in_part: false,
        because: "What lies in the outbox is on its way, so it is changed where it arrives.",
    },
    Limit {
        brokers: &["memory"],
        promises: &["bulk_changes_survive"],
        in_part: false,
        because: "What undoes a change in memory ends with its process.",
    },
];

/// Makes sure that the list says of this promise that some brokers keep it only in part. A promise calls it where it expects
/// less of a broker than of the others.
///
/// # Panics
/// The list does not say so.
pub(super) fn in_part(promise: &str) {
    let is_listed = LIMITS.iter().any(|limit| limit.in_part && limit.promises.contains(&promise));
    assert!(is_listed, "`{promise}` expects less of this broker, and LIMITS does not say why");
}
