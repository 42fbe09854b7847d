#!/usr/bin/python3
"""`hyperwal serve` while what it serves and watches comes, moves, goes, and comes back.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.
"""

import contextlib
import os
import shutil
import signal
import sys
import time

from test_daemon import check_logged, make, rested, restored, setting, stock
from test_network import background, until
from test_program import check, run, run_test
from test_serve_faults import Faults


def insert(path, count=1):
    with contextlib.closing(stock(path)) as db:
        for _ in range(count):
            db.execute("INSERT INTO t(b) VALUES('news')")


def said(process, words, count=1):
    until(lambda: process.said().count(words) >= count, words)


@contextlib.contextmanager
def serving(dir, *lines, environment=None):
    """A server of these lines of configuration, ready; databases rest soon."""
    with background("serve", "--config", setting(dir, "rest-after = 1", *lines),
                    environment=environment) as process:
        process.line("ready")
        yield process


def reload(process, dir, *lines):
    """`lines` have a database or directory that was not served: its line is the end of the reload."""
    setting(dir, "rest-after = 1", *lines)
    process.process.send_signal(signal.SIGHUP)


def watches(process):
    """How many directories it watches."""
    count, of_process = 0, f"/proc/{process.process.pid}/fdinfo"
    for file in os.listdir(of_process):
        with contextlib.suppress(OSError), open(f"{of_process}/{file}", encoding="ascii") as facts:
            count += facts.read().count("inotify wd:")
    return count


# --------------------------------------------------------------------------------- links


def linked(dir):
    """A directory, and the database outside of it that it has a link to."""
    for name in ("linked", "elsewhere", "more"):
        os.mkdir(f"{dir}/{name}")
    path = f"{dir}/elsewhere/x.db"
    make(path)
    make(f"{dir}/more/more.db")
    os.symlink(path, f"{dir}/linked/x.db")
    return f"directory = {dir}/linked", path


def a_database_that_a_link_leads_to_is_watched_where_it_is(dir):
    directory, path = linked(dir)
    with serving(dir, directory) as process:
        rested(process, 10)
        insert(path)
        check_logged(dir, path, 4)
        reload(process, dir, directory, f"directory = {dir}/more")
        process.line("more.db ")
        check("no longer served" not in process.said(), process.said())
        rested(process, 3 + 9 + 8)
        insert(f"{dir}/linked/x.db")
        check_logged(dir, path, 5)
        reload(process, dir, f"directory = {dir}/more")
        said(process, "elsewhere/x.db: not in the configuration")


def a_link_that_is_removed_or_turned_leads_nowhere_else(dir):
    directory, path = linked(dir)
    with serving(dir, directory) as process:
        os.unlink(f"{dir}/linked/x.db")
        said(process, "linked/x.db: removed or renamed")
        os.symlink(path, f"{dir}/linked/x.db")
        process.line("x.db ")
        os.symlink(f"{dir}/more/more.db", f"{dir}/linked/x.new")
        os.rename(f"{dir}/linked/x.new", f"{dir}/linked/x.db")
        process.line("more.db ")
        said(process, "linked/x.db: removed or renamed", 2)
        rested(process, 10)
        insert(f"{dir}/more/more.db")
        check_logged(dir, f"{dir}/more/more.db", 4)


def a_directory_behind_a_link_that_cannot_be_watched_is_tried_again(dir):
    faults = Faults()
    directory, path = linked(dir)
    faults.begin_at("inotify_add_watch", "/elsewhere")
    with serving(dir, directory, environment=faults.environment) as process:
        said(process, "elsewhere: cannot watch it")
        until(lambda: faults.seen() > 1, "it is tried again")
        faults.end()
        until(lambda: watches(process) == 2, "it is watched")
        rested(process, 10)
        insert(path)
        check_logged(dir, path, 4)


# ------------------------------------------------------------------------ named databases


def unlink(path):
    """The database, with what SQLite has beside it, but not its log."""
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)


def is_logged(dir, path, count):
    until(lambda: restored(dir, path) == count, f"{count} rows of {path} are logged")
    run("verify", path, "--deep")


def a_named_database_that_is_put_back_is_served(dir):
    path, backup = f"{dir}/a.db", f"{dir}/../backup.db"
    make(path)
    make(backup, rows=5)
    with serving(dir, f"database = {path}") as process:
        for times in (1, 2):
            insert(path)
            unlink(path)
            said(process, "a.db: removed or renamed", times)
            rested(process, 3 + 5)  # it is closed
            time.sleep(8)  # it is looked for at growing intervals
            began = time.monotonic()
            shutil.copy(backup, path)
            process.line("a.db ")
            check(time.monotonic() - began < 3, "looked for at a pace only")
            insert(path)
            is_logged(dir, path, 6)
        check("no such database" not in process.said(), process.said())


def a_named_database_that_another_file_replaces_is_served(dir):
    path = f"{dir}/a.db"
    make(path)
    make(f"{dir}/../backup.db", rows=5)
    with serving(dir, f"database = {path}") as process:
        os.rename(f"{dir}/../backup.db", path)
        process.line("a.db ")
        insert(path)
        is_logged(dir, path, 6)


def a_named_link_whose_database_is_put_back_is_served(dir):
    _, path = linked(dir)
    make(f"{dir}/../backup.db", rows=5)
    for line in (f"database = {dir}/linked/x.db", f"directory = {dir}/linked"):
        with serving(dir, line) as process:
            unlink(path)
            said(process, "x.db: removed or renamed")
            shutil.copy(f"{dir}/../backup.db", path)
            process.line("x.db ")
            insert(f"{dir}/linked/x.db")
            is_logged(dir, path, 6)


def a_reload_before_a_removal_is_known_gives_nothing_up(dir):
    path, backup = f"{dir}/a.db", f"{dir}/../backup.db"
    make(path)
    make(backup, rows=5)
    with serving(dir, f"database = {path}") as process:
        process.process.send_signal(signal.SIGSTOP)
        unlink(path)
        shutil.copy(backup, path)
        process.process.send_signal(signal.SIGHUP)
        process.process.send_signal(signal.SIGCONT)
        process.line("a.db ")
        insert(path)
        is_logged(dir, path, 6)


# --------------------------------------------------------------------------- directories


def remove(path):
    """All that is in the directory, and what a server makes in it meanwhile."""
    def is_gone():
        shutil.rmtree(path, ignore_errors=True)
        return not os.path.exists(path)

    until(is_gone, f"{path} is removed")


def a_directory_that_is_removed_and_made_again_is_served(dir):
    place = f"{dir}/place"
    os.mkdir(place)
    make(f"{place}/a.db")
    with serving(dir, f"directory = {place}") as process:
        for name in ("b.db", "c.db"):
            remove(place)
            said(process, "place: cannot watch it: No such file")
            os.mkdir(place)
            make(f"{place}/{name}")
            process.line(f"{name} ")
            insert(f"{place}/{name}")
            check_logged(dir, f"{place}/{name}", 4)
            check(watches(process) == 1, watches(process))
        said(process, "a.db: removed or renamed")


def a_directory_that_another_one_replaces_is_served(dir):
    place, old = f"{dir}/place", f"{dir}/old"
    os.mkdir(place)
    make(f"{place}/a.db")
    with serving(dir, f"directory = {place}") as process:
        os.rename(place, old)
        os.mkdir(place)
        make(f"{place}/a.db", rows=7)
        process.line("a.db ")
        said(process, "a.db: removed or renamed")
        insert(f"{place}/a.db")
        check_logged(dir, f"{place}/a.db", 8)
        check(watches(process) == 1, watches(process))
        make(f"{old}/b.db")
        make(f"{place}/c.db")
        process.line("c.db ")
        check(not os.path.exists(f"{old}/b.db-hyper"), "served in the old directory")


TESTS = (a_database_that_a_link_leads_to_is_watched_where_it_is,
         a_link_that_is_removed_or_turned_leads_nowhere_else,
         a_directory_behind_a_link_that_cannot_be_watched_is_tried_again,
         a_named_database_that_is_put_back_is_served,
         a_named_database_that_another_file_replaces_is_served,
         a_named_link_whose_database_is_put_back_is_served,
         a_reload_before_a_removal_is_known_gives_nothing_up,
         a_directory_that_is_removed_and_made_again_is_served,
         a_directory_that_another_one_replaces_is_served)


def inside(test):
    """Some files of a test lie beside its directory."""
    def run(outer):
        dir = os.path.join(os.path.realpath(outer), "d")
        os.mkdir(dir)
        os.environ["HYPERWAL_IDENTITY"] = os.path.join(dir, "..", "identity")
        test(dir)
    run.__name__ = test.__name__
    return run


def main(wanted):
    results = [run_test(inside(test)) for test in TESTS if not wanted or test.__name__ in wanted]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
