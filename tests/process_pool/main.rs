//! Bodies in child processes: whatever they do, it costs one attempt of one task, and they are ended when they must be.
//!
//! This program is parent and child, as in `tests/crash`: the children of the pool are this very program. It also plays the
//! roles of other programs ([`roles`]): one that is killed with its children, one that has a single blocking thread.
//! Arguments filter the cases.

#[path = "../crash/cases.rs"]
mod cases;
mod deaths;
mod endings;
mod kit;
mod life;
mod limits;
mod programs;
mod reports;
mod roles;
mod shutdown;
mod slots;
#[cfg(feature = "otel")]
mod spans;
mod tasks;

use std::process::ExitCode;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

const CASES: &[cases::Case] = &[
    ("deaths::each_costs_one_attempt", deaths::each_costs_one_attempt),
    ("deaths::of_an_idle_child_cost_nothing", deaths::of_an_idle_child_cost_nothing),
    ("deaths::at_the_start_halt_the_queue", deaths::at_the_start_halt_the_queue),
    ("limits::end_a_loop_and_what_it_has_started", limits::end_a_loop_and_what_it_has_started),
    ("limits::are_told_to_bodies_that_listen", limits::are_told_to_bodies_that_listen),
    ("limits::a_revoked_task_is_ended", limits::a_revoked_task_is_ended),
    ("life::a_child_is_replaced_after_its_tasks", life::a_child_is_replaced_after_its_tasks),
    ("life::a_child_takes_along_what_it_has_started", life::a_child_takes_along_what_it_has_started),
    ("life::a_child_is_replaced_above_its_memory", life::a_child_is_replaced_above_its_memory),
    ("life::a_panic_leaves_its_child", life::a_panic_leaves_its_child),
    ("life::a_queue_is_resized_with_its_children", life::a_queue_is_resized_with_its_children),
    ("reports::progress_events_and_calls", reports::progress_events_and_calls),
    ("reports::all_events_of_a_body", reports::all_events_of_a_body),
    ("reports::downloads_of_every_kind", reports::downloads_of_every_kind),
    ("reports::permits_are_held_and_given_back", reports::permits_are_held_and_given_back),
    ("reports::many_calls_of_a_body", reports::many_calls_of_a_body),
    ("reports::of_a_plain_body", reports::of_a_plain_body),
    ("reports::the_log_of_a_failed_attempt", reports::the_log_of_a_failed_attempt),
    ("reports::the_log_of_a_body_that_is_killed", reports::the_log_of_a_body_that_is_killed),
    #[cfg(feature = "otel")]
    ("spans::what_follows_from_a_body_is_in_its_trace", spans::what_follows_from_a_body_is_in_its_trace),
    ("endings::are_those_of_the_other_pools", endings::are_those_of_the_other_pools),
    ("slots::are_given_up_at_a_checkpoint", slots::are_given_up_at_a_checkpoint),
    ("slots::come_back_when_a_child_dies", slots::come_back_when_a_child_dies),
    (
        "shutdown::waits_for_bodies_and_ends_those_that_are_deaf",
        shutdown::waits_for_bodies_and_ends_those_that_are_deaf,
    ),
    (
        "programs::a_program_that_is_killed_leaves_no_child",
        programs::a_program_that_is_killed_leaves_no_child,
    ),
    ("programs::waiting_for_a_thread_is_no_run_time", programs::waiting_for_a_thread_is_no_run_time),
    ("programs::the_example_says_what_it_did", programs::the_example_says_what_it_did),
];

fn main() -> ExitCode {
    // As parent and as child.
    let subscriber = tracing_subscriber::registry().with(celeriac::log_lines());
    #[cfg(feature = "otel")]
    let subscriber = subscriber.with(spans::layer());
    subscriber.init();
    if celeriac::is_child_process() {
        kit::serve();
    }
    cases::run(CASES, roles::play)
}
