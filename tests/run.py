#!/usr/bin/env python3
"""Build the project in several ways and run all its tests; docs/TESTING.md describes it.

The last line is `N passed, M failed, K skipped`, the true sum over all suites; exit code 1 if M > 0.
"""
import argparse
import concurrent.futures
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TAIL = 120  # lines of a failed test that are shown

# What is built, with what, and which labels run there ('scripts': the suites in shell and Python).
PLANS = {
    "dev": {"preset": "dev", "labels": None, "scripts": True},
    "clang": {"preset": "clang", "labels": [], "scripts": False},
    "asan": {"preset": "asan", "labels": ["unit", "sim", "system", "interop", "fuzz"],
             "scripts": False},
    # Only what has threads: the simulator has one.
    "tsan": {"preset": "tsan", "labels": ["unit", "system"], "scripts": False,
             "match": r"^test_(env|capture|vfs|sqlite|api|wire_transport|node|network|cache|remote|thread)"},
}
SANITIZER_ENVIRONMENT = {
    "HYPERWAL_STRIDE": "11",  # tests of every n-th operation: fewer of them
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:suppressions="
                    + os.path.join(ROOT, "tests/tsan.supp"),
}


class Result:
    """What one suite said: lists of names."""

    def __init__(self, suite):
        self.suite, self.seconds, self.output = suite, 0.0, ""
        self.passed, self.failed, self.skipped = [], [], []

    def line(self):
        return (f"{'FAIL' if self.failed else 'ok  '} {self.suite:44} {len(self.passed):4} passed, "
                f"{len(self.failed)} failed, {len(self.skipped)} skipped  {self.seconds:6.1f} s")


RUN = re.compile(r"^\[ RUN      \] (.+)$")
ENDED = re.compile(r"^\[ +(OK|FAILED|SKIPPED|ERROR) +\] (.+)$")
PROTOCOL = re.compile(r"^(ok|not ok|skip) ([^:]+)(?::.*)?$")


def parse(result, text, code):
    """Count what cmocka and our own line protocol report in `text`."""
    running = None
    for line in text.splitlines():
        run, ended, own = RUN.match(line), ENDED.match(line), PROTOCOL.match(line)
        if run:
            if running:
                result.failed.append(running)
            running = run.group(1)
        elif ended and running and ended.group(2) == running:
            kind = {"OK": result.passed, "SKIPPED": result.skipped}.get(ended.group(1),
                                                                        result.failed)
            kind.append(running)
            running = None
        elif ended and ended.group(2).startswith("GROUP") and ended.group(1) != "OK":
            result.failed.append(ended.group(2))
        elif own:
            kind = {"ok": result.passed, "skip": result.skipped}.get(own.group(1), result.failed)
            kind.append(own.group(2).strip())
    if running:
        result.failed.append(f"{running} (the program ended in it)")
    if code != 0 and not result.failed:
        result.failed.append(f"the program ended with code {code}")
    if code == 0 and not (result.passed or result.failed or result.skipped):
        result.passed.append(result.suite)


def run_suite(suite, command, build, timeout, extra_environment):
    """One program with a temporary directory of its own; its left-over children are ended."""
    result = Result(suite)
    scratch = tempfile.mkdtemp(prefix="hyperwal-test-")
    environment = dict(os.environ, HW_BUILD=build, HW_SOURCE=ROOT, TMPDIR=scratch,
                       PYTHONDONTWRITEBYTECODE="1", **extra_environment)
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                     stderr=subprocess.STDOUT, env=environment, cwd=scratch,
                                     start_new_session=True)
        except OSError as error:
            result.failed.append(f"cannot start: {error}")
            result.output = str(error)
            return result
        try:
            code = child.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            code = f"timeout after {timeout} s"
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        output.seek(0)
        result.output = output.read().decode("utf-8", "replace")
    result.seconds = time.monotonic() - start
    parse(result, result.output, code)
    shutil.rmtree(scratch, ignore_errors=True)
    return result


def single(suite, name, command, cwd=ROOT):
    """A step that is one test: a build, the formatting."""
    result = Result(suite)
    start = time.monotonic()
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", check=False)
    result.seconds = time.monotonic() - start
    result.output = done.stdout
    (result.passed if done.returncode == 0 else result.failed).append(name)
    return result


def ctest_suites(build, labels):
    """(name, command, timeout) of the registered tests with one of these labels (None: all)."""
    listing = subprocess.run(["ctest", "--show-only=json-v1"], cwd=build, check=True,
                             stdout=subprocess.PIPE, text=True).stdout
    for test in json.loads(listing)["tests"]:
        properties = {p["name"]: p["value"] for p in test.get("properties", [])}
        if "command" not in test:
            continue
        if labels is None or set(labels) & set(properties.get("LABELS", [])):
            yield test["name"], test["command"], float(properties.get("TIMEOUT", 600))


def script_suites():
    for folder in ("system", "interop", "install"):
        for path in sorted(glob.glob(os.path.join(ROOT, "tests", folder, "test_*"))):
            shell = {".py": ["/usr/bin/python3"], ".sh": ["bash"]}.get(os.path.splitext(path)[1])
            if shell:
                yield f"{folder}/{os.path.basename(path)}", shell + [path], 900


def report(results, result):
    results.append(result)
    print(result.line(), flush=True)
    if not result.failed:
        return
    for name in result.failed:
        print(f"     failed: {name}")
    lines = result.output.splitlines()
    print(*("     | " + line for line in lines[-TAIL:]), sep="\n", flush=True)


def run_plan(name, arguments, results):
    plan = PLANS[name]
    build = os.path.join(ROOT, "build", plan["preset"])
    steps = [["cmake", "--preset", plan["preset"], "-DHW_WERROR=ON"],
             ["cmake", "--build", build, "-j", str(arguments.jobs), "--", "-k", "0"]]
    for step in steps:
        result = single(f"{name}: build", f"build {name}", step)
        if result.failed:
            report(results, result)
            return
    report(results, result)
    suites = [] if plan["labels"] == [] else list(ctest_suites(build, plan["labels"]))
    if plan["scripts"]:
        suites += script_suites()
    wrap = ["setarch", "-R"] if name == "tsan" else []
    environment = SANITIZER_ENVIRONMENT if name in ("asan", "tsan") else {}
    chosen = [s for s in suites
              if re.search(arguments.filter, s[0]) and re.search(plan.get("match", ""), s[0])]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        work = [pool.submit(run_suite, f"{name}: {suite}", wrap + command, build, timeout,
                            environment)
                for suite, command, timeout in chosen]
        for done in concurrent.futures.as_completed(work):
            report(results, done.result())


def run_lint(arguments, results):
    if not re.search(arguments.filter, "lint"):
        return
    for test in sorted(glob.glob(os.path.join(ROOT, "tests/lint/test_*.py"))):
        report(results, run_suite(f"lint: {os.path.basename(test)}", ["/usr/bin/python3", test],
                                  "", 300, {}))
    report(results, run_suite("lint: tidy", ["/usr/bin/python3",
                                             os.path.join(ROOT, "tests/lint/tidy.py")], "", 300, {}))
    files = [f for folder in ("libhyperwal", "replicator", "tests", "bench")
             for kind in ("c", "h")
             for f in glob.glob(os.path.join(ROOT, folder, "**", f"*.{kind}"), recursive=True)]
    report(results, single("lint: format", "sources are formatted",
                           ["clang-format", "--dry-run", "-Werror", *sorted(files)]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the dev build and lint")
    parser.add_argument("--only", default="", help="of: lint," + ",".join(PLANS))
    parser.add_argument("--filter", default="", help="suites whose name matches")
    parser.add_argument("--jobs", "-j", type=int, default=os.cpu_count() or 2)
    arguments = parser.parse_args()
    plans = ["lint", *PLANS]
    if arguments.quick:
        plans = ["lint", "dev"]
    if arguments.only:
        plans = arguments.only.split(",")
    results = []
    start = time.monotonic()
    for name in plans:
        print(f"== {name}", flush=True)
        if name == "lint":
            run_lint(arguments, results)
        elif name in PLANS:
            run_plan(name, arguments, results)
        else:
            parser.error(f"no plan '{name}'")
    counts = [sum(len(getattr(r, kind)) for r in results)
              for kind in ("passed", "failed", "skipped")]
    print(f"== {time.monotonic() - start:.0f} s")
    for result in results:
        for name in result.failed:
            print(f"failed: {result.suite}: {name}")
    print("{} passed, {} failed, {} skipped".format(*counts), flush=True)
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
