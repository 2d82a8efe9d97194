//! Control messages as Celery's command line and workers sent them.

use celeriac::protocol::control::{self, Request};
use celeriac::task::TaskId;
use serde_json::Value;

use crate::captures::{self, Capture};

#[test]
fn captured_requests_read_and_write() {
    let captured = captures::requests();
    assert!(captured.len() > 30, "{}", captured.len());
    for Capture { wire, sent_to, .. } in captured {
        assert_eq!(sent_to, (control::EXCHANGE.to_owned(), String::new()));
        let request = control::decode(&wire).unwrap();
        let clock = wire.headers["clock"].as_u64().unwrap();
        let ours = control::encode(&request, clock, wire.headers["expires"].as_f64().unwrap());
        assert_eq!(ours.properties, wire.properties);
        assert_eq!(ours.headers["clock"], wire.headers["clock"]);
        assert_eq!(ours.headers["expires"].as_f64(), wire.headers["expires"].as_f64());
        let json = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap();
        assert_eq!(json(&ours.body), json(&wire.body));
    }
}

#[test]
fn captured_replies_read_and_write() {
    for Capture { wire, sent_to, .. } in captures::replies() {
        assert_eq!(sent_to.0, control::REPLY_EXCHANGE);
        let reply = control::decode_reply(&wire).unwrap();
        assert_eq!(reply.node, "w1@host");
        let clock = wire.headers["clock"].as_u64().unwrap();
        let ours = control::encode_reply(&reply.node, reply.ticket.as_deref().unwrap(), clock, &reply.answer);
        assert_eq!((&ours.properties, &ours.headers), (&wire.properties, &wire.headers));
    }
}

#[test]
fn our_revocation_is_celerys() {
    for terminate in [false, true] {
        let theirs = captures::requests()
            .into_iter()
            .filter_map(|capture| control::decode(&capture.wire).ok())
            .filter(|request| request.method == "revoke")
            .find(|request| request.revoked().is_some_and(|(ids, t)| t == terminate && ids.len() == 1))
            .expect("a captured revocation");
        let (ids, _) = theirs.revoked().unwrap();
        let ours = Request::revoke(&ids, terminate);
        assert_eq!(ours.arguments, theirs.arguments);
        assert!(ours.is_for("anybody@anywhere"));
    }
    assert_eq!(control::queue_of("w1@host"), "w1@host.celery.pidbox");
    assert_eq!(Request::revoke(&[TaskId::from("a")], false).method, "revoke");
}
