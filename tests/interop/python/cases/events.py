"""What Celery's receivers see of the workers of both sides."""

import datetime
import threading
import uuid

import gates

from . import PATIENCE, until

SIDES = ("python", "rust")
ENDS = {"task-succeeded", "task-failed", "task-revoked", "task-rejected"}


class Watch(threading.Thread):
    """Receives events, as `celery events` and Flower do, and keeps Celery's own picture of workers and tasks."""

    def __init__(self, app):
        super().__init__(daemon=True)
        self.app = app
        self.state = app.events.State()
        self.types = {}
        self.ready = threading.Event()

    def run(self):
        ready = self.ready

        class Receiver(self.app.events.Receiver):
            def on_consume_ready(self, *args, **kwargs):
                super().on_consume_ready(*args, **kwargs)
                ready.set()

        with self.app.connection_for_read() as connection:
            self.receiver = Receiver(connection, handlers={"*": self.on_event})
            self.receiver.capture(limit=None, timeout=None, wakeup=True)

    def on_event(self, event):
        self.state.event(event)
        if "uuid" in event:
            types = self.types.setdefault(event["uuid"], [])
            # Celery says twice that a run was terminated: when it asks for that, and when it has come to pass.
            if event["type"] != "task-revoked" or "task-revoked" not in types:
                types.append(event["type"])

    def has(self, result, *types):
        return any(kind in self.types.get(result.id, ()) for kind in types)


def compared(app):
    """Both sides say the same of the same tasks, and Celery's State has the same picture of them."""
    watch = Watch(app)
    watch.start()
    assert watch.ready.wait(PATIENCE)
    told = {}

    def enabled():
        for reply in app.control.broadcast("enable_events", reply=True, timeout=3):
            told.update(reply)
        # Those that get the tasks of each side; where Celery is alone, it has the place of ours.
        return "python-many@localhost" in told and {"rust@localhost", "rust-many@localhost"} & set(told)

    until("those who run the tasks tell of them", enabled)
    assert all(answer["ok"] in ("task events enabled", "task events already enabled")
               for answer in told.values()), told
    sent, keys = {}, {}
    for side in SIDES:
        keys[side] = str(uuid.uuid4())
        later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=20)
        sent[side] = {
            "value": app.send_task(f"{side}.add", (2, 3)),
            "words": app.send_task(f"{side}.greet", ("it's me",), {"greeting": "oh", "mark": "!"}),
            "error": app.send_task(f"{side}.fail"),
            "retries": app.send_task(f"{side}.flaky", (2,)),
            "hopeless": app.send_task(f"{side}.hopeless", (2,)),
            "unknown": app.send_task(f"{side}.nobody_has_this"),
            "wrong": app.send_task(f"{side}.add", (1, 2, 3, 4)),
            "rejected": app.send_task(f"{side}.rejected"),
            "marked": app.send_task(f"{side}.marked", (7,)),
            "terminated": app.send_task(f"{side}.hold", (keys[side],)),
            "revoked": app.send_task(f"{side}.add", (1, 1), eta=later),
        }
    for side in SIDES:
        gates.await_held(keys[side])
        sent[side]["terminated"].revoke(terminate=True)
        until("it is received", lambda: watch.has(sent[side]["revoked"], "task-received"))
        sent[side]["revoked"].revoke()
    for side in SIDES:
        for name, result in sent[side].items():
            until(f"{name} of {side} ends: {watch.types.get(result.id)}", lambda: watch.has(result, *ENDS))
        until("a rejection follows", lambda: watch.has(sent[side]["rejected"], "task-rejected"))
        until("a mark comes", lambda: watch.has(sent[side]["marked"], "task-marked"))
    watch.receiver.should_stop = True

    python, rust = ({name: watch.types[result.id] for name, result in sent[side].items()} for side in SIDES)
    # What a body sends goes its own way, and may overtake the others; and a Python worker may receive the next attempt
    # before its pool has told it of the last one.
    for name in ("marked", "retries", "hopeless"):
        assert sorted(python[name]) == sorted(rust[name]), (name, python.pop(name), rust.pop(name))
        del python[name], rust[name]
    assert python == rust, {name: (python[name], rust[name]) for name in python if python[name] != rust[name]}
    assert rust["revoked"] == ["task-received", "task-revoked"], rust["revoked"]

    def seen(side, name, *fields):
        task = watch.state.tasks[sent[side][name].id]
        assert task.worker.alive, (side, name, task.worker)
        return [getattr(task, field) for field in fields]

    def same(name, *fields):
        python, rust = (seen(side, name, *fields) for side in SIDES)
        assert python == rust, (name, fields, python, rust)
        return rust

    assert same("value", "state", "args", "kwargs", "result", "exception", "retries") == [
        "SUCCESS", "(2, 3)", "{}", "5", None, 0]
    same("words", "state", "args", "kwargs", "result")
    same("retries", "result", "retries")
    same("rejected", "exception")
    same("terminated", "state")
    same("revoked", "state", "args")
    for side in SIDES:
        name, runtime, eta = seen(side, "value", "name", "runtime", "eta")
        assert name == f"{side}.add" and isinstance(runtime, float) and eta is None, (name, runtime, eta)
        assert seen(side, "revoked", "eta") != [None]
        exception, traceback = seen(side, "error", "exception", "traceback")
        assert exception.startswith("ValueError('bad', ") and traceback.startswith("Traceback"), (side, exception)
        assert seen(side, "hopeless", "retries") == [2]
        exception, = seen(side, "wrong", "exception")
        assert exception.startswith("TypeError("), (side, exception)
        assert seen(side, "unknown", "exception") == [f"NotRegistered('{side}.nobody_has_this')"]
    workers = {side: watch.state.tasks[sent[side]["value"].id].worker for side in SIDES}
    assert all(worker.alive and worker.processed > 0 and worker.pid for worker in workers.values()), workers
    return {side: worker.hostname for side, worker in workers.items()}
