#!/usr/bin/python3
"""The program, the library and Node peers: what Node gets of a database, and what it gives on.

One line a test (docs/TESTING.md).  Names given as arguments run only those tests.
"""
import contextlib
import hashlib
import json
import os
import select
import shutil
import sqlite3
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import read_log  # noqa: E402
from peers import BUILD, DEADLINE, Node, Process, Proxy, check, main  # noqa: E402

PROGRAM = os.path.join(BUILD, "hyperwal")


class Program(Process):
    def __init__(self, *arguments):
        super().__init__([PROGRAM, *arguments, "--json"],
                         HYPERWAL_IDENTITY=os.path.abspath("identity"))

    def until(self, field, value=None):
        """The next object with this field (and value)."""
        while True:
            line = self.next()
            if field in line and value in (None, line[field]):
                return line


@contextlib.contextmanager
def served(*databases):
    """`hyperwal serve`: port, and the key of each name."""
    with Program("serve", "--listen", "tcp://127.0.0.1:0", *databases) as program:
        program.keys, line = {}, program.next()
        while "ready" not in line:
            program.keys[line["name"]] = line["key"]
            program.port = int(line["url"].split(":")[2].split("/")[0])
            line = program.next()
        yield program


def database(path, **parameters):
    parameters = {"timeout": DEADLINE * 1000, **parameters}  # of PRAGMA hyperwal_seq, for one
    extra = "".join(f"&{name}={value}" for name, value in parameters.items())
    return contextlib.closing(sqlite3.connect(f"file:{path}?vfs=hyperwal{extra}", uri=True,
                                              isolation_level=None, timeout=20))


def make(db, rows):
    db.execute("PRAGMA journal_mode=wal")
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    add(db, rows)


def add(db, rows):
    """One transaction a row; the seq of the last."""
    for i in range(rows):
        db.execute("INSERT INTO t(b) VALUES(?)", (f"row {i} " * 20,))
    return int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])


def dump(path):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)) as db:
        check(db.execute("PRAGMA integrity_check").fetchone() == ("ok",), path)
        return list(db.iterdump())


def wait_for(replica, seq):
    """Until the replica has applied it: the library's own wait."""
    with database(replica) as db:
        db.execute(f"PRAGMA hyperwal_wait = {seq}").fetchall()


def log_hashes(path):
    """Of the blocks in the log's files, as docs/FORMAT.md has them."""
    return [None if block is None else hashlib.blake2b(block, digest_size=32).hexdigest()
            for block in read_log.Log(path + "-hyper").blocks]


def has_all(node, name, path):
    """And maybe more: a server that is not the worker commits nothing at times, but an entry."""
    hashes = log_hashes(path)
    node.call("whole", name=name, length=len(hashes))
    found = node.hashes(name)
    check(len(found) >= len(hashes), len(found), len(hashes))
    for i, pair in enumerate(zip(found, hashes)):
        check(pair[0] == pair[1], f"block {i}", pair)


def node_follows_a_served_database_live():
    with database("app.db") as db, Node("js") as node:
        make(db, 500)
        with served("app.db") as server:
            node.call("open", name="a", key=server.keys["app.db"])
            node.call("connect", port=server.port)
            has_all(node, "a", "app.db")
            for _ in range(10):
                add(db, 20)
                has_all(node, "a", "app.db")


def node_follows_several_databases_over_one_connection():
    names = ["one.db", "two.db", "three.db"]
    with Node("js") as node:
        for i, name in enumerate(names):
            with database(name) as db:
                make(db, 50 * (i + 1))
        with served(*names) as server:
            for name in names:
                node.call("open", name=name, key=server.keys[name])
            node.call("connect", port=server.port)
            for name in names:
                has_all(node, name, name)


def node_follows_a_database_served_from_inside_its_application():
    with database("app.db", listen="tcp://127.0.0.1:0") as db, Node("js") as node:
        make(db, 200)
        status = json.loads(db.execute("PRAGMA hyperwal_status").fetchone()[0])
        url = json.dumps(status).split("127.0.0.1:")[1]
        node.call("open", name="a", key=status["key"])
        node.call("connect", port=int(url[:len(url) - len(url.lstrip("0123456789"))]))
        has_all(node, "a", "app.db")
        add(db, 50)
        has_all(node, "a", "app.db")


def a_follower_reads_from_a_mirror_of_node_alone():
    with database("app.db") as db, Node("js") as node:
        make(db, 300)
        with served("app.db") as server:
            key = server.keys["app.db"]
            node.call("open", name="a", key=key)
            node.call("connect", port=server.port)
            has_all(node, "a", "app.db")
            with Program("follow", f"hyper://127.0.0.1:{node.listen()}/{key}",
                         "replica.db") as follower:
                follower.until("event", "live")
                check(dump("replica.db") == dump("app.db"))
                for _ in range(5):  # live, through the mirror
                    wait_for("replica.db", add(db, 10))
                check(dump("replica.db") == dump("app.db"))


def a_mirror_of_node_is_enough_when_the_primary_is_gone():
    with Node("js") as node:
        with database("app.db") as db:
            make(db, 300)
        with served("app.db") as server:
            key = server.keys["app.db"]
            node.call("open", name="a", key=key)
            node.call("connect", port=server.port)
            has_all(node, "a", "app.db")
        port = node.listen()
        done = subprocess.run([PROGRAM, "follow", f"hyper://127.0.0.1:{port}/{key}", "replica.db",
                               "--once"], capture_output=True, text=True, timeout=60, check=False,
                              env=dict(os.environ, HYPERWAL_IDENTITY=os.path.abspath("identity")))
        check(done.returncode == 0, done.stderr)
        check(dump("replica.db") == dump("app.db"))


def node_follows_a_follower_that_serves():
    with database("app.db") as db, Node("js") as node:
        make(db, 100)
        with served("app.db") as server:
            key = server.keys["app.db"]
            source = f"hyper://127.0.0.1:{server.port}/app.db"
            with Program("follow", source, "replica.db", "--listen",
                         "tcp://127.0.0.1:0") as follower:
                url = follower.until("event", "serving")["url"]
                follower.until("event", "live")
                node.call("open", name="a", key=key, sparse=True)
                node.call("connect", port=int(url.split(":")[2].split("/")[0]))
                seq = add(db, 30)
                wait_for("replica.db", seq)
                hashes = log_hashes("app.db")
                for index in range(len(hashes) - 20, len(hashes)):
                    got = node.call("get", name="a", index=index)
                    check(got["hash"] == hashes[index], index)


def a_follower_of_a_mirror_of_node_bears_cuts():
    with database("app.db") as db, Node("js") as node:
        make(db, 400)
        with served("app.db") as server:
            key = server.keys["app.db"]
            node.call("open", name="a", key=key)
            node.call("connect", port=server.port)
            has_all(node, "a", "app.db")
        cuts = [300, 900, 2000, 5000, 9000, 20000]
        with Proxy(node.listen(), lambda n: cuts[n] if n < len(cuts) else None) as proxy:
            with Program("follow", f"hyper://127.0.0.1:{proxy.port}/{key}",
                         "replica.db") as follower:
                follower.until("event", "live")
                check(dump("replica.db") == dump("app.db"))
            check(proxy.connections > 3, proxy.connections)


def a_mirror_of_node_stops_a_log_that_was_put_back():
    """It has more than the log that signed it, and proves it when it is asked."""
    with database("app.db") as db:
        make(db, 50)
    shutil.copytree("app.db-hyper", "backup")
    shutil.copy("app.db", "backup.db")
    with Node("js") as node:
        with served("app.db") as server:
            node.call("open", name="a", key=server.keys["app.db"])
            node.call("connect", port=server.port)
            with database("app.db") as db:
                add(db, 20)
            has_all(node, "a", "app.db")
        node.call("drop")
        more = len(node.hashes("a"))
        names = [("backup.db", "app.db")]
        names += [(f"backup/{name}", f"app.db-hyper/{name}") for name in os.listdir("backup")]
        for old, path in names:  # into the same files
            with open(old, "rb") as source, open(path, "r+b") as file:
                file.truncate()
                shutil.copyfileobj(source, file)
        for name in ("app.db-wal", "app.db-shm"):  # of the server, which was killed
            if os.path.exists(name):
                os.remove(name)
        with served("app.db") as server:
            node.call("connect", port=server.port)
            deadline = time.monotonic() + DEADLINE
            while not os.path.exists("app.db-hyper/overtaken"):
                check(time.monotonic() < deadline, "it was not told")
                select.select([], [], [], 0.02)
            with open("app.db-hyper/overtaken", "rb") as file:
                fork, length = struct.unpack_from("<QQ", file.read(), 16)
            check((fork, length) == (0, more), fork, length, more)


def node_goes_on_when_the_log_is_pruned():
    with database("app.db") as db, Node("js") as node:
        make(db, 100)
        with served("app.db") as server:
            node.call("open", name="a", key=server.keys["app.db"])
            node.call("connect", port=server.port)
            has_all(node, "a", "app.db")
            db.execute("PRAGMA hyperwal_snapshot").fetchall()
            seq = add(db, 10)
            length = len(log_hashes("app.db"))
            subprocess.run([PROGRAM, "prune", "app.db", "--keep", str(seq)], check=True,
                           capture_output=True, timeout=60)
            check(None in log_hashes("app.db"), "something was pruned")
            add(db, 20)  # over the same connection
            hashes = log_hashes("app.db")
            node.call("whole", name="a", length=len(hashes))
            check(node.hashes("a")[length:len(hashes)] == hashes[length:], "what is new")


TESTS = [
    node_follows_a_served_database_live,
    node_follows_several_databases_over_one_connection,
    node_follows_a_database_served_from_inside_its_application,
    a_follower_reads_from_a_mirror_of_node_alone,
    a_mirror_of_node_is_enough_when_the_primary_is_gone,
    node_follows_a_follower_that_serves,
    a_follower_of_a_mirror_of_node_bears_cuts,
    a_mirror_of_node_stops_a_log_that_was_put_back,
    node_goes_on_when_the_log_is_pruned,
]

if __name__ == "__main__":
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(os.path.join(BUILD, "hyperwal.so"))
    sys.exit(main(TESTS, sys.argv[1:]))
