#!/usr/bin/python3
"""A replica becomes the primary, followers go on with it, and the old primary comes back.

One line a test, as test_network.py, whose helpers these are.
"""

import contextlib
import glob
import json
import os
import signal
import socket
import subprocess
import sys
import time

import test_network
from test_network import (PROGRAM, Process, SlowRelay, add, background, check, dump, fact, facts, follower, make,
                          run, server, through_vfs, unreadable, until, wait_for)


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
    check(done["old_key"] == key and done["old_seq"] >= seq and done["key"] != key, done)
    check(dump("r.db") == before, "it is what it was")
    check(types("r.db")[:2] == ["genesis", "switch"] and "transaction" not in types("r.db"), types("r.db"))
    check(facts("log", "r.db")[1]["switch"] == f"continues {key} at seq {done['old_seq']} of fork 0", "switch")
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


def what_cannot_be_told_of_a_primary_is_no_leave(dir):
    make("app.db")
    run("follow", "app.db", "r.db", "--once")
    with contextlib.closing(through_vfs("app.db")) as writer:
        writer.execute("INSERT INTO t(b) VALUES('goes on')")
        error = run("promote", "r.db", code=1).stderr
        check("the primary is there" in error, error)
        for name in ("worker.lock", "log"):
            with unreadable(f"app.db-hyper/{name}"):
                error = run("promote", "r.db", code=1).stderr
                check("cannot be told" in error and "--force" in error and name in error, error)
                check(fact("status", "r.db")["role"] != "primary", "still a replica")
        with unreadable("app.db-hyper/worker.lock"):
            run("promote", "r.db", "--force")
    with unreadable("r.db-hyper/log"):
        error = run("promote", "r.db", code=1).stderr
        check("r.db-hyper/log" in error and "not a replica" not in error, error)


def a_replica_of_a_log_that_is_gone_becomes_a_primary(dir):
    make("app.db")
    run("follow", "app.db", "r.db", "--once")
    before = dump("r.db")
    for path in glob.glob("app.db*"):
        os.rename(path, f"gone-{path}")
    run("promote", "r.db")
    check(dump("r.db") == before, "it is what it was")


def a_server_that_does_not_say_how_the_log_is_is_no_leave(dir):
    make("app.db")
    its, other = ({"HYPERWAL_IDENTITY": os.path.join(dir, name)} for name in ("its", "other"))
    with server("app.db", environment=its) as primary:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once")
    listen = "tcp://" + url.split("/")[2]

    def refused(*words):
        error = run("promote", "r.db", code=1).stderr
        check(all(word in error for word in ("cannot be told", "--force", *words)), words, error)
        check(fact("status", "r.db")["role"] != "primary", "still a replica")

    with server("--allow", "ab" * 32, "app.db", listen=listen, environment=its):
        refused("let us in")
    with server("app.db", listen=listen, environment=other):
        refused(fact("key", "--identity", other["HYPERWAL_IDENTITY"])["key"])
    with socket.create_server(("127.0.0.1", int(listen.split(":")[2]))):
        refused("no answer")
    with server("--allow", "ab" * 32, "app.db", listen=listen, environment=its):
        run("promote", "r.db", "--force")
    check(dump("r.db") == dump("app.db"), "promoted")


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
        check(replica_says("r.db", "role") in ("replica", "primary", None), "either, or on the way")
    done = fact("promote", "r.db")
    check(done["old_seq"] >= seq and dump("r.db") == before, done)
    check(types("r.db").count("switch") == 1 and "gap" not in types("r.db"), types("r.db"))
    run("verify", "r.db", "--deep")
    run("verify", done["kept"])


class Cluster:
    """A primary app.db, a replica new/app.db that takes over its name and its address, and others."""

    def __init__(self, *names):
        make("app.db")
        os.mkdir("new")
        self.seq = 0
        self.names = names
        self.primary = Process("serve", "--listen", "tcp://127.0.0.1:0", "app.db", "--json")
        self.url = json.loads(self.primary.line('{"name'))["url"]
        self.listen = "tcp://" + self.url.split("/")[2]
        self.key = fact("status", "app.db")["key"]
        for name in ("new/app.db", *names):
            run("follow", self.url, name, "--once")

    def add(self, *texts):
        self.seq = add("app.db", *texts)

    def catch_up(self, *names):
        for name in names:  # the server marks its WAL at times, which is an entry more
            run("follow", self.url, name, "--once")
            check(fact("status", name)["seq"] >= self.seq, name, fact("status", name))

    def fail_over(self, *options):
        """Kill the primary; what goes on is new/app.db, at the same URL."""
        self.primary.kill()
        self.done = fact("promote", "new/app.db", *options)
        check(self.done["old_key"] == self.key, self.done)
        return server("new/app.db", listen=self.listen)


def replica_says(name, field):
    """None: it is between two logs, and has not got the first block of the second yet."""
    done = subprocess.run([PROGRAM, "status", name, "--json"], capture_output=True, text=True)
    return json.loads(done.stdout)[field] if done.returncode == 0 else None


def moved(name, live, cluster):
    """The follower `live` of `name` has gone over; it is in the state of the new primary."""
    until(lambda: replica_says(name, "key") == cluster.done["key"], f"{name} moves")
    seq = add("new/app.db", f"for {name}")
    until(lambda: (replica_says(name, "seq") or 0) >= seq, f"{name} applies")
    check(dump(name) == dump("new/app.db"), name, "differs")
    check(kept_of(name) == [f"{name}-hyper.{cluster.key[:16]}"], kept_of(name))


def was_repaired(live):
    return "replica_repair" in live.said() or "replica_unknown" in live.said()


def live_followers_go_on_with_the_new_primary(dir):
    cluster = Cluster("f.db", "g.db")
    with follower(cluster.url, "f.db") as f, follower(cluster.url, "g.db") as g:
        f.line("f.db: live")
        g.line("g.db: live")
        cluster.add("one", "two")
        wait_for("f.db", cluster.seq)
        wait_for("g.db", cluster.seq)
        cluster.catch_up("new/app.db")
        with cluster.fail_over():
            moved("f.db", f, cluster)
            moved("g.db", g, cluster)
            # The snapshot with which the new log begins was not fetched.
            check("missing" in types("f.db") and "group" not in types("f.db"), types("f.db"))
            check(not was_repaired(f) and not was_repaired(g), f.said(), g.said())
            run("restore", kept_of("f.db")[0], "old.db", "--seq", cluster.seq)
    with server("new/app.db", listen=cluster.listen), follower(cluster.url, "f.db") as f:
        f.line("f.db: live")
        moved("f.db", f, cluster)
        check(not was_repaired(f), f.said())


def a_petname_means_the_new_primary_once_a_follower_went_over(dir):
    os.environ["HYPERWAL_NAMES"] = os.path.join(dir, "names")
    cluster = Cluster()
    run("name", "add", "orders", cluster.url)
    check(fact("name", "list")["key"] == cluster.key, "the name is of the old one")
    with follower("hyper:orders", "f.db") as f:
        f.line("f.db: live")
        cluster.catch_up("new/app.db")
        with cluster.fail_over():
            moved("f.db", f, cluster)
            check(fact("name", "list")["key"] == cluster.done["key"], "the name is of the new one")
            run("follow", "hyper:orders", "g.db", "--once")
            check(dump("g.db") == dump("new/app.db"), "a new follower")
    run("name", "remove", "orders")


def a_new_follower_by_an_old_petname_finds_the_new_primary(dir):
    os.environ["HYPERWAL_NAMES"] = os.path.join(dir, "names")
    cluster = Cluster()
    run("name", "add", "orders", cluster.url)
    cluster.catch_up("new/app.db")
    with cluster.fail_over():
        with follower("hyper:orders", "f.db") as f:
            f.line("f.db: live")
            check(dump("f.db") == dump("new/app.db"), "followed")
        check(fact("name", "list")["key"] == cluster.done["key"], "the name is of the new one")


def a_follower_that_serves_takes_its_own_followers_along(dir):
    cluster = Cluster()
    with background("follow", cluster.url, "f.db", "--listen", "tcp://127.0.0.1:0", "--name", "app.db",
                    "--json") as f:
        url = json.loads(f.line("{"))["url"]
        f.line('{"event": "live"')
        with follower(url, "g.db") as g:
            g.line("g.db: live")
            cluster.add("one")
            wait_for("g.db", cluster.seq)
            cluster.catch_up("new/app.db")
            with cluster.fail_over():
                moved("f.db", f, cluster)
                moved("g.db", g, cluster)
                check(not was_repaired(g), g.said())


def a_follower_behind_gets_the_rest_of_the_old_log(dir):
    cluster = Cluster("f.db")
    for i in range(30):
        cluster.add(f"row {i}" * 50)
    cluster.catch_up("new/app.db")
    with cluster.fail_over(), follower(cluster.url, "f.db") as f:
        moved("f.db", f, cluster)
        check(not was_repaired(f), f.said())
        check("was=equal" in f.said() or "event=replica_moved" not in f.said(), f.said())
    run("verify", "f.db")


def a_follower_ahead_keeps_its_tail(dir):
    cluster = Cluster("f.db")
    cluster.catch_up("new/app.db")
    cluster.add("only here", "and this")
    cluster.catch_up("f.db")
    with cluster.fail_over(), follower(cluster.url, "f.db") as f:
        moved("f.db", f, cluster)
        check("was=ahead" in f.said(), f.said())
    run("restore", kept_of("f.db")[0], "tail.db", "--seq", cluster.seq)
    check(any("only here" in line for line in dump("tail.db")), "the tail is kept")
    check(not any("only here" in line for line in dump("f.db")), "and not here")


def a_database_that_only_has_the_name_is_not_followed(dir):
    cluster = Cluster("f.db")
    cluster.primary.kill()
    os.mkdir("other")
    make("other/app.db", 3)
    with server("other/app.db", listen=cluster.listen), follower(cluster.url, "f.db") as f:
        until(lambda: "source_has_another_log" in f.said(), "it says so")
        check(fact("status", "f.db")["key"] == cluster.key, "it is what it was")


def the_old_primary_comes_back_as_a_follower(dir):
    cluster = Cluster()
    cluster.add("shipped")
    cluster.catch_up("new/app.db")
    cluster.add("only at the old one", "this, too")
    tail = dump("app.db")
    with cluster.fail_over():
        check("only at" not in str(dump("new/app.db")), "not shipped")
        add("new/app.db", "of the new one")
        with follower(cluster.url, "app.db") as old:
            old.line("app.db: live")
            check("event=primary_became_replica" in old.said() and "tail=yes" in old.said(), old.said())
            moved("app.db", old, cluster)
            check(not was_repaired(old), old.said())
        kept = kept_of("app.db")[0]
        run("restore", kept, "tail.db", "--seq", cluster.seq)
        check(dump("tail.db") == tail, "its tail can be exported")
        run("verify", kept, "--deep")
        check([entry["seq"] for entry in facts("log", kept)][-1] >= cluster.seq, "and read")
        check(fact("status", kept)["key"] == cluster.key, "status")
        check(fact("status", "app.db")["role"] == "replica", "it is a replica")
    check("replica" in run("serve", "app.db", code=1).stderr, "not to be written")


def an_old_primary_without_a_tail_comes_back_and_is_killed_meanwhile(dir):
    cluster = Cluster()
    cluster.catch_up("new/app.db")
    before = dump("app.db")
    with cluster.fail_over():
        for i in range(12):
            process = Process("follow", cluster.url, "app.db", "--once")
            try:
                process.process.wait(timeout=0.03 * i)
            except subprocess.TimeoutExpired:
                pass
            process.kill()
            check(dump("app.db") == before, "it is whole at any time")
        with follower(cluster.url, "app.db") as old:
            moved("app.db", old, cluster)
            check(not was_repaired(old), old.said())
        run("verify", kept_of("app.db")[0], "--deep")


def all_of_it_on_one_machine_by_paths(dir):
    make("app.db")
    run("follow", "app.db", "r.db", "--once")
    run("follow", "app.db", "s.db", "--once")
    done = fact("promote", "r.db")
    seq = add("r.db", "of the new one")
    run("follow", "r.db", "s.db", "--once")
    run("follow", "r.db", "app.db", "--once")
    for name in ("s.db", "app.db"):
        check(dump(name) == dump("r.db"), name, "differs")
        check(fact("status", name)["key"] == done["key"] and fact("status", name)["seq"] >= seq, name)
    error = run("follow", "app.db", "r.db", "--once", code=1).stderr
    check("log of its own" in error, error)


def a_primary_does_not_become_a_follower_of_a_stranger(dir):
    make("app.db")
    os.mkdir("other")
    make("other/app.db")
    with server("other/app.db", "app.db", "--json") as served:
        for name, url in served.urls.items():
            error = run("follow", url, "app.db", code=1).stderr
            check("log of its own" in error, name, error)
    check(fact("status", "app.db")["role"] == "primary", "it stays one")


@contextlib.contextmanager
def writer(path):
    """Commits through the VFS as fast as it can, until it is told that it must not; .count of them."""
    script = ("import sqlite3, sys\n"
              "c = sqlite3.connect(':memory:'); c.enable_load_extension(True)\n"
              f"c.load_extension({test_network.EXTENSION!r})\n"
              f"db = sqlite3.connect('file:{path}?vfs=hyperwal', uri=True, isolation_level=None, timeout=20)\n"
              "n = 0\n"
              "while True:\n"
              "    try:\n"
              "        db.execute('INSERT INTO t(b) VALUES(?)', (f'written {n}',))\n"
              "        n += 1\n"
              "        print(n, flush=True)\n"
              "    except sqlite3.OperationalError as error:\n"
              "        print('ended', n, error, flush=True)\n"
              "        break\n")
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def hand_over(source, write):
    """Take over from `source` under a writer; every commit that it was told of is there."""
    cluster = Cluster("f.db")
    with follower(cluster.url, "f.db") as f:
        f.line("f.db: live")
        with writer("app.db") if write else contextlib.nullcontext() as busy:
            if write:
                while int(busy.stdout.readline()) < 20:
                    pass
            cluster.done = fact("promote", "new/app.db", "--from", source(cluster))
            if write:
                last = [line for line in busy.stdout][-1].split(" ", 2)
                check(last[0] == "ended" and "readonly" in last[2], last)
                rows = [line for line in dump("new/app.db") if "'written " in line]
                check(len(rows) == int(last[1]), len(rows), last)
        check(dump("new/app.db") == dump("app.db"), "nothing is lost")
        ended = facts("log", "app.db")[-1]
        check(ended["type"] == "switch" and cluster.done["key"] in ended["switch"], ended)
        run("verify", "app.db")
        try:
            add("app.db", "too late")
            raise AssertionError("written to the old one")
        except Exception as error:  # sqlite3.OperationalError
            check("readonly" in str(error) or "locked" in str(error), error)
        check("handed over" in fact("status", "app.db")["alarm"], fact("status", "app.db"))
        cluster.primary.kill()
        with server("new/app.db", listen=cluster.listen):
            moved("f.db", f, cluster)
            check(not was_repaired(f), f.said())
            with follower(cluster.url, "app.db") as old:
                moved("app.db", old, cluster)
                check(not was_repaired(old) and "tail=no" in old.said(), old.said())


def a_planned_change_under_a_writer_loses_nothing(dir):
    hand_over(lambda cluster: cluster.url, True)


def a_planned_change_by_path_loses_nothing(dir):
    hand_over(lambda cluster: "app.db", False)


def only_the_log_that_is_followed_is_handed_over(dir):
    make("app.db")
    make("other.db", 300)
    run("follow", "app.db", "r.db", "--once")

    def refused(source, *words):
        error = run("promote", "r.db", "--from", source, code=1).stderr
        check(all(word in error for word in words), words, error)
        check(fact("status", "r.db")["role"] == "replica", "still a replica")
        check(not os.path.exists("r.db-hyper/next"), "no key for another one")

    refused("other.db", "other.db", "another log")
    with server("other.db", "app.db", "--json") as served:
        refused(served.urls["other.db"], "another log")
        run("follow", served.urls["app.db"], "s.db", "--once")
        refused("s.db", "s.db", "not the primary")
    for name in ("app.db", "other.db"):
        check("switch" not in types(name), name, types(name))
        add(name, "goes on")
    fact("promote", "r.db", "--from", "app.db")
    check(dump("r.db") == dump("app.db"), "nothing is lost")


def who_goes_away_while_it_is_asked_is_not_waited_for(dir):
    """Whoever had the database open ends without an answer, as a server does when the database comes to rest."""
    make("app.db")
    run("follow", "app.db", "r.db", "--once")
    script = ("import sqlite3, sys, time\n"
              "c = sqlite3.connect(':memory:'); c.enable_load_extension(True)\n"
              f"c.load_extension({test_network.EXTENSION!r})\n"
              "db = sqlite3.connect('file:app.db?vfs=hyperwal', uri=True, isolation_level=None)\n"
              "db.execute('INSERT INTO t(b) VALUES(1)')\n"
              "print(db.execute('PRAGMA hyperwal_seq').fetchone()[0], flush=True)\n"
              "time.sleep(100)\n")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as idle:
        try:
            check(idle.stdout.readline().strip().isdigit(), "no seq")
            idle.send_signal(signal.SIGSTOP)
            with subprocess.Popen([PROGRAM, "promote", "r.db", "--from", "app.db", "--json"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) as promote:
                time.sleep(1)
                idle.kill()
                stdout, stderr = promote.communicate(timeout=60)
        finally:
            idle.kill()
    check(promote.returncode == 0, stdout, stderr)
    check(dump("r.db") == dump("app.db") and types("app.db")[-1] == "switch", stdout)


def an_old_primary_that_is_served_again_is_closed_and_idle(dir):
    cluster = Cluster()
    fact("promote", "new/app.db", "--from", cluster.url)
    cluster.primary.end()
    with server("app.db") as old:
        with contextlib.closing(test_network.stock("app.db")) as db:
            db.execute("PRAGMA busy_timeout = 0")
            refusal, end = None, time.monotonic() + test_network.LONG
            while refusal is None and time.monotonic() < end:  # the worker shuts it as it begins
                try:
                    db.execute("BEGIN IMMEDIATE")
                    db.execute("ROLLBACK")
                except test_network.sqlite3.OperationalError as error:
                    refusal = error
            check("locked" in str(refusal), refusal)
            check(db.execute("SELECT count(*) FROM t").fetchone()[0] >= 100, "read")
        before = spent(old.process.pid)
        run("restore", old.urls["app.db"], "copy.db")
        check(dump("copy.db") == dump("new/app.db"), "its log is served")
        check(spent(old.process.pid) - before < 1.0, "it does not turn")
    run("follow", "new/app.db", "app.db", "--once")
    check(dump("app.db") == dump("new/app.db"), "and it follows")


def spent(pid):
    """Seconds of processor time."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def a_writer_that_does_not_end_keeps_its_primary(dir):
    cluster = Cluster()
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t(b) VALUES('long')")
        error = run("promote", "new/app.db", "--from", cluster.url, code=1).stderr
        check("stays the primary" in error, error)
        db.execute("COMMIT")
    cluster.add("goes on")
    check("switch" not in types("app.db"), types("app.db"))
    cluster.catch_up("new/app.db")
    check(dump("new/app.db") == dump("app.db"), "it follows as before")
    done = fact("promote", "new/app.db", "--from", cluster.url)
    check(done["old_seq"] >= cluster.seq, done)
    cluster.primary.kill()


def who_is_killed_while_it_asks_takes_nothing_over(dir):
    cluster = Cluster()
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t(b) VALUES('long')")
        with subprocess.Popen([PROGRAM, "promote", "new/app.db", "--from", cluster.url],
                              stderr=subprocess.DEVNULL) as promote:
            until(lambda: os.path.exists("new/app.db-hyper/next/log"), "it has a key to name")
            time.sleep(1)
            promote.kill()
        time.sleep(0.5)
        db.execute("COMMIT")
    time.sleep(0.5)
    cluster.add("goes on")
    check("switch" not in types("app.db"), types("app.db"))
    done = fact("promote", "new/app.db", "--from", cluster.url)
    check(done["old_seq"] >= cluster.seq and dump("new/app.db") == dump("app.db"), done)
    cluster.primary.kill()


def who_may_not_write_cannot_take_over(dir):
    cluster = Cluster()
    os.environ["HYPERWAL_IDENTITY"] = os.path.join(dir, "stranger")
    error = run("promote", "new/app.db", "--from", cluster.url, code=1).stderr
    check("no right to promote" in error, error)
    cluster.add("goes on")
    cluster.primary.kill()


def a_follower_far_away_goes_on_with_the_new_primary(dir):
    cluster = Cluster()
    relay = SlowRelay(cluster.url, 0)
    with follower(relay.url, "f.db") as f:
        f.line("f.db: live")
        cluster.catch_up("new/app.db")
        relay.delay = 0.6
        with cluster.fail_over():
            moved("f.db", f, cluster)


def a_follower_whose_new_primary_is_cut_off_waits_for_it(dir):
    cluster = Cluster()
    relay = SlowRelay(cluster.url, 0)
    with follower(relay.url, "f.db") as f:
        f.line("f.db: live")
        cluster.catch_up("new/app.db")
        relay.delay = 0.3
        with cluster.fail_over():
            until(lambda: kept_of("f.db"), "it leaves the old log")
            relay.is_silent = True
            until(lambda: "trying again" in f.said() or f.process.poll() is not None, "it is told")
            relay.is_silent, relay.delay = False, 0
            relay.cut()
            moved("f.db", f, cluster)


def move_aside(name, cluster, *files):
    """As a follower does that is killed amid its change to the new log: what of its mirror was moved."""
    kept = f"{name}-hyper.{cluster.key[:16]}"
    os.mkdir(kept)
    for file in files or sorted(os.listdir(f"{name}-hyper")):
        if file in ("head", "nodes", "have", "tail", "mirror") or file.endswith(".dat"):
            if os.path.exists(f"{name}-hyper/{file}"):
                os.rename(f"{name}-hyper/{file}", f"{kept}/{file}")


def a_follower_killed_while_its_mirror_is_moved_goes_on(dir):
    cluster = Cluster("first.db", "half.db", "most.db", "all.db", "begun.db")
    cluster.add("one", "two")
    cluster.catch_up("new/app.db", *cluster.names)
    cluster.primary.end()
    move_aside("first.db", cluster, "head")
    move_aside("half.db", cluster, "have", "nodes")
    move_aside("most.db", cluster, "head", "nodes", "have", "tail", "00000000.dat")
    move_aside("all.db", cluster)
    move_aside("begun.db", cluster)
    for file in ("head", "nodes"):
        open(f"begun.db-hyper/{file}", "wb").close()
    with follower(cluster.url, "all.db") as f:
        f.line("all.db: live")
        check(fact("status", "all.db")["key"] == cluster.key, "what it has is there, and nobody else")
    with cluster.fail_over():
        for name in cluster.names:
            with follower(cluster.url, name) as f:
                moved(name, f, cluster)
                check(not was_repaired(f), name, f.said())
            run("verify", kept_of(name)[0])
            run("restore", kept_of(name)[0], f"{name}.old", "--seq", cluster.seq)


def a_replica_killed_while_its_mirror_is_moved_can_be_promoted(dir):
    cluster = Cluster("half.db", "all.db")
    cluster.add("one", "two")
    cluster.catch_up(*cluster.names)
    cluster.primary.end()
    move_aside("half.db", cluster, "head", "nodes")
    move_aside("all.db", cluster)
    for name in cluster.names:
        done = fact("promote", name)
        check(done["old_key"] == cluster.key and done["old_seq"] >= cluster.seq, done)
        check(dump(name) == dump("app.db"), name)
        run("verify", done["kept"])
        run("verify", name, "--deep")


def a_follower_whose_mirror_cannot_be_moved_goes_on_once_it_can(dir):
    cluster = Cluster()
    in_the_way = f"f.db-hyper.{cluster.key[:16]}/nodes"
    with follower(cluster.url, "f.db") as f:
        f.line("f.db: live")
        cluster.add("one")
        wait_for("f.db", cluster.seq)
        cluster.catch_up("new/app.db")
        os.mkdir(os.path.dirname(in_the_way))
        os.symlink("nodes", in_the_way)  # it cannot be told whether it is there
        with cluster.fail_over():
            until(lambda: "trying again" in f.said() or f.process.poll() is not None, "it is told")
            check(in_the_way in f.said() and f.process.poll() is None, f.said())
            until(lambda: os.path.exists(f"{os.path.dirname(in_the_way)}/head"), "a part is moved")
            os.remove(in_the_way)
            moved("f.db", f, cluster)
            check(not was_repaired(f), f.said())
        run("verify", kept_of("f.db")[0])


def a_replica_that_is_all_but_a_primary_is_not_followed_again(dir):
    url, _ = mirrored("r.db")
    os.link("r.db-hyper/replica", "replica")
    done, before = fact("promote", "r.db"), dump("r.db")
    os.rename("replica", "r.db-hyper/replica")  # as if it was killed just before that was removed
    os.mkdir("r.db-hyper/promoted")
    for source in (url, "app.db"):
        error = run("follow", source, "r.db", code=1).stderr
        check("`hyperwal promote` goes on" in error, error)
    check(fact("promote", "r.db")["key"] == done["key"] and dump("r.db") == before, "a primary")
    check(kept_of("r.db") == [done["kept"]], kept_of("r.db"))
    run("verify", "r.db", "--deep")


TESTS = (a_planned_change_under_a_writer_loses_nothing, a_planned_change_by_path_loses_nothing,
         only_the_log_that_is_followed_is_handed_over,
         who_goes_away_while_it_is_asked_is_not_waited_for,
         an_old_primary_that_is_served_again_is_closed_and_idle,
         a_writer_that_does_not_end_keeps_its_primary, who_is_killed_while_it_asks_takes_nothing_over,
         who_may_not_write_cannot_take_over,
         the_old_primary_comes_back_as_a_follower,
         an_old_primary_without_a_tail_comes_back_and_is_killed_meanwhile,
         a_petname_means_the_new_primary_once_a_follower_went_over,
         a_new_follower_by_an_old_petname_finds_the_new_primary,
         a_follower_that_serves_takes_its_own_followers_along,
         all_of_it_on_one_machine_by_paths,
         a_primary_does_not_become_a_follower_of_a_stranger, live_followers_go_on_with_the_new_primary, a_follower_behind_gets_the_rest_of_the_old_log,
         a_follower_ahead_keeps_its_tail, a_database_that_only_has_the_name_is_not_followed,
         a_replica_of_a_dead_primary_becomes_one, a_primary_that_answers_keeps_its_place,
         what_cannot_be_told_of_a_primary_is_no_leave,
         a_server_that_does_not_say_how_the_log_is_is_no_leave,
         a_replica_of_a_log_that_is_gone_becomes_a_primary,
         a_replica_behind_another_one_is_refused_or_catches_up,
         a_promotion_that_is_killed_is_gone_on_with, a_follower_far_away_goes_on_with_the_new_primary,
         a_follower_whose_new_primary_is_cut_off_waits_for_it,
         a_follower_killed_while_its_mirror_is_moved_goes_on,
         a_replica_killed_while_its_mirror_is_moved_can_be_promoted,
         a_follower_whose_mirror_cannot_be_moved_goes_on_once_it_can,
         a_replica_that_is_all_but_a_primary_is_not_followed_again)

if __name__ == "__main__":
    test_network.TESTS = TESTS
    sys.exit(test_network.main(sys.argv[1:]))
