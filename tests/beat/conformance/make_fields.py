"""Writes `fields.jsonl`: texts of crontab fields, and what Celery makes of them.

    pip install 'celery==5.7.*' && python make_fields.py > fields.jsonl

A row is [field, text, numbers]: the field by its place in a crontab (minute is 0, day of week 4), and the numbers as a set of
bits, or null where Celery refuses the text. The texts are made by chance, from a seed: whole parts that somebody might write,
parts with something wrong in them, and noise. Digits of other scripts, which Python reads, are left out.
"""

import json
import random

from celery.schedules import crontab

FIELDS = [("minute", 0, 59), ("hour", 0, 23), ("day_of_month", 1, 31), ("month_of_year", 1, 12), ("day_of_week", 0, 6)]
NAMES = "jan feb mar apr may jun jul aug sep oct nov dec sun mon tue wed thu fri sat".split()
LONG = "january March Sunday MONDAY tues thursday sept friday monkey Junk marching satan xyz mo".split()
BLANKS = ["", "", "", "", " ", "  ", "\t", "\n", "\u00a0", "\u2003", "\x1f"]
ODD = ["!", "/", "-", "*", "_", ".", "+", "x", "é", "#", "//", "--", "/0", "/x", "-*", "/*", "\n", " "]
ALPHABET = "0123456789*/-,+_. abjmonsuxé!\t\n"

chance = random.Random(57)


def number(least, most):
    kind = chance.random()
    if kind < 0.7:
        text = str(chance.randint(least, most))
    elif kind < 0.85:
        text = str(chance.randint(max(0, least - 2), most + 5))
    else:
        text = chance.choice(["007", "+5", "+ 5", "-5", "-0", "1_0", "_1", "1_", "1__0", "7.0", "5.", "1e1", "0x5", "9" * 30, "00"])
    return text


def word(least, most):
    kind = chance.random()
    if kind < 0.75:
        return number(least, most)
    return chance.choice(NAMES if kind < 0.93 else LONG)


def part(least, most):
    kind = chance.random()
    if kind < 0.15:
        text = "*"
    elif kind < 0.3:
        text = "*/" + number(1, 40)
    elif kind < 0.6:
        text = word(least, most)
    elif kind < 0.8:
        text = word(least, most) + "-" + word(least, most)
    elif kind < 0.95:
        text = word(least, most) + "-" + word(least, most) + "/" + number(1, 12)
    else:
        text = word(least, most) + "/" + number(1, 12)
    if chance.random() < 0.12:
        at = chance.randint(0, len(text))
        text = text[:at] + chance.choice(ODD) + text[at:]
    if chance.random() < 0.2:
        text = chance.choice(BLANKS) + text + chance.choice(BLANKS)
    return text


def field(least, most):
    if chance.random() < 0.06:
        return "".join(chance.choice(ALPHABET) for _ in range(chance.randint(0, 7)))
    return ",".join(part(least, most) for _ in range(chance.choice([1, 1, 1, 2, 2, 3])))


def celery(name, text):
    arguments = {"minute": "*", "hour": "*", "day_of_month": "*", "month_of_year": "*", "day_of_week": "*", name: text}
    try:
        return sum(1 << n for n in getattr(crontab(**arguments), name))
    except Exception:
        return None


seen = set()
while len(seen) < 5000:
    place = chance.randrange(5)
    name, least, most = FIELDS[place]
    text = field(least, most)
    if (place, text) in seen:
        continue
    seen.add((place, text))
    print(json.dumps([place, text, celery(name, text)]))
