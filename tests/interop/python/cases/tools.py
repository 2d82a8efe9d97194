"""Celery's own command line beside a Python worker and one of ours: the same words, shapes and keys.

Where ours differ, the difference is listed here with its reason.
"""

import os
import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from celery.worker.control import Panel

from . import PATIENCE, until

# What each command is given. A new command of Celery's is to be added here.
INSPECT = {
    "active": [], "active_queues": [], "clock": [], "conf": [], "memdump": [], "memsample": [], "objgraph": [],
    "ping": [], "query_task": ["nobody-has-it"], "registered": [], "report": [], "reserved": [], "revoked": [],
    "scheduled": [], "side": [], "stats": [],
}
# In this order, where it matters.
CONTROL = [
    ("enable_events",), ("enable_events",), ("disable_events",), ("disable_events",),
    ("add_consumer", "late-queue"), ("cancel_consumer", "late-queue"), ("pool_grow", "1"), ("pool_shrink", "1"),
    ("autoscale", "4", "1"), ("election",), ("greet_everybody", "Ann"), ("heartbeat",),
    ("pool_restart",), ("rate_limit", "nobody.has.it", "5/s"), ("revoke", "nobody-has-it"),
    ("revoke_by_stamped_headers", "nobody=has-it"), ("terminate", "SIGTERM", "nobody-has-it"),
    ("time_limit", "nobody.has.it", "5", "10"),
]
# It would end the fleet of the other tests. `tests/amqp/levers.rs` has it.
NOT_GIVEN = {"shutdown"}
# Questions to which both give the same answer, to the letter. Of the others the shape is the same; their keys are
# compared in `control.same_keys`.
TO_THE_LETTER = {"objgraph", "ping", "query_task"}
# Celery's command line has no way to pass the arguments of an election on, so Python's workers raise a TypeError. Ours take no
# part in elections, whatever is said of them; `defaults.elected` holds one.
ELECTION = {"python": "ERROR", "rust": "OK"}
# What our events have more, and why: exporters read the queue of `task-received`, which Celery's leave out.
MORE = {"task received": {"queue", "exchange", "routing_key"}}


def command(*arguments):
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [sys.executable, "-m", "celery", "-A", "app", "--no-color", *arguments], here


def run(*arguments):
    """What a command prints."""
    line, here = command(*arguments)
    done = subprocess.run(line, cwd=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout


def replies(printed):
    """What is printed of each node: its word, OK or ERROR, and the text below."""
    said, node = {}, None
    for line in printed.splitlines():
        if line.startswith("->"):
            node, word = line[2:].strip().rsplit(": ", 1)
            said[node] = (word, [])
        elif node and line.startswith("    "):
            said[node][1].append(line.strip())
    return {node: (word, "\n".join(body)) for node, (word, body) in said.items()}


def shape(body):
    """How Celery prints a value of this type."""
    if body.startswith("{"):
        return "object"
    return "list" if body.startswith("* ") or body == "- empty -" else "text"


def visible(kind):
    return {name for name, info in Panel.meta.items() if info.type == kind and info.visible}


def inspect(app, python, rust):
    assert visible("inspect") == set(INSPECT), visible("inspect") ^ set(INSPECT)

    def difference(item):
        name, arguments = item
        printed = run("inspect", name, *arguments, "--destination", f"{python},{rust}", "--timeout", "20")
        said = replies(printed)
        if set(said) != {python, rust} or not printed.endswith("2 nodes online.\n"):
            return f"{name}: {printed}"
        theirs, ours = said[python], said[rust]
        if name in TO_THE_LETTER:
            return None if theirs == ours else f"{name}: {theirs} against ours {ours}"
        same = theirs[0] == ours[0] and shape(theirs[1]) == shape(ours[1])
        return None if same else f"{name}: {theirs} against ours {ours}"

    with ThreadPoolExecutor(3) as pool:
        differences = [found for found in pool.map(difference, INSPECT.items()) if found]
    assert not differences, "\n".join(differences)


def control(app, python, rust):
    """Both obey with the same words."""
    given = {name for name, *_ in CONTROL} | NOT_GIVEN
    assert visible("control") == given, visible("control") ^ given
    for name, *arguments in CONTROL:
        printed = run("control", name, *arguments, "--destination", f"{python},{rust}", "--timeout", "20")
        said = replies(printed)
        assert set(said) == {python, rust}, (name, printed)
        if name == "election":
            assert (said[python][0], said[rust][0]) == (ELECTION["python"], ELECTION["rust"]), said
        else:
            assert said[python] == said[rust], (name, said)


def events(app, python, rust):
    """`celery events --dump` prints the same fields of both."""
    nodes = {"python": python, "rust": rust}
    app.control.enable_events(destination=list(nodes.values()), reply=True, timeout=20)
    line, here = command("events", "--dump")
    dump = subprocess.Popen(line, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seen = {side: {} for side in nodes}
    wanted = {"heartbeat", "task received", "task started", "task succeeded"}
    sent, start = False, time.monotonic()
    try:
        for printed in dump.stdout:
            node, _, rest = printed.partition(" [")
            _, _, told = rest.partition("] ")
            kind, _, fields = told.partition(": ")
            side = next((side for side, name in nodes.items() if name == node), None)
            assert time.monotonic() - start < PATIENCE, seen
            # A task comes first, as `name(id) args=… kwargs=…`.
            keys = set(re.findall(r"(?:^|[ ,(])(\w+)=", fields))
            # A heartbeat that was asked for says less, on both sides.
            if side and kind in wanted and (kind != "heartbeat" or "active" in keys):
                seen[side].setdefault(kind, keys)
            if not sent and all("heartbeat" in kinds for kinds in seen.values()):
                sent = True
                # More than one worker may take a task of these queues.
                for _ in range(20):
                    for side in nodes:
                        app.send_task(f"{side}.echo", (str(uuid.uuid4()),))
            if all(set(kinds) == wanted for kinds in seen.values()):
                break
    finally:
        dump.kill()
        dump.wait()
        app.control.disable_events(destination=list(nodes.values()), reply=True, timeout=20)
    for kind in sorted(wanted):
        theirs, ours = seen["python"][kind], seen["rust"][kind]
        assert ours - theirs == MORE.get(kind, set()) and not theirs - ours, (kind, theirs ^ ours)


def status_graph_and_report(app, python, rust):
    printed = run("status", "--destination", f"{python},{rust}", "--timeout", "20")
    assert replies(printed) == {python: ("OK", ""), rust: ("OK", "")}, printed
    assert printed.endswith("\n2 nodes online.\n"), printed

    def graph():
        # It asks with a timeout of its own.
        drawn = run("graph", "workers", "wmax:0")
        arrows = {node: (f'"{node}" -> "', f'-> "{node}"') for node in (python, rust)}
        # Each node has its broker and its result backend, and its threads or processes.
        return all(drawn.count(out) == 2 and into in drawn for out, into in arrows.values())

    until("both are drawn", graph)
    # About this app alone; what ours says of itself is in `inspect report`.
    assert "software -> celery:" in run("report")
