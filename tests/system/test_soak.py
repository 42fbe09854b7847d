#!/usr/bin/python3
"""Processes that live long beside others that are killed: do they lose anything, and do they grow?

    tests/system/test_soak.py [--minutes N] [--seed S]      tests/soak runs it for longer

A server, a writer, a keeper (snapshots, labels, pruning, checkpoints), followers of the file and of the network and
stock readers work all the time on one database.  Beside them a second writer, one with stock SQLite, a follower of a
follower and its reader are killed with -9 at random and come again.  Of those that live, /proc tells memory,
descriptors and threads: what they have in the last third of the time they had in the middle third.  At the end
everything is compared with everything, as in test_storm.c.

One line a test: "ok NAME", "not ok NAME: why" (docs/TESTING.md).  HW_BUILD names the build directory.
"""

import argparse
import os
import random
import re
import selectors
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

import test_network as net
from test_network import check

ACTOR = os.path.join(net.BUILD, "tests", "storm_actor")
MIB = 1 << 20
SECONDS = 25           # without --minutes
SAMPLES = 150          # in all that time
GROWTH_MAX = 4 * MIB   # of the median of memory: allocators settle slowly
DESCRIPTORS_MORE = 4   # of the greatest number: connections come and go
THREADS_MORE = 2
RESTORES = 12
ENDS_WITHIN = 60       # seconds


class Actor:
    """A process of the soak; its command is made anew at each start."""

    def __init__(self, name, command, is_killed):
        self.name, self.command, self.is_killed = name, command, is_killed
        self.errors = open(f"{name}.err", "ab")
        self.process, self.pending, self.samples = None, b"", []

    def start(self, soak):
        self.pending = b""
        self.process = subprocess.Popen(list(map(str, self.command())), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors)
        soak.selector.register(self.process.stdout, selectors.EVENT_READ, self)

    def lines(self):
        """What it says now; None: it has ended."""
        more = os.read(self.process.stdout.fileno(), 65536)
        *lines, self.pending = (self.pending + more).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines] if more or lines else None

    def sample(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii", errors="replace") as file:
            facts = dict(line.split(":", 1) for line in file)
        self.samples.append((int(facts["VmRSS"].split()[0]) * 1024,
                             len(os.listdir(f"/proc/{self.process.pid}/fd")),
                             int(facts["Threads"])))


class Soak:
    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.actors, self.acknowledged, self.seqs = [], {}, []
        self.kept = self.kills = self.commits = self.reads = self.labels = 0

    # ---------------------------------------------------------------------------------- actors

    def add(self, name, command, is_killed=False):
        actor = Actor(name, command, is_killed)
        self.actors.append(actor)
        actor.start(self)
        return actor

    def helper(self, name, role, *arguments, is_killed=False):
        """A process of storm_actor: each start has a seed of its own."""
        path, *rest = arguments
        self.add(name, lambda: [ACTOR, role, path, self.chance.getrandbits(63), *rest], is_killed)

    def url_of(self, actor):
        """Where it serves: a server says so in its first line."""
        deadline = time.monotonic() + net.LONG
        while time.monotonic() < deadline:
            for key, _ in self.selector.select(0.1):
                if key.data is not actor:
                    self.hear(key.data)
                    continue
                lines = actor.lines()
                check(lines is not None, actor.name, "ended at once")
                for line in lines:
                    found = re.search(r'"url": *"([^"]+)"', line)
                    if found:
                        return found.group(1)
        raise AssertionError(f"{actor.name} does not say where it serves")

    def hear(self, actor):
        lines = actor.lines()
        if lines is None:
            self.selector.unregister(actor.process.stdout)
            actor.process.wait()
            raise AssertionError(f"{actor.name} ended by itself: {actor.process.returncode}")
        for line in lines:
            self.said(actor, line)

    def said(self, actor, line):
        word, *values = line.split(" ")
        check(word != "bad", actor.name, line)
        if word == "start":
            writer, n = map(int, values)
            known = self.acknowledged.get(writer, 0)
            check(n in (known, known + 1), actor.name, line, f"acknowledged was {known}")
            self.acknowledged[writer] = n  # it may have been killed before it could say so
        elif word == "ack":
            writer, n, seq = map(int, values)
            check(n == self.acknowledged[writer] + 1, actor.name, line)
            self.acknowledged[writer] = n
            self.commits += 1
            if seq:
                self.seqs.append((seq, writer, n))
        elif word == "keep":
            self.kept = max(self.kept, int(values[0]))
        elif word in ("read", "label"):
            setattr(self, word + "s", getattr(self, word + "s") + 1)

    def strike(self):
        actor = self.chance.choice([actor for actor in self.actors if actor.is_killed])
        actor.process.kill()
        while True:  # hear what it still said
            lines = actor.lines()
            if lines is None:
                break
            for line in lines:
                self.said(actor, line)
        self.selector.unregister(actor.process.stdout)
        code = actor.process.wait()
        check(code == -signal.SIGKILL, actor.name, f"ended by itself: {code}")
        actor.process.stdout.close()
        actor.process.stdin.close()
        self.kills += 1
        actor.start(self)

    # ------------------------------------------------------------------------------- what happens

    def begin(self):
        net.run("init", "app.db")
        serve = self.add("serve", lambda: [net.PROGRAM, "serve", "--listen", "tcp://127.0.0.1:0", "--json", "app.db"])
        url = self.url_of(serve)
        self.helper("write", "write", "app.db", 0, 1, "vo")
        self.helper("keep", "keep", "app.db")
        self.helper("read", "read", "app.db")
        self.add("follow-file", lambda: [net.PROGRAM, "follow", "app.db", "file.db"])
        follow = self.add("follow-net", lambda: [net.PROGRAM, "follow", url, "net.db", "--listen",
                                                 "tcp://127.0.0.1:0", "--json"])
        self.helper("read-net", "read", "net.db")
        far_url = self.url_of(follow)
        self.helper("write-killed", "write", "app.db", 1, 1, "vo", is_killed=True)
        self.helper("write-stock", "write", "app.db", 2, 1, "so", is_killed=True)
        self.add("follow-far", lambda: [net.PROGRAM, "follow", far_url, "far.db"], is_killed=True)
        self.helper("read-far", "read", "far.db", is_killed=True)

    def live(self, seconds):
        start = time.monotonic()
        sampled, strike_at = 0, start
        while time.monotonic() < start + seconds:
            for key, _ in self.selector.select(0.05):
                self.hear(key.data)
            now = time.monotonic()
            if now >= strike_at:
                self.strike()
                strike_at = now + self.chance.uniform(0.02, 0.6)
            if now >= start + seconds * sampled / SAMPLES:
                sampled += 1
                for actor in self.actors:
                    if not actor.is_killed:
                        actor.sample()

    def end(self):
        """Everybody is asked; on whom others depend, last."""
        for actor in reversed(self.actors):
            actor.process.stdin.close()
            if actor.command()[0] != ACTOR:
                actor.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + ENDS_WITHIN
            while True:
                check(time.monotonic() < deadline, actor.name, "does not end")
                if not self.hear_while_ending(actor):
                    break
            self.selector.unregister(actor.process.stdout)
            code = actor.process.wait()
            # the program may not yet have asked for signals
            check(code in (0, -signal.SIGTERM if actor.is_killed else 0), actor.name, f"ended with {code}")
            actor.process.stdout.close()

    def hear_while_ending(self, ending):
        """False: it has said all."""
        for key, _ in self.selector.select(0.1):
            lines = key.data.lines()
            if lines is None:
                check(key.data is ending, key.data.name, "ended by itself")
                return False
            for line in lines:
                self.said(key.data, line)
        return True

    def kill_all(self):
        for actor in self.actors:
            if actor.process.poll() is None:
                actor.process.kill()
                actor.process.wait()

    # -------------------------------------------------------------------------------- reckoning

    def counters(self, path):
        """{writer: its last commit} of a database that is consistent."""
        done = subprocess.run([ACTOR, "check", path, "0"], capture_output=True, text=True, timeout=300, check=True)
        lines = done.stdout.splitlines()
        check(lines and lines[-1] == "consistent", path, lines[-1:])
        return {int(line.split()[1]): int(line.split()[2]) for line in lines[:-1]}

    def reckon(self):
        found = self.counters("app.db")
        for writer, known in self.acknowledged.items():
            check(found[writer] in (known, known + 1), f"writer {writer}: {known} was acknowledged, {found[writer]} found")
        gaps = [entry for entry in net.facts("log", "app.db") if entry["type"] == "gap"]
        check(not gaps, gaps)
        net.run("verify", "app.db")
        with net.server("app.db") as server:
            for replica, source in (("file.db", "app.db"), ("net.db", server.urls["app.db"]),
                                    ("far.db", server.urls["app.db"])):
                net.run("follow", source, replica, "--once")
                net.run("verify", replica)
                check(net.dump(replica) == net.dump("app.db"), replica, "differs")
        for seq, writer, n in self.chance.sample(self.seqs[-3000:], min(RESTORES, len(self.seqs))):
            done = subprocess.run([net.PROGRAM, "restore", "app.db", "out.db", "--seq", str(seq), "--force"],
                                  capture_output=True, text=True, check=False)
            if done.returncode == 4 and seq < self.kept:
                continue  # pruned
            check(done.returncode == 0, f"restore {seq}", done.stderr)
            check(self.counters("out.db")[writer] == n, f"seq {seq}: writer {writer} had {n}")

    def growth(self):
        """What of those that lived grew; and a line for each."""
        bad = []
        for actor in self.actors:
            if actor.is_killed:
                continue
            third = len(actor.samples) // 3
            middle, last = (list(zip(*part)) for part in (actor.samples[third:2 * third], actor.samples[2 * third:]))
            memory = [statistics.median(part[0]) for part in (middle, last)]
            most = [[max(part[i]) for part in (middle, last)] for i in (1, 2)]
            print(f"     {actor.name}: {memory[0] / MIB:.1f} then {memory[1] / MIB:.1f} MiB, descriptors "
                  f"{most[0][0]} then {most[0][1]}, threads {most[1][0]} then {most[1][1]}", flush=True)
            if memory[1] > memory[0] + GROWTH_MAX:
                bad.append(f"{actor.name}: memory grows from {memory[0]} to {memory[1]}")
            if most[0][1] > most[0][0] + DESCRIPTORS_MORE or most[1][1] > most[1][0] + THREADS_MORE:
                bad.append(f"{actor.name}: descriptors or threads: {most}")
        return bad


def soak(seconds, seed):
    subprocess.run([ACTOR, "make", "app.db", str(seed)], check=True, timeout=60)
    it = Soak(seed)
    try:
        it.begin()
        it.live(seconds)
        it.end()
        it.reckon()
    finally:
        it.kill_all()
    print(f"     seed {seed}: {seconds:.0f} s, {it.kills} kills, {it.commits} commits acknowledged, {it.reads} reads, "
          f"{it.labels} labels, log of {net.fact('status', 'app.db')['length']} blocks", flush=True)
    check(it.commits and it.reads, "nothing happened")
    return it


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=SECONDS / 60)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("HYPERWAL_SEED", "1")))
    arguments = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="hyperwal-soak-")
    start, failed = os.getcwd(), False
    os.chdir(directory)
    os.environ["HYPERWAL_IDENTITY"] = os.path.join(directory, "identity")
    loaded = net.load_extension()
    name = "killed_processes_lose_nothing_and_those_that_live_do_not_grow"
    try:
        bad = soak(arguments.minutes * 60, arguments.seed).growth()
        check(not bad, *bad)
        print(f"ok {name}", flush=True)
    except Exception as error:  # told with all that is known
        failed = True
        traceback.print_exc(file=sys.stdout)
        print(f"everything is in {directory}\nnot ok {name}: seed {arguments.seed}: {error}", flush=True)
    os.chdir(start)
    loaded.close()
    if not failed:
        subprocess.run(["rm", "-rf", directory], check=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
