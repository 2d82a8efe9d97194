"""A Python client that does what the Rust test asks: a line of JSON in, a line of JSON out.

In: `{"case": "plain.kwargs", "arguments": {…}}`. Out: `{"value": …}`, or `{"error": "traceback"}`.
"""

import importlib
import json
import sys
import traceback

import app


def run(line):
    order = json.loads(line)
    module, function = order["case"].split(".")
    case = getattr(importlib.import_module(f"cases.{module}"), function)
    return case(app.app, **order.get("arguments", {}))


def main():
    for line in sys.stdin:
        try:
            answer = {"value": run(line)}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


main()
