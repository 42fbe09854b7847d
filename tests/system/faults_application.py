"""An application that test_verb_faults.py starts: for each line of input it opens app.db with the VFS, commits
the line, asks for its seq, and closes.  Prints "committed SEQ", SEQ None if it cannot be told, or "failed WHY".
A line that begins with "kept" is committed by a connection that stays open from the first such line on.

    faults_application.py EXTENSION
"""

import contextlib
import sqlite3
import sys


kept = []


def connect():
    return sqlite3.connect("file:app.db?vfs=hyperwal&timeout=2000", uri=True, isolation_level=None, timeout=5)


@contextlib.contextmanager
def keep():
    if not kept:
        kept.append(connect())
    yield kept[0]


def commit(text):
    with keep() if text.startswith("kept") else contextlib.closing(connect()) as db:
        db.execute("INSERT INTO t(b) VALUES(?)", (text,))
        try:
            return int(db.execute("PRAGMA hyperwal_seq").fetchone()[0])
        except sqlite3.Error:
            return None


def main():
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print("committed", commit(line.strip()), flush=True)
        except sqlite3.Error as error:
            print("failed", error, flush=True)


if __name__ == "__main__":
    main()
