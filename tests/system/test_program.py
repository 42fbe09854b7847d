#!/usr/bin/python3
"""The program `hyperwal`, as users call it: real files, real processes.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import traceback

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
PROGRAM = os.path.join(BUILD, "hyperwal")
EXTENSION = os.path.join(BUILD, "hyperwal.so")
LONG = 60  # seconds: nothing here takes so long unless it hangs


class Skip(Exception):
    pass


def check(condition, *facts):
    if not condition:
        raise AssertionError("; ".join(str(fact) for fact in facts))


def run(*args, code=0, **options):
    """Run the program; the result has stdout and stderr.  Another exit code than `code` is a failure."""
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=LONG,
                          stdin=subprocess.DEVNULL, **options)
    check(done.returncode == code, f"hyperwal {args}: exit {done.returncode}, expected {code}",
          done.stdout[-300:], done.stderr[-600:])
    return done


def facts(*args):
    """The objects that a verb prints with --json."""
    return [json.loads(line) for line in run(*args, "--json").stdout.splitlines()]


def fact(*args):
    lines = facts(*args)
    check(len(lines) == 1, lines)
    return lines[0]


@contextlib.contextmanager
def background(*args):
    """The program in the background; it is asked to end, and must end with 0, if it still runs."""
    process = subprocess.Popen([PROGRAM, *map(str, args)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=LONG)
            check(process.returncode == 0, f"{args} ended with {process.returncode}", stderr)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def line_of(process, start):
    """The next line of output that begins with `start`."""
    for line in process.stdout:
        if line.startswith(start):
            return line.rstrip("\n")
    process.wait()
    raise AssertionError(f"no line {start!r}: {process.stderr.read()}")


def load_extension():
    connection = sqlite3.connect(":memory:")
    connection.enable_load_extension(True)
    connection.load_extension(EXTENSION)
    return connection


def through_vfs(path, **parameters):
    parameters = {"timeout": LONG * 1000, **parameters}  # of PRAGMA hyperwal_seq, for one
    extra = "".join(f"&{name}={value}" for name, value in parameters.items())
    return sqlite3.connect(f"file:{path}?vfs=hyperwal{extra}", uri=True, isolation_level=None,
                           timeout=20)


def stock(path, mode="rw"):
    return sqlite3.connect(f"file:{path}?mode={mode}", uri=True, isolation_level=None, timeout=20)


def dump(path):
    with contextlib.closing(stock(path)) as db:
        check(db.execute("PRAGMA integrity_check").fetchone() == ("ok",), path, "integrity")
        return list(db.iterdump())


def make(path, rows=100):
    """A database as an application leaves it: in the default journal mode."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as db:
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
        with db:
            db.execute("BEGIN")
            db.executemany("INSERT INTO t(b) VALUES(?)", ((f"row {i}" * 5,) for i in range(rows)))


def logged(path, rows=100):
    make(path, rows)
    run("init", path)


def add(path, *texts):
    """One transaction a text, through the VFS; the seqs."""
    with contextlib.closing(through_vfs(path)) as db:
        seqs = []
        for text in texts:
            db.execute("INSERT INTO t(b) VALUES(?)", (text,))
            seqs.append(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
        return [int(seq) for seq in seqs]


def last_text(path):
    with contextlib.closing(stock(path)) as db:
        return db.execute("SELECT b FROM t ORDER BY a DESC LIMIT 1").fetchone()[0]


# ------------------------------------------------------------------------------ usage


def every_verb_tells_its_usage(dir):
    for verb in ("init serve follow restore log status verify snapshot label prune key name").split():
        text = run(verb, "--help").stdout
        check(text.startswith(f"usage: hyperwal {verb} "), text)
        check(run("help", verb).stdout == text, "help VERB differs")
        check(verb in run("--help").stdout, verb)
        run(verb, "--no-such-option", code=2)
    check(run("--version").stdout.startswith("hyperwal 0."), "version")


def wrong_usage_ends_with_2(dir):
    for args in ([], ["frobnicate"], ["init"], ["init", "a", "b"], ["restore", "a"],
                 ["restore", "a", "b", "--seq", "x"], ["restore", "a", "b", "--time", "noon"],
                 ["restore", "a", "b", "--seq", "1", "--label", "x"], ["log"], ["serve"],
                 ["prune", "a"], ["label", "a"], ["restore", "a", "b", "--seq"]):
        check(run(*args, code=2).stderr, args)


def a_bad_address_of_the_status_page_is_usage(dir):
    make(f"{dir}/x")
    check("[HOST:]PORT" in run("serve", "--http", ":80", f"{dir}/x", code=2).stderr, "--http")


# ------------------------------------------------------------------------------- init


def init_adopts_a_database_with_all_its_rows(dir):
    make("app.db", 500)
    before = dump("app.db")
    out = run("init", "app.db").stdout
    check(re.fullmatch(r"key [0-9a-f]{64}\nseq \d+\n", out), out)
    status = fact("status", "app.db")
    check(status["role"] == "primary" and status["key"] in out, status)
    check(status["snapshot_seq"] is not None and status["sum"] != "0" * 16, status)
    check(dump("app.db") == before, "init changed the database")
    run("restore", "app.db", "out.db")
    check(dump("out.db") == before, "the restored database differs")
    check(os.stat("app.db-hyper/key").st_mode & 0o777 == 0o600, "mode of the secret key")


def init_of_an_empty_file_works(dir):
    open("app.db", "wb").close()
    run("init", "app.db")
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
        db.execute("INSERT INTO t(b) VALUES('first')")
        db.execute("PRAGMA hyperwal_seq").fetchone()
    run("restore", "app.db", "out.db")
    check(last_text("out.db") == "first", "row")


def init_says_what_is_wrong_with_a_file(dir):
    check("no such database" in run("init", "missing.db", code=1).stderr, "missing")
    with open("text.db", "w") as file:
        file.write("this is not a database\n" * 100)
    check("not an SQLite database" in run("init", "text.db", code=3).stderr, "text")
    make("short.db", 2000)
    size = os.path.getsize("short.db")
    os.truncate("short.db", size - 4096)
    check("truncated" in run("init", "short.db", code=3).stderr, "a page is missing")
    os.truncate("short.db", size - 4096 - 100)
    check("truncated" in run("init", "short.db", code=3).stderr, "part of a page is missing")
    os.mkdir("dir.db")
    run("init", "dir.db", code=1)
    for name in ("missing.db", "text.db", "short.db", "dir.db"):
        check(not os.path.exists(name + "-hyper"), name, "a log was made")


def init_refuses_a_log_that_exists(dir):
    logged("app.db")
    key = run("key", "app.db").stdout
    check("has a log already" in run("init", "app.db", code=1).stderr, "again")
    check(run("key", "app.db").stdout == key, "the key changed")


# -------------------------------------------------------------------------- log, status


def every_commit_is_a_line_of_the_log(dir):
    logged("app.db")
    texts = [f"text {i}" for i in range(20)]
    seqs = add("app.db", *texts)
    check(seqs == sorted(set(seqs)), "seqs do not rise", seqs)
    entries = facts("log", "app.db")
    found = {entry["seq"]: entry for entry in entries}
    for seq in seqs:
        entry = found[seq]
        check(entry["type"] == "transaction" and entry["pages"] > 0 and entry["db_pages"] > 0, entry)
        check(0 < entry["bytes"] < entry["raw_bytes"], entry)
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]), entry)
    check(entries[0]["type"] == "genesis" and entries[0]["seq"] == 0, entries[0])
    check(sum(entry["blocks"] for entry in entries) == fact("status", "app.db")["length"], "blocks")
    check([e["time"] for e in entries] == sorted(e["time"] for e in entries), "times go back")
    part = facts("log", "app.db", "--from", seqs[3], "--to", seqs[5])
    check([entry["seq"] for entry in part] == [s for s in found if seqs[3] <= s <= seqs[5]], part)
    late = facts("log", "app.db", "--from", found[seqs[10]]["time"])
    check(all(e["time"] > found[seqs[10]]["time"] for e in late), "--from TIME")
    check(len(run("log", "app.db").stdout.splitlines()) == len(entries) + 1, "lines")


def status_tells_the_roles(dir):
    logged("app.db")
    (seq,) = add("app.db", "x")
    run("follow", "app.db", "r.db", "--once")
    shutil.copytree("app.db-hyper", "mirror", ignore=shutil.ignore_patterns("key", "shared"))
    primary, replica, mirror = (fact("status", src) for src in ("app.db", "r.db", "mirror"))
    check(primary["role"] == "primary" and replica["role"] == "replica" and
          mirror["role"] == "mirror", primary, replica, mirror)
    check(primary["seq"] == replica["seq"] == mirror["seq"] == seq, seq, primary, replica, mirror)
    check(primary["sum"] == replica["sum"] == mirror["sum"], "sums")
    check(replica["lag"] == 0 and replica["key"] == primary["key"], replica)
    for field in ("path role key discovery_key length byte_length fork seq page_size pages sum "
                  "snapshot_seq peers").split():
        check(all(field in status for status in (primary, replica, mirror)), field)
    for src in ("hyper:app.db", "hyper://" + os.path.abspath("app.db"), "app.db-hyper"):
        check(fact("status", src)["key"] == primary["key"], src)
    run("status", "app.db"), run("status", "r.db"), run("status", "mirror")
    run("status", "nothing.db", code=1)


def output_that_cannot_be_written_is_a_failure(dir):
    logged("app.db")
    with open("/dev/full", "w") as full:
        done = subprocess.run([PROGRAM, "log", "app.db"], stdout=full, stderr=subprocess.PIPE,
                              timeout=LONG)
    check(done.returncode == 1, done.returncode)


# ---------------------------------------------------------------------------- follow


def follow_once_stops_at_the_head(dir):
    logged("app.db")
    add("app.db", "one", "two")
    run("follow", "app.db", "r.db", "--once")
    check(dump("r.db") == dump("app.db"), "differs")
    add("app.db", "three")
    check(last_text("r.db") == "two", "nobody followed")
    done = fact("follow", "app.db", "r.db", "--once")
    check(done["event"] == "done" and last_text("r.db") == "three", done)
    run("verify", "r.db")


def a_follower_shows_every_commit_without_being_asked(dir):
    logged("app.db")
    with background("follow", "app.db", "r.db") as follower:
        line_of(follower, "r.db: live at seq")
        with contextlib.closing(through_vfs("app.db")) as db, \
                contextlib.closing(through_vfs("r.db")) as replica:
            for i in range(50):
                db.execute("INSERT INTO t(b) VALUES(?)", (f"live {i}",))
                seq = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
                replica.execute("PRAGMA busy_timeout=20000")
                replica.execute(f"PRAGMA hyperwal_wait={seq}").fetchone()
                check(last_text("r.db") == f"live {i}", i)
        status = fact("status", "r.db")
        check(status["seq"] >= seq and status["lag"] == 0, status)
        run("verify", "r.db")
    check(dump("r.db") == dump("app.db"), "differs")


def nobody_writes_to_a_replica_that_is_followed(dir):
    logged("app.db")
    with background("follow", "app.db", "r.db") as follower:
        line_of(follower, "r.db: live")
        with contextlib.closing(sqlite3.connect("r.db", timeout=0)) as db:
            try:
                db.execute("INSERT INTO t(b) VALUES('mine')")
                raise AssertionError("a stock client wrote into the replica")
            except sqlite3.OperationalError as error:
                check("locked" in str(error), error)
        with contextlib.closing(through_vfs("r.db")) as db:
            try:
                db.execute("INSERT INTO t(b) VALUES('mine')")
                raise AssertionError("the VFS let a write into the replica")
            except sqlite3.OperationalError as error:
                check("readonly" in str(error), error)
        run("follow", "app.db", "r.db", code=1)  # another follower has it


def a_replica_belongs_to_one_log(dir):
    logged("app.db")
    logged("other.db")
    run("follow", "app.db", "r.db", "--once")
    run("follow", "other.db", "r.db", "--once", code=1)
    before = dump("other.db")
    run("follow", "app.db", "other.db", "--once", code=1)  # a database, but not a replica
    check(dump("other.db") == before, "the database was touched")


def a_killed_follower_goes_on_where_it_was(dir):
    logged("app.db")
    for round in range(4):
        with background("follow", "app.db", "r.db") as follower:
            line_of(follower, "r.db: live")
            add("app.db", *(f"round {round} {i}" for i in range(10)))
            follower.kill()
            follower.wait()
    run("follow", "app.db", "r.db", "--once")
    check(dump("r.db") == dump("app.db"), "differs")
    run("verify", "r.db")


def a_follower_ends_at_once_on_sigint(dir):
    logged("app.db")
    with background("follow", "app.db", "r.db", "--json") as follower:
        check(json.loads(line_of(follower, "{"))["event"] == "live", "live")
        follower.send_signal(signal.SIGINT)
        check(follower.wait(timeout=LONG) == 0, follower.returncode)


# --------------------------------------------------------------------------- restore


def any_commit_can_be_restored(dir):
    logged("app.db")
    seqs = add("app.db", *(f"text {i}" for i in range(30)))
    for i in (0, 7, 15, 29):
        out = f"out{i}.db"
        reached = fact("restore", "app.db", out, "--seq", seqs[i])
        check(reached["seq"] == seqs[i] and last_text(out) == f"text {i}", reached)
    times = {entry["seq"]: entry["time"] for entry in facts("log", "app.db")}
    reached = fact("restore", "app.db", "time.db", "--time", times[seqs[20]])
    check(times[reached["seq"]] == times[seqs[20]], reached)  # more may share its millisecond


def a_label_steers_no_terminal(dir):
    logged("app.db")
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("PRAGMA hyperwal_label = 'two\nlines \x1b[31m'")
    lines = [line for line in run("log", "app.db").stdout.splitlines() if " label " in line]
    check(len(lines) == 1 and lines[0].endswith("two?lines ?[31m"), lines)
    check([e["name"] for e in facts("log", "app.db") if e["type"] == "label"] == ["two\nlines \x1b[31m"], "json")


def a_label_is_found_again(dir):
    logged("app.db")
    add("app.db", "before")
    label = fact("label", "app.db", "release 1")
    add("app.db", "after")
    entry = [e for e in facts("log", "app.db") if e["type"] == "label"]
    check(len(entry) == 1 and entry[0]["name"] == "release 1" and entry[0]["seq"] == label["seq"],
          entry)
    run("restore", "app.db", "out.db", "--label", "release 1")
    check(last_text("out.db") == "before", last_text("out.db"))


def a_target_that_does_not_exist_ends_with_4(dir):
    logged("app.db")
    add("app.db", "x")
    for target in (["--seq", "1000000"], ["--label", "nobody"], ["--time", "2001-01-01T00:00:00Z"]):
        run("restore", "app.db", "out.db", *target, code=4)
    check(not os.path.exists("out.db"), "something was left")
    check([n for n in os.listdir(".") if n.startswith("out.db")] == [], os.listdir("."))


def restore_does_not_touch_a_file_that_exists(dir):
    logged("app.db")
    make("out.db", 3)
    before = dump("out.db")
    run("restore", "app.db", "out.db", code=1)
    check(dump("out.db") == before, "touched")
    with contextlib.closing(stock("out.db")) as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM t").fetchone()
        run("restore", "app.db", "out.db", "--force", code=1)  # somebody has it open
    os.chmod("out.db", 0o640)
    if os.geteuid() == 0:
        os.chown("out.db", 12345, 54321)
    old = os.stat("out.db")
    run("restore", "app.db", "out.db", "--force")
    check(dump("out.db") == dump("app.db"), "not replaced")
    new = os.stat("out.db")
    check(new.st_ino != old.st_ino, "not replaced")
    check((new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid), old, new)
    os.remove("out.db")
    for suffix in ("-wal", "-journal"):
        with open("out.db" + suffix, "w") as file:
            file.write("stale")
        run("restore", "app.db", "out.db", code=1)
        os.remove("out.db" + suffix)
    run("restore", "app.db", "out.db")


def an_older_state_is_not_put_where_its_log_would_undo_it(dir):
    logged("app.db")
    seq = add("app.db", "an accident")[-1]
    with contextlib.closing(stock("app.db")) as db:
        count = db.execute("SELECT count(*) FROM t").fetchone()[0]
    error = run("restore", "app.db", "app.db", "--force", "--seq", seq - 1, code=1).stderr
    check(".restore" in error, error)
    run("restore", "app.db", "old.db", "--seq", seq - 1)
    with contextlib.closing(stock("old.db")) as old, contextlib.closing(through_vfs("app.db")) as db:
        old.backup(db)  # what `.restore` does
        check(int(db.execute("PRAGMA hyperwal_seq").fetchone()[0]) == seq + 1, "one transaction")
        check(db.execute("SELECT count(*) FROM t").fetchone()[0] == count - 1, "the state before")
    run("verify", "app.db", "--deep")
    os.remove("app.db")  # the newest state is put back in place
    run("restore", "app.db", "app.db")
    check(dump("app.db") == dump("old.db"), "the newest state")
    check("OUT is empty" in run("restore", "app.db", "", code=2).stderr, "no name")


def who_may_not_read_a_database_may_not_enter_its_log(dir):
    old = os.umask(0o022)
    try:
        for mode, wanted in ((0o600, 0o700), (0o640, 0o750), (0o644, 0o755)):
            path = f"{mode:o}.db"
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE t(a)")
            os.chmod(path, mode)
            run("init", path)
            check(os.stat(path + "-hyper").st_mode & 0o777 == wanted, path, oct(os.stat(path + "-hyper").st_mode))
    finally:
        os.umask(old)


def a_link_to_a_database_is_the_database(dir):
    os.mkdir("real")
    make("real/app.db")
    os.symlink("real/app.db", "link.db")
    run("init", "link.db")
    check(os.path.exists("real/app.db-hyper/log") and not os.path.exists("link.db-hyper"), os.listdir("."))
    seq = add("link.db", "through the link")[-1]
    check(fact("status", "link.db")["seq"] == seq, seq)
    run("label", "link.db", "here")
    run("verify", "link.db", "--deep")
    run("restore", "link.db", "out.db", "--label", "here")
    check(dump("out.db") == dump("real/app.db"), "another state")
    run("follow", "link.db", "real/r.db", "--once")
    os.symlink("real/r.db", "r.db")
    check(fact("status", "r.db")["role"] == "replica", "role")
    run("verify", "r.db")
    check("has a log already" in run("init", "link.db", code=1).stderr, "a second one")


def closed_standard_files_are_not_those_of_the_log(dir):
    logged("app.db")
    before = run("log", "app.db").stdout
    done = subprocess.run(f"{PROGRAM} label app.db here <&- >&- 2>&-", shell=True, check=False)
    check(done.returncode == 0, done)
    run("verify", "app.db", "--deep")
    check(len(run("log", "app.db").stdout.splitlines()) == len(before.splitlines()) + 1, "labelled")


def a_mirror_without_the_key_restores_everything(dir):
    logged("app.db")
    (seq,) = add("app.db", "x")
    add("app.db", "y")
    shutil.copytree("app.db-hyper", "mirror", ignore=shutil.ignore_patterns("key"))
    shutil.rmtree("app.db-hyper")
    run("verify", "mirror", "--deep")
    run("restore", "mirror", "out.db", "--seq", seq)
    check(last_text("out.db") == "x", last_text("out.db"))


# ---------------------------------------------------------------------------- verify


def verify_is_silent_about_a_good_log(dir):
    logged("app.db", 1000)
    add("app.db", *(f"text {i}" for i in range(50)))
    run("snapshot", "app.db")
    add("app.db", "more")
    for deep in ([], ["--deep"]):
        told = fact("verify", "app.db", *deep)
        check(told["ok"] is True and told["deep"] is bool(deep), told)


def verify_finds_any_changed_byte(dir):
    logged("app.db")
    add("app.db", *(f"text {i}" for i in range(20)))
    segments = [n for n in os.listdir("app.db-hyper") if n.endswith(".seg")]
    check(segments, os.listdir("app.db-hyper"))
    path = os.path.join("app.db-hyper", segments[0])
    byte_length = fact("status", "app.db")["byte_length"]
    for part in (3, 5, 7, 8):
        offset = byte_length * part // 10
        with open(path, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 0x40]))
        done = run("verify", "app.db", code=3)
        check(done.stderr and "app.db-hyper" in done.stderr, "no place", done.stderr)
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(byte)
    run("verify", "app.db")


def verify_finds_a_changed_replica(dir):
    logged("app.db")
    run("follow", "app.db", "r.db", "--once")
    run("verify", "r.db")
    with contextlib.closing(stock("r.db")) as db:
        db.execute("UPDATE t SET b = 'forged' WHERE a = 7")
    run("verify", "r.db", code=3)


# ------------------------------------------------------------------- snapshot, prune


def prune_gives_up_the_past_and_nothing_else(dir):
    logged("app.db")
    old = add("app.db", *(os.urandom(3000).hex() for i in range(200)))
    run("snapshot", "app.db")
    new = add("app.db", "new 1", "new 2")
    would = fact("prune", "app.db", "--keep", new[0], "--dry-run")
    check(would["dry_run"] is True, would)
    run("restore", "app.db", "a.db", "--seq", old[0])
    freed = fact("prune", "app.db", "--keep", new[0])
    check(freed["freed"] == would["freed"], would, freed)
    run("restore", "app.db", "b.db", "--seq", old[0], code=4)
    run("restore", "app.db", "c.db", "--seq", new[0])
    check(last_text("c.db") == "new 1", "kept state")
    run("verify", "app.db", "--deep")
    check(any(entry["type"] == "pruned" for entry in facts("log", "app.db")), "log")
    add("app.db", "after")
    run("follow", "app.db", "r.db", "--once")
    check(last_text("r.db") == "after", "a new replica of a pruned log")


def small_commits_make_no_snapshot_of_a_large_database(dir):
    make("app.db")
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("CREATE TABLE big(b BLOB)")
        for _ in range(10):
            db.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 512) "
                       "INSERT INTO big SELECT randomblob(4000) FROM n")
    run("snapshot", "app.db")
    snapshot = fact("status", "app.db")["snapshot_seq"]
    for i in range(4):
        add("app.db", f"small {i}")  # each by a worker that knows nothing of the groups before
    newer = [entry["type"] for entry in facts("log", "app.db") if entry["seq"] > snapshot]
    check("group" not in newer, f"{newer.count('group')} groups for four rows")


def what_changes_a_log_wants_one(dir):
    make("app.db")
    for args in (["snapshot", "app.db"], ["label", "app.db", "x"], ["prune", "app.db", "--keep", "1"]):
        check("hyperwal init" in run(*args, code=1).stderr, args)
    check(not os.path.exists("app.db-hyper"), "a log was made")


# ----------------------------------------------------------------------------- serve


def serve_tells_what_it_serves(dir):
    make("one.db")
    make("two.sqlite")
    with background("serve", "one.db", "two.sqlite") as server:
        lines = [line_of(server, "one.db "), line_of(server, "two.sqlite ")]
        line_of(server, "ready")
        for line, path in zip(lines, ("one.db", "two.sqlite")):
            name, key, url = line.split(" ")
            check(url == "hyper://" + os.path.abspath(path), line)
            check(run("key", path).stdout.strip() == key == fact("status", url)["key"], line)
        add("one.db", "while served")
    run("restore", "one.db", "out.db")
    check(last_text("out.db") == "while served", "row")


def serve_takes_in_databases_that_appear(dir):
    os.mkdir("dbs")
    make("dbs/first.db")
    with open("dbs/readme.txt", "w") as file:
        file.write("not a database\n")
    with background("serve", "dbs") as server:
        line_of(server, "first.db ")
        line_of(server, "ready")
        make("dbs/second.db")
        name, key, url = line_of(server, "second.db ").split(" ")
        check(fact("status", "dbs/second.db")["key"] == key, key)
    check(not os.path.exists("dbs/readme.txt-hyper"), "a text file got a log")


def serve_logs_what_stock_programs_commit(dir):
    make("app.db")
    with background("serve", "app.db") as server:
        line_of(server, "ready")
        with background("follow", "app.db", "r.db") as follower:
            line_of(follower, "r.db: live")
            with contextlib.closing(stock("app.db")) as db, \
                    contextlib.closing(through_vfs("r.db")) as replica:
                replica.execute("PRAGMA busy_timeout=20000")
                seq = fact("status", "app.db")["length"] - 1
                for i in range(10):
                    db.execute("INSERT INTO t(b) VALUES(?)", (f"stock {i}",))
                    seq += 1
                    replica.execute(f"PRAGMA hyperwal_wait={seq}").fetchone()
    run("follow", "app.db", "r.db", "--once")
    check(last_text("r.db") == "stock 9" and dump("r.db") == dump("app.db"), "differs")
    check(not any(entry["type"] == "gap" for entry in facts("log", "app.db")), "a gap")


def serve_keeps_the_wal_of_stock_programs_short_and_misses_nothing(dir):
    make("app.db")
    with background("serve", "app.db") as server:
        line_of(server, "ready")
        with contextlib.closing(stock("app.db")) as db:
            db.execute("PRAGMA synchronous=OFF")
            longest = 0
            for i in range(3000):
                db.execute("INSERT INTO t(b) VALUES(?)", (os.urandom(8000).hex(),))
                longest = max(longest, os.path.getsize("app.db-wal"))
            with contextlib.closing(through_vfs("app.db")) as through:
                seq = int(through.execute("PRAGMA hyperwal_seq").fetchone()[0])
            check(longest < 100 << 20, f"the WAL grew to {longest} bytes")
    entries = facts("log", "app.db")
    check(not any(entry["type"] == "gap" for entry in entries), "a gap")
    check(sum(entry["type"] == "transaction" for entry in entries) >= 3000, "commits are missing")
    run("restore", "app.db", "out.db", "--seq", seq)
    check(dump("out.db") == dump("app.db"), "differs")


def serve_and_programs_with_the_vfs_share_the_work(dir):
    logged("app.db")
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("INSERT INTO t(b) VALUES('before')")
        with background("serve", "app.db") as server:
            line_of(server, "ready")
            for i in range(300):
                db.execute("INSERT INTO t(b) VALUES(?)", (f"both {i}",))
            server.kill()
            server.wait()
        db.execute("INSERT INTO t(b) VALUES('after')")
        db.execute("PRAGMA hyperwal_seq").fetchone()
    check(not any(entry["type"] == "gap" for entry in facts("log", "app.db")), "a gap")
    run("verify", "app.db", "--deep")
    run("restore", "app.db", "out.db")
    check(dump("out.db") == dump("app.db"), "differs")


def a_second_server_stands_by_and_takes_over(dir):
    make("app.db")
    with background("serve", "app.db") as first, background("serve", "app.db") as second:
        line_of(first, "ready")
        line_of(second, "ready")
        with contextlib.closing(stock("app.db")) as db:
            db.execute("PRAGMA synchronous=OFF")
            for i in range(2000):
                db.execute("INSERT INTO t(b) VALUES(?)", (os.urandom(8000).hex(),))
                if i == 1000:
                    first.kill()
                    first.wait()
            check(os.path.getsize("app.db-wal") < 100 << 20, "the WAL was not restarted")
            with contextlib.closing(through_vfs("app.db")) as through:
                through.execute("PRAGMA hyperwal_seq").fetchone()
    run("verify", "app.db", "--deep")
    run("restore", "app.db", "out.db")
    check(dump("out.db") == dump("app.db"), "differs")


def serve_fails_for_what_it_cannot_serve(dir):
    run("serve", "missing.db", code=1)
    with open("text.db", "w") as file:
        file.write("text " * 1000)
    run("serve", "text.db", code=3)


# -------------------------------------------------------------------------------- main

TESTS = [value for name, value in list(globals().items())
         if callable(value) and getattr(value, "__code__", None) is not None
         and value.__code__.co_varnames[:1] == ("dir",)]


def run_test(test):
    directory = tempfile.mkdtemp(prefix="hyperwal-test-")
    before = os.getcwd()
    try:
        os.chdir(directory)
        test(directory)
        print(f"ok {test.__name__}", flush=True)
        return True
    except Skip as reason:
        print(f"skip {test.__name__}: {reason}", flush=True)
        return True
    except Exception as error:  # whatever it is, it is this test's failure
        words = " ".join(str(error).split()) or type(error).__name__
        print(f"not ok {test.__name__}: {words}", flush=True)
        if os.environ.get("HW_TRACE"):
            traceback.print_exc()
        return False
    finally:
        os.chdir(before)
        if not os.environ.get("HW_KEEP"):
            shutil.rmtree(directory, ignore_errors=True)


def main():
    wanted = sys.argv[1:]
    loaded = load_extension()
    results = [run_test(test) for test in TESTS if not wanted or test.__name__ in wanted]
    loaded.close()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
