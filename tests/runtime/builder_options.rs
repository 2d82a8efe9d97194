//! What the builder, a row and a call can be told, each by what it does: the test fails without it.

use std::sync::Arc;
use std::time::Duration;

use celeriac::catalogue::{Catalogue, QueueRow, TargetClass};
use celeriac::soil::Download;
use celeriac::task::canvas::group;
use celeriac::{Celeriac, Context, State, TaskError, task, testing};
use futures_util::TryStreamExt;
use object_store::{ObjectStore, memory::InMemory};

use crate::kit::{Gate, LONG, add, builder, embedded, on_both, until};

#[task(queue = "io", max_retries = 0)]
async fn text_of(bytes: usize) -> String {
    "x".repeat(bytes)
}

#[task(queue = "io", max_retries = 0)]
async fn exposes(ctx: Context) -> Result<(), TaskError> {
    ctx.expose_download(Download::from_bytes("in a store of one's own")).await?;
    Ok(())
}

/// What was to be shown instead of its arguments, and its stamp.
#[task(queue = "io", max_retries = 0)]
async fn shown(ctx: Context, secret: String) -> Result<[String; 3], TaskError> {
    let _ = secret;
    let message = ctx.message();
    let text = |name: &str| message.headers.0.get(name).map(ToString::to_string).unwrap_or_default();
    let stamps = message.workflow.as_deref().map(|workflow| workflow.stamps.0.clone()).unwrap_or_default();
    let stamp = stamps.get("who").map(ToString::to_string).unwrap_or_default();
    Ok([text("argsrepr"), text("kwargsrepr"), stamp])
}

/// Takes a permit of each of two limits, all or nothing.
#[task(queue = "io", max_retries = 0)]
async fn two_limits(ctx: Context, one: String, another: String, gate: String) -> Result<(), TaskError> {
    let _permit = ctx.limit(one, 1).and(another, 1).or_postpone(Duration::from_millis(5)).await?;
    Gate::named(&gate).pass().await;
    Ok(())
}

#[tokio::test]
async fn what_is_sent_at_once_and_what_is_returned_has_the_limits_that_are_set() {
    let limited = builder().max_canvas_tasks(3).max_canvas_size(4 << 10).max_result_size(1 << 10);
    let celeriac = limited.in_memory().start().await.unwrap();
    let client = celeriac.client();
    let of = |members: i64| group((0..members).map(|n| add::s(n, n)));
    assert_eq!(of(3).send(client.clone()).await.unwrap().get(LONG).await, Ok(vec![0, 2, 4]));
    let error = of(4).send(client.clone()).await.unwrap_err().to_string();
    assert!(error.contains("4 tasks at once, the limit is 3"), "{error}");
    // Each member has a copy of what is said of the group.
    let large = of(3).argsrepr("x".repeat(2 << 10)).send(client.clone()).await.unwrap_err().to_string();
    assert!(large.contains("the limit is 4096"), "{large}");
    assert_eq!(text_of::s(1000).send(client.clone()).await.unwrap().get(LONG).await.unwrap().len(), 1000);
    let error = text_of::s(1100).send(client).await.unwrap().get(LONG).await.unwrap_err().to_string();
    assert!(error.contains("the result takes 1102 bytes, the limit is 1024"), "{error}");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn downloads_lie_in_the_store_that_is_given() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let celeriac = builder().in_memory().download_store(Arc::clone(&objects)).start().await.unwrap();
    exposes::s().send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
    let listed: Vec<_> = objects.list(None).try_collect().await.unwrap();
    let sizes: Vec<_> = listed.iter().map(|object| object.size).collect();
    assert!(sizes.contains(&23), "{listed:?}");
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn soil_cancels_what_waits_and_says_whether_it_did() {
    on_both(|celeriac| async move {
        let task = add::s(1, 1).countdown(Duration::from_secs(3600)).send(celeriac.client()).await.unwrap();
        assert!(celeriac.soil().cancel(task.id()).await.unwrap());
        assert_eq!(task.state().await, Ok(State::Revoked));
        assert!(!celeriac.soil().cancel(task.id()).await.unwrap(), "it is over");
    })
    .await;
}

#[tokio::test]
async fn what_is_shown_instead_of_arguments_and_stamps_travel() {
    on_both(|celeriac| async move {
        let of = |sent: [String; 3]| sent;
        let call = shown::s("secret".to_owned()).argsrepr("(one)").kwargsrepr("{two}");
        let one = call.send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
        assert_eq!(of(one), ["\"(one)\"", "\"{two}\"", ""].map(str::to_owned));
        let canvas = group([shown::s("secret".to_owned())]);
        let canvas = canvas.argsrepr("(one)").kwargsrepr("{two}").stamp("who", "me");
        let all = canvas.send(celeriac.client()).await.unwrap().get(LONG).await.unwrap();
        assert_eq!(all, [["\"(one)\"", "\"{two}\"", "\"me\""].map(str::to_owned)]);
    })
    .await;
}

#[tokio::test]
async fn two_limits_are_had_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let celeriac: Celeriac = embedded(dir.path()).await;
    let (first, second) = (Gate::new(), Gate::new());
    let [one, another, third] = ["one", "another", "third"].map(|name| format!("{name} of {}", first.name));
    let send = async |names: [&String; 2], gate: &Gate| {
        let call = two_limits::s(names[0].clone(), names[1].clone(), gate.name.clone());
        call.send(celeriac.client()).await.unwrap()
    };
    let holds = send([&one, &another], &first).await;
    first.entered(1).await;
    let waits = send([&third, &another], &second).await;
    until("it was put off", async || waits.state().await == Ok(State::Pending)).await;
    for (name, holders) in [(&one, 1), (&another, 1), (&third, 0)] {
        assert_eq!(celeriac.permit_holders(name).await.unwrap().len(), holders, "{name}");
    }
    first.open();
    holds.get(LONG).await.unwrap();
    second.entered(1).await;
    assert_eq!(celeriac.permit_holders(&third).await.unwrap().len(), 1);
    second.open();
    waits.get(LONG).await.unwrap();
    celeriac.shutdown().await.unwrap();
}

/// A row that the program makes is the one that the file makes.
#[test]
fn a_row_of_the_program_says_what_one_of_the_file_says() {
    let text = r#"
[[queue]]
name = "email"
target = "30s"
target_class = "seconds"
target_comment = "people wait"
description = "Send emails."
typical_duration = "seconds"
notes = "look at the gateway"
"#;
    let of_file = Catalogue::parse(text, "celeriac.toml").unwrap().queues;
    let row = QueueRow::new("email")
        .with_target(Duration::from_secs(30))
        .with_target_class(TargetClass::Seconds)
        .with_target_comment("people wait")
        .with_description("Send emails.")
        .with_typical_duration("seconds")
        .with_notes("look at the gateway");
    assert_eq!(of_file, [row]);
}

/// How its message is settled, and whether its errors are tried again.
#[task(queue = "io")]
async fn says_nothing(ctx: Context) -> (bool, bool) {
    (ctx.message().acks_late, ctx.message().autoretry)
}

#[task(queue = "io", acks_late, autoretry)]
async fn says_it_itself(ctx: Context) -> (bool, bool) {
    (ctx.message().acks_late, ctx.message().autoretry)
}

#[tokio::test]
async fn what_a_program_says_for_all_tasks_holds_for_those_that_say_nothing() {
    let celeriac = builder().acks_late(false).autoretry(false).in_memory().start().await.unwrap();
    let client = celeriac.client();
    assert_eq!(says_nothing::s().send(client.clone()).await.unwrap().get(LONG).await, Ok((false, false)));
    assert_eq!(says_it_itself::s().send(client.clone()).await.unwrap().get(LONG).await, Ok((true, true)));
    // What follows from a task is sent by the same program.
    let chain = add::s(1, 1).then(says_nothing::s());
    assert_eq!(chain.send(client).await.unwrap().get(LONG).await, Ok((false, false)));
    celeriac.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_task_that_has_expired_runs_all_the_same_if_the_program_says_so() {
    let program = Celeriac::builder().exempt_from_expiry(|message| {
        assert!(!message.headers.0.contains_key("panics"), "a hook that panics exempts nothing");
        message.headers.0.contains_key("email_when_done")
    });
    let app = testing::builder().program(program).start().await.unwrap();
    let second = Duration::from_secs(1);
    let plain = add::s(1, 1).expires(second).delay().await.unwrap();
    let wanted = add::s(1, 1).expires(second).header("email_when_done", true).delay().await.unwrap();
    let panics = add::s(1, 1).expires(second).header("panics", true).delay().await.unwrap();
    app.jump(2 * second);
    app.run_until_idle().await;
    assert_eq!(plain.state().await, Ok(State::Revoked));
    assert_eq!(wanted.state().await, Ok(State::Success));
    assert_eq!(panics.state().await, Ok(State::Revoked));
}
