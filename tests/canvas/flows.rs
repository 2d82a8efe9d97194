//! Canvases that go well.

use celeriac::task::canvas::{Canvas, IntoCanvas, chain, chord, chunks, group, map, signature, starmap};
use celeriac::task::{Child, Signature};
use celeriac::{Context, State, TaskError, task};

use super::kit::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_passes_results_on() {
    on_all(async |celeriac| {
        let chain = add::s(2, 2).then(add::p(4)).then(add_cpu::p(8)).then(twice::Task);
        let result = chain.send(celeriac.client()).await.unwrap();
        assert_eq!(result.get(LONG).await, Ok(32));
        assert_eq!(result.state().await, Ok(State::Success));
        let before = result.parent().unwrap();
        assert_eq!(before.get(LONG).await, Ok(16.into()));
        assert_eq!(before.children().await.unwrap(), [Child::Task(result.id().clone())]);
        let first = before.parent().unwrap().parent().unwrap();
        assert_eq!((first.get(LONG).await, first.parent().is_none()), (Ok(4.into()), true));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_has_results_in_order() {
    on_all(async |celeriac| {
        let result = group((0..50).map(|n| add::s(n, n))).send(celeriac.client()).await.unwrap();
        assert_eq!(result.get(LONG).await, Ok((0..50).map(|n| 2 * n).collect()));
        assert_eq!((result.completed_count().await, result.ready().await), (Ok(50), Ok(true)));
        assert_eq!((result.successful().await, result.failed().await), (Ok(true), Ok(false)));
        assert_eq!(result.members()[7].get(LONG).await, Ok(14.into()));
        let nothing = group(Vec::<Signature<add::Task>>::new()).send(celeriac.client()).await.unwrap();
        assert_eq!(nothing.get(LONG).await, Ok(vec![]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chord_calls_its_body_with_all_results() {
    on_all(async |celeriac| {
        let client = celeriac.client();
        let get =
            async |canvas: Canvas<i64>| canvas.send(client.clone()).await.unwrap().get(LONG).await.unwrap();
        let header = || (1..=20).map(|n| add::s(n, 0));
        assert_eq!(get(chord(header(), sum::p())).await, 210);
        assert_eq!(get(group(header()).then(sum::p())).await, 210);
        assert_eq!(get(chord(header(), sum::p()).then(add::p(1)).then(twice::p())).await, 422);
        assert_eq!(get(add::s(1, 1).then(group([add::p(1), add::p(2)])).then(sum::p())).await, 7);
        assert_eq!(get(chord(Vec::<Signature<add::Task>>::new(), sum::p())).await, 0);
        assert_eq!(get(chord([add::s(1, 2)], sum::p())).await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn composites_in_composites() {
    on_all(async |celeriac| {
        let client = celeriac.client();
        let get = async |canvas: Canvas| canvas.send(client.clone()).await.unwrap().get(LONG).await.unwrap();
        let pair = |a, b| group([add::p(a), add::p(b)]);
        // A chord in a header, a chain in a header, a chain as a body, a group as a body.
        let inner = chord([add::s(5, 0), add::s(6, 0)], sum::p());
        let members = [add::s(1, 0).then(add::p(1)), inner, add::s(3, 0).then(twice::p())];
        assert_eq!(get(chord(members, sum::p().then(add::p(100))).untyped()).await, 119);
        assert_eq!(
            get(chord([add::s(1, 1), add::s(2, 2)], sum::p()).then(pair(1, 2)).untyped()).await,
            serde_json::json!([7, 8])
        );
        // A chord after a chord, and groups after each other.
        let two = group([add::s(1, 0), add::s(2, 0)]).then(group([sum::p(), sum::p()])).then(sum::p());
        assert_eq!(get(two.untyped()).await, 6);
        let deep =
            add::s(1, 0).then(pair(1, 2)).then(sum::p()).then(pair(3, 4)).then(sum::p()).then(twice::p());
        assert_eq!(get(deep.untyped()).await, 34);
        // A member that ends in a group is one list of results.
        let ends = [add::s(1, 0).then(pair(0, 1)).untyped(), add::s(9, 0).then(twice::p()).untyped()];
        let listed = chord(ends, signature("celery.accumulate").kwarg("index", 0));
        assert_eq!(get(listed).await, serde_json::json!([[1, 2], 18]));
        // Groups in a group are one group.
        let nested =
            group([group([add::s(1, 0), add::s(2, 0)]).untyped(), add::s(3, 0).then(twice::p()).untyped()]);
        assert_eq!(get(nested.then(sum::p()).untyped()).await, 9);
    })
    .await;
}

/// As in Celery, where `group(...) | x` is a chord however many members it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_one_or_of_none_gives_a_list_to_what_follows() {
    on_all(async |celeriac| {
        let client = celeriac.client();
        let get = async |canvas: Canvas| canvas.send(client.clone()).await.unwrap().get(LONG).await.unwrap();
        let of = |n: i64| group((0..n).map(|_| add::s(5, 5)));
        let listed = || signature("celery.accumulate").kwarg("index", 0);
        for n in 0..3 {
            let tens = serde_json::json!(vec![10; usize::try_from(n).unwrap()]);
            assert_eq!(get(of(n).then(sum::p()).untyped()).await, 10 * n, "{n}");
            assert_eq!(get(of(n).then(sum::p().then(add::p(1))).untyped()).await, 10 * n + 1);
            assert_eq!(get(of(n).then(sum::p()).then(add::p(1)).untyped()).await, 10 * n + 1);
            assert_eq!(get(of(n).then(listed()).untyped()).await, tens);
            assert_eq!(
                get(of(n).then(group([listed(), listed()])).untyped()).await,
                serde_json::json!([tens, tens])
            );
            assert_eq!(get(of(n).then(group([listed()])).untyped()).await, serde_json::json!([tens]));
            assert_eq!(
                get(chord([of(n).then(sum::p()), add::s(1, 1).into_canvas()], sum::p()).untyped()).await,
                10 * n + 2
            );
            assert_eq!(get(add::s(1, 1).then(of(n).then(sum::p())).untyped()).await, 10 * n);
            assert_eq!(get(group([of(n).then(sum::p())]).untyped()).await, serde_json::json!([10 * n]));
        }
        // Of no members after a task, the list is empty too.
        assert_eq!(
            get(add::s(1, 1).then(group(Vec::<Canvas<i64>>::new())).then(sum::p()).untyped()).await,
            0
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_items_in_few_messages() {
    on_all(async |celeriac| {
        let client = celeriac.client();
        let mapped = map(twice::Task, [1, 2, 3]).send(client.clone()).await.unwrap();
        assert_eq!(mapped.get(LONG).await, Ok(vec![2, 4, 6]));
        let pairs: Vec<_> = (0..10).map(|n| (n, 1)).collect();
        let starred = starmap(add_cpu::Task, &pairs).then(sum::p()).send(client.clone()).await.unwrap();
        assert_eq!(starred.get(LONG).await, Ok(55));
        let chunked = chunks(add::Task, &pairs, 4).send(client.clone()).await.unwrap();
        assert_eq!(chunked.get(LONG).await, Ok(vec![vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]));
        let by_worker = signature("celery.chunks").kwarg("n", 2).kwarg("it", [[1], [2], [3]]);
        let by_worker = by_worker.kwarg("task", signature("canvas::kit::twice").into_raw().unwrap());
        let result = by_worker.send(client.clone()).await.unwrap();
        assert_eq!(result.get(LONG).await.unwrap(), serde_json::json!([[2, 4], [6]]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callbacks_and_immutable_steps() {
    on_all(async |celeriac| {
        let name = celeriac::TaskId::new().to_string();
        let linked = add::s(1, 1).link(note::p(name.clone())).link(add::p(5).then(note::p(name.clone())));
        assert_eq!(
            linked.then(none::s()).then(add::s(2, 2)).send(celeriac.client()).await.unwrap().get(LONG).await,
            Ok(4)
        );
        until("both callbacks", async || notes(&name).len() == 2).await;
        let mut noted = notes(&name);
        noted.sort();
        assert_eq!(noted, ["2", "7"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relations_and_options_of_later_steps() {
    on_all(async |celeriac| {
        let result = who::s().then(who::s().queue("other")).send(celeriac.client()).await.unwrap();
        let (queue, root, parent) = result.get(LONG).await.unwrap();
        let first = result.parent().unwrap().id().to_string();
        assert_eq!((queue.as_str(), root, parent), ("other", Some(first.clone()), Some(first)));
        let record = result.result().await.unwrap().unwrap();
        assert_eq!(record.lineage.unwrap().parent_id, Some(result.parent().unwrap().id().clone()));
    })
    .await;
}

#[task]
async fn replaced(how: String) -> Result<i64, TaskError> {
    Err(match how.as_str() {
        "task" => TaskError::replace(add::s(1, 2)),
        "chain" => TaskError::replace(add::s(1, 2).then(add::p(3))),
        "chord" => TaskError::replace(chord([add::s(1, 2), add::s(3, 4)], sum::p())),
        "again" => TaskError::replace(replaced::s("chain".into())),
        "group" => TaskError::replace(group([add::s(1, 2), add::s(3, 4)])),
        other => panic!("{other}"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replaces_a_task_has_its_id_and_its_follow_ups() {
    on_all(async |celeriac| {
        for (how, value) in [("task", 3), ("chain", 6), ("chord", 10), ("again", 6)] {
            let alone = replaced::s(how.into()).send(celeriac.client()).await.unwrap();
            assert_eq!(alone.get(LONG).await, Ok(value), "{how}");
            let in_chain = replaced::s(how.into()).then(twice::p()).send(celeriac.client()).await.unwrap();
            assert_eq!(in_chain.get(LONG).await, Ok(2 * value), "{how}");
            assert_eq!(in_chain.parent().unwrap().get(LONG).await, Ok(value.into()), "{how}");
            let header = chord([replaced::s(how.into()), replaced::s(how.into())], sum::p());
            assert_eq!(header.send(celeriac.client()).await.unwrap().get(LONG).await, Ok(2 * value), "{how}");
        }
        let grouped = replaced::s("group".into()).then(sum::p()).send(celeriac.client()).await.unwrap();
        assert_eq!(grouped.get(LONG).await, Ok(10));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_in_a_list() {
    on_all(async |celeriac| {
        let steps = (0..30).map(|n| if n == 0 { add::s(0, 1).then(add::p(0)) } else { add::p(1) });
        assert_eq!(chain(steps).send(celeriac.client()).await.unwrap().get(LONG).await, Ok(30));
        let by_name =
            signature("canvas::kit::add").arg(1).arg(2).then(signature("canvas::kit::add").kwarg("b", 3));
        assert_eq!(by_name.send(celeriac.client()).await.unwrap().get(LONG).await, Ok(6.into()));
    })
    .await;
}

/// Adds the page after it to its chord, and stumbles once after that.
#[task(max_retries = 1, default_retry_delay = "0s")]
async fn page(ctx: Context, number: i64, last: i64) -> Result<i64, TaskError> {
    if number < last {
        ctx.add_to_chord(page::s(number + 1, last)).await?;
    }
    if ctx.attempt() == 1 {
        return Err(TaskError::transient("stumbled"));
    }
    Ok(number)
}

/// Adds a chain, a group and the same task twice, where nothing is asynchronous.
#[task]
fn adds_canvases(ctx: &Context) -> Result<i64, TaskError> {
    ctx.add_to_chord(add::s(1, 2).then(twice::p())).wait()?;
    ctx.add_to_chord(group([add::s(10, 0), add::s(20, 0)])).wait()?;
    ctx.add_to_chord(add::s(100, 0)).wait()?;
    ctx.add_to_chord(add::s(100, 0)).wait()?;
    Ok(1)
}

/// How many results there are, and their sum.
#[task]
async fn tally(all: Vec<serde_json::Value>) -> (usize, i64) {
    fn sum(value: &serde_json::Value) -> i64 {
        value.as_array().map_or_else(|| value.as_i64().unwrap(), |list| list.iter().map(sum).sum())
    }
    (all.len(), all.iter().map(sum).sum())
}

#[test]
fn a_member_that_runs_adds_others_to_its_chord() {
    alone("flows::a_running_member_alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by a_member_that_runs_adds_others_to_its_chord"]
async fn a_running_member_alone() {
    on_each(async |celeriac| {
        let client = celeriac.client();
        let pages = chord([page::s(1, 5), page::s(10, 12), page::s(20, 20)], tally::p());
        let pages = pages.send(client.clone()).await.unwrap();
        assert_eq!(pages.get(LONG).await, Ok((9, 15 + 33 + 20)));
        let canvases = chord([adds_canvases::s().into_canvas(), add::s(1000, 0).into_canvas()], tally::p());
        let canvases = canvases.send(client.clone()).await.unwrap();
        assert_eq!(canvases.get(LONG).await, Ok((6, 1 + 6 + 30 + 200 + 1000)));
        // Outside of a chord nothing can be added.
        let alone = page::s(1, 2).send(client.clone()).await.unwrap();
        let error = alone.get(LONG).await.unwrap_err().to_string();
        assert!(error.contains("is no member of a chord"), "{error}");
    })
    .await;
}
