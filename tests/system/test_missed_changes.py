#!/usr/bin/python3
"""Followers, and old primaries, that were away while the primary changed more than once.

One line a test, as test_failover.py, whose helpers these are.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import test_network
from test_network import add, background, check, dump, fact, follower, make, run, server, until
from test_failover import Cluster, kept_of, replica_says, types, was_repaired


class Line(Cluster):
    """A cluster whose primary changes again and again, always at the same URL; the newest is .now."""

    def __init__(self, *names):
        super().__init__(*names)
        self.now, self.keys = "app.db", [self.key]
        self.serving = contextlib.ExitStack()

    def next(self, replica):
        """`replica`, of the primary of now, takes over; it has all of it."""
        last = fact("status", self.now)["seq"]
        run("follow", self.url, replica, "--once")
        check(fact("status", replica)["seq"] >= last, replica, last)
        (self.served.kill if self.now != "app.db" else self.primary.kill)()
        self.serving.close()
        self.done = fact("promote", replica)
        check(self.done["old_key"] == self.keys[-1], self.done)
        self.keys.append(self.done["key"])
        self.serving = contextlib.ExitStack()
        self.served = self.serving.enter_context(server(replica, listen=self.listen))
        self.now = replica
        return add(replica, f"of {replica}", "and more")

    def arrives(self, name, said):
        """The follower of `name` comes to the state that the primary of now has."""
        until(lambda: replica_says(name, "key") == self.keys[-1], f"{name} moves")
        seq = add(self.now, f"for {name}")
        until(lambda: (replica_says(name, "seq") or 0) >= seq, f"{name} applies")
        check(dump(name) == dump(self.now), name, "differs", said())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.serving.close()


def kept_keys(path):
    return sorted(name.rsplit(".", 1)[1] for name in kept_of(path))


def short(*keys):
    return sorted(key[:16] for key in keys)


def replica_in(directory, url):
    os.makedirs(directory)
    run("follow", url, f"{directory}/app.db", "--once")
    return f"{directory}/app.db"


# ---------------------------------------------------------------------------- the tests


def a_sleeper_goes_through_all_logs_that_it_missed(dir):
    with Line("f.db") as line:
        third, fourth = replica_in("third", line.url), replica_in("fourth", line.url)
        for i in range(10):  # f.db has not got the end of the first log either
            line.add(f"row {i}" * 50)
        line.next("new/app.db")
        line.next(third)
        line.next(fourth)
        with follower(line.url, "f.db") as f:
            line.arrives("f.db", f.said)
            check(not was_repaired(f), f.said())
            check(kept_keys("f.db") == short(*line.keys[:3]), kept_of("f.db"))
        run("verify", "f.db")


def a_live_follower_that_was_cut_off_goes_through_them(dir):
    with Line("f.db") as line, follower(line.url, "f.db") as f:
        f.line("f.db: live")
        third = replica_in("third", line.url)
        line.add("one")
        until(lambda: (replica_says("f.db", "seq") or 0) >= line.seq, "f.db follows")
        f.process.send_signal(test_network.signal.SIGSTOP)
        try:
            line.next("new/app.db")
            line.next(third)
        finally:
            f.process.send_signal(test_network.signal.SIGCONT)
        line.arrives("f.db", f.said)
        check(not was_repaired(f), f.said())


def once_means_the_log_that_has_the_name_now(dir):
    with Line("f.db") as line:
        third = replica_in("third", line.url)
        for i in range(40):  # so that its seq is beyond that of the newest log
            line.add(f"row {i}")
        line.catch_up("f.db")
        line.next("new/app.db")
        line.next(third)
        check(fact("status", "f.db")["seq"] > fact("status", third)["seq"], "numbers of two logs")
        run("follow", line.url, "f.db", "--once")
        check(fact("status", "f.db")["key"] == line.keys[-1], fact("status", "f.db"))
        check(dump("f.db") == dump(third), "differs")


def a_primary_that_began_late_still_knows_the_way(dir):
    """It never followed the first log: it has only the switch that names it, at the start of the second."""
    with Line("f.db", "g.db") as line:
        line.add("one", "two")
        line.catch_up("f.db")  # g.db has not got these, and nobody has them for it
        line.next("new/app.db")
        third = replica_in("third", line.url)
        line.next(third)
        check(kept_keys(third) == short(line.keys[1]), kept_of(third))
        with follower(line.url, "f.db") as f:
            line.arrives("f.db", f.said)
        with follower(line.url, "g.db") as g:
            line.arrives("g.db", g.said)
            check(kept_keys("g.db") == short(*line.keys[:2]), kept_of("g.db"))


def a_pruned_log_keeps_the_switch_at_its_start(dir):
    with Line("f.db") as line:
        third = replica_in("third", line.url)
        line.next("new/app.db")
        for name in ("new/app.db", third):
            if name == third:
                line.next(third)
            for i in range(3):
                add(name, *(f"{name} {i} {j}" for j in range(20)))
                run("snapshot", name)
            run("prune", name, "--keep", str(fact("status", name)["seq"]))
            check(types(name)[:3] == ["genesis", "switch", "pruned"], types(name))
        with follower(line.url, "f.db") as f:
            line.arrives("f.db", f.said)


def without_the_logs_in_between_it_says_so_and_stays(dir):
    with Line("f.db") as line:
        third = replica_in("third", line.url)
        line.next("new/app.db")
        line.next(third)
        second = f"{third}-hyper.{line.keys[1][:16]}"
        line.served.kill()
        line.serving.close()
        shutil.move(second, "away")
        before = dump("f.db")
        with server(third, listen=line.listen), follower(line.url, "f.db") as f:
            until(lambda: "source_has_another_log" in f.said(), "it says so")
            check("cannot be told" in f.said() and line.keys[1] in f.said(), f.said())
            check(fact("status", "f.db")["key"] == line.keys[0] and dump("f.db") == before, "it is what it was")
            # Somebody who names another URL is refused with the same words.
            other = line.url.replace("127.0.0.1", "localhost")
            error = run("follow", other, "f.db", code=1).stderr if not f.process.poll() else ""
            check("cannot be told" in error or "follower has it open" in error, error)
        shutil.move("away", second)
        with server(third, listen=line.listen), follower(line.url, "f.db") as f:
            until(lambda: replica_says("f.db", "key") == line.keys[-1], "f.db moves")


def a_log_in_between_that_is_put_back_is_served(dir):
    with Line("f.db") as line:
        third = replica_in("third", line.url)
        line.next("new/app.db")
        line.next(third)
        second = f"{third}-hyper.{line.keys[1][:16]}"
        line.served.kill()
        line.serving.close()
        shutil.move(second, "away")
        with server(third, listen=line.listen):
            url = line.url.replace("127.0.0.1", "localhost")  # by a new one it does not wait for a minute
            check("cannot be told" in run("follow", url, "f.db", "--once", code=1).stderr)
            shutil.move("away", second)
            command = [test_network.PROGRAM, "follow", url, "f.db", "--once"]
            until(lambda: subprocess.run(command, capture_output=True, timeout=60).returncode == 0,
                  "who asks for it makes the server look again")
            check(replica_says("f.db", "key") == line.keys[-1] and dump("f.db") == dump(third))


def a_stranger_with_a_switch_of_its_own_is_none_of_them(dir):
    with Line("f.db") as line:
        line.primary.kill()
        os.makedirs("other")
        make("other/app.db", 3)
        run("follow", "other/app.db", "o1.db", "--once")
        run("promote", "o1.db")
        run("follow", "o1.db", "o2.db", "--once")
        run("promote", "o2.db")
        os.makedirs("theirs")
        for suffix in ("", *(name[len("o2.db"):] for name in [*kept_of("o2.db"), "o2.db-hyper"])):
            shutil.move("o2.db" + suffix, "theirs/app.db" + suffix)
        run("init", "theirs/app.db", "--adopt")
        with server("theirs/app.db", listen=line.listen), follower(line.url, "f.db") as f:
            until(lambda: "source_has_another_log" in f.said(), "it says so")
            check(fact("status", "f.db")["key"] == line.keys[0], "it is what it was")
        with server("theirs/app.db", listen=line.listen):
            error = run("follow", line.url, "f.db", "--once", code=1).stderr
            check("source_has_another_log" in error and "another log now" in error, error)
            check(fact("status", "f.db")["key"] == line.keys[0], "it is what it was")


def the_old_primary_comes_back_after_two_changes(dir):
    with Line() as line:
        third = replica_in("third", line.url)
        line.add("shipped")
        line.catch_up("new/app.db", third)
        line.add("only at the old one")
        tail, last = dump("app.db"), line.seq
        line.primary.kill()
        line.done = fact("promote", "new/app.db")
        line.keys.append(line.done["key"])
        line.served = line.serving.enter_context(server("new/app.db", listen=line.listen))
        line.now = "new/app.db"
        add("new/app.db", "of the second")
        line.next(third)
        with follower(line.url, "app.db") as old:
            line.arrives("app.db", old.said)
            check("event=primary_became_replica" in old.said() and "tail=yes" in old.said(), old.said())
            check(not was_repaired(old), old.said())
        check("only at" not in str(dump("app.db")), "it was taken back")
        first = f"app.db-hyper.{line.keys[0][:16]}"
        run("restore", first, "tail.db", "--seq", last)
        check(dump("tail.db") == tail, "its tail can be exported")


def those_who_follow_a_follower_come_after_it(dir):
    with Line("f.db") as line:
        third = replica_in("third", line.url)
        with background("follow", line.url, "f.db", "--listen", "tcp://127.0.0.1:0", "--name", "app.db",
                        "--json") as f:
            url = json.loads(f.line("{"))["url"]
            run("follow", url, "g.db", "--once")
            line.add("one")
            line.catch_up("new/app.db")
            line.next("new/app.db")
            line.next(third)
            line.arrives("f.db", f.said)
            with follower(url, "g.db") as g:
                line.arrives("g.db", g.said)


def by_path_where_the_logs_in_between_are_kept(dir):
    with Line("f.db") as line:
        third = replica_in("third", line.url)
        for i in range(30):
            line.add(f"row {i}")
        line.next("new/app.db")
        line.next(third)
        # Without the network: a replica and the primary of the first log, and the primary of the second.
        for name in ("f.db", "app.db", "new/app.db"):
            run("follow", third, name, "--once")
            check(dump(name) == dump(third), name, "differs")
            check(fact("status", name)["key"] == line.keys[-1], fact("status", name))
        # What goes on from a log that is kept nowhere here is refused.
        run("follow", "app.db-hyper." + line.keys[0][:16], "late.db", "--once")
        shutil.rmtree(f"{third}-hyper.{line.keys[1][:16]}")
        error = run("follow", third, "late.db", "--once", code=1).stderr
        check("does not continue" in error, error)


TESTS = (a_sleeper_goes_through_all_logs_that_it_missed, a_live_follower_that_was_cut_off_goes_through_them,
         once_means_the_log_that_has_the_name_now, a_primary_that_began_late_still_knows_the_way,
         a_pruned_log_keeps_the_switch_at_its_start, without_the_logs_in_between_it_says_so_and_stays,
         a_log_in_between_that_is_put_back_is_served,
         a_stranger_with_a_switch_of_its_own_is_none_of_them, the_old_primary_comes_back_after_two_changes,
         those_who_follow_a_follower_come_after_it, by_path_where_the_logs_in_between_are_kept)

if __name__ == "__main__":
    test_network.TESTS = TESTS
    sys.exit(test_network.main(sys.argv[1:]))
