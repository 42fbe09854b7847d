#!/usr/bin/python3
"""What the man pages, --help and the documents say is what there is.

One line a test (docs/TESTING.md).  Names given as arguments run only those tests.
"""
import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback

SOURCE = os.environ.get("HW_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
BUILD = os.path.abspath(os.environ.get("HW_BUILD", "build/dev"))
PROGRAM = os.path.join(BUILD, "hyperwal")
VERBS = ("init", "serve", "follow", "restore", "log", "status", "verify", "snapshot", "label",
         "prune", "promote", "key", "name")
PAGES = ("hyperwal.1", "hyperwal.3", "hyperwal-uri.7")


class Skip(Exception):
    pass


def check(condition, *facts):
    if not condition:
        raise AssertionError("; ".join(str(fact) for fact in facts))


def source(*names):
    with open(os.path.join(SOURCE, *names), encoding="utf-8") as file:
        return file.read()


def run(*args):
    done = subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=30,
                          stdin=subprocess.DEVNULL, check=False)
    check(done.returncode == 0, args, done.returncode, done.stderr[-300:])
    return done.stdout


def plain(page):
    """The text of a page without macros, \\- and quotes."""
    words = []
    for line in source("docs/man", page).splitlines():
        if line.startswith("."):
            line = " ".join(line.split()[1:])
        words.append(re.sub(r"\b(Cm|Fl|Ar|Li|Op|Pa|Fn|Dv|Ev|Ns|No|Pq) ", "", line))
    return "\n".join(words)


def synopsis():
    """Verb to its options and arguments, from the SYNOPSIS of hyperwal(1)."""
    text = source("docs/man/hyperwal.1").split(".Sh SYNOPSIS")[1].split(".Sh DESCRIPTION")[0]
    found = {}
    for part in text.split(".Nm\n")[1:]:
        verb = re.search(r"\.Cm (\S+)", part).group(1)
        options = {"-" + name for name in re.findall(r"Fl (\S+)", part)}  # mdoc adds the other -
        names = [name for line in re.findall(r"^\.Ar (.*)$", part, re.M)
                 for name in re.findall(r"[A-Z]+", line)]
        found[verb] = (options, names)
    return found


# ------------------------------------------------------------------------------- the tests

def every_page_is_clean():
    if shutil.which("groff") is None:
        raise Skip("there is no groff")
    for page in PAGES:
        done = subprocess.run(["groff", "-ww", "-mandoc", "-Tutf8",
                               os.path.join(SOURCE, "docs/man", page)],
                              capture_output=True, text=True, timeout=30, check=False)
        check(done.returncode == 0 and done.stderr == "", page, done.stderr[:300])


def synopsis_and_help_have_the_same_options():
    pages, shown = synopsis(), run("--help")
    check(set(pages) == set(VERBS), sorted(pages))
    for verb in VERBS:
        check(re.search(rf"^  {verb} ", shown, re.M), f"--help does not name {verb}")
        text = run(verb, "--help")
        usage = text.split("\n\n")[0]
        options = set(re.findall(r"--[a-z-]+", usage))
        check(options == pages[verb][0], verb, sorted(options), sorted(pages[verb][0]))
        names = re.findall(r"\b[A-Z]+\b", re.sub(r"\[[^]]*\]|--\S+ \S+", "", usage))
        check(names == pages[verb][1], verb, names, pages[verb][1])
        listed = set(re.findall(r"^  (--[a-z-]+)", text, re.M))
        check(listed <= options, verb, "described but not in the usage", sorted(listed - options))


def options_of_the_program_are_those_of_its_help():
    """No verb takes an option that its --help does not name."""
    for name in sorted(os.listdir(os.path.join(SOURCE, "replicator"))):
        if not name.startswith("verb_") or not name.endswith(".c"):
            continue
        text = source("replicator", name)
        table = set(re.findall(r'^\s*\{"([a-z-]+)", ', text, re.M))
        hidden = {"help"}
        for option in table - hidden:
            check("--" + option in text, f"replicator/{name}: --{option} is in no help")


def every_function_of_the_header_is_in_section_3():
    header = source("libhyperwal/include/hyperwal.h")
    functions = set(re.findall(r"^HYPERWAL_API [^;(]*?\b(hyperwal_\w+)\(", header, re.M))
    page = set(re.findall(r"^\.Fn (hyperwal_\w+)", source("docs/man/hyperwal.3"), re.M))
    check(len(functions) > 20, len(functions))
    check(functions <= page, "missing", sorted(functions - page))
    check(page <= functions, "no such function", sorted(page - functions))
    exported = set(re.findall(r"\bhyperwal_\w+", source("libhyperwal/hyperwal.symbols")))
    check(functions <= exported, "not exported", sorted(functions - exported))


def events_that_ask_for_something_are_in_the_operations():
    """What the library logs as a warning or an error, which the program shows."""
    page, count = source("docs/OPERATIONS.md"), 0
    for folder, _, names in os.walk(os.path.join(SOURCE, "libhyperwal")):
        for name in names:
            if not name.endswith(".c"):
                continue
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                text = file.read()
            for event in re.findall(r'HW_LOG_(?:WARN|ERROR),[^;"]*"event=([a-z_]+)', text):
                if event == "alarm":  # has a chapter
                    continue
                count += 1
                check(f"`{event}`" in page, name, f"{event} is not in docs/OPERATIONS.md")
    check(count > 30, count)


def every_pragma_and_parameter_is_in_section_7():
    page = source("docs/man/hyperwal-uri.7").split(".Ss PRAGMAs")[1].split(".Pp\nEvery other")[0]
    told = set(re.findall(r"hyperwal_[a-z]+", source("libhyperwal/vfs/pragma.c").split(
        "there are", 1)[1].split(",\n        ", 1)[0].split(";")[0]))
    listed = set(re.findall(r"^\.It Cm (hyperwal_[a-z]+)", page, re.M))
    check(told == listed and len(told) == 8, sorted(told), sorted(listed))
    parameters = set(re.findall(r'"([a-z_]+)"', source("libhyperwal/vfs/uri.c")))
    names = re.findall(r"Cm ([a-z_]+)= ", source("docs/man/hyperwal-uri.7").split(".Ss PRAGMAs")[0])
    check({"log", "durability", "seq", "time", "label"} <= set(names), names)
    for name in set(names) - {"immutable", "nolock"}:  # these are SQLite's
        check(name in parameters, f"parameter {name} is in the page only")


def fields_of_json_are_in_section_1():
    with contextlib.closing(sqlite3.connect("a.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE t(a)")
    said = {"init": run("init", "a.db", "--json"), "label": run("label", "a.db", "x", "--json"),
            "snapshot": run("snapshot", "a.db", "--json"),
            "status": run("status", "a.db", "--json"), "log": run("log", "a.db", "--json"),
            "verify": run("verify", "a.db", "--deep", "--json"),
            "follow": run("follow", "a.db", "r.db", "--once", "--json"),
            "restore": run("restore", "a.db", "o.db", "--json"),
            "prune": run("prune", "a.db", "--keep", "0", "--dry-run", "--json"),
            "key": run("key", "a.db", "--json")}
    said["status"] += run("status", "r.db", "--json")
    said["verify"] += run("verify", "r.db", "--json")
    section = plain("hyperwal.1").split("\nJSON\n")[1].split("\nFILES\n")[0]
    for verb, lines in said.items():
        help_text = run(verb, "--help")
        fields = {name for line in lines.splitlines() for name in json.loads(line)}
        for field in fields:
            check(re.search(rf"\b{field}\b", section), f"{verb}: {field} is not in hyperwal(1)")
            check(re.search(rf"\b{field}\b", help_text), f"{verb}: {field} is not in its --help")


def files_that_the_documents_name_exist():
    known = {"test_LAYER_FILE.c", "fuzz_X.c", "sqlite3ext.h"}
    tree = [os.path.relpath(os.path.join(place, name), SOURCE)
            for top in ("libhyperwal", "replicator", "tests", "bench", "scripts", "docs")
            for place, _, names in os.walk(os.path.join(SOURCE, top)) for name in names]
    folder = os.path.join(SOURCE, "docs/decisions")
    pages = ["README.md", "docs/ARCHITECTURE.md", "docs/FORMAT.md", "docs/TESTING.md",
             "bench/README.md"] + ["docs/decisions/" + name for name in os.listdir(folder)]
    for page in pages:
        text = source(page)
        for name in re.findall(r"[`(]([\w/-]+\.(?:c|h|py|md))[`)]", text):
            found = any(path == name or path.endswith("/" + name) for path in tree)
            check(found or name.rsplit("/", 1)[-1] in known | {"README.md"}, page, name)
        for function in re.findall(r"`(hw_\w+|hyperwal_\w+)\(\)`", text):
            check(any(function + "(" in source(path) for path in tree
                      if path.startswith("libhyperwal") and path.endswith(".h")), page, function)


TESTS = (every_page_is_clean, synopsis_and_help_have_the_same_options,
         options_of_the_program_are_those_of_its_help,
         every_function_of_the_header_is_in_section_3,
         events_that_ask_for_something_are_in_the_operations, every_pragma_and_parameter_is_in_section_7,
         fields_of_json_are_in_section_1, files_that_the_documents_name_exist)


def main(names):
    failed, start = False, os.getcwd()
    for test in TESTS:
        if names and test.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
            try:
                test()
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
