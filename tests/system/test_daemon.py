#!/usr/bin/python3
"""The server `hyperwal serve` as a service: its configuration, the service manager, many databases.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.
"""

import contextlib
import inspect
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
SOURCE = os.environ.get("HW_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
PROGRAM = os.path.join(BUILD, "hyperwal")
LONG = 60  # seconds: nothing here takes so long unless it hangs


class Skip(Exception):
    pass


def check(condition, *facts):
    if not condition:
        raise AssertionError("; ".join(str(fact) for fact in facts))


def run(*args, code=0, env=None):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=LONG,
                          stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, check=False)
    check(done.returncode == code, f"hyperwal {args}: exit {done.returncode}, expected {code}",
          done.stdout[-300:], done.stderr[-600:])
    return done


class Server:
    """`hyperwal serve` with these arguments, ready; `lines` are those it printed before that."""

    def __init__(self, *args, env=None):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([PROGRAM, "serve", *map(str, args)], text=True,
                                        stdout=subprocess.PIPE, stderr=self.log,
                                        env={**os.environ, **(env or {})})
        self.lines = []
        for line in self.process.stdout:
            if line == "ready\n":
                return
            self.lines.append(line.rstrip("\n"))
        raise AssertionError(f"not ready: {self.said()}")

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def line(self, start):
        """The next line of output that begins so."""
        for line in self.process.stdout:
            if line.startswith(start):
                return line.rstrip("\n")
        raise AssertionError(f"no line {start!r}: {self.said()}")

    def signal(self, number):
        self.process.send_signal(number)

    def end(self, code=0):
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        self.process.communicate(timeout=LONG)
        check(self.process.returncode == code, f"ended with {self.process.returncode}", self.said())

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.end()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.communicate()
            self.log.close()


def names(server):
    return sorted(line.split()[0] for line in server.lines)


def stock(path):
    return sqlite3.connect(path, isolation_level=None, timeout=20)


def make(path, rows=3):
    with contextlib.closing(stock(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
        for i in range(rows):
            db.execute("INSERT INTO t(b) VALUES(?)", (f"row {i}",))


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def wait_until(condition, what, server=None):
    end = time.monotonic() + LONG
    while not condition():
        check(time.monotonic() < end, f"waited in vain until {what}",
              server.said() if server is not None else "")
        time.sleep(0.005)


# ---------------------------------------------------------------------- the configuration


def a_wrong_line_of_the_configuration_is_named(dir):
    """Every mistake ends with 2 and tells file, line and reason."""
    conf = f"{dir}/serve.conf"
    for text, line, words in (
            ("frobnicate = 1\n", 1, "there is no such setting"),
            ("# comment\n\n  directory /srv\n", 3, "KEY = VALUE"),
            ("directory =\n", 1, "no value"),
            ("directory = somewhere\n", 1, "begins with /"),
            ("stop-timeout = 0\n", 1, "a number from 1 to 3600"),
            ("http-public = maybe\n", 1, "yes or no"),
            ("stop-timeout = soon\n", 1, "a number from"),
            ("stop-timeout = 99999999999999999999\n", 1, "a number from"),
            ("stop-timeout = 5\r\nstop-timeout = 6\r\n", 2, "is set already"),
            ("identity = /a\nidentity = /b\n", 2, "is set already"),
            ("= 1\n", 1, "no such setting"),
            ("directory = /a\0b\n", 1, "no text"),
            ("listen = tcp://127.0.0.1:0\n" * 17, 17, "at most 16")):
        write(conf, text)
        said = run("serve", "--config", conf, "--check-config", code=2).stderr
        check(f"{conf}:{line}: " in said and words in said, repr(text[:40]), said)
    write(conf, "#" * (1 << 20) + "\n")
    check("1 MiB" in run("serve", "--config", conf, code=2).stderr, "a file too large")
    write(conf, "")
    check("needs a DB or a DIR" in run("serve", "--config", conf, code=2).stderr, "an empty file")
    run("serve", "--config", f"{dir}/nothing", code=1)


def settings_of_file_and_command_line_are_joined(dir):
    conf = f"{dir}/serve.conf"
    write(conf, f"  directory\t=  {dir}  \r\n# none\nlisten=tcp://127.0.0.1:0\nidentity = {dir}/i\n"
                "stop-timeout = 7")
    shown = run("serve", "--config", conf, "--check-config", "--listen", "tcp://localhost:0",
                "--identity", f"{dir}/other", dir).stdout
    check(shown == f"directory = {dir}\ndirectory = {dir}\nlisten = tcp://127.0.0.1:0\n"
                   f"listen = tcp://localhost:0\nidentity = {dir}/other\nhttp-public = no\ncreate-limit = 1000\nrest-after = 30\nstop-timeout = 7\n", shown)
    check(not os.path.exists(f"{dir}/other"), "a check made the identity")


def a_default_configuration_is_read_only_if_nothing_is_named(dir):
    make(f"{dir}/a.db")
    os.makedirs(f"{dir}/config/hyperwal")
    write(f"{dir}/config/hyperwal/serve.conf", f"database = {dir}/a.db\nstop-timeout = 9\n")
    env = {"XDG_CONFIG_HOME": f"{dir}/config"}
    check("stop-timeout = 9" in run("serve", "--check-config", env=env).stdout, "not read")
    check("stop-timeout = 20" in run("serve", "--check-config", dir, env=env).stdout, "read")
    with Server(env=env) as server:
        check(names(server) == ["a.db"], server.lines)


def settings_are_all_in_the_manual(dir):
    del dir
    with open(f"{SOURCE}/replicator/config.c", encoding="utf-8") as file:
        keys = re.findall(r'^    \{"([a-z-]+)",', file.read(), re.M)
    with open(f"{SOURCE}/docs/man/hyperwal.1", encoding="utf-8") as file:
        page = file.read()
    check(len(keys) > 4, keys)
    for key in keys:
        check(re.search(rf"^\.It Li {key} ", page, re.M), f"hyperwal(1) does not have {key}")


def a_reload_takes_what_is_new_and_drops_what_is_gone(dir):
    conf = f"{dir}/serve.conf"
    for name in ("one", "two"):
        os.mkdir(f"{dir}/{name}")
        make(f"{dir}/{name}/{name}.db")
    make(f"{dir}/single.db")
    write(conf, f"directory = {dir}/one\ndatabase = {dir}/single.db\n")
    with Server("--config", conf) as server:
        check(names(server) == ["one.db", "single.db"], server.lines)
        write(conf, f"directory = {dir}/one\ndirectory = {dir}/two\n")
        server.signal(signal.SIGHUP)
        server.line("two.db ")
        wait_until(lambda: "single.db: not in the configuration" in server.said(), "it is dropped")
        make(f"{dir}/two/later.db")
        server.line("later.db ")
        write(conf, f"directory = {dir}/one\nnonsense\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "the configuration is as it was" in server.said(), "it is refused")
        check(f"{conf}:2: nonsense" in server.said(), server.said())
        make(f"{dir}/two/more.db")
        server.line("more.db ")
        write(conf, f"directory = {dir}/one\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "two/more.db: not in" in server.said(), "they are dropped")
        make(f"{dir}/two/unseen.db")
        make(f"{dir}/one/seen.db")
        server.line("seen.db ")


def a_reload_of_a_server_without_a_file_changes_nothing(dir):
    make(f"{dir}/a.db")
    with Server(f"{dir}/a.db") as server, Manager(dir) as manager:
        del manager
        server.signal(signal.SIGHUP)
        with contextlib.closing(stock(f"{dir}/a.db")) as db:
            db.execute("INSERT INTO t(b) VALUES('after')")
        wait_until(lambda: "transaction" in run("log", f"{dir}/a.db").stdout, "it is logged")


def a_listener_and_a_key_come_with_a_reload(dir):
    make(f"{dir}/a.db")
    env = {"HYPERWAL_IDENTITY": f"{dir}/client"}
    key = run("key", env=env).stdout.split()[0]
    conf, start = f"{dir}/serve.conf", f"database = {dir}/a.db\nidentity = {dir}/server\n"
    write(conf, start + f"listen = ipc://{dir}/first\nallow = {'0' * 64}\n")
    with Server("--config", conf) as server:
        run("status", f"ipc://{dir}/first/a.db", code=1, env=env)
        write(conf, start + f"listen = ipc://{dir}/first\nlisten = ipc://{dir}/second\n"
                            f"allow = {'0' * 64}\nallow = {key}\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: os.path.exists(f"{dir}/second"), "it listens", server)
        for socket_ in ("first", "second"):
            check("a.db" in run("status", f"ipc://{dir}/{socket_}/a.db", env=env).stdout, socket_)
        write(conf, start + f"listen = ipc://{dir}/second\nallow = {key}\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "need a restart" in server.said(), "it says what it cannot do")


def what_a_reload_could_not_do_is_not_forgotten(dir):
    """A busy database comes by itself, a listener and who is let in with the next reload."""
    conf, start = f"{dir}/serve.conf", f"identity = {dir}/server\nlisten = ipc://{dir}/first\n"
    make(f"{dir}/a.db")
    env = {"HYPERWAL_IDENTITY": f"{dir}/client"}
    key = run("key", env=env).stdout.split()[0]
    write(conf, f"{start}database = {dir}/a.db\nallow = {key}\n")
    with Server("--config", conf) as server, contextlib.closing(stock(f"{dir}/b.db")) as db, \
            socket.socket() as taken:
        db.execute("CREATE TABLE t(a)")
        db.execute("BEGIN EXCLUSIVE")
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        more = f"{start}database = {dir}/a.db\ndatabase = {dir}/b.db\nlisten = tcp://127.0.0.1:{port}\n"
        write(conf, f"{more}allow = nobody\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "b.db: busy" in server.said(), "it is busy", server)
        db.execute("COMMIT")
        server.line("b.db ")
        check("a.db" in run("status", f"ipc://{dir}/first/a.db", env=env).stdout, "shut out")
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.said().count("--allow nobody") == 2, "it is said again", server)
        run("status", f"tcp://127.0.0.1:{port}/a.db", code=1, env=env)
        taken.close()
        write(conf, f"{more}allow = {key}\n")
        server.signal(signal.SIGHUP)

        def is_served():
            return subprocess.run([PROGRAM, "status", f"tcp://127.0.0.1:{port}/a.db"], check=False, timeout=LONG,
                                  capture_output=True, env={**os.environ, **env}).returncode == 0

        wait_until(is_served, "it listens", server)
        write(conf, f"{start}database = {dir}/a.db\ndatabase = {dir}/b.db\nallow = {key}\n")
        for times in (1, 2):
            server.signal(signal.SIGHUP)
            wait_until(lambda: server.said().count("need a restart") == times, "it says so", server)


# --------------------------------------------------------------------------- many databases


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def threads(server):
    return len(os.listdir(f"/proc/{server.process.pid}/task"))


def switches(server):
    """How often its threads were woken so far."""
    count = 0
    for task in os.listdir(f"/proc/{server.process.pid}/task"):
        with contextlib.suppress(OSError), \
                open(f"/proc/{server.process.pid}/task/{task}/status", encoding="ascii") as file:
            count += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return count  # without a thread that ended meanwhile


def anonymous(server):
    """Bytes of memory that are its own."""
    with open(f"/proc/{server.process.pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Anonymous:"))


def rested(server, most):
    wait_until(lambda: descriptors(server) <= most, f"at most {most} descriptors are left", server)


def gaps(path):
    return [line for line in run("log", path).stdout.splitlines() if " gap " in line]


def rows(path):
    with contextlib.closing(stock(path)) as db:
        return db.execute("SELECT count(*) FROM t").fetchone()[0]


def check_logged(dir, path, count):
    """The log has all rows, and nothing but commits."""
    wait_until(lambda: restored(dir, path) == count, f"{count} rows of {path} are logged")
    check(not gaps(path), gaps(path))
    run("verify", path, "--deep")


def restored(dir, path):
    done = subprocess.run([PROGRAM, "restore", path, f"{dir}/../restored.db", "--force"], text=True,
                          timeout=LONG, capture_output=True, check=False)
    check(done.returncode in (0, 4), done.returncode, done.stderr)
    if done.returncode == 4:
        return -1  # there is no snapshot yet
    with contextlib.closing(stock(f"{dir}/../restored.db")) as db:
        if not db.execute("SELECT * FROM sqlite_schema").fetchall():
            return -1  # the table is not logged yet
        return db.execute("SELECT count(*) FROM t").fetchone()[0]


def two_hundred_databases_that_nobody_writes_cost_nearly_nothing(dir):
    for i in range(200):
        make(f"{dir}/{i}.db", 1)
    with Server("--config", setting(dir, "rest-after = 1"), dir) as server:
        check(len(server.lines) == 200, len(server.lines))
        rested(server, 3 * 200 + 8)
        wait_until(lambda: threads(server) == 1, "the last thread is gone", server)
        wait_until(lambda: anonymous(server) < 200 * 100 * 1024, "their memory is given back",
                   server)
        before = switches(server)
        with contextlib.closing(stock(f"{dir}/77.db")) as db:
            db.execute("INSERT INTO t(b) VALUES('news')")
        check_logged(dir, f"{dir}/77.db", 2)
        check(switches(server) - before < 2000, switches(server) - before, "woken")
        check(descriptors(server) < 3 * 200 + 40, descriptors(server))


def setting(dir, *lines):
    """A configuration outside of `dir`."""
    path = f"{dir}/../serve.conf"
    write(path, "".join(line + "\n" for line in lines))
    return os.path.abspath(path)


ONCE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
for sql in sys.argv[2:]:
    db.execute(sql).fetchall()
db.close()
"""


def program(path, *statements):
    """A program that opens the database, does this and closes it again."""
    subprocess.run([sys.executable, "-c", ONCE, path, *statements], check=True, timeout=LONG)


def programs_that_come_while_a_database_rests_are_logged(dir):
    """They open, commit, checkpoint or begin the WAL anew, and close: all before anybody can wake."""
    path, count = f"{dir}/a.db", 3
    make(path)
    insert = "INSERT INTO t(b) VALUES('news')"
    with Server("--config", setting(dir, "rest-after = 1"), path) as server:
        for statements in ((insert,), (insert, "PRAGMA wal_checkpoint(TRUNCATE)"),
                           (insert, "PRAGMA wal_checkpoint(RESTART)", insert),
                           ("PRAGMA wal_checkpoint(TRUNCATE)", insert, insert),
                           ("PRAGMA wal_autocheckpoint=1", *[insert] * 20),
                           (insert, "VACUUM", insert)):
            rested(server, 20)
            program(path, *statements)
            count += statements.count(insert)
            check(rows(path) == count, rows(path))
            check_logged(dir, path, count)


def a_database_that_foreign_programs_write_rests_too(dir):
    path = f"{dir}/a.db"
    make(path)
    with Server("--config", setting(dir, "rest-after = 1"), path) as server:
        rested(server, 3 + 6)
        with contextlib.closing(stock(path)) as db:
            for _ in range(50):
                db.execute("INSERT INTO t(b) VALUES('news')")
            # It may be at rest again before we look.
            wait_until(lambda: descriptors(server) > 12 or not
                       db.execute("INSERT INTO t(b) VALUES('news')"), "it is awake", server)
            count = rows(path)
            check_logged(dir, path, count)
            rested(server, 9 + 6)
            check(descriptors(server) > 3 + 6, "its marks were not kept", descriptors(server))
            db.execute("INSERT INTO t(b) VALUES('once more')")
            check_logged(dir, path, count + 1)


def a_server_killed_while_databases_rest_has_missed_nothing(dir):
    path = f"{dir}/a.db"
    make(path)
    conf = setting(dir, "rest-after = 1")
    server = Server("--config", conf, path)
    rested(server, 10)
    with contextlib.closing(stock(path)) as db:
        db.execute("SELECT * FROM t").fetchall()
        server.process.kill()
        server.process.communicate()
        db.execute("INSERT INTO t(b) VALUES('while nobody looks')")
        with Server("--config", conf, path):
            check_logged(dir, path, 4)


def a_program_with_the_vfs_comes_and_goes_while_a_database_rests(dir):
    path = f"{dir}/a.db"
    make(path)
    with Server("--config", setting(dir, "rest-after = 1"), path) as server:
        rested(server, 10)
        for i in range(3):
            subprocess.run([sys.executable, "-c", VFS_ONCE, f"{BUILD}/hyperwal.so", path, "5"],
                           check=True, timeout=LONG)
            check_logged(dir, path, 3 + 5 * (i + 1))
            rested(server, 9 + 6)
    check(" gap " not in run("log", path).stdout, "a gap")


VFS_ONCE = """
import sqlite3, sys
memory = sqlite3.connect(":memory:")
memory.enable_load_extension(True)
memory.load_extension(sys.argv[1])
db = sqlite3.connect(f"file:{sys.argv[2]}?vfs=hyperwal&timeout=60000", uri=True,
                     isolation_level=None, timeout=20)
for _ in range(int(sys.argv[3])):
    db.execute("INSERT INTO t(b) VALUES('through the VFS')")
db.execute("PRAGMA hyperwal_seq").fetchall()
db.close()
"""


# ------------------------------------------------------------------ databases for clients


def somebody(dir, name):
    """The environment of another user, and the key of their identity."""
    env = {"HYPERWAL_IDENTITY": f"{dir}/../{name}"}
    return env, run("key", env=env).stdout.split()[0]


def maker(dir, *lines):
    """A server that makes databases for `maker` in dir/first; its arguments, and the environments."""
    os.makedirs(f"{dir}/first", exist_ok=True)
    os.makedirs(f"{dir}/second", exist_ok=True)
    one, one_key = somebody(dir, "maker")
    two, two_key = somebody(dir, "reader")
    write(f"{dir}/keys", f"create new-* {one_key}\nread * {two_key}\n")
    os.chmod(f"{dir}/keys", 0o600)
    conf = setting(dir, f"directory = {dir}/first", f"directory = {dir}/second",
                   f"listen = ipc://{dir}/socket", f"authorized-keys = {dir}/keys",
                   f"identity = {dir}/../server", *lines)
    return ("--config", conf), one, two


def a_client_with_the_right_has_a_database_made(dir):
    args, one, two = maker(dir)
    url = f"ipc://{dir}/socket/"
    with Server(*args) as server:
        key = run("init", url + "new-app.db", env=one).stdout.split()[1]
        check(server.line("new-app.db ").split()[1] == key, "key")
        path = f"{dir}/first/new-app.db"
        with contextlib.closing(stock(path)) as db:
            check(db.execute("PRAGMA journal_mode").fetchone() == ("wal",), "mode")
            db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
            db.execute("INSERT INTO t(b) VALUES('first')")
        check_logged(dir, path, 1)
        check(key in run("key", url + "new-app.db", env=two).stdout, "read by others")
        said = run("init", url + "new-app.db", env=one, code=1).stderr
        check("there is a database of this name" in said, said)
        said = run("init", url + "other.db", env=one, code=1).stderr
        check("right" in said, said)
        said = run("init", url + "new-two.db", env=two, code=1).stderr
        check("right" in said, said)
        check(server.said().count("event=access_refused") == 2, server.said())
    check(sorted(os.listdir(f"{dir}/first")) == ["new-app.db", "new-app.db-hyper"],
          os.listdir(f"{dir}/first"))
    with Server(*args) as server:
        check(names(server) == ["new-app.db"], server.lines)


def names_of_new_databases_lead_nowhere_else(dir):
    args, one, _ = maker(dir)
    write(f"{dir}/keys", f"create * {somebody(dir, 'maker')[1]}\n")
    before = sorted(os.listdir(dir))
    with Server(*args):
        for name in ("../escape.db", "a/b.db", ".hidden", "-dash", "x-wal", "x-shm", "x-journal",
                     "x-hyper", "x.tmp", "..", "a b", "a%00b", "%2e%2e%2fescape", "a%0ab", "\u00e9.db",
                     "0" * 64, "n" * 121):
            done = subprocess.run([PROGRAM, "init", f"ipc://{dir}/socket/{name}"], text=True,
                                  capture_output=True, timeout=LONG, check=False,
                                  env={**os.environ, **one})
            check(done.returncode in (1, 2) and done.stderr, name, done.returncode, done.stderr)
        os.symlink(f"{dir}/outside", f"{dir}/first/link.db")
        run("init", f"ipc://{dir}/socket/link.db", env=one, code=1)
        os.mkdir(f"{dir}/first/old.db-hyper")
        said = run("init", f"ipc://{dir}/socket/old.db", env=one, code=1).stderr
        check("older database" in said, said)
        check(not os.path.exists(f"{dir}/outside"), "through a link")
    check(sorted(os.listdir(f"{dir}/first")) == ["link.db", "old.db-hyper"],
          os.listdir(f"{dir}/first"))
    check(sorted(os.listdir(dir)) == before, os.listdir(dir))


def a_server_makes_no_more_databases_than_it_may(dir):
    args, one, _ = maker(dir, "create-limit = 2")
    with Server(*args):
        for name in ("new-1.db", "new-2.db"):
            run("init", f"ipc://{dir}/socket/{name}", env=one)
        said = run("init", f"ipc://{dir}/socket/new-3.db", env=one, code=1).stderr
        check("create-limit" in said, said)
    check(not os.path.exists(f"{dir}/first/new-3.db"), "made")


# ----------------------------------------------------------------------- the status page


def get(base, path, code=200):
    try:
        with urllib.request.urlopen(base + path, timeout=LONG) as answer:
            check(answer.status == code, path, answer.status)
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        check(error.code == code, path, error.code)
        return error.read().decode()


def http_of(server):
    return next(line.split()[1] for line in server.lines if line.startswith("http "))


def metrics(base):
    """Value by name with labels; each line is as Prometheus wants it."""
    values = {}
    for line in get(base, "/metrics").splitlines():
        if line.startswith("#"):
            check(re.fullmatch(r"# (HELP|TYPE) hyperwal_[a-z_]+ .+", line), line)
            continue
        match = re.fullmatch(r'(hyperwal_[a-z_]+(?:\{(?:[a-z_]+="(?:[^"\\]|\\.)*",?)*\})?) ([0-9.]+)',
                             line)
        check(match and match.group(1) not in values, line)
        values[match.group(1)] = float(match.group(2))
    return values


def status(path):
    return json.loads(run("status", "--json", path).stdout)


def the_status_page_says_how_databases_are(dir):
    evil = "<b>&\"'.db"
    make(f"{dir}/a.db")
    make(f"{dir}/{evil}")
    with Server("--http", "0", "--listen", f"ipc://{dir}/../socket", dir) as server:
        base = http_of(server)
        check(base.startswith("http://127.0.0.1:"), base)
        wait_until(lambda: status(f"{dir}/a.db")["snapshot_seq"] is not None, "all is there",
                   server)
        told = json.loads(get(base, "/status.json"))
        by_name = {one["name"]: one for one in told["databases"]}
        check(sorted(by_name) == sorted(["a.db", evil]), by_name)
        one, mine = by_name["a.db"], status(f"{dir}/a.db")
        for field in ("key", "length", "byte_length", "seq", "snapshot_seq", "page_size", "pages"):
            check(one[field] == mine[field], field, one, mine)
        check(one["alarm"] == "" and one["followers"] == 0, one)
        page = get(base, "/")
        check("<b>&" not in page and "&#60;b&#62;" in page and "2 databases" in page, page)
        values = metrics(base)
        check(values["hyperwal_databases"] == 2, values)
        check(values['hyperwal_log_blocks{database="a.db"}'] == one["length"], values)
        check(values['hyperwal_alarm{database="a.db"}'] == 0, values)
        with contextlib.closing(stock(f"{dir}/a.db")) as db:
            db.execute("INSERT INTO t(b) VALUES('news')")
        wait_until(lambda: metrics(base)['hyperwal_log_blocks{database="a.db"}'] > one["length"],
                   "it is logged", server)
        get(base, "/nothing", code=404)
        follower = subprocess.Popen([PROGRAM, "follow", f"ipc://{dir}/../socket/a.db",
                                     f"{dir}/../r.db"], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: metrics(base)['hyperwal_followers{database="a.db"}'] == 1,
                       "it is followed", server)
            wait_until(lambda: [value for name, value in metrics(base).items()
                                if name.startswith("hyperwal_follower_lag_blocks{database=\"a.db")] == [0],
                       "it is not behind", server)
        finally:
            follower.kill()
            follower.wait()


def the_status_page_bears_many_readers(dir):
    make(f"{dir}/a.db")
    with Server("--http", "0", dir) as server:
        base = http_of(server)
        readers = [subprocess.Popen([sys.executable, "-c", READER, base + "/metrics"])
                   for _ in range(8)]
        half = socket.create_connection(("127.0.0.1", int(base.rsplit(":", 1)[1])))
        half.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")  # and no more
        for reader in readers:
            check(reader.wait(timeout=LONG) == 0, "a reader failed")
        gone = socket.create_connection(("127.0.0.1", int(base.rsplit(":", 1)[1])))
        gone.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        gone.close()
        check("hyperwal_databases 1" in get(base, "/metrics"), "after all that")
        half.close()


READER = """
import sys, urllib.request, urllib.error
done = 0
while done < 50:
    try:
        done += b"hyperwal_databases 1" in urllib.request.urlopen(sys.argv[1], timeout=30).read()
    except urllib.error.HTTPError as error:
        assert error.code == 503, error
"""


def the_status_page_is_for_this_machine_unless_said_otherwise(dir):
    make(f"{dir}/a.db")
    for address, words in (("0.0.0.0:0", "--http-public"), ("example.org:80", "--http-public"),
                           ("127.0.0.1", "[HOST:]PORT"), ("x", "[HOST:]PORT"), (":1", "[HOST:]PORT"),
                           ("127.0.0.1:99999", "[HOST:]PORT")):
        said = run("serve", "--http", address, f"{dir}/a.db", code=2).stderr
        check(words in said, address, said)
    with Server("--http", "0.0.0.0:0", "--http-public", f"{dir}/a.db") as server:
        port = http_of(server).rsplit(":", 1)[1]
        check("a.db" in get(f"http://127.0.0.1:{port}", "/"), "public")
        said = run("serve", "--http", port, f"{dir}/a.db", code=1).stderr
        check(f"--http {port}: " in said, said)


# -------------------------------------------------------------------- the service manager


class Manager:
    """What systemd is to a service: a socket that hears what it says."""

    def __init__(self, dir, abstract=False):
        self.name = f"@hyperwal-test-{os.getpid()}" if abstract else f"{dir}/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if abstract else self.name)
        self.socket.settimeout(LONG)
        self.env = {"NOTIFY_SOCKET": self.name}

    def hear(self, wanted):
        """The next message with this line, as a dictionary."""
        while True:
            lines = self.socket.recv(4096).decode().split("\n")
            if wanted in lines or any(line.startswith(wanted + "=") for line in lines):
                return dict(line.split("=", 1) for line in lines)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def the_service_manager_hears_of_start_reload_and_stop(dir):
    make(f"{dir}/a.db")
    for abstract in (False, True):
        with Manager(dir, abstract) as manager:
            server = Server(f"{dir}/a.db", env=manager.env)
            with server:
                told = manager.hear("READY=1")
                check(told["STATUS"] == "serving 1 database", told)
                before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                server.signal(signal.SIGHUP)
                told = manager.hear("RELOADING=1")
                check(before <= int(told["MONOTONIC_USEC"]) <=
                      time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000, told)
                manager.hear("READY=1")
            manager.hear("STOPPING=1")


def the_status_line_follows_the_number_of_databases(dir):
    make(f"{dir}/a.db")
    with Manager(f"{dir}/..") as manager, Server(dir, env=manager.env):
        manager.hear("READY=1")
        make(f"{dir}/b.db")
        while manager.hear("STATUS")["STATUS"] != "serving 2 databases":
            pass
        os.unlink(f"{dir}/b.db")
        while manager.hear("STATUS")["STATUS"] != "serving 1 database":
            pass


def a_watchdog_hears_signs_of_life(dir):
    make(f"{dir}/a.db")
    with Manager(dir) as manager:
        with Server(f"{dir}/a.db", env={**manager.env, "WATCHDOG_USEC": "200000"}):
            for _ in range(5):
                manager.hear("WATCHDOG=1")
    with Manager(dir, abstract=True) as manager:  # whose queue is not full of such signs
        with Server(f"{dir}/a.db", env={**manager.env, "WATCHDOG_USEC": "200000",
                                        "WATCHDOG_PID": "1"}) as server:
            manager.hear("READY=1")
            server.signal(signal.SIGHUP)
            told = manager.hear("RELOADING=1")
            check("WATCHDOG" not in told, told)


def a_manager_that_is_not_there_keeps_nobody(dir):
    make(f"{dir}/a.db")
    for name in (f"{dir}/nobody", "relative", "/" + "x" * 200):
        with Server(f"{dir}/a.db", env={"NOTIFY_SOCKET": name}) as server:
            check("nobody is notified" in server.said(), server.said())


def the_unit_is_of_a_kind_that_the_program_keeps(dir):
    """The unit relies on notifications, reloads and a bound for the stop."""
    del dir
    with open(f"{SOURCE}/replicator/systemd/hyperwal.service", encoding="utf-8") as file:
        unit = file.read()
    for line in ("Type=notify", "NotifyAccess=main", "ExecReload=/bin/kill -HUP $MAINPID",
                 "WatchdogSec=60", "TimeoutStopSec=45"):
        check(f"\n{line}\n" in unit, line)
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify",
                               f"{SOURCE}/replicator/systemd/hyperwal.service"],
                              capture_output=True, text=True, timeout=LONG, check=False)
        check("Unknown" not in done.stderr, done.stderr)


def tests():
    """The functions of one argument `dir`, in the order in which they are written."""
    return [value for value in globals().values()
            if getattr(value, "__module__", "") == __name__ and hasattr(value, "__code__")
            and inspect.getfullargspec(value)[:2] == (["dir"], None)]


def main():
    failed = 0
    chosen = set(sys.argv[1:])
    for test in tests():
        name = test.__name__
        if chosen and name not in chosen:
            continue
        outer = tempfile.mkdtemp(prefix="hyperwal-daemon-")
        dir = os.path.join(outer, "d")
        os.mkdir(dir)
        try:
            test(dir)
            print(f"ok {name}", flush=True)
        except Skip as skip:
            print(f"skip {name}: {skip}", flush=True)
        except Exception as error:  # any failure is one of the test
            failed += 1
            words = str(error).replace("\n", " | ")[:600]
            print(f"not ok {name}: {type(error).__name__} {words}", flush=True)
            traceback.print_exc()
        finally:
            shutil.rmtree(outer, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
