#!/usr/bin/python3
"""`hyperwal serve` beside programs that know nothing of hyperwal: what they notice, and what is missed.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.  With `--figures SECONDS` it prints what
writers wait for the write lock and how long the WAL gets, without and with serve in turn, and how long the
server itself kept the write lock.
"""

import contextlib
import json
import os
import random
import re
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


def round_of_wal():
    """Its salts; another round has others."""
    with open("app.db-wal", "rb") as wal:
        return wal.read(24)[16:]


def write(out, seconds=2, synchronous="NORMAL", rest=0, size=2000, mode=None, rounds=0):
    """A stock writer: how long it waits for the write lock, and how long the WAL gets.  With `rounds` it
    is over, at the latest after `seconds`, when the WAL has begun so many."""
    waits, longest, salts = [], 0, set()
    with contextlib.closing(stock("app.db")) as db:
        db.execute(f"PRAGMA synchronous={synchronous}")
        end = time.monotonic() + seconds
        checkpointed = time.monotonic()
        while time.monotonic() < end:
            if rounds and len(waits) % 64 == 1:
                salts.add(round_of_wal())
                if len(salts) > rounds:
                    break
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
               "slow": sum(wait > 0.01 for wait in waits), "rounds": len(salts) - 1}, out)


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


def log_is_whole(*how):
    """Every state was logged, without a gap, and the last one is that of the database."""
    gaps = [entry for entry in facts("log", "app.db") if entry["type"] == "gap"]
    check(not gaps, gaps)
    head_is_right(*how)


def head_is_right(*how):
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("SELECT count(*) FROM t").fetchone()
        db.execute("PRAGMA hyperwal_snapshot").fetchone()  # there is one to restore from, after a gap too
    run("verify", "app.db", *how)
    run("restore", "app.db", "out.db", "--force")
    check(dump("out.db") == dump("app.db"), "the log's last state is not the database")


def holds_of(server):
    """How often it kept writers out, for how long at most and in all (ms); it is told to end."""
    server.send_signal(signal.SIGTERM)
    _, said = server.communicate(timeout=LONG)
    check(server.returncode == 0, said)
    line = re.search(r"event=writers_held .*times=(\d+) longest_ms=([\d.]+) total_ms=([\d.]+)", said)
    return (int(line[1]), float(line[2]), float(line[3])) if line else (0, 0, 0)


def load(with_serve, readers=(), how=("--deep",), **options):
    """What a writer tells; the database is new."""
    for name in os.listdir("."):
        shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
    stock_database()
    with served() if with_serve else contextlib.nullcontext() as server:
        others = [start(read, hold=hold, seconds=options.get("seconds", 2)) for hold in readers]
        told = finish(start(write, **options))
        for other in others:
            finish(other)
        told["holds"] = holds_of(server) if with_serve else (0, 0, 0)
    if with_serve:
        log_is_whole(*how)
    return told


def compare(name, **options):
    """Bounds are generous: other programs have the processor, too; and it may be more of them the
    second time."""
    for _ in range(3):
        without = load(False, **options)
        with_serve = load(True, **options)
        print(f"# {name}: stock {without}, with serve {with_serve}")
        is_slow = with_serve["slow"] > without["slow"] + 3 + with_serve["commits"] // 100
        is_long = with_serve["wal"] > without["wal"] + 32 * MIB
        if not is_slow and not is_long:
            return
    check(not is_slow, "writers wait")
    check(not is_long, "the WAL is long")


# --------------------------------------------------------------------------------- tests


def a_writer_hardly_notices_serve(dir):
    compare("2 kB a commit", rest=0.001)


def long_readers_keep_the_wal_but_serve_adds_little(dir):
    compare("two long readers", rest=0.001, readers=(0.05, 0.3))


def the_wal_of_a_writer_that_never_rests_is_bounded(dir):
    """New rounds begin, whatever the log's speed is; how long the WAL gets until then is the machine's."""
    told = load(True, how=(), seconds=2 * LONG, size=9000, rounds=2)
    print(f"# never rests: {told}")
    check(told["rounds"] == 2, "no new round", told)
    check(told["wal"] < 1024 * MIB, "the WAL came to its cap", told)


def the_wal_of_a_writer_beside_long_readers_is_bounded(dir):
    told = load(True, how=(), seconds=3, readers=(0.05, 0.3), size=9000)
    print(f"# never rests, two long readers: {told}")
    check(told["wal"] < 1024 * MIB, "the WAL came to its cap", told)


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
                check(took < 15, f"{mode} took {took} s")  # it would have a busy timeout of 20
            check(os.path.getsize("app.db-wal") == 0, "TRUNCATE left something")
            db.execute("INSERT INTO t(b) VALUES('after')")
    log_is_whole("--deep")


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
    log_is_whole("--deep")


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
            head_is_right("--deep")
    log_is_whole("--deep")
    check(sum(entry["type"] == "transaction" for entry in facts("log", "app.db")) >= 52, "missing")


def commits_that_were_checkpointed_while_no_server_ran_are_named_by_a_gap(dir):
    stock_database()
    with contextlib.closing(stock("app.db")) as db:
        with served() as server:
            db.execute("INSERT INTO t(b) VALUES('served')")
            with contextlib.closing(through_vfs("app.db")) as through:
                seq = int(through.execute("PRAGMA hyperwal_seq").fetchone()[0])
                through.execute("PRAGMA hyperwal_snapshot").fetchone()
            run("restore", "app.db", "before.db", "--seq", seq)
            server.kill()
            server.wait()
        for i in range(50):
            db.execute("INSERT INTO t(b) VALUES(?)", (f"alone {i}",))
        check(db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0, "busy")
        db.execute("INSERT INTO t(b) VALUES('a new round')")
        with served():
            head_is_right("--deep")
            db.execute("INSERT INTO t(b) VALUES('again')")
            head_is_right("--deep")
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
        head_is_right("--deep")


def count_up(out, name):
    """A stock writer that is going to be killed: it tells each commit that it was acknowledged."""
    with contextlib.closing(stock("app.db")) as db:
        n = db.execute("SELECT count(*) FROM t WHERE b LIKE ? || ':%'", (name,)).fetchone()[0]
        while True:
            n += 1
            db.execute("INSERT INTO t(b) VALUES(?)", (f"{name}:{n}:{'x' * 3000}",))
            out.write(f"{n}\n")
            out.flush()


def kill_writers(chance, acknowledged, server=None):
    """Two of them, killed at some commit; with `server` that is killed before."""
    writers = {name: start(count_up, name=name) for name in ("one", "two")}
    for name, (pid, pipe) in writers.items():
        for _ in range(chance.randint(1, 900)):
            acknowledged[name] = int(pipe.readline())
        if server is not None:
            server.kill()
            server.wait()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for line in pipe:
            acknowledged[name] = int(line) if line.endswith("\n") else acknowledged[name]
        pipe.close()


def every_commit_is_there(acknowledged):
    with contextlib.closing(stock("out.db")) as db:
        for name, least in acknowledged.items():
            rows = [int(row[0].split(":")[1]) for row in db.execute(
                "SELECT b FROM t WHERE b LIKE ? || ':%' ORDER BY a", (name,))]
            check(rows == list(range(1, len(rows) + 1)), name, "commits are missing or out of order")
            check(len(rows) >= least, f"{name}: {len(rows)} commits, {least} were acknowledged")


def writers_that_are_killed_beside_a_server_lose_nothing(dir):
    stock_database()
    chance, acknowledged = random.Random(1), {}
    with served():
        for _ in range(6):
            kill_writers(chance, acknowledged)
    log_is_whole()
    every_commit_is_there(acknowledged)


def servers_that_are_killed_beside_writers_lose_no_acknowledged_commit(dir):
    stock_database()
    chance, acknowledged = random.Random(2), {}
    for _ in range(4):
        with served() as server:
            kill_writers(chance, acknowledged, server)
    with served():
        head_is_right()
    every_commit_is_there(acknowledged)


def with_the_worker_elsewhere_nothing_is_missed(dir):
    stock_database()
    with contextlib.closing(through_vfs("app.db")) as first:
        first.execute("INSERT INTO t(b) VALUES('first')")
        first.execute("PRAGMA hyperwal_seq").fetchone()
        with served():
            told = finish(start(write, seconds=2, size=9000, rest=0.001))
            first.execute("INSERT INTO t(b) VALUES('last')")
            check(told["wal"] < 64 * MIB, told)
    log_is_whole("--deep")


# -------------------------------------------------------------------------------- figures


TURNS = 3  # without and with serve, in turn, so that what else the machine does hits both


def figures_print(name, kind, turns):
    commits, slow = (sum(turn[key] for turn in turns) for key in ("commits", "slow"))
    waits = [max(turn["wait_ms"][i] for turn in turns) for i in range(3)]
    times, total = (sum(turn["holds"][i] for turn in turns) for i in (0, 2))
    print(f"{name:24}{kind:7}{commits:8} commits, waits p50/p99/max {waits} ms, {slow} over 10 ms, "
          f"WAL {max(turn['wal'] for turn in turns) / MIB:.1f} MiB", end="")
    if times:
        print(f"; held {times} times, {total / times:.2f} ms each, at most "
              f"{max(turn['holds'][1] for turn in turns)} ms", end="")
    print(flush=True)


def figures(seconds):
    for name, options in (("commits without a rest", {}), ("FULL", {"synchronous": "FULL"}),
                          ("20 kB", {"size": 20000}), ("500 commits/s", {"rest": 0.002}),
                          ("long readers", {"readers": (0.05, 0.3), "rest": 0.001}),
                          ("RESTART", {"mode": "RESTART"}), ("TRUNCATE", {"mode": "TRUNCATE"})):
        turns = {False: [], True: []}
        for _ in range(TURNS):
            for with_serve in turns:
                turns[with_serve].append(load(with_serve, how=(), seconds=seconds, **options))
        for with_serve, told in turns.items():
            figures_print(name, "serve" if with_serve else "stock", told)


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
