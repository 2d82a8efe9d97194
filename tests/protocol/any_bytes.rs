//! Whatever arrives: no panic, a reason for each refusal, and what is accepted can be sent on. Captured messages changed at
//! random, in their bytes and in their JSON, and bytes that never were a message.
//!
//! The cases are drawn from a fixed seed, so that every run is the same run.

use celeriac::protocol::{Properties, WireMessage, control, encode, result};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use crate::any_message::any_json;
use crate::captures;

pub fn check<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng).run(&strategy, test).unwrap_or_else(|error| panic!("{error}"));
}

/// The promise about any message.
fn holds(wire: &WireMessage) -> Result<(), TestCaseError> {
    match captures::read(wire) {
        Err(error) => {
            let text = error.to_string();
            prop_assert!(text.len() > 20 && text.len() < 1_000, "{}", text);
        }
        Ok(mut message) => {
            prop_assert!((1..=255).contains(&message.id.as_str().len()) && !message.task.is_empty());
            let sent_on = encode(&message, captures::now());
            prop_assert!(sent_on.is_ok(), "{:?}", sent_on);
            let again = captures::read(&sent_on.unwrap());
            // Some do not say who sent them.
            if let (Some(workflow), Ok(again)) = (&mut message.workflow, &again) {
                let known = again.workflow.as_ref().and_then(|workflow| workflow.origin.clone());
                workflow.origin = workflow.origin.take().or(known);
            }
            prop_assert_eq!(again.as_ref(), Ok(&message));
        }
    }
    Ok(())
}

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
    Repeat(Index, usize),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), 1u8..).prop_map(|(at, with)| Change::Flip(at, with)),
        2 => (any::<Index>(), vec(select(b"[]{},:\"\\0eE+-.nftuINa \x00\xff\xc3".to_vec()), 1..6))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (any::<Index>(), 1usize..20).prop_map(|(at, count)| Change::Remove(at, count)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), 1usize..200).prop_map(|(at, times)| Change::Repeat(at, times)),
    ]
}

fn change(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    match change {
        Change::Flip(at, with) => {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        Change::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Remove(at, count) => {
            let at = at.index(bytes.len());
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Change::Repeat(at, times) => {
            let at = at.index(bytes.len());
            let byte = bytes[at];
            bytes.splice(at..at, std::iter::repeat_n(byte, *times));
        }
    }
}

/// All values of a document, to change one of them.
fn values<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| values(item, at)),
        Value::Object(fields) => fields.values_mut().find_map(|field| values(field, at)),
        _ => None,
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

fn replace(document: &mut Value, at: Index, with: Value) {
    let mut at = at.index(count(document));
    if let Some(value) = values(document, &mut at) {
        *value = with;
    }
}

/// A value out of place: any, or one that is close to what belongs there.
fn any_value() -> impl Strategy<Value = Value> {
    let near = [
        "",
        "2026-11-22T09:00:00",
        "2026-11-22",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01",
        "celery.chord",
        "a",
    ];
    prop_oneof![
        any_json(),
        select(near.to_vec()).prop_map(Value::from),
        select(vec![-1i64, 0, 1, 256, i64::MAX, i64::MIN]).prop_map(Value::from),
        select(vec![0.5f64, 1e300, -0.0, f64::MIN_POSITIVE]).prop_map(Value::from),
    ]
}

fn a_capture() -> impl Strategy<Value = WireMessage> {
    let mut wires: Vec<WireMessage> = captures::tasks().into_iter().map(|capture| capture.wire).collect();
    // As we write them, with our own header.
    let ours: Vec<WireMessage> = wires
        .iter()
        .filter_map(|wire| captures::read(wire).ok())
        .filter_map(|message| encode(&message, captures::now()).ok())
        .collect();
    wires.extend(ours);
    select(wires)
}

#[test]
fn changed_bytes_of_a_body() {
    check(12_000, (a_capture(), vec(any_change(), 1..4)), |(mut wire, changes)| {
        changes.iter().for_each(|each| change(&mut wire.body, each));
        holds(&wire)
    });
}

#[test]
fn changed_values_of_a_body() {
    let changes = vec((any::<Index>(), any_value()), 1..3);
    check(6_000, (a_capture(), changes), |(mut wire, changes)| {
        if let Ok(mut body) = serde_json::from_slice::<Value>(&wire.body) {
            for (at, with) in changes {
                replace(&mut body, at, with);
            }
            wire.body = body.to_string().into_bytes();
        }
        holds(&wire)
    });
}

#[test]
fn changed_headers_and_properties() {
    let changes = vec((any::<Index>(), any_value()), 1..4);
    let properties = (any::<u8>(), ".{0,12}");
    check(
        4_000,
        (a_capture(), changes, properties, any::<bool>()),
        |(mut wire, changes, (which, text), gone)| {
            for (at, with) in changes {
                let names: Vec<String> = wire.headers.keys().cloned().collect();
                match names.get(at.index(names.len().max(1))) {
                    Some(name) if gone => drop(wire.headers.remove(name)),
                    Some(name) => drop(wire.headers.insert(name.clone(), with)),
                    None => {}
                }
            }
            match which % 12 {
                0 => wire.properties.content_type = Some(text),
                1 => wire.properties.content_encoding = Some(text),
                2 => wire.properties.correlation_id = Some(text),
                3 => wire.properties.content_type = None,
                4 => {
                    wire.properties =
                        Properties { content_type: wire.properties.content_type, ..Properties::default() }
                }
                _ => {}
            }
            holds(&wire)
        },
    );
}

#[test]
fn changed_bytes_of_our_own_header() {
    check(2_000, (a_capture(), vec(any_change(), 1..3)), |(mut wire, changes)| {
        if let Some(text) = wire.headers.get("celeriac").and_then(Value::as_str) {
            let mut bytes = text.as_bytes().to_vec();
            changes.iter().for_each(|each| change(&mut bytes, each));
            wire.headers.insert("celeriac".into(), String::from_utf8_lossy(&bytes).into());
        }
        holds(&wire)
    });
}

/// Packed bodies, changed and cut, and bytes that were never packed.
#[test]
fn packed_bodies() {
    let names = [
        "application/x-gzip",
        "application/x-bz2",
        "application/x-lzma",
        "application/x-brotli",
        "application/zstd",
    ];
    let changes = vec(any_change(), 0..3);
    check(
        1_500,
        (a_capture(), select(names.to_vec()), changes, any::<bool>()),
        |(mut wire, name, changes, pack)| {
            if pack && wire.headers.remove("compression").is_none() {
                wire.body = packed(name, &wire.body);
            }
            changes.iter().for_each(|each| change(&mut wire.body, each));
            wire.headers.insert("compression".into(), name.into());
            holds(&wire)
        },
    );
}

fn packed(name: &str, body: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut out = Vec::new();
    match name {
        "application/x-gzip" => {
            flate2::read::ZlibEncoder::new(body, flate2::Compression::fast()).read_to_end(&mut out).map(drop)
        }
        "application/x-bz2" => {
            bzip2::read::BzEncoder::new(body, bzip2::Compression::fast()).read_to_end(&mut out).map(drop)
        }
        "application/x-lzma" => liblzma::encode_all(body, 0).map(|packed| out = packed),
        "application/x-brotli" => brotli::BrotliCompress(
            &mut &*body,
            &mut out,
            &brotli::enc::BrotliEncoderParams { quality: 1, ..Default::default() },
        )
        .map(drop),
        _ => zstd::encode_all(body, 1).map(|packed| out = packed),
    }
    .unwrap();
    out
}

#[test]
fn bytes_that_never_were_a_message() {
    check(3_000, (a_capture(), vec(any::<u8>(), 0..200), any::<bool>()), |(mut wire, body, headless)| {
        wire.body = body;
        if headless {
            wire.headers.clear();
        }
        holds(&wire)
    });
}

#[test]
fn any_depth_of_nesting() {
    for depth in [100, 127, 128, 129, 1_000, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for body in [
                format!("[[{deep}],{{}},null]"),
                format!("[[],{{\"x\":{deep}}},null]"),
                format!("[[],{{}},{{\"callbacks\":{deep}}}]"),
                format!("[[],{{}},{{\"chord\":{{\"task\":\"t\",\"args\":[{deep}]}}}}]"),
                format!("{{\"args\":[{deep}]}}"),
                deep.clone(),
            ] {
                let mut wire = captures::task("simple").wire;
                wire.body = body.into_bytes();
                holds(&wire).unwrap_or_else(|error| panic!("{depth}: {error}"));
            }
        }
    }
}

#[test]
fn result_documents_and_control_messages() {
    let mut documents: Vec<Vec<u8>> =
        captures::documents().into_iter().map(|text| text.as_bytes().to_vec()).collect();
    documents.extend(captures::rpc_results().into_iter().map(|capture| capture.wire.body));
    let controls: Vec<WireMessage> =
        captures::requests().into_iter().chain(captures::replies()).map(|capture| capture.wire).collect();
    let changes = || vec(any_change(), 0..4);
    check(4_000, (select(documents.clone()), changes()), |(mut document, changes)| {
        changes.iter().for_each(|each| change(&mut document, each));
        read_document(&document)
    });
    check(2_000, (select(documents), any::<Index>(), any_value()), |(document, at, with)| {
        let mut document: Value = serde_json::from_slice(&document).unwrap();
        replace(&mut document, at, with);
        read_document(document.to_string().as_bytes())
    });
    check(3_000, (select(controls), changes()), |(mut wire, changes)| {
        changes.iter().for_each(|each| change(&mut wire.body, each));
        if let Ok(request) = control::decode(&wire) {
            request.is_for("w1@host");
            request.revoked();
            prop_assert_eq!(control::decode(&control::encode(&request, 1, 0.0)), Ok(request));
        }
        if let Err(error) = control::decode_reply(&wire) {
            prop_assert!(error.to_string().starts_with("the control message cannot be read: "));
        }
        Ok(())
    });
}

fn read_document(document: &[u8]) -> Result<(), TestCaseError> {
    let id = "a".into();
    match result::decode(&id, document, captures::now()) {
        Err(error) => prop_assert!(error.to_string().len() > 50, "{}", error),
        Ok(result::Meta::Over(over)) => {
            let again =
                result::decode(&id, result::encode(&over, result::Detail::Full).as_bytes(), captures::now());
            prop_assert_eq!(again, Ok(result::Meta::Over(over)));
        }
        Ok(result::Meta::Tracked(state)) => {
            let again = result::decode(&id, result::encode_tracked(&state).as_bytes(), captures::now());
            prop_assert_eq!(again, Ok(result::Meta::Tracked(state)));
        }
    }
    Ok(())
}
