"""The session that scripts/demo shows.  The clients are ordinary: Python's sqlite3 and the sqlite3 shell."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ISO = "/usr/share/iso-codes/json"
ZONES = "/usr/share/zoneinfo"
ROWS_A_TRANSACTION = 5
LONG = 120  # seconds

SCHEMA = """
CREATE TABLE country(alpha2 TEXT PRIMARY KEY, alpha3 TEXT, numeric TEXT, name TEXT, official TEXT);
CREATE TABLE subdivision(code TEXT PRIMARY KEY, country TEXT, name TEXT, kind TEXT, parent TEXT);
CREATE INDEX subdivision_country ON subdivision(country);
CREATE TABLE language(alpha3 TEXT PRIMARY KEY, name TEXT, scope TEXT, kind TEXT);
CREATE TABLE currency(alpha3 TEXT PRIMARY KEY, name TEXT, numeric TEXT);
CREATE TABLE script(alpha4 TEXT PRIMARY KEY, name TEXT, numeric TEXT);
CREATE TABLE zone(name TEXT PRIMARY KEY, countries TEXT, coordinates TEXT, comment TEXT);
CREATE TABLE rule(id INTEGER PRIMARY KEY, line TEXT);
CREATE TABLE progress(one INTEGER PRIMARY KEY CHECK(one = 1), loaded INTEGER);
INSERT INTO progress VALUES(1, 0);
"""
TABLES = "country subdivision language currency script zone rule".split()


class Demo:
    def __init__(self, build):
        self.program = os.path.join(build, "hyperwal")
        self.extension = os.path.join(build, "hyperwal.so")
        self.failed = 0
        self.children = []

    def check(self, what, held, fact=""):
        print(f"  {'ok ' if held else 'NOT'} {what}{': ' if fact != '' else ''}{fact}", flush=True)
        self.failed += not held

    def run(self, *args):
        """The program; a failure ends the demo."""
        done = subprocess.run([self.program, *args], capture_output=True, text=True, timeout=LONG)
        if done.returncode != 0:
            raise RuntimeError(f"hyperwal {' '.join(args)}: exit {done.returncode}: {done.stderr}")
        return done.stdout

    def facts(self, *args):
        return [json.loads(line) for line in self.run(*args, "--json").splitlines()]

    def start(self, *args):
        child = subprocess.Popen([self.program, *args], stdout=subprocess.PIPE, text=True)
        self.children.append(child)
        return child

    def stop(self):
        for child in reversed(self.children):  # who follows, before who serves
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def step(text):
    print(f"\n{text}", flush=True)


def records():
    """Every row of the data sets, as (table, values)."""
    def iso(number):
        with open(f"{ISO}/iso_{number}.json", encoding="utf-8") as file:
            return json.load(file)[number]

    for r in iso("3166-1"):
        yield "country", (r["alpha_2"], r["alpha_3"], r["numeric"], r["name"], r.get("official_name"))
    for r in iso("3166-2"):
        yield "subdivision", (r["code"], r["code"][:2], r["name"], r["type"], r.get("parent"))
    for r in iso("639-3"):
        yield "language", (r["alpha_3"], r["name"], r["scope"], r["type"])
    for r in iso("4217"):
        yield "currency", (r["alpha_3"], r["name"], r["numeric"])
    for r in iso("15924"):
        yield "script", (r["alpha_4"], r["name"], r["numeric"])
    with open(f"{ZONES}/zone1970.tab", encoding="utf-8") as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if not line.startswith("#") and len(fields) >= 3:
                yield "zone", (fields[2], fields[0], fields[1], fields[3] if len(fields) > 3 else None)
    with open(f"{ZONES}/tzdata.zi", encoding="utf-8") as file:
        for number, line in enumerate(file):
            yield "rule", (number + 1, line.rstrip("\n"))


def batches(size):
    batch = []
    for record in records():
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def shell(path, sql):
    """A stock sqlite3 shell, which knows nothing of hyperwal."""
    done = subprocess.run(["sqlite3", "-batch", "-bail", "-cmd", ".timeout 5000", path, sql],
                          capture_output=True, text=True, timeout=LONG)
    if done.returncode != 0:
        raise RuntimeError(f"sqlite3 {path}: {done.stderr}")
    return done.stdout.strip()


def through_vfs(path):
    db = sqlite3.connect(f"file:{path}?vfs=hyperwal", uri=True, isolation_level=None, timeout=20)
    db.execute("PRAGMA busy_timeout=20000")
    return db


def seq_of(db):
    return int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])


def size(number):
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024 or unit == "MiB":
            return f"{number:.1f} {unit}" if unit != "bytes" else f"{number} {unit}"
        number /= 1024


def insert(db, table, values):
    db.execute(f"INSERT INTO {table} VALUES({','.join('?' * len(values))})", values)


def load(demo, db):
    """All rows in many small transactions, while a stock shell looks at the replica."""
    count, commits, seen = 0, 0, []
    sum_of_counts = "+".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
    started = time.monotonic()
    looked = 0.0
    for batch in batches(ROWS_A_TRANSACTION):
        db.execute("BEGIN IMMEDIATE")
        for table, values in batch:
            insert(db, table, values)
        count += len(batch)
        db.execute("UPDATE progress SET loaded = ?", (count,))
        db.execute("COMMIT")
        commits += 1
        if commits % 400 == 0:
            before = time.monotonic()
            seen.append(shell("replica.db", f"SELECT loaded, {sum_of_counts} FROM progress"))
            looked += time.monotonic() - before
    seconds = time.monotonic() - started - looked
    pairs = [tuple(map(int, text.split("|"))) for text in seen]
    print(f"  {count} rows in {commits} transactions, {commits / seconds:.0f} transactions/s")
    print(f"  what the sqlite3 shell saw in the replica meanwhile: {', '.join(str(a) for a, _ in pairs)}")
    demo.check("the replica grew while the load ran, and never went back",
               [a for a, _ in pairs] == sorted(a for a, _ in pairs) and pairs[-1][0] > 0)
    demo.check("no look saw a part of a transaction", all(a == b for a, b in pairs))
    return count, commits


def lag(demo, db):
    """Commit here, visible there: the time between, as a client of the replica sees it."""
    times = []
    with contextlib.closing(through_vfs("replica.db")) as replica:
        for i in range(300):
            db.execute("UPDATE progress SET loaded = loaded + 1")
            committed = time.monotonic()
            replica.execute(f"PRAGMA hyperwal_wait={seq_of(db)}").fetchone()
            times.append((time.monotonic() - committed) * 1000)
        theirs = replica.execute("SELECT loaded FROM progress").fetchone()
    ours = db.execute("SELECT loaded FROM progress").fetchone()
    times.sort()
    demo.check("300 commits, each visible in the replica when its seq was waited for", ours == theirs,
               f"median {statistics.median(times):.2f} ms, slowest {times[-1]:.1f} ms "
               "(durable in the log, and applied)")


def figures(demo):
    # Transactions alone: a snapshot is a copy of the database, which the WAL has no match for.
    entries = [e for e in demo.facts("log", "app.db") if e["type"] == "transaction"]
    page_size = demo.facts("status", "app.db")[0]["page_size"]
    wal = sum(e["pages"] * (page_size + 24) for e in entries)
    log = sum(e["bytes"] for e in entries)
    stored = demo.facts("status", "app.db")[0]["log_bytes"]
    print(f"  {len(entries)} transactions: {size(wal)} in the WAL, {size(log)} in the log; "
          f"database {size(os.path.getsize('app.db'))}, log on disk {size(stored)}")
    demo.check("the log takes less than a tenth of the WAL's bytes", log < wal / 10,
               f"{100 * log / wal:.2f} %")


def accident(demo, db):
    before = seq_of(db)
    rows = db.execute("SELECT count(*) FROM subdivision").fetchone()[0]
    kept = db.execute("SELECT * FROM subdivision ORDER BY code").fetchall()
    step(f"5. At seq {before} there are {rows} subdivisions.  Somebody types DROP TABLE subdivision;")
    db.execute("DROP TABLE subdivision")
    after = seq_of(db)
    with contextlib.closing(through_vfs("replica.db")) as replica:
        replica.execute(f"PRAGMA hyperwal_wait={after}").fetchone()
    demo.check("the replica lost the table too, as a replica must",
               shell("replica.db", "SELECT count(*) FROM sqlite_schema WHERE name='subdivision'") == "0")

    with contextlib.closing(sqlite3.connect(f"file:app.db?vfs=hyperwal&seq={before}", uri=True)) as past:
        found = past.execute("SELECT count(*) FROM subdivision WHERE country = 'FR'").fetchone()[0]
    demo.check(f"the past can be asked directly, with file:app.db?vfs=hyperwal&seq={before}",
               found == sum(row[1] == "FR" for row in kept), f"{found} subdivisions of France")

    step(f"6. hyperwal restore app.db before.db --seq {before}")
    started = time.monotonic()
    reached = demo.facts("restore", "app.db", "before.db", "--seq", str(before))[0]
    seconds = time.monotonic() - started
    demo.check("the restored database is at that seq", reached["seq"] == before,
               f"{size(os.path.getsize('before.db'))} in {seconds * 1000:.0f} ms")
    demo.check("it is sound", shell("before.db", "PRAGMA integrity_check") == "ok")
    demo.check("its rows are those from before the accident",
               int(shell("before.db", "SELECT count(*) FROM subdivision")) == rows, f"{rows} rows")
    db.execute("ATTACH 'file:before.db?vfs=unix&mode=ro' AS before")
    db.execute("BEGIN IMMEDIATE")
    db.execute(db.execute("SELECT sql FROM before.sqlite_schema WHERE name='subdivision'").fetchone()[0])
    db.execute("INSERT INTO subdivision SELECT * FROM before.subdivision")
    db.execute("CREATE INDEX subdivision_country ON subdivision(country)")
    db.execute("COMMIT")
    db.execute("DETACH before")
    demo.check("copied back into the live database, nothing is missing",
               db.execute("SELECT * FROM subdivision ORDER BY code").fetchall() == kept)


def network(demo, db):
    """A server, and a follower that knows nothing but its URL; it is killed, and comes back."""
    server = demo.start("serve", "--listen", "tcp://127.0.0.1:0", "--allow-write", "any", "app.db")
    url = server.stdout.readline().split()[2]
    server.stdout.readline()  # ready
    step(f"7. Over the network: hyperwal follow {url} far.db")
    started = time.monotonic()
    far = demo.start("follow", url, "far.db")
    print("  " + far.stdout.readline().rstrip() + f", {(time.monotonic() - started) * 1000:.0f} ms after its start")
    db.execute("PRAGMA hyperwal_durability = remote_apply").fetchone()
    times = []
    for _ in range(200):
        committing = time.monotonic()
        db.execute("UPDATE progress SET loaded = loaded + 1")
        times.append((time.monotonic() - committing) * 1000)
    ours = db.execute("SELECT loaded FROM progress").fetchone()[0]
    demo.check("200 commits with durability=remote_apply, each visible there before it returns",
               int(shell("far.db", "SELECT loaded FROM progress")) == ours,
               f"median {statistics.median(times):.2f} ms, commit and fdatasyncs included")
    db.execute("PRAGMA hyperwal_durability = async").fetchone()
    far.kill()
    far.wait()
    for _ in range(200):
        db.execute("UPDATE progress SET loaded = loaded + 1")
    last = seq_of(db)
    far = demo.start("follow", url, "far.db")
    far.stdout.readline()
    with contextlib.closing(through_vfs("far.db")) as replica:
        replica.execute(f"PRAGMA hyperwal_wait={last}").fetchone()
    demo.check("killed with -9, it goes on where it was",
               shell("far.db", ".dump") == shell("app.db", ".dump"))
    told = demo.facts("status", "app.db")[0]["peers"]
    demo.check("the primary's status knows how far it is", any(p["durable_seq"] is not None for p in told))
    return url


def from_afar(demo, db, url):
    """The same database by its URL, as if it were a local file: only what a query reads is fetched."""
    step(f"8. No replica at all: sqlite3.connect('file:{url}?vfs=hyperwal', uri=True)")
    started = time.monotonic()
    with contextlib.closing(through_vfs(url)) as remote:
        name = remote.execute("SELECT name FROM country WHERE alpha2 = 'IS'").fetchone()[0]
        seconds = time.monotonic() - started
        told = json.loads(remote.execute("PRAGMA hyperwal_status").fetchone()[0])
        demo.check("a query", name == "Iceland", f"{name}, {seconds * 1000:.0f} ms after nothing was there; "
                   f"{told['present_pages']} of {told['pages']} pages are here")
        db.execute("UPDATE progress SET loaded = loaded + 1")
        remote.execute(f"PRAGMA hyperwal_wait={seq_of(db)}").fetchone()
        theirs, ours = (c.execute("SELECT loaded FROM progress").fetchone() for c in (remote, db))
        demo.check("what is committed there is seen here", theirs == ours)
        times = []
        for _ in range(100):
            committing = time.monotonic()
            remote.execute("UPDATE progress SET loaded = loaded + 1")
            times.append((time.monotonic() - committing) * 1000)
        theirs, ours = (c.execute("SELECT loaded FROM progress").fetchone() for c in (remote, db))
        demo.check("100 commits made here, durable in the log there before they return", theirs == ours,
                   f"median {statistics.median(times):.2f} ms")


def session(demo):
    step("1. A database with its log, and a follower that keeps a replica")
    demo_db = sqlite3.connect(":memory:")
    demo_db.enable_load_extension(True)
    demo_db.load_extension(demo.extension)
    with contextlib.closing(through_vfs("app.db")) as db:
        db.executescript(SCHEMA)
        seq_of(db)
        follower = demo.start("follow", "app.db", "replica.db")
        print("  " + follower.stdout.readline().rstrip())

        step("2. Loading country, language, currency and time zone tables, "
             f"{ROWS_A_TRANSACTION} rows a transaction")
        load(demo, db)
        step("3. How far is the replica behind?")
        lag(demo, db)
        step("4. What does it cost?")
        figures(demo)
        accident(demo, db)
        url = network(demo, db)
        from_afar(demo, db, url)
        last = seq_of(db)
        with contextlib.closing(through_vfs("replica.db")) as replica:
            replica.execute(f"PRAGMA hyperwal_wait={last}").fetchone()

    step("9. In the end")
    ours, theirs = shell("app.db", ".dump"), shell("replica.db", ".dump")
    demo.check("primary and replica have the same content", ours == theirs, size(len(ours)))
    demo.stop()
    demo.check("the follower ended cleanly", follower.returncode == 0)
    told = demo.facts("verify", "app.db", "--deep")[0]
    demo.check("every block, signature and state of the log verifies", told["ok"],
               f"{told['length']} blocks")
    demo.run("verify", "replica.db")
    demo.check("the replica has the state that the log names", True)
    demo_db.close()


def main():
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help="leave the databases and say where")
    arguments = parser.parse_args()
    demo = Demo(os.path.abspath(arguments.build))
    directory = tempfile.mkdtemp(prefix="hyperwal-demo-")
    os.chdir(directory)
    os.environ["HYPERWAL_IDENTITY"] = os.path.join(directory, "identity")
    os.environ["HYPERWAL_CACHE"] = os.path.join(directory, "cache")
    started = time.monotonic()
    try:
        session(demo)
    except Exception as error:  # whatever failed, the demo did not hold
        demo.check("the session ran to its end", False, f"{type(error).__name__}: {error}")
    finally:
        demo.stop()
        os.chdir("/")
        if arguments.keep:
            print(f"\nEverything is in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"\n{'All of it held' if demo.failed == 0 else f'{demo.failed} checks failed'}; "
          f"{time.monotonic() - started:.0f} s")
    return 0 if demo.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
