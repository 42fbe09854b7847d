#!/usr/bin/python3
"""The loadable extension in ordinary clients: what it needs, what it shows, how it is loaded.

HW_BUILD names the build directory.  One line a test: "ok NAME", "not ok NAME: why", "skip NAME: why".
"""
import ctypes
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
EXTENSION = os.path.join(BUILD, "hyperwal.so")
LIBRARY = os.path.join(BUILD, "libhyperwal.so")
SYMBOLS = os.path.join(os.path.dirname(__file__), "..", "..", "libhyperwal", "hyperwal.symbols")

OPEN_READWRITE_CREATE_URI = 0x2 | 0x4 | 0x40


class Skip(Exception):
    pass


def tool(*words):
    if shutil.which(words[0]) is None:
        raise Skip(words[0] + " is not installed")
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def defined_symbols(path):
    lines = tool("nm", "-D", "--defined-only", path).splitlines()
    return sorted(line.split()[-1].split("@")[0] for line in lines if line.split())


def load(db):
    db.enable_load_extension(True)
    db.load_extension(EXTENSION)


def connect(path, parameters=""):
    uri = "file:%s?vfs=hyperwal%s" % (path, parameters)
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def run_python(code, stderr=False, **environment):
    """Run `code` in a process of its own; -> its standard output, or error."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=dict(os.environ, EXTENSION=EXTENSION, **environment), timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr if stderr else done.stdout


def expect_error(db, sql, words):
    try:
        db.execute(sql).fetchall()
    except sqlite3.Error as error:
        assert words in str(error), "%r is not in %r" % (words, str(error))
        return
    raise AssertionError("no error from " + sql)


# ----------------------------------------------------------------------------- the files


def extension_reaches_sqlite_only_through_its_host(_):
    undefined = tool("nm", "-D", "--undefined-only", EXTENSION)
    assert "sqlite3" not in undefined, undefined
    needed = [line for line in tool("readelf", "-d", EXTENSION).splitlines() if "NEEDED" in line]
    assert needed and not any("sqlite" in line for line in needed), needed


def extension_shows_nothing_but_its_entry_points(_):
    assert defined_symbols(EXTENSION) == ["sqlite3_extension_init", "sqlite3_hyperwal_init"]


def library_shows_just_the_public_functions(_):
    with open(SYMBOLS, encoding="utf-8") as file:
        wanted = sorted(line.strip() for line in file if line.strip() and line[0] != "#")
    assert all(name.startswith("hyperwal_") for name in wanted)
    assert defined_symbols(LIBRARY) == wanted, set(defined_symbols(LIBRARY)) ^ set(wanted)


# -------------------------------------------------------------------------------- loading


def vfs_outlives_the_connection_that_loaded_it(directory):
    code = """
import os, sqlite3
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
db.load_extension(os.environ["EXTENSION"])
db.close()
db = sqlite3.connect("file:%s/a.db?vfs=hyperwal" % os.environ["DIRECTORY"], uri=True)
db.execute("CREATE TABLE t(v)")
db.commit()
print(db.execute("PRAGMA journal_mode").fetchone()[0] if db.execute("SELECT * FROM t") else 0)
"""
    assert run_python(code, DIRECTORY=directory).strip() == "wal"


def loading_twice_does_not_stack_the_vfs_on_itself(directory):
    commands = ".load %s\n.load %s\n.open file:%s/a.db?vfs=hyperwal\n.vfsname\n" % (
        EXTENSION, EXTENSION, directory)
    if shutil.which("sqlite3") is None:
        raise Skip("sqlite3 is not installed")
    done = subprocess.run(["sqlite3"], input=commands, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "hyperwal/unix", done.stdout + done.stderr


DEFAULT = """
import os, sqlite3
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
db.load_extension(os.environ["EXTENSION"])
path = os.environ["DIRECTORY"] + "/plain.db"
plain = sqlite3.connect(path)
plain.execute("CREATE TABLE t(v)")
plain.commit()
plain.close()
print(os.path.isdir(path + "-hyper"))
"""


WORDS = """
import os, sqlite3
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
try:
    db.load_extension(os.environ["EXTENSION"])
    os.chdir(os.environ["DIRECTORY"])
    good = sqlite3.connect("file:app.db?vfs=hyperwal", uri=True)
    good.execute("CREATE TABLE t(a)")
    good.execute("PRAGMA hyperwal_seq").fetchall()
    sqlite3.connect("file:app.db?vfs=hyperwal&durability=nonsense", uri=True)
except sqlite3.Error as error:
    print(error)
"""


def the_words_of_errors_go_to_standard_error_if_asked(directory):
    said = run_python(WORDS, stderr=True, DIRECTORY=directory, HYPERWAL_LOG="stderr")
    assert "event=worker_started" in said, said
    assert "nonsense" in said, said
    assert run_python(WORDS, stderr=True, DIRECTORY=directory, HYPERWAL_LOG="") == ""
    assert "can only be stderr" in run_python(WORDS, DIRECTORY=directory, HYPERWAL_LOG="syslog")


def vfs_is_the_default_one_if_the_environment_says_so(directory):
    assert run_python(DEFAULT, DIRECTORY=directory, HYPERWAL_DEFAULT="1").strip() == "True"


def vfs_is_not_the_default_one_unless_asked(directory):
    assert run_python(DEFAULT, DIRECTORY=directory, HYPERWAL_DEFAULT="").strip() == "False"


def extension_in_a_program_that_links_the_library_is_harmless(directory):
    code = """
import ctypes, os, sqlite3
library = ctypes.CDLL(os.environ["LIBRARY"])
assert library.hyperwal_register(0) == 0
db = sqlite3.connect(":memory:")
db.enable_load_extension(True)
db.load_extension(os.environ["EXTENSION"])
db = sqlite3.connect("file:%s/a.db?vfs=hyperwal" % os.environ["DIRECTORY"], uri=True)
db.execute("CREATE TABLE t(v)")
print("fine")
"""
    assert run_python(code, DIRECTORY=directory, LIBRARY=LIBRARY).strip() == "fine"


# ---------------------------------------------------------- two copies of SQLite in a process


class Copy:
    """A second SQLite: the same library loaded from another file."""

    def __init__(self, directory):
        lines = open("/proc/self/maps", encoding="utf-8").read().splitlines()
        paths = sorted({line.split()[-1] for line in lines if "libsqlite3.so" in line})
        if not paths:
            raise Skip("Python has its own SQLite built in")
        path = os.path.join(directory, "copy-of-sqlite.so")
        shutil.copy(paths[0], path)
        self.lib = ctypes.CDLL(path, mode=os.RTLD_LOCAL | os.RTLD_NOW | os.RTLD_DEEPBIND)
        self.lib.sqlite3_errmsg.restype = ctypes.c_char_p
        self.lib.sqlite3_errmsg.argtypes = [ctypes.c_void_p]

    def open(self, uri):
        db = ctypes.c_void_p()
        code = self.lib.sqlite3_open_v2(uri.encode(), ctypes.byref(db), OPEN_READWRITE_CREATE_URI,
                                        None)
        return code, db

    def load(self, extension):
        message = ctypes.c_char_p()
        code, db = self.open(":memory:")
        assert code == 0
        self.lib.sqlite3_enable_load_extension(db, 1)
        code = self.lib.sqlite3_load_extension(db, extension.encode(), b"sqlite3_hyperwal_init",
                                               ctypes.byref(message))
        self.lib.sqlite3_close(db)
        return code, (message.value or b"").decode()


def one_loaded_extension_serves_one_copy_of_sqlite(directory):
    code, message = Copy(directory).load(EXTENSION)
    assert code == 1 and "another copy of SQLite" in message, (code, message)


def two_copies_of_sqlite_may_not_open_one_database(directory):
    copy = Copy(directory)
    other_extension = os.path.join(directory, "other-hyperwal.so")
    shutil.copy(EXTENSION, other_extension)
    code, message = copy.load(other_extension)
    assert code in (0, 256), (code, message)
    path = os.path.join(directory, "app.db")
    db = connect(path)
    db.execute("CREATE TABLE t(v)")
    uri = "file:%s?vfs=hyperwal" % path
    code, other = copy.open(uri)
    copy.lib.sqlite3_close(other)
    assert code == 14, "two copies opened one database: code %d" % code
    code, other = copy.open("file:%s/other.db?vfs=hyperwal" % directory)
    assert code == 0, copy.lib.sqlite3_errmsg(other)
    copy.lib.sqlite3_close(other)
    db.close()
    code, other = copy.open(uri)  # nobody else has it now
    assert code == 0, copy.lib.sqlite3_errmsg(other)
    copy.lib.sqlite3_close(other)


# -------------------------------------------------------------------------------- PRAGMAs


def pragmas_tell_seq_key_and_status(directory):
    db = connect(directory + "/app.db")
    assert db.execute("PRAGMA hyperwal_seq").fetchone()[0] == "-1"  # no page, no state
    db.execute("CREATE TABLE t(v)")
    first = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
    db.execute("INSERT INTO t VALUES(1)")
    second = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
    assert second > first
    key = db.execute("PRAGMA hyperwal_key").fetchone()[0]
    assert len(bytes.fromhex(key)) == 32
    status = json.loads(db.execute("PRAGMA hyperwal_status").fetchone()[0])
    assert status["key"] == key and status["role"] == "primary"
    assert status["seq"] == second and status["length"] > second
    assert status["path"].endswith("/app.db") and status["peers"] == []
    assert status["page_size"] == 4096 and status["pages"] == 2 and status["lag"] == 0
    assert len(status["sum"]) == 16 and status["unconfirmed"]["count"] == 0


def durability_can_be_read_and_set(directory):
    db = connect(directory + "/app.db", "&durability=local")
    assert db.execute("PRAGMA hyperwal_durability").fetchone()[0] == "local"
    assert db.execute("PRAGMA hyperwal_durability=async").fetchone()[0] == "async"
    for name in ("remote", "remote_apply"):
        assert db.execute("PRAGMA hyperwal_durability=" + name).fetchone()[0] == name
    expect_error(db, "PRAGMA hyperwal_durability=strong", "use async, local")
    db.execute("PRAGMA hyperwal_durability=local")
    db.execute("CREATE TABLE t(v)")
    db.execute("INSERT INTO t VALUES(1)")


def unknown_pragmas_are_errors_that_name_the_known_ones(directory):
    db = connect(directory + "/app.db")
    expect_error(db, "PRAGMA hyperwal_sequence", "hyperwal_seq,")
    expect_error(db, "PRAGMA hyperwal_key=7", "takes no value")
    expect_error(db, "PRAGMA hyperwal_label", "hyperwal_label = 'NAME'")
    expect_error(db, "PRAGMA hyperwal_wait", "hyperwal_wait = SEQ")
    expect_error(db, "PRAGMA hyperwal_wait='soon'", "not a number")


def the_past_can_be_read_by_seq_and_label(directory):
    path = directory + "/app.db"
    db = connect(path)
    db.execute("CREATE TABLE t(v)")
    db.execute("PRAGMA hyperwal_snapshot")  # the past begins with the first one
    db.execute("INSERT INTO t VALUES('old')")
    seq = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
    label = int(db.execute("PRAGMA hyperwal_label='before'").fetchone()[0])
    assert label > seq
    db.execute("UPDATE t SET v='new'")
    db.execute("PRAGMA hyperwal_seq")
    for parameters in ("&seq=%d" % seq, "&seq=%d" % label, "&label=before"):
        past = connect(path, parameters)
        assert past.execute("SELECT v FROM t").fetchall() == [("old",)], parameters
        assert past.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert int(past.execute("PRAGMA hyperwal_seq").fetchone()[0]) == seq
        expect_error(past, "DELETE FROM t", "readonly")
        past.close()
    assert db.execute("SELECT v FROM t").fetchall() == [("new",)]


def a_snapshot_can_be_asked_for(directory):
    db = connect(directory + "/app.db")
    db.execute("CREATE TABLE t(v)")
    db.execute("PRAGMA hyperwal_seq")
    seq = int(db.execute("PRAGMA hyperwal_snapshot").fetchone()[0])
    status = json.loads(db.execute("PRAGMA hyperwal_status").fetchone()[0])
    assert status["snapshot_seq"] == seq, (status, seq)


# ----------------------------------------------------------------------------- parameters


def parameters_with_unknown_values_do_not_open(directory):
    for parameters in ("&durability=strong", "&durability=remote&replicas=0", "&storage=tape", "&timeout=soon",
                       "&on_timeout=maybe", "&replicas=-1", "&listen=", "&log=",
                       "&seq=x", "&time=yesterday", "&label=", "&seq=1&label=a", "&seq=99999"):
        try:
            connect(directory + "/app.db", parameters).execute("SELECT 1")
        except sqlite3.OperationalError as error:
            assert "unable to open" in str(error), error
        else:
            raise AssertionError(parameters + " was taken")
    assert os.listdir(directory) == [], os.listdir(directory)


def the_log_goes_where_the_parameter_says(directory):
    db = connect(directory + "/app.db", "&log=%s/elsewhere" % directory)
    db.execute("CREATE TABLE t(v)")
    db.execute("PRAGMA hyperwal_seq")
    assert os.path.isdir(directory + "/elsewhere")
    db.close()


def a_database_in_memory_leaves_no_file(directory):
    db = connect(directory + "/app.db", "&storage=memory")
    db.execute("CREATE TABLE t(v)")
    assert db.execute("PRAGMA hyperwal_seq").fetchone() is not None
    db.close()
    assert os.listdir(directory) == [], os.listdir(directory)


TESTS = [
    extension_reaches_sqlite_only_through_its_host,
    extension_shows_nothing_but_its_entry_points,
    library_shows_just_the_public_functions,
    the_words_of_errors_go_to_standard_error_if_asked,
    vfs_outlives_the_connection_that_loaded_it,
    loading_twice_does_not_stack_the_vfs_on_itself,
    vfs_is_the_default_one_if_the_environment_says_so,
    vfs_is_not_the_default_one_unless_asked,
    extension_in_a_program_that_links_the_library_is_harmless,
    one_loaded_extension_serves_one_copy_of_sqlite,
    two_copies_of_sqlite_may_not_open_one_database,
    pragmas_tell_seq_key_and_status,
    durability_can_be_read_and_set,
    unknown_pragmas_are_errors_that_name_the_known_ones,
    the_past_can_be_read_by_seq_and_label,
    a_snapshot_can_be_asked_for,
    parameters_with_unknown_values_do_not_open,
    the_log_goes_where_the_parameter_says,
    a_database_in_memory_leaves_no_file,
]


def main():
    failed = 0
    loader = sqlite3.connect(":memory:")
    if not hasattr(loader, "enable_load_extension"):
        for test in TESTS:
            print("skip %s: this Python cannot load extensions" % test.__name__)
        return 0
    load(loader)
    for test in TESTS:
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        directory = tempfile.mkdtemp(prefix="hyperwal-extension-")
        try:
            test(directory)
            print("ok " + test.__name__, flush=True)
        except Skip as why:
            print("skip %s: %s" % (test.__name__, why), flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            why = str(error).replace("\n", " ") or type(error).__name__
            print("not ok %s: %s" % (test.__name__, why), flush=True)
            traceback.print_exc()
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
