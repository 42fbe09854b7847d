#!/usr/bin/python3
"""Commits that wait for real followers: applications that serve themselves, and `hyperwal follow`.

HW_BUILD names the build directory.  One line a test: "ok NAME", "not ok NAME: why", "skip NAME: why".
"""
import contextlib
import json
import os
import queue
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
EXTENSION = os.path.join(BUILD, "hyperwal.so")
PROGRAM = os.path.join(BUILD, "hyperwal")
UNCONFIRMED = 1 | 200 << 8
DEADLINE = 60  # seconds, for what takes a fraction of one

# A process with one connection: a line is a statement, the answer its rows or its error.
ACTOR = r"""
import json, os, sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
db = sqlite3.connect(sys.argv[1], uri=True, isolation_level=None, timeout=60)
print("open", flush=True)
for line in sys.stdin:
    try:
        answer = {"rows": db.execute(json.loads(line)).fetchall()}
    except sqlite3.Error as error:
        answer = {"error": str(error), "code": error.sqlite_errorcode}
    print(json.dumps(answer), flush=True)
db.close()
"""


class Unconfirmed(Exception):
    pass


class Process:
    """A child whose lines are read by a thread, so that each has a deadline."""

    def __init__(self, world, *words):
        self.child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, env=world.environment)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        world.processes.append(self)

    def read(self):
        for line in self.child.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self):
        line = self.lines.get(timeout=DEADLINE)
        assert line is not None, "%s ended with %s" % (self.child.args[:3], self.child.wait())
        return line

    def signal(self, number):
        self.child.send_signal(number)

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()

    def close(self):
        """An orderly end."""
        self.child.stdin.close()
        assert self.child.wait(timeout=DEADLINE) == 0, self.child.returncode


class App(Process):
    """An application with a connection to `path`."""

    def __init__(self, world, path, parameters=""):
        if "timeout=" not in parameters:
            parameters += "&timeout=%d000" % DEADLINE
        super().__init__(world, sys.executable, "-c", ACTOR,
                         "file:%s?vfs=hyperwal%s" % (path, parameters))
        opened = self.line()
        if opened != "open":
            rest = [opened] + list(iter(lambda: self.lines.get(timeout=DEADLINE), None))
            raise AssertionError("it does not open: " + rest[-1])

    def send(self, sql):
        self.child.stdin.write(json.dumps(sql) + "\n")
        self.child.stdin.flush()

    def answer(self):
        answer = json.loads(self.line())
        if answer.get("code") == UNCONFIRMED:
            raise Unconfirmed()
        assert "error" not in answer, answer
        return answer["rows"]

    def run(self, sql):
        self.send(sql)
        return self.answer()

    def fails(self, sql):
        """The code that the statement fails with."""
        self.send(sql)
        return json.loads(self.line()).get("code")

    def status(self):
        return json.loads(self.run("PRAGMA hyperwal_status")[0][0])

    def peers(self):
        """The followers that are connected."""
        return [peer for peer in self.status()["peers"] if peer["connected"]]

    def seq(self):
        return int(self.run("PRAGMA hyperwal_seq")[0][0])


class World:
    """A directory, an identity, and processes that end with it."""

    def __init__(self, directory):
        self.directory = directory
        self.processes = []
        self.environment = dict(os.environ, EXTENSION=EXTENSION,
                                HYPERWAL_IDENTITY=directory + "/identity")

    def path(self, name):
        return os.path.join(self.directory, name)

    def serve(self, parameters=""):
        """An application that serves app.db -> it, and the URL."""
        app = App(self, self.path("app.db"), "&listen=tcp://127.0.0.1:0" + parameters)
        app.run("CREATE TABLE IF NOT EXISTS t(v)")
        app.seq()
        return app, app.status()["listen"][0]

    def follow(self, url, name):
        return Process(self, PROGRAM, "follow", url, self.path(name))

    def end(self):
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.signal(signal.SIGCONT)
                process.kill()


def rows(path):
    """What a stock SQLite reads in the replica."""
    with contextlib.closing(sqlite3.connect("file:%s?mode=ro" % path, uri=True)) as db:
        return [row[0] for row in db.execute("SELECT v FROM t ORDER BY v")]


def insert(value):
    return "INSERT INTO t VALUES(%d)" % value


# ------------------------------------------------------------------------------------- tests


def a_commit_with_remote_apply_is_visible_when_it_returns(world):
    app, url = world.serve("&durability=remote_apply&timeout=%d000" % DEADLINE)
    world.follow(url, "replica.db")
    for value in range(50):
        app.run(insert(value))
        assert rows(world.path("replica.db")) == list(range(value + 1)), value
    app.close()


def what_was_acknowledged_survives_the_primary_in_the_follower(world):
    app, url = world.serve("&durability=remote&timeout=%d000" % DEADLINE)
    follower = world.follow(url, "replica.db")
    for value in range(200):
        app.run(insert(value))
    app.kill()
    follower.kill()
    shutil.rmtree(world.path("app.db-hyper"))
    done = subprocess.run([PROGRAM, "restore", world.path("replica.db"), world.path("out.db")],
                          capture_output=True, text=True, timeout=DEADLINE,
                          env=world.environment)
    assert done.returncode == 0, done.stderr
    assert rows(world.path("out.db")) == list(range(200))


def without_a_follower_the_timeout_decides_and_with_one_it_goes_on(world):
    app, url = world.serve("&durability=remote&timeout=%d000" % DEADLINE)
    hasty = App(world, world.path("app.db"), "&durability=remote&timeout=200")
    assert hasty.fails(insert(1)) == UNCONFIRMED
    assert hasty.status()["unconfirmed"]["count"] == 1
    follower = world.follow(url, "replica.db")
    app.run(insert(2))
    follower.signal(signal.SIGSTOP)
    assert hasty.fails(insert(3)) == UNCONFIRMED
    follower.signal(signal.SIGCONT)
    app.run(insert(4))
    follower.kill()
    wait_for_peers(app, 0)
    assert hasty.fails(insert(5)) == UNCONFIRMED
    assert app.run("SELECT count(*) FROM t") == [[5]]
    hasty.close()
    app.close()


def wait_for_peers(app, count):
    end = time.monotonic() + DEADLINE
    while len(app.peers()) != count:
        assert time.monotonic() < end, app.status()


def as_many_followers_as_asked_for_must_confirm(world):
    app, url = world.serve("&durability=remote&replicas=2&timeout=%d000" % DEADLINE)
    first = world.follow(url, "first.db")
    world.follow(url, "second.db")
    app.run(insert(1))
    peers = app.peers()
    assert len(peers) == 2, peers
    assert all(peer["durable_seq"] >= app.seq() for peer in peers), peers
    app.run("PRAGMA hyperwal_durability=async")
    second = App(world, world.path("app.db"), "&durability=remote&replicas=2&timeout=300")
    first.kill()
    wait_for_peers(app, 1)
    assert second.fails(insert(2)) == UNCONFIRMED
    second.close()
    app.close()


def processes_that_do_not_serve_wait_for_followers_of_one_that_does(world):
    app, url = world.serve()
    world.follow(url, "replica.db")
    writers = [App(world, world.path("app.db"),
                   "&durability=remote_apply&timeout=%d000" % DEADLINE) for _ in range(3)]
    for writer in writers:
        writer.run("PRAGMA busy_timeout=%d000" % DEADLINE)
    for value in range(20):
        for i, writer in enumerate(writers):
            writer.send(insert(10 * value + i))
        for writer in writers:
            writer.answer()
    assert len(rows(world.path("replica.db"))) == 60
    for writer in writers:
        writer.close()
    app.close()


def a_daemon_serves_for_applications_that_wait(world):
    app = App(world, world.path("app.db"), "&durability=remote&timeout=%d000" % DEADLINE)
    app.run("CREATE TABLE t(v)")
    app.seq()
    daemon = Process(world, PROGRAM, "serve", "--listen", "tcp://127.0.0.1:0",
                     world.path("app.db"))
    url = daemon.line().split()[2]
    assert daemon.line() == "ready"
    follower = world.follow(url, "replica.db")
    for value in range(30):
        app.run(insert(value))
    app.run("PRAGMA hyperwal_durability=remote_apply")
    app.run(insert(30))
    assert rows(world.path("replica.db")) == list(range(31))
    app.close()  # the daemon goes on
    app = App(world, world.path("app.db"), "&durability=remote_apply&timeout=%d000" % DEADLINE)
    app.run(insert(31))
    assert rows(world.path("replica.db")) == list(range(32))
    follower.kill()
    daemon.kill()
    app.close()


def a_commit_that_waits_gets_another_server_when_the_first_is_killed(world):
    app, url = world.serve("&durability=async")
    port = url.split(":")[2].split("/")[0]
    follower = world.follow(url, "replica.db")
    writer = App(world, world.path("app.db"), "&durability=remote&timeout=%d000" % DEADLINE)
    look = App(world, world.path("app.db"))
    writer.run(insert(1))
    follower.signal(signal.SIGSTOP)
    seq, end = app.seq(), time.monotonic() + DEADLINE
    writer.send(insert(2))
    while app.seq() == seq:  # until it is in the log, and waits
        assert time.monotonic() < end, app.status()
    app.kill()
    assert look.peers() == []
    again = App(world, world.path("app.db"), "&listen=tcp://127.0.0.1:" + port)
    follower.signal(signal.SIGCONT)
    writer.answer()
    for process in (again, look, writer):
        process.close()


def acknowledged_commits_survive_kills_of_both_sides(world):
    chance = random.Random(int(os.environ.get("HYPERWAL_SEED", "1")))
    acknowledged, value, port = [], 0, "0"
    follower = None
    for _ in range(12):
        app = App(world, world.path("app.db"), "&durability=remote&timeout=%d000"
                  "&listen=tcp://127.0.0.1:%s" % (DEADLINE, port))
        app.run("CREATE TABLE IF NOT EXISTS t(v)")
        app.seq()
        port = app.status()["listen"][0].split(":")[2].split("/")[0]
        url = "hyper://127.0.0.1:%s/app.db" % port
        if follower is None:
            follower = world.follow(url, "replica.db")
        for _ in range(chance.randrange(1, 20)):
            app.send(insert(value))
            if chance.random() < 0.1:
                follower.kill()
                follower = world.follow(url, "replica.db")
            app.answer()
            acknowledged.append(value)
            value += 1
        app.send(insert(value))  # may be there or not
        value += 1
        app.kill()
    follower.kill()
    shutil.rmtree(world.path("app.db-hyper"))
    done = subprocess.run([PROGRAM, "restore", world.path("replica.db"), world.path("out.db")],
                          capture_output=True, text=True, timeout=DEADLINE,
                          env=world.environment)
    assert done.returncode == 0, done.stderr
    lost = set(acknowledged) - set(rows(world.path("out.db")))
    assert not lost, lost


def readers_of_a_replica_can_wait_for_what_was_written(world):
    app, url = world.serve()
    follower = world.follow(url, "replica.db")
    app.run("PRAGMA hyperwal_durability=remote_apply")
    app.run(insert(0))
    app.run("PRAGMA hyperwal_durability=async")
    reader = App(world, world.path("replica.db"))
    reader.run("PRAGMA busy_timeout=%d000" % DEADLINE)
    for value in range(1, 100):
        app.run(insert(value))
        reader.run("PRAGMA hyperwal_wait=%d" % app.seq())
        assert reader.run("SELECT count(*) FROM t") == [[value + 1]]
    follower.signal(signal.SIGSTOP)
    app.run(insert(100))
    reader.run("PRAGMA busy_timeout=100")
    assert reader.fails("PRAGMA hyperwal_wait=%d" % app.seq()) == sqlite3.SQLITE_BUSY
    follower.signal(signal.SIGCONT)
    reader.run("PRAGMA busy_timeout=%d000" % DEADLINE)
    reader.run("PRAGMA hyperwal_wait=%d" % app.seq())
    assert reader.run("SELECT count(*) FROM t") == [[101]]
    status = reader.status()
    assert status["role"] == "replica" and status["peers"] == [], status
    reader.close()
    app.close()


def a_replica_is_not_served_by_who_reads_it(world):
    app, url = world.serve("&durability=remote_apply&timeout=%d000" % DEADLINE)
    world.follow(url, "replica.db")
    app.run(insert(1))
    try:
        App(world, world.path("replica.db"), "&listen=tcp://127.0.0.1:0")
    except AssertionError as error:
        assert "unable to open" in str(error), error
    else:
        raise AssertionError("it was opened")
    app.close()


def an_address_that_is_taken_fails_the_open(world):
    app, url = world.serve()
    port = url.split(":")[2].split("/")[0]
    try:
        App(world, world.path("other.db"), "&listen=tcp://127.0.0.1:" + port)
    except AssertionError as error:
        assert "unable to open" in str(error), error
    else:
        raise AssertionError("it was opened")
    app.close()


def a_closed_database_is_served_no_more_and_a_reopened_one_again(world):
    app, url = world.serve()
    port = url.split(":")[2].split("/")[0]
    world.follow(url, "replica.db")
    for value in range(4):
        app.run("PRAGMA hyperwal_durability=remote_apply")
        app.run(insert(value))
        assert rows(world.path("replica.db")) == list(range(value + 1))
        app.close()
        app = App(world, world.path("app.db"),
                  "&timeout=%d000&listen=tcp://127.0.0.1:%s" % (DEADLINE, port))
    app.close()


TESTS = [
    a_commit_with_remote_apply_is_visible_when_it_returns,
    what_was_acknowledged_survives_the_primary_in_the_follower,
    without_a_follower_the_timeout_decides_and_with_one_it_goes_on,
    as_many_followers_as_asked_for_must_confirm,
    processes_that_do_not_serve_wait_for_followers_of_one_that_does,
    a_daemon_serves_for_applications_that_wait,
    a_commit_that_waits_gets_another_server_when_the_first_is_killed,
    acknowledged_commits_survive_kills_of_both_sides,
    readers_of_a_replica_can_wait_for_what_was_written,
    a_replica_is_not_served_by_who_reads_it,
    an_address_that_is_taken_fails_the_open,
    a_closed_database_is_served_no_more_and_a_reopened_one_again,
]


def main():
    failed = 0
    can_load = hasattr(sqlite3.connect(":memory:"), "enable_load_extension")
    for test in TESTS:
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        if not can_load:
            print("skip %s: this Python cannot load extensions" % test.__name__)
            continue
        world = World(tempfile.mkdtemp(prefix="hyperwal-durability-"))
        try:
            test(world)
            print("ok " + test.__name__, flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            why = str(error).replace("\n", " ") or type(error).__name__
            print("not ok %s: %s" % (test.__name__, why), flush=True)
            traceback.print_exc()
        finally:
            world.end()
            shutil.rmtree(world.directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
