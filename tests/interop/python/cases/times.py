"""When a task runs, and whether."""

import datetime
import time
import uuid

from celery.exceptions import TaskRevokedError

import gates

from . import PATIENCE, raised, ready, until


def countdown(app, side, seconds):
    sent = time.time()
    ran = app.send_task(f"{side}.clock", countdown=seconds).get(timeout=PATIENCE)
    assert ran >= sent + seconds, (sent, ran)


def eta(app, side):
    """An ETA in another time zone, and one that is past."""
    tokyo = datetime.timezone(datetime.timedelta(hours=9))
    due = datetime.datetime.now(tokyo) + datetime.timedelta(seconds=10)
    later = app.send_task(f"{side}.clock", eta=due)
    past = app.send_task(f"{side}.clock", eta=due - datetime.timedelta(days=1))
    assert past.get(timeout=PATIENCE) < due.timestamp()
    assert later.get(timeout=PATIENCE) >= due.timestamp()


def expires(app, side):
    """What is not started in time is not started at all."""
    key, queue = str(uuid.uuid4()), f"{side}-one"
    holding = app.send_task(f"{side}.hold", (key,), queue=queue)
    gates.await_held(key)
    late = app.send_task(f"{side}.note", ("late", key), queue=queue, expires=3)
    sent = time.time()
    # With a worker by now: from there the broker does not take it back and drop it.
    until("it is with a worker", lambda: ready(app, queue) == 0)
    until("it has expired", lambda: time.time() > sent + 3.1)
    gates.release(key)
    assert holding.get(timeout=PATIENCE) == "released"
    exception = raised(late)
    assert type(exception) is TaskRevokedError and exception.args == ("expired",), repr(exception)
    assert late.state == "REVOKED"
    assert gates.noted(key) == []


def in_time(app, side):
    """A generous expiry changes nothing."""
    assert app.send_task(f"{side}.add", (1, 2), expires=3600).get(timeout=PATIENCE) == 3


def priorities(app, side, queue):
    """Of what waits, the most urgent first; of the same urgency, the oldest first."""
    key = str(uuid.uuid4())
    holding = app.send_task(f"{side}.hold_late", (key,), queue=queue)
    gates.await_held(key)
    for name, priority in (("low", 1), ("high", 9), ("middle", 5), ("high too", 9)):
        app.send_task(f"{side}.note_late", (name, key), queue=queue, priority=priority)
    until("all wait", lambda: ready(app, queue) == 4)
    gates.release(key)
    assert holding.get(timeout=PATIENCE) == "released"
    order = [gates.next_note(key) for _ in range(4)]
    assert order == ["high", "high too", "middle", "low"], order


def revoke_waiting(app, side):
    """What was revoked while it waited does not run."""
    key, queue = str(uuid.uuid4()), f"{side}-one"
    holding = app.send_task(f"{side}.hold", (key,), queue=queue)
    gates.await_held(key)
    revoked = app.send_task(f"{side}.note", ("revoked", key), queue=queue)
    until("it is with a worker", lambda: ready(app, queue) == 0)
    behind = app.send_task(f"{side}.note", ("behind", key), queue=queue)
    revoked.revoke()
    until("it is revoked", lambda: revoked.state == "REVOKED")

    def its_worker_knows():
        told = app.control.inspect(timeout=1).revoked() or {}
        # Celery's, or ours, which serves all queues of its side.
        return any(revoked.id in told.get(node, ()) for node in (f"{side}-one@localhost", f"{side}@localhost"))

    # Another one may have said so before its worker has heard of it.
    until("its worker knows", its_worker_knows)
    gates.release(key)
    assert holding.get(timeout=PATIENCE) == "released"
    assert behind.get(timeout=PATIENCE) is None
    exception = raised(revoked)
    assert type(exception) is TaskRevokedError, repr(exception)
    assert gates.noted(key) == [["behind"]], gates.noted(key)


def revoke_running(app, side):
    """With `terminate`, what runs is ended. Which word is kept depends on who writes first, also among Celery's own."""
    key = str(uuid.uuid4())
    running = app.send_task(f"{side}.hold", (key,))
    gates.await_held(key)
    running.revoke(terminate=True)
    exception = raised(running)
    assert type(exception) is TaskRevokedError, repr(exception)
    assert exception.args in (("terminated",), ("revoked",)), repr(exception)
    assert running.state == "REVOKED"
