//! Canvases that do not go well: who is told, and that nobody waits in vain.

use celeriac::task::canvas::{chord, group, signature};
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
    on_both(async |celeriac| {
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
    on_both(async |celeriac| {
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
        assert_eq!(celeriac.queue("default").await.unwrap().ready, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_in_a_chord_fails_with_it() {
    on_both(async |celeriac| {
        let inner = chord([fail::s("broken".into()), fail::s("too".into())], sum::p()).then(twice::p());
        let result =
            chord([inner, add::s(1, 1).then(twice::p())], sum::p()).send(celeriac.client()).await.unwrap();
        let record = ended(result.get(LONG).await.unwrap_err());
        assert_eq!(record.error_type.as_deref(), Some("ChordError"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_fails_its_canvas() {
    on_both(async |celeriac| {
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
    on_both(async |celeriac| {
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
        assert_eq!(celeriac.queue("default").await.unwrap().ready, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_taken_is_refused() {
    on_both(async |celeriac| {
        let id = TaskId::new();
        let chain = || add::s(1, 1).then(add::p(1)).id(id.clone());
        let result = chain().send(celeriac.client()).await.unwrap();
        assert_eq!(result.id(), &id);
        assert_eq!(result.get(LONG).await, Ok(3));
    })
    .await;
}
