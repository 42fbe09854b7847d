#!/usr/bin/python3
"""Processes that wish for exclusive locking mode, and do not get it, beside others that write.

One line a test, as test_network.py, whose helpers these are.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

import test_network
from test_network import EXTENSION, check, make, through_vfs, until

WISHES = """
import sqlite3, sys, time
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(%r)
db = sqlite3.connect("file:app.db?vfs=hyperwal", uri=True, isolation_level=None, timeout=0)
print("asks", flush=True)
try:
    print(db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone(), flush=True)
    db.execute("SELECT count(*) FROM t").fetchone()
    print("got it", flush=True)
except sqlite3.Error as error:
    print("refused:", error, flush=True)
sys.stdin.read()
""" % EXTENSION


@contextlib.contextmanager
def who_wishes():
    process = subprocess.Popen([sys.executable, "-c", WISHES], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True)
    try:
        check(process.stdout.readline() == "asks\n", "it does not ask")
        yield process
    finally:
        process.kill()
        process.communicate()


def processor_seconds():
    times = os.times()
    return times.user + times.system


def who_only_wishes_leaves_the_log_to_who_writes(dir):
    make("app.db", 10)
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("INSERT INTO t(b) VALUES('before')")
        db.execute("PRAGMA hyperwal_seq").fetchone()
        with who_wishes() as other:
            said = [other.stdout.readline() for _ in range(2)]
            check(any("refused" in line for line in said), said)
            for i in range(3):
                db.execute("INSERT INTO t(b) VALUES(?)", (f"row {i}",))
                db.execute("PRAGMA busy_timeout = 10000")
                check(db.execute("PRAGMA hyperwal_seq").fetchone()[0] is not None, "not logged")


def who_died_asking_costs_nothing(dir):
    """The one that is alone does not ask itself for ever whether it is to give its role away."""
    make("app.db", 10)
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("INSERT INTO t(b) VALUES('alone')")
        with who_wishes() as other:
            time.sleep(0.3)  # it asks for two seconds
            other.send_signal(signal.SIGKILL)
            other.wait()
        before = processor_seconds()
        time.sleep(2)
        used = processor_seconds() - before
        check(used < 1, f"{used:.2f} s of the processor")
        db.execute("INSERT INTO t(b) VALUES('after')")
        until(lambda: db.execute("PRAGMA hyperwal_seq").fetchone()[0] is not None, "it is logged")


TESTS = (who_only_wishes_leaves_the_log_to_who_writes, who_died_asking_costs_nothing)

if __name__ == "__main__":
    test_network.TESTS = TESTS
    sys.exit(test_network.main(sys.argv[1:]))
