#!/usr/bin/python3
"""Remote writers whose network goes away in every phase of a lease and a commit: a server and its clients on hosts
of their own (hosts.py).

One line a test, as in test_network.py; all are skipped, and counted, where there can be no hosts.  Lines that are
indented tell figures.

Each test cuts the clients off in one way, and all phases at once: there is a database for each, with one client
that is cut off in that phase, and one on another host that is not, and wants to write as well.  The oracle is the
ledger of test_remote_write.py, and what the server's files say.
"""

import contextlib
import os
import sqlite3
import sys
import time

import hosts
import test_remote
from test_netns import PORT, World, tell, until
from test_remote import Client, check, server
from test_remote_write import WRITER, check_ledger, make

EXPIRY = 10   # seconds of a lease after the last word about it
MARGIN = 20   # for a loaded machine
SILENCE = 45  # seconds, after which who says nothing is given up
PARTS = 3 << 20
PATIENT = 120
DELAY_MS = 50  # one way

# What a client does in steps, beside what the writer has.
STEPS = r"""
class Steps(Writer):
    def label(self):
        self.next += 1
        return "%s-%d" % (self.name, self.next - 1)

    def begin(self):
        self.db.execute("BEGIN IMMEDIATE")

    def change(self, size=0):
        self.last = self.label()
        self.db.execute("UPDATE counter SET n = n + 1")
        self.db.execute("INSERT INTO ledger VALUES(?)", (self.last,))
        if size:
            self.db.execute("INSERT INTO bulk VALUES(randomblob(?))", (size,))

    def told(self, function):
        # What became of a step, as far as this client knows.
        before = self.db.execute("PRAGMA hyperwal_transaction").fetchone()[0]
        try:
            function()
        except sqlite3.Error as error:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            if error.sqlite_errorcode == (10 | 201 << 8):
                return ["unknown", self.db.execute("PRAGMA hyperwal_transaction").fetchone()[0], str(error)]
            return ["refused", error.sqlite_errorcode, str(error)]
        return ["done"]

    def commit(self):
        return self.told(lambda: self.db.execute("COMMIT"))

    def whole(self, size=0):
        def all_of_it():
            self.last = "nothing"
            self.begin()
            self.change(size)
            self.db.execute("COMMIT")
        return self.told(all_of_it)

    def rest(self):
        # Of a transaction that could not begin at once.
        def all_of_it():
            self.change()
            self.db.execute("COMMIT")
        return self.told(all_of_it)

    def other(self):
        import time
        return self.work(1, 60)[:2] + [time.monotonic()]  # the clock of all processes

    def state(self):
        return [rows(self.db, "SELECT n FROM counter"), rows(self.db, "SELECT label FROM ledger ORDER BY label"),
                rows(self.db, "SELECT count(*), sum(length(b)) FROM bulk"), rows(self.db, "PRAGMA integrity_check")]
"""


class Writer:
    """A client on a host, with a cache of its own, and the ledger of what it was told."""

    def __init__(self, world, host, url, name):
        self.host, self.done, self.refused, self.name = host, [], [], name
        with host:
            self.client = Client(environment={"HYPERWAL_CACHE": os.path.abspath(f"cache-{name}")})
        world.callback(self.client.release)
        for line in (f"exec({WRITER!r}, names)", f"exec({STEPS!r}, names)", f"w = Steps({url!r}, {name!r}, 5)",
                     "rows(w.db, 'SELECT n FROM counter')"):
            self.client.do(line)

    def do(self, line):
        return self.client.do(line)

    def send(self, line):
        self.client.send(line)

    def answer(self, seconds=PATIENT):
        """Of a step that may have to wait for the network."""
        saved, test_remote.LONG = test_remote.LONG, seconds
        try:
            return self.client.answer()
        finally:
            test_remote.LONG = saved

    def note(self, told):
        """A definite answer for the ledger: of what is unknown the server is asked."""
        label = self.do("w.last")
        if told[0] == "unknown":
            self.send(f"w.truth({told[1]!r})")
            is_there = self.answer()
        else:
            is_there = told[0] == "done"
        (self.done if is_there else self.refused).append(label)
        return is_there

    def writes(self, seconds=PATIENT):
        """An increment that succeeds, however often it must be tried; how long it took."""
        start = time.monotonic()
        while True:
            self.send("w.whole()")
            told = self.answer()
            if self.note(told):
                return time.monotonic() - start
            check(time.monotonic() - start < seconds, self.name, "cannot write", told)
            time.sleep(0.05)


# ---------------------------------------------------------------------------- the phases


class Phase:
    """A database, a client that is cut off, and one that is not.  The names say what the first one is doing."""

    def __init__(self, world, victim_host, other_host, url, path):
        self.world, self.path = world, path
        self.victim = Writer(world, victim_host, url, f"{path[:-3]}-v")
        self.other = Writer(world, other_host, url, f"{path[:-3]}-o")

    def begin(self):
        """Into the phase, but for what must be under way at the moment of the cut."""

    def last_moment(self):
        """Just before the cut."""

    def go_on(self):
        """After the cut: the client goes on, without waiting for it."""
        self.victim.send("w.whole()")

    def others(self):
        """Send the other one's wish."""
        self.other.send("w.other()")


class BeforeTheRequest(Phase):
    pass


class WaitingForTheLease(Phase):
    """The other one has it.  When it has ended, the lease goes to somebody who does not hear it."""

    def begin(self):
        self.other.do("w.begin()")
        before = self.world.network.carried(self.world.here, self.victim.host)
        self.victim.send("w.whole()")
        until(lambda: self.world.network.carried(self.world.here, self.victim.host) > before, "an answer: it waits")

    def go_on(self):
        pass

    def others(self):
        self.other.do("w.change()")
        self.other.note(self.other.do("w.commit()"))  # unless the lease ran out: see all_phases()
        super().others()


class LeaseAndNothingSent(Phase):
    def begin(self):
        self.victim.do("w.begin()")
        self.victim.do("w.change()")

    def go_on(self):
        self.victim.send("w.commit()")


class BehindTheHead(Phase):
    """It may have the lease, and what the other one wrote before is still on its way."""

    def last_moment(self):
        network = self.world.network
        before = network.carried(self.world.here, self.victim.host)
        check(self.other.note(self.other.do(f"w.whole({PARTS})")), "the other one writes much")
        self.victim.send("w.whole()")
        until(lambda: network.carried(self.world.here, self.victim.host) > before + (200 << 10), "the first of it")

    def go_on(self):
        pass


class AmidTheParts(Phase):
    def begin(self):
        self.victim.do("w.begin()")
        self.victim.do(f"w.change({PARTS})")

    def last_moment(self):
        network = self.world.network
        before = network.carried(self.victim.host, self.world.here)
        self.victim.send("w.commit()")
        until(lambda: network.carried(self.victim.host, self.world.here) > before + (200 << 10), "the first part")

    def go_on(self):
        pass


class AnswerLost(Phase):
    """It is committed, and the answer does not come: on a host of its own, that is deaf before the cut."""

    def begin(self):
        self.victim.do("w.begin()")
        self.victim.do("w.change()")
        self.world.network.cut_way(self.world.here, self.victim.host)
        self.victim.send("w.commit()")
        until(self.is_there, "the server has it")

    def is_there(self):
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return db.execute("SELECT count(*) FROM ledger WHERE label LIKE '%-v-%'").fetchone()[0] == 1

    def go_on(self):
        pass


class StickyLease(Phase):
    """It was used, and is kept; others have to wait until it has run out."""

    def begin(self):
        check(self.victim.note(self.victim.do("w.whole()")), "a first commit")


class Recalled(Phase):
    """The server's word that others want the lease is on its way to who has it, and writes."""

    def begin(self):
        self.victim.do("w.begin()")
        self.victim.do("w.change()")

    def last_moment(self):
        network = self.world.network
        before = network.carried(self.other.host, self.world.here)
        self.other.send("w.other()")
        until(lambda: network.carried(self.other.host, self.world.here) > before, "the other's request")

    def go_on(self):
        self.victim.send("w.commit()")

    def others(self):
        pass


PHASES = (BeforeTheRequest, WaitingForTheLease, LeaseAndNothingSent, BehindTheHead, AmidTheParts, AnswerLost,
          StickyLease, Recalled)


# ------------------------------------------------------------------------------ the cuts


def make_one(path):
    make(path)
    with contextlib.closing(sqlite3.connect(f"file:{path}?vfs=hyperwal", uri=True, isolation_level=None)) as db:
        db.execute("CREATE TABLE bulk(b BLOB)")


@contextlib.contextmanager
def all_phases():
    """The world with everybody in his phase, the last moment before the cut."""
    paths = [f"{phase.__name__}.db" for phase in PHASES]
    for path in paths:
        make_one(path)
    with World(4) as world:
        world.here, near, lost, deaf = world.hosts
        world.victims = (lost, deaf)
        daemon = world.on(world.here, server("--allow", "any", *paths, listen=f"tcp://{world.here.address}:{PORT}"))
        world.daemon = daemon
        phases = [kind(world, deaf if kind is AnswerLost else lost, near, daemon.urls[path], path)
                  for kind, path in zip(PHASES, paths)]
        world.network.all_ways(delay_ms=DELAY_MS)
        start = time.monotonic()
        for each in phases:
            each.begin()
        world.network.way(lost, world.here, delay_ms=DELAY_MS, rate=1e6)
        for each in phases:
            each.last_moment()
        if time.monotonic() - start > EXPIRY:
            tell("a slow machine: some leases had run out before the cut")
        yield world, phases


def others_write(phases, start):
    """Nobody who is cut off keeps others from writing for longer than the lease."""
    for each in phases:
        each.others()
    times = []
    for each in phases:
        done, refused, end = each.other.answer()
        took = end - start
        check(len(done) == 1, each.path, "nobody else could write", done, refused)
        check(took < EXPIRY + MARGIN, each.path, "the lease of who was cut off was kept for", took)
        times.append(f"{type(each).__name__} {took:.1f} s")
    tell("the others wrote after: " + ", ".join(times))


def all_is_as_told(phases):
    """The answers, the server's database, and both caches."""
    verdicts = {}
    for each in phases:
        told = each.victim.answer()
        is_there = each.victim.note(told)
        name = type(each).__name__
        verdicts[name] = told[0] + (f" ({'' if is_there else 'not '}committed)" if told[0] == "unknown" else "")
        check(name != "AnswerLost" or is_there, "it was committed, and the answer says", told)
    tell("told: " + ", ".join(f"{name} {verdict}" for name, verdict in verdicts.items()))
    start = time.monotonic()
    for each in phases:
        each.victim.writes()
        each.other.writes()
    tell(f"all wrote again, one after the other, within {time.monotonic() - start:.1f} s")
    for each in phases:
        done, refused = [], []
        for one in (each.victim, each.other):
            more, less = one.do("[w.done, w.refused]")
            done, refused = done + one.done + more, refused + one.refused + less
        check_ledger(each.path, done, [label for label in refused if label != "nothing"])
        with contextlib.closing(sqlite3.connect(f"file:{each.path}?vfs=hyperwal", uri=True)) as db:
            seq = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
        states = []
        for one in (each.victim, each.other):
            one.do("w.db.execute('PRAGMA busy_timeout = 60000')")
            one.do(f"rows(w.db, 'PRAGMA hyperwal_wait = {seq}')")
            states.append(one.do("w.state()"))
        check(states[0] == states[1], each.path, "the caches differ")
        check(states[0][3] == [["ok"]] and states[0][0] == [[len(states[0][1])]], each.path, states[0][0], states[0][3])


def cut_off(cut, heal, seconds):
    """For so long, and until the others have written if that takes more than the lease."""
    with all_phases() as (world, phases):
        cut(world)
        start = time.monotonic()
        for each in phases:
            each.go_on()
        if seconds < EXPIRY:
            time.sleep(seconds)  # of silence: there is no event to wait for
            heal(world)
            others_write(phases, start)
        else:
            others_write(phases, start)
            time.sleep(max(0, start + seconds - time.monotonic()))
            heal(world)
        all_is_as_told(phases)


def heal_all(world):
    for host in world.victims:
        world.network.heal(host)


def what_clients_say_is_lost(directory):
    def cut(world):
        for host in world.victims:
            world.network.cut_way(host, world.here)

    cut_off(cut, heal_all, 3)


def what_clients_should_hear_is_lost(directory):
    def cut(world):
        for host in world.victims:
            world.network.cut_way(world.here, host)

    cut_off(cut, heal_all, 3)


def nothing_goes_either_way(directory):
    def cut(world):
        for host in world.victims:
            world.network.cut(host)

    cut_off(cut, heal_all, 3)


def connections_are_reset(directory):
    def cut(world):
        for host in world.victims:
            world.network.reset(world.here, host)

    def heal(world):
        for host in world.victims:
            world.network.reset(world.here, host, False)
            world.network.heal(host)

    cut_off(cut, heal, 3)


def links_go_down_and_up_again(directory):
    def cut(world):
        for host in world.victims:
            host.link(False)

    def heal(world):
        for host in world.victims:
            host.link(True)
            world.network.heal(host)

    cut_off(cut, heal, 3)


def cuts_longer_than_the_lease_end_it(directory):
    def cut(world):
        for host in world.victims:
            world.network.cut(host)

    cut_off(cut, heal_all, EXPIRY + 5)


# --------------------------------------------------------------------------------- silence


def silence_is_noticed_by_both_sides(directory):
    """Though the connection was never idle before: nobody had a reason yet to say that he is there."""
    make_one("app.db")
    with World(2, delay_ms=5) as world:
        here, far = world.hosts
        daemon = world.on(here, server("--allow", "any", "app.db", listen=f"tcp://{here.address}:{PORT}"))
        victim = Writer(world, far, daemon.urls["app.db"], "v")
        check(victim.note(victim.do("w.whole()")), "a first commit")
        world.network.cut(far)
        start = time.monotonic()
        noticed = {}

        def both():
            if "the server" not in noticed and "no sign of life" in daemon.said():
                noticed["the server"] = time.monotonic() - start
            if "the client" not in noticed and not victim.do("status(w.db)['online']"):
                noticed["the client"] = time.monotonic() - start
            return len(noticed) == 2

        until(both, "both notice the silence", SILENCE + MARGIN)
        tell("silence: " + ", ".join(f"{who} noticed after {seconds:.0f} s" for who, seconds in noticed.items()))
        world.network.heal(far)
        victim.writes()
        check_ledger("app.db", victim.done, victim.refused)


def who_has_no_busy_handler_does_not_wait_for_a_silent_server(directory):
    make_one("app.db")
    with World(2, delay_ms=5) as world:
        here, far = world.hosts
        daemon = world.on(here, server("--allow", "any", "app.db", listen=f"tcp://{here.address}:{PORT}"))
        victim = Writer(world, far, daemon.urls["app.db"], "v")
        victim.do("w.db.execute('PRAGMA busy_timeout = 0')")
        world.network.cut(far)
        seconds = victim.do("w.quickest_refusal(1)")
        again = victim.do("w.quickest_refusal(5)")
        tell(f"a silent server: SQLITE_BUSY after {seconds:.2f} s, again after {again:.2f} s")
        check(again < 0.6, "each try waits for it", again)
        daemon.kill()
        world.network.heal(far)
        until(lambda: not victim.do("status(w.db)['online']"), "the client notices")
        times = []

        def fails():
            start = time.monotonic()
            told = victim.do("w.whole()")
            times.append(time.monotonic() - start)
            check(told[0] == "refused", told)
            return told[1] & 0xff == 10

        until(fails, "SQLITE_IOERR")
        for _ in range(3):
            fails()
        tell(f"a server that is gone: SQLITE_IOERR after {min(times):.2f} s")
        check(min(times) < 3, times)
        world.on(here, server("--allow", "any", "app.db", listen=f"tcp://{here.address}:{PORT}"))
        tell(f"written {victim.writes():.1f} s after it came back")
        check_ledger("app.db", victim.done, [label for label in victim.refused if label != "nothing"])


TESTS = (what_clients_say_is_lost, what_clients_should_hear_is_lost, nothing_goes_either_way, connections_are_reset,
         links_go_down_and_up_again, cuts_longer_than_the_lease_end_it, silence_is_noticed_by_both_sides,
         who_has_no_busy_handler_does_not_wait_for_a_silent_server)


def main(names):
    why = hosts.unavailable()
    if why is None:
        test_remote.TESTS = TESTS
        return test_remote.main(names)
    for test in TESTS:
        if not names or test.__name__ in names:
            print(f"skip {test.__name__}: {why}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
