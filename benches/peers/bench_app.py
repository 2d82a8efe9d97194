"""The task that Celeriac's benchmark `rabbitmq` measures, as a Python Celery app.

As a worker's app it counts, in one file for each process, how many tasks have run. As a program, `send COUNT BYTES` enqueues
so many from several threads, each publish confirmed.
"""

import logging
import os
import sys
import threading

from celery import Celery
from celery.signals import after_setup_logger

app = Celery("bench_app", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    task_default_queue=os.environ["BENCH_QUEUE"],
    task_ignore_result=True,
    task_acks_late=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=250,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    broker_pool_limit=16,
)

count = 0
file = None


@app.task(name="bench.noop")
def noop(payload):
    global count, file
    if file is None:
        path = os.path.join(os.environ["BENCH_RUNS"], str(os.getpid()))
        file = os.open(path, os.O_CREAT | os.O_WRONLY)
    count += 1
    os.pwrite(file, b"%d\n" % count, 0)


@after_setup_logger.connect
def without_a_line_for_each_task(**_):
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)


def send(number, size):
    payload = "x" * size
    for _ in range(number):
        noop.delay(payload)


if __name__ == "__main__":
    _, _, number, size = sys.argv
    threads = 4
    senders = [
        threading.Thread(target=send, args=(int(number) // threads + (n < int(number) % threads), int(size)))
        for n in range(threads)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
