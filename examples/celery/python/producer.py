"""Orders two pairs of shoes and a pair of laces: the prices come from Rust, the total from Python.

    python producer.py
"""

from celery import chord

from tasks import price, total

TIMEOUT = 60


def main():
    print("shoes", price("shoes", 2).delay().get(timeout=TIMEOUT))
    order = chord([price("shoes", 2), price("laces", 1)])(total.s())
    print("total", order.get(timeout=TIMEOUT))
    try:
        price("hats", 1).delay().get(timeout=TIMEOUT)
    except LookupError as error:
        print("error", error)


main()
