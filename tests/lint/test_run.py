#!/usr/bin/env python3
"""The runner counts what suites report, and nothing that ends badly counts as passed."""
import os
import select
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
sys.dont_write_bytecode = True
import run  # noqa: E402

CMOCKA = """[==========] Running 4 test(s).
[ RUN      ] good
[       OK ] good
[ RUN      ] bad
[  ERROR   ] --- 1 != 2
[   LINE   ] --- a.c:3: error: Failure!
[  FAILED  ] bad
[ RUN      ] left_out
[  SKIPPED ] left_out
[ RUN      ] last
[       OK ] last
[==========] 4 test(s) run.
[  PASSED  ] 2 test(s).
[  SKIPPED ] 1 test(s), listed below:
[  SKIPPED ] left_out
[  FAILED  ] 1 test(s), listed below:
[  FAILED  ] bad

 1 FAILED TEST(S)
"""

# name: output, exit code, expected numbers of passed, failed, skipped
CASES = {
    "cmocka's results are each counted once": (CMOCKA, 1, (2, 1, 1)),
    "a test that the program died in has failed":
        ("[ RUN      ] good\n[       OK ] good\n[ RUN      ] dies\n", -11, (1, 1, 0)),
    "a program that ends badly after its tests has failed":
        ("[ RUN      ] good\n[       OK ] good\nleak found\n", 23, (1, 1, 0)),
    "a failed group setup is a failure":
        ("[==========] Running 1 test(s).\n[  FAILED  ] GROUP SETUP\n[  ERROR   ] x\n", 1, (0, 1, 0)),
    "the line protocol is understood":
        ("ok one\nnot ok two: why: really\nskip three: no tool\nother words\nok four\n", 1,
         (2, 1, 1)),
    "a silent program that ends well is one test": ("", 0, (1, 0, 0)),
    "a silent program that ends badly is one failure": ("", 2, (0, 1, 0)),
    "words that look like a result do not count": ("ok: fine\nthis is ok\n  ok x\n", 0, (1, 0, 0)),
    "a suite that hung has failed": ("ok one\n", "timeout after 5 s", (1, 1, 0)),
}


def tell(name, good, why=""):
    print(f"ok {name}" if good else f"not ok {name}: {why}")
    return good


def counts(result):
    return len(result.passed), len(result.failed), len(result.skipped)


def parsed(name, output, code, expected):
    result = run.Result("suite")
    run.parse(result, output, code)
    return tell(name, counts(result) == expected, counts(result))


def suite(script, timeout=20):
    return run.run_suite("suite", ["bash", "-c", script], "/nowhere", timeout, {"EXTRA": "yes"})


def has_ended(process_id):
    """Within five seconds: a process that was killed takes a moment to go."""
    try:
        descriptor = os.pidfd_open(process_id)
    except ProcessLookupError:
        return True
    ready, _, _ = select.select([descriptor], [], [], 5)
    os.close(descriptor)
    return bool(ready)


def main():
    done = [parsed(name, *case) for name, case in CASES.items()]
    result = suite('echo "ok $HW_BUILD $EXTRA"; test -w "$TMPDIR" && echo ok tmp')
    done.append(tell("a suite gets its environment",
                     result.passed == ["/nowhere yes", "tmp"], result.output))
    result = suite("echo ok started; sleep 600", timeout=0.5)
    done.append(tell("a suite that takes too long is ended", counts(result) == (1, 1, 0),
                     result.output))
    result = suite("sleep 600 & echo ok $!")
    done.append(tell("what a suite leaves behind is ended", has_ended(int(result.passed[0])),
                     result.output))
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
