//! What serial tasks declare beside their options: a lane without a key, and by which arguments they are searched for.

use celeriac::task::LaneName;
use celeriac::{Context, serial_task};

use crate::{definition, serial};

/// One lane for all.
#[serial_task(newcomer = "replace")]
fn without_key() {}

#[serial_task(key = "{user}", search = ["user", "form"])]
fn searched(ctx: &Context, form: u64, user: String) {
    let _ = (ctx, form, user);
}

#[test]
fn a_task_without_a_key_has_one_lane() {
    let lane = LaneName::new("task_macro::declared::without_key", "");
    assert_eq!(serial("task_macro::declared::without_key", "[]").map(|serial| serial.lane), Ok(lane));
}

#[test]
fn a_task_declares_by_what_it_is_searched_for() {
    let task = definition("task_macro::declared::searched");
    assert_eq!((task.search, task.params), (&["user", "form"][..], &["form", "user"][..]));
    assert!(definition("mail.send").search.is_empty());
}
