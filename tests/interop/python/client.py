"""A Python client that does what the Rust test asks: a line of JSON in, a line of JSON out.

In: `{"number": 1, "case": "plain.kwargs", "arguments": {…}}`. Out: `{"number": 1, "value": …}`, or `{…, "error": "traceback"}`.
"""

import faulthandler
import importlib
import json
import sys
import traceback

import app


# The test gives a case up after four minutes. Before that, the log says where the case waits.
TELLS_AFTER = 200


def run(order):
    module, function = order["case"].split(".")
    case = getattr(importlib.import_module(f"cases.{module}"), function)
    return case(app.app, **order.get("arguments", {}))


def main():
    for line in sys.stdin:
        order = json.loads(line)
        faulthandler.dump_traceback_later(TELLS_AFTER)
        try:
            answer = {"value": run(order)}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps({"number": order["number"], **answer}), flush=True)


main()
