//! Outages with the default settings, on the test's clock: what they delay, and how what they broke is put right.

use std::time::Duration;

use crate::broker::{TaskEdit, TaskFilter};
use crate::catalogue::{Argument, KEEP_FAILED};
use crate::core::Timestamp;
use crate::task::clock;
use crate::{Context, State, TaskError, serial_task, task, testing};

const PATIENCE: Duration = Duration::from_secs(60);
const MINUTE: Duration = Duration::from_secs(60);
/// The longest pause between two attempts with the default settings.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Sends a mail through a server that is back at this time, in milliseconds since 1970.
#[task(queue = "mail")]
async fn mail(number: u32, back_at: u64) -> Result<u32, std::io::Error> {
    if clock::now() < Timestamp::from_millis(back_at) {
        return Err(std::io::ErrorKind::ConnectionRefused.into());
    }
    Ok(number)
}

#[task(queue = "kit", max_retries = 1, default_retry_delay = 60)]
fn invoice(customer: String, year: u32) {
    assert!(year > 2000, "no price list for {customer} in {year}");
}

/// Books an amount in the order of its account, and says in which lane it did so.
#[serial_task(key = "{account}", queue = "kit", max_retries = 0)]
async fn book(ctx: &Context, account: String, amount: i32) -> Result<String, TaskError> {
    if amount < 0 {
        return Err(TaskError::permanent(format!("{account} cannot get {amount}")));
    }
    Ok(ctx.message().serial.as_deref().map(|serial| serial.lane.key().to_owned()).unwrap_or_default())
}

fn named(name: &str) -> Argument {
    Argument::Name(name.to_owned())
}

/// Has a hundred mails meet a server that is away for so long.
async fn all_mails_arrive_after(outage: Duration) {
    let app = testing::start().await.unwrap();
    let back_at = (app.now() + outage).as_millis();
    let mut mails = Vec::new();
    for number in 0..100 {
        mails.push(mail::delay(number, back_at).await.unwrap());
    }
    assert_eq!(app.run_until_idle().await, 100);
    assert_eq!(mails[0].state().await.unwrap(), State::Retry);
    app.advance(outage + LONGEST_PAUSE).await;
    for (number, mail) in (0..).zip(&mails) {
        assert_eq!(mail.state().await.unwrap(), State::Success);
        assert_eq!(mail.get(PATIENCE).await, Ok(number));
    }
    assert!(app.celeriac().failed_tasks(&TaskFilter::new(), 1).await.unwrap().is_empty());
}

#[tokio::test]
async fn with_default_settings_all_mails_arrive_after_two_minutes_without_their_server() {
    all_mails_arrive_after(2 * MINUTE).await;
}

#[tokio::test]
async fn with_default_settings_all_mails_arrive_after_an_hour_without_their_server() {
    all_mails_arrive_after(60 * MINUTE).await;
}

#[tokio::test]
async fn what_failed_for_good_has_its_attempts_and_is_tried_again_with_another_argument() {
    let app = testing::start().await.unwrap();
    let lost = invoice::delay("acme".into(), 1999).await.unwrap();
    let other = invoice::delay("other".into(), 1999).await.unwrap();
    app.advance(MINUTE).await;
    assert_eq!(lost.state().await.unwrap(), State::Failure);
    let filter = TaskFilter::new().argument(named("customer"), "acme");
    let failed = app.celeriac().failed_tasks(&filter, 9).await.unwrap();
    let [task] = failed.as_slice() else { panic!("{failed:?}") };
    assert_eq!((&task.message.id, task.reason.as_str()), (lost.id(), "no price list for acme in 1999"));
    assert_eq!(task.expires_at, Some(task.failed_at + KEEP_FAILED));
    let attempts = task.attempts();
    let numbers: Vec<_> = attempts.iter().map(|attempt| (attempt.attempt, attempt.error.as_str())).collect();
    assert_eq!(numbers, [(1, "no price list for acme in 1999"), (2, "no price list for acme in 1999")]);
    assert_eq!(attempts[1].at.since(attempts[0].at), MINUTE);
    for attempt in &attempts {
        assert_eq!(attempt.error_type.as_deref(), Some("Panic"));
        let place = attempt.place.as_deref().unwrap_or_default();
        assert!(place.contains("outages.rs:"), "{place}");
    }

    // The year was given by position, and is found by its name.
    let edit = TaskEdit::set(named("year"), 2026);
    let retried = app.celeriac().edit_and_retry_failed(&filter, edit).await.unwrap();
    assert_eq!((retried.ids, retried.refused), (vec![lost.id().clone()], vec![]));
    assert_eq!(app.run_until_idle().await, 1);
    assert_eq!(lost.state().await.unwrap(), State::Success);
    let left = app.celeriac().delete_failed(&TaskFilter::new()).await.unwrap();
    assert_eq!(left, [other.id().clone()]);
    assert!(app.celeriac().failed_tasks(&TaskFilter::new(), 9).await.unwrap().is_empty());
    assert_eq!(other.state().await.unwrap(), State::Failure, "its record stays");
}

#[tokio::test]
async fn what_failed_for_good_is_kept_no_longer_than_its_queue_says() {
    let app = testing::start().await.unwrap();
    invoice::s("acme".into(), 1999).max_retries(0).delay().await.unwrap();
    app.run_until_idle().await;
    let kept = async || app.celeriac().failed_tasks(&TaskFilter::new(), 9).await.unwrap().len();
    assert_eq!(kept().await, 1);
    app.jump(KEEP_FAILED - MINUTE);
    assert_eq!(kept().await, 1);
    app.jump(MINUTE);
    assert_eq!(kept().await, 0);
    assert!(app.celeriac().retry_failed(&TaskFilter::new()).await.unwrap().ids.is_empty());
}

#[tokio::test]
async fn a_serial_task_comes_to_the_lane_of_its_new_arguments() {
    let app = testing::start().await.unwrap();
    let lost = book::delay("a".into(), -5).await.unwrap();
    app.run_until_idle().await;
    assert_eq!(lost.state().await.unwrap(), State::Failure);
    let edit = TaskEdit::set(named("account"), "b").and(TaskEdit::set(named("amount"), 5));
    let retried = app.celeriac().edit_and_retry_failed(&TaskFilter::new(), edit).await.unwrap();
    assert_eq!(retried.ids, [lost.id().clone()]);
    assert_eq!(lost.get(PATIENCE).await.unwrap(), "b");

    let large = book::delay("a".into(), -5).await.unwrap();
    app.run_until_idle().await;
    let edit = TaskEdit::set(named("account"), "x".repeat(1 << 17));
    let retried = app.celeriac().edit_and_retry_failed(&TaskFilter::new(), edit).await.unwrap();
    let [(id, why)] = retried.refused.as_slice() else { panic!("{:?}", retried.ids) };
    assert!(id == large.id() && why.contains("the limit is"), "{why}");
}

#[tokio::test]
async fn what_waits_is_listed_and_revoked_by_its_arguments() {
    let app = testing::start().await.unwrap();
    for customer in ["acme", "acme", "other"] {
        invoice::s(customer.into(), 2020).countdown(MINUTE).delay().await.unwrap();
    }
    invoice::delay("acme".into(), 2021).await.unwrap();
    let of = |customer: &str| TaskFilter::new().argument(named("customer"), customer);
    let waiting = app.celeriac().unfinished_tasks(&of("acme"), 9).await.unwrap();
    let standings: Vec<_> = waiting.iter().map(|task| task.standing.as_str()).collect();
    assert_eq!((waiting.len(), standings.contains(&"ready")), (3, true), "{standings:?}");
    let revoked = app.celeriac().revoke_unfinished(&of("acme"), false).await.unwrap();
    assert_eq!((revoked.ids.len(), revoked.failed), (3, vec![]));
    for id in &revoked.ids {
        assert_eq!(app.celeriac().client().state(id).await.unwrap(), State::Revoked);
    }
    assert_eq!(app.celeriac().unfinished_tasks(&TaskFilter::new(), 9).await.unwrap().len(), 1);
}
