#!/usr/bin/python3
"""Processes in PID namespaces of their own, as in containers that share a volume: each has the number 1.

One line a test, as test_network.py, whose helpers these are; skipped, and counted, where there can be no such
namespaces.
"""

import contextlib
import subprocess
import sys

import test_network
from test_network import EXTENSION, PROGRAM, Skip, check, dump, fact, follower, make, run, until

CONTAINER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
APPLICATION = """
import os, sqlite3, sys
assert os.getpid() == 1
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(%r)
db = sqlite3.connect("file:app.db?vfs=hyperwal", uri=True, isolation_level=None, timeout=20)
for line in sys.stdin:
    try:
        print(repr(db.execute(line).fetchall()), flush=True)
    except sqlite3.Error as error:
        print("error:", error, flush=True)
""" % EXTENSION


class Container:
    """A program whose process has the number 1."""

    def __init__(self, *args):
        self.process = subprocess.Popen([*CONTAINER, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def line(self):
        line = self.process.stdout.readline()
        check(line, "it ended")
        return line.strip()

    def do(self, sql):
        self.process.stdin.write(sql + "\n")
        self.process.stdin.flush()
        return self.line()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()  # and what it started
        self.process.communicate()


def application():
    return Container(sys.executable, "-c", APPLICATION)


@contextlib.contextmanager
def server():
    with Container(PROGRAM, "serve", "app.db", "--listen", "ipc://socket", "--json") as container:
        while '"ready"' not in container.line():
            pass
        yield container


def need_namespaces():
    done = subprocess.run([*CONTAINER, "true"], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Skip(f"no namespaces of our own here ({done.stderr.strip()})")


def insert(who, text):
    """It is in the log then."""
    answer = who.do(f"INSERT INTO t(b) VALUES('{text}')")
    check(answer == "[]", answer)
    answer = who.do("PRAGMA hyperwal_seq")
    check(not answer.startswith("error"), answer)
    return int(answer.strip("[](),'"))


def all_is_logged(rows):
    """Whoever restores the log has them all."""
    run("verify", "app.db", "--deep")
    run("restore", "app.db", "restored.db")
    check(dump("restored.db") == dump("app.db"), "the log differs")
    check(sum('INSERT INTO "t"' in line for line in dump("restored.db")) == rows, "rows are missing")


def an_application_and_its_server_have_the_same_number(dir):
    need_namespaces()
    make("app.db", 10)
    for first in (application, server):
        with contextlib.ExitStack() as stack:
            one = stack.enter_context(first())
            if first is application:
                insert(one, "alone")
                stack.enter_context(server())
                app = one
            else:
                app = stack.enter_context(application())
            for i in range(3):
                insert(app, f"row {i}")
    all_is_logged(10 + 1 + 3 + 3)


def two_applications_have_the_same_number(dir):
    need_namespaces()
    make("app.db", 10)
    with application() as one, application() as other:
        for i in range(5):
            insert(one, f"one {i}")
            insert(other, f"other {i}")
        one.__exit__()  # killed: the other one is the worker then
        insert(other, "last")
    all_is_logged(10 + 11)


def who_has_the_role_gives_it_to_another_with_its_number(dir):
    need_namespaces()
    make("app.db", 10)
    with server(), application() as app:
        insert(app, "shared")
        check(app.do("PRAGMA locking_mode = EXCLUSIVE") == "[('exclusive',)]", "not asked for")
        check(fact("status", "app.db")["worker_pid"] == 1, "the number where it lives")
        until(lambda: app.do("INSERT INTO t(b) VALUES('asks')") == "[]", "the role is given")
        insert(app, "alone")
    all_is_logged(10 + 3)


TESTS = (an_application_and_its_server_have_the_same_number, two_applications_have_the_same_number,
         who_has_the_role_gives_it_to_another_with_its_number)

if __name__ == "__main__":
    test_network.TESTS = TESTS
    sys.exit(test_network.main(sys.argv[1:]))
