"""A plugin of pytest for Celery's integration tests: their worker is a program of its own, not a part of pytest.

The environment says what is needed:

- SUITE_WORKER: the command that starts the worker. It inherits this environment; WORKER_NODENAME is the name to take.
- SUITE_WORKER_LOG: the file for what the worker writes.
- SUITE_OUTCOMES: the file that gets one line of JSON for each test that is over.
"""
import json
import os
import signal
import socket
import subprocess
import threading
import time

import celery.contrib.pytest
import pytest
from celery._state import _set_task_join_will_block
from celery.app.control import Inspect
from celery.utils.nodenames import anon_nodename

PATIENCE = 120

asked_once = Inspect._request


def asked_until_answered(self, command, **arguments):
    """A worker that was late for a question is asked again. Celery waits for a second."""
    end = time.monotonic() + PATIENCE
    while not (answers := asked_once(self, command, **arguments)) and time.monotonic() < end:
        pass
    return answers


Inspect._request = asked_until_answered


class Worker:
    """What the tests see of the worker."""

    def __init__(self, hostname, process):
        self.hostname = hostname
        self.pid = process.pid


@pytest.fixture(scope='session')
def celery_session_worker(celery_session_app, celery_includes, celery_class_tasks):
    app = celery_session_app
    # The tests send the tasks, so this side has to know them, too.
    for module in celery_includes:
        app.loader.import_task_module(module)
    for task in celery_class_tasks:
        app.register_task(task)
    app.finalize()
    app.set_current()
    app.set_default()
    # The tests of `inspect` take the name of a worker in this process.
    node = anon_nodename()
    with open(os.environ['SUITE_WORKER_LOG'], 'ab') as log:
        process = subprocess.Popen(
            os.environ['SUITE_WORKER'], shell=True, env=dict(os.environ, WORKER_NODENAME=node),
            stdout=log, stderr=subprocess.STDOUT,
        )
    await_pong(app, node, process)
    gather_successes(app)
    app.control.enable_events(destination=[node], reply=True, timeout=2.0)
    await_answer_to_active(app, node)
    # The stock fixture does so, too: tests call `get` where only tasks may not.
    _set_task_join_will_block(False)
    yield Worker(node, process)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


def await_pong(app, node, process):
    end = time.monotonic() + PATIENCE
    while not app.control.ping(destination=[node], timeout=1.0):
        if process.poll() is not None:
            pytest.exit(f'the worker ended with {process.returncode} before it answered a ping')
        if time.monotonic() > end:
            process.kill()
            pytest.exit(f'the worker did not answer a ping within {PATIENCE} s')


def gather_successes(app):
    """Some tests look for a finished task in the memory of the worker, which is this process by default. Here that memory
    has the tasks of which the worker has sent the event that they succeeded."""
    from celery.worker import state

    ready = threading.Event()

    def gather():
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={
                'task-succeeded': lambda event: state.successful_requests.add(event['uuid']),
            })
            # A receiver consumes on a connection of its own: a clone of the one that it is given.
            with receiver.consumer_context() as (consuming, _, _):
                ready.set()
                while True:
                    try:
                        consuming.drain_events(timeout=1)
                    except socket.timeout:
                        consuming.heartbeat_check()

    threading.Thread(target=gather, daemon=True).start()
    if not ready.wait(PATIENCE):
        pytest.exit(f'the events of the worker are not received after {PATIENCE} s')


def await_answer_to_active(app, node):
    """After each test, Celery's `Manager.wait_until_idle` asks `inspect active` until nothing runs. If nobody answers, it
    gives up and only logs that, and the next test meets what the last one left. So that has to work from the start."""
    end = time.monotonic() + PATIENCE
    while app.control.inspect(destination=[node], timeout=1.0).active() is None:
        if time.monotonic() > end:
            pytest.exit(f'the worker did not answer `inspect active` within {PATIENCE} s')


# The suite's conftest takes the fixture from there.
celery.contrib.pytest.celery_session_worker = celery_session_worker


def pytest_collection_modifyitems(config, items):
    # The suite marks most of its tests with a limit of its own, which counts more than the command line.
    limit = config.getoption('--timeout')
    for item in items:
        item.add_marker(pytest.mark.timeout(limit), append=False)


reports = {}


def pytest_runtest_logreport(report):
    # A test has a report for each of its three phases, and one more for each of its subtests.
    test = reports.setdefault(report.nodeid, {'failed': False, 'skipped': False, 'seconds': 0.0, 'why': ''})
    if report.when != 'call' or type(report) is pytest.TestReport:
        test['seconds'] += report.duration
    if report.failed:
        test['failed'] = True
        crash = getattr(report.longrepr, 'reprcrash', None)
        test['why'] = test['why'] or (crash.message if crash else str(report.longrepr)[-2000:])
    elif report.skipped and not hasattr(report, 'wasxfail'):
        test['skipped'] = True


def pytest_runtest_logfinish(nodeid):
    with open(os.environ['SUITE_OUTCOMES'], 'a') as file:
        file.write(json.dumps({'test': nodeid, **reports.pop(nodeid)}) + '\n')
