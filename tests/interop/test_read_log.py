#!/usr/bin/python3
"""What the program writes, read by read_log.py, which knows docs/FORMAT.md and nothing else.

One line a test (docs/TESTING.md).  Names given as arguments run only those tests.
"""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import read_files  # noqa: E402
import read_log  # noqa: E402

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
SOURCE = os.environ.get("HW_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
PROGRAM = os.path.join(BUILD, "hyperwal")
EXTENSION = os.path.join(BUILD, "hyperwal.so")


def check(condition, *facts):
    if not condition:
        raise AssertionError("; ".join(str(fact) for fact in facts))


def run(*args):
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, check=False)
    check(done.returncode == 0, args, done.returncode, done.stderr[-600:])
    return done.stdout


def contents(path):
    with open(path, "rb") as file:
        return file.read()


def stock(path):
    return contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=20))


def captured(path, **parameters):
    extra = "".join(f"&{name}={value}" for name, value in parameters.items())
    return contextlib.closing(sqlite3.connect(f"file:{path}?vfs=hyperwal{extra}", uri=True,
                                              isolation_level=None, timeout=20))


def make(path, rows=2000, page_size=4096):
    """A database with something in it, and its log."""
    with stock(path) as db:
        db.execute(f"PRAGMA page_size={page_size}")
        db.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO t(b) VALUES(?)", ((f"row {i} " * 9,) for i in range(rows)))
        db.execute("COMMIT")
    run("init", path)


def work(db, seed, commits=60, bulk=True):
    """Small commits, one that takes several blocks, a shrink."""
    chance = random.Random(seed)
    for i in range(commits):
        what = chance.randrange(4)
        if what == 0:
            db.execute("DELETE FROM t WHERE a % 97 = ?", (chance.randrange(97),))
        elif what == 1:
            db.execute("UPDATE t SET b = ? WHERE a % 50 = ?", (f"new {i} " * 8, i % 50))
        else:
            db.execute("INSERT INTO t(b) VALUES(?)", (chance.randbytes(chance.randrange(9000)),))
        if bulk and i == commits // 2:
            db.execute("BEGIN")
            db.executemany("INSERT INTO t(b) VALUES(?)",
                           ((chance.randbytes(900),) for _ in range(9000)))
            db.execute("COMMIT")
            db.execute("DELETE FROM t WHERE a > 3000")
            db.execute("VACUUM")


def compare(database, facts):
    """The same facts as the program tells, and the same bytes as it restores."""
    status = json.loads(run("status", database, "--json"))
    for name in ("key", "discovery_key", "length", "byte_length", "fork", "tree_hash", "seq",
                 "pages", "sum"):
        check(status[name] == facts[name], name, status[name], facts[name])
    run("restore", database, "program.db")
    check(contents("program.db") == contents("reader.db"), "the restored files differ")
    with stock("reader.db") as db:
        check(db.execute("PRAGMA integrity_check").fetchone() == ("ok",), "integrity")


def read(database):
    facts = read_log.main(database + "-hyper", "reader.db")
    compare(database, facts)
    return facts


# ------------------------------------------------------------------------------- the tests

def newest_state_is_what_restore_writes():
    make("a.db")
    with captured("a.db") as db:
        work(db, 1)
        run("label", "a.db", "middle")
        run("snapshot", "a.db")
        work(db, 2, bulk=False)
    facts = read("a.db")
    check(list(facts["labels"]) == ["middle"], facts["labels"])
    check(facts["snapshots"] == 2 and facts["gaps"] == 0 and facts["pruned"] == 0, facts)


def snapshot_that_was_made_among_commits_is_laid_down():
    make("a.db", rows=100000)
    chance = random.Random(20)
    for _ in range(5):  # on a busy machine there may be no commit meanwhile
        with captured("a.db") as db:
            maker = subprocess.Popen([PROGRAM, "snapshot", "a.db"], stdout=subprocess.DEVNULL)
            for i in range(100000):
                db.execute("UPDATE t SET b = ? WHERE a = ?",
                           (f"changed {i} " * 7, chance.randrange(100000)))
                if maker.poll() is not None and i > 200:
                    break
            check(maker.wait(timeout=60) == 0, maker.returncode)
        facts = read("a.db")
        reader = read_log.Reader(read_log.Log("a.db-hyper").blocks)
        newest = reader.snapshots[max(reader.snapshots)]
        if newest["least"] < newest["greatest"]:
            break
        os.remove("program.db")
    check(facts["snapshots"] >= 2 and newest["least"] < newest["greatest"], newest["least"],
          newest["greatest"])


def pages_of_512_and_65536_bytes_are_read():
    for size in (512, 65536):
        name = f"a{size}.db"
        make(name, page_size=size, rows=300)
        with captured(name) as db:
            work(db, size, commits=20, bulk=False)
        read(name)
        os.remove("program.db")


def pruned_log_is_read():
    make("a.db")
    with captured("a.db") as db:
        work(db, 3)
        run("snapshot", "a.db")
        work(db, 4, bulk=False)
        run("snapshot", "a.db")
        head = json.loads(run("status", "a.db", "--json"))["seq"]
        run("prune", "a.db", "--keep", head)
        work(db, 5, commits=10, bulk=False)
    facts = read("a.db")
    check(facts["pruned"] > 50, facts["pruned"])
    generations = [name for name in os.listdir("a.db-hyper") if name.count(".") == 2]
    check(generations, os.listdir("a.db-hyper"))


def adopted_copy_has_a_fork_of_its_own():
    make("a.db")
    with captured("a.db") as db:
        work(db, 6, commits=10, bulk=False)
    shutil.copy("a.db", "b.db")
    shutil.copytree("a.db-hyper", "b.db-hyper")
    run("init", "b.db", "--adopt")
    with captured("b.db") as db:
        work(db, 7, commits=10, bulk=False)
    facts = read("b.db")
    check(facts["fork"] == 1, facts["fork"])


def gap_is_passed_by_a_snapshot():
    make("a.db")
    with captured("a.db") as db:
        work(db, 8, commits=5, bulk=False)
    with stock("a.db") as db:
        work(db, 9, commits=5, bulk=False)
    with captured("a.db") as db:
        work(db, 10, commits=5, bulk=False)
        run("snapshot", "a.db")
        work(db, 11, commits=5, bulk=False)
    facts = read("a.db")
    check(facts["gaps"] == 1, facts["gaps"])


def log_of_a_killed_writer_is_read():
    make("a.db", rows=100)
    program = f"""
import sqlite3
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension({EXTENSION!r})
db = sqlite3.connect("file:a.db?vfs=hyperwal&durability=local", uri=True, isolation_level=None)
for i in range(100000):
    db.execute("INSERT INTO t(b) VALUES(randomblob(3000))")
    print(i, flush=True)
"""
    writer = subprocess.Popen(["/usr/bin/python3", "-c", program], stdout=subprocess.PIPE,
                              text=True)
    try:
        for line in writer.stdout:
            if int(line) >= 200:
                break
        writer.send_signal(signal.SIGKILL)
    finally:
        writer.kill()
        writer.communicate()
    facts = read_log.main("a.db-hyper", "reader.db")
    with stock("reader.db") as db:
        count, = db.execute("SELECT count(*) FROM t").fetchone()
    check(count >= 300, "acknowledged rows are missing", count)
    check(facts["gaps"] == 0, facts)


def any_byte_that_changes_is_noticed():
    make("a.db", rows=50)
    with captured("a.db") as db:
        work(db, 12, commits=3, bulk=False)
    read("a.db")
    length = read_log.Log("a.db-hyper").tree_length
    check(length > 0, length)
    chance = random.Random(1)
    for name in ("log", "tree", "00000001.seg"):
        path = os.path.join("a.db-hyper", name)
        whole = contents(path)
        for at in sorted(chance.sample(range(len(whole)), min(150, len(whole)))):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << chance.randrange(8)
            with open(path, "wb") as file:
                file.write(damaged)
            try:
                read_log.main("a.db-hyper")
            except read_log.Bad:
                continue
            hint = name == "tree" and at >= 80 + 80 * length  # made anew when the log is opened
            check(hint, f"{name}: byte {at} changed, nothing was noticed")
        with open(path, "wb") as file:
            file.write(whole)


def note_and_files_of_the_capture_tell_the_newest_state():
    make("a.db")
    with captured("a.db") as db:
        work(db, 13, commits=10, bulk=False)
        run("label", "a.db", "x")
        shared = read_files.read_shared(contents("a.db-hyper/shared"))
        check(shared["worker"] == os.getpid(), shared)
        check(os.path.exists(f"a.db-hyper/open.{os.getpid()}"), os.listdir("a.db-hyper"))
    facts = read("a.db")
    note = read_files.read_note(bytes.fromhex(facts["note"]))
    check((note["seq"], note["pages"], f"{note['sum']:016x}")
          == (facts["seq"], facts["pages"], facts["sum"]), note)
    check(note["label"] == facts["length"] - 1, note)
    seq, page_size, total = read_files.read_sums(contents("a.db-hyper/sums"), facts["pages"])
    check((seq, page_size, f"{total:016x}") == (facts["seq"], 4096, facts["sum"]), seq)
    position = read_files.read_position(contents("a.db-hyper/position"))
    stat = os.stat("a.db")
    check((position["inode"], position["size"], position["modified_ns"], position["clean"])
          == (stat.st_ino, stat.st_size, stat.st_mtime_ns, True), position)
    check(position["path"] == os.path.realpath("a.db"), position["path"])
    shared = read_files.read_shared(contents("a.db-hyper/shared"))
    check(shared["durable_length"] == facts["length"] and shared["alarm"] == "", shared)
    check(contents("a.db-hyper/worker.lock") == b"", "worker.lock")


def files_of_a_replica_tell_its_state():
    make("a.db")
    run("follow", "--once", "a.db", "r.db")
    with captured("a.db") as db:
        work(db, 14, commits=20, bulk=False)
    run("follow", "--once", "a.db", "r.db")
    facts = read("a.db")
    key, source = read_files.read_replica(contents("r.db-hyper/replica"))
    check(key == facts["key"] and os.path.samefile(source, "a.db-hyper"), key, source)
    record = read_files.read_ring(contents("r.db-hyper/position"))[-1]
    check((record["seq"], f"{record['sum']:016x}", record["pages"])
          == (facts["seq"], facts["sum"], facts["pages"]), record)
    check(record["closed"], record)
    check(read_files.read_shared(contents("r.db-hyper/shared"))["applied_seq"]
          == facts["seq"] + 1, "shared")


def the_log_in_the_description_is_a_log():
    """The example of docs/FORMAT.md was written by other code: the program accepts it."""
    with open(os.path.join(SOURCE, "docs/FORMAT.md"), encoding="utf-8") as file:
        dump = file.read().split("### A whole log", 1)[1].split("```")[1]
    os.mkdir("example")
    out = None
    for line in dump.splitlines():
        name = re.fullmatch(r"(\S+):", line)
        if name:
            out = os.path.join("example", name.group(1))
        elif line:
            with open(out, "ab") as file:
                file.write(bytes.fromhex(line[:48].strip()))
    facts = read_log.main("example")
    check((facts["length"], facts["commits"], facts["seq"]) == (1, 2, 0), facts)
    check(read_files.read_note(bytes.fromhex(facts["note"]))["seq"] == 0, facts["note"])
    verified = json.loads(run("verify", "--deep", "--json", "example"))
    check(verified["ok"] and verified["key"] == facts["key"], verified)
    status = json.loads(run("status", "--json", "example"))
    check(status["tree_hash"] == facts["tree_hash"] and status["role"] == "mirror", status)


TESTS = (newest_state_is_what_restore_writes,
         snapshot_that_was_made_among_commits_is_laid_down, pages_of_512_and_65536_bytes_are_read,
         pruned_log_is_read, adopted_copy_has_a_fork_of_its_own, gap_is_passed_by_a_snapshot,
         log_of_a_killed_writer_is_read, any_byte_that_changes_is_noticed,
         note_and_files_of_the_capture_tell_the_newest_state, files_of_a_replica_tell_its_state,
         the_log_in_the_description_is_a_log)


def main(names):
    failed, start = False, os.getcwd()
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(EXTENSION)
    for test in TESTS:
        if names and test.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
            try:
                test()
                print(f"ok {test.__name__}", flush=True)
            except Exception as error:  # every test is told of, whatever happens in it
                failed = True
                traceback.print_exc(file=sys.stdout)
                print(f"not ok {test.__name__}: {error}", flush=True)
            finally:
                os.chdir(start)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
