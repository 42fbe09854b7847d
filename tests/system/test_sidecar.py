#!/usr/bin/python3
"""`hyperwal serve` beside programs that know nothing of hyperwal: what they notice, and what is missed.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.  With `--figures SECONDS` it prints what
writers wait for the write lock and how long the WAL gets, without and with serve.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time

from test_program import (LONG, background, check, dump, facts, line_of, load_extension,
                          make, run, run_test, stock, through_vfs)

MIB = 1 << 20
MODES = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")


# ---------------------------------------------------------------------------- the load


def pause(seconds):
    signal.sigtimedwait([], seconds)


def percentiles(waits):
    waits = sorted(waits)
    return [round(1000 * waits[min(len(waits) - 1, int(len(waits) * part))], 2) for part in (.5, .99, 1)]


def write(out, seconds=2, synchronous="NORMAL", rest=0, size=2000, mode=None):
    """A stock writer: how long it waits for the write lock, and how long the WAL gets."""
    waits, longest = [], 0
    with contextlib.closing(stock("app.db")) as db:
        db.execute(f"PRAGMA synchronous={synchronous}")
        end = time.monotonic() + seconds
        checkpointed = time.monotonic()
        while time.monotonic() < end:
            begin = time.monotonic()
            db.execute("BEGIN IMMEDIATE")
            waits.append(time.monotonic() - begin)
            db.execute("INSERT INTO t(b) VALUES(?)", (os.urandom(size),))
            db.execute("COMMIT")
            longest = max(longest, os.path.getsize("app.db-wal"))
            if mode is not None and time.monotonic() - checkpointed > 0.1:
                checkpointed = time.monotonic()
                db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            if rest:
                pause(rest)
    json.dump({"commits": len(waits), "wait_ms": percentiles(waits), "wal": longest,
               "slow": sum(wait > 0.01 for wait in waits)}, out)


def read(out, seconds=2, hold=0.3):
    """A stock reader whose transactions are long."""
    with contextlib.closing(stock("app.db")) as db:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            db.execute("BEGIN")
            before = db.execute("SELECT count(*) FROM t").fetchone()
            pause(hold)
            check(db.execute("SELECT count(*) FROM t").fetchone() == before, "a read changed")
            db.execute("COMMIT")
    json.dump({}, out)


def start(function, **options):
    """The function in a process of its own; the end of the pipe has what it tells."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(ours)
            with os.fdopen(theirs, "w") as out:
                function(out, **options)
            code = 0
        finally:
            os._exit(code)
    os.close(theirs)
    return pid, os.fdopen(ours)


def finish(process):
    pid, pipe = process
    with pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    check(status == 0, f"a process of the load ended with {status}")
    return json.loads(text)


def stock_database(path="app.db"):
    make(path)
    with contextlib.closing(stock(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")


@contextlib.contextmanager
def served():
    with background("serve", "app.db") as server:
        line_of(server, "ready")
        yield server


def log_is_whole():
    """Every state was logged, without a gap, and the last one is that of the database."""
    gaps = [entry for entry in facts("log", "app.db") if entry["type"] == "gap"]
    check(not gaps, gaps)
    head_is_right()


def head_is_right():
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("SELECT count(*) FROM t").fetchone()
        db.execute("PRAGMA hyperwal_seq").fetchone()
    run("verify", "app.db", "--deep")
    run("restore", "app.db", "out.db", "--force")
    check(dump("out.db") == dump("app.db"), "the log's last state is not the database")


def load(with_serve, readers=(), **options):
    """What a writer tells; the database is new."""
    for name in os.listdir("."):
        shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
    stock_database()
    with served() if with_serve else contextlib.nullcontext():
        others = [start(read, hold=hold, seconds=options.get("seconds", 2)) for hold in readers]
        told = finish(start(write, **options))
        for other in others:
            finish(other)
    if with_serve:
        log_is_whole()
    return told


def compare(name, **options):
    """Bounds are generous: other programs have the processor, too."""
    without = load(False, **options)
    with_serve = load(True, **options)
    print(f"# {name}: stock {without}, with serve {with_serve}")
    check(with_serve["slow"] <= without["slow"] + 3 + with_serve["commits"] // 100, "writers wait")
    check(with_serve["wal"] <= without["wal"] + 32 * MIB, "the WAL is long")


# --------------------------------------------------------------------------------- tests


def a_writer_hardly_notices_serve(dir):
    compare("2 kB a commit", rest=0.001)


def long_readers_keep_the_wal_but_serve_adds_little(dir):
    compare("two long readers", rest=0.001, readers=(0.05, 0.3))


def checkpoints_of_all_modes_go_on_beside_a_writer(dir):
    for mode in MODES:
        compare(mode, rest=0.001, seconds=1, mode=mode)


def an_idle_server_is_in_nobodys_way(dir):
    stock_database()
    with served():
        with contextlib.closing(stock("app.db")) as db:
            for mode in MODES:
                db.execute("INSERT INTO t(b) VALUES(?)", (mode,))
                begin = time.monotonic()
                result = db.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
                took = time.monotonic() - begin
                check(mode == "PASSIVE" or result[0] == 0, mode, result, took)
                check(took < 5, f"{mode} took {took} s")  # it would have a busy timeout of 20
            check(os.path.getsize("app.db-wal") == 0, "TRUNCATE left something")
            db.execute("INSERT INTO t(b) VALUES('after')")
    log_is_whole()


def restarts_by_others_need_no_check(dir):
    """The server follows them: the log says of none that it had to look at the whole database."""
    stock_database()
    with served() as server, contextlib.closing(stock("app.db")) as db:
        db.execute("PRAGMA synchronous=OFF")
        for i in range(20):
            db.execute("INSERT INTO t(b) VALUES(?)", (f"row {i}",))
            check(db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0, i)
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=LONG)
        check(said.count("event=check_started") <= 1 and "event=gap" not in said, said)
    log_is_whole()


def commits_while_no_server_runs_are_logged_if_the_wal_still_has_them(dir):
    stock_database()
    with contextlib.closing(stock("app.db")) as db:
        with served() as server:
            db.execute("INSERT INTO t(b) VALUES('served')")
            with contextlib.closing(through_vfs("app.db")) as through:
                through.execute("PRAGMA hyperwal_seq").fetchone()
            server.kill()
            server.wait()
        for i in range(50):
            db.execute("INSERT INTO t(b) VALUES(?)", (f"alone {i}",))
        with served():
            db.execute("INSERT INTO t(b) VALUES('again')")
            head_is_right()
    log_is_whole()
    check(sum(entry["type"] == "transaction" for entry in facts("log", "app.db")) >= 52, "missing")


def commits_that_were_checkpointed_while_no_server_ran_are_named_by_a_gap(dir):
    stock_database()
    with contextlib.closing(stock("app.db")) as db:
        with served() as server:
            db.execute("INSERT INTO t(b) VALUES('served')")
            with contextlib.closing(through_vfs("app.db")) as through:
                seq = int(through.execute("PRAGMA hyperwal_seq").fetchone()[0])
            run("restore", "app.db", "before.db", "--seq", seq)
            server.kill()
            server.wait()
        for i in range(50):
            db.execute("INSERT INTO t(b) VALUES(?)", (f"alone {i}",))
        check(db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0, "busy")
        db.execute("INSERT INTO t(b) VALUES('a new round')")
        with served():
            head_is_right()
            db.execute("INSERT INTO t(b) VALUES('again')")
            head_is_right()
    gaps = [entry for entry in facts("log", "app.db") if entry["type"] == "gap"]
    check(len(gaps) == 1, gaps)
    run("restore", "app.db", "then.db", "--seq", seq)
    check(dump("then.db") == dump("before.db"), "what was before the gap is another state now")


def a_killed_server_beside_a_writer_costs_no_commit_that_it_had_logged(dir):
    stock_database()
    process = start(write, seconds=3, rest=0.002)
    for _ in range(4):
        with served() as server:
            pause(0.4)
            server.kill()
            server.wait()
    finish(process)
    with served():
        head_is_right()


def with_the_worker_elsewhere_nothing_is_missed(dir):
    stock_database()
    with contextlib.closing(through_vfs("app.db")) as first:
        first.execute("INSERT INTO t(b) VALUES('first')")
        first.execute("PRAGMA hyperwal_seq").fetchone()
        with served():
            told = finish(start(write, seconds=2, size=9000, rest=0.001))
            first.execute("INSERT INTO t(b) VALUES('last')")
            check(told["wal"] < 64 * MIB, told)
    log_is_whole()


# -------------------------------------------------------------------------------- figures


def figures(seconds):
    for name, options in (("commits without a rest", {}), ("FULL", {"synchronous": "FULL"}),
                          ("20 kB", {"size": 20000}), ("500 commits/s", {"rest": 0.002}),
                          ("long readers", {"readers": (0.05, 0.3), "rest": 0.001}),
                          ("RESTART", {"mode": "RESTART"}), ("TRUNCATE", {"mode": "TRUNCATE"})):
        for with_serve in (False, True):
            told = load(with_serve, seconds=seconds, **options)
            print(f"{name:24}{'serve' if with_serve else 'stock':7}{told['commits']:8} commits, "
                  f"waits p50/p99/max {told['wait_ms']} ms, {told['slow']} over 10 ms, "
                  f"WAL {told['wal'] / MIB:.1f} MiB", flush=True)


TESTS = [value for name, value in list(globals().items())
         if callable(value) and getattr(value, "__code__", None) is not None
         and value.__code__.co_varnames[:value.__code__.co_argcount] == ("dir",)
         and value.__module__ == "__main__"]


def main():
    loaded = load_extension()
    if sys.argv[1:2] == ["--figures"]:
        with tempfile.TemporaryDirectory(prefix="hyperwal-sidecar-") as directory:
            os.chdir(directory)
            figures(float(sys.argv[2]))
        return 0
    tests = [test for test in TESTS if not sys.argv[1:] or test.__name__ in sys.argv[1:]]
    results = [run_test(test) for test in tests]
    loaded.close()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
