//! Canvases that do not go well: who is told, and that nobody waits in vain.

use std::sync::Arc;

use celeriac::broker::conformance::{Inbox, sample};
use celeriac::broker::{Broker, EmbeddedBroker, Results as _};
use celeriac::task::canvas::{IntoCanvas, chord, group, signature};
use celeriac::task::{Durability, Workflow};
use celeriac::{EnqueueError, GetError, State, TaskId};

use super::kit::*;

fn ended(error: GetError) -> celeriac::task::TaskResult {
    match error {
        GetError::Ended(record) => *record,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_fails_all_later_steps() {
    on_all(async |celeriac| {
        let name = TaskId::new().to_string();
        let chain = add::s(1, 1)
            .then(fail::s("broken".into()))
            .then(add::p(1))
            .then(group([add::p(1), add::p(2)]))
            .then(sum::p());
        let result = chain.link_error(note::p(name.clone())).send(celeriac.client()).await.unwrap();
        let record = ended(result.get(LONG).await.unwrap_err());
        assert_eq!(
            (record.state, record.errors, record.attempts),
            (State::Failure, vec!["broken".to_owned()], 0)
        );
        let mut step = result.parent();
        while let Some(before) = step {
            if before.id() != result.id() && before.parent().is_some() {
                assert_eq!((before.failed().await, before.ready().await), (Ok(true), Ok(true)));
            }
            step = before.parent();
        }
        // The errback hears of the one that failed, once.
        until("the errback", async || !notes(&name).is_empty()).await;
        let failed = result.parent().unwrap().parent().unwrap().parent().unwrap();
        assert_eq!(notes(&name), [format!("\"{}\"", failed.id())]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_member_fails_the_body() {
    on_all(async |celeriac| {
        let name = TaskId::new().to_string();
        let members = [add::s(1, 1), add::s(2, 2)].map(|s| s.then(twice::p()));
        let header = members.into_iter().chain([fail::s("broken".into()).then(twice::p())]);
        let canvas = chord(header, sum::p().then(twice::p())).link_error(note::p(name.clone()));
        let result = canvas.send(celeriac.client()).await.unwrap();
        let record = ended(result.get(LONG).await.unwrap_err());
        assert_eq!((record.state, record.error_type.as_deref()), (State::Failure, Some("ChordError")));
        assert!(
            record.errors[0].starts_with("Dependency ") && record.errors[0].contains("broken"),
            "{record:?}"
        );
        until("the errback", async || !notes(&name).is_empty()).await;
        assert_eq!(default_queue(&celeriac).await.ready, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_in_a_chord_fails_with_it() {
    on_all(async |celeriac| {
        let inner = chord([fail::s("broken".into()), fail::s("too".into())], sum::p()).then(twice::p());
        let result =
            chord([inner, add::s(1, 1).then(twice::p())], sum::p()).send(celeriac.client()).await.unwrap();
        let record = ended(result.get(LONG).await.unwrap_err());
        assert_eq!(record.error_type.as_deref(), Some("ChordError"));
    })
    .await;
}

/// As in Celery 5.7: each member of the body is told, with its own id, and fails with the error of the header's member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_a_group_fails_member_by_member() {
    on_all(async |celeriac| {
        let [own, all] = [TaskId::new().to_string(), TaskId::new().to_string()];
        let body = group([sum::p().link_error(note::p(own.clone())), sum::p().then(twice::p())]);
        let header = [add::s(1, 1).into_canvas(), fail::s("broken".into()).into_canvas()];
        let canvas = chord(header, body).link_error(note::p(all.clone()));
        let result = canvas.send(celeriac.client()).await.unwrap();
        let record = ended(result.get(LONG).await.unwrap_err());
        assert_eq!((record.state, record.errors), (State::Failure, vec!["broken".to_owned()]));
        let [first, last] = &result.members()[..] else { panic!("{result:?}") };
        until("three errbacks", async || notes(&own).len() + notes(&all).len() == 3).await;
        let quoted = |id: &TaskId| format!("\"{id}\"");
        assert_eq!(notes(&own), [quoted(first.id())]);
        let told: std::collections::HashSet<_> = notes(&all).into_iter().collect();
        assert_eq!(told, [quoted(first.id()), quoted(last.id())].into());
        let children = first.children().await.unwrap();
        assert!(
            matches!(&children[..], [celeriac::task::Child::Group(_, members)] if members.len() == 2),
            "{children:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_errback_of_two_chords_is_called_once_for_one_failure() {
    on_all(async |celeriac| {
        let name = TaskId::new().to_string();
        let header = || [add::s(1, 1).into_canvas(), fail::s("broken".into()).into_canvas()];
        let inner = || chord(header(), sum::p());
        let outer = chord([inner(), add::s(1, 1).then(twice::p())], sum::p()).then(twice::p());
        let result = outer.link_error(note::p(name.clone())).send(celeriac.client()).await.unwrap();
        let record = ended(result.get(LONG).await.unwrap_err());
        assert_eq!(record.error_type.as_deref(), Some("ChordError"));
        // What is called is lined up with the end that the record tells of.
        until("the errback", async || !notes(&name).is_empty()).await;
        until("nothing is left to run", async || {
            let queue = default_queue(&celeriac).await;
            (queue.ready, queue.running) == (0, 0)
        })
        .await;
        assert_eq!(notes(&name).len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_or_expired_calls_no_errback_but_fails_the_body_of_its_chord() {
    on_all(async |celeriac| {
        let [own, bodys] = [TaskId::new().to_string(), TaskId::new().to_string()];
        let late = || add::s(1, 1).expires(std::time::Duration::ZERO).link_error(note::p(own.clone()));
        let alone = late().send(celeriac.client()).await.unwrap();
        assert_eq!(ended(alone.get(LONG).await.unwrap_err()).state, State::Revoked);
        let body = chord([late(), add::s(2, 2).link(none::s())], sum::p().link_error(note::p(bodys.clone())));
        let body = body.send(celeriac.client()).await.unwrap();
        let record = ended(body.get(LONG).await.unwrap_err());
        assert_eq!(record.error_type.as_deref(), Some("ChordError"));
        assert!(record.errors[0].contains("raised TaskRevokedError('expired')"), "{record:?}");
        until("the errback of the body", async || !notes(&bodys).is_empty()).await;
        assert_eq!((notes(&bodys), notes(&own)), (vec![format!("\"{}\"", body.id())], Vec::new()));
        // The same of what is revoked while it waits.
        let [own, bodys] = [TaskId::new().to_string(), TaskId::new().to_string()];
        celeriac.pause("other").await.unwrap();
        let held = || add::s(1, 1).queue("other").link_error(note::p(own.clone()));
        let alone = held().send(celeriac.client()).await.unwrap();
        assert_eq!(alone.revoke(false).await, Ok(true));
        assert_eq!(ended(alone.get(LONG).await.unwrap_err()).state, State::Revoked);
        let body = chord([held(), add::s(2, 2).link(none::s())], sum::p().link_error(note::p(bodys.clone())));
        let body = body.send(celeriac.client()).await.unwrap();
        let member = body.parent().unwrap().members()[0].clone();
        assert_eq!(member.revoke(false).await, Ok(true));
        let record = ended(body.get(LONG).await.unwrap_err());
        assert_eq!(record.error_type.as_deref(), Some("ChordError"));
        assert!(record.errors[0].contains("raised TaskRevokedError('revoked')"), "{record:?}");
        celeriac.resume("other").await.unwrap();
        until("the errback of the body", async || !notes(&bodys).is_empty()).await;
        until("nothing is left to run", async || {
            let queues = celeriac.queues().await.unwrap();
            queues.missing.is_empty() && queues.iter().all(|queue| (queue.ready, queue.running) == (0, 0))
        })
        .await;
        assert_eq!((notes(&bodys), notes(&own)), (vec![format!("\"{}\"", body.id())], Vec::new()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_fails_its_canvas() {
    on_all(async |celeriac| {
        let chain = add::s(1, 1).then(signature("no.such.task")).then(add::p(1));
        let result = chain.send(celeriac.client()).await.unwrap();
        let record = ended(result.get(LONG).await.unwrap_err());
        assert!(record.errors[0].contains("no task named `no.such.task`"), "{record:?}");
        let wrong = chord([add::s(1, 1).then(twice::Task).untyped(), signature("no.such.task")], sum::p());
        let record = ended(wrong.send(celeriac.client()).await.unwrap().get(LONG).await.unwrap_err());
        assert_eq!(record.error_type.as_deref(), Some("ChordError"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_refused_as_a_whole() {
    on_all(async |celeriac| {
        let client = celeriac.client();
        let lost = add::s(1, 1).then(add::p(1).queue("defautl")).send(client.clone()).await.unwrap_err();
        assert!(
            matches!(&lost, EnqueueError::UnknownQueue { hint, .. } if hint.contains("`default`")),
            "{lost}"
        );
        let mut deep = add::s(0, 0).then(add::p(0));
        for _ in 0..40 {
            deep = add::s(0, 0).link(deep);
        }
        let refused = deep.send(client.clone()).await.unwrap_err().to_string();
        assert!(refused.contains("nested more than"), "{refused}");
        let map: std::collections::BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
        let refused =
            add::s(1, 1).then(signature("x").arg(map)).send(client.clone()).await.unwrap_err().to_string();
        assert!(refused.contains("no form in JSON"), "{refused}");
        assert_eq!(default_queue(&celeriac).await.ready, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_taken_is_refused() {
    on_all(async |celeriac| {
        let id = TaskId::new();
        let chain = || add::s(1, 1).then(add::p(1)).id(id.clone());
        let result = chain().send(celeriac.client()).await.unwrap();
        assert_eq!(result.id(), &id);
        assert_eq!(result.get(LONG).await, Ok(3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_task_takes_along_what_follows() {
    on_all(async |celeriac| {
        celeriac.pause("other").await.unwrap();
        let waiting = || add::s(1, 1).queue("other");
        let chain = waiting().then(add::p(1)).then(add::p(1)).send(celeriac.client()).await.unwrap();
        let first = chain.parent().unwrap().parent().unwrap();
        assert_eq!(first.revoke(false).await, Ok(true));
        assert_eq!(ended(chain.get(LONG).await.unwrap_err()).state, State::Revoked);
        let chord = chord([waiting(), add::s(2, 2)], sum::p()).send(celeriac.client()).await.unwrap();
        let member = &chord.parent().unwrap().members()[0];
        assert_eq!(member.revoke(false).await, Ok(true));
        let record = ended(chord.get(LONG).await.unwrap_err());
        assert_eq!(record.error_type.as_deref(), Some("ChordError"), "{record:?}");
        // So does one that expires.
        let late = waiting().expires(std::time::Duration::ZERO).then(add::p(1));
        let late = late.send(celeriac.client()).await.unwrap();
        celeriac.resume("other").await.unwrap();
        assert_eq!(ended(late.get(LONG).await.unwrap_err()).state, State::Revoked);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_process_keeps_dying_fails_its_chord() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = celeriac::broker::embedded::EmbeddedOptions::default();
    options.delivery_limit = 2;
    let open = || EmbeddedBroker::open(dir.path(), options.clone()).unwrap();
    let mut message = sample("default", 0, Durability::Disk);
    let body = signature("canvas::kit::sum").id("the-body").into_raw().unwrap();
    let workflow = Workflow { group: Some("g".into()), chord: Some(body), ..Workflow::default() };
    message.workflow = Some(Box::new(workflow));
    open().publish_canvas(vec![message], vec![("g".into(), 1)], true).await.unwrap();
    for _ in 0..2 {
        let broker: Arc<dyn Broker> = Arc::new(open());
        let mut delivery = Inbox::open(&broker, "default", 1).next().await;
        delivery.started(); // and dropped: its worker died
        drop(delivery);
        broker.close().await.unwrap();
    }
    let celeriac = builder().directory(dir.path()).embedded_options(options.clone()).start().await.unwrap();
    let body = celeriac.async_result("the-body");
    until("the body has failed", async || body.state().await.unwrap() == State::Failure).await;
    let record = body.result().await.unwrap().unwrap();
    assert!(record.errors[0].contains("WorkerLost"), "{record:?}");
    assert_eq!(celeriac.dead_letters(10).await.unwrap()[0].message.crashes, 2);
    celeriac.shutdown().await.unwrap();
}
