#!/usr/bin/python3
"""Databases elsewhere, opened by their URL: the cache, what is fetched for it, and what happens to it.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.  Clients are processes of their own, which
take lines of Python on their standard input.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from random import Random

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
PROGRAM = os.path.join(BUILD, "hyperwal")
EXTENSION = os.path.join(BUILD, "hyperwal.so")
LONG = 90  # seconds: nothing here takes so long unless it hangs

# What a client runs: it answers each line, an expression, with one line of JSON.
CLIENT = """
import json, os, random, sqlite3, sys, threading
keep = sqlite3.connect(":memory:")
keep.enable_load_extension(True)
keep.load_extension(sys.argv[1])

def connect(url, **parameters):
    extra = "".join("&%s=%s" % item for item in parameters.items())
    return sqlite3.connect("file:%s?vfs=hyperwal%s" % (url, extra), uri=True, isolation_level=None,
                           timeout=20, check_same_thread=False)

def rows(db, sql):
    return db.execute(sql).fetchall()

def status(db):
    return json.loads(db.execute("PRAGMA hyperwal_status").fetchone()[0])

def refused(function):
    try:
        function()
    except Exception as error:
        return str(error)
    return None

def child():
    # What a forked child has of the parent's connection, and of one of its own.
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            old = refused(lambda: rows(db, 'SELECT count(*) FROM large'))
            own = connect(url)
            said = json.dumps([old, rows(own, 'SELECT count(*) FROM large')])
            own.close()
        except Exception as error:
            said = json.dumps(str(error))
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    said = os.read(read, 1000)
    os.waitpid(pid, 0)
    return json.loads(said)

def work(seed):
    chance = random.Random(seed)
    mine = connect(url)
    for i in range(40):
        a = chance.randrange(10000)
        if rows(mine, 'SELECT length(b) FROM large WHERE a = %d' % a) != [(1000,)]:
            wrong.append(a)
    mine.close()

def all_at_once(seed):
    threads = [threading.Thread(target=work, args=(seed + i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong

wrong = []
names = globals()
print("ready", flush=True)
for line in sys.stdin:
    try:
        try:
            answer = eval(line, names)
        except SyntaxError:
            exec(line, names)
            answer = None
        told = {"answer": answer}
    except Exception as error:
        told = {"error": "%s: %s" % (type(error).__name__, error)}
    print(json.dumps(told, default=str), flush=True)
"""


class Skip(Exception):
    pass


def check(condition, *facts):
    if not condition:
        raise AssertionError("; ".join(str(fact) for fact in facts))


def run(*args, code=0, **options):
    """Run the program.  Another exit code than `code` is a failure."""
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=LONG,
                          stdin=subprocess.DEVNULL, **options)
    check(done.returncode == code, f"hyperwal {args}: exit {done.returncode}, expected {code}",
          done.stdout[-300:], done.stderr[-600:])
    return done


class Process:
    """A process whose output is read line by line."""

    def __init__(self, command, environment=None):
        self.command = command
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.errors,
                                        stdin=subprocess.PIPE, env={**os.environ, **(environment or {})})
        self.pending = b""

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def line(self, start=""):
        """The next line of output that begins with `start`."""
        deadline = time.monotonic() + LONG
        while True:
            while b"\n" in self.pending:
                line, self.pending = self.pending.split(b"\n", 1)
                if line.decode().startswith(start):
                    return line.decode()
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            check(more, f"{self.command[:2]}: no line {start!r}", self.said()[-900:])
            self.pending += more

    def kill(self):
        self.process.kill()
        self.process.wait()

    def release(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()


class Client(Process):
    def __init__(self, environment=None):
        super().__init__([sys.executable, "-c", CLIENT, EXTENSION], environment)
        self.line("ready")

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def answer(self):
        told = json.loads(self.line("{"))
        check("error" not in told, told.get("error"))
        return told["answer"]

    def do(self, line):
        self.send(line)
        return self.answer()

    def end(self):
        self.process.stdin.close()
        check(self.process.wait(timeout=LONG) == 0, "a client ended badly", self.said()[-600:])


@contextlib.contextmanager
def client(**options):
    made = Client(**options)
    try:
        yield made
        if made.process.poll() is None:
            made.end()
    finally:
        made.release()


@contextlib.contextmanager
def server(*args, listen="tcp://127.0.0.1:0"):
    """`hyperwal serve --listen`, ready; .urls has the URL of each name."""
    process = Process([PROGRAM, "serve", "--listen", listen, *args, "--json"])
    try:
        process.urls = {}
        while True:
            told = json.loads(process.line("{"))
            if "ready" in told:
                break
            process.urls[told["name"]] = told["url"]
        yield process
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGTERM)
            check(process.process.wait(timeout=LONG) == 0, "the server ended badly", process.said()[-600:])
    finally:
        process.release()


def make(path, mib=0, rows=100):
    """A database; of so many MiB that do not compress, its rows in order of `a`."""
    chance = Random(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
        db.execute("CREATE TABLE large(a INTEGER PRIMARY KEY, b BLOB)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO t(b) VALUES(?)", ((f"row {i}" * 5,) for i in range(rows)))
        db.executemany("INSERT INTO large VALUES(?,?)",
                       ((i, chance.randbytes(1000)) for i in range(mib * 1000)))
        db.execute("COMMIT")
    run("init", path)


def local(path):
    return sqlite3.connect(f"file:{path}?vfs=hyperwal&timeout={LONG * 1000}", uri=True,
                           isolation_level=None, timeout=20)


def add(path, *texts):
    """One transaction a text, through the VFS; the seq of the last."""
    with contextlib.closing(local(path)) as db:
        for text in texts:
            db.execute("INSERT INTO t(b) VALUES(?)", (text,))
        return int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])


def cache_of(directory):
    (key,) = [name for name in os.listdir(os.path.join(directory, "cache")) if len(name) == 64]
    return os.path.join(directory, "cache", key)


# ---------------------------------------------------------------------------- the tests


def a_point_query_fetches_little(directory):
    make("app.db", mib=110)
    size = os.path.getsize("app.db")
    check(size >= 100 << 20, size)
    with server("app.db") as primary, client() as c:
        c.do(f"db = connect('{primary.urls['app.db']}')")
        check(c.do("rows(db, 'SELECT length(b) FROM large WHERE a = 77777')") == [[1000]], "the row")
        status = c.do("status(db)")
        check(status["role"] == "remote" and status["online"], status)
        check(0 < status["received_bytes"] < size * 0.02, status, size)
        check(status["present_bytes"] < size * 0.02, status, size)
        taken = os.stat(os.path.join(cache_of(directory), "db")).st_blocks * 512
        check(taken < size * 0.02, taken, size)
        print(f"    {status['received_bytes'] / size:.4f} of {size >> 20} MiB for one row")


def a_scan_reads_ahead_and_finds_all(directory):
    make("app.db", mib=20)
    with server("app.db") as primary, client() as c:
        c.do(f"db = connect('{primary.urls['app.db']}')")
        check(c.do("rows(db, 'SELECT count(*), sum(length(b)), sum(a) FROM large')")
              == [[20000, 20000000, 199990000]], "a scan")
        check(c.do("rows(db, 'PRAGMA integrity_check')") == [["ok"]], "integrity")


def commits_arrive_as_they_are_made(directory):
    make("app.db")
    with server("app.db") as primary, client() as c:
        c.do(f"db = connect('{primary.urls['app.db']}')")
        check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "at first")
        for i in range(20):
            seq = add("app.db", f"live {i}")
            c.do(f"rows(db, 'PRAGMA hyperwal_wait = {seq}')")
            check(c.do("rows(db, 'SELECT b FROM t ORDER BY a DESC LIMIT 1')") == [[f"live {i}"]], i)
            # Not ==: a server that was not the worker for a moment commits nothing, but an entry.
            check(int(c.do("rows(db, 'PRAGMA hyperwal_seq')")[0][0]) >= seq, seq)


def a_reader_keeps_its_snapshot(directory):
    make("app.db")
    with server("app.db") as primary, client() as c:
        url = primary.urls["app.db"]
        c.do(f"old = connect('{url}')")
        c.do(f"new = connect('{url}')")
        c.do("old.execute('BEGIN')")
        check(c.do("rows(old, 'SELECT count(*) FROM t')") == [[100]], "at first")
        seq = add("app.db", *(f"more {i}" for i in range(50)))
        c.do(f"rows(new, 'PRAGMA hyperwal_wait = {seq}')")
        check(c.do("rows(new, 'SELECT count(*) FROM t')") == [[150]], "the new reader")
        check(c.do("rows(old, 'SELECT count(*) FROM t')") == [[100]], "the old reader")
        c.do("old.execute('COMMIT')")
        check(c.do("rows(old, 'SELECT count(*) FROM t')") == [[150]], "the next transaction")


def writing_is_refused_with_words(directory):
    make("app.db")
    stranger = {"HYPERWAL_IDENTITY": os.path.join(directory, "stranger")}
    with server("app.db") as primary, client(environment=stranger) as c:
        c.do(f"db = connect('{primary.urls['app.db']}')")
        said = c.do("refused(lambda: db.execute('INSERT INTO t(b) VALUES(1)'))")
        check(said == "attempt to write a readonly database", said)
        check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "and reading goes on")


def all_spellings_of_a_url_work(directory):
    make("app.db")
    for listen in ("tcp://127.0.0.1:0", f"ipc://{directory}/socket", "ws://127.0.0.1:0/path"):
        with server("app.db", listen=listen) as primary, client() as c:
            c.do(f"db = connect('{primary.urls['app.db']}')")
            check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], listen)
    with server("app.db") as primary, client() as c:
        key = json.loads(run("status", "app.db", "--json").stdout)["key"]
        url = primary.urls["app.db"].rsplit("/", 1)[0] + "/" + key
        c.do(f"db = connect('{url}')")
        check(c.do("rows(db, 'PRAGMA hyperwal_key')") == [[key]], "by key")
    with server("app.db") as primary, client(environment={"HYPERWAL_DEFAULT": "1"}) as c:
        c.do(f"db = sqlite3.connect('{primary.urls['app.db']}?timeout=5000', isolation_level=None)")
        check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "bare")
        said = c.do(f"refused(lambda: sqlite3.connect('{primary.urls['app.db']}?timeout=soon'))")
        check(said == "unable to open database file", said)
        check(not [name for name in os.listdir(".") if name.startswith(("hyper:", "tcp:"))], os.listdir("."))


def processes_share_one_cache(directory):
    make("app.db", mib=5)
    with server("app.db") as primary, client() as first, client() as second:
        url = primary.urls["app.db"]
        first.do(f"db = connect('{url}')")
        second.do(f"db = connect('{url}')")
        check(first.do("rows(db, 'SELECT count(*), sum(a) FROM large')") == [[5000, 12497500]], "a scan")
        before = first.do("status(db)")
        check(second.do("rows(db, 'SELECT count(*), sum(a) FROM large')") == [[5000, 12497500]], "another")
        after = second.do("status(db)")
        check(before["worker_pid"] == after["worker_pid"] == first.process.pid, before, after)
        check(after["received_bytes"] < 6 << 20, "it was fetched twice", before, after)
        seq = add("app.db", "new")
        for c in (first, second):
            c.do(f"rows(db, 'PRAGMA hyperwal_wait = {seq}')")
            check(c.do("rows(db, 'SELECT b FROM t ORDER BY a DESC LIMIT 1')") == [["new"]], c.process.pid)


def another_process_takes_over(directory):
    make("app.db", mib=5)
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        with client() as last:
            last.do("db = None")
            for i in range(3):
                with client() as first:
                    first.do(f"db = connect('{url}')")
                    first.do(f"rows(db, 'SELECT * FROM large WHERE a = {i}')")
                    if i == 0:
                        last.do(f"db = connect('{url}')")
                    first.kill()
                check(last.do(f"rows(db, 'SELECT length(b) FROM large WHERE a = {4999 - i * 1000}')") == [[1000]], i)
                seq = add("app.db", f"after {i}")
                last.do(f"rows(db, 'PRAGMA hyperwal_wait = {seq}')")
                check(last.do("rows(db, 'SELECT b FROM t ORDER BY a DESC LIMIT 1')") == [[f"after {i}"]], i)
                check(last.do("status(db)")["worker_pid"] == last.process.pid, "who took over")
            check(last.do("rows(db, 'PRAGMA integrity_check')") == [["ok"]], "integrity")


def a_process_that_could_not_take_over_once_does_later(directory):
    make("app.db")
    with server("app.db") as primary, client() as last:
        connect = f"connect('{primary.urls['app.db']}')"
        with client() as first:
            first.do(f"db = {connect}")
            last.do(f"db = {connect}")
            os.chmod("identity", 0o644)  # nobody goes to a server with that
        check(last.do(f"refused(lambda: {connect})") == "unable to open database file", "it was opened")
        os.chmod("identity", 0o600)
        last.do(f"again = {connect}")  # waits for what is under way, instead of saying what was
        check(last.do("rows(again, 'SELECT count(*) FROM t')") == [[100]], "its rows")
        check(last.do("status(again)")["worker_pid"] == last.process.pid, "who took over")


def a_server_that_comes_back_is_found(directory):
    make("app.db", mib=5)
    listen = f"ipc://{directory}/socket"
    query = "SELECT count(*), sum(a) FROM large"
    with client() as c:
        with server("app.db", listen=listen) as primary:
            url = primary.urls["app.db"]
            c.do(f"db = connect('{url}')")
            check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "at first")
            lost = time.monotonic()
            primary.kill()
        seq = add("app.db", "meanwhile")
        c.send(f"refused(lambda: rows(db, '{query}'))")  # has to wait
        with server("app.db", listen=listen):
            why = c.answer()
            # Nobody is kept waiting for a server that is gone for 2 s; so long a start may take.
            check(why is None or time.monotonic() > lost + 2, "a query over the gap", why)
            deadline = time.monotonic() + LONG
            while c.do(f"refused(lambda: rows(db, '{query}'))") is not None:
                check(time.monotonic() < deadline, "it does not come back")
            check(c.do(f"rows(db, '{query}')") == [[5000, 12497500]], "its rows")
            c.do(f"rows(db, 'PRAGMA hyperwal_wait = {seq}')")
            check(c.do("rows(db, 'SELECT b FROM t ORDER BY a DESC LIMIT 1')") == [["meanwhile"]], "the commit")


def what_is_here_can_be_read_offline(directory):
    make("app.db", mib=5)
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        with client() as c:
            c.do(f"db = connect('{url}')")
            c.do("rows(db, 'SELECT * FROM large WHERE a = 10')")
    with client() as c:
        c.do(f"db = connect('{url}')")
        check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "a table that was read")
        check(c.do("rows(db, 'SELECT length(b) FROM large WHERE a = 10')") == [[1000]], "a row that was read")
        said = c.do("refused(lambda: rows(db, 'SELECT * FROM large WHERE a = 4000'))")
        check(said == "disk I/O error", said)
        status = c.do("status(db)")
        check(not status["online"] and status["problem"], status)
        said = c.do("refused(lambda: rows(db, 'SELECT count(*) FROM large'))")
        check(said == "disk I/O error", said)
        check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "and again")
    with client() as c:
        said = c.do(f"refused(lambda: connect('{url.rsplit('/', 1)[0]}/other.db'))")
        check(said == "unable to open database file", said)


def a_cache_that_is_damaged_is_made_anew(directory):
    make("app.db", mib=5)
    with server("app.db") as primary:
        url = primary.urls["app.db"]

        def read():
            with client() as c:
                c.do(f"db = connect('{url}')")
                check(c.do("rows(db, 'PRAGMA integrity_check')") == [["ok"]], "integrity")
                check(c.do("rows(db, 'SELECT count(*) FROM large')") == [[5000]], "rows")
                return c.do("status(db)")["received_bytes"]

        fetched = read()
        check(fetched > 4 << 20, fetched)
        check(read() == 0, "nothing is fetched twice")
        dir = cache_of(directory)
        for damage in ("present gone", "present cut", "present changed", "db gone", "position gone", "shared changed",
                       "block changed", "all but the mirror gone"):
            if damage == "present gone":
                os.remove(f"{dir}/present")
            elif damage == "present cut":
                os.truncate(f"{dir}/present", 4100)
            elif damage == "present changed":
                with open(f"{dir}/present", "r+b") as file:
                    file.seek(20)
                    file.write(b"xxxx")
            elif damage == "db gone":
                os.remove(f"{dir}/db")
            elif damage == "position gone":
                os.remove(f"{dir}/db-hyper/position")
            elif damage == "shared changed":
                with open(f"{dir}/db-hyper/shared", "r+b") as file:
                    file.write(bytes(4096))
            elif damage == "block changed":
                os.remove(f"{dir}/present")
                with open(f"{dir}/db-hyper/00000000.dat", "r+b") as file:
                    file.seek(1 << 20)
                    file.write(b"wrong")
            else:
                for name in os.listdir(dir):
                    if not os.path.isdir(f"{dir}/{name}"):
                        os.remove(f"{dir}/{name}")
            again = read()
            if damage == "block changed":
                check(0 < again < 1 << 20, damage, again)
            else:
                check(again == 0, damage, again)


def a_cache_that_cannot_be_opened_just_now_is_kept(directory):
    make("app.db", mib=5)
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        with client() as c:
            c.do(f"db = connect('{url}')")
            c.do("rows(db, 'SELECT count(*) FROM large')")
        dir = cache_of(directory)
        with open(f"{dir}/db", "rb") as old:
            for name in ("present", "db-hyper/replica", "db"):
                path = f"{dir}/{name}"
                os.rename(path, f"{path}.aside")
                os.symlink(os.path.basename(path), path)  # opening it fails, as with too many files open
                with client() as c:
                    said = c.do(f"refused(lambda: connect('{url}'))")
                    check(said is not None, name, "is opened")
                os.replace(f"{path}.aside", path)
                check(os.fstat(old.fileno()).st_nlink == 1, name, "it was thrown away")
            with client() as c:
                c.do(f"db = connect('{url}')")
                check(c.do("rows(db, 'SELECT count(*) FROM large')") == [[5000]], "rows")
                check(c.do("status(db)")["received_bytes"] == 0, "fetched again")
            check(os.fstat(old.fileno()).st_nlink == 1, "it was thrown away")


def a_cache_may_be_removed_under_its_users(directory):
    make("app.db", mib=5)
    with server("app.db") as primary, client() as c:
        url = primary.urls["app.db"]
        c.do(f"db = connect('{url}')")
        check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "at first")
        shutil.rmtree("cache")
        c.do("refused(lambda: rows(db, 'SELECT count(*) FROM large'))")  # it may work, or not
        with client() as other:
            other.do(f"db = connect('{url}')")
            check(other.do("rows(db, 'SELECT count(*) FROM large')") == [[5000]], "a new cache")
            c.do("db.close()")
            c.do(f"db = connect('{url}')")
            check(c.do("rows(db, 'SELECT count(*) FROM large')") == [[5000]], "and for the first")


def the_past_can_be_read_from_afar(directory):
    make("app.db", mib=20)
    with contextlib.closing(local("app.db")) as db:
        first = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
        db.execute("UPDATE t SET b = 'changed' WHERE a = 1")
        db.execute("PRAGMA hyperwal_label = 'here'")
        db.execute("DELETE FROM t")
    with server("app.db") as primary, client() as c:
        url = primary.urls["app.db"]
        c.do(f"old = connect('{url}', seq={first})")
        check(c.do("rows(old, 'SELECT count(*) FROM t WHERE b = \\'changed\\'')") == [[0]], "seq")
        check(c.do("rows(old, 'SELECT count(*) FROM t')") == [[100]], "seq")
        check(c.do("rows(old, 'PRAGMA hyperwal_seq')") == [[str(first)]], "its seq")
        c.do(f"old = connect('{url}', label='here')")
        check(c.do("rows(old, 'SELECT b FROM t WHERE a = 1')") == [["changed"]], "label")
        said = c.do(f"refused(lambda: connect('{url}', label='nowhere'))")
        check(said == "unable to open database file", said)
        c.do(f"now = connect('{url}')")
        check(c.do("rows(now, 'SELECT count(*) FROM t')") == [[0]], "now")
        received = c.do("status(now)")["received_bytes"]
        check(received < 3 << 20, received)
        with client() as other:  # which is not the holder
            other.do(f"old = connect('{url}', seq={first})")
            check(other.do("rows(old, 'SELECT count(*) FROM t')") == [[100]], "seq, in another process")
            check(other.do("rows(old, 'SELECT count(*) FROM large')") == [[20000]], "all of it")


def all_of_it_comes_if_asked(directory):
    make("app.db", mib=10)
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        with client() as c:
            c.do(f"db = connect('{url}', hydrate=1)")
            deadline = time.monotonic() + LONG
            while True:
                status = c.do("status(db)")
                if status["present_pages"] == status["pages"]:
                    break
                check(time.monotonic() < deadline, "never whole", status)
                select.select([], [], [], 0.05)
    with client() as c:
        c.do(f"db = connect('{url}')")
        check(c.do("rows(db, 'PRAGMA integrity_check')") == [["ok"]], "offline")


def a_forked_child_opens_anew(directory):
    make("app.db", mib=5)
    with server("app.db") as primary, client() as c:
        url = primary.urls["app.db"]
        c.do(f"db = connect('{url}')")
        c.do("rows(db, 'SELECT count(*) FROM t')")
        c.do(f"url = '{url}'")
        check(c.do("child()") == ["disk I/O error", [[5000]]], "the child")
        check(c.do("rows(db, 'SELECT count(*) FROM large')") == [[5000]], "the parent")


def many_threads_and_processes_read_at_once(directory):
    make("app.db", mib=10)
    with server("app.db") as primary, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client()) for _ in range(3)]
        for c in clients:
            c.do(f"url = '{primary.urls['app.db']}'")
        for i, c in enumerate(clients):
            c.send(f"all_at_once({i * 100})")
        for i in range(30):
            add("app.db", f"meanwhile {i}")
        for c in clients:
            check(c.answer() == [], "wrong rows")


def caches_that_nobody_uses_make_room(directory):
    for name in ("one.db", "two.db", "three.db"):
        make(name, mib=3)
    with server("one.db", "two.db", "three.db") as primary, client() as c:
        for name in ("one.db", "two.db", "three.db"):
            c.do(f"{name[:-3]} = connect('{primary.urls[name]}', cache_max={12 << 20}, hydrate=1)")
            check(c.do(f"rows({name[:-3]}, 'SELECT count(*) FROM large')") == [[3000]], name)
            if name == "one.db":
                c.do("one.close()")  # the others stay open
        c.do(f"again = connect('{primary.urls['three.db']}', cache_max={12 << 20})")
        left = [name for name in os.listdir("cache") if len(name) == 64]
        check(len(left) == 2, left)
        check(c.do("rows(two, 'SELECT count(*) FROM large')") == [[3000]], "what is open stays")
        c.do(f"one = connect('{primary.urls['one.db']}')")
        check(c.do("rows(one, 'SELECT count(*) FROM large')") == [[3000]], "what was removed comes again")


def the_shell_opens_it(directory):
    shell = shutil.which("sqlite3")
    if shell is None:
        raise Skip("no sqlite3 shell")
    make("app.db")
    with server("app.db") as primary:
        done = subprocess.run([shell], capture_output=True, text=True, timeout=LONG, input="\n".join((
            f".load {EXTENSION}", f".open file:{primary.urls['app.db']}?vfs=hyperwal",
            ".timeout 20000", "SELECT count(*) FROM t;", "PRAGMA hyperwal_seq;",
            "INSERT INTO t(b) VALUES(1);", "SELECT count(*) FROM t;")))
        told = done.stdout.split()
        check(told[0] == "100" and told[2] == "101", done.stdout, done.stderr)


def petnames_are_opened(directory):
    make("app.db")
    os.environ["XDG_CONFIG_HOME"] = os.path.join(directory, "config")
    with server("app.db") as primary:
        added = subprocess.run([PROGRAM, "name", "add", "orders", primary.urls["app.db"]], capture_output=True)
        if added.returncode == 2:
            raise Skip("this program has no petnames")
        with client() as c:
            c.do("db = connect('hyper:orders')")
            check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "a petname")
            c.do("local = connect('hyper:app.db')")
            check(c.do("status(local)")["role"] == "primary", "a path")
            c.do(f"local = connect('hyper://{directory}/app.db')")
            check(c.do("status(local)")["role"] == "primary", "a full path")


def a_cache_behind_the_newest_snapshot_begins_with_that(directory):
    make("app.db", mib=8)
    listen = f"ipc://{directory}/socket"
    with server("app.db", listen=listen) as primary:
        url = primary.urls["app.db"]
        with client() as c:
            c.do(f"db = connect('{url}')")
            c.do("rows(db, 'SELECT * FROM large WHERE a = 10')")
    with contextlib.closing(local("app.db")) as db:
        for i in range(30):
            db.execute("UPDATE large SET b = randomblob(1000) WHERE a = ?", (i * 200,))
        keep = int(db.execute("PRAGMA hyperwal_snapshot").fetchone()[0])
        db.execute("DELETE FROM t WHERE a > 10")
        kept = db.execute("SELECT sum(length(b)), count(*) FROM large WHERE a % 200 = 0").fetchone()
    run("prune", "app.db", "--keep", keep)
    with server("app.db", listen=listen), client() as c:
        c.do(f"db = connect('{url}')")
        check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[10]], "the newest state")
        check(c.do("rows(db, 'SELECT sum(length(b)), count(*) FROM large WHERE a % 200 = 0')") == [list(kept)], "all")
        check(c.do("rows(db, 'PRAGMA integrity_check')") == [["ok"]], "integrity")


def holes_that_were_pruned_are_told_and_filled_after_opening_again(directory):
    make("app.db", mib=8)
    with server("app.db") as primary, client() as c:
        url = primary.urls["app.db"]
        c.do(f"db = connect('{url}', timeout=3000)")
        check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "at first")
        with contextlib.closing(local("app.db")) as db:
            db.execute("UPDATE large SET b = randomblob(999)")
            keep = int(db.execute("PRAGMA hyperwal_snapshot").fetchone()[0])
            db.execute("INSERT INTO t(b) VALUES('after')")
        run("prune", "app.db", "--keep", keep)
        c.do("refused(lambda: rows(db, 'SELECT sum(length(b)) FROM large'))")  # as far as it had come
        c.do("db.close()")
        c.do(f"db = connect('{url}')")
        check(c.do("rows(db, 'SELECT sum(length(b)) FROM large')") == [[999 * 8000]], "the new state")


def holes_that_were_pruned_are_told_beside_constant_commits(directory):
    make("app.db", mib=8)
    listen = f"ipc://{directory}/socket"
    ending = threading.Event()

    def commit():
        with contextlib.closing(local("app.db")) as db:
            while not ending.wait(0.02):
                db.execute("INSERT INTO t(b) VALUES('more')")

    with client() as c:
        with server("app.db", listen=listen) as primary:
            c.do(f"db = connect('{primary.urls['app.db']}', timeout=3000)")
            check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "at first")
        with contextlib.closing(local("app.db")) as db:
            db.execute("UPDATE large SET b = randomblob(999)")
            keep = int(db.execute("PRAGMA hyperwal_snapshot").fetchone()[0])
        run("prune", "app.db", "--keep", keep)
        with server("app.db", listen=listen):
            writer = threading.Thread(target=commit)
            writer.start()
            try:
                check(c.do("refused(lambda: rows(db, 'SELECT sum(length(b)) FROM large'))") == "disk I/O error", "told")
                c.do("db.close()")
            finally:
                ending.set()
                writer.join()


def a_log_on_another_fork_is_followed_after_opening_again(directory):
    make("app.db", mib=5)
    listen = f"ipc://{directory}/socket"
    with client() as c:
        with server("app.db", listen=listen) as primary:
            url = primary.urls["app.db"]
            c.do(f"db = connect('{url}', timeout=3000)")
            check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "at first")
        run("init", "app.db", "--adopt")
        seq = add("app.db", "of the new fork")
        with server("app.db", listen=listen):
            c.do(f"refused(lambda: rows(db, 'PRAGMA hyperwal_wait = {seq}'))")
            deadline = time.monotonic() + LONG
            while c.do("refused(lambda: rows(db, 'SELECT count(*) FROM large'))") != "disk I/O error":
                check(time.monotonic() < deadline, "it does not end")
                select.select([], [], [], 0.05)
            c.do("db.close()")
            c.do(f"db = connect('{url}')")
            check(c.do("rows(db, 'SELECT b FROM t ORDER BY a DESC LIMIT 1')") == [["of the new fork"]], "the fork")
            check(c.do("rows(db, 'SELECT count(*) FROM large')") == [[5000]], "all of it")


def a_database_that_shrinks_and_grows_is_followed(directory):
    make("app.db", mib=8)
    with server("app.db") as primary, client() as c:
        url = primary.urls["app.db"]
        c.do(f"db = connect('{url}')")
        check(c.do("rows(db, 'SELECT count(*) FROM t')") == [[100]], "at first")
        with contextlib.closing(local("app.db")) as db:
            for i in range(4):
                db.execute("DELETE FROM large WHERE a > ?", (3000 - 500 * i,))
                db.execute("VACUUM")
                db.execute("INSERT INTO large(b) SELECT randomblob(1000) FROM large LIMIT 1500")
                seq = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
                expected = db.execute("SELECT count(*), sum(a), sum(length(b)) FROM large").fetchone()
                c.do(f"rows(db, 'PRAGMA hyperwal_wait = {seq}')")
                check(c.do("rows(db, 'SELECT count(*), sum(a), sum(length(b)) FROM large')") == [list(expected)], i)
                check(c.do("rows(db, 'PRAGMA integrity_check')") == [["ok"]], "integrity", i)


TESTS = (a_point_query_fetches_little, a_scan_reads_ahead_and_finds_all, commits_arrive_as_they_are_made,
         a_reader_keeps_its_snapshot, writing_is_refused_with_words, all_spellings_of_a_url_work,
         processes_share_one_cache, another_process_takes_over,
         a_process_that_could_not_take_over_once_does_later, a_server_that_comes_back_is_found,
         what_is_here_can_be_read_offline, a_cache_that_is_damaged_is_made_anew,
         a_cache_that_cannot_be_opened_just_now_is_kept,
         a_cache_may_be_removed_under_its_users, the_past_can_be_read_from_afar, all_of_it_comes_if_asked,
         a_forked_child_opens_anew, many_threads_and_processes_read_at_once,
         a_cache_behind_the_newest_snapshot_begins_with_that,
         holes_that_were_pruned_are_told_and_filled_after_opening_again,
         holes_that_were_pruned_are_told_beside_constant_commits,
         a_log_on_another_fork_is_followed_after_opening_again, a_database_that_shrinks_and_grows_is_followed,
         caches_that_nobody_uses_make_room, the_shell_opens_it, petnames_are_opened)


def main(names):
    loaded = sqlite3.connect(":memory:")  # the VFS lives as long as the process
    loaded.enable_load_extension(True)
    loaded.load_extension(EXTENSION)
    failed, start = False, os.getcwd()
    for test in TESTS:
        if names and test.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as directory:
            directory = os.path.realpath(directory)
            os.chdir(directory)
            os.environ["HYPERWAL_IDENTITY"] = os.path.join(directory, "identity")
            os.environ["HYPERWAL_CACHE"] = os.path.join(directory, "cache")
            os.environ["TMPDIR"] = directory
            try:
                test(directory)
                print(f"ok {test.__name__}", flush=True)
            except Skip as reason:
                print(f"skip {test.__name__}: {reason}", flush=True)
            except Exception as error:  # every test is told of, whatever happens in it
                failed = True
                traceback.print_exc(file=sys.stdout)
                print(f"not ok {test.__name__}: {error}", flush=True)
            finally:
                os.chdir(start)
    loaded.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
