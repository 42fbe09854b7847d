#!/usr/bin/python3
"""The program `hyperwal` over a network of one machine: servers, followers, real sockets.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.
"""

import contextlib
import json
import os
import queue
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from random import Random

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
PROGRAM = os.path.join(BUILD, "hyperwal")
EXTENSION = os.path.join(BUILD, "hyperwal.so")
LONG = 60  # seconds: nothing here takes so long unless it hangs


class Skip(Exception):
    pass


def check(condition, *facts):
    if not condition:
        raise AssertionError("; ".join(str(fact) for fact in facts))


def run(*args, code=0, **options):
    """Run the program; the result has stdout and stderr.  Another exit code than `code` is a failure."""
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=LONG,
                          stdin=subprocess.DEVNULL, **options)
    check(done.returncode == code, f"hyperwal {args}: exit {done.returncode}, expected {code}",
          done.stdout[-300:], done.stderr[-600:])
    return done


def facts(*args):
    """The objects that a verb prints with --json."""
    return [json.loads(line) for line in run(*args, "--json").stdout.splitlines()]


def fact(*args):
    lines = facts(*args)
    check(len(lines) == 1, lines)
    return lines[0]


class Process:
    """The program in the background."""

    def __init__(self, *args, environment=None):
        self.args = args
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([PROGRAM, *map(str, args)], stdout=subprocess.PIPE,
                                        stderr=self.errors, stdin=subprocess.DEVNULL,
                                        env={**os.environ, **(environment or {})})
        self.pending = b""

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def line(self, start):
        """The next line of output that begins with `start`."""
        deadline = time.monotonic() + LONG
        while True:
            while b"\n" in self.pending:
                line, self.pending = self.pending.split(b"\n", 1)
                if line.decode().startswith(start):
                    return line.decode()
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            check(more, f"{self.args}: no line {start!r}", self.said()[-900:])
            self.pending += more

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Ask it to end; it must end with 0."""
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(timeout=LONG) == 0, f"{self.args} ended with {self.process.returncode}",
              self.said()[-600:])


@contextlib.contextmanager
def background(*args, **options):
    process = Process(*args, **options)
    try:
        yield process
        if process.process.poll() is None:
            process.end()
    finally:
        if process.process.poll() is None:
            process.kill()
        process.process.stdout.close()
        process.errors.close()


@contextlib.contextmanager
def server(*args, listen="tcp://127.0.0.1:0", **options):
    """`hyperwal serve --listen`, ready; .urls has the URL of each name."""
    with background("serve", "--listen", listen, *args, "--json", **options) as process:
        process.urls = {}
        while True:
            told = json.loads(process.line("{"))
            if "ready" in told:
                break
            process.urls[told["name"]] = told["url"]
        yield process


@contextlib.contextmanager
def follower(*args, **options):
    with background("follow", *args, **options) as process:
        yield process


def load_extension():
    connection = sqlite3.connect(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(EXTENSION)
    return connection


@contextlib.contextmanager
def unreadable(path):
    """It is there, and cannot be opened, as with too many files open: also by root."""
    os.rename(path, f"{path}.aside")
    os.symlink(os.path.basename(path), path)
    try:
        yield
    finally:
        os.replace(f"{path}.aside", path)


def through_vfs(path, **parameters):
    parameters = {"timeout": LONG * 1000, **parameters}  # of PRAGMA hyperwal_seq, for one
    extra = "".join(f"&{name}={value}" for name, value in parameters.items())
    return sqlite3.connect(f"file:{path}?vfs=hyperwal{extra}", uri=True, isolation_level=None,
                           timeout=20)


def stock(path):
    return sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None, timeout=20)


def dump(path):
    with contextlib.closing(stock(path)) as db:
        check(db.execute("PRAGMA integrity_check").fetchone() == ("ok",), path, "integrity")
        return list(db.iterdump())


def make(path, rows=100):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
        with db:
            db.execute("BEGIN")
            db.executemany("INSERT INTO t(b) VALUES(?)", ((f"row {i}" * 5,) for i in range(rows)))
    run("init", path)


def add(path, *texts):
    """One transaction a text, through the VFS; the seq of the last."""
    with contextlib.closing(through_vfs(path)) as db:
        for text in texts:
            db.execute("INSERT INTO t(b) VALUES(?)", (text,))
        return int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])


def wait_for(path, seq):
    """Until the replica has applied `seq`: the library's own wait."""
    with contextlib.closing(through_vfs(path)) as db:
        db.execute(f"PRAGMA busy_timeout = {LONG * 1000}")
        db.execute(f"PRAGMA hyperwal_wait = {seq}").fetchall()


def caught_up(replica, primary="app.db"):
    wait_for(replica, add(primary, "mark"))
    check(dump(replica) == dump(primary), replica, "differs")


def until(condition, what):
    deadline = time.monotonic() + LONG
    while not condition():
        check(time.monotonic() < deadline, "never:", what)
        select.select([], [], [], 0.02)


# ---------------------------------------------------------------------------- the tests


def follows(listen):
    make("app.db")
    with server("app.db", listen=listen) as primary:
        url = primary.urls["app.db"]
        with follower(url, "r.db") as live:
            live.line("r.db: live")
            check(dump("r.db") == dump("app.db"), "first")
            for i in range(20):
                wait_for("r.db", add("app.db", f"live {i}"))
                check(dump("r.db") == dump("app.db"), i)
            try:
                with contextlib.closing(sqlite3.connect("r.db", timeout=0)) as db:
                    db.execute("DELETE FROM t")
                raise AssertionError("somebody else wrote into the replica")
            except sqlite3.OperationalError:
                pass
        return url


def a_follower_is_live_over_tcp(dir):
    url = follows("tcp://127.0.0.1:0")
    check(re.fullmatch(r"hyper://127\.0\.0\.1:\d+/app\.db", url), url)


def a_follower_is_live_over_ipc(dir):
    check(follows(f"ipc://{dir}/socket") == f"ipc://{dir}/socket/app.db", "url")


def a_follower_is_live_over_websocket(dir):
    url = follows("ws://127.0.0.1:0/hyperwal")
    check(re.fullmatch(r"ws://127\.0\.0\.1:\d+/hyperwal/app\.db", url), url)


def a_server_can_be_asked_by_key(dir):
    make("app.db")
    with server("app.db") as primary:
        base = primary.urls["app.db"].rsplit("/", 1)[0]
        key = run("key", "app.db").stdout.strip()
        run("follow", f"{base}/{key}", "r.db", "--once")
        check(dump("r.db") == dump("app.db"), "by key")


def a_server_that_is_killed_is_found_again(dir):
    make("app.db")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        with follower(url, "r.db") as live:
            live.line("r.db: live")
            primary.kill()
            until(lambda: "event=source_lost" in live.said(), "a word of it")
            seq = add("app.db", "while it was down")
            with server("app.db", listen="tcp://" + url.split("/")[2]):
                wait_for("r.db", seq)
                caught_up("r.db")


def a_follower_that_is_killed_goes_on_where_it_was(dir):
    make("app.db", 2000)
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        for i in range(5):
            with follower(url, "r.db") as live:
                live.line("r.db: live")
                wait_for("r.db", add("app.db", f"before kill {i}"))
                live.kill()
            add("app.db", f"after kill {i}")
        with follower(url, "r.db") as live:
            live.line("r.db: live")
            caught_up("r.db")
        run("verify", "r.db")


def a_follower_starts_while_its_source_is_down(dir):
    make("app.db")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once")
        seq = add("app.db", "before the server went")
        run("follow", url, "r.db", "--once")
    with follower(url, "r.db") as live:
        live.line("r.db: live")
        check(dump("r.db") == dump("app.db"), "offline")
        seq = add("app.db", "meanwhile")
        with server("app.db", listen="tcp://" + url.split("/")[2]):
            wait_for("r.db", seq)


def a_follower_whose_id_cannot_be_read_keeps_it(dir):
    def id():
        with open("r.db-hyper/id", "rb") as file:
            return file.read()

    make("app.db")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once")
        before = id()
        with unreadable("r.db-hyper/id"):
            error = run("follow", url, "r.db", "--once", code=1).stderr
            check("r.db-hyper/id" in error, error)
        run("follow", url, "r.db", "--once")
        check(id() == before, "servers know it again")


def a_follower_feeds_another(dir):
    make("app.db", 1000)
    with server("app.db") as primary:
        with follower(primary.urls["app.db"], "one.db", "--listen", "tcp://127.0.0.1:0", "--name",
                      "copy") as one:
            name, key, url = one.line("copy ").split(" ")
            check(key == run("key", "app.db").stdout.strip(), key)
            one.line("one.db: live")
            with follower(url, "two.db", "--listen", f"ipc://{dir}/two") as two:
                two.line("two.db: live")
                with follower(f"ipc://{dir}/two/two.db", "three.db") as three:
                    three.line("three.db: live")
                    for i in range(5):
                        seq = add("app.db", f"chain {i}")
                        for path in ("one.db", "two.db", "three.db"):
                            wait_for(path, seq)
                            check(dump(path) == dump("app.db"), path)


def a_follower_of_a_local_log_serves_it(dir):
    make("app.db")
    with follower("app.db", "one.db", "--listen", "tcp://127.0.0.1:0") as one:
        url = one.line("one.db ").split(" ")[2]
        one.line("one.db: live")
        with follower(url, "two.db") as two:
            two.line("two.db: live")
            caught_up("two.db")


def a_replica_is_served_as_far_as_it_is_there(dir):
    make("app.db", 500)
    with server("app.db") as primary:
        run("follow", primary.urls["app.db"], "r.db", "--once")
    with server("r.db") as second:
        run("follow", second.urls["r.db"], "s.db", "--once")
    check(dump("s.db") == dump("app.db"), "from a replica")
    check("replica" in run("serve", "r.db", code=1).stderr, "without --listen")


def a_mirror_is_followed_on_its_own_machine(dir):
    make("app.db", 500)
    with server("app.db") as primary:
        with follower(primary.urls["app.db"], "one.db") as one:
            one.line("one.db: live")
            with follower("one.db", "two.db") as two:
                two.line("two.db: live")
                for i in range(20):
                    wait_for("two.db", add("app.db", *(f"local {i} {j}" for j in range(10))))
                check(dump("two.db") == dump("app.db"), "live")
        run("follow", "one.db", "three.db", "--once")
        check(dump("three.db") == dump("app.db"), "once")


def databases_that_appear_are_served(dir):
    os.mkdir("dbs")
    make("dbs/one.db")
    with server("dbs") as primary:
        base = primary.urls["one.db"].rsplit("/", 1)[0]
        with contextlib.closing(sqlite3.connect("dbs/two words.db", isolation_level=None,
                                                timeout=20)) as db:
            db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
            db.execute("INSERT INTO t(b) VALUES('later')")
        told = json.loads(primary.line('{"name": "two_words.db"'))
        check(told["url"] == f"{base}/two_words.db", told)
        with follower(told["url"], "r.db") as live:
            live.line("r.db: live")
            caught_up("r.db", "dbs/two words.db")
        for suffix in ("", "-wal", "-shm"):
            os.remove("dbs/two words.db" + suffix)
        until(lambda: "knows no" in subprocess.run([PROGRAM, "status", told["url"]], text=True, check=False,
                                                   capture_output=True, timeout=LONG).stderr, "removed")


def a_follower_of_an_empty_database_waits_for_it(dir):
    open("app.db", "wb").close()
    run("init", "app.db")
    with server("app.db") as primary:
        with follower(primary.urls["app.db"], "r.db") as live:
            with contextlib.closing(through_vfs("app.db")) as db:
                db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
            live.line("r.db: live")
            caught_up("r.db")


def a_late_follower_fetches_what_it_needs_alone(dir):
    make("app.db", 3000)
    add("app.db", *(f"early {i}" * 40 for i in range(300)))
    run("snapshot", "app.db")
    add("app.db", "late")
    with server("app.db") as primary:
        run("follow", primary.urls["app.db"], "r.db", "--once")
    check(dump("r.db") == dump("app.db"), "late follower")
    types = [entry["type"] for entry in facts("log", "r.db")]
    check("missing" in types and "snapshot" in types, types[:5], types[-5:])
    whole, here = fact("status", "app.db"), fact("status", "r.db")
    check(here["seq"] == whole["seq"] and here["lag"] == 0, here)
    held = sum(entry["blocks"] for entry in facts("log", "r.db") if entry["type"] != "missing")
    check(held < whole["length"] - 250, held, whole["length"])


def a_follower_uses_the_source_that_is_left(dir):
    make("app.db", 500)
    with server("app.db") as first, server("app.db") as second:
        with follower(first.urls["app.db"], "r.db", "--also", second.urls["app.db"]) as live:
            live.line("r.db: live")
            caught_up("r.db")
            first.kill()
            caught_up("r.db")
            with server("app.db", listen="tcp://" + first.urls["app.db"].split("/")[2]):
                second.kill()
                caught_up("r.db")


def a_follower_waits_for_a_source_that_has_what_it_needs(dir):
    """It is to be repaired from blocks that neither its mirror has nor the only source that is up."""
    make("app.db", 500)
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        for path in ("r.db", "one.db"):
            run("follow", url, path, "--once")
            with open(f"{path}-hyper/have", "r+b") as bits:
                bits.write(b"\1" + bytes(os.path.getsize(f"{path}-hyper/have") - 1))
    with contextlib.closing(stock("r.db")) as db:
        db.execute("DELETE FROM t")
    with server("one.db") as one:
        with follower(one.urls["one.db"], "r.db", "--also", url) as live:
            until(lambda: "waiting for a source" in live.said(), "it says that nobody has it")
            select.select([], [], [], 3)
            with server("app.db", listen="tcp://" + url.split("/")[2]):
                caught_up("r.db")
            check(live.said().count("waiting for a source") == 1, live.said()[-900:])


def a_follower_behind_the_pruned_part_starts_over(dir):
    make("app.db", 500)
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once")
        add("app.db", *(f"unseen {i}" for i in range(200)))
        run("snapshot", "app.db")
        seq = add("app.db", "newest")
        run("prune", "app.db", "--keep", seq)
        check(fact("status", "app.db")["first_kept"] > 100, "nothing was pruned")
        with follower(url, "r.db") as live:
            wait_for("r.db", seq)
            check(dump("r.db") == dump("app.db"), "after the prune")
            caught_up("r.db")
        run("follow", url, "new.db", "--once")
        check(dump("new.db") == dump("app.db"), "a new one")
    run("verify", "r.db")


def swap_in_an_older_copy():
    """What an operator does who restored a backup of database and log and goes on from there."""
    for path in ("app.db", "app.db-hyper"):
        os.rename(path, "lost-" + path)
        os.rename("copy-" + path, path)
    for suffix in ("-wal", "-shm"):
        if os.path.exists("app.db" + suffix):
            os.remove("app.db" + suffix)
    run("init", "app.db", "--adopt")


def a_log_that_goes_on_from_a_backup_takes_its_followers_along(dir):
    make("app.db")
    add("app.db", "kept")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once")
        run("follow", url, "live.db", "--once")
    shutil.copy("app.db", "copy-app.db")
    shutil.copytree("app.db-hyper", "copy-app.db-hyper")
    seq = add("app.db", *(f"lost {i}" for i in range(20)))
    with server("app.db", listen="tcp://" + url.split("/")[2]):
        run("follow", url, "r.db", "--once")
        check(dump("r.db") == dump("app.db"), "before")
        run("follow", url, "live.db", "--once")
    with follower(url, "live.db") as live:
        live.line("live.db: live")
        wait_for("live.db", seq)
        swap_in_an_older_copy()
        with server("app.db", listen="tcp://" + url.split("/")[2]):
            until(lambda: dump("live.db") == dump("app.db"), "a live follower on the shorter log")
            run("follow", url, "r.db", "--once")
            check(dump("r.db") == dump("app.db"), "on the shorter log")
            seq = add("app.db", *(f"new {i}" for i in range(30)))
            wait_for("live.db", seq)
            check(dump("live.db") == dump("app.db"), "a live follower on the longer one")
            run("follow", url, "r.db", "--once")
            check(dump("r.db") == dump("app.db"), "on the longer one")
    run("verify", "r.db")


def anybody_may_be_killed_at_any_time(dir):
    make("app.db", 300)
    random = Random(4970)
    with contextlib.ExitStack() as stack, contextlib.closing(through_vfs("app.db")) as db:
        first = server("app.db")
        running = {"server": stack.enter_context(first)}
        url = running["server"].urls["app.db"]
        listen = "tcp://" + url.split("/")[2]
        chain = f"ipc://{dir}/chain"
        again = {
            "server": lambda: server("app.db", listen=listen),
            "one": lambda: follower(url, "one.db", "--listen", chain, "--name", "one"),
            "two": lambda: follower(f"{chain}/one", "two.db", "--also", url),
        }
        for name in ("one", "two"):
            running[name] = stack.enter_context(again[name]())
            running[name].line(f"{name}.db: live")
        for i in range(40):
            for j in range(random.randrange(1, 30)):
                db.execute("INSERT INTO t(b) VALUES(?)", (f"{i} {j} " * random.randrange(1, 60),))
            if random.randrange(8) == 0:
                db.execute("PRAGMA hyperwal_snapshot").fetchall()
            name = random.choice(list(again))
            running[name].kill()
            running[name] = stack.enter_context(again[name]())
        seq = db.execute("PRAGMA hyperwal_seq").fetchone()[0]
        for path in ("one.db", "two.db"):
            wait_for(path, seq)
            check(dump(path) == dump("app.db"), path)
    for path in ("one.db", "two.db"):
        run("verify", path)


def a_damaged_mirror_is_mended_from_its_source(dir):
    make("app.db", 500)
    add("app.db", *(f"row {i}" for i in range(50)))
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("follow", url, "whole.db", "--once")
        for name in sorted(os.listdir("whole.db-hyper")):
            size = os.path.getsize("whole.db-hyper/" + name)
            for offset in {0, size // 2, size - 1} if size > 0 else ():
                shutil.copytree("whole.db-hyper", "r.db-hyper")
                shutil.copy("whole.db", "r.db")
                with open("r.db-hyper/" + name, "r+b") as file:
                    file.seek(offset)
                    byte = file.read(1)
                    file.seek(offset)
                    file.write(bytes([byte[0] ^ 0x41]))
                done = subprocess.run([PROGRAM, "follow", url, "r.db", "--once"], timeout=LONG,
                                      capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    check(dump("r.db") == dump("app.db"), name, offset)
                else:  # what names the log cannot be guessed
                    check(name in ("mirror", "replica") and "r.db-hyper" in done.stderr, name, offset,
                          done.returncode, done.stderr)
                for suffix in ("", "-wal", "-shm"):
                    if os.path.exists("r.db" + suffix):
                        os.remove("r.db" + suffix)
                shutil.rmtree("r.db-hyper")


def only_who_is_allowed_comes_in(dir):
    make("app.db")
    one = {"HYPERWAL_IDENTITY": os.path.join(dir, "one")}
    two = {"HYPERWAL_IDENTITY": os.path.join(dir, "two")}
    lines = run("key", env={**os.environ, **one}).stdout.split()
    check(re.fullmatch("[0-9a-f]{64}", lines[0]) and re.fullmatch("[a-z1-9]{52}", lines[1]), lines)
    check(os.stat("one").st_mode & 0o777 == 0o600, "mode")
    for key in lines:
        with server("--allow", key, "app.db") as primary:
            url = primary.urls["app.db"]
            run("follow", url, "r.db", "--once", env={**os.environ, **one})
            error = run("follow", url, "s.db", "--once", code=1, env={**os.environ, **two}).stderr
            check("refuse" in error or "allow" in error, error)
            check(not os.path.exists("s.db-hyper"), "something was left")
            until(lambda: "refused" in primary.said(), "the server says so")
    check("allow" in run("serve", "--listen", "tcp://0.0.0.0:0", "app.db", code=1).stderr, "wide open")
    with server("--allow", "any", "app.db", listen="tcp://0.0.0.0:0") as primary:
        run("status", primary.urls["app.db"].replace("0.0.0.0", "127.0.0.1"))
    check("--listen" in run("serve", "--allow", "any", "app.db", code=2).stderr, "allow alone")
    check("key" in run("serve", "--listen", "tcp://127.0.0.1:0", "--allow", "x", "app.db",
                       code=2).stderr, "bad key")


def errors_say_what_is_wrong(dir):
    make("app.db")
    make("other.db")
    with server("app.db", "other.db") as primary:
        base = primary.urls["app.db"].rsplit("/", 1)[0]
        for args in (["follow", f"{base}/ap.db", "r.db"], ["status", f"{base}/ap.db"],
                     ["log", f"{base}/ap.db"], ["restore", f"{base}/ap.db", "o.db"]):
            error = run(*args, code=1).stderr
            check("ap.db" in error and "app.db" in error and "other.db" in error, args, error)
        for args in (["label", f"{base}/app.db", "x"], ["snapshot", f"{base}/app.db"]):
            error = run(*args, code=1).stderr
            check("where the database is" in error, args, error)
        wrong = "0" * 64
        error = run("status", f"{base}/{wrong}", code=1).stderr
        check("127.0.0.1" in error or wrong in error, error)
        run("follow", f"{base}/app.db", "r.db", "--once")
        error = run("follow", f"{base}/other.db", "r.db", "--once", code=1).stderr
        check("another log" in error or "the log" in error, error)
        check("not a replica" in run("follow", f"{base}/app.db", "other.db", code=1).stderr, "a log")
    for args in (["follow", f"{base}/app.db", "new.db"], ["log", f"{base}/app.db"],
                 ["status", "ipc:///nowhere/socket/app.db"]):
        start = time.monotonic()
        error = run(*args, code=1).stderr
        check("127.0.0.1" in error or "nowhere" in error, args, error)
        check(time.monotonic() - start < 15, args, "took long")
    check(not os.path.exists("new.db-hyper"), "something was left")
    error = run("status", "hyper://no-such-host.invalid/app.db", code=1).stderr  # it may, later
    check("does not resolve" in error, error)
    for url in ("hyper://", "hyper://host", "hyper://host:x/app.db", "hyper://host:99999/app.db",
                "ipc://app.db"):
        check(run("status", url, code=2).stderr, url)
    check(run("serve", "--listen", "udp://127.0.0.1:1", "app.db", code=2).stderr, "scheme")
    with server("app.db") as primary:
        taken = "tcp://" + primary.urls["app.db"].split("/")[2]
        check("in use" in run("serve", "--listen", taken, "other.db", code=1).stderr, "taken")


def names_from_a_server_do_not_steer_the_terminal(dir):
    evil = "evil\x1b[2J\x9b\n.db"
    make(evil)
    with server(evil) as primary:
        base = next(iter(primary.urls.values())).rsplit("/", 1)[0]
        error = run("status", f"{base}/app.db", code=1).stderr
        check("it has evil" in error and error[-1:] == "\n", repr(error))
        check(all(" " <= c <= "~" for c in error[:-1]), repr(error))


def a_name_is_that_of_the_file_that_is_called_so(dir):
    """Rights are given to names: no other database gets it, in whatever order they are found."""
    for path in ("a_b.db", "a b.db"):
        make(path)
    keys = {path: fact("status", path)["key"] for path in ("a_b.db", "a b.db")}
    for paths in (["a_b.db", "a b.db"], ["a b.db", "a_b.db"], ["."]):
        with server(*paths) as primary:
            url = primary.urls["a_b.db"].rsplit("/", 1)[0]
            served = {name["name"]: name["key"] for name in facts("name", "list", url)}
            check(served == {"a_b.db": keys["a_b.db"], "a_b.db-2": keys["a b.db"]}, paths, served)


def status_names_the_followers(dir):
    make("app.db")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        check(fact("status", "app.db")["peers"] == [], "nobody")
        with follower(url, "r.db") as live:
            live.line("r.db: live")
            seq = add("app.db", "one")
            wait_for("r.db", seq)
            # Not ==: a server that was not the worker for a moment commits nothing, but an entry.
            until(lambda: any((peer["applied_seq"] or 0) >= seq and peer["lag"] == 0
                              for peer in fact("status", "app.db")["peers"]), "acknowledged")
            peer, = fact("status", "app.db")["peers"]
            check(peer["key"] == run("key").stdout.split()[0] and peer["connected"], peer)
            check(peer["address"], peer)
            until(lambda: (fact("status", "app.db")["peers"][0]["durable_seq"] or 0) >= seq, "durable")
            check("applied" in run("status", "app.db").stdout, "text")
            names = ("key", "discovery_key", "length", "seq", "sum", "tree_hash", "pages")
            until(lambda: [fact("status", url)[name] for name in names] ==
                  [fact("status", "app.db")[name] for name in names], "the same from afar")
            remote = fact("status", url)
            check(remote["role"] == "remote" and remote["server"]["role"] == "primary", remote)
            until(lambda: fact("status", "r.db")["lag"] == 0, "applied")
            mine = fact("status", "r.db")
            check(mine["role"] == "replica" and mine["seq"] >= seq, mine)
        until(lambda: not fact("status", "app.db")["peers"][0]["connected"], "left")


def a_log_is_read_by_its_url(dir):
    make("app.db", 800)
    run("label", "app.db", "before")
    before = dump("app.db")
    seq = add("app.db", *(f"row {i}" for i in range(100)))
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        check(run("log", url).stdout == run("log", "app.db").stdout, "log")
        run("restore", url, "head.db")
        check(dump("head.db") == dump("app.db"), "head")
        run("restore", url, "before.db", "--label", "before")
        check(dump("before.db") == before, "label")
        run("restore", url, "some.db", "--seq", seq - 50)
        run("restore", "app.db", "same.db", "--seq", seq - 50)
        check(dump("some.db") == dump("same.db"), "seq")
        check(run("restore", url, "none.db", "--seq", seq + 1000, code=4).stderr, "beyond")
        told = fact("verify", url, "--deep")
        check(told["ok"] and told["path"] == url and told["length"] == fact("status", "app.db")["length"],
              told)
        check(run("key", url).stdout == run("key", "app.db").stdout, "key")
    left = [name for name in os.listdir(os.environ["TMPDIR"]) if name.startswith("hyperwal-")]
    check(left == [], left)


class SlowRelay:
    """Takes connections for the server of `url`; each byte is .delay seconds under way, in each direction."""

    def __init__(self, url, delay):
        host, port = url.split("/")[2].rsplit(":", 1)
        self.target, self.delay = (host, int(port)), delay
        self.is_silent, self.ends = False, []  # all that comes is lost meanwhile
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(f"{host}:{port}", "127.0.0.1:%d" % self.socket.getsockname()[1])
        threading.Thread(target=self.loop, daemon=True).start()

    def loop(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.socket.accept()
                try:
                    far = socket.create_connection(self.target)
                except OSError:
                    near.close()
                    continue
                self.ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    waiting = queue.Queue()
                    threading.Thread(target=self.take, args=(one, waiting), daemon=True).start()
                    threading.Thread(target=self.give, args=(other, waiting), daemon=True).start()

    def take(self, one, waiting):
        data = b"?"
        while data:
            try:
                data = one.recv(65536)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + self.delay, data))

    def give(self, other, waiting):
        with contextlib.suppress(OSError):
            while True:
                due, data = waiting.get()
                time.sleep(max(due - time.monotonic(), 0))  # this is what a long way is
                if not data:
                    break
                if not self.is_silent:
                    other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def cut(self):
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def a_log_that_is_far_away_is_no_empty_one(dir):
    make("app.db")
    with server("app.db") as primary:
        url = SlowRelay(primary.urls["app.db"], 0.6).url
        check(fact("verify", url)["length"] == fact("status", "app.db")["length"], "verify")
        run("restore", url, "head.db")
        check(dump("head.db") == dump("app.db"), "head")


def a_replica_from_afar_has_a_past(dir):
    make("app.db")
    seq = add("app.db", "then")
    then = dump("app.db")
    with server("app.db") as primary:
        run("follow", primary.urls["app.db"], "r.db", "--once")
        add("app.db", "now")
        # An entry without a change may come behind it, and while it is followed.
        until(lambda: run("follow", primary.urls["app.db"], "r.db", "--once") and
              fact("status", "r.db")["lag"] == 0, "all of it")
    os.rename("app.db-hyper", "gone")
    with contextlib.closing(through_vfs("r.db", seq=seq)) as past:
        check(list(past.iterdump()) == then, "the past")
    run("restore", "r.db", "o.db", "--seq", seq)
    check(dump("o.db") == then, "restored")
    check(fact("status", "r.db")["lag"] == 0, "status")


def once_ends_at_the_head(dir):
    make("app.db")
    with server("app.db") as primary:
        state = fact("status", "app.db")  # its newest; the snapshot of it has a seq too
        told = fact("follow", primary.urls["app.db"], "r.db", "--once")
        check(told["event"] == "done" and told["seq"] >= state["seq"], told, state)
        check(dump("r.db") == dump("app.db"))
        told = fact("follow", primary.urls["app.db"], "r.db", "--once")
        check(told["event"] == "done", told)


def a_large_database_comes_in_pieces(dir):
    make("app.db", 10)
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("CREATE TABLE big(a INTEGER PRIMARY KEY, b BLOB)")
        db.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) "
                   "INSERT INTO big(b) SELECT randomblob(8000) FROM n")
        db.execute("PRAGMA hyperwal_seq").fetchone()
    with server("app.db") as primary:
        run("follow", primary.urls["app.db"], "r.db", "--once")
        check(dump("r.db") == dump("app.db"), "large")
        run("snapshot", "app.db")
        run("follow", primary.urls["app.db"], "s.db", "--once")
    run("verify", "s.db")


TESTS = (a_follower_is_live_over_tcp, a_follower_is_live_over_ipc, a_follower_is_live_over_websocket,
         a_server_can_be_asked_by_key, a_server_that_is_killed_is_found_again,
         a_follower_that_is_killed_goes_on_where_it_was, a_follower_starts_while_its_source_is_down,
         a_follower_whose_id_cannot_be_read_keeps_it,
         a_follower_feeds_another, a_follower_of_a_local_log_serves_it,
         a_replica_is_served_as_far_as_it_is_there, a_mirror_is_followed_on_its_own_machine,
         databases_that_appear_are_served, a_follower_of_an_empty_database_waits_for_it,
         a_late_follower_fetches_what_it_needs_alone,
         a_follower_uses_the_source_that_is_left, a_follower_waits_for_a_source_that_has_what_it_needs,
         a_follower_behind_the_pruned_part_starts_over,
         anybody_may_be_killed_at_any_time, a_damaged_mirror_is_mended_from_its_source,
         a_log_that_goes_on_from_a_backup_takes_its_followers_along, only_who_is_allowed_comes_in, errors_say_what_is_wrong,
         names_from_a_server_do_not_steer_the_terminal, a_name_is_that_of_the_file_that_is_called_so,
         status_names_the_followers,
         a_log_is_read_by_its_url, a_log_that_is_far_away_is_no_empty_one, a_replica_from_afar_has_a_past, once_ends_at_the_head,
         a_large_database_comes_in_pieces)


def main(names):
    loaded = load_extension()  # the VFS lives as long as the process
    failed, start = False, os.getcwd()
    for test in TESTS:
        if names and test.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
            os.environ["HYPERWAL_IDENTITY"] = os.path.join(directory, "identity")
            os.environ["TMPDIR"] = directory
            try:
                test(directory)
                print(f"ok {test.__name__}", flush=True)
            except Skip as reason:
                print(f"skip {test.__name__}: {reason}", flush=True)
            except Exception as error:  # every test is told of, whatever happens in it
                failed = True
                traceback.print_exc(file=sys.stdout)
                print(f"not ok {test.__name__}: {error}", flush=True)
            finally:
                os.chdir(start)
    loaded.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
