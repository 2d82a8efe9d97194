"""What Celery's tools ask of the whole fleet: an answer that is not Celery's would break them for everybody."""

import json
import os
import subprocess
import sys
import uuid

from celery.exceptions import TaskRevokedError

import gates

from . import PATIENCE, until

OURS = "rust@localhost"
# The workers of the fleet. Whoever asks all of them comes back as soon as so many have answered.
NODES = {OURS, "python-many@localhost", "python-one@localhost"}
ALL = {"timeout": 5, "limit": len(NODES)}


def answers(ask, nodes=NODES):
    """What all of these nodes answer. Whoever was late for a question answers the next one."""
    def asked():
        said = ask() or {}
        if isinstance(said, list):
            said = {node: answer for reply in said for node, answer in reply.items()}
        return said if set(said) >= set(nodes) else None

    return until("all have answered", asked)


def inspect(app):
    """Questions: those workers answer that know them, each as Celery's tools expect it."""
    ask = app.control.inspect(**ALL)
    pong = answers(ask.ping)
    assert pong[OURS] == {"ok": "pong"}, pong
    python = NODES - {OURS}
    assert set(pong) == NODES, pong
    for question in ("stats", "active_queues", "registered", "conf", "report", "clock",
                     "active", "reserved", "scheduled", "revoked"):
        # Celery's own say `error` to nothing that they are asked here, and ours says what they say.
        for node, answer in answers(getattr(ask, question)).items():
            assert "error" not in answer, (question, node, answer)
    # What Flower does with them for its page of queues, and the exporters for their numbers.
    queues = {queue["name"] for node in answers(ask.active_queues).values() for queue in node}
    assert "python" in queues, queues
    for node, stats in answers(ask.stats).items():
        assert len(stats["pool"]["processes"]) >= 1, (node, stats)
    return sorted(python)


def everybody(app):
    """An empty destination means everybody."""
    answered = answers(lambda: app.control.ping(destination=[], **ALL))
    assert set(answered) == NODES, answered


def revoke(app):
    """Our answer has the words of Celery's own."""
    said = answers(lambda: app.control.revoke(["nobody-has-it"], reply=True, **ALL))
    assert said[OURS] == {"ok": "tasks {'nobody-has-it'} flagged as revoked"}, said
    assert all(answer == said[OURS] for answer in said.values()), said


def revoke_marks_what_waits_nowhere(app):
    """Celery 5.7: an id of which nothing is known is REVOKED before the answer comes; one that is over stays as it is."""
    done = app.send_task("rust.add", (1, 2))
    assert done.get(timeout=PATIENCE) == 3
    unknown = str(uuid.uuid4())
    answers(lambda: app.control.revoke([done.id, unknown], destination=[OURS], reply=True, timeout=5), [OURS])
    assert app.AsyncResult(unknown).state == "REVOKED"
    try:
        app.AsyncResult(unknown).get(timeout=PATIENCE)
    except TaskRevokedError as error:
        assert error.args == ("revoked",), repr(error)
    else:
        raise AssertionError("it is revoked")
    assert app.AsyncResult(done.id).state == "SUCCESS"


# What our answers lack beside Celery's own, or have beside them, and why.
LACKS = {
    # Our pool is no prefork pool, so it has no numbers of what it wrote to its processes; the value is "N/A".
    "stats.pool.writes": {"total", "avg", "all", "raw", "strategy", "inqueues"},
}
HAS_MORE = {
    # What each queue has in hand. Flower shows it on its page "Other".
    "stats": {"queues"},
}
# Objects whose keys are names that differ from worker to worker.
BY_NAME = {"stats.total", "stats.queues", "conf"}


def same_keys(app):
    """`celery inspect X` beside a Python worker and ours: the same keys for each subcommand."""
    held = {side: str(uuid.uuid4()) for side in ("python", "rust")}
    running = [app.send_task(f"{side}.hold", (key,)) for side, key in held.items()]
    for key in held.values():
        gates.await_held(key)
    later = [app.send_task(f"{side}.add", (1, 2), countdown=3600) for side in held]
    differences = []
    try:
        for method, arguments in (
            ("ping", ()), ("clock", ()), ("active", ()), ("reserved", ()), ("scheduled", ()), ("revoked", ()),
            ("registered", ()), ("active_queues", ()), ("stats", ()), ("conf", ()), ("report", ()),
            ("memsample", ()), ("memdump", ()), ("query_task", [task.id for task in running]),
            ("registered", ("name", "max_retries")),
        ):
            said = answers(lambda: ask(app, method, arguments))
            ours = said.pop(OURS)
            theirs = [answer for node, answer in said.items() if "many" in node]
            for other in theirs:
                differences += compare(method, other, ours)
    finally:
        for key in held.values():
            gates.release(key)
        for task in later:
            task.revoke()
    assert not differences, "\n".join(differences)
    for task in running:
        task.get(timeout=PATIENCE, propagate=False)


def ask(app, method, arguments):
    """By the command line where it matters how it prints, else by what the command line calls: it is faster."""
    if method in ("active", "stats", "active_queues"):
        return cli("inspect", method, *arguments)
    named = {"query_task": "ids", "registered": "taskinfoitems"}.get(method)
    return app.control.inspect(**ALL)._request(method, **({named: list(arguments)} if named else {}))


def compare(path, theirs, ours):
    """The differences between two answers, in their keys and types."""
    if path in BY_NAME or theirs is None or ours is None:
        return []
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if path == "query_task":
            pairs = (next(iter(answer.values()), (None, None)) for answer in (theirs, ours))
            theirs, ours = ({"state": state, "info": info} for state, info in pairs)
            path = "query_task[]"
        lacks = set(theirs) - set(ours) - LACKS.get(path, set())
        more = set(ours) - set(theirs) - HAS_MORE.get(path, set())
        found = [f"{path}: ours lacks {sorted(lacks)}"] if lacks else []
        found += [f"{path}: only ours has {sorted(more)}"] if more else []
        for key in set(theirs) & set(ours):
            if path != "scheduled.request" or key not in ("args", "kwargs"):
                found += compare(f"{path}.{key}", theirs[key], ours[key])
        return found
    if path in LACKS and not isinstance(ours, dict):
        return []
    if isinstance(theirs, list) and isinstance(ours, list):
        return compare(f"{path}[]", theirs[0], ours[0]) if theirs and ours else []
    numbers = (int, float)
    if isinstance(theirs, numbers) and isinstance(ours, numbers):
        return []
    return [] if type(theirs) is type(ours) else [f"{path}: {theirs!r} against ours {ours!r}"]


def cli(*arguments, code=0):
    """Celery's own command line, with its answer in JSON."""
    # It comes back as soon as all that it names have answered.
    named = () if "--destination" in arguments else ("--destination", ",".join(sorted(NODES)))
    command = [sys.executable, "-m", "celery", "-A", "app", *arguments, *named, "--json", "--timeout", "60"]
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout.strip().splitlines()[0])


def command_line(app):
    """`celery status` and `celery control` reach ours like any other worker."""
    assert cli("status")[OURS] == {"ok": "pong"}
    for command, answer in (
        (("rate_limit", "rust.add", "100/s"), {"ok": "new rate limit set successfully"}),
        (("rate_limit", "rust.add", "0"), {"ok": "rate limit disabled successfully"}),
        (("rate_limit", "nope", "1/s"), {"error": "unknown task"}),
        (("time_limit", "rust.mul", "50", "60"), {"ok": "time limits set successfully"}),
        (("pool_grow", "1"), {"ok": "pool will grow"}),
        (("pool_shrink", "1"), {"ok": "pool will shrink"}),
        (("autoscale", "4", "1"), {"error": "ValueError('Autoscale not enabled')"}),
        (("add_consumer", "rust-late"), {"ok": "add consumer rust-late"}),
        (("cancel_consumer", "rust-late"), {"ok": "no longer consuming from rust-late"}),
        (("revoke", "nobody-has-this"), {"ok": "tasks {'nobody-has-this'} flagged as revoked"}),
        (("terminate", "SIGTERM", "nobody-has-this"), {"ok": "terminate: tasks unknown"}),
    ):
        replies = cli("control", "--destination", OURS, *command)
        assert replies == [{OURS: answer}], (command, replies)
    assert app.send_task("rust.mul", (6, 7)).get(timeout=PATIENCE) == 42


def mingle(app):
    """A Python worker that starts asks ours what is revoked; the answer is what Celery's own code reads."""
    answers(lambda: app.control.revoke("told-by-mingle", destination=[OURS], reply=True, timeout=5), [OURS])
    said = answers(lambda: app.control.inspect(**ALL).hello("somebody@elsewhere", revoked=["brought-by-mingle"]))
    assert "told-by-mingle" in said[OURS]["revoked"], said
    assert isinstance(said[OURS]["clock"], int), said
    assert "brought-by-mingle" in answers(app.control.inspect([OURS], timeout=5).revoked, [OURS])[OURS]


def own_commands(app):
    """Commands that the program adds: from Celery's code and from its command line, ours answers as Python's worker."""
    ann = {"name": "Ann", "times": 2}
    said = answers(lambda: app.control.broadcast("greet_everybody", arguments=ann, reply=True, **ALL))
    assert said[OURS] == {"ok": "hello Ann, hello Ann"}, said
    assert set(said) == NODES and all(answer == said[OURS] for answer in said.values()), said
    by_hand = {node: answer for reply in cli("control", "greet_everybody", "Bob") for node, answer in reply.items()}
    assert set(by_hand) == set(said) and set(map(str, by_hand.values())) == {"{'ok': 'hello Bob'}"}, by_hand
    sides = cli("inspect", "side")
    assert sides.pop(OURS) == {"language": "rust"}, sides
    assert sides and all(answer == {"language": "python"} for answer in sides.values()), sides
    # An error in ours is an error for who asks, and no more.
    wrong = answers(lambda: app.control.broadcast("greet_everybody", destination=[OURS], reply=True, timeout=5), [OURS])
    assert wrong == {OURS: {"error": "greet_everybody() needs `name`, a text"}}, wrong
