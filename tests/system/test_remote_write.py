#!/usr/bin/python3
"""Databases elsewhere, written by their URL: leases, commits, and what is told when something ends in between.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.

The oracle is a ledger: each increment of the counter adds a row that names it, in one transaction.  Whatever was
acknowledged is there once, whatever was refused is not, and of what is unknown the server says the truth.
"""

import contextlib
import json
import os
import select
import socket
import sqlite3
import sys
import threading
import time
from random import Random

import test_remote
from test_remote import Client, check, run, server
from test_serve_faults import Faults

# What a writer is, beside what test_remote has: it keeps on until it is told the truth of each of its increments.
WRITER = r"""
class Writer:
    def __init__(self, url, name, timeout=20):
        self.url, self.name, self.next = url, name, 0
        self.done, self.refused, self.asked, self.late = [], [], [], 0
        self.timeout = timeout
        self.open()

    def open(self):
        self.db = sqlite3.connect("file:%s?vfs=hyperwal" % self.url, uri=True, isolation_level=None,
                                  timeout=self.timeout, check_same_thread=False)

    def increment(self, label):
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute("UPDATE counter SET n = n + 1")
            db.execute("INSERT INTO ledger VALUES(?)", (label,))
            db.execute("COMMIT")
        except Exception:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def quickest_refusal(self, tries):
        import time
        times = []
        for _ in range(tries):
            start = time.monotonic()
            try:
                self.db.execute("BEGIN IMMEDIATE")
                raise Exception("it began")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xff != 5:
                    raise
            times.append(time.monotonic() - start)
        return min(times)

    def sleeps(self, seconds):
        import resource, time
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        time.sleep(seconds)
        return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before

    def truth(self, identity):
        import time
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                said = self.db.execute("PRAGMA hyperwal_transaction = '%s'" % identity).fetchone()[0]
            except sqlite3.Error as error:
                said = "unknown: %s" % error
            if not said.startswith("unknown"):
                return said.startswith("committed")
            time.sleep(0.05)
        raise Exception("no truth of " + identity)

    def one(self):
        import time
        label = "%s-%d" % (self.name, self.next)
        self.next += 1
        before = self.db.execute("PRAGMA hyperwal_transaction").fetchone()[0]
        try:
            self.increment(label)
            self.done.append(label)
            return True
        except sqlite3.Error as error:
            now = self.db.execute("PRAGMA hyperwal_transaction").fetchone()[0]
            if error.sqlite_errorcode == (10 | 201 << 8):
                self.asked.append(now)
                (self.done if self.truth(now) else self.refused).append(label)
                return label in self.done
            self.refused.append(label)
            self.late += error.sqlite_errorcode & 0xff == 5
            self.why = str(error)
            time.sleep(0.01)
            return False

    def work(self, count, seconds=60):
        import time
        end, done = time.monotonic() + seconds, 0
        while done < count and time.monotonic() < end:
            done += self.one()
        return [self.done, self.refused, len(self.asked), self.late]
"""


@contextlib.contextmanager
def writer(url, name, **options):
    made = Client(**options)
    try:
        made.do("exec(%r, names)" % WRITER)
        made.do(f"w = Writer({url!r}, {name!r})")
        yield made
        if made.process.poll() is None:
            made.do("w.db.close()")
            made.end()
    finally:
        made.release()


@contextlib.contextmanager
def victim_of(environment):
    made = Client(environment=environment)
    try:
        yield made
    finally:
        made.release()


def make(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE counter(n)")
        db.execute("INSERT INTO counter VALUES(0)")
        db.execute("CREATE TABLE ledger(label TEXT)")
    run("init", path)


def local(path):
    return sqlite3.connect(f"file:{path}?vfs=hyperwal&timeout={test_remote.LONG * 1000}", uri=True,
                           isolation_level=None, timeout=30)


def check_ledger(path, done, refused):
    """What is in the database is what the writers were told."""
    with contextlib.closing(local(path)) as db:
        labels = [row[0] for row in db.execute("SELECT label FROM ledger")]
        (count,) = db.execute("SELECT n FROM counter").fetchone()
        check(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "integrity")
    check(len(labels) == len(set(labels)), "something is there twice")
    check(count == len(labels), "an increment was lost", count, len(labels))
    missing = set(done) - set(labels)
    check(not missing, "acknowledged, and not there", sorted(missing)[:5])
    wrong = set(refused) & set(labels)
    check(not wrong, "refused, and there", sorted(wrong)[:5])
    check(run("verify", "--deep", path), "verify")
    return labels


class Relay:
    """Takes connections for the server, and cuts all there are after so many bytes, if there is a number."""

    def __init__(self, url):
        host, port = url.split("/")[2].rsplit(":", 1)
        self.target = (host, int(port))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.left, self.made = None, 0
        self.url = url.replace(f"{host}:{port}", "127.0.0.1:%d" % self.socket.getsockname()[1])
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def loop(self):
        while True:
            try:
                near, _ = self.socket.accept()
            except OSError:
                return
            self.made += 1
            threading.Thread(target=self.carry, args=(near,), daemon=True).start()

    def carry(self, near):
        with near, contextlib.suppress(OSError), socket.create_connection(self.target) as far:
            while True:
                ready, _, _ = select.select([near, far], [], [])
                for one in ready:
                    data = one.recv(65536)
                    if self.left is not None:
                        data = data[:self.left]
                        self.left -= len(data)
                    if not data:
                        self.left = None
                        return
                    (far if one is near else near).sendall(data)

    def close(self):
        self.socket.close()


# ---------------------------------------------------------------------------- the tests


def a_lone_writer_is_never_refused(directory):
    make("app.db")
    with server("app.db") as primary, writer(primary.urls["app.db"], "a") as w:
        done, refused, asked, _ = w.do("w.work(100)")
        check(len(done) == 100 and not refused and not asked, refused, asked)
        check(w.do("rows(w.db, 'SELECT n FROM counter')") == [[100]], "its own reads")
    check_ledger("app.db", done, refused)


def another_process_may_be_the_worker(directory):
    """An application that only reads has the log; its WAL is empty, so that its index tells no page size."""
    make("app.db")
    with test_remote.client() as application:
        application.do("db = connect('app.db')")
        application.do("rows(db, 'SELECT n FROM counter')")
        application.do("rows(db, 'PRAGMA hyperwal_seq')")
        check(application.do("json.loads(rows(db, 'PRAGMA hyperwal_status')[0][0])['state']") == "running", "worker")
        with server("app.db") as primary, writer(primary.urls["app.db"], "w") as w:
            done, refused, asked, late = w.do("w.work(20)")
            check(not refused and late == 0 and asked == 0 and len(done) == 20, refused, late,
                  w.do("getattr(w, 'why', '')"))
            # The server, who is not the worker, has the WAL begin anew by commits that change nothing.
            w.do("rows(w.db, 'CREATE TABLE big(b)')")
            for _ in range(150):
                w.do("rows(w.db, 'INSERT INTO big VALUES(randomblob(200000))')")
            done += w.do("w.work(20)")[0]
    # The table "big", what was committed, and the server's own.
    made = sum(entry["type"] == "transaction" for entry in map(json.loads, run("log", "--json", "app.db").stdout.splitlines()))
    check(made > 1 + 20 + 150 + 20, "the server made none", made)
    check_ledger("app.db", done, refused)


def transactions_of_all_kinds_are_the_same_on_both_sides(directory):
    make("app.db")
    with server("app.db") as primary, writer(primary.urls["app.db"], "a") as w:
        for statement in ("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "CREATE INDEX i ON t(b)",
                          "PRAGMA cache_size = 5",
                          "BEGIN",
                          "WITH RECURSIVE r(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM r WHERE x < 3000) "
                          "INSERT INTO t SELECT x, randomblob(500) FROM r",
                          "SAVEPOINT s", "DELETE FROM t WHERE a > 100", "ROLLBACK TO s",
                          "UPDATE t SET b = zeroblob(10) WHERE a < 50", "COMMIT",
                          "BEGIN", "DELETE FROM t", "ROLLBACK",
                          "DELETE FROM t WHERE a > 200", "VACUUM", "DROP INDEX i",
                          "INSERT INTO t VALUES(NULL, randomblob(3000000))", "PRAGMA user_version = 7",
                          "ALTER TABLE t ADD COLUMN c DEFAULT 5", "DELETE FROM t", "DROP TABLE t"):
            w.do(f"rows(w.db, {statement!r})")
            seq = w.do("rows(w.db, 'PRAGMA hyperwal_seq')")[0][0]
            there = w.do("rows(w.db, 'SELECT * FROM sqlite_schema ORDER BY name')")
            with contextlib.closing(local("app.db")) as db:
                if not w.do("w.db.in_transaction"):
                    here = [list(row) for row in db.execute("SELECT * FROM sqlite_schema ORDER BY name")]
                    check(here == there, statement, seq)
        check(w.do("rows(w.db, 'PRAGMA integrity_check')") == [["ok"]], "integrity")
    check_ledger("app.db", [], [])


def two_remote_writers_and_a_local_one_are_serial(directory):
    make("app.db")
    with server("app.db") as primary, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(writer(primary.urls["app.db"], name, environment={
            "HYPERWAL_CACHE": os.path.join(directory, f"cache-{name}")})) for name in "ab"]
        for c in clients:
            c.send("w.work(40)")
        mine, late = [], 0
        with contextlib.closing(local("app.db")) as db:
            for i in range(60):
                db.execute("BEGIN IMMEDIATE")
                db.execute("UPDATE counter SET n = n + 1")
                db.execute("INSERT INTO ledger VALUES(?)", (f"local-{i}",))
                db.execute("COMMIT")
                mine.append(f"local-{i}")
                time.sleep(0.02)  # a local writer that has something else to do
        done, refused = mine, []
        for c in clients:
            told = c.answer()
            check(len(told[0]) == 40, "not all in time", len(told[0]), told[2:])
            done, refused, late = done + told[0], refused + told[1], late + told[3]
        print(f"    {late} of {len(done) + late} came too late")
    check_ledger("app.db", done, refused)


def processes_of_one_machine_take_turns(directory):
    make("app.db")
    with server("app.db") as primary, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(writer(primary.urls["app.db"], name)) for name in "abc"]
        for c in clients:
            c.send("w.work(10)")
        done, refused = [], []
        for c in clients:
            told = c.answer()
            check(len(told[0]) == 10, "not all in time", len(told[0]), told[2:])
            done, refused = done + told[0], refused + told[1]
    check_ledger("app.db", done, refused)


def a_stale_snapshot_is_told_and_a_waiting_writer_waits(directory):
    make("app.db")
    with server("app.db") as primary, writer(primary.urls["app.db"], "a") as a, \
            writer(primary.urls["app.db"], "b", environment={"HYPERWAL_CACHE": directory + "/other"}) as b:
        b.do("w.db.execute('BEGIN')")
        check(b.do("rows(w.db, 'SELECT n FROM counter')") == [[0]], "a snapshot")
        check(a.do("w.work(1)")[0] == ["a-0"], "a commit")
        said = b.do("refused(lambda: w.db.execute('UPDATE counter SET n = 7'))")
        check(said == "database is locked", said)
        check(b.do("w.db.in_transaction"), "the read transaction goes on")
        b.do("w.db.execute('ROLLBACK')")
        # While somebody has a write transaction open, others wait by their busy timeout, or not at all.
        a.do("w.db.execute('BEGIN IMMEDIATE')")
        b.do("w.db.execute('PRAGMA busy_timeout = 0')")
        said = b.do("refused(lambda: w.db.execute('UPDATE counter SET n = n + 1'))")
        check(said == "database is locked", said)
        b.do("w.db.execute('PRAGMA busy_timeout = 30000')")
        b.send("w.work(1)")
        a.do("w.db.execute('INSERT INTO ledger VALUES(\\'open\\')')")
        a.do("w.db.execute('UPDATE counter SET n = n + 1')")
        a.do("w.db.execute('COMMIT')")
        check(b.answer()[0] == ["b-0"], "it waited")
    check_ledger("app.db", ["a-0", "open", "b-0"], [])


def quickest_refusal(client, tries=5):
    """Seconds; a loaded machine may take its time for some of them."""
    return client.do(f"w.quickest_refusal({tries})")


def a_transaction_that_stays_open_costs_nothing(directory):
    make("app.db")
    with server("app.db") as primary, writer(primary.urls["app.db"], "w") as w:
        w.do("w.increment('first')")
        w.do("w.db.execute('BEGIN IMMEDIATE') and None")
        slept = w.do("w.sleeps(0.5)")
        check(slept < 300, f"{slept} times a thread of it slept, and so woke up")
        w.do("w.db.execute('ROLLBACK') and None")


def without_a_busy_handler_others_are_told_at_once(directory):
    """As soon as it is known that somebody writes: on another machine, or in another process of this one."""
    make("app.db")
    with server("app.db") as primary, writer(primary.urls["app.db"], "a") as a, \
            writer(primary.urls["app.db"], "near") as near, \
            writer(primary.urls["app.db"], "far", environment={"HYPERWAL_CACHE": directory + "/other"}) as far:
        others = {"near": near, "far": far}
        for each in others.values():
            each.do("w.db.execute('PRAGMA busy_timeout = 0')")
        a.do("w.work(1)")
        a.do("w.db.execute('BEGIN IMMEDIATE')")
        for name, each in others.items():
            seconds = quickest_refusal(each)
            print(f"    {name}: SQLITE_BUSY after {1000 * seconds:.0f} ms")
            check(seconds < 0.6, name, seconds)
        for name, each in others.items():
            each.do("w.db.execute('PRAGMA busy_timeout = 1000')")
            seconds = quickest_refusal(each, 1)
            print(f"    {name}: with a busy timeout of 1 s after {seconds:.1f} s")
            check(seconds >= 0.9, name, "the busy handler was not asked", seconds)
        a.do("w.db.execute('ROLLBACK')")
        for each in others.values():
            each.do("w.db.execute('PRAGMA busy_timeout = 20000')")
            check(len(each.do("w.work(1)")[0]) == 1, "nobody writes any more")
    check_ledger("app.db", ["a-0", "near-0", "far-0"], [])


def who_may_not_write_is_told_so(directory):
    make("app.db")
    with server("app.db") as primary, writer(primary.urls["app.db"], "a", environment={
            "HYPERWAL_IDENTITY": directory + "/stranger", "HYPERWAL_CACHE": directory + "/theirs"}) as w:
        done, refused, asked, _ = w.do("w.work(3, 1)")
        check(not done and refused and not asked, done)
        check(w.do("w.why") == "attempt to write a readonly database", w.do("w.why"))
        check("event=write_refused" in primary.said(), primary.said()[-400:])
    check_ledger("app.db", [], refused)


def killed_clients_stop_nobody_for_long(directory):
    make("app.db")
    chance = Random(5)
    with server("app.db") as primary, writer(primary.urls["app.db"], "a") as w:
        for i in range(6):
            with victim_of({"HYPERWAL_CACHE": directory + f"/c{i}"}) as victim:
                victim.do("exec(%r, names)" % WRITER)
                victim.do(f"w = Writer({primary.urls['app.db']!r}, 'v{i}')")
                victim.do("w.work(1)")
                victim.send("w.work(1000)")
                time.sleep(chance.random() * 0.2)  # any moment of lease and commit will do
                victim.kill()
            began = time.monotonic()
            check(len(w.do("w.work(1)")[0]) == i + 1, "nobody wrote after it")
            check(time.monotonic() - began < 30, "the lease of the dead was kept too long")
        done, refused = w.do("[w.done, w.refused]")
    check_ledger("app.db", done, refused)


def a_killed_client_finds_its_cache_good(directory):
    make("app.db")
    chance = Random(3)
    with server("app.db") as primary:
        for i in range(12):
            with victim_of({}) as victim:
                victim.do("exec(%r, names)" % WRITER)
                victim.do(f"w = Writer({primary.urls['app.db']!r}, 'v{i}')")
                with contextlib.closing(local("app.db")) as db:
                    (count,) = db.execute("SELECT n FROM counter").fetchone()
                    seq = db.execute("PRAGMA hyperwal_seq").fetchone()[0]
                victim.do(f"rows(w.db, 'PRAGMA hyperwal_wait = {seq}')")
                (found, labels), = victim.do("rows(w.db, 'SELECT n, (SELECT count(*) FROM ledger) "
                                             "FROM counter')")
                # Not ==: what the last victim had sent may be committed after our look.
                check(found == labels and found >= count, i, count, found, labels)
                check(victim.do("rows(w.db, 'PRAGMA integrity_check')") == [["ok"]], i)
                victim.do("w.work(1)")
                victim.send("w.work(1000)")
                time.sleep(chance.random() * 0.2)
                victim.kill()
    check_ledger("app.db", [], [])


def a_killed_server_makes_no_answer_untrue(directory):
    make("app.db")
    chance = Random(7)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(server("app.db"))
        url = first.urls["app.db"]
        listen = "tcp://" + url.split("/")[2]
        w = stack.enter_context(writer(url, "a"))
        w.do("w.work(3)")
        for i in range(6):
            w.send("w.work(5)")
            time.sleep(chance.random() * 0.3)
            first.kill()
            with local("app.db") as db:  # meanwhile somebody writes what could be taken for theirs
                db.execute("PRAGMA wal_checkpoint(RESTART)")
            first = stack.enter_context(server("app.db", listen=listen))
            told = w.answer()
        done, refused, asked, _ = w.do("w.work(1)")
        print(f"    {len(done)} done, {len(refused)} refused, {asked} asked after")
    check_ledger("app.db", done, refused)


def connections_may_be_cut_at_any_byte(directory):
    make("app.db")
    chance = Random(11)
    with server("app.db") as primary:
        relay = Relay(primary.urls["app.db"])
        with writer(relay.url, "a") as w:
            w.do("w.work(2)")
            for i in range(25):
                relay.left = int(chance.random() ** 2 * 9000)
                w.do("w.work(6, 20)")
            relay.left = None
            done, refused, asked, _ = w.do("w.work(1)")
            print(f"    {relay.made} connections, {len(done)} done, {len(refused)} refused, {asked} asked after")
        relay.close()
    check(len(done) > 20, len(done))
    check_ledger("app.db", done, refused)


def fail_in_turn(url, name, call, end, tries):
    """Each such call of one increment of its own, on files of that name, fails once; what the writer was told."""
    faults = Faults()
    with writer(url, name, environment=faults.environment) as w:
        w.do("w.db.execute('PRAGMA cache_size = 20000') and None")
        w.do("w.work(2)")
        for first in range(1, tries + 1):
            faults.begin_at(call, end, first, 1)
            w.do("w.one()")
            if not faults.end():
                break
        check(first > 1, "no call failed: is the library loaded?")
        done, refused, asked, _ = w.do("w.work(1)")
        print(f"    {end}: {first} calls, {len(done)} done, {len(refused)} refused, {asked} asked after")
    return done, refused


def a_cache_that_fails_after_the_answer_makes_none_untrue(directory):
    """What the server has is committed, whatever the call says that SQLite makes of the cache after that."""
    make("app.db")
    with contextlib.closing(local("app.db")) as db:  # more pages than one part of the wal-index names
        db.execute("CREATE TABLE large(n, b)")
        db.execute("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 5000) "
                   "INSERT INTO large SELECT 0, zeroblob(3000) FROM c")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        told = [fail_in_turn(url, "sync", "fdatasync", "-wal", 5), fail_in_turn(url, "any", "", "-wal", 30)]
        with contextlib.closing(local("app.db")) as db:
            db.execute("CREATE TRIGGER many AFTER INSERT ON ledger BEGIN UPDATE large SET n = n + 1; END")
        told.append(fail_in_turn(url, "index", "", "-shm", 4))
    check_ledger("app.db", [label for done, _ in told for label in done],
                 [label for _, refused in told for label in refused])


def what_is_not_there_is_made_for_who_may(directory):
    os.mkdir("all")
    make("all/app.db")
    with server("all") as primary:
        url = primary.urls["app.db"].replace("app.db", "new.db")
        with test_remote.client() as c:
            said = c.do(f"refused(lambda: sqlite3.connect('file:{url}?vfs=hyperwal&mode=rw', uri=True))")
            check(said == "unable to open database file" and not os.path.exists("all/new.db"), said)
            c.do(f"db = connect('{url}')")
            c.do("db.execute('CREATE TABLE t(a)')")
            c.do("db.execute('INSERT INTO t VALUES(7)')")
            check(c.do("rows(db, 'SELECT * FROM t')") == [[7]], "the new one")
        with test_remote.client(environment={"HYPERWAL_IDENTITY": directory + "/stranger"}) as c:
            other = url.replace("new.db", "other.db")
            check(c.do(f"refused(lambda: connect('{other}'))") == "unable to open database file", other)
            check(not os.path.exists("all/other.db"), "made for a stranger")
    with contextlib.closing(local("all/new.db")) as db:
        check(db.execute("SELECT * FROM t").fetchall() == [(7,)], "at the server")


def a_change_of_primary_makes_no_answer_untrue(directory):
    """The new log has ids of its own: it goes on from a state in which the transaction is, or is not."""
    make("app.db")

    def said(url, identity):
        with writer(url, "asker") as asker:
            return asker.do(f"rows(w.db, 'PRAGMA hyperwal_transaction = \\'{identity}\\'')")[0][0]

    def committed(w):
        check(w.do("w.work(1)")[0], "committed")
        return w.do("rows(w.db, 'PRAGMA hyperwal_transaction')")[0][0]

    with server("app.db") as primary, writer(primary.urls["app.db"], "w") as w:
        url = primary.urls["app.db"]
        run("follow", url, "r.db", "--once")
        shipped = committed(w)
        told = said(url, shipped)
        check(told.startswith("committed "), told)
        run("follow", url, "r.db", "--once")
        lost = [committed(w), committed(w)]
        w.kill()
        primary.kill()
    run("promote", "r.db", "--force")
    with server("r.db") as primary:
        url = primary.urls["r.db"]
        check(said(url, shipped) == told, said(url, shipped), told)
        for identity in lost:
            check(said(url, identity) == "not committed", said(url, identity))
        stranger = shipped[:32] + "%08x" % (int(shipped[32:40], 16) ^ 1) + shipped[40:]
        check(said(url, stranger).startswith("unknown"), said(url, stranger))
        with writer(url, "v") as v:
            newer = committed(v)
        run("follow", url, "s.db", "--once")
    run("promote", "s.db", "--force")
    with server("s.db") as primary:  # it never had the first log
        url = primary.urls["s.db"]
        check(said(url, newer).startswith("committed "), said(url, newer))
        check(said(url, shipped).startswith("unknown"), said(url, shipped))


TESTS = (a_lone_writer_is_never_refused, another_process_may_be_the_worker,
         transactions_of_all_kinds_are_the_same_on_both_sides,
         two_remote_writers_and_a_local_one_are_serial, processes_of_one_machine_take_turns,
         a_stale_snapshot_is_told_and_a_waiting_writer_waits, a_transaction_that_stays_open_costs_nothing,
         without_a_busy_handler_others_are_told_at_once,
         who_may_not_write_is_told_so,
         killed_clients_stop_nobody_for_long,
         a_killed_client_finds_its_cache_good, a_killed_server_makes_no_answer_untrue,
         a_change_of_primary_makes_no_answer_untrue,
         connections_may_be_cut_at_any_byte,
         a_cache_that_fails_after_the_answer_makes_none_untrue, what_is_not_there_is_made_for_who_may)

if __name__ == "__main__":
    test_remote.TESTS = TESTS
    sys.exit(test_remote.main(sys.argv[1:]))
