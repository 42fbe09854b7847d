#!/usr/bin/python3
"""The program while its calls of the operating system fail: one, all for a while, a full disk.

A library that is loaded before all others (faults_preload.c) makes them fail in `hyperwal serve`,
`hyperwal follow` and the other verbs, as a file in memory says; the application beside it is stock SQLite,
and notices nothing.  When the fault is over, the same process goes on, and the replica is the database.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests; `--stride N` tries every N-th call.
"""

import contextlib
import itertools
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

import test_failover
import test_remote
from test_network import add, background, fact, follower, load_extension, make, server, until
from test_program import BUILD, LONG, PROGRAM, check, dump, run, run_test, stock

PRELOAD = os.path.join(BUILD, "tests/libfaults_preload.so")
ANY, ROOM, PLACE = 1, 2, 3  # kinds: faults_preload.c
ALL = 1 << 30
WINDOW = 0.15  # seconds that a fault waits for its call
stride = 7


class Faults:
    """Which calls fail in the processes that are started with .environment."""

    def __init__(self):
        path = os.path.abspath("faults")
        with open(path, "wb") as file:
            file.write(bytes(128))
        with open(path, "r+b") as file:
            self.words = mmap.mmap(file.fileno(), 128)
        self.environment = {"LD_PRELOAD": PRELOAD, "HW_FAULTS": path,
                            # a sanitizer wants to be first, and is not needed here
                            "ASAN_OPTIONS": "verify_asan_link_order=0"}

    def set(self, **words):
        for place, name in enumerate(("kind", "seen", "first", "count")):
            if name in words:
                struct.pack_into("I", self.words, 4 * place, words[name])

    def seen(self):
        return struct.unpack_from("I", self.words, 4)[0]

    def begin(self, kind, first, count):
        self.set(first=0)
        self.set(kind=kind, seen=0, count=count)
        self.set(first=first)

    def begin_at(self, call, place, first=1, count=ALL):
        """Of the calls that begin so, those for files whose paths end so."""
        struct.pack_into("24s88s", self.words, 16, call.encode(), place.encode())
        self.begin(PLACE, first, count)

    def end(self):
        """No call fails any more.  Did one?"""
        first = struct.unpack_from("I", self.words, 8)[0]
        self.set(first=0)
        return self.seen() >= first


def rest(seconds):
    """What is tested has so long to come to a call that fails."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.sched_yield()
        time.sleep(0.005)


def write(db, number):
    """What an application does: it may not fail, and does not wait."""
    db.execute("INSERT INTO t(b) VALUES(?)", (f"text {number} " * (1 + number % 300),))
    if number % 5 == 4:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def count(path):
    with contextlib.closing(stock(path)) as db:
        return db.execute("SELECT count(*), max(a) FROM t").fetchone()


def goes_on(process, db, number, replica, what):
    """The process lives, and brings the replica what is committed now."""
    write(db, number)
    wanted = db.execute("SELECT count(*), max(a) FROM t").fetchone()
    check(process.process.poll() is None, what, "the process ended", process.said()[-900:])
    deadline = time.monotonic() + LONG
    while count(replica) != wanted:
        check(process.process.poll() is None, what, "the process ended", process.said()[-900:])
        check(time.monotonic() < deadline, what, f"the replica has {count(replica)} of {wanted}",
              process.said()[-900:])
        time.sleep(0.01)


def fail_in_turn(faults, process, kind, failures, step, replica="r.db"):
    number = itertools.count()
    with contextlib.closing(stock("app.db")) as db:
        db.execute("PRAGMA synchronous=NORMAL")
        goes_on(process, db, next(number), replica, "before any fault")
        misses = reached = 0
        for first in itertools.count(1, step):
            faults.begin(kind, first, failures)
            write(db, next(number))
            rest(WINDOW)
            was_reached = faults.end()
            reached += was_reached
            misses = 0 if was_reached else misses + 1
            goes_on(process, db, next(number), replica, f"call {first} of kind {kind}")
            if misses == 3:
                break
        check(reached > 0, "no call ever failed: is the library loaded?")


@contextlib.contextmanager
def pair(faulty):
    """serve and follow, ready; the one of that name has failing calls."""
    faults = Faults()
    make("app.db")
    environments = {name: faults.environment if name == faulty else None for name in ("serve", "follow")}
    with server("app.db", environment=environments["serve"]) as primary:
        with follower(primary.urls["app.db"], "r.db", environment=environments["follow"]) as replica:
            until(lambda: os.path.exists("r.db") and os.path.getsize("r.db") > 0, "a replica")
            yield faults, primary if faulty == "serve" else replica
    check(dump("r.db") == dump("app.db"), "the replica differs")
    run("verify", "app.db", "--deep")
    check(not any(" gap " in line for line in run("log", "app.db").stdout.splitlines()),
          "a gap in the log", run("log", "app.db").stdout[-600:])


def fail_one_by_one(faulty):
    with pair(faulty) as (faults, process):
        fail_in_turn(faults, process, ANY, 1, stride)


def fail_all_for_a_while(faulty):
    with pair(faulty) as (faults, process):
        fail_in_turn(faults, process, ANY, ALL, 4 * stride)


def fill_the_disk(faulty):
    with pair(faulty) as (faults, process):
        fail_in_turn(faults, process, ROOM, 1, stride)
        fail_in_turn(faults, process, ROOM, ALL, 2 * stride)


def a_server_whose_calls_fail_one_by_one_goes_on(dir):
    fail_one_by_one("serve")


def a_server_whose_calls_all_fail_for_a_while_goes_on(dir):
    fail_all_for_a_while("serve")


def a_server_on_a_full_disk_goes_on_when_there_is_room(dir):
    fill_the_disk("serve")


def a_follower_whose_calls_fail_one_by_one_goes_on(dir):
    fail_one_by_one("follow")


def a_follower_whose_calls_all_fail_for_a_while_goes_on(dir):
    fail_all_for_a_while("follow")


def a_follower_on_a_full_disk_goes_on_when_there_is_room(dir):
    fill_the_disk("follow")


# --------------------------------------------------------------------- databases of a directory


def named(process):
    return json.loads(process.line('{"name"'))["name"]


def three():
    os.mkdir("d")
    for number in range(3):
        make(f"d/x{number}.db")


def a_directory_is_served_whole_whatever_call_fails_at_the_start(dir):
    """One call for one of the databases fails, or to list them: it is served a moment later."""
    faults = Faults()
    three()
    for call, place in (("open", "d/x1.db"), ("read", "d/x1.db"), ("stat", "d/x1.db"), ("realpath", "d/x1.db"),
                        ("open", "d/x1.db-hyper/sidecar.lock"), ("scandir", "/d")):
        for first in itertools.count(1):
            what = f"{call} number {first} at {place}"
            faults.begin_at(call, place, first, 1)
            with background("serve", "d", "--json", environment=faults.environment) as process:
                found = {named(process) for _ in range(3)}
                check(found == {"x0.db", "x1.db", "x2.db"}, what, found)
                was_reached = faults.end()
            check(was_reached or first > 1, what, "was never called: is the library loaded?")
            if not was_reached:
                break


def a_database_that_cannot_be_opened_is_said_once_and_costs_nothing(dir):
    """Before SQLite has opened it and after: it is tried at a pace, not whenever our tries make an event."""
    three()
    for call, place in (("open", "d/x1.db"), ("open", "d/x1.db-hyper/sidecar.lock")):
        faults = Faults()
        faults.begin_at(call, place)
        with background("serve", "d", "--json", environment=faults.environment) as process:
            process.line('{"ready"')
            began, seen = time.monotonic(), faults.seen()
            check(seen > 0, place, "no call failed: is the library loaded?")
            until(lambda: faults.seen() > seen, "another try")
            check(time.monotonic() - began > 0.5, place, "tried again at once")
            until(lambda: faults.seen() >= seen + 2, "a third try")
            check(time.monotonic() - began > 2, place, "tried again and again")
            check(process.said().count("d/x1.db: ") == 1, place, process.said()[-900:])
            faults.end()
            check(named(process) == "x1.db", place, "another one is served")


def marks_are_taken_when_the_lock_for_them_could_not_be_asked_for(dir):
    """A failing flock() is no other server: nobody writes, and the lock is taken a moment later."""
    faults = Faults()
    make("app.db")
    with open("serve.conf", "w", encoding="ascii") as file:
        file.write("rest-after = 0\n")
    faults.begin_at("flock", "sidecar.lock")
    with background("serve", "--config", "serve.conf", "app.db", environment=faults.environment) as process:
        process.line("ready")
        seen = faults.seen()
        check(seen > 0, "no call failed: is the library loaded?")
        until(lambda: faults.seen() > seen + 1, "it is asked for again")
        faults.end()
        inode = os.stat("app.db-hyper/sidecar.lock").st_ino

        def is_taken():
            with open("/proc/locks", encoding="ascii") as locks:
                return any(" FLOCK " in line and f":{inode} " in line for line in locks)

        until(is_taken, "the marks are taken")


def settle(process, words, count=1):
    """The server has said that so often."""
    until(lambda: process.said().count(words) >= count, words)


def a_reload_drops_nothing_because_of_a_failing_call(dir):
    """Where a path leads cannot be seen: what may be it is kept, and dropped when it can."""
    faults = Faults()
    three()
    make("single.db")
    conf = os.path.abspath("serve.conf")

    def configure(*lines):
        with open(conf, "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    directory, single = f"directory = {dir}/d", f"database = {dir}/single.db"
    configure(directory, single)
    with background("serve", "--config", conf, environment=faults.environment) as process:
        process.line("ready")
        for number, place in enumerate(("single.db", "/d")):
            faults.begin_at("realpath", place)
            process.process.send_signal(signal.SIGHUP)
            settle(process, "kept until the next reload", number + 1)
            faults.end()
        check("no longer served" not in process.said(), process.said())
        configure(directory)
        process.process.send_signal(signal.SIGHUP)
        settle(process, "single.db: not in the configuration")
        check(process.said().count("no longer served") == 1, process.said())


def a_reload_is_finished_when_the_fault_is_over(dir):
    """A directory that could not be watched, and a database that could not be opened, come by themselves."""
    faults = Faults()
    three()
    for name in ("first.db", "single.db"):
        make(name)
    conf = os.path.abspath("serve.conf")
    for call, place, line in (("inotify_add_watch", "/d", f"directory = {dir}/d"),
                              ("open", "/single.db", f"database = {dir}/single.db")):
        with open(conf, "w", encoding="utf-8") as file:
            file.write(f"database = {dir}/first.db\n")
        with background("serve", "--config", conf, "--json", environment=faults.environment) as process:
            process.line('{"ready"')
            with open(conf, "a", encoding="utf-8") as file:
                file.write(line + "\n")
            faults.begin_at(call, place)
            process.process.send_signal(signal.SIGHUP)
            until(lambda: faults.seen() > 1, f"{call} fails twice")
            faults.end()
            if call == "open":
                check(named(process) == "single.db", "another one is served")
            else:
                check({named(process) for _ in range(3)} == {"x0.db", "x1.db", "x2.db"}, "others are served")


def a_database_that_was_wished_for_in_vain_may_be_wished_for_again(dir):
    """Whatever fails while it is made: nothing that is half made is in its way."""
    faults = Faults()
    os.mkdir("d")
    make("d/app.db")
    number = itertools.count()

    def ask(verb, url):
        return subprocess.run([PROGRAM, verb, url], check=False, capture_output=True, timeout=LONG).returncode == 0

    with server("d", environment=faults.environment) as process:
        for call, end in (("open", ""), ("stat", ""), ("fstat", ""), ("pwrite", ""), ("open", "-shm"),
                          ("mkdir", "-hyper"), ("open", "-hyper/sidecar.lock")):
            for first in itertools.count(1):
                name = f"made{next(number)}.db"
                url = process.urls["app.db"].replace("app.db", name)
                faults.begin_at(call, name + end, first, 1)
                ask("init", url)
                if not faults.end():
                    break
                until(lambda: ask("init", url) or ask("status", url),
                      f"{call} {first} of {name}{end}: {process.said()[-500:]}")


# ---------------------------------------------------------------------------------- verbs


def run_with_fault(faults, args, first, failures, at=None):
    """What became of the verb, and whether a call, or one `at` a place, failed.  Who waits for the fault to be
    over, sees that."""
    if at:
        faults.begin_at(*at, first, failures)
    else:
        faults.begin(ANY, first, failures)
    process = subprocess.Popen([PROGRAM, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               stdin=subprocess.DEVNULL, env={**os.environ, **faults.environment})
    was_reached = None
    try:
        _, stderr = process.communicate(timeout=1)
    except subprocess.TimeoutExpired:
        was_reached = faults.end()
        try:
            _, stderr = process.communicate(timeout=LONG)
        finally:
            if process.poll() is None:
                process.kill()
    return process.returncode, stderr, faults.end() if was_reached is None else was_reached


def verb_in_turn(*args, check_done=None, clean=()):
    """The verb ends with 0 and all is done, or with 1 and a message; not as if data were corrupt."""
    faults = Faults()
    for failures, step in ((1, stride), (ALL, 4 * stride)):
        reached = 0
        for first in itertools.count(1, step):
            for path in clean:
                subprocess.run(["rm", "-rf", path], check=True)
            code, stderr, was_reached = run_with_fault(faults, args, first, failures)
            what = f"hyperwal {args}, call {first}"
            check(code in (0, 1), what, f"exit {code}", stderr[-500:])
            check(code == 0 or stderr.strip(), what, "no message")
            if code == 0 and check_done is not None:
                check_done(what)
            reached += was_reached
            if not was_reached:
                check(code == 0, what, stderr[-500:])
                break
        check(reached > 0, args, "no call ever failed: is the library loaded?")


def restore_does_it_or_says_why_not(dir):
    make("app.db")
    add("app.db", *(f"text {i}" * 100 for i in range(50)))
    wanted = dump("app.db")

    def is_restored(what):
        check(dump("out.db") == wanted, what, "another state")

    verb_in_turn("restore", "app.db", "out.db", check_done=is_restored, clean=("out.db", "out.db.tmp"))


def verify_does_not_call_a_failing_disk_corrupt(dir):
    make("app.db")
    add("app.db", *(f"text {i}" * 100 for i in range(50)))
    run("follow", "app.db", "r.db", "--once")
    for args in (("verify", "app.db"), ("verify", "app.db", "--deep"), ("status", "app.db"), ("log", "app.db"),
                 ("verify", "r.db"), ("status", "r.db")):
        verb_in_turn(*args)


def snapshot_label_and_prune_go_on_when_the_fault_is_over(dir):
    make("app.db")
    add("app.db", *(f"text {i}" * 100 for i in range(50)))
    for args in (("snapshot", "app.db"), ("label", "app.db", "here"), ("prune", "app.db", "--keep", "9")):
        verb_in_turn(*args)
    run("verify", "app.db", "--deep")
    run("restore", "app.db", "out.db")
    check(dump("out.db") == dump("app.db"), "the head is not the database")


# --------------------------------------------------- what a call that failed is not taken for


def a_follower_that_cannot_open_the_shared_page_now_says_so(dir):
    """It may be opened later: nobody said that the directory may not be written."""
    make("app.db")
    os.remove("app.db-hyper/shared")
    faults = Faults()
    for first, failures in ((1, 1), (2, 1), (1, ALL)):
        faults.begin_at("", "/shared", first, failures)
        with background("follow", "app.db", "r.db", environment=faults.environment) as live:
            code = live.process.wait(timeout=LONG)
            check(faults.end(), first, "no call failed: is the library loaded?")
            check(code == 1 and "Too many open files" in live.said(), first, code, live.said())
    run("follow", "app.db", "r.db", "--once")


def a_past_is_not_read_beyond_what_the_shared_page_says(dir):
    make("app.db")
    faults = Faults()
    open_past = "refused(lambda: rows(connect('app.db', seq=1, mode='ro'), 'SELECT count(*) FROM t'))"
    with test_remote.client(environment=faults.environment) as c:
        faults.begin_at("", "/shared", 1, 1)
        said = c.do(open_past)
        check(faults.end(), "no call failed: is the library loaded?")
        check(said == "unable to open database file", said)


def a_follower_whose_replica_cannot_be_read_as_it_moves_tells_how_far_it_is(dir):
    """It goes over to the new primary, and that hears what it has, whichever reading of its replica failed."""
    for first in (7, 9, 12):
        os.mkdir(str(first))
        os.chdir(str(first))
        cluster = test_failover.Cluster("f.db")
        faults = Faults()
        with follower(cluster.url, "f.db", environment=faults.environment) as live:
            live.line("f.db: live")
            cluster.catch_up("new/app.db")
            faults.begin_at("", "f.db-hyper/replica", first, 1)
            with cluster.fail_over():
                test_failover.moved("f.db", live, cluster)
                check(faults.end(), first, "no call failed: is the library loaded?")
                until(lambda: any(peer["received_seq"] and peer["received_seq"] == peer["applied_seq"]
                                  for peer in fact("status", "new/app.db")["peers"]), f"{first}: it is told")
        os.chdir(dir)


TESTS = [value for name, value in list(globals().items())
         if callable(value) and getattr(value, "__code__", None) is not None
         and value.__code__.co_varnames[:value.__code__.co_argcount] == ("dir",)
         and value.__module__ == "__main__"]


def main():
    global stride
    wanted = sys.argv[1:]
    if wanted[:1] == ["--stride"]:
        stride, wanted = int(wanted[1]), wanted[2:]
    loaded = load_extension()
    results = [run_test(test) for test in TESTS if not wanted or test.__name__ in wanted]
    loaded.close()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
