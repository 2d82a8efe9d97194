//! What a canvas may take of memory, whatever it is made of: each case in a process of its own, which says how much it had
//! at most.

use std::process::Command;
use std::time::Instant;

use celeriac::broker::Broker;
use celeriac::broker::conformance::sample;
use celeriac::task::canvas::{group, signature};
use celeriac::task::{Durability, RawSignature, Workflow};
use celeriac::{Celeriac, Context, GetError, TaskError, task};
use serde_json::{Value, json};

use super::kit::*;

/// Tells the child which case it is.
const CASE: &str = "CELERIAC_CANVAS_MEMORY";

#[task]
pub async fn big(kilobytes: usize) -> String {
    "x".repeat(kilobytes << 10)
}

#[task]
pub async fn length(text: String) -> usize {
    text.len()
}

#[task]
pub async fn total(texts: Vec<String>) -> usize {
    texts.iter().map(String::len).sum()
}

#[task]
pub async fn bare(_what: Value) {}

/// With as long an error as others are told.
#[task]
pub async fn fails() -> Result<(), celeriac::TaskError> {
    Err(celeriac::TaskError::fail(["x".repeat(60 << 10)]))
}

/// Goes on with an argument of this size.
#[task]
pub async fn goes_on(text: String, kilobytes: usize) -> Result<usize, TaskError> {
    match kilobytes {
        0 => Ok(text.len()),
        _ => Err(TaskError::continue_with(goes_on::s("x".repeat(kilobytes << 10), 0))),
    }
}

/// Is tried again with an argument of this size.
#[task]
pub async fn tries_again(text: String, kilobytes: usize) -> Result<usize, TaskError> {
    match kilobytes {
        0 => Ok(text.len()),
        _ => {
            let next = tries_again::s("x".repeat(kilobytes << 10), 0);
            Err(TaskError::retry("it wants more").with_arguments(next))
        }
    }
}

/// Fails with so many errors of 1 MiB each.
#[task]
pub async fn fails_at_length(ctx: Context, errors: usize) -> Result<(), TaskError> {
    Err(ctx.fail((0..errors).map(|_| "x".repeat(1 << 20))))
}

/// Reports data of this size.
#[task(max_retries = 0)]
pub async fn reports(ctx: Context, kilobytes: usize) -> Result<(), TaskError> {
    ctx.update_state("PROGRESS", "x".repeat(kilobytes << 10))?;
    Ok(())
}

/// The most memory that this process had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

async fn fan_out(celeriac: &Celeriac) -> String {
    let canvas = big::s(1024).then(group((0..1500).map(|_| length::Task)));
    let result = canvas.send(celeriac.client()).await.unwrap();
    match result.get(LONG).await {
        Ok(lengths) => format!("{} results", lengths.len()),
        Err(error) => error.to_string(),
    }
}

/// A message as it comes from Python, of 250 KiB at most: what follows from it is made of that.
async fn small_message(celeriac: &Celeriac, broker: &dyn Broker, task: &str, workflow: Workflow) -> String {
    let mut message = sample("default", 0, Durability::Disk);
    message.task = format!("canvas::{task}");
    message.arguments = celeriac::task::Arguments::default();
    let size = serde_json::to_string(&workflow).unwrap().len();
    assert!(size < 250 << 10, "{size}");
    message.workflow = Some(Box::new(workflow));
    broker.publish(message, true).await.unwrap();
    // It has run, or it never will: all that is left out has a record.
    let end = celeriac.async_result("end");
    until("all is over", async || end.state().await.unwrap().is_finished()).await;
    let errors = end.result().await.unwrap().map(|record| record.errors).unwrap_or_default();
    errors.iter().flat_map(|error| error.chars().take(400)).collect()
}

fn raw(text: Value) -> RawSignature {
    serde_json::from_value(text).unwrap()
}

const BARE: &str = "canvas::memory::bare";

fn small() -> Value {
    json!({ "task": BARE })
}

/// What all shapes end in.
fn end() -> Value {
    json!({"task": BARE, "options": {"task_id": "end"}})
}

fn large(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn chord(header: Value, body: Value) -> Value {
    json!({"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": header, "body": body, "kwargs": {}}})
}

fn group_of(members: Vec<Value>, args: Value, options: Value) -> Value {
    json!({"task": "celery.group", "subtask_type": "group", "args": args, "kwargs": {"tasks": members}, "options": options})
}

fn chunks_of(task: Value, items: usize) -> Value {
    json!({"task": "celery.chunks", "kwargs": {"task": task, "it": vec![1; items], "n": 1}})
}

/// As many errbacks of a few bytes as there is room for beside as many members.
fn with_errbacks(members: usize, options: Value) -> Value {
    let errbacks: Vec<_> = (0..1900).map(|n| json!({"task": format!("e{n}")})).collect();
    let mut group = group_of(vec![json!({"task": "a"}); members], json!([]), options);
    group["options"]["link_error"] = errbacks.into();
    group
}

/// Groups in groups, each with an argument for all that are in it.
fn nested_groups() -> Value {
    let leaves = group_of(vec![small(); 2000], json!([]), json!({}));
    (0..20).fold(leaves, |inner, _| group_of(vec![inner, small()], json!([large(8 << 10)]), json!({})))
}

/// Chords in the headers of chords, each with a body that all members take along.
fn nested_chords() -> Value {
    (0..14).fold(small(), |inner, level| {
        let id = if level == 13 { "end".to_owned() } else { format!("body{level}") };
        let header = std::iter::once(inner).chain(vec![small(); 80]).collect();
        chord(header, json!({"task": BARE, "args": [large(12 << 10)], "options": {"task_id": id}}))
    })
}

/// What follows from the first task of a message of 250 KiB at most, in shapes that come to gigabytes when each part is written
/// for each of the others; and how that task ends.
fn shape(name: &str) -> Option<(&'static str, Workflow)> {
    let (mut first, mut chain) = ("kit::none", Vec::new());
    let mut stamps = celeriac::task::Headers::default();
    let step = match name {
        "a chord's body" => {
            let body = json!({"task": BARE, "args": [large(200 << 10)], "options": {"task_id": "end"}});
            chord(vec![small(); 1000].into(), body)
        }
        "the task of chunks" => {
            let task = json!({"task": BARE, "args": [large(200 << 10)]});
            chord(chunks_of(task, 9000), end())
        }
        "chunks beside chunks" => chord(vec![chunks_of(small(), 9900); 12].into(), end()),
        "errbacks of a group" => chord(with_errbacks(5000, json!({})), end()),
        "errbacks of a body" => {
            let failing = json!([{"task": "canvas::memory::fails"}]);
            chain.insert(0, raw(end()));
            chord(failing, with_errbacks(5000, json!({})))
        }
        "a link of each" => {
            let link = json!({"task": BARE, "args": [large(50 << 10)]});
            let options = json!({"link": [link], "chain": [link]});
            chord(group_of(vec![small(); 3000], json!([large(40 << 10)]), options), end())
        }
        "nested groups" => chord(nested_groups(), end()),
        "nested chords" => nested_chords(),
        "stamps" => {
            stamps.0.insert("s".to_owned(), large(120 << 10).into());
            chord(vec![small(); 3000].into(), end())
        }
        "errors of the lost" => {
            first = "memory::fails";
            chord(vec![small(); 7000].into(), end())
        }
        _ => return None,
    };
    chain.push(raw(step));
    Some((first, Workflow { chain, stamps, ..Workflow::default() }))
}

/// A value for each member of a group, of which all together are just within the limit.
async fn just_enough(celeriac: &Celeriac) -> String {
    let canvas = big::s(40).then(group((0..1500).map(|_| length::Task)));
    match canvas.send(celeriac.client()).await.unwrap().get(LONG).await {
        Ok(lengths) => format!("{} results, {} bytes", lengths.len(), lengths.iter().sum::<usize>()),
        Err(error) => error.to_string(),
    }
}

/// Results that each may be, and that nobody could be given together.
async fn large_parts(celeriac: &Celeriac) -> String {
    let canvas = group((0..120).map(|_| big::s(1024))).then(total::Task);
    match canvas.send(celeriac.client()).await.unwrap().get(LONG).await {
        Ok(total) => format!("{total} bytes"),
        Err(error) => error.to_string(),
    }
}

async fn many_chunks(celeriac: &Celeriac) -> String {
    let items: Vec<_> = (0..400_000).map(|n| json!([n])).collect();
    let task = json!({"task": "canvas::memory::bare"});
    let chunks = signature("celery.chunks").kwarg("task", task).kwarg("it", items).kwarg("n", 1);
    match chunks.send(celeriac.client()).await {
        Ok(result) => format!("{:?}", result.get(LONG).await.map(|_| ())),
        Err(error) => error.to_string(),
    }
}

async fn huge_result(celeriac: &Celeriac) -> String {
    let kilobytes = std::env::var("CELERIAC_RESULT_KIB").map_or(64 << 10, |text| text.parse().unwrap());
    match big::s(kilobytes).send(celeriac.client()).await.unwrap().get(LONG).await {
        Ok(text) => format!("{} bytes", text.len()),
        Err(error) => error.to_string(),
    }
}

async fn huge_header(celeriac: &Celeriac) -> String {
    let header = "x".repeat(64 << 20);
    match add::s(1, 1).header("x", header).send(celeriac.client()).await {
        Ok(result) => format!("{:?}", result.get(LONG).await),
        Err(error) => error.to_string(),
    }
}

const HUGE_KIB: usize = 64 << 10;

async fn huge_continuation(celeriac: &Celeriac) -> String {
    let sent = goes_on::s(String::new(), HUGE_KIB).send(celeriac.client()).await.unwrap();
    sent.get(LONG).await.map_or_else(|error| error.to_string(), |len| format!("{len} bytes"))
}

async fn huge_retry(celeriac: &Celeriac) -> String {
    let sent = tries_again::s(String::new(), HUGE_KIB).send(celeriac.client()).await.unwrap();
    sent.get(LONG).await.map_or_else(|error| error.to_string(), |len| format!("{len} bytes"))
}

async fn huge_meta(celeriac: &Celeriac) -> String {
    let sent = reports::s(HUGE_KIB).send(celeriac.client()).await.unwrap();
    sent.get(LONG).await.map_or_else(|error| error.to_string(), |()| "it was taken".to_owned())
}

async fn many_errors(celeriac: &Celeriac) -> String {
    let sent = fails_at_length::s(64).send(celeriac.client()).await.unwrap();
    let Err(GetError::Ended(record)) = sent.get(LONG).await else { return "it has not failed".to_owned() };
    let bytes: usize = record.errors.iter().map(String::len).sum();
    format!("{} errors of {bytes} bytes, the last: {:?}", record.errors.len(), record.errors.last())
}

/// What a case came to, and the memory that it took, in MiB.
struct Measured {
    outcome: String,
    /// The most that the process had.
    peak: u64,
    /// The most that it had more than before.
    growth: u64,
}

/// Runs a case in a process of its own.
fn measured(case: &str) -> Measured {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    let (_, said) = said.split_once("PEAK ").unwrap_or_else(|| panic!("{said}"));
    let (peak, said) = said.split_once(" FROM ").unwrap();
    let (before, outcome) = said.split_once(" OUTCOME ").unwrap();
    let (peak, before): (u64, u64) = (peak.parse().unwrap(), before.parse().unwrap());
    let outcome = outcome.lines().next().unwrap_or_default().to_owned();
    println!("{case}: {} MiB more than {before}: {outcome}", peak - before);
    Measured { outcome, peak, growth: peak - before }
}

/// The most that is sent at once, in MiB.
const AT_ONCE: u64 = 64;

/// 1,500 copies of 1 MiB are refused, and not made before that.
#[test]
fn a_value_is_there_once_however_many_are_given_it() {
    let Measured { outcome, peak, .. } = measured("fan_out");
    assert!(
        outcome.contains("messages that it would send at once take") && outcome.contains("pass its id"),
        "{outcome}"
    );
    assert!(peak < 250, "{peak} MiB");
}

/// What is sent travels in that many bytes, and takes a few times as many in memory: as it is counted, as it waits, as it is
/// written, as it runs.
#[test]
fn a_fan_out_takes_a_few_times_what_travels() {
    for on in ["memory", "embedded", "apart"] {
        let Measured { outcome, growth, .. } = measured(&format!("just enough on {on}"));
        assert_eq!(outcome, "1500 results, 61440000 bytes", "{on}");
        assert!(growth < 4 * AT_ONCE, "{on}: {growth} MiB");
    }
}

/// However few bytes say it, no more is made of them than may be sent at once, and it is counted before it is made.
#[test]
fn a_small_message_makes_no_more_than_may_be_sent_at_once() {
    for (name, told) in [
        ("a chord's body", "pass its id"),
        ("the task of chunks", "pass its id"),
        ("chunks beside chunks", "tasks at once"),
        ("errbacks of a group", "pass its id"),
        ("errbacks of a body", "pass its id"),
        ("a link of each", "pass its id"),
        ("nested groups", "pass its id"),
        ("nested chords", ""),
        ("stamps", "pass its id"),
        ("errors of the lost", "xxx"),
    ] {
        let Measured { outcome, growth, .. } = measured(name);
        assert!(outcome.contains(told), "{name}: {outcome}");
        assert!(growth < AT_ONCE, "{name}: {growth} MiB");
    }
}

/// Parts are counted before they are read: a body that would be given too much fails, and says what to do.
#[test]
fn a_body_is_not_given_more_than_may_be_sent_at_once() {
    let Measured { outcome, growth, .. } = measured("large parts on embedded");
    assert!(
        outcome.contains("take more than 67108864 bytes together") && outcome.contains("return its id"),
        "{outcome}"
    );
    // Each of 120 MiB is written twice: as a record, and as a part. How much of that waits for the disk depends on the machine.
    assert!(growth < 4 * 120, "{growth} MiB");
}

#[test]
fn too_many_chunks_are_refused_before_they_are_made() {
    let Measured { outcome, peak, .. } = measured("chunks");
    assert!(
        outcome.contains("400000 messages at once") && outcome.contains("chunks of at least 40"),
        "{outcome}"
    );
    assert!(peak < 500, "{peak} MiB");
}

#[test]
fn a_result_that_nobody_can_read_fails_its_task() {
    let Measured { outcome, peak, .. } = measured("result");
    assert!(outcome.contains("the result takes 67108866 bytes, the limit is 16777216"), "{outcome}");
    assert!(peak < 250, "{peak} MiB");
}

#[test]
fn a_header_is_no_way_around_the_size_of_a_message() {
    let Measured { outcome, peak, .. } = measured("header");
    assert!(outcome.contains("the headers of `canvas::kit::add` take"), "{outcome}");
    assert!(peak < 250, "{peak} MiB");
}

/// What a body gives to its own next run is bounded as what a caller gives it.
#[test]
fn a_next_run_is_no_way_around_the_size_of_a_message() {
    for (case, task) in [("continue", "goes_on"), ("retry", "tries_again")] {
        let Measured { outcome, growth, .. } = measured(case);
        let text = format!(
            "ended as FAILURE: the arguments of `canvas::memory::{task}` take 67108870 bytes, the limit is 65536: store the object, pass its id"
        );
        assert!(outcome.contains(&text), "{case}: {outcome}");
        // The text that the body makes, and its JSON.
        assert!(growth < 4 * AT_ONCE, "{case}: {growth} MiB");
    }
}

#[test]
fn a_record_has_a_part_of_too_many_errors_and_says_how_many_there_were() {
    let Measured { outcome, growth, .. } = measured("errors");
    assert!(outcome.contains("2 errors of 1048523 bytes, the last: Some(\"and 63 more\")"), "{outcome}");
    assert!(growth < AT_ONCE, "{growth} MiB");
}

#[test]
fn a_state_is_no_place_for_a_result() {
    let Measured { outcome, growth, .. } = measured("meta");
    let text = "what goes with state `PROGRESS` takes 67108866 bytes, the limit is 65536: store what is large, and report its id";
    assert!(outcome.contains(text), "{outcome}");
    // The text that the body makes, which is not written a second time.
    assert!(growth < 2 * AT_ONCE, "{growth} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the others, each time in a process of its own"]
async fn child() {
    let case = std::env::var(CASE).expect("the name of a case");
    let dir = tempfile::tempdir().unwrap();
    let shape = shape(&case);
    let (celeriac, broker) = match case.rsplit_once(" on ") {
        Some((_, "memory")) => (memory().await, None),
        Some((_, "apart")) => (apart().await, None),
        None if shape.is_some() => {
            let (celeriac, broker) = apart_and_its_broker().await;
            (celeriac, Some(broker))
        }
        _ => (embedded(dir.path()).await, None),
    };
    let (start, before) = (Instant::now(), peak());
    let outcome = match (case.split(" on ").next().unwrap_or_default(), shape, broker) {
        (_, Some((task, workflow)), Some(broker)) => small_message(&celeriac, &*broker, task, workflow).await,
        ("fan_out", ..) => fan_out(&celeriac).await,
        ("just enough", ..) => just_enough(&celeriac).await,
        ("large parts", ..) => large_parts(&celeriac).await,
        ("chunks", ..) => many_chunks(&celeriac).await,
        ("result", ..) => huge_result(&celeriac).await,
        ("header", ..) => huge_header(&celeriac).await,
        ("continue", ..) => huge_continuation(&celeriac).await,
        ("retry", ..) => huge_retry(&celeriac).await,
        ("errors", ..) => many_errors(&celeriac).await,
        ("meta", ..) => huge_meta(&celeriac).await,
        (other, ..) => panic!("no such case: {other}"),
    };
    let (peak, outcome) = (peak(), &outcome[..outcome.len().min(600)]);
    println!("after {:?} PEAK {peak} FROM {before} OUTCOME {outcome}", start.elapsed());
    celeriac.shutdown().await.unwrap();
}
