"""How a test sees that a task runs, and holds it there: lists in Redis, whose pop waits for a push."""

import functools
import json
import os

import redis

PATIENCE = 120


@functools.cache
def connection():
    return redis.Redis.from_url(os.environ["INTEROP_GATES"], socket_timeout=None)


def note(key, value):
    """Writes down that something happened."""
    connection().rpush(f"note:{key}", json.dumps(value))


def noted(key):
    """What was written down so far."""
    return [json.loads(value) for value in connection().lrange(f"note:{key}", 0, -1)]


def next_note(key):
    """The oldest thing that was written down and not read yet; waits for it."""
    popped = connection().blpop(f"note:{key}", timeout=PATIENCE)
    assert popped, f"nothing was noted in {key} in {PATIENCE} s"
    return json.loads(popped[1])


def hold(key):
    """Says that it is here, and waits until it may go on."""
    connection().rpush(f"here:{key}", 1)
    assert connection().blpop(f"go:{key}", timeout=PATIENCE), f"nobody opened {key} in {PATIENCE} s"


def await_held(key):
    """Waits until something is held."""
    assert connection().blpop(f"here:{key}", timeout=PATIENCE), f"nothing came to {key} in {PATIENCE} s"


def release(key):
    """Lets what is held, or comes next, go on."""
    connection().rpush(f"go:{key}", 1)
