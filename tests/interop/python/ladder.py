"""Declares the delays as Celery's worker does at its start. RabbitMQ refuses any difference to what is there."""

import sys

from kombu import Connection, Exchange, Queue
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
)

url, name = sys.argv[1:]
with Connection(url) as connection:
    declare_native_delayed_delivery_exchanges_and_queues(connection, "quorum")
    # Native delays need a topic exchange, so the queue cannot have the direct one of its name that we make.
    exchange = Exchange(f"{name}-topic", type="topic")
    queue = Queue(name, exchange, routing_key=name, queue_arguments={"x-queue-type": "quorum"})
    queue(connection.channel()).declare()
    bind_queue_to_native_delayed_delivery_exchange(connection, queue)
print("declared")
