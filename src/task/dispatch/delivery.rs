//! What a call says of its message: the exchange and the key that it is published by, and the compression of its body.

use super::Dispatcher;
use crate::task::{EnqueueError, NewTask};

/// The compressions, by the names that kombu gives them.
const COMPRESSIONS: [&str; 9] =
    ["gzip", "zlib", "bzip2", "bzip", "lzma", "xz", "brotli", "zstd", "zstandard"];

impl Dispatcher {
    /// Checks what a caller says. A step that comes from elsewhere is not checked: as in Celery, it goes to its queue
    /// unless it names both an exchange and a key.
    pub(super) fn check_delivery(&self, call: &NewTask) -> Result<(), EnqueueError> {
        let wrong = |what: String| Err(EnqueueError::Name { task: call.task.clone(), what });
        let said = |name: &str| call.headers.property(name).filter(|text| !text.is_empty());
        match (said("exchange"), said("routing_key")) {
            (None, None) => {}
            (Some(_), Some(_)) => {
                if let Some(broker) = self.without_exchanges {
                    return Err(EnqueueError::NoExchanges { task: call.task.clone(), broker: broker.into() });
                }
            }
            (Some(exchange), None) => {
                return wrong(format!(
                    "the exchange `{exchange}` is named without a `routing_key`: name one; a fanout exchange takes any"
                ));
            }
            (None, Some(key)) => {
                return wrong(format!(
                    "the routing key `{key}` is named without an `exchange`: name it, or name a queue"
                ));
            }
        }
        match said("compression") {
            Some(name) if !COMPRESSIONS.contains(&name) && !name.starts_with("application/") => {
                let known = COMPRESSIONS.join(", ");
                wrong(format!("there is no compression `{name}`: take one of {known}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::dispatcher;
    use super::super::{Call, ParentTask, read_options, write_options};
    use super::*;
    use crate::task::registry::Registry;
    use crate::task::{PROPERTIES, TaskOptions, Workflow};

    #[crate::task(name = "delivery.beacon", confirm = false)]
    fn beacon(n: u64) {
        let _ = n;
    }

    fn call(properties: &[(&str, &str)]) -> NewTask {
        let mut call = NewTask::new("t", TaskOptions::default());
        call.arguments.args = "[1]".to_owned();
        for (name, value) in properties {
            call.headers.set_property(name, (*value).into());
        }
        call
    }

    #[test]
    fn what_cannot_be_done_is_refused_at_the_call() {
        let refused = |properties: &[(&str, &str)]| {
            dispatcher().message(call(properties)).map(drop).map_err(|error| error.to_string())
        };
        let both = [("exchange", "x"), ("routing_key", "k")];
        assert_eq!(refused(&both), Ok(()));
        let part = "`t` cannot be sent: the exchange `x` is named without a `routing_key`";
        assert!(refused(&both[..1]).unwrap_err().starts_with(part));
        let part = "`t` cannot be sent: the routing key `k` is named without an `exchange`";
        assert!(refused(&both[1..]).unwrap_err().starts_with(part));
        let part = "`t` cannot be sent: there is no compression `zip`: take one of gzip, zlib";
        assert!(refused(&[("compression", "zip")]).unwrap_err().starts_with(part));
        let long = "k".repeat(256);
        let error = refused(&[("exchange", "x"), ("routing_key", &long)]).unwrap_err();
        assert!(error.contains("the property `routing_key`") && error.contains("at most 255"), "{error}");
        let without = Dispatcher { without_exchanges: Some("memory"), ..dispatcher() };
        let error = without.message(call(&both)).unwrap_err();
        assert_eq!(error, EnqueueError::NoExchanges { task: "t".to_owned(), broker: "memory".into() });
        assert!(without.message(call(&[("compression", "gzip"), ("shadow", "nick")])).is_ok());
    }

    #[test]
    fn a_message_says_that_it_need_not_be_confirmed_and_no_header_does() {
        let says = |confirm: bool| {
            let mut call = call(&[]);
            call.options.confirm = confirm;
            let message = dispatcher().message(call).unwrap();
            let wire = crate::protocol::encode(&message, message.enqueued_at).unwrap();
            assert!(wire.headers.keys().all(|name| !name.contains("confirm") && *name != PROPERTIES));
            message.headers.0.get(PROPERTIES).cloned()
        };
        assert_eq!((says(true), says(false)), (None, Some(json!({"confirm": false}))));
    }

    /// Not only those by which something goes on: the last step of a chain is alone, and the chain ends without it.
    #[test]
    fn a_step_of_a_canvas_is_confirmed_whatever_its_task_says() {
        let step = || Call {
            task: "delivery.beacon".into(),
            args: vec![1.into()],
            kwargs: Default::default(),
            options: Default::default(),
            callbacks: Vec::new(),
            errbacks: Vec::new(),
            chain: Vec::new(),
            chord: None,
        };
        let dispatcher = Dispatcher { registry: Registry::discover().unwrap(), ..dispatcher() };
        let says = |message: &crate::task::Message| message.headers.0.get(PROPERTIES).cloned();
        let alone = NewTask::new("delivery.beacon", dispatcher.registry.options("delivery.beacon").unwrap());
        assert_eq!(says(&dispatcher.message(alone).unwrap()), Some(json!({"confirm": false})));
        let last = dispatcher.next(step(), &ParentTask::default());
        assert_eq!((last.is_in_canvas(), says(&last)), (false, None));
        assert_eq!(says(&dispatcher.first(step(), &ParentTask::default()).unwrap()), None);
    }

    #[test]
    fn a_call_becomes_a_step_and_a_message_with_all_that_it_says() {
        let all = [("exchange", "x"), ("routing_key", "k"), ("compression", "gzip"), ("shadow", "nick")];
        let written = write_options(&call(&all), &TaskOptions::default());
        let expected = json!({"exchange": "x", "routing_key": "k", "compression": "gzip", "shadow": "nick"});
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
        let (mut read, mut workflow) = (call(&[]), Workflow::default());
        read_options(&written, &mut read, &mut workflow);
        assert_eq!(workflow.shadow.as_deref(), Some("nick"));
        let of = |name: &str| read.headers.property(name).map(str::to_owned);
        let names = ["exchange", "routing_key", "compression"];
        assert_eq!(names.map(of), ["x", "k", "gzip"].map(|text| Some(text.to_owned())));

        let message = dispatcher().message(call(&all)).unwrap();
        let wire = crate::protocol::encode(&message, message.enqueued_at).unwrap();
        assert_eq!(wire.headers["shadow"], json!("nick"));
        assert_eq!(wire.headers["compression"], json!("application/x-gzip"));
        assert!(!wire.headers.contains_key("celeriac-properties") && !wire.headers.contains_key("exchange"));
        let options = |_: &str| None;
        let arrival = crate::protocol::Arrival::new("own", message.enqueued_at, &options);
        let again = crate::protocol::decode(&wire, &arrival).unwrap();
        assert_eq!((again.arguments.args.as_str(), again.headers.0.len()), ("[1]", 0));
        // Without a key, a step of Python's goes to its queue.
        let alone = Call {
            task: "t".into(),
            args: Vec::new(),
            kwargs: Default::default(),
            options: json!({"exchange": "x", "queue": "q"}).as_object().unwrap().clone().into(),
            callbacks: Vec::new(),
            errbacks: Vec::new(),
            chain: Vec::new(),
            chord: None,
        };
        assert_eq!(dispatcher().next(alone, &ParentTask::default()).queue, "q");
    }
}
