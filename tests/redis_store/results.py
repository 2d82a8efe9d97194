"""The Python side of the Redis store's tests: what Celery itself makes of our documents, and what it writes for us to read.

`results.py URL read ID...` prints one JSON line for each task; `results.py URL write` stores results of all kinds and prints
their ids; `results.py URL join GROUP TASK INDEX VALUE` counts a chord's member as a worker does and prints what came of it.
"""

import json
import sys
from types import SimpleNamespace

from celery import Celery, states
from celery.result import AsyncResult, GroupResult

url, action, *arguments = sys.argv[1:]
app = Celery("results", backend=url)


def read(task_id):
    result = AsyncResult(task_id, app=app)
    said = {"state": result.state, "ready": result.ready(), "traceback": result.traceback}
    info = result.info
    if isinstance(info, BaseException):
        said["exception"] = {"class": type(info).__name__, "module": type(info).__module__, "args": list(info.args)}
    else:
        said["info"] = info
    if result.ready():
        try:
            said["get"] = result.get(timeout=10)
        except Exception as raised:
            said["raised"] = type(raised).__name__
        said["children"] = [
            {"group": child.id, "members": [member.id for member in child.results]}
            if isinstance(child, GroupResult)
            else child.id
            for child in result.children or []
        ]
        said["date_done"] = result.date_done.isoformat()
    print(json.dumps(said))


def request(**fields):
    known = {"group": None, "parent_id": None, "children": [], "id": None}
    return SimpleNamespace(**{**known, **fields})


def write():
    backend = app.backend
    store = backend.store_result
    store("py-success", {"a": [1, "ä"]}, states.SUCCESS, request=request(group="py-group", parent_id="py-parent"))
    try:
        raise ValueError("bad", 42)
    except ValueError as error:
        store("py-failure", error, states.FAILURE, traceback="Traceback: bad")
        store("py-retry", error, states.RETRY, traceback="Traceback: again")
    store("py-progress", {"done": 5, "total": 10}, "PROGRESS")
    store("py-started", {"pid": 7, "hostname": "celery@h"}, states.STARTED)
    backend.mark_as_revoked("py-revoked", "revoked")
    inner = GroupResult("py-inner", [AsyncResult("b", app=app), AsyncResult("c", app=app)], app=app)
    GroupResult("py-saved", [AsyncResult("a", app=app), inner], app=app).save()
    # Onto ours: what succeeded is never overwritten.
    for task_id in arguments:
        store(task_id, "python was here", states.FAILURE)


def join(group, task_id, index, value):
    backend = app.backend
    keys = [backend.get_key_for_group(group, suffix) for suffix in (".j", ".t", ".s", ".d", "", ".c")]
    part = backend.encode([1, task_id, states.SUCCESS, json.loads(value)])
    counted, added, size, claimed = backend._chord_part_return_script(
        keys=keys, args=[task_id, part, 1, int(index), 86400, 86400, 6, "of-python"], client=backend.client
    )
    parts = [backend.decode(part) for part in backend.client.zrange(keys[0], 0, -1)] if claimed else None
    print(json.dumps({"counted": counted, "claimed": bool(claimed), "parts": parts}))


def group(group_id):
    restored = GroupResult.restore(group_id, backend=app.backend)
    print(json.dumps(restored.as_tuple()))


if action == "read":
    for task_id in arguments:
        read(task_id)
elif action == "write":
    write()
elif action == "join":
    join(*arguments)
elif action == "group":
    group(*arguments)
else:
    sys.exit(f"no action {action}")
