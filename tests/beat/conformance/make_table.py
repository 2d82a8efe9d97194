#!/usr/bin/env python3
"""Makes table.jsonl: what Python Celery's own crontab answers.

    python3 tests/beat/conformance/make_table.py > tests/beat/conformance/table.jsonl

It makes itself a virtual environment in a temporary directory and installs Celery there. Each row has an expression, a
zone, a time to start from, and the next five times as Celery 5.7.0 has them: the schedule is driven as beat drives it, each
run being the last one of the next. All times are UTC.

Where a clock is put forward or back in between, Celery has no rule and we have one. Rows for which the two come to
different times also say `ours`, which is worked out here by looking at the clock each minute, and not by our own code.
"""

import json
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

REQUIREMENTS = ["celery==5.7.0", "tzdata==2025.2"]

try:
    import celery
    from celery import Celery
    from celery.schedules import crontab
except ImportError:
    if "--no-venv" in sys.argv:
        raise
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        python = Path(directory, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True, stdout=sys.stderr)
        sys.exit(subprocess.run([python, __file__, "--no-venv"]).returncode)

assert celery.__version__ == "5.7.0", f"the table is of Celery 5.7.0, this is {celery.__version__}"

UTC = timezone.utc
APPS = {}

GRAMMAR = [
    "* * * * *", "*/15 * * * *", "*/7 * * * *", "*/59 * * * *", "*/100 * * * *", "0 * * * *", "59 * * * *",
    "0 0 * * *", "59 23 * * *", "30 8 * * mon-fri", "0 0 * * 0", "0 0 * * 6", "* * * * 6", "0 12 * * sun,wed",
    "0 0 * * fri-mon", "0 0 * * 5-1", "0 0 * * sat-sun", "0 6 * * mon-fri/2", "0 6 * * */2", "0 6 * * tuesday",
    "1,13,30-45,50-59/2 * * * *", "0-10/3,40-50/5 0,12 * * *", "50-10 * * * *", "50-10/4 3 * * *",
    "0 22-2 * * *", "0 22-4/3 * * *", "0 0,8-17/2 * * *", "15 */5 * * *", "0 */23 * * *", "0 */24 * * *",
    "0 0 1 * *", "0 0 31 * *", "0 0 30 * *", "0 0 28-31 * *", "0 0 */10 * *", "0 0 */15 * *", "0 0 1,15 * *",
    "0 0 29-1 * *", "30 4 2-30/2 * *", "0 0 25-5/4 * *", "0 0 1 1 *", "0 0 1 */3 *", "0 0 1 */2 *",
    "0 0 1 2-12/2 *", "0 0 1 nov-feb *", "0 0 1 jan,JUL *", "0 0 31 dec *", "0 0 31 1-12 *", "0 0 31 */2 *",
    "0 0 31 4,5 *", "0 0 13 * 5", "0 0 1-7 * mon", "0 0 1-7,15-21 * 1", "0 9 25-31 * fri", "0 0 */7 * 0",
    "*/30 9-17 1-7 1,4,7,10 mon", "5 4 3 2 *", "0 0 * feb *", "* * 1 * *", "* 5 * * *", "20,40 10 10,20 * *",
    "08 09 * * *", "0 2 * january monday",
]
LEAP = ["0 0 29 2 *", "0 12 29 feb mon", "*/20 23 29 2 *", "0 0 29,30,31 2 *", "0 0 28-31 2 *", "0 0 29 * *",
        "59 23 28-31 feb,mar *"]
PLAIN = ["0 0 * * *", "30 5 * * mon-fri", "*/45 * * * *", "0 0 1 * *", "15 22-1 * * sat"]
CLOCKS = ["30 2 * * *", "30 1 * * *", "0 0 * * *", "0 3 * * *", "*/30 * * * *", "*/20 1,2 * * *", "45 */2 * * *",
          "0 2 * * sun", "15 0-4 * * *", "5 * * * sun"]
CHANGES = [
    ("America/New_York", "2026-03-08T04:50:00", "2026-11-01T03:50:00"),
    ("Europe/Berlin", "2026-03-28T22:50:00", "2026-10-24T21:50:00"),
    ("Australia/Lord_Howe", "2026-10-03T12:50:00", "2026-04-04T12:20:00"),
    ("Australia/Sydney", "2026-10-03T13:50:00", "2026-04-04T12:50:00"),
    ("America/Havana", "2026-03-08T03:50:00", "2026-11-01T02:50:00"),
    ("America/St_Johns", "2026-03-08T03:00:00", "2026-11-01T02:00:00"),
    ("Africa/Cairo", "2025-04-24T20:50:00", "2025-10-30T19:50:00"),
]


def app(zone):
    if zone not in APPS:
        APPS[zone] = Celery(f"table-{len(APPS)}", set_as_current=False)
        APPS[zone].conf.update(timezone=zone, enable_utc=True)
    return APPS[zone]


def of_celery(expression, zone, start):
    """The next five runs, each the `last_run_at` of the next."""
    now = start
    schedule = crontab.from_string(expression)
    schedule.app = app(zone)
    schedule.nowfun = lambda: now
    runs = []
    for _ in range(5):
        remaining = schedule.remaining_estimate(now)
        if remaining <= timedelta(0):
            # Due at once, and again and again: beat would send it each time that it looks.
            runs.append(now)
            break
        now = (now + remaining).astimezone(UTC)
        runs.append(now)
    return runs


def of_ours(expression, zone, start):
    """The next five by our rule, by looking at the clock of the zone each minute."""
    fields = crontab.from_string(expression)
    zone = ZoneInfo(zone)
    minute = timedelta(minutes=1)

    def matches(clock):
        return (clock.minute in fields.minute and clock.hour in fields.hour
                and clock.day in fields.day_of_month and clock.month in fields.month_of_year
                and clock.isoweekday() % 7 in fields.day_of_week)

    shown, runs = set(), []
    at = start.replace(second=0) - timedelta(days=2)
    before = at.astimezone(zone).replace(tzinfo=None) - minute
    while len(runs) < 5:
        clock = at.astimezone(zone).replace(tzinfo=None)
        if len(fields.hour) == 24:
            due = matches(clock)
        else:
            times, skipped = [clock], before + minute
            while skipped < clock:
                times.append(skipped)
                skipped += minute
            times = [time for time in times if matches(time) and time not in shown]
            shown.update(times)
            due = bool(times)
        if due and at > start:
            runs.append(at)
        before = clock
        at += minute
    return runs


def text(time):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def row(expression, zone, start, look_at_clocks):
    start = datetime.fromisoformat(start).replace(tzinfo=UTC)
    runs = of_celery(expression, zone, start)
    made = {"crontab": expression, "zone": zone, "from": text(start), "celery": [text(run) for run in runs]}
    if look_at_clocks:
        ours = of_ours(expression, zone, start)
        if ours != runs:
            made["ours"] = [text(run) for run in ours]
    print(json.dumps(made))


for expression in GRAMMAR:
    for start in ["2026-01-30T12:34:56", "2027-12-31T23:59:00"]:
        row(expression, "UTC", start, False)
for expression in LEAP:
    for start in ["2024-02-28T23:59:59", "2026-02-28T12:00:00", "2027-03-01T00:00:00"]:
        row(expression, "UTC", start, False)
for zone in ["Asia/Kolkata", "Asia/Kathmandu", "Africa/Nairobi", "Pacific/Kiritimati", "America/Bogota"]:
    for expression in PLAIN:
        row(expression, zone, "2026-05-30T11:45:30", False)
for zone, *starts in CHANGES:
    for start in starts:
        for expression in CLOCKS:
            row(expression, zone, start, True)
