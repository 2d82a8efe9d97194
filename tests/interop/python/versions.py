"""Says which Celery this Python has."""

import importlib.metadata

for package in ("celery", "kombu", "redis"):
    print(package, importlib.metadata.version(package))
