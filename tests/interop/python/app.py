"""The Celery app of the interop tests.

The same tasks exist twice, as `python.…` and as `rust.…`. A worker has one side, INTEROP_SIDE: `python` in the tests. With
`rust` it takes the place of the Rust worker, by which the cases themselves are proven to hold in Celery's own world.
"""

import os
import time

from celery import Celery, chain
from celery.exceptions import Reject
from celery.worker.control import control_command, inspect_command
from kombu import Exchange, Queue
from kombu.common import Broadcast

import errors
import gates


def queue(name, **arguments):
    """As Celery makes a queue of which it has only the name."""
    return Queue(name, Exchange(name), routing_key=name, **arguments)


SIDE = os.environ.get("INTEROP_SIDE", "python")

app = Celery("interop", broker=os.environ["INTEROP_BROKER"], backend=os.environ["INTEROP_BACKEND"])
app.conf.update(
    task_queues=[
        queue("python"),
        queue("python-extra"),
        queue("python-one", max_priority=10),
        queue("rust"),
        queue("rust-extra"),
        queue("rust-one"),
        queue("rust-priority", max_priority=10),
        Broadcast("news"),
    ],
    task_default_queue=SIDE,
    task_routes={"python.*": {"queue": "python"}, "rust.*": {"queue": "rust"}, "all.*": {"queue": "news"}},
    broker_connection_retry_on_startup=True,
    result_expires=3600,
    result_extended=os.environ.get("INTEROP_EXTENDED") == "1",
    worker_send_task_events=False,
)


@control_command(args=[("name", str), ("times", int)], signature="<name> [times=1]")
def greet_everybody(state, name, times=1):
    """The Rust side has the same command."""
    return {"ok": ", ".join([f"hello {name}"] * times)}


@inspect_command()
def side(state):
    """Which side answers."""
    return {"language": SIDE}


def task(**options):
    """Registers a function under the name of this worker's side."""

    def register(function):
        return app.task(name=f"{SIDE}.{function.__name__}", **options)(function)

    return register


@task()
def add(x, y):
    return x + y


@task()
def mul(x, y):
    return x * y


@task()
def total(numbers):
    return sum(numbers)


@task()
def greet(name, greeting="hello", mark=None):
    return f"{greeting} {name}{mark or ''}"


@task()
def spread(first, second=5, *rest, **options):
    return [first, second, rest, options]


@task()
def echo(value):
    return value


@task()
def keep(value):
    return value


@task()
def odd(a=None, b=None, c=None):
    """What it was given."""
    return [a, b, c]


@task()
def not_a_number(n=None):
    return float("nan")


@task(bind=True)
def shown(self, *args, **kwargs):
    """What is shown of the arguments, and the properties that a step was given."""
    properties = {name: self.request.properties.get(name) for name in ("app_id", "message_id", "type", "priority")}
    return {"args": self.request.argsrepr, "kwargs": self.request.kwargsrepr, **properties}


@task()
def fail(*_):
    raise ValueError("bad", 42)


@task()
def joined_errors(errors_of_rows):
    """Several errors in one text, as HQ's tasks fail: the separator before each."""
    raise Exception("".join(f"\t{error}" for error in errors_of_rows))


@task()
def sell(article):
    raise errors.OutOfStock(article, 3)


@task(acks_late=True)
def rejected():
    raise Reject("no", requeue=False)


@task(bind=True)
def marked(self, mark):
    """Sends an event of its own."""
    self.send_event("task-marked", mark=mark)


@task(bind=True, max_retries=5)
def flaky(self, failures):
    """Fails so many times, then says how often it was tried again."""
    if self.request.retries < failures:
        raise self.retry(exc=ConnectionError(f"try {self.request.retries}"), countdown=0)
    return self.request.retries


@task(bind=True)
def hopeless(self, retries):
    raise self.retry(exc=ValueError("bad", 42), countdown=0, max_retries=retries)


@task(bind=True)
def progress(self, key, steps):
    """After each step says how far it is, and waits until it may go on."""
    for step in range(1, steps + 1):
        self.update_state(state="PROGRESS", meta={"current": step, "total": steps})
        gates.hold(key)
    return steps


@task(bind=True)
def bar(self, key, steps):
    """As HQ's tasks say how far they are, with a note; waits after each step."""
    for step in range(1, steps + 1):
        self.update_state(state="PROGRESS", meta={"current": step, "total": steps, "note": f"step {step}"})
        gates.hold(key)
    return steps


@task()
def hold(key):
    gates.hold(key)
    return "released"


@task(acks_late=True)
def hold_late(key):
    """As hold, with its message unacknowledged all the while."""
    gates.hold(key)
    return "released"


@task()
def note(*args):
    """The key is the last argument: a link puts the result before it."""
    *values, key = args
    gates.note(key, values)


@task(acks_late=True)
def note_late(value, key):
    gates.note(key, value)


@task(ignore_result=True)
def note_only(value, key):
    gates.note(key, value)
    return value


@app.task(name="all.heard", ignore_result=True)
def heard(key):
    """A broadcast: each worker runs it."""
    gates.note(key, SIDE)


@task()
def on_error(failed, key):
    """An errback in the form that crosses the wire: the id of what failed."""
    gates.note(key, failed)


@task()
def clock():
    """When it ran, in seconds since 1970."""
    return time.time()


@task(bind=True)
def about(self, *_):
    """What it is told of itself."""
    request = self.request
    return {
        "id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "group": request.group,
        "retries": request.retries,
        "priority": (request.delivery_info or {}).get("priority"),
        "tenant": (request.headers or {}).get("x-tenant"),
    }


@task(bind=True, max_retries=3)
def headers(self, before=None, failures=0):
    """The headers that tracers write, and one of the application's, after so many failed attempts."""
    if self.request.retries < failures:
        raise self.retry(exc=ConnectionError("once more"), countdown=0)
    names = ("traceparent", "tracestate", "baggage", "sentry-trace", "x-tenant")
    return {name: value for name, value in (self.request.headers or {}).items() if name in names}


@task(bind=True)
def grow(self, name, *args):
    """Adds another task to the chord that it is a member of."""
    self.add_to_chord(app.signature(name, args=args))
    return 1


@task(bind=True)
def replaced_by(self, name, *args):
    """Puts another task in its own place."""
    raise self.replace(app.signature(name, args=args))


@task(bind=True)
def replaced_by_nothing(self):
    raise self.replace(chain())
