"""What Python workers with Celery's defaults do with each other and with ours."""

import uuid

import gates

from . import PATIENCE, until
from .control import answers
from .events import Watch


def revoke_before(app, nodes):
    """Has ours hear of a revocation; the answer is the latest clock among them."""
    until("ours are there", lambda: set(app.control.inspect(nodes, timeout=5).ping() or {}) == set(nodes))
    answers(lambda: app.control.revoke("revoked-before", destination=nodes, reply=True, timeout=10), nodes)
    clocks = answers(app.control.inspect(nodes, timeout=10).clock, nodes)
    return max(clock["clock"] for clock in clocks.values())


def mingled(app, nodes, clock):
    """Workers that have started since then know it, and have a later clock."""
    ask = app.control.inspect(nodes, timeout=10)
    revoked = answers(ask.revoked, nodes)
    assert set(revoked) == set(nodes), revoked
    assert all("revoked-before" in ids for ids in revoked.values()), revoked
    clocks = answers(ask.clock, nodes)
    assert all(now["clock"] > clock for now in clocks.values()), (clock, clocks)


def elected(app, candidates, nodes):
    """One of the candidates is elected to send a task; all nodes acknowledge. `candidates` may be None: everybody.

    There must be two or more: in an election with one candidate, Celery 5.7's worker dies of an IndexError (kombu's
    `LamportClock.sort_heap` compares the first two), whoever else is in the fleet.
    """
    key = str(uuid.uuid4())
    id = f"election-{key}"
    acknowledged = set()

    class ElectionWatch(Watch):
        def on_event(self, event):
            if event["type"] == "worker-elect-ack" and event["id"] == id:
                acknowledged.add(event["hostname"])

    watch = ElectionWatch(app)
    watch.start()
    assert watch.ready.wait(PATIENCE)
    action = app.signature("python.note", args=("elected", key))
    if candidates is None:
        app.control.election(id, "task", action)
    else:
        arguments = {"id": id, "topic": "task", "action": action}
        app.control.broadcast("election", arguments=arguments, destination=candidates)
    assert gates.next_note(key) == ["elected"]
    until(f"all acknowledge, not only {acknowledged}", lambda: acknowledged == set(nodes))
    watch.receiver.should_stop = True
    return id
