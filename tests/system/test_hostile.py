#!/usr/bin/python3
"""Peers with bad intentions against a server that has better things to do.

    tests/system/test_hostile.py [NAME...]          all of it, or these tests
    tests/system/test_hostile.py --minutes N        the attacks again and again, and several at once

A server, a writer and two honest followers run all the time.  While hostile_peer attacks, the
followers must go on; afterwards the server's descriptors, threads and memory must be what they were.
Latencies and lags are printed, not judged: other tests run on the same machine.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.
"""

import contextlib
import json
import os
import random
import re
import resource
import select
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import test_network as net
from test_network import check, through_vfs, until

HOSTILE = os.path.join(net.BUILD, "tests", "hostile_peer")
SANITIZED = "asan" in os.path.basename(net.BUILD) or "tsan" in os.path.basename(net.BUILD)
MIB = 1 << 20

# Bounds of the server, generous: what an attack may cost while it lasts, and what may stay.
PEAK_MAX = 160 * MIB
KEPT_MAX = 24 * MIB
DESCRIPTORS_MAX = 2048 + 200  # what the transport takes in before the hub looks, and its own
THREADS_MAX = 4
FOLLOWERS = 200
ATTEMPTS = 5  # at an attack: on a busy machine two seconds may come to nothing


def tell(text):
    print(f"     {text}", flush=True)


def part(values, share):
    """The value below which this share of them is, in ms."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


# ------------------------------------------------------------------------------ what is measured


class Server:
    """What /proc tells of a process."""

    def __init__(self, pid):
        self.pid = pid

    def status(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            pairs = (line.split(":", 1) for line in file)
            numbers = {name: int(text.split()[0]) for name, text in pairs
                       if name in ("VmRSS", "VmHWM", "Threads")}
        return numbers

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def is_awake(self):
        """Its database is not at rest."""
        for descriptor in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{self.pid}/fd/{descriptor}").endswith("/worker.lock"):
                    return True
        return False

    def forget_peak(self):
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/clear_refs", "w",
                                                encoding="ascii") as file:
            file.write("5")

    def peak(self):
        return self.status()["VmHWM"] * 1024

    def memory(self):
        return self.status()["VmRSS"] * 1024

    def cpu(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    """A writer that commits all the time, and for each replica one who waits for what it wrote."""

    def __init__(self, path, replicas):
        self.path, self.replicas = path, replicas
        self.commits, self.lags = [], {replica: [] for replica in replicas}
        self.head, self.errors = (0, 0.0), []
        self.changed, self.ending = threading.Condition(), threading.Event()
        jobs = [(self.write, ())] + [(self.watch, (replica,)) for replica in replicas]
        self.threads = [threading.Thread(target=self.guard, args=job) for job in jobs]
        for thread in self.threads:
            thread.start()

    def guard(self, function, arguments):
        try:
            function(*arguments)
        except Exception as error:  # told by the thread of the test
            self.errors.append(f"{function.__name__}{arguments}: {error}")

    def write(self):
        with contextlib.closing(through_vfs(self.path)) as db:
            while not self.ending.is_set():
                for _ in range(5):
                    start = time.monotonic()
                    db.execute("INSERT INTO t(b) VALUES('under attack')")
                    self.commits.append(time.monotonic() - start)
                    self.ending.wait(0.005)
                start = time.monotonic()
                db.execute("INSERT INTO t(b) VALUES('under attack')")
                seq = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
                with self.changed:
                    self.head = (seq, start)
                    self.changed.notify_all()

    def watch(self, replica):
        seen = 0
        with contextlib.closing(through_vfs(replica)) as db:
            db.execute("PRAGMA busy_timeout = 30000")
            while not self.ending.is_set():
                with self.changed:
                    self.changed.wait_for(lambda: self.head[0] > seen or self.ending.is_set(), 5)
                    seen, start = self.head
                if not self.ending.is_set():
                    db.execute(f"PRAGMA hyperwal_wait = {seen}").fetchall()
                    self.lags[replica].append(time.monotonic() - start)

    def take(self):
        """(commit latencies, lags of all replicas) since the last call."""
        commits, self.commits = self.commits, []
        lags, self.lags = self.lags, {replica: [] for replica in self.replicas}
        check(not self.errors, *self.errors)
        return commits, [lag for of_one in lags.values() for lag in of_one]

    def end(self):
        self.ending.set()
        with self.changed:
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()


class Stage:
    """Server, writer, two followers; made by the first test that wants it."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.dir = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.app = os.path.join(self.dir, "app.db")
        self.replicas = [os.path.join(self.dir, f"follower{i}.db") for i in (1, 2)]
        net.make(self.app, 200)
        self.process = self.stack.enter_context(net.server(self.app))
        self.url = self.process.urls["app.db"]
        self.port = self.url.split("/")[2].split(":")[1]
        self.key = net.run("key", self.app).stdout.strip()
        self.server = Server(self.process.process.pid)
        for replica in self.replicas:
            self.stack.enter_context(net.follower(self.url, replica)).line(f"{replica}: live")
        self.load = Load(self.app, self.replicas)
        self.stack.callback(self.load.end)
        self.quiet = None
        self.told = 0

    def target(self):
        return ["127.0.0.1", self.port, self.key]

    def log(self):
        """What the server told since the last call."""
        text = self.process.said()
        start, self.told = self.told, len(text)
        return text[start:]

    def settle(self):
        """What it costs without an attack: measured once."""
        if self.quiet is None:
            until(self.server.is_awake, "the server hears of the writer")
            self.load.ending.wait(1.5)
            self.quiet = self.load.take()
            self.threads = self.server.status()["Threads"]
            self.memory = self.server.memory()
            self.descriptors = self.server.descriptors()
            self.log()
            tell(f"quiet: {numbers(self.quiet)}, memory {self.memory / MIB:.1f} MiB, "
                 f"{self.descriptors} descriptors, {self.threads} threads")

    def close(self):
        self.stack.close()


def numbers(measured):
    commits, lags = measured
    return (f"{len(commits)} commits, p50 {part(commits, 0.5):.2f} p99 {part(commits, 0.99):.2f} ms, "
            f"lag p50 {part(lags, 0.5):.1f} p99 {part(lags, 0.99):.1f} ms")


STAGE = []


def stage():
    if not STAGE:
        STAGE.append(Stage())
    STAGE[0].settle()
    return STAGE[0]


@contextlib.contextmanager
def attackers(where, *orders):
    """hostile_peer once for each order (its CPU would be another machine's); gives a list that has their reports at the end."""
    running, reports = [], []
    try:
        for verb, *words in orders:
            running.append(subprocess.Popen(["nice", "-n", "10", HOSTILE, verb, *where, *map(str, words)],
                                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                            stdin=subprocess.DEVNULL, text=True))
        yield running, reports
        for process in running:
            out, error = process.communicate(timeout=net.LONG)
            check(process.returncode == 0, f"hostile_peer ended with {process.returncode}", error)
            reports.append(json.loads(out))
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
            process.stderr.close()


def watch(on, running):
    """Until all have ended: the most descriptors and threads that were seen."""
    most = [0, 0]
    while any(process.poll() is None for process in running):
        most[0] = max(most[0], on.server.descriptors())
        most[1] = max(most[1], on.server.status()["Threads"])
        select.select([], [], [], 0.02)
    return most


def back_to_the_start(on):
    until(lambda: on.server.descriptors() <= on.descriptors + 2, "descriptors are given back")
    until(lambda: on.server.status()["Threads"] <= on.threads, "threads end")


@contextlib.contextmanager
def attack_in_background(*orders):
    """Attack the stage: orders are (name, connections, seconds[, connects a second]).

    Gives a list: at the end reports, what the server told, and whether others got on meanwhile."""
    on, ended = stage(), []
    on.load.take()
    on.server.forget_peak()
    cpu, start = on.server.cpu(), time.monotonic()
    verbs = [order if order[0] == "replay" else ("attack", *order) for order in orders]
    with attackers(on.target(), *verbs) as (running, reports):
        yield ended
        descriptors, threads = watch(on, running)
    seconds, cpu = time.monotonic() - start, on.server.cpu() - cpu
    measured, peak = on.load.take(), on.server.peak()
    for report in reports:
        tell(", ".join(f"{name} {value}" for name, value in report.items()))
    tell(f"under attack: {numbers(measured)}; peak {peak / MIB:.1f} MiB, {descriptors} descriptors, "
         f"cpu {100 * cpu / seconds:.0f} %")
    caught_up(on)
    back_to_the_start(on)
    ended += [reports, on.log(), bool(measured[0] and measured[1])]
    if not SANITIZED:
        check(peak < PEAK_MAX, f"peak {peak}")
    check(descriptors < DESCRIPTORS_MAX, f"{descriptors} descriptors")
    check(threads <= on.threads + THREADS_MAX, f"{threads} threads")


def attack(*orders, enough=lambda reports: True):
    """The reports, and what the server told; once more if it was not enough of an attack."""
    told = ""
    for _ in range(ATTEMPTS):
        with attack_in_background(*orders) as ended:
            pass
        reports, said, got_on = ended
        told += said
        if got_on and enough(reports):
            break
    check(got_on, "nobody got anywhere during the attack")
    return reports, told


def caught_up(on):
    with contextlib.closing(through_vfs(on.app)) as db:
        db.execute("INSERT INTO t(b) VALUES('after the attack')")
        seq = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
    for replica in on.replicas:
        net.wait_for(replica, seq)


def all_dropped(reports, least=1):
    return all(report["dropped"] >= least for report in reports
               if report["attack"] != "empty-frames")  # are no offence


def refused(said, *reasons):
    """Is each of these among the reasons of the server's event lines?"""
    lines = [line for line in said.splitlines() if re.search("event=peer_(dropped|refused) ", line)]
    for reason in reasons:
        check(any(re.search(reason, line) for line in lines), f"no line says {reason!r}", *lines[-5:])
    for line in lines:
        check(re.search(r'address=127\.0\.0\.1:\d+ reason="[^"]+"', line), line)


# ------------------------------------------------------------------------- tests: before one is in


def who_never_shakes_hands_is_let_go(dir):
    # 10 s from the last dial on: and 1500 of them may take their time.
    with attack_in_background(("half-open", 1500, 20), ("half-shaken", 300, 20),
                              ("slow-loris", 60, 20)) as ended:
        select.select([], [], [], 2)
        net.run("status", stage().url)  # an honest peer comes in all the same
        net.run("follow", stage().url, "late.db", "--once")
    _, said, got_on = ended
    check(got_on, "nobody got anywhere during the attack")
    refused(said, "no handshake within 10 s", "others are in their handshake")


def who_comes_and_goes_costs_little(dir):
    reports, _ = attack(("connects", 60, 2, 300), enough=lambda told: told[0]["dialed"] > 100)
    check(reports[0]["dialed"] > 100, reports)


def noise_before_the_handshake_is_refused(dir):
    reports, said = attack(("random-bytes", 10, 2), ("endless-frame", 5, 2), ("endless-frames", 5, 2),
                           ("weak-point", 9, 2), enough=lambda told: all_dropped(told, 5))
    check(all(report["opened"] == 0 for report in reports), reports)
    check(all_dropped(reports, 5), reports)
    refused(said, "a handshake frame of", "handshake")


def a_handshake_is_good_once_and_as_it_was(dir):
    reports, said = attack(("altered-handshake", 161, 2), ("replay",))
    check(reports[0]["linked"] == 0, "an altered handshake was taken", reports[0])
    check(reports[1]["linked"] == 1 and reports[1]["linked_again"] == 0, "replayed", reports[1])
    check(reports[1]["dropped"] == 2, reports[1])
    refused(said, "handshake")


def who_is_not_let_in_learns_nothing(dir):
    net.make("own.db")
    own = {"HYPERWAL_IDENTITY": os.path.join(dir, "own")}
    key = net.run("key", env={**os.environ, **own}).stdout.split()[0]
    with net.server("--allow", key, "own.db") as primary:
        host = primary.urls["own.db"].split("/")[2]
        where = [*host.split(":"), net.run("key", "own.db").stdout.strip()]
        with net.follower(primary.urls["own.db"], "r.db", environment=own) as live:
            live.line("r.db: live")
            with attackers(where, ("attack", "ask-blocks", 20, 5, 100),
                           ("attack", "questions", 20, 5, 100)) as (running, reports):
                for i in range(20):
                    net.wait_for("r.db", net.add("own.db", f"while strangers knock {i}"))
            check(all(report["linked"] == 0 for report in reports), reports)
            check(all(report["dropped"] > 5 for report in reports), reports)
            refused(primary.said(), "this identity is not among those let in")
            check(re.search("event=peer_refused peer=[0-9a-f]{64} address=127", primary.said()),
                  primary.said()[-500:])


# ---------------------------------------------------------------------------- tests: who is in


def frames_of_any_size_are_borne(dir):
    reports, said = attack(("garbage-frames", 5, 2), ("endless-frame-later", 5, 2),
                           ("big-frames", 5, 2), ("empty-frames", 5, 2), ("random-frames", 5, 2),
                           enough=all_dropped)
    check(all_dropped(reports), reports)
    refused(said, "stream:|mux:")


def channels_that_nobody_knows_are_refused(dir):
    reports, said = attack(("many-channels", 5, 2), ("great-numbers", 5, 2),
                           ("open-in-batches", 5, 2), enough=all_dropped)
    check(all_dropped(reports), reports)
    refused(said, "channels")


def a_log_is_only_for_who_knows_its_key(dir):
    # The first one is over when all were dropped.
    reports, said = attack(("wrong-proof-of-key", 20, 30), ("wrong-key", 20, 1))
    check(all(report["linked"] == 0 for report in reports), reports)
    check(reports[0]["dropped"] == 20, reports[0])
    refused(said, "key")


def who_asks_a_lot_waits_behind_the_others(dir):
    attack(("ask-blocks", 20, 2))
    attack(("questions", 20, 2))


def what_is_not_there_is_not_looked_for_long(dir):
    reports, said = attack(("ask-what-is-not-there", 20, 2), enough=all_dropped)
    check(all_dropped(reports), reports)
    refused(said, "requests that nobody can answer|beyond|request")


def who_never_reads_keeps_nothing_waiting(dir):
    attack(("ask-and-never-read", 40, 2), ("wants-and-never-read", 20, 2),
           ("syncs-and-never-read", 20, 2))


def what_a_peer_claims_to_have_or_want_costs_little(dir):
    attack(("wants", 10, 2), ("ranges", 10, 2), ("bitfields", 10, 2), ("syncs", 10, 2))


def forged_blocks_are_not_taken(dir):
    reports, said = attack(("forged-blocks", 10, 2), ("random-messages", 10, 2), enough=all_dropped)
    check(all_dropped(reports), reports)
    refused(said, ".")


def false_acknowledgements_hide_no_follower(dir):
    attack(("acknowledgements", 20, 2))
    on = stage()
    with contextlib.closing(through_vfs(on.app, durability="remote", replicas=2)) as db:
        db.execute("INSERT INTO t(b) VALUES('confirmed')")


def who_may_write_and_means_no_good_harms_nobody(dir):
    net.make("written.db")
    with net.server("written.db", "--allow-write", "any") as primary:
        url = primary.urls["written.db"]
        where = ["127.0.0.1", url.split("/")[2].split(":")[1], net.run("key", "written.db").stdout.strip()]
        for _ in range(ATTEMPTS):
            with attackers(where, ("attack", "leases", 10, 2), ("attack", "commits", 10, 2)) \
                    as (running, reports):
                pass
            if all(report["linked"] > 0 for report in reports) and reports[1]["dropped"] > 0:
                break
        check(all(report["linked"] > 0 for report in reports), reports)
        check(reports[1]["dropped"] > 0, reports)  # a commit before the answer to the last one
        os.environ["HYPERWAL_CACHE"] = os.path.join(dir, "cache")
        with contextlib.closing(sqlite3.connect(f"file:{url}?vfs=hyperwal", uri=True, isolation_level=None,
                                                timeout=30)) as db:
            count = db.execute("SELECT count(*) FROM t").fetchone()[0]
            db.execute("INSERT INTO t(b) VALUES('honest')")
            check(db.execute("SELECT count(*) FROM t").fetchone()[0] == count + 1, "an honest writer")
        with contextlib.closing(through_vfs("written.db")) as db:
            check(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "integrity")
            check(db.execute("SELECT count(*) FROM t").fetchone()[0] == count + 1, "nothing of theirs")


def connections_may_break_anywhere(dir):
    attack(("resets", 20, 2))


def descriptors_may_run_out(dir):
    net.make("own.db")
    with open("serve.conf", "w", encoding="utf-8") as file:
        file.write("rest-after = 0\n")  # to wake a database takes some
    with net.server("--config", "serve.conf", "own.db") as primary:
        server = Server(primary.process.pid)
        host = primary.urls["own.db"].split("/")[2]
        where = [*host.split(":"), net.run("key", "own.db").stdout.strip()]
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        check(soft == hard, soft, hard)
        with net.follower(primary.urls["own.db"], "r.db") as live:
            live.line("r.db: live")
            few = server.descriptors() + 20
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (few, few))
            with attackers(where, ("attack", "knocks", 100, 12)):  # time to be seen
                until(lambda: server.descriptors() == few, "all descriptors are taken")
                for i in range(20):
                    net.wait_for("r.db", net.add("own.db", f"without descriptors {i}"))
            until(lambda: server.descriptors() < few, "some are free again")
            net.run("follow", primary.urls["own.db"], "late.db", "--once")
            net.wait_for("r.db", net.add("own.db", "afterwards"))
            check("accept_failed" in primary.said(), primary.said())
    check(net.dump("r.db") == net.dump("own.db"), "r.db differs")


def places_are_not_for_who_does_nothing(dir):
    on = stage()
    with attack_in_background(("knocks", 1200, 12, 600)) as ended:  # time to be seen
        until(lambda: on.server.descriptors() > 1000, "all places are taken")
        net.run("follow", on.url, "late.db", "--once")
    check(ended[2], "nobody got anywhere during the attack")
    refused(ended[1], "it has no log open")


def web_sockets_are_no_back_door(dir):
    net.make("own.db")
    with net.server("own.db", listen="ws://127.0.0.1:0/hyperwal") as primary:
        server = Server(primary.process.pid)
        before = server.descriptors()
        port = int(primary.urls["own.db"].split("/")[2].split(":")[1])
        upgrade = (f"GET /hyperwal HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                   "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                   "Sec-WebSocket-Version: 13\r\n\r\n").encode()
        giant = upgrade + b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(MIB)
        wordy = b"GET /hyperwal HTTP/1.1\r\n" + b"X: " + bytes(4 * MIB)
        large = b"POST /hyperwal HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n" + bytes(MIB)
        noise = upgrade + b"\x82\x85\0\0\0\0noise"
        with contextlib.ExitStack() as stack:
            for said in (b"", b"GET /hyper", giant, wordy, large, noise) * 20:
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                with contextlib.suppress(OSError):
                    client.settimeout(0.2)
                    client.sendall(said)
            net.run("follow", primary.urls["own.db"], "r.db", "--once")
            tell(f"peak {server.peak() / MIB:.1f} MiB, {server.descriptors()} descriptors")
        until(lambda: server.descriptors() <= before + 2, "descriptors are given back")
        refused(primary.said(), "handshake frame")
    check(net.dump("r.db") == net.dump("own.db"), "r.db differs")


def who_is_turned_away_in_a_crowd_tries_again(dir):
    net.make("own.db")
    with net.server("own.db") as primary, socket.create_server(("127.0.0.1", 0)) as gate:
        host, port = primary.urls["own.db"].split("/")[2].split(":")

        def pass_on(client):
            with client, socket.create_connection((host, int(port))) as beyond:
                other = {client: beyond, beyond: client}
                while True:
                    for end in select.select(list(other), [], [])[0]:
                        piece = end.recv(65536)
                        if not piece:
                            return
                        other[end].sendall(piece)

        def turn_two_away():
            for _ in range(2):
                gate.accept()[0].close()
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=pass_on, args=gate.accept()[:1], daemon=True).start()

        threading.Thread(target=turn_two_away, daemon=True).start()
        status = net.fact("status", f"hyper://127.0.0.1:{gate.getsockname()[1]}/own.db")
        check(status["length"] > 0, status)


def afterwards_all_is_as_it_was(dir):
    on = stage()
    on.load.end()
    check(not on.load.errors, *on.load.errors)
    caught_up(on)
    back_to_the_start(on)
    memory, cpu = on.server.memory(), on.server.cpu()
    select.select([], [], [], 1)
    cpu = on.server.cpu() - cpu
    tell(f"memory {memory / MIB:.1f} MiB, at the start {on.memory / MIB:.1f}; "
         f"{on.server.descriptors()} descriptors, at the start {on.descriptors}; "
         f"cpu {100 * cpu:.0f} % of an idle second")
    check(cpu < 0.3, "it does not come to rest")
    if not SANITIZED:
        check(memory < on.memory + KEPT_MAX, f"{memory} bytes stayed")
    expected = net.dump(on.app)
    for replica in on.replicas:
        check(net.dump(replica) == expected, replica, "differs")
    net.run("verify", on.app)


# --------------------------------------------------------------------------- tests: lying servers


@contextlib.contextmanager
def liar(primary, how, after=0):
    """A server that passes on what `primary` says, with lies; its URL."""
    host = primary.urls["app.db"].split("/")[2]
    where = [*host.split(":"), net.run("key", "app.db").stdout.strip()]
    process = subprocess.Popen([HOSTILE, "lie", *where, how, str(after)], stdout=subprocess.PIPE,
                               stdin=subprocess.DEVNULL, text=True)
    try:
        yield f"hyper://127.0.0.1:{json.loads(process.stdout.readline())['port']}/app.db"
        check(process.poll() is None, f"the liar ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def is_found_out(primary, how, after):
    """A follower of this liar alone notices; what it took is true, and it goes on elsewhere."""
    replica = f"{how}-{after}.db"
    with liar(primary, how, after) as url:
        with net.follower(url, replica) as live:
            def noticed():
                if live.process.poll() is not None:
                    return True
                net.add("app.db", "news")
                return "source_banned" in live.said() or "peer_dropped" in live.said()
            until(noticed, f"{how}: the lie is noticed")
            said = live.said()
            live.kill()
    reason = re.search('reason="([^"]*)"', said)
    tell(f"{how} after {after}: {reason.group(1) if reason else said.strip()[-150:]}")
    net.run("follow", primary.urls["app.db"], replica, "--once")
    check(net.dump(replica) == net.dump("app.db"), how, "a lie was taken")
    net.run("verify", replica)


def lies_of_a_server_are_found_out(dir):
    net.make("app.db", 300)
    with net.server("app.db") as primary:
        for how in ("block", "empty-block", "huge-block", "index", "nodes", "signature", "length",
                    "manifest"):
            is_found_out(primary, how, 0)


def forged_pushes_are_found_out(dir):
    net.make("app.db", 300)
    with net.server("app.db") as primary:
        for how in ("block", "nodes", "signature", "index"):
            is_found_out(primary, how, 12)


def a_liar_keeps_nobody_from_a_better_source(dir):
    net.make("app.db", 300)
    with net.server("app.db") as primary:
        for how in ("block", "signature", "silence", "endless", "fork"):
            with liar(primary, how) as url:
                start = time.monotonic()
                with net.follower(url, f"{how}.db", "--also", primary.urls["app.db"]) as live:
                    live.line(f"{how}.db: live")
                    net.wait_for(f"{how}.db", net.add("app.db", "one", "two", "three"))
                tell(f"{how}: level after {time.monotonic() - start:.2f} s")
                check(net.dump(f"{how}.db") == net.dump("app.db"), how)


# ------------------------------------------------------------------------------ tests: a crowd


def two_hundred_followers_hold(dir):
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < 8 * MIB * FOLLOWERS:
        raise net.Skip(f"{free // MIB} MiB of memory are free, {8 * FOLLOWERS} are needed")
    net.make("app.db", 300)
    with net.server("app.db") as primary, contextlib.ExitStack() as stack:
        server = Server(primary.process.pid)
        memory, start = server.memory(), time.monotonic()
        followers = [stack.enter_context(net.follower(primary.urls["app.db"], f"f{i}.db"))
                     for i in range(FOLLOWERS)]
        for i, live in enumerate(followers):
            live.line(f"f{i}.db: live")
        tell(f"{FOLLOWERS} followers are live after {time.monotonic() - start:.1f} s; at the server "
             f"{(server.memory() - memory) / FOLLOWERS / 1024:.0f} KiB and "
             f"{server.descriptors() / FOLLOWERS:.1f} descriptors a follower, "
             f"peak {server.peak() / MIB:.1f} MiB")
        start = time.monotonic()
        seq = net.add("app.db", *(f"for all {i}" for i in range(50)))
        committed = time.monotonic()
        for i in range(FOLLOWERS):
            net.wait_for(f"f{i}.db", seq)
        tell(f"50 commits in {committed - start:.2f} s, all level {time.monotonic() - committed:.2f} s "
             f"later; memory {server.memory() / MIB:.1f} MiB")
        states = {digest(f"f{i}.db") for i in range(FOLLOWERS)}
        check(len(states) == 1, len(states))
        # An entry without a change has a sum of its own, and may be on its way to some of them.
        until(lambda: len({net.fact("status", f"f{i}.db")["sum"]
                           for i in range(0, FOLLOWERS, 20)}) == 1, "all have the same sum")
        for live in followers:
            live.kill()
        until(lambda: server.descriptors() < 60, "descriptors are given back")


def digest(path):
    """Of the content: what SQLite reads there."""
    with contextlib.closing(net.stock(path)) as db:
        return db.execute("SELECT count(*), sum(a), sum(length(b)), max(b) FROM t").fetchone()


TESTS = (noise_before_the_handshake_is_refused, a_handshake_is_good_once_and_as_it_was,
         who_comes_and_goes_costs_little, who_is_not_let_in_learns_nothing,
         frames_of_any_size_are_borne, channels_that_nobody_knows_are_refused,
         a_log_is_only_for_who_knows_its_key, who_asks_a_lot_waits_behind_the_others,
         what_is_not_there_is_not_looked_for_long, who_never_reads_keeps_nothing_waiting,
         what_a_peer_claims_to_have_or_want_costs_little, forged_blocks_are_not_taken,
         false_acknowledgements_hide_no_follower,
         who_may_write_and_means_no_good_harms_nobody, connections_may_break_anywhere,
         places_are_not_for_who_does_nothing, who_is_turned_away_in_a_crowd_tries_again, descriptors_may_run_out, web_sockets_are_no_back_door,
         who_never_shakes_hands_is_let_go, afterwards_all_is_as_it_was,
         lies_of_a_server_are_found_out, forged_pushes_are_found_out,
         a_liar_keeps_nobody_from_a_better_source, two_hundred_followers_hold)
# What --minutes chooses from.
ENDLESS = ("half-open", "half-shaken", "altered-handshake", "slow-loris", "random-bytes", "endless-frame",
           "endless-frames", "connects", "knocks", "garbage-frames", "endless-frame-later", "big-frames",
           "empty-frames", "random-frames", "many-channels", "great-numbers", "open-in-batches",
           "questions", "ask-blocks", "ask-and-never-read", "ask-what-is-not-there", "wants",
           "wants-and-never-read", "ranges", "bitfields", "syncs", "syncs-and-never-read",
           "forged-blocks", "random-messages", "acknowledgements", "resets")


def attacks_without_end(minutes):
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        attack(*((name, random.choice((1, 5, 20, 60)), random.randint(1, 20))
                 for name in random.sample(ENDLESS, 4)))
    afterwards_all_is_as_it_was(None)


def run_one(test, *arguments):
    """False: it failed."""
    start = os.getcwd()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        os.environ["HYPERWAL_IDENTITY"] = os.path.join(directory, "identity")
        begin = time.monotonic()
        try:
            test(*(arguments or (directory,)))
            tell(f"{time.monotonic() - begin:.1f} s")
            print(f"ok {test.__name__}", flush=True)
            return True
        except net.Skip as reason:
            print(f"skip {test.__name__}: {reason}", flush=True)
            return True
        except Exception as error:  # every test is told of, whatever happens in it
            traceback.print_exc(file=sys.stdout)
            print(f"not ok {test.__name__}: {error}", flush=True)
            return False
        finally:
            os.chdir(start)


def main(arguments):
    loaded = net.load_extension()  # the VFS lives as long as the process
    good = True
    try:
        if arguments[:1] == ["--minutes"]:
            good = run_one(attacks_without_end, float(arguments[1]))
        else:
            for test in TESTS:
                if not arguments or test.__name__ in arguments:
                    good = run_one(test) and good
    finally:
        for on in STAGE:
            on.close()
    loaded.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
