"""Workflows with members on two sides, `here` and `there`: their names are arguments, in either order."""

import datetime
import time
import uuid

from celery import chain, chord, group
from celery.canvas import chunks, xmap, xstarmap
from celery.exceptions import ChordError, ImproperlyConfigured
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


def sent_again(app, here, there):
    """A chord that is sent again under the same ids runs again, and its body too.

    With Celery's worker a member of the second sending is lost if it ends at one of two moments, which are avoided here:

    - The body of the first sending runs, and its sender has not deleted the count yet. The member is in that count already,
      and goes with it. So the second sending waits until the first one is closed.
    - The first sending is closed, and the client has not stated the size of the second, which it does when it has sent all
      members but the last. The chord counts as done, so the member is taken for a late duplicate. So the first member does
      not end before all are sent.
    """
    here_, there_ = signatures(app, here), signatures(app, there)
    key = str(uuid.uuid4())
    flow = chord([here_("hold", key), there_("add", 3, 4)], there_("note", key))
    flow.freeze()
    for _ in range(2):
        result = flow.apply_async()
        gates.release(key)
        assert gates.next_note(key) == [["released", 7]]
        chord_is_closed(app, result.parent.id)


def sent_again_at_once(app, here):
    """As above with the two moments in it, which no worker of Celeriac's minds: the second sending begins as soon as the
    first body runs, and its size comes when its first member runs already."""
    here_ = signatures(app, here)
    key, runs = str(uuid.uuid4()), str(uuid.uuid4())
    flow = chord([here_("note", runs), here_("add", 3, 4)], here_("note", key))
    flow.freeze()
    backend = app.backend
    state_size = backend.set_chord_size

    def state_size_late(*args):
        gates.next_note(runs)
        state_size(*args)

    backend.set_chord_size = state_size_late
    try:
        for _ in range(2):
            flow.apply_async()
            assert gates.next_note(key) == [[None, 7]]
    finally:
        del backend.set_chord_size


def chord_is_closed(app, group):
    """Waits until whoever has sent the body of a chord has marked it as done, which happens together with the deletion of
    its count. Other chords of the database do not matter; the count of one that has failed stays for an hour."""
    claim = app.backend.get_key_for_group(group, ".c")
    until("the chord is closed", lambda: app.backend.client.get(claim) == b"done")


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


def chord_that_fails_into_a_group(app, here, there):
    """The body is a group: each of its members fails with what the header failed with, and calls its errbacks."""
    here_, there_ = signatures(app, here), signatures(app, there)
    key, of_all = str(uuid.uuid4()), str(uuid.uuid4())
    members = [here_("total").on_error(there_("on_error", key)), there_("total")]
    work = chord([here_("add", 1, 1), here_("fail")], group(members))
    work.link_error(here_("on_error", of_all))
    result = work.apply_async()
    until("all members have failed", lambda: all(member.state == "FAILURE" for member in result))
    for member in result:
        assert is_bad(member.result), repr(member.result)
    until("the group has failed", lambda: is_bad(app.AsyncResult(result.id).result))
    assert gates.next_note(key) == result[0].id
    assert {gates.next_note(of_all), gates.next_note(of_all)} == {member.id for member in result}
    time.sleep(0.2)
    assert gates.noted(key) == gates.noted(of_all) == []


def what_is_left_of_a_failed_chord(app, here, there):
    """The results of the good members stay where Celery keeps them, and the body's record names its errback."""
    here_, there_ = signatures(app, here), signatures(app, there)
    key = str(uuid.uuid4())
    body = here_("total").on_error(here_("on_error", key))
    result = chord([here_("add", 1, 1), here_("fail"), here_("add", 2, 2)])(body)
    until("its body has failed", lambda: result.state == "FAILURE")
    assert gates.next_note(key) == result.id
    children = until("its errback", lambda: result.children)
    (called,) = children
    assert isinstance(called, GroupResult) and len(called.results) == 1, children
    assert called.results[0].get(timeout=PATIENCE) is None
    backend, gid = app.backend, result.parent.id
    until("it is closed", lambda: backend.client.get(backend.get_key_for_group(gid, ".s")) is None)
    parts = [backend.decode(part) for part in backend.client.zrange(backend.get_key_for_group(gid, ".j"), 0, -1)]
    assert [part[2:] for part in parts if part[2] == "SUCCESS"] == [["SUCCESS", 2], ["SUCCESS", 4]], parts


def header_member_that_ends_in_a_group(app, here, there):
    """Its results are one list, at its place."""
    here_, there_ = signatures(app, here), signatures(app, there)
    pair = group(here_("echo"), there_("echo"))
    header = [here_("echo", "a"), chain(there_("echo", 42), pair), there_("echo", "z")]
    for body in here_("echo"), there_("echo"):
        assert chord(header)(body).get(timeout=PATIENCE) == ["a", [42, 42], "z"]
    deeper = chain(here_("echo", 1), group(there_("echo"), chain(here_("echo"), group(here_("echo"), there_("echo")))))
    assert chord([deeper, there_("echo", 2)])(here_("echo")).get(timeout=PATIENCE) == [[1, [1, 1]], 2]
    # A step of a chain, which the worker starts.
    later = chain(here_("echo", 0), chord([there_("echo"), chain(here_("echo", 7, immutable=True), pair)], there_("echo")))
    assert later().get(timeout=PATIENCE) == [0, [7, 7]]


def header_of_one_or_none(app, here, there):
    """A group that something follows gives a list, also of one or none."""
    here_, there_ = signatures(app, here), signatures(app, there)
    one = group([here_("add", 5, 5)]) | (there_("echo") | here_("echo"))
    assert one.apply_async().get(timeout=PATIENCE) == [10]
    none = group([]) | (there_("total") | here_("echo"))
    assert none.apply_async().get(timeout=PATIENCE) == 0


def replaced_by_nothing(app, here, there):
    """An error of Celery's own class."""
    exception = raised(signatures(app, here)("replaced_by_nothing").apply_async())
    assert type(exception) is ImproperlyConfigured, repr(exception)
    assert exception.args == ("Cannot replace with an empty chain",), repr(exception)


def expired_tasks_call_no_errbacks(app, here, there):
    """Neither does a task that nobody knows; but a chord fails with an expired member, and calls those of its body."""
    here_, there_ = signatures(app, here), signatures(app, there)
    key = str(uuid.uuid4())
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    errback = there_("on_error", key)
    late = here_("add", 1, 1).apply_async(expires=past, link_error=errback)
    unknown = here_("no_such_task").apply_async(link_error=errback, queue=here)
    late_member = here_("add", 1, 1, options={"expires": past.isoformat(), "link_error": [errback]})
    result = chord([late_member, here_("add", 2, 2)])(there_("total").on_error(errback))
    assert gates.next_note(key) == result.id
    until("they are over", lambda: (late.state, unknown.state) == ("REVOKED", "FAILURE"))
    time.sleep(0.2)
    assert gates.noted(key) == []


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


ODD = [
    10**30,
    -(2**70),
    2**64 - 1,
    -(2**63),
    0.1 + 0.2,
    117.63331139400017,
    -0.0,
    5e-324,
    {"z": 1.0, "a": [10**40], "é": None},
]


def exact(app, here, there):
    """Numbers to the last digit and keys in their order, wherever a value passes."""
    here, there = signatures(app, here), signatures(app, there)
    same = lambda value, expected: repr(value) == repr(expected)
    value = chain(here("keep", ODD), there("keep"), here("keep"))().get(timeout=PATIENCE)
    assert same(value, ODD), value
    value = chain(here("add", 1, 1), there("keep", immutable=True, kwargs={"value": ODD}))().get(timeout=PATIENCE)
    assert same(value, ODD), value
    value = chord([here("keep", ODD), there("keep", 10**50)])(here("keep")).get(timeout=PATIENCE)
    assert same(value, [ODD, 10**50]), value
    value = group(here("keep", ODD), there("keep", ODD))().get(timeout=PATIENCE)
    assert same(value, [ODD, ODD]), value


def hidden(app, here, there):
    """What a step is to show instead of its arguments, and other options that go to its message."""
    # A worker of Celery's own fails on a priority that is a float.
    priority = 5 if here == "python" else 5.0
    here, there = signatures(app, here), signatures(app, there)
    secret = there("shown", "hunter2").set(
        argsrepr="***", kwargsrepr="{***}", app_id="hq", message_id="m", type="import", priority=priority
    )
    shown = chain(here("echo", 1), secret)().get(timeout=PATIENCE)
    expected = {"app_id": "hq", "message_id": "m", "type": "import", "priority": 5}
    assert shown == {"args": "***", "kwargs": "{***}", **expected}, shown
    plain = chain(here("echo", 1), there("shown", "x"))().get(timeout=PATIENCE)
    assert plain["args"] == "(1, 'x')" and plain["app_id"] is None, plain


def no_number(app, here, there):
    """NaN is no JSON: whoever waits is told, and nothing waits for ever."""
    here, there = signatures(app, here), signatures(app, there)
    exception = raised(here("echo", float("nan")).delay())
    assert "NaN" in str(exception), repr(exception)
    assert raised(chain(there("not_a_number"), here("echo"))())
    assert raised(chord([here("add", 1, 1), there("not_a_number")])(here("keep")))
    assert raised(chord([there("not_a_number"), chain(here("add", 1, 1), here("add", 1))])(here("keep")))
