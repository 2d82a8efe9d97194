"""What a Python client asks of the workers, and what it is to see. Each function is a case."""

import time

PATIENCE = 120


def until(what, condition):
    """Waits for a condition that nothing signals."""
    start = time.monotonic()
    while not (seen := condition()):
        assert time.monotonic() - start < PATIENCE, f"not in {PATIENCE} s: {what}"
        time.sleep(0.02)
    return seen


def raised(result):
    """The exception that `get` raises."""
    try:
        value = result.get(timeout=PATIENCE)
    except Exception as error:
        return error
    raise AssertionError(f"it returned {value!r}")


def is_bad(exception):
    """The `ValueError("bad", 42)` of the task `fail`, with a text and a number."""
    return type(exception) is ValueError and exception.args == ("bad", 42)


def ready(app, queue):
    """How many messages wait in the queue and are with no worker."""
    with app.connection_for_read() as connection:
        return connection.default_channel.queue_declare(queue, passive=True).message_count
