"""What exporters for Prometheus read of a fleet: of each event the fields that they take for granted, and what they ask.

They keep Celery's State, and read its tasks and workers after each event, as danihodovic's celery-exporter does. One that
meets None where it expects a number answers its scrapes with an error, for the whole fleet.
"""

import re
import threading
from collections import Counter, namedtuple

from . import PATIENCE, until
from .control import answers

SIDES = ("python", "rust")

# What is read after the event of a task.
Read = namedtuple("Read", "kind id name node queue error runtime")


class Reader(threading.Thread):
    """Reads as an exporter does."""

    def __init__(self, app):
        super().__init__(daemon=True)
        self.app, self.state = app, app.events.State()
        self.ready = threading.Event()
        self.tasks, self.workers, self.faults = [], {}, []

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
        try:
            group = event["type"].split("-")[0]
            subject = self.state.event(event)[0][0]
            if group == "task":
                self.on_task(event, self.state.tasks[event["uuid"]])
            elif group == "worker":
                # The age of a worker is counted by the time that its event says, in the zone that it says.
                last_seen = event["timestamp"] + 3600 * event.get("utcoffset", 0)
                self.workers[event["hostname"]] = (subject.alive, subject.active or 0, last_seen)
        except Exception as error:
            self.faults.append(f"{event}: {error!r}")

    def on_task(self, event, task):
        kind, error, runtime = event["type"], "", None
        if kind == "task-failed":
            found = re.match(r"^(\w+)\(", task.exception)
            error = found[1] if found else f"no class in {task.exception!r}"
        elif kind == "task-succeeded":
            runtime = float(task.runtime)
        queue = getattr(task, "queue", "celery")
        self.tasks.append(Read(kind, event["uuid"], task.name, task.hostname, queue, error, runtime))

    def of(self, results):
        ids = {result.id for result in results}
        return [read for read in list(self.tasks) if read.id in ids]


def read(app, nodes):
    """Of the tasks of both sides the same is counted, and all answers have what is asked of them."""
    reader = Reader(app)
    reader.start()
    assert reader.ready.wait(PATIENCE)
    told = set()

    def enabled():
        for reply in app.control.broadcast("enable_events", reply=True, timeout=3):
            told.update(reply)
        return told >= set(nodes)

    until("all tell of tasks", enabled)
    sent = {
        side: [app.send_task(f"{side}.add", (n, n)) for n in range(3)]
        + [app.send_task(f"{side}.fail"), app.send_task(f"{side}.flaky", (2,)), app.send_task(f"{side}.rejected")]
        for side in SIDES
    }
    counts = {}

    def alike():
        for side in SIDES:
            reads = reader.of(sent[side])
            counts[side] = Counter((read.kind, read.name.removeprefix(f"{side}."), read.error) for read in reads)
        ends = [sum(count for (kind, *_), count in counts[side].items()
                    if kind in ("task-succeeded", "task-failed", "task-rejected")) for side in SIDES]
        return min(ends) >= len(sent["python"]) and counts["python"] == counts["rust"]

    try:
        until("the same is counted of both", alike)
    except AssertionError as error:
        raise AssertionError(f"{counts['python'] - counts['rust']}, {counts['rust'] - counts['python']}") from error
    assert counts["rust"]["task-succeeded", "add", ""] == 3, counts
    assert counts["rust"]["task-failed", "fail", "ValueError"] == 1, counts
    for side in SIDES:
        for read in reader.of(sent[side]):
            assert read.node in nodes and isinstance(read.queue, str), read
            assert (read.kind == "task-succeeded") == (read.runtime is not None), read
    # Celery's own events do not say it, so an exporter has its default for them.
    queues = {side: {read.queue for read in reader.of(sent[side])} for side in SIDES}

    def beating():
        return all(reader.workers.get(node, (False,))[0] for node in nodes)

    until("both have a heart that beats", beating)
    for alive, active, last_seen in (reader.workers[node] for node in nodes):
        assert isinstance(active, int) and isinstance(last_seen, float), (alive, active, last_seen)
    reader.receiver.should_stop = True
    assert not reader.faults, reader.faults

    # What is asked at each scrape.
    asked = app.control.inspect(timeout=5, limit=len(nodes))
    slots = {node: len(stats["pool"].get("processes", [])) for node, stats in answers(asked.stats, nodes).items()}
    assert all(slots[node] >= 1 for node in nodes), slots
    served = answers(asked.active_queues, nodes)
    with app.connection_for_read() as connection:
        for node in nodes:
            # RabbitMQ tells nobody else of the queues that are a worker's own.
            for queue in (queue for queue in served[node] if not queue["exclusive"]):
                declared = connection.default_channel.queue_declare(queue["name"], passive=True)
                assert declared.consumer_count >= 1 and declared.message_count >= 0, (node, queue, declared)
    return {side: sorted(names) for side, names in queues.items()}
