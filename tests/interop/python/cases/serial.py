"""Serial tasks of the Rust side, sent as any other task: Celery knows nothing of their lanes."""

from . import PATIENCE


def send(app, lane, numbers):
    return [app.send_task("rust.in_turn", (lane, n)).id for n in numbers]


def read(app, ids):
    return [app.AsyncResult(id).get(timeout=PATIENCE) for id in ids]
