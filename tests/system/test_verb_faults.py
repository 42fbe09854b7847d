#!/usr/bin/python3
"""Verbs that make or change something, while their calls of the operating system fail (faults_preload.c).

Whatever came of the first call, the same again without a fault does it, and nothing that was there is lost.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests; `--stride N` tries every N-th call.
"""

import contextlib
import glob
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys

import test_serve_faults
from test_failover import kept_of, mirrored, types
from test_network import (add, fact, facts, follower, load_extension, make, server, through_vfs,
                          wait_for)
from test_program import BUILD, check, dump, run, run_test, stock
from test_serve_faults import ALL, ANY, Faults, run_with_fault


def in_turn(*args, prepare, look, stride=None, at=None):
    """`prepare`() before each run of the verb; `look`(what, code) says what must hold after it.  `at`: not all
    calls, but those at a place (Faults.begin_at)."""
    faults = Faults()
    stride = stride or test_serve_faults.stride
    for failures, step in ((1, stride), (ALL, 4 * stride)):
        reached = 0
        for first in itertools.count(1, step):
            prepare()
            code, stderr, was_reached = run_with_fault(faults, args, first, failures, at)
            what = f"hyperwal {args}, call {first} {at or ''}, {failures} failures"
            check(code in (0, 1), what, f"exit {code}", stderr[-500:])
            check(code == 0 or stderr.strip(), what, "no message")
            check(code == 0 or was_reached, what, stderr[-500:])
            try:
                look(what, code)
            except Exception as error:
                raise AssertionError(f"{what}, exit {code} {stderr[-300:]!r}: {error}") from error
            reached += was_reached
            if not was_reached:
                break
        check(reached > 0, args, "no call ever failed: is the library loaded?")


def a_log_that_could_not_be_made_is_made_by_the_next_who_tries(dir):
    with contextlib.closing(sqlite3.connect("app.db")) as db:
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        db.execute("INSERT INTO t(b) VALUES('here before')")
        db.commit()
    wanted = dump("app.db")

    def prepare():
        shutil.rmtree("app.db-hyper", ignore_errors=True)

    def look(what, code):
        check(dump("app.db") == wanted, what, "the database is another one")
        if code != 0 and not os.path.exists("app.db-hyper/log"):
            run("init", "app.db")
        seq = add("app.db", "more")
        run("verify", "app.db", "--deep")
        run("restore", "app.db", "out.db", "--seq", seq, "--force")
        check(dump("out.db") == dump("app.db"), what, "the log has another state")
        with contextlib.closing(stock("app.db")) as db:
            db.execute("DELETE FROM t WHERE b='more'")
            db.commit()

    in_turn("init", "app.db", prepare=prepare, look=look)


def a_copied_log_is_adopted_by_the_next_who_tries(dir):
    make("app.db")
    add("app.db", "one", "two")
    wanted = dump("app.db")
    shutil.copytree("app.db-hyper", "copy-hyper")

    def prepare():
        shutil.rmtree("app.db-hyper")
        shutil.copytree("copy-hyper", "app.db-hyper")

    def look(what, code):
        run("init", "app.db", "--adopt")
        add("app.db")
        check(dump("app.db") == wanted, what, "the database is another one")
        run("verify", "app.db", "--deep")
        run("restore", "app.db", "out.db", "--force")
        check(dump("out.db") == wanted, what, "the log has another state")

    in_turn("init", "app.db", "--adopt", prepare=prepare, look=look)


def a_promotion_is_gone_on_with_when_the_fault_is_over(dir):
    _, seq = mirrored("r.db")
    before, key = dump("r.db"), fact("status", "app.db")["key"]
    os.mkdir("saved")
    for path in glob.glob("r.db*"):
        os.rename(path, f"saved/{path}")

    def prepare():
        for path in glob.glob("r.db*"):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        shutil.copytree("saved", ".", dirs_exist_ok=True)

    def look(what, code):
        check(dump("r.db") == before, what, "the replica is another one")
        done = fact("promote", "r.db")
        check(done["old_key"] == key and done["old_seq"] >= seq, what, done)
        check(dump("r.db") == before, what, "the new primary is another one")
        check(types("r.db").count("switch") == 1 and "gap" not in types("r.db"), what, types("r.db"))
        run("verify", "r.db", "--deep")
        check(len(kept_of("r.db")) == 1, what, kept_of("r.db"))
        run("verify", done["kept"])

    in_turn("promote", "r.db", prepare=prepare, look=look)
    for place in ("/r.db", "/r.db-wal", "/r.db-shm"):  # each, for SQLite makes do with a file that it only reads
        in_turn("promote", "r.db", prepare=prepare, look=look, stride=1, at=("open", place))


def a_file_is_replaced_whole_or_not_at_all(dir):
    make("app.db")
    old = dump("app.db")
    add("app.db", *(f"text {i}" * 100 for i in range(50)))
    new = dump("app.db")
    run("restore", "app.db", "old.db", "--seq", 0)

    with server("app.db") as primary:
        url = primary.urls["app.db"]

        def prepare():
            for path in glob.glob("out.db*"):
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
            shutil.copy("old.db", "out.db")

        def look(what, code):
            now = dump("out.db")
            check(now == new or (code != 0 and now == old), what, "neither the old file nor the new one")
            run("restore", url, "out.db", "--force")
            check(dump("out.db") == new, what, "another state")

        in_turn("restore", url, "out.db", "--force", prepare=prepare, look=look)


def a_replica_is_made_by_the_next_who_tries(dir):
    make("app.db")
    add("app.db", *(f"text {i}" * 100 for i in range(50)))
    with server("app.db") as primary:
        url = primary.urls["app.db"]

        def prepare():
            for path in glob.glob("r.db*"):
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)

        def look(what, code):
            if code != 0:
                run("follow", url, "r.db", "--once")
            check(dump("r.db") == dump("app.db"), what, "the replica differs")

        in_turn("follow", url, "r.db", "--once", prepare=prepare, look=look)


def names_and_keys_that_were_there_stay(dir):
    make("app.db")
    os.environ["HYPERWAL_NAMES"] = os.path.abspath("names.db")
    os.environ["HYPERWAL_IDENTITY"] = os.path.abspath("identity")
    try:
        run("name", "add", "one", "app.db")
        key = fact("key")["key"]
        shutil.copy("names.db", "saved.db")

        def names():
            return sorted(name["name"] for name in facts("name", "list"))

        def prepare():
            for path in glob.glob("names.db*"):
                os.remove(path)
            shutil.copy("saved.db", "names.db")

        def look_names(what, code):
            check(names() == (["one", "two"] if code == 0 else names()) and "one" in names(), what, names())
            run("name", "add", "two", "app.db", "--replace")
            check(names() == ["one", "two"], what, names())

        def look_key(what, code):
            check(fact("key")["key"] == key, what, "another key")

        in_turn("name", "add", "two", "app.db", prepare=prepare, look=look_names, stride=1)
        in_turn("key", prepare=prepare, look=look_key)
    finally:
        del os.environ["HYPERWAL_NAMES"], os.environ["HYPERWAL_IDENTITY"]


def an_application_is_not_harmed_by_another_process_whose_calls_fail(dir):
    make("app.db")
    run("follow", "app.db", "r.db", "--once")
    with contextlib.closing(through_vfs("app.db")) as writer, follower("app.db", "r.db") as live:
        writer.execute("PRAGMA busy_timeout=20000")
        seqs = [0]

        def prepare():
            writer.execute("INSERT INTO t(b) VALUES('before')")

        def look(what, code):
            writer.execute("INSERT INTO t(b) VALUES('after')")
            seqs.append(int(writer.execute("PRAGMA hyperwal_seq").fetchone()[0]))
            check(seqs[-1] > seqs[-2], what, seqs[-2:])
            if len(seqs) % 8 == 0:
                writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
                wait_for("r.db", seqs[-1])

        in_turn("label", "app.db", "here", prepare=prepare, look=look)
        in_turn("snapshot", "app.db", prepare=prepare, look=look)
        wait_for("r.db", seqs[-1])
        check(live.process.poll() is None, "the follower ended")
    check(dump("r.db") == dump("app.db"), "the replica differs")
    check("gap" not in types("app.db"), "a gap")
    run("verify", "app.db", "--deep")


@contextlib.contextmanager
def application(faults):
    """A function that lets another process commit a text; what it says is the result."""
    with subprocess.Popen([sys.executable, os.path.join(os.path.dirname(__file__), "faults_application.py"),
                           os.path.join(BUILD, "hyperwal.so")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, env={**os.environ, **faults.environment}) as process:

        def commit(text):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            said = process.stdout.readline().split()
            check(said and said[0] in ("committed", "failed"), text, said, process.poll())
            return said

        try:
            check(process.stdout.readline() == "ready\n", "it does not start")
            yield commit
        finally:
            process.kill()


def applications(faults, commit, writer):
    """Commits by a process whose calls fail, and by `writer`() of this one; what is committed for sure."""
    committed = set()
    for failures, step in ((1, test_serve_faults.stride), (ALL, 4 * test_serve_faults.stride)):
        reached = 0
        for first in itertools.count(1, step):
            what = f"call {first}, {failures} failures"
            with writer() as db:
                db.execute("INSERT INTO t(b) VALUES('beside it')")
                if first % 5 == 0:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            faults.begin(ANY, first, failures)
            said = commit(what)
            was_reached = faults.end()
            if said[0] == "committed":
                committed.add(what)
            said = commit(f"after {what}")
            check(said[0] == "committed" and said[1] != "None", what, said)
            with writer() as db:
                seq = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
            check(seq >= int(said[1]), what, "the seq goes back", seq, said)
            committed.add(f"after {what}")
            reached += was_reached
            if not was_reached:
                break
        check(reached > 0, "no call ever failed: is the library loaded?")
    wait_for("r.db", seq)
    return committed


def applications_agree(writer):
    """`writer`: a function that gives a connection, as a context."""
    faults = Faults()
    with follower("app.db", "r.db") as live, application(faults) as commit:
        committed = applications(faults, commit, writer)
        check(live.process.poll() is None, "the follower ended")
    for path in ("app.db", "r.db"):
        with contextlib.closing(stock(path)) as db:
            there = {text for text, in db.execute("SELECT b FROM t")}
        check(committed <= there, path, "lost", sorted(committed - there)[:5])
    check(dump("r.db") == dump("app.db"), "the replica differs")
    check("gap" not in types("app.db"), "a gap")
    run("verify", "app.db", "--deep")


def an_application_beside_another_loses_nothing_and_goes_on(dir):
    make("app.db")
    run("follow", "app.db", "r.db", "--once")
    with contextlib.closing(through_vfs("app.db")) as db:
        applications_agree(lambda: contextlib.nullcontext(db))


def an_application_alone_loses_nothing_and_goes_on(dir):
    make("app.db")
    run("follow", "app.db", "r.db", "--once")
    applications_agree(lambda: contextlib.closing(through_vfs("app.db")))


def a_file_that_could_not_be_opened_once_is_written_later(dir):
    make("app.db")
    for place in ("/app.db", "/app.db-wal", "/app.db-shm"):
        for first in itertools.count(1):
            what = f"{place}, open {first}"
            faults = Faults()
            with application(faults) as commit:
                faults.begin_at("open", place, first, 1)
                said = commit(f"kept {what}")
                was_reached = faults.end()
                check(said[0] == "committed" or "readonly" not in said, what, said)
                for text in ("another one", "kept"):
                    said = commit(f"{text} {what}")
                    check(said[0] == "committed" and said[1] != "None", what, text, said)
            if not was_reached:
                break
        check(first > 1, place, "was never opened")
    check("gap" not in types("app.db"), "a gap")
    run("verify", "app.db", "--deep")


TESTS = [value for name, value in list(globals().items())
         if callable(value) and getattr(value, "__code__", None) is not None
         and value.__code__.co_varnames[:value.__code__.co_argcount] == ("dir",)
         and value.__module__ == "__main__"]


def main():
    wanted = sys.argv[1:]
    if wanted[:1] == ["--stride"]:
        test_serve_faults.stride, wanted = int(wanted[1]), wanted[2:]
    loaded = load_extension()
    results = [run_test(test) for test in TESTS if not wanted or test.__name__ in wanted]
    loaded.close()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
