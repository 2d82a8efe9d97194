"""Errors, retries, states before the end."""

import uuid

from celery.exceptions import NotRegistered

import errors
import gates

from . import PATIENCE, is_bad, raised, until


def error(app, side):
    """The class and its arguments, as if it had been raised here."""
    result = app.send_task(f"{side}.fail")
    exception = raised(result)
    assert is_bad(exception), repr(exception)
    assert result.state == "FAILURE" and result.failed()
    assert result.traceback.startswith("Traceback (most recent call last):"), result.traceback


def own_class(app, side):
    """A class that the client has in a module of its own."""
    exception = raised(app.send_task(f"{side}.sell", ("shoes",)))
    assert type(exception) is errors.OutOfStock, repr(exception)
    assert (exception.article, exception.left) == ("shoes", 3)


def traceback(app, side):
    """What failed says where."""
    result = app.send_task(f"{side}.fail")
    raised(result)
    return result.traceback


def unknown_task(app, side):
    result = app.send_task(f"{side}.nobody_has_this")
    exception = raised(result)
    assert isinstance(exception, NotRegistered), repr(exception)
    assert f"{side}.nobody_has_this" in str(exception)


def wrong_arguments(app, side):
    """As Celery says it: a TypeError."""
    exception = raised(app.send_task(f"{side}.add", (1, 2, 3, 4)))
    assert type(exception) is TypeError, repr(exception)
    exception = raised(app.send_task(f"{side}.add", (), {"x": 1, "nonsense": 2}))
    assert type(exception) is TypeError, repr(exception)


def named(app, task):
    """The name and text of the exception that this task ends with."""
    exception = raised(app.send_task(task))
    return {"class": type(exception).__name__, "text": str(exception)}


def retries(app, side):
    result = app.send_task(f"{side}.flaky", (3,))
    assert result.get(timeout=PATIENCE) == 3


def retries_end(app, side):
    """When they are used up, the error itself is raised."""
    exception = raised(app.send_task(f"{side}.hopeless", (2,)))
    assert is_bad(exception), repr(exception)


def progress(app, side):
    """Each step can be looked up, then the end."""
    key = str(uuid.uuid4())
    result = app.send_task(f"{side}.progress", (key, 3))
    for step in (1, 2, 3):
        gates.await_held(key)
        until(f"step {step}", lambda: result.info == {"current": step, "total": 3})
        assert result.state == "PROGRESS"
        gates.release(key)
    assert result.get(timeout=PATIENCE) == 3


def bar(app, side):
    """A bar and its note; none of ours is full before its task is over, for HQ's Soil takes that for the end."""
    key, steps = str(uuid.uuid4()), 5
    result = app.send_task(f"{side}.bar", (key, steps))
    for step in range(1, steps + 1):
        gates.await_held(key)
        if step < steps:
            until(f"step {step}", lambda: dict(result.info or {}).get("current") == step)
            until(f"note {step}", lambda: result.info.get("note") == f"step {step}")
            assert result.info["total"] == steps
        elif side == "rust":
            until("the last note", lambda: result.info.get("note") == f"step {step}")
            assert result.info["current"] < result.info["total"], result.info
        assert result.state == "PROGRESS"
        gates.release(key)
    assert result.get(timeout=PATIENCE) == steps


def progress_told(app, side):
    """Who waits for the end is told of each step."""
    key, seen = str(uuid.uuid4()), []
    result = app.send_task(f"{side}.progress", (key, 3))

    def on_message(meta):
        if meta["task_id"] != result.id:
            return  # late news of what was sent before
        seen.append((meta["status"], meta["result"]))
        if meta["status"] == "PROGRESS":
            gates.release(key)

    assert result.get(timeout=PATIENCE, on_message=on_message) == 3
    steps = [told for told in seen if told[0] == "PROGRESS"]
    assert steps == [("PROGRESS", {"current": step, "total": 3}) for step in (1, 2, 3)], seen
