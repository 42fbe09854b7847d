#!/usr/bin/python3
"""Bad input and bad days: what is wrong is named, with its place and a remedy, and nothing else changes.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.  Disks that are full or read-only are
mounted in a name space of this suite's own; where that is not allowed, those tests are skipped.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time

from test_program import (LONG, PROGRAM, EXTENSION, Skip, add, background, check, dump, fact, facts,
                          last_text, line_of, load_extension, logged, make, run, run_test, stock,
                          through_vfs)

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

# What any opener may write, and what says nothing about history.
VOLATILE = ("shared", "worker.lock", "sidecar.lock", "probe", "sums", "position")


# ---------------------------------------------------------------------------- helpers


def own_mounts():
    """True if this process may mount what nobody else sees."""
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNS if user == 0 else CLONE_NEWNS | CLONE_NEWUSER
    if LIBC.unshare(flags) != 0:
        return False
    if user != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"),
                           ("gid_map", f"0 {group} 1")):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
    return LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0


@contextlib.contextmanager
def mounted(directory, size=None):
    """A disk of `size` bytes at `directory`, or without a size: the directory, read-only."""
    os.makedirs(directory, exist_ok=True)
    where = os.fsencode(os.path.abspath(directory))
    if not MOUNTS:
        raise Skip("this process may not mount")
    if size is not None:
        done = LIBC.mount(b"none", where, b"tmpfs", 0, f"size={size}".encode())
    else:
        done = LIBC.mount(where, where, None, MS_BIND, None)
        done = done or LIBC.mount(b"none", where, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)
    if done != 0:
        raise Skip(f"mount: {os.strerror(ctypes.get_errno())}")
    try:
        yield directory
    finally:
        LIBC.umount2(where, MNT_DETACH)


def fill(directory, leave=0):
    """Take what room there is, but for `leave` bytes; returns the file to remove."""
    path = os.path.join(directory, "filler")
    room = os.statvfs(directory)
    with open(path, "wb", buffering=0) as file:
        left = room.f_bavail * room.f_bsize - leave
        with contextlib.suppress(OSError):
            while left > 0:
                left -= file.write(b"x" * min(left, 65536))
    return path


def until(condition, what, seconds=LONG):
    """Wait for a state that other processes or threads reach; asked for, since nothing announces it."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        signal.sigtimedwait([], 0.01)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def contents(*paths):
    """The bytes of these files, and of the files in these directories."""
    found = {}
    for path in paths:
        if os.path.isdir(path):
            for name in os.listdir(path):
                if name not in VOLATILE and not name.startswith("open."):
                    found[path + "/" + name] = read(os.path.join(path, name))
        elif os.path.exists(path):
            found[path] = read(path)
    return found


@contextlib.contextmanager
def unchanged(*paths):
    before = contents(*paths)
    yield
    after = contents(*paths)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    check(not changed, f"changed: {changed}")


def refused(code, words, *args):
    """The program ends with this code and says each of these words."""
    told = run(*args, code=code).stderr
    missing = [word for word in words if word not in told]
    check(not missing, f"hyperwal {args}: no {missing} in: {told}")
    check(len(told.strip().splitlines()) <= 3, f"many lines: {told}")
    return told


def write_bytes(path, content):
    """In place: the file keeps its inode."""
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate(len(content))


def flip(path, offset, bits=0x20):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ bits]))


class Copy:
    """A database and its log, to be put back in place as they were."""

    def __init__(self, path):
        self.path, self.log = path, path + "-hyper"
        self.database = read(path)
        self.files = {name: read(os.path.join(self.log, name)) for name in os.listdir(self.log)}

    def put_back(self):
        for name in os.listdir(self.log):
            if name not in self.files:
                os.remove(os.path.join(self.log, name))
        for name, content in self.files.items():
            path = os.path.join(self.log, name)
            if not os.path.exists(path):
                open(path, "wb").close()
            write_bytes(path, content)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(self.path + suffix)
        write_bytes(self.path, self.database)


def offsets(content, count):
    """Places all over the bytes that mean something, the first and the last ones among them."""
    size = len(content.rstrip(b"\0"))
    return sorted({0, 1, 7, 8, 15, 16, 31, 32, size - 1, size - 8, size - 33} |
                  {size * i // count for i in range(count)} & set(range(size)))


def open_fails(path, words="unable to open", **parameters):
    try:
        with contextlib.closing(through_vfs(path, **parameters)) as db:
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as error:
        check(words in str(error), error)
        return
    raise AssertionError(f"{path} {parameters}: it opened")


def logged_seq(db):
    """Of what is committed, however short the time is that this connection has for the log."""
    db.execute("PRAGMA hyperwal_wait = 0").fetchone()  # by the busy timeout
    return int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])


def status_of(db):
    return json.loads(db.execute("PRAGMA hyperwal_status").fetchone()[0])


def history(path="app.db"):
    """A log with everything in it; the seqs of the rows `text 0` to `text 19`, and what dump says."""
    logged(path)
    seqs = add(path, *(f"text {i}" for i in range(20)))
    run("snapshot", path)
    run("label", path, "here")
    add(path, "last")
    return seqs, dump(path)


# ------------------------------------------------------------------- not a database


def broken_databases():
    """Files that are no databases, by name, and a word of what is to be said of each."""
    make("good.db", 2000)
    good = read("good.db")
    yield "text.db", b"this is not a database\n" * 1000, "byte 0"
    yield "secret.db", os.urandom(8 * 4096), "encrypted"
    yield "tiny.db", good[:50], "byte 0"
    yield "page.db", good[:-4096], "truncated"
    yield "part.db", good[:-100], "truncated"
    yield "head.db", good[:100], "truncated"
    yield "size.db", good[:16] + b"\x12\x34" + good[18:], "byte 16"


def what_is_no_database_is_named_and_left_alone(dir):
    for name, content, word in list(broken_databases()):
        with open(name, "wb") as file:
            file.write(content)
        for verb in ("init", "serve"):
            refused(3, [name, word], verb, name)
            check(read(name) == content, name, "was changed")
            check(not os.path.exists(name + "-hyper"), name, "a log was made")
        for args in (["follow", name, "r.db", "--once"], ["restore", name, "o.db"], ["log", name],
                     ["status", name], ["verify", name], ["label", name, "x"], ["snapshot", name],
                     ["prune", name, "--keep", "0"], ["key", name]):
            told = run(*args, code=1).stderr
            check(name in told and "hyperwal init" in told, args, told)
        check(read(name) == content, name, "was changed")
    check(not os.path.exists("r.db") and not os.path.exists("o.db"), os.listdir("."))


def the_vfs_says_of_no_database_what_sqlite_says(dir):
    for name, content, _ in list(broken_databases()):
        with open(name, "wb") as file:
            file.write(content)
        try:
            with contextlib.closing(stock(name)) as db:
                plain = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error as error:
            plain = str(error)
        check(read(name) == content, name, "SQLite itself changed it")
        try:
            with contextlib.closing(through_vfs(name)) as db:
                ours = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error as error:
            ours = str(error)
        check(ours == plain or "unable to open" in str(ours), name, ours, plain)
        if isinstance(plain, str):
            check(read(name) == content, name, "was changed")


def a_source_that_does_not_exist_is_named(dir):
    for args in (["init", "no.db"], ["serve", "no.db"], ["serve", "no/dir"],
                 ["follow", "no.db", "r.db"], ["follow", "no.db", "r.db", "--once"],
                 ["restore", "no.db", "o.db"], ["log", "no.db"], ["status", "no.db"],
                 ["verify", "no.db"], ["snapshot", "no.db"], ["label", "no.db", "x"],
                 ["prune", "no.db", "--keep", "0"], ["key", "no.db"], ["log", "hyper:no.db"],
                 ["restore", "hyper:///no/db", "o.db"]):
        refused(1, ["no"], *args)
    check(os.listdir(".") == [], os.listdir("."))


def unknown_verbs_and_flags_end_with_2(dir):
    logged("app.db")
    with unchanged("app.db", "app.db-hyper"):
        for args in (["restor", "app.db"], ["--frob"], ["help", "frob"], ["status", "app.db", "--frob"],
                     ["status", "app.db", "again"], ["restore", "app.db", "o.db", "--seq", "-1"],
                     ["restore", "app.db", "o.db", "--seq", "0x1"],
                     ["restore", "app.db", "o.db", "--seq", "99999999999999999999"],
                     ["restore", "app.db", "o.db", "--time", "2026-13-01T00:00:00Z"],
                     ["restore", "app.db", "o.db", "--force=1"], ["log", "app.db", "--from", "x"],
                     ["prune", "app.db"], ["label", "app.db"], ["key", "a", "b"],
                     ["follow", "app.db"], ["verify", "app.db", "--deep=yes"]):
            told = run(*args, code=2).stderr
            check("hyperwal" in told, args, told)
    check(not os.path.exists("o.db"), "something was restored")


# --------------------------------------------------------------------- permissions


def a_read_only_directory_can_be_read_and_is_named_when_it_must_be_written(dir):
    os.mkdir("ro")
    make("ro/plain.db")
    seqs, _ = history("ro/app.db")
    before = dump("ro/app.db")
    with mounted("ro"), unchanged("ro/app.db", "ro/plain.db", "ro/app.db-hyper"):
        refused(1, ["ro/plain.db", "Read-only"], "init", "ro/plain.db")
        refused(1, ["ro/app.db", "Read-only"], "label", "ro/app.db", "x")
        refused(1, ["ro/r.db"], "follow", "ro/app.db", "ro/r.db", "--once")
        refused(1, ["ro/o.db", "Read-only"], "restore", "ro/app.db", "ro/o.db")
        check(fact("status", "ro/app.db")["seq"] > seqs[-1], "status")
        run("log", "ro/app.db")
        run("verify", "ro/app.db", "--deep")
        run("restore", "ro/app.db", "out.db")
        check(dump("out.db") == before, "restored")
        run("follow", "ro/app.db", "r.db", "--once")
        check(dump("r.db") == before, "replica")
        with contextlib.closing(through_vfs("ro/app.db", mode="ro", immutable=1)) as db:
            check(db.execute("SELECT count(*) FROM t").fetchone() == (121,), "rows")
        with contextlib.closing(through_vfs("ro/app.db", seq=seqs[3])) as db:
            check(db.execute("SELECT b FROM t ORDER BY a DESC").fetchone() == ("text 3",), "past")


def a_key_that_others_can_read_is_refused(dir):
    history()
    for mode in (0o644, 0o640, 0o604, 0o666):
        os.chmod("app.db-hyper/key", mode)
        with unchanged("app.db", "app.db-hyper"):
            refused(1, ["app.db-hyper/key", "chmod"], "label", "app.db", "x")
            run("status", "app.db")
            run("verify", "app.db")
            run("restore", "app.db", "out.db", "--force")
        check(os.stat("app.db-hyper/key").st_mode & 0o777 == mode, "the mode was changed")
    os.chmod("app.db-hyper/key", 0o600)
    run("label", "app.db", "x")


def a_key_that_is_damaged_or_gone_signs_nothing(dir):
    history()
    key = read("app.db-hyper/key")
    for offset in (0, 5, 16, 31):
        flip("app.db-hyper/key", offset)
        with unchanged("app.db", "app.db-hyper"):
            refused(1, ["app.db-hyper/key", "copy"], "label", "app.db", "x")
        write_bytes("app.db-hyper/key", key)
    write_bytes("app.db-hyper/key", key[:20])
    with unchanged("app.db", "app.db-hyper"):
        refused(1, ["app.db-hyper/key", "copy"], "label", "app.db", "x")
    write_bytes("app.db-hyper/key", key)
    run("label", "app.db", "x")
    os.rename("app.db-hyper/key", "key.away")
    with unchanged("app.db", "app.db-hyper"):
        refused(1, ["app.db-hyper", "key"], "label", "app.db", "x")
        run("verify", "app.db", "--deep")
    check(not os.path.exists("app.db-hyper/key"), "a new key was made")


# --------------------------------------------------------------- the log of another


def the_log_of_another_database_is_refused(dir):
    history()
    history("other.db")
    with contextlib.closing(sqlite3.connect("small.db", isolation_level=None)) as db:
        db.execute("PRAGMA page_size=1024")
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
    with unchanged("app.db", "other.db", "small.db", "app.db-hyper", "other.db-hyper"):
        open_fails("app.db", log=os.path.abspath("other.db-hyper"))
        open_fails("small.db", log=os.path.abspath("other.db-hyper"))
    # By another name, with nothing left that tells where it belongs but its content.
    os.rename("small.db", "stray.db")
    os.rename("other.db-hyper", "stray.db-hyper")
    with contextlib.suppress(FileNotFoundError):
        os.remove("stray.db-hyper/position")
    before, entries = dump("stray.db"), facts("log", "stray.db-hyper")
    with contextlib.closing(through_vfs("stray.db", timeout=500)) as db:
        db.execute("INSERT INTO t(b) VALUES('stands')")
        try:
            db.execute("PRAGMA hyperwal_seq").fetchone()
            raise AssertionError("pages of 1024 bytes went into a log of 4096")
        except sqlite3.Error:
            pass
        status = until(lambda: status_of(db)["alarm"] and status_of(db), "alarm")
        check("page" in status["alarm"], status)
    check(len(before) + 1 == len(dump("stray.db")), "the commit does not stand")
    check(facts("log", "stray.db-hyper") == entries, "the log was changed")


# ----------------------------------------------------------------------- damage


def outcome_is_right_or_named(seqs, expected, place):
    """With a damaged log every verb gives what is true, or ends with 3 and names the log."""
    for out, target, text in (("a.db", [], None), ("b.db", ["--seq", seqs[4]], "text 4"),
                              ("c.db", ["--label", "here"], "text 19")):
        done = subprocess.run([PROGRAM, "restore", "app.db", out, "--force", *map(str, target)],
                              capture_output=True, text=True, timeout=LONG)
        check(done.returncode in (0, 3), place, out, done.returncode, done.stderr)
        if done.returncode == 0 and text is None:
            check(dump(out) == expected, place, "restored something else")
        elif done.returncode == 0:
            check(last_text(out) == text, place, "restored something else")
        else:
            check("app.db-hyper" in done.stderr, place, "no place", done.stderr)
            check(not os.path.exists(out + "-wal"), place, "left something")
    for args in (["status", "app.db"], ["log", "app.db"]):
        done = subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=LONG)
        check(done.returncode in (0, 3), place, args, done.returncode, done.stderr)


def commit_stands_or_open_is_refused(expected, place):
    """The application goes on, or is told at the start; its data are there in either case."""
    try:
        with contextlib.closing(through_vfs("app.db", timeout=200)) as db:
            db.execute("INSERT INTO t(b) VALUES('stands')")
    except sqlite3.OperationalError as error:
        check("upgrade" in subprocess.run([PROGRAM, "status", "app.db"], capture_output=True, text=True,
                                          timeout=LONG).stderr or "is gone" in place, place, "no open")
        check("unable to open" in str(error), place, error)
        check(dump("app.db") == expected, place, "the database was changed")
        return
    check(last_text("app.db") == "stands", place, "the commit is lost")
    check([line for line in dump("app.db") if "'stands'" not in line] == expected, place, "rows")


def damage(name, count, always_found):
    seqs, expected = history()
    name = [n for n in os.listdir("app.db-hyper") if n.endswith(".seg")][0] if name == "SEG" else name
    copy = Copy("app.db")
    path = os.path.join("app.db-hyper", name)
    for offset in offsets(copy.files[name], count):
        place = f"{name} at {offset}"
        flip(path, offset)
        with unchanged("app.db", "app.db-hyper"):
            done = subprocess.run([PROGRAM, "verify", "app.db", "--deep"], capture_output=True,
                                  text=True, timeout=LONG)
            newer = done.returncode == 1 and "upgrade" in done.stderr  # the byte was the version's
            check(done.returncode == 3 or newer or (done.returncode == 0 and not always_found),
                  place, done.returncode, done.stderr)
            check(done.returncode == 0 or "app.db-hyper" in done.stderr, place, done.stderr)
            if not newer:
                outcome_is_right_or_named(seqs, expected, place)
        commit_stands_or_open_is_refused(expected, place)
        copy.put_back()
    run("verify", "app.db", "--deep")


def a_byte_changed_in_a_segment_is_found_and_harms_nothing(dir):
    damage("SEG", 40, True)


def a_byte_changed_in_the_log_file_is_found_and_harms_nothing(dir):
    damage("log", 20, True)


def a_byte_changed_in_the_tree_harms_nothing(dir):
    damage("tree", 20, False)


def a_damaged_log_is_code_3_for_who_wants_to_write_it(dir):
    history()
    copy = Copy("app.db")
    segment = [n for n in os.listdir("app.db-hyper") if n.endswith(".seg")][0]
    size = len(copy.files[segment].rstrip(b"\0"))
    for name, offset in ((segment, 3), (segment, size - 3), ("log", 20)):
        flip(os.path.join("app.db-hyper", name), offset)
        with unchanged("app.db", "app.db-hyper"):
            for args in (["label", "app.db", "x"], ["snapshot", "app.db"], ["serve", "app.db"],
                         ["prune", "app.db", "--keep", "1"]):
                refused(3, ["app.db-hyper", "copy"], *args)
        copy.put_back()


def a_damaged_log_stops_no_application_and_is_written_again_when_it_is_whole(dir):
    history()
    copy = Copy("app.db")
    segment = [n for n in os.listdir("app.db-hyper") if n.endswith(".seg")][0]
    size = len(copy.files[segment].rstrip(b"\0"))
    for name, offset in ((segment, 3), (segment, size - 3), ("log", 20)):
        path = os.path.join("app.db-hyper", name)
        flip(path, offset)
        with contextlib.closing(through_vfs("app.db", timeout=200)) as db:
            status = status_of(db)
            check(status["state"] == "stalled" and "copy" in status["alarm"], status)
            for i in range(3000):  # beyond autocheckpoint
                db.execute("INSERT INTO t(b) VALUES(?)", (f"{name} {i}",))
            flip(path, offset)
            until(lambda: status_of(db)["state"] == "running" and status_of(db)["lag"] == 0, "goes on")
            check(status_of(db)["alarm"] == "", status_of(db))
        check(not any(e["type"] == "gap" for e in facts("log", "app.db")), "a gap")
        run("verify", "app.db", "--deep")
        run("restore", "app.db", "out.db", "--force")
        check(dump("out.db") == dump("app.db"), name, "restored")
        copy.put_back()


def a_segment_that_is_cut_or_gone_is_named(dir):
    seqs, expected = history()
    copy = Copy("app.db")
    segment = [n for n in os.listdir("app.db-hyper") if n.endswith(".seg")][0]
    path = os.path.join("app.db-hyper", segment)
    for size in (0, 10, 100, len(copy.files[segment]) // 2):
        os.truncate(path, size)
        refused(3, ["app.db-hyper"], "verify", "app.db")
        outcome_is_right_or_named(seqs, expected, f"cut at {size}")
        commit_stands_or_open_is_refused(expected, f"cut at {size}")
        copy.put_back()
    for name in (segment, "tree", "log"):
        os.remove(os.path.join("app.db-hyper", name))
        done = subprocess.run([PROGRAM, "verify", "app.db"], capture_output=True, text=True,
                              timeout=LONG)
        check(done.returncode in ((1, 3) if name != "tree" else (0, 3)), name, done.returncode)
        check(done.returncode == 0 or "app.db-hyper" in done.stderr, name, done.stderr)
        commit_stands_or_open_is_refused(expected, f"{name} is gone")
        copy.put_back()


def caches_are_made_again_whatever_is_in_them(dir):
    seqs, expected = history()
    copy = Copy("app.db")
    for name in ("sums", "position", "shared"):
        content = copy.files[name]
        damages = [(f"byte {o}", content[:o] + bytes([content[o] ^ 0x20]) + content[o + 1:])
                   for o in offsets(content, 12)]
        damages += [("empty", b""), ("half", content[:len(content) // 2]), ("zeros", bytes(len(content))),
                    ("chance", os.urandom(len(content)))]
        for what, damaged in damages:
            place = f"{name}: {what}"
            write_bytes(os.path.join("app.db-hyper", name), damaged)
            outcome_is_right_or_named(seqs, expected, place)
            (seq,) = add("app.db", "new")
            check(seq > seqs[-1], place)
            run("verify", "app.db", "--deep")
            run("restore", "app.db", "a.db", "--force")
            check(last_text("a.db") == "new", place)
            check(not any(e["type"] == "gap" for e in facts("log", "app.db")), place, "a gap")
            copy.put_back()


def damage_while_the_database_is_open_never_stops_commits(dir):
    seqs, _ = history()
    segment = [n for n in os.listdir("app.db-hyper") if n.endswith(".seg")][0]
    for name in (segment, "log", "tree", "sums", "position"):
        copy = Copy("app.db")
        with contextlib.closing(through_vfs("app.db", timeout=300)) as db:
            db.execute("INSERT INTO t(b) VALUES('before')")
            logged_seq(db)
            for offset in (3, 40, os.path.getsize(os.path.join("app.db-hyper", name)) // 2):
                path = os.path.join("app.db-hyper", name)
                if offset < os.path.getsize(path):
                    flip(path, offset)
                db.execute("INSERT INTO t(b) VALUES(?)", (f"{name} {offset}",))
                check(db.execute("SELECT b FROM t ORDER BY a DESC").fetchone() ==
                      (f"{name} {offset}",), name)
            expected = list(db.iterdump())
        check(dump("app.db") == expected, name, "rows are lost")
        copy.put_back()


# --------------------------------------------------------------------- the WAL


APPLICATION = f"""
import os, sqlite3, sys
sqlite3.enable_callback_tracebacks(True)
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({EXTENSION!r})
db = sqlite3.connect("file:app.db?vfs=hyperwal", uri=True, isolation_level=None)
for i in range(30):
    db.execute("INSERT INTO t(b) VALUES(?)", (f"text {{i}}",))
print(db.execute("PRAGMA hyperwal_seq").fetchone()[0], flush=True)
os.kill(os.getpid(), 9)
"""


def a_wal_damaged_after_a_crash_loses_nothing_that_is_in_the_log(dir):
    for offset in (0, 5, 16, 24, 32, 40, 50, 100, 5000, 50000, -10, -4100, -4112):
        for name in os.listdir("."):
            shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)
        logged("app.db")
        done = subprocess.run([sys.executable, "-c", APPLICATION], capture_output=True, text=True,
                              timeout=LONG)
        check(done.returncode == -9, done.stderr)
        size = os.path.getsize("app.db-wal")
        flip("app.db-wal", offset % size)
        with contextlib.closing(through_vfs("app.db")) as db:
            db.execute("SELECT count(*) FROM t").fetchone()
            until(lambda: status_of(db)["state"] == "running", "running")
            db.execute("INSERT INTO t(b) VALUES('after')")
            seq = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
        check(seq > int(done.stdout), offset, seq, done.stdout)
        with contextlib.closing(stock("app.db")) as db:
            rows = [row[0] for row in db.execute("SELECT b FROM t ORDER BY a")]
        check(rows[-31:] == [f"text {i}" for i in range(30)] + ["after"], offset, rows[-31:])
        check(not any(e["type"] == "gap" for e in facts("log", "app.db")), offset, "a gap")
        run("verify", "app.db", "--deep")
        run("restore", "app.db", "out.db")
        check(dump("out.db") == dump("app.db"), offset, "restored")


def a_wal_damaged_under_an_open_database_never_gets_into_the_past(dir):
    for offset in (8, 32 + 8, 32 + 24 + 200, 32 + 24 + 4000):
        for name in os.listdir("."):
            shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)
        logged("app.db")
        with contextlib.closing(through_vfs("app.db", timeout=2000)) as db:
            for i in range(10):
                db.execute("INSERT INTO t(b) VALUES(?)", (f"text {i}",))
            seq = logged_seq(db)
            before = list(db.iterdump())
            flip("app.db-wal", offset)
            db.execute("INSERT INTO t(b) VALUES('after')")
            with contextlib.suppress(sqlite3.Error):
                db.execute("PRAGMA hyperwal_seq").fetchone()
            after = list(db.iterdump())
        check(dump("app.db") == after, offset, "rows are lost")
        run("restore", "app.db", "past.db", "--seq", seq)
        check(dump("past.db") == before, offset, "the past changed")
        with contextlib.closing(through_vfs("app.db")) as db:
            db.execute("INSERT INTO t(b) VALUES('later')")
            db.execute("PRAGMA hyperwal_seq").fetchone()
        run("verify", "app.db", "--deep")
        run("restore", "app.db", "now.db")
        check(dump("now.db") == dump("app.db"), offset, "restored")


# ------------------------------------------------------------------- the full disk


def a_full_disk_under_the_log_stops_no_commit_and_the_log_catches_up(dir):
    make("app.db")
    with mounted("disk", 6 << 20):
        where = os.path.abspath("disk/log")
        with contextlib.closing(through_vfs("app.db", log=where, timeout=500)) as db:
            db.execute("INSERT INTO t(b) VALUES('before')")
            logged_seq(db)
            filler = fill("disk")
            for i in range(300):
                db.execute("INSERT INTO t(b) VALUES(?)", (os.urandom(3000).hex(),))
            status = until(lambda: status_of(db)["alarm"] and status_of(db), "alarm")
            check("disk" in status["alarm"], status)
            check(status["lag"] > 0 and status["state"] != "running", status)
            db.execute("PRAGMA hyperwal_durability=local")
            try:
                db.execute("INSERT INTO t(b) VALUES('asks for the log')")
                raise AssertionError("durable on a full disk")
            except sqlite3.Error as error:
                check("locked" not in str(error), error)
            db.execute("PRAGMA hyperwal_durability=async")
            check(db.in_transaction is False, "a transaction stays open")
            os.remove(filler)
            until(lambda: status_of(db)["state"] == "running" and status_of(db)["lag"] == 0,
                  "catches up")
            check(status_of(db)["alarm"] == "", status_of(db))
            logged_seq(db)
        check(not any(e["type"] == "gap" for e in facts("log", where)), "a gap")
        run("verify", where, "--deep")
        run("restore", where, "out.db")
        check(dump("out.db") == dump("app.db"), "restored")


def a_log_that_cannot_be_written_slows_no_commit(dir):
    make("app.db")
    with mounted("disk", 6 << 20):
        where = os.path.abspath("disk/log")
        with contextlib.closing(through_vfs("app.db", log=where)) as db:
            db.execute("PRAGMA synchronous=OFF")
            db.execute("INSERT INTO t(b) VALUES('before')")
            db.execute("PRAGMA hyperwal_seq").fetchone()
            filler = fill("disk")
            until(lambda: write_chance(db) and status_of(db)["alarm"], "alarm")
            until(lambda: write_some(db) and os.path.getsize("app.db-wal") > 40 << 20,
                  "commits while the WAL is beyond its limit")
            os.remove(filler)
            until(lambda: status_of(db)["lag"] == 0 and status_of(db)["alarm"] == "", "catches up")
        run("verify", where, "--deep")
        check(not any(e["type"] == "gap" for e in facts("log", where)), "a gap")


def an_alarm_of_a_process_that_died_is_over_with_its_reason(dir):
    make("app.db")
    with mounted("disk", 6 << 20):
        where = os.path.abspath("disk/log")
        victim = subprocess.Popen([sys.executable, "-c", WRITER, where], text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            check(victim.stdout.readline() == "ready\n", "the writer did not begin")
            filler = fill("disk")
            victim.stdin.write("go\n")
            victim.stdin.flush()
            check(victim.stdout.readline() == "alarm\n", "no alarm")
        finally:
            victim.kill()
            victim.communicate()
        os.remove(filler)
        with contextlib.closing(through_vfs("app.db", log=where)) as db:
            db.execute("INSERT INTO t(b) VALUES('after')")
            db.execute("PRAGMA hyperwal_seq").fetchone()
            check(status_of(db)["alarm"] == "", status_of(db))
        check(not any(e["type"] == "gap" for e in facts("log", where)), "a gap")


WRITER = f"""
import json, os, sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({EXTENSION!r})
db = sqlite3.connect("file:app.db?vfs=hyperwal&log=" + sys.argv[1], uri=True, isolation_level=None)
db.execute("INSERT INTO t(b) VALUES('before')")
db.execute("PRAGMA hyperwal_seq").fetchone()
print("ready", flush=True)
sys.stdin.readline()
while not json.loads(db.execute("PRAGMA hyperwal_status").fetchone()[0])["alarm"]:
    db.execute("INSERT INTO t(b) VALUES(?)", (os.urandom(5000).hex(),))
print("alarm", flush=True)
sys.stdin.readline()
"""


def write_chance(db):
    db.execute("INSERT INTO t(b) VALUES(?)", (os.urandom(3000).hex(),))
    return True


def write_some(db):
    for _ in range(50):
        db.execute("INSERT INTO t(b) VALUES(?)", ("x" * 8000,))
    return True


def a_wal_beyond_its_cap_is_let_go_and_a_gap_names_what_is_missing(dir):
    make("app.db")
    os.environ["HYPERWAL_WAL_CAP"] = str(1 << 20)
    try:
        with mounted("disk", 8 << 20):
            where = os.path.abspath("disk/log")
            with contextlib.closing(through_vfs("app.db", log=where, timeout=2000)) as db:
                db.execute("INSERT INTO t(b) VALUES('before')")
                before = logged_seq(db)
                filler = fill("disk")
                longest = 0
                until(lambda: write_until_released(db), "released")
                for i in range(3000):
                    db.execute("INSERT INTO t(b) VALUES(?)", ("y" * 3000,))
                    longest = max(longest, os.path.getsize("app.db-wal"))
                check(longest < 16 << 20, f"the WAL grew to {longest} bytes: it was not let go")
                check("cap" in status_of(db)["alarm"] and "gap" in status_of(db)["alarm"],
                      status_of(db))
                db.execute("DELETE FROM t WHERE length(b) >= 3000")
                os.remove(filler)
                until(lambda: status_of(db)["state"] == "running", "resumes")
                db.execute("INSERT INTO t(b) VALUES('after')")
                seq = logged_seq(db)
                until(lambda: (status_of(db)["snapshot_seq"] or 0) > before, "a snapshot follows")
            entries = facts("log", where)
            gaps = [e for e in entries if e["type"] == "gap"]
            check(len(gaps) == 1 and before < gaps[0]["seq"] < seq, gaps)
            run("verify", where, "--deep")
            run("restore", where, "before.db", "--seq", before)
            check(last_text("before.db") == "before", "before the gap")
            run("restore", where, "after.db")
            check(dump("after.db") == dump("app.db"), "after the gap")
    finally:
        del os.environ["HYPERWAL_WAL_CAP"]


def write_until_released(db):
    for _ in range(100):
        db.execute("INSERT INTO t(b) VALUES(?)", (os.urandom(3000).hex(),))
    return status_of(db)["state"] == "released"


def a_cap_that_is_no_number_is_refused(dir):
    logged("app.db")
    for value in ("", "many", "-1", "1G", "0", "99999999999999999999"):
        environment = dict(os.environ, HYPERWAL_WAL_CAP=value)
        with unchanged("app.db", "app.db-hyper"):
            done = subprocess.run([PROGRAM, "label", "app.db", "x"], env=environment,
                                  capture_output=True, text=True, timeout=LONG)
            check(done.returncode == 1 and "HYPERWAL_WAL_CAP" in done.stderr and
                  "bytes" in done.stderr, value, done.returncode, done.stderr)
    environment = dict(os.environ, HYPERWAL_WAL_CAP="50000000")
    subprocess.run([PROGRAM, "label", "app.db", "x"], env=environment, check=True, timeout=LONG,
                   capture_output=True)


def a_full_disk_under_everything_fails_cleanly_and_heals(dir):
    with mounted("disk", 4 << 20):
        make("disk/app.db")
        run("init", "disk/app.db")
        with contextlib.closing(through_vfs("disk/app.db", timeout=500)) as db:
            db.execute("INSERT INTO t(b) VALUES('before')")
            logged_seq(db)
            filler = fill("disk")
            stood, failed = 0, ""
            for i in range(2000):
                try:
                    db.execute("INSERT INTO t(b) VALUES(?)", (f"full {i}" + "x" * 2000,))
                    stood += 1
                except sqlite3.Error as error:
                    failed = str(error)
                    break
            check("full" in failed or "I/O" in failed, failed)
            os.remove(filler)
            until(lambda: commits(db, "after"), "commits again")
            until(lambda: status_of(db)["state"] == "running" and status_of(db)["lag"] == 0,
                  "logs again")
            check(db.execute("SELECT count(*) FROM t WHERE b LIKE 'full%'").fetchone() == (stood,),
                  "rows")
        check(not any(e["type"] == "gap" for e in facts("log", "disk/app.db")), "a gap")
        run("verify", "disk/app.db", "--deep")
        run("restore", "disk/app.db", "out.db")
        check(dump("out.db") == dump("disk/app.db"), "restored")


def commits(db, text):
    try:
        db.execute("INSERT INTO t(b) VALUES(?)", (text,))
        return True
    except sqlite3.Error:
        return False


def init_restore_and_follow_leave_nothing_half_on_a_full_disk(dir):
    logged("app.db", 3000)
    with mounted("disk", 3 << 20):
        make("disk/new.db", 20)
        before = read("disk/new.db")
        filler = fill("disk", 30000)
        refused(1, ["disk/o.db", "No space"], "restore", "app.db", "disk/o.db")
        refused(1, ["disk/r.db"], "follow", "app.db", "disk/r.db", "--once")
        fill_left = fill_rest("disk")
        refused(1, ["disk/new.db", "No space"], "init", "disk/new.db")
        check(read("disk/new.db") == before or dump("disk/new.db"), "init damaged the database")
        os.remove(fill_left)
        os.remove(filler)
        check(not [n for n in os.listdir("disk") if n.startswith("o.db")], os.listdir("disk"))
        run("init", "disk/new.db")
        run("verify", "disk/new.db", "--deep")
        run("restore", "app.db", "disk/o.db")
        check(dump("disk/o.db") == dump("app.db"), "restored")
        run("follow", "app.db", "disk/r.db", "--once")
        check(dump("disk/r.db") == dump("app.db"), "followed")


def fill_rest(directory):
    os.rename(fill_named(directory), os.path.join(directory, "rest"))
    return os.path.join(directory, "rest")


def fill_named(directory):
    path = os.path.join(directory, "filler")
    os.rename(path, path + ".first")
    fill(directory)
    os.rename(path, path + ".second")
    os.rename(path + ".first", path)
    return path + ".second"


def a_follower_waits_out_a_full_disk(dir):
    logged("app.db")
    with mounted("disk", 4 << 20):
        run("follow", "app.db", "disk/r.db", "--once")
        filler = fill("disk")
        add("app.db", *(os.urandom(20000).hex() for i in range(20)))
        refused(1, ["disk/r.db", "No space"], "follow", "app.db", "disk/r.db", "--once")
        with contextlib.closing(stock("disk/r.db", "ro")) as db:
            check(db.execute("PRAGMA integrity_check").fetchone() == ("ok",), "replica")
        os.remove(filler)
        run("follow", "app.db", "disk/r.db", "--once")
        check(dump("disk/r.db") == dump("app.db"), "followed")
        run("verify", "disk/r.db")


# ------------------------------------------------------------- parameters, PRAGMAs


def a_parameter_with_an_unknown_value_is_refused(dir):
    logged("app.db")
    with unchanged("app.db", "app.db-hyper"):
        for name, value in (("storage", "tape"), ("durability", "sometimes"), ("replicas", "257"),
                            ("timeout", "soon"), ("timeout", "-1"), ("timeout", "99999999999"),
                            ("replicas", "x"), ("on_timeout", "panic"), ("listen", "tcp://:1"),
                            ("seq", "x"), ("seq", "-1"), ("time", "noon"), ("label", ""), ("log", "")):
            open_fails("app.db", **{name: value})
        open_fails("app.db", seq=1, label="x")


def a_pragma_with_an_unknown_value_says_what_is_allowed(dir):
    logged("app.db")
    with contextlib.closing(through_vfs("app.db")) as db:
        for sql, words in (("hyperwal_durability=never", "async"), ("hyperwal_wait=x", "number"),
                           ("hyperwal_wait", "SEQ"), ("hyperwal_label", "NAME"),
                           ("hyperwal_label=''", "NAME"), ("hyperwal_seq=3", "takes no value"),
                           ("hyperwal_frob", "hyperwal_status"), ("journal_mode=delete", "WAL mode"),
                           ("hyperwal_label='" + "x" * 300 + "'", "200")):
            try:
                db.execute("PRAGMA " + sql).fetchall()
                raise AssertionError(f"{sql}: accepted")
            except sqlite3.Error as error:
                check(words in str(error), sql, error)
        db.execute("INSERT INTO t(b) VALUES('goes on')")


# ------------------------------------------------------------------------ targets


def a_state_that_is_not_there_is_code_4_and_says_what_is(dir):
    seqs, _ = history()
    with unchanged("app.db", "app.db-hyper"):
        refused(4, ["1000000", str(fact("status", "app.db")["length"] - 1)],
                "restore", "app.db", "o.db", "--seq", "1000000")
        refused(4, ["nobody"], "restore", "app.db", "o.db", "--label", "nobody")
        refused(4, ["1970-01-01"], "restore", "app.db", "o.db", "--time", "1970-01-01T00:00:01Z")
        open_fails("app.db", seq=1000000)
        open_fails("app.db", label="nobody")
        open_fails("app.db", time="1970-01-01T00:00:01Z")
    (late,) = add("app.db", "new")
    run("snapshot", "app.db")
    add("app.db", "newer")
    run("prune", "app.db", "--keep", late)
    with unchanged("app.db", "app.db-hyper"):
        for seq in (seqs[0], seqs[10], 1):
            refused(4, [str(seq), "pruned"], "restore", "app.db", "o.db", "--seq", seq)
            open_fails("app.db", seq=seq)
    check([n for n in os.listdir(".") if n.startswith("o.db")] == [], os.listdir("."))


def a_state_within_a_gap_is_code_4_and_the_gap_is_named(dir):
    seqs, _ = history()
    with contextlib.closing(stock("app.db")) as db:
        db.execute("UPDATE t SET b = 'unseen' WHERE a = 3")
    (after,) = add("app.db", "after")
    gap = [e for e in facts("log", "app.db") if e["type"] == "gap"]
    check(len(gap) == 1, gap)
    run("restore", "app.db", "past.db", "--seq", seqs[-1])
    check(last_text("past.db") == "text 19", "before the gap")
    told = subprocess.run([PROGRAM, "restore", "app.db", "o.db", "--seq", str(gap[0]["seq"])],
                          capture_output=True, text=True, timeout=LONG)
    check(told.returncode in (0, 4), told.returncode, told.stderr)
    check(told.returncode == 0 or "gap" in told.stderr, told.stderr)
    run("restore", "app.db", "now.db", "--seq", after)
    check(dump("now.db") == dump("app.db"), "after the gap")
    run("verify", "app.db", "--deep")


# ----------------------------------------------------------------- pruned, copied, shared


def damage_of_a_pruned_log_is_found(dir):
    logged("app.db")
    add("app.db", *(os.urandom(3000).hex() for i in range(100)))
    run("snapshot", "app.db")
    (late,) = add("app.db", "late")
    run("snapshot", "app.db")
    (seq,) = add("app.db", "latest")
    run("prune", "app.db", "--keep", late)
    run("verify", "app.db", "--deep")
    expected = dump("app.db")
    copy = Copy("app.db")
    for name in sorted(copy.files):
        if name in ("key", "position", "shared", "sums", "worker.lock"):
            continue
        path = os.path.join("app.db-hyper", name)
        for offset in offsets(copy.files[name], 15):
            place = f"{name} at {offset}"
            flip(path, offset)
            done = subprocess.run([PROGRAM, "verify", "app.db", "--deep"], capture_output=True,
                                  text=True, timeout=LONG)
            check(done.returncode in (0, 3) or "upgrade" in done.stderr, place, done.stderr)
            check(done.returncode != 0 or name == "tree", place, "not found")
            done = subprocess.run([PROGRAM, "restore", "app.db", "out.db", "--seq", str(seq), "--force"],
                                  capture_output=True, text=True, timeout=LONG)
            check(done.returncode in (0, 3) or "upgrade" in done.stderr, place, done.stderr)
            check(done.returncode != 0 or dump("out.db") == expected, place, "wrong rows")
            commit_stands_or_open_is_refused(expected, place)
            copy.put_back()


def a_copied_log_signs_nothing_until_it_is_adopted(dir):
    _, expected = history()
    os.mkdir("copy")
    subprocess.run(["cp", "-a", "app.db", "app.db-hyper", "copy"], check=True)
    with unchanged("copy/app.db", "copy/app.db-hyper", "app.db", "app.db-hyper"):
        refused(1, ["copy/app.db-hyper", "adopt"], "label", "copy/app.db", "x")
        run("verify", "copy/app.db", "--deep")
        run("restore", "copy/app.db", "out.db")
    check(dump("out.db") == expected and dump("copy/app.db") == expected, "rows")
    run("label", "app.db", "the original goes on")
    fork = fact("status", "copy/app.db")["fork"]
    run("init", "copy/app.db", "--adopt")
    run("label", "copy/app.db", "the copy, too")
    check(fact("status", "copy/app.db")["fork"] > fork, "the fork")
    run("verify", "copy/app.db", "--deep")


def a_damaged_database_is_restored_from_its_log(dir):
    seqs, expected = history()
    copy = Copy("app.db")
    size = len(copy.database)
    for what in ("cut", "gone", "text", "page"):
        if what == "cut":
            os.truncate("app.db", size - 100)
        elif what == "gone":
            os.remove("app.db")
        elif what == "text":
            write_bytes("app.db", b"x" * size)
        else:
            flip("app.db", size - 50)
        with unchanged("app.db", "app.db-hyper"):
            run("restore", "app.db", "out.db", "--force")
            run("restore", "app.db-hyper", "past.db", "--seq", seqs[7], "--force")
            run("verify", "app.db-hyper", "--deep")
            if what != "page":
                done = subprocess.run([PROGRAM, "label", "app.db", "x"], capture_output=True,
                                      text=True, timeout=LONG)
                check(done.returncode == (1 if what == "gone" else 3) and "app.db" in done.stderr,
                      what, done.returncode, done.stderr)
        check(dump("out.db") == expected and last_text("past.db") == "text 7", what)
        if what == "gone":
            open("app.db", "wb").close()
        copy.put_back()


def one_log_takes_one_database_at_a_time(dir):
    make("one.db")
    make("two.db")
    where = os.path.abspath("log")
    with contextlib.closing(through_vfs("one.db", log=where)) as one:
        one.execute("INSERT INTO t(b) VALUES('one')")
        seq = int(one.execute("PRAGMA hyperwal_seq").fetchone()[0])
        open_fails("two.db", log=where)
        check(run("label", "two.db", "x", code=1).stderr, "two.db has a log")
        one.execute("INSERT INTO t(b) VALUES('one more')")
        one.execute("PRAGMA hyperwal_seq").fetchone()
    run("restore", where, "out.db")
    check(dump("out.db") == dump("one.db"), "one.db")
    check(facts("log", where)[-1]["seq"] >= seq and dump("two.db") != dump("one.db"), "two.db")


# ----------------------------------------------------------------------------- OUT


def restore_spares_what_lies_at_out(dir):
    history()
    make("out.db", 3)
    with unchanged("out.db"):
        refused(1, ["out.db", "--force"], "restore", "app.db", "out.db")
    os.remove("out.db")
    for suffix in ("-wal", "-shm", "-journal"):
        with open("out.db" + suffix, "w") as file:
            file.write("of something else")
        with unchanged("out.db" + suffix):
            refused(1, ["out.db" + suffix], "restore", "app.db", "out.db")
        check(not os.path.exists("out.db"), suffix)
        os.remove("out.db" + suffix)
    os.mkdir("out.db")
    for force in ([], ["--force"]):
        refused(1, ["out.db"], "restore", "app.db", "out.db", *force)
    os.rmdir("out.db")
    os.mkfifo("out.db")
    for force in ([], ["--force"]):
        refused(1, ["out.db"], "restore", "app.db", "out.db", *force)
    refused(1, ["out.db"], "follow", "app.db", "out.db", "--once")
    check(stat.S_ISFIFO(os.stat("out.db").st_mode), "the pipe was replaced")
    os.remove("out.db")
    refused(1, ["no/out.db", "make it"], "restore", "app.db", "no/out.db")
    refused(1, ["no/out.db", "make it"], "follow", "app.db", "no/out.db", "--once")
    with unchanged("app.db", "app.db-hyper"):
        refused(1, ["app.db"], "restore", "app.db", "app.db")
    check([n for n in os.listdir(".") if n.startswith("out.db")] == [], os.listdir("."))


def force_refuses_an_out_that_somebody_has_open(dir):
    history()
    for mode in ("delete", "wal"):
        make("out.db", 3)
        with contextlib.closing(stock("out.db")) as db:
            db.execute(f"PRAGMA journal_mode={mode}")
            db.execute("BEGIN")
            db.execute("SELECT * FROM t").fetchone()
            told = refused(1, ["out.db"], "restore", "app.db", "out.db", "--force")
            check("open" in told or "use" in told, told)
            check(db.execute("SELECT count(*) FROM t").fetchone() == (3,), "rows")
            db.execute("COMMIT")
        check(len(dump("out.db")) < 20, "it was replaced")
        run("restore", "app.db", "out.db", "--force")
        check(dump("out.db") == dump("app.db"), "not replaced")
        os.remove("out.db")


def force_does_not_replace_a_primary_or_a_replica_in_use(dir):
    history()
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("SELECT count(*) FROM t").fetchone()
        before = dump("app.db")
        refused(1, ["app.db"], "restore", "app.db", "app.db", "--force")
        check(dump("app.db") == before, "replaced")
    with background("follow", "app.db", "r.db") as follower:
        line_of(follower, "r.db: live")
        refused(1, ["r.db"], "restore", "app.db", "r.db", "--force")
        add("app.db", "still follows")
    run("follow", "app.db", "r.db", "--once")
    check(last_text("r.db") == "still follows", "replica")


# ------------------------------------------------------------------------- replicas


def a_replica_is_of_one_log_and_has_one_follower(dir):
    history()
    history("other.db")
    make("foreign.db", 5)
    with open("text.db", "w") as file:
        file.write("no database " * 100)
    for path in ("foreign.db", "text.db", "other.db", "app.db"):
        with unchanged(path):
            refused(1, [path], "follow", "app.db", path, "--once")
            refused(1, [path], "follow", "app.db", path)
    check(not os.path.exists("foreign.db-hyper") and not os.path.exists("text.db-hyper"),
          "a log's directory was made")
    run("follow", "app.db", "r.db", "--once")
    with unchanged("r.db", "r.db-hyper"):
        refused(1, ["r.db"], "follow", "other.db", "r.db", "--once")
    with background("follow", "app.db", "r.db") as follower:
        line_of(follower, "r.db: live")
        told = refused(1, ["r.db"], "follow", "app.db", "r.db")
        check("follow" in told, told)
        add("app.db", "one follower")
    run("follow", "app.db", "r.db", "--once")
    check(dump("r.db") == dump("app.db"), "replica")
    for args in (["init", "r.db"], ["label", "r.db", "x"], ["snapshot", "r.db"],
                 ["prune", "r.db", "--keep", "1"], ["serve", "r.db"]):
        refused(1, ["r.db", "replica"], *args)


def a_replica_whose_files_are_damaged_repairs_itself(dir):
    history()
    run("follow", "app.db", "r.db", "--once")
    names = [n for n in os.listdir("r.db-hyper") if os.path.getsize("r.db-hyper/" + n) > 0]
    for name in names + ["../r.db"]:
        path = os.path.join("r.db-hyper", name)
        for offset in (0, 20, os.path.getsize(path) // 2, os.path.getsize(path) - 1):
            content = read(path)
            flip(path, offset)
            done = subprocess.run([PROGRAM, "follow", "app.db", "r.db", "--once"],
                                  capture_output=True, text=True, timeout=LONG)
            check(done.returncode in (0, 1, 3), name, offset, done.returncode, done.stderr)
            if done.returncode == 0 and name != "../r.db":
                check(dump("r.db") == dump("app.db"), name, offset, "wrong rows")
            elif done.returncode != 0:
                check("r.db" in done.stderr, name, offset, done.stderr)
                write_bytes(path, content)
            if name == "../r.db":
                write_bytes(path, content)
    run("follow", "app.db", "r.db", "--once")


# -------------------------------------------------------------------------------- main

MOUNTS = False
def a_request_waits_for_who_has_all_of_it_locked(dir):
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("CREATE TABLE t(b)")
    stock = sqlite3.connect("app.db", isolation_level=None, check_same_thread=False)
    stock.execute("PRAGMA locking_mode = EXCLUSIVE")
    stock.execute("INSERT INTO t VALUES('alone')")
    ending = threading.Timer(0.5, stock.close)
    ending.start()
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("PRAGMA hyperwal_snapshot").fetchone()  # the first that it does
        check(db.execute("SELECT b FROM t").fetchall() == [("alone",)], "what was written alone")
    ending.join()


TESTS = [value for name, value in list(globals().items())
         if callable(value) and getattr(value, "__module__", None) == __name__
         and getattr(value, "__code__", None) is not None
         and value.__code__.co_varnames[:1] == ("dir",) and value.__code__.co_argcount == 1]


def main():
    global MOUNTS
    wanted = sys.argv[1:]
    MOUNTS = own_mounts()
    loaded = load_extension()
    results = [run_test(test) for test in TESTS if not wanted or test.__name__ in wanted]
    loaded.close()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
