//! A test that Celeriac publishes what a real Celery client publishes for each shape of canvas. The captures are in
//! `tests/canvas/shapes.txt`: for each shape the ids of the result, and a line for each message.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::chunks::{mapped, split};
use super::freeze::{Freezer, Ids};
use super::join::joined;
use super::launch::{Call, Launch};
use super::node::{Node, NodeKind};
use crate::task::RawSignature;

const CAPTURES: &str = include_str!("../../../tests/canvas/shapes.txt");
const REPLY_TO: &str = "0d92f29c-cac9-3d23-8193-8cdf78203125";

/// Reads the messages of a shape, and the sizes of the chords that were opened for it.
fn captured(shape: &str) -> (Vec<Value>, Vec<(String, u64)>) {
    let start = CAPTURES.find(&format!("===== {shape}\n")).unwrap_or_else(|| panic!("no capture of {shape}"));
    let lines = CAPTURES[start..].lines().skip(1).take_while(|line| !line.starts_with("====="));
    let (mut messages, mut chords) = (Vec::new(), Vec::new());
    for line in lines {
        if line.starts_with('{') {
            messages.push(without_noise(serde_json::from_str(line).unwrap()));
        } else if let Some(chord) = line.trim().strip_prefix("redis ") {
            let (group, size) = chord.split_once(" .s b'").unwrap();
            chords.push((group.to_owned(), size.trim_end_matches('\'').parse().unwrap()));
        }
    }
    (messages, chords)
}

/// Removes options that are null, which count as not given, and `add_to_parent`, which only Celery's own client reads.
fn without_noise(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, _)| key != "add_to_parent");
            let kept = kept.map(|(key, value)| match value {
                Value::Object(options) if key == "opt" => {
                    let options: Map<_, _> = options.into_iter().filter(|(_, v)| !v.is_null()).collect();
                    (key, without_noise(Value::Object(options)))
                }
                value => (key, without_noise(value)),
            });
            Value::Object(kept.collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_noise).collect()),
        other => other,
    }
}

/// A signature in the form of the captures.
fn sig(value: &Value) -> Value {
    let mut out = Map::new();
    let walk = |value: &Value| -> Value {
        match value {
            Value::Object(map) if map.contains_key("task") && map.contains_key("options") => sig(value),
            Value::Object(map) => {
                map.iter().map(|(k, v)| (k.clone(), sig_or(v))).collect::<Map<_, _>>().into()
            }
            other => sig_or(other),
        }
    };
    out.insert("task".into(), value["task"].clone());
    out.insert("opt".into(), walk(&value["options"]));
    if value["kwargs"].as_object().is_some_and(|kwargs| !kwargs.is_empty()) {
        out.insert("kw".into(), walk(&value["kwargs"]));
    }
    if value["args"].as_array().is_some_and(|args| !args.is_empty()) {
        out.insert("args".into(), value["args"].clone());
    }
    Value::Object(out)
}

fn sig_or(value: &Value) -> Value {
    match value {
        Value::Object(map) if map.contains_key("task") && map.contains_key("options") => sig(value),
        Value::Array(list) => list.iter().map(sig_or).collect(),
        other => other.clone(),
    }
}

fn message(call: &Call) -> Value {
    let sigs = |raw: &[RawSignature]| -> Value {
        raw.iter().map(|raw| sig(&serde_json::to_value(raw).unwrap())).collect()
    };
    let mut embed = Map::new();
    for (key, list) in [("callbacks", &call.callbacks), ("errbacks", &call.errbacks), ("chain", &call.chain)]
    {
        if !list.is_empty() {
            embed.insert(key.into(), sigs(list));
        }
    }
    if let Some(chord) = &call.chord {
        embed.insert("chord".into(), sig(&serde_json::to_value(&**chord).unwrap()));
    }
    let option = |key: &str| call.options.get(key).map_or(Value::Null, |value| value.value().clone());
    json!({
        "id": option("task_id"), "task": call.task, "group": option("group_id"), "gi": option("group_index"),
        "root": option("task_id"), "parent": null, "embed": embed,
        "args": serde_json::from_str::<Value>(&call.positional()).unwrap(),
    })
}

/// Names for ids, in the order in which the ids are met.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn name(&mut self, id: &str) -> String {
        let n = self.0.len();
        self.0.entry(id.to_owned()).or_insert_with(|| format!("#{n}")).clone()
    }

    fn rename(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) if text.starts_with('#') || uuid::Uuid::try_parse(text).is_ok() => {
                self.name(text).into()
            }
            Value::Array(list) => list.iter().map(|value| self.rename(value)).collect(),
            Value::Object(map) => {
                map.iter().map(|(k, v)| (k.clone(), self.rename(v))).collect::<Map<_, _>>().into()
            }
            other => other.clone(),
        }
    }

    fn all(messages: &[Value], mut chords: Vec<(String, u64)>) -> (Vec<Value>, Vec<(String, u64)>) {
        let mut names = Self::default();
        let messages = messages.iter().map(|message| names.rename(message)).collect();
        chords.iter_mut().for_each(|(group, _)| *group = names.name(group));
        chords.sort();
        (messages, chords)
    }
}

fn launched(node: Node) -> Launch {
    let mut freezer = Freezer { ids: Ids::Fresh, reply_to: Some(REPLY_TO.to_owned()) };
    let mut launch = Launch::default();
    launch.add(node, Vec::new(), None, &mut freezer);
    launch
}

fn same(shape: &str, node: Node) {
    let (messages, chords) = captured(shape);
    let expected = Names::all(&messages, chords);
    let launch = launched(node);
    let ours: Vec<_> = launch.calls.iter().map(message).collect();
    let ours = Names::all(&ours, launch.chords);
    let pretty =
        |messages: &[Value]| messages.iter().map(|m| format!("{m:#}")).collect::<Vec<_>>().join("\n");
    assert_eq!(pretty(&ours.0), pretty(&expected.0), "{shape}");
    assert_eq!(ours.1, expected.1, "{shape}");
}

fn add(args: &[i64]) -> Node {
    let mut node = Node::task("t.add");
    node.args = args.iter().map(|n| (*n).into()).collect();
    node
}

fn xsum() -> Node {
    Node::task("t.xsum")
}

fn group(members: Vec<Node>) -> Node {
    Node::new(NodeKind::Group(members))
}

#[test]
fn chains_and_groups() {
    let chain_of_two = || joined([add(&[1]), add(&[2])]);
    same(
        "chain(group,group,xsum)",
        joined([group(vec![add(&[1]), add(&[2])]), group(vec![add(&[]), add(&[])]), xsum()]),
    );
    same("chain(add,group,xsum)", joined([add(&[1]), group(vec![add(&[1]), add(&[2])]), xsum()]));
    same("group with chain link", group(vec![add(&[1]), joined([add(&[2]), add(&[3])])]));
    let mut chain = chain_of_two();
    chain.link_error(&xsum());
    same("chain link_error", chain);
    let mut second = add(&[2]);
    for (key, value) in
        [("countdown", json!(5)), ("queue", json!("celery")), ("priority", json!(3)), ("expires", json!(60))]
    {
        second.options.set(key, value);
    }
    same("signature with link_error+countdown in chain", joined([add(&[1]), second]));
    let mut linked = add(&[1]);
    linked.link(add(&[1]));
    linked.link(xsum());
    same("link list", linked);
}

#[test]
fn chords() {
    let header = || group(vec![add(&[1]), add(&[2])]);
    let pair = || group(vec![add(&[]), add(&[])]);
    same("chord(group)(group)", Node::chord(header(), pair()));
    let chains = group(vec![joined([add(&[1]), add(&[2])]), add(&[3])]);
    same("chord of chains", Node::chord(chains, xsum()));
    let nested = Node::chord(group(vec![add(&[5]), add(&[6])]), xsum());
    same("chord with nested group chord", Node::chord(group(vec![add(&[1]), nested]), xsum()));
    let mut chord = Node::chord(header(), xsum());
    chord.link_error(&xsum());
    same("chord link_error", chord);
    same("chain | chord tail", joined([add(&[1]), Node::chord(header(), xsum()), add(&[9])]));
    same("chord(header, chain(add,xsum))", Node::chord(header(), joined([xsum(), add(&[5])])));
    same("chord(header, chain(group,group,xsum))", Node::chord(header(), joined([pair(), pair(), xsum()])));
}

#[test]
fn maps_and_chunks() {
    let pairs = vec![json!([1, 2]).into()];
    same("map", mapped("map", xsum(), vec![json!([1, 2]).into(), json!([3, 4]).into()]));
    same("starmap in chain", joined([add(&[1]), mapped("starmap", add(&[]), pairs)]));
    let items: Vec<_> = (0..4).map(|n| json!([n, n]).into()).collect();
    same("chunks", group(split(add(&[]), &items, 2)));
}
