//! What is no task is refused, with a reason, and with what could be recognised.

use celeriac::protocol::{Arrival, DecodeError, EncodeError, WireMessage, decode, encode};
use serde_json::json;

use crate::captures::{now, read};
use crate::peers::{plain, wire};

fn refused(wire: &WireMessage) -> String {
    match read(wire) {
        Ok(message) => panic!("{message:?}"),
        Err(error) => error.to_string(),
    }
}

fn of_type(content_type: &str) -> WireMessage {
    let mut wire = plain(json!({}));
    wire.properties.content_type = Some(content_type.into());
    wire
}

#[test]
fn content_types() {
    for (content_type, words) in [
        ("application/x-python-serialize", "a Python pickle"),
        ("application/x-yaml", "YAML"),
        ("application/x-msgpack", "MessagePack"),
        ("application/data", "raw bytes or a signed message"),
        ("text/plain", "plain text"),
        ("text/json", "of another type (`text/json`)"),
    ] {
        let text = refused(&of_type(content_type));
        assert!(text.starts_with(&format!("the body is {words}")), "{text}");
        assert!(text.ends_with("set `task_serializer = 'json'` at the sender"), "{text}");
    }
    let mut none = plain(json!({}));
    none.properties.content_type = None;
    assert!(refused(&none).starts_with("the message has no content type"));
    let mut latin = plain(json!({}));
    latin.properties.content_encoding = Some("utf-16".into());
    assert!(read(&latin).is_ok(), "ASCII is the same in all of them");
    latin.body = "[[\"\u{e9}\"],{},null]".into();
    assert_eq!(refused(&latin), "the body is encoded as `utf-16`: only utf-8 is accepted");
    assert!(read(&of_type("Application/JSON; charset=utf-8")).is_ok());
}

#[test]
fn bodies() {
    let headers = || json!({"task": "t", "id": "a"});
    for (body, reason) in [
        ("", "it is empty"),
        ("[[1],{}]", "it has 2 elements, but should have three: [args, kwargs, embed]"),
        ("[[1],{},null,null]", "it has 4 elements"),
        ("[]", "it has 0 elements"),
        ("{\"a\":}", "it is not JSON: expected value"),
        ("[[1],{},", "it is not JSON: EOF"),
        ("[[1],{},null]]", "it is not JSON: trailing characters"),
        ("\u{80}\u{4}garbage", "it is not JSON"),
        ("\"text\"", "it is text"),
        ("[{\"secret\":1},{},null]", "its arguments are no array, but an object"),
        ("[[1],[],null]", "its keyword arguments are no object, but an array"),
        ("[[1],{},5]", "its third part is a number, but should be"),
        ("[[NaN],{},null]", "it has NaN or Infinity"),
        ("[[1.0, -Infinity],{},null]", "it has NaN or Infinity"),
        ("[[1,\n Infinity],{},null]", "it has NaN or Infinity"),
    ] {
        let text = refused(&wire(headers(), body));
        assert!(text.starts_with("the body is no task's: ") && text.contains(reason), "{body}: {text}");
    }
    let mut garbage = wire(headers(), "");
    garbage.body = vec![0xff, 0xfe, 0x00, 0x80];
    assert!(refused(&garbage).contains("it is not JSON"));
    for nameless in ["[[1],{},null]", "{\"args\":[1]}", "{}", "{\"task\":null,\"args\":[]}"] {
        assert!(
            refused(&wire(json!({}), nameless)).starts_with("neither the headers nor the body name a task")
        );
    }
}

#[test]
fn headers() {
    for (header, value, reason) in [
        ("eta", json!(1_795_339_500), "`eta` is 1795339500, but should be an ISO 8601 time"),
        ("eta", json!(17953395.5), "`eta` is 17953395.5, but"),
        ("expires", json!(60), "`expires` is 60, but should be an ISO 8601 time"),
        ("eta", json!("tomorrow"), "`eta` is \"tomorrow\", but"),
        ("retries", json!("one"), "`retries` is \"one\", but should be a whole number"),
        ("timelimit", json!(5), "`timelimit` is 5, but should be [hard, soft]"),
        ("timelimit", json!([1]), "`timelimit` is [1], but"),
        ("timelimit", json!(["soon", null]), "`timelimit` is [\"soon\",null], but"),
        ("timelimit", json!(["-1", null]), "`timelimit` is [\"-1\",null], but"),
        ("timelimit", json!([-1, null]), "`timelimit` is [-1,null], but"),
        ("id", json!(""), "`id` is \"\", but should be text of 1 to 255 bytes"),
        ("id", json!(7.5), "`id` is 7.5, but should be text"),
        ("id", json!(null), "`id` is null, but should be text of 1 to 255 bytes"),
        ("task", json!(["t"]), "`task` is [\"t\"], but should be text"),
        ("root_id", json!("x".repeat(256)), "`root_id` is \"xxxxx"),
        ("group_index", json!(-3), "`group_index` is -3, but"),
        ("group_index", json!(4_294_967_296_u64), "`group_index` is 4294967296, but"),
        (
            "stamped_headers",
            json!(["tenant", 5]),
            "`stamped_headers` is [\"tenant\",5], but should be a list of names",
        ),
        ("stamps", json!([1]), "`stamps` is [1], but should be a table"),
        ("compression", json!("application/x-lz4"), "the body is compressed by `application/x-lz4`"),
        ("compression", json!("application/x-gzip"), "the body does not unpack as `application/x-gzip`: "),
        ("celeriac", json!("{}"), "`celeriac` is {} (missing field"),
        ("celeriac", json!({}), "`celeriac` is {}, but should be text"),
    ] {
        let text = refused(&plain(json!({ header: value })));
        assert!(text.starts_with(reason), "{text}");
        assert!(text.len() < 300, "{text}");
    }
    let local = json!({"task": "t", "id": "a", "args": [], "utc": false, "eta": "2026-11-22T12:00:00"});
    assert!(
        refused(&wire(json!({}), &local.to_string())).contains("our local time need not be the sender's")
    );
}

#[test]
fn signatures() {
    for (embed, reason) in [
        (json!({"callbacks": 5}), "`callbacks` is a number, but should be a list of signatures"),
        (json!({"errbacks": ["t"]}), "`errbacks` is text (invalid type: string, expected"),
        (json!({"chain": [{"args": []}]}), "`chain` is an object (missing field `task`"),
        (json!({"chord": [5]}), "`chord` is an array (invalid"),
    ] {
        let text = refused(&wire(json!({"task": "t", "id": "a"}), &json!([[], {}, embed]).to_string()));
        assert!(text.starts_with(reason), "{text}");
    }
}

#[test]
fn what_is_too_large() {
    let big = wire(json!({"task": "t", "id": "a"}), &format!("[[\"{}\"],{{}},null]", "x".repeat(5 << 20)));
    assert_eq!(refused(&big), "the body takes more than 4194304 bytes: store the object, and send its id");
    let allowed = Arrival::new("q", now(), &|_| None).max_size(6 << 20);
    assert!(decode(&big, &allowed).is_ok());
}

/// Whoever waits for the result can be told, and the dead letter found again.
#[test]
fn what_could_be_recognised_is_told() {
    let recognised = |wire: &WireMessage| match read(wire) {
        Err(DecodeError { recognised: r, .. }) => {
            (r.id.map(|id| id.to_string()), r.task, r.reply_to, r.root_id.map(|id| id.to_string()))
        }
        Ok(message) => panic!("{message:?}"),
    };
    let some = |text: &str| Some(text.to_owned());
    let mut pickled = plain(json!({"root_id": "r"}));
    pickled.properties.content_type = Some("application/x-python-serialize".into());
    pickled.properties.reply_to = some("q");
    assert_eq!(recognised(&pickled), (some("a"), some("t"), some("q"), some("r")));
    let late = wire(json!({}), r#"{"task":"t","id":"a","args":[],"eta":5}"#);
    assert_eq!(recognised(&late), (some("a"), some("t"), None, None));
    let mut headless = wire(json!({"task": "t"}), "[[],{},null]");
    headless.properties.correlation_id = some("c");
    assert_eq!(recognised(&headless), (some("c"), some("t"), None, None));
    assert_eq!(recognised(&wire(json!({"id": 5, "task": {}}), "x")), (some("5"), None, None, None));
}

#[test]
fn what_cannot_be_sent_says_why() {
    let mut message = read(&plain(json!({}))).unwrap();
    message.arguments.args = "{}".into();
    let error = encode(&message, now()).unwrap_err();
    assert!(matches!(&error, EncodeError::Arguments { part: "positional", .. }));
    assert!(
        error.to_string().starts_with("the positional arguments of `t` are no JSON array: it is an object")
    );
    message.arguments = celeriac::task::Arguments { args: "[1]".into(), kwargs: "[".into() };
    let error = encode(&message, now()).unwrap_err().to_string();
    assert!(error.starts_with("the keyword arguments of `t` are no JSON object: "), "{error}");
}
