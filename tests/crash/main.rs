//! `kill -9`, aborts, SIGTERM, a second process, deploys and a full disk, on real processes with an outside ledger.
//!
//! This program is parent and child: the parent starts itself again with `CRASH_ROLE` in the environment, kills the
//! child, and afterwards compares what the child had told the [`ledger`] with what the store made of it ([`book`]).
//! `CRASH_KILLS=2000` kills more often than the usual 200, `CRASH_SEED=7` repeats the moments of a run as well as
//! real time allows, `WORKFLOW_KILLS=100` does so for workflows, `CRASH_LOG=info` writes the children's log to their stderr files. Arguments filter the cases.

mod beat;
mod book;
mod brakes;
mod bulk;
mod cases;
mod child;
mod console;
mod deploys;
#[path = "../embedded_store/earlier.rs"]
mod earlier;
mod earlier_store;
mod exports;
mod full_disk;
mod kills;
mod lanes;
mod ledger;
mod ownership;
mod poison;
mod process;
mod tasks;
mod terminate;
mod workflows;
mod workload;

use std::process::ExitCode;

const CASES: [(&str, fn()); 23] = [
    ("beat::each_tick_once", beat::each_tick_once),
    ("brakes::killed_in_the_middle", brakes::killed_in_the_middle),
    ("bulk::killed_in_the_middle", bulk::killed_in_the_middle),
    ("console::killed_in_the_middle_of_each_act", console::killed_in_the_middle_of_each_act),
    ("deploys::a_new_program_takes_over_under_load", deploys::a_new_program_takes_over_under_load),
    ("deploys::open_pages_do_not_hold_up_the_end", deploys::open_pages_do_not_hold_up_the_end),
    ("earlier_store::killed_while_it_is_taken_over", earlier_store::killed_while_it_is_taken_over),
    ("exports::killed_at_every_step", exports::killed_at_every_step),
    ("exports::killed_at_random_moments", exports::killed_at_random_moments),
    ("kills::at_random_moments", kills::at_random_moments),
    ("kills::while_the_store_is_made", kills::while_the_store_is_made),
    ("lanes::of_many_keys", lanes::of_many_keys),
    ("workflows::under_kills", workflows::under_kills),
    ("full_disk::with_a_long_journal", full_disk::with_a_long_journal),
    ("poison::ends_in_the_dead_letters", poison::ends_in_the_dead_letters),
    ("poison::takes_no_neighbour_along", poison::takes_no_neighbour_along),
    ("terminate::in_the_middle_of_work", terminate::in_the_middle_of_work),
    ("terminate::twice", terminate::twice),
    ("terminate::among_panics", terminate::among_panics),
    ("ownership::a_second_process_is_refused_by_pid", ownership::a_second_process_is_refused_by_pid),
    ("full_disk::refuses_and_goes_on", full_disk::refuses_and_goes_on),
    ("full_disk::to_the_last_byte", full_disk::to_the_last_byte),
    ("full_disk::killed_while_full", full_disk::killed_while_full),
];

fn main() -> ExitCode {
    cases::run(&CASES, child::run)
}
