//! Messages that nobody means well with: they are kept as they came, and no other task notices.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

use celeriac::broker::amqp::AmqpOptions;
use celeriac::broker::{DeadLetter, QueueType};
use celeriac::task::Task;
use celeriac::{Celeriac, Context, State, TaskId, task};
use lapin::options::BasicGetOptions;
use lapin::types::{AMQPValue, FieldTable};

use crate::kit::{Gate, LONG, add, hold, io_queue, status_of, until};
use crate::rabbit::{Peer, builder, task as python, text, vhost};
use crate::raw::{Properties, Raw, long, long_header, nested, short};
use crate::services::{Proxy, RabbitMq, blocking};

const EMBED: &str = r#"{"callbacks":null,"errbacks":null,"chain":null,"chord":null}"#;

static RUNS: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);

#[task(queue = "io")]
async fn counted(ctx: Context, n: u32) -> u32 {
    *RUNS.lock().unwrap().get_or_insert_default().entry(ctx.id().to_string()).or_default() += 1;
    n
}

fn runs(id: &str) -> u32 {
    RUNS.lock().unwrap().as_ref().and_then(|runs| runs.get(id).copied()).unwrap_or_default()
}

async fn letters(celeriac: &Celeriac, count: usize) -> Vec<DeadLetter> {
    until("all dead letters are there", async || {
        celeriac.dead_letters(1000).await.is_ok_and(|letters| letters.len() >= count)
    })
    .await;
    let letters = celeriac.dead_letters(1000).await.unwrap();
    assert_eq!(letters.len(), count, "{:?}", letters.iter().map(|l| &l.reason).collect::<Vec<_>>());
    letters
}

async fn until_some<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < LONG, "never came true: {what}");
    }
}

async fn wait(celeriac: &Celeriac, id: &str) -> celeriac::task::TaskResult {
    let id = TaskId::from(id);
    tokio::time::timeout(LONG, celeriac.client().wait(&id)).await.expect("it ends").unwrap()
}

/// The half of an emoji that Python keeps when it cuts a text, as its AMQP client writes it.
const HALF: &[u8] = b"cut \xed\xa0\xbd";

/// The header that says which others are stamps.
fn stamped(name: &str) -> Vec<u8> {
    [&short(b"stamped_headers")[..], b"A", &long(&[b"S", &long(name.as_bytes())[..]].concat())].concat()
}

/// A table with one stamp.
fn stamps(name: &str, value: &[u8]) -> Vec<u8> {
    [&short(b"stamps")[..], b"F", &long(&long_header(name, value))].concat()
}

/// Whether this text is somewhere in the headers.
fn holds(headers: &FieldTable, text: &[u8]) -> bool {
    headers.inner().values().any(|value| match value {
        AMQPValue::LongString(found) => found.as_bytes() == text,
        AMQPValue::FieldTable(table) => holds(table, text),
        _ => false,
    })
}

/// Can be written as they came, and so go back to their queue.
const GO_BACK: [&str; 4] = ["value", "argsrepr", "stamp", "stamps"];

/// Bad messages, each with what is wrong with it.
fn bad(task: &str) -> Vec<(String, Properties, &'static str)> {
    let of = |id: &str, more: &[u8]| Properties::of_task(task, id, more);
    let mut all = vec![
        ("deep-tables".into(), of("deep-tables", &nested("deep", 3_000, b'F')), "nested more than 64 deep"),
        (
            "deepest-tables".into(),
            of("deepest-tables", &nested("deep", 14_000, b'F')),
            "nested more than 64 deep",
        ),
        ("deep-arrays".into(), of("deep-arrays", &nested("deep", 20_000, b'A')), "nested more than 64 deep"),
        (
            "key".into(),
            of("key", &[&short(b"k\xff")[..], b"V"].concat()),
            "the name of a header is not UTF-8",
        ),
        ("value".into(), of("value", &long_header("v", b"\xff")), "its header `v` is neither"),
        ("large".into(), of("large", &long_header("big", &[b'x'; 129_000])), "its properties take 129"),
        // Half an emoji, as Python's client writes it.
        (
            "argsrepr".into(),
            of("argsrepr", &long_header("argsrepr", HALF)),
            "its header `argsrepr` is neither",
        ),
        (
            "stamp".into(),
            of("stamp", &[&long_header("season", HALF), &stamped("season")[..]].concat()),
            "its header `season` is neither",
        ),
        ("stamps".into(), of("stamps", &stamps("season", HALF)), "its header `stamps` is neither"),
        ("half".into(), of("half", b"").short(10, HALF), "is not UTF-8"),
    ];
    for (bit, name) in [
        (10, "correlation_id"),
        (9, "reply_to"),
        (7, "message_id"),
        (5, "type"),
        (3, "app_id"),
        (2, "cluster_id"),
    ] {
        all.push((name.to_owned(), of(name, b"").short(bit, b"a\xff"), "is not UTF-8"));
    }
    let headers = [long_header("task", task.as_bytes()), long_header("id", b"content_type")].concat();
    let content_type = Properties::default().short(15, b"application/json\xff").long(13, &headers);
    all.push(("content_type".into(), content_type, "its `content_type` is not UTF-8"));
    all
}

/// What the client library cannot parse costs no connection and no run of another task, and is kept byte for byte.
async fn is_put_aside(options: AmqpOptions) {
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let celeriac = builder(&proxy.url(&url)).amqp_options(options).start().await.unwrap();
    let client = || celeriac.client();
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).queue("one").send(client()).await.unwrap();
    gate.entered(1).await;
    let connections = proxy.accepted();
    let bad = bad(counted::Task::NAME);
    let body = format!("[[1],{{}},{EMBED}]");
    let mut good = Vec::new();
    let mut raw = {
        let url = url.clone();
        blocking(move || Raw::connect(&url)).await
    };
    for (n, (_, properties, _)) in (0..).zip(&bad) {
        good.push(counted::s(n).send(client()).await.unwrap());
        let (properties, body) = (properties.clone(), body.clone());
        raw = blocking(move || {
            raw.send("io", &properties, body.as_bytes());
            raw
        })
        .await;
        good.push(counted::s(n).send(client()).await.unwrap());
    }
    for task in &good {
        task.get(LONG).await.unwrap();
    }
    let letters = letters(&celeriac, bad.len()).await;
    for (id, _, why) in &bad {
        let letter = letters.iter().find(|letter| letter.message.id.as_str() == id);
        let letter = letter.unwrap_or_else(|| panic!("{id} is among {letters:?}"));
        assert!(letter.reason.contains(why), "{id}: `{why}` in `{}`", letter.reason);
        assert_eq!(letter.message.queue, "io");
        assert_eq!(wait(&celeriac, id).await.error_type.as_deref(), Some("InvalidMessage"), "{id}");
        assert_eq!(
            celeriac.requeue_dead_letter(&letter.message.id).await,
            Ok(GO_BACK.contains(&&**id)),
            "{id}"
        );
    }
    // What can be written as it was went back, and was refused again; no other one has left.
    until("those that went back are dead letters again", async || {
        celeriac.dead_letters(1000).await.is_ok_and(|letters| letters.len() == bad.len())
    })
    .await;
    gate.open();
    assert_eq!(held.get(LONG).await, Ok(1));
    assert_eq!(gate.gauge.all(), 1, "who ran meanwhile was not disturbed");
    for task in good {
        assert_eq!(runs(task.id().as_str()), 1);
    }
    assert_eq!(proxy.accepted(), connections, "no connection was lost");
    celeriac.shutdown().await.unwrap();
    let peer = Peer::connect(&url).await;
    assert_eq!(peer.ready("io").await, 0);
    let mut kept = HashMap::new();
    for _ in &bad {
        let got = peer.channel.basic_get("celeriac.dead".into(), BasicGetOptions { no_ack: true }).await;
        let delivery = got.unwrap().unwrap().delivery;
        let headers = delivery.properties.headers().clone().unwrap();
        let id = headers.inner()["celeriac-letter"].as_long_string().unwrap().to_string();
        let (properties, body) = match headers.inner().get("celeriac-properties") {
            Some(AMQPValue::ByteArray(bytes)) => (Some(bytes.as_slice().to_vec()), delivery.data),
            _ => match headers.inner().get("celeriac-appended") {
                Some(AMQPValue::LongLongInt(length)) => {
                    let at = delivery.data.len() - usize::try_from(*length).unwrap();
                    (Some(delivery.data[at..].to_vec()), delivery.data[..at].to_vec())
                }
                _ => (None, delivery.data),
            },
        };
        let half = holds(&headers, HALF);
        kept.insert(id, (properties, body, half));
    }
    for (id, properties, _) in bad {
        let (kept, kept_body, half) = &kept[&id];
        assert_eq!(kept_body, body.as_bytes(), "{id}");
        if GO_BACK.contains(&&*id) {
            assert!(*half || id == "value", "{id}: the header is as it came");
        } else {
            assert!(*kept == Some(properties.bytes()), "{id}: its properties are those that came");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_parsed_is_put_aside() {
    is_put_aside(AmqpOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_parsed_is_put_aside_of_quorum_queues() {
    is_put_aside(AmqpOptions::default().queue_type(QueueType::Quorum)).await;
}

/// A quorum queue notes on a message how often it was delivered. What fitted a frame exactly then does not any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_have_outgrown_a_frame_are_put_aside() {
    let url = vhost().await;
    let options = AmqpOptions::default().queue_type(QueueType::Quorum);
    let celeriac = builder(&url).amqp_options(options.clone()).start().await.unwrap();
    celeriac.shutdown().await.unwrap();
    let properties = |fill| Properties::of_task("t", "grown", &long_header("big", &vec![b'x'; fill]));
    let around = properties(0).bytes().len() + 8 + 12;
    let properties = properties(131_072 - around);
    let at = url.clone();
    blocking(move || {
        let mut raw = Raw::connect(&at);
        raw.send("io", &properties, b"[[],{},null]");
        raw.fetch_and_return("io");
    })
    .await;
    let celeriac = builder(&url).amqp_options(options).start().await.unwrap();
    let letters = letters(&celeriac, 1).await;
    assert!(letters[0].reason.contains("its properties take 131"), "{}", letters[0].reason);
    assert_eq!(letters[0].message.id.as_str(), "grown");
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    celeriac.shutdown().await.unwrap();
}

/// Who shouts nonsense to all workers is not heard, and costs nobody a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_for_all_workers_costs_no_connection() {
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let celeriac = builder(&proxy.url(&url)).start().await.unwrap();
    let connections = proxy.accepted();
    let at = url.clone();
    blocking(move || {
        let mut raw = Raw::connect(&at);
        let deep = Properties::default().short(15, b"application/json").long(13, &nested("k", 9_000, b'F'));
        let not_text = Properties::default().short(15, b"application/json").short(10, b"\xff\xfe");
        for properties in [&deep, &not_text] {
            raw.publish("celery.pidbox", b"\xff\xc3", properties, b"{}");
        }
        raw.publish("celery.pidbox", b"", &Properties::default(), b"\xff");
    })
    .await;
    // What comes after it is heard: a task is revoked by the same way.
    let gate = Gate::new();
    let held = hold::s(gate.name.clone()).queue("one").send(celeriac.client()).await.unwrap();
    gate.entered(1).await;
    let waiting = add::s(1, 1).queue("one").send(celeriac.client()).await.unwrap();
    waiting.revoke(false).await.unwrap();
    gate.open();
    assert_eq!(held.get(LONG).await, Ok(1));
    crate::kit::until_state(waiting.id(), &celeriac, State::Revoked).await;
    assert_eq!(proxy.accepted(), connections, "no connection was lost");
    celeriac.shutdown().await.unwrap();
}

/// The same among results by `rpc://`: a reply queue takes what anybody sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_among_results_costs_no_connection() {
    let url = vhost().await;
    let proxy = blocking(|| Proxy::start(RabbitMq::shared().address())).await;
    let through = proxy.url(&url);
    let results = through.replace("amqp://", "rpc://");
    let celeriac = builder(&through).result_backend(results).start().await.unwrap();
    let name = url.rsplit_once('/').unwrap().1.to_owned();
    let replies = until_some("there is a reply queue", || {
        let name = name.clone();
        async move {
            let queues = blocking(move || {
                RabbitMq::shared().ctl(&["list_queues", "-p", &name, "name", "--no-table-headers"])
            });
            queues
                .await
                .lines()
                .map(str::trim)
                .find(|queue| queue.len() == 36 && !queue.contains('.'))
                .map(str::to_owned)
        }
    })
    .await;
    let connections = proxy.accepted();
    let at = url.clone();
    blocking(move || {
        let mut raw = Raw::connect(&at);
        let deep = Properties::default().short(15, b"application/json").long(13, &nested("k", 9_000, b'F'));
        raw.send(&replies, &deep, b"{}");
        raw.send(&replies, &Properties::default().short(10, b"\xff"), b"\xff");
    })
    .await;
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    assert_eq!(proxy.accepted(), connections, "no connection was lost");
    celeriac.shutdown().await.unwrap();
}

/// Half an emoji, as Python writes a text that was cut, and numbers that no computer holds: each ends once, and is kept as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_rust_cannot_hold_ends_once_and_is_kept() {
    let url = vhost().await;
    let celeriac = builder(&url).start().await.unwrap();
    let peer = Peer::connect(&url).await;
    let known = counted::Task::NAME;
    let mut sent = Vec::new();
    for (n, (args, kwargs)) in (0..).zip([
        (r#"["cut \ud83d"]"#, "{}"),
        ("[1e400]", "{}"),
        ("[]", r#"{"n":"\ud83d"}"#),
        ("[]", r#"{"\ud83d":1}"#),
        ("[]", r#"{"n":-1e400}"#),
        ("[[[{\"\\udc00\":1e999}]]]", "{}"),
    ]) {
        for (name, embed) in [(known, "null"), ("nobody.knows", EMBED), (known, EMBED)] {
            let id = format!("{n}-{name}-{}", embed.len());
            let body = format!("[{args},{kwargs},{embed}]");
            peer.send("io", python(name, &id), body.as_bytes()).await;
            sent.push((id, args, kwargs));
        }
    }
    for (id, ..) in &sent {
        assert!(matches!(wait(&celeriac, id).await.state, State::Rejected | State::Failure), "{id}");
    }
    let letters = letters(&celeriac, sent.len()).await;
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    assert!(letters.iter().all(|letter| letter.message.queue == "io"));
    celeriac.shutdown().await.unwrap();
    assert_eq!(peer.ready("io").await, 0);
    let mut kept = HashMap::new();
    for _ in &sent {
        let got = peer.channel.basic_get("celeriac.dead".into(), BasicGetOptions { no_ack: true }).await;
        let delivery = got.unwrap().unwrap().delivery;
        let id = delivery.properties.headers().as_ref().unwrap().inner()["id"].as_long_string().unwrap();
        kept.insert(id.to_string(), String::from_utf8(delivery.data).unwrap());
    }
    // The arguments are as they came. The embed is written anew, with all four fields, as Python writes it.
    for (id, args, kwargs) in sent {
        assert_eq!(kept[&id], format!("[{args},{kwargs},{EMBED}]"), "{id}");
    }
}

/// Half an emoji in what is to follow: in the arguments of a callback, of an errback and of a later step, in their options, in
/// their names, in the body of a chord. Whoever it is in is told, nothing comes again and again, and the text is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_an_emoji_in_what_follows_ends_once_and_is_kept() {
    let url = vhost().await;
    let celeriac = builder(&url).start().await.unwrap();
    let peer = Peer::connect(&url).await;
    let known = counted::Task::NAME;
    let signature = |task: &str, args: &str, kwargs: &str, id: &str, more: &str| {
        format!(
            r#"{{"task":"{task}","args":{args},"kwargs":{kwargs},"options":{{"task_id":"{id}"{more}}},"subtask_type":null,"immutable":true}}"#
        )
    };
    let cut = r"cut \ud83d";
    let embed = |part: &str, what: &str| {
        let of = |name: &str| if name == part { what } else { "null" };
        let (callbacks, errbacks, chain, chord) = (of("callbacks"), of("errbacks"), of("chain"), of("chord"));
        format!(r#"{{"callbacks":{callbacks},"errbacks":{errbacks},"chain":{chain},"chord":{chord}}}"#)
    };
    let (mut sent, mut bodies) = (Vec::new(), HashMap::new());
    for part in ["callbacks", "errbacks", "chain", "chord"] {
        let args = format!(r#"["{cut}"]"#);
        let kwargs = format!(r#"{{"{cut}":1}}"#);
        let option = format!(r#","shadow":"{cut}""#);
        for (place, args, kwargs, more, task) in [
            ("args", &*args, "{}", "", known),
            ("kwargs", "[]", &*kwargs, "", known),
            ("option", "[1]", "{}", &*option, known),
            ("name", "[1]", "{}", "", cut),
        ] {
            let id = format!("{part}-{place}");
            let what = signature(task, args, kwargs, &format!("after-{id}"), more);
            let what = if part == "chord" { what } else { format!("[{what}]") };
            let body = format!("[[1],{{}},{}]", embed(part, &what));
            let mut properties = python(known, &id);
            if part == "chord" {
                let mut headers = properties.headers().clone().unwrap();
                headers.insert("group".into(), text(&format!("group-{id}")));
                properties = properties.with_headers(headers);
            }
            peer.send("io", properties, body.as_bytes()).await;
            bodies.insert(id.clone(), body);
            sent.push(id);
        }
    }
    // Names and keys have to be read; values are passed on as they are.
    let is_refused = |id: &str| id.ends_with("-kwargs") || id.ends_with("-name");
    for id in &sent {
        let record = wait(&celeriac, id).await;
        let expected =
            if is_refused(id) { (State::Failure, Some("InvalidMessage")) } else { (State::Success, None) };
        assert_eq!((record.state, record.error_type.as_deref()), expected, "{id}");
    }
    until("nothing is left to do", async || {
        let queue = status_of(&celeriac, "io").await;
        (queue.ready, queue.running, queue.scheduled) == (0, 0, 0)
    })
    .await;
    for id in &sent {
        assert_eq!(runs(id), u32::from(!is_refused(id)), "{id}");
        // The body of a chord waits for other members, and no errback is called.
        let follows = id == "callbacks-option" || id == "chain-option";
        assert_eq!(runs(&format!("after-{id}")), u32::from(follows), "{id}");
    }
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    let mut letters: Vec<_> = celeriac
        .dead_letters(1000)
        .await
        .unwrap()
        .iter()
        .map(|letter| letter.message.id.to_string())
        .collect();
    let mut expected: Vec<_> = sent.iter().filter(|id| is_refused(id)).cloned().collect();
    expected.extend(["after-callbacks-args", "after-chain-args"].map(str::to_owned));
    letters.sort_unstable();
    expected.sort_unstable();
    assert_eq!(letters, expected);
    celeriac.shutdown().await.unwrap();
    assert_eq!(peer.ready("io").await, 0);
    for _ in &letters {
        let got = peer.channel.basic_get("celeriac.dead".into(), BasicGetOptions { no_ack: true }).await;
        let delivery = got.unwrap().unwrap().delivery;
        let headers = delivery.properties.headers().clone().unwrap();
        let id = headers.inner()["celeriac-letter"].as_long_string().unwrap().to_string();
        let body = String::from_utf8(delivery.data).unwrap();
        match bodies.get(&id) {
            Some(sent) => assert_eq!(&body, sent, "{id} is kept as it came"),
            // A step that was made of such a part is written by this program.
            None => assert_eq!(body, format!("[[\"{cut}\"],{{}},{EMBED}]"), "{id}"),
        }
    }
}

/// What follows from a run and cannot be sent has failed by itself, and does not put the run back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_next_step_that_cannot_be_sent_is_a_dead_letter() {
    let url = vhost().await;
    let celeriac = builder(&url).start().await.unwrap();
    let peer = Peer::connect(&url).await;
    let step = |id: &str, options: &str| {
        format!(
            r#"{{"task":"{}","args":[1],"kwargs":{{}},"options":{{"task_id":"{id}"{options}}},"subtask_type":null,"immutable":true}}"#,
            counted::Task::NAME
        )
    };
    let queue = format!(r#","queue":"{}""#, "q".repeat(300));
    let headers = format!(r#","headers":{{"big":"{}"}}"#, "x".repeat(140_000));
    // A name that no queue can have is seen when the step is made, and headers too large when it is written.
    let cases = [("long-queue", queue, State::Failure, 0), ("large-headers", headers, State::Success, 1)];
    for (n, (id, options, state, dead)) in (0..).zip(cases) {
        let parent = format!("parent-{n}");
        let chain = step(id, &options);
        let body =
            format!(r#"[[{n}],{{}},{{"callbacks":null,"errbacks":null,"chain":[{chain}],"chord":null}}]"#);
        peer.send("io", python(counted::Task::NAME, &parent), body.as_bytes()).await;
        let record = wait(&celeriac, &parent).await;
        assert_eq!(record.state, state, "{parent}: {record:?}");
        if dead > 0 {
            let failed = wait(&celeriac, id).await;
            assert_eq!(failed.state, State::Failure, "{id}: {failed:?}");
        }
        let letters = letters(&celeriac, dead).await;
        assert!(letters.iter().all(|letter| letter.message.id.as_str() == id), "{letters:?}");
        until("the first step is done with", async || {
            let queue = status_of(&celeriac, "io").await;
            queue.done + queue.failed > n as u64
        })
        .await;
        assert_eq!(runs(&parent), 1, "{parent}");
    }
    celeriac.shutdown().await.unwrap();
    assert_eq!(peer.ready("io").await, 0);
}

/// A reason repeats what a message says of itself, and has to fit a frame with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reason_is_as_long_as_a_frame_allows() {
    let url = vhost().await;
    let celeriac = builder(&url).start().await.unwrap();
    let peer = Peer::connect(&url).await;
    let name = "n".repeat(80_000);
    peer.send("io", python(&name, "long-name"), format!("[[],{{}},{EMBED}]").as_bytes()).await;
    let packed = crate::rabbit::with(&[
        ("task", text("t")),
        ("id", text("long-compression")),
        ("compression", text(&name)),
    ]);
    peer.send("io", packed, b"[]").await;
    let letters = letters(&celeriac, 2).await;
    for letter in &letters {
        assert!(letter.reason.len() <= 2_000, "{} bytes", letter.reason.len());
    }
    assert!(letters.iter().any(|letter| letter.message.task == name), "the name itself is whole");
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    celeriac.shutdown().await.unwrap();
}

/// Four megabytes of empty bzip2 streams take no time of the thread that everybody shares.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packed_nothing_holds_up_nobody() {
    let url = vhost().await;
    let celeriac = builder(&url).start().await.unwrap();
    let peer = Peer::connect(&url).await;
    let empty = b"BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0";
    let body = empty.repeat(285_000);
    let packed = crate::rabbit::with(&[
        ("task", text(add::Task::NAME)),
        ("id", text("empty")),
        ("compression", text("application/x-bz2")),
    ]);
    peer.send("io", packed, &body).await;
    assert_eq!(add::s(1, 1).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2));
    let letters = letters(&celeriac, 1).await;
    assert!(letters[0].reason.contains("more than 256 streams"), "{}", letters[0].reason);
    celeriac.shutdown().await.unwrap();
}

/// A body that takes its time to unpack, although it is within all limits: noise of two symbols, in bzip2.
fn slow_to_unpack() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'0' + u8::from(state & 1 == 1)
    });
    let noise: Vec<u8> = noise.take(4_000_000).collect();
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(&noise).unwrap();
    encoder.finish().unwrap()
}

/// Packed bodies are unpacked beside the thread that all queues share, so only their own queue waits for them. If they
/// were unpacked on that thread, a task that comes to another queue after them would wait for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packed_bodies_of_one_queue_hold_up_no_other() {
    const BODIES: usize = 12;
    let url = vhost().await;
    // It has all of them in hand at once.
    let row = io_queue("packed", 4).with_prefetch(BODIES);
    let celeriac = builder(&url).queue(row).start().await.unwrap();
    let peer = Peer::connect(&url).await;
    let body = blocking(slow_to_unpack).await;
    let small = format!("[[1,1],{{}},{EMBED}]");
    // All of them are in RabbitMQ before the task is, and none is waited for.
    let mut sent = Vec::new();
    for n in 0..BODIES {
        let packed = crate::rabbit::with(&[
            ("task", text(add::Task::NAME)),
            ("id", text(&format!("slow-{n}"))),
            ("compression", text("application/x-bz2")),
        ]);
        sent.push(peer.send("packed", packed, &body));
    }
    sent.push(peer.send("one", python(add::Task::NAME, "small"), small.as_bytes()));
    futures_util::future::join_all(sent).await;
    let small = wait(&celeriac, "small").await;
    assert_eq!(small.result.as_deref(), Some("2"));
    let letters = letters(&celeriac, BODIES).await;
    assert!(letters.iter().all(|letter| letter.message.queue == "packed"), "{letters:?}");
    let last = letters.iter().map(|letter| letter.died_at).max().unwrap();
    let ended = small.finished_at;
    assert!(ended < last, "a task of another queue was over at {ended:?}, and all were unpacked at {last:?}");
    celeriac.shutdown().await.unwrap();
}
