"""The Celery app of the test: a worker with OpenTelemetry's instrumentation, whose tasks tell of their spans."""

import os

from celery import Celery
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
# The worker has no processes below it (`--pool solo`), which would need providers of their own.
CeleryInstrumentor().instrument()

app = Celery("otel", broker=os.environ["FLEET_BROKER"], backend=os.environ["FLEET_BACKEND"])
app.conf.update(task_default_queue="python", worker_send_task_events=False)


def told(span):
    """What is compared."""
    context = span.get_span_context()
    return {
        "name": span.name,
        "trace": format(context.trace_id, "032x"),
        "span": format(context.span_id, "016x"),
        "parent": span.parent and format(span.parent.span_id, "016x"),
    }


@app.task(name="python.traced")
def traced():
    return told(trace.get_current_span())


@app.task(name="rust.traced")
def stub():
    """Runs on the Rust side only."""


@app.task(name="python.calls")
def calls():
    """Calls a task of the Rust side."""
    sent = stub.apply_async(queue="rust")
    call = [span for span in exporter.get_finished_spans() if span.name == "apply_async/rust.traced"][-1]
    return {"run": told(trace.get_current_span()), "call": told(call), "id": sent.id}
