#!/usr/bin/python3
"""A replica becomes the primary, followers go on with it, and the old primary comes back.

One line a test, as test_network.py, whose helpers these are.
"""

import contextlib
import glob
import json
import os
import signal
import subprocess
import sys

import test_network
from test_network import (PROGRAM, add, background, check, dump, fact, facts, follower, make, run,
                          server, through_vfs, until, wait_for)


def types(path):
    return [entry["type"] for entry in facts("log", path)]


def kept_of(path):
    return glob.glob(f"{path}-hyper.*")


def mirrored(*names):
    """A primary with replicas that have all of it, and that was killed."""
    make("app.db")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        for name in names:
            run("follow", url, name, "--once")
        seq = add("app.db", "one", "two")
        for name in names:
            with follower(url, name) as live:
                live.line(f"{name}: live")
                wait_for(name, seq)
        primary.kill()
    return url, seq


def a_replica_of_a_dead_primary_becomes_one(dir):
    _, seq = mirrored("r.db")
    before, key = dump("r.db"), fact("status", "app.db")["key"]
    check(before == dump("app.db"), "the replica has all")
    done = fact("promote", "r.db")
    check(done["old_key"] == key and done["old_seq"] == seq and done["key"] != key, done)
    check(dump("r.db") == before, "it is what it was")
    check(types("r.db")[:2] == ["genesis", "switch"] and "transaction" not in types("r.db"), types("r.db"))
    check(facts("log", "r.db")[1]["switch"] == f"continues {key} at seq {seq} of fork 0", "switch")
    check(kept_of("r.db") == [f"r.db-hyper.{key[:16]}"] and done["kept"].endswith(key[:16]), done)
    run("restore", done["kept"], "old.db", "--seq", seq)
    check(dump("old.db") == before, "the kept log gives the state")
    run("verify", done["kept"])
    seq = add("r.db", "of the new one")
    run("verify", "r.db", "--deep")
    run("restore", "r.db", "again.db", "--seq", seq)
    check(dump("again.db") == dump("r.db"), "restored")
    check(fact("promote", "r.db")["key"] == done["key"], "a second call changes nothing")
    check("not a replica" in run("promote", "app.db", code=1).stderr, "a primary is none")


def a_primary_that_answers_keeps_its_place(dir):
    make("app.db")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once")
        error = run("promote", "r.db", code=1).stderr
        check("--from" in error and "--force" in error, error)
        check(fact("status", "r.db")["role"] != "primary", "still a replica")
        add("app.db", "goes on")
        with follower(url, "r.db") as live:
            live.line("r.db: live")
            error = run("promote", "r.db", "--force", code=1).stderr
            check("another" in error, "it is followed", error)


def a_replica_behind_another_one_is_refused_or_catches_up(dir):
    make("app.db")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("follow", url, "behind.db", "--once")
        add("app.db", "more")
        run("follow", url, "ahead.db", "--once")
        primary.kill()
    with background("follow", url, "ahead.db", "--listen", "tcp://127.0.0.1:0", "--json") as other:
        also = json.loads(other.line("{"))["url"]
        fact("promote", "behind.db", "--also", also)
        check(dump("behind.db") == dump("ahead.db"), "caught up with the other one")


def a_promotion_that_is_killed_is_gone_on_with(dir):
    _, seq = mirrored("r.db")
    before = dump("r.db")
    for delay in range(1, 40):
        process = subprocess.Popen([PROGRAM, "promote", "r.db"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=delay * 0.02)
        except subprocess.TimeoutExpired:
            pass
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        check(dump("r.db") == before, "whatever it is, it is whole")
        check(fact("status", "r.db")["role"] in ("replica", "primary"), fact("status", "r.db"))
    done = fact("promote", "r.db")
    check(done["old_seq"] == seq and dump("r.db") == before, done)
    check(types("r.db").count("switch") == 1 and "gap" not in types("r.db"), types("r.db"))
    run("verify", "r.db", "--deep")
    run("verify", done["kept"])


TESTS = (a_replica_of_a_dead_primary_becomes_one, a_primary_that_answers_keeps_its_place,
         a_replica_behind_another_one_is_refused_or_catches_up,
         a_promotion_that_is_killed_is_gone_on_with)

if __name__ == "__main__":
    test_network.TESTS = TESTS
    sys.exit(test_network.main(sys.argv[1:]))
