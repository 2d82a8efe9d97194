//! What starts when: priority, arrival, countdown, ETA, expiry; and what travels with a task.

use std::time::{Duration, SystemTime};

use celeriac::{Celeriac, Context, State, TaskId, task};

use crate::kit::{Gate, LONG, add, hold, io_queue, note, notes, on_both, record, until, until_status};

#[task(queue = "one")]
async fn notes_itself(ctx: &Context, list: String, name: String) {
    note(
        &list.as_str().into(),
        format!("{name} {}", ctx.header("tenant").map_or("-", |t| t.as_str().unwrap())),
    );
}

#[tokio::test]
async fn the_urgent_goes_first_and_equals_in_order_of_arrival() {
    let dir = tempfile::tempdir().unwrap();
    // One delivery at a time: the broker's order is what is seen, and the queue's with it.
    let one = || Celeriac::builder().queue(io_queue("one", 1).with_prefetch(1));
    for celeriac in
        [one().in_memory().start().await.unwrap(), one().directory(dir.path()).start().await.unwrap()]
    {
        let list = TaskId::new();
        let gate = Gate::new();
        hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        for (name, priority) in [("a", 0), ("b", 0), ("c", 9), ("d", 5), ("e", 9), ("f", 255)] {
            let call =
                notes_itself::s(list.to_string(), name.into()).priority(priority).header("tenant", name);
            call.send(celeriac.client()).await.unwrap();
        }
        gate.open();
        until("all six ran", async || notes(&list).len() == 6).await;
        assert_eq!(notes(&list), ["f f", "c c", "e e", "d d", "a a", "b b"]);
        celeriac.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn no_task_starts_before_its_time() {
    on_both(|celeriac| async move {
        let delay = Duration::from_millis(150);
        let by_countdown = add::s(1, 2).countdown(delay).send(celeriac.client()).await.unwrap();
        let eta = SystemTime::now() + delay;
        let by_eta = add::s(3, 4).eta(eta).send(celeriac.client()).await.unwrap();
        // One that is due does not wait for those that are not.
        let hour = Duration::from_secs(3600);
        let in_an_hour = add::s(7, 8).countdown(hour).send(celeriac.client()).await.unwrap();
        let past = SystemTime::now() - delay;
        let now = add::s(5, 6).eta(past).send(celeriac.client()).await.unwrap();
        let (first, second, third) = (record(&by_countdown).await, record(&by_eta).await, record(&now).await);
        assert!(first.started_at.unwrap() >= first.enqueued_at + delay);
        assert!(second.started_at.unwrap() >= eta.into());
        assert_eq!([&first, &second, &third].map(|r| r.state), [State::Success; 3]);
        until_status(&celeriac, "io", |s| (s.done, s.scheduled) == (3, 1)).await;
        assert_eq!(in_an_hour.state().await, Ok(State::Pending));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_started_in_time_is_revoked() {
    on_both(|celeriac| async move {
        let gate = Gate::new();
        hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap();
        gate.entered(1).await;
        let second = Duration::from_secs(1);
        let moment = Duration::from_millis(1);
        let late = add::s(1, 1).queue("one").expires(moment).send(celeriac.client()).await.unwrap();
        let past = SystemTime::now() - second;
        let later = add::s(1, 1).queue("one").expires_at(past).send(celeriac.client()).await.unwrap();
        let in_time = add::s(1, 1).queue("one").expires(LONG).send(celeriac.client()).await.unwrap();
        tokio::time::sleep(moment * 2).await; // past the first one's time
        gate.open();
        for expired in [late, later] {
            let record = record(&expired).await;
            assert_eq!((record.state, record.attempts, record.started_at), (State::Revoked, 0, None));
            assert!(record.errors[0].starts_with("expired: it was to start before "), "{:?}", record.errors);
        }
        assert_eq!(in_time.get(LONG).await, Ok(2));
        until_status(&celeriac, "one", |s| s.revoked == 2).await;
    })
    .await;
}

#[task(queue = "io")]
async fn describes_itself(ctx: Context) -> Vec<String> {
    let header = |name| ctx.header(name).map_or("none".to_owned(), ToString::to_string);
    vec![header("tenant"), header("page"), header("other"), ctx.queue().to_owned(), ctx.id().to_string()]
}

#[tokio::test]
async fn headers_travel_with_the_task() {
    on_both(|celeriac| async move {
        let call = describes_itself::s().header("tenant", "a").header("page", 3);
        let result = call.send(celeriac.client()).await.unwrap();
        let id = result.id().to_string();
        assert_eq!(result.get(LONG).await.unwrap(), ["\"a\"", "3", "none", "io", id.as_str()]);
    })
    .await;
}
