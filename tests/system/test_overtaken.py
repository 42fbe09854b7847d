#!/usr/bin/python3
"""Databases that come back from a backup while their followers have more of the log.

One line a test, as test_network.py, whose helpers these are.
"""

import contextlib
import os
import shutil
import sqlite3
import sys

import test_network
from test_network import (add, background, check, dump, fact, follower, make, run, server,
                          through_vfs, until, wait_for)


def back_up():
    os.mkdir("backup")
    shutil.copy("app.db", "backup/app.db")
    shutil.copytree("app.db-hyper", "backup/app.db-hyper")


def put_back():
    """Into the files that are there, as a snapshot of a volume does: no inode tells of it."""
    for folder, _, names in os.walk("backup"):
        for name in names:
            target = os.path.join(os.path.relpath(folder, "backup"), name)
            with open(os.path.join(folder, name), "rb") as old, open(target, "r+b") as file:
                file.truncate()
                shutil.copyfileobj(old, file)
    for suffix in ("-wal", "-shm"):
        if os.path.exists("app.db" + suffix):
            os.remove("app.db" + suffix)


def alarm():
    return fact("status", "app.db").get("alarm") or ""


def commit(*texts):
    """Without waiting for the log; the error of a wait, "" if it is there in time."""
    with contextlib.closing(through_vfs("app.db", timeout=200)) as db:
        for text in texts:
            db.execute("INSERT INTO t(b) VALUES(?)", (text,))
        try:
            db.execute("PRAGMA hyperwal_seq").fetchone()
        except sqlite3.OperationalError as error:
            return str(error)
    return ""


def nothing_is_signed_until_it_is_adopted(dir):
    make("app.db")
    add("app.db", "kept")
    back_up()
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once")
    with follower(url, "r.db") as live:
        with server("app.db", listen="tcp://" + url.split("/")[2]):
            live.line("r.db: live")
            wait_for("r.db", add("app.db", *(f"lost {i}" for i in range(10))))
        lost = dump("r.db")
        put_back()
        with server("app.db", listen="tcp://" + url.split("/")[2]) as primary:
            until(lambda: "adopt" in alarm(), "an alarm that says what to do")
            until(lambda: "event=overtaken" in primary.said(), "the server says so")
            before = fact("status", "app.db")  # an entry may have come before the follower
            why = commit("new 1", "new 2")
            check("adopt" in why, why)
            after = fact("status", "app.db")
            check(after["length"] == before["length"] and after["fork"] == 0, before, after)
            check(dump("r.db") == lost, "the follower keeps what it has")
            commit("new 3")
        check("adopt" in commit("new 4"), "a later open signs nothing either")
        check(len([line for line in dump("app.db") if "new" in line]) == 4, "commits are there")
        run("init", "app.db", "--adopt")
        with server("app.db", listen="tcp://" + url.split("/")[2]):
            add("app.db", "new 5")
            until(lambda: dump("r.db") == dump("app.db"), "the follower on the new fork")
            check(fact("status", "app.db")["fork"] == 1 and alarm() == "", alarm())
    run("verify", "r.db")
    run("verify", "app.db")


def a_follower_refuses_another_history_and_says_so(dir):
    """The primary signed on before a follower that has more could tell."""
    make("app.db")
    add("app.db", "kept")
    back_up()
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once")
        add("app.db", "lost 1", "lost 2")
        run("follow", url, "r.db", "--once")
    lost = dump("r.db")
    put_back()
    add("app.db", *(f"other {i}" for i in range(20)))  # nobody told it
    with background("follow", url, "r.db") as live:
        with server("app.db", listen="tcp://" + url.split("/")[2]):
            until(lambda: "does not continue" in live.said(), "the reason")
            check("--adopt" in live.said(), live.said())
            check(dump("r.db") == lost, "it keeps its own")
        run("init", "app.db", "--adopt")
        with server("app.db", listen="tcp://" + url.split("/")[2]):
            until(lambda: dump("r.db") == dump("app.db"), "the follower on the new fork")
    run("verify", "r.db")


def nobody_confirms_what_he_has_not_got(dir):
    """What followers confirmed before the log was put back says nothing of what it signs now."""
    def commit_remotely(text, timeout):
        with contextlib.closing(through_vfs("app.db", durability="remote", timeout=timeout)) as db:
            db.execute("INSERT INTO t(b) VALUES(?)", (text,))

    make("app.db")
    add("app.db", "kept")
    back_up()
    with server("app.db") as primary:
        with follower(primary.urls["app.db"], "r.db") as live:
            live.line("r.db: live")
            for i in range(10):
                commit_remotely(f"lost {i}", 20000)
    put_back()
    try:
        commit_remotely("new", 300)
        raise AssertionError("confirmed by nobody")
    except sqlite3.Error as error:
        check(error.sqlite_errorcode == 1 | 200 << 8, error)  # HYPERWAL_UNCONFIRMED


test_network.TESTS = (nothing_is_signed_until_it_is_adopted,
                      a_follower_refuses_another_history_and_says_so,
                      nobody_confirms_what_he_has_not_got)

if __name__ == "__main__":
    sys.exit(test_network.main(sys.argv[1:]))
