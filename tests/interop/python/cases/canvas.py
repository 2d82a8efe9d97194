"""Workflows with members on two sides, `here` and `there`: their names are arguments, in either order."""

import time
import uuid

from celery import chain, chord, group
from celery.canvas import chunks, xmap, xstarmap
from celery.exceptions import ChordError
from celery.result import GroupResult

import gates

from . import PATIENCE, is_bad, raised, until


def signatures(app, side):
    return lambda name, *args, **kwargs: app.signature(f"{side}.{name}", args=args, **kwargs)


def chained(app, here, there):
    """From side to side, each result the first argument of the next."""
    here, there = signatures(app, here), signatures(app, there)
    result = chain(here("add", 2, 2), there("mul", 10), here("add", 1), there("mul", 2))()
    assert result.get(timeout=PATIENCE) == 82
    values = []
    while result:
        values.append(result.get(timeout=PATIENCE))
        result = result.parent
    assert values == [82, 41, 40, 4], values


def immutable(app, here, there):
    """A step that takes nothing from the one before."""
    here, there = signatures(app, here), signatures(app, there)
    assert chain(here("add", 1, 1), there("add", 5, 5, immutable=True), here("mul", 3))().get(timeout=PATIENCE) == 30


def failing_chain(app, here, there):
    """The step that fails ends the chain; whoever waits for its last step is told."""
    here, there = signatures(app, here), signatures(app, there)
    key = str(uuid.uuid4())
    result = chain(here("add", 1, 1), there("fail"), here("note", key))()
    exception = raised(result)
    assert is_bad(exception), repr(exception)
    assert gates.noted(key) == []


def relations(app, here, there):
    """Parent and root, as each member sees them."""
    here, there = signatures(app, here), signatures(app, there)
    result = chain(here("about"), there("about"), here("about"))()
    result.get(timeout=PATIENCE)
    third, second, first = (r.get(timeout=PATIENCE) for r in (result, result.parent, result.parent.parent))
    assert first["root_id"] == first["id"] and first["parent_id"] is None, first
    assert (second["root_id"], second["parent_id"]) == (first["id"], first["id"]), second
    assert (third["root_id"], third["parent_id"]) == (first["id"], second["id"]), third


def grouped(app, here, there):
    """Results in the order of the members, whoever is done first."""
    here, there = signatures(app, here), signatures(app, there)
    result = group(*((here, there)[n % 2]("add", n, n) for n in range(10)))()
    assert result.get(timeout=PATIENCE) == [2 * n for n in range(10)]


def chorded(app, here, there):
    """Members on both sides, the body here."""
    here_, there_ = signatures(app, here), signatures(app, there)
    header = [(here_, there_)[n % 2]("add", n, n) for n in range(10)]
    assert chord(header)(here_("total")).get(timeout=PATIENCE) == 90


def grown(app, here, there):
    """Members add tasks of the other side to their chord; the body sees their results."""
    here_, there_ = signatures(app, here), signatures(app, there)
    header = [here_("grow", f"{there}.add", 2, 3), there_("grow", f"{here}.add", 20, 30), here_("add", 100, 100)]
    assert chord(header)(there_("total")).get(timeout=PATIENCE) == 1 + 5 + 1 + 50 + 200


def saved(app, there):
    """A group that is saved, for the other side to restore: its id."""
    there = signatures(app, there)
    result = group(there("add", 1, 2), there("add", 3, 4))()
    result.save()
    return result.id


def restored(app, id):
    """A group that the other side has saved: who is in it, and what they came to."""
    result = GroupResult.restore(id, app=app)
    return {"ids": [member.id for member in result], "values": result.get(timeout=PATIENCE)}


def failing_chord(app, here, there):
    """The member on the other side fails: the body does not run and ends in a ChordError, and its errback is told.

    `get` raises what the member raised, because it looks at the header first.
    """
    here_, there_ = signatures(app, here), signatures(app, there)
    key = str(uuid.uuid4())
    body = here_("total").on_error(here_("on_error", key))
    result = chord([here_("add", 1, 1), there_("fail"), there_("add", 2, 2)])(body)
    exception = raised(result)
    assert is_bad(exception), repr(exception)
    until("its body has failed", lambda: result.state == "FAILURE")
    assert type(result.result) is ChordError, repr(result.result)
    assert "ValueError" in str(result.result), str(result.result)
    assert gates.next_note(key) == result.id


def chord_in_a_chain(app, here, there):
    """A group in the middle becomes a chord, whose body goes on with the chain."""
    here, there = signatures(app, here), signatures(app, there)
    middle = group(here("add", 1), there("add", 2), here("add", 3))
    result = chain(there("add", 1, 1), middle, here("total"), there("mul", 10))()
    assert result.get(timeout=PATIENCE) == 120


def chain_in_a_chord(app, here, there):
    """A member may be a chain, which counts as one."""
    here, there = signatures(app, here), signatures(app, there)
    header = [chain(here("add", 1, 1), there("mul", 3)), there("add", 4, 4), chain(there("add", 1, 1), here("mul", 5))]
    assert chord(header)(there("total")).get(timeout=PATIENCE) == 24


def group_of_chords(app, here, there):
    """Chords as members of a chord."""
    here, there = signatures(app, here), signatures(app, there)
    inner = [chord([here("add", n, 1), there("add", n, 2)], there("total")) for n in range(3)]
    assert chord(inner)(here("total")).get(timeout=PATIENCE) == 15


def group_of_groups_then(app, here, there):
    """Two groups in a row: each member of the second gets the whole first one."""
    here, there = signatures(app, here), signatures(app, there)
    result = chain(group(here("add", 1, 1), there("add", 2, 2)), group(there("total"), here("total")), here("total"))()
    assert result.get(timeout=PATIENCE) == 12


def linked(app, here, there):
    """A callback on the other side gets the result; all of several do."""
    here, there = signatures(app, here), signatures(app, there)
    key = str(uuid.uuid4())
    here("add", 2, 3).apply_async(link=there("note", key))
    assert gates.next_note(key) == [5]
    here("add", 3, 3).apply_async(link=[there("note", key), here("note", key)])
    assert [gates.next_note(key), gates.next_note(key)] == [[6], [6]]


def link_errors(app, here, there):
    """An errback on the other side gets the id of what failed, and what succeeds calls none."""
    here, there = signatures(app, here), signatures(app, there)
    key = str(uuid.uuid4())
    fine = here("add", 2, 3).apply_async(link_error=there("on_error", key))
    assert fine.get(timeout=PATIENCE) == 5
    failed = here("fail").apply_async(link_error=there("on_error", key))
    assert gates.next_note(key) == failed.id
    assert gates.noted(key) == []


def children(app, here, there):
    """What a task sent on is found from its result."""
    here, there = signatures(app, here), signatures(app, there)
    result = here("add", 2, 3).apply_async(link=there("mul", 4))
    assert result.get(timeout=PATIENCE) == 5
    child, = until("its child", lambda: result.children)
    assert child.get(timeout=PATIENCE) == 20


def mapped(app, there):
    """map, starmap and chunks of a task that only the other side has."""
    there_ = signatures(app, there)
    call = {"queue": there}
    total, add = there_("total"), there_("add")
    assert xmap(total, [[1, 2], [3, 4]], app=app).apply_async(**call).get(timeout=PATIENCE) == [3, 7]
    assert xstarmap(add, [[1, 2], [3, 4]], app=app).apply_async(**call).get(timeout=PATIENCE) == [3, 7]
    pairs = [[n, n] for n in range(10)]
    parts = chunks(add, pairs, 3, app=app).group()
    parts = group([part.set(**call) for part in parts.tasks])
    flat = [value for part in parts().get(timeout=PATIENCE) for value in part]
    assert flat == [2 * n for n in range(10)], flat


def replaced(app, here, there):
    """A task here puts one from there in its own place; its id, and the chain behind it, go on."""
    here_ = signatures(app, here)
    result = chain(here_("replaced_by", f"{there}.add", 2, 3), here_("mul", 10))()
    assert result.get(timeout=PATIENCE) == 50
    assert result.parent.get(timeout=PATIENCE) == 5


def options_of_a_step(app, here, there):
    """A step's own options are minded by the worker that sends it."""
    extra = f"{there}-extra"
    here, there = signatures(app, here), signatures(app, there)
    sent = time.time()
    later = there("clock", immutable=True, options={"countdown": 1.2})
    elsewhere = there("about", immutable=True, options={"queue": extra, "priority": 3})
    result = chain(here("add", 1, 1), later, here("echo"), elsewhere)()
    about = result.get(timeout=PATIENCE)
    assert about["priority"] == 3, about
    assert result.parent.get(timeout=PATIENCE) >= sent + 1.2
