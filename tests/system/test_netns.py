#!/usr/bin/python3
"""Servers and followers on several hosts, with delay, loss and cuts between them: the program over
real TCP, each process on a host of its own (hosts.py).

One line a test, as in test_network.py; all are skipped, and counted, where there can be no hosts.
Lines that are indented tell figures; what is asserted of time is what cannot be otherwise.
"""

import contextlib
import os
import socket
import sqlite3
import sys
import threading
import time

import hosts
import test_network as net
from test_network import check, fact, run, through_vfs, wait_for

PORT = 4970
PATIENT = 90  # seconds: more than the limits on silence, together with a dial that waits
MIB = 1 << 20


def tell(text):
    print(f"     {text}", flush=True)


def until(condition, what, seconds=PATIENT):
    """How long it took."""
    start = time.monotonic()
    while not condition():
        check(time.monotonic() - start < seconds, "never:", what)
        time.sleep(0.05)
    return time.monotonic() - start


def middle(values):
    return sorted(values)[len(values) // 2]


class World(contextlib.ExitStack):
    """A network, and the processes of a test on its hosts."""

    def __init__(self, count, **ways):
        super().__init__()
        self.network = self.enter_context(hosts.Network(count))
        self.network.all_ways(**ways)
        self.hosts = self.network.hosts

    def on(self, host, started):
        with host:
            return self.enter_context(started)

    def serve(self, host, *databases):
        """The URL of the first."""
        listen = f"tcp://{host.address}:{PORT}"
        process = self.on(host, net.server("--allow", "any", *databases, listen=listen))
        return process, process.urls[databases[0]]

    def follow(self, host, *words):
        return self.on(host, net.follower(*words))


def add_one(text):
    return net.add("app.db", text)


def at_the_head(replica):
    check(net.dump(replica) == net.dump("app.db"), replica, "differs")


def has(replica, text):
    """What a reader of it sees, without waiting in the library."""
    with contextlib.closing(net.stock(replica)) as db:
        return db.execute("SELECT 1 FROM t WHERE b = ?", (text,)).fetchone() is not None


def fill(mebibytes):
    """Rows that do not compress, in transactions of 1 MiB."""
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("CREATE TABLE big(a INTEGER PRIMARY KEY, b BLOB)")
        for _ in range(mebibytes):
            db.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 256) "
                       "INSERT INTO big(b) SELECT randomblob(4000) FROM n")
        db.execute("PRAGMA hyperwal_seq").fetchone()


# ---------------------------------------------------------------------------- the tests


def followers_are_live_behind_delay_and_loss(dir):
    net.make("app.db", 2000)
    with World(3, delay_ms=20, loss=0.01) as world:
        here, one, two = world.hosts
        _, url = world.serve(here, "app.db")
        world.follow(one, url, "one.db").line("one.db: live")
        world.follow(two, url, "two.db").line("two.db: live")
        times = []
        for i in range(40):
            seq = add_one(f"far {i}")
            start = time.monotonic()
            for path in ("one.db", "two.db"):
                wait_for(path, seq)
            times.append(time.monotonic() - start)
        for path in ("one.db", "two.db"):
            at_the_head(path)
        tell(f"20 ms away, 1 % lost: visible on both after {1000 * middle(times):.0f} ms (p50), "
             f"{1000 * max(times):.0f} ms (longest)")


def a_cut_heals_by_itself(dir):
    net.make("app.db")
    with World(2, delay_ms=10) as world:
        here, far = world.hosts
        _, url = world.serve(here, "app.db")
        world.follow(far, url, "r.db").line("r.db: live")
        wait_for("r.db", add_one("before"))
        world.network.cut(far)
        seqs = [add_one(f"during the cut {i}") for i in range(50)]
        time.sleep(4)  # of silence: there is no event to wait for
        check(not has("r.db", "during the cut 0"), "the cut lets through")
        world.network.heal(far)
        took = until(lambda: has("r.db", "during the cut 49"), "the follower comes back")
        wait_for("r.db", seqs[-1])
        at_the_head("r.db")
        tell(f"cut for 4 s: at the head {took:.1f} s after it healed")


def a_server_that_came_anew_during_a_cut_is_found(dir):
    """Its old connections are half open: the follower learns of it when it can."""
    net.make("app.db")
    with World(2, delay_ms=10) as world:
        here, far = world.hosts
        process, url = world.serve(here, "app.db")
        world.follow(far, url, "r.db").line("r.db: live")
        world.network.cut(here)
        process.kill()
        world.serve(here, "app.db")
        add_one("from the new one")
        world.network.heal(here)
        took = until(lambda: has("r.db", "from the new one"), "the follower finds the new server")
        at_the_head("r.db")
        tell(f"another server at the same address: at the head {took:.1f} s after the cut")


def who_vanished_without_a_word_is_noticed(dir):
    net.make("app.db")
    with World(3, delay_ms=5) as world:
        here, near, lost = world.hosts
        _, url = world.serve(here, "app.db")
        gone = world.follow(lost, url, "lost.db")
        gone.line("lost.db: live")
        world.follow(near, url, "near.db").line("near.db: live")
        wait_for("lost.db", add_one("before"))
        net.until(lambda: len(fact("status", "app.db")["peers"]) == 2, "both acknowledged")
        world.network.cut(lost)
        times = []
        start = time.monotonic()

        def connected():
            return sum(peer["connected"] for peer in fact("status", "app.db")["peers"])

        def others_go_on():
            begin = time.monotonic()
            wait_for("near.db", add_one(f"to the other {len(times)}"))
            times.append(time.monotonic() - begin)
            return connected() == 1

        until(others_go_on, "the server drops who is silent")
        noticed = time.monotonic() - start
        until(lambda: "no sign of life" in gone.said(), "the follower drops its server")
        took = time.monotonic() - start
        check(gone.process.poll() is None, "the follower ended")
        tell(f"silence: the server noticed after {noticed:.0f} s, the follower after {took:.0f} s; meanwhile "
             f"the other one had a commit after {1000 * middle(times):.0f} ms (p50), "
             f"{1000 * max(times):.0f} ms (longest)")
        world.network.heal(lost)
        seq = add_one("after")
        took = until(lambda: has("lost.db", "after"), "the lost one comes back")
        wait_for("lost.db", seq)
        at_the_head("lost.db")
        tell(f"back at the head {took:.1f} s after it healed")
        until(lambda: connected() == 2, "it is known again")


def resident(pid):
    """Bytes of memory that a process has now."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def a_slow_link_delays_nobody_else(dir):
    net.make("app.db")
    with World(3, delay_ms=5) as world:
        here, quick, slow = world.hosts
        server, url = world.serve(here, "app.db")
        world.follow(quick, url, "quick.db").line("quick.db: live")
        world.follow(slow, url, "slow.db").line("slow.db: live")
        world.network.way(here, slow, delay_ms=5, rate=30e3)
        before, times = resident(server.process.pid), []
        for i in range(100):  # 3 MB: nearly two minutes of the slow link
            seq = add_one(os.urandom(30000).hex())
            start = time.monotonic()
            wait_for("quick.db", seq)
            times.append(time.monotonic() - start)
        seq = add_one("the last")
        wait_for("quick.db", seq)
        check(not has("slow.db", "the last"), "the slow link is not slow")
        grown = resident(server.process.pid) - before
        tell(f"beside a link of 30 kB/s: visible after {1000 * middle(times):.0f} ms (p50), "
             f"{1000 * max(times):.0f} ms (longest); the server has {grown / MIB:.1f} MiB more")
        check(grown < 64 * MIB, "what the slow one did not take is kept in memory")
        world.network.way(here, slow, delay_ms=5)
        took = until(lambda: has("slow.db", "the last"), "the slow one catches up")
        tell(f"at the head {took:.1f} s after its link got better")
        at_the_head("slow.db")


def a_server_out_of_reach_at_the_start_is_found_later(dir):
    net.make("app.db")
    with World(2, delay_ms=10) as world:
        here, far = world.hosts
        _, url = world.serve(here, "app.db")
        with far:
            run("follow", url, "r.db", "--once")
        world.network.cut(here)
        start = time.monotonic()
        with far:
            error = run("follow", url, "new.db", code=1).stderr
        tell(f"refused after {time.monotonic() - start:.1f} s: {error.strip()}")
        check(here.address in error, error)
        check(not os.path.exists("new.db-hyper"), "something was left")
        add_one("while it was out of reach")
        live = world.follow(far, url, "r.db")
        live.line("r.db: live")
        check(not has("r.db", "while it was out of reach"), "the cut lets through")
        world.network.heal(here)
        took = until(lambda: has("r.db", "while it was out of reach"), "the server is found")
        at_the_head("r.db")
        tell(f"found {took:.1f} s after it could be reached")


def the_nearer_source_gives_most(dir):
    net.make("app.db")
    fill(12)
    with World(3) as world:
        here, near, mine = world.hosts
        world.network.way(here, near, delay_ms=1)
        world.network.way(here, mine, delay_ms=150)
        world.network.way(near, mine, delay_ms=2)
        _, url = world.serve(here, "app.db")
        copy = world.follow(near, url, "copy.db", "--listen", f"tcp://{near.address}:{PORT}", "--allow",
                            "any", "--name", "copy")
        also = copy.line("copy ").split(" ")[2]
        copy.line("copy.db: live")
        world.follow(mine, url, "r.db", "--also", also).line("r.db: live")
        at_the_head("r.db")
        far_bytes, near_bytes = (world.network.carried(host, mine) for host in (here, near))
        tell(f"300 ms away: {far_bytes / MIB:.1f} MiB, 4 ms away: {near_bytes / MIB:.1f} MiB")
        check(near_bytes > far_bytes / 2, f"{near_bytes} from the near one, {far_bytes} from the far one")
        for source in (near, here):  # the near one needs the other for what is new
            text = f"without {source.address}"
            world.network.cut_between(source, mine)
            add_one(text)
            took = until(lambda: has("r.db", text), f"{text} the other one goes on")
            tell(f"{text}: visible after {took:.2f} s")
            at_the_head("r.db")
            world.network.heal(source)


def plain_copy(here, there, size):
    """Bytes a second of one TCP connection that copies `size` bytes from `here`."""
    with here, socket.create_server((here.address, PORT + 1)) as listener:
        with there:
            taker = socket.create_connection((here.address, PORT + 1))
        giver, _ = listener.accept()

    def give():
        with giver:
            for _ in range(size // MIB):
                giver.sendall(bytes(MIB))

    thread = threading.Thread(target=give)
    start = time.monotonic()
    thread.start()
    with taker:
        while taker.recv(MIB):
            pass
    thread.join()
    return size / (time.monotonic() - start)


def a_late_follower_fills_a_long_link(dir):
    size = int(os.environ.get("HYPERWAL_NETNS_MIB", "100"))
    net.make("app.db")
    fill(size)
    run("snapshot", "app.db")  # without it the whole log may have to come
    with World(2, delay_ms=25, rate=20e6) as world:
        here, far = world.hosts
        plain = plain_copy(here, far, size * MIB)
        _, url = world.serve(here, "app.db")
        before = world.network.carried(here, far)
        start = time.monotonic()
        world.follow(far, url, "r.db").line("r.db: live")
        seconds = time.monotonic() - start
        came = world.network.carried(here, far) - before
        at_the_head("r.db")
        rate = os.path.getsize("app.db") / seconds
        tell(f"{size} MiB, round trip 50 ms, 20 MB/s: followed at {rate / 1e6:.1f} MB/s, copied at "
             f"{plain / 1e6:.1f} MB/s: {rate / plain:.2f} of it; {came / MIB:.0f} MiB came")
        check(rate > plain / 10, "a small part of what the link gives")


def commit_for(durability, texts):
    """The seconds of each commit."""
    times = []
    with contextlib.closing(through_vfs("app.db", durability=durability, timeout=20000)) as db:
        for text in texts:
            start = time.monotonic()
            db.execute("INSERT INTO t(b) VALUES(?)", (text,))
            times.append(time.monotonic() - start)
    return times


def commit_together(threads, each, attempt):
    """The seconds of all commits of all threads, and those that passed."""
    results = [[] for _ in range(threads)]
    workers = [threading.Thread(target=lambda n=n: results[n].extend(
        commit_for("remote", [f"{attempt}: {n} {i}" for i in range(each)]))) for n in range(threads)]
    start = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - start
    done = [value for result in results for value in result]
    check(len(done) == threads * each, f"{len(done)} commits of {threads * each}")
    return done, seconds


def remote_commits_take_a_round_trip_and_share_it(dir):
    net.make("app.db")
    threads, each = 20, 10
    with World(2, delay_ms=10) as world:
        here, far = world.hosts
        _, url = world.serve(here, "app.db")
        world.follow(far, url, "r.db").line("r.db: live")
        commit_for("remote", ["warm"])
        alone = commit_for("remote", [f"alone {i}" for i in range(30)])
        applied = commit_for("remote_apply", [f"applied {i}" for i in range(30)])
        check(has("r.db", "applied 29"), "not applied")
        tell(f"round trip 20 ms: remote {1000 * middle(alone):.1f} ms (p50), remote_apply "
             f"{1000 * middle(applied):.1f} ms")
        check(min(alone) >= 0.020, f"confirmed after {min(alone)} s, sooner than can be")
        for attempt in range(3):  # on a loaded machine they wait for each other's locks instead
            done, seconds = commit_together(threads, each, attempt)
            tell(f"{threads} threads: {1000 * middle(done):.1f} ms (p50), {1000 * max(done):.0f} ms (longest), "
                 f"{len(done) / seconds:.0f} commits a second")
            if seconds < len(done) * middle(alone):
                break
        check(seconds < len(done) * middle(alone), f"{seconds} s: the threads did not share the wait")
        net.caught_up("r.db")


def a_remote_commit_in_a_cut_is_honest(dir):
    net.make("app.db")
    with World(2, delay_ms=10) as world:
        here, far = world.hosts
        _, url = world.serve(here, "app.db")
        world.follow(far, url, "r.db").line("r.db: live")
        commit_for("remote", ["warm"])
        world.network.cut(far)
        with contextlib.closing(through_vfs("app.db", durability="remote", timeout=1000)) as db:
            try:
                db.execute("INSERT INTO t(b) VALUES('unconfirmed')")
                raise AssertionError("confirmed by nobody")
            except sqlite3.Error as error:
                tell(f"told: {error}")
        check(has("app.db", "unconfirmed"), "it is committed all the same")
        world.network.heal(far)
        took = until(lambda: has("r.db", "unconfirmed"), "it comes to the follower later")
        seconds = commit_for("remote", ["confirmed again"])[0]
        tell(f"there {took:.1f} s after the cut; the next one confirmed after {1000 * seconds:.0f} ms")


TESTS = (followers_are_live_behind_delay_and_loss, a_cut_heals_by_itself,
         a_server_that_came_anew_during_a_cut_is_found, who_vanished_without_a_word_is_noticed,
         a_slow_link_delays_nobody_else,
         a_server_out_of_reach_at_the_start_is_found_later, the_nearer_source_gives_most,
         a_late_follower_fills_a_long_link, remote_commits_take_a_round_trip_and_share_it,
         a_remote_commit_in_a_cut_is_honest)


def main(names):
    why = hosts.unavailable()
    if why is None:
        net.TESTS = TESTS
        return net.main(names)
    for test in TESTS:
        if not names or test.__name__ in names:
            print(f"skip {test.__name__}: {why}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
