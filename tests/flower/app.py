"""The Celery app of the test: a Python worker runs it, and Flower is started with it.

Flower refuses levers on tasks that its app does not know, so the tasks of the Rust worker have stubs here.
"""
import os

from celery import Celery
from celery.app.control import Control


class PatientControl(Control):
    """Waits longer than a second for a worker that is named. It comes back as soon as that one has answered."""

    def broadcast(self, command, arguments=None, destination=None, *rest, **options):
        if destination:
            options["timeout"] = 60.0
        return super().broadcast(command, arguments, destination, *rest, **options)


app = Celery(
    "shop", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"], control=PatientControl
)
app.conf.update(task_default_queue="python", worker_send_task_events=True)


@app.task(name="shop.add")
def add(x, y):
    return x + y


@app.task(name="shop.fails")
def fails(text):
    raise ValueError(text)


@app.task(name="shop.waits")
def waits(gate):
    """Runs on the Rust side only."""
