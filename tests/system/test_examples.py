#!/usr/bin/python3
"""The programs of examples/, compiled with the library, do what they show.

One line a test, as docs/TESTING.md says.
"""
import os
import shutil
import subprocess
import sys
import tempfile

BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))


def run(directory, program, *words):
    done = subprocess.run([os.path.join(BUILD, "examples", program), *words], cwd=directory,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def the_embedding_program_reads_its_own_past(directory):
    first, second = run(directory, "embed", "app.db"), run(directory, "embed", "app.db")
    assert "visits 1," in first and "visits_before 0," in first, first
    assert "visits 2," in second and "visits_before 1," in second, second


def the_tour_follows_waits_walks_and_restores(directory):
    out = run(directory, "tour", "app.db", "replica.db", "restored.db")
    assert "the replica has 1 notes" in out, out
    assert "the restored database has 3 notes" in out, out
    assert "before the accident" in out and "genesis" in out and "snapshot" in out, out


def main():
    failed = False
    for test in (the_embedding_program_reads_its_own_past,
                 the_tour_follows_waits_walks_and_restores):
        directory = tempfile.mkdtemp(prefix="hw-examples-", dir=os.environ.get("TMPDIR"))
        try:
            test(directory)
            print("ok", test.__name__, flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            print("not ok %s: %s" % (test.__name__, str(error).replace("\n", " ")), flush=True)
            failed = True
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
