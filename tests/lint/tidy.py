#!/usr/bin/env python3
"""Checks of the sources that no compiler makes; one line a rule, `ok NAME` or `not ok NAME: why`.

    tests/lint/tidy.py [ROOT]

Standard library only.  test_tidy.py shows each rule failing.
"""
import os
import re
import sys

FUNCTION_LINES, FILE_LINES, LINE_COLUMNS = 70, 800, 100
FOLDERS = ("libhyperwal", "replicator", "tests", "bench")

# Calls that are banned in the library, where they are allowed all the same, and what to use.
LIBRARY_BANS = (
    (("malloc", "calloc", "realloc", "free", "strdup", "strndup", "asprintf"), ("base/alloc.c",),
     "hw_alloc() and hw_free() of base/alloc.h"),
    (("open", "openat", "close", "read", "write", "pread", "pwrite", "fsync", "fdatasync",
      "sync_file_range", "rename", "unlink", "mkdir", "rmdir", "ftruncate", "fallocate",
      "posix_fallocate", "stat", "fstat", "lstat", "mmap", "munmap", "fcntl", "flock", "opendir",
      "fopen", "getrandom", "getpid", "access"), ("env/env_posix.c", "env/bell.c"),
     "struct hw_env"),
    (("time", "clock_gettime", "gettimeofday", "usleep", "nanosleep", "sleep", "sched_yield"),
     ("env/env_posix.c",), "the clock and wait_word of struct hw_env"),
    (("printf", "fprintf", "puts", "fputs", "perror"), ("extension.c",), "hw_env_log() or hw_fail()"),
    (("exit", "_exit"), (), "a status: the process is the application's"),
    (("fork", "system", "popen"), (), "nothing: the library starts no process"),
)
# Banned everywhere.
GENERAL_BANS = (
    (("strcpy", "strcat", "sprintf", "vsprintf", "gets"), "snprintf() or hw_format()"),
    (("atoi", "atol", "atof"), "strtol() with its checks"),
    (("strtok", "gmtime", "localtime", "asctime", "ctime"), "the _r form"),
)


class Source:
    """One file: its path below the root, lines, and its text without comments and strings."""

    def __init__(self, root, path):
        self.path = path
        with open(os.path.join(root, path), encoding="utf-8") as file:
            self.text = file.read()
        self.lines = self.text.split("\n")
        self.comments = re.findall(r"/\*.*?\*/", self.text, re.S)
        self.code = strip(self.text)
        parts = path.split("/")
        self.in_library = parts[0] == "libhyperwal"
        self.name = "/".join(parts[1:])  # below its top folder
        self.layer = None
        if self.in_library:
            self.layer = parts[1] if len(parts) > 2 and parts[1] != "include" else "api"

    def at(self, offset):
        return f"{self.path}:{self.text.count(chr(10), 0, offset) + 1}"


def strip(text):
    """The same length, with comments, strings and characters blanked."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))
    pattern = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
    kept = re.sub(r"^#include.*$", lambda m: m.group(0).replace('"', " "), text, flags=re.M)
    return re.sub(pattern, blank, kept, flags=re.S)


def read_sources(root):
    for folder in FOLDERS:
        for place, folders, names in os.walk(os.path.join(root, folder)):
            folders[:] = sorted(f for f in folders if f not in ("node_modules", "build"))
            for name in sorted(names):
                if name.endswith((".c", ".h")):
                    yield Source(root, os.path.relpath(os.path.join(place, name), root))


def read_layers(root):
    doors, uses, headers = {}, {}, {}
    with open(os.path.join(root, "tests/lint/layers.txt"), encoding="utf-8") as file:
        for line in file:
            if not line.strip() or line.startswith("#"):
                continue
            left, right = line.split(":")
            kind, name, *rest = left.split()
            if kind == "layer":
                doors[name], uses[name] = rest, right.split()
            else:
                headers[name] = right.split()
    return doors, uses, headers


def layers(sources, root):
    """A layer includes the doors of the layers below it, and what layers.txt lets in."""
    doors, uses, headers = read_layers(root)
    for source in sources:
        for match in re.finditer(r'^#include ([<"])([^">]+)[">]', source.text, re.M):
            quote, target = match.groups()
            where, (layer, _, header) = source.at(match.start()), target.rpartition("/")
            if source.path.startswith("replicator/") and layer in doors:
                yield f"{where}: the program includes hyperwal.h and nothing else of the library"
            if not source.in_library:
                continue
            if quote == "<":
                if target in headers and source.name not in headers[target]:
                    yield f"{where}: <{target}> belongs in {' '.join(headers[target])}"
            elif layer not in doors:
                if target != "hyperwal.h" and layer not in ("", source.layer):
                    yield f"{where}: \"{target}\" is of no layer that layers.txt knows"
            elif layer != source.layer and layer not in uses[source.layer]:
                yield f"{where}: {source.layer} may not use {layer}"
            elif layer != source.layer and "*" not in doors[layer] and header not in doors[layer]:
                yield f"{where}: \"{target}\" is private; the door is {' '.join(doors[layer])}"


def calls(source, names):
    pattern = r"(?<![\w.>])(?:%s)\s*\(" % "|".join(names)
    for match in re.finditer(pattern, source.code):
        before = source.code[:match.start()].rsplit("\n", 1)[-1]
        if re.search(r"(struct|enum)\s+$|\w\s+\**$", before) and "return" not in before \
                and "do " not in before and "else" not in before:
            continue  # a declaration
        yield match


def banned(sources, _root):
    """Memory, files, time and output go through their doors."""
    for source in sources:
        for names, instead in GENERAL_BANS:
            if source.path.startswith("tests/sim") and "strcpy" in names:
                names = tuple(n for n in names if n != "strcpy")
            for match in calls(source, names):
                yield f"{source.at(match.start())}: {match.group(0)}...): use {instead}"
        if not source.in_library:
            continue
        for names, places, instead in LIBRARY_BANS:
            if source.name in places:
                continue
            for match in calls(source, names):
                yield f"{source.at(match.start())}: {match.group(0)}...): use {instead}"


def descriptors(sources, _root):
    """No descriptor of our own is opened for a database or its -shm: closing it drops all locks."""
    for source in sources:
        if not source.in_library:
            continue
        for match in re.finditer(r"ops->open\(([^;]*);", source.text):
            if re.search(r"-shm|shm_path|database_path|db_path", match.group(1)):
                yield f"{source.at(match.start())}: reach it through xOpen of the base VFS"


def sizes(sources, _root):
    """Functions of 70 lines, files of 800, lines of 100 columns at the most."""
    for source in sources:
        if len(source.lines) - 1 > FILE_LINES:
            yield f"{source.path}: {len(source.lines) - 1} lines; split it (at most {FILE_LINES})"
        start = None
        for number, line in enumerate(source.lines, 1):
            if len(line) > LINE_COLUMNS:
                yield f"{source.path}:{number}: {len(line)} columns (at most {LINE_COLUMNS})"
            if line == "{":
                start = number
            elif line == "}" and start is not None:
                if number - start + 1 > FUNCTION_LINES:
                    yield (f"{source.path}:{start}: a function of {number - start + 1} lines "
                           f"(at most {FUNCTION_LINES})")
                start = None


def blanks(sources, _root):
    """No tabs, no trailing blanks, a newline at the end."""
    for source in sources:
        for number, line in enumerate(source.lines, 1):
            if "\t" in line or line != line.rstrip():
                yield f"{source.path}:{number}: a tab or a trailing blank"
        if not source.text.endswith("\n"):
            yield f"{source.path}: no newline at the end"


def promises(sources, _root):
    """No work left for later without the number of an issue."""
    for source in sources:
        for number, line in enumerate(source.lines, 1):
            if re.search(r"\b(FIX" r"ME|XXX)\b|\bTO" r"DO\b(?!\(#\d+\))", line):
                yield f"{source.path}:{number}: do it, or open an issue and give its number"


def names_in_comments(sources, root):
    """Each function that a comment names exists."""
    known = set()
    for source in sources:
        known.update(re.findall(r"\b\w+\b", source.code))
    for source in sources:
        for comment in source.comments:
            for name in re.findall(r"\b((?:hw|hyperwal|sim)_\w+)\(", comment):
                if name not in known:
                    yield f"{source.path}: a comment names {name}(), which does not exist"


def guards(sources, _root):
    """A header's guard is its path."""
    for source in sources:
        if not source.path.endswith(".h"):
            continue
        path = re.sub(r"^include/", "", source.name)
        if not source.in_library:
            path = os.path.basename(path)
        wanted = re.sub(r"\W", "_", path).upper()
        match = re.search(r"^#ifndef (\w+)\n#define \1$", source.text, re.M)
        guard = match.group(1) if match else ""
        if not source.in_library and guard.endswith(wanted):
            continue
        if guard not in (wanted, "HW_" + wanted):
            yield f"{source.path}: the guard is not HW_{wanted}"


def heads(sources, _root):
    """A file begins with a comment that says what it is."""
    for source in sources:
        if not source.text.startswith("/*"):
            yield f"{source.path}: begins without a comment"


def fuzzed(sources, _root):
    """Each decoder of bytes of any length is reached by a fuzz target."""
    reached = "\n".join(s.code for s in sources if s.path.startswith("tests/fuzz/"))
    for source in sources:
        if not source.in_library or not source.path.endswith(".h"):
            continue
        for match in re.finditer(r"\b(hw_\w+_(?:decode|peek))\(([^,)]*)", source.code):
            name, first = match.groups()
            if not re.search(r"uint8_t|hw_slice|hw_cursor|hw_group_coder|_decoder", first):
                continue
            if "[" not in first and not re.search(r"\b%s\b" % name, reached):
                yield f"{source.at(match.start())}: no file of tests/fuzz calls {name}()"


RULES = (layers, banned, descriptors, sizes, blanks, promises, names_in_comments, guards, heads,
         fuzzed)


def check(root):
    """Rule name to list of problems."""
    sources = list(read_sources(root))
    return {rule.__name__: list(rule(sources, root)) for rule in RULES}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(here))
    failed = False
    for rule, problems in check(root).items():
        for problem in problems:
            print(f"# {problem}")
        failed |= bool(problems)
        print(f"not ok tidy {rule}: {len(problems)} problems" if problems else f"ok tidy {rule}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
