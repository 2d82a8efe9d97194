"""Calls and their values."""

import uuid

import gates

from . import PATIENCE, raised


def positional(app, side):
    result = app.send_task(f"{side}.add", (2, 3))
    assert result.get(timeout=PATIENCE) == 5
    assert result.state == "SUCCESS" and result.successful()


def kwargs(app, side):
    """By keyword, mixed, and with a default left out."""
    greet = f"{side}.greet"
    assert app.send_task(greet, kwargs={"name": "you", "greeting": "good day"}).get(timeout=PATIENCE) == "good day you"
    assert app.send_task(greet, ("you",), {"greeting": "bye", "mark": "!"}).get(timeout=PATIENCE) == "bye you!"


def spread(app, side):
    """What is left out, and what is left over."""
    for args, kwargs, seen in (
        ((1,), {}, [1, 5, [], {}]),
        ((1, None), {}, [1, None, [], {}]),
        ((1, 2, 3, [4]), {"color": "red", "rest": 7}, [1, 2, [3, [4]], {"color": "red", "rest": 7}]),
        ((), {"first": "a", "size": None}, ["a", 5, [], {"size": None}]),
    ):
        assert app.send_task(f"{side}.spread", args, kwargs).get(timeout=PATIENCE) == seen, (args, kwargs)
    wrong = app.send_task(f"{side}.spread", (1,), {"first": 1})
    assert type(raised(wrong)) is TypeError


def values(app, side):
    """Everything that JSON has."""
    value = {
        "text": "Grüße, 世界 \u0001 \"quoted\"",
        "numbers": [0, -1, 2**53, 1.5, -2.5e-7],
        "nothing": None,
        "truth": [True, False],
        "nested": {"a": [{"b": []}]},
    }
    assert app.send_task(f"{side}.echo", (value,)).get(timeout=PATIENCE) == value


def many(app, side, count):
    """All in flight at once."""
    results = [app.send_task(f"{side}.add", (n, n)) for n in range(count)]
    for n, result in enumerate(results):
        assert result.get(timeout=PATIENCE) == 2 * n


def compressed(app, side):
    for codec in ("gzip", "bzip2"):
        text = codec * 1000
        result = app.send_task(f"{side}.echo", (text,), compression=codec)
        assert result.get(timeout=PATIENCE) == text


def own_id(app, side):
    """The client gives the id; the task knows its own, its header, its root."""
    task_id = f"order:{uuid.uuid4()}"
    result = app.send_task(f"{side}.about", task_id=task_id, headers={"x-tenant": "acme"})
    about = result.get(timeout=PATIENCE)
    assert result.id == task_id
    assert (about["id"], about["root_id"], about["parent_id"]) == (task_id, task_id, None)
    assert (about["retries"], about["tenant"]) == (0, "acme")


def headers(app, side):
    """The body sees what a tracer has written into the headers of the call, in each of its attempts."""
    given = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "vendor=1",
        "baggage": "user=5,release=7",
        "sentry-trace": "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        "x-tenant": "acme",
    }
    for failures in (0, 2):
        result = app.send_task(f"{side}.headers", kwargs={"failures": failures}, headers=given)
        assert result.get(timeout=PATIENCE) == given, failures


def ignore_result(app, side):
    """It runs, and leaves nothing behind."""
    key = str(uuid.uuid4())
    result = app.send_task(f"{side}.note", ("ran", key), ignore_result=True)
    assert gates.next_note(key) == ["ran"]
    # One that is kept, of the same worker and behind it: by its end the first is over too.
    assert app.send_task(f"{side}.add", (1, 1)).get(timeout=PATIENCE) == 2
    return result.id


def ignored_by_the_task(app, side):
    """As above; the task says so itself."""
    key = str(uuid.uuid4())
    result = app.send_task(f"{side}.note_only", ("ran", key))
    assert gates.next_note(key) == "ran"
    assert app.send_task(f"{side}.add", (1, 1)).get(timeout=PATIENCE) == 2
    return result.id


def old_protocol(app, side):
    """Protocol 1, as very old clients send it."""
    newest = app.amqp.create_task_message
    app.amqp.create_task_message = app.amqp.task_protocols[1]
    try:
        result = app.send_task(f"{side}.add", (2, 3))
    finally:
        app.amqp.create_task_message = newest
    assert result.get(timeout=PATIENCE) == 5


def broadcast(app):
    """A broadcast is run once on each side."""
    key = str(uuid.uuid4())
    app.send_task("all.heard", (key,))
    assert {gates.next_note(key), gates.next_note(key)} == {"python", "rust"}
    # A task that comes behind it in the same queues has no second run before it.
    other = str(uuid.uuid4())
    app.send_task("all.heard", (other,))
    assert {gates.next_note(other), gates.next_note(other)} == {"python", "rust"}
    assert gates.noted(key) == []
