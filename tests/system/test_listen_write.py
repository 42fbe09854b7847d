#!/usr/bin/python3
"""Databases that an application serves by listen=, written from afar by those whom access= lets.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.

The application is a process of its own with the loadable extension, so in the SQLite that Python has; the
writers and the oracle are those of test_remote_write.py.
"""

import contextlib
import json
import os
import socket
import sys
import time
from random import Random

import test_remote
from test_remote import BUILD, CLIENT, EXTENSION, Client, Process, check, run
from test_remote_write import check_ledger, make, writer

# What an application is, beside what test_remote.py's clients have.
APPLICATION = r"""
import time

def served(listen, **parameters):
    return connect("app.db", listen=listen, **parameters)

def url_of(db):
    return status(db)["listen"][0]

def increment(db, label):
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE counter SET n = n + 1")
    db.execute("INSERT INTO ledger VALUES(?)", (label,))
    db.execute("COMMIT")

def write(db, name, count):
    for i in range(count):
        increment(db, "%s-%d" % (name, i))
        time.sleep(0.005)  # an application that has something else to do
    return ["%s-%d" % (name, i) for i in range(count)]

def write_by_threads(names, count):
    dbs = [connect("app.db") for name in names]
    threads = [threading.Thread(target=write, args=(db, name, count)) for db, name in zip(dbs, names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for db in dbs:
        db.close()
    return ["%s-%d" % (name, i) for name in names for i in range(count)]

def fork_and_write(label):
    # The child has a connection of its own, and ends without Python's cleaning up.
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            own = connect("app.db")
            increment(own, label)
            own.close()
            said = "done"
        except Exception as error:
            said = "%s: %s" % (type(error).__name__, error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    said = os.read(read, 1000).decode()
    os.close(read)
    os.waitpid(pid, 0)
    return said
"""


# With the library in place of the extension, which hands the log's lines to the application.
LIBRARY = f"""
import ctypes
lib, lines = ctypes.CDLL({os.path.join(BUILD, "libhyperwal.so")!r}), []
sink = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(
    lambda ctx, level, line: lines.append(line.decode()))
lib.hyperwal_set_log(sink, None)
assert lib.hyperwal_register(0) == 0
"""
LOADS = "keep.enable_load_extension(True)\nkeep.load_extension(sys.argv[1])\n"
WITH_LIBRARY = CLIENT.replace(LOADS, LIBRARY)

# SQLite as an application may configure it before its first use.
SINGLE_THREAD, MULTI_THREAD = 1, 2


def configured(mode):
    return ("import ctypes, ctypes.util\n"
            "lib = ctypes.CDLL(ctypes.util.find_library('sqlite3'))\n"
            f"assert lib.sqlite3_config({mode}) == 0\n" + CLIENT)


def key_of(identity):
    return json.loads(run("key", "--identity", identity, "--json").stdout)["key"]


def allow(directory, *lines, to="may-write"):
    """A file of rules; the writers' identity is `writer`."""
    path = os.path.join(directory, to)
    with open(path + ".new", "w") as file:
        file.write("".join(line + "\n" for line in lines))
    os.chmod(path + ".new", 0o644)
    os.replace(path + ".new", path)
    return path


def rules(directory):
    return allow(directory, f"read,write app.db {key_of(directory + '/writer')} a writer", "read * any")


def theirs(directory, name="writer"):
    """Another user: an identity, and what they know and keep."""
    return {"HYPERWAL_IDENTITY": f"{directory}/{name}", "HYPERWAL_CACHE": f"{directory}/cache-{name}",
            "HYPERWAL_KNOWN_SERVERS": f"{directory}/known-{name}"}


@contextlib.contextmanager
def application(script=CLIENT, environment=None):
    made = Client.__new__(Client)
    Process.__init__(made, [sys.executable, "-c", script, EXTENSION], environment)
    try:
        made.line("ready")
        teach(made, APPLICATION)
        yield made
        if made.process.poll() is None:
            made.end()
    finally:
        made.release()


def teach(app, source):
    app.do("exec(%r, names)" % source)


def serve(app, access, listen="tcp://127.0.0.1:0"):
    """app has the database open as `db`, and serves it; the URL."""
    app.do(f"db = served({listen!r}, access={access!r})")
    return app.do("url_of(db)")


def listen_of(url):
    return "tcp://" + url.split("/")[2]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


# ---------------------------------------------------------------------------- the tests


def who_may_writes_and_the_application_sees_it(directory):
    make("app.db")
    with application() as app:
        url = serve(app, rules(directory))
        with writer(url, "w", environment=theirs(directory)) as w:
            for i in range(30):
                check(w.do("w.one()"), w.do("getattr(w, 'why', '')"))
                check(app.do("rows(db, 'SELECT n FROM counter')") == [[i + 1]], "the application", i)
                check(w.do("rows(w.db, 'SELECT n FROM counter')") == [[i + 1]], "the writer itself", i)
            app.do("increment(db, 'local')")
            seq = app.do("rows(db, 'PRAGMA hyperwal_seq')")[0][0]
            w.do(f"rows(w.db, 'PRAGMA hyperwal_wait = {seq}')")
            check(w.do("rows(w.db, 'SELECT n FROM counter')") == [[31]], "what the application wrote")
            # All kinds of statements, among them those that take a WAL's restart.
            for sql in ("CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "CREATE INDEX i ON t(b)",
                        "WITH RECURSIVE r(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM r WHERE x < 9000) "
                        "INSERT INTO t SELECT x, randomblob(500) FROM r", "DELETE FROM t WHERE a > 5", "VACUUM"):
                w.do(f"w.db.execute({sql!r})")
                check(app.do("rows(db, 'PRAGMA integrity_check')") == [["ok"]], sql)
            check(app.do("rows(db, 'SELECT count(*) FROM t')") == [[5]], "the table")
        app.do("db.close()")
        check(not os.path.exists("app.db-wal"), "the last connection leaves no WAL")
    check_ledger("app.db", [f"w-{i}" for i in range(30)] + ["local"], [])


def without_access_nobody_writes(directory):
    make("app.db")
    everything = allow(directory, "create,promote * any", to="authorized_keys")
    with application(environment={"HYPERWAL_AUTHORIZED_KEYS": everything}) as app:
        app.do("db = served('tcp://127.0.0.1:0')")
        with writer(app.do("url_of(db)"), "w", environment=theirs(directory)) as w:
            done, refused, asked, _ = w.do("w.work(2, 1)")
            check(not done and refused and not asked, done)
            check(w.do("w.why") == "attempt to write a readonly database", w.do("w.why"))
        with writer(app.do("url_of(db)"), "own") as w:  # the application's own user
            check(not w.do("w.one()"), "written without access=")
        app.do("db.close()")
    check_ledger("app.db", [], refused)


def who_may_not_is_refused_and_logged(directory):
    make("app.db")
    with application(WITH_LIBRARY) as app:
        url = serve(app, rules(directory))
        with writer(url, "s", environment=theirs(directory, "stranger")) as w:
            check(w.do("rows(w.db, 'SELECT n FROM counter')") == [[0]], "may read")
            check(not w.do("w.one()") and not w.do("w.one()"), "written by a stranger")
            check(w.do("w.why") == "attempt to write a readonly database", w.do("w.why"))
        lines = app.do("[line for line in lines if 'write_refused' in line]")
        check(len(lines) == 1 and key_of(directory + "/stranger") in lines[0], lines)
        with writer(url, "w", environment=theirs(directory)) as w:
            check(w.do("w.one()"), "not written by who may")
        app.do("db.close()")
    check_ledger("app.db", ["w-0"], ["s-0", "s-1"])


def local_and_remote_writers_are_serial(directory):
    make("app.db")
    allowed = rules(directory)
    with application() as app, contextlib.ExitStack() as stack:
        url = serve(app, allowed)
        clients = [stack.enter_context(writer(url, name, environment={
            **theirs(directory), "HYPERWAL_CACHE": f"{directory}/cache-{name}"})) for name in "ab"]
        for c in clients:
            c.send("w.work(40)")
        done, refused, late = app.do("write_by_threads(['x', 'y', 'z'], 60)"), [], 0
        for c in clients:
            told = c.answer()
            check(len(told[0]) == 40, "not all in time", len(told[0]), told[2:])
            done, refused, late = done + told[0], refused + told[1], late + told[3]
        print(f"    {late} of {len(done) + late} came too late")
        app.do("db.close()")
    check_ledger("app.db", done, refused)


def a_close_in_the_midst_is_answered_honestly(directory):
    make("app.db")
    chance = Random(17)
    access = rules(directory)
    with application() as app, contextlib.ExitStack() as stack:
        url = serve(app, access)
        clients = [stack.enter_context(writer(url, name, environment={
            **theirs(directory), "HYPERWAL_CACHE": f"{directory}/cache-{name}"})) for name in "ab"]
        for c in clients:
            c.do("w.work(1)")
        for i in range(12):
            for c in clients:
                c.send("w.work(8)")
            time.sleep(chance.random() * 0.15)  # any moment of lease and commit will do
            app.do("db.close()")
            check(not os.path.exists("app.db-wal"), "somebody still had it open", i)
            check(not [name for name in os.listdir("app.db-hyper") if name.startswith("open.")], "claimed", i)
            serve(app, access, listen_of(url))
            for c in clients:
                c.answer()
        told = [c.do("w.work(1)") for c in clients]
        done, refused = sum((t[0] for t in told), []), sum((t[1] for t in told), [])
        print(f"    {len(done)} done, {len(refused)} refused, {sum(t[2] for t in told)} asked after")
        app.do("db.close()")
    check_ledger("app.db", done, refused)


def connections_of_the_application_may_come_and_go(directory):
    """The last that closes and one that opens just then, over and over, while somebody writes from afar."""
    make("app.db")
    access = rules(directory)
    with application() as app:
        url = serve(app, access)
        teach(app, f"""
def come_and_go(count):
    for i in range(count):
        mine = served({listen_of(url)!r}, access={access!r})
        rows(mine, "SELECT n FROM counter")
        mine.close()
def many(count):
    threads = [threading.Thread(target=come_and_go, args=(count,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
""")
        with writer(url, "w", environment=theirs(directory)) as w:
            w.do("w.work(1)")
            w.send("w.work(40)")
            app.do("db.close()")
            app.do("many(25)")
            serve(app, access, listen_of(url))
            done, refused, asked, _ = w.answer()
            check(len(done) == 41, "not all in time", len(done))
            print(f"    {len(refused)} refused, {asked} asked after")
        app.do("db.close()")
        check(not os.path.exists("app.db-wal"), "somebody still had it open")
    check_ledger("app.db", done, refused)


def a_killed_application_makes_no_answer_untrue(directory):
    make("app.db")
    chance = Random(23)
    access, listen = rules(directory), f"tcp://127.0.0.1:{free_port()}"
    with contextlib.ExitStack() as stack:
        app = stack.enter_context(application())
        w = stack.enter_context(writer(serve(app, access, listen), "w", environment=theirs(directory)))
        w.do("w.work(3)")
        for _ in range(6):
            w.send("w.work(5)")
            time.sleep(chance.random() * 0.3)
            app.kill()
            app = stack.enter_context(application())
            serve(app, access, listen)
            w.answer()
        done, refused, asked, _ = w.do("w.work(1)")
        print(f"    {len(done)} done, {len(refused)} refused, {asked} asked after")
        app.do("db.close()")
    check_ledger("app.db", done, refused)


def forked_children_write_by_connections_of_their_own(directory):
    make("app.db")
    with application() as app:
        url = serve(app, rules(directory))
        with writer(url, "w", environment=theirs(directory)) as w:
            w.do("w.work(1)")
            w.send("w.work(120)")
            for i in range(25):
                said = app.do(f"fork_and_write('child-{i}')")
                check(said == "done", i, said)
                app.do(f"increment(db, 'parent-{i}')")
            done, refused, _, _ = w.answer()
            check(len(done) == 121, "not all in time", len(done))
        app.do("db.close()")
    children = [f"{who}-{i}" for who in ("child", "parent") for i in range(25)]
    check_ledger("app.db", done + children, refused)


def rights_are_taken_back_while_it_is_served(directory):
    make("app.db")
    with application() as app:
        url = serve(app, rules(directory))
        with writer(url, "w", environment=theirs(directory)) as w:
            check(w.do("w.one()"), "may")
            allow(directory, "read * any")
            end = time.monotonic() + test_remote.LONG
            while w.do("w.one()"):
                check(time.monotonic() < end, "it still writes")
            check(w.do("w.why") == "attempt to write a readonly database", w.do("w.why"))
            rules(directory)
            end = time.monotonic() + test_remote.LONG
            while not w.do("w.one()"):
                check(time.monotonic() < end, "it never writes again")
            done, refused = w.do("[w.done, w.refused]")
        app.do("db.close()")
    check_ledger("app.db", done, refused)


def what_is_wrong_with_access_is_said(directory):
    make("app.db")
    make("other.db")
    access = rules(directory)
    second = allow(directory, "read * any", to="second")
    bad = allow(directory, "raed * any", to="bad")
    open_to_all = allow(directory, "write * any", to="open")
    os.chmod(open_to_all, 0o666)
    with application() as app:
        teach(app, """
def why(path, **parameters):
    try:
        connect(path, **parameters).close()
    except sqlite3.Error as error:
        return str(error)
    return None
""")
        for parameters in (f"access={access!r}",  # without listen=
                           "listen='tcp://127.0.0.1:0', access=''",
                           f"listen='tcp://127.0.0.1:0', access='{directory}/nowhere'",
                           f"listen='tcp://127.0.0.1:0', access={bad!r}",
                           f"listen='tcp://127.0.0.1:0', access={open_to_all!r}"):
            said = app.do(f"why('app.db', {parameters})")
            check(said == "unable to open database file", parameters, said)
        check(app.do("why('hyper://127.0.0.1:1/app.db', access='x')") == "unable to open database file", "remote")
        # A file of the directory that the process is in, by its name; another one for the same process is refused.
        app.do("db = served('tcp://127.0.0.1:0', access='may-write')")
        app.do("os.chdir('/')")
        check(app.do(f"why('{directory}/other.db', listen='tcp://127.0.0.1:0', access={second!r})"), "two files")
        check(app.do(f"why('{directory}/other.db', listen='tcp://127.0.0.1:0', access={access!r})") is None, "one")
        with writer(app.do("url_of(db)"), "w", environment=theirs(directory)) as w:
            check(w.do("w.one()"), w.do("getattr(w, 'why', '')"))
        app.do("db.close()")
        # Nobody is served any more, so that another file may say it now.
        app.do(f"other = connect('{directory}/other.db', listen='tcp://127.0.0.1:0', access={second!r})")
        with writer(app.do("url_of(other)"), "w", environment=theirs(directory)) as w:
            check(not w.do("w.one()"), "written by the rules of another file")
        app.do("other.close()")
    check_ledger("app.db", ["w-0"], [])


def a_node_of_the_application_takes_writes_beside_its_connections(directory):
    make("app.db")
    with application(WITH_LIBRARY) as app:
        teach(app, '''
node, url, problem = ctypes.c_void_p(), ctypes.c_char_p(), ctypes.c_char_p()
lib.hyperwal_node_unserve.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
lib.hyperwal_node_close.argtypes = [ctypes.c_void_p]
def asks(function, *args):
    if function(*args, ctypes.byref(problem)) != 0:
        raise Exception(problem.value.decode())
''')
        app.do("asks(lib.hyperwal_node_open, None, ctypes.byref(node))")
        app.do(f"asks(lib.hyperwal_node_grant, node, {key_of(directory + '/writer').encode()!r}, 2, b'app.db')")
        app.do("asks(lib.hyperwal_node_listen, node, b'tcp://127.0.0.1:0', ctypes.byref(url))")
        app.do("db = connect('app.db')")
        app.do("asks(lib.hyperwal_node_serve, node, b'app.db', b'app.db')")
        url = app.do("url.value.decode()").replace("tcp://", "hyper://") + "/app.db"
        with writer(url, "w", environment=theirs(directory)) as w:
            w.send("w.work(15)")
            mine = app.do("write(db, 'local', 15)")
            w.answer()
            app.do("db.close()")  # the node goes on, and writes for others
            w.do("w.work(5)")
            app.do("db = connect('app.db')")
            done, refused, _, _ = w.do("w.work(5)")
            check(len(done) == 25, len(done), w.do("getattr(w, 'why', '')"))
            check(app.do("rows(db, 'SELECT n FROM counter')") == [[40]], "the application")
        app.do("db.close()")
        app.do("lib.hyperwal_node_unserve(node, b'app.db')")
        check(not os.path.exists("app.db-wal"), "somebody still has it open")
        app.do("lib.hyperwal_node_close(node)")
    check_ledger("app.db", done + mine, refused)


def sqlite_without_mutexes_takes_no_writes_and_with_fewer_it_does(directory):
    make("app.db")
    access = rules(directory)
    with application(configured(SINGLE_THREAD)) as app:
        said = app.do(f"refused(lambda: served('tcp://127.0.0.1:0', access={access!r}))")
        check(said == "unable to open database file", said)
    with application(configured(MULTI_THREAD)) as app, \
            writer(serve(app, access), "w", environment=theirs(directory)) as w:
        w.send("w.work(20)")
        mine = app.do("write(db, 'local', 20)")
        done, refused, _, _ = w.answer()
        check(len(done) == 20, len(done), w.do("getattr(w, 'why', '')"))
        app.do("db.close()")
    check_ledger("app.db", done + mine, refused)


TESTS = (who_may_writes_and_the_application_sees_it, without_access_nobody_writes,
         who_may_not_is_refused_and_logged, local_and_remote_writers_are_serial,
         a_close_in_the_midst_is_answered_honestly, connections_of_the_application_may_come_and_go,
         a_killed_application_makes_no_answer_untrue, forked_children_write_by_connections_of_their_own,
         rights_are_taken_back_while_it_is_served, what_is_wrong_with_access_is_said,
         a_node_of_the_application_takes_writes_beside_its_connections,
         sqlite_without_mutexes_takes_no_writes_and_with_fewer_it_does)

if __name__ == "__main__":
    test_remote.TESTS = TESTS
    sys.exit(test_remote.main(sys.argv[1:]))
