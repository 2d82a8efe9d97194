"""The Python side of the rpc results' tests.

`results.py BROKER work QUEUE ID` sends the states of a task to a reply queue, as a worker with `rpc://` does.
`results.py BROKER odd QUEUE NAN HALF` sends two results that are no JSON or no Unicode.
`results.py BROKER wait QUEUE ID...` waits for results in a reply queue of that name, as a client does, and prints them.
"""

import json
import sys
from types import SimpleNamespace

from celery import Celery, states
from celery.result import AsyncResult

broker, action, queue, *ids = sys.argv[1:]


class App(Celery):
    # The name of the reply queue; it is the caller's choice here, so that he can find it.
    thread_oid = queue


app = App("results", broker=broker, backend="rpc://")


def store(task_id, value, state, traceback=None):
    request = SimpleNamespace(
        reply_to=queue, correlation_id=task_id, id=task_id, group=None, parent_id=None, children=[]
    )
    app.backend.store_result(task_id, value, state, traceback=traceback, request=request)


def work(task_id):
    store(task_id, {"pid": 7}, states.STARTED)
    store(task_id, {"done": 5, "total": 10}, "PROGRESS")
    store(task_id, [1, "ä"], states.SUCCESS)


def odd(nan, half):
    store(nan, float("nan"), "PROGRESS")
    store(nan, [1, float("nan")], states.SUCCESS)
    store(half, ValueError("cut \ud83d"), states.FAILURE, "ValueError: cut \ud83d\n")


def wait():
    app.backend.result_consumer.start(ids[0])
    for task_id in ids:
        result = AsyncResult(task_id, app=app)
        try:
            print(json.dumps({"state": "SUCCESS", "value": result.get(timeout=120)}))
        except Exception as raised:
            said = {"class": type(raised).__name__, "module": type(raised).__module__, "args": list(raised.args)}
            print(json.dumps({"state": result.state, "raised": said}))


if action == "work":
    work(*ids)
elif action == "odd":
    odd(*ids)
elif action == "wait":
    wait()
else:
    sys.exit(f"no action {action}")
