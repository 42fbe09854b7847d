#!/usr/bin/python3
"""Petnames: what a user calls a database, and what becomes of it, seen from the outside.

One line a test: "ok NAME", "not ok NAME: why" or "skip NAME: why" (docs/TESTING.md).  HW_BUILD names the
build directory.  Names given as arguments run only those tests.
"""

import contextlib
import os
import sqlite3
import sys
import tempfile
import traceback

from test_network import PROGRAM, Skip, check, fact, facts, make, run, server


def key_of(src):
    return fact("key", src)["key"]


def base_of(url):
    return url.rsplit("/", 1)[0]


def every_verb_takes_a_petname_for_a_log(dir):
    make("app.db")
    with server("app.db") as primary:
        url, key = primary.urls["app.db"], key_of("app.db")
        told = fact("name", "add", "orders", url)
        check(told == {"name": "orders", "key": key, "path": None, "urls": [url]}, told)
        check(facts("name", "list") == [told], facts("name", "list"))
        for name in ("orders", "hyper:orders"):
            check(fact("status", name)["key"] == key, name)
            check(fact("status", name)["role"] == "remote", name)
            check(fact("status", name)["server"]["key"] == key, name)
            check(fact("key", name)["key"] == key, name)
            check(facts("log", name) == facts("log", "app.db"), name)
            check(fact("verify", name, "--deep")["ok"], name)
            run("restore", name, f"{name}.out")
            run("follow", name, f"{name}.replica", "--once")
            with contextlib.closing(sqlite3.connect(f"{name}.replica")) as db:
                check(db.execute("SELECT count(*) FROM t").fetchone()[0] == 100, name)
        # The replica goes on from there without the petname, too.
        run("name", "remove", "orders")
        check(facts("name", "list") == [], "removed")
        run("follow", url, "orders.replica", "--once")
        check("no log here" in run("log", "hyper:orders", code=1).stderr, "still there")


def name_of_a_local_database_stands_for_its_path(dir):
    make("app.db")
    told = fact("name", "add", "mine", "app.db")
    check(told["path"] == os.path.realpath("app.db") and told["key"] == key_of("app.db"), told)
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    check(fact("status", "mine")["role"] == "primary", "status")
    check(fact("verify", "hyper:mine")["ok"], "verify")
    run("follow", "mine", "r.db", "--once")
    run("restore", "hyper:mine", "o.db")
    os.chdir("..")
    # Without the file it is where it is served.
    with server("app.db") as primary:
        run("name", "add", "--replace", "mine", os.path.join(dir, "gone.db"), primary.urls["app.db"])
        check(fact("status", "mine")["role"] == "remote", "where it is served")


def file_of_that_name_goes_first_unless_it_is_marked(dir):
    make("app.db")
    make("other.db")
    run("name", "add", "other.db", "app.db")
    check(key_of("other.db") != key_of("app.db"), "the file")
    check(key_of("hyper:other.db") == key_of("app.db"), "the petname")
    check(key_of("hyper:./other.db") != key_of("app.db"), "the path")
    check(key_of("hyper://" + os.path.realpath("other.db")) == key_of("other.db"), "the full path")


def unknown_name_is_told_with_those_that_are_near(dir):
    make("app.db")
    run("name", "add", "orders", "app.db")
    for args in (("log", "hyper:ordres"), ("status", "oders"), ("restore", "order", "o.db"),
                 ("verify", "hyper:orderss"), ("name", "remove", "rders")):
        error = run(*args, code=1).stderr
        check("perhaps `orders'" in error, args, error)
    check("perhaps" not in run("log", "nothing-like-it", code=1).stderr, "a hint")


def adding_says_what_is_wrong(dir):
    make("app.db")
    key = key_of("app.db")
    run("name", "add", "a", "app.db")
    for args, code, words in (
            (("a", "app.db"), 1, "already"),
            (("a/b", "app.db"), 2, "no /"),
            (("hyper:b", "app.db"), 2, "without hyper:"),
            (("b",), 2, "needs a NAME"),
            (("b", "hyper://h:99999/x"), 2, "port"),
            (("b", "hyper://h"), 2, "of which database"),
            (("b", "hyper://127.0.0.1:1/x"), 1, "--no-lookup"),
            (("b", "/nowhere/at/all.db"), 1, "No such file"),
            (("b", key), 2, "neither an address nor a path")):
        error = run("name", "add", *args, code=code).stderr
        check(words in error, args, error)
    run("name", "add", "--no-lookup", "c", "hyper://127.0.0.1:1/x")
    run("name", "add", "d", key, "hyper://127.0.0.1:1", "ws://h:1/p/x", "ipc:///s/x")
    told = {entry["name"]: entry for entry in facts("name", "list")}
    check(sorted(told) == ["a", "c", "d"], told)
    check(told["c"]["key"] is None, told["c"])
    check(told["d"] == {"name": "d", "key": key, "path": None,
                        "urls": [f"hyper://127.0.0.1:1/{key}", "ws://h:1/p/x", "ipc:///s/x"]}, told)
    pinned = fact("name", "add", "e", key, f"hyper://127.0.0.1:1?server={key}")
    check(pinned["urls"] == [f"hyper://127.0.0.1:1/{key}?server={key}"], pinned)
    for args in (("name",), ("name", "rename"), ("name", "remove"), ("name", "list", "a", "b")):
        run(*args, code=2)


def names_of_a_server_are_listed_with_their_urls(dir):
    make("app.db")
    make("b-c.db")
    with server("app.db", "b-c.db") as primary:
        base = base_of(primary.urls["app.db"])
        listed = {entry["name"]: entry for entry in facts("name", "list", base)}
        check({name: entry["urls"] for name, entry in listed.items()} ==
              {name: [url] for name, url in primary.urls.items()}, listed)
        for name, entry in listed.items():
            check(entry["key"] == key_of(name) and fact("key", entry["urls"][0])["key"] == key_of(name),
                  entry)
        lines = run("name", "list", base).stdout.splitlines()
        check(sorted(line.rsplit(" ", 2)[0] for line in lines) == ["app.db", "b-c.db"], lines)
        error = run("name", "list", primary.urls["app.db"], code=2).stderr
        check("without one of its databases" in error, error)
    check("nobody listens" in run("name", "list", base, code=1).stderr, "nobody")
    with server("app.db", listen=f"ipc://{dir}/socket") as primary:
        check([entry["name"] for entry in facts("name", "list", f"ipc://{dir}/socket")] == ["app.db"],
              "ipc")


def next_address_is_taken_when_the_first_is_out_of_reach(dir):
    make("app.db")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("name", "add", "orders", "hyper://127.0.0.1:1/app.db", url)
        check(fact("status", "orders")["server"]["name"] == "app.db", "status")
        check(len(facts("log", "orders")) > 0, "log")
        run("follow", "orders", "r.db", "--once")


def another_log_under_a_known_name_is_noticed(dir):
    make("app.db")
    make("new.db")
    with server("app.db") as primary:
        url = primary.urls["app.db"]
        run("name", "add", "orders", url)
        key = key_of("app.db")
    os.mkdir("other")
    for suffix in ("", "-hyper"):
        os.rename("new.db" + suffix, "other/app.db" + suffix)
    listen = "tcp" + base_of(url)[len("hyper"):]
    with server("other/app.db", listen=listen):
        for args in (("log", "orders"), ("restore", "orders", "o.db"), ("follow", "orders", "r.db",
                                                                        "--once")):
            error = run(*args, code=1).stderr
            check(key in error, args, error)
        check(not os.path.exists("o.db"), "something was left")


def registry_lies_where_the_environment_says(dir):
    make("app.db")
    elsewhere = {**os.environ, "HYPERWAL_NAMES": os.path.join(dir, "deep/er/my.db")}
    run("name", "add", "a", "app.db", env=elsewhere)
    check(os.path.exists("deep/er/my.db") and facts("name", "list") == [], "elsewhere")
    run("status", "hyper:a", env=elsewhere)
    with open("names.db", "w", encoding="utf-8") as file:
        file.write("no database " * 100)
    error = run("log", "hyper:a", code=3).stderr
    check("names.db" in error, error)
    run("log", "app.db")  # no name is looked up for a file that is there


TESTS = (every_verb_takes_a_petname_for_a_log, name_of_a_local_database_stands_for_its_path,
         file_of_that_name_goes_first_unless_it_is_marked,
         unknown_name_is_told_with_those_that_are_near, adding_says_what_is_wrong,
         names_of_a_server_are_listed_with_their_urls,
         next_address_is_taken_when_the_first_is_out_of_reach,
         another_log_under_a_known_name_is_noticed, registry_lies_where_the_environment_says)


def main(names):
    failed, start = False, os.getcwd()
    check(os.path.exists(PROGRAM), PROGRAM)
    for test in TESTS:
        if names and test.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as directory:
            directory = os.path.realpath(directory)
            os.environ["HYPERWAL_IDENTITY"] = os.path.join(directory, "identity")
            os.chdir(directory)
            try:
                test(directory)
                print(f"ok {test.__name__}", flush=True)
            except Skip as reason:
                print(f"skip {test.__name__}: {reason}", flush=True)
            except Exception as error:  # every test is told of, whatever happens in it
                failed = True
                traceback.print_exc(file=sys.stdout)
                print(f"not ok {test.__name__}: {error}", flush=True)
            finally:
                os.chdir(start)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
