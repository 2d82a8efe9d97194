//! What cannot be run: refused with a reason that says what to do, or kept where it can be looked at.

use celeriac::task::{Arguments, NewTask, TaskOptions};
use celeriac::{AsyncResult, Celeriac, EnqueueError, GetError, State, TaskId, task};

use crate::kit::{LONG, Log, add, alone, builder, io_queue, on_both, record};

#[task(name = "mail.send", queue = "io")]
async fn send_mail(user: u64, note: Option<String>) -> String {
    format!("{user}: {note:?}")
}

/// Enqueues as a stranger would, by name and with text for arguments.
async fn by_name(celeriac: &Celeriac, task: &str, args: &str, kwargs: &str) -> TaskId {
    let mut options = TaskOptions::default();
    options.queue = Some("io".into());
    let mut call = NewTask::new(task, options);
    call.arguments = Arguments { args: args.into(), kwargs: kwargs.into() };
    celeriac.client().enqueue(Box::new(call)).await.unwrap().id
}

async fn wait(celeriac: &Celeriac, id: &TaskId) -> celeriac::task::TaskResult {
    tokio::time::timeout(LONG, celeriac.client().wait(id)).await.unwrap().unwrap()
}

#[tokio::test]
async fn arguments_by_name_are_bound_as_python_does_it() {
    on_both(|celeriac| async move {
        for (args, kwargs, value) in [
            ("[7]", "", "\"7: None\""),
            ("[7,\"x\"]", "", "\"7: Some(\\\"x\\\")\""),
            ("[]", r#"{"note":"y","user":8}"#, "\"8: Some(\\\"y\\\")\""),
            ("[9]", r#"{"note":"z"}"#, "\"9: Some(\\\"z\\\")\""),
        ] {
            let id = by_name(&celeriac, "mail.send", args, kwargs).await;
            let record = wait(&celeriac, &id).await;
            assert_eq!(record.result.as_deref(), Some(value), "{args} {kwargs}: {record:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_run_is_a_dead_letter_with_its_reason() {
    on_both(|celeriac| async move {
        let expected = [
            ("mail.sned", "[7]", "", "no task named `mail.sned` in this program; did you mean `mail.send`?"),
            ("zzzz", "[]", "", "no task named `zzzz` in this program"),
            ("mail.send", "[\"x\"]", "", "the arguments (user=\"x\", note=null) do not decode as (u64,"),
            (
                "mail.send",
                "[1,2,3]",
                "",
                "3 positional arguments were given, but the task takes (user, note)",
            ),
            ("mail.send", "[]", r#"{"usr":1}"#, "unknown keyword `usr`: the task takes (user, note)"),
            ("mail.send", "[1]", r#"{"user":1}"#, "argument `user` was given twice"),
            ("mail.send", "{}", "", "the positional arguments are not a JSON array"),
        ];
        for (task, args, kwargs, reason) in expected {
            let id = by_name(&celeriac, task, args, kwargs).await;
            let record = wait(&celeriac, &id).await;
            assert_eq!(record.state, State::Rejected, "{task} {args}");
            assert!(record.errors[0].starts_with(reason), "{:?} does not start with {reason}", record.errors);
        }
        let letters = celeriac.dead_letters(100).await.unwrap();
        assert_eq!(letters.len(), expected.len());
        for (letter, (task, args, _, reason)) in letters.iter().zip(expected) {
            assert_eq!((letter.message.task.as_str(), letter.message.arguments.args.as_str()), (task, args));
            assert!(letter.reason.starts_with(reason));
        }
        // The queue is none the worse for it.
        assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_at_the_enqueue_says_what_to_do() {
    on_both(|celeriac| async move {
        let refused = async |signature: celeriac::task::Signature<send_mail::Task>| -> EnqueueError {
            signature.send(celeriac.client()).await.expect_err("it is refused")
        };
        let error = refused(send_mail::s(1, Some("x".repeat(70_000)))).await;
        assert_eq!(
            error.to_string(),
            "the arguments of `mail.send` take 70006 bytes, the limit is 65536: store the object, pass its id, and let the task fetch it"
        );
        let error = refused(send_mail::s(1, None).queue("oi")).await;
        assert_eq!(error.to_string(),
            "`mail.send` goes to queue `oi`, which is not in the catalogue; did you mean `io`?"
        );
        let error = refused(send_mail::s(1, None).queue("cpuu")).await;
        assert_eq!(
            error.to_string(),
            "`mail.send` goes to queue `cpuu`, which is not in the catalogue; did you mean `cpu`?"
        );
        assert_eq!(refused(send_mail::s(1, None).id("")).await, EnqueueError::BadId { len: 0 });
        assert_eq!(refused(send_mail::s(1, None).id("x".repeat(256))).await, EnqueueError::BadId { len: 256 });
        let longest = send_mail::s(1, None).id("y".repeat(255)).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&longest).await.state, State::Success);
    })
    .await;
}

#[tokio::test]
async fn an_id_is_taken_until_its_result_is_forgotten() {
    on_both(|celeriac| async move {
        let send = async |id: &str| -> Result<AsyncResult<add::Task>, EnqueueError> {
            add::s(1, 2).id(id).send(celeriac.client()).await
        };
        let first = send("invoice-7").await.unwrap();
        let taken = Err(EnqueueError::DuplicateId { id: "invoice-7".into() });
        assert_eq!(send("invoice-7").await.map(|_| ()), taken);
        assert_eq!(first.get(LONG).await, Ok(3));
        assert_eq!(send("invoice-7").await.map(|_| ()), taken, "its result is kept");
        assert_eq!(first.forget().await, Ok(true));
        assert_eq!(send("invoice-7").await.unwrap().get(LONG).await, Ok(3));
    })
    .await;
}

#[tokio::test]
async fn levers_refuse_what_makes_no_sense() {
    let celeriac = builder().in_memory().start().await.unwrap();
    let error = celeriac.pause("oi").await.unwrap_err().to_string();
    assert!(error.starts_with("no queue `oi`; there are: io, cpu, one"), "{error}");
    let error = celeriac.resize("io", 0).await.unwrap_err().to_string();
    assert_eq!(error, "a queue needs at least one worker; use `pause` to stop it");
    let unknown = celeriac.client().wait(&"nobody".into()).await;
    assert_eq!(unknown, Err(GetError::Unknown("nobody".into())));
    celeriac.shutdown().await.unwrap();
}

/// Says in its panic what it was to be read from.
#[derive(serde::Serialize)]
#[serde(transparent)]
struct Picky(String);

impl<'de> serde::Deserialize<'de> for Picky {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        panic!("cannot do with {}", <String as serde::Deserialize>::deserialize(deserializer)?)
    }
}

#[task(queue = "io", max_retries = 0)]
async fn takes_picky(value: Picky) {
    drop(value);
}

#[test]
fn a_panic_at_hidden_arguments_prints_none_of_them() {
    let said = alone("bad_input::panics_at_arguments_in_a_process_of_their_own");
    assert!(said.contains("cannot do with plain-value"), "other panics are printed as before: {said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert!(
        said.contains("a panic while the arguments were decoded, at tests/runtime/bad_input.rs:"),
        "{said}"
    );
}

#[tokio::test]
#[ignore = "`a_panic_at_hidden_arguments_prints_none_of_them` runs it in a process of its own"]
async fn panics_at_arguments_in_a_process_of_their_own() {
    // Not the kit's builder: it would keep the panics of the runtime's threads from being printed.
    let log = Log::capture(tracing::Level::DEBUG);
    let builder = Celeriac::builder().queue(io_queue("io", 1)).arbiters(1);
    let celeriac = builder.in_memory().start().await.unwrap();
    for _ in 0..2 {
        let hidden = takes_picky::s(Picky("hunter2".into())).argsrepr("('***',)");
        let hidden = record(&hidden.send(celeriac.client()).await.unwrap()).await;
        println!("{hidden:?}");
        // The panic at what nobody hides is seen, also after the other one.
        let plain = takes_picky::s(Picky("plain-value".into())).send(celeriac.client()).await.unwrap();
        assert_eq!(record(&plain).await.state, State::Failure);
    }
    celeriac.shutdown().await.unwrap();
    println!("{}", log.text());
}
