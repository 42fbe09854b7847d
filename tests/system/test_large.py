#!/usr/bin/python3
"""A database beyond the lock-byte page at 1 GiB: adopted, written, followed, restored.

The page with byte 2^30 is never used by SQLite and never counts.  Stock SQLite makes the file;
everything after goes through the VFS.  One line a test, as docs/TESTING.md says.
"""
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
PROGRAM = os.path.join(BUILD, "hyperwal")
LOCK_BYTE = 1 << 30
ROW = 30 << 20  # bytes of one row: 36 of them pass the lock byte
ROOM = 8 << 30


def make(path, page_size):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA page_size=%d" % page_size)
    db.execute("PRAGMA journal_mode=OFF")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("CREATE TABLE big(a INTEGER PRIMARY KEY, b)")
    for _ in range(36):
        db.execute("INSERT INTO big(b) VALUES(zeroblob(?))", (ROW,))
    db.execute("CREATE TABLE small(a INTEGER PRIMARY KEY, b)")
    db.close()
    assert os.path.getsize(path) > LOCK_BYTE + (1 << 20)


def program(*words):
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, "%s: %s" % (" ".join(words), done.stderr)
    return done.stdout


def same_bytes(a, b):
    with open(a, "rb") as one, open(b, "rb") as two:
        while True:
            x, y = one.read(1 << 20), two.read(1 << 20)
            if x != y:
                return False
            if not x:
                return True


def write(path):
    """Rows before and behind the lock byte; -> seq of the last commit."""
    db = sqlite3.connect("file:%s?vfs=hyperwal&timeout=120000" % path, uri=True,
                         isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    for i in range(50):
        db.execute("INSERT INTO small(b) VALUES(?)", ("row %d" % i * 20,))
    db.execute("UPDATE big SET b = randomblob(100000) WHERE a IN (1, 18, 36)")
    seq = int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return seq


def a_database_beyond_the_lock_byte_page_is_restored_and_followed(directory):
    path, out = os.path.join(directory, "app.db"), os.path.join(directory, "out.db")
    replica = os.path.join(directory, "replica.db")
    make(path, 65536)
    program("init", path)
    seq = write(path)
    program("restore", path, out, "--seq", str(seq))
    assert same_bytes(path, out), "the restored file is not the database"
    os.remove(out)
    program("follow", path, replica, "--once")
    db = sqlite3.connect(replica)
    assert db.execute("SELECT count(*) FROM small").fetchone()[0] == 50
    assert db.execute("SELECT length(b) FROM big WHERE a = 36").fetchone()[0] == 100000
    db.close()
    program("verify", replica)


def main():
    home = os.environ.get("TMPDIR", "/tmp")
    tests = [a_database_beyond_the_lock_byte_page_is_restored_and_followed]
    db = sqlite3.connect(":memory:")
    db.enable_load_extension(True)
    db.load_extension(os.path.join(BUILD, "hyperwal.so"))
    failed = False
    for test in tests:
        name = test.__name__
        if shutil.disk_usage(home).free < ROOM:
            print("skip %s: needs 8 GiB of disk" % name)
            continue
        directory = tempfile.mkdtemp(prefix="hw-large-", dir=home)
        try:
            test(directory)
            print("ok", name, flush=True)
        except Exception as error:  # a test that fails says why and the next one runs
            traceback.print_exc()
            print("not ok %s: %s" % (name, str(error).replace("\n", " ")), flush=True)
            failed = True
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
