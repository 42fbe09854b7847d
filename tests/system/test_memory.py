#!/usr/bin/python3
"""Databases in memory (storage=memory): where they are, who shares them, when they are gone.

One line a test, as in test_network.py.  Each test has a directory on a disk and another one on a
tmpfs (HYPERWAL_MEMORY_DIR).
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import traceback

import test_network as net
from test_network import LONG, Skip, check, run, stock, until

SHM = "/dev/shm"
FILE = os.path.abspath(__file__)
UNCONFIRMED = 1 | 200 << 8


def is_on_tmpfs(path):
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True)
    return kind.stdout.strip() in ("tmpfs", "ramfs")


def in_memory(name="app.db", **parameters):
    return net.through_vfs(os.path.abspath(name), storage="memory", **parameters)


def value(db, sql, *parameters):
    return db.execute(sql, parameters).fetchone()[0]


def status_of(db):
    return json.loads(value(db, "PRAGMA hyperwal_status"))


def listing(directory):
    return sorted(os.path.join(at, name) for at, dirs, files in os.walk(directory)
                  for name in dirs + files)


def own_directory():
    return os.path.join(os.environ["HYPERWAL_MEMORY_DIR"], f"hyperwal-{os.geteuid()}")


def places():
    """What there is beside the lock: nothing, when nobody has anything open."""
    return sorted(set(os.listdir(own_directory())) - {"lock"})


def expect_refusal(open_it, words):
    """The open fails, and SQLite's log says why."""
    try:
        open_it().close()
    except sqlite3.OperationalError:
        check(words in last_refusal(), f"{words!r} is not in {last_refusal()!r}")
        return
    raise AssertionError(f"it was opened: {words}")


def last_refusal():
    """The words of the last open that failed in this thread: what xGetLastError of the VFS says."""
    import ctypes

    vfs = SQLITE.sqlite3_vfs_find(b"hyperwal")
    words = ctypes.create_string_buffer(600)
    # struct sqlite3_vfs: three ints and padding, five pointers, then the methods from xOpen on.
    pointers = ctypes.cast(vfs, ctypes.POINTER(ctypes.c_void_p))
    get_last_error = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
                                      ctypes.c_char_p)(pointers[2 + 3 + 11])
    get_last_error(vfs, len(words), words)
    return words.value.decode()


def load_sqlite():
    import ctypes

    paths = {line.split()[-1] for line in open("/proc/self/maps") if "libsqlite3.so" in line}
    if not paths:
        raise Skip("this Python has its own SQLite built in")
    library = ctypes.CDLL(paths.pop())
    library.sqlite3_vfs_find.restype = ctypes.c_void_p
    library.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
    return library


SQLITE = None


# -------------------------------------------------------------------------- other processes


class Other:
    """Another process, which does what it is told: this file with the argument --other."""

    def __init__(self, before=(), **environment):
        self.process = subprocess.Popen([*before, sys.executable, FILE, "--other"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **environment})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def ask(self, what, *words):
        """What it answers; its errors are ours."""
        self.process.stdin.write(json.dumps([what, *words]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        check(line, f"the other process ended at {what} {words}")
        answer = json.loads(line)
        check("error" not in answer, answer.get("error"), what, words)
        return answer["value"]

    def kill(self):
        self.process.kill()
        self.process.wait()


class Obedient:
    """What runs in the other process."""

    def __init__(self):
        self.db = None

    def open(self, name, parameters):
        self.db = in_memory(name, **parameters)

    def open_afar(self, url):
        self.db = net.through_vfs(url)

    def sql(self, sql):
        return self.db.execute(sql).fetchall()

    def close(self):
        self.db.close()

    def fails(self, sql):
        """The extended code and the words of the error."""
        try:
            self.db.execute(sql).fetchall()
        except sqlite3.Error as error:
            return [error.sqlite_errorcode, str(error)]
        return None

    def fork(self):
        """A child that stays until it is killed, and does nothing."""
        begun, begin = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(begin)  # it has done what a child does first
            signal.pause()
        os.close(begin)
        os.read(begun, 1)
        os.close(begun)
        return child

    def fork_and_close(self):
        """A child that closes what it was born with; its exit code."""
        child = os.fork()
        if child == 0:
            self.db.close()
            os._exit(0)
        return os.waitpid(child, 0)[1]


def be_obedient():
    loaded = net.load_extension()
    obedient = Obedient()
    for line in sys.stdin:
        what, *words = json.loads(line)
        try:
            answer = {"value": getattr(obedient, what)(*words)}
        except Exception as error:  # the parent tells of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    loaded.close()
    return 0


def other_with(name="app.db", **parameters):
    other = Other()
    other.ask("open", name, parameters)
    return other


def fill(db, text="first"):
    db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
    db.execute("INSERT INTO t(b) VALUES(?)", (text,))


# --------------------------------------------------------------------------- where it is


def nothing_is_on_the_disk(dir):
    before = listing(dir)
    with contextlib.closing(in_memory()) as db:
        fill(db)
        db.execute("PRAGMA hyperwal_snapshot").fetchall()
        check(value(db, "SELECT count(*) FROM t") == 1)
        check(value(db, "PRAGMA journal_mode") == "wal")
        check(listing(dir) == before, listing(dir))
        check(places() != [], "it is nowhere")
        check(db.execute("PRAGMA database_list").fetchone()[2] == os.path.join(dir, "app.db"))
        status = status_of(db)
        check(status["path"].startswith(own_directory()) and status["path"].endswith("/app.db"), status)
        check(status["log"] == status["path"] + "-hyper", status)
    check(listing(dir) == before, listing(dir))
    check(places() == [], places())


def its_directory_need_not_be_there(dir):
    with contextlib.closing(in_memory("no/such/directory/app.db")) as db:
        fill(db)
        check(value(db, "SELECT b FROM t") == "first")
    check(os.listdir(dir) == [], os.listdir(dir))


def a_file_of_that_name_is_not_touched(dir):
    with contextlib.closing(sqlite3.connect("app.db")) as db:
        db.execute("CREATE TABLE on_disk(a)")
    with open("app.db", "rb") as file:
        content = file.read()
    with contextlib.closing(in_memory()) as db:
        check(value(db, "SELECT count(*) FROM sqlite_schema") == 0)
        fill(db)
    with open("app.db", "rb") as file:
        check(file.read() == content)
    check(os.listdir(dir) == ["app.db"], os.listdir(dir))


def a_first_transaction_can_be_rolled_back(dir):
    with contextlib.closing(in_memory()) as db:
        db.execute("PRAGMA page_size = 8192")
        db.execute("PRAGMA cache_size = 5")
        db.execute("BEGIN")
        fill(db)
        db.execute("INSERT INTO t(b) SELECT hex(zeroblob(2000)) FROM t, "
                   "(WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT i FROM n)")
        check(any(name.endswith("app.db-journal") for name in listing(own_directory())))
        db.execute("ROLLBACK")
        check(value(db, "SELECT count(*) FROM sqlite_schema") == 0)
        fill(db)
        check(value(db, "PRAGMA page_size") == 8192)
        check(not any(name.endswith("-journal") for name in listing(own_directory())))
        check(value(db, "PRAGMA integrity_check") == "ok")
    check(os.listdir(dir) == [], os.listdir(dir))


def a_first_transaction_that_is_killed_is_rolled_back(dir):
    with contextlib.closing(in_memory()) as db:
        with other_with() as other:
            other.ask("sql", "PRAGMA cache_size = 5")
            other.ask("sql", "BEGIN")
            other.ask("sql", "CREATE TABLE t AS WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                             "WHERE i < 200) SELECT i, hex(zeroblob(1000)) AS b FROM n")
            check(any(name.endswith("-journal") for name in listing(own_directory())))
            other.kill()
        check(value(db, "SELECT count(*) FROM sqlite_schema") == 0)
        fill(db)
        check(value(db, "PRAGMA integrity_check") == "ok")


def it_is_attached_like_a_file(dir):
    with contextlib.closing(in_memory("one.db")) as db:
        db.execute(f"ATTACH 'file:{dir}/two.db?vfs=hyperwal&storage=memory' AS two")
        fill(db)
        db.execute("CREATE TABLE two.t AS SELECT * FROM main.t")
        db.execute("BEGIN")
        db.execute("INSERT INTO main.t(b) VALUES('both')")
        db.execute("INSERT INTO two.t(b) VALUES('both')")
        db.execute("COMMIT")
        check(len(places()) == 4, places())
        db.execute("DETACH two")
        check(len(places()) == 2, places())
    check(os.listdir(dir) == [], os.listdir(dir))


def the_stock_library_and_the_program_find_it(dir):
    with contextlib.closing(in_memory()) as db:
        fill(db)
        seq = value(db, "PRAGMA hyperwal_seq")
        path = status_of(db)["path"]
        with contextlib.closing(stock(path)) as plain:
            check(value(plain, "SELECT b FROM t") == "first")
        told = net.fact("status", path)
        check(told["seq"] == int(seq) and told["path"] == path, told)
        check("first" not in run("log", path).stdout)
        run("verify", path + "-hyper")
        run("restore", path, "copy.db")
        check(net.dump("copy.db") == list(db.iterdump()), "restored")


# ------------------------------------------------------------------------------ followers


def a_follower_is_live_over_tcp(dir):
    with contextlib.closing(in_memory(listen="tcp://127.0.0.1:0")) as db:
        fill(db)
        url = status_of(db)["listen"][0]
        check(url.endswith("/app.db"), url)
        with net.follower(url, "r.db") as live:
            live.line("r.db: live")
            for i in range(20):
                db.execute("INSERT INTO t(b) VALUES(?)", (f"row {i}",))
                net.wait_for("r.db", value(db, "PRAGMA hyperwal_seq"))
                check(net.dump("r.db") == list(db.iterdump()), i)


def a_follower_is_live_by_path(dir):
    with contextlib.closing(in_memory()) as db:
        fill(db)
        path = status_of(db)["path"]
        with net.follower(path, "r.db") as live:
            live.line("r.db: live")
            for i in range(20):
                db.execute("INSERT INTO t(b) VALUES(?)", (f"row {i}",))
                net.wait_for("r.db", value(db, "PRAGMA hyperwal_seq"))
                check(net.dump("r.db") == list(db.iterdump()), i)


def a_server_of_its_path_serves_it(dir):
    with contextlib.closing(in_memory()) as db:
        fill(db)
        path = status_of(db)["path"]
        with net.server(path) as primary, net.follower(primary.urls["app.db"], "r.db") as live:
            live.line("r.db: live")
            db.execute("INSERT INTO t(b) VALUES('later')")
            net.wait_for("r.db", value(db, "PRAGMA hyperwal_seq"))
            check(net.dump("r.db") == list(db.iterdump()))


def it_is_written_from_afar(dir):
    with tempfile.TemporaryDirectory() as theirs:
        key = net.fact("key", "--identity", theirs + "/writer")["key"]
        with open(theirs + "/rules", "w", encoding="ascii") as file:
            file.write(f"read,write app.db {key} a writer\n")
        os.chmod(theirs + "/rules", 0o644)
        with contextlib.closing(in_memory(listen="tcp://127.0.0.1:0", access=theirs + "/rules")) as db:
            fill(db)
            with Other(HYPERWAL_IDENTITY=theirs + "/writer", HYPERWAL_CACHE=theirs + "/cache",
                       HYPERWAL_KNOWN_SERVERS=theirs + "/known") as other:
                other.ask("open_afar", status_of(db)["listen"][0])
                other.ask("sql", "INSERT INTO t(b) VALUES('from afar')")
                other.ask("close")
            check(value(db, "SELECT b FROM t ORDER BY a DESC") == "from afar")
    check(places() == [], places())


def a_commit_waits_for_a_follower(dir):
    with contextlib.closing(in_memory(listen="tcp://127.0.0.1:0", durability="remote",
                                      timeout=LONG * 1000)) as db:
        db.execute("PRAGMA hyperwal_durability = async")
        fill(db)
        url = status_of(db)["listen"][0]
        with net.follower(url, "r.db") as live:
            live.line("r.db: live")
            db.execute("PRAGMA hyperwal_durability = remote_apply")
            for i in range(5):
                db.execute("INSERT INTO t(b) VALUES(?)", (f"waited {i}",))
                with contextlib.closing(stock("r.db")) as replica:
                    check(value(replica, "SELECT b FROM t ORDER BY a DESC") == f"waited {i}")
    with contextlib.closing(in_memory(durability="remote", timeout=50)) as db:
        db.execute("PRAGMA hyperwal_durability = async")
        fill(db)
        db.execute("PRAGMA hyperwal_durability = remote")
        try:
            db.execute("INSERT INTO t(b) VALUES('alone')")
        except sqlite3.OperationalError as error:
            check("confirmed" in str(error) or error.sqlite_errorcode == UNCONFIRMED, error)
        else:
            raise AssertionError("a commit that nobody confirmed")


def a_server_sees_it_vanish(dir):
    db = in_memory()
    fill(db)
    path = status_of(db)["path"]
    with net.server(path) as primary:
        with contextlib.closing(in_memory("another.db")):
            db.close()
            until(lambda: not os.path.exists(path), "the place is removed")
        check(places() == [], places())
        with contextlib.closing(in_memory()) as db:
            check(value(db, "SELECT count(*) FROM sqlite_schema") == 0)
            fill(db, "second life")
            check(value(db, "SELECT b FROM t") == "second life")
        check(primary.process.poll() is None, "the server ended", primary.said()[-600:])
    check(places() == [], places())


def a_follower_sees_it_vanish(dir):
    db = in_memory()
    fill(db)
    path = status_of(db)["path"]
    with net.follower(path, "r.db") as live:
        live.line("r.db: live")
        content = list(db.iterdump())
        net.wait_for("r.db", int(value(db, "PRAGMA hyperwal_seq")))  # live may be behind the last commit
        db.close()
        until(lambda: places() == [], "the place is removed")
        check(net.dump("r.db") == content)
        with contextlib.closing(in_memory()) as db:
            check(value(db, "SELECT count(*) FROM sqlite_schema") == 0)


# --------------------------------------------------------------------------------- life


def two_processes_share_it(dir):
    with other_with() as one, other_with() as two:
        one.ask("sql", "CREATE TABLE t(b)")
        two.ask("sql", "INSERT INTO t VALUES('from two')")
        check(one.ask("sql", "SELECT b FROM t") == [["from two"]])
        one.ask("close")
        check(two.ask("sql", "SELECT b FROM t") == [["from two"]])
        two.ask("sql", "INSERT INTO t VALUES('alone')")
        check(two.ask("sql", "PRAGMA hyperwal_seq") != [["-1"]])
        two.ask("close")
        check(places() == [], places())


def the_other_one_goes_on_after_a_kill(dir):
    with other_with() as one, other_with() as two:
        one.ask("sql", "CREATE TABLE t(b)")
        one.ask("sql", "INSERT INTO t VALUES('before')")
        one.kill()
        two.ask("sql", "INSERT INTO t VALUES('after')")
        check(int(two.ask("sql", "PRAGMA hyperwal_seq")[0][0]) > 0)
        check(two.ask("sql", "SELECT b FROM t") == [["before"], ["after"]])
        with contextlib.closing(in_memory()) as db:
            check(value(db, "SELECT count(*) FROM t") == 2)
        two.ask("close")
        check(places() == [], places())


def after_the_last_was_killed_it_begins_empty(dir):
    with other_with() as one:
        one.ask("sql", "CREATE TABLE t(b)")
        key = one.ask("sql", "PRAGMA hyperwal_key")
        one.kill()
    check(len(places()) == 2, places())
    with contextlib.closing(in_memory()) as db:
        check(value(db, "SELECT count(*) FROM sqlite_schema") == 0)
        db.execute("CREATE TABLE other(a)")
        check(value(db, "PRAGMA hyperwal_key") != key[0][0], "its log goes on")
    check(places() == [], places())


def what_was_killed_is_removed_by_whoever_opens(dir):
    with other_with() as one, other_with("two.db") as two:
        one.ask("sql", "CREATE TABLE t AS SELECT randomblob(1000000)")
        two.ask("sql", "CREATE TABLE t(b)")
        one.kill()
        check(len(places()) == 4, places())
        with contextlib.closing(in_memory("three.db")):
            check(len(places()) == 4, "the dead one's is still there", places())
        check(two.ask("sql", "SELECT count(*) FROM t") == [[0]])
        two.ask("close")
        check(places() == [], places())


def a_child_does_not_hold_it(dir):
    child = None
    try:
        with other_with() as one:
            one.ask("sql", "CREATE TABLE t(b)")
            child = one.ask("fork")
            one.kill()
        with contextlib.closing(in_memory()) as db:
            check(value(db, "SELECT count(*) FROM sqlite_schema") == 0)
    finally:
        if child is not None:
            os.kill(child, signal.SIGKILL)
    check(places() == [], places())


def a_child_that_closes_takes_nothing_away(dir):
    with other_with() as one:
        one.ask("sql", "CREATE TABLE t(b)")
        check(one.ask("fork_and_close") == 0)
        check(one.ask("sql", "SELECT count(*) FROM t") == [[0]])
        with contextlib.closing(in_memory()) as db:
            check(value(db, "SELECT count(*) FROM t") == 0)


def many_come_and_go_at_once(dir):
    """Each finds either nothing, or the table with all that those who are there have put in."""
    rounds, others = 40, 4
    code = ("import sys, test_memory as m, contextlib\n"
            "loaded = m.net.load_extension()\n"
            f"for i in range({rounds}):\n"
            "    with contextlib.closing(m.in_memory()) as db:\n"
            "        db.execute('BEGIN IMMEDIATE')\n"
            "        db.execute('CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY)')\n"
            "        db.execute('INSERT INTO t SELECT count(*) + 1 FROM t')\n"
            "        db.execute('COMMIT')\n"
            "        count, last = db.execute('SELECT count(*), max(n) FROM t').fetchone()\n"
            "        assert count == last and count > 0, (count, last)\n"
            "        assert db.execute('PRAGMA integrity_check').fetchone() == ('ok',)\n")
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(FILE)}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment,
                                  stderr=subprocess.PIPE, text=True) for _ in range(others)]
    for process in processes:
        words = process.communicate(timeout=4 * LONG)[1]
        check(process.returncode == 0, words[-600:])
    check(places() == [], places())


# ------------------------------------------------------------------------------ refusals


def a_root_on_a_disk_is_refused(dir):
    if is_on_tmpfs(dir):
        raise Skip(f"{dir} is a tmpfs")
    os.environ["HYPERWAL_MEMORY_DIR"] = dir
    expect_refusal(in_memory, "HYPERWAL_MEMORY_DIR is not a directory on a tmpfs")
    check(os.listdir(dir) == [], os.listdir(dir))
    os.environ["HYPERWAL_MEMORY_DIR"] = "relative"
    expect_refusal(in_memory, "'relative' of HYPERWAL_MEMORY_DIR is not a full path")


def a_directory_of_somebody_else_is_refused(dir):
    own = own_directory()
    words = "is not a directory of this user alone"

    os.mkdir("elsewhere", 0o700)
    os.symlink(os.path.abspath("elsewhere"), own)
    expect_refusal(in_memory, words)
    os.unlink(own)
    os.mkdir(own, 0o755)
    os.chmod(own, 0o755)
    expect_refusal(in_memory, words)
    os.rmdir(own)
    with open(own, "w", encoding="ascii"):
        pass
    expect_refusal(in_memory, words)
    os.unlink(own)
    if os.geteuid() == 0:
        os.mkdir(own, 0o700)
        os.chown(own, 12345, 12345)
        expect_refusal(in_memory, words)
        os.rmdir(own)
    os.chmod(os.environ["HYPERWAL_MEMORY_DIR"], 0o777)
    expect_refusal(in_memory, "others may replace")
    os.chmod(os.environ["HYPERWAL_MEMORY_DIR"], 0o1777)
    in_memory().close()
    check(os.listdir("elsewhere") == [])


def one_path_is_one_thing_in_a_process(dir):
    with contextlib.closing(in_memory()) as db:
        fill(db)
        path = status_of(db)["path"]
        expect_refusal(lambda: net.through_vfs(os.path.abspath("app.db")), "in memory")
        with contextlib.closing(in_memory()) as again:
            check(value(again, "SELECT b FROM t") == "first")
        with contextlib.closing(net.through_vfs(path)) as direct:
            check(value(direct, "SELECT b FROM t") == "first")
    with contextlib.closing(net.through_vfs(os.path.abspath("app.db"))) as db:
        db.execute("CREATE TABLE on_disk(a)")
        expect_refusal(in_memory, "has the file of this name open")
    check(places() == [], places())


def a_connection_by_its_path_keeps_it_in_its_process(dir):
    db = in_memory()
    fill(db)
    with contextlib.closing(net.through_vfs(status_of(db)["path"])) as direct:
        db.close()
        with contextlib.closing(in_memory()) as db:
            check(value(db, "SELECT b FROM t") == "first")
        check(value(direct, "SELECT b FROM t") == "first")
    check(places() == [], places())


def parameters_that_do_not_fit_are_refused(dir):
    expect_refusal(lambda: in_memory(log=dir + "/log"), "leave one of the two out")
    expect_refusal(lambda: in_memory(mode="rw"), "no process has a database of this name in memory")
    expect_refusal(lambda: in_memory(mode="ro"), "no process has a database of this name in memory")
    expect_refusal(lambda: in_memory(seq=1), "no process has a database of this name in memory")
    check(places() == [] and os.listdir(dir) == [], places())


def it_has_a_past(dir):
    db = in_memory()
    fill(db)
    db.execute("PRAGMA hyperwal_label = 'before'")
    db.execute("UPDATE t SET b = 'later'")
    value(db, "PRAGMA hyperwal_seq")
    with contextlib.closing(in_memory(label="before")) as past:
        check(value(past, "SELECT b FROM t") == "first")
        db.close()  # the view holds it
        check(value(past, "SELECT count(*) FROM t WHERE b = 'first'") == 1)
        check(len(places()) == 2, places())
    check(places() == [], places())


# ------------------------------------------------------------------------------- no room


def a_full_tmpfs_is_told(dir):
    """In a mount namespace of its own, on a tmpfs of 3 MiB."""
    os.mkdir("small")
    small = os.path.abspath("small")
    mount = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-U", "-r", "-m"]
    script = f'mount -t tmpfs -o size=3m none "{small}" && exec "$@"'
    tried = subprocess.run([*mount, "sh", "-c", script, "sh", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        raise Skip("no mounts of our own here: " + tried.stderr.strip())
    with Other(before=[*mount, "sh", "-c", script, "sh"], HYPERWAL_MEMORY_DIR=small) as other:
        other.ask("open", "app.db", {})
        other.ask("sql", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        error = None
        for _ in range(400):
            error = other.ask("fails", "INSERT INTO t(b) VALUES(randomblob(20000))")
            if error:
                break
        check(error is not None and error[0] & 0xff == 13, f"not SQLITE_FULL: {error}")
        check(other.ask("sql", "PRAGMA integrity_check") == [["ok"]])
        count = other.ask("sql", "SELECT count(*), coalesce(max(a), 0) FROM t")
        check(count[0][0] == count[0][1] > 0, count)
        other.ask("close")
        other.ask("open", "app.db", {})
        other.ask("sql", "CREATE TABLE t(b)")
        other.ask("sql", "INSERT INTO t VALUES(randomblob(100000))")
        other.ask("close")


TESTS = (nothing_is_on_the_disk, its_directory_need_not_be_there, a_file_of_that_name_is_not_touched,
         a_first_transaction_can_be_rolled_back, a_first_transaction_that_is_killed_is_rolled_back,
         it_is_attached_like_a_file, the_stock_library_and_the_program_find_it,
         a_follower_is_live_over_tcp, a_follower_is_live_by_path, a_server_of_its_path_serves_it,
         it_is_written_from_afar, a_commit_waits_for_a_follower, a_server_sees_it_vanish, a_follower_sees_it_vanish,
         two_processes_share_it, the_other_one_goes_on_after_a_kill,
         after_the_last_was_killed_it_begins_empty, what_was_killed_is_removed_by_whoever_opens,
         a_child_does_not_hold_it, a_child_that_closes_takes_nothing_away, many_come_and_go_at_once,
         a_root_on_a_disk_is_refused, a_directory_of_somebody_else_is_refused,
         one_path_is_one_thing_in_a_process, a_connection_by_its_path_keeps_it_in_its_process,
         parameters_that_do_not_fit_are_refused, it_has_a_past, a_full_tmpfs_is_told)


def run_test(test):
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as home:
        memory = tempfile.mkdtemp(prefix="hyperwal-test-", dir=SHM)
        os.chdir(directory)
        os.environ["HYPERWAL_IDENTITY"] = os.path.join(home, "identity")
        os.environ["TMPDIR"] = home
        os.environ["HYPERWAL_MEMORY_DIR"] = memory
        os.environ["HW_BUILD"] = net.BUILD  # for the other processes
        try:
            test(directory)
            print(f"ok {test.__name__}", flush=True)
        except Skip as reason:
            print(f"skip {test.__name__}: {reason}", flush=True)
        except Exception as error:  # every test is told of, whatever happens in it
            traceback.print_exc()
            print(f"not ok {test.__name__}: {str(error)[:900]}".replace("\n", " "), flush=True)
            return False
        finally:
            os.chdir("/")
            shutil.rmtree(memory, ignore_errors=True)
    return True


def main(names):
    global SQLITE
    if names == ["--other"]:
        return be_obedient()
    chosen = [test for test in TESTS if not names or test.__name__ in names]
    if not is_on_tmpfs(SHM):
        for test in chosen:
            print(f"skip {test.__name__}: {SHM} is no tmpfs", flush=True)
        return 0
    loaded = net.load_extension()  # the VFS lives as long as the process
    SQLITE = load_sqlite()
    failed = [test for test in chosen if not run_test(test)]
    loaded.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
