#!/usr/bin/python3
"""Foreign hands: what other programs and people do to the files, and what becomes of the log.

Each row of the table is something done by a stock SQLite process or by hand, while a connection through
the VFS is open or while none is.  Whatever it is: the log verifies, its last state is the database, what
it had before is restored as it was, and a follower goes on.  The row says whether the log had to be
joined anew by a gap entry.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.
"""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys

from test_program import (add, background, check, dump, fact, facts, line_of, load_extension, logged, run,
                          run_test, stock, through_vfs)

STOCK = """
import sqlite3, sys
db = sqlite3.connect("app.db", isolation_level=None, timeout=5)
for sql in sys.argv[1:]:
    print(db.execute(sql).fetchall())
db.close()
"""
BACKUP = """
import sqlite3
source = sqlite3.connect("other.db")
target = sqlite3.connect("app.db", timeout=5)
source.backup(target)
target.close()
"""


# -------------------------------------------------------------------------- what is done


def python(code, *args):
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True,
                          timeout=60)
    check(done.returncode == 0, args, done.stderr[-300:])
    return done.stdout


def sql(*statements):
    return lambda: python(STOCK, *statements)


def put_other_over():
    with contextlib.closing(sqlite3.connect("other.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
        db.execute("INSERT INTO t(b) VALUES('from a backup')")
    python(BACKUP)


def leave_wal(*statements):
    """A stock process that ends without closing: the WAL stays."""
    code = STOCK.replace("db.close()", "import os\nos._exit(0)")
    return python(code, *statements)


def delete_wal():
    """What is in the log and was in the WAL alone."""
    for name in ("app.db-wal", "app.db-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def older_database():
    shutil.copyfile("old.db", "app.db")


def older_database_written():
    shutil.copyfile("old.db", "app.db")
    sql("INSERT INTO t(b) VALUES('another history')")()


def older_database_moved():
    shutil.copyfile("old.db", "new.db")
    os.rename("new.db", "app.db")


INSERT = "INSERT INTO t(b) VALUES('foreign')"
NO_AUTO = "PRAGMA wal_autocheckpoint=0"

# What is done; the gaps that it makes: while nobody has the database open through the VFS, and while
# somebody has (None: not done then; a range: it depends on who comes first).
TABLE = {
    "a_read": (sql("SELECT count(*) FROM t"), 0, 0),
    "a_commit": (sql(INSERT), 1, 0),
    "a_commit_that_stays_in_the_wal": (lambda: leave_wal(NO_AUTO, INSERT), 0, 0),
    "commits_and_a_passive_checkpoint": (sql(NO_AUTO, INSERT, INSERT, "PRAGMA wal_checkpoint(PASSIVE)"),
                                         1, (0, 1)),
    "commits_and_a_full_checkpoint": (sql(NO_AUTO, INSERT, INSERT, "PRAGMA wal_checkpoint(FULL)"),
                                      1, (0, 1)),
    "commits_and_a_restart": (sql(NO_AUTO, INSERT, "PRAGMA wal_checkpoint(RESTART)", INSERT), 1, (0, 1)),
    "commits_and_a_truncation": (sql(NO_AUTO, INSERT, "PRAGMA wal_checkpoint(TRUNCATE)", INSERT),
                                 1, (0, 1)),
    "a_truncation_alone": (sql("PRAGMA wal_checkpoint(TRUNCATE)"), 0, (0, 1)),
    "a_vacuum": (sql("VACUUM"), 1, (0, 1)),
    "a_backup_over_it": (put_other_over, 1, (0, 1)),
    "a_deleted_wal": (delete_wal, 0, None),
    "an_older_file": (older_database, 0, None),
    "an_older_file_renamed_over_it": (older_database_moved, 0, None),
    "an_older_file_that_was_written": (older_database_written, 1, None),
    "another_journal_mode": (sql("PRAGMA journal_mode=DELETE"), (0, 1), None),
    "another_journal_mode_and_a_commit": (sql("PRAGMA journal_mode=DELETE", INSERT), 1, None),
}


# ------------------------------------------------------------------------------ the checks


def seq_of(db):
    return int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])


def gaps():
    return sum(entry["type"] == "gap" for entry in facts("log", "app.db"))


def begin():
    """A log with a past; old.db is an older state of the database, then.db the newest."""
    logged("app.db")
    shutil.copyfile("app.db", "old.db")
    seq = add("app.db", "one", "two", "three")[-1]
    run("restore", "app.db", "then.db", "--seq", seq)
    run("follow", "app.db", "r.db", "--once")
    return seq


def all_is_well(seq, expected):
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("INSERT INTO t(b) VALUES('and on')")
        head = seq_of(db)
    low, high = expected if isinstance(expected, tuple) else (expected, expected)
    check(low <= gaps() <= high, f"{gaps()} gaps, expected {expected}")
    run("verify", "app.db", "--deep")
    run("restore", "app.db", "past.db", "--seq", seq)
    check(dump("past.db") == dump("then.db"), "the past is another one now")
    run("restore", "app.db", "out.db", "--seq", head)
    check(dump("out.db") == dump("app.db"), "the log's last state is not the database")
    run("follow", "app.db", "r.db", "--once")
    check(dump("r.db") == dump("app.db"), "the replica differs")


def closed(action, expected):
    def test(dir):
        seq = begin()
        action()
        all_is_well(seq, expected)

    return test


def opened(action, expected):
    def test(dir):
        seq = begin()
        with contextlib.closing(through_vfs("app.db")) as db:
            db.execute("SELECT count(*) FROM t").fetchone()
            seq_of(db)
            action()
            db.execute("INSERT INTO t(b) VALUES('beside')")
            seq_of(db)
        all_is_well(seq, expected)

    return test


# ------------------------------------------------------------------ what needs more than a row


def the_journal_mode_stays_while_the_database_is_open(dir):
    seq = begin()
    with contextlib.closing(through_vfs("app.db")) as db:
        db.execute("SELECT count(*) FROM t").fetchone()
        with contextlib.closing(sqlite3.connect("app.db", timeout=0)) as other:
            try:
                mode = other.execute("PRAGMA journal_mode=DELETE").fetchone()[0]
            except sqlite3.OperationalError as error:
                mode = str(error)
            check(mode == "wal" or "locked" in mode, mode)
    all_is_well(seq, 0)


def a_wal_deleted_after_a_kill_is_made_up_for_by_the_log(dir):
    """The commits were in the WAL and in the log, not in the file: the log has them, and gives them."""
    seq = begin()
    code = f"""
import os, sqlite3
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({os.environ.get("HW_BUILD", "build/dev") + "/hyperwal.so"!r})
db = sqlite3.connect("file:app.db?vfs=hyperwal", uri=True, isolation_level=None)
db.execute("INSERT INTO t(b) VALUES('in the log')")
db.execute("PRAGMA hyperwal_seq").fetchone()
os._exit(0)
"""
    python(code)
    check(os.path.getsize("app.db-wal") > 0, "no WAL is left to delete")
    delete_wal()
    all_is_well(seq, 0)
    with contextlib.closing(stock("app.db")) as db:
        check(db.execute("SELECT count(*) FROM t WHERE b='in the log'").fetchone() == (1,), "lost")


def an_older_log_signs_nothing_until_it_is_adopted(dir):
    """The directory put back as it was is a copy; adopted, it joins the database by a gap."""
    begin()
    shutil.copytree("app.db-hyper", "old-hyper")
    seq = add("app.db", "four", "five")[-1]
    fork = fact("status", "app.db")["fork"]
    run("restore", "app.db", "five.db", "--seq", seq)
    os.rename("app.db-hyper", "newer-hyper")
    os.rename("old-hyper", "app.db-hyper")
    said = run("label", "app.db", "x", code=1).stderr
    check("adopt" in said and "app.db-hyper" in said, said)
    with contextlib.closing(stock("app.db")) as db:  # who does not use the VFS goes on
        check(db.execute("SELECT b FROM t ORDER BY a DESC").fetchone() == ("five",), "rows")
    run("init", "app.db", "--adopt")
    seq = add("app.db", "six")[-1]
    check(fact("status", "app.db")["fork"] > fork, "the same fork: two histories of one length")
    run("verify", "app.db", "--deep")
    run("restore", "app.db", "out.db", "--seq", seq)
    check(dump("out.db") == dump("app.db"), "the log's last state is not the database")
    check(gaps() == 1, gaps())


def a_replica_written_by_a_stock_program_is_repaired(dir):
    seq = begin()
    for statements in (["INSERT INTO t(b) VALUES('mine')"], ["VACUUM"],
                       ["PRAGMA wal_checkpoint(TRUNCATE)"], ["DELETE FROM t"]):
        with contextlib.closing(sqlite3.connect("r.db", isolation_level=None, timeout=5)) as db:
            for statement in statements:
                with contextlib.suppress(sqlite3.OperationalError):  # what is refused did no harm
                    db.execute(statement).fetchall()
        add("app.db", f"after {statements[0]}")
        run("follow", "app.db", "r.db", "--once")
        check(dump("r.db") == dump("app.db"), f"the replica kept what {statements} did")
        run("verify", "r.db")
    all_is_well(seq, 0)


def put_back(copy, path):
    for suffix in ("-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.remove(path + suffix)
    shutil.copy2(copy, path)


def a_replica_put_back_from_a_copy_is_told_apart(dir):
    """Wrong behind a follower that ended well; behind a killed one it is said where it is."""
    begin()
    with contextlib.closing(stock("r.db")) as db:
        db.execute("SELECT count(*) FROM t").fetchall()  # puts the WAL into the file
    old = fact("verify", "r.db")
    shutil.copy2("r.db", "copy.db")
    add("app.db", "newer")
    run("follow", "app.db", "r.db", "--once")
    check(fact("verify", "r.db")["seq"] > old["seq"])
    put_back("copy.db", "r.db")
    said = run("verify", "r.db", code=3).stderr
    check(old["sum"] in said, said)
    with background("follow", "app.db", "r.db") as follower:
        line_of(follower, "r.db: live")
        seq = add("app.db", "newest")[-1]
        with contextlib.closing(through_vfs("r.db")) as db:
            db.execute("PRAGMA busy_timeout=20000")
            db.execute(f"PRAGMA hyperwal_wait={seq}").fetchall()
        follower.kill()
        follower.wait()
    put_back("copy.db", "r.db")
    told = fact("verify", "r.db")
    check((told["seq"], told["sum"]) == (old["seq"], old["sum"]), told, old)
    run("follow", "app.db", "r.db", "--once")
    check(fact("verify", "r.db")["seq"] == seq)
    check(dump("r.db") == dump("app.db"), "the replica differs")


def tests():
    for name, (action, when_closed, when_open) in TABLE.items():
        test = closed(action, when_closed)
        test.__name__ = name + "_while_closed"
        yield test
        if when_open is not None:
            test = opened(action, when_open)
            test.__name__ = name + "_while_open"
            yield test
    yield the_journal_mode_stays_while_the_database_is_open
    yield a_wal_deleted_after_a_kill_is_made_up_for_by_the_log
    yield an_older_log_signs_nothing_until_it_is_adopted
    yield a_replica_written_by_a_stock_program_is_repaired
    yield a_replica_put_back_from_a_copy_is_told_apart


def main():
    wanted = sys.argv[1:]
    loaded = load_extension()
    results = [run_test(test) for test in tests() if not wanted or test.__name__ in wanted]
    loaded.close()
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
