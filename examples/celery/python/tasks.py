"""The Python side of the mixed fleet: what is left of the shop's tasks here, and where the rest is.

    celery -A tasks worker -Q orders
"""

import os

from celery import Celery

app = Celery(
    "tasks",
    broker=os.environ.get("BROKER_URL", "amqp://guest:guest@localhost:5672//"),
    backend=os.environ.get("RESULT_URL", "redis://localhost:6379/0"),
)
app.conf.task_routes = {
    "tasks.price": {"queue": "prices"},  # served by Rust
    "tasks.total": {"queue": "orders"},
}


@app.task
def total(prices):
    return sum(prices)


def price(article, count):
    """A task that this program no longer has: callers name it, and notice nothing."""
    return app.signature("tasks.price", args=(article, count))
