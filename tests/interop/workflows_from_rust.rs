//! Workflows that Rust builds, with members on both sides.

use celeriac::task::GetError;
use celeriac::task::canvas::{
    Canvas, CanvasResult, IntoCanvas, chord, chunks, group, map, signature, starmap,
};
use celeriac::{State, TaskId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fleet::Mixed;
use crate::gates;
use crate::tasks::{about, add, clock, echo, fail, grow, headers, mul, note, on_error, replaced_by, total};
use crate::to_python::{PATIENCE, now, on_rust};

/// A task of Python's; the catalogue's route says where it waits.
fn python<O>(task: &str) -> Canvas<O> {
    signature(format!("python.{task}")).returns()
}

async fn send<O: 'static>(fleet: &Mixed, canvas: Canvas<O>) -> CanvasResult<O> {
    canvas.send(fleet.celeriac.client()).await.unwrap()
}

async fn value<O: DeserializeOwned + 'static>(fleet: &Mixed, canvas: Canvas<O>) -> O {
    send(fleet, canvas).await.get(PATIENCE).await.unwrap()
}

#[test]
fn a_chain_from_side_to_side() {
    on_rust(async |fleet| {
        let chain =
            add::s(2, 2).then(python::<i64>("mul").arg(10)).then(add::p(1)).then(python::<i64>("mul").arg(2));
        let last = send(fleet, chain).await;
        assert_eq!(last.get(PATIENCE).await, Ok(82));
        let (mut values, mut before) = (Vec::new(), last.parent());
        while let Some(step) = before {
            values.push(step.get(PATIENCE).await.unwrap());
            before = step.parent();
        }
        assert_eq!(values, [json!(41), json!(40), json!(4)]);

        let chain = python::<i64>("add").args([1, 1]).then(add::s(5, 5)).then(python::<i64>("mul").arg(3));
        assert_eq!(value(fleet, chain).await, 30, "a step that takes nothing from the one before");
    });
}

/// The trace goes on behind a task in Rust, wherever the next step runs.
#[test]
fn a_trace_through_a_chain() {
    on_rust(async |fleet| {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let first = || echo::s(json!(1)).header("traceparent", parent).header("x-tenant", "acme");
        let expected = json!({ "traceparent": parent });
        assert_eq!(value(fleet, first().then(python::<Value>("headers"))).await, expected);
        let told = value(fleet, first().then(headers::p(None))).await;
        assert_eq!(Value::Object(told), expected);
    });
}

/// The step that fails ends the chain; whoever waits for its last step is told.
#[test]
fn chains_that_fail() {
    on_rust(async |fleet| {
        let key = TaskId::new().to_string();
        let chains = [
            add::s(1, 1).then(python::<Value>("fail")).then(note::p(Some(key.clone()))).returns(),
            python::<Value>("add").args([1, 1]).then(fail::p()).then(python::<Value>("note").arg(&key)),
        ];
        for chain in chains {
            match send(fleet, chain).await.get(PATIENCE).await {
                Err(GetError::Ended(record)) => {
                    assert_eq!(
                        (record.state, record.error_type.as_deref()),
                        (State::Failure, Some("ValueError"))
                    );
                    assert_eq!(record.errors, ["bad", "42"]);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(gates::noted(&key).await, [] as [Value; 0]);
    });
}

#[test]
fn parents_and_roots() {
    on_rust(async |fleet| {
        let chain = about::s(None).then(python::<Value>("about")).then(about::p());
        let third = send(fleet, chain).await;
        let of = async |result: CanvasResult| result.get(PATIENCE).await.unwrap();
        let second = third.parent().unwrap();
        let first = of(second.parent().unwrap()).await;
        let (second, third) = (of(second).await, third.get(PATIENCE).await.unwrap());
        assert_eq!(
            (&second["root_id"], &second["parent_id"]),
            (&first["id"], &first["id"]),
            "{first} {second}"
        );
        assert_eq!(
            (&third["root_id"], &third["parent_id"]),
            (&first["id"], &second["id"]),
            "{second} {third}"
        );
    });
}

/// Results in the order of the members, whoever is done first.
#[test]
fn a_group() {
    on_rust(async |fleet| {
        let members = (0..10).map(|n| match n % 2 {
            0 => add::s(n, n).into_canvas(),
            _ => python::<i64>("add").args([n, n]),
        });
        let members: Vec<Canvas<i64>> = members.collect();
        let doubles: Vec<i64> = (0..10).map(|n| 2 * n).collect();
        assert_eq!(value(fleet, group(members)).await, doubles);
    });
}

/// Members on both sides, the body on either.
#[test]
fn chords() {
    on_rust(async |fleet| {
        for body in [total::p(), python("total")] {
            let members = (0..10).map(|n| match n % 2 {
                0 => add::s(n, n).into_canvas(),
                _ => python::<i64>("add").args([n, n]),
            });
            let members: Vec<Canvas<i64>> = members.collect();
            assert_eq!(value(fleet, chord(members, body)).await, 90);
        }
    });
}

/// A member adds one of the other side to its chord, and the body, on either side, sees that one's result.
#[test]
fn chords_that_grow() {
    on_rust(async |fleet| {
        let here = || grow::s("python.add".into(), 2, 3).into_canvas();
        let there = || python::<i64>("grow").arg("rust.add").args([20, 30]);
        for body in [total::p(), python("total")] {
            let members = [here(), there(), add::s(100, 100).into_canvas()];
            assert_eq!(value(fleet, chord(members, body)).await, 1 + 5 + 1 + 50 + 200);
        }
    });
}

/// A group that was saved here is restored by Python, with the values of its members, and the other way round.
#[test]
fn a_group_that_was_saved() {
    on_rust(async |fleet| {
        let members = [
            add::s(1, 1).into_canvas(),
            python::<i64>("add").args([2, 2]),
            add::s(3, 3).then(python::<i64>("mul").arg(10)),
        ];
        let ours = send(fleet, group(members)).await;
        ours.save().await.unwrap();
        let restored = fleet.case("canvas.restored", json!({ "id": ours.id() }));
        let ids: Vec<_> = ours.members().iter().map(|member| member.id().to_string()).collect();
        assert_eq!(restored, json!({ "ids": ids, "values": [2, 4, 60] }));
        let theirs = fleet.case("canvas.saved", json!({ "there": "rust" }));
        let theirs =
            fleet.celeriac.group_result(theirs.as_str().unwrap()).await.unwrap().expect("it was saved");
        assert_eq!(theirs.get(PATIENCE).await.unwrap(), [3, 7]);
    });
}

/// A member fails: the body does not run, and its errback is told, whichever side they are on.
#[test]
fn chords_that_fail() {
    on_rust(async |fleet| {
        for failing in [python::<i64>("fail"), fail::p().returns()] {
            for errback in ["rust.on_error", "python.on_error"] {
                let key = TaskId::new().to_string();
                let errback = signature(errback).arg(&key);
                let body = python::<i64>("total").link_error(errback);
                let members = [add::s(1, 1).into_canvas(), failing.clone(), python("add").args([2, 2])];
                let result = send(fleet, chord(members, body)).await;
                match result.get(PATIENCE).await {
                    Err(GetError::Ended(record)) => assert_eq!(record.state, State::Failure),
                    other => panic!("{other:?}"),
                }
                assert_eq!(gates::next_note(&key).await, json!(result.id()));
            }
        }
    });
}

/// A group in the middle of a chain, chains and chords as members, two groups in a row.
#[test]
fn nested() {
    on_rust(async |fleet| {
        let middle = group([add::p(1), python("add").arg(2), add::p(3)]);
        let chain = python::<i64>("add")
            .args([1, 1])
            .then(middle)
            .then(total::p())
            .then(python::<i64>("mul").arg(10));
        assert_eq!(value(fleet, chain).await, 120);

        let members = [
            add::s(1, 1).then(python::<i64>("mul").arg(3)),
            python("add").args([4, 4]),
            python::<i64>("add").args([1, 1]).then(mul::p(5)),
        ];
        assert_eq!(value(fleet, chord(members, python::<i64>("total"))).await, 24);

        let inner =
            |n: i64| chord([add::s(n, 1).into_canvas(), python("add").args([n, 2])], python::<i64>("total"));
        assert_eq!(value(fleet, chord((0..3).map(inner), total::p())).await, 15);

        let first = group([add::s(1, 1).into_canvas(), python("add").args([2, 2])]);
        let second = group([python::<i64>("total"), total::p()]);
        assert_eq!(value(fleet, first.then(second).then(total::p())).await, 12);
    });
}

/// A callback gets the result, an errback the id of what failed, on the other side.
#[test]
fn links() {
    on_rust(async |fleet| {
        let key = TaskId::new().to_string();
        let back = || python::<Value>("note").arg(&key);
        send(fleet, add::s(2, 3).link(back())).await;
        assert_eq!(gates::next_note(&key).await, json!([5]));
        send(fleet, python::<i64>("add").args([3, 3]).link(note::p(Some(key.clone())))).await;
        assert_eq!(gates::next_note(&key).await, json!([6]));

        let failed = send(fleet, fail::s(None).link_error(python::<Value>("on_error").arg(&key))).await;
        assert_eq!(gates::next_note(&key).await, json!(failed.id()));
        let failed = send(fleet, python::<Value>("fail").link_error(on_error::p(key.clone()))).await;
        assert_eq!(gates::next_note(&key).await, json!(failed.id()));
        assert_eq!(gates::noted(&key).await, [] as [Value; 0]);
    });
}

#[test]
fn map_starmap_and_chunks() {
    on_rust(async |fleet| {
        let pairs = [[1, 2], [3, 4], [5, 6]];
        assert_eq!(value(fleet, map(python::<i64>("total"), pairs)).await, [3, 7, 11]);
        assert_eq!(value(fleet, starmap(python::<i64>("add"), pairs)).await, [3, 7, 11]);
        assert_eq!(value(fleet, chunks(python::<i64>("add"), pairs, 2)).await, [vec![3, 7], vec![11]]);
    });
}

/// One side puts a task of the other in its own place; what follows goes on with that.
#[test]
fn a_task_that_is_replaced() {
    on_rust(async |fleet| {
        let here = replaced_by::s("python.add".into(), 2, 3).then(mul::p(10));
        assert_eq!(value(fleet, here).await, 50);
        let there = python::<i64>("replaced_by").arg("rust.add").args([2, 3]).then(mul::p(10));
        assert_eq!(value(fleet, there).await, 50);
    });
}

#[test]
fn the_options_of_a_step() {
    on_rust(async |fleet| {
        let sent = now();
        let delay = std::time::Duration::from_millis(1200);
        let chain = add::s(1, 1)
            .then(python::<f64>("clock").immutable().countdown(delay))
            .then(echo::p())
            .then(python::<f64>("echo"))
            .then(clock::s());
        let last = send(fleet, chain).await;
        assert!(last.get(PATIENCE).await.unwrap() >= sent + 1.2);
        let there = last.parent().unwrap().get(PATIENCE).await.unwrap().as_f64().unwrap();
        assert!(there >= sent + 1.2, "sent {sent}, ran {there}");
    });
}
