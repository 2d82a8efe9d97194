//! The names of the cases in `python/cases/`, and which backends they can be asked of.

/// What a client asks of workers of one side: `{"side": …}`.
pub const ON_ONE_SIDE: [&str; 21] = [
    "plain.positional",
    "plain.kwargs",
    "plain.spread",
    "plain.values",
    "plain.compressed",
    "plain.own_id",
    "plain.headers",
    "plain.ignore_result",
    "plain.ignored_by_the_task",
    "plain.old_protocol",
    "endings.error",
    "endings.own_class",
    "endings.unknown_task",
    "endings.wrong_arguments",
    "endings.retries",
    "endings.retries_end",
    "endings.progress_told",
    "times.eta",
    "times.in_time",
    "times.expires",
    "times.revoke_running",
];

/// As above, where states can be looked up at any time: over rpc they come once, to who waits.
pub const ON_ONE_SIDE_OF_REDIS: [&str; 2] = ["endings.progress", "times.revoke_waiting"];

/// Workflows with members on two sides: `{"here": …, "there": …}`.
pub const ON_TWO_SIDES: [&str; 8] = [
    "canvas.chained",
    "canvas.immutable",
    "canvas.failing_chain",
    "canvas.relations",
    "canvas.grouped",
    "canvas.linked",
    "canvas.link_errors",
    "canvas.options_of_a_step",
];

/// As above, with chords, which Celery does not count over rpc, and results of what others have sent.
pub const ON_TWO_SIDES_OF_REDIS: [&str; 15] = [
    "canvas.children",
    "canvas.replaced",
    "canvas.chorded",
    "canvas.sent_again",
    "canvas.failing_chord",
    "canvas.chord_in_a_chain",
    "canvas.chain_in_a_chord",
    "canvas.group_of_chords",
    "canvas.group_of_groups_then",
    "canvas.chord_that_fails_into_a_group",
    "canvas.what_is_left_of_a_failed_chord",
    "canvas.header_member_that_ends_in_a_group",
    "canvas.header_of_one_or_none",
    "canvas.replaced_by_nothing",
    "canvas.expired_tasks_call_no_errbacks",
];
